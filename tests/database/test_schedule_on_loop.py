"""Arming from the event loop: the same as from a thread, in order, together, and never in anybody's way."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import Redis

from lockbox.pubsub import channel_of, database_number
from lockbox.schedule import ARM_TIMEOUT, BREAKER_SECONDS, CLOCK, NOTIFICATIONS, IndexEntry, Schedule
from lockbox.sql import new_id

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
SLACK = 0.4
"""Seconds that a machine which does other things too may add."""


def _entry(kind: str = "expire", one: str = "") -> IndexEntry:
    return IndexEntry(one or str(new_id()), kind, NOON)


def _followed(schedule: Schedule, *calls: Callable[[Schedule], None]) -> None:
    """Make these calls in one turn of an event loop, and wait for what follows them."""

    async def run() -> None:
        for call in calls:
            call(schedule)
        await schedule.followed()

    asyncio.run(run())


def test_what_follows_on_the_loop_is_what_a_thread_arms(schedule: Schedule) -> None:
    some = [_entry(), _entry("time_out"), IndexEntry(str(new_id()), "remind", timedelta(hours=1))]
    schedule.arm(CLOCK, some)
    armed = schedule.members(CLOCK)
    schedule.arm(CLOCK, [IndexEntry(one.id, one.kind, None) for one in some])

    _followed(schedule, lambda at: at.follow({CLOCK: some}, {}))

    again = schedule.members(CLOCK)
    assert again.keys() == armed.keys() == {f"{one.kind}:{one.id}" for one in some}
    assert all(again[one] == pytest.approx(armed[one], abs=60_000) for one in armed)


@pytest.mark.far
def test_what_took_too_long_is_tried_once_more(schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    send, entry, tries = Schedule._send, _entry(), 0  # noqa: SLF001 - each is one write

    async def slow_at_first(at: Schedule, calls: Any) -> None:
        nonlocal tries
        tries += 1
        await asyncio.sleep(60 if tries == 1 else 0)
        await send(at, calls)

    schedule.arm(CLOCK, [other := _entry()])
    monkeypatch.setattr(Schedule, "_send", slow_at_first)

    _followed(schedule, lambda at: at.follow({CLOCK: [entry]}, {}))

    assert tries == 2
    assert schedule.members(CLOCK).keys() == {f"expire:{entry.id}", f"expire:{other.id}"}
    assert schedule.arm(CLOCK, [entry])


def test_of_two_promises_about_one_the_later_counts(schedule: Schedule) -> None:
    one = str(new_id())

    _followed(
        schedule,
        lambda at: at.follow({CLOCK: [_entry("time_out", one)]}, {}),
        lambda at: at.follow({CLOCK: [_entry("expire", one)]}, {}),
    )

    assert schedule.members(CLOCK).keys() == {f"expire:{one}"}


def test_what_comes_in_one_turn_is_sent_together(schedule: Schedule, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule.arm(CLOCK, [_entry()])
    sent: list[list[Any]] = []
    send = Schedule._send  # noqa: SLF001 - each is one write

    async def noted(at: Schedule, calls: Any) -> None:
        sent.append([*calls])
        await send(at, sent[-1])

    monkeypatch.setattr(Schedule, "_send", noted)
    promises = [{CLOCK: [_entry()], NOTIFICATIONS: [_entry("notify")]} for _ in range(5)]

    _followed(schedule, *(lambda at, each=each: at.follow(each, {}) for each in promises))

    assert [len(calls) for calls in sent] == [2]
    assert (len(schedule.members(CLOCK)), len(schedule.members(NOTIFICATIONS))) == (6, 5)


def test_news_without_a_promise_is_published_to_its_side(schedule: Schedule, redis: "Redis") -> None:
    one, number = str(new_id()), database_number(redis)
    with closing(redis.pubsub(ignore_subscribe_messages=True)) as heard:  # type: ignore[no-untyped-call]
        heard.subscribe(channel_of(number, "vendor"))
        while heard.get_message(timeout=1) is not None:
            pass

        _followed(schedule, lambda at: at.follow({}, {"vendor": [one]}))

        message = heard.get_message(ignore_subscribe_messages=True, timeout=5)
    assert message is not None
    assert message["data"] == one.encode()


def test_a_redis_that_has_forgotten_the_script_is_given_it(schedule: Schedule, redis: "Redis") -> None:
    redis.script_flush()

    _followed(schedule, lambda at: at.follow({CLOCK: [_entry()]}, {}))

    assert len(schedule.members(CLOCK)) == 1


def test_where_redis_is_away_nobody_waits_and_threads_skip_it_too(away_url: str) -> None:
    with closing(Schedule(away_url)) as away:
        began = time.monotonic()
        _followed(away, lambda at: at.follow({CLOCK: [_entry()]}, {None: [str(new_id())]}))
        first = time.monotonic() - began
        began = time.monotonic()
        _followed(away, *[lambda at: at.follow({CLOCK: [_entry()]}, {})] * 50)
        taken = away.arm(CLOCK, [_entry()])

        assert taken is False
        assert first < ARM_TIMEOUT + SLACK
        assert time.monotonic() - began < BREAKER_SECONDS / 2


@pytest.mark.far
def test_the_loop_goes_on_while_redis_does_not_answer(away_url: str) -> None:
    async def run(at: Schedule) -> float:
        at.follow({CLOCK: [_entry()]}, {})
        began = time.monotonic()
        await asyncio.sleep(0)
        took = time.monotonic() - began
        await at.followed()
        return took

    with closing(Schedule(away_url, patience=2.0)) as away:
        assert asyncio.run(run(away)) < SLACK
