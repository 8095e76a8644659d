"""Live messages: changes are published after their commit, one message per call, only to people concerned."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from redis import Redis

from harness.people import HERE, World
from harness.stage import RETRIED, Urls, as_sender
from lockbox import database
from lockbox.database import Database, now
from lockbox.identity.roles import Role
from lockbox.notifications import results
from lockbox.notifications.models import Outcome
from lockbox.notifications.results import AttemptResult
from lockbox.pubsub import ENDS, OPERATORS, PAGES, channel_of, database_number
from lockbox.requests import activity, queries, questions
from lockbox.requests.activity import ActivityEntry
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.requests.queries import LiveReader
from lockbox.schedule import CLOCK, NOTIFICATIONS, IndexEntry, Schedule
from lockbox.sql import new_id
from tests.database.scenes import many, read, write
from tests.policy_setup import lay_down

QUIET = 0.3


class ChannelListener:
    """Receives every message on the live channels, in order."""

    def __init__(self, url: str) -> None:
        self.redis = Redis.from_url(url, protocol=2)
        self.pubsub = self.redis.pubsub()  # type: ignore[no-untyped-call]
        self.everyone = channel_of(database_number(self.redis))
        self.pubsub.psubscribe(f"{self.everyone}*")
        assert self.pubsub.get_message(timeout=5)

    def heard(self) -> list[tuple[str, set[str]]]:
        """Return the messages received until now: channel and ids."""
        found, until = [], time.monotonic() + QUIET
        while (left := until - time.monotonic()) > 0:
            message = self.pubsub.get_message(timeout=left)
            if message:
                found.append((message["channel"].decode(), set(message["data"].decode().split())))
        return found

    def close(self) -> None:
        self.pubsub.close()
        self.redis.close()


@pytest.fixture
def ear(urls: Urls, world: World) -> Iterator[ChannelListener]:
    assert world.people
    ear = ChannelListener(urls.redis)
    yield ear
    ear.close()


def _fail(db: Database) -> None:
    with db.transaction() as session:
        database.arm_after_commit(session, CLOCK, [IndexEntry(str(new_id()), "expire", timedelta(hours=1))])
        database.publish_after_commit(session, [new_id()])
        raise ZeroDivisionError


def test_every_move_is_published_after_its_commit(ear: ChannelListener, world: World) -> None:
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    world.act("erin", Action.COMPLETE, request.id)

    moved = (ear.everyone, {str(request.id)})
    assert ear.heard() == [moved, moved, (f"{ear.everyone}:{ENDS}", {str(request.id)}), moved]


@pytest.mark.far
def test_moves_of_one_commit_are_published_in_one_message(ear: ChannelListener, world: World) -> None:
    ids = many(world, 20)

    assert ear.heard() == [(ear.everyone, set(map(str, ids)))]


def test_a_move_that_is_rolled_back_is_not_published(ear: ChannelListener, world: World) -> None:
    with pytest.raises(ZeroDivisionError):
        _fail(world.db)

    assert ear.heard() == []


@pytest.mark.far
def test_a_move_is_not_published_before_the_commit(ear: ChannelListener, world: World) -> None:
    one = new_id()

    with world.db.transaction() as session:
        database.publish_after_commit(session, [one])
        before = ear.heard()

    assert (before, ear.heard()) == ([], [(ear.everyone, {str(one)})])


def test_neither_index_rebuilds_nor_unsent_notifications_are_published_as_live_messages(
    ear: ChannelListener, world: World
) -> None:
    schedule = world.db.schedule

    schedule.arm(CLOCK, [IndexEntry(str(new_id()), "expire", timedelta(hours=1))], only_missing=True)
    schedule.arm(NOTIFICATIONS, [IndexEntry(str(new_id()), "notify", timedelta(hours=1))])

    assert ear.heard() == []


@pytest.mark.far
@pytest.mark.parametrize("outcome", [Outcome.MOOT, None])
def test_the_end_of_a_notification_is_published_only_to_operators(
    ear: ChannelListener, world: World, worker: Database, outcome: Outcome | None
) -> None:
    (notification, *_) = read(
        worker, "SELECT id, run_at FROM notifications WHERE request_id = :id", id=world.submit().id
    )
    ear.heard()

    with as_sender(worker).transaction() as session:
        results.record(session, [AttemptResult(notification.id, notification.run_at, outcome, now(session))])

    assert ear.heard() == ([(f"{ear.everyone}:{OPERATORS}", {str(notification.id)})] if outcome else [])


@pytest.mark.far
def test_a_failing_listener_does_not_stop_other_publications(urls: Urls) -> None:
    schedule, heard, turns = Schedule(urls.redis), list[frozenset[str]](), list[bool]()

    def hear(ids: frozenset[str], _: str | None) -> None:
        heard.append(ids)
        if len(heard) == 1:
            raise ZeroDivisionError

    listener = schedule.listener(hear, turns.append)
    listener.start()
    try:
        _until(lambda: turns == [True])
        schedule.tell(["one"])
        _until(lambda: turns == [True, False, True])
        schedule.tell(["two"])
        _until(lambda: heard == [{"one"}, {"two"}])
    finally:
        listener.stop()
        schedule.close()


def _until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_changes_that_only_one_side_may_see_are_published_on_the_channel_of_that_side(
    ear: ChannelListener, world: World
) -> None:
    one, other = new_id(), new_id()

    with world.db.transaction() as session:
        database.publish_after_commit(session, [one, other, one], "customer")

    assert ear.heard() == [(f"{ear.everyone}:customer", {str(one), str(other)})]


@pytest.mark.far
def test_activity_inside_a_window_is_published_live_only_to_pages(ear: ChannelListener, world: World) -> None:
    request = world.submit()
    opened = world.act("ann", Action.APPROVE, request.id)
    assert opened.opened_at
    gate = replace(world.people["gate"], scopes=frozenset({"activity:report"}))
    ear.heard()

    with world.db.transaction() as session:
        entry = ActivityEntry(opened.opened_at, "read", request.resources[0], "ok")
        activity.report(session, gate, HERE, request.id, [entry])

    assert ear.heard() == [(f"{ear.everyone}:{PAGES}", {str(request.id)})]


@pytest.mark.far
def test_a_question_is_published_live_to_both_sides_but_during_review_only_to_the_vendor(
    ear: ChannelListener, world: World
) -> None:
    pending = world.submit()
    lay_down(world, vendor_review=True)
    reviewed = world.submit()
    ear.heard()

    for who, request in (("ann", pending), ("max", reviewed)):
        with world.db.transaction() as session:
            questions.ask(session, world.people[who], HERE, request.id, "Which folder?")

    assert ear.heard() == [(ear.everyone, {str(pending.id)}), (f"{ear.everyone}:vendor", {str(reviewed.id)})]


def test_an_unavailable_redis_loses_live_messages_but_no_commits(world: World) -> None:
    db = Database(world.db.engine, Schedule("redis://127.0.0.1:1"))
    began = time.monotonic()

    with db.transaction() as session:
        database.publish_after_commit(session, [new_id()])

    assert time.monotonic() - began < RETRIED


def _told(world: World, ids: object, *names: str, **others: LiveReader) -> set[str]:
    listeners = {name: LiveReader(world.people[name].person_id) for name in names} | others
    with world.db.transaction() as session:
        found = queries.concerned(session, ids, list(listeners.values()))  # type: ignore[arg-type]
    return {name for name, reader in listeners.items() if reader in found}


EVERYBODY = ("erin", "eve", "max", "olga", "vera", "gate", "tara", "ann", "aude")


def test_a_live_change_reaches_only_people_who_may_see_the_request(world: World) -> None:
    other = World.make(world.db)
    world.people |= {"zoe": other.people["ann"], "zack": other.people["tara"]}
    request = world.submit()

    assert _told(world, [request.id], *EVERYBODY, "zoe", "zack") == {"erin", "max", "vera", "tara", "ann", "aude"}
    assert _told(world, [new_id()], *EVERYBODY, "zoe") == set()
    assert _told(world, [], *EVERYBODY, "zoe") == set()


def test_a_live_change_reaches_no_customer_before_the_customer_is_asked(api: Database) -> None:
    world = World.make(api, Policy())
    request = world.submit()

    before = _told(world, [request.id], *EVERYBODY)
    world.act("max", Action.ENDORSE, request.id)

    assert before == {"erin", "max", "vera"}
    assert _told(world, [request.id], *EVERYBODY) == {"erin", "max", "vera", "tara", "ann", "aude"}


def test_a_live_change_reaches_no_member_whose_sign_in_does_not_cover_the_tenant(world: World) -> None:
    other = World.make(world.db)
    ann = world.people["ann"].person_id
    request = world.submit()

    told = _told(world, [request.id], here=LiveReader(ann, world.tenant.id), there=LiveReader(ann, other.tenant.id))

    assert told == {"here"}


@pytest.mark.parametrize(
    "gone",
    [
        "DELETE FROM memberships WHERE person_id = :p",
        "UPDATE people SET disabled_at = now() WHERE id = :p",
    ],
)
def test_a_live_change_reaches_no_former_member(world: World, superuser: object, gone: str) -> None:
    request = world.submit()

    write(superuser, gone, p=world.people["ann"].person_id)  # type: ignore[arg-type]

    assert _told(world, [request.id], "ann", "amir") == {"amir"}
    assert world.people["ann"].holds(Role.APPROVER, tenant_id=world.tenant.id)
