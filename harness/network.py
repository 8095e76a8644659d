"""Servers on loopback that can go away and come back, each in its own event loop, and a proxy for other servers."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, TypeVar

from harness.ports import own_port

T = TypeVar("T")
Served = TypeVar("Served", bound="LocalServer")
HOST = "127.0.0.1"
PATIENCE = 60.0
MOST_BYTES = 1 << 20
BACKLOG = 500
# On close, unsent data is thrown away, and the other side gets a reset.
AT_ONCE = struct.pack("ii", 1, 0)
SLOW_SECONDS = 0.06
MOST_READ = 1 << 16
Filter = Callable[[bytes], bytes]


class EventLoopThread:
    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="harness-loop", daemon=True)
        self._thread.start()

    def begin(self, what: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(what, self._loop)

    def do(self, what: Coroutine[Any, Any, T], patience: float = PATIENCE) -> T:
        return self.begin(what).result(patience)

    def set(self, event: asyncio.Event) -> None:
        self._loop.call_soon_threadsafe(event.set)

    def end_all(self) -> None:
        self.do(self._end_all())

    def close(self) -> None:
        self.end_all()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    async def _end_all(self) -> None:
        # A connection that was just accepted becomes a task only in one of the loop's next turns.
        for _ in range(3):
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0)


class LocalServer(ABC):
    """A server on a `port` of loopback, which can go away and come back on that port. With `tls`, it uses TLS."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def open(self, port: int = 0) -> None:
        """Open the port, by default a port of this process's range."""
        self.port = port or own_port()
        await self._listen()

    async def leave(self) -> None:
        """Refuse new connections, and reset those that are open."""
        if self._server:
            self._server.close()
            self._server = None
        self.reset()

    async def come_back(self) -> None:
        until = asyncio.get_running_loop().time() + PATIENCE
        while self._server is None:
            try:
                await self._listen()
            except OSError:
                if asyncio.get_running_loop().time() > until:
                    raise
                await asyncio.sleep(0.1)

    def reset(self) -> None:
        for writer in list(self._open):
            abort(writer)

    @abstractmethod
    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection; an error ends only this connection."""

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, HOST, self.port, limit=MOST_BYTES, backlog=BACKLOG, ssl=self._tls
        )

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


@contextmanager
def serving(server: Served) -> Iterator[Served]:
    """Serve on any port, in a loop of its own, until the end of the block."""
    loop = EventLoopThread()
    try:
        loop.do(server.open())
        yield server
        loop.do(server.leave())
    finally:
        loop.close()


def abort(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
    writer.transport.abort()


class ProxyMode(StrEnum):
    """In a black hole nothing arrives; when it ends, everything that was held back arrives."""

    PASS = "pass"  # noqa: S105 - not a password
    REFUSE = "refuse"
    BLACK_HOLE = "black_hole"
    SLOW = "slow"


class Proxy(LocalServer):
    """Passes bytes between its port and a server's; `filters` makes the filters of a new connection.

    The first of the two filters the requests, the second filters the answers; a filter that raises OSError resets the
    connection.
    """

    def __init__(self, upstream: int, filters: Callable[[], tuple[Filter, Filter]] | None = None) -> None:
        super().__init__()
        self.upstream = upstream
        self.mode = ProxyMode.PASS
        self._filters = filters or (lambda: (bytes, bytes))
        self._passing = asyncio.Event()
        self._passing.set()

    async def turn(self, mode: ProxyMode) -> None:
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
        """Reset all connections; new ones pass."""
        self.reset()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        far_reader, far_writer = await asyncio.open_connection(HOST, self.upstream)
        self._open.add(far_writer)
        forth, back = self._filters()
        pumps = (self._pump(reader, far_writer, forth), self._pump(far_reader, writer, back))
        ways = [asyncio.ensure_future(pump) for pump in pumps]
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

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, filter_: Filter) -> None:
        while data := await reader.read(MOST_READ):
            if self.mode is ProxyMode.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            await self._passing.wait()
            writer.write(filter_(data))
            await writer.drain()
