"""Commits wait for a missing standby: `/readyz` says so in about a second, and reads continue."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest

from devstack.stack import Processes, StackPlan
from harness.stage import own_stack, servers_of
from harness.wait import within

PATIENCE = 60.0
UNCONFIRMED = "the standby does not confirm writes: see synchronous_standby_names"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[StackPlan]:
    with own_stack("standby") as plan:
        processes = Processes(plan, tmp_path)
        try:
            processes.start("api")
            processes.wait_until_ready()
            yield plan
        finally:
            waits_for(plan, "")
            processes.stop()


def waits_for(plan: StackPlan, names: str) -> None:
    """Set the standbys for which commits wait."""
    with psycopg.connect(servers_of(plan).superuser_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
        connection.execute("SELECT pg_reload_conf()")


def readiness(plan: StackPlan) -> dict[str, str]:
    answer = httpx.get(f"{plan.public_url}/readyz", timeout=PATIENCE, trust_env=False)
    found: dict[str, str] = answer.json() | {"code": str(answer.status_code)}
    return found


def test_writes_hanging_on_a_dead_standby_are_reported_by_readyz(api: StackPlan) -> None:
    def says(**wanted: str) -> bool:
        # A busy machine may miss the time limit of another part of the answer for a moment.
        return readiness(api).items() >= wanted.items()

    assert within(PATIENCE, lambda: says(status="ready", writes="ok"))
    waits_for(api, "gone")
    assert within(PATIENCE, lambda: says(writes=UNCONFIRMED, status="degraded", code="200", postgres="ok"))
    waits_for(api, "")
    assert within(PATIENCE, lambda: says(status="ready"))
