"""The gate's memory of open windows: what it reads in, when it drops a window, and when it is not used."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from gate import identity_map, window_verification
from gate.identity_map import HEADER, MappingInput
from gate.memory_reader import GATE, MemoryReader
from gate.window_memory import BOOT_CLOCK, ChangeKind, MemoryChange, RememberedWindow, WindowMemory
from harness.clocks import ShiftedClock
from harness.people import HERE, World
from harness.stage import setting
from harness.wait import wait_for
from lockbox.admin import tenants, vendor_staff
from lockbox.database import Database, UnitOfWork
from lockbox.identity import authentication, sessions
from lockbox.identity import tenants as all_tenants
from lockbox.identity.roles import Role, RoleGrant
from lockbox.identity.sessions import ClientInfo
from lockbox.requests import access_check, decide, timers
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import RequestEntry
from tests.database.scenes import MAILBOX, PATIENCE, door, many, read, write
from tests.passkey_approvals import DEMANDED, approve, enrol


class Watched:
    """A memory and its reader; the clock moves, and the reader reads, only when the test says so."""

    def __init__(self, db: Database) -> None:
        self.later = BOOT_CLOCK()
        self.memory = WindowMemory(self._clock)
        self.reader = MemoryReader(db, self.memory)
        self.settle()

    def _clock(self) -> float:
        self.later += 1e-6
        return self.later

    def settle(self) -> None:
        """Read until nothing waits to be verified."""
        while self.reader.read():
            pass

    def find(
        self, world: World, who: str = "erin", resource: str = MAILBOX, action: str = "read"
    ) -> RememberedWindow | None:
        engineer = world.people[who].person_id
        return self.memory.find(AccessCheck(world.tenant.slug, "exchange-online", resource, action, engineer))


@pytest.fixture
def watched(api: Database, world: World) -> Watched:
    """The memory of a world in which nothing is open."""
    assert world.db is api
    return Watched(api)


def opened(world: World, who: str = "erin", **changes: Any) -> UUID:
    request = world.submit(who, **changes)
    return world.act("ann", Action.APPROVE, request.id).id


def tell(superuser: Engine, action: str, tenant: UUID | None, body: str = "{}") -> None:
    write(
        superuser,
        "INSERT INTO events (id, tenant_id, at, action, actor_role, body) VALUES (uuidv7(), :tenant, now(), :action, "
        "'owner', convert_to(:body, 'UTF8'))",
        tenant=tenant,
        action=action,
        body=body,
    )


def test_a_remembered_window_matches_exactly_the_calls_it_covers(watched: Watched, world: World) -> None:
    assert watched.find(world) is None
    request_id = opened(world, resources=[MAILBOX, "site:HR"], actions=["read", "export"])
    assert watched.find(world) is None

    watched.settle()

    (row,) = read(world.db, "SELECT deadline_at FROM requests")
    found = watched.find(world)
    assert found is not None
    assert (found.request_id, found.until) == (request_id, row.deadline_at)
    assert watched.find(world, resource="site:HR", action="export") == found
    assert watched.find(world, resource="site:hr") is None
    assert watched.find(world, action="change") is None
    assert watched.find(world, who="eve") is None


def test_windows_open_before_the_gate_starts_are_read_page_by_page(
    api: Database, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_verification, "VERIFIED_AT_ONCE", 4)
    ids = many(world, 7)
    for one in ids:
        world.act("ann", Action.APPROVE, one)

    watched = Watched(api)

    assert sorted(watched.memory.requests()) == sorted(ids)


def test_a_narrowed_window_covers_only_the_granted_part(watched: Watched, world: World) -> None:
    request = world.submit(resources=[MAILBOX, "site:HR"])
    world.act("ann", Action.APPROVE, request.id, resources=["site:HR"])

    watched.settle()

    assert watched.find(world) is None
    assert watched.find(world, resource="site:HR") is not None


@pytest.mark.parametrize("ending", [("erin", Action.COMPLETE), ("tara", Action.REVOKE), ("max", Action.REVOKE)])
def test_an_ended_window_is_dropped_by_the_next_memory_read(
    watched: Watched, world: World, ending: tuple[str, Action]
) -> None:
    request_id = opened(world)
    watched.settle()

    world.act(*ending, request_id)
    assert watched.find(world) is not None
    watched.reader.read()

    assert watched.find(world) is None


def test_the_gate_uses_the_longest_of_several_remembered_windows(watched: Watched, world: World) -> None:
    short, long = opened(world, access_window=600), opened(world, access_window=1200)
    watched.settle()
    found = watched.find(world)
    assert found is not None
    assert found.request_id == long

    world.act("tara", Action.REVOKE, long)
    watched.settle()

    found = watched.find(world)
    assert found is not None
    assert found.request_id == short


def test_the_gate_does_not_use_window_memory_older_than_a_second(watched: Watched, world: World) -> None:
    opened(world)
    watched.settle()

    watched.later += 0.9
    assert watched.find(world) is not None
    watched.later += 0.1
    assert watched.find(world) is None
    watched.reader.read()

    assert watched.find(world) is not None


def test_the_window_memory_compares_deadlines_with_the_databases_clock(api: Database, world: World) -> None:
    opened(world, access_window=6000)
    api.clock = later = ShiftedClock()
    watched = Watched(api)

    later.shift = timedelta(seconds=5900)
    watched.reader.read()
    assert watched.find(world) is not None
    later.shift = timedelta(seconds=6000)
    watched.reader.read()

    assert watched.find(world) is None


def test_the_gate_closes_a_window_on_time_even_if_no_worker_has_ended_the_window_yet(
    watched: Watched, world: World
) -> None:
    opened(world)
    watched.settle()
    deadline = read(world.db, "SELECT deadline_at FROM requests")[0].deadline_at

    watched.memory.note_read(watched.memory.clock(), deadline - timedelta(seconds=0.5))
    assert watched.find(world) is not None
    watched.later += 0.5

    assert watched.find(world) is None


def test_the_database_time_of_a_memory_read_counts_from_the_start_of_the_read(world: World, watched: Watched) -> None:
    opened(world, access_window=600)
    watched.settle()
    deadline = read(world.db, "SELECT deadline_at FROM requests")[0].deadline_at
    began = watched.memory.clock()
    watched.later += 0.4

    watched.memory.note_read(began, deadline - timedelta(seconds=0.4))

    assert watched.find(world) is None


@pytest.mark.parametrize("how", ["suspend", "disable", "role"])
def test_a_suspended_tenant_or_former_engineer_has_no_remembered_window(
    watched: Watched, world: World, how: str
) -> None:
    opened(world)
    opened(world, "eve", resources=["site:HR"])
    watched.settle()

    with world.db.transaction() as session:
        olga, erin = world.people["olga"], world.people["erin"].person_id
        if how == "suspend":
            tenants.suspend(session, olga, HERE, world.tenant.slug)
        elif how == "disable":
            vendor_staff.disable(session, olga, HERE, erin)
        else:
            vendor_staff.remove(session, olga, HERE, erin)
    watched.reader.read()

    assert watched.find(world) is None
    assert (watched.find(world, "eve", "site:HR") is None) is (how == "suspend")


@pytest.mark.parametrize(
    "told",
    [
        "tenant_suspended of the tenant",
        "tenant_resumed of the tenant",
        "person_disabled of the person",
        "member_changed of the person",
        "member_removed of the person",
        "passkey_removed of the tenant",
        "passkey_removed of nobody",
        "person_erased of nobody",
        "powers_rekeyed of nobody",
        "restored of nobody",
    ],
)
def test_changes_that_may_end_a_window_make_the_gate_verify_that_window_again(
    watched: Watched, world: World, superuser: Engine, told: str
) -> None:
    action, _, about = told.partition(" of ")
    opened(world)
    opened(world, "eve", resources=["site:HR"])
    watched.settle()
    erin = world.people["erin"].person_id
    write(superuser, "UPDATE people SET disabled_at = now() WHERE id = :id", id=erin)
    watched.settle()
    assert watched.find(world) is not None, "nothing says so"

    body = f'{{"person_id":"{erin}"}}' if about == "the person" else "{}"
    tell(superuser, action, world.tenant.id if about == "the tenant" else None, body)
    watched.settle()

    assert watched.find(world) is None
    assert watched.find(world, "eve", "site:HR") is not None


def test_a_window_reported_as_ended_stays_out_of_memory_until_it_is_read_as_open_again(
    watched: Watched, world: World
) -> None:
    request_id = opened(world)
    watched.settle()

    watched.reader.hear_ended(["not an id", str(request_id)])

    assert watched.find(world) is None
    watched.settle()
    assert watched.find(world) is not None


def test_a_change_message_makes_the_gate_verify_a_window_and_drop_it_only_if_invalid(
    watched: Watched, world: World, superuser: Engine
) -> None:
    request_id = opened(world)
    watched.settle()
    told: list[MemoryChange] = []
    watched.memory.listen(told.extend)

    watched.reader.hear(["not an id", str(request_id)])
    watched.settle()
    assert watched.find(world) is not None
    write(superuser, "UPDATE people SET disabled_at = now() WHERE id = :id", id=world.people["erin"].person_id)
    watched.settle()
    before = [one.kind for one in told if one.kind is not ChangeKind.HEARTBEAT]
    watched.reader.hear([str(request_id)])
    watched.settle()

    assert before == []
    assert watched.find(world) is None
    assert [one.kind for one in told if one.kind is not ChangeKind.HEARTBEAT] == [ChangeKind.CLOSE]


@pytest.fixture
def idle(api: Database, world: World) -> Iterator[MemoryReader]:
    """A reader whose next read is due in an hour; it has read once, and its memory holds erin's window."""
    opened(world)
    reader = MemoryReader(api, WindowMemory(), every=3600)
    reader.start()
    wait_for("it has read", lambda: bool(reader._memory.requests()), PATIENCE)  # noqa: SLF001
    yield reader
    reader.stop()


def test_a_message_about_a_remembered_window_wakes_the_memory_reader(
    idle: MemoryReader, world: World, superuser: Engine
) -> None:
    (request_id,) = idle._memory.requests()  # noqa: SLF001
    write(superuser, "UPDATE people SET disabled_at = now() WHERE id = :id", id=world.people["erin"].person_id)

    idle.hear([str(request_id)])

    wait_for("it was verified again", lambda: not idle._memory.requests(), PATIENCE)  # noqa: SLF001


def test_the_memory_reader_wakes_at_the_start_of_a_window(idle: MemoryReader, world: World) -> None:
    (first,) = idle._memory.requests()  # noqa: SLF001
    begins = datetime.now(UTC) + timedelta(seconds=1.5)
    later = opened(world, "eve", resources=["site:HR"], not_before=begins)

    idle.hear([str(first)])

    wait_for("it has begun", lambda: later in idle._memory.requests(), PATIENCE)  # noqa: SLF001
    assert datetime.now(UTC) >= begins


def test_a_message_about_an_opened_window_brings_the_window_into_memory(watched: Watched, world: World) -> None:
    request_id = opened(world)

    watched.reader.hear([str(request_id)])
    watched.settle()

    assert watched.find(world) is not None


@pytest.mark.parametrize("ended", [True, False])
def test_a_window_already_read_when_its_opening_is_reported_stays_in_memory_unless_ended(
    watched: Watched, world: World, monkeypatch: pytest.MonkeyPatch, *, ended: bool
) -> None:
    request_id = opened(world)
    put = watched.memory.put

    def late(*judged: Any) -> list[UUID]:
        monkeypatch.setattr(watched.memory, "put", put)
        if ended:
            world.act("tara", Action.REVOKE, request_id)
            watched.reader.hear_ended([str(request_id)])
        watched.reader.hear([str(request_id)])
        return put(*judged)

    monkeypatch.setattr(watched.memory, "put", late)
    watched.reader.read()
    after_the_news = watched.find(world)
    watched.settle()
    watched.settle()

    assert (after_the_news is None, watched.find(world) is None) == (ended, ended)


@pytest.mark.parametrize("told", ["tenant_resumed", "passkey_removed"])
def test_a_window_that_passes_verification_is_not_announced_as_closed(
    watched: Watched, world: World, superuser: Engine, told: str
) -> None:
    opened(world)
    watched.settle()
    changes: list[MemoryChange] = []
    watched.memory.listen(changes.extend)

    tell(superuser, told, world.tenant.id)
    watched.settle()

    assert {change.kind for change in changes} - {ChangeKind.HEARTBEAT} == {ChangeKind.FORGET}
    assert watched.find(world) is not None


def test_a_change_committed_late_is_read_after_newer_changes(watched: Watched, world: World) -> None:
    first, second = opened(world), opened(world, "eve", resources=["site:HR"])
    watched.settle()

    with world.db.transaction() as session:
        decide.act(session, world.people["tara"], HERE, first, DecisionInput(Action.REVOKE))
        watched.reader.read()
        world.act("tara", Action.REVOKE, second)
        watched.reader.read()
        third = opened(world, "eve", resources=["site:IT"])
        watched.settle()
        watched.reader.read()
        assert watched.find(world) is not None
        assert watched.find(world, "eve", "site:HR") is None
        assert watched.find(world, "eve", "site:IT") is not None
    watched.reader.read()

    assert watched.find(world) is None
    assert watched.memory.requests() == [third]


def test_an_open_transaction_causes_no_repeated_memory_reads(
    watched: Watched, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(world)
    opened(world, "eve", resources=["site:HR"])
    with world.db.transaction() as session:
        decide.act(session, world.people["tara"], HERE, first, DecisionInput(Action.REVOKE))
        opened(world, "eve", resources=["site:IT"])
        watched.settle()
        dropped: list[object] = []
        monkeypatch.setattr(watched.memory, "forget", dropped.extend)

        watched.reader.read()

    assert dropped == []


@pytest.mark.parametrize("changes", [{"server": "another"}, {"seen": "1:1:"}], ids=["server", "older"])
def test_reading_from_another_server_or_an_older_database_empties_the_window_memory(
    watched: Watched, world: World, superuser: Engine, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    opened(world)
    watched.settle()
    write(superuser, "UPDATE people SET disabled_at = now() WHERE id = :id", id=world.people["erin"].person_id)
    answered = window_verification.read_changes
    monkeypatch.setattr(window_verification, "read_changes", lambda *asked: replace(answered(*asked), **changes))

    watched.settle()

    assert len(watched.memory) == 0


def test_removing_an_approvers_passkey_at_another_tenant_ends_windows_signed_with_the_passkey(
    api: Database, superuser: Engine
) -> None:
    world = World.make(api, DEMANDED)
    approve(world, "ann", world.submit().id, enrol(world, "ann"))
    with setting(api).transaction() as session:
        other = all_tenants.add(session, "fabrikam", "Fabrikam", policy={}).id
    ann = world.people["ann"]
    moved = "UPDATE memberships SET tenant_id = :other WHERE person_id = :id"
    write(superuser, moved, other=other, id=ann.person_id)
    watched = Watched(api)
    before = watched.find(world)
    elsewhere = replace(ann, standings=frozenset({RoleGrant(Role.APPROVER, other)}))

    with api.transaction() as session:
        authentication.enter(session, elsewhere)
        session.execute(text("DELETE FROM passkeys WHERE person_id = :id"), {"id": ann.person_id})
        sessions.record(session, elsewhere, ClientInfo("192.0.2.7", "Firefox"), "passkey_removed")
    watched.settle()

    assert before is not None
    assert watched.find(world) is None
    assert door(world) is None


def test_a_standby_does_not_fill_the_window_memory(
    watched: Watched, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(world)
    watched.settle()
    answered = window_verification.read_changes
    monkeypatch.setattr(
        window_verification, "read_changes", lambda *asked: replace(answered(*asked), server="a in recovery")
    )

    watched.settle()

    assert len(watched.memory) == 0


def test_a_remembered_window_that_is_closed_in_postgres_is_dropped_with_an_alarm(
    watched: Watched, world: World, superuser: Engine
) -> None:
    opened(world)
    watched.settle()
    write(superuser, "UPDATE people SET disabled_at = now() WHERE id = :id", id=world.people["erin"].person_id)
    found = watched.find(world)
    assert found is not None
    watched.reader.read()
    before = watched.reader.differs()

    watched.reader.suspect(found)
    watched.settle()

    assert (before, watched.reader.differs()) == (False, True)
    assert watched.find(world) is None


def test_a_remembered_window_that_has_just_ended_raises_no_alarm(watched: Watched, world: World) -> None:
    request_id = opened(world)
    watched.settle()
    found = watched.find(world)
    assert found is not None
    world.act("tara", Action.REVOKE, request_id)

    watched.reader.suspect(found)
    watched.settle()

    assert not watched.reader.differs()
    assert watched.find(world) is None


def test_only_the_gates_own_system_identity_reads_changes_of_windows(api: Database, world: World) -> None:
    with api.transaction() as session:
        authentication.enter(session, GATE)
        earlier = window_verification.read_changes(session, None)
    opened(world)

    with api.transaction() as session:
        assert window_verification.read_changes(session, earlier).changes == ()
        authentication.enter(session, GATE)
        assert len(window_verification.read_changes(session, earlier).changes) == 1


def test_the_memory_reader_drops_a_window_that_the_timer_ended(
    watched: Watched, world: World, worker: Database
) -> None:
    request_id = opened(world, access_window=600)
    watched.settle()
    worker.clock = later = ShiftedClock()
    later.shift = timedelta(seconds=601)

    timers.run(worker, [request_id])
    watched.reader.read()

    assert watched.memory.requests() == []


def test_the_memory_reader_does_not_check_an_ended_window_again(
    watched: Watched, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, goes_on = opened(world), opened(world, "eve", resources=["site:HR"])
    watched.settle()
    judged: list[UUID] = []
    windows = access_check.windows

    def noting(session: UnitOfWork, ids: list[UUID]) -> list[RequestEntry]:
        judged.extend(ids)
        return windows(session, ids)

    monkeypatch.setattr(access_check, "windows", noting)

    world.act("tara", Action.REVOKE, ended)
    watched.reader.hear_ended([str(ended)])
    watched.reader.hear([str(ended), str(goes_on)])
    watched.settle()

    assert judged == [goes_on]
    assert watched.memory.requests() == [goes_on]


def test_changed_identities_are_announced_by_the_next_memory_read(watched: Watched, world: World) -> None:
    told: list[MemoryChange] = []
    watched.memory.listen(told.extend)
    issuer = f"{HEADER}{world.people['gate'].person_id}"
    with world.db.transaction() as session:
        wanted = MappingInput(issuer, "erin", world.people["erin"].person_id)
        mapped = identity_map.add(session, world.people["olga"], HERE, wanted, frozenset())
    watched.reader.read()
    assert [one.kind for one in told].count(ChangeKind.FORGET) == 1

    with world.db.transaction() as session:
        identity_map.remove(session, world.people["olga"], HERE, mapped.row.id)
    watched.reader.read()

    assert [one.kind for one in told].count(ChangeKind.FORGET) == 2
    assert [one.number for one in told] == list(range(told[0].number, told[0].number + len(told)))


def test_no_database_role_sets_the_transaction_id_of_an_event(api: Database, worker: Database) -> None:
    insert = "INSERT INTO events (id, at, action, actor_role, body, xid) VALUES (uuidv7(), now(), '', 'clock', '', 1)"

    for db in (api, worker):
        with pytest.raises(DBAPIError, match="permission denied for table events"):
            write(db.engine, insert)
