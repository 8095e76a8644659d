"""Deadlines are judged on the database's clock, after the lock is held, whether or not any worker is alive."""

import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from harness.clocks import ShiftedClock
from harness.people import World
from harness.stage import Urls
from lockbox.database import Database, make_engine, now
from lockbox.errors import Conflict, TooLate
from lockbox.facts.enumerations import State
from lockbox.requests import request_list
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from lockbox.requests.request_entry import RequestEntry
from tests.database.scenes import door, many, moves_of, read, set_back, state_of

WAITING_FOR_LOCKS = """
SELECT count(*) AS number FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def _instant(db: Database) -> datetime:
    with db.transaction() as session:
        return now(session)


def test_an_answer_that_waits_for_the_lock_past_the_deadline_is_too_late(
    world: World, superuser: Engine, pool: ThreadPoolExecutor, later: ShiftedClock
) -> None:
    first, second, third = many(world, 3)
    world.db.clock = later

    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM requests FOR UPDATE"))
        answers: list[Future[AccessRequest]] = [
            pool.submit(world.act, "ann", Action.APPROVE, first),
            pool.submit(world.act, "ann", Action.DENY, second),
            pool.submit(world.act, "erin", Action.CANCEL, third),
        ]
        while read(superuser, WAITING_FOR_LOCKS)[0].number < len(answers):
            time.sleep(0.01)
        later.shift = timedelta(hours=12)
        holder.rollback()

    for answer in answers:
        with pytest.raises(TooLate):
            answer.result()
    assert {state_of(world.db, one) for one in (first, second, third)} == {"pending"}
    assert not read(world.db, "SELECT FROM decisions")
    assert all(len(moves_of(world.db, one)) == 1 for one in (first, second, third))


def test_an_answer_that_waits_for_the_lock_but_not_past_the_deadline_is_taken(
    world: World, superuser: Engine, pool: ThreadPoolExecutor
) -> None:
    request = world.submit()

    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as holder:
        holder.execute(text("SELECT FROM requests FOR UPDATE"))
        answer = pool.submit(world.act, "ann", Action.APPROVE, request.id)
        while not read(superuser, WAITING_FOR_LOCKS)[0].number:
            time.sleep(0.01)
        released = _instant(world.db)
        holder.rollback()

    opened = answer.result()
    assert opened.state is State.ACTIVE
    assert opened.opened_at is not None
    assert opened.opened_at >= released


@pytest.mark.far
def test_a_window_is_never_open_past_its_deadline_though_no_worker_lives(world: World) -> None:
    world.submit(access_window=3)
    request = world.act("ann", Action.APPROVE, read(world.db, "SELECT id FROM requests")[0].id)
    answers, late = [], 0

    while late < 4:
        asked = _instant(world.db)
        answers.append((asked, door(world) is not None, _instant(world.db)))
        late += asked >= request.deadline_at
        time.sleep(0.05)

    assert all(is_open for _, is_open, answered in answers if answered < request.deadline_at)
    assert not any(is_open for asked, is_open, _ in answers if asked >= request.deadline_at)
    assert any(is_open for _, is_open, _ in answers)
    assert state_of(world.db, request.id) == "active"


def test_nobody_acts_on_a_window_that_is_over_though_no_worker_lives(world: World, superuser: Engine) -> None:
    requests = many(world, 3)
    for one in requests:
        world.act("ann", Action.APPROVE, one)
    set_back(superuser, requests, 0)

    for one, (who, action) in zip(
        requests, [("erin", Action.COMPLETE), ("tara", Action.REVOKE), ("max", Action.REVOKE)], strict=True
    ):
        with pytest.raises(TooLate):
            world.act(who, action, one)

    assert not [entry for entry in _entries(world) if entry.open]


def test_each_clock_starts_when_its_state_begins(api: Database) -> None:
    quiet = Policy(review_reminders=(), approval_reminders=())
    windows = {"review_window": 100, "approval_window": 200, "access_ceiling": 300}
    world = World.make(api, quiet.model_copy(update=windows))

    submitted = world.submit(access_window=300)
    asked = world.act("max", Action.ENDORSE, submitted.id)
    opened = world.act("ann", Action.APPROVE, submitted.id)

    assert submitted.state is State.REVIEWING
    assert submitted.deadline_at == submitted.created_at + timedelta(seconds=100)
    assert asked.asked_at is not None
    assert asked.deadline_at == asked.asked_at + timedelta(seconds=200)
    assert opened.opened_at is not None
    assert opened.deadline_at == opened.opened_at + timedelta(seconds=300)
    assert submitted.wake_at == submitted.deadline_at
    assert asked.wake_at == asked.deadline_at


def test_an_answer_is_refused_at_the_deadline_and_taken_just_before_it(
    world: World, urls: Urls, later: ShiftedClock
) -> None:
    request = world.submit()
    later.shift = timedelta(hours=12)
    late = Database(make_engine(urls.api, role="late"), world.db.schedule, clock=later)

    with pytest.raises(Conflict):
        world.act("ann", Action.APPROVE, request.id, late)
    later.shift = timedelta(hours=12) - timedelta(seconds=5)
    opened = world.act("ann", Action.APPROVE, request.id, late)

    late.engine.dispose()
    assert opened.state is State.ACTIVE


def _entries(world: World) -> list[RequestEntry]:
    with world.db.transaction() as session:
        page = request_list.page(session, world.people["max"], request_list.RequestFilter(), cursor=None, most=100)
        return list(page.entries)
