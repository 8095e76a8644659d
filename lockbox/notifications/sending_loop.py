"""The asyncio loop that sends, in a thread of its own; no database."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable

IDLE_SECONDS = 2.0
TICK_SECONDS = 0.25


class SendingLoop:
    """An asyncio loop in a thread of its own, which runs while there is something to send and two seconds longer.

    It is started by the first send: in the process that sends, and never before a fork. `channels` are called again
    and again and return whether they are busy; `rest` closes what sending keeps open.
    """

    def __init__(self) -> None:
        self.channels: list[Callable[[], bool]] = []
        self.rest: Callable[[], Awaitable[None]] | None = None
        self._changing = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._was_called = False

    def call(self, work: Callable[[], object]) -> None:
        """Have the loop call this; start the loop if it does not run.

        Raises:
            RuntimeError: there is no thread for it.
        """
        with self._changing:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                try:
                    threading.Thread(target=self._run, args=(loop,), name="sending-loop", daemon=True).start()
                except RuntimeError:
                    loop.close()
                    raise
                self._loop = loop
            self._was_called = True
            self._loop.call_soon_threadsafe(work)

    @property
    def is_running(self) -> bool:
        """Whether its thread lives."""
        with self._changing:
            return self._loop is not None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        busy_at = time.monotonic()
        while time.monotonic() - busy_at <= IDLE_SECONDS or not await self._ended():
            await asyncio.sleep(min(TICK_SECONDS, IDLE_SECONDS))
            with self._changing:
                self._was_called = False
            # Not under our own lock: whoever calls us holds that of a channel.
            are_busy = [tend() for tend in self.channels]
            if any(are_busy):
                busy_at = time.monotonic()

    async def _ended(self) -> bool:
        """Close what sending holds open before another loop can take it; end, unless somebody called meanwhile."""
        if self.rest:
            await self.rest()
        with self._changing:
            self._loop = self._loop if self._was_called else None
            return self._loop is None
