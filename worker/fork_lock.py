"""A gate between threads and forks: a pool child must never inherit a lock in the held state."""

import os
import threading
from typing import Self

LONGEST_WAIT = 15.0


class ForkGate:
    """Held by one thread while it works; a fork waits for it, at most 15 seconds."""

    # A child that is forked while a thread holds a lock (of logging, of a connection pool) would wait for it forever,
    # since the thread that would release it does not exist in the child.

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held_for_fork = False
        os.register_at_fork(before=self._close, after_in_parent=self._open, after_in_child=self._open)

    def __enter__(self) -> Self:
        self._lock.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _close(self) -> None:
        self._held_for_fork = self._lock.acquire(timeout=LONGEST_WAIT)

    def _open(self) -> None:
        if self._held_for_fork:
            self._held_for_fork = False
            self._lock.release()
