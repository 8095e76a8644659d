"""What processes cost: CPU seconds and memory, whole families of them."""

from collections.abc import Iterable, Iterator
from contextlib import suppress

import psutil

from bench.db import Bench
from cli.stack import StackPlan
from harness.stage import servers_of

SERVERS = ("postgres", "redis")
OURS = ("api", "worker", "notifications")


def ours(bench: Bench, *names: str) -> list[psutil.Process]:
    """Return the processes of the stack with these names."""
    return [psutil.Process(bench.processes.running[name].pid) for name in names]


def servers(plan: StackPlan) -> list[psutil.Process]:
    """Return Postgres' and Redis' first processes."""
    pids = servers_of(plan).pids
    return [psutil.Process(pids[name]) for name in SERVERS]


def each(bench: Bench) -> dict[str, float]:
    """Return the CPU seconds that each of the processes and servers has taken, with all of its descendants."""
    roots = [*zip(OURS, ours(bench, *OURS), strict=True), *zip(SERVERS, servers(bench.processes.plan), strict=True)]
    return {name: cpu_seconds([root]) for name, root in roots}


def cpu_seconds(roots: Iterable[psutil.Process]) -> float:
    """Return the CPU seconds that these processes and their descendants have taken, those that have ended too."""
    total = 0.0
    for process in families(roots):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total


def resident(roots: Iterable[psutil.Process]) -> int:
    """Return the bytes of memory that these processes and their descendants hold."""
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
