"""The size of bodies: one above 64 KiB is refused, and one that did not arrive whole has no effect."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.app import make_app
from harness.people import SETTINGS
from tests.each import each
from tests.http.door import Door, facts

MOST = 64 * 1024
JSON = {"content-type": "application/json"}
Message = dict[str, Any]


async def in_chunks(size: int, chunk: int = 4096) -> AsyncIterator[bytes]:
    """Send a body of that size, without stating the size."""
    for start in range(0, size, chunk):
        yield b" " * min(chunk, size - start)


@each("path", ["/v1/requests", "/v1/access", "/livez", "/nowhere"])
@each("who", ["erin", None])
def test_an_http_body_above_64_kib_is_refused_even_without_a_content_length(
    door: Door, who: str | None, path: str
) -> None:
    before = door.rows()

    declared = door.call(who, "POST", path, content=b" " * (MOST + 1), headers=JSON)
    chunked = door.call(who, "POST", path, content=in_chunks(MOST + 1), headers=JSON)
    endless = door.call(who, "POST", path, content=in_chunks(MOST * 50), headers=JSON)

    for answer in (declared, chunked, endless):
        facts(answer, 413, "body-too-large")
        assert answer.headers["connection"] == "close"
    assert door.rows() == before


def test_an_http_body_of_exactly_64_kib_is_read(door: Door) -> None:
    facts(door.call("erin", "POST", "/v1/requests", content=b" " * MOST, headers=JSON), 400, "invalid-json")
    facts(door.call("erin", "POST", "/v1/requests", content=in_chunks(MOST), headers=JSON), 400, "invalid-json")


@pytest.mark.parametrize("declared", ["x", "-1", "1e9", "", "9" * 30, "٣"])
def test_an_invalid_content_length_is_refused(door: Door, declared: str) -> None:
    header = {"content-length": declared.encode()}

    facts(door.call("erin", "POST", "/v1/requests", content=b"{}", headers=JSON | header), 413, "body-too-large")


@pytest.mark.parametrize("arrived", [[], [b""], [b'{"access_window"'], [b'{"access_window": 60}']])
def test_a_decision_whose_http_body_is_incomplete_is_not_made(door: Door, arrived: list[bytes]) -> None:
    request_id = door.pending(resources=["site:cut"])
    before = door.rows()
    app = make_app(SETTINGS, door.db)
    incoming: list[Message] = [{"type": "http.request", "body": part, "more_body": True} for part in arrived]
    incoming.append({"type": "http.disconnect"})
    sent: list[Any] = []

    async def receive() -> Message:
        return incoming.pop(0) if incoming else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"/v1/requests/{request_id}/approve"
    headers = {
        **JSON,
        "host": "lockbox.test",
        "content-length": "22",
        "authorization": f"Bearer {door.world.tokens['ann']}",
    }
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("203.0.113.7", 1),
    }
    door.runner.run(app(scope, receive, send))

    assert door.rows() == before
    assert door.get("ann", f"/v1/requests/{request_id}").json()["state"] == "pending"
