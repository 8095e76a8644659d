"""What puts a peer to work: `python -m bench.peers.drive PEER` does what its standard input asks, as JSON.

`arm` has requests ended at an instant; `live` files, tells, approves and tells again; `tell` files and tells. The CPU
seconds that this process took are part of the answer: here it stands for the process that people talk to.
"""

import importlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

from bench.peers import work

APPROVAL_SECONDS = 12 * 3600


def main() -> None:
    """Do one thing and say how long it took."""
    peer = importlib.import_module(f"bench.peers.{sys.argv[1]}")
    asked: dict[str, Any] = json.load(sys.stdin)
    jobs: dict[str, Callable[[str], None]] = {
        "arm": lambda one: peer.arm(one, asked["due"]),
        "live": lambda one: live(peer, one, asked["window"]),
        "tell": lambda one: tell(peer, one),
    }
    spent, began = time.process_time(), time.perf_counter()
    at_once(jobs[asked["do"]], asked["ids"], asked["clients"])
    done = {"cpu_seconds": time.process_time() - spent, "seconds": time.perf_counter() - began}
    json.dump(done, sys.stdout)


def live(peer: ModuleType, one: str, window: float) -> None:
    """File a request, approve it and leave its end to the peer; its approval window is a deadline too."""
    tell(peer, one)
    until = time.time() + window
    work.approve(one, datetime.fromtimestamp(until, UTC))
    peer.arm(one, until)
    peer.notify(one, "active")


def tell(peer: ModuleType, one: str) -> None:
    """File a request with its deadline, and have its approver told."""
    work.file(one)
    peer.arm(one, time.time() + APPROVAL_SECONDS)
    peer.notify(one, "pending")


def at_once(job: Callable[[str], None], ids: Iterable[str], clients: int) -> None:
    """Do a job for each id, by so many threads.

    Raises:
        RuntimeError: one of them failed.
    """
    waiting = iter(list(ids))
    lock, failed = threading.Lock(), list[Exception]()

    def client() -> None:
        while not failed:
            with lock:
                one = next(waiting, None)
            if one is None:
                return
            try:
                job(one)
            except Exception as error:  # noqa: BLE001 - said below
                failed.append(error)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise RuntimeError("a client failed") from failed[0]


if __name__ == "__main__":
    main()
