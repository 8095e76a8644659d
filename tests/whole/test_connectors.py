"""The API and the connector worker together: a window is opened at a Postgres, and closed as it ends."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import psycopg
import pytest

from cli.stack import CHECKOUT
from config.embedded import ServerAddresses
from harness.people import World
from harness.stage import approval_keys
from lockbox.requests.lifecycle import Action
from tests.database.postgres_target import OrdersWindow, PostgresTarget, postgres_target
from tests.whole.conftest import RunningStack, stage_of, wait_until

CATALOGUE = """
services:
  exchange-online:
    title: Orders
    connector:
      {{kind: postgres, target: orders, tenant: {tenant}, resource: "database:orders", actions: {{read: [{role}]}}}}
plans: {{standard: {{}}}}
"""


@contextmanager
def connector_worker(stage: RunningStack, target: PostgresTarget, catalogue: Path) -> Iterator[None]:
    """Run a connector worker beside a stage, and stop it at the end."""
    settings = {
        "LOCKBOX_ENVIRONMENT": "test",
        "LOCKBOX_CONNECTORS_DATABASE_URL": stage.urls.connectors,
        "LOCKBOX_CONNECTOR_TARGETS": str(target.folder),
        "LOCKBOX_REDIS_URL": stage.plan.redis_url,
        "LOCKBOX_APPROVAL_PUBLIC_KEYS": f'["{approval_keys(stage.plan).listed}"]',
        "LOCKBOX_CATALOGUE": str(catalogue),
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


@pytest.mark.far
def test_a_credential_is_good_until_its_window_is_revoked(template: ServerAddresses, tmp_path: Path) -> None:
    with (
        stage_of(template, tmp_path, names=()) as stage,
        postgres_target(stage.urls.superuser, tmp_path / "targets") as target,
    ):
        world = World.make(stage.db)
        catalogue = tmp_path / "catalogue.yaml"
        catalogue.write_text(CATALOGUE.format(tenant=world.tenant.slug, role=target.reader), encoding="utf-8")
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


def _state(stage: RunningStack, one: UUID) -> str:
    return str(stage.rows("SELECT state FROM connections WHERE id = :id", id=one)[0].state)
