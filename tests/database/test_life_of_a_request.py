"""A request from submit to its end, on a real database."""

from datetime import timedelta

import pytest

from harness.clocks import ShiftedClock
from harness.people import World
from harness.stage import Urls
from lockbox.database import Database, make_engine
from lockbox.errors import TooLate
from lockbox.facts.enumerations import State
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from tests.database.scenes import read


def test_an_approved_request_opens_and_expires_by_the_clock(world: World, worker: Database) -> None:
    request = world.submit(access_window=60)
    opened = world.act("ann", Action.APPROVE, request.id)
    late = ShiftedClock()
    late.shift = timedelta(seconds=61)
    worker.clock = late

    moved = timers.run(worker, [request.id]).total()

    assert opened.state is State.ACTIVE
    assert moved == 1
    rows = read(world.db, "SELECT seq, to_state FROM events ORDER BY seq")
    assert [tuple(row) for row in rows] == [(1, "pending"), (2, "active"), (3, "expired")]


def test_an_approval_at_the_deadline_is_refused(world: World, urls: Urls) -> None:
    request = world.submit()
    at_the_end = ShiftedClock()
    at_the_end.shift = timedelta(hours=12)
    db = Database(make_engine(urls.api, role="late"), world.db.schedule, clock=at_the_end)

    with pytest.raises(TooLate):
        world.act("ann", Action.APPROVE, request.id, db)

    db.engine.dispose()
