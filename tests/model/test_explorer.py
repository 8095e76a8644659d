"""Every state of a request's life that can be reached is as it must be; and the explorer sees it where it is not."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from lockbox.facts.enumerations import State
from lockbox.requests import deadlines, permitted_moves
from lockbox.requests.lifecycle import Action, MoveRule, Party
from lockbox.requests.quorum import Vote
from tests.model.explorer import (
    CLOSING,
    EVERYBODY,
    EXTENSION,
    FEW,
    GLASS,
    LATER,
    PRE_APPROVED,
    SEVERE,
    SILENCE,
    STEPS,
    STOPPED,
    YES,
    Bound,
    explore,
    explore_outbox,
)
from tests.model.invariants import one_event_a_move
from tests.model.outbox import (
    LIVES,
    OutboxCheck,
    OutboxModel,
    OutboxRules,
    OutboxWorld,
    everybody_hears_the_end,
    told_once,
)
from tests.model.rules import Case, ModelRules

ONE, TWO, _, VENDOR, SWITCHED = EVERYBODY
NEAR = Bound(states=12_000, horizon=5, faults=1)
REAL = ModelRules()


def _one_tick_short(*given: Any, **windows: Any) -> datetime:
    return deadlines.deadline(*given, **windows) - timedelta(seconds=1)


def _one_tick_long(*given: Any, **windows: Any) -> datetime:
    return deadlines.deadline(*given, **windows) + timedelta(seconds=1)


def _from_the_dead(state: State | None, action: Action, parties: Any) -> Any:
    if (state, action) == (State.DENIED, Action.REVOKE):
        return MoveRule(State.ACTIVE, frozenset()), None
    return permitted_moves.move(state, action, parties)


def _one_vote_of_several(state: State | None, action: Action, parties: Any) -> Any:
    """A table of moves in which a denial is one vote of several."""
    if (state, action) == (State.PENDING, Action.DENY):
        return MoveRule(State.DENIED, frozenset(), State.PENDING), None
    return permitted_moves.move(state, action, parties)


def _reopened(state: State | None, action: Action, parties: Any) -> Any:
    """A table of moves by which a ticket system opens what it should cancel."""
    if action is Action.CANCEL and parties == {Party.SYSTEM} and state is State.PENDING:
        return MoveRule(State.ACTIVE, frozenset()), None
    return permitted_moves.move(state, action, parties)


def _any_yes(votes: list[Vote], *_: object) -> bool:
    return any(vote.decision is Action.APPROVE for vote in votes)


BROKEN: dict[str, tuple[Case, ModelRules, str]] = {
    "a clock that ends early": (ONE, ModelRules(is_due=lambda at, ends: at >= ends - 1), "before its deadline"),
    "a clock that ends what it is to remind of": (
        SEVERE,
        ModelRules(is_due=lambda at, ends: at == ends - 3 or at >= ends),
        "before its deadline",
    ),
    "a window that is too short": (ONE, ModelRules(deadline=_one_tick_short), "before its deadline"),
    "a window that is too long": (ONE, ModelRules(deadline=_one_tick_long), "the window ended"),
    "a window of the vendor's that is too long": (VENDOR, ModelRules(deadline=_one_tick_long), "the window ended"),
    "an approval that ignores the deadline": (ONE, ModelRules(is_late=lambda *_: False), "timely approvals"),
    "an approval at the very deadline": (ONE, ModelRules(is_late=lambda at, ends: at > ends), "timely approvals"),
    "a handler that does not look again": (ONE, ModelRules(rechecks=False), "before its deadline"),
    "a requester who decides": (ONE, ModelRules(own_is_refused=False), "her own request"),
    "a quorum of one": (TWO, ModelRules(quorum_met=lambda *_: True), "without enough timely approvals"),
    "a door that believes the state": (ONE, ModelRules(is_shut=lambda *_: False), "the window ended"),
    "a door that shuts a tick late": (ONE, ModelRules(is_shut=lambda now, ends: now > ends), "the window ended"),
    "a step that waits for none": (STEPS, ModelRules(has_turn=lambda *_: True), "before their step"),
    "a table with a row too many": (ONE, ModelRules(move=_from_the_dead), "after the end"),
    "a case that opens": (CLOSING, ModelRules(move=_reopened), "timely approvals"),
    "a denial that can be outvoted": (
        ONE,
        ModelRules(move=_one_vote_of_several, quorum_met=_any_yes),
        "it was denied",
    ),
    "a switch that what is in review does not know of": (
        SWITCHED,
        ModelRules(stricter_mode=lambda at_submit, _: at_submit),
        "without the customer",
    ),
    "a window that begins at once": (LATER, ModelRules(has_begun=lambda *_: True), "access begins at"),
    "a window that begins a tick early": (
        LATER,
        ModelRules(has_begun=lambda now, begins: now >= begins - 1),
        "access begins at",
    ),
    "an extension that is approved too late": (
        EXTENSION,
        ModelRules(outlived_is_refused=False),
        "it was approved after",
    ),
    "an extension that outlives a window": (
        EXTENSION,
        ModelRules(outlived_is_shut=False),
        "what it extends was ended",
    ),
    "a pre-approval that opens though it was revoked": (
        PRE_APPROVED[1],
        ModelRules(covers=lambda _: True),
        "by what was revoked",
    ),
    "reconciling that never acts": (ONE, ModelRules(overdue_runs=False), "reconciling works"),
    "a glass that anybody breaks": (
        EVERYBODY[2],
        ModelRules(glass_is_refused=False),
        "was not submitted for it",
    ),
    "a stop that bars no break-glass": (STOPPED, ModelRules(stop_bars=False), "during an emergency stop"),
    "a clock that nobody winds": (ONE, ModelRules(wake_at=lambda *_: None), "never ends"),
}


@pytest.mark.parametrize("case", [*EVERYBODY, LATER, EXTENSION, SEVERE], ids=lambda case: case.name)
def test_every_model_state_within_the_search_limit_satisfies_the_invariants(case: Case) -> None:
    explored = explore(case, REAL, NEAR)

    assert explored.wrong is None, str(explored)
    assert explored.states == NEAR.states


@pytest.mark.far
@pytest.mark.parametrize(
    ("case", "bound"),
    [
        (FEW[0], Bound(states=200_000, horizon=3, faults=0)),
        (FEW[2], Bound(states=200_000, horizon=3, faults=0)),
        pytest.param(CLOSING, Bound(states=200_000, horizon=3, faults=0), marks=pytest.mark.far),
        pytest.param(YES, Bound(states=200_000, horizon=2, faults=1), marks=pytest.mark.far),
        (SILENCE, Bound(states=200_000, horizon=3, faults=1)),
    ],
    ids=lambda given: given.name if isinstance(given, Case) else f"{given.faults} faults",
)
def test_every_model_state_of_a_whole_request_life_satisfies_the_invariants(case: Case, bound: Bound) -> None:
    explored = explore(case, REAL, bound)

    assert explored.wrong is None, str(explored)
    assert explored.whole
    assert explored.states > 15_000


def test_every_model_state_of_ordered_stages_satisfies_the_invariants() -> None:
    explored = explore(STEPS, REAL, Bound(states=8_000, horizon=3, faults=0))

    assert explored.wrong is None, str(explored)
    assert explored.states > 4_000


@pytest.mark.parametrize("case", PRE_APPROVED, ids=lambda case: case.name)
def test_every_model_state_of_pre_approvals_satisfies_the_invariants(case: Case) -> None:
    explored = explore(case, REAL, Bound(states=6_000, horizon=4, faults=0))

    assert explored.wrong is None, str(explored)
    assert explored.states > 500


@pytest.mark.parametrize("case", [GLASS, STOPPED], ids=lambda case: case.name)
def test_every_model_state_of_break_glass_satisfies_the_invariants(case: Case) -> None:
    explored = explore(case, REAL, NEAR)

    assert explored.wrong is None, str(explored)


@pytest.mark.parametrize("name", BROKEN)
def test_the_model_explorer_detects_a_planted_bug_and_shows_its_history(name: str) -> None:
    case, rules, said = BROKEN[name]

    explored = explore(case, rules, NEAR)

    assert explored.wrong is not None
    assert said in explored.wrong
    assert "erin: submit" in explored.story[0]
    assert str(explored).startswith(f"Wrong: {explored.wrong}.\n 1. at 0  erin: submit")


def test_the_explorer_detects_a_model_that_moves_a_request_without_rereading_its_row() -> None:
    rules = ModelRules(rechecks=False)

    explored = explore(ONE, rules, replace(NEAR, states=200_000), checks=(one_event_a_move,))

    assert explored.wrong is not None
    assert "events" in explored.wrong or "after the end" in explored.wrong


def test_the_history_reported_by_the_model_explorer_is_the_shortest() -> None:
    explored = explore(ONE, ModelRules(own_is_refused=False), NEAR)

    assert str(explored).splitlines() == [
        "Wrong: erin decided about her own request.",
        " 1. at 0  erin: submit; it is pending until 2",
        " 2. at 0  erin: approve; it is active until 2",
    ]


LIFE = LIVES["opened and over"]
FORGETFUL: dict[str, tuple[OutboxRules, str]] = {
    "a move without its row": (OutboxRules(queues=lambda move: move.to_state != "expired"), "nobody is told of it"),
    "a fan-out that leaves the row": (OutboxRules(deletes=False), "waits for ever"),
    "a fan-out of one event alone": (OutboxRules(in_order=False), "is told before event"),
    "an index that nobody repairs": (OutboxRules(reconciles=False), "waits for ever"),
}


@pytest.mark.far
@pytest.mark.parametrize("name", LIVES)
def test_every_model_run_of_the_outbox_notifies_everyone_once_in_order(name: str) -> None:
    explored = explore_outbox(LIVES[name], OutboxRules(), Bound(states=200_000, faults=1))

    assert explored.wrong is None, str(explored)
    assert explored.whole
    assert explored.states > 5_000


@pytest.mark.parametrize("name", FORGETFUL)
def test_the_model_explorer_detects_missing_stuck_and_out_of_order_outbox_rows(name: str) -> None:
    rules, said = FORGETFUL[name]

    explored = explore_outbox(LIFE, rules, Bound(states=200_000, faults=1))

    assert explored.wrong is not None
    assert said in explored.wrong
    assert str(explored).startswith(f"Wrong: {explored.wrong}.\n 1. erin: submit")


@pytest.mark.parametrize(
    ("rules", "check", "said"),
    [
        (OutboxRules(deletes=False), told_once, "was told and waits"),
        (OutboxRules(deletes=False), told_once, "told twice"),
        (OutboxRules(in_order=False), everybody_hears_the_end, "never hears how it ended"),
    ],
)
def test_a_faulty_outbox_in_the_model_notifies_someone_twice_or_never(
    rules: OutboxRules, check: OutboxCheck, said: str
) -> None:
    def in_the_end(world: OutboxWorld, db: OutboxModel) -> str | None:
        found = check(world, db)
        return found if found and said in found else None

    explored = explore_outbox(LIFE, rules, Bound(states=200_000, faults=1), checks=(in_the_end,))

    assert explored.wrong is not None
