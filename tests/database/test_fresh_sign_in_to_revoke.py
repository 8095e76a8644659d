"""Revoking a window needs a fresh sign-in only if the policy requires one."""

from typing import Any

import pytest

from harness.people import HERE, World
from lockbox.errors import SignInAgain
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.identity.roles import Caller
from lockbox.requests import decide
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from tests.database.scenes import state_of
from tests.each import each
from tests.policy_setup import lay_down, signed_in

STALE = [(AuthMethod.TOKEN, 0), (AuthMethod.PASSKEY, 6), (AuthMethod.MAIL, 6), (AuthMethod.OIDC, 6)]


def revoked(world: World, caller: Caller, **terms: Any) -> AccessRequest:
    """Open a window under these policy terms, and revoke it as the caller."""
    lay_down(world, **terms)
    request = world.act("amir", Action.APPROVE, world.submit().id)
    with world.db.transaction() as session:
        return decide.act(session, caller, HERE, request.id, DecisionInput(Action.REVOKE))


@pytest.mark.parametrize(("means", "minutes_ago"), STALE)
@pytest.mark.parametrize("who", ["ann", "tara", "max"])
def test_by_default_any_sign_in_is_enough_to_revoke(
    world: World, who: str, means: AuthMethod, minutes_ago: float
) -> None:
    caller = signed_in(world, who, means, minutes_ago=minutes_ago)

    assert revoked(world, caller).state is State.REVOKED


@pytest.mark.far
@each(("means", "minutes_ago"), STALE)
@each("who", ["ann", "tara", "max"])
def test_a_policy_can_refuse_revoking_with_a_token_or_an_old_sign_in(
    world: World, who: str, means: AuthMethod, minutes_ago: float
) -> None:
    caller = signed_in(world, who, means, minutes_ago=minutes_ago)

    with pytest.raises(SignInAgain) as refused:
        revoked(world, caller, revoke_sign_in_age=300)

    assert refused.value.facts == {"max_age": 300}


@pytest.mark.parametrize("means", [AuthMethod.PASSKEY, AuthMethod.MAIL, AuthMethod.OIDC])
def test_a_fresh_sign_in_is_always_enough_to_revoke(world: World, means: AuthMethod) -> None:
    caller = signed_in(world, "ann", means, minutes_ago=4)

    assert revoked(world, caller, revoke_sign_in_age=300).state is State.REVOKED


def test_the_stricter_of_old_and_current_policy_decides_which_sign_in_revoking_needs(world: World) -> None:
    lay_down(world, revoke_sign_in_age=300)
    request = world.act("amir", Action.APPROVE, world.submit().id)
    lay_down(world)
    caller = signed_in(world, "ann", AuthMethod.PASSKEY, minutes_ago=6)

    with world.db.transaction() as session, pytest.raises(SignInAgain):
        decide.act(session, caller, HERE, request.id, DecisionInput(Action.REVOKE))

    assert state_of(world.db, request.id) == "active"


def test_an_engineer_completes_a_window_without_the_fresh_sign_in_that_revoking_needs(world: World) -> None:
    lay_down(world, revoke_sign_in_age=60)
    request = world.act("amir", Action.APPROVE, world.submit().id)
    caller = signed_in(world, "erin", AuthMethod.TOKEN)

    with world.db.transaction() as session:
        assert decide.act(session, caller, HERE, request.id, DecisionInput(Action.COMPLETE)).state is State.COMPLETED
