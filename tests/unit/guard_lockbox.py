"""A small Lockbox for the guard, over real connections: its change stream and its answers to checks."""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

from lockbox_guard import Guard, Refused
from lockbox_guard.database_clock import BOOT_CLOCK

TOKEN = "lbx_test_guard"
SERVICE = "exchange-online"
ERIN = UUID("0190f0e0-0000-7000-8000-0000000000e1")
ANNA = "mailbox:anna@contoso.example"
USE: dict[str, str] = {"tenant": "contoso", "resource": ANNA, "action": "read"}
END: dict[str, Any] = {}
HEARTBEAT_SECONDS = 0.2
HANGS = 6.0
TAKEN = 201
PATIENCE = 20.0
LIMITS = {
    "database_clock.QUIET_SECONDS": 600.0,
    "guard.ANSWER_SECONDS": 60.0,
    "remote.ASK_SECONDS": PATIENCE,
    "running_guard.LAST_SECONDS": PATIENCE,
    "running_guard.START_SECONDS": PATIENCE,
    "stream_reader.SILENCE_SECONDS": PATIENCE,
}
"""The guard's time limits on a busy machine. A test of one of these sets it itself."""


def instant(at: float) -> str:
    """Return seconds since 1970 as Lockbox writes them."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def window(request: UUID | None = None, seconds: float = 3600, **facts: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "request": str(request or uuid4()),
        "tenant": "contoso",
        "service": SERVICE,
        "engineer": str(ERIN),
    }
    said |= {"resources": [ANNA], "actions": ["read"], "until": instant(time.time() + seconds)}
    return said | facts


class MovedSeconds:
    """The guard's clock, which a test sets `ahead`."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return BOOT_CLOCK() + self.ahead


class CrowdServer(ThreadingHTTPServer):
    """Takes many connections at once."""

    daemon_threads = True
    request_queue_size = 128


class SmallLockbox:
    """Sends each stream a snapshot, then changes and heartbeats; `is_fresh` False leaves the heartbeats out.

    `ahead` is by how many seconds the database's clock is ahead of this machine's; `begin` is called before a
    requested stream begins.
    """

    def __init__(self) -> None:
        self.windows: dict[str, dict[str, Any]] = {}
        self.engineers: dict[str, dict[str, Any]] = {}
        self.open_by_check: dict[str, dict[str, str]] = {}
        self.reasons: dict[str, str] = {}
        self.how = "as asked"
        self.generation = "g1"
        self.counter = 0
        self.is_fresh = True
        self.ahead = 0.0
        self.begin: Callable[[], object] = lambda: None
        self.part = 500
        self.refuse_stream: int | None = None
        self.takes = TAKEN
        self.reported: list[tuple[str, list[dict[str, Any]], dict[str, str]]] = []
        self.used: list[tuple[str, dict[str, Any]]] = []
        self.asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []
        self.began: list[dict[str, str]] = []
        self.streams: list[queue.SimpleQueue[bytes | None]] = []
        fake = self

        class SmallLockboxHandler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                fake.answer(self, headers)

            def do_POST(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = json.loads(self.rfile.read(int(headers["content-length"])))
                assert all(body.values()), "Lockbox refuses empty lists"
                fake.reported.append((self.path, body.get("entries", []), headers))
                fake.used += [(self.path, one) for one in body.get("uses", [])] if fake.takes == TAKEN else []
                fake.reply(self, fake.takes, {}, b"{}")

            def handle(self) -> None:
                with suppress(OSError):
                    super().handle()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = CrowdServer(("127.0.0.1", 0), SmallLockboxHandler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def now(self) -> str:
        return instant(time.time() + self.ahead)

    def close(self) -> None:
        self.cut()
        self.server.shutdown()
        self.server.server_close()

    def cut(self) -> None:
        for stream in self.streams:
            stream.put(None)
        self.streams.clear()

    def event(self, kind: str, data: Any) -> bytes:
        self.counter += 1
        return f"event: {kind}\nid: {self.generation}-{self.counter}\ndata: {json.dumps(data)}\n\n".encode()

    def send(self, kind: str, data: Any) -> None:
        written = self.event(kind, data)
        for stream in self.streams:
            stream.put(written)

    def open(self, said: dict[str, Any]) -> UUID:
        self.windows[said["request"]] = said
        self.send("open", said)
        return UUID(said["request"])

    def shut(self, request: UUID) -> None:
        del self.windows[str(request)]
        self.send("close", {"request": str(request)})

    def answer(self, handler: BaseHTTPRequestHandler, headers: dict[str, str]) -> None:
        address = urlsplit(handler.path)
        if headers.get("lockbox-gateway") != TOKEN:
            self.reply(handler, 401, {"lockbox-reason": "no_credential"})
        elif address.path == "/gate/v1/stream":
            self.began.append(headers)
            self.stream(handler)
        else:
            self.asked.append((address.path, parse_qs(address.query, keep_blank_values=True), headers))
            getattr(self, f"answer_{self.how.replace(' ', '_')}")(handler, address.path, headers)

    def stream(self, handler: BaseHTTPRequestHandler) -> None:
        """Send the stream until it is cut."""
        self.begin()
        if self.refuse_stream:
            self.reply(handler, self.refuse_stream, {"lockbox-reason": "busy"})
            return
        handler.send_response(200)
        handler.send_header("content-type", "text/event-stream")
        handler.send_header("connection", "close")
        handler.end_headers()
        waiting = queue.SimpleQueue[bytes | None]()
        found = list(self.windows.values())
        parts = [found[at : at + self.part] for at in range(0, len(found), self.part)] or [[]]
        for number, part in enumerate(parts, 1):
            said = {"at": self.now(), "windows": part, "more": number < len(parts)}
            waiting.put(self.event("snapshot", said))
        self.streams.append(waiting)
        with suppress(OSError):
            while True:
                try:
                    written = waiting.get(timeout=HEARTBEAT_SECONDS)
                except queue.Empty:
                    written = self.event("heartbeat", {"at": self.now()}) if self.is_fresh else b": idle\n\n"
                if written is None:
                    break
                handler.wfile.write(written)
        handler.close_connection = True

    @staticmethod
    def reply(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def answer_as_asked(self, handler: BaseHTTPRequestHandler, path: str, headers: dict[str, str]) -> None:
        shown = headers.get("authorization") or headers.get("x-engineer") or ""
        if path.endswith("/engineer"):
            said = self.engineers.get(shown)
            if said is None:
                self.no(handler, "bad_token", 401)
            elif "reason" in said:
                self.no(handler, said["reason"], 403)
            else:
                self.reply(handler, 200, {}, json.dumps(said).encode())
            return
        named = "".join(parse_qs(urlsplit(handler.path).query).get("engineer", []))
        yes = self.open_by_check.get(shown or named)
        if yes:
            self.reply(handler, 200, {"lockbox-at": self.now(), **yes})
        else:
            self.no(handler, self.reasons.get(named, "no_window"), 403)

    def no(self, handler: BaseHTTPRequestHandler, reason: str, status: int) -> None:
        form = "https://lockbox.example/ask?tenant=contoso"
        body = json.dumps({"code": reason, "detail": f"Because {reason}.", "request_form": form}).encode()
        self.reply(handler, status, {"lockbox-reason": reason, "content-type": "application/problem+json"}, body)

    def answer_broken(self, handler: BaseHTTPRequestHandler, _path: str, _headers: dict[str, str]) -> None:
        self.reply(handler, 500, {}, b"{}")

    def answer_welcome_page(self, handler: BaseHTTPRequestHandler, _path: str, _headers: dict[str, str]) -> None:
        self.reply(handler, 200, {"content-type": "text/html"}, b"<h1>It works!</h1>")

    def answer_elsewhere(self, handler: BaseHTTPRequestHandler, _path: str, _headers: dict[str, str]) -> None:
        self.reply(handler, 307, {"location": f"{self.url}/yes"})

    def answer_hang_up(self, handler: BaseHTTPRequestHandler, _path: str, _headers: dict[str, str]) -> None:
        handler.close_connection = True

    def answer_late(self, handler: BaseHTTPRequestHandler, _path: str, _headers: dict[str, str]) -> None:
        time.sleep(HANGS)
        handler.close_connection = True

    def answer_drip(self, handler: BaseHTTPRequestHandler, _path: str, _headers: dict[str, str]) -> None:
        with suppress(OSError):
            for byte in b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}":
                handler.wfile.write(bytes([byte]))
                time.sleep(HANGS / 40)

    def knows(self, token: str, engineer: UUID = ERIN, seconds: float = 60) -> str:
        until = instant(time.time() + self.ahead + seconds)
        self.engineers[f"Bearer {token}"] = {"engineer": str(engineer), "until": until}
        return token

    def says_yes(self, shown: str, **about: str) -> dict[str, str]:
        said = {"decision": "allow", "request": str(uuid4()), "engineer": str(ERIN), "service": SERVICE, **USE}
        said |= {"until": instant(time.time() + 3600), **about}
        self.open_by_check[shown] = {f"lockbox-{name}": value for name, value in said.items()}
        return said


@contextmanager
def guard_of(lockbox: SmallLockbox, monkeypatch: Any, **more: Any) -> Iterator[Guard]:
    monkeypatch.setenv("LOCKBOX_GUARD_TOKEN", TOKEN)
    for limit, seconds in LIMITS.items():
        monkeypatch.setattr(f"lockbox_guard.{limit}", seconds)
    guard = Guard(lockbox.url, service=SERVICE, **more)
    yield guard
    guard.stop()


def reason(guard: Guard, **who: str | UUID) -> str | None:
    """Return why the guard refuses; None if it allows."""
    try:
        guard.check(**USE, **who)  # type: ignore[arg-type]
    except Refused as refused:
        return refused.reason
    return None


def wait_until(guard: Guard, wanted: str | None, seconds: float = PATIENCE, **who: str | UUID) -> float:
    """Wait until the guard gives the wanted answer, and return how long that took."""
    began = time.monotonic()
    while reason(guard, **who) != wanted:
        assert time.monotonic() < began + seconds, reason(guard, **who)
        time.sleep(0.01)
    return time.monotonic() - began
