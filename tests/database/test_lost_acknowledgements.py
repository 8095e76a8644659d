"""A commit that stands though its acknowledgement was lost: doing it again does nothing twice."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy.exc import OperationalError

from harness.clocks import ShiftedClock
from harness.network import serving
from harness.people import World
from harness.stage import Urls
from lockbox.database import Database, make_engine
from lockbox.errors import InvalidMove
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.schedule import CLOCK, NOTIFICATIONS
from tests.database.relay import CommitLosingProxy
from tests.database.scenes import moves_of, read, state_of


@pytest.fixture
def worker_relay(urls: Urls) -> Iterator[CommitLosingProxy]:
    """The way of a worker to Postgres."""
    with serving(CommitLosingProxy(urls.worker)) as relay:
        yield relay


@pytest.fixture
def api_relay(urls: Urls) -> Iterator[CommitLosingProxy]:
    """The way of the API to Postgres."""
    with serving(CommitLosingProxy(urls.api)) as relay:
        yield relay


def test_a_clock_that_never_heard_of_its_own_commit_runs_again_without_harm(
    world: World, worker_relay: CommitLosingProxy, later: ShiftedClock
) -> None:
    request = world.submit()
    later.shift = timedelta(hours=13)
    worker = Database(make_engine(worker_relay.url, role="relayed"), world.db.schedule, clock=later)

    worker_relay.losing = True
    with pytest.raises(OperationalError):
        timers.run(worker, [request.id])
    worker_relay.losing = False
    held = worker.schedule.members(CLOCK)
    moved = timers.run(worker, [request.id]).total()

    worker.engine.dispose()
    assert worker_relay.lost == 1
    assert held.keys() == {f"remind:{request.id}"}
    assert moved == 0
    assert moves_of(world.db, request.id) == [(1, "submit", "pending"), (2, "time_out", "timed_out")]
    assert read(world.db, "SELECT count(*) AS n FROM notifications WHERE template = 'timed_out'")[0].n == 4
    assert world.db.schedule.members(CLOCK) == {}


def test_an_approver_who_never_heard_back_and_approves_again_is_told_that_it_is_open(
    world: World, api_relay: CommitLosingProxy
) -> None:
    request = world.submit()
    db = Database(make_engine(api_relay.url, role="relayed"), world.db.schedule)

    api_relay.losing = True
    with pytest.raises(OperationalError):
        world.act("ann", Action.APPROVE, request.id, db)
    api_relay.losing = False
    with pytest.raises(InvalidMove) as refused:
        world.act("ann", Action.APPROVE, request.id, db)

    db.engine.dispose()
    assert refused.value.facts["current_state"] == "active"
    assert state_of(world.db, request.id) == "active"
    assert [move for _, move, _ in moves_of(world.db, request.id)] == ["submit", "approve"]
    assert read(world.db, "SELECT count(*) AS n FROM decisions")[0].n == 1


def test_a_submit_whose_commit_was_not_acknowledged_stands_and_was_not_armed(
    world: World, api_relay: CommitLosingProxy
) -> None:
    db = Database(make_engine(api_relay.url, role="relayed"), world.db.schedule)

    api_relay.losing = True
    with pytest.raises(OperationalError):
        world.submit(db=db)

    db.engine.dispose()
    assert [row.state for row in read(world.db, "SELECT state FROM requests")] == ["pending"]
    assert world.db.schedule.members(CLOCK) == {}
    assert world.db.schedule.members(NOTIFICATIONS) == {}
