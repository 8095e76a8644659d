"""Connections at targets that fail, hang or are left half done: each is reported once and finished."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Engine

from connectors import (
    connection_outcomes,
    postgres_roles,
    role_sessions,
    target_slots,
)
from connectors.connection_steps import ConnectionDriver
from connectors.postgres_roles import CALL_SECONDS
from connectors.role_sessions import Target
from connectors.target_slots import MOST_AT_A_TARGET, TargetSlots
from devstack.stack import CHECKOUT
from harness.people import World
from harness.stage import Urls, run_as_superuser
from lockbox.database import Database, ProcessKeys
from lockbox.failpoints import KILLED
from lockbox.identity.keyring import ApprovalKeys
from lockbox.requests.lifecycle import Action
from tests.database.postbag import Postbag
from tests.database.postgres_target import (
    OF_CLOSE,
    OF_OPEN,
    OrdersWindow,
    Plant,
    PostgresTarget,
    again,
    state_of,
    told,
)
from tests.database.scenes import read
from tests.each import each

HANGS_FOR = 20
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
Die = Callable[[UUID], None]


@contextmanager
def killed_at(
    point: str, urls: Urls, api: Database, connectors: Database, target: PostgresTarget
) -> Iterator[tuple[OrdersWindow, ConnectionDriver, Die]]:
    """Yield a window, its driver, and a function by which another process runs a driver until it dies at `point`."""
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


@pytest.mark.far
def test_a_target_session_counts_as_open_although_its_role_was_dropped(
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
def test_an_unresponsive_target_is_reported_once_and_retried(
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


def test_a_target_connection_that_fails_to_close_is_reported_and_retried_until_closed(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_outcomes, "FIRST_PAUSE", timedelta(minutes=1))
    window, driver, target, _, superuser = plant
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
    """Return how many mails about the target are pending, by template, and deliver them."""
    query = "SELECT id, template FROM notifications WHERE closed_at IS NULL AND person_id IS NOT NULL"
    rows = [row for row in read(db, query) if row.template.startswith(("connection_", "target_"))]
    Postbag().deliver(db, [row.id for row in rows])
    return Counter(row.template for row in rows)


def fail(driver: ConnectionDriver, superuser: Engine, one: UUID) -> None:
    for _ in range(3):
        assert driver.run([one]) == {"failed": 1}
        again(superuser, one)


@pytest.mark.far
def test_a_repeated_request_for_a_target_credential_sends_no_second_notification(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, driver, target, _, superuser = plant
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
def test_several_failures_to_close_a_window_are_mailed_once_and_settled_after_the_last_close(plant: Plant) -> None:
    window, driver, target, _, superuser = plant
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


@pytest.mark.far
@each("point", OF_OPEN)
def test_a_connection_half_opened_by_a_killed_worker_is_completed_once_and_later_closed(
    point: str, urls: Urls, api: Database, plant: Plant
) -> None:
    _, _, target, connectors, superuser = plant
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
def test_a_connection_half_opened_by_a_killed_worker_is_closed_if_the_window_has_ended(
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
def test_a_connection_is_closed_and_recorded_once_if_the_closing_worker_is_killed_midway(
    urls: Urls, api: Database, plant: Plant
) -> None:
    _close_killed(OF_CLOSE[-1], urls, api, plant)


@pytest.mark.far
@each("point", OF_CLOSE[:-1])
def test_a_connection_is_closed_and_recorded_once_if_the_worker_dies_before_the_target_call(
    point: str, urls: Urls, api: Database, plant: Plant
) -> None:
    _close_killed(point, urls, api, plant)


def _close_killed(point: str, urls: Urls, api: Database, plant: Plant) -> None:
    _, _, target, connectors, superuser = plant
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
    """A target whose server accepts connections and never answers."""
    folder.mkdir()
    file = folder / "hangs"
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        file.write_text(f"postgresql://x:y@127.0.0.1:{listener.getsockname()[1]}/orders\n", encoding="utf-8")
        file.chmod(0o600)
        yield replace(target, folder=folder, name=file.name)


@pytest.mark.far
def test_a_hanging_target_does_not_delay_closing_at_other_targets(
    tmp_path: Path, world: World, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_roles, "CONNECT_SECONDS", HANGS_FOR)
    monkeypatch.setattr(target_slots, "LONGEST_TURN", 0.0)
    window, _, target, connectors, _ = plant
    slots, other = TargetSlots(8), World.make(world.db)
    closes = target.driver(connectors, world.tenant.slug, slots)
    found, _ = window.credential()
    closes.run([found.id])
    world.act("ann", Action.REVOKE, window.request_id)
    with ThreadPoolExecutor(8) as threads:
        with hanging(target, tmp_path / "hangs") as stuck:
            waiting = [OrdersWindow.open(other, stuck).credential(tenant=other.tenant.slug)[0] for _ in range(12)]
            opens = stuck.driver(connectors, other.tenant.slug, slots)
            tried = [threads.submit(opens.run, [one.id]) for one in waiting]
            begun = time.monotonic()

            assert threads.submit(closes.run, [found.id]).result() == {"closed": 1}

            took = time.monotonic() - begun
        # The target is gone, so what hangs there fails now.
        counts = sum((one.result() for one in tried), Counter[str]())
    assert took < HANGS_FOR, "it did not wait for the one that hangs"
    assert target.roles() == []
    assert MOST_AT_A_TARGET <= counts["failed"] < len(waiting), "and that one was not tried by all at once"


@pytest.mark.far
def test_the_worker_gives_up_on_a_frozen_target_server_after_a_time_limit(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    window, driver, target, _, superuser = plant
    found, _ = window.credential()
    driver.run([found.id])
    window.world.act("ann", Action.REVOKE, window.request_id)
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
        with monkeypatch.context() as hasty:
            hasty.setattr(postgres_roles, "CALL_SECONDS", 1.0)
            assert driver.run([found.id]) == {"failed": 1}
    finally:
        os.kill(stopped[0], signal.SIGCONT)
    assert time.monotonic() - begun < CALL_SECONDS
    assert read(window.world.db, "SELECT last_error FROM connections")[0].last_error == "too_slow"
    again(superuser, found.id)
    assert driver.run([found.id]) == {"closed": 1}
    assert target.roles() == []
