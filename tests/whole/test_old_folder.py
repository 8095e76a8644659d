"""A data folder of another Lockbox version: `make run` and `make demo` say what to do, and leave it unchanged."""

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from devstack import embedded
from harness.ports import own_port
from lockbox import migrations
from tests.whole import terminal
from tests.whole.terminal import ModuleRunner

pytestmark = pytest.mark.far

SECONDS = 120


@pytest.fixture(scope="module")
def here() -> Iterator[ModuleRunner]:
    """A terminal with a database in its data folder, at a revision that no longer exists."""
    with terminal.opened() as opened:
        servers = embedded.start(opened.folder, environment="test", only=("postgres",))
        migrations.upgrade(servers.owner_database_url)
        owner = create_engine(servers.owner_database_url, poolclass=NullPool)
        with owner.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '0045'"))
            connection.execute(text("DROP FUNCTION oldest_revision"))
        servers.stop()
        yield opened


@pytest.mark.parametrize("module", ["demo", "devstack.run"])
def test_an_embedded_folder_of_another_version_is_reported_with_advice(here: ModuleRunner, module: str) -> None:
    program = module.removeprefix("devstack.")
    ports = ("--port", str(own_port()), "--flower-port", str(own_port())) if program == "run" else ()

    ended = here.start(module, "--folder", str(here.folder), *ports)
    _, said = ended.communicate(timeout=SECONDS)

    assert ended.returncode == 1
    assert said.startswith(
        f"{program}: the database is at migration 0045, which this version of Lockbox does not know"
    )
    assert said.endswith(f"start with an empty database (remove the folder {here.folder})\n")
    assert said.count("\n") == 1
    assert here.left() == []
