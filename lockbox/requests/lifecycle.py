"""The table of moves: the states of a request, the moves between them, and who may make each move; pure."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from lockbox.facts.enumerations import State

OPEN_STATES = frozenset({State.REVIEWING, State.PENDING, State.ACTIVE})
FINAL_STATES = frozenset(State) - OPEN_STATES


class Action(StrEnum):
    """A move that a person, a service account or a timer makes on a request."""

    SUBMIT = "submit"
    ENDORSE = "endorse"
    BREAK_GLASS = "break_glass"
    APPROVE = "approve"
    DENY = "deny"
    CANCEL = "cancel"
    TIME_OUT = "time_out"
    COMPLETE = "complete"
    REVOKE = "revoke"
    EXPIRE = "expire"


class Party(StrEnum):
    """The capacity in which someone acts on a particular request.

    An operator acts only by shutting out the requester, which ends that person's requests. A tenant admin acts on a
    request in review only by the emergency stop. The owner of the database ends requests that a restored back-up left
    open.
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


class AfterReviewFinding(StrEnum):
    """What the customer finds about a window opened by break-glass."""

    JUSTIFIED = "justified"
    NOT_JUSTIFIED = "not_justified"


class HeldBack(StrEnum):
    """Why an approved window admits no one, or would admit no one if it began now."""

    TENANT_SUSPENDED = "tenant_suspended"
    ENGINEER_INACTIVE = "engineer_inactive"
    EXTENDED_WINDOW_ENDED = "extended_window_ended"
    APPROVAL_UNVERIFIED = "approval_unverified"
    STRICTER_POLICY = "stricter_policy"
    POLICY_UNVERIFIED = "policy_unverified"
    DATABASE_RESTORED = "database_restored"


@dataclass(frozen=True)
class MoveRule:
    """`to` is the usual next state; `pre_approved` is the next state if the customer has pre-approved the access.

    `instead` is the next state at submit if no vendor review is needed, at endorse if the mode needs no approval by
    the customer, and at approve if the quorum is not yet met.
    """

    to: State
    by: frozenset[Party]
    instead: State | None = None
    pre_approved: State | None = None


def _by(*parties: Party) -> frozenset[Party]:
    return frozenset(parties)


MOVES: dict[tuple[State | None, Action], MoveRule] = {
    (None, Action.SUBMIT): MoveRule(
        State.REVIEWING, _by(Party.ENGINEER, Party.SYSTEM), State.PENDING, pre_approved=State.ACTIVE
    ),
    (State.REVIEWING, Action.ENDORSE): MoveRule(
        State.PENDING, _by(Party.MANAGER), State.ACTIVE, pre_approved=State.ACTIVE
    ),
    (State.REVIEWING, Action.BREAK_GLASS): MoveRule(State.ACTIVE, _by(Party.MANAGER)),
    (State.REVIEWING, Action.DENY): MoveRule(State.DENIED, _by(Party.MANAGER, Party.TENANT_ADMIN)),
    (State.REVIEWING, Action.CANCEL): MoveRule(State.CANCELLED, _by(Party.REQUESTER, Party.OPERATOR, Party.SYSTEM)),
    (State.REVIEWING, Action.TIME_OUT): MoveRule(State.TIMED_OUT, _by(Party.CLOCK, Party.OWNER)),
    (State.PENDING, Action.APPROVE): MoveRule(State.ACTIVE, _by(Party.APPROVER), State.PENDING),
    (State.PENDING, Action.DENY): MoveRule(State.DENIED, _by(Party.APPROVER, Party.TENANT_ADMIN)),
    (State.PENDING, Action.CANCEL): MoveRule(State.CANCELLED, _by(Party.REQUESTER, Party.OPERATOR, Party.SYSTEM)),
    (State.PENDING, Action.TIME_OUT): MoveRule(State.TIMED_OUT, _by(Party.CLOCK, Party.OWNER)),
    (State.ACTIVE, Action.COMPLETE): MoveRule(State.COMPLETED, _by(Party.REQUESTER)),
    (State.ACTIVE, Action.REVOKE): MoveRule(
        State.REVOKED,
        _by(Party.APPROVER, Party.TENANT_ADMIN, Party.MANAGER, Party.OPERATOR, Party.OWNER, Party.SYSTEM),
    ),
    (State.ACTIVE, Action.EXPIRE): MoveRule(State.EXPIRED, _by(Party.CLOCK)),
}
DECISIONS = frozenset({Action.ENDORSE, Action.BREAK_GLASS, Action.APPROVE, Action.DENY})
PEOPLES_ACTIONS = frozenset({action for _, action in MOVES} - {Action.SUBMIT, Action.TIME_OUT, Action.EXPIRE})
CLOCK_ACTIONS: dict[State, Action] = {
    state: action for (state, action), move in MOVES.items() if state and Party.CLOCK in move.by
}


@cache
def end_by(party: Party, state: State) -> tuple[Action, State]:
    return next((action, row.to) for (now, action), row in MOVES.items() if now is state and party in row.by)
