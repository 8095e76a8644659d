"""Paths and methods that the API does not know, and HEAD, which it answers wherever GET only reads."""

from uuid import UUID

import pytest
import structlog

from tests.each import each
from tests.http.door import Door, facts
from tests.http.portal import Portal


@each("path", ["/index.html", "/v1", "/v1/", "/v1/requests/", "/v1/access/", "/docs/", "/redoc", "/admin", "/%00"])
def test_an_unknown_http_path_is_not_found(door: Door, path: str) -> None:
    facts(door.get("max", path), 404, "not-found")


@each("path", ["/v1/requests", "/v1/access", "/livez", "/readyz", f"/v1/requests/{UUID(int=1)}"])
@each("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "OPTIONS"])
def test_an_unsupported_http_method_is_not_allowed(door: Door, method: str, path: str) -> None:
    before = door.rows()

    answer = door.call("max", method, path)

    assert answer.status_code == 405
    assert answer.headers["allow"]
    assert answer.headers["content-type"] == "application/problem+json"
    facts(answer, 405, "method-not-allowed")
    assert door.rows() == before


def test_the_http_method_cannot_be_overridden_by_a_header(door: Door) -> None:
    request_id = door.pending()
    header = {"x-http-method-override": "POST", "x-method-override": "POST"}

    facts(door.call("ann", "GET", f"/v1/requests/{request_id}/approve", headers=header), 405, "method-not-allowed")


READ = ("/v1/requests", "/v1/me", "/livez", "/readyz", "/openapi.json", f"/v1/requests/{UUID(int=1)}", "/v1/nope")


@pytest.mark.parametrize("path", READ)
def test_a_head_call_is_answered_like_get_without_a_body(door: Door, path: str) -> None:
    got, headed = (door.call("max", method, path) for method in ("GET", "HEAD"))

    assert headed.status_code == got.status_code
    assert headed.content == b""
    assert set(headed.headers) == set(got.headers)
    for name in ("content-type", "content-length", "cache-control"):
        assert headed.headers.get(name) == got.headers.get(name)


@pytest.mark.parametrize(
    "path", ["/live", "/sign-in/oidc/callback", "/sign-in/oidc/0", f"/v1/requests/{UUID(int=1)}/approve"]
)
def test_a_head_call_is_refused_where_get_changes_something(door: Door, path: str) -> None:
    before = door.rows()

    answer = door.call("ann", "HEAD", path)

    assert (answer.status_code, answer.content) == (405, b"")
    assert door.rows() == before


@pytest.mark.parametrize(("who", "status"), [("ann", 200), (None, 303)])
def test_a_head_call_to_a_page_has_no_body(portal: Portal, who: str | None, status: int) -> None:
    browser = portal.browser()
    if who:
        browser.enter(who)

    for path in ("/waiting", "/requests", "/account", "/requests.csv"):
        answer = browser.call("HEAD", path)

        assert (path, answer.status_code, answer.content) == (path, status, b"")
        assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_a_head_call_is_logged_as_head(door: Door) -> None:
    with structlog.testing.capture_logs() as said:
        door.call("max", "HEAD", "/v1/requests")

    (line,) = (one for one in said if one["event"] == "http")
    assert (line["method"], line["route"], line["status"]) == ("HEAD", "/v1/requests", 200)


@each(
    ("path", "methods"),
    [
        ("/v1/requests", "GET, HEAD, POST"),
        ("/v1/me", "GET, HEAD, PATCH"),
        ("/v1/requests/preview", "POST"),
        (f"/v1/requests/{UUID(int=1)}/events", "GET, HEAD"),
        (f"/v1/requests/{UUID(int=1)}/revoke", "POST"),
        (f"/v1/endpoints/{UUID(int=1)}", "DELETE, GET, HEAD, PATCH"),
        ("/v1/tenants/contoso/policy", "GET, HEAD, PUT"),
        ("/livez", "GET, HEAD"),
    ],
)
def test_a_refused_http_method_lists_the_supported_methods(door: Door, path: str, methods: str) -> None:
    answer = door.call("max", "OPTIONS", path)

    facts(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == methods


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/requests/preview"), ("POST", f"/v1/requests/{UUID(int=1)}/events")]
)
def test_a_fixed_path_segment_is_not_read_as_an_id(door: Door, method: str, path: str) -> None:
    facts(door.call("max", method, path), 405, "method-not-allowed")
