"""The striker: carries out the plan, each fault in a thread of its own."""

import threading
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import psutil
from kombu.exceptions import KombuError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from chaos.plan import AppliedFault, Fault
from chaos.stage import ChaosStack
from chaos.strikes import STRIKES
from devstack.embedded import EmbeddedRefused

EXPECTED = (OSError, EmbeddedRefused, RedisError, KombuError, SQLAlchemyError, psutil.Error, httpx.HTTPError)


class Striker:
    """Strikes as the plan says, each fault in a thread of its own, one at a time on each target.

    `struck` are the faults that are over, including those that could not be carried out.
    """

    def __init__(self, stage: ChaosStack) -> None:
        self.struck: list[AppliedFault] = []
        self._stage = stage
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._pool = ThreadPoolExecutor(16, "chaos-strike")
        self._under_way: list[Future[None]] = []

    def strike(self, fault: Fault) -> None:
        """Begin a fault."""
        lock = self._locks[fault.target]
        self._under_way.append(self._pool.submit(self._struck, fault, lock))

    def wait(self) -> None:
        """Wait until all faults are lifted."""
        for one in self._under_way:
            one.result()
        self._pool.shutdown()

    def _struck(self, fault: Fault, lock: threading.Lock) -> None:
        with lock:
            began, failed = time.time(), ""
            try:
                with STRIKES[fault.kind](self._stage, fault):
                    time.sleep(fault.lasts)
            except EXPECTED as error:
                failed = type(error).__name__
            self.struck.append(AppliedFault(fault, began, time.time(), failed))
