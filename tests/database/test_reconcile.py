"""Repairing the schedule from Postgres: whatever Redis lost, one round makes both indexes true again."""

import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from uuid import UUID

import pytest
from redis import Redis
from sqlalchemy import Engine, text

from lockbox.database import Database
from lockbox.notices import delivery
from lockbox.reconcile import LOCK_NUMBER, reconcile
from lockbox.requests import clock
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy import Policy
from lockbox.schedule import CLOCK, NOTICES, Index, Promise, Schedule
from tests.builders import Urls, World
from tests.database.postbag import Postbag, open_notices
from tests.database.scenes import (
    assert_indexes_are_true,
    at_once,
    many,
    promised_clocks,
    promised_notices,
    read,
    set_back,
    state_of,
    trail,
    write,
)

BULK = 4500


@pytest.fixture
def redis(urls: Urls) -> Iterator["Redis"]:
    """A client of the Redis under test."""
    with Redis.from_url(urls.redis) as client:
        yield client


@pytest.fixture
def soon(api: Database) -> World:
    """A tenant whose deadlines all lie within a minute."""
    return World.make(api, Policy(vendor_review=False, approval_window=50))


def _some_of_each(world: World) -> list[UUID]:
    """File requests that wait, are open and are closed."""
    requests = many(world, 6)
    for one in requests[:4]:
        world.act("ann", Action.APPROVE, one, access_window=40)
    world.act("tara", Action.REVOKE, requests[0])
    world.act("erin", Action.CANCEL, requests[5])
    return requests


def test_a_schedule_that_nothing_happened_to_stays_as_it_is(soon: World, worker: Database) -> None:
    _some_of_each(soon)
    list(reconcile(worker, None))
    before = worker.schedule.members(CLOCK), worker.schedule.members(NOTICES)

    list(reconcile(worker, None))

    assert (worker.schedule.members(CLOCK), worker.schedule.members(NOTICES)) == before
    assert_indexes_are_true(worker)


def test_after_flushall_one_round_makes_both_indexes_true(world: World, worker: Database, redis: "Redis") -> None:
    _some_of_each(world)
    redis.flushall()
    whole_before = worker.schedule.claim(CLOCK).whole

    list(reconcile(worker, None))

    assert not whole_before
    assert_indexes_are_true(worker)
    assert worker.schedule.is_whole(CLOCK)
    assert worker.schedule.is_whole(NOTICES)
    assert worker.schedule.claim(CLOCK).whole


@pytest.mark.parametrize("index", [CLOCK, NOTICES], ids=["clock", "notices"])
def test_after_one_index_was_deleted_one_round_makes_it_true(
    world: World, worker: Database, redis: "Redis", index: Index
) -> None:
    _some_of_each(world)
    list(reconcile(worker, None))
    redis.delete(index.keys[0])

    list(reconcile(worker, None))

    assert_indexes_are_true(worker)
    assert worker.schedule.is_whole(index)


def test_after_the_leases_of_the_clock_were_deleted_one_round_offers_their_requests_again(
    world: World, worker: Database, root: Engine, redis: "Redis"
) -> None:
    requests = many(world, 3)
    list(reconcile(worker, None))
    set_back(root, requests, 0)
    worker.schedule.arm(CLOCK, [_truth(worker, one) for one in requests])
    claimed = worker.schedule.claim(CLOCK).ids
    redis.delete(CLOCK.keys[1])

    list(reconcile(worker, None))

    assert set(claimed["time_out"]) == {str(one) for one in requests}
    assert worker.schedule.members(CLOCK) == promised_clocks(worker)


def test_after_the_leases_of_the_notices_were_deleted_one_round_offers_them_again(
    world: World, worker: Database, redis: "Redis"
) -> None:
    _some_of_each(world)
    list(reconcile(worker, None))
    claimed = worker.schedule.claim(NOTICES).ids
    redis.delete(NOTICES.keys[1])

    list(reconcile(worker, None))

    assert len(claimed["notify"]) > 10
    assert_indexes_are_true(worker)


def test_what_is_out_on_lease_is_left_to_who_has_it(world: World, worker: Database) -> None:
    _some_of_each(world)
    list(reconcile(worker, None))
    worker.schedule.claim(NOTICES)

    list(reconcile(worker, None))

    assert worker.schedule.members(NOTICES) == {}


def test_a_single_lost_member_that_is_due_within_a_minute_is_armed_again(
    soon: World, worker: Database, redis: "Redis"
) -> None:
    waiting, *_ = many(soon, 3)
    list(reconcile(worker, None))
    assert redis.zrem(CLOCK.keys[0], f"time_out:{waiting}") == 1
    assert redis.zremrangebyrank(NOTICES.keys[0], 0, 0) == 1

    list(reconcile(worker, None))

    assert_indexes_are_true(worker)


def test_a_large_index_is_rebuilt_in_pages(world: World, worker: Database, root: Engine, redis: "Redis") -> None:
    world.submit()
    write(
        root,
        """
        INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification,
            mode, quorum, approval_window, access_window, state, version, deadline_at, wake_at, created_at, asked_at)
        SELECT uuidv7(), tenant_id, requester_id, service, resources, actions, reason_code, justification, mode,
            quorum, approval_window, access_window, state, version, deadline_at + n * interval '1 second',
            wake_at + n * interval '1 second', created_at, asked_at
        FROM requests, generate_series(1, :number) n
        """,
        number=BULK,
    )
    redis.flushall()

    steps = list(reconcile(worker, None))

    assert len([step for step in steps if step.startswith("rebuilt clock")]) == 3
    assert len(worker.schedule.members(CLOCK)) == BULK + 1
    assert_indexes_are_true(worker)


def test_what_is_overdue_by_more_than_three_seconds_is_done_at_once(
    world: World, worker: Database, root: Engine
) -> None:
    waiting, opened, recent = many(world, 3)
    world.act("ann", Action.APPROVE, opened)
    set_back(root, [waiting, opened], 4)
    set_back(root, [recent], 0)

    steps = list(reconcile(worker, None))

    assert steps[0] == "clock 2"
    assert [state_of(worker, one) for one in (waiting, opened, recent)] == ["timed_out", "expired", "pending"]


def test_with_redis_away_what_is_overdue_is_done_all_the_same(
    world: World, worker: Database, root: Engine, away_url: str
) -> None:
    request = world.submit()
    set_back(root, [request.id], 4)
    worker.schedule.close()
    worker.schedule = Schedule(away_url)

    steps = list(reconcile(worker, None))

    assert state_of(worker, request.id) == "timed_out"
    assert steps == ["clock 1", "keys"]


def test_an_overdue_request_that_somebody_holds_waits_for_the_next_round(
    world: World, worker: Database, root: Engine
) -> None:
    held, free = many(world, 2)
    set_back(root, [held, free], 4)

    with root.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM requests WHERE id = :id FOR UPDATE"), {"id": held})
        list(reconcile(worker, None))
        states = state_of(worker, held), state_of(worker, free)
        holder.rollback()
    list(reconcile(worker, None))

    assert states == ("pending", "timed_out")
    assert state_of(worker, held) == "timed_out"


def test_only_one_reconciles_at_a_time(world: World, worker: Database, root: Engine) -> None:
    request = world.submit()
    set_back(root, [request.id], 4)

    with root.connect() as other:
        other.execute(text("SELECT pg_advisory_lock(:number)"), {"number": LOCK_NUMBER})
        meanwhile = list(reconcile(worker, None))

    assert meanwhile == []
    assert "keys" in list(reconcile(worker, None))
    assert state_of(worker, request.id) == "timed_out"


def test_a_round_that_is_left_half_way_lets_the_next_one_in(world: World, worker: Database, root: Engine) -> None:
    set_back(root, [world.submit().id], 4)
    steps = reconcile(worker, None)
    assert isinstance(steps, Generator)
    assert next(steps) == "clock 1"
    assert list(reconcile(worker, None)) == []

    steps.close()

    assert "keys" in list(reconcile(worker, None))


def test_many_who_reconcile_at_once_do_each_thing_once(world: World, worker: Database, root: Engine) -> None:
    requests = many(world, 30)
    set_back(root, requests, 4)

    with ThreadPoolExecutor(4) as pool:
        at_once(pool, *[lambda: list(reconcile(worker, None))] * 3, partial(clock.run, worker, requests))
    list(reconcile(worker, None))

    assert all(len(trail(worker, one)) == 2 for one in requests)


def test_notices_that_nobody_has_taken_are_handed_to_the_sender(
    world: World, worker: Database, root: Engine, redis: "Redis"
) -> None:
    post = Postbag()
    world.submit()
    notices = open_notices(worker)
    write(root, "UPDATE notices SET run_at = run_at - interval '4 seconds' WHERE id <> :last", last=notices[-1])
    write(root, "UPDATE notices SET run_at = now() WHERE id = :last", last=notices[-1])
    handed: list[UUID] = []
    redis.flushall()

    list(reconcile(worker, handed.extend))
    delivery.deliver(worker, handed, post.senders)

    assert set(notices[:-1]) <= set(handed)
    assert len(post.mail.sent) == len(set(handed))
    assert worker.schedule.members(NOTICES).keys() == promised_notices(worker).keys()


def test_notices_are_left_to_those_who_send(world: World, worker: Database, root: Engine) -> None:
    world.submit()
    write(root, "UPDATE notices SET run_at = run_at - interval '1 minute'")

    steps = list(reconcile(worker, None))

    assert not [step for step in steps if step.startswith("notices")]
    assert len(open_notices(worker)) == 3


def test_idempotency_keys_are_forgotten_after_a_day(world: World, worker: Database, root: Engine) -> None:
    for key, age in (("old", "24 hours 1 second"), ("young", "23 hours 59 minutes")):
        write(
            root,
            "INSERT INTO idempotency_keys (person_id, key, body_hash, answer, created_at) "
            "VALUES (:person, :key, '', '{}', now() - CAST(:age AS interval))",
            person=world.people["erin"].person_id,
            key=key,
            age=age,
        )

    list(reconcile(worker, None))

    assert [row.key for row in read(worker, "SELECT key FROM idempotency_keys")] == ["young"]


def test_moves_that_go_on_during_a_rebuild_are_in_the_index_after_it(
    world: World, worker: Database, redis: "Redis"
) -> None:
    requests = many(world, 20)
    redis.flushall()
    over = threading.Event()

    def approve_all() -> None:
        for one in requests:
            world.act("ann", Action.APPROVE, one)
        over.set()

    with ThreadPoolExecutor(1) as pool:
        approving = pool.submit(approve_all)
        while not over.is_set():
            redis.delete(CLOCK.keys[0])
            list(reconcile(worker, None))
        approving.result()
    list(reconcile(worker, None))

    assert_indexes_are_true(worker)


def _truth(house: Database, request_id: UUID) -> Promise:
    (row,) = read(house, "SELECT wake_at FROM requests WHERE id = :id", id=request_id)
    return Promise(str(request_id), "time_out", row.wake_at)
