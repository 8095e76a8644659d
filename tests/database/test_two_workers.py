"""Two workers, each with its database role: what each must not do, tried as that role."""

import re
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import TextClause, text
from sqlalchemy.exc import DBAPIError

from harness.outbox import fan_out_all
from harness.people import World
from harness.stage import Urls
from lockbox.audit.canonical import Value, canonical
from lockbox.audit.log.sealer import RollbackDetected
from lockbox.database import Database, make_engine
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from lockbox.sql import new_id
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import read, write
from tests.each import each
from tests.logs import sealed

NOT_THE_CORES = (
    "UPDATE notifications SET outcome = 'moot', closed_at = now()",
    "UPDATE notifications SET outcome = 'sent', closed_at = now()",
    "UPDATE notifications SET run_at = 'infinity'",
    "INSERT INTO deliveries SELECT * FROM deliveries",
    "SELECT code_nonce FROM invitations",
    "SELECT code_nonce FROM sign_ins",
    "UPDATE invitations SET secret_hash = sha256('mine'), expires_at = 'infinity'",
    "UPDATE endpoints SET disabled_at = now()",
)
NOT_THE_SENDERS = (
    "UPDATE requests SET state = 'expired', version = version + 1",
    "UPDATE requests SET deadline_at = 'infinity'",
    "INSERT INTO decisions SELECT * FROM decisions",
    "INSERT INTO seals SELECT * FROM seals",
    "DELETE FROM unsealed",
    "UPDATE logs SET size = 0",
    "SELECT secret_hash FROM sessions",
    "DELETE FROM sessions",
    "DELETE FROM sign_ins",
    "SELECT * FROM tokens",
    "SELECT secret_hash FROM invitations",
    "UPDATE invitations SET secret_hash = sha256('mine'), expires_at = 'infinity'",
    "UPDATE sign_ins SET code_nonce = ''",
    "UPDATE addresses SET code_nonce = ''",
    "UPDATE memberships SET role = 'approver'",
    "DELETE FROM notifications",
    "DELETE FROM deliveries",
    "INSERT INTO alarms SELECT * FROM alarms",
    "SELECT * FROM ended_powers",
)


@pytest.fixture
def notifications(urls: Urls) -> Iterator[Database]:
    db = Database(make_engine(urls.notifications, role="test-notifications"), Schedule(urls.redis))
    yield db
    db.dispose()


@each("statement", NOT_THE_CORES)
def test_the_core_workers_database_role_cannot_close_notifications_or_read_mailed_codes(
    world: World, worker: Database, statement: str
) -> None:
    world.submit()

    with pytest.raises(DBAPIError, match="permission denied"):
        write(worker.engine, statement)


@each("statement", NOT_THE_SENDERS)
def test_the_notifications_workers_database_role_makes_no_move_and_no_seal(
    world: World, notifications: Database, statement: str
) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    with pytest.raises(DBAPIError, match="permission denied"):
        write(notifications.engine, statement)


def test_a_notification_is_recorded_as_sent_only_with_a_delivery_row(world: World, notifications: Database) -> None:
    world.submit()
    fan_out_all(notifications)

    with pytest.raises(DBAPIError, match="was sent without a delivery"):
        write(notifications.engine, "UPDATE notifications SET outcome = 'sent', closed_at = now()")

    assert open_notifications(world.db)


def test_deliveries_of_the_notifications_worker_are_recorded(
    world: World, notifications: Database, post: Postbag
) -> None:
    world.submit()

    sent = post.deliver(notifications, open_notifications(world.db))

    assert sent
    assert {row.outcome for row in read(world.db, "SELECT outcome FROM notifications")} == {"sent"}
    assert len(read(world.db, "SELECT FROM deliveries")) == len(sent)


def test_the_notifications_worker_cannot_write_events_of_moves(world: World, notifications: Database) -> None:
    request = world.submit()
    told = """
        INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_role, from_state, to_state, body)
        VALUES (uuidv7(), :tenant, :id, 2, now(), 'time_out', 'clock', 'pending', 'timed_out', '{}')
    """

    with pytest.raises(DBAPIError, match="a worker speaks for the clock alone"):
        write(notifications.engine, told, tenant=world.tenant.id, id=request.id)


@each("action", ["remind", "question", "activity", "member_changed", "consent_ended"])
def test_the_notifications_worker_writes_only_events_of_the_mails_it_sent(
    world: World, notifications: Database, action: str
) -> None:
    told = """
        INSERT INTO events (id, tenant_id, at, action, actor_role, body)
        VALUES (uuidv7(), :tenant, now(), :action, 'clock', '{}')
    """

    with pytest.raises(DBAPIError, match="a worker speaks for the clock alone"):
        write(notifications.engine, told, tenant=world.tenant.id, action=action)


@each("changes", [{"action": "revoke"}, {"actor_role": "approver"}, {"seq": 2}, {"action": "audit_events_removed"}])
def test_an_event_body_written_by_the_notifications_worker_must_equal_the_event_row(
    world: World, notifications: Database, changes: dict[str, Value]
) -> None:
    request = world.submit()
    columns: dict[str, Value] = {
        "id": new_id(),
        "tenant_id": world.tenant.id,
        "request_id": request.id,
        "at": request.created_at,
    }
    told = """
        INSERT INTO events (id, tenant_id, request_id, at, action, actor_role, body)
        VALUES (:id, :tenant_id, :request_id, :at, 'notified', 'clock', :body)
    """
    good = columns | {"log": world.tenant.id, "action": "notified", "actor_role": "clock"}
    good |= {"of_event": new_id(), "part": 1}

    with pytest.raises(DBAPIError, match="says something else"):
        write(notifications.engine, told, **columns, body=canonical(good | changes))

    write(notifications.engine, told, **columns, body=canonical(good))


REMINDER = """
INSERT INTO events (id, tenant_id, request_id, at, action, actor_role, body)
VALUES (:id, :tenant_id, :request_id, :at, :action, 'clock', :body)
"""


def reminder(world: World, action: str = "remind") -> tuple[dict[str, Value], dict[str, Value]]:
    """Return the columns of a reminder's event, or of another action, and a matching body."""
    request = world.submit()
    columns: dict[str, Value] = {"id": new_id(), "tenant_id": world.tenant.id, "request_id": request.id}
    columns |= {"at": request.created_at, "action": action}
    body = columns | {"log": world.tenant.id, "actor_role": "clock", "format": 1, "personal": {}}
    return columns, body


LIES: dict[str, dict[str, Value]] = {
    "Ann found break-glass justified": {"action": "after_review", "finding": "justified", "actor_role": "approver"},
    "Tara allowed the gate to report": {"action": "gate_report_allowed", "actor_role": "tenant_admin"},
    "it is another request's": {"request_id": new_id()},
    "it is a move": {"seq": 2, "to_state": "expired"},
    "another end was asked for": {"deadline_at": "2030-01-01T00:00:00.000000Z"},
    "the oldest events were removed": {"action": "audit_events_removed", "removed_from": 0, "removed_to": 1},
}


@each("lie", LIES)
@each(("login", "action"), [("worker", "remind"), ("connectors", "connection_opened"), ("owner", "remind")])
def test_an_event_body_written_by_a_worker_or_the_owner_must_equal_the_event_row(
    world: World, urls: Urls, login: str, action: str, lie: str
) -> None:
    columns, body = reminder(world, action)
    engine = make_engine(getattr(urls, login), role="test-login")

    with pytest.raises(DBAPIError, match="says something else"):
        write(engine, REMINDER, **columns, body=canonical(body | LIES[lie]))

    write(engine, REMINDER, **columns, body=canonical(body))
    engine.dispose()


@each(
    "change",
    [
        lambda body: body.replace('{"', '{"action":"after_review","', 1),
        lambda body: body.replace('"personal":{}', '"personal":{"comment":"a","comment":"b"}'),
        lambda body: body.replace('Z"', '"'),
        lambda body: body.replace('Z"', '+00:00"'),
        lambda body: re.sub('"request_id":"([^"]*)"', lambda one: one[0].replace(one[1], one[1].upper()), body),
        lambda body: body.replace('"tenant_id":"', '"tenant_id":"urn:uuid:'),
        lambda body: body.replace('"seq":null', '"seq":"null"'),
    ],
)
def test_ambiguous_event_bodies_are_refused(world: World, worker: Database, change: Callable[[str], str]) -> None:
    columns, facts = reminder(world)
    body = canonical(facts | {"seq": None}).decode()

    assert change(body) != body
    with pytest.raises(DBAPIError, match="says something else"):
        write(worker.engine, REMINDER, **columns, body=change(body).encode())

    write(worker.engine, REMINDER, **columns, body=body.encode())


@each(
    "action", ["after_review", "gate_report_allowed", "mode_switched", "hold_released", "member_added", "signed_in"]
)
def test_the_core_worker_cannot_write_events_of_the_api(world: World, worker: Database, action: str) -> None:
    told = """
        INSERT INTO events (id, tenant_id, at, action, actor_role, body)
        VALUES (uuidv7(), :tenant, now(), :action, 'clock', '{}')
    """

    with pytest.raises(DBAPIError, match="none that the clock makes"):
        write(worker.engine, told, tenant=world.tenant.id, action=action)


SEAL_BEYOND = """
INSERT INTO seals (log_id, number, event_id)
SELECT e.log_id, l.size + 5, e.id FROM events e JOIN logs l ON l.id = e.log_id JOIN unsealed u ON u.event_id = e.id
"""
SEAL_ELSEWHERE = """
WITH other AS (UPDATE logs SET size = size + 1, root = sha256('mine') WHERE id <> :log RETURNING id, size)
INSERT INTO seals (log_id, number, event_id) SELECT o.id, o.size - 1, u.event_id FROM other o, unsealed u LIMIT 1
"""
SEAL_ALL = """
WITH grown AS (UPDATE logs SET size = size + 1, root = sha256('next') WHERE id = :log RETURNING id, size)
INSERT INTO seals (log_id, number, event_id) SELECT g.id, g.size - 1, e.id FROM grown g, events e
WHERE NOT EXISTS (SELECT FROM seals s WHERE s.event_id = e.id)
"""
HIDE = "DELETE FROM unsealed"
FORGET_ALL = "SELECT forget_sealed(ARRAY(SELECT event_id FROM unsealed))"
WAITING = "SELECT e.request_id FROM unsealed u JOIN events e ON e.id = u.event_id"


def _do(db: Database, *statements: TextClause) -> None:
    with db.transaction() as session:
        for statement in statements:
            session.execute(statement)


@pytest.mark.parametrize("first", [None, SEAL_BEYOND, SEAL_ELSEWHERE])
def test_the_core_workers_database_role_cannot_hide_an_event(
    world: World, worker: Database, first: str | None
) -> None:
    World.make(world.db).submit()
    world.submit()
    sealed(worker)
    hidden = world.submit()
    forge = text(first or "SELECT 1").bindparams(**({"log": world.tenant.id} if first == SEAL_ELSEWHERE else {}))

    with pytest.raises(DBAPIError, match="is not sealed yet"):
        _do(worker, forge, text(HIDE))
    _do(worker, forge, text(FORGET_ALL))

    assert [row.request_id for row in read(worker, WAITING)] == [hidden.id]


def test_an_event_may_leave_the_seal_queue_only_if_it_is_sealed_in_the_same_transaction(
    world: World, worker: Database
) -> None:
    world.submit()
    sealed(worker)
    world.submit()

    with worker.transaction() as session:
        assert session.execute(text(HIDE)).rowcount == 1  # type: ignore[attr-defined]
        session.execute(text(SEAL_ALL), {"log": world.tenant.id})

    assert read(worker, WAITING) == []


def test_a_log_that_the_core_workers_database_role_extended_wrongly_is_not_sealed_further(
    world: World, worker: Database
) -> None:
    world.submit()
    sealed(worker)
    world.submit()
    _do(worker, text(SEAL_ALL).bindparams(log=world.tenant.id), text(HIDE))
    world.submit()

    with pytest.raises(RollbackDetected, match="does not match"):
        sealed(worker)


def test_the_api_and_the_notifications_worker_cannot_take_the_lock_of_the_sealer(
    world: World, worker: Database, notifications: Database
) -> None:
    world.submit()
    with world.db.transaction() as one, notifications.transaction() as other:
        one.execute(text("SELECT pg_advisory_xact_lock(281763489)"))
        for login in (one, other):
            with pytest.raises(DBAPIError, match="permission denied"), login.orm.begin_nested():
                login.execute(text("SELECT FROM turns FOR NO KEY UPDATE"))
        sealed(worker)

    assert read(worker, "SELECT FROM unsealed") == []
    with pytest.raises(DBAPIError, match="only locked"):
        write(worker.engine, "UPDATE turns SET name = 'mine'")


def test_the_notifications_worker_cannot_postpone_a_deadline(world: World, notifications: Database) -> None:
    request = world.submit()

    with pytest.raises(DBAPIError, match="request"):
        write(
            notifications.engine,
            "UPDATE requests SET wake_at = wake_at + interval '1 day' WHERE id = :id",
            id=request.id,
        )
