"""A standby of Postgres: acknowledged writes outlive the primary, and a standby that may lag is reported."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from uuid import UUID

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from devstack.embedded import ServerAddresses
from devstack.embedded.folder import find_home
from devstack.embedded.processes import wait_until
from harness.people import World
from harness.ports import own_port
from harness.stage import all_rights, on_database, own_servers
from lockbox import migrations, startup_checks
from lockbox.database import Database, make_engine
from lockbox.errors import NotReplicated
from lockbox.monitoring import status
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from lockbox.startup_checks import ServerKind
from tests.far.standby import SECONDS, Standby, waits_for

WINDOWS = 40
ENOUGH = 10
NAMED = "synchronous_standby_names"
LOGGED = "startup.standby_asynchronous"


@pytest.fixture(scope="module")
def primary() -> Iterator[ServerAddresses]:
    """A Postgres of this module alone, with Redis."""
    with own_servers("failover", ("postgres", "redis")) as servers:
        migrations.upgrade(servers.owner_database_url)
        yield servers


@pytest.fixture
def standby(primary: ServerAddresses) -> Iterator[Standby]:
    """A standby for which commits do not wait."""
    primary.start_again("postgres")
    standby = Standby(find_home(primary.folder), primary, own_port())
    standby.start()
    yield standby
    standby.stop()
    primary.start_again("postgres")
    waits_for(primary, "")


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def db(primary: ServerAddresses, standby: Standby) -> Iterator[Database]:
    """The database as the API sees it; it ends before the standby does."""
    assert standby.sync_state() == "async"
    superuser = on_database(primary.superuser_url, "lockbox")
    engine = make_engine(primary.database_url, role="pooled", pool_size=8, overflow=8)
    with all_rights(superuser), closing(Schedule(primary.redis_url)) as schedule:
        yield Database(engine, schedule)
        engine.dispose()


def waiting(primary: ServerAddresses, what: str = "pid") -> list[tuple[object, ...]]:
    """Return the backends whose commit waits for a standby, or the result of an SQL expression for each."""
    query = f"SELECT {what} FROM pg_stat_activity WHERE wait_event = 'SyncRep'"  # noqa: S608 - our own words
    with psycopg.connect(primary.superuser_url.replace("+psycopg", ""), autocommit=True) as connection:
        return connection.execute(query.encode()).fetchall()


def synchronous(primary: ServerAddresses, standby: Standby) -> None:
    waits_for(primary, "*")
    assert wait_until(lambda: standby.sync_state() == "sync", SECONDS)


def opened(world: World) -> UUID:
    request = world.fresh()
    world.act("ann", Action.APPROVE, request.id)
    return request.id


def test_acknowledged_revokes_survive_a_failover(primary: ServerAddresses, standby: Standby, db: Database) -> None:
    world = World.make(db)
    windows = [opened(world) for _ in range(WINDOWS)]
    synchronous(primary, standby)
    acknowledged: list[UUID] = []

    def revoke(window: UUID) -> None:
        try:
            world.act("ann", Action.REVOKE, window)
        except DBAPIError:
            return
        acknowledged.append(window)

    with ThreadPoolExecutor(4) as pool:
        for window in windows:
            pool.submit(revoke, window)
        assert wait_until(lambda: len(acknowledged) >= ENOUGH, SECONDS)
        primary.kill("postgres")
    standby.promote()

    kept = list(acknowledged)
    assert len(kept) >= ENOUGH
    assert {standby.state_of(window) for window in kept} == {"revoked"}


def test_a_revoke_is_not_acknowledged_before_the_standby_confirms(
    primary: ServerAddresses, standby: Standby, db: Database, pool: ThreadPoolExecutor
) -> None:
    world = World.make(db)
    window = opened(world)
    synchronous(primary, standby)

    with standby.lagging():
        revoking = pool.submit(world.act, "ann", Action.REVOKE, window)
        assert wait_until(lambda: bool(waiting(primary)), SECONDS)
        assert not revoking.done()
    assert revoking.result(SECONDS).state == "revoked"
    assert standby.state_of(window) == "revoked"


def test_a_commit_whose_standby_wait_is_cancelled_is_not_acknowledged(
    primary: ServerAddresses, standby: Standby, db: Database, pool: ThreadPoolExecutor
) -> None:
    world = World.make(db)
    first, second = opened(world), opened(world)
    synchronous(primary, standby)

    with standby.lagging():
        revoking = pool.submit(world.act, "ann", Action.REVOKE, first)
        assert wait_until(lambda: bool(waiting(primary)), SECONDS)
        waiting(primary, "pg_cancel_backend(pid)")
        with pytest.raises(NotReplicated, match="Look at the result again"):
            revoking.result(SECONDS)

    assert world.act("ann", Action.REVOKE, second).state == "revoked"


def test_an_asynchronous_standby_is_reported_at_start_and_in_status(
    primary: ServerAddresses, standby: Standby, db: Database
) -> None:
    with capture_logs() as lines:
        startup_checks.check(db.engine, ServerKind.API)

    said = status.read(db, with_redis=True).troubles
    assert [line["log_level"] for line in lines if line["event"] == LOGGED] == ["critical"]
    assert any(NAMED in trouble for trouble in said)

    synchronous(primary, standby)
    with capture_logs() as lines:
        startup_checks.check(db.engine, ServerKind.API)

    assert not [line for line in lines if line["event"] == LOGGED]
    assert not any(NAMED in said for said in status.read(db, with_redis=True).troubles)


def test_an_asynchronous_standby_can_lose_acknowledged_writes(
    primary: ServerAddresses, standby: Standby, db: Database
) -> None:
    """Show the danger of which the warning speaks; if a standby never lagged, the other tests could not fail."""
    world = World.make(db)
    window = opened(world)
    assert wait_until(lambda: standby.state_of(window) == "active", SECONDS)

    with standby.lagging():
        world.act("ann", Action.REVOKE, window)
        primary.kill("postgres")
        standby.promote()

    assert standby.state_of(window) == "active"
