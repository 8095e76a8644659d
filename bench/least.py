"""The least that intake and a life can cost over HTTP: one statement a call, and mails in plain words; the floor."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice

import psutil

from bench import costs
from bench.customers import Customers
from bench.db import Site
from bench.doors import CLIENTS, LIVING, WARM_UP_SECONDS, rate, several
from cli import stack
from cli.stack import Processes
from harness.load import play
from harness.ports import own_port, wait_until_listening
from harness.stage import start_sinks

DATABASE = "lockbox_floor"
Measured = Mapping[str, float]


@dataclass(frozen=True)
class BareStack:
    """A running `bench.bare` and the servers that it is on."""

    port: int
    processes: list[psutil.Process]

    def intake(self, customers: Customers, seconds: float, rounds: int) -> dict[int, Measured]:
        """Return what was accepted a second, and how soon, from one client and from more."""
        stories = [[_plain(call, "/")] for call in customers.filings(3600)]
        play(self.port, stories, max(CLIENTS), WARM_UP_SECONDS)
        return {
            clients: several([rate(play(self.port, stories, clients, seconds)) for _ in range(rounds)])
            for clients in CLIENTS
        }

    def lives(self, customers: Customers, count: int) -> Measured:
        """Return the CPU of a submission, an approval and five mails; that it ends by itself is not even counted."""
        stories = [
            [_plain(submission, "/told"), _plain(approval, "/{id}/approve")]
            for submission, approval in islice(cycle(customers.lives(3600)), count)
        ]
        play(self.port, stories[:LIVING], LIVING, None)
        spent = costs.cpu_seconds(self.processes)
        play(self.port, stories, LIVING, None)
        return {"cpu_ms": 1000 * (costs.cpu_seconds(self.processes) - spent) / count}

    def told(self, customers: Customers, clients: int, count: int) -> Measured:
        """Return how many a second were filed and one mail of each was sent."""
        stories = [[_plain(call, "/told")] for call in islice(cycle(customers.filings(3600)), count)]
        began = time.monotonic()
        play(self.port, stories, clients, None)
        return {"a_second": count / (time.monotonic() - began)}


@contextmanager
def serving(site: Site) -> Iterator[BareStack]:
    """Serve on a copy of the database, with a relay that takes every mail."""
    url = site.copied(site.plan.database_url, DATABASE).render_as_string(hide_password=False)
    port, processes = own_port(), Processes(site.plan, site.folder / "log")
    try:
        with _bare(port, start_sinks(processes).mail, url) as child:
            wait_until_listening(port)
            yield BareStack(port, [psutil.Process(child.pid), *costs.servers(site.plan)])
    finally:
        processes.stop()


@contextmanager
def _bare(port: int, mail: int, url: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "bench.bare", str(port), str(mail)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, cwd=stack.CHECKOUT) as child:
        assert child.stdin is not None  # noqa: S101 - it is a pipe
        child.stdin.write(url)
        child.stdin.close()
        try:
            yield child
        finally:
            child.terminate()
            child.wait(30)


def _plain(call: dict[str, object], path: str) -> dict[str, object]:
    return {**call, "path": path, "token": None}
