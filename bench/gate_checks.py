"""The gate: checks a second beside a FastAPI route that does nothing, memory, and how soon a revoke is felt."""

import gc
import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import psutil
from fastapi import FastAPI
from sqlalchemy import text

from bench.figures import quantile
from gate.window_memory import WindowMemory
from harness import gateway_world
from harness.gateway_world import GUARD, PATIENCE, SERVICE, GatewayWorld, serving
from harness.load import play
from harness.people import SETTINGS, World
from harness.ports import own_port
from harness.stage import Urls, fresh_database, migrated_servers
from harness.wait import wait_for
from lockbox.database import Database, make_engine
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.queries import RequestEntry
from lockbox.schedule import Schedule

CLIENTS = 16
A_SECOND = 200
WINDOWS = 64
WARM_UP_SECONDS = 1.0
IN_PRODUCTION = SETTINGS.model_copy(update={"gate_compare_every": 1000})
HELD = 100_000
MIB = 2**20
REVOKES = 50
NOW = text("SELECT clock_timestamp()")


def addresses(count: int) -> list[str]:
    """Return the mailboxes that are asked about."""
    return [f"person-{number}@contoso.example" for number in range(count)]


@contextmanager
def gate(urls: Urls, redis: str, windows: int) -> Iterator[tuple[GatewayWorld, list[UUID]]]:
    """Serve a gate with open windows in its memory, and yield these too."""
    db = Database(make_engine(urls.api, role="bench", pool_size=4, overflow=16), Schedule(redis))
    world = World.make(db)
    requests = [world.submit(resources=[f"mailbox:{one}"]).id for one in addresses(windows)]
    for one in requests:
        world.act("ann", Action.APPROVE, one)
    with gateway_world.gate_before(world, db, IN_PRODUCTION, GatewayWorld) as found:
        wait_for("all windows are in memory", lambda: len(found.gateway.memory) == windows, PATIENCE)
        yield found, requests
    db.dispose()


@contextmanager
def nothing() -> Iterator[int]:
    """Serve a route of FastAPI that does nothing, and yield its port."""
    app = FastAPI()

    @app.get("/nothing")
    async def answer() -> dict[str, bool]:
        return {"open": True}

    with serving(app) as port:
        yield port


def _question(world: GatewayWorld, address: str) -> list[dict[str, Any]]:
    headers = {name: value for name, value in world.question("nginx", world.path(address)) if name != "Host"}
    return [{"method": "GET", "path": "/gate/v1/exchange-online", "headers": headers, "status": 200}]


def _measured(port: int, stories: list[list[dict[str, Any]]], seconds: float) -> tuple[float, float, float, float]:
    """Return how many a second 16 clients got, their p50 and p99 in ms, and the p99 of 200 a second, open-loop."""
    play(port, stories, CLIENTS, WARM_UP_SECONDS)
    crowd = play(port, stories, CLIENTS, seconds)
    paced = play(port, stories, 0, seconds, A_SECOND)
    taken, paced_taken = sorted(crowd["taken"][0]), sorted(paced["taken"][0])
    times = [1000 * quantile(taken, 0.5), 1000 * quantile(taken, 0.99), 1000 * quantile(paced_taken, 0.99)]
    return len(taken) / crowd["seconds"], times[0], times[1], times[2]


class CloseTimes:
    """When a guard's stream said of each window that it is closed, by the clock that Postgres has too."""

    def __init__(self, world: GatewayWorld) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=PATIENCE)
        self._connection.request("GET", "/gate/v1/stream", headers={"lockbox-gateway": world.world.tokens[GUARD]})
        self._answer = self._connection.getresponse()
        self.closed: dict[str, float] = {}
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for(self, request: UUID) -> None:
        """Wait until it is told of a request."""
        wait_for("the guard was told", lambda: str(request) in self.closed, PATIENCE)

    def _read(self) -> None:
        kind = b""
        with suppress(OSError, ValueError, AttributeError, http.client.HTTPException):
            for line in iter(self._answer.readline, b""):
                if line.startswith(b"event: "):
                    kind = line[7:].strip()
                elif line.startswith(b"data: ") and kind == b"close":
                    self.closed[json.loads(line[6:])["request"]] = time.time()


def revoked(urls: Urls, redis: str) -> dict[str, float]:
    """Return the p99, in ms, of what a revoke takes from its answer to the last yes of the gate and to guards.

    Both ends are read on Postgres' clock, which is that of this machine: the answer's right after its commit.
    """
    with gate(urls, redis, REVOKES) as (world, requests):
        told = CloseTimes(world)
        # News of the approvals drop windows for a moment: no close of theirs may be taken for one of a revoke.
        time.sleep(2)
        told.closed.clear()
        shut, heard = [], []
        for address, request in zip(addresses(REVOKES), requests, strict=True):
            world.world.act("tara", Action.REVOKE, request)
            with world.db.transaction() as session:
                at = session.execute(NOW, {}).scalar_one().timestamp()
            last_yes = _last_yes(world, address)
            shut.append(max(0.0, last_yes - at) if last_yes else 0.0)
            told.wait_for(request)
            heard.append(max(0.0, told.closed[str(request)] - at))
        return {"gate_p99_ms": 1000 * quantile(shut, 0.99), "stream_p99_ms": 1000 * quantile(heard, 0.99)}


def _last_yes(world: GatewayWorld, address: str) -> float | None:
    """Ask until the answer is no, and return when the last yes came; None if there was none."""
    headers = {name: value for name, value in world.question("nginx", world.path(address)) if name != "Host"}
    connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=PATIENCE)
    last = None
    while True:
        connection.request("GET", f"/gate/v1/{SERVICE}", headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != HTTPStatus.OK:
            connection.close()
            return last
        last = time.time()


def held_mib(count: int = HELD) -> float:
    """Return how many MiB so many windows of one resource and two actions take in memory."""
    memory, at = WindowMemory(), datetime(2100, 1, 1, tzinfo=UTC)
    process = psutil.Process()
    before = process.memory_info().rss
    for number in range(count):
        request = SimpleNamespace(
            id=UUID(int=(7 << 76) + number),
            tenant_id=UUID(int=number // 100),
            requester_id=UUID(int=number % 500),
            service=SERVICE,
            open_resources=[f"mailbox:person-{number}@contoso.example"],
            open_actions=["read", "export"],
            deadline_at=at,
        )
        entry = RequestEntry(cast("AccessRequest", request), f"tenant-{number // 100}", "Erin", open=True)
        memory.put([entry])
    gc.collect()
    return (process.memory_info().rss - before) / MIB


def measure(seconds: float) -> dict[str, dict[str, float]]:
    """Measure all of it."""
    with nothing() as port:
        calls = [[{"method": "GET", "path": "/nothing", "status": 200}]]
        found = {"nothing": _named(_measured(port, calls, seconds))}
    with migrated_servers("bench-gate") as servers:
        with fresh_database(servers) as urls, gate(urls, urls.redis, WINDOWS) as (world, _):
            stories = [_question(world, one) for one in addresses(WINDOWS)]
            found["checks"] = _named(_measured(world.port, stories, seconds))
        with fresh_database(servers) as urls:
            found["revoke"] = revoked(urls, urls.redis)
        with fresh_database(servers) as urls:
            found["revoke_without_redis"] = revoked(urls, f"redis://127.0.0.1:{own_port()}/0")
    found["memory"] = {"mib": held_mib()}
    return found


def _named(measured: tuple[float, float, float, float]) -> dict[str, float]:
    return dict(zip(("a_second", "p50_ms", "p99_ms", "paced_p99_ms"), measured, strict=True))
