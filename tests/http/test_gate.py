"""The gate as gateways reach it: what is let in and why, in each dialect, and every way to be refused."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import pytest

from harness.gateway_world import ANNA, ENGINEER, PUBLIC, SERVICE, dialect_scopes
from lockbox.identity import api_tokens
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.http.door import Door
from tests.http.gate_door import GateDoor, gate_before, request_of

FORGED = [
    ("nginx", "X-Forwarded-Method", "GET"),
    ("nginx", "X-Forwarded-Uri", "/evil"),
    ("nginx", "X-Forwarded-Host", "evil.example"),
    ("nginx", "X-Original-URI", "/evil"),
    ("nginx", "X-Original-Method", "GET"),
    ("nginx", "X-Original-URL", "/evil"),
    ("haproxy", "X-Forwarded-Uri", "/evil"),
    ("caddy", "X-Original-URI", "/evil"),
    ("caddy", "X-Original-Method", "GET"),
    ("caddy", "X-Forwarded-Uri", "/evil"),
    ("caddy", "X-HTTP-Method-Override", "DELETE"),
    ("traefik", "X-Original-URI", "/evil"),
    ("traefik", "X-Rewrite-URL", "/evil"),
    ("envoy", "X-Original-URI", "/evil"),
    ("envoy", "X-Forwarded-Uri", "/evil"),
    ("nginx", "Lockbox-Gateway", "lbx_test_evil"),
    ("traefik", "Lockbox-Call", "mine"),
    ("envoy", "Lockbox-Call", "mine"),
    ("nginx", "Lockbox-Call", "a call with blanks"),
    ("nginx", ENGINEER, "erin"),
    ("nginx", "Content-Length", "3"),
]


@pytest.fixture(scope="module")
def gate(door: Door) -> Iterator[GateDoor]:
    """The gate of a world; each of its answers from memory is compared with Postgres."""
    with gate_before(door.world, door.db) as opened:
        yield opened


def opened(gate: GateDoor, address: str = ANNA, **changes: Any) -> UUID:
    request = gate.world.submit(**({"resources": [f"mailbox:{address}"]} | changes))
    return gate.world.act("ann", Action.APPROVE, request.id).id


@pytest.mark.parametrize("kind", dialect_scopes())
def test_the_gate_allows_a_call_with_a_window_and_states_what_the_window_covers(gate: GateDoor, kind: str) -> None:
    address = f"{kind}@contoso.example"
    assert gate.ask(kind, gate.path(address)).reason == "no_window"
    request_id = opened(gate, address, actions=["read", "change"])

    answer = gate.until(200, kind=kind, path=gate.path(address), method="DELETE")

    assert request_of(answer) == request_id
    assert {name: value for name, value in answer.headers.items() if name.startswith("lockbox-")} == {
        "lockbox-decision": "allow",
        "lockbox-request": str(request_id),
        "lockbox-engineer": str(gate.world.people["erin"].person_id),
        "lockbox-tenant": gate.world.tenant.slug,
        "lockbox-service": SERVICE,
        "lockbox-resource": f"mailbox:{address}",
        "lockbox-action": "change",
        "lockbox-until": answer.headers["lockbox-until"],
    }
    assert datetime.fromisoformat(answer.headers["lockbox-until"]).tzinfo is not None
    assert answer.body == b""


def test_a_non_ascii_resource_is_encoded_in_the_gates_answer(gate: GateDoor) -> None:
    opened(gate, "\u00e4nna@contoso.example")

    answer = gate.until(200, path=gate.path("%C3%A4nna@contoso.example"))

    assert answer.headers["lockbox-resource"] == "mailbox:%C3%A4nna@contoso.example"


@pytest.mark.parametrize(("kind", "name", "value"), FORGED)
def test_the_gate_refuses_a_call_with_forgeable_headers_despite_an_open_window(
    gate: GateDoor, kind: str, name: str, value: str
) -> None:
    opened(gate)
    assert gate.until(200, kind=kind).status == 200

    answer = gate.ask(kind, None, (name, value))

    assert (answer.status, answer.reason) == (403, "malformed")


@pytest.mark.parametrize("kind", dialect_scopes())
def test_the_gate_refuses_a_grpc_call_despite_a_mapped_path_and_an_open_window(gate: GateDoor, kind: str) -> None:
    opened(gate)
    assert gate.until(200, kind=kind).status == 200
    assert gate.ask(kind, None, ("Content-Type", "application/json")).status == 200

    answer = gate.ask(kind, None, ("Content-Type", "application/grpc+proto"))

    assert (answer.status, answer.reason) == (403, "unmapped")
    assert b"the service's own code has to check access" in answer.body


@pytest.mark.parametrize("kind", dialect_scopes())
def test_the_gate_refuses_a_call_with_two_authorization_headers(gate: GateDoor, kind: str) -> None:
    opened(gate)
    gate.until(200, kind=kind)
    shown = ("Authorization", "Bearer some-token")
    assert gate.ask(kind, None, shown).status == 200

    answer = gate.ask(kind, None, shown, shown)

    assert (answer.status, answer.reason) == (403, "malformed")
    assert b"Authorization" in answer.body


def test_the_gate_refuses_a_question_without_the_method_or_the_path_of_the_call(gate: GateDoor) -> None:
    for kind in dialect_scopes():
        if kind != "envoy":
            good = gate.question(kind, gate.path())
            for missing in range(3, 5):
                answer = gate.send([*good[:missing], *good[missing + 1 :]], f"/gate/v1/{SERVICE}")
                assert (answer.status, answer.reason) == (403, "malformed")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_the_gate_allows_only_questions_sent_with_the_http_method_get(gate: GateDoor, method: str) -> None:
    opened(gate)
    gate.until(200)

    answer = gate.send(gate.question("nginx", gate.path()), f"/gate/v1/{SERVICE}", method)

    assert (answer.status == 200) is (method == "GET")


@pytest.mark.parametrize(
    "path",
    [
        f"/x/../%s/mailboxes/{ANNA}",
        f"//%s/mailboxes/{ANNA}",
        f"/%s/mailboxes/{ANNA}?x=1",
        f"/%s/mailboxes/{ANNA}/",
        "/%s/mailboxes/%%61nna@contoso.example",
        f"/%s/mailboxes/{ANNA};a=b",
        f"/%s/mailboxes/{ANNA}#x",
        f"/%s/mailboxes/{ANNA}#",
        f"/%s/mailboxes/{ANNA}?",
        f"/%s/mailboxes/{ANNA}?#x",
        "/%s/mailboxes/a%%2Fb",
        f"/%s/mailbox/{ANNA}",
        f"http://x/%s/mailboxes/{ANNA}",
        "/",
    ],
)
@pytest.mark.parametrize("kind", ["nginx", "caddy", "envoy"])
def test_the_gate_refuses_an_unmapped_spelling_of_a_path(gate: GateDoor, kind: str, path: str) -> None:
    if kind == "envoy" and not path.startswith("/"):
        path = f"/{path}"
    opened(gate)
    gate.until(200)

    answer = gate.ask(kind, path % gate.world.tenant.slug if "%s" in path else path)

    assert answer.status == 403
    assert answer.reason in {"unmapped", "malformed"}


def test_a_refusal_of_the_gate_states_why_and_links_to_the_filled_in_form(gate: GateDoor) -> None:
    path = gate.path("bob@contoso.example")
    for_programs, for_people = gate.ask("caddy", path), gate.ask("caddy", path, ("Accept", "text/html,*/*"))

    form = f"{PUBLIC}/ask?tenant={gate.world.tenant.slug}&service={SERVICE}"
    form += "&resource=mailbox%3Abob%40contoso.example&action=read"
    assert for_programs.headers["content-type"] == "application/problem+json"
    assert for_programs.headers["lockbox-form"] == form
    assert b'"code": "no_window"' in for_programs.body
    assert form.encode() in for_programs.body
    assert for_people.headers["content-type"] == "text/html; charset=utf-8"
    assert form.replace("&", "&amp;").encode() in for_people.body
    assert b"No access" in for_people.body


def test_the_gate_states_narrowed_as_the_reason_for_a_resource_that_the_approver_left_out(gate: GateDoor) -> None:
    world, address = gate.world, "narrow@contoso.example"
    request = world.submit(resources=[f"mailbox:{address}", "site:HR"])
    world.act("ann", Action.APPROVE, request.id, resources=["site:HR"])

    assert gate.ask(path=gate.path(address)).reason == "narrowed"


@pytest.mark.parametrize("shown", ["nothing", "nonsense", "an access check's", "a person's"])
def test_a_gateway_without_a_gateway_token_learns_nothing(gate: GateDoor, shown: str) -> None:
    tokens = {"nonsense": "lbx_test_evil", "an access check's": gate.world.tokens["gate"]}
    tokens["a person's"] = gate.world.tokens["erin"]
    headers = [one for one in gate.question("nginx", gate.path()) if one[0] != "Lockbox-Gateway"]

    answer = gate.send(
        [*headers, *([("Lockbox-Gateway", tokens[shown])] if shown in tokens else [])], f"/gate/v1/{SERVICE}"
    )

    assert (answer.status, answer.reason) == (401, "no_credential")


def test_a_gateway_asks_the_gate_only_about_services_of_its_token(gate: GateDoor) -> None:
    for service in ("onedrive", "no-such-service"):
        assert gate.ask(service=service).reason == "unmapped"
    assert gate.send(gate.question("nginx", gate.path()), "/gate/v1/").reason == "malformed"


def test_the_gate_refuses_an_unknown_or_unnamed_caller(gate: GateDoor) -> None:
    assert gate.ask(who="mallory").reason == "unknown_engineer"
    answer = gate.ask(who=None)
    assert (answer.status, answer.reason) == (401, "no_token")


def test_paths_that_do_not_begin_with_gate_v1_are_answered_by_the_api(gate: GateDoor) -> None:
    for path, status in (("/livez", 200), ("/gate/v2/x", 404), ("/%67ate/v1/exchange-online", 404)):
        assert httpx.get(f"http://127.0.0.1:{gate.port}{path}").status_code == status


@pytest.mark.far
def test_a_flood_of_invalid_tokens_delays_no_gateway(gate: GateDoor) -> None:
    opened(gate)
    gate.until(200)
    headers = gate.question("nginx", gate.path())

    def stranger(number: int) -> str | None:
        shown = api_tokens.written("test", new_id(), f"{number:043d}")
        return gate.send([*headers[:1], ("Lockbox-Gateway", shown), *headers[2:]], f"/gate/v1/{SERVICE}").reason

    with ThreadPoolExecutor(24) as threads:
        flood = [threads.submit(stranger, number) for number in range(120)]
        answers = []
        while not all(one.done() for one in flood):
            answers.append(gate.ask().status)

    assert {one.result() for one in flood} <= {"no_credential", "busy"}
    assert set(answers) == {200}


def test_several_questions_with_the_same_call_id_of_a_gateway_count_as_one_use(gate: GateDoor) -> None:
    opened(gate, "counted@contoso.example", max_uses=2)
    path = gate.path("counted@contoso.example")

    said = [gate.ask("nginx", path, ("Lockbox-Call", one)) for one in ("a", "a", "b", "c", "a")]

    assert [answer.status for answer in said] == [200, 200, 200, 403, 200]
    assert said[3].reason == "used_up"
    assert said[3].headers["lockbox-form"].startswith(f"{PUBLIC}/ask?")
    assert gate.ask("traefik", path).reason == "used_up"
    assert gate.ask("nginx", path).reason == "used_up"
