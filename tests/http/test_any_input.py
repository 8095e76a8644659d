"""Whatever comes in over HTTP, the answer is a success or a problem document, never an internal error."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.sql import new_id
from tests.examples import examples
from tests.http.door import Door

TEXTS = st.text(max_size=30)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXTS)
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
FIELDS = st.sampled_from(
    [
        "tenant",
        "service",
        "resources",
        "actions",
        "reason_code",
        "justification",
        "case_ref",
        "access_window",
        "engineer",
    ]
)
CHANGES = st.dictionaries(FIELDS | TEXTS, ANYTHING, min_size=1, max_size=3)
QUERIES = st.dictionaries(
    st.sampled_from(["state", "service", "requester", "created_after", "created_before", "cursor", "limit", "x"]),
    TEXTS,
    max_size=3,
)


def good_or_refused(answer: Any) -> None:
    """Check that an answer is a success, or a problem document about a mistake of the caller."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert answer.json()["code"]


@settings(max_examples=examples(60, near=10), deadline=None)
@given(CHANGES)
def test_an_arbitrary_body_of_a_new_request_causes_no_internal_error(door: Door, changes: dict[str, Any]) -> None:
    content = json.dumps(door.world.body() | changes)

    answer = door.call("erin", "POST", "/v1/requests", content=content, headers={"content-type": "application/json"})

    good_or_refused(answer)


@settings(max_examples=examples(40, near=10), deadline=None)
@given(QUERIES)
def test_an_arbitrary_query_of_a_list_causes_no_internal_error(door: Door, query: dict[str, str]) -> None:
    good_or_refused(door.call("max", "GET", "/v1/requests", params=_sendable(query)))


@settings(max_examples=examples(40, near=10), deadline=None)
@given(st.fixed_dictionaries(dict.fromkeys(["tenant", "service", "resource", "action"], TEXTS)))
def test_an_arbitrary_access_check_is_refused_without_an_internal_error(door: Door, asked: dict[str, str]) -> None:
    answer = door.call("gate", "GET", "/v1/access", params=_sendable(asked) | {"engineer": str(new_id())})

    good_or_refused(answer)
    assert answer.status_code in {403, 422}


@settings(max_examples=examples(40, near=10), deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=40))
def test_arbitrary_bytes_in_headers_and_body_cause_no_internal_error(door: Door, header: bytes, body: bytes) -> None:
    for name in ("authorization", "if-match", "idempotency-key", "content-type", "user-agent"):
        headers = {"content-type": b"application/json", name: header}
        good_or_refused(door.call("ann", "POST", f"/v1/requests/{new_id()}/approve", content=body, headers=headers))
        good_or_refused(door.call("erin", "POST", "/v1/requests", content=body, headers=headers))


def _sendable(query: dict[str, str]) -> dict[str, bytes]:
    return {name: value.encode("utf-8", "surrogatepass") for name, value in query.items()}
