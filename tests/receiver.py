"""A real webhook receiver on loopback, which answers as a test asks for and remembers what it was sent."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from tests.oidc_issuer import IssuerServer, ScriptedAnswer


@dataclass(frozen=True)
class Call:
    """One call that came: where to, its headers in small letters, and the body."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class WebhookReceiver:
    """What it answers next, the last of it again and again; no answer at all is 204."""

    url: str
    answers: list[ScriptedAnswer] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def take(self, call: Call) -> ScriptedAnswer:
        """Note a call and say how to answer it."""
        self.calls.append(call)
        if not self.answers:
            return ScriptedAnswer(status=204, body=b"")
        return self.answers[min(len(self.calls), len(self.answers)) - 1]


class ReceiverHandler(BaseHTTPRequestHandler):
    """HTTP/1.0, so that no connection outlives its answer."""

    receiver: WebhookReceiver

    def do_POST(self) -> None:
        """Take a call."""
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        how = self.receiver.take(Call(self.path, headers, body))
        if how.is_held:
            self.receiver.stopped.wait(20)
            return
        if how.status:
            self.send_response(how.status)
            for name, value in how.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self._pour(how)
        for number in range(10_000 if how.drops else 0):
            if self.receiver.stopped.wait(0.02):
                return
            self.wfile.write(how.drops[number % len(how.drops) :][:1])

    def do_GET(self) -> None:
        """Note that somebody followed a redirect."""
        self.receiver.calls.append(Call(self.path, {}, b""))
        self.send_response(200)
        self.end_headers()

    def _pour(self, how: ScriptedAnswer) -> None:
        self.wfile.write(how.body or b"")
        for _ in range(how.padding // 65536):
            self.wfile.write(b"x" * 65536)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def receiving(*, name: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[WebhookReceiver]:
    """Run a receiver on a port of its own until the end of the block; with a context, over TLS."""
    handler = type("OwnHandler", (ReceiverHandler,), {})
    server = IssuerServer(("127.0.0.1", 0), handler)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    receiver = WebhookReceiver(f"{'https' if tls else 'http'}://{name}:{server.server_port}/hook")
    handler.receiver = receiver  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.002}, name="receiver")
    thread.start()
    try:
        yield receiver
    finally:
        receiver.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
