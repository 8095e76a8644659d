"""The sample service that checks access itself, over HTTP: whatever Lockbox answers or not, in doubt it refuses."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

import httpx
import pytest

from harness.ports import own_port

GUARD = Path(__file__).parents[2] / "deploy" / "examples" / "checked.py"
TOKEN = "lbx_test_gate"
END = {"open": True, "request_id": "r", "deadline_at": "2026-01-01T00:00:00Z"}
HANGS = 6.0


class FakeLockbox:
    """An upstream that answers the next access check as the test says, and records each check."""

    def __init__(self) -> None:
        self.how = "yes"
        self.about: dict[str, str] = {}
        self.asked: list[tuple[str, dict[str, list[str]], str | None]] = []
        self.takes = 201
        self.reported: list[tuple[str, list[dict[str, str]], str | None]] = []
        fake = self

        class FakeLockboxHandler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                address = urlsplit(self.path)
                fake.about = dict(parse_qsl(address.query, keep_blank_values=True))
                fake.asked.append((address.path, parse_qs(address.query), self.headers.get("authorization")))
                getattr(fake, f"answer_{fake.how.replace(' ', '_')}")(self)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                fake.reported.append((self.path, json.loads(body)["entries"], self.headers.get("authorization")))
                fake.send(self, fake.takes, b"{}")

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), FakeLockboxHandler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def yes(self) -> bytes:
        return json.dumps(END | self.about).encode()

    @staticmethod
    def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
        handler.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def answer_yes(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 200, self.yes)

    def answer_about_another(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 200, json.dumps(END | self.about | {"resource": "mailbox:ceo@contoso.example"}).encode())

    def answer_about_nothing(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 200, json.dumps(END).encode())

    def answer_no(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 403, json.dumps({"code": "no-open-window"}).encode())

    def answer_broken(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 500, self.yes)

    def answer_created(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 201, self.yes)

    def answer_elsewhere(self, handler: BaseHTTPRequestHandler) -> None:
        self.how = "yes"
        self.send(handler, 307, b"", location=f"{self.url}/yes")

    def answer_welcome_page(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 200, b"<h1>It works!</h1>")

    def answer_not_open(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 200, b'{"open": false}')

    def answer_garbage(self, handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\x00\xff come in, 200 OK\r\n\r\n")

    def answer_half(self, handler: BaseHTTPRequestHandler) -> None:
        self.send(handler, 200, self.yes[:20], **{"content-length": str(len(self.yes))})

    def answer_hang_up(self, handler: BaseHTTPRequestHandler) -> None:
        handler.connection.shutdown(socket.SHUT_RDWR)

    def answer_late(self, handler: BaseHTTPRequestHandler) -> None:
        time.sleep(HANGS)
        self.drip(handler, b"")

    def answer_drip(self, handler: BaseHTTPRequestHandler) -> None:
        self.drip(handler, f"HTTP/1.1 200 OK\r\ncontent-length: {len(self.yes)}\r\n\r\n".encode() + self.yes)

    @staticmethod
    def drip(handler: BaseHTTPRequestHandler, answer: bytes) -> None:
        for byte in answer:
            try:
                handler.wfile.write(bytes([byte]))
            except OSError:
                return
            time.sleep(HANGS / len(answer))


@pytest.fixture(scope="module")
def lockbox() -> Iterator[FakeLockbox]:
    fake = FakeLockbox()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture(scope="module")
def guard(lockbox: FakeLockbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The guarded service as a process; its address."""
    token = tmp_path_factory.mktemp("gate") / "token"
    token.write_text(f"{TOKEN}\n")
    port = own_port()
    about = ["--lockbox", lockbox.url, "--tenant", "contoso", "--token-file", str(token), "--port", str(port)]
    process = subprocess.Popen([sys.executable, str(GUARD), *about])
    url = f"http://127.0.0.1:{port}"
    wait_until_it_answers(url, process)
    yield url
    process.terminate()
    process.wait(10)


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until and process.poll() is None:
        try:
            httpx.get(f"{url}/mailboxes/nobody", trust_env=False)
        except httpx.HTTPError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the guarded service did not come up")


def ask(guard: str, address: str = "anna@contoso.example", **headers: str) -> httpx.Response:
    return httpx.get(f"{guard}/mailboxes/{address}", headers=headers, timeout=10, trust_env=False)


@pytest.mark.far
def test_the_sample_guarded_service_serves_a_caller_with_an_open_window_and_forbids_caching(
    lockbox: FakeLockbox, guard: str
) -> None:
    lockbox.how = "yes"

    answer = ask(guard)

    assert answer.status_code == 200
    assert answer.json()["mailbox"] == "anna@contoso.example"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.far
def test_the_sample_service_reports_activity_before_serving(lockbox: FakeLockbox, guard: str) -> None:
    lockbox.how = "yes"
    lockbox.reported.clear()

    ask(guard)

    ((path, (entry,), shown),) = lockbox.reported
    assert path == "/v1/requests/r/activity"
    assert (entry["resource"], entry["outcome"]) == ("mailbox:anna@contoso.example", "served")
    assert shown == f"Bearer {TOKEN}"


def test_the_sample_service_refuses_a_call_whose_activity_it_cannot_report(lockbox: FakeLockbox, guard: str) -> None:
    lockbox.how, lockbox.takes = "yes", 503

    answer = ask(guard)

    lockbox.takes = 201
    assert answer.status_code == 503
    assert "customer" not in answer.text


@pytest.mark.parametrize(
    "how",
    [
        "no",
        "broken",
        "created",
        "elsewhere",
        "welcome page",
        "not open",
        "garbage",
        "half",
        "hang up",
        "about another",
        "about nothing",
    ],
)
def test_the_sample_service_refuses_unless_lockbox_clearly_allows_this_very_resource(
    lockbox: FakeLockbox, guard: str, how: str
) -> None:
    lockbox.how = how

    answer = ask(guard)

    assert answer.status_code == 403
    assert answer.headers["cache-control"] == "no-store"
    assert "customer" not in answer.text


@pytest.mark.far
@pytest.mark.parametrize("how", ["late", "drip"])
def test_the_sample_service_treats_a_slow_answer_as_a_refusal(lockbox: FakeLockbox, guard: str, how: str) -> None:
    lockbox.how = how
    began = time.monotonic()

    answer = ask(guard)

    assert answer.status_code == 403
    assert 1.9 < time.monotonic() - began < 10


@pytest.mark.far
def test_before_every_answer_the_sample_service_asks_lockbox_about_exactly_that_resource(
    lockbox: FakeLockbox, guard: str
) -> None:
    lockbox.how = "yes"
    lockbox.asked.clear()

    first = ask(guard, "a%26b%20c@contoso.example", **{"X-Engineer": "e-1"})
    lockbox.how = "no"
    second = ask(guard, "a%26b%20c@contoso.example", **{"X-Engineer": "e-1"})

    assert (first.status_code, second.status_code) == (200, 403)
    about = {
        "tenant": ["contoso"],
        "service": ["exchange-online"],
        "resource": ["mailbox:a&b c@contoso.example"],
        "action": ["read"],
        "engineer": ["e-1"],
    }
    assert lockbox.asked == [("/v1/access", about, f"Bearer {TOKEN}")] * 2


@pytest.mark.far
def test_the_sample_service_refuses_without_lockbox(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    port, nobody = own_port(), own_port()
    about = ["--lockbox", f"http://127.0.0.1:{nobody}", "--tenant", "contoso", "--token-file", str(token)]
    with subprocess.Popen([sys.executable, str(GUARD), *about, "--port", str(port)]) as process:
        try:
            wait_until_it_answers(f"http://127.0.0.1:{port}", process)

            answer = ask(f"http://127.0.0.1:{port}")

            assert answer.status_code == 403
        finally:
            process.terminate()


@pytest.mark.far
def test_the_sample_service_never_takes_a_token_from_the_command_line() -> None:
    said = subprocess.run([sys.executable, str(GUARD), "--help"], capture_output=True, text=True, check=True)

    assert "--token-file" in said.stdout
    assert "--token " not in said.stdout
