"""Review tiers: the lowest is prompted first, the next by the timer, never the requester; any manager may endorse."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.admin import vendor_staff
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.identity.roles import Role
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, address, open_notifications
from tests.database.scenes import as_caller, assert_indexes_are_true, state_of, write
from tests.database.tenancy import id_of, manages
from tests.database.test_reminders import reminders, row_of, told
from tests.each import each
from tests.policy_setup import group, lay_down, put_into_tiers

QUIET = "UPDATE people SET wants_prompts = false WHERE id = :id"
MOVE = "UPDATE requests SET version = version + 1, {change} WHERE id = :id"
PUT = "UPDATE memberships SET review_tier = {tier} WHERE person_id = :id"


@pytest.fixture
def tiered(world: World) -> World:
    """A vendor whose manager Max is asked first, Mia next and Mo last, and a tenant that wants a review."""
    world.add("mo", Role.MANAGER)
    put_into_tiers(world, mia=2, mo=4)
    lay_down(world, vendor_review=True)
    return world


def test_the_lowest_manager_tier_is_asked_first_and_higher_tiers_over_time(
    tiered: World, sender: Database, later: ShiftedClock
) -> None:
    submitted = tiered.submitted()
    request = submitted.request
    before = told(tiered, request.id, "reviewing")

    later.shift = timedelta(hours=2)
    timers.run(sender, [request.id])

    assert (before, submitted.asked, request.tiers_asked) == ({"max": 1}, 1, 1)
    assert request.wake_at == request.created_at + timedelta(hours=2)
    assert told(tiered, request.id, "reviewing") == {"max": 1, "mia": 1}
    assert told(tiered, request.id, "review_reminder") == {"max": 1}
    assert reminders(sender, request.id) == ["remind", "escalate"]
    row = row_of(sender, request.id)
    assert (row.state, row.version, row.reminders, row.tiers_asked) == ("reviewing", 1, 1, 2)
    assert row.wake_at == row.created_at + 0.67 * timedelta(hours=4)
    assert_indexes_are_true(sender)


def test_any_manager_may_endorse_and_the_first_customer_tier_is_then_asked(
    tiered: World, sender: Database, later: ShiftedClock
) -> None:
    groups = {"first": group(tiered, "abe"), "second": group(tiered, "ann")}
    lay_down(tiered, vendor_review=True, tiers=[["first"], ["second"]], groups=groups)
    request = tiered.submit()
    early = tiered.submit()
    later.shift = timedelta(hours=3)
    timers.run(sender, [request.id])

    asked = tiered.act("max", Action.ENDORSE, request.id)
    tiered.act("mo", Action.ENDORSE, early.id)

    assert told(tiered, request.id, "pending") == told(tiered, early.id, "pending") == {"abe": 1}
    assert (asked.tiers_asked, row_of(sender, request.id).tiers_asked) == (1, 1)
    assert_indexes_are_true(sender)


def test_the_count_of_asked_tiers_is_reset_if_an_endorsement_prompts_every_approver(
    tiered: World, sender: Database, later: ShiftedClock
) -> None:
    request = tiered.submit()
    later.shift = timedelta(hours=3)
    timers.run(sender, [request.id])
    widened = row_of(sender, request.id).tiers_asked

    tiered.act("mia", Action.ENDORSE, request.id)

    assert (widened, row_of(sender, request.id).tiers_asked) == (4, 0)
    assert told(tiered, request.id, "pending") == {"ann": 1, "amir": 1, "abe": 1}


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_a_review_without_a_customer_decision_has_manager_tiers_too(
    api: Database, sender: Database, later: ShiftedClock, mode: Mode
) -> None:
    world = World.make(api, Policy(), mode)
    put_into_tiers(world, mia=2)
    request = world.submit()

    later.shift = timedelta(hours=2)
    timers.run(sender, [request.id])
    world.act("mia", Action.ENDORSE, request.id)

    assert told(world, request.id, "reviewing") == {"max": 1, "mia": 1}
    assert state_of(sender, request.id) == "active"


def test_a_policy_sets_when_the_next_manager_tier_is_asked(
    tiered: World, sender: Database, later: ShiftedClock
) -> None:
    lay_down(tiered, vendor_review=True, review_escalation=[10, 20, 30], review_reminders=[], review_window=36_000)
    request = tiered.submit()

    asked = []
    for minutes in (59, 60, 119, 120):
        later.shift = timedelta(minutes=minutes)
        timers.run(sender, [request.id])
        asked.append(sorted(told(tiered, request.id, "reviewing")))

    assert asked == [["max"], ["max", "mia"], ["max", "mia"], ["max", "mia", "mo"]]
    assert row_of(sender, request.id).wake_at == request.deadline_at


def test_a_manager_with_prompts_off_is_asked_only_if_no_other_manager_is_left(
    tiered: World, sender: Database, later: ShiftedClock, superuser: Engine
) -> None:
    for name in ("max", "mia"):
        write(superuser, QUIET, id=id_of(tiered, name))

    alone = tiered.submit()
    put_into_tiers(tiered, mo=1)
    spared = tiered.submit()
    later.shift = timedelta(hours=2)
    timers.run(sender, [spared.id])

    assert told(tiered, alone.id, "reviewing") == {"max": 1}
    assert told(tiered, spared.id, "reviewing") == told(tiered, spared.id, "review_reminder") == {"mo": 1}
    assert reminders(sender, spared.id) == ["remind"]


def test_a_removed_manager_is_neither_asked_nor_reminded(
    tiered: World, sender: Database, later: ShiftedClock
) -> None:
    request = tiered.submit()
    manages(tiered, "olga", vendor_staff.disable, id_of(tiered, "max"))
    manages(tiered, "olga", vendor_staff.remove, id_of(tiered, "mia"))

    later.shift = timedelta(hours=2)
    timers.run(sender, [request.id])

    assert reminders(sender, request.id) == ["escalate"]
    assert told(tiered, request.id, "reviewing") == {"max": 1, "mo": 1}
    assert tiered.submit().tiers_asked == 4


@pytest.mark.far
def test_managers_of_a_later_tier_are_prompted_only_for_requests_not_yet_endorsed(
    tiered: World, sender: Database, later: ShiftedClock, post: Postbag
) -> None:
    request, settled = tiered.submit(), tiered.submit()
    post.deliver(sender, open_notifications(sender))
    later.shift = timedelta(hours=2)
    timers.run(sender, [request.id, settled.id])
    tiered.act("max", Action.ENDORSE, settled.id)
    post.mail.sent.clear()

    post.deliver(sender, open_notifications(sender))

    mia = address(sender, tiered, "mia")
    assert [str(request.id) in mail.text for mail in post.mail.sent if mail.to_address == mia] == [True]


def test_a_vote_that_leaves_the_state_unchanged_does_not_reset_the_count_of_asked_tiers(
    world: World, superuser: Engine
) -> None:
    lay_down(world, tiers=[["first"]], groups={"first": group(world, "abe")})
    request = world.submit()

    with pytest.raises(DBAPIError, match="reminds nobody"):
        write(superuser, MOVE.format(change="tiers_asked = 0"), id=request.id)


@pytest.mark.parametrize(("who", "whom"), [("max", "mia"), ("tara", "ann"), ("olga", "olga"), ("olga", "erin")])
def test_only_an_operator_sets_a_managers_tier(world: World, who: str, whom: str) -> None:
    with as_caller(world.db, world.people[who], world.tenant.id) as connection:
        changed = connection.execute(text(PUT.format(tier=2)), {"id": id_of(world, whom)})

    assert changed.rowcount == 0


@each("tier", [0, 6, -1])
def test_a_manager_tier_is_between_one_and_five(world: World, superuser: Engine, tier: int) -> None:
    with pytest.raises(DBAPIError, match="ck_memberships_review_tier"):
        write(superuser, PUT.format(tier=tier), id=id_of(world, "max"))
    with pytest.raises(DBAPIError, match="ck_memberships_review_tier"):
        write(superuser, PUT.format(tier=2), id=id_of(world, "ann"))
