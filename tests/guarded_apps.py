"""Small services behind the guard, reached over real connections: pages, streams, uploads and websockets."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from wsgiref.simple_server import WSGIRequestHandler, make_server

import uvicorn
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from lockbox_guard import AsgiGuard, Guard, GuardedCall, WsgiGuard
from lockbox_guard.asgi import Scope
from wsproto import ConnectionType, WSConnection
from wsproto.connection import Connection
from wsproto.events import CloseConnection
from wsproto.events import Request as Handshake

from harness.ports import wait_until_listening

PIECE = b"a piece of the customer's data\n"
PIECE_SECONDS = 0.05
PATIENCE = 20.0
PREFIX = "/mailboxes/"


class GuardedService:
    """A service behind a guard, which counts what reached it."""

    def __init__(
        self, guard: Guard, tenant: str = "contoso", *, subject: str | None = None, drain_seconds: float = 0.0
    ) -> None:
        self.received = 0
        self.pieces = 0
        self.tenant = tenant
        self.subject = subject
        self.app = AsgiGuard(self._routes(), guard, self.call, drain_seconds=drain_seconds)

    async def call(self, scope: Scope) -> GuardedCall:
        """Return what a call uses; a real service would look the tenant up in its database."""
        await asyncio.sleep(0)
        address = {"/mailboxes/anna": "anna@contoso.example"}[scope["path"].removesuffix("/live")]
        return GuardedCall(self.tenant, f"mailbox:{address}", "read", subject=self.subject)

    def _routes(self) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.get("/mailboxes/anna")
        async def mailbox(request: Request) -> JSONResponse:
            return JSONResponse({"request": str(request.scope["lockbox"].request)})

        @app.get("/mailboxes/anna/live")
        async def live() -> StreamingResponse:
            return StreamingResponse(self._pieces(), media_type="text/plain")

        @app.post("/mailboxes/anna")
        async def upload(request: Request) -> JSONResponse:
            async for piece in request.stream():
                self.received += len(piece)
            return JSONResponse({"received": self.received})

        @app.websocket("/mailboxes/anna/live")
        async def talk(socket: WebSocket) -> None:
            await socket.accept()
            while True:
                await socket.send_bytes(PIECE)
                self.pieces += 1
                await asyncio.sleep(PIECE_SECONDS)

        return app

    async def _pieces(self) -> AsyncIterator[bytes]:
        while True:
            yield PIECE
            self.pieces += 1
            await asyncio.sleep(PIECE_SECONDS)


@contextmanager
def served(service: GuardedService) -> Iterator[int]:
    """Serve it with uvicorn in a thread, and yield its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        service.app, ws="wsproto", log_config=None, access_log=False, timeout_graceful_shutdown=1, lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    port: int = listener.getsockname()[1]
    wait_until_listening(port)
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


class QuietHandler(WSGIRequestHandler):
    """Says nothing."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def served_wsgi(
    guard: Guard, subject: str | None = None, *, tenant: str = "contoso", seconds: float = PIECE_SECONDS
) -> Iterator[int]:
    """Serve a WSGI service behind a guard in a thread, and yield its port; it streams a piece every `seconds`."""

    def call(environ: dict[str, object]) -> GuardedCall:
        address = {"/mailboxes/anna": "anna@contoso.example"}[str(environ["PATH_INFO"]).removesuffix("/live")]
        return GuardedCall(tenant, f"mailbox:{address}", "read", subject=subject)

    def app(environ: dict[str, object], start_response: object) -> Iterable[bytes]:
        assert callable(start_response)
        if environ["REQUEST_METHOD"] == "POST":
            body, left, count = environ["wsgi.input"], int(str(environ["CONTENT_LENGTH"])), 0
            while count < left:
                count += len(body.read(1))  # type: ignore[attr-defined]
            start_response("200 OK", [("content-type", "text/plain")])
            return [str(count).encode()]
        start_response("200 OK", [("content-type", "text/plain")])
        return pieces() if str(environ["PATH_INFO"]).endswith("/live") else [b"hello"]

    def pieces() -> Iterator[bytes]:
        while True:
            yield PIECE
            time.sleep(seconds)

    server = make_server("127.0.0.1", 0, WsgiGuard(app, guard, call), handler_class=QuietHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join(PATIENCE)
    server.server_close()


class OpenCall:
    """A long call over its own connection; `ended_at` is set when the service ends the call."""

    def __init__(self, port: int, head: str) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        self.read = b""
        self.ended_at: float | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := self.connection.recv(65_536):
                self.read += data
        except OSError:
            pass
        self.ended_at = time.monotonic()
        self.connection.close()

    def wait_for(self, text: bytes, seconds: float = PATIENCE) -> None:
        """Wait until this text was read."""
        until = time.monotonic() + seconds
        while text not in self.read:
            assert time.monotonic() < until, self.read
            time.sleep(0.01)

    def wait_for_end(self, seconds: float = PATIENCE) -> float:
        self._reader.join(seconds)
        assert self.ended_at is not None, self.read[-200:]
        return self.ended_at

    def close(self) -> None:
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        self._reader.join(PATIENCE)


def get(port: int, path: str, *headers: str, method: str = "GET") -> OpenCall:
    lines = [f"{method} {path} HTTP/1.1", "Host: service", *headers]
    return OpenCall(port, "\n".join(lines))


def send_slowly(call: OpenCall, seconds: float = PATIENCE) -> None:
    """Send a body piece by piece until the service accepts no more."""

    def send() -> None:
        until = time.monotonic() + seconds
        try:
            while call.ended_at is None and time.monotonic() < until:
                call.connection.sendall(b"%x\r\n%s\r\n" % (len(PIECE), PIECE))
                time.sleep(PIECE_SECONDS)
        except OSError:
            pass

    threading.Thread(target=send, daemon=True).start()


def websocket(port: int, path: str, *headers: str) -> OpenCall:
    client = WSConnection(ConnectionType.CLIENT)
    extra = [tuple(header.encode().split(b": ", 1)) for header in headers]
    head = client.send(Handshake(host="service", target=path, extra_headers=extra))  # type: ignore[arg-type]
    return OpenCall(port, head.decode().replace("\r\n", "\n").removesuffix("\n\n"))


def end_of(call: OpenCall) -> int:
    """Return the code with which a websocket was closed, or the status by which it was refused."""
    head, _, rest = call.read.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101"):
        return int(head.split(b" ")[1])
    frames = Connection(ConnectionType.CLIENT)
    frames.receive_data(rest)
    codes = [event.code for event in frames.events() if isinstance(event, CloseConnection)]
    assert len(codes) == 1, codes
    return int(codes[0])
