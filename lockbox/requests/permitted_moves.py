"""Which moves a person may make on a request now, and why the others are refused; pure."""

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from lockbox.errors import (
    AlreadyDecided,
    AlreadyEndorsed,
    EarlierStepFirst,
    InvalidMove,
    LockboxError,
    NotYours,
    OwnRequest,
    PasskeyTooNew,
    PolicyNotMet,
    PolicyUnverified,
    SignInAgain,
    StaleVersion,
    TenantSuspended,
    TooLate,
)
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.requests.deadlines import too_late_at
from lockbox.requests.lifecycle import DECISIONS, MOVES, PEOPLES_ACTIONS, Action, MoveRule, Party
from lockbox.requests.policy import UNVERIFIED, Terms, stricter
from lockbox.requests.quorum import Vote, has_steps, has_turn, lacking, step_of, tallies

OPENING = frozenset({Action.ENDORSE, Action.BREAK_GLASS, Action.APPROVE})
REVIEWERS_OPENING = OPENING - {Action.APPROVE}
"""The moves by which the vendor's managers open a window or have the customer asked.

No customer's policy weakens what these moves demand."""
COUNTS_ONCE = "You have already made this decision. It counts once."
IN_VAIN = (
    "You have already approved, but your approval no longer counts: a code from a mail is no longer enough, or a "
    "signature with a passkey is now required, or you are no longer a delegate of the approver. Another approver "
    "has to decide."
)
SUSPENDED = (
    "The vendor has suspended this tenant. Requests can be approved once it is resumed. Until then they can be "
    "denied or cancelled."
)
NO_BREAK_GLASS = "This request was not submitted for break-glass. Endorse it, and the customer is asked, or deny it."
STRICTER_SINCE = "The customer's policy has become stricter, and this request no longer meets it."
OUTLIVED = (
    "The window that this request extends was ended, so it cannot be extended any more. Deny the request, or have it "
    "cancelled."
)
UNREVIEWED = (
    "The customer's policy now requires a review by the vendor, and this request was not reviewed. The vendor has to "
    "cancel it and submit a new one."
)

NOT_YET = (
    "It is not your turn yet: the policy first asks for {groups}. You are asked as soon as they have approved. "
    "You can deny the request at any time."
)


@dataclass(frozen=True)
class Situation:
    """What the caller's possible moves on a request depend on.

    All values are read at one time. Before a move is made, they are read under the lock of the request's row.

    `paused` is how long questions have stopped the approval clock. `terms` are the strictest of the request's own
    terms and today's. `lacks` is what the request no longer meets under `terms` (field and sentence). `principals`
    are the approvers for whom the caller stands in. `is_outlived` is whether the window that the request extends was
    ended. `break_glass_lacks` is what the request does not meet for break-glass, None if that was not checked.
    """

    caller: Caller
    tenant_id: UUID
    requester_id: UUID
    state: State
    version: int
    created_at: datetime
    asked_at: datetime | None
    deadline_at: datetime
    at: datetime
    terms: Terms
    paused: timedelta = timedelta(0)
    lacks: Sequence[tuple[str, str]] = ()
    votes: Sequence[Vote] = ()
    principals: AbstractSet[UUID] = frozenset()
    groups: Mapping[str, Collection[UUID]] = field(default_factory=dict)
    is_suspended: bool = False
    is_verified: bool = True
    is_outlived: bool = False
    break_glass: bool = False
    break_glass_lacks: Sequence[tuple[str, str]] | None = None
    too_new: PasskeyTooNew | None = None

    def now_is(self) -> dict[str, str | int]:
        return now_is(self.state, self.version)


@dataclass(frozen=True)
class PossibleMove:
    """`refusal` is None if the person may make the move now."""

    action: Action
    refusal: LockboxError | None = None

    @property
    def allowed(self) -> bool:
        return self.refusal is None


def permitted_moves(here: Situation) -> tuple[PossibleMove, ...]:
    """Return all moves that people make, permitted or refused, in the order of `Action`.

    The comment, limits and signature of a move are checked only when the move is made.
    """
    return tuple(PossibleMove(action, _refusal(here, action)) for action in Action if action in PEOPLES_ACTIONS)


def permitted(
    here: Situation, action: Action, *, parties: AbstractSet[Party] | None = None, seen: int | None = None
) -> tuple[MoveRule, Party]:
    """Return the rule of `lifecycle.MOVES` for the caller's move, and the capacity in which the caller makes it.

    `parties` replaces the caller's own capacities; the calling code has checked them. `seen` is the version that the
    caller saw.

    Raises OwnRequest, AlreadyEndorsed, SignInAgain, PasskeyTooNew, StaleVersion, InvalidMove, TooLate,
    AlreadyDecided, TenantSuspended, PolicyUnverified, PolicyNotMet, EarlierStepFirst.
    """
    if action in DECISIONS and here.caller.holds(Role.SYSTEM):
        raise NotYours("A service account cannot decide.")
    if action in DECISIONS and here.requester_id == here.caller.person_id:
        raise OwnRequest("This is your own request. Somebody else has to decide.")
    if seen is not None and seen != here.version:
        raise StaleVersion("The request has changed since you read it. Read it again.", **here.now_is())
    rule, party = _rule(here, action, parties_of(here) if parties is None else parties)
    if action is Action.REVOKE and party not in {Party.OPERATOR, Party.SYSTEM} and not here.break_glass:
        fresh_enough_to_revoke(here.caller, here.terms, here.at)
    if here.at >= too_late_at(
        action,
        here.terms,
        deadline_at=here.deadline_at,
        created_at=here.created_at,
        asked_at=here.asked_at,
        paused=here.paused,
    ):
        raise TooLate("The deadline has passed.", **here.now_is())
    if action is Action.APPROVE:
        _in_turn(here)
    if action in OPENING:
        _may_open(here, action)
    if action in DECISIONS:
        _first_answer(here, action)
    return rule, party


def move(state: State | None, action: Action, parties: AbstractSet[Party]) -> tuple[MoveRule, Party]:
    """Return the rule of `lifecycle.MOVES` for a move, and the one of `parties` that makes the move.

    Raises NotYours; InvalidMove if the state has no such move.
    """
    if not any(row.by & parties for (_, taken), row in MOVES.items() if taken is action):
        raise NotYours(f"Only {_names(action)} may {_verb(action)} a request.")
    row = MOVES.get((state, action))
    if row is None:
        raise InvalidMove(f"A request that is {state} cannot be changed by {action}.", current_state=state)
    may = row.by & parties
    if not may:
        raise NotYours(f"Only {' or '.join(sorted(row.by))} may {_verb(action)} a request that is {state}.")
    return row, next(party for party in Party if party in may)


def parties_of(here: Situation) -> frozenset[Party]:
    return parties(here.caller, here.requester_id, here.tenant_id, here.state, is_delegate=bool(here.principals))


def parties(
    caller: Caller, requester_id: UUID, tenant_id: UUID, state: State, *, is_delegate: bool
) -> frozenset[Party]:
    """Return the capacities in which someone acts on a request; only this function determines them.

    `is_delegate` is whether the caller stands in for an approver of the tenant now.
    """
    held = {
        Party.REQUESTER: caller.person_id == requester_id,
        Party.MANAGER: caller.holds(Role.MANAGER),
        Party.APPROVER: is_delegate or caller.holds(Role.APPROVER, tenant_id=tenant_id),
        Party.TENANT_ADMIN: state is not State.REVIEWING and caller.holds(Role.TENANT_ADMIN, tenant_id=tenant_id),
    }
    return frozenset(party for party, holds in held.items() if holds)


def submitting_parties(caller: Caller) -> set[Party]:
    """Raises NotYours if the token of a service account lacks the scope."""
    if caller.holds(Role.ENGINEER):
        return {Party.ENGINEER}
    if not caller.holds(Role.SYSTEM):
        return set()
    if Scope.REQUESTS_FILE not in caller.scopes:
        raise NotYours(f"This token needs the scope {Scope.REQUESTS_FILE}: create a token that has it.")
    return {Party.SYSTEM}


def is_open_to(held: AbstractSet[Party], state: State, action: Action) -> bool:
    rule = MOVES.get((state, action))
    return rule is not None and bool(rule.by & held)


def now_is(state: State, version: int) -> dict[str, str | int]:
    return {"current_state": state.value, "current_version": version}


def _refusal(here: Situation, action: Action) -> LockboxError | None:
    try:
        permitted(here, action)
    except LockboxError as refused:
        return refused
    return None


def _rule(here: Situation, action: Action, parties: AbstractSet[Party]) -> tuple[MoveRule, Party]:
    try:
        return move(here.state, action, parties)
    except InvalidMove as refused:
        raise InvalidMove(refused.detail, **here.now_is()) from None


def _names(action: Action) -> str:
    parties = {party for (_, taken), row in MOVES.items() if taken is action for party in row.by}
    return " or ".join(sorted(parties))


def _verb(action: Action) -> str:
    return "use break-glass for" if action is Action.BREAK_GLASS else action.value


def _may_open(here: Situation, action: Action) -> None:
    if here.is_suspended:
        raise TenantSuspended(SUSPENDED)
    if not here.is_verified:
        raise PolicyUnverified(UNVERIFIED)
    if here.is_outlived:
        raise InvalidMove(OUTLIVED, **here.now_is())
    if refused := sign_in_obstacle(here.caller, action, here.terms, here.at):
        raise refused
    if here.too_new and action is Action.APPROVE:
        raise here.too_new
    if here.lacks:
        errors = [{"field": field, "message": message} for field, message in here.lacks]
        said = " ".join(message for _, message in here.lacks)
        raise PolicyNotMet(
            f"{STRICTER_SINCE} {said} Deny it, or have it cancelled and submitted anew.", errors=errors
        )
    if action is Action.BREAK_GLASS:
        _may_break_glass(here)
    endorsed = any(vote.decision is Action.ENDORSE for vote in here.votes)
    if action is Action.APPROVE and here.terms.vendor_review and not endorsed:
        raise PolicyNotMet(UNREVIEWED)


def _may_break_glass(here: Situation) -> None:
    if not here.break_glass or here.break_glass_lacks is None:
        raise InvalidMove(NO_BREAK_GLASS, **here.now_is())
    if here.break_glass_lacks:
        errors = [{"field": field, "message": message} for field, message in here.break_glass_lacks]
        raise PolicyNotMet(" ".join(message for _, message in here.break_glass_lacks), errors=errors)


def _first_answer(here: Situation, action: Action) -> None:
    """Refuse a decision that the person has made before, and an approval by the person who endorsed the request."""
    mine = {vote.decision: vote for vote in here.votes if vote.person_id == here.caller.person_id}
    if action in mine:
        in_vain = action is Action.APPROVE and not mine[action].seats
        raise AlreadyDecided(IN_VAIN if in_vain else COUNTS_ONCE, **here.now_is())
    if action is Action.APPROVE and Action.ENDORSE in mine:
        raise AlreadyEndorsed("You endorsed this request for the vendor. Somebody else has to approve it.")


def _in_turn(here: Situation) -> None:
    stages = here.terms.stages
    if not has_steps(stages):
        return
    own = {here.caller.person_id} if here.caller.holds(Role.APPROVER, tenant_id=here.tenant_id) else set()
    counted = tallies(here.votes, here.terms.quorum, stages, here.groups)
    step = step_of(counted)
    if not has_turn(here.caller.person_id, own | here.principals, stages, here.groups, step):
        groups = " and ".join(f"{one.needed - one.approvals} of {one.group}" for one in lacking(counted))
        raise EarlierStepFirst(NOT_YET.format(groups=groups), step=step, **here.now_is())


def sign_in_obstacle(caller: Caller, action: Action, terms: Terms, at: datetime) -> LockboxError | None:
    try:
        if caller.by_device_login:
            raise SignInAgain(
                "A device login cannot approve or endorse. Use the browser or a token of your identity provider."
            )
        # A manager's sign-in must meet the default terms, and the customer's terms if they are stricter.
        strong_enough(caller, stricter(Terms(), terms) if action in REVIEWERS_OPENING else terms, at)
    except NotYours as refused:
        return refused
    return None


def strong_enough(caller: Caller, terms: Terms, at: datetime) -> None:
    """Check that the person's sign-in is fresh and strong enough to open a window.

    Raises NotYours, SignInAgain.
    """
    if caller.holds(Role.SYSTEM):
        raise NotYours("A service account cannot decide.")
    if caller.means is AuthMethod.SAMPLE:
        return
    if caller.means is AuthMethod.TOKEN or caller.signed_in_at is None:
        raise SignInAgain(
            "An API token cannot approve. Sign in with a browser or use a token of your identity provider."
        )
    if caller.means is AuthMethod.MAIL and not terms.mail_suffices:
        raise SignInAgain(
            "A code from a mail is not enough here, and neither is a passkey or an identity provider that was added "
            "in the last 72 hours. Sign in with an older passkey or identity provider."
        )
    if at - caller.signed_in_at > timedelta(seconds=terms.sign_in_age):
        minutes = terms.sign_in_age // 60
        raise SignInAgain(f"Your sign-in is older than {minutes} minutes. Sign in again.", max_age=terms.sign_in_age)


def fresh_enough_to_revoke(caller: Caller, terms: Terms, at: datetime) -> None:
    """Raises SignInAgain if the sign-in is older than the policy permits for revoking a window."""
    age = terms.revoke_sign_in_age
    if age is None or caller.means is AuthMethod.SAMPLE:
        return
    if caller.means is AuthMethod.TOKEN or caller.signed_in_at is None:
        raise SignInAgain(
            "The policy requires a recent sign-in to revoke. Sign in with a browser; an API token is not enough.",
            max_age=age,
        )
    if at - caller.signed_in_at > timedelta(seconds=age):
        raise SignInAgain(
            f"Your sign-in is older than {age // 60} minutes, the limit of the policy for revoking. Sign in again.",
            max_age=age,
        )
