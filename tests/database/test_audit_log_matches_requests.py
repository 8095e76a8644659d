"""The audit log and the requests agree, whoever writes: refused by the database itself, whatever our code does."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.people import World
from lockbox.database import Database
from lockbox.errors import NotYours
from lockbox.requests.lifecycle import Action
from tests.database.scenes import as_caller, read, state_of, telling

TELL = telling(
    "uuidv7(), tenant_id, id, version + 1, now(), CAST(:action AS text), "
    "CASE :role WHEN 'clock' THEN NULL ELSE requester_id END, CAST(:role AS text), state, CAST(:state AS text) "
    "FROM requests"
)


def _write(world: World, db: Database, statement: str, **values: str) -> None:
    """Write one row as that login; for row-level security it is the one request's engineer who does it."""
    with as_caller(db, world.people["erin"], at=world.tenant.id) as connection:
        assert connection.execute(text(statement), values).rowcount == 1


@pytest.mark.parametrize("login", ["api", "worker"])
def test_no_login_moves_a_request_without_an_event(world: World, login: str, request: pytest.FixtureRequest) -> None:
    submitted = world.submit()
    db: Database = request.getfixturevalue(login)
    ended = "UPDATE requests SET state = 'timed_out', version = version + 1, wake_at = NULL, closed_at = now()"

    with pytest.raises(DBAPIError, match="moved without an event"):
        _write(world, db, ended)

    assert state_of(db, submitted.id) == "pending"


@pytest.mark.parametrize(
    ("login", "action", "role", "state"),
    [("api", "cancel", "engineer", "cancelled"), ("worker", "time_out", "clock", "timed_out")],
)
def test_no_login_tells_of_a_move_that_was_not_made(
    world: World, request: pytest.FixtureRequest, *, login: str, action: str, role: str, state: str
) -> None:
    world.submit()
    db: Database = request.getfixturevalue(login)

    with pytest.raises(DBAPIError, match="a move that was not made"):
        _write(world, db, TELL, action=action, role=role, state=state)

    assert len(read(db, "SELECT FROM events")) == 1


@pytest.mark.parametrize(
    ("action", "role", "state"),
    [("revoke", "approver", "revoked"), ("approve", "approver", "active"), ("expire", "clock", "active")],
)
def test_a_worker_speaks_for_the_clock_alone(
    world: World, worker: Database, action: str, role: str, state: str
) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)

    with pytest.raises(DBAPIError, match="the clock"):
        _write(world, worker, TELL, action=action, role=role, state=state)

    assert len(read(worker, "SELECT FROM events")) == 2


def test_a_worker_cannot_send_a_notification_to_somebody_else(world: World, worker: Database) -> None:
    world.submit()

    with pytest.raises(DBAPIError, match="permission denied"):
        _write(world, worker, "UPDATE notifications SET person_id = (SELECT requester_id FROM requests LIMIT 1)")

    assert len(read(worker, "SELECT DISTINCT person_id FROM notifications")) == 3


def test_an_approver_who_is_removed_while_waiting_for_the_lock_no_longer_approves(
    world: World, superuser: Engine
) -> None:
    submitted = world.submit()
    with superuser.connect() as holder, ThreadPoolExecutor(1) as pool:
        holder.execute(text("BEGIN"))
        holder.execute(text("SELECT FROM requests FOR UPDATE"))
        waiting = pool.submit(world.act, "ann", Action.APPROVE, submitted.id)
        waits = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        while not read(superuser, waits):
            assert not waiting.done()
        holder.execute(text("DELETE FROM memberships WHERE person_id = :ann"), {"ann": world.people["ann"].person_id})
        holder.execute(text("COMMIT"))

        with pytest.raises(NotYours):
            waiting.result()

    assert state_of(world.db, submitted.id) == "pending"
