"""Evaluate a request against the policy without writing: its terms, who is asked, and what prevents it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Text, cast, func, text
from sqlmodel import col, select

from config.service_catalogue import Service
from lockbox.database import UnitOfWork, now
from lockbox.errors import NotYours, TenantSuspended, UnknownEngineer, UnknownService, UnknownTenant
from lockbox.identity import authentication
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Caller, Mode, Role, Scope
from lockbox.notifications import recipients
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import policy_store, prompt_order
from lockbox.requests.available_moves import move
from lockbox.requests.lifecycle import Action, Party, State
from lockbox.requests.policy import Reason, Terms, customer_decides, effective_mode, reviewed_first
from lockbox.requests.policy_rules import Policy, RequestFacts
from lockbox.requests.prompt_order import PromptedApprovers
from lockbox.requests.quorum import who_lacks

GOOD_ENGINEER = text("""
SELECT p.name FROM memberships m JOIN people p ON p.id = m.person_id
WHERE p.id = :id AND m.tenant_id IS NULL AND m.role = 'engineer' AND p.disabled_at IS NULL
""")


NOBODY = UUID(int=0)
WAS_DENIED = text("SELECT was_denied(:tenant_id, :service, CAST(:resources AS text[]))")


@dataclass(frozen=True)
class RequestInput:
    """What an engineer asks for; `access_window` in seconds. A system names the engineer for whom it files.

    `follows` is the request that is asked again by this one.
    """

    tenant: str
    service: str
    resources: Sequence[str]
    actions: Sequence[str]
    reason_code: str
    justification: str
    case_ref: str | None
    access_window: int
    engineer: UUID | None = None
    follows: UUID | None = None


@dataclass(frozen=True)
class Evaluation:
    """What a submission meets at this moment. `mode` is the one that holds, dated consent and all.

    `was_denied` is whether the customer's last word about one of the resources was no.
    """

    party: Party
    requester_id: UUID
    requester: str
    tenant: Tenant
    service: str
    policy: Policy
    terms: Terms
    mode: Mode
    known: RecipientDirectory
    at: datetime
    was_denied: bool

    @property
    def first_state(self) -> State:
        """Where the request would begin; what was denied is asked again only past a manager."""
        row, _ = move(None, Action.SUBMIT, {Party.ENGINEER})
        reviewed = self.was_denied or reviewed_first(self.terms, self.mode)
        return row.to if row.instead is None or reviewed else row.instead

    @property
    def able(self) -> frozenset[UUID]:
        """Everyone of the customer who could decide about it."""
        return self.known.able(self.tenant.id) - {self.requester_id}

    @property
    def managers(self) -> frozenset[UUID]:
        """Everyone of the vendor who could review it."""
        return frozenset(self.known.managers.keys() - {self.requester_id})

    @property
    def first_reviewers(self) -> PromptedApprovers:
        """Whom of the vendor to ask first, and how many tiers that makes."""
        return prompt_order.first_reviewers(self.known, self.requester_id)

    @property
    def prompted(self) -> frozenset[UUID]:
        """Whom of the customer to ask first."""
        return self.first_asked.people - {self.requester_id}

    @property
    def first_asked(self) -> PromptedApprovers:
        """Whom of the customer to ask first, and how many tiers that makes."""
        return prompt_order.first(self.terms, self.policy.groups, self.known, self.tenant.id)

    def obstacles(self) -> Iterator[str]:
        """Say why nobody could approve it; nothing to say means that it could be approved."""
        if self.first_state is State.REVIEWING and not self.managers:
            yield "The vendor has no manager who could endorse this request."
        if customer_decides(self.mode):
            requester = {self.requester_id}
            seats = {
                person: seats - requester
                for person, seats in self.known.seats(self.tenant.id).items()
                if person != self.requester_id
            }
            yield from who_lacks(self.terms.quorum, self.terms.stages, self.policy.groups, seats)


def evaluate_request(
    session: UnitOfWork, caller: Caller, submission: RequestInput, services: Mapping[str, Service]
) -> Evaluation:
    """Judge a submission against the tenant's policy, as of now.

    Raises:
        NotYours: the caller is neither an engineer nor a system that may file for one.
        UnknownTenant, TenantSuspended, PolicyUnverified, UnknownService, UnknownEngineer: as named.
    """
    authentication.enter(session, caller)
    _, party = move(None, Action.SUBMIT, _submitting_parties(caller))
    requester_id, requester = _requester(session, caller, party, submission)
    tenant = _turn_to_tenant(session, submission.tenant)
    if tenant is None:
        raise UnknownTenant(f"No tenant is called {submission.tenant!r}.", field="tenant")
    if tenant.suspended:
        raise TenantSuspended("The tenant is suspended. Requests can be submitted once it is resumed.")
    _in_catalogue(caller, party, submission, services)
    return _evaluation(session, tenant, party, (requester_id, requester), request_facts(submission))


def _turn_to_tenant(session: UnitOfWork, slug: str) -> Tenant | None:
    """Return the tenant with this slug, and let a vendor user act on it in this transaction."""
    turned = func.set_config("lockbox.at", cast(col(Tenant.id), Text), True)
    row = session.orm.exec(select(Tenant, turned).where(col(Tenant.slug) == slug)).one_or_none()
    return row[0] if row else None


def check_engineer(caller: Caller) -> None:
    """Check that somebody asks for access themselves, as a page has them do.

    Raises:
        NotYours: they are no engineer.
    """
    if not caller.holds(Role.ENGINEER):
        raise NotYours("Only engineers of the vendor can request access.")


def evaluate_what_if(
    session: UnitOfWork, tenant: Tenant, ask: RequestFacts, services: Mapping[str, Service]
) -> Evaluation:
    """Judge what anybody could ask of a tenant as of now, for the tenant's own people; nobody in particular asks.

    Raises:
        UnknownService, PolicyUnverified: as named.
    """
    _in_services(ask.service, ask.actions, services)
    return _evaluation(session, tenant, Party.ENGINEER, (NOBODY, ""), ask)


def _evaluation(
    session: UnitOfWork, tenant: Tenant, party: Party, requester: tuple[UUID, str], ask: RequestFacts
) -> Evaluation:
    policy, terms = policy_store.todays(session, tenant, ask)
    at = now(session)
    return Evaluation(
        party=party,
        requester_id=requester[0],
        requester=requester[1],
        tenant=tenant,
        service=ask.service,
        policy=policy,
        terms=terms,
        mode=effective_mode(tenant.mode, policy.consent, at),
        known=recipients.look_up(session, {tenant.id}, at),
        at=at,
        was_denied=_was_denied(session, tenant, ask),
    )


def request_facts(submission: RequestInput) -> RequestFacts:
    """Return the part of a submission that rules look at."""
    return RequestFacts(
        submission.service, tuple(submission.actions), Reason(submission.reason_code), tuple(submission.resources)
    )


def _was_denied(session: UnitOfWork, tenant: Tenant, ask: RequestFacts) -> bool:
    values = {"tenant_id": tenant.id, "service": ask.service, "resources": list(ask.resources)}
    return bool(session.execute(WAS_DENIED, values).scalar_one())


def _submitting_parties(caller: Caller) -> set[Party]:
    if caller.holds(Role.ENGINEER):
        return {Party.ENGINEER}
    if not caller.holds(Role.SYSTEM):
        return set()
    if Scope.REQUESTS_FILE not in caller.scopes:
        raise NotYours(f"This token needs the scope {Scope.REQUESTS_FILE}: make one that has it.")
    return {Party.SYSTEM}


def _requester(session: UnitOfWork, caller: Caller, party: Party, submission: RequestInput) -> tuple[UUID, str]:
    if party is Party.ENGINEER:
        if submission.engineer not in {None, caller.person_id}:
            raise NotYours("Engineers can only submit requests for themselves. Remove the `engineer` field.")
        return caller.person_id, caller.name
    name = session.execute(GOOD_ENGINEER, {"id": submission.engineer}).scalar_one_or_none()
    if submission.engineer is None or name is None:
        raise UnknownEngineer("Name an active engineer in `engineer`.", field="engineer")
    return submission.engineer, name


def _in_catalogue(caller: Caller, party: Party, submission: RequestInput, services: Mapping[str, Service]) -> None:
    if party is Party.SYSTEM and submission.service in services and submission.service not in caller.services:
        raise NotYours("This token is not bound to the service.")
    _in_services(submission.service, submission.actions, services)


def _in_services(named: str, actions: Collection[str], services: Mapping[str, Service]) -> None:
    service = services.get(named)
    if service is None:
        raise UnknownService(f"Choose one of the services {', '.join(sorted(services))}.", field="service")
    if unknown := sorted(set(actions) - set(service.actions)):
        raise UnknownService(
            f"{named} has no action {', '.join(unknown)}; choose from {', '.join(service.actions)}.",
            field="actions",
        )
