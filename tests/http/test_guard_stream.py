"""The change stream as guards read it: what it says, in which order, where it resumes, and what ends it."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from gate import stream as gate_stream
from gate.window_memory import ChangeKind
from harness.gateway_world import ANNA, GUARD, PATIENCE, SERVICE
from harness.people import HERE, SETTINGS
from harness.wait import wait_for
from lockbox.admin import tenants
from lockbox.database import publish_after_commit
from lockbox.identity import authentication, token_creation
from lockbox.identity.roles import Role, Scope
from lockbox.identity.sessions import ClientInfo
from lockbox.pubsub import OPERATORS, SIDES
from lockbox.requests import activity
from lockbox.requests.activity import ActivityEntry
from lockbox.requests.lifecycle import Action
from tests.http.door import Door
from tests.http.gate_door import GateDoor, gate_before
from tests.http.guard_streams import GuardReader, ToldEvent, requests_in
from tests.unit.gate_examples import open_window

FEW = SETTINGS.model_copy(update={"gate_compare_every": 1_000_000, "gate_streams": 4, "gate_streams_per_token": 3})
CLIENTS, WINDOWS_A_CLIENT = 16, 12
Opener = Callable[..., GuardReader]


@pytest.fixture
def gate(fresh_door: Door) -> Iterator[GateDoor]:
    with gate_before(fresh_door.world, fresh_door.db, FEW) as opened:
        yield opened


@pytest.fixture
def reader(gate: GateDoor) -> Iterator[Opener]:
    made: list[GuardReader] = []

    def opened(**how: Any) -> GuardReader:
        made.append(GuardReader(gate, **how))
        return made[-1]

    yield opened
    for one in made:
        one.close()


def opened(gate: GateDoor, address: str = ANNA, **changes: Any) -> str:
    request = gate.world.submit(**({"resources": [f"mailbox:{address}"]} | changes))
    return str(gate.world.act("ann", Action.APPROVE, request.id).id)


def in_memory(gate: GateDoor, *requests: str) -> None:
    """Wait until the gate knows these windows."""
    wanted = {UUID(request) for request in requests}
    wait_for("the windows are in memory", lambda: wanted <= set(gate.gateway.memory.requests()), PATIENCE)


def test_the_guard_stream_sends_the_open_windows_and_then_changes(gate: GateDoor, reader: Opener) -> None:
    before = opened(gate, resources=[f"mailbox:{ANNA}", "site:HR"], actions=["read", "export"])
    in_memory(gate, before)

    stream = reader()

    (first,) = stream.snapshot()
    (window,) = (one for one in first.said["windows"] if one["tenant"] == gate.world.tenant.slug)
    until = datetime.fromisoformat(window.pop("until"))
    assert window == {
        "request": before,
        "tenant": gate.world.tenant.slug,
        "service": SERVICE,
        "engineer": str(gate.world.people["erin"].person_id),
        "resources": [f"mailbox:{ANNA}", "site:HR"],
        "actions": ["export", "read"],
    }
    assert timedelta(0) < until - datetime.fromisoformat(first.said["at"]) <= timedelta(hours=4)
    later = opened(gate, "bob@contoso.example")
    assert stream.until("open").said["request"] == later
    gate.world.act("tara", Action.REVOKE, UUID(before))
    revoked = time.monotonic()
    closed = stream.until("close")
    assert closed.said == {"request": before}
    assert closed.came - revoked < PATIENCE
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["cache-control"] == "no-store"


@pytest.mark.far
def test_the_guard_stream_sends_heartbeats_only_while_the_gate_reads_postgres(gate: GateDoor, reader: Opener) -> None:
    stream = reader()
    beats = [stream.until("heartbeat") for _ in range(4)]

    assert beats[-1].came - beats[0].came < 6
    assert all(one.said["at"] < two.said["at"] for one, two in pairwise(beats))

    gate.gateway.reader.stop()
    stopped = time.monotonic()
    while time.monotonic() < stopped + 2.5:
        late = [one for one in _waiting(stream) if one.kind == "heartbeat" and one.came > stopped + 1]
        assert not late
        time.sleep(0.1)
    refused = reader(retries=False)
    assert (refused.status, refused.headers["lockbox-reason"]) == (403, "behind")


def _waiting(stream: GuardReader) -> list[ToldEvent]:
    found = []
    while not stream._events.empty():  # noqa: SLF001 - a test's own reader
        if (one := stream.next()) is not None:
            found.append(one)
    return found


@pytest.mark.far
def test_a_guard_that_resumes_its_stream_gets_no_old_heartbeats(gate: GateDoor, reader: Opener) -> None:
    stream = reader()
    seen = stream.until("heartbeat")
    stream.close()
    missed = [opened(gate), opened(gate, "bob@contoso.example")]
    in_memory(gate, *missed)

    again = reader(last=seen.id)

    kinds = [again.next() for _ in missed]
    assert [kind.kind for kind in kinds if kind] == ["open", "open"]
    assert {kind.said["request"] for kind in kinds if kind} == set(missed)
    assert again.until("heartbeat", "snapshot").kind == "heartbeat"


@pytest.mark.far
@pytest.mark.parametrize("last", ["of another process", "of part of a snapshot", "to come", "nonsense"])
def test_a_guard_that_was_connected_to_another_process_gets_a_snapshot(
    gate: GateDoor, reader: Opener, last: str
) -> None:
    window = opened(gate)
    in_memory(gate, window)
    stream = reader()
    generation, _, number = stream.until("heartbeat").id.partition("-")
    ids = {"of another process": f"{'0' * 16}-{number}", "of part of a snapshot": f"{generation}-0"}
    ids |= {"to come": f"{generation}-{int(number) + 1000}", "nonsense": "x"}

    assert requests_in(gate, reader(last=ids[last]).snapshot()) == [window]


@pytest.mark.far
def test_a_guard_gets_a_snapshot_after_the_window_memory_restarted(gate: GateDoor, reader: Opener) -> None:
    window = opened(gate)
    in_memory(gate, window)
    seen = reader().until("heartbeat")
    gate.gateway.reader._windows.begin_anew()  # noqa: SLF001 - as when another server answers
    wait_for("memory is filled again", lambda: gate.gateway.memory.is_whole, PATIENCE)

    snapshot = reader(last=seen.id).snapshot()

    assert snapshot[0].said["at"] > seen.said["at"]
    assert snapshot[0].kind == "snapshot"


@pytest.mark.far
def test_a_guard_away_for_too_long_gets_a_snapshot(gate: GateDoor, reader: Opener) -> None:
    seen = reader().until("heartbeat")
    for _ in range(gate_stream.MOST_REPLAYED + 10):
        gate.gateway.memory.announce(ChangeKind.FORGET)

    assert reader(last=seen.id).snapshot()


@pytest.mark.far
def test_a_guard_stream_can_be_resumed_only_after_the_last_part_of_a_snapshot(
    gate: GateDoor, reader: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_stream, "SNAPSHOT_WINDOWS", 2)
    windows = [opened(gate, f"{name}@contoso.example") for name in "abcde"]
    in_memory(gate, *windows)

    parts = reader().snapshot()

    assert {len(part.said["windows"]) for part in parts[:-1]} == {2}
    assert len(parts) >= len(windows) / 2
    assert sorted(requests_in(gate, parts)) == sorted(windows)
    assert [part.id.endswith("-0") for part in parts] == [True] * (len(parts) - 1) + [False]


@pytest.mark.far
def test_a_restarting_server_sends_guards_a_new_snapshot(gate: GateDoor, reader: Opener) -> None:
    window = opened(gate)
    in_memory(gate, window)
    stream = reader()
    assert requests_in(gate, stream.snapshot()) == [window]

    gate.gateway.reader._windows.begin_anew()  # noqa: SLF001 - as when another server answers

    assert requests_in(gate, stream.snapshot()) == []
    while stream.until("open").said["request"] != window:
        pass


@pytest.mark.far
def test_the_guard_stream_closes_windows_of_a_tenant_whose_log_is_behind_the_checkpoint(
    gate: GateDoor, reader: Opener
) -> None:
    window = opened(gate)
    in_memory(gate, window)
    stream, tenant = reader(), gate.world.tenant.id
    assert requests_in(gate, stream.snapshot()) == [window]

    gate.gateway.memory.doubt([tenant], [tenant])
    assert stream.until("close").said == {"request": window}
    assert requests_in(gate, reader().snapshot()) == []
    gate.gateway.memory.doubt([tenant], [])

    assert stream.until("open").said["request"] == window


@pytest.mark.far
def test_windows_of_a_suspended_tenant_close_for_guards_and_stay_closed(gate: GateDoor, reader: Opener) -> None:
    window = opened(gate)
    in_memory(gate, window)
    stream = reader()
    with gate.db.transaction() as session:
        tenants.suspend(session, gate.world.people["olga"], HERE, gate.world.tenant.slug)

    assert stream.until("close").said == {"request": window}
    for _ in range(2):
        assert stream.until("open", "heartbeat").kind == "heartbeat"


@pytest.mark.far
def test_a_guard_stream_contains_only_services_of_the_guards_token(gate: GateDoor, reader: Opener) -> None:
    gate.world.add("other", Role.SYSTEM, scopes={Scope.GATE_GUARD}, services={"onedrive"})
    window = opened(gate)
    in_memory(gate, window)
    other, mine = reader(who="other"), reader()
    assert requests_in(gate, other.snapshot()) == []
    assert requests_in(gate, mine.snapshot()) == [window]

    theirs = opened(gate, service="onedrive", resources=["file:1"])

    assert other.until("open", "close").said["request"] == theirs
    gate.world.act("tara", Action.REVOKE, UUID(window))
    assert mine.until("open", "close").said == {"request": window}


@pytest.mark.far
def test_an_identity_change_makes_guards_forget_remembered_callers(gate: GateDoor, reader: Opener) -> None:
    stream = reader()
    stream.snapshot()

    gate.map("eve", GUARD)

    assert stream.until("forget").said == {}


@pytest.mark.far
def test_guards_get_no_close_or_forget_message_after_activity_reports_or_page_updates(
    gate: GateDoor, reader: Opener
) -> None:
    request = opened(gate)
    in_memory(gate, request)
    stream, ids = reader(), [UUID(request)]
    stream.snapshot()

    entry = ActivityEntry(datetime.now(UTC), "GET", f"mailbox:{ANNA}", "served", "read")
    system = replace(gate.world.people[GUARD], scopes=frozenset({Scope.ACTIVITY_REPORT}))
    with gate.db.transaction() as session:
        activity.report(session, system, HERE, UUID(request), [entry])
    for side in (OPERATORS, *SIDES):
        with gate.db.transaction() as session:
            publish_after_commit(session, ids, side)

    told = [stream.until("heartbeat", "open", "close", "forget").kind for _ in range(3)]
    assert told == ["heartbeat"] * 3
    gate.map("eve", GUARD)
    assert stream.until("open", "close", "forget").kind == "forget"


@pytest.mark.far
def test_windows_opened_concurrently_all_reach_the_guard_stream_and_the_gates_memory(
    gate: GateDoor, reader: Opener
) -> None:
    stream = reader()
    stream.snapshot()

    def open_some(client: int) -> list[str]:
        return [opened(gate, f"{client}-{number}@contoso.example") for number in range(WINDOWS_A_CLIENT)]

    with ThreadPoolExecutor(CLIENTS) as pool:
        windows = {one for some in pool.map(open_some, range(CLIENTS)) for one in some}

    in_memory(gate, *windows)
    told = set[str]()
    while not windows <= told:
        event = stream.until("open", "close")
        assert event.kind == "open"
        told.add(event.said["request"])


def test_revoking_a_guards_token_ends_its_streams(gate: GateDoor, reader: Opener) -> None:
    stream, guard = reader(), gate.world.people[GUARD]
    stream.snapshot()
    assert guard.key_id is not None
    with gate.db.transaction() as session:
        authentication.enter(session, guard)
        token_creation.revoke(session, guard, ClientInfo("127.0.0.1", "pytest"), guard.key_id)
    revoked = time.monotonic()

    stream.until_ended()

    assert time.monotonic() - revoked < PATIENCE
    refused = reader()
    assert (refused.status, refused.headers["lockbox-reason"]) == (401, "no_credential")


@pytest.mark.far
def test_the_number_of_guard_streams_is_limited(gate: GateDoor, reader: Opener) -> None:
    gate.world.add("other", Role.SYSTEM, scopes={Scope.GATE_GUARD}, services={SERVICE})
    streams = [reader() for _ in range(3)]
    assert [stream.status for stream in streams] == [200] * 3
    assert (reader().status, reader().headers["lockbox-reason"]) == (403, "busy")
    assert (reader(who="other").status, reader(who="other").status) == (200, 403)

    streams[0].close()
    wait_for("one has gone", lambda: len(gate.gateway.streams) == 3, PATIENCE)

    assert reader().status == 200


@pytest.mark.far
def test_a_guard_that_does_not_read_its_stream_is_disconnected(
    gate: GateDoor, reader: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_stream, "MOST_UNSENT", 50)
    stream = reader(reads=False)
    assert stream.status == 200
    wait_for("it is open", lambda: len(gate.gateway.streams) == 1, PATIENCE)
    until = time.monotonic() + PATIENCE
    while len(gate.gateway.streams):
        assert time.monotonic() < until
        for _ in range(2000):
            gate.gateway.memory.announce(ChangeKind.FORGET)
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["nginx", "envoy"])
def test_a_gateway_token_gets_no_guard_stream(reader: Opener, kind: str) -> None:
    refused = reader(who=kind)

    assert (refused.status, refused.headers["lockbox-decision"]) == (403, "deny")


@pytest.mark.far
def test_a_guard_token_that_reconnects_rapidly_delays_no_other_token(gate: GateDoor, reader: Opener) -> None:
    gate.world.add("other", Role.SYSTEM, scopes={Scope.GATE_GUARD}, services={SERVICE})
    window, spare = opened(gate), opened(gate, "bob@contoso.example")
    in_memory(gate, window, spare)
    gate.gateway.memory.put([open_window(number, SERVICE) for number in range(20_000)])
    stream = reader(who="other")
    assert {window, spare} == set(requests_in(gate, stream.snapshot()))
    ended, began = threading.Event(), time.monotonic()

    with ThreadPoolExecutor(6) as pool:
        attempts = [pool.submit(_come_back, gate, ended) for _ in range(6)]
        try:
            time.sleep(1)
            answers = [_timed(gate, "bob@contoso.example") for _ in range(100)]
            gate.world.act("tara", Action.REVOKE, UUID(window))
            revoked = time.monotonic()
            while stream.until("close").said["request"] != window:
                pass
            heard = time.monotonic()
        finally:
            ended.set()
        begun, refused = (sum(column) for column in zip(*(attempt.result() for attempt in attempts), strict=True))

    assert heard - revoked < PATIENCE
    assert {status for status, _ in answers} == {200}
    assert sorted(took for _, took in answers)[len(answers) // 2] < 1
    at_once = 2 * FEW.gate_streams_per_token
    assert 1 < begun <= at_once + gate_stream.BEGUN_A_SECOND * (time.monotonic() - began) + 1
    assert refused > begun


def _come_back(gate: GateDoor, ended: threading.Event) -> tuple[int, int]:
    """Repeatedly open a stream and leave after its first byte; return how many began and how many were refused."""
    begun = refused = 0
    while not ended.is_set():
        stream = GuardReader(gate, reads=False)
        if stream.status == 200:
            stream.connection.sock.recv(1)
            begun += 1
        else:
            refused += 1
        stream.close()
    return begun, refused


def _timed(gate: GateDoor, address: str) -> tuple[int, float]:
    began = time.monotonic()
    status = gate.ask(path=gate.path(address)).status
    return status, time.monotonic() - began


@pytest.mark.far
def test_guard_streams_end_at_shutdown(gate: GateDoor, reader: Opener) -> None:
    stream = reader()
    stream.snapshot()

    gate.gateway.streams.shut()

    stream.until_ended()
    assert reader().status == 403
