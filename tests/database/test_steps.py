"""Stages with an order: later groups are neither prompted nor heard until the earlier ones have approved."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.database import Database
from lockbox.errors import EarlierStepFirst
from lockbox.facts.enumerations import State
from lockbox.requests import inbox, timers
from lockbox.requests.lifecycle import Action
from tests.database.scenes import assert_audit_logs_are_whole, read, state_of
from tests.database.test_reminders import told
from tests.policy_setup import group, lay_down, stand_in

STEPS = """
SELECT actor_id, CAST(convert_from(body, 'UTF8') AS jsonb) -> 'step' AS step FROM events
WHERE action = 'escalate' AND request_id = :id
"""


def ordered(
    world: World, first: tuple[str, ...] = ("abe",), then: tuple[str, ...] = ("ann",), **changes: Any
) -> None:
    """Have the tenant ask a group first, and then another one."""
    groups = {"first": group(world, *first), "then": group(world, *then)}
    stages = [{"group": "first"}, {"group": "then", "order": 2}]
    lay_down(world, **({"stages": stages, "groups": groups} | changes))


def prompted(world: World, request_id: UUID) -> set[str]:
    """Return who was asked, once each."""
    found = told(world, request_id, "pending")
    assert set(found.values()) <= {1}
    return set(found)


def test_the_later_group_is_asked_and_heard_once_the_earlier_has_approved(world: World) -> None:
    ordered(world)
    request = world.submit()
    before = prompted(world, request.id)

    with pytest.raises(EarlierStepFirst, match="first asks for 1 of first") as refused:
        world.act("ann", Action.APPROVE, request.id)
    world.act("abe", Action.APPROVE, request.id)
    (event,) = read(world.db, STEPS, id=request.id)
    opened = world.act("ann", Action.APPROVE, request.id)

    assert refused.value.facts == {"step": 1, "current_state": "pending", "current_version": 1}
    assert before == {"abe", "amir"}
    assert prompted(world, request.id) == {"abe", "amir", "ann"}
    assert (event.step, event.actor_id) == (2, world.people["abe"].person_id)
    assert opened.state is State.ACTIVE
    assert_audit_logs_are_whole(world.db)


def test_anybody_may_deny_at_any_time(world: World) -> None:
    ordered(world)
    request = world.submit()

    assert world.act("ann", Action.DENY, request.id).state is State.DENIED


def test_somebody_in_both_groups_counts_in_both(world: World) -> None:
    ordered(world, first=("abe", "ann"))
    request = world.submit()

    assert world.act("ann", Action.APPROVE, request.id).state is State.ACTIVE


def test_a_delegate_of_the_later_group_waits_as_well(world: World) -> None:
    ordered(world)
    stand_in(world, "aude", "ann")
    request = world.submit()

    with pytest.raises(EarlierStepFirst):
        world.act("aude", Action.APPROVE, request.id)
    assert "aude" not in prompted(world, request.id)
    world.act("abe", Action.APPROVE, request.id)

    assert {"aude"} == prompted(world, request.id) - {"abe", "amir"}
    assert world.act("aude", Action.APPROVE, request.id).state is State.ACTIVE


def test_a_later_tier_does_not_prompt_who_has_to_wait_and_a_step_prompts_whatever_the_tier(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    ordered(world, tiers=[["first"], ["then"]], escalation=[50])
    request = world.submit()

    later.shift = timedelta(hours=7)
    timers.run(sender, [request.id])
    waited = prompted(world, request.id), set(told(world, request.id, "answer_reminder"))
    world.act("abe", Action.APPROVE, request.id)

    assert waited == ({"abe"}, {"abe"})
    assert prompted(world, request.id) == {"abe", "ann"}


def test_reminders_go_to_the_present_step(world: World, sender: Database, later: ShiftedClock) -> None:
    ordered(world, quorum=2)
    request = world.submit()
    world.act("abe", Action.APPROVE, request.id)

    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])

    assert set(told(world, request.id, "answer_reminder")) == {"ann", "amir"}
    assert state_of(world.db, request.id) == "pending"


def test_the_inbox_says_who_is_asked_first(world: World) -> None:
    ordered(world)
    world.submit()

    with world.db.transaction() as session:
        (waits,), (asked,) = (inbox.pending_requests(session, world.people[who]).pending for who in ("ann", "abe"))

    assert (waits.is_waiting, waits.may_approve) == (True, False)
    assert [(one.group, one.needed) for one in waits.lacking] == [("first", 1)]
    assert (asked.is_waiting, asked.may_approve) == (False, True)
