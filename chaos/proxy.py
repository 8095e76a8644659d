"""The network between Lockbox and one server: a TCP proxy that can refuse, swallow, reset and dawdle."""

import asyncio
from collections.abc import Callable
from enum import StrEnum

from chaos.loop import Port, abort

SLOW_SECONDS = 0.06
MOST_READ = 1 << 16

Filter = Callable[[bytes], bytes]


class ProxyMode(StrEnum):
    """How a proxy treats what passes. In a black hole nothing arrives, and all of it does once that is over."""

    PASS = "pass"  # noqa: S105 - a way, not a word
    REFUSE = "refuse"
    BLACK_HOLE = "black_hole"
    SLOW = "slow"


class Proxy(Port):
    """Passes bytes between its port and the server's; `filters` makes what each connection's requests go through."""

    def __init__(self, upstream: int, filters: Callable[[], Filter] | None = None) -> None:
        super().__init__()
        self.upstream = upstream
        self.mode = ProxyMode.PASS
        self._filters = filters
        self._passing = asyncio.Event()
        self._passing.set()

    async def turn(self, mode: ProxyMode) -> None:
        """Treat everything so from now on."""
        self.mode = mode
        if mode is ProxyMode.BLACK_HOLE:
            self._passing.clear()
        else:
            self._passing.set()
        if mode is ProxyMode.REFUSE:
            await self.leave()
        else:
            await self.come_back()

    async def cut(self) -> None:
        """Reset all connections in the midst of whatever they say; new ones pass."""
        self.reset()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect to the server and pass on what either side says, until one has said all."""
        await self._passing.wait()
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.upstream)
        self._open.add(far_writer)
        there = self._pump(reader, far_writer, self._filters() if self._filters else None)
        ways = [asyncio.ensure_future(way) for way in (there, self._pump(far_reader, writer, None))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if any(way.done() and way.exception() for way in ways):
                abort(writer)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._open.discard(far_writer)
            far_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, filter_: Filter | None) -> None:
        while data := await reader.read(MOST_READ):
            if self.mode is ProxyMode.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            await self._passing.wait()
            writer.write(filter_(data) if filter_ else data)
            await writer.drain()
