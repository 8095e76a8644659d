"""A Redis that was killed and came back, with its data or without: nothing is lost, nothing is trusted blindly."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from redis import Redis
from sqlalchemy import Engine

from config.embedded import ServerAddresses
from harness.people import World
from harness.stage import own_servers
from lockbox.database import Database
from lockbox.facts.enumerations import State
from lockbox.reconcile import act_on_overdue, reconcile
from lockbox.redis_scripts import RedisUnavailable
from lockbox.requests.lifecycle import Action
from lockbox.schedule import CLOCK, INDEXES, NOTIFICATIONS, Schedule
from tests.database.scenes import assert_indexes_are_true, many, set_back, state_of

ONLY = ("redis",)


@pytest.fixture(scope="module")
def own() -> Iterator[ServerAddresses]:
    """A Valkey that these tests may kill."""
    with own_servers("redis", ONLY) as running:
        yield running


@pytest.fixture
def dbs(api: Database, worker: Database, own: ServerAddresses) -> tuple[World, Database]:
    """A world and a worker whose schedule is on that Valkey."""
    with Redis.from_url(own.redis_url) as client:
        client.flushall()
    for db in (api, worker):
        db.schedule.close()
        db.schedule = Schedule(own.redis_url)
    world = World.make(api)
    many(world, 5)
    list(reconcile(worker, None))
    assert_indexes_are_true(worker)
    return world, worker


@pytest.mark.far
@pytest.mark.parametrize("empty", [True, False], ids=["without its data", "with its data"])
def test_after_a_restart_one_round_makes_both_indexes_true(
    dbs: tuple[World, Database], own: ServerAddresses, *, empty: bool
) -> None:
    world, worker = dbs

    own.kill("redis")
    request = world.submit()
    own.start_again("redis", empty=empty)
    trusted = [worker.schedule.rebuild(index).is_whole() for index in INDEXES]
    list(reconcile(worker, None))

    assert trusted == [False] * 3
    assert_indexes_are_true(worker)
    assert f"remind:{request.id}" in worker.schedule.members(CLOCK)
    assert [worker.schedule.rebuild(index).is_whole() for index in INDEXES] == [True] * 3


@pytest.mark.far
def test_while_it_is_down_decisions_are_taken_and_deadlines_are_met(
    dbs: tuple[World, Database], own: ServerAddresses, superuser: Engine
) -> None:
    world, worker = dbs
    own.kill("redis")

    unanswered, approved = world.submit(), world.submit()
    opened = world.act("ann", Action.APPROVE, approved.id)
    set_back(superuser, [unanswered.id], 0)
    steps = list(act_on_overdue(worker, None, grace=timedelta(0)))
    with pytest.raises(RedisUnavailable):
        worker.schedule.claim(NOTIFICATIONS)
    own.start_again("redis")

    assert opened.state is State.ACTIVE
    assert steps[0] == ("overdue", 1)
    assert state_of(worker, unanswered.id) == "timed_out"
