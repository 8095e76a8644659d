"""What guards ask about single calls: whose call it is, and whether a window lets it in."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import httpx
import pytest

from gate.window_memory import FRESH_SECONDS, WindowMemory
from harness.gateway_world import ANNA, ENGINEER, GUARD, PUBLIC, SERVICE
from lockbox.requests.lifecycle import Action
from tests.http.door import Door
from tests.http.gate_door import GateAnswer, GateDoor, gate_before, request_of

MAILBOX = f"mailbox:{ANNA}"


@pytest.fixture(scope="module")
def gate(door: Door) -> Iterator[GateDoor]:
    """The gate of a world; each of its answers from memory is compared with Postgres."""
    with gate_before(door.world, door.db) as opened:
        request = opened.world.submit(resources=[MAILBOX])
        opened.world.act("ann", Action.APPROVE, request.id)
        yield opened


def asked(
    gate: GateDoor,
    query: str | None = None,
    *more: tuple[str, str],
    who: str | None = "erin",
    path: str = f"{SERVICE}/check",
    method: str = "GET",
) -> GateAnswer:
    headers = [("Host", "lockbox.example"), ("Lockbox-Gateway", gate.world.tokens[GUARD])]
    headers += [(ENGINEER, who)] if who else []
    target = f"/gate/v1/{path}" + (f"?{query}" if query else "")
    return gate.send([*headers, *more], target, method)


def about(gate: GateDoor, **changes: str) -> str:
    return urlencode({"tenant": gate.world.tenant.slug, "resource": MAILBOX, "action": "read"} | changes)


def test_a_check_by_a_guard_is_answered_like_a_check_at_the_gate(gate: GateDoor) -> None:
    answer = asked(gate, about(gate))
    same = gate.ask()

    assert request_of(answer) == request_of(same)
    told = {name: value for name, value in answer.headers.items() if name.startswith("lockbox-")}
    assert told.pop("lockbox-at")
    assert told == {name: value for name, value in same.headers.items() if name.startswith("lockbox-")}


def test_an_allow_answer_to_a_guard_states_an_upper_bound_of_the_database_time(gate: GateDoor) -> None:
    before = datetime.now(UTC)
    answer = asked(gate, about(gate))
    latest = datetime.now(UTC) + timedelta(seconds=FRESH_SECONDS)

    assert before <= datetime.fromisoformat(answer.headers["lockbox-at"]) < latest


def test_an_allow_answer_to_a_guard_has_no_database_time_if_windows_were_read_too_long_ago(
    gate: GateDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WindowMemory, "age", FRESH_SECONDS)
    answer = asked(gate, about(gate))

    assert answer.status == 200
    assert "lockbox-at" not in answer.headers


def test_a_guard_may_name_an_engineer_that_the_guard_authenticated(gate: GateDoor) -> None:
    erin, eve = (str(gate.world.people[who].person_id) for who in ("erin", "eve"))

    answer = asked(gate, about(gate, engineer=erin), who=None)
    other = asked(gate, about(gate, engineer=eve), who=None)

    assert answer.status == 200
    assert answer.headers["lockbox-engineer"] == erin
    assert (other.status, other.reason) == (403, "no_window")
    assert other.headers["lockbox-form"].startswith(f"{PUBLIC}/ask?tenant={gate.world.tenant.slug}")


def test_a_guard_that_names_an_engineer_is_refused_once_the_window_is_used_up(gate: GateDoor) -> None:
    resource = "mailbox:once@contoso.example"
    request = gate.world.submit(resources=[resource], max_uses=1)
    gate.world.act("ann", Action.APPROVE, request.id)
    query = about(gate, resource=resource, engineer=str(gate.world.people["erin"].person_id))

    answers = [asked(gate, query, who=None) for _ in range(2)]

    assert [(answer.status, answer.reason) for answer in answers] == [(200, None), (403, "used_up")]
    assert answers[1].headers["lockbox-form"].startswith(PUBLIC)


def test_a_guard_must_name_the_caller_exactly_once_and_an_engineer_by_id(gate: GateDoor) -> None:
    erin = str(gate.world.people["erin"].person_id)

    by_header = asked(gate, about(gate, engineer=erin))
    by_token = asked(gate, about(gate, engineer=erin), ("Authorization", "Bearer x"), who=None)
    twice = asked(gate, f"{about(gate, engineer=erin)}&engineer={erin}", who=None)
    by_name = asked(gate, about(gate, engineer="erin"), who=None)

    assert [one.reason for one in (by_header, by_token, twice)] == ["malformed"] * 3
    assert (by_name.status, by_name.reason) == (403, "unknown_engineer")


def test_a_refusal_to_a_guard_states_why_and_where_to_request_access(gate: GateDoor) -> None:
    answer = asked(gate, about(gate, action="change"))

    assert (answer.status, answer.reason) == (403, "no_window")
    assert answer.headers["lockbox-form"].startswith(
        f"{PUBLIC}/ask?tenant={gate.world.tenant.slug}&service={SERVICE}"
    )
    assert asked(gate, about(gate), who="mallory").reason == "unknown_engineer"
    assert (asked(gate, about(gate), who=None).status, asked(gate, about(gate), who=None).reason) == (401, "no_token")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "malformed"),
        ("tenant={t}&resource=mailbox:x", "malformed"),
        ("tenant={t}&resource=mailbox:x&action=", "malformed"),
        ("tenant={t}&resource=mailbox:{a}&action=read&action=read", "malformed"),
        ("tenant={t}&resource=mailbox:x&resource=mailbox:{a}&action=read", "malformed"),
        ("tenant={t}&resource=mailbox:{a}&action=read&x=y", "malformed"),
        ("tenant={t}&resource=mailbox:%FF&action=read", "malformed"),
        ("tenant={t}&resource=mailbox:*&action=read", "malformed"),
        ("tenant={t}&resource=nonsense&action=read", "malformed"),
        ("tenant=A&resource=mailbox:{a}&action=read", "malformed"),
        ("tenant={t}&resource=mailbox:{a}&action=fly", "unmapped"),
    ],
)
def test_each_parameter_of_a_guards_check_must_be_given_exactly_once(gate: GateDoor, query: str, reason: str) -> None:
    assert asked(gate, query.format(t=gate.world.tenant.slug, a=ANNA)).reason == reason


def test_a_guard_may_remember_a_caller_for_a_minute(gate: GateDoor) -> None:
    headers = {"lockbox-gateway": gate.world.tokens[GUARD], ENGINEER: "erin"}

    answer = httpx.get(f"http://127.0.0.1:{gate.port}/gate/v1/{SERVICE}/engineer", headers=headers)

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert "lockbox-decision" not in answer.headers
    said = answer.json()
    assert said.pop("engineer") == str(gate.world.people["erin"].person_id)
    left = datetime.fromisoformat(said.pop("until")) - datetime.now(UTC)
    assert timedelta(seconds=30) < left < timedelta(seconds=61)
    assert said == {}


def test_a_guard_asking_about_an_unknown_caller_is_refused_like_at_the_gate(gate: GateDoor) -> None:
    assert asked(gate, path=f"{SERVICE}/engineer", who="mallory").reason == "unknown_engineer"
    assert asked(gate, path=f"{SERVICE}/engineer", who=None).status == 401
    assert asked(gate, "x=y", path=f"{SERVICE}/engineer").reason == "malformed"


@pytest.mark.parametrize("path", [SERVICE, f"{SERVICE}/", f"{SERVICE}/x", "stream/", "", f"{SERVICE}/engineer/"])
def test_the_token_of_a_guard_works_only_at_guard_addresses(gate: GateDoor, path: str) -> None:
    assert asked(gate, path=path).reason == "malformed"


@pytest.mark.parametrize("service", ["onedrive", "no-such-service"])
def test_a_guard_asks_only_about_services_of_its_token(gate: GateDoor, service: str) -> None:
    assert asked(gate, about(gate), path=f"{service}/check").reason == "unmapped"
    assert asked(gate, path=f"{service}/engineer").reason == "unmapped"


@pytest.mark.parametrize("kind", ["nginx", "caddy"])
@pytest.mark.parametrize("path", ["stream", f"{SERVICE}/engineer", SERVICE])
def test_a_gateway_using_a_guards_token_is_refused(gate: GateDoor, kind: str, path: str) -> None:
    good = [one for one in gate.question(kind, gate.path()) if one[0] not in {"Lockbox-Gateway", "Host", ENGINEER}]

    assert asked(gate, None, *good, path=path).reason == "malformed"


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_a_guard_must_ask_by_get_without_a_body(gate: GateDoor, method: str) -> None:
    assert asked(gate, about(gate), method=method).status == 403
    assert asked(gate, about(gate), ("Content-Length", "3")).reason == "malformed"


@pytest.mark.parametrize("kind", ["nginx", "envoy"])
@pytest.mark.parametrize("end", ["check", "engineer"])
def test_a_gateways_token_is_refused_at_guard_addresses(gate: GateDoor, kind: str, end: str) -> None:
    answer = gate.send(gate.question(kind, gate.path()), f"/gate/v1/{SERVICE}/{end}?{about(gate)}")

    assert answer.status == 403
