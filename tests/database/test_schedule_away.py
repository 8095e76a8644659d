"""A Redis that is away, refuses, or is full: arming says no within a moment and never raises."""

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from redis import Redis

from harness.stage import RETRIED
from lockbox.redis_scripts import RedisUnavailable
from lockbox.schedule import (
    ARM_TIMEOUT,
    BREAKER_SECONDS,
    CLOCK,
    NOTIFICATIONS,
    POLL_TIMEOUT,
    IndexEntry,
    Schedule,
)
from lockbox.sql import new_id

SOON = timedelta(seconds=30)


@pytest.fixture
def away(away_url: str) -> Iterator[Schedule]:
    """A schedule on a Redis that is away, in either manner."""
    with closing(Schedule(away_url)) as opened:
        yield opened


@pytest.fixture
def restored(redis: "Redis") -> Iterator["Redis"]:
    """A client whose test may change the server's configuration."""
    yield redis
    redis.config_set("maxmemory", 0)
    redis.config_set("maxmemory-policy", "noeviction")
    redis.replicaof("NO", "ONE")


def _some(count: int = 1) -> list[IndexEntry]:
    return [IndexEntry(str(new_id()), "expire", SOON) for _ in range(count)]


def _seconds_to_arm(schedule: Schedule, count: int = 1) -> float:
    began = time.monotonic()
    assert schedule.arm(CLOCK, _some(count)) is False
    return time.monotonic() - began


def test_arming_says_no_within_a_moment_and_after_that_at_once(away: Schedule) -> None:
    first = _seconds_to_arm(away, 2000)
    rest = [_seconds_to_arm(away) for _ in range(50)]

    assert first < POLL_TIMEOUT
    assert sum(rest) < 50 * ARM_TIMEOUT / 2


@pytest.mark.far
def test_claiming_and_asking_for_the_epoch_say_that_it_is_away(away: Schedule) -> None:
    began = time.monotonic()

    with pytest.raises(RedisUnavailable):
        away.claim(CLOCK)

    assert time.monotonic() - began < RETRIED


def test_a_health_check_says_that_it_is_away_within_a_moment(away: Schedule) -> None:
    began = time.monotonic()

    with pytest.raises(RedisUnavailable):
        away.ping()

    assert time.monotonic() - began < POLL_TIMEOUT


def test_listening_for_the_bell_says_that_it_is_away(refused_url: str) -> None:
    with closing(Schedule(refused_url)) as away, away.bell(CLOCK) as bell, pytest.raises(RedisUnavailable):
        bell.listen()


@pytest.mark.far
def test_once_the_breaker_closes_arming_works_again(schedule: Schedule, redis: "Redis", redis_url: str) -> None:
    password = urlsplit(redis_url).password or ""
    redis.config_set("requirepass", "another")
    try:
        with closing(Schedule(redis_url)) as locked_out:
            refused = locked_out.arm(CLOCK, _some())
            redis.config_set("requirepass", password)
            skipped = locked_out.arm(CLOCK, _some())
            time.sleep(BREAKER_SECONDS + 0.05)
            taken = locked_out.arm(CLOCK, _some())
    finally:
        redis.config_set("requirepass", password)

    assert (refused, skipped, taken) == (False, False, True)
    assert len(schedule.members(CLOCK)) == 1


def test_a_wrong_password_is_a_redis_that_is_away(redis_url: str) -> None:
    wrong = redis_url.replace(urlsplit(redis_url).password or "", "wrong")

    with closing(Schedule(wrong)) as locked_out:
        assert locked_out.arm(CLOCK, _some()) is False
        with pytest.raises(RedisUnavailable):
            locked_out.claim(NOTIFICATIONS)
        with pytest.raises(RedisUnavailable):
            locked_out.ping()


def test_a_full_redis_is_told_apart_by_the_answer_and_raises_nothing(schedule: Schedule, restored: "Redis") -> None:
    schedule.arm(CLOCK, _some())
    before = schedule.members(CLOCK)
    restored.config_set("maxmemory", 1)

    taken = schedule.arm(CLOCK, promised := _some())

    restored.config_set("maxmemory", 0)
    held = schedule.members(CLOCK)
    assert taken is (f"expire:{promised[0].id}" in held)
    assert before.keys() <= held.keys()


def test_a_redis_that_is_read_only_is_away(schedule: Schedule, restored: "Redis") -> None:
    schedule.arm(CLOCK, [IndexEntry(str(new_id()), "expire", timedelta(0))])
    restored.replicaof("127.0.0.1", "1")

    taken = schedule.arm(CLOCK, _some())
    with pytest.raises(RedisUnavailable):
        schedule.claim(CLOCK)

    restored.replicaof("NO", "ONE")
    assert taken is False
    assert len(schedule.members(CLOCK)) == 1


def test_a_redis_that_may_evict_is_not_fit(schedule: Schedule, restored: "Redis") -> None:
    schedule.ping()
    restored.config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(RedisUnavailable, match="noeviction"):
        schedule.ping()
