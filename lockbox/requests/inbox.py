"""The inbox: pending requests that a person can answer, open windows, and earlier requests like one of them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, and_, exists, or_, text
from sqlmodel import col, select

from lockbox import database
from lockbox.database import UnitOfWork, now
from lockbox.errors import NotYours
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.models import Person
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications import recipients
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import decisions, policy_store, queries, request_list
from lockbox.requests.available_moves import is_open_to, parties
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import IS_OUTLIVED, AccessRequest, Decision
from lockbox.requests.policy import customer_decides
from lockbox.requests.policy_parts import ReasonedDecision
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.quorum import ApprovalTally, has_turn, lacking, sole, step_of, tallies
from lockbox.requests.request_entry import RequestEntry
from lockbox.schedule import Schedule
from lockbox.sql import written

MOST = 20
MOST_EARLIER = 5
# Row-level security lets no index help with arrays: the newest of the tenant are looked through, and no more, by a
# range of one, for which Postgres takes the index of tenants, however many newer requests others have.
EARLIER = text(f"""
SELECT requests.id, q.name AS requester, v.at, d.fields #>> '{{name,1}}' AS actor,
    CASE WHEN v.to_state = 'timed_out' AND convert_from(v.body, 'UTF8') LIKE '%"nobody_notified"%' THEN
    'nobody_notified'
        WHEN {IS_OUTLIVED} THEN 'outlived' ELSE v.to_state END AS state
FROM requests JOIN people q ON q.id = requests.requester_id
JOIN events v ON v.request_id = requests.id AND v.seq = requests.version
LEFT JOIN event_details d ON d.event_id = v.id
WHERE requests.id = ANY(:ids) ORDER BY requests.id DESC
""")  # noqa: S608 - ours


@dataclass(frozen=True)
class Viewer:
    """Somebody who looks at a request: since when, and until when they do if nothing renews it."""

    person_id: UUID
    name: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Viewers:
    """Who looks at a request, the first one first, and whether the reader may say so too."""

    looks: Sequence[Viewer]
    may_look: bool


def begin(session: UnitOfWork, schedule: Schedule, caller: Caller, request_id: UUID) -> None:
    """Let the others see for five minutes that the caller looks at it, or for five more; it blocks nobody.

    It is no move and leaves no trace: while Redis is away nobody looks at anything. About a request that does not
    wait nothing is done.

    Raises:
        NotFound: there is none that the caller may know of.
        NotYours: they cannot answer it.
    """
    request = queries.find(session, caller, request_id).request
    able = _may_claim(session, caller.side, request)
    if able is None:
        return
    if caller.person_id not in able:
        raise NotYours("Only people who can decide a request can mark it as being reviewed.")
    if schedule.mark_looking(str(request_id), str(caller.person_id), now(session)):
        database.publish_after_commit(session, [request_id], caller.side.value)


def end(session: UnitOfWork, schedule: Schedule, caller: Caller, request_id: UUID) -> None:
    """Let the caller look at it no longer.

    Raises:
        NotFound: there is none that the caller may know of.
    """
    queries.find(session, caller, request_id)
    if schedule.unmark_looking(str(request_id), str(caller.person_id)):
        database.publish_after_commit(session, [request_id], caller.side.value)


def viewers(session: UnitOfWork, schedule: Schedule, caller: Caller, request: AccessRequest) -> Viewers:
    """Return who of the caller's own side looks at a request, of those who may answer it at this moment."""
    able = _may_claim(session, caller.side, request) or frozenset()
    marks = schedule.looking(str(request.id), sorted(map(str, able))) if able else {}
    if not marks:
        return Viewers((), caller.person_id in able)
    names = select(Person.id, Person.name).where(col(Person.id).in_([UUID(one) for one in marks]))
    at = now(session)
    found = [
        Viewer(one, name, marks[str(one)][0], at + marks[str(one)][1]) for one, name in session.orm.exec(names).all()
    ]
    return Viewers(sorted(found, key=lambda look: (look.since, look.person_id)), caller.person_id in able)


def _may_claim(session: UnitOfWork, side: Side, request: AccessRequest) -> frozenset[UUID] | None:
    """Return who of a side could answer at this moment; None where that side is not asked."""
    if request.state == State.REVIEWING and side is Side.VENDOR:
        known = recipients.look_up(session, frozenset(), now(session))
        return frozenset(known.managers) - {request.requester_id}
    if request.state == State.PENDING and side is Side.CUSTOMER and customer_decides(request.mode):
        known = recipients.look_up(session, {request.tenant_id}, now(session))
        return known.able(request.tenant_id) | known.admins[request.tenant_id]
    return None


def count(session: UnitOfWork, caller: Caller, request: AccessRequest) -> list[ApprovalTally]:
    """Return how far the votes have come: first of all approvers, then of each group that must also agree.

    Only votes of those who may still approve count, by the approvers' seats that they fill, and what is needed is the
    stricter of the policy that judged the request and today's. The caller may know of the request; of the customer's
    people nothing but the numbers is told.
    """
    if caller.side is Side.VENDOR:
        authentication.turn_to(session, request.tenant_id)
    known = recipients.look_up(session, {request.tenant_id}, now(session))
    return count_all(session, [request], known)[request.id]


def tallies_of(session: UnitOfWork, caller: Caller, requests: Iterable[AccessRequest]) -> dict[UUID, ApprovalTally]:
    """Return how far the votes have come on those of a list about which approvers decide, and no group.

    What is said of a state is said with it, in lists as on a request's own page. The caller may know of all of them.
    """
    return sole_tallies(all_tallies_of(session, caller, requests))


def sole_tallies(counted: Mapping[UUID, Sequence[ApprovalTally]]) -> dict[UUID, ApprovalTally]:
    """Return the tallies of those requests of which one says it all."""
    return {one: tally for one, found in counted.items() if (tally := sole(found))}


def all_tallies_of(
    session: UnitOfWork, caller: Caller, requests: Iterable[AccessRequest]
) -> dict[UUID, list[ApprovalTally]]:
    """Return the same with how far each group has come that must also agree."""
    by_tenant = defaultdict[UUID, list[AccessRequest]](list)
    for request in requests:
        if request.state == State.PENDING and customer_decides(request.mode):
            by_tenant[request.tenant_id].append(request)
    if not by_tenant:
        return {}
    at, counted = now(session), dict[UUID, list[ApprovalTally]]()
    for tenant_id, some in by_tenant.items():
        if caller.side is Side.VENDOR:
            authentication.turn_to(session, tenant_id)
        known = recipients.look_up(session, {tenant_id}, at)
        counted |= count_all(session, some, known)
    return counted


def count_all(
    session: UnitOfWork, requests: Sequence[AccessRequest], known: RecipientDirectory
) -> dict[UUID, list[ApprovalTally]]:
    """Return the same for each of these requests, to people of the tenants that `known` knows."""
    return {one: counted for one, (counted, _) in _counted(session, requests, known).items()}


def _counted(
    session: UnitOfWork, requests: Sequence[AccessRequest], known: RecipientDirectory
) -> dict[UUID, tuple[list[ApprovalTally], EffectivePolicy]]:
    policies = policy_store.effective_policies(session, [request.id for request in requests])
    votes = decisions.all_votes(
        session, requests, known, {one: effective.terms for one, effective in policies.items()}
    )
    counted = {}
    for request in requests:
        effective = policies[request.id]
        needed = max(request.quorum, effective.terms.quorum)
        found = tallies(votes[request.id], needed, effective.terms.stages, effective.groups)
        counted[request.id] = found, effective
    return counted


def _is_waiting(
    caller: Caller, seats: frozenset[UUID], counted: Sequence[ApprovalTally], effective: EffectivePolicy
) -> bool:
    """Whether the caller cannot approve before another group has."""
    stages, groups = effective.terms.stages, effective.groups
    return bool(seats) and not has_turn(caller.person_id, seats, stages, groups, step_of(counted))


@dataclass(frozen=True)
class PendingRequest:
    """A request that somebody may still answer, and how far the votes have come; admins may say no alone.

    `is_waiting` is whether they approve in a later step than the one at which the request stands.
    """

    entry: RequestEntry
    tallies: Sequence[ApprovalTally]
    may_approve: bool
    is_waiting: bool = False

    @property
    def lacking(self) -> Sequence[ApprovalTally]:
        """What the groups lack that are asked now."""
        return lacking(self.tallies)


@dataclass(frozen=True)
class OpenWindow:
    """A window whose time is not over, and whether whoever looks at it may close it, and has to say why.

    Whether the vendor's people have to say why is None: they do not read the customer's policy here.
    """

    entry: RequestEntry
    may_revoke: bool
    needs_reason: bool | None = None


def pending_requests(
    session: UnitOfWork, caller: Caller, *, cursor: str | None = None, most: int = MOST
) -> tuple[list[PendingRequest], str | None]:
    """Return what waits for the caller, who has not answered it, the soonest deadline first, and the next cursor.

    Approvers, those who stand in for one at this moment, and admins are asked.

    Raises:
        Invalid: the cursor is not one that this call gave out.
    """
    authentication.enter(session, caller)
    at = now(session)
    known = recipients.look_up(session, caller.tenants(), at)
    able = _able(caller, known)
    branches = [request_list.of_tenant(one) for one in sorted(able | caller.tenants({Role.TENANT_ADMIN}))]
    decided = col(Decision.request_id) == col(AccessRequest.id), col(Decision.person_id) == caller.person_id
    conditions = [
        AccessRequest.visible_to(caller),
        col(AccessRequest.deadline_at) > at,
        col(AccessRequest.requester_id) != caller.person_id,
        ~exists().where(*decided),
        AccessRequest.can_be_answered(),
    ]
    ids, beyond = request_list.soonest(session, branches, State.PENDING, conditions, cursor=cursor, most=most)
    found = queries.some(session, caller, ids, State.PENDING)
    counted = _counted(session, [entry.request for entry in found], known)
    return [_pending(caller, entry, known, able, *counted[entry.request.id]) for entry in found], beyond


def _pending(  # noqa: PLR0917 - what one request is judged by
    caller: Caller,
    entry: RequestEntry,
    known: RecipientDirectory,
    able: frozenset[UUID],
    counted: Sequence[ApprovalTally],
    effective: EffectivePolicy,
) -> PendingRequest:
    seats = known.seats(entry.request.tenant_id).get(caller.person_id, frozenset())
    is_waiting = _is_waiting(caller, seats, counted, effective)
    may_approve = _may(caller, entry.request, Action.APPROVE, able) and not is_waiting
    return PendingRequest(entry, counted, may_approve, is_waiting)


def open_windows(
    session: UnitOfWork, caller: Caller, *, cursor: str | None = None, most: int = MOST
) -> tuple[list[OpenWindow], str | None]:
    """Return the windows that are open now, as far as the caller may know of them, the first to close first.

    One that something shuts before its time is among them: `entry.open` says so. The cursor leads to those after.

    Raises:
        Invalid: the cursor is not one that this call gave out.
    """
    authentication.enter(session, caller)
    at = now(session)
    branches = request_list.visible_branches(caller)
    conditions = [col(AccessRequest.deadline_at) > at]
    ids, beyond = request_list.soonest(session, branches, State.ACTIVE, conditions, cursor=cursor, most=most)
    found = queries.some(session, caller, ids, State.ACTIVE)
    able = _able(caller, recipients.look_up(session, caller.tenants(), at))
    policies = policy_store.effective_policies(session, ids) if caller.side is Side.CUSTOMER and found else {}
    return [
        OpenWindow(
            entry,
            _may(caller, entry.request, Action.REVOKE, able),
            ReasonedDecision.REVOKE in policies[entry.request.id].terms.comment_required if policies else None,
        )
        for entry in found
    ], beyond


def _may(caller: Caller, request: AccessRequest, action: Action, able: frozenset[UUID]) -> bool:
    """Whether the table opens an action to the caller, who could decide for the tenants in `able` now."""
    state = State(request.state)
    is_able = request.tenant_id in able
    held = parties(caller, request.requester_id, request.tenant_id, state, is_delegate=is_able)
    return is_open_to(held, state, action)


def _able(caller: Caller, known: RecipientDirectory) -> frozenset[UUID]:
    """Return the tenants for which the caller could decide now."""
    return frozenset(one for one in caller.tenants() if caller.person_id in known.able(one))


def earlier_requests(session: UnitOfWork, caller: Caller, request: AccessRequest) -> Sequence[Row[Any]]:
    """Return the newest earlier requests of the tenant for the same case or resource, five at most.

    Each row has its id, requester, state, when that began, and who brought it about. What timed out before anybody
    could be told has `nobody_notified` for a state.
    """
    newest = (
        select(AccessRequest)
        .where(
            col(AccessRequest.tenant_id).between(request.tenant_id, request.tenant_id),
            col(AccessRequest.id) < request.id,
            AccessRequest.visible_to(caller),
        )
        .order_by(col(AccessRequest.tenant_id).desc(), col(AccessRequest.id).desc())
        .limit(written(request_list.LOOKED_THROUGH))
        .subquery()
    )
    alike = and_(newest.c.service == request.service, newest.c.resources.overlap(request.resources))
    if request.case_ref is not None:
        alike = or_(alike, newest.c.case_ref == request.case_ref)
    found = select(newest.c.id).where(alike).order_by(newest.c.id.desc()).limit(MOST_EARLIER)
    ids = session.orm.execute(found).scalars().all()
    return session.execute(EARLIER, {"ids": list(ids)}).all() if ids else ()
