"""The log line of a call: the route's template, never what it names."""

from typing import Any

import structlog
from structlog.testing import capture_logs

from tests.http.door import Door


def lines_of(door: Door, method: str, path: str, **parts: Any) -> list[dict[str, object]]:
    """Return what is logged of one call."""
    with capture_logs() as lines:
        door.call("erin", method, path, **parts)
    return [dict(line) for line in lines]


def test_a_call_leaves_one_line_with_route_status_and_time(door: Door) -> None:
    structlog.get_logger("api").debug("warm")
    request_id = door.pending()

    (line,) = lines_of(door, "GET", f"/v1/requests/{request_id}/events")

    assert (line["event"], line["method"], line["status"]) == ("http", "GET", 200)
    assert line["route"] == "/v1/requests/{request_id}/events"
    assert isinstance(line["ms"], float)
    assert request_id not in str(line)


def test_no_line_holds_a_path_a_query_a_body_or_a_token(door: Door) -> None:
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
