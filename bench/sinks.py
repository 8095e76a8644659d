"""Sinks of the benchmark: `python -m bench.sinks SMTP HOLE HTTP…`, each a port; one domain and one hang."""

import asyncio
import socket
import sys
import time

HANGING_DOMAIN = "hangs.example"
PATIENCE = 60.0
NO_CONTENT = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n"


async def take_mail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take every mail, but for those to one domain: its exchanger never answers, and the relay waits for it."""
    writer.write(b"220 sink\r\n")
    while line := await reader.readline():
        verb = line[:4].upper()
        if verb == b"RCPT" and f"@{HANGING_DOMAIN}>".encode() in line:
            await asyncio.sleep(3600)
        if verb == b"DATA":
            writer.write(b"354 go on\r\n")
            await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 fine\r\n")
    writer.close()


async def take_call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take one call."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(NO_CONTENT)
    await writer.drain()
    writer.close()


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Listen for ever."""
    while await reader.read(65536):
        pass
    writer.close()


def wait_for(port: int) -> None:
    """Wait until somebody listens on a port.

    Raises:
        RuntimeError: nobody does within a minute.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens on port {port}")


async def main() -> None:
    """Serve until the process is ended."""
    mail, hole, *calls = map(int, sys.argv[1:])
    wanted = [(mail, take_mail), (hole, say_nothing), *((port, take_call) for port in calls)]
    servers = [await asyncio.start_server(take, "127.0.0.1", port, backlog=500) for port, take in wanted]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main())
