"""Arm deadlines in advance: `python -m bench.peers.arm PEER` arms what its standard input says, as JSON."""

import importlib
import json
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

CLIENTS = 2


def main() -> None:
    """Arm the deadlines, without a mail at their end, and print how many seconds that took."""
    peer = importlib.import_module(f"bench.peers.{sys.argv[1]}")
    asked: dict[str, Any] = json.load(sys.stdin)
    began = time.perf_counter()
    each(lambda one: peer.arm(one, asked["due"], 0), asked["ids"])
    json.dump(time.perf_counter() - began, sys.stdout)


def each(job: Callable[[str], None], ids: Iterable[str]) -> None:
    """Do a job for each id in a few threads; the first failure ends it."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        for _ in pool.map(job, ids):
            pass


if __name__ == "__main__":
    main()
