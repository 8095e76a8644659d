"""The sorted sets on a real Valkey and, where there is one, a real Redis: arm, claim, settle, and leases."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from lockbox.ids import new_id
from lockbox.schedule import CLOCK, EPOCH, NOTICES, Index, Promise, Schedule
from tests.database.scenes import at_once

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
NOON = datetime(2040, 1, 1, 12, tzinfo=UTC)
SHORT = Index("short", ("time_out", "expire"), lease=timedelta(milliseconds=200), budget=5)


def _ids(count: int) -> list[str]:
    return [str(new_id()) for _ in range(count)]


def _due(ids: list[str], kind: str = "expire") -> list[Promise]:
    return [Promise(one, kind, LONG_AGO) for one in ids]


def _milliseconds_now(redis: "Redis") -> float:
    seconds, micros = redis.time()
    return float(seconds) * 1000 + float(micros) / 1000


def _within(seconds: float, true: Callable[[], object]) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.01)
    return False


def test_what_is_armed_is_held_with_its_due_time_in_milliseconds_rounded_up(schedule: Schedule) -> None:
    (one,) = _ids(1)

    taken = schedule.arm(CLOCK, [Promise(one, "expire", NOON + timedelta(microseconds=1))])

    assert taken
    assert schedule.members(CLOCK) == {f"expire:{one}": NOON.timestamp() * 1000 + 1}


def test_a_claim_brings_what_is_due_by_kind_and_nothing_that_is_not(schedule: Schedule) -> None:
    first, second, third, fourth = _ids(4)
    schedule.arm(CLOCK, [*_due([first, second]), *_due([third], "time_out"), Promise(fourth, "expire", NOON)])

    claim = schedule.claim(CLOCK)

    assert {kind: set(ids) for kind, ids in claim.ids.items()} == {"expire": {first, second}, "time_out": {third}}
    assert schedule.members(CLOCK).keys() == {f"expire:{fourth}"}
    assert schedule.claim(CLOCK).ids == {}


def test_what_is_due_longest_is_claimed_first_and_a_call_brings_at_most_what_was_asked(schedule: Schedule) -> None:
    ids = _ids(9)
    schedule.arm(CLOCK, [Promise(one, "expire", LONG_AGO + timedelta(seconds=n)) for n, one in enumerate(ids)])

    claims = [schedule.claim(CLOCK, most=4).ids for _ in range(4)]

    assert [set(claim.get("expire", [])) for claim in claims] == [set(ids[:4]), set(ids[4:8]), {ids[8]}, set()]


def test_settling_drops_the_lease_and_writes_what_is_true_now(schedule: Schedule, redis: "Redis") -> None:
    gone, again = _ids(2)
    schedule.arm(CLOCK, _due([gone, again]))
    schedule.claim(CLOCK)

    schedule.arm(CLOCK, [Promise(gone, "expire", None), Promise(again, "expire", NOON)])

    assert redis.zcard(CLOCK.keys[1]) == 0
    assert schedule.members(CLOCK).keys() == {f"expire:{again}"}


def test_what_was_leased_for_too_long_is_offered_again_and_again(schedule: Schedule) -> None:
    (one,) = _ids(1)
    schedule.arm(SHORT, _due([one]))

    first = schedule.claim(SHORT)
    at_once_after = schedule.claim(SHORT)

    assert first.ids == {"expire": [one]}
    assert at_once_after.ids == {}
    assert 0 < at_once_after.idle <= 0.2
    for _ in range(2):
        assert _within(2, lambda: schedule.claim(SHORT).ids == {"expire": [one]})


def test_a_backlog_beyond_the_budget_waits_in_the_index(schedule: Schedule) -> None:
    ids = _ids(12)
    schedule.arm(SHORT, _due(ids))

    claim = schedule.claim(SHORT)
    full = schedule.claim(SHORT)
    schedule.arm(SHORT, [Promise(one, "expire", None) for one in claim.ids["expire"][:2]])
    room = schedule.claim(SHORT)

    assert len(claim.ids["expire"]) == SHORT.budget
    assert full.ids == {}
    assert 0 < full.idle <= 0.2
    assert len(room.ids["expire"]) == 2
    assert len(schedule.members(SHORT)) == 12 - 7


def test_a_lease_that_ran_out_counts_no_second_time_against_the_budget(schedule: Schedule) -> None:
    schedule.arm(SHORT, _due(_ids(12)))
    first = set(schedule.claim(SHORT).ids["expire"])
    time.sleep(0.25)

    assert set(schedule.claim(SHORT).ids["expire"]) == first


def test_notices_wait_while_a_storm_of_clocks_is_out(schedule: Schedule) -> None:
    storm = _ids(501)
    schedule.arm(NOTICES, _due(_ids(3), "notify"))
    schedule.arm(CLOCK, _due(storm))
    while schedule.claim(CLOCK).ids:
        pass

    during = schedule.claim(NOTICES)
    schedule.arm(CLOCK, [Promise(storm[0], "expire", None)])
    after = schedule.claim(NOTICES)

    assert during.ids == {}
    assert 0 < during.idle <= 0.1
    assert len(after.ids["notify"]) == 3


def test_an_id_has_one_member_whatever_it_is_due_for(schedule: Schedule) -> None:
    (one,) = _ids(1)

    schedule.arm(CLOCK, [Promise(one, "time_out", NOON)])
    schedule.arm(CLOCK, [Promise(one, "expire", NOON + timedelta(hours=1))])
    later = schedule.members(CLOCK)
    schedule.arm(CLOCK, [Promise(one, "time_out", None)])

    assert later == {f"expire:{one}": (NOON + timedelta(hours=1)).timestamp() * 1000}
    assert schedule.members(CLOCK) == {}


def test_arming_one_kind_drops_the_lease_of_the_other(schedule: Schedule, redis: "Redis") -> None:
    (one,) = _ids(1)
    schedule.arm(CLOCK, _due([one], "time_out"))
    schedule.claim(CLOCK)

    schedule.arm(CLOCK, [Promise(one, "expire", NOON)])

    assert redis.zcard(CLOCK.keys[1]) == 0


def test_only_what_is_missing_is_armed_where_that_was_asked(schedule: Schedule) -> None:
    held, leased, missing = _ids(3)
    schedule.arm(CLOCK, _due([leased], "time_out"))
    schedule.claim(CLOCK)
    schedule.arm(CLOCK, [Promise(held, "time_out", NOON)])

    schedule.arm(
        CLOCK,
        [Promise(one, "expire", NOON + timedelta(hours=1)) for one in (held, leased, missing)],
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
        [Promise(one, "expire", timedelta(milliseconds=250)), Promise(past, "expire", timedelta(milliseconds=-5))],
    )

    after = _milliseconds_now(redis)
    due = schedule.members(CLOCK)
    assert before + 249 <= due[f"expire:{one}"] <= after + 251
    assert before - 6 <= due[f"expire:{past}"] <= after - 4
    assert schedule.claim(CLOCK).ids == {"expire": [past]}
    assert _within(2, lambda: schedule.claim(CLOCK).ids == {"expire": [one]})


def test_a_claim_says_how_long_there_is_nothing_to_do(schedule: Schedule) -> None:
    nothing = schedule.claim(CLOCK).idle
    schedule.arm(CLOCK, [Promise(one, "expire", timedelta(seconds=30)) for one in _ids(1)])
    schedule.mark_whole(CLOCK)

    something = schedule.claim(CLOCK).idle

    assert nothing == 3600
    assert 29 < something <= 30


def test_an_index_is_whole_under_the_server_that_it_was_completed_on(schedule: Schedule, redis: "Redis") -> None:
    before = schedule.is_whole(CLOCK), schedule.claim(CLOCK).whole
    schedule.mark_whole(CLOCK)
    schedule.mark_whole(CLOCK)
    after = schedule.is_whole(CLOCK), schedule.claim(CLOCK).whole

    assert before == (False, False)
    assert after == (True, True)
    assert not schedule.is_whole(NOTICES)
    assert redis.zcard(CLOCK.keys[0]) == 1
    assert schedule.members(CLOCK) == {}


def test_an_index_that_was_completed_on_another_server_is_not_whole(schedule: Schedule, redis: "Redis") -> None:
    redis.zadd(CLOCK.keys[0], {f"{EPOCH}:0123456789abcdef": float("inf")})
    before = schedule.is_whole(CLOCK)

    schedule.mark_whole(CLOCK)

    assert not before
    assert schedule.is_whole(CLOCK)
    assert redis.zcard(CLOCK.keys[0]) == 1


def test_the_epoch_is_never_claimed_and_lost_only_with_the_index(schedule: Schedule, redis: "Redis") -> None:
    schedule.mark_whole(CLOCK)
    schedule.arm(CLOCK, _due(_ids(3)))

    claims = [schedule.claim(CLOCK) for _ in range(3)]
    redis.delete(CLOCK.keys[0])

    assert sum(len(ids) for claim in claims for ids in claim.ids.values()) == 3
    assert all(claim.whole for claim in claims)
    assert not schedule.claim(CLOCK).whole


def test_the_two_indexes_know_nothing_of_each_other(schedule: Schedule) -> None:
    (one,) = _ids(1)
    schedule.arm(CLOCK, _due([one]))
    schedule.arm(NOTICES, _due([one], "notify"))

    assert schedule.claim(CLOCK).ids == {"expire": [one]}
    assert schedule.claim(NOTICES).ids == {"notify": [one]}


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
            Promise(one, "expire", NOON),
            Promise(other, "expire", None),
            Promise(one, "expire", None),
            Promise(other, "time_out", NOON),
        ],
    )

    assert schedule.members(CLOCK).keys() == {f"time_out:{other}"}


def test_claims_by_many_at_once_are_disjoint(schedule: Schedule) -> None:
    ids = _ids(2000)
    schedule.arm(CLOCK, _due(ids))

    def claim_all() -> list[str]:
        claimed: list[str] = []
        while part := schedule.claim(CLOCK, most=50).ids.get("expire"):
            claimed += part
        return claimed

    with ThreadPoolExecutor(6) as pool:
        results = at_once(pool, *[claim_all] * 6)

    claimed = [one for result in results if isinstance(result, list) for one in result]
    assert sorted(claimed) == sorted(ids)


def test_arming_and_claiming_at_once_loses_and_doubles_nothing(schedule: Schedule) -> None:
    ids = _ids(1000)
    claimed: list[str] = []

    def arm_all() -> None:
        for start in range(0, len(ids), 20):
            while not schedule.arm(CLOCK, _due(ids[start : start + 20])):
                time.sleep(0.1)

    with ThreadPoolExecutor(1) as pool:
        arming = pool.submit(arm_all)
        while not arming.done():
            claimed += schedule.claim(CLOCK).ids.get("expire", [])
    claimed += schedule.claim(CLOCK).ids.get("expire", [])

    assert sorted(claimed) == sorted(ids)


@pytest.mark.parametrize("index", [CLOCK, NOTICES], ids=["clock", "notices"])
def test_nothing_to_arm_is_nothing_done(schedule: Schedule, redis: "Redis", index: Index) -> None:
    assert schedule.arm(index, [])
    assert redis.dbsize() == 0
