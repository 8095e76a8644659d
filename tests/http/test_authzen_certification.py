"""AuthZEN's certification scenario for decision points: Basic Core, Batch Core and Discovery, case by case."""

from typing import Any

import pytest

from harness.gateway_world import PUBLIC
from tests.each import each
from tests.http.authzen_door import EVALUATION, EVALUATIONS, JSON, AuthzenDoor, asked

RECORD_1, RECORD_2 = ({"type": "record", "id": one} for one in ("record-1", "record-2"))
ALICE, READ = {"type": "user", "id": "alice"}, {"name": "read"}


@pytest.mark.parametrize(
    ("who", "action", "expected"),
    [("alice", "read", True), ("alice", "write", True), ("bob", "read", True), ("bob", "write", False)],
)
def test_the_authzen_certification_fixture_gets_the_expected_decisions(
    point: AuthzenDoor, who: str, action: str, *, expected: bool
) -> None:
    for _ in range(4):
        assert point.decision(asked(who, action))["decision"] is expected


@pytest.mark.parametrize(
    "body",
    [
        asked(context={"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}),
        {
            "subject": ALICE | {"properties": {"department": "Sales", "role": "manager"}},
            "action": READ | {"properties": {"method": "GET"}},
            "resource": RECORD_1 | {"properties": {"status": "active", "owner": "bob"}},
        },
        asked(foo="bar", futureField={"nested": True}),
    ],
)
def test_authzen_accepts_a_context_and_properties_and_unknown_members(
    point: AuthzenDoor, body: dict[str, Any]
) -> None:
    found = point.decision(body)

    assert found["decision"] is True
    assert isinstance(found["context"], dict)


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": None},
        {"action": None},
        {"resource": None},
        {"subject": {"id": "alice"}},
        {"subject": {"type": "user"}},
        {"action": {}},
        {"resource": {"id": "record-1"}},
        {"resource": {"type": "record"}},
        {"subject": "alice"},
        {"action": {"name": 123}},
    ],
)
@each("path", [EVALUATION, EVALUATIONS])
def test_a_missing_or_mistyped_authzen_member_is_a_bad_request(
    point: AuthzenDoor, path: str, changes: dict[str, Any]
) -> None:
    body = {name: value for name, value in (asked() | changes).items() if value is not None}

    assert point.send(path, json=body).status_code == 400


@each("path", [EVALUATION, EVALUATIONS])
@pytest.mark.parametrize(
    ("kind", "content"),
    [("text/plain", '{"subject":'), ("application/json", '{"subject":'), ("application/json", "")],
)
def test_an_authzen_call_with_malformed_json_or_an_empty_body_is_a_bad_request(
    point: AuthzenDoor, path: str, kind: str, content: str
) -> None:
    assert point.send(path, content=content, headers={"content-type": kind}).status_code == 400


@pytest.mark.far
@each("path", [EVALUATION, EVALUATIONS])
def test_authzen_returns_the_request_id_with_decisions_and_errors(point: AuthzenDoor, path: str) -> None:
    for body, status in ((asked(), 200), ({}, 400)):
        answer = point.send(path, json=body, headers={"x-request-id": "bfe9eb29-ab87"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (status, "bfe9eb29-ab87")
    first, second = (point.send(path, json=asked()).headers["x-request-id"] for _ in range(2))
    assert len(first) == len(second) == 16
    assert first != second


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"subject": ALICE, "action": READ, "evaluations": [{"resource": RECORD_1}, {"resource": RECORD_2}]}, None),
        (
            {
                "subject": {"type": "user", "id": "bob"},
                "resource": RECORD_1,
                "evaluations": [{"action": READ}, {"action": {"name": "write"}}],
            },
            [True, False],
        ),
        ({"evaluations": [asked("alice", "read"), asked("bob", "write")]}, [True, False]),
        (
            {
                "subject": ALICE,
                "action": READ,
                "context": {"time": "2025-06-27T18:03-07:00"},
                "evaluations": [
                    {"resource": RECORD_1},
                    {"resource": RECORD_2, "context": {"time": "2025-06-27T19:00-07:00", "source": "batch-override"}},
                ],
            },
            None,
        ),
        (
            {
                "subject": ALICE,
                "action": READ,
                "options": {"evaluations_semantic": "execute_all"},
                "evaluations": [{"resource": RECORD_1}, {}],
            },
            [True, False],
        ),
        # Entities are inherited and replaced as wholes.
        (asked("alice", "write", evaluations=[{}, {"resource": RECORD_2}]), [True, False]),
    ],
)
def test_authzen_answers_a_batch_in_order(
    point: AuthzenDoor, body: dict[str, Any], expected: list[bool] | None
) -> None:
    found = point.decisions(body)

    assert len(found) == 2
    assert expected is None or found == expected


@pytest.mark.parametrize("more", [{}, {"evaluations": []}])
def test_an_authzen_batch_without_evaluations_is_one_evaluation(point: AuthzenDoor, more: dict[str, Any]) -> None:
    answer = point.send(EVALUATIONS, json=asked(**more))

    assert (answer.status_code, answer.json()["decision"]) == (200, True)
    assert "evaluations" not in answer.json()


def test_the_authzen_metadata_names_the_endpoints(point: AuthzenDoor) -> None:
    answer = point.send("/.well-known/authzen-configuration", "GET", who=None)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {
        "policy_decision_point": PUBLIC,
        "access_evaluation_endpoint": f"{PUBLIC}{EVALUATION}",
        "access_evaluations_endpoint": f"{PUBLIC}{EVALUATIONS}",
    }


@each("kind", ["application/json", "Application/JSON; charset=UTF-8"])
def test_authzen_accepts_a_charset_in_the_content_type(point: AuthzenDoor, kind: str) -> None:
    answer = point.send(EVALUATION, content='{"a":1}', headers=JSON | {"content-type": kind})

    assert answer.status_code == 400
    assert "subject" in answer.json()["detail"]
