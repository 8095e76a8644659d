"""The gate while Postgres is gone, hangs or cannot be reached: how soon and fast it refuses, and its return."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles

import psutil
import pytest
from sqlalchemy.engine import make_url

from devstack.embedded import ServerAddresses
from harness.gateway_world import ANNA, PATIENCE
from harness.network import EventLoopThread, Proxy, ProxyMode
from harness.people import SETTINGS, World
from harness.stage import Urls, all_rights, fresh_database, migrated_servers, urls_at
from lockbox.database import Database, make_engine
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from tests.http.gate_door import GateDoor, gate_before

pytestmark = pytest.mark.far

QUICK = SETTINGS.model_copy(update={"gate_compare_every": 1_000_000})
BOUND = 2.0
"""Within so many seconds, a gate that lost Postgres refuses every call. Only a few answers may take longer."""
OUTAGE_SECONDS = 8.0
"""Longer than tokens and identities are remembered for."""
ASKERS = 4


@dataclass(frozen=True)
class TimedAnswer:
    """When a call began, how long the answer took, and what it was."""

    began: float
    took: float
    status: int
    reason: str | None

    @property
    def ended(self) -> float:
        return self.began + self.took


class Askers:
    """Clients that ask all the time, about an open and a closed resource."""

    def __init__(self, gate: GateDoor) -> None:
        self._gate = gate
        self._stopping = threading.Event()
        self.answers: list[TimedAnswer] = []
        paths = [gate.path(), gate.path("bob@contoso.example")] * (ASKERS // 2)
        self._threads = [threading.Thread(target=self._ask, args=(path,), daemon=True) for path in paths]
        for thread in self._threads:
            thread.start()

    def _ask(self, path: str) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            answer = self._gate.ask(path=path)
            took = time.monotonic() - began
            self.answers.append(TimedAnswer(began, took, answer.status, answer.reason))
            time.sleep(0.02)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE)


@pytest.fixture(scope="module")
def patient_gate() -> None:
    """Leave the gate its own time limits."""


@contextmanager
def opened_gate(urls: Urls, api: str) -> Iterator[GateDoor]:
    """A gate that reaches Postgres at this address, with Anna's mailbox open."""
    db = Database(make_engine(api, role="test-gate"), Schedule(urls.redis))
    with gate_before(World.make(db), db, QUICK) as gate:
        request = gate.world.submit(resources=[f"mailbox:{ANNA}"])
        gate.world.act("ann", Action.APPROVE, request.id)
        gate.until(200)
        yield gate
    db.dispose()


def outlived(gate: GateDoor, lose: Callable[[], object], come_back: Callable[[], object]) -> None:
    """Lose Postgres while clients ask, bring it back, and check the answers."""
    askers = Askers(gate)
    try:
        time.sleep(1)
        lose()
        lost = time.monotonic()
        time.sleep(OUTAGE_SECONDS)
        come_back()
        back = time.monotonic()
        gate.until(200)
        returned = time.monotonic() - back
    finally:
        askers.stop()

    away = [answer for answer in askers.answers if answer.began > lost + BOUND and answer.ended < back]
    assert len(away) >= ASKERS
    assert {one.status for one in away} == {403}
    assert {one.reason for one in away} <= {"behind", "busy"}
    took = [answer.took for answer in askers.answers if lost < answer.began < back]
    assert quantiles(took, n=4)[-1] < BOUND
    assert max(took) < PATIENCE
    assert returned < PATIENCE


@pytest.fixture
def own_urls(template: ServerAddresses) -> Iterator[Urls]:
    with fresh_database(template, flushes=False) as urls:
        yield urls


@pytest.mark.parametrize("mode", [ProxyMode.REFUSE, ProxyMode.BLACK_HOLE])
def test_a_gate_without_postgres_refuses_all_calls_within_its_limit_and_later_recovers(
    own_urls: Urls, mode: ProxyMode
) -> None:
    there = make_url(own_urls.api)
    assert there.port
    loop, proxy = EventLoopThread(), Proxy(there.port)
    loop.do(proxy.open())
    try:
        api = there.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        with opened_gate(own_urls, api) as gate:
            outlived(gate, lambda: loop.do(proxy.turn(mode)), lambda: loop.do(proxy.turn(ProxyMode.PASS)))
    finally:
        loop.do(proxy.leave())
        loop.close()


def test_a_stopped_or_killed_postgres_makes_the_gate_refuse_everyone() -> None:
    with migrated_servers("gate-outage") as servers:
        urls = urls_at(servers, str(make_url(servers.database_url).database))
        family = _postgres_at(make_url(urls.api).port)
        with all_rights(urls.superuser, urls.notifications), opened_gate(urls, urls.api) as gate:
            outlived(gate, lambda: _signal(family(), signal.SIGSTOP), lambda: _signal(family(), signal.SIGCONT))
            _signal(family(), signal.SIGKILL)
            killed = time.monotonic()
            while (began := time.monotonic()) and gate.ask().status == 200:
                assert began < killed + BOUND
            while time.monotonic() < killed + OUTAGE_SECONDS:
                assert gate.ask().reason == "behind"


def _postgres_at(port: int | None) -> Callable[[], list[psutil.Process]]:
    """Return a function that finds the server on this port, with its children."""
    assert port
    open_ports = psutil.net_connections("tcp")
    listening = {one.laddr[1]: one.pid for one in open_ports if one.laddr and one.status == psutil.CONN_LISTEN}
    server = psutil.Process(listening[port])
    return lambda: [server, *server.children(recursive=True)]


def _signal(family: list[psutil.Process], which: signal.Signals) -> None:
    for one in family:
        os.kill(one.pid, which)
