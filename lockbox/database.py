"""The unit of work: engines, transactions that arm what was promised after the commit, and arrays as literals."""

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
"""A silent network is noticed within twenty seconds; in seconds, the last in milliseconds."""

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
"""What holds for each statement of ours. `config/roles.sql` gives it to the logins, for a pooler passes on nothing
that a client sets for its session; a process checks it before it serves.

Planning takes longer than running here, for every table has its row policies: a statement is planned once. A commit
returns when it is on disk, and on the standby where `synchronous_standby_names` names one.
"""

CONNECT_ARGS: Mapping[str, Any] = {"prepare_threshold": PREPARED_AFTER, "connect_timeout": 3, **STILL_THERE}

WARNED = "warned"
NOT_REPLICATED = ("WARNING", "01000")
"""How Postgres says that it gave up waiting for the standby: the commit itself is reported as done all the same."""

PLANS_OUTDATED = "0A000"
"""How Postgres refuses a prepared statement that would return other columns since a migration.

Only a new connection helps.
"""

USED_AT = "used_at"
ASKED_AFTER = 1.0
"""A connection that was used within so many seconds is not asked first whether it is still there."""

CLOCK_TIME = text("SELECT clock_timestamp()")
ASYNC_COMMIT = text("SET LOCAL synchronous_commit = off")
# Any login can hold an advisory lock; a row is locked by whoever may change it. A machine that is gone for minutes
# loses its turn.
TAKE_TURN = text("""
SELECT set_config('idle_in_transaction_session_timeout', '5min', true) FROM turns WHERE name = :name
FOR NO KEY UPDATE SKIP LOCKED
""")

DIALECT = make_url("postgresql+psycopg://").get_dialect()()
COLUMNS: dict[tuple[TextClause | str, int], SimpleResultMetaData] = {}
"""The names of the columns of each statement: the driver takes as long to name them as to read a row."""

NULL = "NULL"
WORDS_KEPT = 1024


def make_engine(url: str, *, role: str, pool_size: int = 2, overflow: int = 2) -> Engine:
    """Return an engine whose connections give up rather than wait: `BOUNDS` are set on the server's side.

    Keep-alives notice a silent network, for which a client would wait two hours. `role` is in `application_name` of
    `pg_stat_activity`; `overflow` connections beyond `pool_size` are closed after use.
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
    """Put a warning that a commit is not on the standby into the list of the open transaction."""
    connection.add_notice_handler(lambda said: note_warning(said, record.info.get(WARNED, [])))


def note_warning(said: Diagnostic, warnings: list[str | None]) -> None:
    """Keep a notice of the server if it warns that a commit is not on the standby."""
    if (said.severity_nonlocalized, said.sqlstate) == NOT_REPLICATED:
        warnings.append(said.message_primary)


class WarnedSession(Session):
    """A session that keeps the server's warnings in its transaction."""

    warnings: list[str | None]


@event.listens_for(WarnedSession, "after_begin")
def _begin_warnings(session: WarnedSession, _: object, connection: Connection) -> None:
    """Give each transaction a list of its own: its connection serves others as soon as it has committed."""
    session.warnings = connection.info[WARNED] = []


def _note_use(_: object, record: ConnectionPoolEntry) -> None:
    record.info[USED_AT] = time.monotonic()


def _see_if_there(engine: Engine, connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
    """Replace the pool's connections where an idle one is gone."""
    if time.monotonic() - record.info.get(USED_AT, math.inf) < ASKED_AFTER:
        return
    try:
        engine.dialect.do_ping(connection)
    except psycopg.Error as error:
        raise InvalidatePoolError from error


def are_plans_outdated(error: BaseException | None) -> bool:
    """Whether a migration has changed what a prepared statement of this connection returns."""
    return getattr(error, "sqlstate", None) == PLANS_OUTDATED


def _drop_outdated(context: ExceptionContext) -> None:
    """Close all connections of the pool: the others hold the same statements."""
    if are_plans_outdated(context.original_exception):
        context.is_disconnect = True


def _failed(connection: Connection, driver: psycopg.Connection[Any], error: psycopg.Error) -> BaseException:
    """Return the error of a pipeline as SQLAlchemy raises it, which has not seen the pipeline."""
    is_lost = driver.closed or are_plans_outdated(error)
    if is_lost:
        connection.invalidate(error)
        # The others are gone too, or hold the same statements.
        connection.engine.dispose()
    return DBAPIError.instance(
        "a pipeline", None, error, psycopg.Error, hide_parameters=True, connection_invalidated=is_lost
    )


class ProcessKeys:
    """The keys and checks of a process, at most one of each type; workers hold none that signs or marks.

    The types are defined by the packages that use them: `Keyring`, `ApprovalKeys`, `WitnessCheck`.
    """

    def __init__(self, *held: object) -> None:
        self._held = {type(one): one for one in held if one is not None}

    def get(self, kind: type[Key]) -> Key | None:
        """None where the process holds none."""
        found = self._held.get(kind)
        return found if isinstance(found, kind) else None


NO_KEYS = ProcessKeys()


class ReadAhead:
    """What a transaction has foreseen, and the rows that are there already.

    They are used only in the order in which they were foreseen: in another order, the statements might have read
    other rows.
    """

    def __init__(self) -> None:
        self._foreseen: list[Query] = []
        self._ahead: deque[tuple[Query, Rows]] = deque()

    def foresee(self, queries: Iterable[Query]) -> None:
        """Send these queries along with the next one."""
        self._foreseen = list(queries)

    def take(self, wanted: Query, send: Callable[[list[Query]], Sequence[Rows]]) -> Rows:
        """Return the rows that were read ahead, or `send` the query together with what was foreseen."""
        if not self._ahead or not _is_same(self._ahead[0][0], wanted):
            if self._ahead and wanted[0] is CLOCK_TIME:
                # It reads no row, and what is ahead stays as good as it was.
                return send([wanted])[0]
            queries, self._foreseen = [wanted, *self._foreseen], []
            self._ahead = deque(zip(queries, send(queries), strict=True))
        return self._ahead.popleft()[1]

    def forget(self) -> None:
        """Drop what was read ahead: what follows may change it."""
        self._ahead.clear()


def _is_same(foreseen: Query, wanted: Query) -> bool:
    return foreseen[0] is wanted[0] and foreseen[1] == wanted[1]


@lru_cache(maxsize=MOST_PREPARED)
def compiled(statement: TextClause | str) -> bytes:
    """Return a statement as the driver takes it."""
    return (statement if isinstance(statement, str) else str(statement.compile(dialect=DIALECT)).strip()).encode()


def rows_of(
    statement: TextClause | str,
    cursor: psycopg.Cursor[Any] | psycopg.AsyncCursor[Any],
    fetched: Iterable[tuple[Any, ...]],
) -> Rows:
    """Return the rows that a cursor has fetched, as SQLAlchemy would."""
    # A migration may add columns while this process runs.
    width = cursor.pgresult.nfields if cursor.pgresult else 0
    names = COLUMNS.get((statement, width))
    if names is None:
        names = COLUMNS[statement, width] = SimpleResultMetaData([one.name for one in cursor.description or ()])
    return IteratorResult(names, iter(fetched))


class UnitOfWork:
    """One transaction: its connection, its clock, the keys of the process, its caller, and what follows its commit.

    Statements of our own go through `execute` and `write`, which any connection can offer; `orm` reads and writes
    rows as objects. `call_groups` has a transaction that shares its round trips with others. `promises` is what the
    schedule holds once this is committed, `news` the requests that then look different, by the side that may know,
    None for both. `caller` is the person, and the one tenant, in row-level security.
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
        """Return the rows of a statement that were read ahead, or run it, together with what was foreseen."""
        if isinstance(statement, TextClause) and not isinstance(values, Sequence):
            return self.read_ahead.take((statement, values or {}), self._sent)
        self.read_ahead.forget()
        return self.orm.connection().execute(statement, values)

    def _sent(self, queries: list[Query]) -> Sequence[Rows]:
        """Send these queries in one pipeline; one alone as SQLAlchemy does."""
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
        """Run a statement before the commit: its result is not used, and it changes nothing that was read ahead."""
        self.orm.connection().execute(statement, values)

    def foresee(self, queries: Iterable[Query]) -> None:
        """Name what will be read after the next statement, in that order: it is sent along with that one."""
        self.read_ahead.foresee(queries)

    def wait(self) -> None:
        """Announce that what follows takes long, or may wait: for a lock, or for something beside Postgres."""

    def connection(self) -> Connection:
        return self.orm.connection()


def postgres_clock(session: UnitOfWork) -> datetime:
    """Read the database's clock, in a statement of its own: inside another one it may be read before a lock wait."""
    instant: datetime = session.execute(CLOCK_TIME).scalar_one()
    return instant


class Database:
    """An engine, the schedule that mirrors it, the clock that decides, and the keys of the process.

    `direct` makes the connections that keep their session between two transactions; None where those of `engine` do.
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
        """Open a unit of work; commit on the way out, then arm what it promised and publish its news.

        Any error rolls it back. If the schedule is away, the commit stands: reconcile arms what is missing.
        """
        with WarnedSession(self.engine, expire_on_commit=False) as orm:
            work = UnitOfWork(orm, self.clock, self.keys)
            with orm.begin():
                yield work
        self.follow(work.promises, work.news)
        if getattr(orm, "warnings", None):
            raise not_replicated()

    def follow(self, promises: Promises, news: News) -> None:
        """Arm what was promised and publish the news of a committed transaction."""
        for index, promised in promises.items():
            failpoint("transaction.before_arm")
            self.schedule.arm(index, promised)
            failpoint("transaction.after_arm")
        for side, ids in news.items():
            self.schedule.tell(ids, side)

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """Try to lock this row of `turns` until the end; yield whether it is held."""
        with self.direct.connect() as connection:
            is_held = connection.execute(TAKE_TURN, {"name": name}).first() is not None
            if not is_held:
                connection.rollback()
            try:
                yield is_held
            finally:
                # A connection that is gone holds nothing.
                with suppress(DBAPIError):
                    connection.rollback()

    def beside(self, engine: Engine) -> "Database":
        """Return the same by connections of another pool."""
        return Database(engine, self.schedule, self.clock, keys=self.keys)

    def dispose(self) -> None:
        self.engine.dispose()
        self.direct.dispose()
        self.schedule.close()


def not_replicated() -> NotReplicated:
    """Log that a commit is not on the standby, and return the error to raise."""
    log.critical("database.not_replicated", do="look at the standby; see synchronous_standby_names")
    return NotReplicated(
        "This was done, but the standby of the database has not confirmed it: a failover could undo it. "
        "Look at the result again before you rely on it."
    )


def now(session: UnitOfWork) -> datetime:
    """Read the clock that decides; call it after the lock is held, not before."""
    return session.clock(session)


def read_at(session: UnitOfWork, seen: datetime) -> datetime:
    """Return Postgres' time that came with a read, or what another clock says by now.

    It saves a round trip where nothing is waited for: after a wait for a lock, use `now`.
    """
    return seen if session.clock is postgres_clock else session.clock(session)


def other_clock(session: UnitOfWork) -> datetime | None:
    """None where Postgres' clock decides: statements read it."""
    return None if session.clock is postgres_clock else session.clock(session)


def async_commit(session: UnitOfWork) -> None:
    """Let this transaction's commit not wait for the disk: a Postgres that dies may forget its last half second.

    For what is repeated if it was forgotten, and may be done twice. Order is kept: what is committed after it and is
    not lost has not lost it either.
    """
    session.execute(ASYNC_COMMIT)


def arm_after_commit(session: UnitOfWork, index: ScheduleIndex, promises: Iterable[IndexEntry]) -> None:
    """Note what the schedule has to hold once this session has committed."""
    session.promises.setdefault(index, []).extend(promises)


def publish_after_commit(session: UnitOfWork, ids: Iterable[UUID], side: str | None = None) -> None:
    """Note requests that look different after the commit, without entries of the schedule.

    Entries of the clock's index are news already. `side` is the one that it concerns, None for both.
    """
    session.news.setdefault(side, {}).update((str(one), None) for one in ids)


def array(values: Iterable[UUID | datetime | int | str | bytes | None]) -> str:
    """Return the literal of an array of ids, instants, numbers, bytes or our own plain words.

    The driver quotes and escapes each element, which took half the time of a batch. Texts by people are bytes here,
    which are written as hexadecimal digits.

    Raises:
        ValueError: a text is not a plain word, or a value is of another type.
    """
    return "{" + ",".join([WRITTEN.get(type(value), _refuse)(value) for value in values]) + "}"


def listed(ids: Iterable[str]) -> str:
    """Return the literal of an array of ids that we made as text ourselves."""
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
