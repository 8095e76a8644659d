"""Checks before a server process starts: its database login has no excess rights, and the schema matches.

The functions raise StartupCheckFailed.
"""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from lockbox import migrations, postgres_version
from lockbox.database import BOUNDS
from lockbox.sql import is_pooled

log = structlog.get_logger(__name__)

WAIT_SECONDS = 30
LOGIN_REFUSED = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
STATEMENT_MODE = "not allowed in statement pooling mode"
RAISE_MAX_CONNECTIONS = (
    "raise max_connections (200 holds two of each process) and restart Postgres, or put PgBouncer before it"
)
NONE_LEFT = ("too many clients already", "remaining connection slots", "too many connections for")


UNAWAITED_STANDBY = (
    "a standby follows this Postgres and commits do not wait for it, so a failover may lose a revoke that was "
    "acknowledged"
)
NAME_THE_STANDBY = f"{UNAWAITED_STANDBY}: name it in synchronous_standby_names"


class StartupCheckFailed(Exception):  # noqa: N818 - it names what was found
    """The process must not start; the message says what is wrong and what to change."""

    def __init__(self, found: str, fix: str) -> None:
        super().__init__(f"{found}; {fix}")
        self.found, self.fix = found, fix


class ServerKind(StrEnum):
    """The kinds of server process; the value is the environment variable of its database login."""

    API = "LOCKBOX_DATABASE_URL"
    WORKER = "LOCKBOX_WORKER_DATABASE_URL"
    NOTIFICATIONS = "LOCKBOX_NOTIFICATIONS_DATABASE_URL"
    CONNECTORS = "LOCKBOX_CONNECTORS_DATABASE_URL"


FINAL = tuple((table, right) for table in ("events", "decisions") for right in ("UPDATE", "DELETE", "TRUNCATE"))


@dataclass(frozen=True)
class ServerRules:
    """`role` begins the process's name in heartbeats. The process opens at most `connections` connections."""

    role: str
    connections: int
    needed: Sequence[tuple[str, str]]
    forbidden: Sequence[tuple[str, str]]


RULES = {
    ServerKind.API: ServerRules("api", 58, needed=(("decisions", "INSERT"), ("requests", "INSERT")), forbidden=FINAL),
    ServerKind.WORKER: ServerRules(
        "core",
        20,
        needed=(("seals", "INSERT"), ("events", "INSERT")),
        forbidden=(
            *FINAL,
            ("decisions", "INSERT"),
            ("requests", "INSERT"),
            ("tokens", "SELECT"),
            ("notifications", "UPDATE"),
            ("deliveries", "INSERT"),
        ),
    ),
    ServerKind.NOTIFICATIONS: ServerRules(
        "notifications",
        20,
        needed=(("notifications", "UPDATE"), ("deliveries", "INSERT")),
        forbidden=(
            *FINAL,
            ("decisions", "INSERT"),
            ("requests", "INSERT"),
            ("tokens", "SELECT"),
            ("sessions", "SELECT"),
            ("invitations", "UPDATE"),
            ("seals", "INSERT"),
        ),
    ),
    ServerKind.CONNECTORS: ServerRules(
        "connectors",
        12,
        needed=(("connections", "UPDATE"), ("events", "INSERT")),
        forbidden=(
            *FINAL,
            ("decisions", "INSERT"),
            ("requests", "INSERT"),
            ("requests", "UPDATE"),
            ("tokens", "SELECT"),
            ("sessions", "SELECT"),
            ("seals", "INSERT"),
        ),
    ),
}
ALWAYS = (ServerKind.API, ServerKind.WORKER, ServerKind.NOTIFICATIONS)
"""The kinds of server that every installation has."""

# A login has the rights of every role that it could become by SET ROLE.
WHO = text("""
SELECT current_user AS name, bool_or(r.rolsuper) AS rolsuper, bool_or(r.rolbypassrls) AS rolbypassrls,
    bool_or(r.rolcreaterole) AS rolcreaterole, bool_or(r.rolcreatedb) AS rolcreatedb,
    bool_or(r.oid = (SELECT nspowner FROM pg_namespace WHERE nspname = 'public')) AS owns
FROM pg_roles r WHERE pg_has_role(current_user, r.oid, 'MEMBER')
""")
MAY = text("SELECT has_table_privilege(:table, :right)")
MAY_A_COLUMN = text("SELECT has_any_column_privilege(:table, :right)")
LAGGING_STANDBY = """
SELECT EXISTS (SELECT FROM pg_stat_replication) AND current_setting('synchronous_standby_names') = ''
"""
HAS_LAGGING_STANDBY = text(LAGGING_STANDBY)
HAS_REVISIONS = text("SELECT to_regclass('public.alembic_version') IS NOT NULL")
BUDGET = text("SELECT allowed, of_login, promised FROM connection_budget(:role, :node)")
LIMITS = text("""
SELECT current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
        - current_setting('reserved_connections')::integer AS of_server,
    nullif(d.datconnlimit, -1) AS of_database, quote_ident(d.datname) AS database,
    nullif(r.rolconnlimit, -1) AS of_login, quote_ident(r.rolname) AS login
FROM pg_database d, pg_roles r WHERE d.datname = current_database() AND r.rolname = session_user
""")
SETTINGS = text("SELECT name, current_setting(name) AS value FROM unnest(CAST(:names AS text[])) AS b (name)")
SERVER = text("""
SELECT pg_postmaster_start_time() AS started, current_database() AS database, current_user AS login
""")
OWN_NAME = "SELECT name FROM pg_prepared_statements WHERE statement LIKE '%lockbox: by what name%'"
SENT_NAME = "_pg3_"
"""The prefix of psycopg's names for prepared statements. A pooler that tracks prepared statements gives them other
names."""
DIRECT = "LOCKBOX_DATABASE_DIRECT_URL"
WHOLE_ROWS = frozenset({"DELETE", "TRUNCATE"})


def check(
    engine: Engine,
    server: ServerKind,
    *,
    connections: int = 1,
    direct: Engine | None = None,
    node: str | None = None,
) -> None:
    """Refuse to start with wrong rights, wrong settings (`database.BOUNDS`), another schema, or too few connections.

    `direct` makes the connections whose locks outlive a transaction; None where the process takes no such lock.
    `node` is the process's name in its heartbeats: connections that it opened before a restart are not counted twice.
    """
    with engine.connect() as connection:
        is_new_enough(connection)
        _refuse_owner(connection, server)
        fits(connection)
        _has_room(connection, server, connections, node or node_here(server))
        _is_bound(connection, server)
        if is_pooled(connection):
            _has_own_statements(connection, server)
        if direct is not None and (direct is not engine or is_pooled(connection)):
            _is_direct(connection, direct)
        if has_lagging_standby(connection):
            log.critical("startup.standby_asynchronous", do=NAME_THE_STANDBY)
        for table, right in RULES[server].forbidden:
            if _may_somewhere(connection, table, right):
                raise StartupCheckFailed(
                    f"{server}: this login may {right} {table}, which this process must not", "use its own login"
                )
        for table, right in RULES[server].needed:
            if not _may_somewhere(connection, table, right):
                raise StartupCheckFailed(
                    f"{server}: this login may not {right} {table}", "is it the login of another process?"
                )


def wait_until_fit(
    engine: Engine,
    server: ServerKind,
    *,
    connections: int = 1,
    direct: Engine | None = None,
    node: str | None = None,
) -> None:
    """Run `check`, waiting up to 30 seconds for a Postgres that is starting."""
    for second in range(WAIT_SECONDS, -1, -1):
        try:
            check(engine, server, connections=connections, direct=direct, node=node)
        except OperationalError as error:
            if (refused := refusal(server, error)) is not None:
                raise refused from None
            if second == WAIT_SECONDS:
                log.warning("startup.waiting_for_postgres", seconds=WAIT_SECONDS, why=_why(error))
            if second == 0:
                raise unreachable(server, error) from None
            time.sleep(1)
        else:
            return


def node_here(server: ServerKind) -> str:
    return f"{RULES[server].role}@{socket.gethostname()}"


def is_new_enough(connection: Connection) -> None:
    """Check Postgres' version. Call it before any query that needs Postgres 18."""
    if old := postgres_version.too_old(postgres_version.read_number(connection)):
        raise StartupCheckFailed(old, postgres_version.GET_IT)


def refusal(server: str, error: OperationalError) -> StartupCheckFailed | None:
    """Return the error if the server answers but refuses this database login; None where waiting may help."""
    said = str(error.orig)
    if any(words in said for words in LOGIN_REFUSED):
        return _login_refused(server)
    if STATEMENT_MODE in said:
        return StartupCheckFailed(
            f"{server}: the pooler is in statement mode, in which no transaction can begin",
            "set pool_mode = transaction in PgBouncer's file, and reload it",
        )
    return None


def _login_refused(server: str) -> StartupCheckFailed:
    return StartupCheckFailed(
        f"{server}: Postgres refuses this login or knows no such database",
        f"check the user, the password and the database in {server}, and pg_hba.conf",
    )


def unreachable(server: str, error: OperationalError) -> StartupCheckFailed:
    if any(words in str(error.orig) for words in NONE_LEFT):
        return StartupCheckFailed(
            f"{server}: Postgres has no connection left for this login: {_why(error)}",
            "raise max_connections and restart Postgres, or raise what limits the login or the database",
        )
    return StartupCheckFailed(
        f"Postgres cannot be reached at {server}: {_why(error)}", f"start it, or check the host and port in {server}"
    )


def _why(error: OperationalError) -> str:
    """Return the first line of the error, which contains no password."""
    return next(iter(str(error.orig).splitlines()), type(error.orig).__name__)


def fits(connection: Connection, *, also_later: bool = True) -> None:
    """Check that the schema is the one for this code or, if `also_later`, a later one that still serves the code.

    Commands of the owner accept no later schema: they remove or restore only the tables and columns that they know.
    """
    known = connection.execute(HAS_REVISIONS).scalar_one()
    found = migrations.current(connection) if known else None
    wanted = migrations.head()
    if found is None:
        raise StartupCheckFailed(
            "the database has no migrations yet", "run `lockbox migrate` with LOCKBOX_OWNER_DATABASE_URL set"
        )
    if found != wanted and not (also_later and migrations.serves_older_code(connection, found)):
        raise StartupCheckFailed(
            f"the database is at migration {found}, this version needs {wanted}", "run `lockbox migrate`, or upgrade"
        )


def has_lagging_standby(connection: Connection) -> bool:
    """Return whether this Postgres has a standby, and commits do not wait for the standby's confirmation."""
    return bool(connection.execute(HAS_LAGGING_STANDBY).scalar_one())


def _is_bound(connection: Connection, server: ServerKind) -> None:
    for name, value in connection.execute(SETTINGS, {"names": list(BOUNDS)}):
        if value != BOUNDS[name]:
            raise StartupCheckFailed(
                f"{server}: {name} of this login is {value} and has to be {BOUNDS[name]}",
                "run config/roles.sql again, and take away what the database or the server sets instead",
            )


def _has_own_statements(connection: Connection, server: ServerKind) -> None:
    """Refuse a pooler that mixes up prepared statements: one client would run a statement that another prepared."""
    driver = connection.connection.driver_connection
    rows = driver.execute(f"{OWN_NAME} -- lockbox: by what name", prepare=True).fetchall() if driver else []
    if not rows or any(name.startswith(SENT_NAME) for (name,) in rows):
        raise StartupCheckFailed(
            f"{server}: the pooler does not keep track of prepared statements",
            "use PgBouncer 1.21 or later, and set max_prepared_statements to 500",
        )


def _is_direct(connection: Connection, direct: Engine) -> None:
    """Refuse a `direct` engine that goes through a pooler, or uses another server, database or database login."""
    try:
        with direct.connect() as own:
            is_fit = not is_pooled(own) and own.execute(SERVER).one() == connection.execute(SERVER).one()
    except OperationalError as error:
        if direct.url == connection.engine.url:
            raise
        raise unreachable(DIRECT, error) from None
    if not is_fit:
        raise StartupCheckFailed(
            "the core worker's locks need a connection without a pooler, which would keep a lock after its holder "
            "has gone",
            f"set {DIRECT} to the login and database of {ServerKind.WORKER}, on Postgres itself",
        )


def _refuse_owner(connection: Connection, server: ServerKind) -> None:
    row = connection.execute(WHO).one()
    excess = [
        word
        for word, has in (
            ("a superuser", row.rolsuper),
            ("exempt from row security", row.rolbypassrls),
            ("allowed to make roles", row.rolcreaterole),
            ("allowed to make databases", row.rolcreatedb),
            ("the owner of the tables", row.owns),
        )
        if has
    ]
    if excess:
        raise StartupCheckFailed(f"{server}: {row.name} is {' and '.join(excess)}", "use a login without such rights")


@dataclass(frozen=True)
class ConnectionBudget:
    """`promised` is how many connections the other processes may open."""

    allowed: int
    of_login: int | None
    promised: int


def connection_budget(connection: Connection, server: ServerKind, node: str) -> ConnectionBudget:
    row = connection.execute(BUDGET, {"role": RULES[server].role, "node": node}).one()
    return ConnectionBudget(row.allowed, row.of_login, int(row.promised))


def _has_room(connection: Connection, server: ServerKind, wanted: int, node: str) -> None:
    if is_pooled(connection):
        return
    found = connection_budget(connection, server, node)
    given = found.allowed if found.of_login is None else min(found.allowed, found.of_login)
    if given < wanted:
        raise StartupCheckFailed(
            f"{server}: this process opens up to {wanted} connections, and Postgres gives this login {given}",
            allow_more_connections(connection, wanted, wanted),
        )
    if found.allowed < found.promised + wanted:
        log.critical(
            "startup.too_few_connections",
            wanted=wanted,
            promised_to_others=found.promised,
            allowed=found.allowed,
            do=f"{allow_more_connections(connection, wanted, found.promised + wanted)}, or run fewer processes; see "
            "docs/scaling.md",
        )


def allow_more_connections(connection: Connection, of_login: int, of_all: int) -> str:
    """Return how to lift each limit that is too low: of this database login, of the database, or of the server."""
    row = connection.execute(LIMITS).one()
    limits = (
        (row.of_login, of_login, f"ROLE {row.login}"),
        (row.of_database, of_all, f"DATABASE {row.database}"),
    )
    low = [limited for limit, wanted, limited in limits if limit is not None and limit < wanted]
    statements = [f"ALTER {limited} CONNECTION LIMIT -1" for limited in low]
    fixes = [f"as a superuser: {'; '.join(statements)}"] if statements else []
    return ", and ".join([*fixes, RAISE_MAX_CONNECTIONS] if row.of_server < of_all else fixes)


def _may(connection: Connection, table: str, right: str) -> bool:
    return bool(connection.execute(MAY, {"table": table, "right": right}).scalar_one())


def _may_somewhere(connection: Connection, table: str, right: str) -> bool:
    question = MAY if right in WHOLE_ROWS else MAY_A_COLUMN
    return bool(connection.execute(question, {"table": table, "right": right}).scalar_one())
