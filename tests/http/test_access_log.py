"""The log line of a call: it has the route's template, and nothing that the path names."""

import re
from types import ModuleType
from typing import Any

import pytest
import structlog
from sqlalchemy import text
from structlog.testing import capture_logs

from api import browser
from api.app import make_app
from api.routes import health
from config import traces
from config.logging import add_origin
from config.traces import NOWHERE, ORIGIN
from tests.each import each
from tests.http.door import ELSEWHERE, Door
from tests.otlp_receiver import collecting

QUEUED = text("SELECT http_request_id, traceparent FROM outbox WHERE request_id = :id")


def lines_of(door: Door, method: str, path: str, **parts: Any) -> list[dict[str, object]]:
    with capture_logs() as lines:
        door.call("erin", method, path, **parts)
    return [dict(line) for line in lines]


def test_each_http_call_logs_one_line_with_its_route_its_status_and_its_duration(door: Door) -> None:
    structlog.get_logger("api").debug("warm")
    request_id = door.pending()

    (line,) = lines_of(door, "GET", f"/v1/requests/{request_id}/events")

    assert (line["event"], line["method"], line["status"]) == ("http", "GET", 200)
    assert line["route"] == "/v1/requests/{request_id}/events"
    assert isinstance(line["ms"], float)
    assert request_id not in str(line)


@pytest.mark.parametrize(
    ("path", "level"), [("/livez", "debug"), ("/readyz", "debug"), ("/metrics", "info"), ("/v1/me", "info")]
)
def test_successful_health_probes_are_logged_at_debug_level(door: Door, path: str, level: str) -> None:
    (line,) = lines_of(door, "GET", path)

    assert line["log_level"] == level


def test_the_access_log_contains_no_paths_no_queries_no_bodies_and_no_tokens(door: Door) -> None:
    secret = "s3cret"
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", f"/{secret}", {}),
        ("GET", f"/v1/requests/{secret}", {}),
        ("GET", f"/v1/access?resource=mailbox:{secret}", {}),
        ("POST", "/v1/requests", {"json": door.world.body(justification=secret, case_ref=secret)}),
        ("POST", "/v1/requests", {"json": {secret: secret}}),
        ("POST", "/v1/requests", {"content": secret, "headers": {"content-type": "application/json"}}),
        ("GET", "/v1/requests", {"headers": {"authorization": f"Bearer {secret}", "user-agent": secret}}),
    ]

    lines = [line for method, path, parts in calls for line in lines_of(door, method, path, **parts)]

    assert len(lines) == len(calls)
    assert secret not in str(lines)
    assert door.world.tokens["erin"] not in str(lines)


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def line_of(door: Door, headers: dict[str, str]) -> tuple[dict[str, object], str]:
    """Call the API; return the log line of the call, and the id in the answer."""
    with capture_logs(processors=[add_origin]) as lines:
        answer = door.call("erin", "GET", "/v1/me", headers=headers)
    (line,) = lines
    return dict(line), answer.headers["x-request-id"]


def test_each_http_call_has_an_id_in_log_and_answer(door: Door) -> None:
    first, second = line_of(door, {}), line_of(door, {})

    assert (first[0]["http_request_id"], second[0]["http_request_id"]) == (first[1], second[1])
    assert first[1] != second[1]
    assert all(re.fullmatch("[0-9a-f]{16}", shown) for _, shown in (first, second))
    assert "trace_id" not in first[0]


@each("named", ["0197f3a0-a0a0-7a0a-8a0a-0a0a0a0a0a0a", "a", "01J9.Z_x-7", "x" * 64])
def test_the_call_id_sent_by_a_caller_is_adopted(door: Door, named: str) -> None:
    line, shown = line_of(door, {"x-request-id": named})

    assert (line["http_request_id"], shown) == (named, named)


@each("named", ["", "x" * 65, "-x", "a b", "a@b.example", "a/b", 'a"b', "a;b", "<a>"])
def test_an_invalid_call_id_is_replaced_and_not_logged(door: Door, named: str) -> None:
    line, shown = line_of(door, {"x-request-id": named})

    assert re.fullmatch("[0-9a-f]{16}", shown)
    assert line["http_request_id"] == shown


def test_if_a_caller_sends_several_call_ids_none_is_adopted(door: Door) -> None:
    named = [("x-request-id", "one"), ("x-request-id", "two")]
    answer = door.runner.run(door.client.get("/livez", headers=named))

    assert re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])


def test_a_call_refused_before_it_reaches_the_app_has_a_call_id(door: Door) -> None:
    with capture_logs(processors=[add_origin]) as lines:
        answer = door.call("erin", "POST", "/v1/requests", content=b"x" * 70_000)

    assert answer.status_code == 413
    assert [line["http_request_id"] for line in lines] == [answer.headers["x-request-id"]]


@each(
    ("place", "path", "kind"),
    [
        ((health, "_postgres"), "/readyz", "application/problem+json"),
        ((browser, "oauth_state"), "/sign-in/code", "text/html; charset=utf-8"),
    ],
)
def test_an_internal_error_has_a_call_id_and_is_logged_with_that_id(
    door: Door, monkeypatch: pytest.MonkeyPatch, place: tuple[ModuleType, str], path: str, kind: str
) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(*place, fails)
    with capture_logs(processors=[add_origin]) as lines:
        answer = door.call(None, "GET", path)

    assert (answer.status_code, answer.headers["content-type"]) == (500, kind)
    assert {line["event"] for line in lines} == {"api.failed", "http"}
    assert {line["http_request_id"] for line in lines} == {answer.headers["x-request-id"]}


def test_the_trace_of_the_caller_is_logged(door: Door) -> None:
    line, _ = line_of(door, {"traceparent": PARENT})

    assert (line["trace_id"], line["span_id"]) == (TRACE, "00f067aa0ba902b7")


@each(
    "named",
    [f"00-{'0' * 32}-00f067aa0ba902b7-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-00f067aa0ba902b7-01",
     f"ff-{TRACE}-00f067aa0ba902b7-01", f"{PARENT}-x", "x" * 5000],
)  # fmt: skip
def test_an_invalid_trace_is_not_logged(door: Door, named: str) -> None:
    line, _ = line_of(door, {"traceparent": named})

    assert "trace_id" not in line
    assert named not in str(line)


def test_no_log_context_remains_after_a_call(door: Door) -> None:
    line_of(door, {"traceparent": PARENT})

    assert ORIGIN.get() == NOWHERE


def test_a_move_passes_call_id_and_trace_to_its_notifications(door: Door) -> None:
    answer = door.call(
        "erin",
        "POST",
        "/v1/requests",
        json=door.world.body(),
        headers={"x-request-id": "mine", "traceparent": PARENT},
    )

    with door.root.connect() as connection:
        rows = connection.execute(QUEUED, {"id": answer.json()["id"]}).all()
    assert rows == [("mine", PARENT)]


def test_the_trace_span_of_a_call_contains_the_route_pattern_and_no_request_data(door: Door) -> None:
    with collecting() as collector:
        traces.start(door.settings.model_copy(update={"otlp_endpoint": collector.url}), "lockbox-test")
        try:
            request = door.call(
                "erin", "POST", "/v1/requests", json=door.world.body(), headers={"traceparent": PARENT}
            )
            number = request.json()["id"]
            door.call("ann", "GET", f"/v1/requests/{number}?who=mallory")
            door.call(None, "GET", "/livez")
        finally:
            traces.stop()

    submitted, shown = collector.spans
    assert (submitted.name, submitted.kind, submitted.trace_id) == ("POST /v1/requests", "SERVER", TRACE)
    assert submitted.attributes["http.response.status_code"] == 201
    assert shown.name == "GET /v1/requests/{request_id}"
    assert shown.trace_id != TRACE
    for secret in (number, "mallory", door.world.tokens["erin"], ELSEWHERE, door.world.body()["justification"]):
        assert secret not in collector.said
    with door.root.connect() as connection:
        assert connection.execute(QUEUED, {"id": number}).all() == [
            (request.headers["x-request-id"], submitted.traceparent)
        ]


def test_the_fastapi_framework_exports_no_traces_by_itself(monkeypatch: pytest.MonkeyPatch, door: Door) -> None:
    monkeypatch.setenv("FASTAPI_OTEL_AUTO_CONFIGURE", "true")

    made = make_app(door.settings, door.db)._telemetry  # noqa: SLF001 - it says so nowhere else

    assert [name for name, value in made.items() if value] == []
    assert {"tracing", "metrics", "logs", "operation_spans", "auto_configure"} <= set(made)
