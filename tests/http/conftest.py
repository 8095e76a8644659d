"""One database for all tests over HTTP, each in a world of its own; tests that break a database get their own."""

from collections.abc import Callable, Iterator

import pytest
import structlog
from jinja2 import FileSystemBytecodeCache
from psycopg import errors
from redis import Redis
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from structlog.typing import Processor

from api.portal.pages import TEMPLATES
from config.settings import Settings
from devstack.embedded import ServerAddresses
from harness.people import WITHOUT_REVIEW, World
from harness.stage import NO_TRIGGERS, Urls, delete_all_rows, fresh_database
from lockbox.database import Database, make_engine, postgres_clock
from lockbox.facts.enumerations import Mode
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import Schedule
from tests.http.authzen_door import AuthzenDoor, decision_point_of
from tests.http.door import Door, LoopThread, OpenDoor
from tests.http.portal import SETTINGS, OpenPortal, Portal


def db_at(urls: Urls) -> Database:
    # Pages are told of what was armed: a busy machine may take its time.
    schedule = Schedule(urls.redis, patience=20.0)
    return Database(make_engine(urls.api, role="test-http", pool_size=4, overflow=16), schedule)


def root_at(urls: Urls) -> Engine:
    return create_engine(urls.superuser, isolation_level="AUTOCOMMIT", pool_pre_ping=True)


@pytest.fixture(scope="session", autouse=True)
def _templates_compiled_once(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let the processes of one run compile each template of the pages once: all of them take a second."""
    if hasattr(request.config, "workerinput"):
        folder = tmp_path_factory.getbasetemp().parent / "templates"
        folder.mkdir(exist_ok=True)
        TEMPLATES.bytecode_cache = FileSystemBytecodeCache(str(folder))


@pytest.fixture(scope="session")
def urls(template: ServerAddresses) -> Iterator[Urls]:
    with fresh_database(template, flushes=False) as urls:
        yield urls


@pytest.fixture(scope="session")
def api(urls: Urls, runner: LoopThread) -> Iterator[Database]:
    db = db_at(urls)
    yield db
    runner.run(db.schedule.followed())
    db.dispose()


@pytest.fixture(scope="session")
def worker(urls: Urls) -> Iterator[Database]:
    engine = make_engine(urls.worker, role="test-http-worker")
    db = Database(engine, Schedule(urls.redis))
    yield db
    db.dispose()


@pytest.fixture(scope="session")
def root(urls: Urls) -> Iterator[Engine]:
    """The shared database as its superuser sees it."""
    engine = root_at(urls)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module", autouse=True)
def _emptied(urls: Urls) -> None:
    """Let each file begin with an empty database: all worlds in one database share a vendor.

    A review notifies every manager in the database, and the checks of an observer look at everyone in it.
    """
    everything = create_engine(urls.superuser, poolclass=NullPool, connect_args={"options": NO_TRIGGERS})
    with everything.begin() as connection:
        delete_all_rows(connection)
    with Redis.from_url(urls.redis) as redis:
        redis.flushdb()


@pytest.fixture(scope="module", autouse=True)
def _patient(patient_gate: None) -> None:
    """Give every gate and guard time; a file about their time limits has another `patient_gate`."""


@pytest.fixture(autouse=True)
def _clocks_go_right(api: Database, worker: Database) -> Iterator[None]:
    """Refuse a test that moves the clock of a shared database: later tests would run at another time."""
    yield
    moved = [db for db in (api, worker) if db.clock is not postgres_clock]
    for db in moved:
        db.clock = postgres_clock
    assert not moved, "move the clock of a Database of the test's own"


@pytest.fixture(autouse=True)
def plain_logs() -> None:
    """Log short lines: structlog's default takes seconds to draw each traceback with all its variables.

    This is set for each test, because a test of another distance in this process may have changed it.
    """
    processors: list[Processor] = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    structlog.configure(processors=processors)


@pytest.fixture(scope="session")
def runner() -> Iterator[LoopThread]:
    with LoopThread.open() as runner:
        yield runner


@pytest.fixture(scope="session")
def open_door(api: Database, root: Engine, runner: LoopThread) -> OpenDoor:
    """Return a function that makes a new world with a policy and a mode, and returns its door."""

    def opened(policy: Policy = WITHOUT_REVIEW, mode: Mode = Mode.ENFORCE) -> Door:
        return Door(World.make(api, policy, mode), api, root, runner)

    return opened


@pytest.fixture(scope="module")
def door(open_door: OpenDoor) -> Door:
    """A world without vendor review that the tests of one file share, and its door."""
    return open_door()


@pytest.fixture
def fresh_door(open_door: OpenDoor) -> Door:
    """A world of the test's own, for tests that change people or count everything, and its door."""
    return open_door()


@pytest.fixture
def own_door(template: ServerAddresses, runner: LoopThread) -> Iterator[Door]:
    """A world in a database of its own, which the test may break, and its door."""
    with fresh_database(template, flushes=False) as urls:
        db, root = db_at(urls), root_at(urls)
        yield Door(World.make(db), db, root, runner)
        db.dispose()
        root.dispose()


@pytest.fixture(scope="session")
def open_portal(api: Database, worker: Database, root: Engine, runner: LoopThread) -> OpenPortal:
    """Return a function that makes a new world with a policy, and returns its pages."""

    def opened(policy: Policy = WITHOUT_REVIEW, settings: Settings = SETTINGS) -> Portal:
        return Portal(World.make(api, policy), api, worker, root, runner, settings)

    return opened


@pytest.fixture
def portal(open_portal: OpenPortal) -> Portal:
    """The pages of a world of the test's own, without vendor review."""
    return open_portal()


@pytest.fixture(scope="module")
def shared(open_portal: OpenPortal) -> Portal:
    """The pages of a world without vendor review that the tests of one file share."""
    return open_portal()


@pytest.fixture(scope="module")
def point(door: Door) -> Iterator[AuthzenDoor]:
    """A decision point of AuthZEN, with the people and records of its certification scenario."""
    with decision_point_of(door.world, door.db) as opened:
        yield opened


@pytest.fixture
def refuse_commit(api: Database) -> Iterator[Callable[..., None]]:
    """Return a function that makes Postgres refuse one commit, after so many others."""
    left: list[type[errors.Error] | None] = []

    def refuse(_: Connection) -> None:
        if left and (kind := left.pop(0)):
            raise DBAPIError("COMMIT", None, kind("planted"))

    def arranged(kind: type[errors.Error] = errors.InsufficientPrivilege, *, after: int = 0) -> None:
        left[:] = [*[None] * after, kind]

    event.listen(api.engine, "commit", refuse)
    yield arranged
    event.remove(api.engine, "commit", refuse)
    assert not left
