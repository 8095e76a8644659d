"""Repairing the schedule from Postgres: whatever Redis lost, one round makes both indexes correct again."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import Engine

from harness.people import World
from harness.stage import Urls
from lockbox.database import Database
from lockbox.reconcile import PAGE, reconcile
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import CLOCK, NOTIFICATIONS, IndexEntry, ScheduleIndex
from tests.database.scenes import (
    assert_indexes_are_true,
    many,
    promised_clocks,
    promised_notifications,
    read,
    set_back,
    state_of,
    write,
)

BULK = 4500
OVERDUE = 4
SET_BACK_NOTIFICATIONS = """
WITH promised AS (UPDATE notifications SET run_at = clock_timestamp() - make_interval(secs => :seconds))
UPDATE outbox SET at = clock_timestamp() - make_interval(secs => :seconds)
"""


@pytest.fixture
def redis(urls: Urls) -> Iterator["Redis"]:
    with Redis.from_url(urls.redis) as client:
        yield client


@pytest.fixture
def soon(api: Database) -> World:
    """A tenant whose deadlines all lie within a minute."""
    return World.make(api, Policy(vendor_review=False, approval_window=50))


def _some_of_each(world: World) -> list[UUID]:
    """Submit requests that become pending, open and closed."""
    requests = many(world, 6)
    for request in requests[:4]:
        world.act("ann", Action.APPROVE, request, access_window=40)
    world.act("tara", Action.REVOKE, requests[0])
    world.act("erin", Action.CANCEL, requests[5])
    return requests


def test_reconciling_leaves_an_intact_schedule_unchanged(soon: World, worker: Database) -> None:
    _some_of_each(soon)
    list(reconcile(worker, None))
    before = worker.schedule.members(CLOCK), worker.schedule.members(NOTIFICATIONS)

    list(reconcile(worker, None))

    assert (worker.schedule.members(CLOCK), worker.schedule.members(NOTIFICATIONS)) == before
    assert_indexes_are_true(worker)


def test_after_a_redis_flush_one_reconciling_round_restores_both_indexes(
    world: World, worker: Database, redis: "Redis"
) -> None:
    _some_of_each(world)
    redis.flushdb()
    whole_before = worker.schedule.claim(CLOCK).whole

    list(reconcile(worker, None))

    assert not whole_before
    assert_indexes_are_true(worker)
    assert worker.schedule.rebuild(CLOCK).is_whole()
    assert worker.schedule.rebuild(NOTIFICATIONS).is_whole()
    assert worker.schedule.claim(CLOCK).whole


@pytest.mark.far
@pytest.mark.parametrize("index", [CLOCK, NOTIFICATIONS], ids=lambda one: one.name)
def test_index_entries_lost_during_a_rebuild_are_restored_in_the_next_round(
    world: World, worker: Database, redis: "Redis", index: ScheduleIndex
) -> None:
    _some_of_each(world)
    redis.flushdb()
    for name, _ in reconcile(worker, None):
        if name == f"rebuilt_{index.name}":
            redis.flushdb()
    assert not worker.schedule.rebuild(index).is_whole()

    list(reconcile(worker, None))

    assert worker.schedule.rebuild(index).is_whole()
    assert_indexes_are_true(worker)


def test_requests_whose_leases_were_lost_are_handled_when_overdue(
    world: World, worker: Database, superuser: Engine, redis: "Redis"
) -> None:
    requests = many(world, 3)
    list(reconcile(worker, None))
    set_back(superuser, requests, OVERDUE)
    worker.schedule.arm(CLOCK, [_truth(worker, request) for request in requests])
    claimed = worker.schedule.claim(CLOCK).ids
    redis.delete(CLOCK.keys[1])

    list(reconcile(worker, None))

    assert set(claimed["time_out"]) == {str(request) for request in requests}
    assert {state_of(worker, request) for request in requests} == {"timed_out"}
    assert worker.schedule.members(CLOCK) == promised_clocks(worker)


@pytest.mark.far
def test_reconciling_leaves_leased_entries_unchanged(world: World, worker: Database) -> None:
    _some_of_each(world)
    list(reconcile(worker, None))
    worker.schedule.claim(NOTIFICATIONS)

    list(reconcile(worker, None))

    assert worker.schedule.members(NOTIFICATIONS) == {}


def test_a_lost_index_entry_due_within_a_minute_is_scheduled_again(
    soon: World, worker: Database, superuser: Engine, redis: "Redis"
) -> None:
    waiting, *_ = many(soon, 3)
    write(superuser, SET_BACK_NOTIFICATIONS, seconds=-30)
    redis.flushdb()
    list(reconcile(worker, None))
    assert redis.zrem(CLOCK.keys[0], f"remind:{waiting}") == 1
    assert redis.zremrangebyrank(NOTIFICATIONS.keys[0], 0, 0) == 1

    list(reconcile(worker, None))

    assert_indexes_are_true(worker)


def test_a_lost_overdue_notification_is_handed_to_the_sender(
    world: World, worker: Database, superuser: Engine, redis: "Redis"
) -> None:
    world.submit()
    list(reconcile(worker, None))
    write(superuser, SET_BACK_NOTIFICATIONS, seconds=OVERDUE)
    redis.zremrangebyrank(NOTIFICATIONS.keys[0], 0, 0)
    handed: list[UUID] = []

    list(reconcile(worker, handed.extend))

    assert {f"notify:{one}" for one in handed} == promised_notifications(worker).keys()


@pytest.mark.far
def test_a_large_index_is_rebuilt_page_by_page(
    world: World, worker: Database, superuser: Engine, redis: "Redis"
) -> None:
    world.submit()
    write(
        superuser,
        """
        WITH copied AS (
        INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification,
            mode, policy_version, quorum, approval_window, access_window, state, version, deadline_at, wake_at,
            created_at, asked_at)
        SELECT uuidv7(), tenant_id, requester_id, service, resources, actions, reason_code, justification,
            mode, policy_version, quorum, approval_window, access_window, state, version,
            deadline_at + n * interval '1 second', wake_at + n * interval '1 second', created_at, asked_at
        FROM requests, generate_series(1, :number) n RETURNING id, tenant_id, requester_id)
        INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_id, actor_role, to_state, body)
        SELECT uuidv7(), tenant_id, id, 1, now(), 'submit', requester_id, 'engineer', 'pending', '' FROM copied
        """,
        number=BULK,
    )
    redis.flushdb()

    steps = list(reconcile(worker, None))

    assert [count for name, count in steps if name == "rebuilt_clock"] == [PAGE, PAGE, BULK + 1 - 2 * PAGE]
    assert len(worker.schedule.members(CLOCK)) == BULK + 1
    assert_indexes_are_true(worker)


@pytest.mark.far
def test_moves_made_during_an_index_rebuild_are_in_the_index_afterwards(
    world: World, worker: Database, redis: "Redis"
) -> None:
    requests = many(world, 20)
    redis.flushdb()
    over = threading.Event()

    def approve_all() -> None:
        for request in requests:
            world.act("ann", Action.APPROVE, request)
        over.set()

    with ThreadPoolExecutor(1) as pool:
        approving = pool.submit(approve_all)
        while not over.is_set():
            redis.delete(CLOCK.keys[0])
            list(reconcile(worker, None))
        approving.result()
    list(reconcile(worker, None))

    assert_indexes_are_true(worker)


def _truth(db: Database, request_id: UUID) -> IndexEntry:
    (row,) = read(db, "SELECT wake_at FROM requests WHERE id = :id", id=request_id)
    return IndexEntry(str(request_id), "time_out", row.wake_at)
