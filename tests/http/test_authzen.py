"""AuthZEN as programs use it: who may ask, whose access it is, which tenant, and that nothing else is ever a yes."""

import copy
import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gate.decision_point import MOST_EVALUATIONS
from gate.identity_map import HEADER
from harness.gateway_world import PATIENCE, PUBLIC
from harness.people import CHROMIUM
from harness.wait import wait_for
from lockbox.errors import Invalid
from lockbox.identity import token_creation
from lockbox.identity.roles import Scope
from lockbox.identity.token_creation import TokenInput, TokenRules
from lockbox.requests.lifecycle import Action
from tests.each import each
from tests.examples import examples
from tests.http.authzen_door import (
    EVALUATION,
    EVALUATIONS,
    FILER,
    FILES,
    ISSUER,
    JSON,
    NGINX,
    PROGRAM,
    RECORDS,
    AuthzenDoor,
    asked,
)
from tests.http.door import facts
from tests.http.test_any_input import ANYTHING

FORWARD = [
    {"x-original-uri": "/records/record-1"},
    {"x-original-method": "GET"},
    {"x-forwarded-uri": "/records/record-1"},
    {"x-forwarded-method": "POST"},
]


def why(found: dict[str, Any]) -> str:
    assert found["decision"] is False
    return str(found["context"]["reason"])


def test_an_authzen_allow_names_the_window_and_a_refusal_names_the_reason_and_request_form(
    point: AuthzenDoor,
) -> None:
    yes = point.decision(asked())

    assert datetime.fromisoformat(yes["context"].pop("until")).tzinfo is not None
    assert yes == {
        "decision": True,
        "context": {
            "request": str(point.windows["alice"]),
            "engineer": str(point.world.people["alice"].person_id),
            "tenant": point.world.tenant.slug,
            "service": RECORDS,
            "resource": "record:record-1",
            "action": "read",
        },
    }
    no = point.decision(asked("bob", "write"))
    assert why(no) == "no_window"
    assert no["context"]["detail"].startswith("No access window is open")
    assert no["context"]["request_form"].startswith(f"{PUBLIC}/ask?tenant={point.world.tenant.slug}&service=records")


def test_authzen_refuses_access_through_a_revoked_window(point: AuthzenDoor) -> None:
    request_id = point.open("alice", resources=["record:short"])
    assert point.decision(asked(record="short"))["decision"] is True

    point.world.act("ann", Action.REVOKE, request_id)

    wait_for("the revoke counts", lambda: not point.decision(asked(record="short"))["decision"], PATIENCE)


@pytest.mark.far
@each("path", [EVALUATION, EVALUATIONS])
def test_an_authzen_question_needs_a_token_with_the_authzen_scope(point: AuthzenDoor, path: str) -> None:
    for header in ("", "Basic x", "Bearer", "Bearer lbx_test_nobodys", point.world.tokens[PROGRAM]):
        answer = point.send(path, who=None, json=asked(), headers={"authorization": header})
        facts(answer, 401, "invalid-token")
        assert answer.headers["www-authenticate"] == "Bearer"
    for who in (NGINX, "gate", "erin", "ann"):
        answer = point.send(path, who=who, json=asked())
        assert answer.status_code in {401, 403}, who
    assert point.send(path, who=NGINX, json=asked()).status_code == 403


def test_the_gate_refuses_an_authzen_token_as_a_gateway_token(point: AuthzenDoor) -> None:
    headers = {
        "lockbox-gateway": point.world.tokens[PROGRAM],
        "x-original-method": "GET",
        "x-original-uri": "/records/record-1",
    }

    answer = point.send(f"/gate/v1/{RECORDS}", "GET", who=None, headers=headers)

    assert (answer.status_code, answer.headers["lockbox-reason"]) == (403, "malformed")


def test_an_authzen_token_is_bound_to_one_service(point: AuthzenDoor) -> None:
    wanted = TokenInput("pep", scopes=frozenset({Scope.GATE_AUTHZEN}), services=frozenset({RECORDS, FILES}))
    day = timedelta(days=1)
    rules = TokenRules("test", day, day, day, frozenset({RECORDS, FILES}))

    with point.world.db.transaction() as session, pytest.raises(Invalid, match="names one service"):
        token_creation.make(session, point.world.people["gate"], CHROMIUM, wanted, rules)


def test_authzen_takes_the_service_from_the_token_whatever_the_question_says(point: AuthzenDoor) -> None:
    tenant = {"tenant": point.world.tenant.slug}
    body = asked(resource={"type": "record", "id": "record-1", "properties": tenant | {"service": RECORDS}})
    body["subject"] = {"type": "person", "id": str(point.world.people["alice"].person_id)}

    assert why(point.decision(body | {"context": {"service": RECORDS}}, FILER)) == "no_window"


def test_authzen_takes_the_tenant_from_the_catalogue_or_from_the_resource(point: AuthzenDoor) -> None:
    point.open("alice", service=FILES, resources=["record:filed"])
    point.open("alice", resources=["record:filed"])
    person = {"type": "person", "id": str(point.world.people["alice"].person_id)}
    slug = point.world.tenant.slug

    def found(who: str, **properties: Any) -> dict[str, Any]:
        resource = {"type": "record", "id": "filed", "properties": properties}
        return point.decision(asked(subject=person, resource=resource, context={"tenant": slug}), who)

    assert found(FILER, tenant=slug)["decision"] is True
    assert found(PROGRAM, tenant=slug)["decision"] is True
    assert why(found(FILER, tenant="other")) == "no_window"
    some: list[dict[str, Any]] = [
        {},
        {"tenant": None},
        {"tenant": [slug]},
        {"tenant": slug.upper()},
        {"tenant": f"{slug} "},
    ]
    for wrong in some:
        assert why(found(FILER, **wrong)) == "unmapped"
    assert why(found(PROGRAM, tenant="other")) == "unmapped"


def test_the_subject_of_an_authzen_question_names_the_engineer(point: AuthzenDoor) -> None:
    alice = str(point.world.people["alice"].person_id)
    point.map("alice", ISSUER, "00u1")

    def found(kind: str, of: str, **properties: Any) -> dict[str, Any]:
        return point.decision(asked(subject={"type": kind, "id": of, "properties": properties}))

    assert found("person", alice)["decision"] is True
    assert found("user", "00u1", iss=ISSUER)["decision"] is True
    assert found("user", "00u1", iss=ISSUER, sub="00u1", email="x@y.example")["decision"] is True
    others: list[tuple[str, str, dict[str, Any]]] = [
        ("user", alice, {}),
        ("user", "00u1", {}),
        ("user", "alice", {"iss": ISSUER}),
        ("user", "00u1", {"iss": ISSUER, "sub": "00u2"}),
        ("user", "alice", {"sub": "bob"}),
        ("user", "alice", {"iss": f"{HEADER}{point.world.people[PROGRAM].person_id}"}),
        ("user", "00u1", {"iss": [ISSUER]}),
        ("user", "00u1", {"iss": None}),
        ("user", "Alice", {}),
        ("user", "alice\n", {}),
        ("user", "", {}),
        ("user", "a" * 501, {}),
        ("user", "\ud800", {}),
        ("person", alice.upper(), {}),
        ("person", "alice", {}),
        ("group", "alice", {}),
        ("", "alice", {}),
    ]
    for kind, of, properties in others:
        content = json.dumps(asked(subject={"type": kind, "id": of, "properties": properties}))
        answer = point.send(EVALUATION, content=content, headers=JSON)
        if answer.status_code != 400:
            assert why(answer.json()) == "unknown_engineer", (kind, of, properties)


@pytest.mark.parametrize(
    ("kind", "of"),
    [("record", "*"), ("Record", "record-1"), ("record:record-1", ""), ("", "record:record-1"), ("record", "a b")],
)
def test_authzen_refuses_a_resource_that_no_window_can_have(point: AuthzenDoor, kind: str, of: str) -> None:
    assert why(point.decision(asked(resource={"type": kind, "id": of}))) == "unmapped"


def test_authzen_accepts_only_one_spelling_of_a_resource(point: AuthzenDoor) -> None:
    point.open("alice", resources=["mailbox:a:b"])

    assert point.decision(asked(resource={"type": "mailbox", "id": "a:b"}))["decision"] is True
    assert why(point.decision(asked(resource={"type": "mailbox:a", "id": "b"}))) == "unmapped"
    assert why(point.decision(asked(action="export"))) == "unmapped"


@each("path", [EVALUATION, EVALUATIONS])
@each("headers", FORWARD)
def test_authzen_refuses_calls_with_forward_authentication_headers(
    point: AuthzenDoor, path: str, headers: dict[str, str]
) -> None:
    facts(point.send(path, json=asked(), headers=headers), 400, "malformed-evaluation")


@pytest.mark.far
@each("path", [EVALUATION, EVALUATIONS])
@each("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_authzen_answers_only_post_calls(point: AuthzenDoor, path: str, method: str) -> None:
    answer = point.send(path, method, json=asked())

    assert answer.status_code in {405, 501}
    for other in (f"{path}/", f"{path}/records/record-1", f"{path}?x=1", f"/{path}"):
        assert point.send(other, json=asked()).status_code in {404, 422}


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/json; charset=utf-16"},
        {"content-type": "application/json, application/json"},
        {"content-type": "application/json-seq"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": ""},
        JSON | {"content-encoding": "gzip"},
    ],
)
def test_authzen_refuses_a_body_whose_content_type_is_not_json(point: AuthzenDoor, headers: dict[str, str]) -> None:
    facts(point.send(EVALUATION, content=json.dumps(asked()), headers=headers), 400, "malformed-evaluation")


def test_an_authzen_batch_with_too_many_evaluations_or_invalid_options_is_refused(point: AuthzenDoor) -> None:
    many: list[dict[str, Any]] = [{}] * MOST_EVALUATIONS
    assert point.decisions(asked(evaluations=many)) == [True] * MOST_EVALUATIONS
    bad: list[dict[str, Any]] = [
        {"evaluations": [*many, {}]},
        {"evaluations": {}},
        {"evaluations": None},
        {"evaluations": [[]]},
        {"evaluations": [{}], "options": {"evaluations_semantic": "any"}},
        {"evaluations": [{}], "options": []},
        {"evaluations": [{}], "subject": "alice"},
        {"evaluations": [{}], "context": None},
    ]
    for wrong in bad:
        facts(point.send(EVALUATIONS, json=asked() | wrong), 400, "malformed-evaluation")


@pytest.mark.parametrize(
    ("semantic", "expected"),
    [
        ("execute_all", [True, False, True, False]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
def test_the_evaluations_semantic_of_an_authzen_batch_decides_where_the_batch_stops(
    point: AuthzenDoor, semantic: str, expected: list[bool]
) -> None:
    yes, no, malformed = {"action": {"name": "read"}}, {"action": {"name": "write"}}, {"action": {"name": 1}}
    options = {"evaluations_semantic": semantic, "another_option": "value"}

    assert point.decisions(asked("bob", options=options, evaluations=[yes, no, yes, malformed])) == expected
    assert point.decisions(asked("bob", options=options, evaluations=[malformed, yes]))[0] is False


def test_a_malformed_question_in_an_authzen_batch_says_what_is_wrong(point: AuthzenDoor) -> None:
    answer = point.send(EVALUATIONS, json=asked(evaluations=[{"resource": {"type": "record"}}]))

    (one,) = answer.json()["evaluations"]
    assert (why(one), one["context"]["detail"]) == ("malformed", one["context"]["detail"])
    assert "resource.id" in one["context"]["detail"]


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """Return a question that would be allowed, but lacks a required member or has one of another type."""
    body = copy.deepcopy(asked())
    entity = draw(st.sampled_from(["subject", "action", "resource"]))
    member = draw(st.sampled_from([None, *body[entity]]))
    place, name = (body, entity) if member is None else (body[entity], member)
    wrong = draw(st.one_of(st.just(...), ANYTHING))
    if wrong is ... or isinstance(wrong, str if member else dict):
        del place[name]
    else:
        place[name] = wrong
    return body


@settings(max_examples=examples(200, near=30), deadline=None)
@given(damaged(), st.sampled_from([EVALUATION, EVALUATIONS]))
def test_authzen_never_allows_a_damaged_question(point: AuthzenDoor, body: dict[str, Any], path: str) -> None:
    content = json.dumps(body)
    answer = point.send(path, content=content, headers=JSON)
    in_a_batch = point.send(EVALUATIONS, content=json.dumps({"evaluations": [body]}), headers=JSON)

    facts(answer, 400, "malformed-evaluation")
    if in_a_batch.status_code != 400:
        assert [one["decision"] for one in in_a_batch.json()["evaluations"]] == [False]


@pytest.mark.far
@settings(max_examples=examples(200, near=30), deadline=None)
@given(st.data())
def test_authzen_never_allows_a_truncated_question(point: AuthzenDoor, data: st.DataObject) -> None:
    whole = json.dumps(asked()).encode()
    begin = data.draw(st.integers(0, len(whole) - 1))
    end = data.draw(st.integers(begin + 1, len(whole)))
    content = whole[:begin] + data.draw(st.binary(max_size=3)) + whole[end:]

    answer = point.send(EVALUATION, content=content, headers=JSON)

    assert answer.status_code in {200, 400}
    if answer.status_code == 200 and answer.json()["decision"]:
        assert json.loads(content) == asked() | {
            name: value for name, value in json.loads(content).items() if name not in asked()
        }


def test_each_authzen_allow_answer_counts_as_a_use_even_under_the_same_request_id(point: AuthzenDoor) -> None:
    point.open("alice", resources=["record:counted"], max_uses=3)
    body = asked(record="counted", evaluations=[{}, {}])

    first = point.send(EVALUATION, json=asked(record="counted"), headers={"x-request-id": "one"})
    both = point.send(EVALUATIONS, json=body, headers={"x-request-id": "one"})

    assert first.json()["decision"] is True
    assert [one["decision"] for one in both.json()["evaluations"]] == [True, True]
    assert why(point.decision(asked(record="counted"))) == "used_up"
