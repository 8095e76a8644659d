"""Foreign entries in an index delay nothing and are removed."""

from datetime import UTC, datetime

from redis import Redis

from lockbox.schedule import CLOCK, NOTIFICATIONS, IndexEntry, Schedule
from lockbox.sql import new_id

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
STRANGERS = [b"expire:not-an-id", b"reconcile:%b" % str(new_id()).encode(), b"nokind", b"\xff\xfe"]


def test_unknown_ids_in_an_index_are_dropped_and_known_ids_are_claimed(schedule: Schedule, redis: "Redis") -> None:
    known = str(new_id())
    schedule.arm(CLOCK, [IndexEntry(known, "expire", LONG_AGO)])
    redis.zadd(CLOCK.keys[0], dict.fromkeys(STRANGERS, 1))

    claim = schedule.claim(CLOCK)

    assert claim.ids == {"expire": [known]}
    assert redis.zrange(CLOCK.keys[1], 0, -1) == [f"expire:{known}".encode()]
    assert schedule.members(CLOCK) == {}


def test_notifications_are_not_claimed_during_a_deadline_storm(schedule: Schedule) -> None:
    storm = [IndexEntry(str(new_id()), "expire", LONG_AGO) for _ in range(600)]
    notification = IndexEntry(str(new_id()), "notify", LONG_AGO)
    schedule.arm(CLOCK, storm)
    schedule.arm(NOTIFICATIONS, [notification])
    schedule.claim(CLOCK)
    schedule.claim(CLOCK)

    held_back = schedule.claim(NOTIFICATIONS)
    schedule.arm(CLOCK, [IndexEntry(one.id, "expire", None) for one in storm])
    given_out = schedule.claim(NOTIFICATIONS)

    assert held_back.ids == {}
    assert 0 < held_back.idle < 1
    assert given_out.ids == {"notify": [notification.id]}
