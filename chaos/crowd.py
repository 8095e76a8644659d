"""The crowd: load and prober in a thread of their own, told when to begin and when to end."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from chaos.clients import Clients
from chaos.journal import Journal
from chaos.load import Load
from chaos.people import ChaosPeople
from chaos.prober import Prober

PATIENCE = 240.0


class Crowd:
    """Everybody outside of Lockbox."""

    def __init__(self, seed: int, url: str, cast: ChaosPeople) -> None:
        self.journal = Journal()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-crowd", daemon=True)
        self._thread.start()
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
        self._do(self._load.settle_in())

    def begin(self) -> None:
        """Begin to ask for access, to decide and to try doors."""
        self._start(self._load.run)
        self._start(self._prober.run)

    def begin_nothing_more(self) -> None:
        """Let whatever has begun go on, and nothing else begin."""
        stopping, _ = self._running[0]
        self._loop.call_soon_threadsafe(stopping.set)

    def end_load(self) -> None:
        """Wait until whatever was begun has ended."""
        _, running = self._running[0]
        running.result(PATIENCE)

    def leave(self) -> None:
        """Cancel what has stayed open."""
        self._do(self._load.leave())

    def close(self) -> None:
        """End all of it."""
        for stopping, running in self._running:
            self._loop.call_soon_threadsafe(stopping.set)
            running.result(PATIENCE)
        self._do(self._clients.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def abandon(self) -> None:
        """Leave all of it as it is; whatever was begun goes no further."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _start(self, run: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
        stopping = asyncio.Event()
        self._running.append((stopping, asyncio.run_coroutine_threadsafe(run(stopping), self._loop)))

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE)
