"""Columns that a migration adds while processes are working refuse no call."""

import asyncio
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from httpx import Response
from sqlalchemy import text

from gate.window_memory import ChangeKind
from harness.gateway_world import SERVICE
from harness.people import MAILBOX, World, sign_in
from lockbox.call_groups.groups import CallGroups
from lockbox.database import UnitOfWork
from lockbox.driver import prepared_statements
from lockbox.identity import row_macs
from lockbox.identity.roles import Role, Scope
from lockbox.requests import decision_context
from lockbox.sql import new_id
from lockbox.use_cases import run_alone
from tests.http.authzen_door import EVALUATION, PROGRAM
from tests.http.door import Door
from tests.http.gate_door import GateDoor, gate_before
from tests.http.guard_streams import GuardReader
from tests.http.places import BREAK_GLASS
from tests.http.test_break_glass import opened_on_stream

CLIENTS = 3
PATIENCE = 20.0
TABLES = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'")
MOVES = ["submit", "question", "answer", "approve", "revoke"]
ALL_COLUMNS = text("SELECT * FROM tenants ORDER BY id LIMIT 1")
HAS_ROW = text("SELECT count(*) FROM tenants")


@pytest.fixture(autouse=True)
def _prepared_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each connection prepare a statement at its first use: few statements are sent twice on a connection."""
    monkeypatch.setattr(prepared_statements, "PREPARED_AFTER", 0)


@pytest.fixture
def door(own_door: Door) -> Door:
    """A world without review in a database of its own, whose connections wait long for locks."""
    api = own_door.db.engine
    for limit in ("lock_timeout", "statement_timeout"):
        own_door.run_sql(f"ALTER ROLE {api.url.username} IN DATABASE {api.url.database} SET {limit} = '60s'")
    api.dispose()
    return replace(own_door, world=World.make(own_door.db, BREAK_GLASS))


def _ask_at_the_gate(gate: GateDoor, opened: str, request_id: str) -> int:
    """Return the status of a gateway's question, once AuthZEN and a guard's new stream know these windows too."""
    world = gate.world
    token = {"authorization": f"Bearer {world.tokens[PROGRAM]}"}
    kind, name = MAILBOX.split(":")
    resource = {"type": kind, "id": name, "properties": {"tenant": world.tenant.slug}}
    subject = {"type": "person", "id": str(world.people["erin"].person_id)}
    asked = {"subject": subject, "action": {"name": "read"}, "resource": resource}
    decided = httpx.post(f"http://127.0.0.1:{gate.port}{EVALUATION}", json=asked, headers=token, timeout=PATIENCE)
    assert decided.json()["decision"] is True, decided.text
    opened_on_stream(gate, {opened, request_id})
    return gate.ask().status


@dataclass(frozen=True)
class HotPaths:
    """A door, the gate before it, a window that stays open, and the cookie of an approver who is signed in."""

    door: Door
    gate: GateDoor
    opened: str
    cookie: str

    async def play(self) -> list[Response | int]:
        """Play one request to its revoke, and one that break-glass opens, over all hot paths."""
        return [*await self._request(), *await self._break_glass()]

    async def _post(self, who: str, path: str, **body: Any) -> Response:
        return await self.door.coming(who, "POST", path, json=body)

    async def _page(self, path: str) -> Response:
        return await self.door.coming(None, "GET", path, headers={"cookie": self.cookie})

    async def _request(self) -> list[Response | int]:
        door = self.door
        submitted = await self._post("erin", "/v1/requests", **door.world.body())
        request_id = submitted.json()["id"]
        path = f"/v1/requests/{request_id}"
        asked = await self._post("ann", f"{path}/questions", text="Which mails?")
        found: list[Response | int] = [
            await self._post("erin", f"{path}/questions/{asked.json()['id']}/answer", text="Those of May"),
            await self._page("/waiting"),
            await self._page(f"/requests/{request_id}"),
            await door.coming("ann", "GET", "/v1/requests"),
            await self._post("ann", f"{path}/approve"),
            *[await door.coming("gate", "GET", "/v1/access", params=door.question()) for _ in range(3)],
            await asyncio.to_thread(_ask_at_the_gate, self.gate, self.opened, request_id),
        ]
        extended = await self._post("erin", f"{path}/extend", access_window=7200)
        found += [
            await self._post("ann", f"/v1/requests/{extended.json()['id']}/approve"),
            await self._post("ann", f"{path}/revoke"),
            timeline := await door.coming("ann", "GET", f"{path}/events"),
        ]
        assert [one["action"] for one in timeline.json()["items"]] == MOVES
        return [submitted, asked, extended, *found]

    async def _break_glass(self) -> list[Response | int]:
        body = self.door.world.body(resources=[f"mailbox:{new_id()}@contoso.example"])
        submitted = await self._post("erin", "/v1/requests", **body | {"break_glass": True, "access_window": 900})
        path = f"/v1/requests/{submitted.json()['id']}"
        return [
            submitted,
            await self._post("max", f"{path}/break-glass", comment="Mail is down"),
            await self._post("ann", f"{path}/revoke"),
            await self._post("tara", f"{path}/finding", finding="justified", comment="As agreed"),
        ]

    async def played(self, *tables: str) -> Counter[int]:
        """Return the statuses of parallel clients while a column is added to each of these tables."""
        lives = [asyncio.create_task(self.play()) for _ in range(CLIENTS)]
        for table in tables:
            await asyncio.to_thread(self.door.run_sql, f"ALTER TABLE {table} ADD COLUMN made_up text")
        answers = [one for life in lives for one in await life]
        return Counter(answer if isinstance(answer, int) else answer.status_code for answer in answers)


def test_parallel_calls_over_all_hot_paths_succeed_while_columns_are_added(door: Door) -> None:
    world = door.world
    with door.root.connect() as connection:
        tables = connection.scalars(TABLES).all()
    world.add(PROGRAM, Role.SYSTEM, scopes={Scope.GATE_AUTHZEN}, services={SERVICE})
    cookie = f"lockbox={sign_in(door.db, world.people['ann'])}"
    with gate_before(world, door.db) as gate:
        opened = door.active()
        gate.until(200)
        hot = HotPaths(door, gate, opened, cookie)
        guard = GuardReader(gate)
        guard.snapshot()
        found = [door.runner.run(hot.played(*some)) for some in ((), tables, ())]

        door.act("ann", "revoke", opened)
        gate.until(403)
        told = {ChangeKind.OPEN: {opened}, ChangeKind.CLOSE: set[str]()}
        while opened not in told[ChangeKind.CLOSE]:
            event = guard.until(*told, ChangeKind.ANEW)
            told[ChangeKind(event.kind)].add(event.said["request"])
        guard.close()

    assert found == [{201: 4 * CLIENTS, 200: 15 * CLIENTS}] * 3
    assert told[ChangeKind.OPEN] == told[ChangeKind.CLOSE]
    assert len(told[ChangeKind.OPEN]) > 3 * CLIENTS


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
    people = [person.person_id for person in door.world.people.values()]
    for is_later in (False, False, True):
        if is_later:
            for table, _ in row_macs.READ.values():
                door.run_sql(f"ALTER TABLE {table} ADD COLUMN made_up text")
        with door.db.transaction() as session:
            assert row_macs.OF_PEOPLE.unverified(session, people) == []
            assert row_macs.OF_TENANTS.unverified(session, [door.world.tenant.id]) == []
            assert decision_context.unverified(session) == []
