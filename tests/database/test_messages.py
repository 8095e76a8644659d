"""A queue message carries ids and no authority: repeated, late, early or forged, it takes effect at most once."""

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.database import Database
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.schedule import CLOCK, IndexEntry
from tests.database.scenes import (
    PATIENCE,
    assert_audit_logs_are_whole,
    at_once,
    many,
    moves_of,
    promised_clocks,
    read,
    state_of,
    write,
)

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
TOLERATED_MS = 20_000
TIMED_OUT = [(1, "submit", "pending"), (2, "time_out", "timed_out")]


@pytest.fixture
def late(worker: Database, later: ShiftedClock) -> Database:
    """A worker whose clock is past the approval deadline."""
    later.shift = timedelta(hours=13)
    worker.clock = later
    return worker


def _lease(db: Database, ids: list[UUID], kind: str = "time_out") -> None:
    """Claim these ids, as a poller does before it sends the message."""
    db.schedule.arm(CLOCK, [IndexEntry(str(one), kind, LONG_AGO) for one in ids])
    assert set(db.schedule.claim(CLOCK).ids[kind]) == {str(one) for one in ids}


def _claimed_within(db: Database, seconds: float) -> dict[str, list[str]]:
    until = time.monotonic() + seconds
    while not (ids := db.schedule.claim(CLOCK).ids) and time.monotonic() < until:
        time.sleep(0.01)
    return ids


def _assert_clocks_are_held(db: Database) -> None:
    """Check that the index holds each open deadline, never early, and late by no more than scheduling may take."""
    held, promised = db.schedule.members(CLOCK), promised_clocks(db)
    assert held.keys() == promised.keys()
    assert all(0 <= held[member] - due < TOLERATED_MS for member, due in promised.items())


def test_a_repeated_timer_message_takes_effect_once(world: World, late: Database) -> None:
    request = world.submit()

    moved = [timers.run(late, [request.id]).total() for _ in range(2)]

    assert moved == [1, 0]
    assert moves_of(late, request.id) == TIMED_OUT
    assert read(late, "SELECT count(*) AS n FROM notifications WHERE template = 'timed_out'")[0].n == 4


def test_a_request_named_twice_in_a_timer_message_is_handled_once(world: World, late: Database) -> None:
    request = world.submit()

    assert timers.run(late, [request.id, request.id]) == {"timed_out": 1}
    assert moves_of(late, request.id) == TIMED_OUT


def test_a_timer_message_days_late_still_takes_effect(world: World, late: Database, later: ShiftedClock) -> None:
    request = world.submit()
    later.shift = timedelta(days=9)

    assert timers.run(late, [request.id]) == {"timed_out": 1}
    assert moves_of(late, request.id) == TIMED_OUT


def test_a_timer_message_before_the_deadline_changes_nothing_and_keeps_the_deadline_scheduled(
    world: World, worker: Database
) -> None:
    request = world.submit()
    _lease(worker, [request.id])
    assert worker.schedule.members(CLOCK) == {}

    moved = timers.run(worker, [request.id])

    assert moved.total() == 0
    assert state_of(worker, request.id) == "pending"
    _assert_clocks_are_held(worker)


def test_a_late_message_about_the_approval_deadline_does_not_end_the_open_window(
    world: World, worker: Database
) -> None:
    request = world.submit()
    _lease(worker, [request.id])
    opened = world.act("ann", Action.APPROVE, request.id)

    moved = timers.run(worker, [request.id])

    assert moved.total() == 0
    assert state_of(worker, request.id) == "active"
    assert worker.schedule.members(CLOCK).keys() == {f"remind:{opened.id}"}
    _assert_clocks_are_held(worker)


def test_timer_messages_in_any_order_end_a_window_once(world: World, late: Database) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)

    moved = [timers.run(late, [request.id]).total() for _ in ("expire", "time_out", "expire")]

    assert moved == [1, 0, 0]
    assert [move for _, move, _ in moves_of(late, request.id)] == ["submit", "approve", "expire"]


def test_the_index_entry_of_a_request_is_of_kind_remind_until_only_the_deadline_is_left(
    world: World, worker: Database, later: ShiftedClock
) -> None:
    request = world.submit()
    armed = [worker.schedule.members(CLOCK).keys()]
    worker.clock = later

    while read(worker, "SELECT wake_at < deadline_at AS waits FROM requests")[0].waits:
        wake_at = read(worker, "SELECT wake_at FROM requests")[0].wake_at
        later.shift = wake_at - request.created_at + timedelta(seconds=1)
        timers.run(worker, [request.id])
        armed.append(worker.schedule.members(CLOCK).keys())

    assert len(armed) > 1
    assert armed == [{f"remind:{request.id}"}] * (len(armed) - 1) + [{f"time_out:{request.id}"}]


def test_a_reminder_message_that_arrives_after_the_deadline_times_out_the_request(
    world: World, late: Database
) -> None:
    request = world.submit()
    _lease(late, [request.id], "remind")

    timers.run(late, [request.id])

    assert moves_of(late, request.id) == TIMED_OUT
    assert late.schedule.members(CLOCK) == {}


def test_a_time_out_message_that_arrives_before_the_deadline_causes_a_reminder(
    world: World, worker: Database, later: ShiftedClock
) -> None:
    request = world.submit()
    _lease(worker, [request.id], "time_out")
    worker.clock = later
    later.shift = read(worker, "SELECT wake_at FROM requests")[0].wake_at - request.created_at + timedelta(seconds=1)

    timers.run(worker, [request.id])

    assert state_of(worker, request.id) == "pending"
    assert read(worker, "SELECT reminders FROM requests")[0].reminders == 1
    _assert_clocks_are_held(worker)


def test_timer_messages_about_closed_requests_only_remove_index_entries(world: World, late: Database) -> None:
    request = world.submit()
    world.act("erin", Action.CANCEL, request.id)
    late.schedule.arm(CLOCK, [IndexEntry(str(request.id), "time_out", LONG_AGO)])

    moved = timers.run(late, [request.id])

    assert moved.total() == 0
    assert late.schedule.members(CLOCK) == {}
    assert [move for _, move, _ in moves_of(late, request.id)] == ["submit", "cancel"]


def test_an_empty_timer_message_does_nothing(late: Database) -> None:
    assert timers.run(late, []).total() == 0


@pytest.mark.far
def test_two_workers_with_the_same_batch_of_requests_handle_each_request_once(
    world: World, late: Database, pool: ThreadPoolExecutor
) -> None:
    requests = many(world, 100)

    moved: list[Counter[str]] = []

    def move(ids: list[UUID]) -> None:
        moved.append(timers.run(late, ids))

    at_once(pool, partial(move, requests), partial(move, requests[::-1]))
    move(requests)

    assert sum(moved, Counter()) == {"timed_out": 100}
    assert all(moves_of(late, request) == TIMED_OUT for request in requests)
    assert late.schedule.members(CLOCK) == {}


def test_a_locked_request_row_is_skipped_and_offered_again(world: World, late: Database, superuser: Engine) -> None:
    held, *others = many(world, 3)
    _lease(late, [held, *others])

    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM requests WHERE id = :id FOR UPDATE"), {"id": held})
        began = time.time()
        moved = timers.run(late, [held, *others])
        holder.rollback()

    assert moved == {"timed_out": 2}
    due = late.schedule.members(CLOCK)
    assert due.keys() == {f"remind:{held}"}
    assert due[f"remind:{held}"] >= (began + timers.BUSY_ROW_AGAIN.total_seconds()) * 1000
    assert _claimed_within(late, PATIENCE) == {"remind": [str(held)]}
    assert timers.run(late, [held]) == {"timed_out": 1}


def test_a_timer_that_finds_its_request_row_locked_is_soon_due_again(
    world: World, late: Database, superuser: Engine
) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)

    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM requests FOR UPDATE"))
        timers.run(late, [request.id])
        holder.rollback()

    assert _claimed_within(late, PATIENCE) == {"remind": [str(request.id)]}


@pytest.mark.far
@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("timing", ["BEFORE", "AFTER", "DEFERRED"])
def test_one_bad_request_row_does_not_block_the_batch(
    world: World, late: Database, superuser: Engine, timing: str
) -> None:
    requests = many(world, 40)
    bad = requests[17]
    _lease(late, requests)
    _make_bad(superuser, bad, timing)

    moved = timers.run(late, requests)

    assert moved == {"timed_out": 39, "failed": 1}
    assert state_of(late, bad) == "pending"
    assert len(moves_of(late, bad)) == 1
    assert not read(late, "SELECT FROM notifications WHERE request_id = :id AND template = 'timed_out'", id=bad)
    write(superuser, "DROP TRIGGER bad_row ON requests")
    assert timers.run(late, requests) == {"timed_out": 1}
    assert_audit_logs_are_whole(late)


def _make_bad(superuser: Engine, request_id: UUID, timing: str) -> None:
    """Let any change of this one row fail: at once, after it, or only as the transaction commits."""
    write(
        superuser,
        "CREATE FUNCTION refuse_bad() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'this row is bad'; END $$",
    )
    kind = "CONSTRAINT TRIGGER bad_row AFTER" if timing == "DEFERRED" else f"TRIGGER bad_row {timing}"
    when = "DEFERRABLE INITIALLY DEFERRED" if timing == "DEFERRED" else ""
    write(
        superuser,
        f"CREATE {kind} UPDATE ON requests {when} FOR EACH ROW WHEN (NEW.id = '{request_id}') "
        "EXECUTE FUNCTION refuse_bad()",
    )
