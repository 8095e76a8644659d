"""Scenes on a real database: many requests at once, concurrent threads, and checks of rows and indexes."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from harness.outbox import fan_out_all
from harness.people import HERE, SETTINGS, World, vouch_for
from harness.stage import as_sender, unbound
from lockbox.audit.events import VENDORS_LOG
from lockbox.database import NO_KEYS, Database, UnitOfWork, WarnedSession, postgres_clock
from lockbox.errors import LockboxError, NoOpenWindow
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.roles import Caller
from lockbox.requests import access_check, submit
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.deadlines import clock_task
from lockbox.requests.models import AccessRequest
from lockbox.schedule import CLOCK, NOTIFICATIONS

PATIENCE = 20.0
COLUMNS = "id, tenant_id, request_id, seq, at, action, actor_id, actor_role, from_state, to_state"
MAILBOX = "mailbox:anna@contoso.example"


def many(world: World, count: int, who: str = "erin", **changes: Any) -> list[UUID]:
    with world.db.transaction() as session:
        return [
            submit.submit(
                session, world.people[who], HERE, world.submission(**changes), SETTINGS.catalogue.services
            ).request.id
            for _ in range(count)
        ]


def at_once(pool: ThreadPoolExecutor, *calls: Callable[[], object]) -> list[object]:
    """Make all calls at the same moment, each in a thread; return what each returned, or its refusal."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> object:
        barrier.wait(PATIENCE)
        try:
            return call()
        except LockboxError as refusal:
            return refusal

    running = [pool.submit(run, call) for call in calls]
    return [one.result(PATIENCE) for one in running]


def read(source: Database | Engine, query: str, **parameters: object) -> Sequence[Row[Any]]:
    """Return the rows of a query; if it reads notifications, fan out the outbox first."""
    if isinstance(source, Database) and "notifications" in query:
        fan_out_all(as_sender(source))
    return read_as_is(source, query, **parameters)


def read_as_is(source: Database | Engine, query: str, **parameters: object) -> Sequence[Row[Any]]:
    """Return the rows of a query, without fanning out the outbox."""
    engine = unbound(source) if isinstance(source, Database) else source
    with engine.connect() as connection:
        return connection.execute(text(query), parameters).all()


@contextmanager
def as_caller(db: Database | Engine, caller: Caller, at: UUID | None = None) -> Iterator[Connection]:
    """Open a transaction of that database role in the caller's context for row-level security; commit it at the end.

    `at` is the tenant that a caller of the vendor works on.
    """
    with WarnedSession(db.engine if isinstance(db, Database) else db) as orm, orm.begin():
        session = UnitOfWork(orm, postgres_clock, NO_KEYS)
        authentication.enter(session, caller)
        if at:
            authentication.turn_to(session, at)
        yield session.connection()


INTERNAL = "to_state = 'reviewing' OR (from_state = 'reviewing' AND to_state NOT IN ('pending', 'active'))"


def telling(rows: str) -> str:
    """Return SQL that inserts events whose bodies match their rows; `rows` is the text after SELECT."""
    is_internal = f"coalesce({INTERNAL}, false)"
    log = f"CASE WHEN {is_internal} OR tenant_id IS NULL THEN '{VENDORS_LOG}'::uuid ELSE tenant_id END"
    at = "to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    body = f"convert_to((to_jsonb(row) || jsonb_build_object('log', {log}, 'at', {at}))::text, 'UTF8')"
    told = f"SELECT {COLUMNS}, {is_internal}, {body} FROM (SELECT {rows}) AS row ({COLUMNS})"  # noqa: S608 - our own SQL
    return f"INSERT INTO events ({COLUMNS}, internal, body) {told}"


def write(engine: Engine, statement: str, **parameters: object) -> None:
    """Run an SQL statement as the engine's database role, and commit it."""
    with engine.begin() as connection:
        connection.execute(text(statement), parameters)
    if engine.url.username == "postgres":
        vouch_for(engine, statement)


def write_unchecked(superuser: Engine, statement: str, **parameters: object) -> None:
    """Run an SQL statement as a database owner who has switched the triggers off, and commit it."""
    with superuser.connect() as connection, connection.execution_options(isolation_level="READ COMMITTED").begin():
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(statement), parameters)


def set_back(superuser: Engine, ids: Sequence[UUID], seconds: float) -> None:
    """Set the deadlines of these open requests to that many seconds ago, without any trigger."""
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(
            text("""
                UPDATE requests SET deadline_at = due.at, wake_at = due.at
                FROM (SELECT clock_timestamp() - make_interval(secs => :seconds) AS at) due WHERE id = ANY(:ids)
            """),
            {"ids": list(ids), "seconds": seconds},
        )
        # The connection may serve other tests, in which triggers are to hold.
        connection.execute(text("RESET session_replication_role"))


def state_of(db: Database, request_id: UUID) -> str:
    (row,) = read(db, "SELECT state FROM requests WHERE id = :id", id=request_id)
    return str(row.state)


def moves_of(db: Database, request_id: UUID) -> list[tuple[int, str, str]]:
    """Return seq, action and new state of each move of a request."""
    query = "SELECT seq, action, to_state FROM events WHERE request_id = :id AND seq IS NOT NULL ORDER BY seq"
    return [(row.seq, row.action, row.to_state) for row in read(db, query, id=request_id)]


def milliseconds(moment: datetime) -> float:
    return float(math.ceil(moment.timestamp() * 1000))


def promised_clocks(db: Database) -> dict[str, float]:
    """Return the entries that the index of deadlines must hold according to the rows."""
    rows = read(db, "SELECT id, state, wake_at, deadline_at FROM requests WHERE wake_at IS NOT NULL")
    kinds = {row.id: clock_task(State(row.state), row.wake_at, row.deadline_at) for row in rows}
    return {f"{kinds[row.id]}:{row.id}": milliseconds(row.wake_at) for row in rows}


def promised_notifications(db: Database) -> dict[str, float]:
    """Return the entries that the index of notifications must hold according to the rows."""
    rows = read_as_is(
        db,
        """
        SELECT id, run_at FROM notifications WHERE closed_at IS NULL UNION ALL SELECT event_id, run_at FROM outbox
        UNION ALL SELECT id, settle_by FROM unsettled
        """,
    )
    return {f"notify:{row.id}": milliseconds(row.run_at) for row in rows}


def assert_indexes_are_true(db: Database) -> None:
    """Check that both indexes hold what Postgres promises, and nothing else (I8)."""
    assert db.schedule.members(CLOCK) == promised_clocks(db)
    assert db.schedule.members(NOTIFICATIONS) == promised_notifications(db)


def assert_audit_logs_are_whole(db: Database) -> None:
    """Check each request: one event a move without a gap, the last in the row's state; never both denied and open."""
    rows = read(
        db,
        """
        SELECT r.version, r.state, array_agg(e.seq ORDER BY e.seq) AS seqs,
            array_agg(e.to_state ORDER BY e.seq) AS states
        FROM requests r JOIN events e ON e.request_id = r.id AND e.seq IS NOT NULL GROUP BY r.id
        """,
    )
    assert len(rows) == read(db, "SELECT count(*) AS number FROM requests")[0].number
    for row in rows:
        assert row.seqs == list(range(1, row.version + 1))
        assert row.states[-1] == row.state
        assert not {"denied", "active"} <= set(row.states)


def door(world: World, who: str = "erin", resource: str = MAILBOX, *, asker: str = "gate") -> AccessRequest | None:
    """Check access as a guarded system does; return the request that grants it, or None."""
    question = AccessCheck(world.tenant.slug, "exchange-online", resource, "read", world.people[who].person_id)
    with world.db.transaction() as session:
        try:
            return access_check.check(session, world.people[asker], question).request
        except NoOpenWindow:
            return None
