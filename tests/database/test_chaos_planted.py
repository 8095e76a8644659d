"""The bugs that chaos plants: each has its effect, past every check that there is, and a question finds it."""

from datetime import timedelta

import pytest

from chaos import planted, questions
from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.database import Database
from lockbox.errors import EarlierStepFirst, TooLate
from lockbox.facts.enumerations import State
from lockbox.requests import available_moves, deadlines, quorum
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import ApprovalStage
from tests.database.scenes import read
from tests.policy_setup import lay_down


def test_a_yes_before_its_step_counts_where_the_bug_is_planted_and_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {name: (world.people[who].person_id,) for name, who in (("first", "ann"), ("then", "amir"))}
    lay_down(world, groups=groups, stages=(ApprovalStage(group="first"), ApprovalStage(group="then", order=2)))
    request = world.submit()
    monkeypatch.setitem(vars(available_moves), "has_turn", quorum.has_turn)
    with pytest.raises(EarlierStepFirst):
        world.act("amir", Action.APPROVE, request.id)

    planted.BUGS["any-step"].plant()
    world.act("amir", Action.APPROVE, request.id)

    assert [row.id for row in read(world.db, questions.OUT_OF_STEP)] == [request.id]


def test_a_late_yes_counts_where_the_bug_is_planted_and_is_found(
    api: Database, world: World, later: ShiftedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.clock = later
    approved, denied = world.submit(), world.submit()
    later.shift = timedelta(hours=13)
    monkeypatch.setitem(vars(available_moves), "too_late_at", deadlines.too_late_at)
    with pytest.raises(TooLate):
        world.act("ann", Action.APPROVE, approved.id)

    planted.BUGS["late-yes"].plant()
    opened = world.act("ann", Action.APPROVE, approved.id)

    assert opened.state is State.ACTIVE
    assert [row.id for row in read(world.db, questions.LATE)] == [approved.id]
    with pytest.raises(TooLate):
        world.act("amir", Action.DENY, denied.id)
