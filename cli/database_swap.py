"""Restore a back-up into a new database, which then replaces the live one. Functions raise SwapRefused."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import Connection, sql
from sqlalchemy import URL

from config.children import environment
from config.server_urls import libpq_url

ROOT = "postgres"
OWNER = "lockbox_owner"
SERVERS = ("lockbox_api", "lockbox_worker", "lockbox_notifications", "lockbox_connectors")
# The rights that config/roles.sql grants on the database that it creates.
RIGHTS = (
    "REVOKE ALL ON DATABASE {made} FROM PUBLIC",
    "GRANT CONNECT ON DATABASE {made} TO {owner}, {servers}",
    "ALTER SCHEMA public OWNER TO {owner}",
    "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    "GRANT USAGE ON SCHEMA public TO {servers}",
)
TABLES = ("public alembic_version", "public requests", "public events")
"""The entries that every dump of a Lockbox database lists."""
SAME_SERVER = "SELECT pg_postmaster_start_time()"
STAMP = "SELECT to_char(now(), 'YYYYMMDDHH24MISS')"
EXISTS = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = %s)"
CONNECTED = """
SELECT concat(usename, ' from ' || host(client_addr), ' (' || nullif(application_name, '') || ')')
FROM pg_stat_activity
WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker' ORDER BY backend_start
"""
END = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
MOST_NAMED = 5


class SwapRefused(Exception):  # noqa: N818 - the name says what went wrong
    """The live database is unchanged; the message says why."""


def check_dump(file: Path) -> None:
    try:
        file.open("rb").close()
    except OSError as error:
        raise SwapRefused(f"{file} can't be read: {error.strerror}") from None
    listed = _pg_restore("--list", str(file.absolute())).stdout
    missing = [table for table in TABLES if f"TABLE DATA {table} " not in listed]
    if missing:
        raise SwapRefused(f"{file} is no back-up of Lockbox: it lacks {', '.join(missing)}")


def _pg_restore(*arguments: str, password: str | None = None) -> "subprocess.CompletedProcess[str]":
    program = shutil.which("pg_restore")
    if program is None:
        raise SwapRefused("pg_restore is not installed: it is in the package postgresql-client-18")
    login = {} if password is None else {"PGPASSWORD": password}
    ran = subprocess.run(  # noqa: S603 - a program on the path, no shell
        [program, *arguments], env=environment(login), capture_output=True, text=True, check=False
    )
    if ran.returncode:
        said = ran.stderr.strip().splitlines() or [f"it ended with {ran.returncode}"]
        raise SwapRefused(f"pg_restore: {said[0].removeprefix('pg_restore: ')}")
    return ran


@contextmanager
def superuser(owner: URL) -> Iterator["Connection[tuple[object, ...]]"]:
    """Connect to the owner's server with PGHOST, PGPORT, PGUSER and PGPASSWORD."""
    try:
        root = psycopg.connect(dbname=ROOT, autocommit=True, application_name="lockbox restore")
    except psycopg.OperationalError as error:
        raise SwapRefused(
            f"Postgres' superuser cannot connect: {_first_line(error)}; set PGHOST, PGPORT, PGUSER and PGPASSWORD"
        ) from None
    with root:
        url = libpq_url(owner).set(database=ROOT).render_as_string(hide_password=False)
        try:
            with psycopg.connect(url, autocommit=True) as own:
                is_same = own.execute(SAME_SERVER).fetchone() == root.execute(SAME_SERVER).fetchone()
        except psycopg.OperationalError as error:
            raise SwapRefused(f"LOCKBOX_OWNER_DATABASE_URL cannot be used: {_first_line(error)}") from None
        if not is_same:
            raise SwapRefused("PGHOST and PGPORT name another server than LOCKBOX_OWNER_DATABASE_URL")
        yield root


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


@dataclass(frozen=True)
class DatabaseSwap:
    """The new database `made` gets the live database's `name`; the live database is renamed to `aside`."""

    root: "Connection[tuple[object, ...]]"
    owner: URL
    name: str
    made: str
    aside: str
    is_there: bool

    @classmethod
    def plan(cls, root: "Connection[tuple[object, ...]]", owner: URL) -> "DatabaseSwap":
        name, stamp = str(owner.database), _one(root, STAMP)
        broken = f"{name}_broken"
        aside = f"{broken}_{stamp}" if _exists(root, broken) else broken
        return cls(root, owner, name, f"{name}_restored_{stamp}", aside, _exists(root, name))

    @property
    def url(self) -> URL:
        return self.owner.set(database=self.made)

    def refuse_connections(self) -> None:
        found = [str(row[0]) for row in self.root.execute(CONNECTED, [self.name]).fetchall()]
        if found:
            more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
            raise SwapRefused(
                f"{len(found)} connections to {self.name} are open: {', '.join(found[:MOST_NAMED])}{more}. Stop the "
                "processes (systemctl stop lockbox.target), or end them with --end-connections"
            )

    @contextmanager
    def filled(self, dump: Path) -> Iterator[None]:
        """Fill the new database from the dump; drop it again if anything fails in the block."""
        self._run("CREATE DATABASE {made} OWNER {owner}")
        try:
            with psycopg.connect(dbname=self.made, autocommit=True) as inside:
                for statement in RIGHTS:
                    inside.execute(self._named(statement))
            password = self.owner.password
            _pg_restore(
                "--exit-on-error",
                f"--dbname={self._target}",
                str(dump.absolute()),
                password=None if password is None else str(password),
            )
            yield
        except BaseException:
            self._run("DROP DATABASE IF EXISTS {made} WITH (FORCE)")
            raise

    def rename(self, *, ends_connections: bool) -> None:
        """Swap the names in one transaction; if it fails, no name changes."""
        try:
            if ends_connections and self.is_there:
                # Bar connections: a process that restarts at once would connect again before the database is renamed.
                self._run("ALTER DATABASE {name} ALLOW_CONNECTIONS false")
                self.root.execute(END, [self.name])
            with self.root.transaction():
                if self.is_there:
                    self._run("ALTER DATABASE {name} RENAME TO {aside}")
                self._run("ALTER DATABASE {made} RENAME TO {name}")
        except psycopg.errors.ObjectInUse as error:
            raise SwapRefused(
                f"{_first_line(error)}. Stop the processes, or end their connections with --end-connections"
            ) from None
        finally:
            if ends_connections and self.is_there:
                there = self.aside if _exists(self.root, self.aside) else self.name
                self.root.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(there)))

    @property
    def _target(self) -> str:
        """The URL without the password, which would be visible in the list of processes."""
        of = libpq_url(self.owner)
        plain = URL.create("postgresql", of.username, None, of.host, of.port, self.made, of.query)
        return plain.render_as_string()

    def _run(self, statement: str) -> None:
        self.root.execute(self._named(statement))

    def _named(self, statement: str) -> sql.Composed:
        return sql.SQL(statement).format(
            name=sql.Identifier(self.name),
            made=sql.Identifier(self.made),
            aside=sql.Identifier(self.aside),
            owner=sql.Identifier(OWNER),
            servers=sql.SQL(", ").join(map(sql.Identifier, SERVERS)),
        )


def _exists(root: "Connection[tuple[object, ...]]", name: str) -> bool:
    return bool(_one(root, EXISTS, name))


def _one(root: "Connection[tuple[object, ...]]", statement: LiteralString, *values: str) -> object:
    row = root.execute(statement, values).fetchone()
    return row and row[0]
