"""A circuit breaker with a clock of the test's: how many sends it admits, its pace, and when it opens and closes."""

import pytest

from lockbox.notifications.circuit_breaker import (
    FIRST_LOAD,
    FIRST_OPEN,
    LEAST_DEFERRAL,
    LONGEST_DEFERRAL,
    LONGEST_OPEN,
    LONGEST_WAIT,
    MOST_LOAD,
    MOST_URGENT,
    SOON,
    WIDTH,
    CircuitBreaker,
    PeerResponse,
)

NOON = 1000.0


@pytest.fixture
def breaker() -> CircuitBreaker[str]:
    return CircuitBreaker("hooks.example:443")


def send(breaker: CircuitBreaker[str], now: float, said: PeerResponse, seconds: float = 0.1) -> None:
    """Admit one send, begin it, and record its result."""
    assert breaker.enter(now) == 0.0
    begin(breaker)
    breaker.end(now + seconds, seconds, said)


def begin(breaker: CircuitBreaker[str]) -> None:
    breaker.running += 1


def shut(breaker: CircuitBreaker[str], now: float = NOON) -> None:
    for _ in range(3):
        send(breaker, now, PeerResponse.SILENCE, 0.0)
    assert breaker.is_open(now)


def fill(breaker: CircuitBreaker[str], now: float = NOON) -> int:
    """Admit as many sends as there is room for, and return how many."""
    number = 0
    while not breaker.enter(now):
        number += 1
    return number


def test_a_circuit_breaker_admits_only_a_few_sends_before_the_first_result(breaker: CircuitBreaker[str]) -> None:
    assert fill(breaker) == FIRST_LOAD


@pytest.mark.parametrize(("seconds", "most"), [(0.01, MOST_LOAD), (0.5, 28), (3.0, 8), (10.0, 5)])
def test_slower_destinations_have_shorter_send_queues(
    breaker: CircuitBreaker[str], seconds: float, most: int
) -> None:
    for _ in range(50):
        send(breaker, NOON, PeerResponse.ANSWER, seconds)

    assert fill(breaker) == pytest.approx(most, abs=1)


def test_an_urgent_send_is_admitted_except_behind_an_open_breaker(
    breaker: CircuitBreaker[str],
) -> None:
    fill(breaker)
    unproven = breaker.enter(NOON, urgent=True)
    breaker.load = 0
    send(breaker, NOON, PeerResponse.ANSWER)
    number = fill(breaker)

    let_in, load = breaker.enter(NOON, urgent=True), breaker.load
    breaker.load = 0
    shut(breaker)

    assert unproven > 0
    assert (let_in, load) == (0.0, number + 1)
    assert breaker.enter(NOON, urgent=True) > 0


def test_urgent_sends_are_limited_to_the_number_of_slots(breaker: CircuitBreaker[str]) -> None:
    send(breaker, NOON, PeerResponse.ANSWER)
    number = 0
    while not breaker.enter(NOON, urgent=True):
        number += 1

    assert number == MOST_LOAD + MOST_URGENT


def test_the_estimated_pace_of_a_destination_follows_the_last_few_sends(breaker: CircuitBreaker[str]) -> None:
    for seconds in [10.0] * 20 + [0.1] * 20:
        send(breaker, NOON, PeerResponse.ANSWER, seconds)

    assert 0.1 <= breaker.pace < 0.3


def test_postponed_sends_are_rescheduled_one_after_another(breaker: CircuitBreaker[str]) -> None:
    fill(breaker)

    told = [breaker.enter(NOON) for _ in range(50)]

    assert told[0] >= LEAST_DEFERRAL
    assert told == sorted(set(told))
    assert told[-1] <= LONGEST_WAIT + 50 * 0.05 + 0.1
    assert breaker.load == FIRST_LOAD


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.01, LEAST_DEFERRAL), (0.1, LONGEST_WAIT / SOON), (0.5, LONGEST_WAIT)]
)
def test_postponed_sends_to_a_quick_destination_are_retried_soon(
    breaker: CircuitBreaker[str], seconds: float, told: float
) -> None:
    for _ in range(50):
        send(breaker, NOON, PeerResponse.ANSWER, seconds)
    fill(breaker)

    assert breaker.wait(NOON) == pytest.approx(told, rel=0.1)


def test_a_destination_without_results_does_not_count_as_quick(breaker: CircuitBreaker[str]) -> None:
    breaker.pace = 0.1
    fill(breaker)

    assert breaker.wait(NOON) == pytest.approx((FIRST_LOAD + 1 - WIDTH) / WIDTH * 0.1, rel=0.1)


def test_postponed_sends_are_spread_over_two_minutes_at_most(breaker: CircuitBreaker[str]) -> None:
    shut(breaker)

    told = [breaker.enter(NOON) for _ in range(50_000)]

    assert min(told) >= FIRST_OPEN
    assert LONGEST_DEFERRAL - 1 < max(told) <= LONGEST_DEFERRAL
    fullest = max(sum(1 for one in told if second <= one < second + 1) for second in range(5, 120, 5))
    assert fullest < 600


def test_postponed_sends_to_a_destination_of_unknown_pace_are_spread_over_two_seconds(
    breaker: CircuitBreaker[str],
) -> None:
    fill(breaker)

    told = [breaker.enter(NOON) for _ in range(2_000)]

    assert max(told) - min(told) == pytest.approx(2.0, rel=0.1)


def test_three_silent_sends_open_a_breaker_and_two_do_not(breaker: CircuitBreaker[str]) -> None:
    for said in (
        PeerResponse.SILENCE,
        PeerResponse.SILENCE,
        PeerResponse.ANSWER,
        PeerResponse.SILENCE,
        PeerResponse.SILENCE,
    ):
        send(breaker, NOON, said, 0.0)
    assert not breaker.is_open(NOON)

    send(breaker, NOON, PeerResponse.SILENCE, 0.0)

    assert breaker.wait(NOON) == FIRST_OPEN
    assert breaker.enter(NOON) >= FIRST_OPEN
    assert breaker.load == 0


def test_internal_errors_neither_open_nor_close_a_breaker(breaker: CircuitBreaker[str]) -> None:
    for _ in range(5):
        send(breaker, NOON, PeerResponse.NOTHING)
    assert not breaker.is_open(NOON)
    shut(breaker)

    send(breaker, NOON + FIRST_OPEN, PeerResponse.NOTHING)

    assert breaker.open_until is not None
    assert breaker.enter(NOON + FIRST_OPEN + 1) == 0.0


def test_an_open_breaker_admits_one_try_after_its_waiting_time(breaker: CircuitBreaker[str]) -> None:
    shut(breaker)
    later = NOON + FIRST_OPEN

    assert breaker.enter(later - 0.1) > 0
    assert breaker.enter(later) == 0.0
    assert breaker.enter(later) > 0

    breaker.queue.append("a notification")
    assert breaker.is_ready(later)
    begin(breaker)
    assert not breaker.is_ready(later)


def test_an_answered_try_closes_an_open_breaker_completely(breaker: CircuitBreaker[str]) -> None:
    shut(breaker)

    send(breaker, NOON + FIRST_OPEN, PeerResponse.ANSWER)

    assert breaker.open_until is None
    assert fill(breaker, NOON + 6) > WIDTH


def test_each_silent_try_doubles_the_breakers_waiting_time_up_to_a_minute(breaker: CircuitBreaker[str]) -> None:
    shut(breaker)
    waits, now = [], NOON

    for _ in range(6):
        waits.append(breaker.wait(now))
        now += waits[-1]
        send(breaker, now, PeerResponse.SILENCE, 0.0)

    assert waits == [5, 10, 20, 40, LONGEST_OPEN, LONGEST_OPEN]


def test_sends_begun_before_a_breaker_opened_do_not_keep_it_open_longer(breaker: CircuitBreaker[str]) -> None:
    for _ in range(WIDTH):
        breaker.enter(NOON)
        begin(breaker)

    for number in range(WIDTH):
        breaker.end(NOON + 10 + number / 10, 10.0, PeerResponse.SILENCE)

    assert breaker.open_for == FIRST_OPEN
    assert breaker.load == breaker.running == 0


def test_an_answer_to_an_earlier_send_closes_an_open_breaker(breaker: CircuitBreaker[str]) -> None:
    breaker.enter(NOON)
    begin(breaker)
    shut(breaker)

    breaker.end(NOON + 1, 1.0, PeerResponse.ANSWER)

    assert breaker.enter(NOON + 1) == 0.0


def test_only_breakers_unused_for_long_may_be_forgotten(breaker: CircuitBreaker[str]) -> None:
    shut(breaker)
    assert not breaker.is_forgettable(NOON + 1, 0)
    assert breaker.is_forgettable(NOON + 700, 600)

    breaker.enter(NOON + 800)

    assert not breaker.is_forgettable(NOON + 2000, 600)
