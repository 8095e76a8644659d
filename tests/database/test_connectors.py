"""A window opens at a real Postgres as a new role; the role ends with the window, and is proven gone."""

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import errors
from psycopg.sql import SQL
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from connectors import (
    connection_steps,
    credential_requests,
    postgres_roles,
)
from connectors.connection_steps import ConnectionDriver
from connectors.protocol import ConnectorFailed
from connectors.scram import verifier_of
from connectors.targets import TargetFolder
from harness.people import World
from harness.stage import Urls
from lockbox.database import Database
from lockbox.errors import Conflict, Invalid, NoOpenWindow, NotYours
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from tests.database.postgres_target import (
    DATABASE,
    OrdersWindow,
    Plant,
    PostgresTarget,
    again,
    postgres_target,
    state_of,
    told,
)
from tests.database.scenes import as_caller, read, write
from tests.passkey_approvals import DEMANDED, approve, enrol

OVER = """
UPDATE requests SET deadline_at = now(), wake_at = now() WHERE id = :id
"""


@pytest.mark.far
def test_an_engineer_signs_in_at_a_target_with_a_password_made_in_the_terminal(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget
) -> None:
    found, password = window.credential()

    assert driver.run([found.id]) == {"open": 1}

    with target.sign_in(found.id, password) as signed_in:
        assert signed_in.execute("SELECT count(*) FROM orders").fetchone() == (2,)
        with pytest.raises(errors.InsufficientPrivilege):
            signed_in.execute("INSERT INTO orders VALUES (3)")
        until = signed_in.execute("SELECT rolvaliduntil FROM pg_roles WHERE rolname = current_user").fetchone()
        assert until == (found.until,)
    with pytest.raises(psycopg.OperationalError):
        target.sign_in(found.id, "another password")
    assert state_of(window.world.db, found.id) == "open"
    assert told(window.world.db, window.request_id) == ["connection_requested", "connection_opened"]
    held = read(window.world.db, "SELECT to_jsonb(c)::text AS all FROM connections c")
    assert password not in held[0].all


@pytest.mark.far
def test_a_window_with_a_passkey_signed_approval_is_opened_at_the_target(
    api: Database, connectors: Database, target: PostgresTarget
) -> None:
    world = World.make(api, DEMANDED)
    authenticator, request = enrol(world, "ann"), world.submit(resources=[DATABASE], actions=["read"])
    approve(world, "ann", request.id, authenticator)
    found, password = OrdersWindow(world, target, request.id).credential()

    driver = target.driver(connectors, world.tenant.slug)

    assert driver.run([found.id]) == {"open": 1}
    target.sign_in(found.id, password).close()
    with connectors.transaction() as session:
        assert connection_steps.ended(session, most=10) == []


def test_an_action_grants_exactly_the_target_roles_configured_for_that_action(
    driver: ConnectionDriver, world: World, target: PostgresTarget
) -> None:
    found, password = OrdersWindow.open(world, target, "change", "export").credential()

    driver.run([found.id])

    with target.sign_in(found.id, password) as signed_in:
        signed_in.execute("INSERT INTO orders VALUES (3)")
        with pytest.raises(errors.InsufficientPrivilege):
            signed_in.execute("UPDATE orders SET id = 4")
        with pytest.raises(errors.InsufficientPrivilege):
            signed_in.execute(f"SET ROLE {target.writer}")


def revoke(window: OrdersWindow, _: Database, __: Engine) -> None:
    window.world.act("ann", Action.REVOKE, window.request_id)


def complete(window: OrdersWindow, _: Database, __: Engine) -> None:
    window.world.act("erin", Action.COMPLETE, window.request_id)


def expire(window: OrdersWindow, worker: Database, superuser: Engine) -> None:
    pass_the_deadline(window, worker, superuser)
    assert timers.run(worker, [window.request_id])["expired"] == 1


def pass_the_deadline(window: OrdersWindow, _: Database, superuser: Engine) -> None:
    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as connection, connection.begin():
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(text(OVER), {"id": window.request_id})


def suspend(window: OrdersWindow, _: Database, superuser: Engine) -> None:
    write(superuser, "UPDATE tenants SET suspended = true WHERE id = :id", id=window.world.tenant.id)


def disable(window: OrdersWindow, _: Database, superuser: Engine) -> None:
    whose = window.world.people["erin"].person_id
    write(superuser, "UPDATE people SET disabled_at = clock_timestamp() WHERE id = :id", id=whose)


WAYS: tuple[Callable[[OrdersWindow, Database, Engine], None], ...] = (
    revoke,
    complete,
    expire,
    pass_the_deadline,
    suspend,
    disable,
)


@pytest.mark.far
@pytest.mark.parametrize("end", WAYS)
def test_target_sessions_and_the_target_role_end_however_the_window_ends(
    end: Callable[[OrdersWindow, Database, Engine], None],
    plant: Plant,
    worker: Database,
) -> None:
    window, driver, target, connectors, superuser = plant
    found, password = window.credential()
    driver.run([found.id])
    signed_in = target.sign_in(found.id, password)

    end(window, worker, superuser)
    with connectors.transaction() as session:
        assert connection_steps.ended(session, most=10) == [found.id]
    assert driver.run([found.id]) == {"closed": 1}

    with pytest.raises(psycopg.OperationalError):
        signed_in.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        target.sign_in(found.id, password)
    assert target.roles() == []
    assert told(window.world.db, window.request_id)[-1] == "connection_closed"
    assert driver.run([found.id]) == {}, "what is closed is done"


def test_no_target_role_is_created_after_the_window_ended(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget
) -> None:
    found, _ = window.credential()
    window.world.act("ann", Action.REVOKE, window.request_id)

    assert driver.run([found.id]) == {"closed": 1}

    assert told(window.world.db, window.request_id) == ["connection_requested", "connection_closed"]
    assert target.roles() == []
    with pytest.raises(NoOpenWindow):
        window.credential()


def test_a_window_that_ends_while_a_worker_opens_the_target_connection_leaves_no_role(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, _ = window.credential()
    is_wanted = driver._is_wanted  # noqa: SLF001 - the last look before the commit

    def revoked_before(step: Any) -> bool:
        window.world.act("ann", Action.REVOKE, window.request_id)
        return is_wanted(step)

    monkeypatch.setattr(driver, "_is_wanted", revoked_before)

    assert driver.run([found.id]) == {"overtaken": 1}
    assert target.roles() == []
    assert driver.run([found.id]) == {"closed": 1}


def test_closing_a_target_connection_waits_for_an_opening_that_is_past_the_last_check(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, password = window.credential()
    looked, goes_on = threading.Event(), threading.Event()

    def stop_before_the_commit(name: str) -> None:
        if name == "connector.before_open":
            looked.set()
            assert goes_on.wait(10)

    monkeypatch.setattr(postgres_roles, "failpoint", stop_before_the_commit)
    opening = threading.Thread(target=driver.run, args=([found.id],))
    opening.start()
    assert looked.wait(10)
    window.world.act("ann", Action.REVOKE, window.request_id)
    closing = threading.Thread(target=driver.run, args=([found.id],))
    closing.start()
    closing.join(0.5)
    assert closing.is_alive(), "it waits for the lock at the target"
    goes_on.set()
    opening.join(10)
    closing.join(10)

    assert target.roles() == []
    with pytest.raises(psycopg.OperationalError):
        target.sign_in(found.id, password)
    assert state_of(window.world.db, found.id) == "closed"


ADVISORY = "SELECT pg_advisory_lock(hashtextextended({role}, 0))"
LOCKS = (ADVISORY, "BEGIN; ALTER ROLE CURRENT_USER PASSWORD {password}")
COMMITTED = "ALTER ROLE CURRENT_USER PASSWORD {password}"


@pytest.mark.far
@pytest.mark.parametrize("locks", LOCKS)
def test_closing_a_connection_ends_a_target_session_that_holds_the_lock_needed_for_closing(
    locks: str, plant: Plant
) -> None:
    window, driver, target, _, _ = plant
    found, password = window.credential()
    driver.run([found.id])
    with closing(target.sign_in(found.id, password)) as signed_in:
        signed_in.execute(SQL(locks).format(role=found.role, password=password))

        window.world.act("ann", Action.REVOKE, window.request_id)

        assert driver.run([found.id]) == {"closed": 1}
        with pytest.raises(psycopg.OperationalError):
            signed_in.execute("SELECT 1")
    assert target.roles() == []


@pytest.mark.far
@pytest.mark.parametrize("locks", [*LOCKS, COMMITTED])
def test_a_target_session_that_reconnects_and_retakes_the_lock_needed_for_closing_is_ended(
    locks: str, plant: Plant
) -> None:
    window, driver, target, _, _ = plant
    found, password = window.credential()
    driver.run([found.id])
    locking = SQL(locks).format(role=found.role, password=password)
    is_over, has_locked = threading.Event(), threading.Event()

    def insist() -> None:
        while not is_over.is_set():
            with suppress(psycopg.Error), target.sign_in(found.id, password) as signed_in:
                while True:
                    signed_in.execute(locking)
                    has_locked.set()
                    if locks != COMMITTED:
                        signed_in.execute("SELECT pg_sleep(10)")

    clients = [threading.Thread(target=insist) for _ in range(2)]
    for one in clients:
        one.start()
    assert has_locked.wait(10)
    window.world.act("ann", Action.REVOKE, window.request_id)

    try:
        assert driver.run([found.id]) == {"closed": 1}
    finally:
        is_over.set()
        target.end_sessions()
        for one in clients:
            one.join(10)
    assert target.roles() == []


def test_access_ends_even_if_another_target_role_holds_the_lock_needed_for_closing(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engineer may have such a role, and closing cannot end its sessions."""
    bounds = postgres_roles.BOUNDS.replace("lock_timeout=3s", "lock_timeout=300ms")
    monkeypatch.setattr(postgres_roles, "BOUNDS", bounds)
    window, driver, target, _, _ = plant
    found, password = window.credential()
    driver.run([found.id])
    url = make_url(target.superuser).set(drivername="postgresql", database=target.database)
    login = url.render_as_string(hide_password=False)
    with closing(target.sign_in(found.id, password)) as signed_in, psycopg.connect(login, autocommit=True) as other:
        other.execute(SQL(ADVISORY).format(role=found.role))
        window.world.act("ann", Action.REVOKE, window.request_id)

        assert driver.run([found.id]) == {"failed": 1}
        with pytest.raises(psycopg.OperationalError):
            target.sign_in(found.id, password)
        with pytest.raises(psycopg.OperationalError):
            signed_in.execute("SELECT 1")
    again(plant.superuser, found.id)

    assert driver.run([found.id]) == {"closed": 1}
    assert target.roles() == []


@pytest.mark.far
def test_the_target_session_of_another_engineer_does_not_delay_closing(world: World, plant: Plant) -> None:
    window, driver, target, _, _ = plant
    found, _ = window.credential()
    other, password = OrdersWindow.open(world, target, "change").credential()
    driver.run([found.id, other.id])
    with closing(target.sign_in(other.id, password)) as theirs:
        theirs.execute(SQL(ADVISORY).format(role=found.role))

        world.act("ann", Action.REVOKE, window.request_id)

        assert driver.run([found.id]) == {"closed": 1}
        with pytest.raises(psycopg.OperationalError):
            theirs.execute("SELECT 1")
    assert target.roles() == [other.role]
    target.sign_in(other.id, password).close()


@pytest.mark.far
def test_a_target_database_with_encoding_sql_ascii_is_opened_and_closed(
    urls: Urls, tmp_path: Path, connectors: Database, world: World
) -> None:
    ascii_alone = "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
    with postgres_target(urls.superuser, tmp_path / "ascii", ascii_alone) as target:
        driver, window = target.driver(connectors, world.tenant.slug), OrdersWindow.open(world, target)
        found, password = window.credential()
        assert driver.run([found.id]) == {"open": 1}
        target.sign_in(found.id, password).close()

        world.act("ann", Action.REVOKE, window.request_id)

        assert driver.run([found.id]) == {"closed": 1}
        assert target.roles() == []


def test_target_objects_of_an_engineer_are_dropped_with_the_role(
    driver: ConnectionDriver, world: World, target: PostgresTarget
) -> None:
    window = OrdersWindow.open(world, target, "change")
    found, password = window.credential()
    driver.run([found.id])
    with target.sign_in(found.id, password) as signed_in:
        signed_in.execute("CREATE FUNCTION public.mine() RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1")
        signed_in.execute("CREATE TABLE public.copied AS SELECT * FROM orders")

    world.act("erin", Action.COMPLETE, window.request_id)

    assert driver.run([found.id]) == {"closed": 1}
    assert target.roles() == []


@pytest.mark.far
def test_a_new_target_credential_closes_the_connection_of_the_previous_credential(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget
) -> None:
    first, lost = window.credential()
    driver.run([first.id])

    second, password = window.credential()
    driver.run([second.id, first.id])

    assert (state_of(window.world.db, first.id), state_of(window.world.db, second.id)) == ("closed", "open")
    target.sign_in(second.id, password).close()
    with pytest.raises(psycopg.OperationalError):
        target.sign_in(first.id, lost)


@pytest.mark.far
def test_a_request_has_at_most_three_unclosed_target_connections_and_they_are_listed_first(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget
) -> None:
    def listed() -> list[tuple[UUID, str]]:
        with window.world.db.transaction() as session:
            found = credential_requests.connections(
                session, window.world.people["erin"], window.request_id, target.catalogue(window.world.tenant.slug)
            )
            return [(one.id, one.state.value) for one in found]

    first, second, third = (window.credential()[0].id for _ in range(3))
    with pytest.raises(Conflict, match="3 credentials of this request are not closed yet"):
        window.credential()
    assert listed() == [(third, "opening"), (second, "closing"), (first, "closing")]

    driver.run([second])
    fourth = window.credential()[0].id
    driver.run([fourth, third])

    assert listed() == [(fourth, "open"), (first, "closing"), (third, "closed"), (second, "closed")]


def test_the_apis_database_role_cannot_postpone_closing_at_a_target(window: OrdersWindow) -> None:
    found, _ = window.credential()
    late = "UPDATE connections SET state = 'closing', run_at = now() + interval '1 day' WHERE id = :id"

    with (
        pytest.raises(DBAPIError, match="row-level security"),
        as_caller(window.world.db, window.world.people["erin"], at=window.world.tenant.id) as connection,
    ):
        connection.execute(text(late), {"id": found.id})


def test_a_password_verifier_written_into_the_database_opens_no_connection(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget, superuser: Engine
) -> None:
    found, _ = window.credential()
    write(superuser, "UPDATE connections SET verifier = :v WHERE id = :id", v=verifier_of("theirs"), id=found.id)

    assert driver.run([found.id]) == {"failed": 1}

    assert target.roles() == []
    assert read(window.world.db, "SELECT last_error FROM connections")[0].last_error == "nothing_to_open"


def test_only_the_engineer_of_a_window_that_covers_the_target_gets_a_target_credential(
    world: World, target: PostgresTarget, window: OrdersWindow
) -> None:
    with pytest.raises(NotYours):
        window.credential("max")
    with pytest.raises(Invalid, match="never a password"):
        window.ask("hunter2")
    narrow = world.submit()
    world.act("ann", Action.APPROVE, narrow.id)
    with pytest.raises(Invalid, match="does not cover"):
        OrdersWindow(world, target, narrow.id).credential()
    counted = world.submit(max_uses=3)
    world.act("ann", Action.APPROVE, counted.id)
    with pytest.raises(Invalid, match="any number of times"):
        OrdersWindow(world, target, counted.id).credential()
    with pytest.raises(Invalid, match="No action"):
        OrdersWindow.open(world, target, "export").credential()
    other = World.make(world.db)
    with pytest.raises(Invalid, match="no connector"):
        OrdersWindow.open(other, target).credential(tenant=world.tenant.slug)


def test_a_target_configuration_file_readable_by_other_users_is_refused(target: PostgresTarget) -> None:
    folder = TargetFolder(target.folder)
    assert len(folder.lines("orders")) == 1
    (target.folder / "orders").chmod(0o604)
    with pytest.raises(ConnectorFailed, match="target_file_readable"):
        folder.lines("orders")
    for name in ("../orders", "nothing", ""):
        with pytest.raises(ConnectorFailed, match="no_target_file"):
            folder.lines(name)
