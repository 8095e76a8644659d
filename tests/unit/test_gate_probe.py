"""`lockbox gate probe`: what counts as a refusal, what counts as a hole, and what the probe never sends."""

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
from gate import dialects
from gate.call import SentHeaders
from gate.dialects import AskedCall, Dialect, GateQuestion, MalformedQuestion
from tests.each import each

TARGET = "/mailboxes/nobody"
TOKEN = "probe.probe.probe"
NO = {"Lockbox-Reason": "no_token"}


class StubGateway:
    """Gives every call the same answer, except calls to some targets or with some headers."""

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
    return CliRunner().invoke(app, ["gate", "probe", url, "--target", TARGET, *words], env={"COLUMNS": "120"})


def written_token(folder: Path) -> Path:
    file = folder / "token"
    file.write_text(f"{TOKEN}\n")
    return file


def test_the_probe_passes_a_gateway_that_refuses_everything(gateway: StubGateway) -> None:
    found = probe(gateway.url)

    assert found.exit_code == 0
    assert f"{len(gateway.seen)} of {len(gateway.seen)} refused." in found.stdout
    assert len(gateway.seen) > 35
    assert {method for method, _, _ in gateway.seen} == {"GET"}
    assert not any("content-length" in headers for _, _, headers in gateway.seen)


@pytest.mark.parametrize(
    ("where", "status"), [(TARGET + "/", 200), ("x-original-uri", 204), ("lockbox-decision", 302), ("/", 404)]
)
def test_the_probe_reports_a_single_admitted_call_as_a_hole(gateway: StubGateway, where: str, status: int) -> None:
    gateway.holes = {where: status}

    found = probe(gateway.url, "--output", "json")

    shown = json.loads(found.stdout)
    assert found.exit_code == 1
    assert shown["calls"] - shown["refused"] == len(shown["holes"]) == 1
    assert shown["holes"][0]["status"] == status


def test_the_probe_accepts_a_bad_request_answer_for_odd_calls_only(gateway: StubGateway) -> None:
    gateway.holes = {TARGET + "/": 400, "x-original-uri": 400}

    (hole,) = json.loads(probe(gateway.url, "--output", "json").stdout)["holes"]

    assert hole["call"] == "X-Original-URI"


def test_the_probe_reports_a_403_that_does_not_come_from_the_gate_as_a_hole(gateway: StubGateway) -> None:
    gateway.status, gateway.headers = 403, {}

    found = probe(gateway.url, "--output", "json")

    assert found.exit_code == 1
    assert json.loads(found.stdout)["refused"] == 0


def test_a_probe_with_a_token_repeats_each_call_with_the_token(gateway: StubGateway, tmp_path: Path) -> None:
    file = written_token(tmp_path)
    without = json.loads(probe(gateway.url, "--output", "json").stdout)["calls"]

    found = probe(gateway.url, "--output", "json", "--token-file", str(file))

    shown = sum(f"Bearer {TOKEN}" in headers.get("authorization", "") for _, _, headers in gateway.seen)
    assert json.loads(found.stdout)["calls"] == without + shown
    assert TOKEN not in found.output


def test_the_probe_does_not_pass_a_silent_gateway() -> None:
    with running() as stub:
        url = stub.url

    found = probe(url)

    assert found.exit_code == 1
    assert "0 of" in found.stdout


@pytest.mark.parametrize(
    "url", ["mail.example", "ftp://mail.example", "https://mail.example/a", "https://a:b@mail.example"]
)
def test_the_probe_refuses_an_invalid_gateway_address(url: str) -> None:
    found = probe(url)

    assert found.exit_code == 1
    assert "write the gateway's address" in found.output


def test_a_probe_result_is_recorded_at_each_tenant_with_the_service(
    gateway: StubGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str, dict[str, Any]]] = []
    monkeypatch.setattr(gate_probe, "call", lambda method, path, body: calls.append((method, path, body)))

    probe(gateway.url, "--record", "contoso", "--record", "fabrikam", "--service", "exchange-online")

    body = {"service": "exchange-online", "gateway": gateway.url, "refused": len(gateway.seen)}
    assert calls == [
        ("POST", f"/v1/tenants/{tenant}/gate-probes", body | {"let_through": 0}) for tenant in ("contoso", "fabrikam")
    ]


def test_recording_a_probe_result_needs_the_name_of_the_service(gateway: StubGateway) -> None:
    assert probe(gateway.url, "--record", "contoso").exit_code == 1
    assert gateway.seen == []


@pytest.mark.parametrize("said", ["bad_token", "unknown_engineer", "unmapped", "narrowed", "behind"])
def test_a_probe_token_that_proves_nothing_is_reported_and_not_recorded(
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


def test_gate_probe_fails_if_the_gateway_admits_a_call_with_the_token_of_the_token_file(
    gateway: StubGateway, tmp_path: Path
) -> None:
    gateway.holes = {"authorization": 200}

    found = probe(gateway.url, "--token-file", str(written_token(tmp_path)))

    assert found.exit_code == 1
    assert "was answered with 200" in " ".join(found.output.split())
    assert "calls were not refused" in found.output


Headers = list[tuple[bytes, bytes]]

ORIGINAL: Headers = [(b"x-original-method", b"GET"), (b"x-original-uri", b"/mailboxes/a%2Fb?x=1")]
FORWARDED: Headers = [
    (b"x-forwarded-method", b"GET"),
    (b"x-forwarded-uri", b"/mailboxes/a%2Fb?x=1"),
    (b"x-forwarded-host", b"mail.example"),
]
HOST: Headers = [(b"host", b"lockbox.example")]
OF_HEADERS = (Dialect.NGINX, Dialect.HAPROXY, Dialect.CADDY, Dialect.TRAEFIK)


def own(dialect: Dialect) -> Headers:
    return [*HOST, *(ORIGINAL if dialect in {Dialect.NGINX, Dialect.HAPROXY} else FORWARDED)]


def asked(
    dialect: Dialect, headers: Headers, *, method: str = "GET", rest: bytes = b"", query: bytes = b""
) -> AskedCall:
    return dialects.read(dialect, GateQuestion(method, "mail", rest, query, SentHeaders(headers)))


@pytest.mark.parametrize("dialect", OF_HEADERS)
def test_the_gate_reads_method_and_target_unchanged_from_the_gateways_headers(dialect: Dialect) -> None:
    found = asked(dialect, own(dialect))

    assert (found.method, found.target) == ("GET", "/mailboxes/a%2Fb?x=1")


def test_for_envoy_the_gate_reads_method_and_target_of_the_check_request_itself() -> None:
    found = asked(Dialect.ENVOY, HOST, method="DELETE", rest=b"/../a%2fb", query=b"x=1&x=2")

    assert found == AskedCall("DELETE", "/../a%2fb?x=1&x=2", "lockbox.example")


@each(
    ("dialect", "more", "named"),
    [
        (Dialect.NGINX, FORWARDED[0], "x-forwarded-method"),
        (Dialect.NGINX, FORWARDED[1], "x-forwarded-uri"),
        (Dialect.NGINX, FORWARDED[2], "x-forwarded-host"),
        (Dialect.HAPROXY, FORWARDED[1], "x-forwarded-uri"),
        (Dialect.CADDY, ORIGINAL[0], "x-original-method"),
        (Dialect.CADDY, ORIGINAL[1], "x-original-uri"),
        (Dialect.TRAEFIK, ORIGINAL[1], "x-original-uri"),
        (Dialect.NGINX, (b"x-original-url", b"/evil"), "x-original-url"),
        (Dialect.CADDY, (b"x-rewrite-url", b"/evil"), "x-rewrite-url"),
        (Dialect.CADDY, (b"x-http-method-override", b"DELETE"), "x-http-method-override"),
        (Dialect.NGINX, (b"x-method-override", b"DELETE"), "x-method-override"),
        (Dialect.NGINX, ORIGINAL[1], "x-original-uri"),
        (Dialect.CADDY, FORWARDED[0], "x-forwarded-method"),
        (Dialect.CADDY, (b"x-forwarded-uri", b""), "x-forwarded-uri"),
        (Dialect.NGINX, HOST[0], "host"),
        (Dialect.NGINX, (b"content-length", b"1"), "body"),
        (Dialect.NGINX, (b"transfer-encoding", b"chunked"), "body"),
    ],
)
def test_a_gateways_question_with_a_foreign_or_repeated_header_is_refused(
    dialect: Dialect, more: tuple[bytes, bytes], named: str
) -> None:
    for headers in ([*own(dialect), more], [more, *own(dialect)]):
        with pytest.raises(MalformedQuestion, match=named):
            asked(dialect, headers)


@pytest.mark.parametrize("header", [*ORIGINAL[:2], *FORWARDED[:2], (b"x-rewrite-url", b"/evil")])
def test_the_question_of_a_guard_has_no_gateway_header_and_no_body(header: tuple[bytes, bytes]) -> None:
    name, value = header

    dialects.check_direct(GateQuestion("GET", "mail", b"/check", b"", SentHeaders([*HOST, (name, b"")])))
    for more in ([header], [header, (name, b"")], [(name, b""), (name, value)]):
        with pytest.raises(MalformedQuestion, match=name.decode()):
            dialects.check_direct(GateQuestion("GET", "mail", b"/check", b"", SentHeaders([*HOST, *more])))
    for length in ([b"1"], [b"1", b"0"], [b"0", b"1"]):
        body = SentHeaders([(b"content-length", one) for one in length])
        with pytest.raises(MalformedQuestion, match="body"):
            dialects.check_direct(GateQuestion("GET", "mail", b"/check", b"", body))


@pytest.mark.parametrize("header", [*ORIGINAL, *FORWARDED, (b"x-http-method", b"PUT")])
def test_envoys_question_has_no_headers_of_other_gateways(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(MalformedQuestion, match=header[0].decode()):
        asked(Dialect.ENVOY, [*HOST, header], rest=b"/a")


@pytest.mark.parametrize("dialect", OF_HEADERS)
def test_an_emptied_header_of_a_gateways_question_counts_as_absent(dialect: Dialect) -> None:
    others = FORWARDED if dialect in {Dialect.NGINX, Dialect.HAPROXY} else ORIGINAL

    assert asked(dialect, [*own(dialect), *((name, b"") for name, _ in others)]).method == "GET"


@pytest.mark.parametrize("dialect", OF_HEADERS)
@pytest.mark.parametrize("missing", [1, 2])
def test_a_gateways_question_with_a_missing_header_is_refused(dialect: Dialect, missing: int) -> None:
    headers = own(dialect)
    name, _ = headers.pop(missing)

    for sent in (headers, [*headers, (name, b"")]):
        with pytest.raises(MalformedQuestion, match=f"{name.decode()} is missing"):
            asked(dialect, sent)


@pytest.mark.parametrize("dialect", OF_HEADERS)
def test_a_gateways_question_must_use_the_get_method_and_the_path_of_the_service(dialect: Dialect) -> None:
    with pytest.raises(MalformedQuestion, match="GET"):
        asked(dialect, own(dialect), method="POST")
    for part in ({"rest": b"/"}, {"rest": b"/mailboxes/b"}, {"query": b"x=1"}):
        with pytest.raises(MalformedQuestion, match="name of the service"):
            asked(dialect, own(dialect), **part)  # type: ignore[arg-type]


def test_of_all_gateways_only_haproxy_may_ask_the_gate_with_the_head_method() -> None:
    assert asked(Dialect.HAPROXY, own(Dialect.HAPROXY), method="HEAD").method == "GET"
    with pytest.raises(MalformedQuestion, match="GET"):
        asked(Dialect.NGINX, own(Dialect.NGINX), method="HEAD")


def test_envoys_question_without_the_path_of_the_call_is_refused() -> None:
    with pytest.raises(MalformedQuestion, match="path_prefix"):
        asked(Dialect.ENVOY, HOST)


def test_the_path_of_a_gateways_question_contains_the_service() -> None:
    assert dialects.service_in(b"/gate/v1/mail") == ("mail", b"")
    assert dialects.service_in(b"/gate/v1/mail/a/b%2f") == ("mail", b"/a/b%2f")
    for path in (b"/gate/v1/", b"/gate/v1//a", b"/gate/v1/m\xc3\xa4il"):
        with pytest.raises(MalformedQuestion, match="names no service"):
            dialects.service_in(path)
