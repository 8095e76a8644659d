"""The API and the connector worker together: a window is opened at a Postgres target, and closed when it ends."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from connectors.connection_steps import MOST_SLOTS
from devstack.embedded import ServerAddresses
from devstack.stack import CHECKOUT
from harness.people import World
from harness.ports import own_port
from harness.stage import approval_keys
from lockbox.notifications.endpoints import new_secret
from lockbox.requests.lifecycle import Action
from tests.database.postgres_target import OrdersWindow, PostgresTarget, postgres_target
from tests.whole.conftest import RunningStack, stage_of, wait_until

CATALOGUE = """
services:
  exchange-online:
    title: Orders
    connector:
      {{kind: postgres, target: orders, tenant: {tenant}, resource: "database:orders", actions: {{read: [{role}]}}}}
  {hanging}:
    title: Hangs
    connector: {{kind: webhook, target: hangs, tenant: {tenant}}}
plans: {{standard: {{}}}}
"""
HANGING = "sharepoint-online"
MANY = 40
SOON = 20.0
"""Seconds for a close on a busy machine."""


@contextmanager
def connector_worker(
    stage: RunningStack, target: PostgresTarget, catalogue: Path, redis_url: str = ""
) -> Iterator[None]:
    """Run a connector worker for a stage, with the stage's Redis by default, and stop it at the end."""
    settings = {
        "LOCKBOX_ENVIRONMENT": "test",
        "LOCKBOX_CONNECTORS_DATABASE_URL": stage.urls.connectors,
        "LOCKBOX_CONNECTOR_TARGETS": str(target.folder),
        "LOCKBOX_REDIS_URL": redis_url or stage.plan.redis_url,
        "LOCKBOX_APPROVAL_PUBLIC_KEYS": f'["{approval_keys(stage.plan).listed}"]',
        "LOCKBOX_CATALOGUE": str(catalogue),
        "LOCKBOX_WEBHOOKS_ALLOW_HTTP": "true",
    }
    keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    log = catalogue.with_suffix(".log")
    with log.open("wb") as written:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker", "connectors"], cwd=CHECKOUT, env=keep | settings, stderr=written
        )
    try:
        yield
    finally:
        worker.terminate()
        assert worker.wait(30) == 0, log.read_text()[-6000:]


def written_catalogue(folder: Path, world: World, target: PostgresTarget) -> Path:
    """Write a catalogue with a service at the Postgres target, and one whose target is the listener of `hanging`."""
    written = folder / "catalogue.yaml"
    facts = {"tenant": world.tenant.slug, "role": target.reader, "hanging": HANGING}
    written.write_text(CATALOGUE.format(**facts), encoding="utf-8")
    return written


@contextmanager
def hanging(folder: Path) -> Iterator[None]:
    """Make the other target a listener that accepts every connection and never answers."""
    file = folder / "hangs"
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        file.write_text(f"http://127.0.0.1:{listener.getsockname()[1]}/\n{new_secret()}\n", encoding="utf-8")
        file.chmod(0o600)
        yield


@pytest.mark.far
def test_a_target_credential_works_until_its_window_is_revoked(template: ServerAddresses, tmp_path: Path) -> None:
    with (
        stage_of(template, tmp_path, names=()) as stage,
        postgres_target(stage.urls.superuser, tmp_path / "targets") as target,
    ):
        world = World.make(stage.db)
        catalogue = written_catalogue(tmp_path, world, target)
        with connector_worker(stage, target, catalogue):
            window = OrdersWindow.open(world, target)
            found, password = window.credential()
            wait_until(lambda: _state(stage, found.id) == "open", "the target has opened")
            signed_in = target.sign_in(found.id, password)

            world.act("ann", Action.REVOKE, window.request_id)

            wait_until(lambda: _state(stage, found.id) == "closed", "the target has closed")
            with pytest.raises(psycopg.OperationalError):
                signed_in.execute("SELECT 1")
            assert target.roles() == []


@pytest.mark.far
def test_without_redis_a_window_is_opened_and_closed_at_the_target(template: ServerAddresses, tmp_path: Path) -> None:
    with (
        stage_of(template, tmp_path, names=()) as stage,
        postgres_target(stage.urls.superuser, tmp_path / "targets") as target,
    ):
        world = World.make(stage.db)
        catalogue = written_catalogue(tmp_path, world, target)
        with connector_worker(stage, target, catalogue, redis_url=f"redis://127.0.0.1:{own_port()}/0"):
            window = OrdersWindow.open(world, target)
            found, _ = window.credential()
            wait_until(lambda: _state(stage, found.id) == "open", "the target has opened")

            world.act("ann", Action.REVOKE, window.request_id)

            wait_until(lambda: _state(stage, found.id) == "closed", "the target has closed")
            assert target.roles() == []


@pytest.mark.far
def test_a_hanging_target_with_many_windows_delays_no_close_at_another_target(
    template: ServerAddresses, tmp_path: Path
) -> None:
    with (
        stage_of(template, tmp_path, names=()) as stage,
        postgres_target(stage.urls.superuser, tmp_path / "targets") as target,
        hanging(target.folder),
    ):
        world = World.make(stage.db)
        with connector_worker(stage, target, written_catalogue(tmp_path, world, target)):
            for _ in range(MANY):
                world.act("ann", Action.APPROVE, world.submit(service=HANGING).id)
            window = OrdersWindow.open(world, target)
            found, _ = window.credential()
            wait_until(lambda: _state(stage, found.id) == "open", "the target has opened")
            tried = "SELECT id FROM connections WHERE target = 'hangs' AND attempts > 0"
            wait_until(lambda: len(stage.rows(tried)) > 0, "the other one is called")

            begun = time.monotonic()
            world.act("ann", Action.REVOKE, window.request_id)
            wait_until(lambda: _state(stage, found.id) == "closed", "the target has closed")

            assert time.monotonic() - begun < SOON
            (left,) = stage.rows(
                "SELECT count(*) AS number, sum(attempts) AS calls FROM connections WHERE target = 'hangs'"
            )
            assert left.number == MANY
            assert left.calls < MOST_SLOTS / 2, "they took the slots of the others"


def _state(stage: RunningStack, one: UUID) -> str:
    return str(stage.rows("SELECT state FROM connections WHERE id = :id", id=one)[0].state)
