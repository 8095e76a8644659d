"""Real sockets: what one client may send, hold open and leave unread, and that honest clients are left alone."""

import asyncio
import logging
import socket
import struct
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from ipaddress import ip_network
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from api.app import make_app
from api.http_protocol import ClientBounds, bounded
from tests.http.door import LoopThread
from tests.http.portal import SESSION, Portal

LIVENESS_SECONDS = 60
MIB = 1 << 20
RESETS = struct.pack("ii", 1, 0)
HEAD = b"GET / HTTP/1.1\r\nhost: lockbox.test\r\n"
POST = b"POST / HTTP/1.1\r\nhost: lockbox.test\r\ncontent-length: %d\r\n\r\n"


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a body to its end and say how long it was; a client that hangs up gets no answer."""
    assert scope["type"] == "http"
    taken, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        taken += len(message["body"])
        more = message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % taken})


async def streaming(_: Scope, __: Receive, send: Send) -> None:
    """Send an event now and then, for longer than any head or body may take."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(10):
        await asyncio.sleep(0.1)
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: end\n\n"})


async def pouring(_: Scope, __: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _number in range(100):
        await send({"type": "http.response.body", "body": b" " * MIB, "more_body": True})


@asynccontextmanager
async def serving(
    app: ASGIApp = reading, **bounds: Any
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, tuple[Reader, Writer]]]]:
    """Serve an app on loopback within bounds, and yield how to connect to it."""
    config = uvicorn.Config(
        app, port=0, http=bounded(ClientBounds(**bounds)), ws="none", lifespan="off", log_config=None
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    port = server.servers[0].sockets[0].getsockname()[1]
    opened: list[Writer] = []

    async def connect() -> tuple[Reader, Writer]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        opened.append(writer)
        return reader, writer

    try:
        yield connect
    finally:
        for writer in opened:
            writer.close()
        server.force_exit = True
        await server.shutdown()


async def all_of(reader: Reader) -> bytes:
    """Return what comes until the server closes; nothing more where it resets."""
    said = b""
    try:
        while part := await reader.read(65536):
            said += part
    except ConnectionError:
        pass
    return said


async def poured(writer: Writer, part: bytes, most: int) -> int:
    """Send the same again and again until the server has enough, or all is sent; return how much was taken."""
    taken = 0
    try:
        while taken < most:
            writer.write(part)
            await writer.drain()
            taken += len(part)
    except ConnectionError:
        pass
    return taken


def run(runner: LoopThread, test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    runner.run(asyncio.wait_for(test(), LIVENESS_SECONDS))


@pytest.mark.parametrize(
    ("begun", "part"),
    [
        (HEAD, b"x-filler: " + b"a" * 4000 + b"\r\n"),
        (HEAD, b"a: b\r\n" * 1000),
        (HEAD + b"x-one: ", b"a" * 65536),
        (HEAD, b"a" * 65536),
        (b"GET /", b"a" * 65536),
        (b"", b"\r\n" * 1000),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\n", b"x-trailer: " + b"a" * 4000 + b"\r\n"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n0\r\nx-one: ", b"a" * 65536),
    ],
    ids=["long", "many", "one value", "one name", "target", "empty lines", "trailers", "one trailer"],
)
def test_the_server_stops_reading_http_headers_and_trailers_at_the_size_limit(
    runner: LoopThread, begun: bytes, part: bytes
) -> None:
    async def test() -> None:
        async with serving() as connect:
            reader, writer = await connect()
            writer.write(begun)
            taken = await poured(writer, part, 300 * MIB)
            said = await all_of(reader)

            # What the kernel's buffers hold was taken by nobody.
            assert taken < 16 * MIB
            assert said == b"" or b" 431 " in said

    run(runner, test)


@pytest.mark.parametrize(
    ("count", "size", "status"), [(100, 8, 200), (101, 8, 431), (4, 10_000, 200), (5, 10_000, 431)]
)
def test_an_http_head_has_at_most_a_hundred_headers_and_at_most_32_kib_in_total(
    runner: LoopThread, count: int, size: int, status: int
) -> None:
    headers = b"".join(b"x-%d: %s\r\n" % (number, b"a" * size) for number in range(count - 1))

    async def test() -> None:
        async with serving() as connect:
            reader, writer = await connect()
            writer.write(HEAD + headers + b"\r\n")
            said = await reader.readuntil(b"\r\n\r\n")

            assert said.startswith(b"HTTP/1.1 %d " % status)
            if status == 431:
                assert b"content-type: application/problem+json" in said
                assert b"connection: close" in said
                assert b"headers-too-large" in await all_of(reader)

    run(runner, test)


@pytest.mark.far
@pytest.mark.parametrize(
    ("begun", "status"),
    [
        (b"", None),
        (b"\r\n", None),
        (b"GET", 408),
        (HEAD, 408),
        (HEAD + b"x-one: ", 408),
        (POST % 10, 408),
        (POST % 10 + b"12", 408),
    ],
)
def test_the_connection_of_a_half_sent_http_request_is_closed_in_time(
    runner: LoopThread, begun: bytes, status: int | None
) -> None:
    async def test() -> None:
        async with serving(head_seconds=0.2, body_seconds=0.2) as connect:
            reader, writer = await connect()
            writer.write(begun)
            said = await all_of(reader)

            assert said.startswith(b"HTTP/1.1 %d " % status) if status else said == b""

    run(runner, test)


@pytest.mark.far
def test_the_connections_of_nine_hundred_half_sent_http_requests_are_closed_in_time(runner: LoopThread) -> None:
    async def test() -> None:
        async with serving(head_seconds=0.5, trusted=[ip_network("127.0.0.0/8")]) as connect:
            half = [await connect() for _ in range(900)]
            for _, writer in half:
                writer.write(HEAD)
            answers = await asyncio.gather(*(all_of(reader) for reader, _ in half))

            assert all(said == b"" or b" 408 " in said for said in answers)

    run(runner, test)


@pytest.mark.parametrize("begun", [HEAD + b"x-one: ", POST % 100_000])
def test_a_client_that_sends_its_http_request_too_slowly_is_disconnected(runner: LoopThread, begun: bytes) -> None:
    async def test() -> None:
        async with serving(head_seconds=0.5, body_seconds=0.5, body_bytes=100) as connect:
            reader, writer = await connect()
            writer.write(begun)

            async def drip() -> None:
                while True:
                    await asyncio.sleep(0.05)
                    writer.write(b"a")

            dripping = asyncio.create_task(drip())
            said = await all_of(reader)
            dripping.cancel()

            assert said == b"" or said.startswith(b"HTTP/1.1 408 ")

    run(runner, test)


@pytest.mark.far
def test_a_slow_but_steady_upload_succeeds(runner: LoopThread) -> None:
    async def test() -> None:
        async with serving(head_seconds=2, body_seconds=2, body_bytes=50) as connect:
            reader, writer = await connect()
            writer.write(POST % 600)
            for _ in range(6):
                writer.write(b"a" * 100)
                await asyncio.sleep(0.5)
            said = await reader.readuntil(b"0\r\n\r\n")

            assert said.startswith(b"HTTP/1.1 200 ")
            assert b"600" in said

    run(runner, test)


@pytest.mark.far
def test_a_server_that_reads_the_body_late_does_not_time_out_the_client(runner: LoopThread) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(1)
        await reading(scope, receive, send)

    async def test() -> None:
        async with serving(late, head_seconds=0.2, body_seconds=0.2) as connect:
            reader, writer = await connect()
            writer.write(POST % (4 * MIB) + b"a" * 4 * MIB)
            said = await reader.readuntil(b"0\r\n\r\n")

            assert said.startswith(b"HTTP/1.1 200 ")
            assert b"%d" % (4 * MIB) in said

    run(runner, test)


@pytest.mark.far
def test_a_live_stream_outlasts_the_request_time_limit(runner: LoopThread) -> None:
    async def test() -> None:
        async with serving(streaming, head_seconds=0.2, body_seconds=0.2, unread_seconds=0.2) as connect:
            reader, writer = await connect()
            writer.write(HEAD + b"\r\n")

            assert b"data: end" in await reader.readuntil(b"data: end\n\n")

    run(runner, test)


def test_a_client_that_never_reads_the_answer_is_dropped(runner: LoopThread) -> None:
    async def test() -> None:
        async with serving(pouring, unread_seconds=0.3) as connect:
            reader, writer = await connect()
            writer.write(HEAD + b"\r\n")
            await reader.readexactly(1)
            while not writer.transport.is_closing():
                # It is noticed by writing: what was answered stays unread.
                writer.write(b"\r\n")
                await asyncio.sleep(0.05)

    run(runner, test)


def test_connections_are_limited_by_ip_address_except_for_trusted_proxies(runner: LoopThread) -> None:
    async def test() -> None:
        async with serving(per_address=3) as connect:
            held = [await connect() for _ in range(3)]
            refused = await connect()
            assert b"too-many-connections" in await all_of(refused[0])
            held[0][1].close()
            await asyncio.sleep(0.1)
            reader, writer = await connect()
            writer.write(HEAD + b"\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        async with serving(per_address=3, trusted=[ip_network("127.0.0.1/32")]) as connect:
            for reader, writer in [await connect() for _ in range(20)]:
                writer.write(HEAD + b"\r\n")
                assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")

    run(runner, test)


class ForeignTransport(asyncio.Transport):
    """A connection from an address that this machine does not have."""

    def __init__(self, host: str) -> None:
        super().__init__({"peername": (host, 40000), "sockname": ("::", 8000)})
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send nothing."""

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


def test_addresses_of_an_ipv6_network_share_one_connection_limit(runner: LoopThread) -> None:
    async def test() -> None:
        config = uvicorn.Config(reading, ws="none", lifespan="off", log_config=None)
        config.load()
        kind, state, lines = bounded(ClientBounds(per_address=3)), ServerState(), list[ForeignTransport]()
        for host in ("2001:db8::1", "2001:db8::2", "2001:db8::ffff:1", "2001:db8::3", "2001:db8:0:1::1"):
            lines.append(ForeignTransport(host))
            kind(config, state, {}).connection_made(lines[-1])

        assert [line.is_closed for line in lines] == [False, False, False, True, False]

    run(runner, test)


def test_pipelined_http_requests_are_answered_in_order_up_to_a_limit(runner: LoopThread) -> None:
    async def test() -> None:
        async with serving() as connect:
            reader, writer = await connect()
            writer.write((HEAD + b"\r\n") * 10)
            for _ in range(10):
                assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            writer.write((HEAD + b"\r\n") * 1000)
            assert (await all_of(reader)).count(b"HTTP/1.1 200 ") < 30

    run(runner, test)


@pytest.mark.far
def test_each_http_request_on_a_connection_has_its_own_time_limit(runner: LoopThread) -> None:
    async def test() -> None:
        async with serving(head_seconds=2, body_seconds=2) as connect:
            reader, writer = await connect()
            for _ in range(6):
                writer.write(POST % 2)
                await asyncio.sleep(0.5)
                writer.write(b"ab")
                assert (await reader.readuntil(b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")

    run(runner, test)


@pytest.mark.far
@pytest.mark.parametrize("path", ["/v1/requests", "/audit-log/verify"])
def test_a_client_that_hangs_up_causes_no_error(
    portal: Portal, path: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    browser = portal.by_mail("aude")
    head = (
        f"POST {path} HTTP/1.1\r\nhost: lockbox.test\r\ncookie: {SESSION}={browser.session}\r\n"
        f"origin: {portal.settings.origin}\r\nsec-fetch-site: same-origin\r\n"
        "content-type: multipart/form-data; boundary=x\r\ncontent-length: 100000\r\n\r\n"
        '--x\r\ncontent-disposition: form-data; name="export"; filename="a"\r\n\r\n'
    )

    async def test() -> None:
        async with serving(make_app(portal.settings, portal.db)) as connect:
            _, writer = await connect()
            writer.write(head.encode() + b"a" * 70_000)
            await writer.drain()
            await asyncio.sleep(0.5)
            writer.transport.abort()
            await asyncio.sleep(0.5)
            reader, writer = await connect()
            writer.write(b"GET /livez HTTP/1.1\r\nhost: lockbox.test\r\n\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")

    with caplog.at_level(logging.INFO):
        run(portal.runner, test)

    said = caplog.text + "".join(capfd.readouterr())
    assert "Traceback" not in said
    assert "api.failed" not in said


def test_a_pipelining_client_that_hangs_up_leaves_no_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """It runs on the event loop of servers, which refuses to write to a closed connection."""

    async def test() -> None:
        async with serving(streaming) as connect:
            for behind in (b"", POST % 100 + b"abc", b"GET / HT"):
                _, writer = await connect()
                writer.write((HEAD + b"\r\n") * 4 + behind)
                await asyncio.sleep(0.15)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
                writer.transport.abort()
            await asyncio.sleep(1.2)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as looped:
        looped.run(asyncio.wait_for(test(), LIVENESS_SECONDS))

    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
