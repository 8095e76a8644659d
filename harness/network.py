"""An event loop in a thread of its own, in which proxies and sinks live; and ports on it that can go away."""

import asyncio
import contextlib
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any, TypeVar

from cli.stack import free_port

T = TypeVar("T")
PATIENCE = 60.0
MOST_BYTES = 1 << 20
BACKLOG = 500
# On close, an unsent rest is thrown away and the other side hears a reset.
AT_ONCE = struct.pack("ii", 1, 0)
SLOW_SECONDS = 0.06
MOST_READ = 1 << 16
Filter = Callable[[bytes], bytes]


class EventLoopThread:
    """The thread; `do` runs something in it and waits for that."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-loop", daemon=True)
        self._thread.start()

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        """Run it there and return its result."""
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE)

    def close(self) -> None:
        """End whatever runs there, then the thread."""
        self.do(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _end_all(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


class Port(ABC):
    """A port of loopback that is listened on; it can go away, as a server does, and come back at the same number."""

    def __init__(self) -> None:
        self.number = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def open(self, first: int) -> None:
        """Listen on the first free port from this one on."""
        number = first
        while self._server is None:
            number = free_port(number)
            with contextlib.suppress(OSError):
                await self._listen(number)
            number += 1

    async def leave(self) -> None:
        """Refuse every connection from now on, and reset those that are open."""
        if self._server:
            self._server.close()
            self._server = None
        self.reset()

    async def come_back(self) -> None:
        """Listen again."""
        until = asyncio.get_running_loop().time() + PATIENCE
        while self._server is None:
            try:
                await self._listen(self.number)
            except OSError:
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(0.1)

    def reset(self) -> None:
        """Reset every open connection."""
        for writer in list(self._open):
            abort(writer)

    @abstractmethod
    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; what goes wrong with it ends it and nothing else."""

    async def _listen(self, number: int) -> None:
        serve = self._serve
        self._server = await asyncio.start_server(serve, "127.0.0.1", number, limit=MOST_BYTES, backlog=BACKLOG)
        self.number = number

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self.talk(reader, writer)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            abort(writer)
        except asyncio.CancelledError:
            abort(writer)
        finally:
            self._open.discard(writer)
            writer.close()


def abort(writer: asyncio.StreamWriter) -> None:
    """Reset a connection."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    writer.transport.abort()


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
