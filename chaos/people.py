"""Everyone on the stage: customers with their people and the vendor's, gateways, and the webhooks' receivers."""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx

from catalogue.load import read_catalogue
from devstack import sample
from devstack.stack import StackPlan
from harness.network import EventLoopThread
from harness.people import SERVICE, add_endpoint
from harness.webhook_receiver import WebhookReceiver
from lockbox.admin.exclusions import EVERYBODY
from lockbox.database import UnitOfWork, now
from lockbox.facts.enumerations import Mode
from lockbox.identity import api_tokens, tenants
from lockbox.identity.api_tokens import TokenTerms
from lockbox.identity.models import ExclusionsVersion
from lockbox.identity.roles import BOUND_TO, Role, Scope, Side
from lockbox.owner_transaction import as_owner
from lockbox.requests.policy_rules import Policy

ANSWER_SECONDS = 4
ACCESS_SECONDS = 4
CALM_SECONDS = 3600
GATED_ANSWER_SECONDS = 10
QUICK: dict[str, object] = {
    "vendor_review": False,
    "review_window": ANSWER_SECONDS,
    "approval_window": ANSWER_SECONDS,
    "access_ceiling": ACCESS_SECONDS,
    "approval_reminders": (),
    "review_reminders": (),
    "report_on_close": False,
}
TALKATIVE: dict[str, object] = {
    "vendor_review": True,
    "quorum": 2,
    "approval_reminders": (50,),
    "review_reminders": (50,),
    "closing_warning": 1,
    "report_on_close": True,
}
GATED: dict[str, object] = QUICK | {
    "approval_window": GATED_ANSWER_SECONDS,
    "access_ceiling": CALM_SECONDS,
    "closing_warning": 2,
}
BY_BREAK_GLASS: dict[str, object] = QUICK | {"break_glass_services": [SERVICE]}
STOPPING: dict[str, object] = BY_BREAK_GLASS | {"break_glass_monthly": 20}
OFTEN = 1
"""How many times within 30 days the urgent customer allows break-glass."""
STEPS = {"first": "ann", "then": "amir"}
"""The groups of the stepwise customer; their steps come in this order."""
DESK, HELPDESK = "desk", "helpdesk"
"""The service account of the ticket system, and the system."""
EXCLUSIONS = 1
"""The version of the exclusions that is in force."""
CATALOGUE = Path(__file__).with_name("catalogue.yaml")
SERVICES = tuple(read_catalogue(CATALOGUE).services)
ENGINEERS = ("erin", "eve")
"""The engineers who call at the gate and the guard, by their names in the identity map."""
REASON = f"Quagga {secrets.token_hex(4)}: the mailbox does not open"
COMMENT = f"Okapi {secrets.token_hex(4)}: as discussed"


@dataclass(frozen=True)
class ChaosCustomer:
    """One customer: its name and id, everyone's ids and tokens, and who has to approve.

    Each of `approvers` gives one approval of the quorum. `is_reviewed` is whether a manager of the vendor comes
    first; if there are no `approvers`, the manager alone opens the window. `is_calm` is whether its approval window
    is an hour, and `is_suspended_at_times` whether an operator suspends it in stories.
    """

    slug: str
    tenant_id: UUID
    people: Mapping[str, UUID]
    tokens: Mapping[str, str]
    approvers: tuple[str, ...]
    is_reviewed: bool
    is_calm: bool = False
    is_suspended_at_times: bool = False


@dataclass(frozen=True)
class ChaosPeople:
    """Everyone. `hooks` are the endpoints: the vendor's first, then one for each customer.

    Windows at the `gated` customers are probed at the gate and the guard; the last of these customers is suspended at
    times. `gateways` are the service accounts of the gate and the guard.
    """

    quick: Sequence[ChaosCustomer]
    calm: ChaosCustomer
    hooks: Sequence[WebhookReceiver]
    gated: Sequence[ChaosCustomer] = ()
    gateways: Sequence["GatewayAccount"] = ()

    @property
    def customers(self) -> Sequence[ChaosCustomer]:
        """All customers."""
        return (*self.quick, self.calm, *self.gated)

    def gateway_token(self, scope: Scope) -> str:
        """Return the token of the gateway with this scope."""
        return next(gateway.token for gateway in self.gateways if gateway.scope is scope)

    def engineers(self) -> Mapping[UUID, str]:
        """Return the names by which gateways know engineers."""
        return {self.gated[0].people[name]: name for name in ENGINEERS}

    def private(self) -> Iterator[str]:
        """Yield what must be in no log and in no message: tokens, secrets, reasons, comments and addresses."""
        yield from (REASON.split(":", maxsplit=1)[0], COMMENT.split(":", maxsplit=1)[0], "@vendor.example")
        for customer in self.customers:
            yield f"@{customer.slug}.example"
            yield from (token.rpartition("_")[2] for token in customer.tokens.values())
        yield from (gateway.token.rpartition("_")[2] for gateway in self.gateways)
        yield from (hook.secret.rpartition("_")[2] for hook in self.hooks)


@dataclass(frozen=True)
class GatewayAccount:
    """The service account of the gateway or the guard."""

    person_id: UUID
    scope: Scope
    token: str


def gather(plan: StackPlan, loop: EventLoopThread) -> ChaosPeople:
    """Write everyone into the database, and open the endpoints."""
    end = secrets.token_hex(3)
    hooks = [WebhookReceiver(path="/chaos/") for _ in range(11)]
    for hook in hooks:
        loop.do(hook.open())
    scripts = (
        ("enforcing", QUICK, Mode.ENFORCE, ("ann",), False, False),
        ("talkative", QUICK | TALKATIVE, Mode.ENFORCE, ("ann", "amir"), True, False),
        ("observing", QUICK, Mode.OBSERVE, (), True, False),
        ("stepwise", QUICK, Mode.ENFORCE, tuple(STEPS.values()), False, False),
        ("urgent", BY_BREAK_GLASS | {"break_glass_monthly": OFTEN}, Mode.ENFORCE, ("ann",), False, False),
        ("owing", BY_BREAK_GLASS, Mode.ENFORCE, ("ann",), False, False),
        ("stopping", STOPPING, Mode.ENFORCE, ("ann",), False, False),
        ("calm", QUICK | {"approval_window": CALM_SECONDS}, Mode.ENFORCE, ("ann",), False, True),
        ("gated", GATED, Mode.ENFORCE, ("ann",), False, False),
        ("suspended", GATED, Mode.ENFORCE, ("ann",), False, False),
    )
    customers = []
    with as_owner(plan.owner_database_url) as session:
        hooks[0].secret = add_endpoint(session, hooks[0].url, None)
        for (name, terms, mode, approvers, reviewed, calm), hook in zip(scripts, hooks[1:], strict=True):
            slug, policy = f"{name}-{end}", Policy.model_validate(terms)
            tenant = tenants.add(session, slug, name.capitalize(), policy=policy.model_dump(mode="json"), mode=mode)
            found = sample.seed(
                session,
                tenant=slug,
                policy=policy,
                environment=plan.environment,
                services=SERVICES,
            )
            hook.secret = add_endpoint(session, hook.url, tenant.id)
            customers.append(ChaosCustomer(slug, tenant.id, found.people, found.tokens, approvers, reviewed, calm))
        eve_id, eve_token = _add(session, plan, "eve", Role.ENGINEER)
        scopes = (Scope.GATE_NGINX, Scope.GATE_GUARD)
        added = (
            _add(session, plan, scope.name.lower(), Role.SYSTEM, scopes=[scope], services=SERVICES)
            for scope in scopes
        )
        gateways = [GatewayAccount(id_, one, token) for one, (id_, token) in zip(scopes, added, strict=True)]
        desk = _add(session, plan, DESK, Role.SYSTEM, scopes=_of_desk(customers))
        _lay_down_steps(session, next(customer for customer in customers if customer.slug.startswith("stepwise")))
        _state_exclusions(session, customers[0].people["olga"])
    *quick, calm_db, gated, suspended = [_with(customer, DESK, *desk) for customer in customers]
    both = [_with(one, "eve", eve_id, eve_token) for one in (gated, replace(suspended, is_suspended_at_times=True))]
    return ChaosPeople(quick, calm_db, hooks, both, gateways)


def _with(customer: ChaosCustomer, name: str, person_id: UUID, token: str) -> ChaosCustomer:
    return replace(customer, people={**customer.people, name: person_id}, tokens={**customer.tokens, name: token})


def _state_exclusions(session: UnitOfWork, author: UUID) -> None:
    """Publish the exclusions as if everyone had been notified already."""
    said = ExclusionsVersion(version=EXCLUSIONS, body="Demands by law", author_id=author, created_at=now(session))
    said.announced_to = EVERYBODY
    session.orm.add(said)


def _of_desk(customers: Sequence[ChaosCustomer]) -> list[str]:
    return [Scope.CASE_CLOSE, *(f"{BOUND_TO}{customer.slug}" for customer in customers)]


def _lay_down_steps(session: UnitOfWork, customer: ChaosCustomer) -> None:
    """Give a customer a policy whose groups approve one after the other; the ids of their people are known by now."""
    groups = {name: [str(customer.people[who])] for name, who in STEPS.items()}
    stages = [{"group": name, "order": order} for order, name in enumerate(STEPS, 1)]
    policy = Policy.model_validate_json(json.dumps(QUICK | {"groups": groups, "stages": stages}))
    sample.lay_down(session, customer.tenant_id, policy)


def _add(session: UnitOfWork, plan: StackPlan, name: str, role: Role, **bounds: Any) -> tuple[UUID, str]:  # noqa: ANN401 - the bounds of its token
    person = tenants.add_person(session, name.capitalize(), f"{name}@vendor.example", Side.VENDOR)
    tenants.give_role(session, person.id, role, None)
    lifetime = timedelta(days=1)
    terms = TokenTerms(environment=plan.environment, lifetime=lifetime, name="chaos", is_sample=True, **bounds)
    return person.id, api_tokens.issue(session, person.id, terms).text


def map_engineers(url: str, cast: ChaosPeople) -> None:
    """Have an operator map, through the API, the names by which both gateways know engineers.

    Raises:
        HTTPStatusError: the API refuses it.
    """
    headers = {"authorization": f"Bearer {cast.gated[0].tokens['olga']}"}
    with httpx.Client(base_url=url, headers=headers, timeout=30, trust_env=False) as olga:
        for gateway in cast.gateways:
            for person_id, name in cast.engineers().items():
                body = {"issuer": f"header:{gateway.person_id}", "subject": name, "person_id": str(person_id)}
                olga.post("/v1/gate/identities", json=body).raise_for_status()
