"""The inbox: pending requests that a person can answer, open windows, and who is looking at a request."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col

from lockbox import database
from lockbox.database import Query, UnitOfWork, now
from lockbox.errors import NotYours
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications import recipients
from lockbox.notifications.recipients import ASKED_AT, AT, RecipientDirectory
from lockbox.requests import decision_context, policy_store, queries, request_list
from lockbox.requests.decision_context import (
    NAMED_COLUMNS,
    RULED_COLUMNS,
    RULED_JOINS,
    RuledRows,
    by_request,
    short,
    votes_in_rows,
)
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import IS_VISIBLE, AccessRequest, RequestEntry
from lockbox.requests.on_behalf_of import names_of
from lockbox.requests.permitted_moves import is_open_to, parties
from lockbox.requests.policy import customer_decides
from lockbox.requests.policy_parts import ReasonedDecision
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.quorum import ApprovalTally, has_turn, lacking, sole, step_of
from lockbox.schedule import Schedule

MOST = 20


# Each tenant's requests are read by its index, and at most one more than a page shows. The extra request tells that
# there are more.
PENDING = text(
    short(f"""
WITH asked AS (SELECT unnest({ASKED_AT}) AS tenant_id), pending AS (
    SELECT r.id FROM asked CROSS JOIN LATERAL (
        SELECT id, deadline_at FROM requests
        WHERE requests.tenant_id BETWEEN asked.tenant_id AND asked.tenant_id AND state = 'pending'
            AND deadline_at > {AT} AND requester_id <> (SELECT at_person()) AND {IS_VISIBLE}
            AND (deadline_at, id) > (CAST(:after_at AS timestamptz), CAST(:after_id AS uuid))
            AND NOT EXISTS (SELECT FROM decisions v WHERE v.request_id = requests.id AND v.person_id = at_person())
            AND (extends IS NULL OR ran_to_its_end(extends))
        ORDER BY requests.tenant_id, deadline_at, id LIMIT :most
    ) r ORDER BY r.deadline_at, r.id LIMIT :most
)
SELECT {NAMED_COLUMNS}, {RULED_COLUMNS}
FROM pending JOIN requests ON requests.id = pending.id
{RULED_JOINS.format(which="true")}
ORDER BY requests.deadline_at, requests.id, d.id
""")  # noqa: S608 - ours
)


@dataclass(frozen=True)
class Viewer:
    """The person is shown as looking at the request until `until`, or longer if they renew the record."""

    person_id: UUID
    name: str
    since: datetime
    until: datetime


@dataclass(frozen=True)
class Viewers:
    looks: Sequence[Viewer]
    may_look: bool


def begin(session: UnitOfWork, schedule: Schedule, caller: Caller, request_id: UUID) -> None:
    """For five minutes, show other people of the caller's side that the caller is looking at the request.

    This blocks no one. Nothing is shown while Redis is down, or if the request does not wait for the caller's side.

    Raises NotYours if the caller cannot answer the request.
    """
    request = queries.find(session, caller, request_id).request
    at = now(session)
    able = _may_claim(caller.side, request, recipients.look_up(session, {request.tenant_id}, at))
    if able is None:
        return
    if caller.person_id not in able:
        raise NotYours("Only people who can decide a request can mark it as being reviewed.")
    if schedule.mark_looking(str(request_id), str(caller.person_id), at):
        database.publish_after_commit(session, [request_id], caller.side.value)


def end(session: UnitOfWork, schedule: Schedule, caller: Caller, request_id: UUID) -> None:
    queries.find(session, caller, request_id)
    if schedule.unmark_looking(str(request_id), str(caller.person_id)):
        database.publish_after_commit(session, [request_id], caller.side.value)


def viewers(  # noqa: PLR0917 - all that tells who looks
    session: UnitOfWork,
    schedule: Schedule,
    caller: Caller,
    request: AccessRequest,
    known: RecipientDirectory,
    at: datetime,
) -> Viewers:
    able = _may_claim(caller.side, request, known) or frozenset()
    marks = schedule.looking(str(request.id), sorted(map(str, able))) if able else {}
    if not marks:
        return Viewers((), caller.person_id in able)
    names = names_of(session, [UUID(mark) for mark in marks])
    found = [Viewer(one, name, marks[str(one)][0], at + marks[str(one)][1]) for one, name in names.items()]
    return Viewers(sorted(found, key=lambda look: (look.since, look.person_id)), caller.person_id in able)


def _may_claim(side: Side, request: AccessRequest, known: RecipientDirectory) -> frozenset[UUID] | None:
    """Who can answer for a side; None if the request does not wait for that side."""
    if request.state == State.REVIEWING and side is Side.VENDOR:
        return frozenset(known.managers) - {request.requester_id}
    if request.state == State.PENDING and side is Side.CUSTOMER and customer_decides(request.mode):
        return known.able(request.tenant_id) | known.admins[request.tenant_id]
    return None


def tallies_of(session: UnitOfWork, caller: Caller, requests: Iterable[AccessRequest]) -> dict[UUID, ApprovalTally]:
    """The approvals so far of requests that need no group's approval.

    The caller must be allowed to know of all the requests.
    """
    return sole_tallies(all_tallies_of(session, caller, requests))


def sole_tallies(counted: Mapping[UUID, Sequence[ApprovalTally]]) -> dict[UUID, ApprovalTally]:
    return {one: tally for one, found in counted.items() if (tally := sole(found))}


def all_tallies_of(
    session: UnitOfWork, caller: Caller, requests: Iterable[AccessRequest]
) -> dict[UUID, list[ApprovalTally]]:
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
    return {one: counted for one, (counted, _) in _counted(session, requests, known).items()}


def _counted(
    session: UnitOfWork, requests: Sequence[AccessRequest], known: RecipientDirectory
) -> dict[UUID, tuple[list[ApprovalTally], EffectivePolicy]]:
    policies = policy_store.effective_policies(session, [request.id for request in requests])
    votes = decision_context.all_votes(
        session, requests, known, {one: effective.terms for one, effective in policies.items()}
    )
    counted = {}
    for request in requests:
        effective = policies[request.id]
        counted[request.id] = decision_context.tallies_of(request, effective, votes[request.id]), effective
    return counted


def _is_waiting(
    caller: Caller, seats: frozenset[UUID], counted: Sequence[ApprovalTally], effective: EffectivePolicy
) -> bool:
    stages, groups = effective.terms.stages, effective.groups
    return bool(seats) and not has_turn(caller.person_id, seats, stages, groups, step_of(counted))


@dataclass(frozen=True)
class PendingRequest:
    """`is_waiting` is whether the reader's step comes after the request's current step."""

    entry: RequestEntry
    tallies: Sequence[ApprovalTally]
    may_approve: bool
    is_waiting: bool = False

    @property
    def lacking(self) -> Sequence[ApprovalTally]:
        return lacking(self.tallies)


@dataclass(frozen=True)
class PendingRequests:
    pending: Sequence[PendingRequest]
    beyond: str | None
    known: RecipientDirectory


@dataclass(frozen=True)
class OpenWindow:
    """`needs_reason` is whether the reader must give a reason to revoke the window.

    Vendor users get None: they do not read the customer's policy here.
    """

    entry: RequestEntry
    may_revoke: bool
    needs_reason: bool | None = None


def pending_requests(
    session: UnitOfWork, caller: Caller, *, cursor: str | None = None, most: int = MOST
) -> PendingRequests:
    """The requests that the caller is asked to answer and has not answered, soonest deadline first.

    Approvers, their current delegates, and admins are asked.
    """
    authentication.enter(session, caller)
    at = database.other_clock(session)
    known = recipients.look_up(session, None, at)
    able = _able(caller, known)
    asked_at = able | caller.tenants({Role.TENANT_ADMIN})
    rows = session.execute(PENDING, _wanted(cursor, most, at=at)).all()
    if not {row.tenant_id for row in rows} <= asked_at:
        # A row without a valid MAC makes no one a delegate, so only the verified tenants are read.
        rows = session.execute(PENDING, _wanted(cursor, most, sorted(asked_at), at=at)).all()
    ruled, found = RuledRows(rows), by_request(rows)
    requests = [AccessRequest.of(some[0]) for some in found.values()]
    last = requests[most - 1] if len(requests) > most else None
    beyond = request_list.after_deadline(last.deadline_at, last.id) if last else None
    pending = []
    for request in requests[:most]:
        some = found[request.id]
        effective = ruled.effective(session, some[0], request)
        votes = votes_in_rows(session, request, some, known, effective)
        counted = decision_context.tallies_of(request, effective, votes)
        entry = RequestEntry(
            request,
            some[0].tenant,
            some[0].requester,
            open=False,
            tenant_name=some[0].tenant_name,
            uses_left=request.uses_left,
        )
        pending.append(_pending(caller, entry, known, able, counted, effective))
    return PendingRequests(pending, beyond, known)


def ahead_of_pending(cursor: str | None = None, most: int = MOST) -> list[Query]:
    return [recipients.ahead_of_look_up(), (PENDING, _wanted(cursor, most))]


def _wanted(
    cursor: str | None, most: int, tenants: Sequence[UUID] | None = None, *, at: datetime | None = None
) -> dict[str, Any]:
    deadline_at, last = request_list.read_deadline(cursor) if cursor else (request_list.EPOCH, request_list.NIL)
    return {"tenants": tenants, "at": at, "after_at": deadline_at, "after_id": last, "most": most + 1}


def _pending(  # noqa: PLR0917 - all that an entry is made from
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
    """The active windows that the caller may know of, earliest end first, and the next page's cursor.

    A window that is held back is included, with `entry.open` false.
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
    state = State(request.state)
    is_able = request.tenant_id in able
    held = parties(caller, request.requester_id, request.tenant_id, state, is_delegate=is_able)
    return is_open_to(held, state, action)


def _able(caller: Caller, known: RecipientDirectory) -> frozenset[UUID]:
    return frozenset(tenant for tenant in caller.tenants() if caller.person_id in known.able(tenant))
