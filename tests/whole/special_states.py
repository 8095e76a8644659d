"""Requests and tenants in special states: extensions, a later start, break-glass, approval steps, pre-approvals."""

import json
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from catalogue.context_schema import ContextSchema
from catalogue.service_catalogue import Service
from harness.people import HERE, SETTINGS, World
from harness.stage import setting, unbound
from lockbox.admin import exclusions, legal_holds, pre_approvals, tenant_data
from lockbox.admin.pre_approvals import PreApprovalInput
from lockbox.audit.events import THE_CLOCK
from lockbox.database import now
from lockbox.facts.enumerations import Severity
from lockbox.identity import directory
from lockbox.identity.directory import DirectoryEntry
from lockbox.requests import after_reviews, extend, submit
from lockbox.requests.after_reviews import FindingInput
from lockbox.requests.extend import ExtensionInput
from lockbox.requests.lifecycle import Action, AfterReviewFinding
from lockbox.requests.models import AccessRequest
from tests.database.tenancy import does, manages
from tests.policy_setup import group, lay_down

HOUR = 3600
SERVICE, DECLARING = "exchange-online", "onedrive"
GLASS: dict[str, Any] = {"break_glass_services": (SERVICE,), "break_glass_monthly": 20}
"""The terms of a policy that switch break-glass on."""
WHY_NOW = "Mail is down for all of Contoso since 06:10, and nobody there can be reached."
A_DAY_LATER = text("""
UPDATE after_reviews SET opened_at = opened_at - interval '25 h', due_at = due_at - interval '25 h'
WHERE request_id = :id
""")
PARAMETERS = {
    "properties": {
        "environment": {"type": "string", "enum": ["production", "staging"], "title": "Environment"},
        "rows": {"type": "integer", "minimum": 1, "maximum": 10_000, "title": "Rows"},
        "dry_run": {"type": "boolean", "title": "Dry run"},
    },
    "required": ["environment"],
}
TITLE = "    title: OneDrive\n"
EXCLUSIONS = """\
Lockbox does not cover:

1. Incidental exposure: an engineer who repairs the service itself may see content that cannot be kept out of sight.
2. Demands by law that forbid us to tell you. We contest them where we can.
3. Backups on tape, which are encrypted with a key that only two people of ours hold together."""


def declared(catalogue: str) -> str:
    """Return the catalogue's text, with declared parameters for OneDrive."""
    return catalogue.replace(TITLE, f"{TITLE}    context: {json.dumps(PARAMETERS)}\n", 1)


def opened(world: World, **changes: Any) -> AccessRequest:
    return approved(world, world.fresh(**changes))


def approved(world: World, request: AccessRequest) -> AccessRequest:
    return world.act("ann", Action.APPROVE, request.id)


def extension(world: World, **changes: Any) -> AccessRequest:
    """Extend a window of one hour by two hours, and return the extension."""
    first = opened(world, **({"access_window": HOUR} | changes))
    wanted = ExtensionInput(2 * HOUR, "The index takes longer than I thought: 40 % are done.")
    with world.db.transaction() as session:
        services = SETTINGS.catalogue.services
        return extend.extend(session, world.people["erin"], HERE, first.id, wanted, services).request


def extended(world: World, request: AccessRequest) -> AccessRequest:
    with setting(world.db).transaction() as session:
        found = session.orm.get_one(AccessRequest, request.extends)
        session.orm.expunge(found)
        return found


def later(world: World, **changes: Any) -> AccessRequest:
    return world.fresh(not_before=_at(world) + timedelta(days=2), access_window=HOUR, **changes)


def held_back(world: World, request: AccessRequest) -> AccessRequest:
    """Approve a request with a later start, and make the policy stricter before that start."""
    opened = approved(world, request)
    lay_down(world, quorum=2)
    return opened


def emergency(world: World, **changes: Any) -> AccessRequest:
    said: dict[str, Any] = {
        "break_glass": True,
        "access_window": 1800,
        "justification": "All mail is rejected since 06:10.",
    }
    return world.fresh(**(said | changes))


def by_break_glass(world: World, **changes: Any) -> AccessRequest:
    return world.act("max", Action.BREAK_GLASS, emergency(world, **changes).id, comment=WHY_NOW)


def awaiting_finding(world: World, **changes: Any) -> AccessRequest:
    return world.act("erin", Action.COMPLETE, by_break_glass(world, **changes).id)


def overdue(world: World, **changes: Any) -> AccessRequest:
    """Let a day pass without a finding about break-glass."""
    request = awaiting_finding(world, **changes)
    with unbound(world.db).begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(A_DAY_LATER, {"id": request.id})
    return request


def found_unjustified(world: World, **changes: Any) -> AccessRequest:
    request = awaiting_finding(world, **changes)
    said = FindingInput(AfterReviewFinding.NOT_JUSTIFIED, "Ann was on call and could have been asked.")
    with world.db.transaction() as session:
        after_reviews.give_finding(session, world.people["ann"], HERE, request.id, said)
    return request


def stepwise(world: World) -> AccessRequest:
    """Submit a request that one group must approve after another."""
    groups = {"security": group(world, "abe"), "legal": group(world, "ann", "amir")}
    stages = [{"group": "security"}, {"group": "legal", "order": 2}]
    lay_down(world, approval_window=HOUR, approval_reminders=[], groups=groups, stages=stages)
    return world.fresh()


def first_step(world: World, request: AccessRequest) -> AccessRequest:
    return world.act("abe", Action.APPROVE, request.id)


def described(world: World, **changes: Any) -> AccessRequest:
    """Submit a request to export by an engineer in the vendor's directory, with all parameters and severity S1."""
    erin = world.people["erin"]
    entry = DirectoryEntry("Fabrikam Polska sp. z o.o.", "PL", "DE")
    with setting(world.db).transaction() as session:
        directory.keep(session, THE_CLOCK, erin.person_id, entry, source="directory", as_of=now(session))
    asked: dict[str, Any] = {
        "service": DECLARING,
        "resources": ["drive:carla@contoso.example"],
        "actions": ["export"],
        "severity": Severity.S1,
        "context": {"environment": "production", "rows": 5000, "dry_run": False},
    }
    known = SETTINGS.catalogue.services
    schema = ContextSchema.model_validate_json(json.dumps(PARAMETERS))
    services = known | {DECLARING: Service(title=known[DECLARING].title, context=schema)}
    with world.db.transaction() as session:
        return submit.submit(session, erin, HERE, world.submission(**(asked | changes)), services).request


def pre_approval(world: World, resource: str, *approvers: str, **changes: Any) -> UUID:
    usual: dict[str, Any] = {
        "service": SERVICE,
        "resource": resource,
        "actions": ["read"],
        "reason_code": "support_case",
        "access_window": 1800,
        "max_uses": 5,
        "ends_at": _at(world) + timedelta(days=7),
    }
    wanted = PreApprovalInput(**(usual | changes))
    which = does(world, "tara", pre_approvals.propose, wanted, SETTINGS.catalogue.services).row.id
    for who in approvers:
        does(world, who, pre_approvals.approve, which)
    return which


def pre_approved(world: World) -> AccessRequest:
    pre_approval(world, "mailbox:*@contoso.example", "ann")
    return world.fresh(access_window=900)


def pre_approvals_of_each_kind(world: World) -> None:
    """Make a pre-approval that is proposed, one in force, one that is used up and one that was revoked."""
    pre_approval(world, "mailbox:sales-*@contoso.example", comment="The sales team moves this week.")
    pre_approval(world, "mailbox:support-*@contoso.example", "ann")
    pre_approval(world, "mailbox:board@contoso.example", "amir", max_uses=1)
    world.submit(resources=["mailbox:board@contoso.example"], access_window=900)
    revoked = pre_approval(world, "mailbox:legal-*@contoso.example", "ann")
    does(world, "amir", pre_approvals.revoke, revoked)


def held(world: World) -> None:
    """Set legal holds of both sides on a tenant that has its own retention time."""
    does(world, "tara", tenant_data.keep_for, 400, most=None)
    does(world, "tara", legal_holds.hold, "A dispute about invoices of 2025.")
    does(world, "olga", legal_holds.hold, "Our counsel asks for it.")


def leaving(world: World) -> None:
    does(world, "tara", tenant_data.ask_to_leave)


def exclusions_stated(world: World) -> None:
    manages(world, "olga", exclusions.state, EXCLUSIONS)


def exclusions_acknowledged(world: World) -> None:
    exclusions_stated(world)
    with world.db.transaction() as session:
        version = exclusions.read(session, world.people["tara"]).version
    does(world, "tara", exclusions.acknowledge, version=version)


def nothing(_: World) -> None:
    """Leave a tenant as it is."""


def everything(world: World) -> None:
    """Fill the lists of a world whose policy allows break-glass."""
    extension(world)
    approved(world, later(world))
    by_break_glass(world)
    emergency(world)
    awaiting_finding(world)
    overdue(world)


def _at(world: World) -> datetime:
    with world.db.transaction() as session:
        return now(session)
