"""PgBouncer in transaction mode: what a process checks before it serves, and that clients stay separate."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import repeat

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from cli.app import app
from harness.people import World
from harness.pooler import PROGRAM, Pooler, example_settings, pooler
from harness.stage import Urls, superuser_at
from lockbox import startup_checks
from lockbox.database import BOUNDS, Database, make_engine
from lockbox.driver.prepared_statements import MOST_PREPARED
from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from lockbox.startup_checks import ServerKind, StartupCheckFailed
from tests.programs import absent

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=absent("pgbouncer"))

TURN = "seal"
LONGEST = 10
SETTINGS = text("SELECT name, current_setting(name) FROM unnest(CAST(:names AS text[])) AS b (name)")
PROMISED = text("SELECT promised FROM connection_budget('', '')")
CONTEXT = text("SELECT current_setting('lockbox.person', true), current_setting('lock_timeout')")


@pytest.fixture
def between(urls: Urls) -> Iterator[Pooler]:
    with pooler(urls.api, urls.worker, urls.notifications) as found:
        yield found


@contextmanager
def _engine(url: str, size: int = 1) -> Iterator[Engine]:
    engine = make_engine(url, role="pooled", pool_size=size, overflow=0)
    yield engine
    engine.dispose()


def _check(url: str, server: ServerKind, direct: str | None = None) -> str:
    """Return why a process must not serve, or an empty text if it may."""
    with _engine(url) as engine, _engine(direct or url) as own:
        try:
            startup_checks.check(engine, server, direct=own if direct else None)
        except StartupCheckFailed as refused:
            return str(refused)
    return ""


def test_a_server_without_session_locks_starts_behind_the_pooler(urls: Urls, between: Pooler) -> None:
    assert not _check(between.through(urls.api), ServerKind.API)
    assert not _check(between.through(urls.notifications), ServerKind.NOTIFICATIONS)


@pytest.mark.far
def test_the_core_worker_needs_a_direct_database_url(urls: Urls, between: Pooler) -> None:
    pooled = between.through(urls.worker)

    assert "set LOCKBOX_DATABASE_DIRECT_URL" in _check(pooled, ServerKind.WORKER, pooled)
    assert "set LOCKBOX_DATABASE_DIRECT_URL" in _check(pooled, ServerKind.WORKER, urls.api)
    assert not _check(pooled, ServerKind.WORKER, urls.worker)
    assert not _check(urls.worker, ServerKind.WORKER, urls.worker)


def test_a_wrong_direct_database_address_is_reported_with_and_without_a_pooler(urls: Urls, between: Pooler) -> None:
    nowhere = make_url(urls.worker).set(port=1).render_as_string(hide_password=False)

    for usual in (urls.worker, between.through(urls.worker)):
        said = _check(usual, ServerKind.WORKER, nowhere)
        assert "cannot be reached at LOCKBOX_DATABASE_DIRECT_URL: " in said
        assert "refused" in said
        assert str(make_url(urls.worker).password) not in said
        assert "set LOCKBOX_DATABASE_DIRECT_URL" in _check(usual, ServerKind.WORKER, urls.api)


@pytest.mark.parametrize("command", [["migrate"], ["sample"], ["operate", "retain", "--older-than", "30d", "--yes"]])
def test_owner_commands_refuse_a_pooler_with_a_one_line_message(urls: Urls, command: list[str]) -> None:
    with pooler(urls.owner) as between:
        environment = {"LOCKBOX_OWNER_DATABASE_URL": between.through(urls.owner), "LOCKBOX_ENVIRONMENT": "test"}
        refused = CliRunner(env=environment).invoke(app, command)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert "LOCKBOX_OWNER_DATABASE_URL leads through a pooler" in refused.stderr


def test_a_pooler_without_prepared_statements_is_refused(urls: Urls) -> None:
    with pooler(urls.api, max_prepared_statements="0") as careless:
        said = _check(careless.through(urls.api), ServerKind.API)

    assert "set max_prepared_statements to 500" in said
    assert int(example_settings()["max_prepared_statements"]) == MOST_PREPARED


def test_lockboxs_time_limits_apply_through_the_pooler(urls: Urls, between: Pooler) -> None:
    with _engine(between.through(urls.api)) as engine, engine.connect() as connection:
        found: dict[str, str] = dict(connection.execute(SETTINGS, {"names": list(BOUNDS)}).all())

    assert found == BOUNDS


def test_a_request_is_submitted_and_approved_through_the_pooler(urls: Urls, world: World, between: Pooler) -> None:
    with _engine(between.through(urls.api), size=4) as engine:
        pooled = World(**vars(world) | {"db": Database(engine, world.db.schedule, keys=world.db.keys)})

        with ThreadPoolExecutor(4) as threads:
            submitted = list(threads.map(lambda _: pooled.submit(), repeat(None, 12)))
            list(threads.map(lambda one: pooled.act("ann", Action.APPROVE, one.id), submitted))

        left = set()
        for _ in range(8):
            with engine.connect() as connection:
                left.add(tuple(connection.execute(CONTEXT).one()))
    assert {(person or None, timeout) for person, timeout in left} == {(None, "2s")}, "a transaction left a setting"


def test_a_pooled_client_opens_no_direct_connection(urls: Urls, between: Pooler) -> None:
    schedule = Schedule(urls.redis)
    for url, most in ((urls.api, 58), (between.through(urls.api), 0)):
        with _engine(url) as engine:
            HeartbeatSender("api@here", connections=58).beat(Database(engine, schedule), ProcessPart.API)
            with engine.connect() as connection:
                assert connection.execute(PROMISED).scalar_one() == most
        with superuser_at(urls.superuser) as root, root.connect() as connection:
            connection.execute(text("DELETE FROM heartbeats"))
    schedule.close()


def test_a_session_lock_uses_the_direct_connection(urls: Urls, between: Pooler) -> None:
    with _engine(between.through(urls.worker)) as engine, _engine(urls.worker) as one, _engine(urls.worker) as two:
        schedule = Schedule(urls.redis)
        holder, other = (Database(engine, schedule, direct=direct) for direct in (one, two))

        with holder.turn(TURN) as first, other.turn(TURN) as second:
            assert (first, second) == (True, False)
        with other.turn(TURN) as third:
            assert third
        schedule.close()


@pytest.mark.far
def test_a_client_without_a_free_pooler_connection_is_refused_soon(urls: Urls) -> None:
    with pooler(urls.api, default_pool_size="1", query_wait_timeout="1") as narrow:
        url = narrow.through(urls.api)
        with _engine(url) as one, _engine(url) as other, one.connect() as holding:
            holding.execute(text("SELECT 1"))
            began = time.monotonic()
            with pytest.raises(OperationalError, match="query_wait_timeout"), other.connect() as waiting:
                waiting.execute(text("SELECT 1"))
        assert time.monotonic() - began < LONGEST
