"""A window is opened at a real Postgres as a role of its own, closed with the window, and proven closed."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg import errors
from psycopg.sql import SQL
from sqlalchemy import Engine, make_url, text
from sqlalchemy.exc import DBAPIError

from cli.stack import CHECKOUT
from connectors import (
    connection_outcomes,
    connection_steps,
    credential_requests,
    postgres_roles,
    role_sessions,
    target_slots,
)
from connectors.connection_steps import ConnectionDriver
from connectors.postgres_roles import CONNECT_SECONDS
from connectors.protocol import ConnectorFailed
from connectors.role_sessions import Target
from connectors.scram import verifier_of
from connectors.target_slots import MOST_AT_A_TARGET, TargetSlots
from connectors.targets import TargetFolder
from harness.people import World
from harness.stage import Urls, run_as_superuser
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.errors import Conflict, Invalid, NoOpenWindow, NotYours
from lockbox.failpoints import KILLED
from lockbox.identity.keyring import ApprovalKeys
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from tests.database.postbag import Postbag
from tests.database.postgres_target import DATABASE, OF_CLOSE, OF_OPEN, OrdersWindow, PostgresTarget, postgres_target
from tests.database.scenes import as_caller, read, write
from tests.each import each
from tests.passkey_approvals import DEMANDED, approve, enrol

HANGS_FOR = 2
OVER = """
UPDATE requests SET deadline_at = now(), wake_at = now() WHERE id = :id
"""
DIE = """
import sys
from pathlib import Path
from uuid import UUID
from lockbox import failpoints
from lockbox.audit.log.checkpoint import VerifierKey
from lockbox.database import Database, ProcessKeys, make_engine
from lockbox.identity.keyring import ApprovalKeys
from lockbox.schedule import Schedule
from tests.database.postbag import Postbag
from tests.database.postgres_target import PostgresTarget
login, redis, key, tenant, one, point, *target = sys.argv[1:]
keys = ProcessKeys(ApprovalKeys([], [VerifierKey.read(key)]))
db = Database(make_engine(login, role="dies"), Schedule(redis, patience=2.0), keys=keys)
driver = PostgresTarget(target[0], Path(target[1]), *target[2:]).driver(db, tenant)
failpoints.arm(point)
driver.run([UUID(one)])
"""


@pytest.fixture
def target(urls: Urls, tmp_path: Path) -> Iterator[PostgresTarget]:
    with postgres_target(urls.superuser, tmp_path / "targets") as made:
        yield made


@pytest.fixture
def connectors(urls: Urls) -> Iterator[Database]:
    """The database as the connector worker sees it."""
    db = Database(make_engine(urls.connectors, role="test-connectors", pool_size=4), Schedule(urls.redis))
    yield db
    db.dispose()


@pytest.fixture
def world(api: Database) -> World:
    return World.make(api)


@pytest.fixture
def driver(connectors: Database, world: World, target: PostgresTarget) -> ConnectionDriver:
    return target.driver(connectors, world.tenant.slug)


@pytest.fixture
def window(world: World, target: PostgresTarget) -> OrdersWindow:
    return OrdersWindow.open(world, target)


@dataclass(frozen=True)
class Plant:
    """An open window, what drives its connections, where they lead, and two ways to the database."""

    parts: tuple[OrdersWindow, ConnectionDriver, PostgresTarget, Database, Engine]


@pytest.fixture
def plant(
    window: OrdersWindow, driver: ConnectionDriver, target: PostgresTarget, connectors: Database, superuser: Engine
) -> Plant:
    return Plant((window, driver, target, connectors, superuser))


def state_of(db: Database, one: UUID) -> str:
    return str(read(db, "SELECT state FROM connections WHERE id = :id", id=one)[0].state)


def told(db: Database, request_id: UUID) -> list[str]:
    """Return the events of a request about its connections, in order."""
    query = "SELECT action FROM events WHERE request_id = :id AND action LIKE 'connection%' ORDER BY at, id"
    return [row.action for row in read(db, query, id=request_id)]


Die = Callable[[UUID], None]


@contextmanager
def killed_at(
    point: str, urls: Urls, api: Database, connectors: Database, target: PostgresTarget
) -> Iterator[tuple[OrdersWindow, ConnectionDriver, Die]]:
    """Yield a window, what drives its connection, and a way to have another process do that until it dies there."""
    approvals = ApprovalKeys([Ed25519PrivateKey.generate()])
    api.keys = connectors.keys = ProcessKeys(approvals)
    world = World.make(api)
    slug = world.tenant.slug

    def die(one: UUID) -> None:
        found = (target.superuser, str(target.folder), target.database, target.admin, target.reader, target.writer)
        words = (urls.connectors, urls.redis, approvals.listed, slug, str(one), f"{point}", *found)
        ended = subprocess.run(
            [sys.executable, "-c", DIE, *words], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60
        )
        assert ended.returncode == KILLED, ended.stderr

    yield OrdersWindow.open(world, target), target.driver(connectors, slug), die


def again(superuser: Engine, one: UUID) -> None:
    """Let the lease of a step that died be over."""
    write(
        superuser, "UPDATE connections SET run_at = clock_timestamp() WHERE id = :id AND run_at IS NOT NULL", id=one
    )


@pytest.mark.far
def test_an_engineer_signs_in_with_a_password_that_nobody_else_has_seen(
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
def test_a_window_whose_approval_a_passkey_signed_is_opened(
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


def test_an_action_grants_its_roles_and_no_more(
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
def test_whatever_ends_a_window_ends_the_sessions_and_the_role(
    end: Callable[[OrdersWindow, Database, Engine], None],
    plant: Plant,
    worker: Database,
) -> None:
    window, driver, target, connectors, superuser = plant.parts
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


def test_nothing_is_opened_once_the_window_is_over(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget
) -> None:
    found, _ = window.credential()
    window.world.act("ann", Action.REVOKE, window.request_id)

    assert driver.run([found.id]) == {"closed": 1}

    assert told(window.world.db, window.request_id) == ["connection_requested", "connection_closed"]
    assert target.roles() == []
    with pytest.raises(NoOpenWindow):
        window.credential()


def test_a_window_that_ends_while_it_is_opened_leaves_no_role(
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


def test_a_close_waits_for_an_open_that_has_looked_already(
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
def test_a_session_that_holds_what_a_close_waits_for_is_ended(locks: str, plant: Plant) -> None:
    window, driver, target, _, _ = plant.parts
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
def test_who_comes_back_and_locks_again_loses(locks: str, plant: Plant) -> None:
    window, driver, target, _, _ = plant.parts
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


def test_whoever_holds_the_lock_by_another_login_keeps_no_access_open(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engineer may have one, which no close can end."""
    bounds = postgres_roles.BOUNDS.replace("lock_timeout=3s", "lock_timeout=300ms")
    monkeypatch.setattr(postgres_roles, "BOUNDS", bounds)
    window, driver, target, _, _ = plant.parts
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
    again(plant.parts[4], found.id)

    assert driver.run([found.id]) == {"closed": 1}
    assert target.roles() == []


@pytest.mark.far
def test_another_engineers_session_does_not_hold_a_close_up(world: World, plant: Plant) -> None:
    window, driver, target, _, _ = plant.parts
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
def test_a_session_whose_role_was_dropped_by_hand_is_still_open(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget, superuser: Engine
) -> None:
    found, password = window.credential()
    driver.run([found.id])
    with closing(target.sign_in(found.id, password)) as signed_in:
        run_as_superuser(target.superuser, f"DROP ROLE {found.role}")
        window.world.act("ann", Action.REVOKE, window.request_id)

        assert driver.run([found.id]) == {"failed": 1}

        assert signed_in.execute("SELECT 1").fetchone() == (1,)
        assert read(window.world.db, "SELECT last_error FROM connections")[0].last_error == "still_open"
    target.wait_for_sessions()
    again(superuser, found.id)
    assert driver.run([found.id]) == {"closed": 1}


@pytest.mark.far
def test_a_target_without_an_encoding_is_opened_and_closed(
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


@pytest.mark.far
def test_a_target_that_does_not_answer_is_told_of_once_and_tried_again(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget, superuser: Engine
) -> None:
    found, password = window.credential()
    target.break_login()

    for _ in range(5):
        assert driver.run([found.id]) == {"failed": 1}
        again(superuser, found.id)

    row = read(window.world.db, "SELECT state, last_error, failures FROM connections")[0]
    assert (row.state, row.last_error, row.failures) == ("open_failed", "unreachable", 5)
    assert told(window.world.db, window.request_id) == ["connection_requested", "connection_open_failed"]
    target.mend_login()
    assert driver.run([found.id]) == {"open": 1}
    target.sign_in(found.id, password).close()


def test_a_close_that_fails_is_told_of_and_goes_on_until_the_target_says_that_it_is_closed(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget, superuser: Engine
) -> None:
    found, password = window.credential()
    driver.run([found.id])
    target.break_login()
    window.world.act("ann", Action.REVOKE, window.request_id)

    for _ in range(4):
        assert driver.run([found.id]) == {"failed": 1}
        assert driver.run([found.id]) == {}, "it is not due yet"
        again(superuser, found.id)

    assert state_of(window.world.db, found.id) == "close_failed"
    target.mend_login()
    assert driver.run([found.id]) == {"closed": 1}
    assert told(window.world.db, window.request_id)[2:] == ["connection_close_failed", "connection_closed"]
    with pytest.raises(psycopg.OperationalError):
        target.sign_in(found.id, password)


def mailed(db: Database) -> Counter[str]:
    """Return how many people were told what about the target, and take these mails as sent."""
    query = "SELECT id, template FROM notifications WHERE closed_at IS NULL AND person_id IS NOT NULL"
    rows = [row for row in read(db, query) if row.template.startswith(("connection_", "target_"))]
    Postbag().deliver(db, [row.id for row in rows])
    return Counter(row.template for row in rows)


def fail(driver: ConnectionDriver, superuser: Engine, one: UUID) -> None:
    for _ in range(3):
        assert driver.run([one]) == {"failed": 1}
        again(superuser, one)


@pytest.mark.far
def test_an_engineer_who_asks_again_for_a_credential_has_nobody_told_again(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, driver, target, _, superuser = plant.parts
    db = window.world.db
    post = Postbag()
    post.endpoint(window.world, "https://tenant-hook", tenant_id=window.world.tenant.id)
    once = {"connection_open_failed": 5, "target_open_failed": 1}
    run_as_superuser(target.superuser, f"REVOKE ADMIN OPTION FOR {target.reader} FROM {target.admin}")
    first = window.credential()[0].id
    fail(driver, superuser, first)
    assert mailed(db) == once

    second = window.credential()[0].id
    assert driver.run([first]) == {"closed": 1}
    fail(driver, superuser, second)

    assert mailed(db) == {}, "they were told that this target fails"
    assert told(db, window.request_id).count("connection_open_failed") == 2
    monkeypatch.setattr(connection_outcomes, "TOLD_AGAIN_AFTER", timedelta(0))
    third = window.credential()[0].id
    fail(driver, superuser, third)
    assert mailed(db) == once, "an hour went by"
    run_as_superuser(target.superuser, f"GRANT {target.reader} TO {target.admin} WITH ADMIN OPTION")
    driver.run([second])
    fourth = window.credential()[0].id
    assert driver.run([third]) == {"closed": 1}
    assert driver.run([fourth]) == {"open": 1}
    assert mailed(db) == {"connection_open_settled": 5, "target_open_settled": 1}
    assert driver.run([window.credential()[0].id]) == {"open": 1}
    assert mailed(db) == {}, "nothing had failed since"
    post.deliver(db, [row.id for row in read(db, "SELECT id FROM notifications WHERE endpoint_id IS NOT NULL")])
    called = Counter(json.loads(call.body)["type"] for call in post.hooks.sent)
    assert (called["request.connection_open_failed"], called["request.connection_opened"]) == (3, 2), "each is called"


@pytest.mark.far
def test_closes_that_fail_together_are_told_of_once_and_settled_by_the_last(plant: Plant) -> None:
    window, driver, target, _, superuser = plant.parts
    db = window.world.db
    first = window.credential()[0].id
    driver.run([first])
    target.break_login()
    second = window.credential()[0].id
    window.world.act("ann", Action.REVOKE, window.request_id)

    fail(driver, superuser, first)
    fail(driver, superuser, second)

    assert mailed(db) == {"connection_close_failed": 4, "target_close_failed": 1}
    assert told(db, window.request_id).count("connection_close_failed") == 2
    target.mend_login()
    assert driver.run([second]) == {"closed": 1}
    assert mailed(db) == {}, "the first one is not closed"
    assert driver.run([first]) == {"closed": 1}
    assert mailed(db) == {"connection_close_settled": 4, "target_close_settled": 1}


def test_what_an_engineer_has_made_goes_with_the_role_and_runs_as_nobody_else(
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
def test_a_new_credential_closes_the_earlier_one(
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
def test_what_is_not_closed_is_listed_first_and_three_of_it_are_enough(
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


def test_nobody_puts_a_close_off_by_the_login_of_the_api(window: OrdersWindow) -> None:
    found, _ = window.credential()
    late = "UPDATE connections SET state = 'closing', run_at = now() + interval '1 day' WHERE id = :id"

    with (
        pytest.raises(DBAPIError, match="row-level security"),
        as_caller(window.world.db, window.world.people["erin"], at=window.world.tenant.id) as connection,
    ):
        connection.execute(text(late), {"id": found.id})


def test_a_verifier_that_was_written_into_the_database_opens_nothing(
    driver: ConnectionDriver, window: OrdersWindow, target: PostgresTarget, superuser: Engine
) -> None:
    found, _ = window.credential()
    write(superuser, "UPDATE connections SET verifier = :v WHERE id = :id", v=verifier_of("theirs"), id=found.id)

    assert driver.run([found.id]) == {"failed": 1}

    assert target.roles() == []
    assert read(window.world.db, "SELECT last_error FROM connections")[0].last_error == "nothing_to_open"


def test_only_the_engineer_of_a_window_that_covers_the_database_gets_a_credential(
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


def test_a_file_that_others_can_read_is_refused(target: PostgresTarget) -> None:
    folder = TargetFolder(target.folder)
    assert len(folder.lines("orders")) == 1
    (target.folder / "orders").chmod(0o604)
    with pytest.raises(ConnectorFailed, match="target_file_readable"):
        folder.lines("orders")
    for name in ("../orders", "nothing", ""):
        with pytest.raises(ConnectorFailed, match="no_target_file"):
            folder.lines(name)


@pytest.mark.far
@each("point", OF_OPEN)
def test_an_open_that_is_killed_is_done_once_and_ends_with_its_window(
    point: str, urls: Urls, api: Database, plant: Plant
) -> None:
    _, _, target, connectors, superuser = plant.parts
    with killed_at(point, urls, api, connectors, target) as (window, driver, die):
        found, password = window.credential()
        die(found.id)
        again(superuser, found.id)
        driver.run([found.id])

        assert target.roles() == [found.role]
        assert state_of(api, found.id) == "open"
        assert told(api, window.request_id) == ["connection_requested", "connection_opened"]
        target.sign_in(found.id, password).close()
        window.world.act("ann", Action.REVOKE, window.request_id)
        driver.run([found.id])
        assert target.roles() == []


@pytest.mark.far
@each("point", OF_OPEN)
def test_an_open_that_is_killed_and_not_wanted_any_more_leaves_nothing_open(
    point: str, urls: Urls, api: Database, connectors: Database, target: PostgresTarget
) -> None:
    with killed_at(point, urls, api, connectors, target) as (window, driver, die):
        found, password = window.credential()
        die(found.id)
        window.world.act("ann", Action.REVOKE, window.request_id)
        driver.run([found.id])

        assert target.roles() == []
        with pytest.raises(psycopg.OperationalError):
            target.sign_in(found.id, password)
        assert told(api, window.request_id)[-1] == "connection_closed"


@pytest.mark.far
def test_a_close_that_is_killed_is_finished_and_recorded_once(urls: Urls, api: Database, plant: Plant) -> None:
    _close_killed(OF_CLOSE[-1], urls, api, plant)


@pytest.mark.far
@each("point", OF_CLOSE[:-1])
def test_a_close_that_is_killed_earlier_is_finished_and_recorded_once(
    point: str, urls: Urls, api: Database, plant: Plant
) -> None:
    _close_killed(point, urls, api, plant)


def _close_killed(point: str, urls: Urls, api: Database, plant: Plant) -> None:
    _, _, target, connectors, superuser = plant.parts
    with killed_at(point, urls, api, connectors, target) as (window, driver, die):
        found, password = window.credential()
        driver.run([found.id])
        signed_in = target.sign_in(found.id, password)
        window.world.act("ann", Action.REVOKE, window.request_id)
        die(found.id)
        again(superuser, found.id)
        driver.run([found.id])

        with pytest.raises(psycopg.OperationalError):
            signed_in.execute("SELECT 1")
        assert target.roles() == []
        assert state_of(api, found.id) == "closed"
        assert told(api, window.request_id).count("connection_closed") == 1


@contextmanager
def hanging(target: PostgresTarget, folder: Path) -> Iterator[PostgresTarget]:
    """A target of the same kind that is a listener which never answers."""
    folder.mkdir()
    file = folder / "hangs"
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        file.write_text(f"postgresql://x:y@127.0.0.1:{listener.getsockname()[1]}/orders\n", encoding="utf-8")
        file.chmod(0o600)
        yield replace(target, folder=folder, name=file.name)


@pytest.mark.far
def test_a_target_that_hangs_delays_no_close_at_another(
    tmp_path: Path, world: World, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_roles, "CONNECT_SECONDS", HANGS_FOR)
    monkeypatch.setattr(target_slots, "LONGEST_TURN", 0.0)
    window, _, target, connectors, _ = plant.parts
    slots, other = TargetSlots(8), World.make(world.db)
    closes = target.driver(connectors, world.tenant.slug, slots)
    found, _ = window.credential()
    closes.run([found.id])
    world.act("ann", Action.REVOKE, window.request_id)
    with hanging(target, tmp_path / "hangs") as stuck, ThreadPoolExecutor(8) as threads:
        waiting = [OrdersWindow.open(other, stuck).credential(tenant=other.tenant.slug)[0] for _ in range(12)]
        opens = stuck.driver(connectors, other.tenant.slug, slots)
        tried = [threads.submit(opens.run, [one.id]) for one in waiting]
        begun = time.monotonic()

        assert threads.submit(closes.run, [found.id]).result() == {"closed": 1}

        took = time.monotonic() - begun
        counts = sum((one.result() for one in tried), Counter[str]())
    assert took < HANGS_FOR, "it did not wait for the one that hangs"
    assert target.roles() == []
    assert MOST_AT_A_TARGET <= counts["failed"] < len(waiting), "and that one was not tried by all at once"


@pytest.mark.far
def test_a_server_that_stands_still_is_left(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    window, driver, target, _, superuser = plant.parts
    found, _ = window.credential()
    driver.run([found.id])
    window.world.act("ann", Action.REVOKE, window.request_id)
    monkeypatch.setattr(postgres_roles, "CALL_SECONDS", 1.0)
    stopped: list[int] = []

    def stop(reached: Target, name: str, waiting: int) -> None:
        if not stopped:
            stopped.append(waiting)
            os.kill(waiting, signal.SIGSTOP)
        end(reached, name, waiting)

    end = role_sessions.end
    monkeypatch.setattr(role_sessions, "end", stop)
    begun = time.monotonic()
    try:
        assert driver.run([found.id]) == {"failed": 1}
    finally:
        os.kill(stopped[0], signal.SIGCONT)
    assert time.monotonic() - begun < CONNECT_SECONDS
    assert read(window.world.db, "SELECT last_error FROM connections")[0].last_error == "too_slow"
    again(superuser, found.id)
    assert driver.run([found.id]) == {"closed": 1}
    assert target.roles() == []
