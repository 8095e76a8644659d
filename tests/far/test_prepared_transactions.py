"""Prepared transactions at a target: those of a window's role are rolled back, those of other roles are reported."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import Engine, make_url

from connectors.connection_steps import ConnectionDriver
from devstack import embedded
from harness.people import World
from harness.stage import Urls, own_folder, run_as_superuser
from lockbox.database import Database, make_engine
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from tests.database.postgres_target import OrdersWindow, PostgresTarget, postgres_target
from tests.database.scenes import read, write
from tests.each import each

AGAIN = "UPDATE connections SET run_at = clock_timestamp() WHERE id = :id AND run_at IS NOT NULL"
ON_TABLE = "DELETE FROM orders"
ON_ROLE = "ALTER ROLE CURRENT_USER PASSWORD 'mine alone'"
LEFT = "SELECT gid FROM pg_prepared_xacts"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The superuser's URL of a Postgres that accepts prepared transactions, which other test servers do not."""
    with own_folder("prepared") as folder:
        first = embedded.start(folder / "servers", environment="test", only=("postgres",))
        run_as_superuser(first.superuser_url, "ALTER SYSTEM SET max_prepared_transactions = 4")
        first.stop()
        servers = embedded.start(folder / "servers", environment="test", only=("postgres",))
        try:
            yield servers.superuser_url
        finally:
            servers.stop()


@pytest.fixture
def target(server: str, tmp_path: Path) -> Iterator[PostgresTarget]:
    with postgres_target(server, tmp_path / "targets") as made:
        yield made


@pytest.fixture
def driver(urls: Urls, target: PostgresTarget, world: World) -> Iterator[ConnectionDriver]:
    db = Database(make_engine(urls.connectors, role="test-connectors", pool_size=4), Schedule(urls.redis))
    yield target.driver(db, world.tenant.slug)
    db.dispose()


@pytest.fixture
def world(api: Database) -> World:
    return World.make(api)


def superuser_there(target: PostgresTarget) -> "psycopg.Connection[tuple[str, ...]]":
    """Return a connection to the target's database with every right."""
    url = make_url(target.superuser).set(drivername="postgresql", database=target.database)
    return psycopg.connect(url.render_as_string(hide_password=False), autocommit=True)


def opened(world: World, target: PostgresTarget, driver: ConnectionDriver) -> tuple[OrdersWindow, UUID, str]:
    """Return a window that is open at the target, its connection's id and its password."""
    window = OrdersWindow.open(world, target, "change")
    found, password = window.credential()
    assert driver.run([found.id]) == {"open": 1}
    return window, found.id, password


@each("statement", (ON_TABLE, ON_ROLE))
def test_closing_a_target_rolls_back_prepared_transactions_of_the_engineers_role(
    statement: str, world: World, target: PostgresTarget, driver: ConnectionDriver
) -> None:
    window, one, password = opened(world, target, driver)
    with closing(target.sign_in(one, password)) as signed_in:
        signed_in.execute(f"BEGIN; {statement}; PREPARE TRANSACTION 'it''s mine'")

    world.act("ann", Action.REVOKE, window.request_id)

    assert driver.run([one]) == {"closed": 1}
    assert target.roles() == []
    with superuser_there(target) as there:
        assert there.execute(LEFT).fetchall() == []
        assert there.execute("SELECT count(*)::text FROM orders").fetchone() == ("2",)


def test_closing_a_connection_fails_until_the_prepared_transactions_of_other_roles_end(
    world: World, target: PostgresTarget, driver: ConnectionDriver, superuser: Engine
) -> None:
    window, one, password = opened(world, target, driver)
    with closing(target.sign_in(one, password)) as signed_in:
        signed_in.execute("CREATE TABLE mine (id integer)")
    with superuser_there(target) as there:
        there.execute("BEGIN; INSERT INTO mine VALUES (1); PREPARE TRANSACTION 'of others'")
        world.act("ann", Action.REVOKE, window.request_id)

        for _ in range(3):
            assert driver.run([one]) == {"failed": 1}
            write(superuser, AGAIN, id=one)

        row = read(world.db, "SELECT state, last_error FROM connections")[0]
        assert (row.state, row.last_error) == ("close_failed", "prepared_transaction")
        with pytest.raises(psycopg.OperationalError):
            target.sign_in(one, password)
        there.execute("ROLLBACK PREPARED 'of others'")

    assert driver.run([one]) == {"closed": 1}
    assert target.roles() == []
