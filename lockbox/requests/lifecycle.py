"""The table of moves and the deadlines: what may follow, until when, and when the clock has work; pure."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache

from lockbox.errors import InvalidMove, NotYours
from lockbox.requests.policy import Terms

REMIND = "remind"
"""What the clock does to a request before its deadline; the request stays in its state."""


class State(StrEnum):
    """Where a request stands. The last six are final, and six different facts."""

    REVIEWING = "reviewing"
    PENDING = "pending"
    ACTIVE = "active"
    DENIED = "denied"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    COMPLETED = "completed"
    REVOKED = "revoked"
    EXPIRED = "expired"


OPEN_STATES = frozenset({State.REVIEWING, State.PENDING, State.ACTIVE})
FINAL_STATES = frozenset(State) - OPEN_STATES


class Action(StrEnum):
    """What can be done to a request."""

    SUBMIT = "submit"
    ENDORSE = "endorse"
    APPROVE = "approve"
    DENY = "deny"
    CANCEL = "cancel"
    TIME_OUT = "time_out"
    COMPLETE = "complete"
    REVOKE = "revoke"
    EXPIRE = "expire"


class Party(StrEnum):
    """In which capacity somebody acts on one particular request.

    Nobody is its operator but by shutting the requester out: what that person asked for ends with it. Nobody is the
    tenant admin of a request in review but by the emergency stop. The owner of the database ends what a restored
    back-up holds open.
    """

    ENGINEER = "engineer"
    SYSTEM = "system"
    REQUESTER = "requester"
    MANAGER = "manager"
    APPROVER = "approver"
    TENANT_ADMIN = "tenant_admin"
    OPERATOR = "operator"
    CLOCK = "clock"
    OWNER = "owner"


@dataclass(frozen=True)
class MoveRule:
    """One row of the table.

    `to` is the state that follows; `instead` the one that follows where the policy says otherwise: no vendor
    review at submit, a mode without the customer's yes at endorse, a quorum not yet met at approve.
    """

    to: State
    by: frozenset[Party]
    instead: State | None = None


def _by(*parties: Party) -> frozenset[Party]:
    return frozenset(parties)


MOVES: dict[tuple[State | None, Action], MoveRule] = {
    (None, Action.SUBMIT): MoveRule(State.REVIEWING, _by(Party.ENGINEER, Party.SYSTEM), State.PENDING),
    (State.REVIEWING, Action.ENDORSE): MoveRule(State.PENDING, _by(Party.MANAGER), State.ACTIVE),
    (State.REVIEWING, Action.DENY): MoveRule(State.DENIED, _by(Party.MANAGER, Party.TENANT_ADMIN)),
    (State.REVIEWING, Action.CANCEL): MoveRule(State.CANCELLED, _by(Party.REQUESTER, Party.OPERATOR)),
    (State.REVIEWING, Action.TIME_OUT): MoveRule(State.TIMED_OUT, _by(Party.CLOCK, Party.OWNER)),
    (State.PENDING, Action.APPROVE): MoveRule(State.ACTIVE, _by(Party.APPROVER), State.PENDING),
    (State.PENDING, Action.DENY): MoveRule(State.DENIED, _by(Party.APPROVER, Party.TENANT_ADMIN)),
    (State.PENDING, Action.CANCEL): MoveRule(State.CANCELLED, _by(Party.REQUESTER, Party.OPERATOR)),
    (State.PENDING, Action.TIME_OUT): MoveRule(State.TIMED_OUT, _by(Party.CLOCK, Party.OWNER)),
    (State.ACTIVE, Action.COMPLETE): MoveRule(State.COMPLETED, _by(Party.REQUESTER)),
    (State.ACTIVE, Action.REVOKE): MoveRule(
        State.REVOKED, _by(Party.APPROVER, Party.TENANT_ADMIN, Party.MANAGER, Party.OPERATOR, Party.OWNER)
    ),
    (State.ACTIVE, Action.EXPIRE): MoveRule(State.EXPIRED, _by(Party.CLOCK)),
}
DECISIONS = frozenset({Action.ENDORSE, Action.APPROVE, Action.DENY})
PEOPLES_ACTIONS = frozenset({action for _, action in MOVES} - {Action.SUBMIT, Action.TIME_OUT, Action.EXPIRE})
CLOCK_ACTIONS: dict[State, Action] = {
    state: action for (state, action), move in MOVES.items() if state and Party.CLOCK in move.by
}


def move(state: State | None, action: Action, parties: AbstractSet[Party]) -> tuple[MoveRule, Party]:
    """Return the row of the table and the capacity in which the caller takes it.

    Raises:
        NotYours: no row with this action is open to any of the parties, whatever the state.
        InvalidMove: the request is in a state from which this action does not lead anywhere for them.
    """
    if not any(row.by & parties for (_, taken), row in MOVES.items() if taken is action):
        raise NotYours(f"Only {_names(action)} may {action} a request.")
    row = MOVES.get((state, action))
    if row is None:
        raise InvalidMove(f"A request that is {state} cannot be changed by {action}.", current_state=state)
    may = row.by & parties
    if not may:
        raise NotYours(f"A request that is {state} is for {' or '.join(sorted(row.by))} to {action}.")
    return row, next(party for party in Party if party in may)


@cache
def end_by(party: Party, state: State) -> tuple[Action, State]:
    """Return by which action the clock or the owner ends an open request, and the state that follows."""
    return next((action, row.to) for (now, action), row in MOVES.items() if now is state and party in row.by)


def clock_task(state: State, wake_at: datetime | None, deadline_at: datetime) -> str:
    """Return what the clock is to do to a request when it wakes: end it, or before its deadline remind people."""
    if wake_at is not None and wake_at < deadline_at:
        return REMIND
    return CLOCK_ACTIONS.get(state, Action.EXPIRE).value


def _names(action: Action) -> str:
    parties = {party for (_, taken), row in MOVES.items() if taken is action for party in row.by}
    return " or ".join(sorted(parties))


@dataclass(frozen=True)
class Phase:
    """The stretch of time for which a request stands in one state, and how far the clock's reminders have come in it.

    `since` is when it was asked or opened, `tiers_asked` how many tiers of those who can answer were asked so far:
    0 where there are none, and everybody was asked at once. `review_tiers` is how many the vendor's managers have.
    """

    state: State
    since: datetime
    deadline_at: datetime
    tiers_asked: int = 0
    review_tiers: int = 1
    warned: bool = False


@dataclass(frozen=True)
class DueReminders:
    """What the clock has to do to a request that stays in its state; `escalate` is how many tiers to ask."""

    remind: bool
    escalate: int
    warn: bool


def deadline(state: State, since: datetime, *, review: int, approval: int, access: int) -> datetime:
    """Return when the clock that starts with this state runs out; `since` itself for the states that end."""
    seconds = {State.REVIEWING: review, State.PENDING: approval, State.ACTIVE: access}.get(state, 0)
    return since.astimezone(UTC) + timedelta(seconds=seconds)


def too_late_at(
    action: Action,
    terms: Terms,
    *,
    deadline_at: datetime,
    created_at: datetime,
    asked_at: datetime | None,
    paused: timedelta,
) -> datetime:
    """Return the moment from which a move on a request is too late, whether or not the clock has ended it already.

    A policy that has become stricter since leaves less time for a yes. `paused` is how long questions stopped the
    clock.
    """
    if action is Action.APPROVE and asked_at:
        return min(deadline_at, asked_at + timedelta(seconds=terms.approval_window) + paused)
    if action is Action.ENDORSE:
        return min(deadline_at, created_at + timedelta(seconds=terms.review_window))
    return deadline_at


def wake_at(phase: Phase, terms: Terms, at: datetime) -> datetime | None:
    """Return the next moment after `at` at which the clock has something to do for this request, if any.

    It is the earliest of the next reminder, the next escalation, the warning and the deadline. What would come at the
    deadline or after it never comes.
    """
    if phase.state in FINAL_STATES:
        return None
    phase, at = _in_utc(phase), at.astimezone(UTC)
    moments = [*_reminders(phase, terms), *_warnings(phase, terms)]
    moments += _escalations(phase, terms)[phase.tiers_asked - 1 :] if phase.tiers_asked else []
    return min((moment for moment in moments if at < moment < phase.deadline_at), default=phase.deadline_at)


def due_reminders(phase: Phase, terms: Terms, woken_at: datetime, at: datetime) -> DueReminders:
    """Return what is due at `at` for a request whose clock was set to `woken_at`.

    However late it is, that is one reminder at most; at the deadline it is nothing at all.
    """
    phase, at, asked = _in_utc(phase), at.astimezone(UTC), phase.tiers_asked
    if phase.state in FINAL_STATES or at >= phase.deadline_at:
        return DueReminders(remind=False, escalate=asked, warn=False)
    passed = sum(moment <= at for moment in _escalations(phase, terms))
    return DueReminders(
        remind=any(woken_at <= moment <= at for moment in _reminders(phase, terms)),
        escalate=max(asked, passed + 1) if asked else 0,
        warn=any(moment <= at for moment in _warnings(phase, terms)),
    )


def _reminders(phase: Phase, terms: Terms) -> list[datetime]:
    percents = {State.REVIEWING: terms.review_reminders, State.PENDING: terms.approval_reminders}
    return list(_moments(phase, percents.get(phase.state, ())))


def _escalations(phase: Phase, terms: Terms) -> list[datetime]:
    """Return when the second tier, the third and so on are to be asked."""
    further = {
        State.REVIEWING: terms.review_escalation[: max(phase.review_tiers - 1, 0)],
        State.PENDING: terms.escalation[: max(len(terms.tiers) - 1, 0)],
    }
    return list(_moments(phase, further.get(phase.state, ())))


def _warnings(phase: Phase, terms: Terms) -> Iterator[datetime]:
    before = timedelta(seconds=terms.closing_warning)
    opened = phase.state is State.ACTIVE and not phase.warned
    if opened and before and phase.deadline_at - before > phase.since:
        yield phase.deadline_at - before


def _moments(phase: Phase, percents: tuple[int, ...]) -> Iterator[datetime]:
    return (phase.since + (phase.deadline_at - phase.since) * percent / 100 for percent in percents)


def _in_utc(phase: Phase) -> Phase:
    # Between two readings of a clock on a wall, an hour may be missing or come twice.
    since, until = phase.since.astimezone(UTC), phase.deadline_at.astimezone(UTC)
    return replace(phase, since=since, deadline_at=until)
