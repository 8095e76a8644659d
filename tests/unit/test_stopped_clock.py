"""The approval clock while a question waits: it stops, for one approval window at most, and then continues."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockbox.requests.deadlines import RequestClock, resumed, stood, stopped

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR = 3600
WAITS = st.lists(st.tuples(st.integers(0, 3 * HOUR), st.integers(0, 3 * HOUR)), max_size=6)


def after(seconds: float) -> datetime:
    """Return a moment so many seconds after noon."""
    return NOON + timedelta(seconds=seconds)


def test_a_paused_approval_clock_has_its_latest_possible_deadline() -> None:
    clock = stopped(RequestClock(after(HOUR)), HOUR, after(600))

    assert clock == RequestClock(after(2 * HOUR), after(600), after(HOUR), 0)


def test_an_answer_to_a_question_moves_the_deadline_by_the_pause() -> None:
    clock = stopped(RequestClock(after(HOUR)), HOUR, after(600))

    assert resumed(clock, after(900)) == RequestClock(after(HOUR + 300), stopped_for=300)


def test_paused_time_is_counted_in_whole_seconds_rounded_up() -> None:
    clock = stopped(RequestClock(after(HOUR)), HOUR, after(600))

    assert resumed(clock, after(600.001)) == RequestClock(after(HOUR + 1), stopped_for=1)
    assert stood(clock, after(601.5)) == timedelta(seconds=2)


def test_a_pause_of_the_approval_clock_is_no_longer_than_one_approval_window() -> None:
    clock = stopped(RequestClock(after(HOUR)), HOUR, after(3000))

    in_time, late = resumed(clock, after(3000 + HOUR - 1)), resumed(clock, after(2 * HOUR - 1))

    assert in_time == RequestClock(after(2 * HOUR - 1), stopped_for=HOUR - 1)
    assert late == RequestClock(after(2 * HOUR), stopped_for=HOUR)
    assert stopped(late, HOUR, after(2 * HOUR - 1)) == late
    assert stood(clock, after(2 * HOUR - 1)) == timedelta(seconds=HOUR)


def test_pausing_or_resuming_the_approval_clock_twice_changes_nothing() -> None:
    runs = RequestClock(after(HOUR), stopped_for=20)
    stands = stopped(runs, HOUR, after(600))

    assert stopped(stands, HOUR, after(700)) == stands
    assert resumed(runs, after(700)) == runs


def test_two_questions_together_pause_the_approval_clock_for_at_most_one_approval_window() -> None:
    first = resumed(stopped(RequestClock(after(HOUR)), HOUR, after(0)), after(3000))

    second = stopped(first, HOUR, after(3000))

    assert second.deadline_at == after(HOUR + 3000 + 600)
    assert resumed(second, after(6000)) == RequestClock(after(2 * HOUR), stopped_for=HOUR)


@given(WAITS)
def test_all_pauses_of_a_request_together_extend_its_deadline_by_at_most_one_approval_window(
    waits: list[tuple[int, int]],
) -> None:
    clock, at = RequestClock(after(HOUR)), NOON
    for running, waiting in waits:
        at = min(at + timedelta(seconds=running), clock.deadline_at)
        clock = stopped(clock, HOUR, at)
        at = min(at + timedelta(seconds=waiting), clock.deadline_at)
        before, clock = clock, resumed(clock, at)

        assert at <= clock.deadline_at <= before.deadline_at <= after(2 * HOUR)
        assert clock.deadline_at == after(HOUR + clock.stopped_for)


@pytest.mark.parametrize("seconds", [0, 1, 599])
def test_the_time_left_is_equal_before_and_after_a_pause(seconds: int) -> None:
    clock = RequestClock(after(HOUR))

    gone_on = resumed(stopped(clock, HOUR, after(60)), after(60 + seconds))

    assert gone_on.deadline_at - after(60 + seconds) == clock.deadline_at - after(60)
