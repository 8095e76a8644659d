"""Sinks: a mail relay and a webhook receiver on loopback, which take, remember and misbehave as they are asked to."""

import contextlib
import email
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO

PATIENCE = 20.0


@dataclass
class MailRelay:
    """How it behaves, and what it took. `hangs_at` and `drips_at` are verbs, or GREETING, or BODY for after DATA.

    `answers` are by recipient or domain, in place of 250; `cuts` is "before" or "after" it has said 250 to a mail.
    """

    port: int = 0
    greeting: str = "220 relay.example ESMTP"
    greets_after: float = 0.0
    hangs_at: str = ""
    hangs_for: str = ""
    drips_at: str = ""
    answers: dict[str, str] = field(default_factory=dict)
    to_body: str = "250 taken"
    cuts: str = ""
    tls: ssl.SSLContext | None = None
    tls_at_once: bool = False
    taken: list[tuple[str, bytes]] = field(default_factory=list)
    callers: int = 0
    stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def message_ids(self) -> list[str]:
        """The Message-ID of each mail that was taken, in order."""
        return [str(email.message_from_bytes(raw)["Message-ID"]) for _, raw in self.taken]

    def serve(self, line: socket.socket) -> None:
        """Talk to one caller until the end."""
        self.callers += 1
        with contextlib.suppress(OSError, ValueError), line:
            at_once = self.tls.wrap_socket(line, server_side=True) if self.tls_at_once and self.tls else line
            talk = _Talk(self, at_once)
            try:
                talk.hold()
            finally:
                talk.file.close()
                talk.line.close()


class _Talk:
    """One connection."""

    def __init__(self, relay: MailRelay, line: socket.socket) -> None:
        self.relay = relay
        self.line = line
        self.file: BinaryIO = line.makefile("rb")
        self.recipient = ""

    def hold(self) -> None:
        if self.relay.stopped.wait(self.relay.greets_after):
            return
        self.say(self.relay.greeting, "GREETING")
        while heard := self.file.readline():
            verb, _, rest = heard.decode().strip().partition(" ")
            if not self.answer(verb.upper(), rest):
                return

    def answer(self, verb: str, rest: str) -> bool:
        if verb == "QUIT":
            return False
        if verb == "EHLO":
            offers = ["250-relay.example", "250-STARTTLS"] if self.offers_tls() else ["250-relay.example"]
            self.say("\r\n".join([*offers, "250 8BITMIME"]), verb)
        elif verb == "STARTTLS" and self.relay.tls:
            self.say("220 go ahead", verb)
            self.file.close()
            self.line = self.relay.tls.wrap_socket(self.line, server_side=True)
            self.file = self.line.makefile("rb")
        elif verb == "RCPT":
            self.recipient = rest.partition("<")[2].partition(">")[0]
            self.say(self.to_recipient(), verb)
        elif verb == "DATA":
            self.say("354 go on", verb)
            return self.take()
        else:
            self.say("250 fine", verb)
        return True

    def offers_tls(self) -> bool:
        return bool(self.relay.tls) and not self.relay.tls_at_once and not isinstance(self.line, ssl.SSLSocket)

    def to_recipient(self) -> str:
        domain = self.recipient.rpartition("@")[2]
        if self.relay.hangs_for and domain == self.relay.hangs_for:
            self.relay.stopped.wait(PATIENCE)
        return self.relay.answers.get(self.recipient) or self.relay.answers.get(domain) or "250 fine"

    def take(self) -> bool:
        body = b""
        while (line := self.file.readline()) and line != b".\r\n":
            body += line
        if self.relay.to_body.startswith("250"):
            self.relay.taken.append((self.recipient, body))
        if self.relay.cuts == "before":
            return False
        self.say(self.relay.to_body, "BODY")
        return self.relay.cuts != "after"

    def say(self, words: str, after: str) -> None:
        if self.relay.hangs_at == after:
            self.relay.stopped.wait(PATIENCE)
        said = words.encode() + b"\r\n"
        if self.relay.drips_at == after:
            for byte in said * 100:
                if self.relay.stopped.wait(0.05):
                    return
                self.line.sendall(bytes([byte]) if byte not in b"\r\n" else b"x")
        self.line.sendall(said)


@contextmanager
def relaying(**behaviour: object) -> Iterator[MailRelay]:
    """Run a relay on a port of its own until the end of the block."""
    relay = MailRelay(**behaviour)  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    relay.port = listener.getsockname()[1]

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                line, _ = listener.accept()
                threading.Thread(target=relay.serve, args=(line,), name="relay-caller", daemon=True).start()

    thread = threading.Thread(target=accept, name="relay", daemon=True)
    thread.start()
    try:
        yield relay
    finally:
        relay.stopped.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE)


@dataclass(frozen=True)
class ScriptedAnswer:
    """How to answer: by default with the truth. `drops` go on one at a time, without an end or before the rest."""

    status: int = 200
    body: bytes | None = None
    padding: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    is_held: bool = False
    drops: bytes = b""


class PatientServer(ThreadingHTTPServer):
    """Threads that are waited for, and callers who hang up in the middle are no news."""

    daemon_threads = False

    def handle_error(self, *_: object) -> None:
        """Say nothing: a caller who hangs up is what some tests are about."""


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
    server = PatientServer(("127.0.0.1", 0), handler)
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
