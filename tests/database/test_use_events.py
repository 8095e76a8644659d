"""The first and last use of a window are events: each once, whichever process writes it, however the window ends."""

from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import IntegrityError

from gate import call_counts
from gate.answers import GateReason
from gate.call_counts import CallCounts, CountedCall, CountWriter, GateDecision
from harness.clocks import ShiftedClock
from harness.outbox import fan_out_all
from harness.people import HERE, MAILBOX, World
from harness.stage import as_sender
from lockbox.audit.report import USES_SETTLE
from lockbox.database import Database, now
from lockbox.identity.roles import Role, Scope
from lockbox.monitoring import invariants
from lockbox.monitoring.invariants import ScanPosition
from lockbox.requests import activity
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.activity import ActivityEntry, GuardUse
from lockbox.requests.lifecycle import Action
from tests.database.scenes import at_once, read, write

SERVICE = "exchange-online"
TOLD = """
SELECT e.action, e.actor_role, e.log_id, CAST(convert_from(e.body, 'UTF8') AS jsonb) AS said,
    (SELECT d.fields #>> '{resource,1}' FROM event_details d WHERE d.event_id = e.id) AS resource,
    (SELECT d.fields #>> '{gateway_name,1}' FROM event_details d WHERE d.event_id = e.id) AS name
FROM events e WHERE e.request_id = :id AND e.action IN ('first_used', 'last_used') ORDER BY e.id
"""


@pytest.fixture
def world(api: Database) -> World:
    made = World.make(api)
    made.add("nginx", Role.SYSTEM, scopes={Scope("gate:nginx")}, services={SERVICE})
    return made


def opened(world: World) -> UUID:
    return world.act("ann", Action.APPROVE, world.submit().id).id


def used(world: World, request_id: UUID, times: int = 1, refused: int = 0) -> None:
    """Let the gate count and write uses of a window and refused calls."""
    counts = CallCounts()
    question = AccessCheck(world.tenant.slug, SERVICE, MAILBOX, "read", world.people["erin"].person_id)
    call = CountedCall(world.people["nginx"].person_id, SERVICE, question)
    for _ in range(times):
        counts.count_use(call, question, request_id)
    for _ in range(refused):
        counts.count(call, GateDecision.DENY, GateReason.NARROWED)
    assert CountWriter(world.db, counts).round()


def recorded(worker: Database) -> int:
    """Write the use events that are due; return how many."""
    return sum(call_counts.record_uses(worker))


def told(world: World, request_id: UUID) -> list[str]:
    return [row.action for row in read(world.db, TOLD, id=request_id)]


@pytest.fixture
def sender(worker: Database, later: ShiftedClock) -> Database:
    worker.clock = later
    return worker


def test_the_first_use_of_a_window_is_announced_at_once_and_the_last_use_after_the_window_ends(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request_id = opened(world)
    used(world, request_id)

    assert (recorded(sender), told(world, request_id)) == (1, ["first_used"])
    used(world, request_id, times=2)
    assert recorded(sender) == 0
    world.act("tara", Action.REVOKE, request_id)
    fan_out_all(as_sender(sender))
    assert recorded(sender) == 0
    later.shift += USES_SETTLE
    assert (recorded(sender), told(world, request_id)) == (1, ["first_used", "last_used"])
    assert recorded(sender) == 0
    first, last = read(world.db, TOLD, id=request_id)
    (counted,) = read(world.db, "SELECT * FROM window_uses")
    nginx = world.people["nginx"]
    assert (first.actor_role, first.log_id, first.said["gateway"]) == ("clock", world.tenant.id, str(nginx.person_id))
    assert (first.resource, first.name, last.resource, last.name) == (MAILBOX, nginx.name, MAILBOX, nginx.name)
    assert (first.said["did"], first.said["channel"]) == ("read", "gate")
    assert (last.said["count"], last.said["seq"]) == (3, None)
    assert last.said["first_at"] == first.said["first_at"] < last.said["last_at"]
    assert counted.look_at is None


def report(world: World, request_id: UUID, times: int = 1) -> None:
    with world.db.transaction() as session:
        at = now(session)
        done = ActivityEntry(at, "GET", MAILBOX, "served", "read", times)
        use = GuardUse(at, MAILBOX, "read", times)
        activity.report(session, world.people["guard"], HERE, request_id, [done], uses=[use])


@pytest.fixture
def guarded(world: World) -> World:
    world.add("guard", Role.SYSTEM, scopes={Scope.ACTIVITY_REPORT}, services={SERVICE})
    return world


def test_uses_reported_by_a_guard_are_announced_as_first_and_last_use_of_a_window(
    guarded: World, sender: Database, later: ShiftedClock
) -> None:
    request_id = opened(guarded)
    report(guarded, request_id)
    assert (recorded(sender), told(guarded, request_id)) == (1, ["first_used"])
    used(guarded, request_id)
    report(guarded, request_id, times=4)
    guarded.act("tara", Action.REVOKE, request_id)
    fan_out_all(as_sender(sender))
    later.shift += USES_SETTLE

    assert recorded(sender) == 1

    first, last = read(guarded.db, TOLD, id=request_id)
    guard = guarded.people["guard"]
    assert (first.said["gateway"], first.name, first.resource) == (str(guard.person_id), guard.name, MAILBOX)
    assert (last.said["gateway"], last.said["count"]) == (str(guard.person_id), 6)


def test_concurrent_use_counts_of_one_window_do_not_deadlock(guarded: World, sender: Database) -> None:
    request_id = opened(guarded)
    jobs = [
        *(lambda: report(guarded, request_id) for _ in range(8)),
        *(lambda: used(guarded, request_id) for _ in range(4)),
        *(lambda: recorded(sender) for _ in range(4)),
    ]

    with ThreadPoolExecutor(len(jobs)) as pool:
        at_once(pool, *jobs)

    recorded(sender)
    (counted,) = read(guarded.db, "SELECT count AS times FROM window_uses")
    assert counted.times == 12
    assert told(guarded, request_id) == ["first_used"]


def test_an_unused_window_has_no_use_events(world: World, sender: Database, later: ShiftedClock) -> None:
    request_id = opened(world)
    world.act("tara", Action.REVOKE, request_id)
    later.shift += USES_SETTLE * 2

    assert (recorded(sender), told(world, request_id)) == (0, [])


def test_a_use_counted_after_the_end_of_the_window_is_included_in_the_last_use_event(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request_id = opened(world)
    world.act("tara", Action.REVOKE, request_id)
    fan_out_all(as_sender(sender))
    used(world, request_id)

    assert (recorded(sender), told(world, request_id)) == (1, ["first_used"])
    later.shift += USES_SETTLE
    assert (recorded(sender), told(world, request_id)) == (1, ["first_used", "last_used"])


def test_the_last_use_is_announced_after_the_deadline_even_if_no_end_was_recorded(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request_id = world.act("ann", Action.APPROVE, world.submit(access_window=60).id).id
    used(world, request_id)
    assert recorded(sender) == 1
    later.shift += USES_SETTLE

    assert recorded(sender) == 0
    later.shift += USES_SETTLE * 2
    assert (recorded(sender), told(world, request_id)) == (1, ["first_used", "last_used"])


@pytest.mark.far
def test_concurrent_processes_write_each_use_event_once(
    world: World, sender: Database, later: ShiftedClock, pool: ThreadPoolExecutor
) -> None:
    windows = [opened(world) for _ in range(8)]
    for request_id in windows:
        used(world, request_id)
        world.act("tara", Action.REVOKE, request_id)
    later.shift += USES_SETTLE * 2

    written = at_once(pool, *(lambda: recorded(sender) for _ in range(4)))

    assert sum(one for one in written if isinstance(one, int)) + recorded(sender) == 16
    assert all(told(world, window) == ["first_used", "last_used"] for window in windows)


def test_the_database_refuses_a_second_event_of_the_same_use(
    world: World, sender: Database, superuser: Engine
) -> None:
    request_id = opened(world)
    used(world, request_id)
    assert recorded(sender) == 1

    with pytest.raises(IntegrityError, match="uq_events_uses"):
        write(
            superuser,
            "INSERT INTO events (id, tenant_id, request_id, at, action, actor_role, body) SELECT uuidv7(), "
            "tenant_id, request_id, at, action, actor_role, body FROM events WHERE action = 'first_used'",
        )


def test_a_request_shows_how_many_calls_used_its_window_and_how_many_were_refused(
    world: World, api: Database
) -> None:
    request_id = opened(world)
    used(world, request_id, times=3, refused=2)
    used(world, request_id, times=0, refused=1)

    with api.transaction() as session:
        activity.read(session, world.people["ann"], request_id)
        usage = activity.usage(session, request_id)

    assert (usage.times, usage.refused) == (3, 3)
    assert usage.first is not None
    assert usage.last is not None
    assert (usage.first.action, usage.first.resource) == ("read", MAILBOX)
    assert (
        usage.last.gateway
        == read(api, "SELECT name FROM people WHERE id = :id", id=world.people["nginx"].person_id)[0].name
    )
    assert usage.first.at < usage.last.at


def test_refused_calls_are_counted_for_the_newest_window_until_an_hour_after_its_end(
    world: World, api: Database
) -> None:
    request_id = opened(world)
    world.act("tara", Action.REVOKE, request_id)
    used(world, request_id, times=0, refused=1)
    assert read(api, "SELECT count(*) AS n FROM window_refusals")[0].n == 1

    other = world.act("ann", Action.APPROVE, world.submit().id).id
    used(world, other, times=0, refused=1)

    assert {row.request_id for row in read(api, "SELECT request_id FROM window_refusals")} == {request_id, other}


@pytest.mark.far
def test_refused_calls_are_counted_for_an_open_window_despite_later_requests(world: World, api: Database) -> None:
    closed, window = opened(world), opened(world)
    world.act("tara", Action.REVOKE, closed)
    used(world, closed, times=0, refused=1)
    for _ in range(20):
        world.act("erin", Action.CANCEL, world.submit().id)

    used(world, window, times=0, refused=1)
    assert {row.request_id for row in read(api, "SELECT request_id FROM window_refusals")} == {window}

    world.act("tara", Action.REVOKE, window)
    used(world, window, times=0, refused=1)
    assert [row.number for row in read(api, "SELECT count AS number FROM window_refusals")] == [2]


@pytest.mark.parametrize(("seconds", "rules"), [(9, ["used-outside"]), (1, []), (-1, [])])
def test_a_window_used_after_its_end_raises_an_alarm(
    world: World, worker: Database, superuser: Engine, seconds: int, rules: list[str]
) -> None:
    request_id = opened(world)
    used(world, request_id)
    world.act("tara", Action.REVOKE, request_id)
    write(
        superuser,
        "UPDATE window_uses w SET last_at = greatest(w.first_at, r.closed_at + :seconds * interval '1 second') "
        "FROM requests r WHERE r.id = w.request_id",
        seconds=seconds,
    )

    with worker.transaction() as session:
        found = invariants.scan(session, ScanPosition())

    assert [one.rule for one in found if one.id == request_id] == rules
