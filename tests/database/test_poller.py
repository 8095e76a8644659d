"""The pollers with a real broker: how many messages they send for entries that fall due one after the other."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from celery import Celery
from kombu import Queue
from kombu.transport.redis import Channel
from redis import Redis
from sqlalchemy import Engine

from harness.people import World
from harness.stage import Urls
from harness.wait import wait_for, within
from lockbox.database import Database
from lockbox.schedule import BEFORE_OTHERS, CLOCK, CONNECTIONS, NOTIFICATIONS, IndexEntry, ScheduleIndex
from lockbox.sql import new_id
from tests.database.scenes import set_back, state_of
from worker import poller
from worker.messages import LATER
from worker.poller import POLLED, Poller
from worker.runtime import Runtime

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
SOON = 30.0
KINDS = {CLOCK: "expire", NOTIFICATIONS: "notify", CONNECTIONS: "connect"}

LATER_LIST = f"notify{Channel.sep}{LATER}"
Polling = Callable[[ScheduleIndex], None]


@pytest.fixture
def urls(urls: Urls, own_valkey: str) -> Urls:
    """The same database, with a Redis whose settings a test may change."""
    with Redis.from_url(own_valkey) as redis:
        redis.flushdb()
    return replace(urls, redis=own_valkey)


@pytest.fixture
def polling(worker: Database, urls: Urls) -> Iterator[Polling]:
    tools = Runtime(worker, None, timedelta(days=90), None)
    with ExitStack() as ends, Celery("polled", broker=urls.redis, set_as_current=False) as app:
        app.conf.task_queues = [Queue(one.queue) for one in POLLED.values()]
        app.conf.task_routes = {f"lockbox.{KINDS[index]}": {"queue": one.queue} for index, one in POLLED.items()}
        app.finalize()

        def start(index: ScheduleIndex) -> None:
            started = Poller(index, app, tools, lambda: None)
            started.start()
            ends.callback(started.join, 5)
            ends.callback(started.stop)

        yield start


@pytest.fixture
def broker(urls: Urls) -> Iterator["Redis"]:
    with Redis.from_url(urls.redis) as found:
        yield found


def _arm_one_by_one(worker: Database, index: ScheduleIndex, count: int) -> None:
    for _ in range(count):
        worker.schedule.arm(index, [IndexEntry(str(new_id()), KINDS[index], LONG_AGO)])
        time.sleep(0.01)


def _fill(worker: Database, broker: "Redis", index: ScheduleIndex, messages: str) -> None:
    """Arm entries one by one, until as many messages wait as the poller lets wait."""

    def is_full() -> bool:
        _arm_one_by_one(worker, index, 1)
        return int(broker.llen(messages)) >= POLLED[index].most_waiting

    wait_for("enough messages wait", is_full, SOON, 0.0)


@pytest.mark.far
def test_unclaimed_deadlines_are_gathered_and_sent_together(
    worker: Database, broker: "Redis", polling: Polling, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slowly they are armed here, none is claimed for having waited.
    monkeypatch.setattr(poller, "LONGEST_FULL", 600)
    polling(CLOCK)

    _fill(worker, broker, CLOCK, "core")
    _arm_one_by_one(worker, CLOCK, 30)

    messages, waiting = int(broker.llen("core")), len(worker.schedule.members(CLOCK))
    assert messages == POLLED[CLOCK].most_waiting
    assert waiting >= 30

    broker.delete("core")

    assert within(SOON, lambda: worker.schedule.members(CLOCK) == {})
    assert within(SOON, lambda: broker.llen("core") == 1)


@pytest.mark.far
def test_consecutive_notifications_are_sent_to_workers_together(
    worker: Database, broker: "Redis", polling: Polling
) -> None:
    polling(NOTIFICATIONS)
    began = time.monotonic()

    _arm_one_by_one(worker, NOTIFICATIONS, 60)

    assert within(SOON, lambda: worker.schedule.members(NOTIFICATIONS) == {})
    most = (time.monotonic() - began) / POLLED[NOTIFICATIONS].gather_seconds + 1
    assert within(SOON, lambda: 1 <= broker.llen(LATER_LIST) <= most)


@pytest.mark.far
def test_urgent_notifications_are_sent_first_despite_waiting_messages(
    worker: Database, broker: "Redis", polling: Polling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "LONGEST_FULL", 600)
    monkeypatch.setitem(poller.POLLED, NOTIFICATIONS, replace(POLLED[NOTIFICATIONS], gather_seconds=0.0))
    polling(NOTIFICATIONS)
    _fill(worker, broker, NOTIFICATIONS, LATER_LIST)
    _arm_one_by_one(worker, NOTIFICATIONS, 20)
    waiting = worker.schedule.members(NOTIFICATIONS)

    worker.schedule.arm(NOTIFICATIONS, [IndexEntry(str(new_id()), "notify", LONG_AGO - BEFORE_OTHERS)])

    assert len(waiting) >= 20
    assert within(SOON, lambda: broker.llen("notify") == 1)
    assert broker.llen(LATER_LIST) >= POLLED[NOTIFICATIONS].most_waiting
    assert worker.schedule.members(NOTIFICATIONS).keys() >= waiting.keys()


@pytest.fixture(params=["replica", "full"])
def refusing(
    request: pytest.FixtureRequest, worker: Database, superuser: Engine, broker: "Redis"
) -> Iterator[Callable[[Sequence[UUID]], None]]:
    """Yield a function that lets requests fall due in a second, and lets Redis refuse writes until the test ends."""

    def refuse(ids: Sequence[UUID]) -> None:
        worker.schedule.arm(CLOCK, [IndexEntry(str(one), "time_out", timedelta(seconds=1)) for one in ids])
        set_back(superuser, ids, -1)
        if request.param == "replica":
            broker.replicaof("127.0.0.1", "1")
        else:
            broker.config_set("maxmemory", 1)

    yield refuse
    broker.replicaof("NO", "ONE")
    broker.config_set("maxmemory", 0)


@pytest.mark.far
@pytest.mark.parametrize("is_full", [False, True])
def test_a_read_only_redis_does_not_stop_the_poller(
    world: World, broker: "Redis", refusing: Callable[[Sequence[UUID]], None], polling: Polling, *, is_full: bool
) -> None:
    db, request = world.db, world.submit()
    polling(CLOCK)
    if is_full:
        _fill(db, broker, CLOCK, "core")

    refusing([request.id])

    assert within(SOON, lambda: state_of(db, request.id) == "timed_out")
