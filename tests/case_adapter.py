"""The adapter of a ticket system for tests: it verifies each question and signs each answer."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sqlalchemy import text
from standardwebhooks import Webhook

from catalogue.service_catalogue import CaseSystem
from devstack.stack import CHECKOUT
from harness.stage import as_sender, unbound
from lockbox.database import Database
from lockbox.notifications.endpoints import new_secret
from lockbox.requests import case_check
from lockbox.requests.case_check import CaseAdapters

CATALOGUE = CHECKOUT / "catalogue" / "catalogue.yaml"
ADDRESS = "    address: https://helpdesk.vendor.example/\n"
SECRET = new_secret()
OPEN = {"open": True, "assigned": True}
UNANSWERED = text("SELECT id FROM case_checks WHERE answered_at IS NULL AND asked_at > :since")
NOW = text("SELECT clock_timestamp()")


class CaseAdapterServer(ThreadingHTTPServer):
    """Answers with `says`, signed with the secret `signs`, as soon as `goes_on` is set."""

    says: dict[str, Any] = OPEN
    signs: str = SECRET

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.asked: list[dict[str, Any]] = []
        self.goes_on = threading.Event()
        self.goes_on.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/lockbox"


class _Answers(BaseHTTPRequestHandler):
    server: CaseAdapterServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append(Webhook(SECRET).verify(body, dict(self.headers)))
        self.server.goes_on.wait(20)
        said, number, at = json.dumps(self.server.says), self.headers["webhook-id"], datetime.now(UTC)
        self.send_response(200)
        self.send_header("webhook-id", number)
        self.send_header("webhook-timestamp", str(int(at.timestamp())))
        self.send_header("webhook-signature", Webhook(self.server.signs).sign(number, at, said))
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        with suppress(BrokenPipeError):
            self.wfile.write(said.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def case_adapter() -> Iterator[CaseAdapterServer]:
    with CaseAdapterServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.goes_on.set()
            server.shutdown()
            thread.join()


def system_at(url: str | None) -> CaseSystem:
    return CaseSystem(title="Helpdesk", address="https://helpdesk.vendor.example/", adapter=url)


def catalogue_at(url: str, folder: Path) -> Path:
    """Write the usual catalogue, with this adapter for its ticket system, and return the file."""
    text = CATALOGUE.read_text()
    assert ADDRESS in text
    file = folder / "catalogue.yaml"
    file.write_text(text.replace(ADDRESS, f"{ADDRESS}    adapter: {url}\n"))
    return file


def adapters_of(url: str | None) -> CaseAdapters:
    """Return the adapters of a notifications worker that knows one ticket system."""
    return CaseAdapters({"helpdesk": system_at(url)}, SECRET, allow_http=True)


@contextmanager
def answering(db: Database, url: str | None) -> Iterator[None]:
    """Answer case checks in this process, as the notifications worker does, but without a schedule or a broker."""
    stopped, sender, adapters = threading.Event(), as_sender(db), adapters_of(url)
    with unbound(db).connect() as connection:
        since = connection.execute(NOW).scalar_one()

    def answer() -> None:
        while not stopped.wait(0.01):
            with unbound(db).connect() as connection:
                ids = connection.execute(UNANSWERED, {"since": since}).scalars().all()
            for one in ids:
                case_check.run(sender, one, adapters)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
