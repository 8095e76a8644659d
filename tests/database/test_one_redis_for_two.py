"""Two installations on one Redis, with separate database numbers: neither receives or sees anything of the other."""

import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest
from celery import Celery
from redis import Redis
from sqlalchemy.engine import make_url

from harness.wait import within
from lockbox.schedule import CLOCK, IndexEntry, Schedule
from lockbox.sql import new_id
from worker.transport import register

SOON = timedelta(seconds=60)
NOT_RUNG = 0.3


@pytest.fixture
def other_url(redis_url: str) -> str:
    return make_url(redis_url).set(database="1").render_as_string(hide_password=False)


@pytest.fixture
def other(other_url: str) -> Iterator[Schedule]:
    with closing(Schedule(other_url)) as opened:
        yield opened


def _arm(schedule: Schedule) -> str:
    entry = IndexEntry(str(new_id()), "expire", SOON)
    assert schedule.arm(CLOCK, [entry])
    return entry.id


def test_a_poller_receives_wake_ups_only_from_its_own_redis_database(schedule: Schedule, other: Schedule) -> None:
    with schedule.bell(CLOCK) as bell:
        bell.listen()
        began = time.monotonic()
        _arm(other)
        bell.wait(NOT_RUNG)
        slept = time.monotonic() - began
        _arm(schedule)
        bell.wait(60)

    assert slept > NOT_RUNG - 0.05
    assert time.monotonic() - began < 30


@pytest.mark.far
def test_a_listener_receives_live_messages_only_from_its_own_redis_database(
    schedule: Schedule, other: Schedule
) -> None:
    heard, turns = list[frozenset[str]](), list[bool]()
    listener = schedule.listener(lambda ids, _: heard.append(ids), turns.append)
    listener.start()
    try:
        assert within(10, lambda: turns == [True])
        other.tell(["strange"])
        other.tell(["strange"], "customer")
        _arm(other)
        armed = _arm(schedule)
        schedule.tell(["ours"], "customer")

        assert within(10, lambda: len(heard) == 2)
    finally:
        listener.stop()

    assert heard == [{armed}, {"ours"}]
    assert schedule.members(CLOCK).keys() == {f"expire:{armed}"}


def test_a_broadcast_to_workers_stays_within_one_redis_database(redis: "Redis", other_url: str) -> None:
    register()
    pubsub = redis.pubsub()  # type: ignore[no-untyped-call]
    with closing(pubsub), Celery("other", broker=other_url, set_as_current=False) as app:
        pubsub.psubscribe("*")
        assert pubsub.get_message(timeout=5)

        app.control.broadcast("ping")
        message = pubsub.get_message(timeout=5)

    assert message
    assert message["channel"] == b"/1.celery.pidbox"
