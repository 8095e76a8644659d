"""A vendor user's own requests, open requests first; and the requests to review."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlmodel import col

from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, LockboxError, NotYours, SignInAgain
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import delivery_status
from lockbox.notifications.audience import ASKING
from lockbox.notifications.delivery_status import DeliveryReach
from lockbox.requests import (
    after_reviews,
    extend,
    inbox,
    policy_store,
    queries,
    questions,
    quorum,
    reminders,
    request_list,
)
from lockbox.requests.after_reviews import AfterReviewEntry
from lockbox.requests.decision_context import situation_of
from lockbox.requests.extend import ExtensionOutlook
from lockbox.requests.lifecycle import OPEN_STATES, Action, Party
from lockbox.requests.models import AccessRequest, RequestEntry
from lockbox.requests.on_behalf_of import names_of
from lockbox.requests.permitted_moves import is_open_to, parties, permitted_moves, sign_in_obstacle
from lockbox.requests.policy import Terms
from lockbox.requests.policy_store import EffectivePolicy
from lockbox.requests.quorum import ApprovalStep, ApprovalTally

CURSOR = re.compile(r"(open|closed)-([0-9a-f]{32})")
LATEST = UUID(int=2**128 - 1)
IS_CLOSED = col(AccessRequest.closed_at).is_not(None)


@dataclass(frozen=True)
class OwnRequestEntry:
    """`waits_for` are the names of people who were asked and have not answered.

    `reach` is a sentence about people who were not reached; `unreached` are colleagues who did not get a mail.
    `outlook` is for an active window, and `after_review` for a window opened by break-glass.
    """

    entry: RequestEntry
    waits_for: tuple[str, ...] = ()
    reach: str = ""
    unreached: tuple[str, ...] = ()
    unanswered: int = 0
    actions: tuple[Action, ...] = ()
    steps: Sequence[ApprovalStep] = ()
    outlook: ExtensionOutlook | None = None
    after_review: AfterReviewEntry | None = None


@dataclass(frozen=True)
class OwnRequestListing:
    items: Sequence[OwnRequestEntry]
    next_cursor: str | None
    tallies: Mapping[UUID, ApprovalTally]


@dataclass(frozen=True)
class ReviewEntry:
    """`obstacle` is what keeps this manager from endorsing the request."""

    entry: RequestEntry
    obstacle: str = ""
    may_deny: bool = True


@dataclass(frozen=True)
class ReviewListing:
    """`weak` is why the manager's sign-in is not enough to endorse any request."""

    items: Sequence[ReviewEntry]
    next_cursor: str | None
    weak: LockboxError | None


def own_requests(session: UnitOfWork, caller: Caller, *, cursor: str | None, most: int) -> OwnRequestListing:
    """Raises NotYours if the caller is no engineer and has never requested access."""
    authentication.enter(session, caller)
    rows = _own(session, caller.person_id, cursor, most)
    if not rows and not caller.holds(Role.ENGINEER):
        raise NotYours("Only engineers can request access.")
    shown = rows[:most]
    entries = queries.some(session, caller, [one for _, one in shown])
    last = f"{shown[-1][0]}-{shown[-1][1].hex}" if len(rows) > most else None
    counted = inbox.all_tallies_of(session, caller, [entry.request for entry in entries])
    items = [_with_next(session, caller, entry, counted) for entry in _own_entries(session, caller, entries)]
    return OwnRequestListing(items, last, inbox.sole_tallies(counted))


def to_review(session: UnitOfWork, caller: Caller, *, cursor: str | None, most: int) -> ReviewListing:
    if not caller.holds(Role.MANAGER):
        raise NotYours("Only managers of the vendor can review requests.")
    authentication.enter(session, caller)
    everybody = [request_list.Branch()]
    ids, beyond = request_list.soonest(
        session, everybody, State.REVIEWING, [AccessRequest.can_be_answered()], cursor=cursor, most=most
    )
    entries = queries.some(session, caller, ids, State.REVIEWING)
    at = now(session)
    todays = _todays(session, entries)
    items = [_to_review(caller, entry, at, todays[entry.request.id]) for entry in entries]
    return ReviewListing(items, beyond, sign_in_obstacle(caller, Action.ENDORSE, Terms(), at))


def _own(session: UnitOfWork, person_id: UUID, cursor: str | None, most: int) -> list[tuple[str, UUID]]:
    """`open` requests come before `closed` requests; more than `most` are returned if there is a next page."""
    read = CURSOR.fullmatch(cursor or f"open-{LATEST.hex}")
    if read is None:
        raise Invalid(request_list.NO_PAGE, field="after")
    mine, before = request_list.of_requester(person_id), col(AccessRequest.id) < UUID(hex=read[2])
    rows = list[tuple[str, UUID]]()
    if read[1] == "open":
        parts = [mine.open_in(state) for state in sorted(OPEN_STATES)]
        rows += [("open", one) for one in request_list.newest(session, parts, [before], most=most)]
    if len(rows) <= most:
        bounds = [IS_CLOSED, *([before] if read[1] == "closed" else [])]
        rows += [("closed", one) for one in request_list.newest(session, [mine], bounds, most=most)]
    return rows


def _own_entries(session: UnitOfWork, caller: Caller, entries: Sequence[RequestEntry]) -> list[OwnRequestEntry]:
    waiting = {entry.request.id: str(entry.request.state) for entry in entries if entry.request.state in ASKING}
    over = {
        entry.request.id: "pending" if entry.request.asked_at else "reviewing"
        for entry in entries
        if entry.request.state is State.TIMED_OUT
    }
    found = delivery_status.of_requests(session, waiting | over)
    reaches = {one: asked.of_the_past() if one in over else asked for one, asked in found.items()}
    unreached = delivery_status.unreached_people(session, list(waiting | over), caller.side)
    asked = questions.unanswered(
        session, [entry.request.id for entry in entries if entry.request.state in OPEN_STATES]
    )
    at = now(session)
    names = _awaited_names(session, [entry for entry in entries if entry.request.id in waiting], found)
    return [
        OwnRequestEntry(
            entry,
            names.get(entry.request.id, ()),
            reaches[entry.request.id].sentence() if entry.request.id in reaches else "",
            tuple(unreached.get(entry.request.id, ())),
            asked.get(entry.request.id, 0),
            _own_actions(caller, entry.request, at),
        )
        for entry in entries
    ]


def _with_next(
    session: UnitOfWork, caller: Caller, own: OwnRequestEntry, counted: Mapping[UUID, Sequence[ApprovalTally]]
) -> OwnRequestEntry:
    request = own.entry.request
    return replace(
        own,
        steps=quorum.steps_of(counted.get(request.id, ())),
        outlook=extend.outlook(session, caller, own.entry) if request.state is State.ACTIVE else None,
        after_review=after_reviews.read(session, caller, request),
    )


def _own_actions(caller: Caller, request: AccessRequest, at: datetime) -> tuple[Action, ...]:
    if at >= request.deadline_at:
        return ()
    state = State(request.state)
    held = parties(caller, request.requester_id, request.tenant_id, state, is_delegate=False) & {Party.REQUESTER}
    return tuple(action for action in Action if is_open_to(held, state, action))


def _awaited_names(
    session: UnitOfWork, entries: Sequence[RequestEntry], found: Mapping[UUID, DeliveryReach]
) -> dict[UUID, tuple[str, ...]]:
    voted = defaultdict[UUID, set[UUID]](set)
    for row in session.execute(reminders.VOTED, {"ids": [entry.request.id for entry in entries]}):
        voted[row.request_id].add(row.person_id)
    by_tenant = defaultdict[UUID, list[UUID]](list)
    for entry in entries:
        by_tenant[entry.request.tenant_id].append(entry.request.id)
    awaited: dict[UUID, tuple[str, ...]] = {}
    for tenant_id, ids in by_tenant.items():
        authentication.turn_to(session, tenant_id)
        names = names_of(session, {person for one in ids for person in found[one].people - voted[one]})
        for one in ids:
            left = found[one].people - voted[one]
            awaited[one] = tuple(sorted(names[person] for person in left if person in names))
    return awaited


def _todays(session: UnitOfWork, entries: Sequence[RequestEntry]) -> dict[UUID, EffectivePolicy]:
    effective_policies = {}
    for entry in entries:
        authentication.turn_to(session, entry.request.tenant_id)
        effective_policies[entry.request.id] = policy_store.effective_policy(session, entry.request)
    return effective_policies


def _to_review(caller: Caller, entry: RequestEntry, at: datetime, effective: EffectivePolicy) -> ReviewEntry:
    here = situation_of(entry.request, caller, at, effective)
    moves = {move.action: move for move in permitted_moves(here)}
    obstacle = moves[Action.ENDORSE].refusal
    # A refusal of the manager's sign-in is the same for all entries, so the page shows it once.
    said = obstacle.detail if obstacle and not isinstance(obstacle, SignInAgain) else ""
    return ReviewEntry(entry, said, may_deny=moves[Action.DENY].allowed)
