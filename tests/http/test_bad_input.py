"""Bad input over HTTP: each is answered with a clear problem, and nothing is half-written."""

import json
from typing import Any
from uuid import UUID

import pytest

from tests.each import each
from tests.http.door import Door, facts

NUL = "a\x00b"
LONG = "x" * 4001

# what is wrong in a field of a new request -> the code it gets
FIELDS: list[tuple[str, Any, str]] = [
    ("tenant", "no-such-tenant", "unknown-tenant"),
    ("tenant", "", "invalid-request"),
    ("tenant", "Contoso", "invalid-request"),
    ("tenant", "' OR 1=1", "invalid-request"),
    ("tenant", "a" * 64, "invalid-request"),
    ("tenant", "a\n", "invalid-request"),
    ("tenant", 7, "invalid-request"),
    ("tenant", ["a"], "invalid-request"),
    ("service", "no-such-service", "unknown-service"),
    ("service", "Exchange-Online", "invalid-request"),
    ("service", {}, "invalid-request"),
    ("actions", ["fly"], "unknown-service"),
    ("actions", ["read", "fly"], "unknown-service"),
    ("actions", [], "invalid-request"),
    ("actions", ["read"] * 21, "invalid-request"),
    ("actions", "read", "invalid-request"),
    ("actions", [""], "invalid-request"),
    ("actions", [None], "invalid-request"),
    ("resources", [], "invalid-request"),
    ("resources", "site:a", "invalid-request"),
    ("resources", ["site:a"] * 51, "invalid-request"),
    ("resources", [""], "invalid-request"),
    ("resources", ["site"], "invalid-request"),
    ("resources", ["site:"], "invalid-request"),
    ("resources", ["Site:a"], "invalid-request"),
    ("resources", ["site:a b"], "invalid-request"),
    ("resources", ["site:a\n"], "invalid-request"),
    ("resources", ["site:*"], "invalid-request"),
    ("resources", ["site:\u202eevil"], "invalid-request"),
    ("resources", ["site:\u200b"], "invalid-request"),
    ("resources", ["site:" + "a" * 300], "invalid-request"),
    ("resources", [{}], "invalid-request"),
    ("reason_code", "because", "invalid-request"),
    ("reason_code", None, "invalid-request"),
    ("justification", "", "invalid-request"),
    ("justification", " \n\t ", "invalid-request"),
    ("justification", LONG, "invalid-request"),
    ("justification", "\x1b[31m", "invalid-request"),
    ("justification", None, "invalid-request"),
    ("justification", ["a"], "invalid-request"),
    ("case_ref", "", "invalid-request"),
    ("case_ref", "c" * 101, "invalid-request"),
    ("access_window", 0, "invalid-request"),
    ("access_window", -1, "invalid-request"),
    ("access_window", True, "invalid-request"),
    ("access_window", 60.5, "invalid-request"),
    ("access_window", 60.5, "invalid-request"),
    ("access_window", "60", "invalid-request"),
    ("access_window", None, "invalid-request"),
    ("access_window", 4 * 3600 + 1, "window-too-long"),
    ("access_window", 7 * 24 * 3600 + 1, "invalid-request"),
    ("access_window", 2**63, "invalid-request"),
    ("access_window", 10**300, "invalid-request"),
    ("engineer", "erin", "invalid-request"),
    ("engineer", 1, "invalid-request"),
    ("made_up", 1, "invalid-request"),
    ("id", str(UUID(int=1)), "invalid-request"),
    ("state", "active", "invalid-request"),
    ("requester_id", str(UUID(int=1)), "invalid-request"),
    ("quorum", 0, "invalid-request"),
    ("a\x00b", 1, "invalid-request"),
    *((name, NUL, "invalid-request") for name in ("tenant", "service", "reason_code", "justification", "case_ref")),
    ("engineer", NUL, "invalid-request"),
    ("resources", ["site:a\x00b"], "invalid-request"),
    ("actions", [NUL], "invalid-request"),
]
BODIES: list[tuple[bytes, int, str]] = [
    (b"", 422, "invalid-request"),
    (b"{", 400, "invalid-json"),
    (b"{'a': 1}", 400, "invalid-json"),
    (b"not json", 400, "invalid-json"),
    (b'{"tenant": "a",}', 400, "invalid-json"),
    (b"\xff\xfe", 400, "invalid-json"),
    (b'{"tenant": "\xff"}', 400, "bad-request"),
    (b"\x00", 400, "invalid-json"),
    (b"null", 422, "invalid-request"),
    (b"[]", 422, "invalid-request"),
    (b"1", 422, "invalid-request"),
    (b'"text"', 422, "invalid-request"),
    (b"{}", 422, "invalid-request"),
    (b"[" * 30_000, 400, "bad-request"),
    (b'{"a":' * 10_000, 400, "bad-request"),
    (b"[" * 20_000 + b"]" * 20_000, 400, "bad-request"),
    (b"9" * 5000, 400, "bad-request"),
    (b"NaN", 422, "invalid-request"),
    (b"1e400", 422, "invalid-request"),
]


@each(("field", "value", "code"), FIELDS)
def test_an_invalid_field_of_a_new_request_is_named_and_nothing_is_written(
    door: Door, field: str, value: Any, code: str
) -> None:
    before = door.rows()

    answer = door.call("erin", "POST", "/v1/requests", json=door.world.body() | {field: value})

    body = facts(answer, 422, code)
    named = [body.get("field"), *(error["field"] for error in body.get("errors", []))]
    assert any(name and name.split(".")[0] == field for name in named)
    assert door.rows() == before


@each(("content", "status", "code"), BODIES)
def test_an_invalid_request_body_is_refused_and_nothing_is_written(
    door: Door, content: bytes, status: int, code: str
) -> None:
    before = door.rows()

    answer = door.call("erin", "POST", "/v1/requests", content=content, headers={"content-type": "application/json"})

    facts(answer, status, code)
    assert door.rows() == before


@each(
    "text",
    [r"\ud800", r"\udfff\ud800", r"a\udc00b", r"\u0000", r"\u001b[2J", r"\u0085", r"\u009b", r"\u202e", r"\u2028"],
)
@each("field", ["tenant", "justification", "case_ref", "resources", "reason_code", "made_up"])
def test_invalid_unicode_escapes_are_refused_in_every_field(door: Door, field: str, text: str) -> None:
    before = door.rows()
    value = [f"site:{text}"] if field == "resources" else text
    plain = json.dumps(door.world.body() | {field: "HERE"}).replace('"HERE"', json.dumps(value).replace("\\\\", "\\"))

    answer = door.call("erin", "POST", "/v1/requests", content=plain, headers={"content-type": "application/json"})

    facts(answer, 422, "invalid-request")
    assert door.rows() == before


def test_an_invalid_name_of_a_body_field_is_refused(door: Door) -> None:
    before = door.rows()

    answer = door.call(
        "erin", "POST", "/v1/requests", content=rb'{"\ud800": 1}', headers={"content-type": "application/json"}
    )

    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert door.rows() == before


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/xml", ""],
)
def test_a_body_whose_content_type_is_not_json_is_refused_without_effect(door: Door, kind: str) -> None:
    content = json.dumps(door.world.body())
    request_id = door.pending()
    before = door.rows()

    for path in ("/v1/requests", f"/v1/requests/{request_id}/approve", f"/v1/requests/{request_id}/cancel"):
        for who in ("erin", "ann"):
            answer = door.call(who, "POST", path, content=content, headers={"content-type": kind})
            facts(answer, 422, "invalid-request")

    assert door.rows() == before


@each(
    ("action", "body"),
    [
        ("approve", {"access_window": 0}),
        ("approve", {"access_window": -60}),
        ("approve", {"access_window": True}),
        ("approve", {"access_window": 60.5}),
        ("approve", {"access_window": "60"}),
        ("approve", {"access_window": 10**300}),
        ("approve", {"resources": ["site:b"]}),
        ("approve", {"quorum": 1}),
        ("approve", {"comment": NUL}),
        ("approve", {"comment": ""}),
        ("approve", {"comment": "c" * 2001}),
        ("approve", {"comment": ["c"]}),
        ("approve", {"version": 1}),
        ("deny", {"access_window": 60}),
        ("deny", {"comment": NUL}),
        ("deny", {"comment": "  "}),
        ("deny", {"made_up": 1}),
    ],
)
def test_an_invalid_decision_is_refused_without_effect(door: Door, action: str, body: dict[str, Any]) -> None:
    request_id = door.pending()
    before = door.rows()

    answer = door.act("ann", action, request_id, **body)

    facts(answer, 422, "invalid-request")
    assert door.rows() == before


@pytest.mark.parametrize("body", [b"[]", b"1", b'"yes"', b"{", b"\xff", b"[" * 30_000])
def test_a_decision_with_malformed_json_is_refused(door: Door, body: bytes) -> None:
    request_id = door.pending()
    before = door.rows()

    for action in ("approve", "deny"):
        path = f"/v1/requests/{request_id}/{action}"
        answer = door.call("ann", "POST", path, content=body, headers={"content-type": "application/json"})
        assert answer.status_code in {400, 422}
        assert answer.headers["content-type"] == "application/problem+json"

    assert door.rows() == before


@each("shown", ["1", "x", "erin", "%00", "0197f3a0-a0a0-7a0a-8a0a", "%F0%9F%94%90", "%ff", "0" * 5000, "'"])
@each(("method", "tail"), [("GET", ""), ("GET", "/events"), ("POST", "/approve"), ("POST", "/deny")])
def test_an_invalid_request_id_is_refused(door: Door, method: str, tail: str, shown: str) -> None:
    answer = door.call("ann", method, f"/v1/requests/{shown}{tail}")

    assert answer.status_code in {404, 422}
    facts(answer, answer.status_code, {404: "not-found", 422: "invalid-request"}[answer.status_code])


def test_the_last_value_of_a_repeated_json_field_counts_and_is_validated(door: Door) -> None:
    plain = json.dumps(door.world.body())[:-1] + ', "access_window": 99999999}'

    answer = door.call("erin", "POST", "/v1/requests", content=plain, headers={"content-type": "application/json"})

    facts(answer, 422, "invalid-request")
