"""The unit of work: engines, transactions that arm the schedule after their commit, and array literals."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from enum import StrEnum
from functools import lru_cache, partial
from typing import Any, TypeVar, cast
from uuid import UUID

import psycopg
import structlog
from psycopg.errors import Diagnostic
from sqlalchemy import Connection, Engine, Executable, Result, TextClause, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection, ExceptionContext
from sqlalchemy.engine.result import IteratorResult, SimpleResultMetaData
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import Session

from lockbox.driver.prepared_statements import MOST_PREPARED, PREPARED_AFTER, keep_prepared
from lockbox.errors import NotReplicated
from lockbox.failpoints import failpoint
from lockbox.schedule import IndexEntry, News, Promises, Schedule, ScheduleIndex

log = structlog.get_logger(__name__)

Clock = Callable[["UnitOfWork"], datetime]
Key = TypeVar("Key")
Values = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None
Query = tuple[TextClause, Mapping[str, Any]]
Rows = Result[*tuple[Any, ...]]

STILL_THERE = {"keepalives_idle": 10, "keepalives_interval": 3, "keepalives_count": 3, "tcp_user_timeout": 15_000}
"""A dead connection is noticed within twenty seconds. The last value is in milliseconds, the others in seconds."""

BOUNDS = {
    "lock_timeout": "2s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "15s",
    "idle_session_timeout": "0",
    "TimeZone": "UTC",
    "synchronous_commit": "on",
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}
"""Settings for each of our statements. `config/roles.sql` gives them to the database logins, because a pooler does
not pass on what a client sets for its session. A process checks them before it serves.

Every table has row policies, so planning a statement takes longer than running it; each statement is planned once. A
commit returns when it is on disk, and also on the standby if `synchronous_standby_names` names one.
"""

CONNECT_ARGS: Mapping[str, Any] = {"prepare_threshold": PREPARED_AFTER, "connect_timeout": 3, **STILL_THERE}

WARNED = "warned"
NOT_REPLICATED = ("WARNING", "01000")
"""The warning that Postgres has stopped waiting for the standby. Postgres still reports the commit as done."""

PLANS_OUTDATED = "0A000"
"""The error code of a prepared statement whose columns a migration has changed.

Only a new connection helps.
"""

USED_AT = "used_at"
ASKED_AFTER = 1.0
"""A connection that was used within this many seconds is used again without a check that it is still open."""

CLOCK_TIME = text("SELECT clock_timestamp()")
ASYNC_COMMIT = text("SET LOCAL synchronous_commit = off")
# Any login can take an advisory lock, but only a login that may change a row can lock the row. A machine that is gone
# for minutes loses its turn.
TAKE_TURN = text("""
SELECT set_config('idle_in_transaction_session_timeout', '5min', true) FROM turns WHERE name = :name
FOR NO KEY UPDATE SKIP LOCKED
""")

DIALECT = make_url("postgresql+psycopg://").get_dialect()()
COLUMNS: dict[tuple[TextClause | str, int], SimpleResultMetaData] = {}
"""The column names of each statement, cached because the driver takes as long to name them as to read a row."""

NULL = "NULL"
WORDS_KEPT = 1024


def make_engine(url: str, *, role: str, pool_size: int = 2, overflow: int = 2) -> Engine:
    """Return an engine whose connections fail instead of waiting without limit.

    `role` is part of `application_name` in `pg_stat_activity`. `overflow` connections beyond `pool_size` are closed
    after use.
    """
    engine = create_engine(
        url,
        pool_size=pool_size,
        pool_use_lifo=True,
        max_overflow=overflow,
        pool_timeout=5,
        hide_parameters=True,
        connect_args={"application_name": f"lockbox-{role}", **CONNECT_ARGS},
    )
    event.listen(engine, "connect", keep_prepared)
    event.listen(engine, "connect", _collect_warnings)
    event.listen(engine, "checkout", partial(_see_if_there, engine))
    event.listen(engine, "checkin", _note_use)
    event.listen(engine, "handle_error", _drop_outdated)
    return engine


def _collect_warnings(connection: psycopg.Connection[Any], record: ConnectionPoolEntry) -> None:
    connection.add_notice_handler(lambda said: note_warning(said, record.info.get(WARNED, [])))


def note_warning(said: Diagnostic, warnings: list[str | None]) -> None:
    if (said.severity_nonlocalized, said.sqlstate) == NOT_REPLICATED:
        warnings.append(said.message_primary)


class WarnedSession(Session):
    warnings: list[str | None]


@event.listens_for(WarnedSession, "after_begin")
def _begin_warnings(session: WarnedSession, _: object, connection: Connection) -> None:
    # Each transaction gets its own list, because another transaction uses the connection after the commit.
    session.warnings = connection.info[WARNED] = []


def _note_use(_: object, record: ConnectionPoolEntry) -> None:
    record.info[USED_AT] = time.monotonic()


def _see_if_there(engine: Engine, connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
    if time.monotonic() - record.info.get(USED_AT, math.inf) < ASKED_AFTER:
        return
    try:
        engine.dialect.do_ping(connection)
    except psycopg.Error as error:
        raise InvalidatePoolError from error


def are_plans_outdated(error: BaseException | None) -> bool:
    return getattr(error, "sqlstate", None) == PLANS_OUTDATED


def _drop_outdated(context: ExceptionContext) -> None:
    """Close all connections of the pool, because all hold the outdated statements."""
    if are_plans_outdated(context.original_exception):
        context.is_disconnect = True


def _failed(connection: Connection, driver: psycopg.Connection[Any], error: psycopg.Error) -> BaseException:
    is_lost = driver.closed or are_plans_outdated(error)
    if is_lost:
        connection.invalidate(error)
        # The pool's other connections are lost too, or hold the same outdated statements.
        connection.engine.dispose()
    return DBAPIError.instance(
        "a pipeline", None, error, psycopg.Error, hide_parameters=True, connection_invalidated=is_lost
    )


class ProcessKeys:
    """The keys and checks of a process, such as its `Keyring`, at most one of each type.

    Workers have no key that signs or makes MACs.
    """

    def __init__(self, *held: object) -> None:
        self._held = {type(one): one for one in held if one is not None}

    def get(self, kind: type[Key]) -> Key | None:
        found = self._held.get(kind)
        return found if isinstance(found, kind) else None


NO_KEYS = ProcessKeys()


class ReadAhead:
    """The queries that a transaction will send next, and the rows of queries that were sent ahead.

    Rows are used only in the announced order of their queries: in another order, a query might have read other rows.
    """

    def __init__(self) -> None:
        self._foreseen: list[Query] = []
        self._ahead: deque[tuple[Query, Rows]] = deque()

    def foresee(self, queries: Iterable[Query]) -> None:
        self._foreseen = list(queries)

    def take(self, wanted: Query, send: Callable[[list[Query]], Sequence[Rows]]) -> Rows:
        if not self._ahead or not _is_same(self._ahead[0][0], wanted):
            if self._ahead and wanted[0] is CLOCK_TIME:
                # This statement reads no row, so the results that were read ahead stay valid.
                return send([wanted])[0]
            queries, self._foreseen = [wanted, *self._foreseen], []
            self._ahead = deque(zip(queries, send(queries), strict=True))
        return self._ahead.popleft()[1]

    def forget(self) -> None:
        self._ahead.clear()


def _is_same(foreseen: Query, wanted: Query) -> bool:
    return foreseen[0] is wanted[0] and foreseen[1] == wanted[1]


@lru_cache(maxsize=MOST_PREPARED)
def compiled(statement: TextClause | str) -> bytes:
    return (statement if isinstance(statement, str) else str(statement.compile(dialect=DIALECT)).strip()).encode()


def rows_of(
    statement: TextClause | str,
    cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any],
    fetched: Iterable[tuple[Any, ...]],
) -> Rows:
    # A migration may add columns while this process runs, so the key contains their number.
    width = cursor.pgresult.nfields if cursor.pgresult else 0
    names = COLUMNS.get((statement, width))
    if names is None:
        names = COLUMNS[statement, width] = SimpleResultMetaData([one.name for one in cursor.description or ()])
    return IteratorResult(names, iter(fetched))


class UnitOfWork:
    """One transaction, and the work after its commit.

    `execute` and `write` run our own SQL; `orm` reads and writes rows as objects. `promises` are the entries that the
    schedule has to hold after the commit. `news` are the ids of requests that the commit changes, by the side that
    may know of the change (None: both sides). `caller` is the person and the one tenant for row-level security.
    """

    def __init__(self, orm: WarnedSession, clock: Clock, keys: ProcessKeys) -> None:
        self.orm = orm
        self.clock = clock
        self.keys = keys
        self.read_ahead = ReadAhead()
        self.caller: tuple[UUID, UUID | None] | None = None
        self.promises: dict[ScheduleIndex, list[IndexEntry]] = {}
        self.news: dict[str | None, dict[str, None]] = {}

    def execute(self, statement: Executable, values: Values = None) -> Result[*tuple[Any, ...]]:
        if isinstance(statement, TextClause) and not isinstance(values, Sequence):
            return self.read_ahead.take((statement, values or {}), self._sent)
        self.read_ahead.forget()
        return self.orm.connection().execute(statement, values)

    def _sent(self, queries: list[Query]) -> Sequence[Rows]:
        connection = self.orm.connection()
        if len(queries) == 1:
            return [connection.execute(*queries[0])]
        driver = cast("psycopg.Connection[Any]", connection.connection.driver_connection)
        cursors = [driver.cursor() for _ in queries]
        try:
            with driver.pipeline():
                for cursor, (statement, values) in zip(cursors, queries, strict=True):
                    cursor.execute(compiled(statement), values)
        except psycopg.Error as error:
            raise _failed(connection, driver, error) from error
        read = zip(queries, cursors, strict=True)
        return [rows_of(statement, cursor, cursor.fetchall()) for (statement, _), cursor in read]

    def write(self, statement: TextClause, values: Values) -> None:
        """Run a statement before the commit. Its result is not used, and it changes no row that was read ahead."""
        self.orm.connection().execute(statement, values)

    def foresee(self, queries: Iterable[Query]) -> None:
        """Announce the queries that follow the next statement, in order: they are sent together with it."""
        self.read_ahead.foresee(queries)

    def wait(self) -> None:
        """Announce that the next steps take long or may wait, for a lock or for a service other than Postgres."""

    def connection(self) -> Connection:
        return self.orm.connection()


def postgres_clock(session: UnitOfWork) -> datetime:
    """Read the database's clock in a separate statement: a larger statement may read it before a wait for a lock."""
    instant: datetime = session.execute(CLOCK_TIME).scalar_one()
    return instant


class Database:
    """A Postgres database, the schedule that mirrors it, the authoritative clock, and the keys of the process.

    `direct` makes connections that keep their session between two transactions; by default, `engine` makes them.
    """

    def __init__(
        self,
        engine: Engine,
        schedule: Schedule,
        clock: Clock = postgres_clock,
        *,
        keys: ProcessKeys = NO_KEYS,
        direct: Engine | None = None,
    ) -> None:
        self.engine = engine
        self.direct = direct or engine
        self.schedule = schedule
        self.clock = clock
        self.keys = keys

    @contextmanager
    def transaction(self) -> Iterator[UnitOfWork]:
        """Open a unit of work; at the end commit it, arm its promises and publish its news.

        Any error rolls it back. If the schedule is unreachable, the commit is still valid: reconcile arms the missing
        entries.
        """
        with WarnedSession(self.engine, expire_on_commit=False) as orm:
            work = UnitOfWork(orm, self.clock, self.keys)
            with orm.begin():
                yield work
        self.follow(work.promises, work.news)
        if getattr(orm, "warnings", None):
            raise not_replicated()

    def follow(self, promises: Promises, news: News) -> None:
        for index, promised in promises.items():
            failpoint("transaction.before_arm")
            self.schedule.arm(index, promised)
            failpoint("transaction.after_arm")
        for side, ids in news.items():
            self.schedule.tell(ids, side)

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """Try to lock the row of `turns` with this name until the block ends; yield whether the lock is held."""
        with self.direct.connect() as connection:
            is_held = connection.execute(TAKE_TURN, {"name": name}).first() is not None
            if not is_held:
                connection.rollback()
            try:
                yield is_held
            finally:
                # A lost connection no longer holds the lock.
                with suppress(DBAPIError):
                    connection.rollback()

    def beside(self, engine: Engine) -> "Database":
        return Database(engine, self.schedule, self.clock, keys=self.keys)

    def dispose(self) -> None:
        self.engine.dispose()
        self.direct.dispose()
        self.schedule.close()


def not_replicated() -> NotReplicated:
    log.critical("database.not_replicated", do="look at the standby; see synchronous_standby_names")
    return NotReplicated(
        "This was done, but the standby of the database has not confirmed it: a failover could undo it. "
        "Look at the result again before you rely on it."
    )


def now(session: UnitOfWork) -> datetime:
    """Read the authoritative clock. Call it after a lock is acquired, not before."""
    return session.clock(session)


def read_at(session: UnitOfWork, seen: datetime) -> datetime:
    """Return `seen`, Postgres' time that came with a read. A session with another clock asks that clock instead.

    After a wait for a lock, use `now`.
    """
    return seen if session.clock is postgres_clock else session.clock(session)


def other_clock(session: UnitOfWork) -> datetime | None:
    """None if Postgres' clock decides: statements read that clock themselves."""
    return None if session.clock is postgres_clock else session.clock(session)


def async_commit(session: UnitOfWork) -> None:
    """Commit this transaction without waiting for the disk: a crash of Postgres may lose the last half second.

    Use it for work that is repeated after a loss and may be done twice. If a later commit survives a crash, so does
    this one.
    """
    session.execute(ASYNC_COMMIT)


def arm_after_commit(session: UnitOfWork, index: ScheduleIndex, promises: Iterable[IndexEntry]) -> None:
    session.promises.setdefault(index, []).extend(promises)


def publish_after_commit(session: UnitOfWork, ids: Iterable[UUID], side: str | None = None) -> None:
    """Publish the ids of changed requests after the commit; ids that are armed in `CLOCK` are published anyway.

    `side` is the side that the change concerns, None for both.
    """
    session.news.setdefault(side, {}).update((str(one), None) for one in ids)


def array(values: Iterable[UUID | datetime | int | str | bytes | None]) -> str:
    """Return an array literal of ids, instants, numbers, bytes or our own plain words.

    Pass text written by people as bytes: they become hexadecimal digits.

    Raises:
        ValueError: a text is not a plain word, or a value has another type.
    """
    return "{" + ",".join([WRITTEN.get(type(value), _refuse)(value) for value in values]) + "}"


def listed(ids: Iterable[str]) -> str:
    """Return an array literal. The ids are not escaped: they must come from our own code."""
    return "{" + ",".join(ids) + "}"


@lru_cache(WORDS_KEPT)
def _word(value: str) -> str:
    if not value.replace("_", "").isalnum():
        raise ValueError("only plain words go into an array literal")
    return str(value)


@lru_cache(WORDS_KEPT)
def _instant(value: datetime) -> str:
    return f'"{value.isoformat()}"'


def _refuse(value: object) -> str:
    if isinstance(value, StrEnum):
        return _word(value.value)
    raise ValueError(f"no {type(value).__name__} goes into an array literal")


WRITTEN: dict[type, Callable[..., str]] = {
    type(None): lambda _: NULL,
    UUID: lambda value: f"{value.int:032x}",
    datetime: _instant,
    int: str,
    str: _word,
    bytes: lambda value: f'"\\\\x{value.hex()}"',
}
"""The literal form of each type."""
