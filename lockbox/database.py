"""The unit of work: engines, and the one transaction that commits and then arms what was promised."""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import psycopg
import structlog
from psycopg.errors import Diagnostic
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session

from lockbox.errors import NotReplicated
from lockbox.failpoints import failpoint
from lockbox.schedule import IndexEntry, Schedule, ScheduleIndex

log = structlog.get_logger(__name__)

Clock = Callable[[Session], datetime]

STILL_THERE = {"keepalives_idle": 10, "keepalives_interval": 3, "keepalives_count": 3, "tcp_user_timeout": 15_000}
"""A silent network is noticed within twenty seconds; in seconds, the last in milliseconds."""

OPTIONS = (
    "-c lock_timeout=2s -c statement_timeout=10s -c idle_in_transaction_session_timeout=15s -c timezone=UTC "
    "-c idle_session_timeout=0 -c synchronous_commit=on "
    "-c plan_cache_mode=force_generic_plan -c jit=off"
)
"""Planning takes longer than running here, for every table has its row policies: a statement is planned once.

A commit returns when it is on disk, and on the standby where `synchronous_standby_names` names one.
"""

PREPARED_AFTER = 1
MOST_PREPARED = 500
"""How often a statement is sent before it is kept prepared, and how many a connection keeps."""

WARNED = "warned"
NOT_REPLICATED = ("WARNING", "01000")
"""How Postgres says that it gave up waiting for the standby: the commit itself is reported as done all the same."""

USED_AT = "used_at"
ASKED_AFTER = 1.0
"""A connection that was used within so many seconds is not asked first whether it is still there."""

CLOCK_TIME = "SELECT clock_timestamp()"
TRY_LOCK = text("SELECT pg_try_advisory_lock(:number)")
LAZILY = text("SET LOCAL synchronous_commit = off")
UNLOCK = text("SELECT pg_advisory_unlock(:number)")


def make_engine(url: str, *, role: str, pool_size: int = 2, overflow: int = 2) -> Engine:
    """Return an engine whose connections give up rather than wait: limits are set on the server's side.

    But for one: a network that drops a connection without a word would have us wait for two hours, were the other
    side not asked every few seconds whether it is still there.

    Args:
        url: the login of this process.
        role: shown as `application_name` in `pg_stat_activity`.
        pool_size: connections that are kept.
        overflow: connections beyond those, closed after use.
    """
    engine = create_engine(
        url,
        pool_size=pool_size,
        pool_use_lifo=True,
        max_overflow=overflow,
        pool_timeout=5,
        hide_parameters=True,
        connect_args={
            "application_name": f"lockbox-{role}",
            "options": OPTIONS,
            "prepare_threshold": PREPARED_AFTER,
            "connect_timeout": 3,
            **STILL_THERE,
        },
    )
    event.listen(engine, "connect", _keep_prepared)
    event.listen(engine, "connect", _collect_warnings)
    event.listen(engine, "checkout", partial(_see_if_there, engine))
    event.listen(engine, "checkin", _note_use)
    return engine


def _keep_prepared(connection: psycopg.Connection[Any], _: object) -> None:
    connection.prepared_max = MOST_PREPARED


def _collect_warnings(connection: psycopg.Connection[Any], record: ConnectionPoolEntry) -> None:
    """Put a warning of the server that it did not wait for the standby into the list of the open transaction."""

    def collect(said: Diagnostic) -> None:
        if (said.severity_nonlocalized, said.sqlstate) == NOT_REPLICATED:
            record.info.get(WARNED, []).append(said.message_primary)

    connection.add_notice_handler(collect)


@event.listens_for(Session, "after_begin")
def _begin_warnings(session: Session, _: object, connection: Connection) -> None:
    """Give each transaction a list of its own: its connection serves somebody else as soon as it has committed."""
    session.info[WARNED] = connection.info[WARNED] = []


def _note_use(_: object, record: ConnectionPoolEntry) -> None:
    record.info[USED_AT] = time.monotonic()


def _see_if_there(engine: Engine, connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
    """Have the pool make other connections, where one that lay idle for a while is gone."""
    if time.monotonic() - record.info.get(USED_AT, math.inf) < ASKED_AFTER:
        return
    try:
        engine.dialect.do_ping(connection)
    except psycopg.Error as error:
        raise InvalidatePoolError from error


def postgres_clock(session: Session) -> datetime:
    """Read the database's clock, in a statement of its own: inside another one it may be read before a lock wait."""
    instant: datetime = session.connection().exec_driver_sql(CLOCK_TIME).scalar_one()
    return instant


class Database:
    """An engine, the schedule that mirrors it, and the clock by which everything is judged.

    `approvals` are the keys by which windows are opened, where this process may open any (see `audit.approvals`), and
    `shipped` what left the house of the trail, where this process is told (see `audit.behind`). `keyring` has
    the keys that no login holds, where this process signs people in (see `people.keyring`).
    """

    def __init__(
        self,
        engine: Engine,
        schedule: Schedule,
        clock: Clock = postgres_clock,
        *,
        approvals: object | None = None,
        shipped: object | None = None,
        keyring: object | None = None,
    ) -> None:
        self.engine = engine
        self.schedule = schedule
        self.clock = clock
        self.approvals = approvals
        self.shipped = shipped
        self.keyring = keyring

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a session; commit on the way out, then arm what it promised and tell its news; roll back on any error.

        A schedule that is away costs a log line and never the commit: reconciling arms what is missing.

        Raises:
            NotReplicated: it is committed and armed here, and the standby has not confirmed it in time.
        """
        with Session(self.engine, expire_on_commit=False) as session:
            session.info["clock"] = self.clock
            session.info["approvals"] = self.approvals
            session.info["shipped"] = self.shipped
            session.info["keyring"] = self.keyring
            session.info["promises"] = promises = dict[ScheduleIndex, list[IndexEntry]]()
            session.info["news"] = told = dict[str | None, dict[str, None]]()
            with session.begin():
                yield session
        for index, promised in promises.items():
            failpoint("transaction.before_arm")
            self.schedule.arm(index, promised)
            failpoint("transaction.after_arm")
        for side, ids in told.items():
            self.schedule.tell(ids, side)
        if session.info.get(WARNED):
            log.critical("database.not_replicated", do="look at the standby; see synchronous_standby_names")
            raise NotReplicated(
                "This was done, but the standby of the database has not confirmed it: a failover could undo it. "
                "Look at the result again before you rely on it."
            )

    @contextmanager
    def alone(self, number: int) -> Iterator[bool]:
        """Say whether nobody else holds the advisory lock with this number, and hold it until the end."""
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            alone = bool(connection.execute(TRY_LOCK, {"number": number}).scalar())
            try:
                yield alone
            finally:
                if alone:
                    connection.execute(UNLOCK, {"number": number})

    def beside(self, engine: Engine) -> "Database":
        """Return the same by connections of another pool."""
        return Database(
            engine,
            self.schedule,
            self.clock,
            approvals=self.approvals,
            shipped=self.shipped,
            keyring=self.keyring,
        )

    def dispose(self) -> None:
        """Close every connection to Postgres and Redis."""
        self.engine.dispose()
        self.schedule.close()


@contextmanager
def as_owner(url: str, keyring: object | None = None) -> Iterator[Session]:
    """Open one transaction past row-level security, for what is set up by hand; nothing in it may be promised.

    Whoever adds people or tokens has to have the API's keyring.

    Raises:
        RuntimeError: something was promised, which only a server's transaction arms.
    """
    engine = make_engine(url, role="owner")
    try:
        with Session(engine, expire_on_commit=False) as session:
            session.info["clock"] = postgres_clock
            session.info["keyring"] = keyring
            session.info["promises"] = promises = dict[ScheduleIndex, list[IndexEntry]]()
            with session.begin():
                yield session
                if promises:
                    raise RuntimeError("a promise was made where nobody keeps it")
    finally:
        engine.dispose()


def now(session: Session) -> datetime:
    """Read the clock that decides; call it after the lock is held, not before."""
    clock: Clock = session.info["clock"]
    return clock(session)


def read_at(session: Session, seen: datetime) -> datetime:
    """Return when something was read that brought Postgres' time with it: that, or what another clock says by now.

    It saves a round trip where nothing is waited for: what waits for a lock reads the clock after it, by `now`.
    """
    clock: Clock = session.info["clock"]
    return seen if clock is postgres_clock else clock(session)


def async_commit(session: Session) -> None:
    """Let this transaction's commit not wait for the disk: a Postgres that dies may forget its last half second.

    For what is done again where it was forgotten, and may be done twice. Order is kept: what is committed after it
    and is not lost has not lost it either.
    """
    session.connection().execute(LAZILY)


def arm_after_commit(session: Session, index: ScheduleIndex, promises: Iterable[IndexEntry]) -> None:
    """Note what the schedule has to hold once this session has committed."""
    session.info["promises"].setdefault(index, []).extend(promises)


def publish_after_commit(session: Session, ids: Iterable[UUID], side: str | None = None) -> None:
    """Note requests that look otherwise once this session has committed, though nothing is promised of them.

    What is promised on the clock's index is news already. `side` is the one that it concerns, None for both.
    """
    told = session.info.setdefault("news", {}).setdefault(side, {})
    told.update((str(one), None) for one in ids)
