"""The crowd: stories and probers in a thread of their own, which begin and end when told."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from chaos.clients import Clients
from chaos.gate_calls import GateAddresses, ProbeClient
from chaos.gate_history import GateHistory
from chaos.gate_prober import GateProber
from chaos.gate_stories import GateStories
from chaos.journal import Journal
from chaos.load import Load
from chaos.people import ChaosPeople
from chaos.prober import Prober
from chaos.stream_watch import StreamWatch
from harness.network import EventLoopThread

PATIENCE = 240.0
Play = Callable[[asyncio.Event], Coroutine[Any, Any, None]]


class Crowd:
    """Everyone outside Lockbox."""

    def __init__(self, seed: int, gates: GateAddresses, cast: ChaosPeople) -> None:
        self.journal = Journal()
        self.history = GateHistory()
        self._loop = EventLoopThread()
        self._clients = Clients(gates.api, cast, self.journal)
        self._prober = Prober(self._clients, self.journal)
        self._load = Load(seed, cast, self._clients, self._prober, self.journal)
        self._gate_client = ProbeClient(gates, cast.engineers())
        self._gate_prober = GateProber(self._gate_client, self.history)
        self._stream_watch = StreamWatch(gates, self.history)
        self._gate_stories = GateStories(seed, cast, self._clients, self._gate_prober, self.history)
        self._running: list[tuple[asyncio.Event, Future[None]]] = []

    @property
    def _stories(self) -> tuple[Play, ...]:
        return self._load.run, self._gate_stories.run

    @property
    def calm(self) -> list[str]:
        """The ids of the requests that stay open throughout the run."""
        return [str(request["id"]) for request in (*self._load.calm, *self._gate_stories.standing)]

    def settle_in(self) -> None:
        """Submit the requests that stay open throughout the run."""
        self._loop.do(self._load.settle_in(), PATIENCE)
        self._loop.do(self._gate_stories.settle_in(), PATIENCE)

    def begin(self) -> None:
        """Begin to request access, to decide and to probe."""
        for run in (*self._stories, self._prober.run, self._gate_prober.run, self._stream_watch.run):
            self._start(run)

    def begin_nothing_more(self) -> None:
        """Begin no further stories, and let those that have begun continue."""
        for stopping, _ in self._running[: len(self._stories)]:
            self._loop.set(stopping)

    def end_load(self) -> None:
        """Wait until all stories that have begun have ended."""
        for _, running in self._running[: len(self._stories)]:
            running.result(PATIENCE)

    def leave(self) -> None:
        """Cancel and complete the requests that have stayed open."""
        self._loop.do(self._load.leave(), PATIENCE)
        self._loop.do(self._gate_stories.leave(), PATIENCE)

    def close(self) -> None:
        """Stop the crowd, and wait until all of it has ended."""
        for stopping, running in self._running:
            self._loop.set(stopping)
            running.result(PATIENCE)
        self._hang_up()

    def abandon(self) -> None:
        """Stop at once; whatever has begun goes no further."""
        self._loop.end_all()
        self._hang_up()

    def _hang_up(self) -> None:
        self._loop.do(self._clients.close())
        self._loop.do(self._gate_client.close())
        self._loop.do(self._stream_watch.close())
        self._loop.close()

    def _start(self, run: Play) -> None:
        stopping = asyncio.Event()
        self._running.append((stopping, self._loop.begin(run(stopping))))
