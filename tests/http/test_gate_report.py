"""A gate in report mode: which calls it lets pass that it would refuse, for whom, and what it still refuses."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from catalogue.gate_document import GateCallers, PathRule, ServiceGate, TenantSource, TokenIssuer
from catalogue.service_catalogue import Catalogue, Plan, Service
from gate import enforcement
from gate.answers import REPORTABLE, UNAUTHENTICATED, GateReason
from gate.enforcement import ENFORCE, REPORT
from gate.memory_reader import GATE
from harness.gateway_world import ENGINEER
from harness.people import HERE
from harness.wait import wait_for
from lockbox.admin import tenants
from lockbox.identity import authentication, roles
from lockbox.identity.roles import Role
from lockbox.requests import submit
from lockbox.requests.lifecycle import Action
from tests.http.door import Door
from tests.http.gate_door import GateAnswer, GateDoor, gate_before

NEVER, ASKED, ALLOWED, ENFORCED = "never-enforced", "asked-back", "allowed-back", "enforced"
FRESH, TAKEN, UNBOUND = "switched", "taken-back", "unbound"
ISSUER = TokenIssuer(issuer="https://sso.vendor.example", audience="gate", jwks_url="https://sso.vendor.example/keys")
ERIN = (ENGINEER, "erin")


def service(says: str) -> Service:
    """Return a service whose gate the catalogue has in this mode."""
    gate = ServiceGate(
        enforcement=says,  # type: ignore[arg-type]
        tenant=TenantSource(path="org"),
        callers=GateCallers(entrance="support", engineer_header=ENGINEER),
        paths=(
            PathRule(methods=("GET",), path="/{org}/boxes/{id}", resource="box:{id}", action="read"),
            PathRule(methods=("PUT",), path="/{org}/boxes/{id}", resource="box:{id}", action="change"),
        ),
    )
    return Service(title=says, gate=gate)


CATALOGUE = Catalogue(
    services={
        **{name: service(REPORT) for name in (NEVER, ASKED, ALLOWED, FRESH, TAKEN, UNBOUND)},
        ENFORCED: service(ENFORCE),
    },
    plans={"standard": Plan()},
    issuers=(ISSUER,),
)
MODES = {NEVER: True, ALLOWED: True, ASKED: False, ENFORCED: False}


@dataclass
class ReportingDoor:
    """A gate of several services, and how to ask about a call to one of them."""

    gate: GateDoor

    def ask(
        self,
        service: str,
        path: str = "/boxes/1",
        *more: tuple[str, str],
        tenant: str | None = None,
    ) -> GateAnswer:
        """Ask as nginx does; `more` are the headers by which the call says whose it is, and others."""
        org = self.gate.world.tenant.slug if tenant is None else tenant
        headers = [("Host", "lockbox.example"), ("Lockbox-Gateway", self.gate.world.tokens["all-services"])]
        headers += [("X-Original-Method", "GET"), ("X-Original-URI", f"/{org}{path}"), *more]
        return self.gate.send(headers, f"/gate/v1/{service}")


@pytest.fixture(scope="module")
def gates(door: Door) -> Iterator[ReportingDoor]:
    """A gate with a service that never enforced, and three switched back to report, two of these with consent."""
    world = door.world
    for says in (ENFORCE, REPORT):
        switch(door, dict.fromkeys((ASKED, ALLOWED, TAKEN), says))
    with gate_before(world, door.db, catalogue=CATALOGUE) as gate:
        world.add("all-services", Role.SYSTEM, scopes={roles.Scope("gate:nginx")}, services={*MODES, FRESH, TAKEN})
        gate.map("erin", "all-services")
        with world.db.transaction() as session:
            for one in (ALLOWED, TAKEN):
                enforcement.allow_report(session, world.people["tara"], HERE, world.tenant.slug, one, revision=2)
        modes = gate.gateway.modes
        wait_for("the gate knows", lambda: all(map(modes.reports_anywhere, (NEVER, ALLOWED, TAKEN))), 20)
        yield ReportingDoor(gate)


@pytest.fixture
def late_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gate report though its last read is seconds old, as happens on a busy machine."""
    monkeypatch.setattr(enforcement, "FRESH_SECONDS", 20.0)


def switch(door: Door, says: dict[str, str]) -> None:
    """Record a catalogue's modes of gates, as a starting process does."""
    with door.db.transaction() as session:
        authentication.enter(session, GATE)
        enforcement.record(session, says)


def approved(gate: GateDoor, service: str, asked: list[str], granted: list[str]) -> None:
    world = gate.world
    with world.db.transaction() as session:
        wanted = world.submission(service=service, resources=asked)
        request = submit.submit(session, world.people["erin"], HERE, wanted, CATALOGUE.services).request
    world.act("ann", Action.APPROVE, request.id, resources=granted)


CALLS: dict[GateReason, Callable[[ReportingDoor, str], GateAnswer]] = {
    GateReason.NO_WINDOW: lambda one, service: one.ask(service, "/boxes/1", ERIN),
    GateReason.NARROWED: lambda one, service: one.ask(service, "/boxes/7", ERIN),
    GateReason.UNMAPPED: lambda one, service: one.ask(service, "/crates/1", ERIN),
    GateReason.UNKNOWN_ENGINEER: lambda one, service: one.ask(service, "/boxes/1", (ENGINEER, "nobody")),
    GateReason.NO_TOKEN: lambda one, service: one.ask(service),
    GateReason.BAD_TOKEN: lambda one, service: one.ask(service, "/boxes/1", ("Authorization", "Bearer a.b.c")),
    GateReason.MALFORMED: lambda one, service: one.ask(service, "/boxes/../1", ERIN),
}


@pytest.mark.usefixtures("late_reads")
@pytest.mark.parametrize("service", MODES)
@pytest.mark.parametrize("reason", CALLS)
def test_a_gate_in_report_mode_lets_calls_pass_and_reports_mode_and_reason(
    gates: ReportingDoor, service: str, reason: GateReason
) -> None:
    if reason is GateReason.NARROWED:
        approved(gates.gate, service, ["box:7", "box:8"], ["box:8"])

    answer = CALLS[reason](gates, service)

    has_tenant = reason not in {GateReason.UNMAPPED, GateReason.MALFORMED}
    is_let_in = MODES[service] and reason in REPORTABLE and (has_tenant or service != ALLOWED)
    check(answer, reason, is_let_in=is_let_in)


@pytest.mark.usefixtures("late_reads")
@pytest.mark.parametrize("service", MODES)
def test_calls_to_a_suspended_tenant_pass_only_if_the_gate_is_in_report_mode(
    gates: ReportingDoor, service: str
) -> None:
    world = gates.gate.world
    with world.db.transaction() as session:
        tenants.suspend(session, world.people["olga"], HERE, world.tenant.slug)
    try:
        answer = gates.ask(service, "/boxes/s", ERIN)
    finally:
        with world.db.transaction() as session:
            tenants.resume(session, world.people["olga"], HERE, world.tenant.slug)

    check(answer, GateReason.SUSPENDED, is_let_in=MODES[service])


@pytest.mark.usefixtures("late_reads")
@pytest.mark.parametrize("reason", [GateReason.UNKNOWN_ENGINEER, GateReason.NO_TOKEN, GateReason.BAD_TOKEN])
@pytest.mark.parametrize("path", ["/crates/1", "/boxes/../1", "//boxes/1"])
def test_a_call_without_a_tenant_in_its_path_passes_only_if_the_gate_never_enforced(
    gates: ReportingDoor, reason: GateReason, path: str
) -> None:
    shown = {
        GateReason.UNKNOWN_ENGINEER: [(ENGINEER, "nobody")],
        GateReason.NO_TOKEN: [],
        GateReason.BAD_TOKEN: [("Authorization", "Bearer a.b.c")],
    }
    check(gates.ask(NEVER, path, *shown[reason]), reason, is_let_in=True)
    assert gates.ask(ALLOWED, path, *shown[reason]).status in {401, 403}
    assert gates.ask(ASKED, path, *shown[reason]).status in {401, 403}


@pytest.mark.usefixtures("late_reads")
def test_a_call_to_an_unknown_tenant_passes_only_if_the_gate_never_enforced(gates: ReportingDoor) -> None:
    for service, is_let_in in {NEVER: True, ALLOWED: False, ASKED: False, ENFORCED: False}.items():
        check(gates.ask(service, "/boxes/1", ERIN, tenant="nobody"), GateReason.NO_WINDOW, is_let_in=is_let_in)


def test_a_call_with_a_window_is_allowed_as_usual_by_a_gate_in_report_mode(gates: ReportingDoor) -> None:
    approved(gates.gate, NEVER, ["box:in"], ["box:in"])

    answer = gates.ask(NEVER, "/boxes/in", ERIN)

    assert (answer.status, answer.headers["lockbox-decision"]) == (200, "allow")
    assert "lockbox-request" in answer.headers


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([("Lockbox-Gateway", "lbx_test_evil")], GateReason.MALFORMED),
        ([("X-Forwarded-Uri", "/x")], GateReason.MALFORMED),
        ([("X-Original-URI", "/x")], GateReason.MALFORMED),
        ([("Content-Length", "3")], GateReason.MALFORMED),
        ([("Authorization", "Bearer a.b.c")], GateReason.MALFORMED),
    ],
)
def test_a_gate_in_report_mode_still_refuses_malformed_questions_of_a_gateway(
    gates: ReportingDoor, headers: list[tuple[str, str]], reason: GateReason
) -> None:
    check(gates.ask(NEVER, "/boxes/1", ERIN, *headers), reason, is_let_in=False)


def test_a_gate_in_report_mode_still_refuses_gateways_without_a_token_for_the_service(gates: ReportingDoor) -> None:
    world = gates.gate.world
    path = f"/{world.tenant.slug}/boxes/1"
    asked = [("X-Original-Method", "GET"), ("X-Original-URI", path), ERIN]

    nothing = gates.gate.send(asked, f"/gate/v1/{NEVER}")
    stranger = gates.gate.send([("Lockbox-Gateway", "lbx_test_evil"), *asked], f"/gate/v1/{NEVER}")
    unbound = gates.ask(UNBOUND, "/boxes/1", ERIN)

    check(nothing, GateReason.NO_CREDENTIAL, is_let_in=False)
    check(stranger, GateReason.NO_CREDENTIAL, is_let_in=False)
    check(unbound, GateReason.UNMAPPED, is_let_in=False)


@pytest.mark.far
def test_the_gate_refuses_every_call_within_a_second_of_a_switch_to_enforce(gates: ReportingDoor, door: Door) -> None:
    """Many calls run during the switch; those that begin within the second may pass or be refused."""
    wait_for("the gate reports", lambda: gates.ask(FRESH, "/boxes/1", ERIN).status == 200, 20)

    def call(_: int) -> tuple[float, int]:
        began = time.monotonic()
        return began, gates.ask(FRESH, "/boxes/1", ERIN).status

    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(call, number) for number in range(400)]
        time.sleep(0.1)
        switch(door, {FRESH: ENFORCE})
        switched = time.monotonic()
        while time.monotonic() < switched + 1.5:
            calls.append(pool.submit(call, 0))
            time.sleep(0.005)
        answers = [one.result() for one in calls]

    late = [status for began, status in answers if began > switched + 1]
    assert late
    assert set(late) == {403}
    assert 200 in {status for _, status in answers}


@pytest.mark.far
def test_withdrawing_consent_makes_the_gate_enforce_within_a_second(gates: ReportingDoor) -> None:
    world = gates.gate.world
    wait_for("the gate reports", lambda: gates.ask(TAKEN, "/boxes/1", ERIN).status == 200, 20)

    with world.db.transaction() as session:
        enforcement.end_report(session, world.people["tara"], HERE, world.tenant.slug, TAKEN)
    time.sleep(1)

    check(gates.ask(TAKEN, "/boxes/1", ERIN), GateReason.NO_WINDOW, is_let_in=False)


def check(answer: GateAnswer, reason: GateReason, *, is_let_in: bool) -> None:
    """Check an answer, and that the answer to a would-be refusal names no request."""
    said = {name: value for name, value in answer.headers.items() if name.startswith("lockbox-")}
    if is_let_in:
        assert (answer.status, said) == (200, {"lockbox-decision": "would-deny", "lockbox-reason": reason.value})
        assert answer.body == b""
    else:
        assert answer.status == (401 if reason in UNAUTHENTICATED else 403), said
        assert (said["lockbox-decision"], said["lockbox-reason"]) == ("deny", reason.value)


def test_a_customer_sees_which_gates_do_not_enforce_for_their_tenant(gates: ReportingDoor) -> None:
    world = gates.gate.world
    for service, is_said in {NEVER: True, ALLOWED: True, ASKED: False, ENFORCED: False}.items():
        with world.db.transaction() as session:
            wanted = world.submission(service=service)
            request = submit.submit(session, world.people["erin"], HERE, wanted, CATALOGUE.services).request
        with world.db.transaction() as session:
            authentication.enter(session, world.people["ann"])
            said = enforcement.is_unenforced(session, request.id)
        assert said is is_said, service


@pytest.mark.usefixtures("late_reads")
def test_the_gate_report_names_callers_and_path_patterns_but_no_resources_or_secrets(
    gates: ReportingDoor, door: Door
) -> None:
    gates.ask(NEVER, "/boxes/report-me?key=s3cret", ERIN)
    gates.ask(NEVER, "/crates/41/labels?key=s3cret", ERIN)
    gates.ask(NEVER, "/boxes/report-me?s3cret;draft", ERIN)
    gates.ask(NEVER, "/boxes/report-me", ERIN)
    gates.ask(NEVER, "/boxes/report-me", (ENGINEER, "stranger"))
    gates.ask(NEVER, "/boxes/report-me")
    gates.ask(ASKED, "/boxes/report-me", ERIN)
    for kind in ("application/grpc+proto; x=s3cret", "application/json"):
        gates.ask(NEVER, "/boxes/report-me", ERIN, ("Content-Type", kind))
    assert gates.gate.gateway.writer.round()

    answer = door.get("olga", f"/v1/gate/enforcement/{NEVER}/report")
    enforced = door.get("olga", f"/v1/gate/enforcement/{ASKED}/report")

    assert answer.status_code == 200
    assert "s3cret" not in answer.text
    assert "report-me" not in answer.text
    found = {one["reason"]: one["kinds"] for one in answer.json()["items"]}
    tenant = gates.gate.world.tenant.slug
    org = tenant if tenant.isalpha() else "{}"
    unmapped = {f"GET /{org}/boxes/{{}}?key", f"GET /{org}/crates/{{}}/labels?key"}
    assert unmapped <= {one["path"] for one in found["unmapped"]}
    assert f"GET /{org}/boxes/{{}} with the content type application/grpc" in {
        one["path"] for one in found["unmapped"]
    }
    assert f"GET /{org}/boxes/{{}}?{{}}" in {one["path"] for one in found["malformed"]}
    assert ("GET /{org}/boxes/{id}", tenant, "Erin") in {
        (one["path"], one["tenant"], one["engineer"]["name"]) for one in found["no_window"]
    }
    assert {"stranger"} <= {one["identity"].rpartition(" ")[2] for one in found["unknown_engineer"]}
    assert "GET /{org}/boxes/{id}" in {one["path"] for one in found["no_token"]}
    assert enforced.json()["items"] == []
