"""The sample data of `make run`."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from config.settings import Settings
from devstack import sample, stack
from devstack.embedded.folder import write_private
from devstack.sample import Sample
from devstack.stack import StackPlan
from lockbox.audit.events import Origin
from lockbox.audit.log import signing_keys
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.facts.enumerations import Reason, State
from lockbox.identity import authentication
from lockbox.identity.keyring import ApprovalKeys
from lockbox.requests import decide, request_list, submit
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.request_input import RequestInput
from lockbox.requests.request_list import RequestFilter
from lockbox.requests.submit import SubmissionLimits
from lockbox.schedule import Schedule

PLAYGROUND = "playground.json"
HERE = Origin("api", "127.0.0.1", "make run")
WAITING = (State.REVIEWING, State.PENDING, State.ACTIVE)
WINDOW = 600
"""In seconds."""


@dataclass(frozen=True)
class DemoScene:
    service: str
    resource: str
    why: str
    case: str
    done: tuple[tuple[str, Action], ...] = ()
    comments: dict[str, str] = field(default_factory=dict)


SCENES = (
    DemoScene(
        "sharepoint-online",
        "site:finance",
        "Search finds nothing in this library since the last update.",
        "CASE-1041",
        (("max", Action.ENDORSE), ("amir", Action.DENY)),
        {"max": "Reproduced with a copy; only this library is left.", "amir": "Not before the audit is over."},
    ),
    DemoScene(
        "exchange-online",
        "mailbox:carla@{tenant}.example",
        "Mails to this mailbox bounce since this morning.",
        "CASE-1042",
        (("max", Action.ENDORSE),),
        {"max": "Seen in the logs of the gateway."},
    ),
    DemoScene("onedrive", "drive:marketing", "Files are synchronised twice.", "CASE-1043"),
)


def set_up(plan: StackPlan, seeded: Sample, settings: Settings) -> None:
    """Submit a few requests and answer them, unless Erin, the sample engineer, has open requests."""
    approvals = ApprovalKeys(signing_keys.read([plan.keys / stack.APPROVAL_KEY]))
    db = Database(make_engine(plan.database_url, role="scene"), Schedule(plan.redis_url), keys=ProcessKeys(approvals))
    try:
        if not _is_open(db, plan, seeded):
            for scene in _possible(settings):
                _play(db, plan, seeded, settings, scene)
    finally:
        db.dispose()


def _possible(settings: Settings) -> list[DemoScene]:
    services = settings.catalogue.services
    return [scene for scene in SCENES if scene.service in services and "read" in services[scene.service].actions]


def write_playground(path: Path, plan: StackPlan, seeded: Sample) -> None:
    assert plan.servers is not None  # noqa: S101 - the caller has checked it
    parts = [(key, name, email, role) for key, name, email, role in sample.VENDOR]
    parts += [(key, name, f"{key}@{seeded.tenant}.example", role) for key, name, role in sample.CUSTOMER]
    people = [
        {
            "key": key,
            "id": str(seeded.people[key]),
            "name": name,
            "email": email,
            "role": role.value,
            "token": seeded.tokens[key],
        }
        for key, name, email, role in parts
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(
        path, json.dumps({"tenant": seeded.tenant, "maildir": str(plan.servers.maildir), "people": people}, indent=1)
    )


def _is_open(db: Database, plan: StackPlan, seeded: Sample) -> bool:
    for state in WAITING:
        with db.transaction() as session:
            caller = authentication.authenticate_token(session, seeded.tokens["erin"], environment=plan.environment)
            if request_list.page(session, caller, RequestFilter(state=state), cursor=None, most=1).entries:
                return True
    return False


def _play(db: Database, plan: StackPlan, seeded: Sample, settings: Settings, scene: DemoScene) -> None:
    asked = RequestInput(
        tenant=seeded.tenant,
        service=scene.service,
        resources=[scene.resource.format(tenant=seeded.tenant)],
        actions=["read"],
        reason_code=Reason.SUPPORT_CASE,
        justification=scene.why,
        case_ref=scene.case,
        access_window=WINDOW,
    )
    limits = SubmissionLimits(settings.submissions_per_person, settings.submissions_per_tenant)
    with db.transaction() as session:
        caller = authentication.authenticate_token(session, seeded.tokens["erin"], environment=plan.environment)
        request = submit.submit(session, caller, HERE, asked, settings.catalogue.services, limits=limits).request
    for who, action in scene.done:
        with db.transaction() as session:
            caller = authentication.authenticate_token(session, seeded.tokens[who], environment=plan.environment)
            decide.act(session, caller, HERE, request.id, DecisionInput(action, scene.comments.get(who)))
