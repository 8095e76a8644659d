"""The sorted sets on a real Valkey and, where there is one, a real Redis: arm, claim, settle, and leases."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from harness.wait import within
from lockbox.index_rebuild import EPOCH
from lockbox.schedule import BEFORE_OTHERS, CLOCK, NOTIFICATIONS, IndexEntry, Schedule, ScheduleIndex
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


def test_what_is_armed_is_held_with_its_due_time_in_milliseconds_rounded_up(schedule: Schedule) -> None:
    (one,) = _ids(1)

    taken = schedule.arm(CLOCK, [IndexEntry(one, "expire", NOON + timedelta(microseconds=1))])

    assert taken
    assert schedule.members(CLOCK) == {f"expire:{one}": NOON.timestamp() * 1000 + 1}


def test_a_claim_brings_what_is_due_by_kind_and_nothing_that_is_not(schedule: Schedule) -> None:
    first, second, third, fourth = _ids(4)
    schedule.arm(CLOCK, [*_due([first, second]), *_due([third], "time_out"), IndexEntry(fourth, "expire", NOON)])

    claim = schedule.claim(CLOCK)

    assert {kind: set(ids) for kind, ids in claim.ids.items()} == {"expire": {first, second}, "time_out": {third}}
    assert schedule.members(CLOCK).keys() == {f"expire:{fourth}"}
    assert schedule.claim(CLOCK).ids == {}


def test_what_is_due_longest_is_claimed_first_and_a_call_brings_at_most_what_was_asked(schedule: Schedule) -> None:
    ids = _ids(9)
    schedule.arm(CLOCK, [IndexEntry(one, "expire", LONG_AGO + timedelta(seconds=n)) for n, one in enumerate(ids)])

    claims = [schedule.claim(CLOCK, most=4).ids for _ in range(4)]

    assert [set(claim.get("expire", [])) for claim in claims] == [set(ids[:4]), set(ids[4:8]), {ids[8]}, set()]


def test_what_goes_before_all_others_waits_for_no_budget_and_is_claimed_alone(schedule: Schedule) -> None:
    index = replace(NOTIFICATIONS, budget=2)
    late, urgent = _ids(6), _ids(2)
    schedule.arm(index, [IndexEntry(one, "notify", LONG_AGO) for one in late])
    full = schedule.claim(index)
    schedule.arm(index, [IndexEntry(one, "notify", LONG_AGO - BEFORE_OTHERS) for one in urgent])

    claims = [schedule.claim(index, urgent=it_is).ids for it_is in (False, True, True)]

    assert len(full.ids["notify"]) == 2
    assert [set(claim.get("notify", [])) for claim in claims] == [set(), set(urgent), set()]


def test_an_id_has_one_member_whatever_it_is_due_for(schedule: Schedule) -> None:
    (one,) = _ids(1)

    schedule.arm(CLOCK, [IndexEntry(one, "time_out", NOON)])
    schedule.arm(CLOCK, [IndexEntry(one, "expire", NOON + timedelta(hours=1))])
    later = schedule.members(CLOCK)
    schedule.arm(CLOCK, [IndexEntry(one, "time_out", None)])

    assert later == {f"expire:{one}": (NOON + timedelta(hours=1)).timestamp() * 1000}
    assert schedule.members(CLOCK) == {}


def test_only_what_is_missing_is_armed_where_that_was_asked(schedule: Schedule) -> None:
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


def test_a_delay_counts_on_the_servers_own_clock(schedule: Schedule, redis: "Redis") -> None:
    one, past = _ids(2)
    before = _milliseconds_now(redis)

    schedule.arm(
        CLOCK,
        [
            IndexEntry(one, "expire", timedelta(milliseconds=250)),
            IndexEntry(past, "expire", timedelta(milliseconds=-5)),
        ],
    )

    after = _milliseconds_now(redis)
    due = schedule.members(CLOCK)
    assert before + 249 <= due[f"expire:{one}"] <= after + 251
    assert before - 6 <= due[f"expire:{past}"] <= after - 4
    assert schedule.claim(CLOCK).ids == {"expire": [past]}
    assert within(2, lambda: schedule.claim(CLOCK).ids == {"expire": [one]})


def test_a_claim_says_how_long_there_is_nothing_to_do(schedule: Schedule) -> None:
    nothing = schedule.claim(CLOCK).idle
    schedule.arm(CLOCK, [IndexEntry(one, "expire", timedelta(seconds=30)) for one in _ids(1)])
    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])

    something = schedule.claim(CLOCK).idle

    assert nothing == 3600
    assert 29 < something <= 30


def test_an_index_is_whole_under_the_server_that_it_was_completed_on(schedule: Schedule, redis: "Redis") -> None:
    before = schedule.rebuild(CLOCK).is_whole(), schedule.claim(CLOCK).whole
    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])
    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])
    after = schedule.rebuild(CLOCK).is_whole(), schedule.claim(CLOCK).whole

    assert before == (False, False)
    assert after == (True, True)
    assert not schedule.rebuild(NOTIFICATIONS).is_whole()
    assert redis.zcard(CLOCK.keys[0]) == 1
    assert schedule.members(CLOCK) == {}


def test_an_index_that_was_completed_on_another_server_is_not_whole(schedule: Schedule, redis: "Redis") -> None:
    redis.zadd(CLOCK.keys[0], {f"{EPOCH}:0123456789abcdef": float("inf")})
    before = schedule.rebuild(CLOCK).is_whole()

    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])

    assert not before
    assert schedule.rebuild(CLOCK).is_whole()
    assert redis.zcard(CLOCK.keys[0]) == 1


def test_an_index_that_was_lost_in_the_midst_of_its_rebuild_is_not_whole(schedule: Schedule, redis: "Redis") -> None:
    begun, after = schedule.rebuild(CLOCK).begin()
    redis.flushdb()

    assert not schedule.rebuild(CLOCK).complete(begun)
    assert not schedule.rebuild(CLOCK).move(begun, after)
    assert not schedule.rebuild(CLOCK).is_whole()
    assert redis.zcard(CLOCK.keys[0]) == 0


def test_a_rebuild_goes_on_where_the_last_one_has_stopped(schedule: Schedule) -> None:
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
def test_a_rebuild_begins_anew_where_its_mark_is_not_of_this_server(
    schedule: Schedule, redis: "Redis", mark: str
) -> None:
    redis.zadd(CLOCK.keys[0], {mark.format(run="x", id=new_id()): float("inf")})

    begun, after = schedule.rebuild(CLOCK).begin()

    assert after.int == 0
    assert redis.zrange(CLOCK.keys[0], 0, -1) == [begun.encode()]


def test_the_epoch_is_never_claimed_and_lost_only_with_the_index(schedule: Schedule, redis: "Redis") -> None:
    schedule.rebuild(CLOCK).complete(schedule.rebuild(CLOCK).begin()[0])
    schedule.arm(CLOCK, _due(_ids(3)))

    claims = [schedule.claim(CLOCK) for _ in range(3)]
    redis.delete(CLOCK.keys[0])

    assert sum(len(ids) for claim in claims for ids in claim.ids.values()) == 3
    assert all(claim.whole for claim in claims)
    assert not schedule.claim(CLOCK).whole


def test_the_two_indexes_know_nothing_of_each_other(schedule: Schedule) -> None:
    (one,) = _ids(1)
    schedule.arm(CLOCK, _due([one]))
    schedule.arm(NOTIFICATIONS, _due([one], "notify"))

    assert schedule.claim(CLOCK).ids == {"expire": [one]}
    assert schedule.claim(NOTIFICATIONS).ids == {"notify": [one]}


def test_more_than_one_call_can_hold_are_armed_in_parts(schedule: Schedule) -> None:
    ids = _ids(1203)

    assert schedule.arm(CLOCK, _due(ids))

    claimed = [one for _ in range(4) for one in schedule.claim(CLOCK).ids.get("expire", [])]
    assert sorted(claimed) == sorted(ids)


def test_of_several_promises_about_one_id_the_last_counts(schedule: Schedule) -> None:
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
def test_nothing_to_arm_is_nothing_done(schedule: Schedule, redis: "Redis", index: ScheduleIndex) -> None:
    assert schedule.arm(index, [])
    assert redis.dbsize() == 0
