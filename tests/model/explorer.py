"""The explorer: every state that can be reached, the shortest way first, and what must hold checked in each."""

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from lockbox.facts.enumerations import Mode, Severity
from lockbox.notifications.outbox import NotifiedMove
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy import Terms
from lockbox.requests.policy_parts import ApprovalStage
from tests.model.invariants import CHECKS, Check
from tests.model.outbox import OUTBOX_CHECKS, OutboxCheck, OutboxModel, OutboxRules, OutboxWorld
from tests.model.plant import ModelWorld, begin, steps
from tests.model.rules import (
    ACTIONS,
    AMIR,
    ANN,
    CLOSES_ITS_CASE,
    ERIN,
    IDS,
    MAX,
    NAMES,
    NEVER,
    STATES,
    Case,
    ModelRules,
    RuleModel,
    acts_of,
)

World = TypeVar("World")

TICK = {"review_window": 1, "approval_window": 1, "access_ceiling": 1, "closing_warning": 0}
TICKS = {"review_window": 2, "approval_window": 2, "access_ceiling": 2}
QUIET: dict[str, Any] = {"approval_reminders": (), "review_reminders": ()}
NOW_AND_THEN: dict[str, Any] = {"approval_reminders": (50,), "review_reminders": (50,), "closing_warning": 1}
UNREVIEWED, REVIEWED = {"vendor_review": False}, {"vendor_review": True}
YES_AND_NO = ((ANN, Action.APPROVE), (ANN, Action.REVOKE))

EVERYBODY = (
    Case("one approval", Terms(**TICKS, **NOW_AND_THEN, **UNREVIEWED)),
    Case("two approvals", Terms(**TICKS, **QUIET, **UNREVIEWED, quorum=2)),
    Case("reviewed first", Terms(**TICKS, **NOW_AND_THEN, **REVIEWED)),
    Case("the vendor opens", Terms(**TICKS, **QUIET, **REVIEWED), Mode.OBSERVE),
    Case("a switch to enforce", Terms(**TICKS, **QUIET, **REVIEWED), Mode.OBSERVE, switches=True),
)
FEW = (
    Case("ann alone", Terms(**TICK, **QUIET, **UNREVIEWED), acts=acts_of(ERIN, ANN)),
    Case("ann and amir", Terms(**TICK, **QUIET, **UNREVIEWED, quorum=2), acts=acts_of(ERIN, ANN, AMIR)),
    Case("max, then ann", Terms(**TICK, **QUIET, **REVIEWED), acts=acts_of(ERIN, MAX, ANN)),
    Case("max alone", Terms(**TICK, **QUIET, **REVIEWED), Mode.OBSERVE, acts_of(ERIN, MAX)),
)
GLASS = Case("break-glass", Terms(**TICKS, **QUIET, **UNREVIEWED), acts=acts_of(ERIN, MAX, ANN), break_glass=True)
STOPPED = replace(GLASS, name="an emergency stop", stops=True)
SEVERE = Case(
    "a severe case",
    Terms(**TICKS | {"approval_window": 4}, **NOW_AND_THEN, **UNREVIEWED),
    acts=acts_of(ERIN, ANN),
    severity=Severity.S2,
)
LATER = Case("a later start", Terms(**TICKS, **NOW_AND_THEN, **UNREVIEWED), acts=acts_of(ERIN, ANN), start=2)
EXTENSION = Case(
    "an extension", Terms(**TICKS, **QUIET, **UNREVIEWED), acts=acts_of(ERIN, ANN), start=2, extends=True
)
CLOSING = Case("a case that closes", Terms(**TICK, **QUIET, **REVIEWED), acts=(*acts_of(MAX, ANN), *CLOSES_ITS_CASE))
PRE_APPROVED = (
    Case("pre-approved", Terms(**TICKS, **QUIET, **UNREVIEWED), pre_approved=True),
    Case("pre-approved and reviewed", Terms(**TICKS, **QUIET, **REVIEWED), pre_approved=True),
)
YES = Case("a yes that is taken back", Terms(**TICK, **QUIET, **UNREVIEWED), acts=YES_AND_NO)
STEPS = Case(
    "ann, then amir",
    Terms(**TICK, **QUIET, **UNREVIEWED, stages=(ApprovalStage(group="first"), ApprovalStage(group="then", order=2))),
    acts=acts_of(ANN, AMIR),
    groups={"first": {IDS[ANN]}, "then": {IDS[AMIR]}},
)
SILENCE = Case("silence", Terms(**TICK, **QUIET, **UNREVIEWED), acts=())


@dataclass(frozen=True)
class Bound:
    """How far to go: states in all, ticks of the clock, and how many faults the adversary has."""

    states: int = 25_000
    horizon: int = 5
    faults: int = 1


@dataclass(frozen=True)
class Exploration:
    """What was seen: how many states, how deep, whether that was all there are, and the first that was wrong."""

    states: int
    depth: int
    whole: bool
    wrong: str | None = None
    story: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.wrong is None:
            end = "all there are" if self.whole else "the nearest of more"
            return f"{self.states} states, {self.depth} steps deep, {end}: all is as it must be."
        return "\n".join([f"Wrong: {self.wrong}.", *self.story])


def explore(case: Case, rules: ModelRules, bound: Bound, checks: tuple[Check, ...] = CHECKS) -> Exploration:
    """Go through the states breadth first until one is wrong, or all are seen, or the bound is reached."""
    db = RuleModel(rules, case, bound.faults)

    def found(world: ModelWorld) -> Iterator[str | None]:
        return (check(world, db) for check in checks)

    return _search(begin(db), lambda world: steps(world, db, bound.horizon), found, _story, bound.states)


def explore_outbox(
    life: tuple[NotifiedMove, ...], rules: OutboxRules, bound: Bound, checks: tuple[OutboxCheck, ...] = OUTBOX_CHECKS
) -> Exploration:
    """Go through the states of the outbox of one life in the same way."""
    db = OutboxModel(life, rules)

    def found(world: OutboxWorld) -> Iterator[str | None]:
        return (check(world, db) for check in checks)

    return _search(db.begin(bound.faults), db.steps, found, _labels, bound.states)


def _search(
    first: World,
    steps_of: Callable[[World], Iterator[tuple[str, World]]],
    found: Callable[[World], Iterator[str | None]],
    story: Callable[[dict[World, tuple[World, str] | None], World], list[str]],
    most: int,
) -> Exploration:
    came: dict[World, tuple[World, str] | None] = {first: None}
    waiting = deque([(first, 0)])
    depth, whole = 0, True
    while waiting:
        world, depth = waiting.popleft()
        if wrong := next(filter(None, found(world)), None):
            return Exploration(len(came), depth, whole=False, wrong=wrong, story=tuple(story(came, world)))
        for label, after in steps_of(world):
            if after not in came:
                if len(came) >= most:
                    whole = False
                    break
                came[after] = (world, label)
                waiting.append((after, depth + 1))
    return Exploration(len(came), depth, whole)


def _labels(came: dict[OutboxWorld, tuple[OutboxWorld, str] | None], last: OutboxWorld) -> list[str]:
    """Return the way to a state of the outbox, a line a step."""
    lines: list[str] = []
    while (before := came[last]) is not None:
        last, label = before
        lines.append(label)
    return [f"{number:2}. {line}" for number, line in enumerate(reversed([*lines, "erin: submit"]), 1)]


def _story(came: dict[ModelWorld, tuple[ModelWorld, str] | None], last: ModelWorld) -> list[str]:
    """Return the way to a state, a line a step: when, what, and how the request stands after it."""
    lines: list[str] = []
    world = last
    while (before := came[world]) is not None:
        previous, label = before
        lines.append(f"{label}; {_stands(world)}" if world.row != previous.row else label)
        lines[-1] = f"at {previous.now}  {lines[-1]}"
        world = previous
    lines.append(f"at 0  {NAMES[0]}: {ACTIONS[world.row.events[0][1]]}; {_stands(world)}")
    return [f"{number:2}. {line}" for number, line in enumerate(reversed(lines), 1)]


def _stands(world: ModelWorld) -> str:
    row = world.row
    until = f" until {row.deadline}" if row.wake != NEVER else ""
    return f"it is {STATES[row.state]}{until}"
