"""Several moves at the same moment, with real threads and commits: exactly one wins, each time."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.database import Database, now
from lockbox.errors import AlreadyDecided, InvalidMove, TooLate
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import assert_audit_logs_are_whole, at_once, many, moves_of, read, state_of

ROUNDS = 20
Contender = tuple[str, Action]

ANN_APPROVES = ("ann", Action.APPROVE)
AMIR_APPROVES = ("amir", Action.APPROVE)
ABE_DENIES = ("abe", Action.DENY)
ERIN_CANCELS = ("erin", Action.CANCEL)
TIME_RUNS_OUT = ("the clock", Action.TIME_OUT)
TARA_REVOKES = ("tara", Action.REVOKE)
MAX_REVOKES = ("max", Action.REVOKE)
ERIN_COMPLETES = ("erin", Action.COMPLETE)
WINDOW_ENDS = ("the clock", Action.EXPIRE)

RACES_FOR_AN_ANSWER = [
    (ANN_APPROVES, TIME_RUNS_OUT),
    (ABE_DENIES, TIME_RUNS_OUT),
    (ERIN_CANCELS, TIME_RUNS_OUT),
    (ANN_APPROVES, ABE_DENIES),
    (ANN_APPROVES, ERIN_CANCELS),
    (ANN_APPROVES, AMIR_APPROVES),
    (ANN_APPROVES, ANN_APPROVES),
    (ABE_DENIES, ERIN_CANCELS),
    pytest.param((ANN_APPROVES, ABE_DENIES, TIME_RUNS_OUT), marks=pytest.mark.far),
    pytest.param((ANN_APPROVES, ERIN_CANCELS, TIME_RUNS_OUT), marks=pytest.mark.far),
    (TIME_RUNS_OUT, TIME_RUNS_OUT, ANN_APPROVES),
    (ANN_APPROVES, AMIR_APPROVES, ABE_DENIES, ERIN_CANCELS, TIME_RUNS_OUT),
]
RACES_FOR_THE_END = [
    (TARA_REVOKES, WINDOW_ENDS),
    (ERIN_COMPLETES, WINDOW_ENDS),
    (TARA_REVOKES, ERIN_COMPLETES),
    (TARA_REVOKES, MAX_REVOKES, WINDOW_ENDS, ERIN_COMPLETES),
]
AFTER = {
    Action.APPROVE: "active",
    Action.DENY: "denied",
    Action.CANCEL: "cancelled",
    Action.TIME_OUT: "timed_out",
    Action.REVOKE: "revoked",
    Action.COMPLETE: "completed",
    Action.EXPIRE: "expired",
}


def _named(race: tuple[Contender, ...]) -> str:
    return "-".join(f"{who}_{action}".replace("the clock_", "") for who, action in race)


@pytest.fixture
def world(api: Database) -> World:
    return World.make(api, Policy(vendor_review=False, approval_window=1800))


@pytest.fixture
def hasty(worker: Database, later: ShiftedClock) -> Database:
    """A worker whose clock is past the approval deadline but not a window's end; people's clocks are past neither."""
    later.shift = timedelta(minutes=45)
    worker.clock = later
    return worker


def _call(world: World, worker: Database, request_id: UUID, contender: Contender) -> Callable[[], object]:
    who, action = contender
    if who == "the clock":
        return partial(timers.run, worker, [request_id])
    return partial(world.act, who, action, request_id)


def _won(result: object) -> bool:
    return isinstance(result, AccessRequest) or (isinstance(result, Counter) and result.total() == 1)


def _race(world: World, worker: Database, pool: ThreadPoolExecutor, race: tuple[Contender, ...], one: UUID) -> Action:
    results = at_once(pool, *(_call(world, worker, one, contender) for contender in race))
    winners = [action for (_, action), result in zip(race, results, strict=True) if _won(result)]
    losers = [result for result in results if not _won(result)]
    assert len(winners) == 1, results
    assert all(loser == Counter() or isinstance(loser, InvalidMove | TooLate | AlreadyDecided) for loser in losers), (
        results
    )
    return winners[0]


@pytest.mark.far
@pytest.mark.parametrize("race", RACES_FOR_AN_ANSWER, ids=_named)
def test_exactly_one_of_concurrent_decisions_wins(
    world: World, hasty: Database, pool: ThreadPoolExecutor, race: tuple[Contender, ...]
) -> None:
    requests = many(world, ROUNDS)

    winners = [_race(world, hasty, pool, race, request) for request in requests]

    assert [state_of(world.db, request) for request in requests] == [AFTER[winner] for winner in winners]
    assert all(len(moves_of(world.db, request)) == 2 for request in requests)
    assert_audit_logs_are_whole(world.db)


@pytest.mark.far
@pytest.mark.parametrize("race", RACES_FOR_THE_END, ids=_named)
def test_exactly_one_of_several_concurrent_moves_that_end_a_window_succeeds(
    world: World, hasty: Database, later: ShiftedClock, pool: ThreadPoolExecutor, race: tuple[Contender, ...]
) -> None:
    requests = many(world, ROUNDS)
    for one in requests:
        world.act("ann", Action.APPROVE, one)
    later.shift = timedelta(hours=2)

    winners = [_race(world, hasty, pool, race, request) for request in requests]

    assert [state_of(world.db, request) for request in requests] == [AFTER[winner] for winner in winners]
    assert all(len(moves_of(world.db, request)) == 3 for request in requests)
    assert_audit_logs_are_whole(world.db)


def test_a_move_that_loses_a_race_sends_no_notification(
    world: World, hasty: Database, pool: ThreadPoolExecutor
) -> None:
    requests = many(world, ROUNDS)

    for request in requests:
        _race(world, hasty, pool, (ANN_APPROVES, ABE_DENIES, TIME_RUNS_OUT), request)

    outcomes = read(
        world.db,
        "SELECT request_id, count(DISTINCT event_id) AS events, count(DISTINCT template) AS templates "
        "FROM notifications WHERE template NOT IN ('pending', 'receipt', 'nobody_notified') GROUP BY request_id",
    )
    assert [(row.events, row.templates) for row in outcomes] == [(1, 1)] * ROUNDS


@pytest.mark.far
def test_two_concurrent_votes_meet_a_quorum_of_two_once(api: Database, pool: ThreadPoolExecutor) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    requests = many(world, ROUNDS)

    for one in requests:
        results = at_once(
            pool, partial(world.act, "ann", Action.APPROVE, one), partial(world.act, "amir", Action.APPROVE, one)
        )
        assert all(isinstance(result, AccessRequest) for result in results)

    states = [(1, "submit", "pending"), (2, "approve", "pending"), (3, "approve", "active")]
    assert all(moves_of(api, request) == states for request in requests)


@pytest.mark.far
def test_of_a_concurrent_endorsement_and_denial_only_one_takes_effect(
    api: Database, pool: ThreadPoolExecutor
) -> None:
    world = World.make(api, Policy(vendor_review=True))
    requests = many(world, ROUNDS)

    for one in requests:
        results = at_once(
            pool, partial(world.act, "max", Action.ENDORSE, one), partial(world.act, "mia", Action.DENY, one)
        )
        assert sum(_won(result) for result in results) == 1

    assert all(len(moves_of(api, request)) == 2 for request in requests)
    assert_audit_logs_are_whole(api)


@pytest.mark.far
def test_approvals_racing_the_timer_at_the_deadline_end_each_request_once(
    api: Database, worker: Database, pool: ThreadPoolExecutor
) -> None:
    world = World.make(api, Policy(vendor_review=False, approval_window=1))
    requests = many(world, 60)
    deadline = read(api, "SELECT max(deadline_at) AS last FROM requests")[0].last
    with api.transaction() as session:
        left = (deadline - now(session)).total_seconds()
    over = threading.Event()

    def tick() -> None:
        while not over.is_set():
            timers.run(worker, requests)

    ticking = pool.submit(tick)
    time.sleep(max(0.0, left - 0.12))
    answers = [at_once(pool, partial(world.act, "ann", Action.APPROVE, request))[0] for request in requests]
    over.set()
    ticking.result()
    timers.run(worker, requests)

    for one, answer in zip(requests, answers, strict=True):
        assert state_of(api, one) == ("active" if isinstance(answer, AccessRequest) else "timed_out")
    late = "SELECT FROM events e JOIN requests r ON r.id = e.request_id WHERE e.action = 'approve' AND e.at >= :last"
    assert not read(api, late, last=deadline)
    assert_audit_logs_are_whole(api)
