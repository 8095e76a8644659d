"""Sinks: servers on loopback with a memory and scripted faults."""

import asyncio
import ssl
from enum import StrEnum

from harness.network import LocalServer

DRIP_SECONDS = 0.02
MOST_DRIPS = 10_000
A_PART = 65_536


class Manner(StrEnum):
    """With `cut`, a sink takes what it is given and hangs up before it answers."""

    TAKE = "take"
    REFUSE = "refuse"
    BLACK_HOLE = "black_hole"
    BUSY = "busy"
    NO = "no"
    CUT = "cut"


class Sink(LocalServer):
    """A server with a `manner`, which says how it answers, and the number of its `callers`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.manner = Manner.TAKE
        self.callers = 0
        self._speaking = asyncio.Event()
        self._speaking.set()

    async def turn(self, manner: Manner) -> None:
        self.manner = manner
        if manner is Manner.BLACK_HOLE:
            self._speaking.clear()
        else:
            self._speaking.set()
        if manner is Manner.REFUSE:
            await self.leave()
        else:
            await self.come_back()

    async def say(self, writer: asyncio.StreamWriter, words: bytes) -> None:
        """Answer as soon as this sink may speak."""
        await self._speaking.wait()
        writer.write(words)
        await writer.drain()


async def drip(writer: asyncio.StreamWriter, drops: bytes) -> None:
    """Send these bytes one at a time, over and over."""
    for number in range(MOST_DRIPS):
        await asyncio.sleep(DRIP_SECONDS)
        writer.write(drops[number % len(drops) :][:1])
        await writer.drain()


class Hole(Sink):
    """Accepts connections and never answers."""

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(A_PART):
            pass
        writer.close()
