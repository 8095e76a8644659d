"""Work that is seconds overdue is done straight from Postgres, by one process at a time, with or without Redis."""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from harness.people import World
from harness.stage import Urls, as_sender
from lockbox.database import Database
from lockbox.notifications import delivery
from lockbox.reconcile import TURN, reconcile
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.schedule import NOTIFICATIONS, Schedule
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import (
    at_once,
    many,
    moves_of,
    promised_notifications,
    read,
    set_back,
    state_of,
    write,
)


@pytest.fixture
def redis(urls: Urls) -> Iterator["Redis"]:
    with Redis.from_url(urls.redis) as client:
        yield client


def test_deadlines_overdue_by_three_seconds_are_handled_at_once(
    world: World, worker: Database, superuser: Engine
) -> None:
    waiting, opened, recent = many(world, 3)
    world.act("ann", Action.APPROVE, opened)
    set_back(superuser, [waiting, opened], 4)
    set_back(superuser, [recent], 0)

    steps = list(reconcile(worker, None))

    assert steps[0] == ("overdue", 2)
    assert [state_of(worker, one) for one in (waiting, opened, recent)] == ["timed_out", "expired", "pending"]


@pytest.mark.far
def test_overdue_deadlines_are_handled_without_redis(
    world: World, worker: Database, superuser: Engine, away_url: str
) -> None:
    request = world.submit()
    set_back(superuser, [request.id], 4)
    worker.schedule.close()
    worker.schedule = Schedule(away_url)

    steps = list(reconcile(worker, None))

    assert state_of(worker, request.id) == "timed_out"
    assert steps == [("overdue", 1), ("forgotten", 0)]


def test_a_locked_overdue_request_waits_for_the_next_reconciling_round(
    world: World, worker: Database, superuser: Engine
) -> None:
    held, free = many(world, 2)
    set_back(superuser, [held, free], 4)

    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM requests WHERE id = :id FOR UPDATE"), {"id": held})
        list(reconcile(worker, None))
        states = state_of(worker, held), state_of(worker, free)
        holder.rollback()
    list(reconcile(worker, None))

    assert states == ("pending", "timed_out")
    assert state_of(worker, held) == "timed_out"


def test_only_one_process_reconciles_at_a_time(world: World, worker: Database, superuser: Engine) -> None:
    request = world.submit()
    set_back(superuser, [request.id], 4)

    with worker.turn(TURN):
        meanwhile = list(reconcile(worker, None))

    assert meanwhile == []
    assert ("forgotten", 0) in list(reconcile(worker, None))
    assert state_of(worker, request.id) == "timed_out"


def test_after_an_aborted_reconciling_round_the_next_round_runs(
    world: World, worker: Database, superuser: Engine
) -> None:
    set_back(superuser, [world.submit().id], 4)
    steps = reconcile(worker, None)
    assert isinstance(steps, Generator)
    assert next(steps) == ("overdue", 1)
    assert list(reconcile(worker, None)) == []

    steps.close()

    assert ("forgotten", 0) in list(reconcile(worker, None))


@pytest.mark.far
def test_concurrent_reconciling_handles_each_overdue_item_once(
    world: World, worker: Database, superuser: Engine
) -> None:
    requests = many(world, 30)
    set_back(superuser, requests, 4)

    with ThreadPoolExecutor(4) as pool:
        at_once(pool, *[lambda: list(reconcile(worker, None))] * 3, partial(timers.run, worker, requests))
    list(reconcile(worker, None))

    assert all(len(moves_of(worker, request)) == 2 for request in requests)


def test_reconciling_with_a_sender_hands_over_overdue_notifications_that_no_one_claimed(
    world: World, worker: Database, superuser: Engine, redis: "Redis"
) -> None:
    post = Postbag()
    world.submit()
    notifications = open_notifications(worker)
    write(
        superuser,
        "UPDATE notifications SET run_at = run_at - interval '4 seconds' WHERE id <> :last",
        last=notifications[-1],
    )
    write(superuser, "UPDATE notifications SET run_at = now() WHERE id = :last", last=notifications[-1])
    handed: list[UUID] = []
    redis.flushdb()

    list(reconcile(worker, handed.extend))
    delivery.deliver(as_sender(worker), handed, post.senders)

    assert set(notifications[:-1]) <= set(handed)
    assert len(post.mail.sent) == len(set(handed))
    assert worker.schedule.members(NOTIFICATIONS).keys() == promised_notifications(worker).keys()


def test_reconciling_without_a_sender_leaves_overdue_notifications_unchanged(
    world: World, worker: Database, superuser: Engine
) -> None:
    world.submit()
    write(superuser, "UPDATE notifications SET run_at = run_at - interval '1 minute'")

    steps = list(reconcile(worker, None))

    assert "overdue" not in dict(steps)
    assert len(open_notifications(worker)) == 3


def test_idempotency_keys_are_deleted_after_a_day(world: World, worker: Database, superuser: Engine) -> None:
    for key, age in (("old", "24 hours 1 second"), ("young", "23 hours 59 minutes")):
        write(
            superuser,
            "INSERT INTO idempotency_keys (person_id, key, body_hash, answer, created_at) "
            "VALUES (:person, :key, '', '{}', now() - CAST(:age AS interval))",
            person=world.people["erin"].person_id,
            key=key,
            age=age,
        )

    list(reconcile(worker, None))

    assert [row.key for row in read(worker, "SELECT key FROM idempotency_keys")] == ["young"]
