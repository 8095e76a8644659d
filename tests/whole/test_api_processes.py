"""Several API processes on one port: limits and metrics are as for one, and a process that ends is replaced."""

import re
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event

import httpx
import psutil
import pytest

from devstack.embedded import ServerAddresses
from harness.mail_relay import CaughtMails
from harness.network import HOST
from harness.people import sign_in
from harness.stage import fresh_database, plan_for, running
from tests.http.streams import LiveStream
from tests.whole.conftest import RunningStack, log_lines, wait_until
from tests.whole.warm import WarmProcesses

PROCESSES = 3
MOST = 30
SETTINGS = {
    "LOCKBOX_API_PROCESSES": str(PROCESSES),
    "LOCKBOX_CONNECTIONS_PER_ADDRESS": str(MOST),
    "LOCKBOX_SHUTDOWN_SECONDS": "1",
}
OPEN = psutil.CONN_ESTABLISHED, psutil.CONN_CLOSE_WAIT
COOKIE = "lockbox"
ALIVE = "SELECT 1 FROM heartbeats WHERE role = 'api'"
ADD = """
INSERT INTO counters (id, name, label, count, total) VALUES (gen_random_uuid(), 'attempt', 'mail sent', 1, 0)
RETURNING 1
"""
UNFINISHED = (
    b"POST /v1/requests HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
)
TRIED = re.compile(r'^lockbox_notify_attempts_total\{channel="mail",outcome="sent"\} (\S+)$', re.MULTILINE)


@pytest.fixture(scope="module")
def apis(template: ServerAddresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """An API of three processes, for the tests of this file."""
    logs = tmp_path_factory.mktemp("logs")
    with fresh_database(template) as urls:
        plan = plan_for(urls, template, logs / "keys")
        with running(plan, WarmProcesses(plan, logs, SETTINGS), ("api",)) as found:
            yield RunningStack(**vars(found), urls=urls, servers=template, caught=CaughtMails(urls.maildir))


@pytest.fixture
def stage(apis: RunningStack) -> RunningStack:
    """The same API, restarted if the previous test ended it; each process serves, and no client is connected."""
    if not apis.processes.running:
        apis.rows("DELETE FROM heartbeats RETURNING 1")
        apis.processes.start("api")
        apis.processes.wait_until_ready()
    wait_until(lambda: len(apis.rows(ALIVE)) >= PROCESSES == len(children(apis)), "each process serves")
    wait_until(lambda: not connections(apis), "nobody is connected")
    return apis


def children(stage: RunningStack) -> list[psutil.Process]:
    return psutil.Process(stage.processes.running["api"].pid).children()


def connections(stage: RunningStack) -> Counter[int]:
    held = Counter[int]()
    for child in children(stage):
        here = [connection for connection in child.net_connections("tcp") if connection.status in OPEN]
        held[child.pid] = sum(one.laddr.port == stage.plan.api_port for one in here)
    return +held


def asked(held: ExitStack, stage: RunningStack) -> tuple[int, socket.socket]:
    """Open a connection and call `/livez`; return the answer's status and the connection, which stays open."""
    opened = held.enter_context(socket.create_connection((HOST, stage.plan.api_port), timeout=30))
    return ask_again(opened), opened


def ask_again(opened: socket.socket) -> int:
    """Call `/livez` on an open connection; return the answer's status."""
    opened.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
    return int(opened.recv(4096).split()[1])


@dataclass
class HeldConnections:
    """Connections that stay open: each is used so often that the API does not close it for being idle."""

    stage: RunningStack
    held: ExitStack
    opened: list[socket.socket] = field(default_factory=list)

    def add(self) -> int:
        """Open one more; return the status of its first answer."""
        status, opened = asked(self.held, self.stage)
        self.opened.append(opened)
        return status

    def keep_busy(self, ended: Event) -> None:
        while not ended.wait(0.5):
            for one in [*self.opened]:
                # A refused one is closed, as are those of a killed process.
                with suppress(OSError, IndexError):
                    ask_again(one)


@contextmanager
def holding(stage: RunningStack) -> Iterator[HeldConnections]:
    ended = Event()
    with ExitStack() as held, ThreadPoolExecutor(1) as thread:
        found = HeldConnections(stage, held)
        busy = thread.submit(found.keep_busy, ended)
        try:
            yield found
        finally:
            ended.set()
            busy.result()


def answers(stage: RunningStack) -> bool:
    try:
        return httpx.get(f"{stage.plan.public_url}/livez", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


def test_an_ip_address_has_one_connection_limit_over_all_api_processes(stage: RunningStack) -> None:
    with holding(stage) as held:
        found = [held.add() for _ in range(MOST + 5)]
        spread = connections(stage)

        assert found == [200] * MOST + [429] * 5
        assert spread.total() >= MOST
        assert len(spread) > 1, "one process took them all"
    wait_until(lambda: not connections(stage), "the connections are closed")
    assert answers(stage)


@pytest.mark.far
def test_live_streams_are_limited_over_all_api_processes(stage: RunningStack) -> None:
    ann = stage.world().people["ann"]
    sessions = [sign_in(stage.db, ann) for _ in range(4)]
    streams: list[LiveStream] = []

    def listen(secret: str) -> int:
        streams.append(LiveStream.open(stage.plan.public_url, secret, named=COOKIE, topics="list"))
        return streams[-1].status

    found = [[listen(secret) for _ in range(5)] for secret in sessions]
    spread = connections(stage)

    assert found[:3] == [[200, 200, 200, 200, 429]] * 3, "four of a session"
    assert found[3] == [429] * 5, "twelve of a person"
    assert len(spread) > 1, "one process took them all"
    streams[0].close()
    wait_until(lambda: listen(sessions[0]) == 200, "what is closed is free again")
    for stream in streams:
        stream.close()


@pytest.mark.far
def test_no_metric_decreases_whichever_api_process_answers(stage: RunningStack) -> None:
    seen: list[float] = []

    for _ in range(30):
        stage.rows(ADD)
        # A connection each: any process may answer.
        page = httpx.get(f"http://127.0.0.1:{stage.plan.api_port}/metrics", timeout=20).text
        tried = TRIED.search(page)
        assert tried, page
        seen.append(float(tried[1]))
    assert seen == [float(number + 1) for number in range(30)]


@pytest.mark.far
def test_an_ended_api_process_is_replaced_and_its_slots_are_freed(stage: RunningStack) -> None:
    with holding(stage) as held:
        assert [held.add() for _ in range(MOST)] == [200] * MOST
        (killed, its), *_ = connections(stage).most_common()
        before = {child.pid for child in children(stage)}

        psutil.Process(killed).kill()

        wait_until(lambda: len({child.pid for child in children(stage)} - before) == 1, "another one takes its place")
        wait_until(lambda: len(connections(stage)) <= PROCESSES and answers(stage), "the API answers")
        # A place is free again a moment after the connection is closed.
        for _ in range(its):
            wait_until(lambda: held.add() == 200, "another place is free")
        beyond = held.add()
    assert beyond == 429
    log = log_lines(stage.processes.logs / "api.log")
    assert [line["code"] for line in log if line["event"] == "api.process_ended"] == [-signal.SIGKILL]
    assert stage.processes.ended() == {}


@pytest.mark.far
def test_on_sigterm_all_api_processes_finish_their_answers_and_exit(stage: RunningStack) -> None:
    family = children(stage)
    api = stage.processes.running["api"]

    api.send_signal(signal.SIGTERM)

    assert api.wait(20) == 0
    assert not any(child.is_running() for child in family)
    stage.processes.running.clear()


@pytest.mark.far
def test_no_api_process_outlives_its_parent(stage: RunningStack) -> None:
    family = children(stage)

    stage.processes.kill("api")

    wait_until(lambda: not any(child.is_running() for child in family), "every process has ended")
    with pytest.raises(ConnectionRefusedError), socket.create_connection((HOST, stage.plan.api_port)):
        time.sleep(0)


@pytest.mark.far
def test_an_api_whose_port_is_already_used_does_not_start(stage: RunningStack) -> None:
    second = stage.processes.start("api", name="second")

    assert second.wait(30) == 1
    assert answers(stage)
    stage.processes.running.pop("second")


@pytest.mark.far
def test_no_client_waits_in_vain_while_the_api_shuts_down(stage: RunningStack) -> None:
    api = stage.processes.running.pop("api")
    with ExitStack() as held:
        half = held.enter_context(socket.create_connection((HOST, stage.plan.api_port), timeout=10))
        half.sendall(UNFINISHED)
        time.sleep(0.5)

        api.terminate()

        wait_until(lambda: is_refused(stage), "a new connection is refused", patience=4)
        assert api.poll() is None, "a call is still being received"
    assert api.wait(20) == 0


def is_refused(stage: RunningStack) -> bool:
    try:
        socket.create_connection((HOST, stage.plan.api_port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False
