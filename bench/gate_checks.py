"""Measure the gate: the cost of a check beside doing nothing, memory, the delay of a revoke, and outages."""

import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import cycle, islice
from typing import Any
from uuid import UUID

import psutil
from lockbox_guard import Guard, Refused
from sqlalchemy import text

from bench import costs
from bench.figures import medians, quantile
from bench.gate_stack import PATIENCE, GateClient, GateStack, gate_stack
from gate.window_memory import WindowMemory
from harness.gateway_world import GUARD, SERVICE
from harness.load import play
from harness.ports import own_port, wait_until_listening
from harness.stage import fresh_database, migrated_servers, own_folder
from harness.wait import wait_for
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest, RequestEntry

CLIENTS = 16
A_SECOND = 200
WINDOWS = 64
FIRST_CALLS = 3_000
ROUNDS = 3
"""The floors and the gate are measured in turns, so that other load on the machine affects them alike."""
WARM_UP_SECONDS = 1.0
HELD = 100_000
MIB = 2**20
REVOKES = 50
OUTAGE_SECONDS = 4.0
SETTLE_SECONDS = 2.0
GUARD_CHECKS = 20_000
NOW = text("SELECT clock_timestamp()")

Stories = list[list[dict[str, Any]]]


@dataclass(frozen=True)
class LoadedServer:
    """A process that answers, and the CPU seconds that it has taken."""

    port: int
    cpu: Callable[[], float]

    def in_turn(self, stories: Stories, seconds: float | None) -> dict[str, float]:
        """Have 16 clients ask; return how many answers came per second, and per second of the process's CPU time."""
        spent = self.cpu()
        crowd = play(self.port, stories, CLIENTS, seconds)
        spent = self.cpu() - spent
        taken = sorted(crowd["taken"][0])
        return {
            "a_second": len(taken) / crowd["seconds"],
            "a_core_second": len(taken) / spent,
            "cpu_us": 1e6 * spent / len(taken),
            "p50_ms": 1000 * quantile(taken, 0.5),
            "p99_ms": 1000 * quantile(taken, 0.99),
        }

    def paced(self, stories: Stories, seconds: float) -> dict[str, float]:
        """Ask 200 times a second, whether earlier questions were answered or not."""
        taken = play(self.port, stories, 0, seconds, A_SECOND)["taken"][0]
        return {"paced_p50_ms": 1000 * quantile(taken, 0.5), "paced_p99_ms": 1000 * quantile(taken, 0.99)}


@contextmanager
def doing_nothing(kind: str) -> Iterator[LoadedServer]:
    """Serve one of the floors."""
    port = own_port()
    command = [sys.executable, "-m", "bench.bare_gate", kind, str(port)]
    # It has a session of its own, as the API does, because the kernel divides the processor among sessions.
    with subprocess.Popen(command, start_new_session=True) as child:
        try:
            wait_until_listening(port)
            process = psutil.Process(child.pid)
            yield LoadedServer(port, lambda: costs.cpu_seconds([process]))
        finally:
            child.terminate()
            child.wait(30)


def rates(stack: GateStack, seconds: float) -> dict[str, dict[str, float]]:
    """Return the cost of a check: with a header, with a remembered token, with a new token, and without a gate."""
    named = [[stack.call(window)] for window in stack.windows]
    tokens = [[stack.call(window, stack.issuer.token())] for window in stack.windows]
    gate = LoadedServer(stack.port, stack.cpu)
    with ExitStack() as ends:
        floors = {f"nothing_{kind}": ends.enter_context(doing_nothing(kind)) for kind in ("callable", "route")}
        loads = {name: (floor, named) for name, floor in floors.items()}
        loads |= {"checks": (gate, tokens), "checks_by_header": (gate, named)}
        for server, stories in loads.values():
            server.in_turn(stories, WARM_UP_SECONDS)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in loads}
        for _ in range(ROUNDS):
            for name, (server, stories) in loads.items():
                runs[name].append(server.in_turn(stories, seconds / 2))
        found = {name: medians(each) for name, each in runs.items()}
        for name, (server, stories) in loads.items():
            found[name] |= server.paced(stories, seconds)
    found["first_calls"] = gate.in_turn(_first_calls(stack, FIRST_CALLS), None)
    found["first_calls"] |= gate.paced(_first_calls(stack, int(A_SECOND * seconds)), seconds)
    return found


def _first_calls(stack: GateStack, count: int) -> Stories:
    return [[stack.call(one, stack.issuer.token())] for one in islice(cycle(stack.windows), count)]


def guard_check_us(stack: GateStack) -> float:
    """Return how many microseconds of CPU time the guard takes for a check that it answers from memory."""
    address = next(iter(stack.windows))
    token = stack.issuer.token()
    with own_folder("bench-guard") as folder:
        file = folder / "token"
        file.write_text(stack.world.world.tokens[GUARD])
        guard = Guard(f"http://127.0.0.1:{stack.port}", service=SERVICE, token_file=file)
        asked = {"tenant": stack.world.world.tenant.slug, "resource": f"mailbox:{address}", "action": "read"}
        try:
            wait_for("the guard lets in", lambda: _is_let_in(guard, asked | {"token": token}), PATIENCE)
            time.sleep(1)
            began = time.thread_time()
            for _ in range(GUARD_CHECKS):
                guard.check(**asked, token=token)
            return 1e6 * (time.thread_time() - began) / GUARD_CHECKS
        finally:
            guard.stop()


def _is_let_in(guard: Guard, asked: dict[str, str]) -> bool:
    try:
        guard.check(**asked)
    except Refused:
        return False
    return True


def revoked(stack: GateStack) -> dict[str, float]:
    """Return the p99, in ms, of the time from a revoke's answer to the gate's last yes, and to the news at guards.

    Both ends are read on Postgres' clock, which is this machine's: that of the answer right after its commit.
    """
    # Notifications of approvals drop windows for a moment. Wait, so that no such close counts as that of a revoke.
    time.sleep(SETTLE_SECONDS)
    stack.told.closed.clear()
    shut, heard = [], []
    for address, request in stack.windows.items():
        stack.world.world.act("tara", Action.REVOKE, request)
        with stack.world.db.transaction() as session:
            at = session.execute(NOW, {}).scalar_one().timestamp()
        shut.append(max(0.0, _last_yes(stack, address) - at))
        heard.append(max(0.0, stack.told.wait_until_closed(request) - at))
    return {"gate_p99_ms": 1000 * quantile(shut, 0.99), "stream_p99_ms": 1000 * quantile(heard, 0.99)}


def _last_yes(stack: GateStack, address: str) -> float:
    """Ask until the answer is no, and return when the last yes came; 0 if there was none."""
    last = 0.0
    with GateClient(stack, address) as client:
        while client.is_let_in():
            last = time.time()
    return last


def outage(stack: GateStack, lose: Callable[[], None], come_back: Callable[[], None]) -> dict[str, float]:
    """Ask while Postgres is away; return how long the gate still let in, its slowest answer, and its recovery."""
    slowest = last_yes = 0.0
    with GateClient(stack, next(iter(stack.windows))) as client:
        wait_for("the gate lets in", client.is_let_in, PATIENCE)
        # Postgres may have allowed that call: after an outage, memory is filled only a moment later.
        time.sleep(SETTLE_SECONDS)
        lose()
        lost = time.monotonic()
        while (began := time.monotonic()) < lost + OUTAGE_SECONDS:
            is_in = client.is_let_in()
            ended = time.monotonic()
            slowest, last_yes = max(slowest, ended - began), ended if is_in else last_yes
        come_back()
        back = time.monotonic()
        wait_for("the gate lets in again", client.is_let_in, PATIENCE)
        returned = time.monotonic() - back
    return {"last_yes_s": max(0.0, last_yes - lost), "slowest_s": slowest, "back_s": returned}


def outages(stack: GateStack) -> dict[str, dict[str, float]]:
    """Stop Postgres so that nothing answers, and kill it so that nothing listens."""
    servers = stack.servers

    def send(which: signal.Signals) -> None:
        server = psutil.Process(servers.pids["postgres"])
        for one in (server, *server.children(recursive=True)):
            os.kill(one.pid, which)

    stopped = outage(stack, lambda: send(signal.SIGSTOP), lambda: send(signal.SIGCONT))
    killed = outage(stack, lambda: send(signal.SIGKILL), lambda: servers.start_again("postgres"))
    return {"postgres_stopped": stopped, "postgres_killed": killed}


def held_mib(count: int = HELD) -> float:
    """Return how many MiB of memory this many windows take, each with one resource and two actions."""
    memory, at = WindowMemory(), datetime(2100, 1, 1, tzinfo=UTC)
    process = psutil.Process()
    before = process.memory_info().rss
    for number in range(count):
        named: dict[str, Any] = {
            "id": UUID(int=(7 << 76) + number),
            "tenant_id": UUID(int=number // 100),
            "requester_id": UUID(int=number % 500),
            "service": SERVICE,
            "resources": [f"mailbox:person-{number}@contoso.example"],
            "actions": ["read", "export"],
            "deadline_at": at,
        }
        entry = RequestEntry(AccessRequest(**named), f"tenant-{number // 100}", "Erin", open=True)
        memory.put([entry])
    gc.collect()
    assert len(memory) == count  # noqa: S101 - otherwise nothing was measured
    return (process.memory_info().rss - before) / MIB


def measure(seconds: float) -> dict[str, dict[str, float]]:
    """Measure everything."""
    found = {"memory": {"mib": held_mib()}}
    with migrated_servers("bench-gate") as servers:
        with fresh_database(servers) as urls, gate_stack(servers, urls, WINDOWS) as stack:
            found |= rates(stack, seconds)
            found["guard"] = {"check_us": guard_check_us(stack)}
        with fresh_database(servers) as urls, gate_stack(servers, urls, REVOKES) as stack:
            found["revoke"] = revoked(stack)
        with fresh_database(servers) as urls:
            nowhere = replace(urls, redis=f"redis://127.0.0.1:{own_port()}/0")
            with gate_stack(servers, nowhere, REVOKES) as stack:
                found["revoke_without_redis"] = revoked(stack)
        with fresh_database(servers) as urls, gate_stack(servers, urls, 1) as stack:
            found |= outages(stack)
    return found
