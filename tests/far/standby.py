"""A standby of a test's Postgres, run by the same programs."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil
import psycopg
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from devstack.embedded import ServerAddresses
from devstack.embedded.folder import DataFolder
from devstack.embedded.processes import run, wait_until
from devstack.embedded.programs import programs_for

SECONDS = 60
FOLLOWING = "SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'"


@dataclass(frozen=True)
class Standby:
    """A Postgres that follows the primary; `sync_state` is its state according to the primary."""

    home: DataFolder
    primary: ServerAddresses
    port: int

    @property
    def folder(self) -> Path:
        return self.home.folder / "standby"

    def start(self) -> None:
        url = make_url(self.primary.superuser_url)
        source = f"host=127.0.0.1 port={url.port} user={url.username} password={url.password}"
        self.run(
            "pg_basebackup", "-R", "--no-sync", "-X", "stream", "-c", "fast", "-d", source, "-D", str(self.folder)
        )
        options = (
            f"-c max_connections=200 -c port={self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories=''"
        )
        log = str(self.home.folder / "standby.log")
        self.run("pg_ctl", "start", "-s", "-w", "-l", log, "-D", str(self.folder), "-o", options)
        assert wait_until(lambda: self.sync_state() is not None, SECONDS)

    def sync_state(self) -> str | None:
        """Return how commits of the primary wait for the standby, or None while it does not follow."""
        with psycopg.connect(self.primary.superuser_url.replace("+psycopg", "")) as connection:
            row = connection.execute(FOLLOWING).fetchone()
        return str(row[0]) if row else None

    def promote(self) -> None:
        self.run("pg_ctl", "promote", "-s", "-w", "-D", str(self.folder))

    def stop(self) -> None:
        self.run("pg_ctl", "stop", "-s", "-m", "immediate", "-D", str(self.folder))
        shutil.rmtree(self.folder)

    def state_of(self, request_id: UUID) -> str:
        """Return the state of a request in the standby's database."""
        url = make_url(self.primary.superuser_url).set(port=self.port, database="lockbox", drivername="postgresql")
        with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
            row = connection.execute("SELECT state FROM requests WHERE id = %s", [request_id]).fetchone()
        return str(row[0]) if row else "unknown"

    @contextmanager
    def lagging(self) -> Iterator[None]:
        with psycopg.connect(self.primary.superuser_url.replace("+psycopg", "")) as connection:
            ((pid,),) = connection.execute("SELECT pid FROM pg_stat_replication").fetchall()
        sender = psutil.Process(pid)
        sender.suspend()
        try:
            yield
        finally:
            with suppress(psutil.NoSuchProcess):
                sender.resume()

    def run(self, program: str, *arguments: str) -> None:
        run(self.home, [str(programs_for(self.home).postgres / program), *arguments])


def waits_for(primary: ServerAddresses, names: str) -> None:
    """Set the standbys for which commits wait."""
    engine = create_engine(primary.superuser_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine.dispose()
