"""Paths and methods that the API does not know."""

from uuid import UUID

import pytest

from tests.http.door import Door, facts


@pytest.mark.parametrize(
    "path", ["/index.html", "/v1", "/v1/", "/v1/requests/", "/v1/access/", "/docs", "/redoc", "/admin", "/%00"]
)
def test_an_unknown_path_is_not_found(door: Door, path: str) -> None:
    facts(door.get("max", path), 404, "not-found")


@pytest.mark.parametrize("path", ["/v1/requests", "/v1/access", "/livez", "/readyz", f"/v1/requests/{UUID(int=1)}"])
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "OPTIONS", "HEAD"])
def test_a_method_that_a_path_does_not_know_is_not_allowed(door: Door, method: str, path: str) -> None:
    before = door.rows()

    answer = door.call("max", method, path)

    assert answer.status_code == 405
    assert answer.headers["allow"]
    assert answer.headers["content-type"] == "application/problem+json"
    if method != "HEAD":
        facts(answer, 405, "method-not-allowed")
    assert door.rows() == before


def test_a_method_is_never_overridden(door: Door) -> None:
    request_id = door.pending()
    header = {"x-http-method-override": "POST", "x-method-override": "POST"}

    facts(door.call("ann", "GET", f"/v1/requests/{request_id}/approve", headers=header), 405, "method-not-allowed")
