"""How the clock of an approval stands while a question waits for its answer."""

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.database import Database
from lockbox.errors import TooLate
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import as_caller, assert_indexes_are_true, read, state_of
from tests.database.test_questions import EVENTS, HOUR, answer, ask, clock_of
from tests.policy_setup import lay_down


@pytest.fixture
def slow(api: Database) -> World:
    """A world in which the clock stands while a question waits, and an hour is there to answer."""
    return World.make(api, Policy(vendor_review=False, questions_stop_clock=True, approval_window=HOUR))


def test_without_a_word_of_the_policy_the_clock_runs_on(world: World, sender: Database, later: ShiftedClock) -> None:
    request = world.submit()
    asked = ask(world, "ann", request.id)

    later.shift = timedelta(hours=12)
    timers.run(sender, [request.id])

    assert not asked.stops_clock
    assert state_of(sender, request.id) == "timed_out"


def test_while_a_question_waits_the_clock_stands_and_goes_on_with_the_answer(
    slow: World, later: ShiftedClock
) -> None:
    request = slow.submit()
    before = clock_of(slow, request.id)

    asked = ask(slow, "ann", request.id)
    stands = clock_of(slow, request.id)
    assert_indexes_are_true(slow.db)
    later.shift = timedelta(minutes=20)
    answer(slow, request.id, asked.id, db=Database(slow.db.engine, slow.db.schedule, later))
    goes_on = clock_of(slow, request.id)

    assert asked.stops_clock
    assert stands.deadline_at == before.deadline_at + timedelta(seconds=HOUR)
    assert (stands.stopped_deadline, stands.version) == (before.deadline_at, before.version)
    assert 1200 <= goes_on.stopped_for <= 1230
    assert goes_on.deadline_at == before.deadline_at + timedelta(seconds=goes_on.stopped_for)
    assert (goes_on.stopped_at, goes_on.stopped_deadline) == (None, None)
    assert before.wake_at < goes_on.wake_at <= goes_on.deadline_at
    assert_indexes_are_true(slow.db)
    first, second = read(slow.db, EVENTS, id=request.id)
    assert (first.deadline_at, second.deadline_at) == (stands.deadline_at, goes_on.deadline_at)


def test_it_is_approved_in_the_time_that_was_won_and_not_after_it(slow: World, later: ShiftedClock) -> None:
    db = Database(slow.db.engine, slow.db.schedule, later)
    in_time, late = slow.fresh(), slow.fresh()
    for request in (in_time, late):
        later.shift = timedelta(minutes=30)
        asked = ask(slow, "ann", request.id, db=db)
        later.shift = timedelta(minutes=50)
        answer(slow, request.id, asked.id, db=db)

    later.shift = timedelta(minutes=79)
    slow.act("ann", Action.APPROVE, in_time.id, db)
    later.shift = timedelta(minutes=81)
    with pytest.raises(TooLate):
        slow.act("ann", Action.APPROVE, late.id, db)

    assert (state_of(db, in_time.id), state_of(db, late.id)) == ("active", "pending")
    assert clock_of(slow, in_time.id).stopped_at is None


def test_an_approver_decides_while_the_clock_stands(slow: World, later: ShiftedClock) -> None:
    db = Database(slow.db.engine, slow.db.schedule, later)
    request = slow.submit()
    ask(slow, "ann", request.id)

    later.shift = timedelta(minutes=90)
    approved = slow.act("amir", Action.APPROVE, request.id, db)

    assert approved.opened_at is not None
    assert approved.deadline_at == approved.opened_at + timedelta(seconds=approved.access_window)
    assert (approved.stopped_at, approved.stopped_deadline) == (None, None)


def test_a_question_that_is_never_answered_holds_it_for_one_further_window(
    slow: World, sender: Database, later: ShiftedClock
) -> None:
    request = slow.submit()
    ask(slow, "ann", request.id)

    later.shift = timedelta(hours=1, minutes=59)
    timers.run(sender, [request.id])
    waits = state_of(sender, request.id)
    later.shift = timedelta(hours=2)
    timers.run(sender, [request.id])

    assert (waits, state_of(sender, request.id)) == ("pending", "timed_out")
    assert_indexes_are_true(sender)


def test_the_clock_stands_until_the_last_question_is_answered(slow: World, later: ShiftedClock) -> None:
    db = Database(slow.db.engine, slow.db.schedule, later)
    request = slow.submit()
    before = clock_of(slow, request.id)
    first, second = ask(slow, "ann", request.id), ask(slow, "amir", request.id)

    later.shift = timedelta(minutes=10)
    answer(slow, request.id, first.id, db=db)
    still = clock_of(slow, request.id)
    later.shift = timedelta(minutes=15)
    answer(slow, request.id, second.id, db=db)
    goes_on = clock_of(slow, request.id)
    again = ask(slow, "ann", request.id, db=db)
    most = clock_of(slow, request.id)

    assert still.stopped_at is not None
    assert 900 <= goes_on.stopped_for <= 930
    assert again.stops_clock
    assert most.deadline_at == before.deadline_at + timedelta(seconds=HOUR)


def test_a_policy_that_lets_no_clock_stand_any_more_is_met_at_once(slow: World, later: ShiftedClock) -> None:
    db = Database(slow.db.engine, slow.db.schedule, later)
    request = slow.submit()
    ask(slow, "ann", request.id)
    lay_down(slow, approval_window=HOUR)

    later.shift = timedelta(minutes=61)

    with pytest.raises(TooLate):
        slow.act("ann", Action.APPROVE, request.id, db)


def test_reminders_come_by_the_clock_as_it_then_is(slow: World, sender: Database, later: ShiftedClock) -> None:
    request = slow.submit()
    ask(slow, "ann", request.id)

    later.shift = timedelta(minutes=60)
    timers.run(sender, [request.id])

    (row,) = read(sender, "SELECT reminders, state, wake_at, deadline_at FROM requests WHERE id = :id", id=request.id)
    assert (row.reminders, row.state) == (1, "pending")
    assert row.wake_at < row.deadline_at


@pytest.mark.parametrize(
    ("who", "change"),
    [
        ("ann", "deadline_at = deadline_at + interval '1 hour'"),
        ("ann", "stopped_at = now(), stopped_deadline = deadline_at, deadline_at = deadline_at + interval '2 hours'"),
        ("max", "stopped_at = now(), stopped_deadline = deadline_at, deadline_at = deadline_at + interval '1 hour'"),
        ("erin", "stopped_at = now(), stopped_deadline = deadline_at, deadline_at = deadline_at + interval '1 hour'"),
        ("erin", "stopped_for = 1, deadline_at = deadline_at + interval '1 second'"),
    ],
)
def test_the_database_lets_nobody_win_time_otherwise(slow: World, who: str, change: str) -> None:
    slow.submit()

    with (
        pytest.raises(DBAPIError),
        as_caller(slow.db, slow.people[who], at=slow.tenant.id) as connection,
    ):
        connection.execute(text(f"UPDATE requests SET {change}"))  # noqa: S608 - our own
