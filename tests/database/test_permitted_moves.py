"""The moves that a request lists as permitted for a person are exactly those that succeed."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, NoReturn
from uuid import UUID

import pytest

from harness.clocks import ShiftedClock
from harness.people import HERE, World
from lockbox.database import Database, UnitOfWork, now
from lockbox.errors import LockboxError, NotFound
from lockbox.facts.enumerations import ApproveMeans, AuthMethod, State
from lockbox.identity.roles import Caller
from lockbox.requests import decide, request_page
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import OPEN_STATES, PEOPLES_ACTIONS, Action
from lockbox.requests.permitted_moves import PossibleMove
from lockbox.requests.policy_rules import Policy

SHIFTS = (timedelta(0), timedelta(hours=13))
LEAST = 600
"""Far more cases than states and actions: nobody and nothing was left out unseen."""
ONLY_LOOKS = "You have read-only access to this request."
STORIES: dict[State, tuple[tuple[str, Action], ...]] = {
    State.REVIEWING: (),
    State.PENDING: (("max", Action.ENDORSE),),
    State.ACTIVE: (("max", Action.ENDORSE), ("ann", Action.APPROVE), ("amir", Action.APPROVE)),
    State.DENIED: (("max", Action.ENDORSE), ("ann", Action.DENY)),
    State.CANCELLED: (("erin", Action.CANCEL),),
    State.COMPLETED: (
        ("max", Action.ENDORSE),
        ("ann", Action.APPROVE),
        ("amir", Action.APPROVE),
        ("erin", Action.COMPLETE),
    ),
    State.REVOKED: (
        ("max", Action.ENDORSE),
        ("ann", Action.APPROVE),
        ("amir", Action.APPROVE),
        ("abe", Action.REVOKE),
    ),
}
SHAPES: dict[str, Policy] = {
    "two approvals after a review": Policy(vendor_review=True, quorum=2),
    "one approval after a review, and a fresh sign-in to revoke": Policy(vendor_review=True, revoke_sign_in_age=300),
    "a code from a mail suffices": Policy(vendor_review=True, quorum=2, mail_suffices=True),
    "approvals are signed": Policy(vendor_review=True, approve_means=ApproveMeans.PASSKEY_SIGNED),
}


NEAR = "two approvals after a review"


class UndoneError(Exception):
    """Raised after a successful move, to roll it back."""


def _everybody(world: World, session: UnitOfWork) -> Iterator[tuple[str, Caller]]:
    """Yield all people of a world as signed in, and an approver and a manager with every other kind of sign-in."""
    at = now(session)
    yield from world.people.items()
    for name in ("ann", "max"):
        one = world.people[name]
        yield f"{name} by a token", replace(one, means=AuthMethod.TOKEN)
        yield f"{name} by a mailed code", replace(one, means=AuthMethod.MAIL, signed_in_at=at)
        yield f"{name} by a passkey", replace(one, means=AuthMethod.PASSKEY, signed_in_at=at)
        yield (
            f"{name} by a passkey of yesterday",
            replace(one, means=AuthMethod.PASSKEY, signed_in_at=at - timedelta(days=1)),
        )
        yield f"{name} at a terminal", replace(one, by_device_login=True)


def _tried(db: Database, caller: Caller, request_id: UUID, action: Action) -> LockboxError | None:
    """Try a move with all that a policy could demand, and roll it back; return the refusal, None if it succeeds."""
    try:
        with db.transaction() as session:
            decide.act(session, caller, HERE, request_id, DecisionInput(action, "As told"))
            _undo()
    except UndoneError:
        return None
    except LockboxError as refused:
        return refused


def _undo() -> NoReturn:
    raise UndoneError


def _told(db: Database, caller: Caller, request_id: UUID) -> tuple[PossibleMove, ...]:
    with db.transaction() as session:
        return tuple(request_page.read(session, caller, request_id).moves)


def _differs(told: PossibleMove, tried: LockboxError | None) -> bool:
    if tried is not None and tried.detail == ONLY_LOOKS:
        return told.allowed
    # Whether an approval is signed is judged by what comes along with it.
    if tried is not None and tried.code == "passkey-must-sign":
        return not told.allowed
    return _of(told.refusal) != _of(tried)


def _of(refusal: LockboxError | None) -> tuple[Any, ...] | None:
    return None if refusal is None else (type(refusal), refusal.detail)


@pytest.mark.far
@pytest.mark.parametrize(
    "shape", [name if name == NEAR else pytest.param(name, marks=pytest.mark.far) for name in SHAPES]
)
def test_permitted_moves_succeed_and_other_moves_are_refused_with_the_stated_reason(
    api: Database, later: ShiftedClock, shape: str
) -> None:
    api.clock = later
    world = World.make(api, SHAPES[shape])
    wrong, compared, reached = [], 0, set[State]()

    for state, story in STORIES.items():
        later.shift = timedelta(0)
        request = world.submit(resources=[f"mailbox:{state}@contoso.example"])
        for who, action in story:
            if request.state != state:
                request = _moved(world, who, action, request.id) or request
        reached.add(State(request.state))
        for shift in SHIFTS if request.state in OPEN_STATES else SHIFTS[:1]:
            later.shift = shift
            with api.transaction() as session:
                people = list(_everybody(world, session))
            for name, caller in people:
                try:
                    moves = _told(api, caller, request.id)
                except NotFound:
                    assert isinstance(_tried(api, caller, request.id, Action.APPROVE), NotFound), (state, name)
                    continue
                assert [move.action for move in moves] == [one for one in Action if one in PEOPLES_ACTIONS]
                for one in moves:
                    tried = _tried(api, caller, request.id, one.action)
                    compared += 1
                    if _differs(one, tried):
                        wrong.append((state.value, str(shift), name, one.action.value, _of(one.refusal), _of(tried)))

    assert not wrong
    assert compared > LEAST
    assert reached == set(STORIES) or "signed" in shape


def _moved(world: World, who: str, action: Action, request_id: UUID) -> Any:
    try:
        return world.act(who, action, request_id)
    except LockboxError:
        return None
