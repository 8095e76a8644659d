"""Columns that a migration adds while processes are working refuse no call."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
from httpx import Response
from sqlalchemy import text

from harness.people import WITHOUT_REVIEW, World
from lockbox.call_groups.groups import CallGroups
from lockbox.database import UnitOfWork
from lockbox.identity import row_macs
from lockbox.requests import decision_context
from lockbox.use_cases import run_alone
from tests.http.door import Door
from tests.http.gate_door import gate_before

CLIENTS = 6
PATIENCE = 20.0
TABLES = (
    "requests",
    "tenants",
    "people",
    "memberships",
    "policies",
    "events",
    "decisions",
    "tokens",
    "notifications",
)
ALL_COLUMNS = text("SELECT * FROM tenants ORDER BY id LIMIT 1")
HAS_ROW = text("SELECT count(*) FROM tenants")


@pytest.fixture
def door(own_door: Door) -> Door:
    """A world without review in a database of its own."""
    return replace(own_door, world=World.make(own_door.db, WITHOUT_REVIEW))


async def _life(door: Door) -> Sequence[Response]:
    question = {"params": door.question()}
    submitted = await door.coming("erin", "POST", "/v1/requests", json=door.world.body())
    path = f"/v1/requests/{submitted.json()['id']}"
    return [
        submitted,
        await door.coming("ann", "GET", path),
        await door.coming("ann", "GET", "/v1/requests"),
        await door.coming("ann", "POST", f"{path}/approve"),
        *[await door.coming("gate", "GET", "/v1/access", **question) for _ in range(3)],
        await door.coming("ann", "POST", f"{path}/revoke"),
    ]


async def _working(door: Door, *tables: str) -> Counter[int]:
    """Return the statuses of parallel clients while columns are added to these tables, three at a time."""
    found = Counter[int]()
    for first in (*range(0, len(tables), 3), len(tables)):
        lives = [asyncio.create_task(_life(door)) for _ in range(CLIENTS)]
        for table in tables[first : first + 3]:
            await asyncio.to_thread(door.run_sql, f"ALTER TABLE {table} ADD COLUMN made_up text")
        for life in lives:
            found.update([one.status_code for one in await life])
    return found


def test_parallel_calls_succeed_while_columns_are_added(door: Door) -> None:
    with gate_before(door.world, door.db) as gate:
        opened = door.active()
        gate.until(200)
        door.runner.run(_working(door))
        found = door.runner.run(_working(door, *TABLES))

        assert gate.ask().status == 200
        door.act("ann", "revoke", opened)
        gate.until(403)

    assert found == {201: 4 * CLIENTS, 200: 7 * 4 * CLIENTS}


def test_a_call_group_with_outdated_prepared_statements_runs_again_on_a_new_connection(door: Door) -> None:
    groups = CallGroups(door.db, places_alone=1)
    alone: list[object] = []
    groups._leave = alone.append  # type: ignore[method-assign, assignment]  # noqa: SLF001 - none may leave

    def reads(session: UnitOfWork) -> int:
        session.execute(ALL_COLUMNS)
        session.write(HAS_ROW, {})
        return len(session.execute(ALL_COLUMNS).keys())

    async def together() -> set[int]:
        async with asyncio.timeout(PATIENCE):
            return set(await asyncio.gather(*[groups.run(reads) for _ in range(8)]))

    before = door.runner.run(together()), door.runner.run(together())
    door.run_sql("ALTER TABLE tenants ADD COLUMN made_up text")
    (width,) = before[0]

    assert (before[1], door.runner.run(together()), alone) == ({width}, {width + 1}, [])


def test_a_use_case_with_outdated_prepared_statements_runs_again_on_a_new_connection(door: Door) -> None:
    def reads(session: UnitOfWork) -> int:
        return len(session.execute(ALL_COLUMNS).keys())

    before = {run_alone(door.db, reads) for _ in range(3)}
    door.run_sql("ALTER TABLE tenants ADD COLUMN made_up text")

    assert {run_alone(door.db, reads) for _ in range(3)} == {one + 1 for one in before}


def test_the_scan_of_row_macs_continues_while_columns_are_added(door: Door) -> None:
    people = [one.person_id for one in door.world.people.values()]
    for is_later in (False, False, True):
        if is_later:
            for table, _ in row_macs.READ.values():
                door.run_sql(f"ALTER TABLE {table} ADD COLUMN made_up text")
        with door.db.transaction() as session:
            assert row_macs.OF_PEOPLE.unverified(session, people) == []
            assert row_macs.OF_TENANTS.unverified(session, [door.world.tenant.id]) == []
            assert decision_context.unverified(session) == []
