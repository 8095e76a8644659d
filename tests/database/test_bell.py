"""The bell wakes a sleeping poller when an earlier entry is scheduled, and only then."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from redis import Redis

from lockbox.redis_scripts import RedisUnavailable
from lockbox.schedule import CLOCK, NOTIFICATIONS, IndexEntry, Schedule, ScheduleIndex
from lockbox.sql import new_id

ASLEEP, NOT_RUNG = 20.0, 0.3
AWAKE = ASLEEP / 2
"""Seconds: whoever is not woken sleeps for twice as long, however busy the machine is."""


@contextmanager
def _sleeper(schedule: Schedule, index: ScheduleIndex, seconds: float = ASLEEP) -> Iterator[list[float]]:
    """Sleep on the bell in a thread; the yielded list gets how long the sleep was."""
    slept: list[float] = []
    listening = threading.Event()

    def sleep() -> None:
        with schedule.bell(index) as bell:
            bell.listen()
            bell.listen()
            listening.set()
            began = time.monotonic()
            bell.wait(seconds)
            slept.append(time.monotonic() - began)

    with ThreadPoolExecutor(1) as pool:
        sleeping = pool.submit(sleep)
        assert listening.wait(60)
        time.sleep(0.02)
        yield slept
        sleeping.result(60)


def _arm(schedule: Schedule, seconds: float, index: ScheduleIndex = CLOCK) -> None:
    assert schedule.arm(index, [IndexEntry(str(new_id()), index.kinds[0], timedelta(seconds=seconds))])


@pytest.mark.far
def test_scheduling_an_entry_in_an_empty_index_wakes_the_poller(schedule: Schedule) -> None:
    with _sleeper(schedule, CLOCK) as slept:
        _arm(schedule, 60)

    assert slept[0] < AWAKE


def test_scheduling_an_entry_before_all_other_entries_wakes_the_poller(schedule: Schedule) -> None:
    _arm(schedule, 60)

    with _sleeper(schedule, CLOCK) as slept:
        _arm(schedule, 30)

    assert slept[0] < AWAKE


def test_scheduling_an_entry_after_another_entry_does_not_wake_the_poller(schedule: Schedule) -> None:
    _arm(schedule, 30)

    with _sleeper(schedule, CLOCK, NOT_RUNG) as slept:
        _arm(schedule, 60)

    assert slept[0] > NOT_RUNG - 0.05


@pytest.mark.far
def test_scheduling_an_entry_of_another_index_does_not_wake_the_poller(schedule: Schedule) -> None:
    with _sleeper(schedule, CLOCK, NOT_RUNG) as slept:
        _arm(schedule, 1, NOTIFICATIONS)

    assert slept[0] > NOT_RUNG - 0.05


def test_scheduling_wakes_the_poller_though_the_index_has_its_completeness_marker(schedule: Schedule) -> None:
    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])

    with _sleeper(schedule, CLOCK) as slept:
        _arm(schedule, 60)

    assert slept[0] < AWAKE


def test_neither_keeping_a_scheduled_entry_nor_removing_an_entry_wakes_the_poller(schedule: Schedule) -> None:
    held = str(new_id())
    schedule.arm(CLOCK, [IndexEntry(held, "expire", timedelta(seconds=60))])

    with _sleeper(schedule, CLOCK, NOT_RUNG) as slept:
        schedule.arm(CLOCK, [IndexEntry(held, "expire", timedelta(seconds=1))], only_missing=True)
        schedule.arm(CLOCK, [IndexEntry(held, "expire", None)])

    assert slept[0] > NOT_RUNG - 0.05


def test_a_wake_up_sent_between_listening_and_sleeping_is_noticed_by_the_poller(schedule: Schedule) -> None:
    with schedule.bell(CLOCK) as bell:
        bell.listen()
        _arm(schedule, 60)
        began = time.monotonic()
        bell.wait(ASLEEP)

    assert time.monotonic() - began < AWAKE


def test_a_broken_redis_wake_up_key_is_reported_and_repaired(schedule: Schedule, redis: "Redis") -> None:
    with schedule.bell(CLOCK) as bell:
        bell.listen()
        redis.client_kill_filter(_type="pubsub")
        with pytest.raises(RedisUnavailable):
            bell.wait(ASLEEP)
        bell.listen()
        _arm(schedule, 60)
        began = time.monotonic()
        bell.wait(ASLEEP)

    assert time.monotonic() - began < AWAKE
