"""A worker's threads. They work in small steps until stopped.

A fork waits for the end of a step, so that no child process inherits a held lock.
"""

import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Self

import structlog
from kombu.exceptions import BatchPublishError  # type: ignore[attr-defined]  # newer than the stubs
from kombu.exceptions import OperationalError as BrokerAway
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lockbox.redis_scripts import RedisUnavailable
from worker.runtime import Runtime

log = structlog.get_logger(__name__)

IDLE_SECONDS = 1.0
LONGEST_WAIT = 15.0


class ForkGate:
    """Locked by one thread while it works; a fork waits for the lock, at most 15 seconds."""

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


class WorkerLoop(threading.Thread, ABC):
    """A thread that does one round after another until it is stopped; no failure ends it.

    A round is a series of small steps. The thread holds the gate during each step.
    """

    def __init__(self, name: str, tools: Runtime) -> None:
        super().__init__(name=name, daemon=True)
        self.tools = tools
        self.gate = ForkGate()
        self.stopping = threading.Event()
        self.lively_at = time.monotonic()

    def run(self) -> None:
        while not self.stopping.is_set():
            self.lively_at = time.monotonic()
            try:
                self.round()
            except (DBAPIError, PoolTimeout, BrokerAway, BatchPublishError, RedisUnavailable) as error:
                log.warning("poller.waiting", poller=self.name, error=type(error).__name__)
                self.stopping.wait(IDLE_SECONDS)
            except Exception:
                log.exception("poller.failed", poller=self.name)
                self.stopping.wait(IDLE_SECONDS)

    def stop(self) -> None:
        self.stopping.set()

    @abstractmethod
    def round(self) -> None:
        """Do the work that is due, then rest."""

    def stepwise(self, steps: Iterator[object]) -> int:
        taken = 0
        while not self.stopping.is_set():
            with self.gate:
                step = next(steps, None)
            if step is None:
                break
            taken += 1
            self.lively_at = time.monotonic()
        return taken
