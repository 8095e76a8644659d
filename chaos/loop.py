"""An event loop in a thread of its own, in which proxies and sinks live; and ports on it that can go away."""

import asyncio
import contextlib
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any, TypeVar

from cli.stack import free_port

T = TypeVar("T")

PATIENCE = 60.0
MOST_BYTES = 1 << 20
BACKLOG = 500
# On close, an unsent rest is thrown away and the other side hears a reset.
AT_ONCE = struct.pack("ii", 1, 0)


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
