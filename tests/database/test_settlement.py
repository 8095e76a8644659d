"""One event records how a move's mails ended, two if any is unsent after a minute; each log names its people."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import World
from harness.stage import Urls, as_sender
from harness.wait import within
from lockbox import reconcile
from lockbox.admin import erasure
from lockbox.audit.events import THE_CLOCK, VENDORS_LOG, AuditEvent
from lockbox.database import Database, now
from lockbox.notifications import announcements, due_reports, queue, results, settlement
from lockbox.notifications.models import Outcome
from lockbox.notifications.outbox import KIND
from lockbox.notifications.outcome_events import DeliveryAttempt
from lockbox.notifications.results import AttemptResult
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.owner_transaction import as_owner
from lockbox.requests import policy_store
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import NOTIFICATIONS
from tests.database.postbag import Postbag, address, assert_notifications_are_held, open_notifications
from tests.database.scenes import (
    PATIENCE,
    as_caller,
    assert_audit_logs_are_whole,
    assert_indexes_are_true,
    at_once,
    read,
    read_as_is,
)
from tests.each import each
from tests.policy_setup import lay_down

NOTIFIED = """
SELECT e.id, e.internal, e.body, e.tenant_id, d.fields FROM events e LEFT JOIN event_details d ON d.event_id = e.id
WHERE e.action = 'notified' ORDER BY e.id
"""
WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
SENT = "SELECT body FROM events WHERE action = 'notifications_sent'"
OUTCOMES = ("sent", "dead", "moot", "open")
LATER = timedelta(seconds=61)


@pytest.fixture
def world(api: Database) -> World:
    return World.make(api, Policy(vendor_review=False))


def told(db: Database) -> list[dict[str, Any]]:
    return [
        json.loads(row.body) | {"internal": row.internal, "to": {k: v[1] for k, v in (row.fields or {}).items()}}
        for row in read_as_is(db, NOTIFIED)
    ]


def counts(said: dict[str, Any]) -> tuple[int, ...]:
    return tuple(said[outcome] for outcome in OUTCOMES)


def unsettled(db: Database) -> list[Any]:
    return list(read_as_is(db, "SELECT * FROM unsettled ORDER BY id"))


def sent(ids: list[UUID], world: World) -> list[AttemptResult]:
    at = world.tenant.created_at
    return [
        AttemptResult(
            one, at, Outcome.SENT, at, attempt=DeliveryAttempt(one, None, "request.submitted", at, timedelta(0))
        )
        for one in ids
    ]


def test_the_outcome_of_all_mails_about_a_move_is_recorded_in_one_event(
    world: World, worker: Database, post: Postbag
) -> None:
    request = world.submit()
    post.mail.refused[address(worker, world, "amir")] = SendFailed("no such mailbox", permanent=True, kind="status")

    post.deliver(worker, open_notifications(worker))

    (said,) = told(worker)
    (submitted,) = read_as_is(worker, "SELECT id FROM events WHERE seq = 1")
    assert (said["of_event"], said["part"], said["log"]) == (str(submitted.id), 1, str(world.tenant.id))
    assert said["request_id"] == str(request.id)
    assert counts(said) == (2, 1, 0, 0)
    people = {str(caller.person_id): name for name, caller in world.people.items()}
    assert {(people[one[0]], *one[1:3]) for one in said["mails"].values()} == {
        ("abe", "mail", "sent"),
        ("ann", "mail", "sent"),
        ("amir", "mail", "dead"),
    }
    assert said["mails"]["1"][2] == "dead"
    assert said["to"]["recipient_1"] == f"Amir <{address(worker, world, 'amir')}>"
    assert "@" not in json.dumps({k: v for k, v in said.items() if k != "to"})
    assert unsettled(worker) == []
    assert_indexes_are_true(worker)
    assert_audit_logs_are_whole(worker)


def test_webhook_calls_cause_no_mail_outcome_event(world: World, worker: Database, post: Postbag) -> None:
    post.endpoint(world, "https://hooks.contoso.example/1", tenant_id=world.tenant.id)
    post.endpoint(world, "https://hooks.contoso.example/2", tenant_id=world.tenant.id)
    post.hooks.refused["https://hooks.contoso.example/2"] = SendFailed("no", permanent=True, kind="status")
    request = world.submit()

    post.deliver(worker, open_notifications(worker))

    (said,) = told(worker)
    assert counts(said) == (3, 0, 0, 0)
    beside = read_as_is(worker, "SELECT action FROM events WHERE request_id = :id AND seq IS NULL", id=request.id)
    assert [row.action for row in beside] == ["notified"]
    outcomes = read_as_is(worker, "SELECT outcome FROM notifications WHERE channel = 'webhook' ORDER BY 1")
    assert [row.outcome for row in outcomes] == ["dead", "sent"]


def test_a_move_without_mails_needs_no_mail_outcome_event(world: World, worker: Database, post: Postbag) -> None:
    lay_down(world, quorum=2)
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    world.act("erin", Action.CANCEL, request.id)

    mailed = read(worker, "SELECT DISTINCT event_id FROM notifications WHERE channel = 'mail'")

    assert {row.event_id for row in unsettled(worker)} == {row.event_id for row in mailed}
    post.deliver(worker, open_notifications(worker))
    assert {one["of_event"] for one in told(worker)} == {str(row.event_id) for row in mailed}


def test_the_log_of_each_side_names_only_notified_people_of_that_side(
    api: Database, worker: Database, post: Postbag
) -> None:
    world = World.make(api, Policy(vendor_review=True))
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    world.act("ann", Action.APPROVE, request.id)

    post.deliver(worker, open_notifications(worker))

    sides = {str(row.id): row.side for row in read_as_is(worker, "SELECT id, side FROM people")}
    for said in told(worker):
        assert said["log"] == str(VENDORS_LOG if said["internal"] else world.tenant.id)
        assert {sides[one[0]] for one in said["mails"].values()} == {"vendor" if said["internal"] else "customer"}
    assert {said["internal"] for said in told(worker)} == {True, False}
    assert (
        max(len([one for one in told(worker) if one["of_event"] == said["of_event"]]) for said in told(worker)) == 2
    )


def test_neither_side_sees_which_people_were_notified_on_the_other_side(
    api: Database, worker: Database, post: Postbag
) -> None:
    world = World.make(api, Policy(vendor_review=True))
    request = world.submit()
    world.act("max", Action.ENDORSE, request.id)
    world.act("ann", Action.APPROVE, request.id)
    post.deliver(worker, open_notifications(worker))
    query = text("""
        SELECT e.internal FROM events e JOIN event_details d ON d.event_id = e.id
        WHERE e.action = 'notified' AND e.request_id = :id
    """)

    def seen(who: str) -> set[bool]:
        with as_caller(api, world.people[who], world.tenant.id) as connection:
            return set(connection.execute(query, {"id": request.id}).scalars())

    assert {who: seen(who) for who in ("erin", "max", "ann", "tara", "aude", "eve", "olga", "vera")} == {
        **{who: {True} for who in ("erin", "max")},
        **{who: {False} for who in ("ann", "tara", "aude")},
        **{who: set() for who in ("eve", "olga")},
        "vera": {True, False},
    }


def test_mails_unsent_after_a_minute_are_recorded_as_not_yet_sent_and_later_with_their_outcome(
    world: World, worker: Database, post: Postbag, later: ShiftedClock
) -> None:
    worker.clock = later
    world.submit()
    post.mail.refused[address(worker, world, "amir")] = SendFailed("try later", kind="status")
    post.deliver(worker, open_notifications(worker))
    assert told(worker) == []
    (row,) = unsettled(worker)

    post.deliver(worker, [row.id])
    assert told(worker) == []
    assert_notifications_are_held(worker, later.shift)
    later.shift = LATER
    post.deliver(worker, [row.id])
    post.deliver(worker, [row.id])

    (first,) = told(worker)
    assert (first["part"], counts(first)) == (1, (2, 0, 0, 1))
    assert first["mails"]["1"][1:] == ["mail", "open"]
    (row,) = unsettled(worker)
    assert len(row.left_open) == 1
    assert_notifications_are_held(worker, later.shift)

    post.mail.refused.clear()
    later.shift = timedelta(minutes=20)
    post.deliver(worker, open_notifications(worker))

    first, second = told(worker)
    assert (second["part"], counts(second)) == (2, (1, 0, 0, 0))
    assert second["mails"]["1"][0] == str(world.people["amir"].person_id)
    assert second["of_event"] == first["of_event"]
    assert unsettled(worker) == []
    assert_indexes_are_true(worker)


def test_the_outcome_of_a_mail_cancelled_by_an_erasure_is_recorded_in_the_next_due_event(
    world: World, worker: Database, post: Postbag, later: ShiftedClock, urls: Urls
) -> None:
    worker.clock = later
    world.submit()
    post.mail.refused[address(worker, world, "amir")] = SendFailed("try later", kind="status")
    post.deliver(worker, open_notifications(worker))
    later.shift = LATER
    post.deliver(worker, [row.id for row in unsettled(worker)])
    with as_owner(urls.owner) as session:
        erasure.erase(session, world.people["amir"].person_id)

    later.shift = timedelta(days=30)
    with as_sender(worker).transaction() as session:
        found = queue.due(session, grace=timedelta(0) - later.shift, most=100)
    post.deliver(worker, found)

    assert [(one["part"], counts(one)) for one in told(worker)] == [(1, (2, 0, 0, 1)), (2, (0, 0, 1, 0))]
    assert unsettled(worker) == []


def test_the_late_result_of_a_mail_is_recorded_although_another_mail_is_not_yet_sent(
    world: World, worker: Database, post: Postbag, later: ShiftedClock
) -> None:
    worker.clock = later
    world.submit()
    for name in ("amir", "abe"):
        post.mail.refused[address(worker, world, name)] = SendFailed("try later", kind="status")
    post.deliver(worker, open_notifications(worker))
    later.shift = LATER
    post.deliver(worker, [row.id for row in unsettled(worker)])
    (first,) = told(worker)
    assert counts(first) == (1, 0, 0, 2)

    later.shift = timedelta(days=2)
    for notification in open_notifications(worker):
        post.deliver(worker, [notification])

    _, second = told(worker)
    assert (second["part"], counts(second)) == (2, (0, 2, 0, 0))
    assert unsettled(worker) == []


def test_an_erased_person_is_removed_from_the_details_of_all_events(
    world: World, worker: Database, post: Postbag, urls: Urls
) -> None:
    world.submit()
    post.deliver(worker, open_notifications(worker))
    (before,) = told(worker)

    with as_owner(urls.owner) as session:
        erasure.erase(session, world.people["abe"].person_id)

    (after,) = told(worker)
    assert {one.partition(" <")[0] for one in before["to"].values()} == {"Abe", "Amir", "Ann"}
    assert {one.partition(" <")[0] for one in after["to"].values()} == {"Amir", "Ann"}
    assert {**before, "to": {}} == {**after, "to": {}}


def test_an_event_written_during_an_erasure_does_not_keep_the_erased_name(
    world: World, worker: Database, post: Postbag, urls: Urls
) -> None:
    world.submit()
    mails, to_abe = open_notifications(worker), world.people["abe"].person_id
    query = "SELECT person_id = :id AS is_theirs, id FROM notifications"
    theirs = {row.id for row in read_as_is(worker, query, id=to_abe) if row.is_theirs}
    sender = as_sender(worker)

    with sender.transaction() as session:
        results.record(session, sent([mail for mail in mails if mail in theirs], world))
    with as_owner(urls.owner) as erasing:
        erasure.erase(erasing, to_abe)
        with sender.transaction() as session:
            results.record(session, sent([mail for mail in mails if mail not in theirs], world))
        (row,) = unsettled(worker)
        held = worker.schedule.members(NOTIFICATIONS)[f"{KIND}:{row.id}"]
        post.deliver(worker, [row.id])
        assert told(worker) == []
    post.deliver(worker, [row.id])

    (said,) = told(worker)
    assert counts(said) == (3, 0, 0, 0)
    assert {one.partition(" <")[0] for one in said["to"].values()} == {"Amir", "Ann", f"person {to_abe.hex[-8:]}"}
    assert row.settle_by.timestamp() * 1000 - held > LATER.total_seconds() / 2 * 1000
    assert unsettled(worker) == []
    assert_indexes_are_true(worker)


@pytest.mark.far
def test_concurrent_last_send_results_write_one_mail_outcome_event(
    world: World, worker: Database, pool: ThreadPoolExecutor
) -> None:
    sender = as_sender(worker)

    def recorded(one: UUID) -> Callable[[], object]:
        def run() -> None:
            with sender.transaction() as session:
                results.record(session, sent([one], world))

        return run

    for number in range(1, 9):
        world.fresh()
        mails = open_notifications(worker)

        at_once(pool, *[recorded(mail) for mail in mails])

        assert len(told(worker)) == number
        assert counts(told(worker)[-1]) == (3, 0, 0, 0)
        assert unsettled(worker) == []


def test_of_two_overlapping_recordings_of_send_results_the_second_sees_the_earlier_results(
    world: World, worker: Database, pool: ThreadPoolExecutor
) -> None:
    sender = as_sender(worker)
    world.submit()
    first, *rest = open_notifications(worker)

    def record_last() -> None:
        with sender.transaction() as session:
            results.record(session, sent(rest, world))

    with sender.transaction() as session:
        results.record(session, sent([first], world))
        running = pool.submit(record_last)
        assert within(PATIENCE, lambda: read_as_is(worker, WAITING))
    running.result(PATIENCE)

    (said,) = told(worker)
    assert counts(said) == (3, 0, 0, 0)


@pytest.mark.far
def test_if_the_timer_and_a_send_result_coincide_one_or_two_events_cover_all_mails(
    world: World, worker: Database, later: ShiftedClock, pool: ThreadPoolExecutor
) -> None:
    worker.clock = later
    sender = as_sender(worker)

    def settle(row: Any) -> Callable[[], object]:
        def run() -> None:
            with sender.transaction() as session:
                settlement.settle_due(session, [row.id])

        return run

    def record(mails: list[UUID]) -> Callable[[], object]:
        def run() -> None:
            with sender.transaction() as session:
                results.record(session, sent(mails, world))

        return run

    for _ in range(6):
        later.shift = timedelta(0)
        world.fresh()
        mails = open_notifications(worker)
        (row,) = unsettled(worker)
        before = len(told(worker))
        later.shift = LATER

        at_once(pool, settle(row), record(mails), settle(row))

        found = told(worker)[before:]
        assert [one["part"] for one in found] in ([1], [1, 2])
        assert counts(found[-1]) == (3, 0, 0, 0)
        assert unsettled(worker) == []


def test_a_process_killed_before_the_commit_neither_loses_nor_doubles_the_mail_outcome_event(
    world: World, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit()
    mails = open_notifications(worker)
    sender = as_sender(worker)

    def die(name: str) -> None:
        if name == "settle.after_event":
            raise SystemExit(137)

    def crash() -> None:
        with sender.transaction() as session:
            results.record(session, sent(mails, world))

    with monkeypatch.context() as dying:
        dying.setattr(settlement, "failpoint", die)
        with pytest.raises(SystemExit):
            crash()
    assert (told(worker), len(unsettled(worker))) == ([], 1)

    crash()

    assert [one["part"] for one in told(worker)] == [1]
    assert unsettled(worker) == []


def test_the_schema_refuses_a_duplicate_or_third_event_on_the_mails_of_a_move(
    world: World, worker: Database, post: Postbag
) -> None:
    world.submit()
    post.deliver(worker, open_notifications(worker))
    again = """
        INSERT INTO events (id, tenant_id, request_id, at, action, actor_role, body)
        SELECT uuidv7(), tenant_id, request_id, at, action, actor_role, body FROM events WHERE action = 'notified'
    """

    with pytest.raises(DBAPIError, match="uq_events_notified"), as_sender(worker).transaction() as session:
        session.execute(text(again))
    third = again.replace(
        "body FROM", """replace(convert_from(body, 'UTF8'), '"part"\\:1', '"part"\\:3')\\:\\:bytea FROM"""
    )
    with pytest.raises(DBAPIError, match="ck_events_notified"), as_sender(worker).transaction() as session:
        session.execute(text(third))


@each("action", ["notifications_sent", "notification_dead", "endpoint_disabled", "submit", "read"])
def test_the_sending_database_role_writes_only_mail_outcome_events(
    world: World, worker: Database, action: str
) -> None:
    request = world.submit()
    values = {"tenant": world.tenant.id, "request": request.id, "action": action}

    with pytest.raises(DBAPIError, match="speaks for the clock"), as_sender(worker).transaction() as session:
        session.execute(
            text("""
                INSERT INTO events (id, tenant_id, request_id, at, action, actor_role, body)
                VALUES (uuidv7(), :tenant, :request, now(), :action, 'clock', '{}')
            """),
            values,
        )


@each("login", ["worker", "api"])
def test_only_the_sending_database_role_records_who_was_notified(
    world: World, worker: Database, api: Database, login: str
) -> None:
    request = world.submit()
    erin = world.people["erin"].person_id
    values = {"tenant": world.tenant.id, "request": request.id, "erin": erin}
    says = """
        INSERT INTO events (id, tenant_id, request_id, at, action, actor_id, actor_role, body)
        VALUES (uuidv7(), :tenant, :request, now(), 'notified', {actor}, '{role}', '{{}}')
    """

    if login == "worker":
        with pytest.raises(DBAPIError, match="none that the clock makes"), worker.transaction() as session:
            session.execute(text(says.format(actor="NULL", role="clock")), values)
    else:
        with (
            pytest.raises(DBAPIError, match="row-level security"),
            as_caller(api, world.people["erin"], world.tenant.id) as connection,
        ):
            connection.execute(text(says.format(actor=":erin", role="engineer")), values)


def test_each_account_notification_writes_one_outcome_event_per_channel(
    world: World, worker: Database, post: Postbag
) -> None:
    post.endpoint(world, "https://hooks.contoso.example/1", tenant_id=world.tenant.id)
    sender = as_sender(worker)
    with sender.transaction() as session:
        changed = AuditEvent(now(session), "endpoint_disabled", THE_CLOCK, world.tenant.id)
        announcements.announce(session, changed)

    post.deliver(worker, open_notifications(worker))

    said = [json.loads(row.body) for row in read_as_is(worker, SENT)]
    assert {(one["channel"], one["count"], one["of_event"]) for one in said} == {
        ("mail", 4, str(changed.id)),
        ("webhook", 1, str(changed.id)),
    }
    assert (told(worker), unsettled(worker)) == ([], [])


def test_mails_of_window_reports_have_a_separate_outcome_event(
    world: World, worker: Database, post: Postbag, later: ShiftedClock
) -> None:
    worker.clock = later
    lay_down(world, report_on_close=True)
    request = world.act("ann", Action.APPROVE, world.submit().id)
    world.act("erin", Action.COMPLETE, request.id)
    post.deliver(worker, open_notifications(worker))
    before = told(worker)

    later.shift = timedelta(seconds=62)
    for _ in due_reports.promise(worker, policy_store.wordings):
        pass
    (row,) = unsettled(worker)
    assert_indexes_are_true(worker)
    post.deliver(worker, open_notifications(worker))

    (report,) = told(worker)[len(before) :]
    assert (report["template"], report["part"], report["of_event"]) == ("report", 1, str(row.event_id))
    assert report["of_event"] in {one["of_event"] for one in before}
    assert report["sent"] == len(report["mails"]) >= 1
    assert unsettled(worker) == []


def test_reconciling_schedules_missing_index_entries_for_mail_outcome_events(world: World, worker: Database) -> None:
    world.submit()
    read(worker, "SELECT FROM notifications")
    held = worker.schedule.members(NOTIFICATIONS)
    with worker.schedule._arming as redis:  # noqa: SLF001 - the index is lost
        redis.flushdb()

    for _ in reconcile.reconcile(worker, None):
        pass

    assert worker.schedule.members(NOTIFICATIONS).keys() == held.keys()
    assert f"notify:{unsettled(worker)[0].id}" in held


def test_a_mail_outcome_event_lists_failures_first_and_counts_mails_that_are_not_listed(
    world: World, worker: Database, post: Postbag, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settlement, "MOST_LISTED", 2)
    world.submit()
    post.mail.refused[address(worker, world, "ann")] = SendFailed("no such mailbox", permanent=True, kind="status")

    post.deliver(worker, open_notifications(worker))

    (said,) = told(worker)
    assert counts(said) == (2, 1, 0, 0)
    assert (said["not_listed"], len(said["mails"]), len(said["to"])) == (1, 2, 2)
    assert said["mails"]["1"][0] == str(world.people["ann"].person_id)


def test_the_databases_clock_measures_the_minute_after_which_unsent_mails_are_recorded(
    world: World, worker: Database
) -> None:
    world.submit()
    read(worker, "SELECT FROM notifications")

    with worker.transaction() as session:
        at = now(session)

    (row,) = unsettled(worker)
    assert timedelta(seconds=50) < row.settle_by - at <= settlement.SETTLED_WITHIN
