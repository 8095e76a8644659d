"""What a server process checks about its database role and its schema before it serves."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool
from structlog.testing import capture_logs
from typer.testing import CliRunner

from api.app import CONNECTIONS as OF_THE_API
from cli.app import app
from harness.network import Filter, Proxy, serving
from harness.pooler import PROGRAM, pooler
from harness.stage import Urls, empty_database
from lockbox import migrations, startup_checks
from lockbox.database import BOUNDS, Database
from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.startup_checks import ServerKind, StartupCheckFailed
from tests.database.scenes import write
from tests.database.schema import ENDS_SERVICE, LATER
from tests.programs import absent
from worker.runtime import CONNECTIONS as OF_WORKERS

pytestmark = pytest.mark.usefixtures("alone")

# A role is one for all databases of the server: a login of the test's own stands in for the worker's.
LOGIN, PASSWORD = f"standing_{os.getpid()}", "a password of a test"
EXCESS_OF_ROLES = {
    f"GRANT lockbox_owner TO {LOGIN}": (f"REVOKE lockbox_owner FROM {LOGIN}", "the owner of the tables"),
    f"GRANT postgres TO {LOGIN}": (f"REVOKE postgres FROM {LOGIN}", "a superuser"),
    f"ALTER ROLE {LOGIN} CREATEROLE": (f"ALTER ROLE {LOGIN} NOCREATEROLE", "allowed to make roles"),
    f"ALTER ROLE {LOGIN} CREATEDB": (f"ALTER ROLE {LOGIN} NOCREATEDB", "allowed to make databases"),
    f"ALTER ROLE {LOGIN} BYPASSRLS": (f"ALTER ROLE {LOGIN} NOBYPASSRLS", "exempt from row security"),
}
OTHER = {
    "lock_timeout": "0",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "'100ms'",
    "TimeZone": "'Europe/Berlin'",
    "synchronous_commit": "off",
    "plan_cache_mode": "auto",
    "jit": "on",
}
FOR_GOOD = (
    "UPDATE ON events",
    "UPDATE (body) ON events",
    "DELETE ON events",
    "TRUNCATE ON events",
    "UPDATE (decision) ON decisions",
    "DELETE ON decisions",
    "TRUNCATE ON decisions",
)
EXCESS_OF_RIGHTS = {
    ServerKind.API: FOR_GOOD,
    ServerKind.WORKER: (
        *FOR_GOOD,
        "INSERT ON decisions",
        "INSERT ON requests",
        "SELECT (secret_hash) ON tokens",
        "UPDATE (outcome) ON notifications",
        "INSERT ON deliveries",
    ),
    ServerKind.NOTIFICATIONS: (
        *FOR_GOOD,
        "INSERT ON decisions",
        "UPDATE (secret_hash) ON invitations",
        "INSERT ON seals",
    ),
    ServerKind.CONNECTORS: (
        *FOR_GOOD,
        "INSERT ON decisions",
        "UPDATE (state) ON requests",
        "SELECT (secret_hash) ON tokens",
        "INSERT ON seals",
    ),
}


@contextmanager
def _engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url, poolclass=NullPool)
    try:
        yield engine
    finally:
        engine.dispose()


def _complaint(url: str, server: ServerKind) -> str:
    with _engine(url) as engine, pytest.raises(StartupCheckFailed) as error:
        startup_checks.check(engine, server)
    return str(error.value)


def _is_fit(url: str, server: ServerKind) -> bool:
    with _engine(url) as engine:
        startup_checks.check(engine, server)
    return True


@pytest.fixture
def empty(urls: Urls) -> Iterator[Urls]:
    with empty_database(urls) as found:
        yield found


def test_each_server_starts_with_its_own_database_role(urls: Urls) -> None:
    assert _is_fit(urls.api, ServerKind.API)
    assert _is_fit(urls.worker, ServerKind.WORKER)


@pytest.mark.parametrize("server", list(ServerKind))
def test_a_server_refuses_to_start_as_a_superuser(urls: Urls, server: ServerKind) -> None:
    said = _complaint(urls.superuser, server)

    assert "a superuser" in said
    assert server in said


@contextmanager
def older(url: str) -> Iterator[str]:
    """Yield the URL of a Postgres that reports version 17."""

    def filters() -> tuple[Filter, Filter]:
        return bytes, lambda data: re.sub(rb"18(\d{4})", rb"17\1", data)

    with serving(Proxy(int(make_url(url).port or 0), filters)) as proxy:
        yield make_url(url).set(port=proxy.port).render_as_string(hide_password=False)


@pytest.mark.parametrize("server", list(ServerKind))
def test_a_postgres_older_than_18_is_refused_with_advice_where_to_get_18(urls: Urls, server: ServerKind) -> None:
    with older(_url(urls, server)) as url, _engine(url) as engine, pytest.raises(StartupCheckFailed) as refused:
        startup_checks.wait_until_fit(engine, server)

    assert re.fullmatch(r"this is Postgres 17\.\d+, and Lockbox needs 18 or later", refused.value.found)
    assert "postgresql-18" in refused.value.fix


def test_the_migration_refuses_a_postgres_older_than_18_with_a_one_line_message(urls: Urls) -> None:
    with older(urls.owner) as url:
        refused = CliRunner(env={"LOCKBOX_OWNER_DATABASE_URL": url}).invoke(app, ["migrate"])

    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (1, "", 1)
    assert "this is Postgres 17." in refused.stderr
    assert "postgresql-18" in refused.stderr


@pytest.mark.skipif(not PROGRAM, reason=absent("pgbouncer"))
def test_a_pooler_in_statement_mode_is_reported_at_once(urls: Urls) -> None:
    with (
        pooler(urls.worker, pool_mode="statement") as pooled,
        _engine(pooled.through(urls.worker)) as engine,
        pytest.raises(StartupCheckFailed, match="the pooler is in statement mode"),
    ):
        startup_checks.wait_until_fit(engine, ServerKind.WORKER)


def test_the_error_for_a_postgres_without_free_connections_does_not_advise_starting_postgres(
    another_worker: str, superuser: Engine
) -> None:
    with superuser.begin() as connection:
        connection.execute(text(f"ALTER ROLE {LOGIN} CONNECTION LIMIT 0"))
    with _engine(another_worker) as engine, pytest.raises(OperationalError) as refused:
        startup_checks.check(engine, ServerKind.WORKER)

    said = startup_checks.unreachable(ServerKind.WORKER, refused.value)
    assert "no connection left" in said.found
    assert "raise max_connections" in said.fix


def test_a_process_announces_the_total_size_of_its_connection_pools() -> None:
    workers = {
        ServerKind.WORKER: "core",
        ServerKind.NOTIFICATIONS: "notifications",
        ServerKind.CONNECTORS: "connectors",
    }

    pools = {ServerKind.API: OF_THE_API} | {kind: OF_WORKERS[name] for kind, name in workers.items()}

    assert pools == {kind: rules.connections for kind, rules in startup_checks.RULES.items()}


def test_a_postgres_with_too_few_connections_is_refused(urls: Urls) -> None:
    with _engine(urls.worker) as engine, pytest.raises(StartupCheckFailed, match="raise max_connections"):
        startup_checks.check(engine, ServerKind.WORKER, connections=1_000_000)


def test_a_database_role_with_too_few_connections_is_refused(another_worker: str, superuser: Engine) -> None:
    write(superuser, f"ALTER ROLE {LOGIN} CONNECTION LIMIT 3")

    with _engine(another_worker) as engine:
        startup_checks.check(engine, ServerKind.WORKER, connections=3)
        with pytest.raises(StartupCheckFailed, match="up to 4 connections, and Postgres gives this login 3"):
            startup_checks.check(engine, ServerKind.WORKER, connections=4)


@pytest.mark.parametrize("limited", ["ROLE", "DATABASE"])
def test_too_few_connections_are_refused_with_the_statement_that_lifts_the_limit(
    another_worker: str, superuser: Engine, limited: str
) -> None:
    name = {"ROLE": LOGIN, "DATABASE": superuser.url.database}[limited]
    write(superuser, f"ALTER {limited} {name} CONNECTION LIMIT 150")

    with _engine(another_worker) as engine:
        with pytest.raises(StartupCheckFailed) as refused:
            startup_checks.check(engine, ServerKind.WORKER, connections=151)
        who, _, statement = refused.value.fix.partition(": ")
        write(superuser, statement)
        startup_checks.check(engine, ServerKind.WORKER, connections=151)

    assert who == "as a superuser"


def test_processes_log_a_warning_if_together_they_need_too_many_connections(
    urls: Urls, api: Database, worker: Database
) -> None:
    here = socket.gethostname()
    HeartbeatSender("api@elsewhere", connections=58).beat(api, ProcessPart.API)
    HeartbeatSender(f"core@{here}", connections=20).beat(worker, ProcessPart.CORE)
    with _engine(urls.worker) as engine:
        allowed = _allowed(engine)
        with capture_logs() as few:
            startup_checks.check(engine, ServerKind.WORKER, connections=allowed - 58)
        with capture_logs() as many:
            startup_checks.check(engine, ServerKind.WORKER, connections=allowed - 57)

    assert few == [], "what this worker opened before it was started again is not counted"
    (said,) = many
    assert (said["event"], said["log_level"]) == ("startup.too_few_connections", "critical")
    assert (said["promised_to_others"], said["allowed"]) == (58, allowed)


def test_a_second_worker_on_a_machine_counts_the_first_workers_connections(urls: Urls, worker: Database) -> None:
    here = socket.gethostname()
    HeartbeatSender(f"core@{here}", connections=20).beat(worker, ProcessPart.CORE)
    with _engine(urls.worker) as engine, capture_logs() as logs:
        startup_checks.check(engine, ServerKind.WORKER, connections=_allowed(engine), node=f"core@{here}")
        startup_checks.check(engine, ServerKind.WORKER, connections=_allowed(engine), node=f"worker-2@{here}")

    assert [log["promised_to_others"] for log in logs] == [20]


def test_an_unreachable_postgres_is_reported_with_the_reason(urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup_checks, "WAIT_SECONDS", 0)
    nowhere = make_url(urls.worker).set(port=1)

    with _engine(nowhere.render_as_string(hide_password=False)) as engine, pytest.raises(StartupCheckFailed) as said:
        startup_checks.wait_until_fit(engine, ServerKind.WORKER)

    assert "cannot be reached at LOCKBOX_WORKER_DATABASE_URL: " in str(said.value)
    assert "refused" in str(said.value)
    assert str(nowhere.password) not in str(said.value)


def _allowed(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(text("SELECT allowed FROM connection_budget('', '')")).scalar_one())


@pytest.mark.parametrize("server", list(ServerKind))
def test_a_server_with_the_owners_database_role_is_refused(urls: Urls, server: ServerKind) -> None:
    said = _complaint(urls.owner, server)

    assert "the owner of the tables" in said
    assert "exempt from row security" in said


def test_a_worker_with_the_apis_database_role_is_refused(urls: Urls) -> None:
    assert "this login may INSERT decisions" in _complaint(urls.api, ServerKind.WORKER)


def test_an_api_with_the_workers_database_role_is_refused(urls: Urls) -> None:
    assert "is it the login of another process?" in _complaint(urls.worker, ServerKind.API)


@pytest.fixture
def another_worker(urls: Urls, superuser: Engine) -> Iterator[str]:
    """The URL of a role that has the worker role's rights as its member."""
    write(superuser, f"CREATE ROLE {LOGIN} LOGIN PASSWORD '{PASSWORD}' IN ROLE lockbox_worker")
    for name, value in BOUNDS.items():
        write(superuser, f"ALTER ROLE {LOGIN} SET {name} TO '{value}'")
    yield make_url(urls.worker).set(username=LOGIN, password=PASSWORD).render_as_string(hide_password=False)
    write(superuser, f"DROP ROLE {LOGIN}")


def test_a_database_role_that_can_become_another_role_counts_as_that_role(
    another_worker: str, superuser: Engine
) -> None:
    said = {}
    for change, (undo, _) in EXCESS_OF_ROLES.items():
        write(superuser, change)
        said[change] = _complaint(another_worker, ServerKind.WORKER)
        write(superuser, undo)

    assert {change: line for change, line in said.items() if EXCESS_OF_ROLES[change][1] not in line} == {}
    assert _is_fit(another_worker, ServerKind.WORKER)


@pytest.mark.parametrize("name", BOUNDS)
def test_a_database_role_without_lockboxs_time_limits_is_refused(
    another_worker: str, superuser: Engine, name: str
) -> None:
    write(superuser, f"ALTER ROLE {LOGIN} SET {name} TO {OTHER[name]}")

    said = _complaint(another_worker, ServerKind.WORKER)

    assert f"{name} of this login is" in said
    assert "run config/roles.sql again" in said


def test_a_database_setting_beyond_lockboxs_limits_is_reported(urls: Urls, superuser: Engine) -> None:
    write(superuser, f"ALTER ROLE lockbox_api IN DATABASE {superuser.url.database} SET synchronous_commit = off")

    assert "synchronous_commit of this login is off and has to be on" in _complaint(urls.api, ServerKind.API)
    write(superuser, f"ALTER ROLE lockbox_api IN DATABASE {superuser.url.database} RESET synchronous_commit")


def _url(urls: Urls, server: ServerKind) -> str:
    return {
        ServerKind.API: urls.api,
        ServerKind.WORKER: urls.worker,
        ServerKind.NOTIFICATIONS: urls.notifications,
        ServerKind.CONNECTORS: urls.connectors,
    }[server]


@pytest.mark.far
@pytest.mark.parametrize("server", list(ServerKind))
def test_a_server_whose_database_role_has_excess_rights_is_refused(
    urls: Urls, superuser: Engine, server: ServerKind
) -> None:
    url = _url(urls, server)
    said = {}
    for right in EXCESS_OF_RIGHTS[server]:
        write(superuser, f"GRANT {right} TO PUBLIC")
        said[right] = _complaint(url, server)
        write(superuser, f"REVOKE {right} FROM PUBLIC")

    assert {r: line for r, line in said.items() if f"may {r.split()[0]} {r.split()[-1]}" not in line} == {}
    assert _is_fit(url, server)


def test_a_server_whose_database_role_lacks_a_right_is_refused_at_the_start(urls: Urls, superuser: Engine) -> None:
    write(superuser, "REVOKE INSERT ON decisions FROM lockbox_api")

    assert "may not INSERT decisions" in _complaint(urls.api, ServerKind.API)


def test_a_process_refuses_a_database_without_migrations(empty: Urls) -> None:
    assert "has no migrations yet" in _complaint(empty.api, ServerKind.API)


def test_a_later_incompatible_schema_is_refused(urls: Urls, superuser: Engine) -> None:
    write(superuser, LATER)
    write(superuser, ENDS_SERVICE)

    said = _complaint(urls.worker, ServerKind.WORKER)

    assert "at migration 9999_later" in said
    assert migrations.head() in said


@pytest.mark.parametrize("server", list(ServerKind))
def test_a_later_compatible_schema_is_accepted(urls: Urls, superuser: Engine, server: ServerKind) -> None:
    write(superuser, LATER)

    assert _is_fit(_url(urls, server), server)


@pytest.mark.parametrize("other", ["0000", "0001", "0001_0123456789ab", "later", "99999999999"])
def test_an_unknown_schema_revision_is_refused(urls: Urls, superuser: Engine, other: str) -> None:
    write(superuser, "UPDATE alembic_version SET version_num = :other", other=other)

    assert f"at migration {other}" in _complaint(urls.api, ServerKind.API)


def test_a_later_schema_that_states_no_compatible_revision_is_refused(urls: Urls, superuser: Engine) -> None:
    write(superuser, LATER)
    write(superuser, "DROP FUNCTION oldest_revision")

    assert "at migration 9999_later" in _complaint(urls.api, ServerKind.API)


def test_a_database_without_recorded_migrations_is_refused(urls: Urls, superuser: Engine) -> None:
    with superuser.connect() as connection:
        connection.execute(text("DELETE FROM alembic_version"))

    assert "has no migrations yet" in _complaint(urls.api, ServerKind.API)
