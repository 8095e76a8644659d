"""Fixtures of the database tests: a database role with every right, and each kind of Redis."""

import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from redis import Redis
from redis.exceptions import RedisError
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.exc import DisconnectionError

from connectors.connection_steps import ConnectionDriver
from devstack.embedded import ServerAddresses
from harness.clocks import ShiftedClock, StoppedClock
from harness.people import World
from harness.ports import own_port
from harness.stage import NO_TRIGGERS, Urls, delete_all_rows, fresh_database, own_servers, superuser_at
from lockbox import schedule as schedule_module
from lockbox.database import Database, make_engine
from lockbox.schedule import Schedule
from tests.database.postbag import Postbag
from tests.database.postgres_target import OrdersWindow, Plant, PostgresTarget, postgres_target
from tests.programs import absent

REDIS_SERVER = shutil.which("redis-server")
KINDS = ["valkey", "redis"]
START_SECONDS = 10
# What is idle holds no lock and nothing that the next test could find; the rest is ended.
END_OTHERS = text("""
SELECT pg_terminate_backend(a.pid, 5000) FROM pg_stat_activity a
WHERE a.datname = current_database() AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
    AND (a.state <> 'idle' OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid))
""")

# What a test that shares its database leaves as it was: tables, indexes, rights, functions, triggers and rules.
SCHEMA = text("""
SELECT count(*) || ' ' || sum(hash_record_extended((oid, xmin), 0)) FROM (
    SELECT oid, xmin FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL SELECT oid, xmin FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL SELECT oid, xmin FROM pg_trigger
    UNION ALL SELECT oid, xmin FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT oid, xmin FROM pg_policy
) AS parts
""")


@event.listens_for(Engine, "connect")
def _wait_longer(connection: psycopg.Connection[Any], _: object) -> None:
    """Raise the lock timeout: on a busy machine, the loser of a race waits longer for the winner than a server would.

    Not behind a pooler, which would give the setting to the connection's next user, nor for doctor, which checks it.
    """
    name = connection.info.get_parameters().get("application_name", "")
    if name.startswith("lockbox-") and name not in {"lockbox-pooled", "lockbox-doctor"}:
        connection.autocommit = True
        connection.execute("SET lock_timeout = '9s'")
        connection.autocommit = False


BRIEF = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)


@pytest.fixture(autouse=True)
def _brief_logs() -> None:
    """Log tracebacks as the servers do: structlog's default prints every local variable, which takes seconds.

    Set it for each test, because another kind of test in this process may have changed it.
    """
    structlog.configure(processors=[structlog.processors.add_log_level, BRIEF])


@dataclass
class SharedDatabase:
    """A database with warm connections that tests use in turn, because making either takes longer than a test."""

    urls: Urls
    api: Engine
    worker: Engine
    superuser: Engine
    root: Engine
    redis: "Redis"
    schema: str

    def clear(self) -> None:
        """Remove what the last test left: busy connections, rows, and the content of its Redis database."""
        with self.root.begin() as connection:
            ended = connection.execute(END_OTHERS).all()
            delete_all_rows(connection)
        if ended:
            # A pool may hold one of them: an idle connection too has a lock while it takes in a changed catalogue.
            for engine in (self.api, self.worker, self.superuser):
                engine.dispose()
        self.redis.flushdb()

    def check(self) -> None:
        """Fail only the test that changed more than rows."""
        before = self.schema
        # With a roll-back the driver would forget what it has prepared, and plan all of `clear` again.
        with self.root.begin() as connection:
            self.schema = connection.execute(SCHEMA).scalar_one()
        assert self.schema == before, "this test changes more than rows: it needs a database that is `alone`"


@pytest.fixture(scope="session")
def shared(template: ServerAddresses) -> Iterator[SharedDatabase]:
    """The database that all tests share which change only rows."""
    with fresh_database(template) as urls, Redis.from_url(urls.redis) as redis:
        root = create_engine(urls.superuser, pool_size=1, pool_pre_ping=True, connect_args={"options": NO_TRIGGERS})
        with root.connect() as connection:
            schema = connection.execute(SCHEMA).scalar_one()
        shared = SharedDatabase(
            urls=urls,
            api=make_engine(urls.api, role="test-api", pool_size=4, overflow=16),
            worker=make_engine(urls.worker, role="test-worker", pool_size=4, overflow=16),
            superuser=_like_new(create_engine(urls.superuser, isolation_level="AUTOCOMMIT", max_overflow=20)),
            root=root,
            redis=redis,
            schema=schema,
        )
        yield shared
        for engine in (shared.api, shared.worker, shared.superuser, root):
            engine.dispose()


def _like_new(engine: Engine) -> Engine:
    """Reset each connection when it is taken from the pool, so that no earlier setting remains."""

    @event.listens_for(engine, "checkout")
    def forget(connection: psycopg.Connection[Any], *_: object) -> None:
        try:
            # A prepared statement would be forgotten too, by the server alone.
            connection.prepare_threshold = None
            connection.execute("DISCARD ALL")
        except psycopg.OperationalError as ended:
            raise DisconnectionError from ended

    return engine


@pytest.fixture
def alone() -> None:
    """Give the test a database of its own: it changes more than rows."""


@pytest.fixture
def urls(request: pytest.FixtureRequest, template: ServerAddresses, shared: SharedDatabase) -> Iterator[Urls]:
    if "alone" in request.fixturenames:
        with fresh_database(template) as urls:
            yield urls
    else:
        shared.clear()
        yield shared.urls
        shared.check()


@pytest.fixture
def api(urls: Urls, shared: SharedDatabase) -> Iterator[Database]:
    with _db(urls, urls.api, shared, shared.api) as db:
        yield db


@pytest.fixture
def worker(urls: Urls, shared: SharedDatabase) -> Iterator[Database]:
    with _db(urls, urls.worker, shared, shared.worker) as db:
        yield db


@pytest.fixture
def superuser(urls: Urls, shared: SharedDatabase) -> Iterator[Engine]:
    """This test's database with every right, for scenes that Lockbox itself refuses."""
    if urls is shared.urls:
        yield shared.superuser
    else:
        with superuser_at(urls.superuser) as engine:
            yield engine


@contextmanager
def _db(urls: Urls, login: str, shared: SharedDatabase, warm: Engine) -> Iterator[Database]:
    is_shared = urls is shared.urls
    engine = warm if is_shared else make_engine(login, role="test", pool_size=4, overflow=16)
    db = Database(engine, Schedule(urls.redis))
    yield db
    db.schedule.close()
    if not is_shared:
        engine.dispose()


@pytest.fixture(autouse=True)
def _patient_arming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow a busy machine more time to schedule, unless the test is about a Redis that never answers."""
    if "away_url" not in request.fixturenames:
        monkeypatch.setattr(schedule_module, "ARM_TIMEOUT", 2.0)


@pytest.fixture
def later() -> ShiftedClock:
    """A clock of a database, which the test can shift."""
    return ShiftedClock()


@pytest.fixture
def still(api: Database, worker: Database) -> StoppedClock:
    """One clock of API and worker, which stands still until the test moves it."""
    api.clock = worker.clock = StoppedClock(datetime.now(UTC))
    return api.clock


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def post() -> Postbag:
    return Postbag()


@pytest.fixture
def sender(worker: Database, later: ShiftedClock) -> Database:
    worker.clock = later
    return worker


@pytest.fixture
def connectors(urls: Urls) -> Iterator[Database]:
    db = Database(make_engine(urls.connectors, role="test-connectors", pool_size=4), Schedule(urls.redis))
    yield db
    db.dispose()


@pytest.fixture(scope="session")
def shared_target(shared: SharedDatabase, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresTarget]:
    with postgres_target(shared.urls.superuser, tmp_path_factory.mktemp("targets")) as target:
        yield target


@pytest.fixture
def target(shared_target: PostgresTarget) -> Iterator[PostgresTarget]:
    yield shared_target
    shared_target.reset()


@pytest.fixture
def driver(connectors: Database, world: World, target: PostgresTarget) -> ConnectionDriver:
    """The driver of the tenant's connections to the target."""
    return target.driver(connectors, world.tenant.slug)


@pytest.fixture
def window(world: World, target: PostgresTarget) -> OrdersWindow:
    return OrdersWindow.open(world, target)


@pytest.fixture
def plant(
    window: OrdersWindow, driver: ConnectionDriver, target: PostgresTarget, connectors: Database, superuser: Engine
) -> Plant:
    return Plant(window, driver, target, connectors, superuser)


@pytest.fixture(scope="session")
def own_valkey() -> Iterator[str]:
    """The URL of a Valkey that only this process uses, and whose settings tests may change."""
    with own_servers("valkey", ("redis",)) as servers:
        yield servers.redis_url


@pytest.fixture(scope="session")
def real_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real Redis with a password, if Redis is installed."""
    if REDIS_SERVER is None:
        pytest.skip(absent("redis-server"))
    folder, port, password = tmp_path_factory.mktemp("redis"), own_port(), secrets.token_urlsafe(16)
    settings = folder / "redis.conf"
    settings.write_text(
        f'bind 127.0.0.1\nport {port}\nrequirepass {password}\ndir "{folder}"\nsave ""\nappendonly no\n'
        "maxmemory-policy noeviction\n"
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([REDIS_SERVER, str(settings)], stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for(url, process, folder / "log")
        yield url
    finally:
        process.terminate()
        process.wait(START_SECONDS)


@pytest.fixture(params=KINDS)
def redis_url(request: pytest.FixtureRequest) -> str:
    """The URL of an emptied Valkey, then of an emptied Redis if there is one."""
    url: str = request.getfixturevalue("own_valkey" if request.param == "valkey" else "real_redis")
    with Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def redis(redis_url: str) -> Iterator["Redis"]:
    """A client of that server, to look at it without the schedule."""
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def schedule(redis_url: str) -> Iterator[Schedule]:
    with closing(Schedule(redis_url)) as opened:
        yield opened


@pytest.fixture
def refused_url() -> str:
    return f"redis://:secret@127.0.0.1:{own_port()}/0"


@pytest.fixture
def black_hole_url() -> Iterator[str]:
    """The URL of a socket that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        yield f"redis://:secret@127.0.0.1:{listener.getsockname()[1]}/0"


@pytest.fixture(params=["refused_url", "black_hole_url"])
def away_url(request: pytest.FixtureRequest) -> str:
    """The URL of an unavailable Redis: it refuses connections, or never answers."""
    url: str = request.getfixturevalue(request.param)
    return url


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            with Redis.from_url(url) as client:
                client.ping()
        except RedisError:
            time.sleep(0.02)
        else:
            return
    pytest.fail(f"redis-server did not come up:\n{log.read_text()}")
