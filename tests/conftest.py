"""Real servers for every test that wants them: started once, from nothing, and a fresh database for each test."""

import gc
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from config import embedded
from config.embedded import Servers
from lockbox import migrations
from lockbox.database import Database, make_engine
from lockbox.schedule import Schedule
from tests.builders import Urls, World, all_rights

NUMBERS = itertools.count(1)
LARGE = 100
LATE = 0.85

# Nothing that is imported or collected is ever garbage: to look through all of it, again and again, takes as long as
# to collect, and each later look would begin with it.
gc.disable()

for name in [name for name in os.environ if name.startswith(("LOCKBOX_", "FLOWER_"))]:
    del os.environ[name]


def pytest_collection_finish() -> None:
    """Look for garbage from here on, in what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, in its shuffled order, so that no process is left alone with it at the end.

    That is what starts processes, and then the largest files. Servers that are killed and want their ports back come
    late among the rest, when nobody else starts any.
    """
    sizes = Counter(item.path for item in items)
    rest = list(dict.fromkeys(item.path for item in items if _starts_servers(item) is None))
    rest.sort(key=lambda path: sizes[path] < LARGE)
    order: dict[Path, float] = {path: place for place, path in enumerate(rest)}
    items.sort(key=lambda item: _turn(item, order, len(rest) * LATE))


def _starts_servers(item: pytest.Item) -> bool | None:
    """Whether a test starts servers of its own, True, or kills those of others too, False; None for all others."""
    if "whole" not in item.path.parts:
        return None
    return item.path.name != "test_embedded.py"


def _turn(item: pytest.Item, order: dict[Path, float], midst: float) -> float:
    starts = _starts_servers(item)
    if starts is None:
        return order[item.path]
    return -1 if starts else midst - 0.5


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """Postgres, Valkey and a mail catcher, from nothing, for this run of the tests."""
    parent = Path(tempfile.mkdtemp(prefix="lockbox-tests-"))
    parent.chmod(0o755)
    try:
        running = embedded.start(parent / "servers", environment="test")
        try:
            _without_fsync(running)
            yield running
        finally:
            running.stop()
    finally:
        shutil.rmtree(parent)


def _without_fsync(servers: Servers) -> None:
    """Let nobody wait for the disk: a killed server loses nothing by it, and the machine is not unplugged."""
    engine = create_engine(servers.superuser_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        for statement in ("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM SET full_page_writes = off"):
            connection.execute(text(statement))
        connection.execute(text("SELECT pg_reload_conf()"))


@pytest.fixture(scope="session")
def template(servers: Servers) -> Servers:
    """The servers with a migrated database that others are cloned from."""
    migrations.upgrade(servers.owner_database_url)
    return servers


@contextmanager
def fresh_database(template: Servers) -> Iterator[Urls]:
    """A database that nobody else uses, cloned from the template, and an emptied Redis."""
    name = f"lockbox_{os.getpid()}_{next(NUMBERS)}"
    superuser = create_engine(template.superuser_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with superuser.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name} TEMPLATE lockbox STRATEGY FILE_COPY OWNER lockbox_owner"))
    with Redis.from_url(template.redis_url) as redis:
        redis.flushall()

    def here(url: str) -> str:
        return make_url(url).set(database=name).render_as_string(hide_password=False)

    with all_rights(here(template.superuser_url), here(template.notices_database_url)):
        yield Urls(
            superuser=here(template.superuser_url),
            owner=here(template.owner_database_url),
            api=here(template.database_url),
            worker=here(template.worker_database_url),
            redis=template.redis_url,
            smtp=template.smtp_url,
            maildir=template.maildir,
            notices=here(template.notices_database_url),
        )
    with superuser.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    superuser.dispose()


@pytest.fixture
def urls(template: Servers) -> Iterator[Urls]:
    """A database of this test alone, and an emptied Redis."""
    with fresh_database(template) as found:
        yield found


@pytest.fixture
def superuser(urls: Urls) -> Iterator[Engine]:
    """This test's database with every right, for setting scenes that the house itself refuses."""
    engine = create_engine(urls.superuser, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def api(urls: Urls) -> Iterator[Database]:
    """The database as the API sees it."""
    house = Database(make_engine(urls.api, role="test-api", pool_size=4, overflow=16), Schedule(urls.redis))
    yield house
    house.dispose()


@pytest.fixture
def worker(urls: Urls) -> Iterator[Database]:
    """The database as a worker sees it."""
    house = Database(make_engine(urls.worker, role="test-worker", pool_size=4, overflow=16), Schedule(urls.redis))
    yield house
    house.dispose()


@pytest.fixture
def world(api: Database) -> World:
    """A vendor with engineers, managers and a gateway, and a tenant with its people."""
    return World.make(api)
