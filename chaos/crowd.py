"""The crowd: load and prober in a thread of their own, told when to begin and when to end."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from chaos.clients import Clients
from chaos.journal import Journal
from chaos.load import Load
from chaos.people import ChaosPeople
from chaos.prober import Prober
from harness.network import EventLoopThread

PATIENCE = 240.0


class Crowd:
    """Everybody outside of Lockbox."""

    def __init__(self, seed: int, url: str, cast: ChaosPeople) -> None:
        self.journal = Journal()
        self._loop = EventLoopThread()
        self._clients = Clients(url, cast, self.journal)
        self._prober = Prober(self._clients, self.journal)
        self._load = Load(seed, cast, self._clients, self._prober, self.journal)
        self._running: list[tuple[asyncio.Event, Future[None]]] = []

    @property
    def calm(self) -> list[str]:
        """The ids of the requests that stay open all along."""
        return [str(request["id"]) for request in self._load.calm]

    def settle_in(self) -> None:
        """File what stays open all along."""
        self._loop.do(self._load.settle_in(), PATIENCE)

    def begin(self) -> None:
        """Begin to ask for access, to decide and to try doors."""
        self._start(self._load.run)
        self._start(self._prober.run)

    def begin_nothing_more(self) -> None:
        """Let whatever has begun go on, and nothing else begin."""
        stopping, _ = self._running[0]
        self._loop.set(stopping)

    def end_load(self) -> None:
        """Wait until whatever was begun has ended."""
        _, running = self._running[0]
        running.result(PATIENCE)

    def leave(self) -> None:
        """Cancel what has stayed open."""
        self._loop.do(self._load.leave(), PATIENCE)

    def close(self) -> None:
        """End all of it."""
        for stopping, running in self._running:
            self._loop.set(stopping)
            running.result(PATIENCE)
        self._loop.do(self._clients.close())
        self._loop.close()

    def abandon(self) -> None:
        """Leave all of it as it is; whatever was begun goes no further."""
        self._loop.close()

    def _start(self, run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
        stopping = asyncio.Event()
        self._running.append((stopping, self._loop.begin(run(stopping))))
