"""A cached fetch: fresh for an hour, usable for a day, one fetch at a time and a limit of waiting calls."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from lockbox.identity.oidc_providers import MOST_FETCHES, CachedFetch
from lockbox.safe_http import FetchFailed

HOUR, DAY = 3600.0, 24 * 3600.0


@dataclass
class FakeSource:
    """A source that counts fetches and, as the test says, fails or holds them back; the test moves its clock."""

    at: float = 0.0
    count: int = 0
    fails: bool = False
    go_on: threading.Event = field(default_factory=threading.Event)
    kept: CachedFetch[int] = field(init=False)

    def __post_init__(self) -> None:
        self.go_on.set()
        self.kept = CachedFetch(self.load, name="elsewhere", clock=lambda: self.at, wait_seconds=10)

    def load(self) -> int:
        self.count += 1
        number = self.count
        self.go_on.wait(10)
        if self.fails:
            raise FetchFailed("it is down")
        return number

    def settled(self) -> int:
        """Wait until no fetch is under way, and return how many there were."""
        until(lambda: not any(thread.name == "fetch elsewhere" for thread in threading.enumerate()))
        return self.count


def until(is_so: Callable[[], bool]) -> None:
    """Wait until the condition is met; fail after ten seconds."""
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.fixture
def elsewhere() -> FakeSource:
    return FakeSource()


def test_a_fresh_cached_value_is_not_fetched_again(elsewhere: FakeSource) -> None:
    assert [elsewhere.kept.get() for elsewhere.at in (0, 1, HOUR - 1)] == [1, 1, 1]
    assert elsewhere.settled() == 1


def test_a_stale_cached_value_is_served_while_it_is_renewed(elsewhere: FakeSource) -> None:
    elsewhere.kept.get()
    elsewhere.at = HOUR
    elsewhere.go_on.clear()

    assert [elsewhere.kept.get() for _ in range(20)] == [1] * 20

    elsewhere.go_on.set()
    assert elsewhere.settled() == 2
    assert elsewhere.kept.get() == 2


def test_during_an_outage_a_cached_value_is_fetched_once_a_minute(elsewhere: FakeSource) -> None:
    elsewhere.kept.get()
    elsewhere.fails = True

    for second in range(121):
        elsewhere.at = HOUR + second
        assert elsewhere.kept.get() == 1
        elsewhere.settled()

    assert elsewhere.count == 1 + 3


def test_a_day_old_cached_value_is_not_served(elsewhere: FakeSource) -> None:
    elsewhere.kept.get()
    elsewhere.fails = True

    elsewhere.at = DAY - 1
    assert elsewhere.kept.get() == 1
    elsewhere.settled()
    elsewhere.at = DAY + HOUR
    with pytest.raises(FetchFailed):
        elsewhere.kept.get()


def test_without_a_cached_value_a_failed_fetch_is_retried_only_after_five_seconds(elsewhere: FakeSource) -> None:
    elsewhere.fails = True

    for elsewhere.at in (0, 1, 4, 5, 9, 10):
        with pytest.raises(FetchFailed):
            elsewhere.kept.get()

    assert elsewhere.count == 3


def test_a_forced_fetch_of_a_cached_value_is_allowed_once_a_minute(elsewhere: FakeSource) -> None:
    assert elsewhere.kept.get() == 1

    assert [elsewhere.kept.again() for elsewhere.at in (1, 2, 60, 61, 62)] == [2, 2, 2, 3, 3]


def test_a_forced_fetch_during_an_outage_returns_the_old_cached_value(elsewhere: FakeSource) -> None:
    elsewhere.kept.get()
    elsewhere.fails = True

    assert [elsewhere.kept.again() for _ in range(10)] == [1] * 10
    assert elsewhere.count == 2


def test_concurrent_callers_share_one_fetch_and_callers_above_a_limit_fail_at_once(elsewhere: FakeSource) -> None:
    elsewhere.go_on.clear()

    with ThreadPoolExecutor(MOST_FETCHES + 8) as pool:
        calls = [pool.submit(elsewhere.kept.get) for _ in range(MOST_FETCHES + 8)]
        until(lambda: sum(call.done() for call in calls) == 8)
        elsewhere.go_on.set()

    failed = [call.exception() for call in calls if call.exception()]
    assert {type(error) for error in failed} == {FetchFailed}
    assert len(failed) == 8
    assert elsewhere.count == 1


def test_a_caller_stops_waiting_for_a_fetch_even_if_the_fetch_does_not_end(elsewhere: FakeSource) -> None:
    elsewhere.go_on.clear()
    impatient = CachedFetch(elsewhere.load, name="elsewhere", clock=lambda: 0.0, wait_seconds=0.05)

    with pytest.raises(FetchFailed, match="too long"):
        impatient.get()

    elsewhere.go_on.set()
    elsewhere.settled()
    assert impatient.get() == 1
