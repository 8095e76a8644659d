"""What processes and their descendants cost: CPU seconds and memory."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

import psutil

from devstack.stack import Processes, StackPlan
from harness.stage import servers_of

SERVERS = ("postgres", "redis")
OURS = ("api", "worker", "notifications")


def ours(processes: Processes, *names: str) -> dict[str, psutil.Process]:
    """Return the processes of the stack with these names, by default all of Lockbox's own."""
    return {name: psutil.Process(processes.running[name].pid) for name in names or OURS}


def servers(plan: StackPlan) -> dict[str, psutil.Process]:
    """Return Postgres' and Redis' first processes."""
    pids = servers_of(plan).pids
    return {name: psutil.Process(pids[name]) for name in SERVERS}


def cpu_seconds(roots: Iterable[psutil.Process]) -> float:
    """Return the CPU seconds of these processes and their descendants, including descendants that have ended."""
    total = 0.0
    for process in families(roots):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def resident(roots: Iterable[psutil.Process]) -> int:
    """Return the bytes of memory of these processes and their descendants."""
    total = 0
    for process in families(roots):
        with suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total


def families(roots: Iterable[psutil.Process]) -> Iterator[psutil.Process]:
    """Yield these processes and all of their descendants."""
    for root in roots:
        yield root
        yield from root.children(recursive=True)
