"""The guard in front of a service, with the real API: who is let in, and that a revoke ends running calls."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from lockbox_guard import Guard, Refused

from harness.gateway_world import ANNA, ENGINEER, GUARD, PUBLIC, SERVICE
from harness.wait import wait_for
from lockbox.identity import authentication
from lockbox.identity.roles import Role, Scope
from lockbox.requests import activity
from lockbox.requests.lifecycle import Action
from tests.guarded_apps import PIECE, GuardedService, OpenCall, get, send_slowly, served, websocket
from tests.http.door import Door
from tests.http.gate_door import GateDoor, gate_before

PATIENCE = 20.0
MANY = 20
MAILBOX = f"mailbox:{ANNA}"
LIMITS = [
    "activity.ANSWER_SECONDS",
    "database_clock.QUIET_SECONDS",
    "remote.ASK_SECONDS",
    "running_guard.LAST_SECONDS",
    "running_guard.START_SECONDS",
    "stream_reader.SILENCE_SECONDS",
]


@pytest.fixture(autouse=True)
def _patient_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the guard wait long for Lockbox on a busy machine."""
    for limit in LIMITS:
        monkeypatch.setattr(f"lockbox_guard.{limit}", PATIENCE)


@pytest.fixture(scope="module")
def gate(door: Door) -> Iterator[GateDoor]:
    with gate_before(door.world, door.db) as found:
        yield found


@pytest.fixture(scope="module")
def guard(gate: GateDoor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guard]:
    file: Path = tmp_path_factory.mktemp("guard") / "token"
    file.write_text(gate.world.tokens[GUARD])
    made = Guard(f"http://127.0.0.1:{gate.port}", service=SERVICE, token_file=file, engineer_header=ENGINEER)
    yield made
    made.stop()


def approved(gate: GateDoor) -> UUID:
    request = gate.world.submit(resources=[MAILBOX])
    gate.world.act("ann", Action.APPROVE, request.id)
    return request.id


def why_not(guard: Guard, gate: GateDoor, who: str = "erin", **about: str) -> str | None:
    """Return why a check is refused; None if it is not."""
    asked = {"tenant": gate.world.tenant.slug, "resource": MAILBOX, "action": "read"} | about
    try:
        guard.check(**asked, subject=who)
    except Refused as refused:
        return refused.reason
    return None


def test_the_guard_first_asks_about_a_new_window_and_later_answers_from_memory(gate: GateDoor, guard: Guard) -> None:
    wait_for("the guard knows of no window", lambda: why_not(guard, gate) == "no_window", PATIENCE)
    request = approved(gate)
    wait_for("the window is open", lambda: why_not(guard, gate) is None, PATIENCE)

    use = {"tenant": gate.world.tenant.slug, "resource": MAILBOX, "action": "read"}
    allowed = guard.check(**use, subject="erin")

    assert (allowed.request, allowed.engineer) == (request, gate.world.people["erin"].person_id)
    wait_for("the stream has brought the window", lambda: guard.check(**use, subject="erin").is_known, PATIENCE)
    assert guard.check(**use, engineer=gate.world.people["erin"].person_id).request == request
    assert why_not(guard, gate, "mallory") == "unknown_engineer"
    assert why_not(guard, gate, action="export") == "no_window"
    gate.world.act("ann", Action.REVOKE, request)
    wait_for("it is over", lambda: why_not(guard, gate) == "no_window", PATIENCE)


def test_a_refusal_of_the_guard_links_to_the_request_form(gate: GateDoor, guard: Guard) -> None:
    with pytest.raises(Refused) as refused:
        guard.check(
            tenant=gate.world.tenant.slug, resource="mailbox:ceo@contoso.example", action="read", subject="erin"
        )

    assert str(refused.value.form).startswith(f"{PUBLIC}/ask?tenant={gate.world.tenant.slug}&service={SERVICE}")


def stream(port: int) -> OpenCall:
    call = get(port, "/mailboxes/anna/live")
    call.wait_for(PIECE)
    return call


def upload(port: int) -> OpenCall:
    call = get(port, "/mailboxes/anna", "Transfer-Encoding: chunked", method="POST")
    send_slowly(call)
    return call


def talk(port: int) -> OpenCall:
    call = websocket(port, "/mailboxes/anna/live")
    call.wait_for(PIECE)
    return call


@pytest.mark.far
def test_a_revoke_makes_the_guard_end_a_websocket_a_stream_and_an_upload(gate: GateDoor, guard: Guard) -> None:
    wait_for("no other window is open", lambda: why_not(guard, gate) == "no_window", PATIENCE)
    request = approved(gate)
    wait_for("the window is open", lambda: why_not(guard, gate) is None, PATIENCE)
    service = GuardedService(guard, gate.world.tenant.slug, subject="erin")
    with served(service) as port:
        begin: tuple[Callable[[int], OpenCall], ...] = (stream, upload, talk)
        calls = [one(port) for one in begin]
        time.sleep(4.0)
        assert [call.ended_at for call in calls] == [None, None, None]
        wait_for("the upload has begun", lambda: service.received > 0, PATIENCE)

        gate.world.act("ann", Action.REVOKE, request)

        for call in calls[:2]:
            call.wait_for_end()
        calls[2].wait_for(b"window has ended")
        calls[2].close()
    assert not calls[0].read.endswith(b"0\r\n\r\n")
    assert calls[1].read.startswith(b"HTTP/1.1 403")


def test_the_guard_records_activity(gate: GateDoor, tmp_path: Path) -> None:
    world = gate.world
    world.add("reporter", Role.SYSTEM, scopes={Scope.ACTIVITY_REPORT}, services={SERVICE})
    tokens = {name: tmp_path / name for name in (GUARD, "reporter")}
    for name, file in tokens.items():
        file.write_text(world.tokens[name])
    request = approved(gate)
    guard = Guard(
        f"http://127.0.0.1:{gate.port}",
        service=SERVICE,
        token_file=tokens[GUARD],
        engineer_header=ENGINEER,
        reports_token_file=tokens["reporter"],
    )
    use = {"tenant": world.tenant.slug, "resource": MAILBOX, "action": "read"}
    wait_for("the window is open", lambda: why_not(guard, gate) is None, PATIENCE)
    allowed = [guard.check(**use, subject="erin")]
    while sum(one.is_known for one in allowed) < MANY:
        allowed.append(guard.check(**use, subject="erin"))
    for _ in range(5):
        guard.report(allowed[0], method="GET")

    guard.stop()

    assert gate.gateway.writer.round()
    with world.db.transaction() as session:
        authentication.enter(session, world.people["ann"])
        used = activity.usage(session, request)
    assert used.times == 1 + len(allowed), "each is counted once, by the gate or by the guard"
    assert used.last is not None
    assert (used.last.gateway, used.last.resource) == ("Reporter", MAILBOX)
    world.act("ann", Action.REVOKE, request)
    with world.db.transaction() as session:
        authentication.enter(session, world.people["ann"])
        (done,) = activity.read(session, world.people["ann"], request)
    assert (done.method, done.resource, done.action, done.outcome, done.count) == (
        "GET",
        MAILBOX,
        "read",
        "served",
        5,
    )
    assert done.as_asked
