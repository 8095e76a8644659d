"""Deadlines are checked by the database's clock while the row lock is held, whether or not a worker is alive."""

import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, text

from harness.clocks import ShiftedClock, StoppedClock
from harness.people import World
from harness.stage import Urls
from lockbox.database import Database, make_engine, now
from lockbox.errors import Conflict, TooLate, WindowTooLong
from lockbox.facts.enumerations import State
from lockbox.requests import request_list, timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest, RequestEntry
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import MAILBOX, door, many, moves_of, read, set_back, state_of, write
from tests.database.test_reminders import reminders

WAITING_FOR_LOCKS = """
SELECT count(*) AS number FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


def _instant(db: Database) -> datetime:
    with db.transaction() as session:
        return now(session)


def test_a_decision_that_waits_for_the_row_lock_past_the_deadline_is_too_late(
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


def test_a_decision_that_waits_for_the_row_lock_within_the_deadline_counts(
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


def test_a_decision_after_the_approval_deadline_is_refused_without_a_worker(world: World, superuser: Engine) -> None:
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


def test_a_deadline_is_measured_from_the_moment_the_request_entered_its_current_state(api: Database) -> None:
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


def test_a_decision_counts_just_before_the_deadline_and_not_at_the_deadline(
    world: World, urls: Urls, later: ShiftedClock
) -> None:
    request = world.submit()
    later.shift = timedelta(hours=12)
    late = Database(make_engine(urls.api, role="late"), world.db.schedule, clock=later)

    with pytest.raises(Conflict):
        world.act("ann", Action.APPROVE, request.id, late)
    later.shift = timedelta(hours=12) - timedelta(minutes=1)
    opened = world.act("ann", Action.APPROVE, request.id, late)

    late.engine.dispose()
    assert opened.state is State.ACTIVE


def _entries(world: World) -> list[RequestEntry]:
    with world.db.transaction() as session:
        page = request_list.page(session, world.people["max"], request_list.RequestFilter(), cursor=None, most=100)
        return list(page.entries)


def test_the_length_of_a_window_is_counted_from_the_approval(world: World) -> None:
    request = world.submit(access_window=600)
    time.sleep(0.2)

    opened = world.act("ann", Action.APPROVE, request.id)

    assert opened.opened_at is not None
    assert opened.opened_at >= request.created_at + timedelta(seconds=0.2)
    assert opened.deadline_at == opened.opened_at + timedelta(seconds=600)
    assert opened.wake_at == opened.deadline_at


def test_an_approver_can_shorten_but_not_lengthen_a_window(world: World) -> None:
    first, second = many(world, 2, access_window=600)

    opened = world.act("ann", Action.APPROVE, first, access_window=60)

    assert opened.opened_at is not None
    assert opened.deadline_at == opened.opened_at + timedelta(seconds=60)
    with pytest.raises(WindowTooLong):
        world.act("ann", Action.APPROVE, second, access_window=601)


def test_a_window_gets_the_shortest_approved_length_measured_from_the_last_approval(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=3))
    request = world.submit(access_window=600)

    world.act("ann", Action.APPROVE, request.id, access_window=120)
    world.act("amir", Action.APPROVE, request.id, access_window=60)
    opened = world.act("abe", Action.APPROVE, request.id, access_window=300)

    (third,) = read(api, "SELECT max(decided_at) AS at FROM decisions")
    assert opened.opened_at == third.at
    assert opened.deadline_at == third.at + timedelta(seconds=60)


def test_only_votes_of_current_approvers_count_towards_the_quorum(api: Database, superuser: Engine) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id, access_window=1)
    write(superuser, "DELETE FROM memberships WHERE person_id = :id", id=world.people["ann"].person_id)

    second = world.act("amir", Action.APPROVE, request.id)
    third = world.act("abe", Action.APPROVE, request.id)

    assert second.state is State.PENDING
    assert third.state is State.ACTIVE
    assert third.opened_at is not None
    assert third.deadline_at == third.opened_at + timedelta(hours=1)


def test_the_vote_of_a_disabled_person_does_not_count(api: Database, superuser: Engine) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    write(superuser, "UPDATE people SET disabled_at = now() WHERE id = :id", id=world.people["ann"].person_id)

    assert world.act("amir", Action.APPROVE, request.id).state is State.PENDING


def test_the_end_of_one_window_does_not_end_other_windows(world: World) -> None:
    first, second = many(world, 2)
    for one in (first, second):
        world.act("ann", Action.APPROVE, one)

    world.act("tara", Action.REVOKE, first)

    still = door(world)
    assert still is not None
    assert still.id == second
    assert door(world, who="eve") is None
    assert door(world, resource=MAILBOX.upper()) is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tenants SET suspended = true",
        "UPDATE people SET disabled_at = now() WHERE id IN (SELECT requester_id FROM requests)",
        "DELETE FROM memberships WHERE person_id IN (SELECT requester_id FROM requests)",
    ],
)
def test_a_window_closes_when_the_engineer_is_disabled_or_removed_or_the_tenant_is_suspended(
    world: World, superuser: Engine, change: str
) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)
    before = door(world)

    write(superuser, change)

    assert before is not None
    assert door(world) is None


def test_a_window_forged_without_decisions_does_not_open(world: World, superuser: Engine) -> None:
    request = world.submit()
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(
            text(
                "UPDATE requests SET state = 'active', opened_at = now(), deadline_at = now() + interval '1 minute',"
                " wake_at = now() + interval '1 minute' WHERE id = :id"
            ),
            {"id": request.id},
        )

    assert state_of(world.db, request.id) == "active"
    assert door(world) is None


SECOND = timedelta(seconds=1)
NEXT = "SELECT min(run_at) AS at FROM notifications WHERE closed_at IS NULL"


def deliver_all(worker: Database, post: Postbag, still: StoppedClock, until: datetime | None = None) -> None:
    """Deliver, moving the clock to each next attempt, until all notifications are closed or `until` is reached."""
    while waiting := open_notifications(worker):
        (due,) = read(worker, NEXT)
        if until and due.at >= until:
            return
        still.at = max(still.at, due.at)
        post.deliver(worker, waiting)


def test_reminders_and_the_time_out_work_for_an_approval_window_of_two_seconds(
    still: StoppedClock, api: Database, worker: Database, post: Postbag
) -> None:
    world = World.make(api, Policy(vendor_review=False, approval_window=2))
    request = world.submit()
    begun = request.created_at
    seen = []

    for wait in (0.9, 1, 1.66, 1.9, 2):
        still.at = begun + wait * SECOND
        timers.run(worker, [request.id])
        seen.append(len(reminders(worker, request.id)))
        deliver_all(worker, post, still)

    assert seen == [0, 1, 2, 2, 2]
    subjects = Counter(mail.subject.partition(",")[0].partition(":")[0] for mail in post.mail.sent)
    assert subjects["Reminder"] == 6
    assert state_of(worker, request.id) == "timed_out"
