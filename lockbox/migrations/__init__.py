"""Migrate the database, and tell whether this code may run on the database's revision."""

import re
import time
from contextlib import closing
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg import sql
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from lockbox import postgres_version
from lockbox.sql import is_pooled

FOLDER = Path(__file__).parent
FILLED = text("""
SELECT string_agg(format('%I', relname), ', ' ORDER BY relname) FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND pg_relation_size(oid) > 0
""")
NUMBERED = re.compile(r"(\d{1,9})(?:_|$)")
HAS_OLDEST = text("SELECT to_regprocedure('public.oldest_revision()') IS NOT NULL")
OLDEST = text("SELECT oldest_revision()")
# The comment of oldest_revision() lists the revisions by which the schema came to be; each migration extends it.
CAME_BY = text("SELECT obj_description('public.oldest_revision()'::regprocedure, 'pg_proc')")
NOTE_HISTORY = sql.SQL("COMMENT ON FUNCTION public.oldest_revision() IS {}")
NAMES_BY_PLACE = 1
"""The number of the revision whose processes keep a statement's column names from its first run."""
LEAVE_SECONDS, LOOK_SECONDS = 5.0, 0.25
"""How long to wait until processes that were just stopped, or that refuse to start yet, are gone; how often to
look."""
LOCKED_OUT = frozenset({"40P01", "55P03"})
"""The SQL states of a deadlock and of too long a wait for a lock: other transactions use the same tables."""
ATTEMPTS, PAUSE_SECONDS = 5, 1.0
LOOK_ANEW = text("SELECT pg_stat_clear_snapshot()")
CONNECTED = text("""
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND usename IN ('lockbox_api', 'lockbox_worker', 'lockbox_notifications', 'lockbox_connectors')
""")
LOGIN = text("""
SELECT current_user AS name, r.rolbypassrls OR r.rolsuper AS passes,
    pg_has_role(current_user, n.nspowner, 'USAGE') AS owns
FROM pg_roles r, pg_namespace n WHERE r.rolname = current_user AND n.nspname = 'public'
""")


class UnknownRevision(Exception):  # noqa: N818 - it names what was found
    def __init__(self, found: str) -> None:
        super().__init__(
            f"the database is at migration {found}, which this version of Lockbox does not know, and nothing leads "
            f"from there to {head()}: use the version that made it, or start with an empty database"
        )


class OwnerRefused(Exception):  # noqa: N818 - it names what was found
    pass


def check_owner(connection: Connection) -> None:
    """Refuse the owner's work through a pooler, or with a database login other than the owner's.

    A pooler may mix the statements of several clients. Row-level security hides rows from other logins, so their
    commands would find nothing to do and report success.

    Raises:
        OwnerRefused: the connection goes through a pooler or uses another login, or Postgres is too old.
    """
    if old := postgres_version.too_old(postgres_version.read_number(connection)):
        raise OwnerRefused(f"LOCKBOX_OWNER_DATABASE_URL: {old}: {postgres_version.GET_IT}")
    if is_pooled(connection):
        raise OwnerRefused(
            "LOCKBOX_OWNER_DATABASE_URL leads through a pooler such as PgBouncer: set it to the address of Postgres "
            "itself, for migrations and the owner's commands"
        )
    login = connection.execute(LOGIN).one()
    if not (login.owns and login.passes):
        raise OwnerRefused(
            f"LOCKBOX_OWNER_DATABASE_URL: the login {login.name} "
            + ("is bound by row-level security" if login.owns else "does not own the tables")
            + ": use lockbox_owner, as config/roles.sql makes it"
        )


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config


def upgrade(owner_url: str) -> str:
    """Bring the database up to date as its owner, in one transaction; return its revision.

    A database that a later version has migrated further, and that still serves this version, is left as it is. If
    running processes hold the tables' locks, the whole transaction is run again, five times at most.

    Raises:
        UnknownRevision: another version made the database.
        OwnerRefused: see `check_owner`; or processes of 0.2.0 are running; or other transactions held the tables each
            time.
        sqlalchemy.exc.DBAPIError: the database is unreachable, or the login lacks a right.
    """
    for _ in range(ATTEMPTS):
        try:
            return _upgrade(owner_url)
        except (DBAPIError, psycopg.Error) as error:
            refused = error.orig if isinstance(error, DBAPIError) else error
            if getattr(refused, "sqlstate", None) not in LOCKED_OUT:
                raise
            time.sleep(PAUSE_SECONDS)
    raise OwnerRefused(
        f"other transactions held the tables in each of {ATTEMPTS} attempts, so nothing was changed: run lockbox "
        "migrate again; pg_stat_activity lists the transactions"
    )


def _upgrade(owner_url: str) -> str:
    engine = create_engine(owner_url, poolclass=NullPool)
    with engine.begin() as connection:
        check_owner(connection)
        found = current(connection)
        if found is not None and serves_older_code(connection, found):
            return found
        _refuse_unknown(found)
        _refuse_beside_running(connection, found)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        _note_history(connection)
    analyze(owner_url)
    return head()


def _refuse_beside_running(connection: Connection, found: str | None) -> None:
    """Wait for processes of 0.2.0 to disconnect, and refuse the migration if some stay connected.

    These processes read columns by position, and would mistake new columns for older ones.
    """
    if found is None or number_of(found) != NAMES_BY_PLACE:
        return
    until = time.monotonic() + LEAVE_SECONDS
    while running := connection.execute(CONNECTED).scalar_one():
        if time.monotonic() >= until:
            raise OwnerRefused(
                f"processes of 0.2.0 hold {running} connections to this database and cannot go on after this "
                "migration: stop them, migrate, and start them again, or the new version. Behind a pooler, have it "
                "close its connections (RECONNECT)"
            )
        time.sleep(LOOK_SECONDS)
        connection.execute(LOOK_ANEW)


def analyze(owner_url: str) -> None:
    """Analyze the tables that hold rows, so that Postgres plans by their contents.

    Call it after a migration and after a first load. Empty tables are left out: Postgres would plan for zero rows,
    and assumes ten pages for a table that was never analyzed.

    Raises:
        sqlalchemy.exc.DBAPIError: the database is unreachable, or the login lacks a right.
    """
    engine = create_engine(owner_url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        tables = connection.execute(FILLED).scalar_one()
        connection.exec_driver_sql(f"ANALYZE (SKIP_LOCKED) {tables}")


def head() -> str:
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def serves_older_code(connection: Connection, found: str) -> bool:
    """Return whether a later version made this revision, and this code may still run on it.

    The database must have been migrated through our revision, and must say that it still serves our code.
    """
    ours = number_of(head())
    if number_of(found) <= ours or not connection.execute(HAS_OLDEST).scalar_one():
        return False
    came_by = (connection.execute(CAME_BY).scalar_one() or "").split()
    if head() not in came_by or came_by[-1] != found:
        return False
    return int(connection.execute(OLDEST).scalar_one()) <= ours


def number_of(revision: str) -> int:
    found = NUMBERED.match(revision)
    return int(found[1]) if found else 0


def history() -> list[str]:
    walked = ScriptDirectory.from_config(_config()).walk_revisions()
    return [str(script.revision) for script in walked][::-1]


def _note_history(connection: Connection) -> None:
    with closing(connection.connection.cursor()) as cursor:
        cursor.execute(NOTE_HISTORY.format(" ".join(history())))


def _refuse_unknown(found: str | None) -> None:
    if found is not None and found not in history():
        raise UnknownRevision(found)
