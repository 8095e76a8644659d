"""`lockbox gate probe`: what counts as refused, what as a hole, and what it never sends."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import gate_probe
from cli.app import app

TARGET = "/mailboxes/nobody"
TOKEN = "probe.probe.probe"
NO = {"Lockbox-Reason": "no_token"}


class StubGateway:
    """Answers every call with the same, but for those to some targets or with some header."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.status, self.headers = 401, dict(NO)
        self.holes: Mapping[str, int] = {}
        self.said_of_the_token = "no_window"
        outer = self

        class StubHandler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                sent = {name.lower(): value for name, value in self.headers.items()}
                outer.seen.append((self.command, self.path, sent))
                hole = next((status for one, status in outer.holes.items() if one in (self.path, *sent)), None)
                self.send_response(hole or outer.status)
                headers = dict(outer.headers)
                if headers and sent.get("authorization") == f"Bearer {TOKEN}":
                    headers = {"Lockbox-Reason": outer.said_of_the_token}
                for name, value in ({} if hole else headers).items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), StubHandler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def running() -> Iterator[StubGateway]:
    stub = StubGateway()
    threading.Thread(target=stub.server.serve_forever, args=(0.01,), daemon=True).start()
    yield stub
    stub.server.shutdown()
    stub.server.server_close()


@pytest.fixture
def gateway() -> Iterator[StubGateway]:
    with running() as stub:
        yield stub


def probe(url: str, *words: str) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["gate", "probe", url, "--target", TARGET, *words], env={"COLUMNS": "120"})


def written_token(folder: Path) -> Path:
    """Return a file with the token."""
    file = folder / "token"
    file.write_text(f"{TOKEN}\n")
    return file


def test_a_gateway_that_refuses_everything_passes(gateway: StubGateway) -> None:
    found = probe(gateway.url)

    assert found.exit_code == 0
    assert f"{len(gateway.seen)} of {len(gateway.seen)} refused." in found.stdout
    assert len(gateway.seen) > 35
    assert {method for method, _, _ in gateway.seen} == {"GET"}
    assert not any("content-length" in headers for _, _, headers in gateway.seen)


@pytest.mark.parametrize(
    ("where", "status"), [(TARGET + "/", 200), ("x-original-uri", 204), ("lockbox-decision", 302), ("/", 404)]
)
def test_one_call_that_gets_in_is_a_hole(gateway: StubGateway, where: str, status: int) -> None:
    gateway.holes = {where: status}

    found = probe(gateway.url, "--output", "json")

    shown = json.loads(found.stdout)
    assert found.exit_code == 1
    assert shown["calls"] - shown["refused"] == len(shown["holes"]) == 1
    assert shown["holes"][0]["status"] == status


def test_a_bad_request_counts_for_odd_calls_alone(gateway: StubGateway) -> None:
    gateway.holes = {TARGET + "/": 400, "x-original-uri": 400}

    (hole,) = json.loads(probe(gateway.url, "--output", "json").stdout)["holes"]

    assert hole["call"] == "X-Original-URI"


def test_a_403_that_does_not_come_from_the_gate_is_a_hole(gateway: StubGateway) -> None:
    gateway.status, gateway.headers = 403, {}

    found = probe(gateway.url, "--output", "json")

    assert found.exit_code == 1
    assert json.loads(found.stdout)["refused"] == 0


def test_with_a_token_each_call_is_made_with_it_too(gateway: StubGateway, tmp_path: Path) -> None:
    file = written_token(tmp_path)
    without = json.loads(probe(gateway.url, "--output", "json").stdout)["calls"]

    found = probe(gateway.url, "--output", "json", "--token-file", str(file))

    shown = sum(f"Bearer {TOKEN}" in headers.get("authorization", "") for _, _, headers in gateway.seen)
    assert json.loads(found.stdout)["calls"] == without + shown
    assert TOKEN not in found.output


def test_a_gateway_that_does_not_answer_does_not_pass() -> None:
    with running() as stub:
        url = stub.url

    found = probe(url)

    assert found.exit_code == 1
    assert "0 of" in found.stdout


@pytest.mark.parametrize(
    "url", ["mail.example", "ftp://mail.example", "https://mail.example/a", "https://a:b@mail.example"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    found = probe(url)

    assert found.exit_code == 1
    assert "write the gateway's address" in found.output


def test_a_result_is_recorded_at_each_tenant_with_the_service(
    gateway: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(gate_probe, "call", lambda method, path, body: calls.append((method, path, body)))

    probe(gateway.url, "--record", "contoso", "--record", "fabrikam", "--service", "exchange-online")

    body = {"service": "exchange-online", "gateway": gateway.url, "refused": len(gateway.seen)}
    assert calls == [
        ("POST", f"/v1/tenants/{tenant}/gate-probes", body | {"let_through": 0}) for tenant in ("contoso", "fabrikam")
    ]


def test_a_record_needs_the_service(gateway: StubGateway) -> None:
    assert probe(gateway.url, "--record", "contoso").exit_code == 1
    assert gateway.seen == []


@pytest.mark.parametrize("said", ["bad_token", "unknown_engineer", "unmapped", "narrowed", "behind"])
def test_a_token_that_proves_nothing_is_said_so_and_nothing_is_recorded(
    gateway: StubGateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(gate_probe, "call", lambda _, path, **__: calls.append(path))
    recorded = ("--record", "contoso", "--service", "exchange-online", "--token-file", str(written_token(tmp_path)))
    good = probe(gateway.url, *recorded)
    assert (good.exit_code, len(calls)) == (0, 1)
    gateway.said_of_the_token = said

    found = probe(gateway.url, *recorded)

    assert found.exit_code == 1
    assert f"must be refused as no_window, and was refused as {said}." in " ".join(found.output.split())
    assert "Nothing was recorded." in " ".join(found.output.split())
    assert len(calls) == 1


def test_a_token_that_gets_in_proves_nothing_and_is_a_hole(gateway: StubGateway, tmp_path: Path) -> None:
    gateway.holes = {"authorization": 200}

    found = probe(gateway.url, "--token-file", str(written_token(tmp_path)))

    assert found.exit_code == 1
    assert "was answered with 200" in " ".join(found.output.split())
    assert "calls were not refused" in found.output
