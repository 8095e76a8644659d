"""The crowd: stories and probers in a thread of their own, told when to begin and when to end."""

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
    """Everybody outside of Lockbox."""

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
        """The ids of the requests that stay open all along."""
        return [str(request["id"]) for request in (*self._load.calm, *self._gate_stories.standing)]

    def settle_in(self) -> None:
        """File what stays open all along."""
        self._loop.do(self._load.settle_in(), PATIENCE)
        self._loop.do(self._gate_stories.settle_in(), PATIENCE)

    def begin(self) -> None:
        """Begin to ask for access, to decide and to try doors."""
        for run in (*self._stories, self._prober.run, self._gate_prober.run, self._stream_watch.run):
            self._start(run)

    def begin_nothing_more(self) -> None:
        """Let whatever has begun go on, and nothing else begin."""
        for stopping, _ in self._running[: len(self._stories)]:
            self._loop.set(stopping)

    def end_load(self) -> None:
        """Wait until whatever was begun has ended."""
        for _, running in self._running[: len(self._stories)]:
            running.result(PATIENCE)

    def leave(self) -> None:
        """Cancel and complete what has stayed open."""
        self._loop.do(self._load.leave(), PATIENCE)
        self._loop.do(self._gate_stories.leave(), PATIENCE)

    def close(self) -> None:
        """End all of it."""
        for stopping, running in self._running:
            self._loop.set(stopping)
            running.result(PATIENCE)
        self._hang_up()

    def abandon(self) -> None:
        """Leave all of it as it is; whatever was begun goes no further."""
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
