"""Claims and their leases: lapsed entries are offered again, leases have a budget, and claims are disjoint."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from redis import Redis

from harness.wait import within
from lockbox.schedule import CLOCK, LATE_MS, NOTIFICATIONS, TRICKLE, IndexEntry, Schedule, ScheduleIndex
from lockbox.sql import new_id
from tests.database.scenes import PATIENCE, at_once

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
NOON = datetime(2040, 1, 1, 12, tzinfo=UTC)
LONG = ScheduleIndex("short", ("time_out", "expire"), lease=timedelta(seconds=60), budget=5)
SHORT = replace(LONG, lease=timedelta(milliseconds=200))


def _ids(count: int) -> list[str]:
    return [str(new_id()) for _ in range(count)]


def _due(ids: list[str], kind: str = "expire") -> list[IndexEntry]:
    return [IndexEntry(one, kind, LONG_AGO) for one in ids]


def test_rescheduling_or_removing_a_claimed_index_entry_drops_the_lease(schedule: Schedule, redis: "Redis") -> None:
    gone, again = _ids(2)
    schedule.arm(CLOCK, _due([gone, again]))
    schedule.claim(CLOCK)

    schedule.arm(CLOCK, [IndexEntry(gone, "expire", None), IndexEntry(again, "expire", NOON)])

    assert redis.zcard(CLOCK.keys[1]) == 0
    assert schedule.members(CLOCK).keys() == {f"expire:{again}"}


@pytest.mark.far
def test_an_entry_whose_lease_expired_is_offered_again(schedule: Schedule) -> None:
    (one,) = _ids(1)
    schedule.arm(LONG, _due([one]))

    first = schedule.claim(LONG)
    at_once_after = schedule.claim(LONG)
    schedule.arm(SHORT, _due([one]))

    assert first.ids == {"expire": [one]}
    assert at_once_after.ids == {}
    assert 0 < at_once_after.idle <= 60
    for _ in range(3):
        assert within(PATIENCE, lambda: schedule.claim(SHORT).ids == {"expire": [one]})


def test_due_entries_beyond_the_lease_budget_wait_in_the_index(schedule: Schedule) -> None:
    ids = _ids(12)
    schedule.arm(LONG, _due(ids))

    claim = schedule.claim(LONG)
    full = schedule.claim(LONG)
    schedule.arm(LONG, [IndexEntry(one, "expire", None) for one in claim.ids["expire"][:2]])
    room = schedule.claim(LONG)

    assert len(claim.ids["expire"]) == LONG.budget
    assert full.ids == {}
    assert 0 < full.idle <= 0.2
    assert len(room.ids["expire"]) == 2
    assert len(schedule.members(LONG)) == 12 - 7


def test_an_index_entry_whose_lease_expired_counts_once_against_the_lease_budget(schedule: Schedule) -> None:
    schedule.arm(SHORT, _due(_ids(12)))
    first = set(schedule.claim(SHORT).ids["expire"])
    time.sleep(0.25)

    assert set(schedule.claim(SHORT).ids["expire"]) == first


def test_notifications_wait_while_very_many_deadlines_are_leased(schedule: Schedule) -> None:
    storm = _ids(501)
    schedule.arm(NOTIFICATIONS, _due(_ids(3), "notify"))
    schedule.arm(CLOCK, _due(storm))
    while schedule.claim(CLOCK).ids:
        pass

    during = schedule.claim(NOTIFICATIONS)
    schedule.arm(CLOCK, [IndexEntry(storm[0], "expire", None)])
    after = schedule.claim(NOTIFICATIONS)

    assert during.ids == {}
    assert 0 < during.idle <= 0.1
    assert len(after.ids["notify"]) == 3


def test_notifications_continue_slowly_while_deadlines_are_late(schedule: Schedule) -> None:
    schedule.arm(NOTIFICATIONS, _due(_ids(TRICKLE + 7), "notify"))
    schedule.arm(CLOCK, _due(_ids(1)))

    during = schedule.claim(NOTIFICATIONS)
    schedule.claim(CLOCK)
    after = schedule.claim(NOTIFICATIONS)

    assert len(during.ids["notify"]) == TRICKLE
    assert 0.02 <= during.idle <= 0.1
    assert len(after.ids["notify"]) == 7


def test_a_deadline_that_is_just_due_delays_no_notification(schedule: Schedule) -> None:
    for _ in range(50):
        schedule.arm(NOTIFICATIONS, _due(_ids(TRICKLE + 7), "notify"))
        began = time.monotonic()
        schedule.arm(CLOCK, [IndexEntry(one, "expire", timedelta(0)) for one in _ids(1)])
        claimed = schedule.claim(NOTIFICATIONS)
        # On a busy machine it may be late by now, which is another case.
        if time.monotonic() - began < LATE_MS / 1000:
            break
        schedule.claim(CLOCK)
        schedule.claim(NOTIFICATIONS)
    else:
        pytest.fail("no claim came in time")

    assert len(claimed.ids["notify"]) == TRICKLE + 7


@pytest.mark.parametrize("until", ["+inf", 1e15, 0])
def test_lease_entries_with_unknown_names_delay_no_notification(
    schedule: Schedule, redis: "Redis", until: str | float
) -> None:
    schedule.arm(NOTIFICATIONS, _due(_ids(3), "notify"))
    redis.zadd(CLOCK.keys[1], {f"junk {number}": until for number in range(501)})

    assert len(schedule.claim(NOTIFICATIONS).ids["notify"]) == 3


def test_scheduling_an_id_under_another_kind_drops_the_lease_of_the_former_kind(
    schedule: Schedule, redis: "Redis"
) -> None:
    (one,) = _ids(1)
    schedule.arm(CLOCK, _due([one], "time_out"))
    schedule.claim(CLOCK)

    schedule.arm(CLOCK, [IndexEntry(one, "expire", NOON)])

    assert redis.zcard(CLOCK.keys[1]) == 0


@pytest.mark.far
def test_concurrent_claims_of_index_entries_are_disjoint(schedule: Schedule) -> None:
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


def test_concurrent_scheduling_and_claiming_neither_loses_nor_doubles_entries(schedule: Schedule) -> None:
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
