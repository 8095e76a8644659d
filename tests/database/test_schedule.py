"""The sorted sets on a real Valkey and, if installed, a real Redis: scheduling, claims and leases."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis

from harness.stage import RETRIED
from harness.wait import within
from lockbox import schedule as schedule_module
from lockbox.pubsub import channel_of, database_number
from lockbox.redis_scripts import RedisUnavailable
from lockbox.schedule import (
    BEFORE_OTHERS,
    BREAKER_SECONDS,
    CLOCK,
    EPOCH,
    NOTIFICATIONS,
    IndexEntry,
    Schedule,
    ScheduleIndex,
)
from lockbox.sql import new_id

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
NOON = datetime(2040, 1, 1, 12, tzinfo=UTC)


def _ids(count: int) -> list[str]:
    return [str(new_id()) for _ in range(count)]


def _due(ids: list[str], kind: str = "expire") -> list[IndexEntry]:
    return [IndexEntry(one, kind, LONG_AGO) for one in ids]


def _milliseconds_now(redis: "Redis") -> float:
    seconds, micros = redis.time()
    return float(seconds) * 1000 + float(micros) / 1000


def test_due_times_in_an_index_are_in_milliseconds_rounded_up(schedule: Schedule) -> None:
    (one,) = _ids(1)

    taken = schedule.arm(CLOCK, [IndexEntry(one, "expire", NOON + timedelta(microseconds=1))])

    assert taken
    assert schedule.members(CLOCK) == {f"expire:{one}": NOON.timestamp() * 1000 + 1}


def test_a_claim_returns_due_index_entries_by_kind(schedule: Schedule) -> None:
    first, second, third, fourth = _ids(4)
    schedule.arm(CLOCK, [*_due([first, second]), *_due([third], "time_out"), IndexEntry(fourth, "expire", NOON)])

    claim = schedule.claim(CLOCK)

    assert {kind: set(ids) for kind, ids in claim.ids.items()} == {"expire": {first, second}, "time_out": {third}}
    assert schedule.members(CLOCK).keys() == {f"expire:{fourth}"}
    assert schedule.claim(CLOCK).ids == {}


def test_the_index_entries_due_for_the_longest_time_are_claimed_first_up_to_the_limit(schedule: Schedule) -> None:
    ids = _ids(9)
    schedule.arm(CLOCK, [IndexEntry(one, "expire", LONG_AGO + timedelta(seconds=n)) for n, one in enumerate(ids)])

    claims = [schedule.claim(CLOCK, most=4).ids for _ in range(4)]

    assert [set(claim.get("expire", [])) for claim in claims] == [set(ids[:4]), set(ids[4:8]), {ids[8]}, set()]


def test_urgent_entries_ignore_the_lease_budget_and_are_claimed_separately(schedule: Schedule) -> None:
    index = replace(NOTIFICATIONS, budget=2)
    late, urgent = _ids(6), _ids(2)
    schedule.arm(index, [IndexEntry(one, "notify", LONG_AGO) for one in late])
    full = schedule.claim(index)
    schedule.arm(index, [IndexEntry(one, "notify", LONG_AGO - BEFORE_OTHERS) for one in urgent])

    claims = [schedule.claim(index, urgent=it_is).ids for it_is in (False, True, True)]

    assert len(full.ids["notify"]) == 2
    assert [set(claim.get("notify", [])) for claim in claims] == [set(), set(urgent), set()]


def test_an_id_has_only_one_index_entry_for_all_kinds_together(schedule: Schedule) -> None:
    (one,) = _ids(1)

    schedule.arm(CLOCK, [IndexEntry(one, "time_out", NOON)])
    schedule.arm(CLOCK, [IndexEntry(one, "expire", NOON + timedelta(hours=1))])
    later = schedule.members(CLOCK)
    schedule.arm(CLOCK, [IndexEntry(one, "time_out", None)])

    assert later == {f"expire:{one}": (NOON + timedelta(hours=1)).timestamp() * 1000}
    assert schedule.members(CLOCK) == {}


def test_scheduling_only_missing_entries_leaves_scheduled_and_leased_entries_unchanged(schedule: Schedule) -> None:
    held, leased, missing = _ids(3)
    schedule.arm(CLOCK, _due([leased], "time_out"))
    schedule.claim(CLOCK)
    schedule.arm(CLOCK, [IndexEntry(held, "time_out", NOON)])

    schedule.arm(
        CLOCK,
        [IndexEntry(one, "expire", NOON + timedelta(hours=1)) for one in (held, leased, missing)],
        only_missing=True,
    )

    assert schedule.members(CLOCK) == {
        f"time_out:{held}": NOON.timestamp() * 1000,
        f"expire:{missing}": (NOON + timedelta(hours=1)).timestamp() * 1000,
    }


def test_an_entry_scheduled_with_a_delay_uses_the_clock_of_the_redis_server(
    schedule: Schedule, redis: "Redis"
) -> None:
    one, past = _ids(2)
    before = _milliseconds_now(redis)

    schedule.arm(
        CLOCK,
        [
            IndexEntry(one, "expire", timedelta(minutes=1)),
            IndexEntry(past, "expire", timedelta(milliseconds=-5)),
        ],
    )

    after = _milliseconds_now(redis)
    due = schedule.members(CLOCK)
    assert before + 59_999 <= due[f"expire:{one}"] <= after + 60_001
    assert before - 6 <= due[f"expire:{past}"] <= after - 4
    assert schedule.claim(CLOCK).ids == {"expire": [past]}
    schedule.arm(CLOCK, [IndexEntry(one, "expire", timedelta(milliseconds=250))])
    assert within(20, lambda: schedule.claim(CLOCK).ids == {"expire": [one]})


def test_a_claim_returns_the_time_until_the_next_index_entry(schedule: Schedule) -> None:
    nothing = schedule.claim(CLOCK).idle
    schedule.arm(CLOCK, [IndexEntry(one, "expire", timedelta(minutes=30)) for one in _ids(1)])
    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])

    something = schedule.claim(CLOCK).idle

    assert nothing == 3600
    assert 1700 < something <= 1800


def test_an_index_is_complete_only_on_the_redis_server_that_completed_it(schedule: Schedule, redis: "Redis") -> None:
    before = schedule.rebuild(CLOCK).is_whole(), schedule.claim(CLOCK).whole
    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])
    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])
    after = schedule.rebuild(CLOCK).is_whole(), schedule.claim(CLOCK).whole

    assert before == (False, False)
    assert after == (True, True)
    assert not schedule.rebuild(NOTIFICATIONS).is_whole()
    assert redis.zcard(CLOCK.keys[0]) == 1
    assert schedule.members(CLOCK) == {}


def test_an_index_completed_on_another_redis_server_is_incomplete(schedule: Schedule, redis: "Redis") -> None:
    redis.zadd(CLOCK.keys[0], {f"{EPOCH}:0123456789abcdef": float("inf")})
    before = schedule.rebuild(CLOCK).is_whole()

    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])

    assert not before
    assert schedule.rebuild(CLOCK).is_whole()
    assert redis.zcard(CLOCK.keys[0]) == 1


def test_an_index_lost_during_its_rebuild_is_incomplete(schedule: Schedule, redis: "Redis") -> None:
    begun, after = schedule.rebuild(CLOCK).begin()
    redis.flushdb()

    assert not schedule.rebuild(CLOCK).complete(begun)
    assert not schedule.rebuild(CLOCK).move(begun, after)
    assert not schedule.rebuild(CLOCK).is_whole()
    assert redis.zcard(CLOCK.keys[0]) == 0


def test_an_index_rebuild_resumes_where_it_stopped(schedule: Schedule) -> None:
    begun, start = schedule.rebuild(CLOCK).begin()
    reached = new_id()
    mark = schedule.rebuild(CLOCK).move(begun, reached)

    assert start.int == 0
    assert schedule.rebuild(CLOCK).begin() == (mark, reached)
    assert not schedule.claim(CLOCK).whole
    assert (schedule.rebuild(CLOCK).complete(begun), schedule.rebuild(CLOCK).complete(mark)) == (False, True)
    assert schedule.rebuild(CLOCK).is_whole()
    assert schedule.members(CLOCK) == {}


@pytest.mark.parametrize("mark", ["begun:another:{run}:{id}", "begun:x", "epoch:x", "anything"])
def test_an_index_rebuild_restarts_if_its_progress_mark_is_not_recognised(
    schedule: Schedule, redis: "Redis", mark: str
) -> None:
    redis.zadd(CLOCK.keys[0], {mark.format(run="x", id=new_id()): float("inf")})

    begun, after = schedule.rebuild(CLOCK).begin()

    assert after.int == 0
    assert redis.zrange(CLOCK.keys[0], 0, -1) == [begun.encode()]


def test_the_completeness_marker_is_never_claimed_and_is_lost_only_with_the_whole_index(
    schedule: Schedule, redis: "Redis"
) -> None:
    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])
    schedule.arm(CLOCK, _due(_ids(3)))

    claims = [schedule.claim(CLOCK) for _ in range(3)]
    redis.delete(CLOCK.keys[0])

    assert sum(len(ids) for claim in claims for ids in claim.ids.values()) == 3
    assert all(claim.whole for claim in claims)
    assert not schedule.claim(CLOCK).whole


def test_the_indexes_of_deadlines_and_notifications_are_independent(schedule: Schedule) -> None:
    (one,) = _ids(1)
    schedule.arm(CLOCK, _due([one]))
    schedule.arm(NOTIFICATIONS, _due([one], "notify"))

    assert schedule.claim(CLOCK).ids == {"expire": [one]}
    assert schedule.claim(NOTIFICATIONS).ids == {"notify": [one]}


def test_scheduling_very_many_entries_is_split_into_several_redis_calls(schedule: Schedule) -> None:
    ids = _ids(1203)

    assert schedule.arm(CLOCK, _due(ids))

    claimed = [one for _ in range(4) for one in schedule.claim(CLOCK).ids.get("expire", [])]
    assert sorted(claimed) == sorted(ids)


def test_if_one_call_schedules_an_id_several_times_the_last_entry_counts(schedule: Schedule) -> None:
    one, other = _ids(2)

    schedule.arm(
        CLOCK,
        [
            IndexEntry(one, "expire", NOON),
            IndexEntry(other, "expire", None),
            IndexEntry(one, "expire", None),
            IndexEntry(other, "time_out", NOON),
        ],
    )

    assert schedule.members(CLOCK).keys() == {f"time_out:{other}"}


@pytest.mark.parametrize("index", [CLOCK, NOTIFICATIONS], ids=["clock", "notifications"])
def test_scheduling_an_empty_list_does_nothing(schedule: Schedule, redis: "Redis", index: ScheduleIndex) -> None:
    assert schedule.arm(index, [])
    assert redis.dbsize() == 0


MIDDAY = datetime(2030, 1, 1, 12, tzinfo=UTC)
SLACK = 10.0
"""Seconds that a machine which does other things too may take."""


def _entry(kind: str = "expire", one: str = "") -> IndexEntry:
    return IndexEntry(one or str(new_id()), kind, MIDDAY)


def _followed(schedule: Schedule, *calls: Callable[[Schedule], None]) -> None:
    """Make these calls in one turn of an event loop, and wait until the scheduling that follows is done."""

    async def run() -> None:
        for call in calls:
            call(schedule)
        await schedule.followed()

    asyncio.run(run())


def test_the_event_loop_schedules_the_same_entries_as_a_thread(schedule: Schedule) -> None:
    some = [_entry(), _entry("time_out"), IndexEntry(str(new_id()), "remind", timedelta(hours=1))]
    schedule.arm(CLOCK, some)
    armed = schedule.members(CLOCK)
    schedule.arm(CLOCK, [IndexEntry(one.id, one.kind, None) for one in some])

    _followed(schedule, lambda at: at.follow({CLOCK: some}, {}))

    again = schedule.members(CLOCK)
    assert again.keys() == armed.keys() == {f"{one.kind}:{one.id}" for one in some}
    assert all(again[one] == pytest.approx(armed[one], abs=60_000) for one in armed)


@pytest.mark.far
def test_a_slow_attempt_to_schedule_an_entry_is_repeated_once(
    schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_if_two_calls_schedule_the_same_id_the_later_call_counts(schedule: Schedule) -> None:
    one = str(new_id())

    _followed(
        schedule,
        lambda at: at.follow({CLOCK: [_entry("time_out", one)]}, {}),
        lambda at: at.follow({CLOCK: [_entry("expire", one)]}, {}),
    )

    assert schedule.members(CLOCK).keys() == {f"expire:{one}"}


def test_entries_scheduled_in_one_turn_of_the_event_loop_are_sent_together(
    schedule: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_live_message_for_the_vendor_is_published_even_if_no_entry_is_scheduled(
    schedule: Schedule, redis: "Redis"
) -> None:
    one, number = str(new_id()), database_number(redis)
    with closing(redis.pubsub(ignore_subscribe_messages=True)) as heard:  # type: ignore[no-untyped-call]
        heard.subscribe(channel_of(number, "vendor"))
        while heard.get_message(timeout=1) is not None:
            pass

        _followed(schedule, lambda at: at.follow({}, {"vendor": [one]}))

        message = heard.get_message(ignore_subscribe_messages=True, timeout=5)
    assert message is not None
    assert message["data"] == one.encode()


def test_a_script_that_redis_forgot_is_loaded_again(schedule: Schedule, redis: "Redis") -> None:
    redis.script_flush()

    _followed(schedule, lambda at: at.follow({CLOCK: [_entry()]}, {}))

    assert len(schedule.members(CLOCK)) == 1


def test_while_redis_is_away_no_call_waits_for_scheduling_and_threads_skip_scheduling(
    away_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_module, "BREAKER_SECONDS", 60.0)
    with closing(Schedule(away_url)) as away:
        began = time.monotonic()
        _followed(away, lambda at: at.follow({CLOCK: [_entry()]}, {None: [str(new_id())]}))
        first = time.monotonic() - began
        began = time.monotonic()
        _followed(away, *[lambda at: at.follow({CLOCK: [_entry()]}, {})] * 500)
        taken = away.arm(CLOCK, [_entry()])

        assert taken is False
        assert first < SLACK
        assert time.monotonic() - began < SLACK


@pytest.mark.far
def test_the_event_loop_continues_while_redis_hangs(away_url: str) -> None:
    async def run(at: Schedule) -> float:
        at.follow({CLOCK: [_entry()]}, {})
        began = time.monotonic()
        await asyncio.sleep(0)
        took = time.monotonic() - began
        with suppress(TimeoutError):
            await asyncio.wait_for(at.followed(), 0.1)
        await at.followed()
        return took

    with closing(Schedule(away_url, patience=2 * SLACK)) as away:
        assert asyncio.run(run(away)) < SLACK


SOON = timedelta(seconds=30)


@pytest.fixture
def away(away_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Schedule]:
    """A schedule on an unavailable Redis: it refuses connections, or never answers, however long a poller waits."""
    monkeypatch.setattr(schedule_module, "POLL_TIMEOUT", 2 * SLACK)
    monkeypatch.setattr(schedule_module, "BREAKER_SECONDS", 60.0)
    with closing(Schedule(away_url)) as opened:
        yield opened


@pytest.fixture
def restored(redis: "Redis") -> Iterator["Redis"]:
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


def test_while_redis_is_away_scheduling_first_fails_after_a_moment_and_then_at_once(away: Schedule) -> None:
    first = _seconds_to_arm(away, 2000)
    rest = [_seconds_to_arm(away) for _ in range(200)]

    assert first < SLACK
    assert sum(rest) < SLACK


@pytest.mark.far
def test_claiming_timers_raises_an_error_soon_if_redis_is_unavailable(away_url: str) -> None:
    began = time.monotonic()

    with closing(Schedule(away_url)) as away, pytest.raises(RedisUnavailable):
        away.claim(CLOCK)

    assert time.monotonic() - began < RETRIED


def test_a_health_check_reports_an_unavailable_redis_within_a_moment(away: Schedule) -> None:
    began = time.monotonic()

    with pytest.raises(RedisUnavailable):
        away.ping()

    assert time.monotonic() - began < SLACK


def test_listening_for_wake_ups_reports_an_unavailable_redis(refused_url: str) -> None:
    with closing(Schedule(refused_url)) as away, away.bell(CLOCK) as bell, pytest.raises(RedisUnavailable):
        bell.listen()


@pytest.mark.far
def test_scheduling_works_again_after_the_redis_circuit_breaker_closes(
    schedule: Schedule, redis: "Redis", redis_url: str
) -> None:
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


def test_a_wrong_redis_password_counts_as_an_unavailable_redis(redis_url: str) -> None:
    wrong = redis_url.replace(urlsplit(redis_url).password or "", "wrong")

    with closing(Schedule(wrong)) as locked_out:
        assert locked_out.arm(CLOCK, _some()) is False
        with pytest.raises(RedisUnavailable):
            locked_out.claim(NOTIFICATIONS)
        with pytest.raises(RedisUnavailable):
            locked_out.ping()


def test_a_full_redis_is_recognised_and_raises_no_error(schedule: Schedule, restored: "Redis") -> None:
    schedule.arm(CLOCK, _some())
    before = schedule.members(CLOCK)
    restored.config_set("maxmemory", 1)

    taken = schedule.arm(CLOCK, promised := _some())

    restored.config_set("maxmemory", 0)
    held = schedule.members(CLOCK)
    assert taken is (f"expire:{promised[0].id}" in held)
    assert before.keys() <= held.keys()


def test_a_read_only_redis_counts_as_unavailable(schedule: Schedule, restored: "Redis") -> None:
    schedule.arm(CLOCK, [IndexEntry(str(new_id()), "expire", timedelta(0))])
    restored.replicaof("127.0.0.1", "1")

    taken = schedule.arm(CLOCK, _some())
    with pytest.raises(RedisUnavailable):
        schedule.claim(CLOCK)

    restored.replicaof("NO", "ONE")
    assert taken is False
    assert len(schedule.members(CLOCK)) == 1


def test_a_redis_that_may_evict_keys_is_refused(schedule: Schedule, restored: "Redis") -> None:
    schedule.ping()
    restored.config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(RedisUnavailable, match="noeviction"):
        schedule.ping()
