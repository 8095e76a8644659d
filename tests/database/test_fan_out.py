"""Fan-out of events: in order, once, under stable ids, and to everyone whom an event concerns."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, Row, text

from harness.clocks import ShiftedClock, StoppedClock
from harness.outbox import fan_out_all
from harness.people import World
from harness.stage import as_sender
from lockbox.database import Database
from lockbox.identity.roles import Role
from lockbox.notifications import delivery, fan_out
from lockbox.notifications.delivery import NotRecorded
from lockbox.notifications.event_recipients import NotificationRecipient
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import NOTIFICATIONS
from lockbox.sql import new_id
from tests.database.postbag import Postbag
from tests.database.scenes import at_once, many, read_as_is, set_back, write

ALL = "SELECT id, event_id, template, person_id, attempts, run_at > now() AS is_leased FROM notifications ORDER BY id"
QUEUED = "SELECT event_id, number FROM outbox ORDER BY number"


@pytest.fixture
def world(api: Database) -> World:
    return World.make(api, Policy(vendor_review=False))


def queued(db: Database) -> list[UUID]:
    return [row.event_id for row in read_as_is(db, QUEUED)]


def written(db: Database) -> Sequence[Row[Any]]:
    """Return all notifications, without a fan-out."""
    return read_as_is(db, ALL)


def test_a_move_of_a_request_writes_one_outbox_row(world: World) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    assert len(queued(world.db)) == 2
    assert written(world.db) == []


def test_an_outbox_row_is_claimed_and_then_fanned_out_and_then_deleted(
    world: World, worker: Database, post: Postbag
) -> None:
    world.submit()

    sent = post.deliver(worker, queued(world.db))

    assert len(sent) == len(post.mail.sent) == 3
    assert queued(world.db) == []
    assert {row.attempts for row in written(world.db)} == {1}
    assert worker.schedule.members(NOTIFICATIONS) == {}


def test_a_claimed_outbox_row_is_scheduled_again_for_the_end_of_its_lease(
    world: World, worker: Database, post: Postbag, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit()
    monkeypatch.setattr(delivery, "failpoint", _die_after_claim)

    with pytest.raises(SystemExit):
        post.deliver(worker, queued(world.db))

    rows = written(world.db)
    assert [(row.attempts, row.is_leased) for row in rows] == [(1, True)] * 3
    held = worker.schedule.members(NOTIFICATIONS).keys()
    assert held == {f"notify:{one}" for row in rows for one in (row.id, row.event_id)}


def _die_after_claim(name: str) -> None:
    if name == "notify.after_claim":
        raise SystemExit(137)


def test_a_repeated_fan_out_uses_the_same_notification_ids(world: World) -> None:
    world.submit()
    sender = as_sender(world.db)
    ids, first = queued(world.db), set[UUID]()

    def crash() -> None:
        with sender.transaction() as session:
            fan_out.fan_out(session, ids, lambda *_: ([], {}))
            first.update(session.execute(text("SELECT id FROM notifications")).scalars())
            raise SystemExit(137)

    with pytest.raises(SystemExit):
        crash()
    assert queued(world.db) == ids

    fan_out_all(sender)

    assert {row.id for row in written(world.db)} == first


def test_notification_ids_sort_in_the_order_of_events_and_differ_by_recipient() -> None:
    event_id, ann, amir = new_id(), new_id(), new_id()

    ids = [
        fan_out.notification_id(event_id, told)
        for told in (
            NotificationRecipient("pending", ann),
            NotificationRecipient("pending", amir),
            NotificationRecipient("receipt", ann),
            NotificationRecipient("pending", ann, amir),
            NotificationRecipient("pending", endpoint_id=ann),
        )
    ]

    assert len(set(ids)) == len(ids)
    assert {one.bytes[:6] for one in ids} == {event_id.bytes[:6]}
    assert {(one.version, one.variant) for one in ids} == {(7, event_id.variant)}
    assert ids[0] == fan_out.notification_id(event_id, NotificationRecipient("pending", ann))


def test_events_of_one_request_are_fanned_out_in_order(world: World, worker: Database) -> None:
    request = world.submit()
    world.act("ann", Action.DENY, request.id)
    _, last = queued(world.db)

    with as_sender(worker).transaction() as session:
        fan_out.fan_out(session, [last], lambda *_: ([], {}))

    told = {(row.template, row.person_id) for row in written(world.db)}
    amir, abe = (world.people[name].person_id for name in ("amir", "abe"))
    # Who is told of the end are those who were asked, as the rows before it say.
    assert {("pending", amir), ("pending", abe), ("denied", amir), ("denied", abe)} <= told


def test_a_move_dated_before_its_request_because_the_clock_was_set_back_still_notifies_people(
    world: World, worker: Database, still: StoppedClock
) -> None:
    request = world.submit()
    still.at -= timedelta(milliseconds=1)

    world.act("ann", Action.DENY, request.id)
    fan_out_all(as_sender(worker))

    told = {row.person_id for row in written(world.db) if row.template == "denied"}
    assert {world.people[name].person_id for name in ("erin", "amir", "abe")} <= told


def test_outbox_rows_locked_by_another_process_are_retried(world: World, worker: Database) -> None:
    first, second = world.submit(), world.submit()
    world.act("ann", Action.DENY, first.id)
    sender = as_sender(worker)
    ids = queued(world.db)

    with sender.transaction() as session:
        fan_out.fan_out(session, ids[:1], lambda *_: ([], {}))
        with sender.transaction() as other:
            batch = fan_out.fan_out(other, ids[1:], lambda *_: ([], {}))

    assert batch.put_off == 1
    assert {row.event_id for row in written(world.db)} == set(ids)
    assert second.id


def test_concurrent_fan_outs_write_each_notification_once(
    world: World, worker: Database, pool: ThreadPoolExecutor
) -> None:
    many(world, 20)
    sender, ids = as_sender(worker), queued(world.db)

    def fan() -> int:
        with sender.transaction() as session:
            return len(fan_out.fan_out(session, ids, lambda *_: ([], {})).claims)

    at_once(pool, *[fan] * 6)
    fan_out_all(sender)

    assert len(written(world.db)) == 60
    assert queued(world.db) == []


def test_one_bad_outbox_row_does_not_block_other_rows(
    world: World, worker: Database, post: Postbag, superuser: Engine
) -> None:
    many(world, 5)
    ids = queued(world.db)
    write(superuser, "UPDATE outbox SET mode = 'unheard-of' WHERE event_id = :id", id=ids[2])

    with pytest.raises(NotRecorded, match="1 of 5 could not be claimed"):
        delivery.notify(as_sender(worker), ids, post.senders, 10)

    assert len(post.mail.sent) == 12
    assert queued(world.db) == [ids[2]]


def test_a_time_out_with_unsent_prompts_says_that_no_one_was_notified(
    world: World, worker: Database, superuser: Engine, post: Postbag
) -> None:
    request = world.submit()
    set_back(superuser, [request.id], 1)

    timers.run(worker, [request.id])

    (event,) = read_as_is(
        world.db,
        "SELECT convert_from(body, 'UTF8')::jsonb AS body FROM events WHERE to_state = 'timed_out'",
    )
    assert (event.body["asked"], event.body["reached"], event.body["nobody_notified"]) == (3, 0, True)
    post.deliver(worker, queued(world.db))
    told = {mail.to_name for mail in post.mail.sent if mail.subject.startswith("Nobody could be notified")}
    assert told >= {"Erin", "Ann", "Amir", "Abe"}


def test_an_admin_added_before_the_fan_out_gets_the_receipt(world: World, worker: Database) -> None:
    world.act("ann", Action.DENY, world.submit().id)

    admin = world.add("nell", Role.TENANT_ADMIN, world.tenant.id)
    fan_out_all(as_sender(worker))

    assert ("receipt", admin.person_id) in {(row.template, row.person_id) for row in written(world.db)}


def test_a_missing_fan_out_does_not_delay_escalation(world: World, sender: Database, later: ShiftedClock) -> None:
    request = world.submit()
    later.shift = timedelta(hours=6)

    timers.run(sender, [request.id])

    actions = [row.action for row in read_as_is(sender, "SELECT action FROM events ORDER BY at")]
    assert actions == ["submit", "remind"]
