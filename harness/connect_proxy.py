"""A CONNECT proxy that records requests, and leads each address to a port of this machine."""

import asyncio
import ssl
from collections.abc import Mapping

from harness.network import HOST, LocalServer

MOST_READ = 1 << 16
FORBIDDEN = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsecret"


class ConnectProxy(LocalServer):
    """`asked` are the heads of all calls. The proxy answers `says` if set, and 403 for unknown addresses."""

    def __init__(self, leads: Mapping[str, int], tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.leads = leads
        self.asked: list[str] = []
        self.says: bytes | None = None

    @property
    def targets(self) -> list[str]:
        return [head.split()[1] for head in self.asked]

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(head)
        port = self.leads.get(self.targets[-1])
        if self.says is not None or port is None:
            writer.write(FORBIDDEN if self.says is None else self.says)
            await writer.drain()
            return
        far_reader, far_writer = await asyncio.open_connection(HOST, port)
        self._open.add(far_writer)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        finally:
            self._open.discard(far_writer)
            far_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(MOST_READ):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
