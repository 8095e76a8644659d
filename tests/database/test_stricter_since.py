"""What a customer lays down while a request waits: votes, terms and sign-ins meet the stricter of then and now."""

from datetime import timedelta
from typing import Any

import pytest

from harness.clocks import ShiftedClock
from harness.people import HERE, World
from lockbox.database import Database
from lockbox.errors import AlreadyDecided, PolicyNotMet, SignInAgain, TooLate
from lockbox.facts.enumerations import AuthMethod, Mode, State
from lockbox.identity.roles import Caller
from lockbox.requests import decide
from lockbox.requests.decisions import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.policy_setup import lay_down, signed_in


def acts(world: World, caller: Caller, action: Action, request: AccessRequest) -> State:
    """Let somebody act as the caller that they are; return the state after that."""
    with world.db.transaction() as session:
        return decide.act(session, caller, HERE, request.id, DecisionInput(action, "No")).state


def reviewed(api: Database, mode: Mode = Mode.ENFORCE, **terms: Any) -> World:
    """Make a world whose tenant's requests a manager of the vendor reviews."""
    return World.make(api, Policy.model_validate(terms), mode)


def test_a_vote_by_mail_counts_only_while_the_policy_lets_mail_suffice(world: World) -> None:
    lay_down(world, quorum=2, mail_suffices=True)
    request = world.submit()
    acts(world, signed_in(world, "ann", AuthMethod.MAIL), Action.APPROVE, request)
    lay_down(world, quorum=2, mail_suffices=False)

    after_two = acts(world, signed_in(world, "amir", AuthMethod.PASSKEY), Action.APPROVE, request)
    after_three = acts(world, signed_in(world, "abe", AuthMethod.PASSKEY), Action.APPROVE, request)

    assert (after_two, after_three) == (State.PENDING, State.ACTIVE)


def test_a_vote_by_mail_still_counts_where_mail_still_suffices(world: World) -> None:
    lay_down(world, quorum=2, mail_suffices=True)
    request = world.submit()
    acts(world, signed_in(world, "ann", AuthMethod.MAIL), Action.APPROVE, request)

    assert acts(world, signed_in(world, "amir", AuthMethod.PASSKEY), Action.APPROVE, request) is State.ACTIVE


def test_a_vote_by_mail_that_no_longer_counts_shortens_no_window(world: World) -> None:
    lay_down(world, quorum=2, mail_suffices=True)
    request = world.submit(access_window=3600)
    with world.db.transaction() as session:
        shorter = DecisionInput(Action.APPROVE, access_window=60)
        decide.act(session, signed_in(world, "ann", AuthMethod.MAIL), HERE, request.id, shorter)
    lay_down(world, quorum=2)
    world.act("amir", Action.APPROVE, request.id)

    opened = world.act("abe", Action.APPROVE, request.id)

    assert opened.opened_at is not None
    assert opened.deadline_at - opened.opened_at == timedelta(seconds=3600)


def test_whoever_voted_by_mail_in_vain_is_told_so(world: World) -> None:
    lay_down(world, quorum=2, mail_suffices=True)
    request = world.submit()
    acts(world, signed_in(world, "ann", AuthMethod.MAIL), Action.APPROVE, request)
    lay_down(world, quorum=2)

    with pytest.raises(AlreadyDecided, match="a code from a mail is no longer enough"):
        acts(world, signed_in(world, "ann", AuthMethod.PASSKEY), Action.APPROVE, request)


def test_a_denial_by_mail_holds_whatever_the_policy_says(world: World) -> None:
    request = world.submit()

    assert acts(world, signed_in(world, "ann", AuthMethod.MAIL), Action.DENY, request) is State.DENIED


LACKING = [
    ({"require_case": True}, "case_ref"),
    ({"justification_least": 100}, "justification"),
    ({"reasons": ["vendor_alert"]}, "reason_code"),
]


@pytest.mark.parametrize(("since", "field"), LACKING)
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_what_no_longer_meets_the_policy_is_not_endorsed(
    api: Database, mode: Mode, since: dict[str, Any], field: str
) -> None:
    world = reviewed(api, mode)
    request = world.submit(case_ref=None)
    lay_down(world, vendor_review=True, **since)

    with pytest.raises(PolicyNotMet, match="submitted anew") as refused:
        world.act("max", Action.ENDORSE, request.id)

    assert [error["field"] for error in refused.value.facts["errors"]] == [field]
    assert world.act("max", Action.DENY, request.id).state is State.DENIED


@pytest.mark.parametrize(("since", "field"), LACKING)
def test_what_no_longer_meets_the_policy_is_not_approved(world: World, since: dict[str, Any], field: str) -> None:
    request = world.submit(case_ref=None)
    lay_down(world, **since)

    with pytest.raises(PolicyNotMet, match="submitted anew") as refused:
        world.act("ann", Action.APPROVE, request.id)

    assert [error["field"] for error in refused.value.facts["errors"]] == [field]
    assert world.act("ann", Action.DENY, request.id).state is State.DENIED


def test_what_no_manager_has_seen_is_not_approved_once_the_policy_asks_for_one(world: World) -> None:
    request = world.submit()
    lay_down(world, vendor_review=True)

    with pytest.raises(PolicyNotMet, match=r"review by the vendor.* cancel it and submit a new one"):
        world.act("ann", Action.APPROVE, request.id)

    assert world.act("erin", Action.CANCEL, request.id).state is State.CANCELLED
    assert world.submit().state is State.REVIEWING


def test_what_a_manager_has_endorsed_is_approved_when_the_policy_asks_for_one_again(api: Database) -> None:
    world = reviewed(api)
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    lay_down(world, vendor_review=False)
    lay_down(world, vendor_review=True)

    assert world.act("ann", Action.APPROVE, request.id).state is State.ACTIVE


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_a_time_to_review_that_was_shortened_since_is_over_earlier(
    api: Database, mode: Mode, later: ShiftedClock
) -> None:
    world = reviewed(api, mode)
    request = world.submit()
    lay_down(world, vendor_review=True, review_window=600)
    later.shift = timedelta(seconds=601)

    with pytest.raises(TooLate):
        world.act("max", Action.ENDORSE, request.id, Database(api.engine, api.schedule, later))


@pytest.mark.parametrize(
    ("means", "minutes_ago", "policy"),
    [
        (AuthMethod.MAIL, 0, {"mail_suffices": True}),
        (AuthMethod.PASSKEY, 16, {"sign_in_age": 86400}),
        (AuthMethod.PASSKEY, 2, {"sign_in_age": 60}),
    ],
)
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_no_policy_of_a_customer_weakens_what_a_manager_endorses_by(
    api: Database, mode: Mode, means: AuthMethod, minutes_ago: float, policy: dict[str, Any]
) -> None:
    world = reviewed(api, mode, **policy)
    request = world.submit()

    with pytest.raises(SignInAgain):
        acts(world, signed_in(world, "max", means, minutes_ago=minutes_ago), Action.ENDORSE, request)


def test_a_manager_endorses_by_a_fresh_and_strong_sign_in(api: Database) -> None:
    world = reviewed(api, mail_suffices=True, sign_in_age=86400)

    assert acts(world, signed_in(world, "max", AuthMethod.PASSKEY), Action.ENDORSE, world.submit()) is State.PENDING
