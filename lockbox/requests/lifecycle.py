"""The table of moves: which states a request has, what may follow each, and who may do it; pure."""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from lockbox.facts.enumerations import State

OPEN_STATES = frozenset({State.REVIEWING, State.PENDING, State.ACTIVE})
FINAL_STATES = frozenset(State) - OPEN_STATES


class Action(StrEnum):
    """What can be done to a request."""

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
    """In which capacity somebody acts on one particular request.

    Nobody is its operator but by shutting the requester out: what that person asked for ends with it. Nobody is the
    tenant admin of a request in review but by the emergency stop. The owner of the database ends what a restored
    back-up holds open. A system submits for an engineer, and ends what was asked for a case that is closed.
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
    """What the customer finds of a window that was opened by break-glass."""

    JUSTIFIED = "justified"
    NOT_JUSTIFIED = "not_justified"


class HeldBack(StrEnum):
    """Why a window that was approved lets nobody in, or would not if it began now."""

    TENANT_SUSPENDED = "tenant_suspended"
    ENGINEER_INACTIVE = "engineer_inactive"
    EXTENDED_WINDOW_ENDED = "extended_window_ended"
    APPROVAL_UNVERIFIED = "approval_unverified"
    STRICTER_POLICY = "stricter_policy"
    POLICY_UNVERIFIED = "policy_unverified"
    DATABASE_RESTORED = "database_restored"


@dataclass(frozen=True)
class MoveRule:
    """One row of the table.

    `to` is the state that follows; `instead` the one that follows where the policy says otherwise: no vendor review
    at submit, a mode without the customer's yes at endorse, a quorum not yet met at approve. `pre_approved` follows,
    in the place of the customer being asked, where they have approved it beforehand.
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
