"""Evaluate a request against the policy without writing: its terms, and what prevents it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from catalogue.context_schema import defects
from catalogue.service_catalogue import LEVELS, Level, Service
from lockbox.database import Query, UnitOfWork, read_at
from lockbox.errors import (
    InvalidContext,
    NotYours,
    TenantErased,
    TenantSuspended,
    UnknownEngineer,
    UnknownService,
    UnknownTenant,
)
from lockbox.facts.enumerations import Mode, State
from lockbox.facts.requester import Requester
from lockbox.identity import authentication, row_macs
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Caller
from lockbox.notifications import recipients
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import policy_store, pre_approvals
from lockbox.requests.break_glass import BreakGlassRecord
from lockbox.requests.deadlines import timing_of
from lockbox.requests.lifecycle import Action, Party
from lockbox.requests.permitted_moves import move, submitting_parties
from lockbox.requests.policy import Terms, Timing, customer_decides, effective_mode, lacking, reviewed_first
from lockbox.requests.policy_rules import Policy, RequestFacts
from lockbox.requests.pre_approvals import CoverageContext, CoveringPreApproval
from lockbox.requests.prompt_tiers import PromptedApprovers, first_approvers, first_reviewers
from lockbox.requests.quorum import who_lacks
from lockbox.requests.request_input import RequestInput
from lockbox.sql import columns

GOOD_ENGINEER = text("""
SELECT p.name FROM memberships m JOIN people p ON p.id = m.person_id
WHERE p.id = :id AND m.tenant_id IS NULL AND m.role = 'engineer' AND p.disabled_at IS NULL
""")


NOBODY = UUID(int=0)
ERASED = "This tenant was off-boarded and erased. Nothing of it changes any more; its audit log can be read."
TURN_TO = text("SELECT set_config('lockbox.at', t.id::text, true) FROM tenants t WHERE t.slug = :slug")
# One snapshot reads the tenant's row and its policy, because a new version may be stored at any moment.
RULES = text(f"""
SELECT {columns(Tenant, "t")}, p.body::text AS body, p.mac AS policy_mac, clock_timestamp() AS at,
    is_erased(t.id) AS is_erased,
    was_denied(t.id, :service, CAST(:resources AS text[])) AS was_denied,
    usable_pre_approvals(t.id, :service, :reason) AS pre_approvals,
    CASE WHEN CAST(:case_ref AS text) IS NOT NULL THEN open_duplicate(t.id, coalesce(CAST(:engineer AS uuid),
        at_person()), :service, CAST(:resources AS text[]), :case_system, :case_ref) END AS duplicate,
    CASE WHEN CAST(:break_glass AS boolean) THEN
        (SELECT ARRAY[b.lately, b.overdue, CAST(stopped_since(t.id) IS NOT NULL AS integer)]
            FROM break_glass_record(t.id) b) END AS break_glasses,
    d.person_id, d.employing_entity, d.office_country, d.physical_country, d.source, d.as_of, d.mac AS directory_mac
FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
LEFT JOIN directory_records d ON d.person_id = coalesce(CAST(:engineer AS uuid), at_person())
WHERE t.id = coalesce(CAST(:tenant_id AS uuid), at_tenant())
""")  # noqa: S608 - ours


@dataclass(frozen=True)
class Evaluation:
    """`mode` is the mode in force when access begins; dated consent may relax it.

    `was_denied` is whether the customer's last decision about one of the resources was a denial. `pre_approval` opens
    the window without asking the customer. `duplicate` is the engineer's open request for the same case and one of
    the resources.
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
    level: Level | None
    requester_facts: Requester = field(default_factory=Requester)
    pre_approval: CoveringPreApproval | None = None
    duplicate: UUID | None = None
    break_glass: BreakGlassRecord | None = None

    @property
    def first_state(self) -> State:
        row, _ = move(None, Action.SUBMIT, {Party.ENGINEER})
        reviewed = bool(self.break_glass) or self.was_denied or reviewed_first(self.terms, self.mode)
        if self.pre_approval and row.pre_approved and not reviewed:
            return row.pre_approved
        return row.to if row.instead is None or reviewed else row.instead

    @property
    def able(self) -> frozenset[UUID]:
        return self.known.able(self.tenant.id) - {self.requester_id}

    @property
    def managers(self) -> frozenset[UUID]:
        return frozenset(self.known.managers.keys() - {self.requester_id})

    @property
    def first_reviewers(self) -> PromptedApprovers:
        return first_reviewers(self.known, self.requester_id)

    @property
    def prompted(self) -> frozenset[UUID]:
        return self.first_asked.people - {self.requester_id}

    @property
    def first_asked(self) -> PromptedApprovers:
        return first_approvers(self.terms, self.policy.groups, self.known, self.tenant.id)

    def lacks(self, submission: RequestInput) -> list[tuple[str, str]]:
        found = list(lacking(submission, self.terms, self.timing(submission), self.requester_facts, self.at))
        asked, most = submission.max_uses, self.terms.max_uses
        # A request that repeats an earlier one has the same number of uses. If today's limit is lower, it lowers this
        # number instead of refusing the request.
        if asked and most and asked > most and not (submission.extends or submission.follows):
            found.append(("max_uses", f"A window may be for at most {most} uses here. Ask for fewer."))
        return found

    def timing(self, submission: RequestInput) -> Timing:
        return timing_of(submission, self.at)

    def obstacles(self) -> Iterator[str]:
        if self.first_state is State.REVIEWING and not self.managers:
            yield "The vendor has no manager who could endorse this request."
        if customer_decides(self.mode) and not self.break_glass:
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
    """Evaluate a submission at the current time.

    Raises UnknownTenant, TenantErased, TenantSuspended, PolicyUnverified, UnknownService, UnknownEngineer,
    InvalidContext.
    """
    authentication.enter(session, caller)
    _, party = move(None, Action.SUBMIT, submitting_parties(caller))
    requester_id, requester = _requester(session, caller, party, submission)
    ask = request_facts(submission, services)
    if session.execute(TURN_TO, {"slug": submission.tenant}).one_or_none() is None:
        raise UnknownTenant(f"No tenant is called {submission.tenant!r}.", field="tenant")
    rules = session.execute(RULES, _values(ask, of=submission)).one()
    if rules.is_erased:
        raise TenantErased(ERASED)
    if rules.suspended:
        raise TenantSuspended("The tenant is suspended. Requests can be submitted once it is resumed.")
    _in_catalogue(caller, party, submission, services)
    on_record = _facts_of(session, caller, rules)
    ask = replace(ask, requester=on_record)
    met = _evaluation(session, rules, party, (requester_id, requester), ask, submission)
    return replace(met, requester_facts=on_record)


def ahead_of_evaluation(submission: RequestInput) -> list[Query]:
    engineer: list[Query] = [(GOOD_ENGINEER, {"id": submission.engineer})] if submission.engineer else []
    asked = request_facts(submission, {})
    turn, rules = (TURN_TO, {"slug": submission.tenant}), (RULES, _values(asked, of=submission))
    return [*engineer, turn, rules, recipients.ahead_of_look_up()]


def _values(ask: RequestFacts, tenant_id: UUID | None = None, of: RequestInput | None = None) -> Mapping[str, Any]:
    """Return the parameters of `RULES`. Without `tenant_id`, the query reads the transaction's tenant."""
    case = {name: getattr(of, name, None) for name in ("engineer", "case_ref", "case_system", "break_glass")}
    if of and (of.extends or of.follows):
        # A request that names another request is no duplicate, whatever else is open.
        case["case_ref"] = None
    facts = {"service": ask.service, "resources": list(ask.resources), "reason": ask.reason.value}
    return {"tenant_id": tenant_id, **facts, **case}


def _facts_of(session: UnitOfWork, caller: Caller, rules: Row[Any]) -> Requester:
    """A directory record without a valid MAC is ignored."""
    parts = row_macs.directory_record(rules)
    if not (rules.person_id and row_macs.is_believed(session, rules.directory_mac, parts, rules.person_id)):
        return Requester(**caller.sign_in)
    return Requester(
        employing_entity=rules.employing_entity,
        office_country=rules.office_country,
        physical_country=rules.physical_country,
        directory_as_of=rules.as_of,
        **caller.sign_in,
    )


def evaluate_what_if(
    session: UnitOfWork, tenant: Tenant, ask: RequestFacts, services: Mapping[str, Service]
) -> Evaluation:
    """For the tenant's own people: the hypothetical request has no requester.

    Raises UnknownService, PolicyUnverified.
    """
    _in_services(ask.service, ask.actions, services)
    ask = replace(ask, level=_highest_level(services[ask.service], ask.actions))
    rules = session.execute(RULES, _values(ask, tenant.id)).one()
    return _evaluation(session, rules, Party.ENGINEER, (NOBODY, ""), ask)


def _evaluation(  # noqa: PLR0917 - all that an evaluation is made from
    session: UnitOfWork,
    rules: Row[Any],
    party: Party,
    requester: tuple[UUID, str],
    ask: RequestFacts,
    submission: RequestInput | None = None,
) -> Evaluation:
    tenant = Tenant(**{name: getattr(rules, name) for name in Tenant.model_fields})
    tenant.mode = Mode(rules.mode)
    policy, terms = policy_store.todays(session, tenant, rules.body, rules.policy_mac, ask)
    at = read_at(session, rules.at)
    tenants, moment = {tenant.id} if requester[0] == NOBODY else None, None if at is rules.at else at
    known = recipients.look_up(session, tenants, moment)
    begins, found = submission.begins(at) if submission else at, rules.break_glasses
    mode = effective_mode(tenant.mode, policy.consent, begins)
    covered = None
    # A request that begins later, extends a window or names a denied resource needs an approval as usual. Break-glass
    # asks no one.
    is_coverable = not rules.was_denied and not found and customer_decides(mode)
    if submission and submission.is_at_once and rules.pre_approvals and is_coverable:
        scene = CoverageContext(tenant.id, ask, submission.access_window, policy, terms, policy.groups, known, at)
        covered = pre_approvals.covering(session, rules.pre_approvals, scene)
    return Evaluation(
        party=party,
        requester_id=requester[0],
        requester=requester[1],
        tenant=tenant,
        service=ask.service,
        policy=policy,
        terms=terms,
        mode=mode,
        known=known,
        at=at,
        was_denied=rules.was_denied,
        pre_approval=covered,
        duplicate=rules.duplicate,
        break_glass=found and BreakGlassRecord(found[0], found[1], rules.was_denied, bool(found[2])),
        level=ask.level,
    )


def request_facts(submission: RequestInput, services: Mapping[str, Service]) -> RequestFacts:
    """The level of an unknown service is None."""
    service = services.get(submission.service)
    return RequestFacts.of(submission, _highest_level(service, submission.actions) if service else None)


def _highest_level(service: Service, actions: Collection[str]) -> Level:
    """Unknown actions are refused elsewhere; here they count as `admin`."""
    return max((service.levels.get(action, Level.ADMIN) for action in actions), key=LEVELS.index)


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
    _in_context(services[submission.service], submission)


def _in_context(service: Service, submission: RequestInput) -> None:
    if not (service.context or submission.context):
        return
    errors = [
        {"field": f"context.{name}", "message": f"{said[0].upper()}{said[1:]}."}
        for name, said in defects(service.context, submission.context)
    ]
    if errors:
        said = " ".join(f"{error['field']}: {error['message']}" for error in errors)
        raise InvalidContext(said, field=errors[0]["field"], errors=errors)


def _in_services(named: str, actions: Collection[str], services: Mapping[str, Service]) -> None:
    service = services.get(named)
    if service is None:
        raise UnknownService(f"Choose one of the services {', '.join(sorted(services))}.", field="service")
    if unknown := sorted(set(actions) - set(service.actions)):
        raise UnknownService(
            f"{named} has no action {', '.join(unknown)}; choose from {', '.join(service.actions)}.",
            field="actions",
        )
