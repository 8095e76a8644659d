"""A case check: only the notifications worker records its answer, once, and the answer serves only one request."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from structlog.testing import capture_logs

from harness.clocks import StoppedClock
from harness.people import World
from harness.stage import as_sender
from lockbox import reconcile
from lockbox.database import Database
from lockbox.facts.enumerations import CaseCheck
from lockbox.identity.roles import Role
from lockbox.requests import case_check, timers
from lockbox.requests.case_check import CaseAnswer, CaseQuestion
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.schedule import NOTIFICATIONS
from lockbox.sql import new_id
from tests.case_adapter import CaseAdapterServer, adapters_of, case_adapter
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import as_caller, read, write, write_unchecked
from tests.database.test_break_glass import find
from tests.database.test_extensions import extended

STATES = "SELECT answered_at IS NOT NULL AS answered, is_open, is_assigned, failure, request_id FROM case_checks"
MOST = 100
HELD = "no ticket system has confirmed the case"
CONFIRMED: dict[str, Any] = {"case_ref": "CASE-7", "case_system": "helpdesk", "case_check": CaseCheck.CONFIRMED}


@pytest.fixture(autouse=True)
def _patient_engineer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a case check take its time on a busy machine."""
    monkeypatch.setattr(case_check, "SECONDS", 20.0)


@pytest.fixture
def adapter() -> Iterator[CaseAdapterServer]:
    with case_adapter() as server:
        yield server


def _question(world: World, who: str = "erin", **changes: Any) -> CaseQuestion:
    caller = world.people[who]
    return replace(CaseQuestion(world.tenant.id, "helpdesk", "CASE-7", caller.person_id, caller), **changes)


def _asked(world: World, **changes: Any) -> UUID:
    with world.db.transaction() as session:
        return case_check.ask(session, _question(world, **changes), MOST)


def _answer(world: World, number: UUID) -> CaseAnswer | None:
    with world.db.transaction() as session:
        return case_check.read(session, number, _question(world))


def _run(world: World, number: UUID, adapter: CaseAdapterServer) -> str:
    return case_check.run(as_sender(world.db), number, adapters_of(adapter.url))


def test_a_case_check_is_answered_once_despite_repeated_queue_messages(
    world: World, adapter: CaseAdapterServer
) -> None:
    number = _asked(world)
    assert _answer(world, number) is None
    assert world.db.schedule.members(NOTIFICATIONS).keys() == {f"case_check:{number}"}

    assert [_run(world, number, adapter) for _ in range(3)] == ["confirmed", "skipped", "skipped"]

    assert len(adapter.asked) == 1
    assert _answer(world, number) == CaseAnswer(is_open=True, is_assigned=True)
    assert world.db.schedule.members(NOTIFICATIONS) == {}
    assert _run(world, new_id(), adapter) == "skipped"


def test_a_case_check_without_an_adapter_is_answered_at_once(world: World, adapter: CaseAdapterServer) -> None:
    number = _asked(world)

    with capture_logs() as lines:
        came_to = case_check.run(as_sender(world.db), number, adapters_of(adapter.url), may_wait=False)

    assert (came_to, adapter.asked) == ("failed", [])
    assert _answer(world, number) == CaseAnswer()
    assert [row.failure for row in read(world.db, STATES)] == ["busy"]
    assert world.db.schedule.members(NOTIFICATIONS) == {}
    assert lines == [{"event": "case_check.failed", "log_level": "warning", "system": "helpdesk", "failure": "busy"}]


def test_a_case_check_that_was_given_up_is_removed_from_the_schedule(
    world: World, adapter: CaseAdapterServer
) -> None:
    number = _asked(world)
    claimed = world.db.schedule.claim(NOTIFICATIONS, urgent=True)
    other = _asked(world)

    for one in (number, other):
        with world.db.transaction() as session:
            assert case_check.read_last(session, one, _question(world)) is None

    assert claimed.ids == {"case_check": [str(number)]}
    assert (world.db.schedule.members(NOTIFICATIONS), world.db.schedule.leased(NOTIFICATIONS)) == ({}, 0)
    _run(world, number, adapter)
    with world.db.transaction() as session:
        assert case_check.read_last(session, number, _question(world)) == CaseAnswer(is_open=True, is_assigned=True)


def test_an_abandoned_case_check_calls_no_case_adapter(
    world: World, adapter: CaseAdapterServer, superuser: Engine
) -> None:
    number = _asked(world)
    write_unchecked(superuser, "UPDATE case_checks SET asked_at = asked_at - interval '21 seconds'")

    assert _run(world, number, adapter) == "skipped"

    assert adapter.asked == []
    assert _answer(world, number) is None
    assert world.db.schedule.members(NOTIFICATIONS) == {}


def test_a_case_check_confirms_only_one_request(world: World, adapter: CaseAdapterServer) -> None:
    _run(world, _asked(world), adapter)

    request = world.fresh(**CONFIRMED)

    (row,) = read(world.db, STATES)
    assert row.request_id == request.id
    with pytest.raises(DBAPIError, match=HELD):
        world.fresh(**CONFIRMED)
    _run(world, _asked(world), adapter)
    assert world.fresh(**CONFIRMED | {"case_system": None}).case_check is CaseCheck.CONFIRMED


@pytest.mark.parametrize(
    "changed",
    [
        "tenant_id = (SELECT id FROM tenants WHERE id <> case_checks.tenant_id LIMIT 1)",
        "engineer_id = (SELECT id FROM people WHERE id <> engineer_id LIMIT 1)",
        "asked_by = (SELECT id FROM people WHERE id <> asked_by LIMIT 1)",
        "case_ref = 'CASE-8'",
        "case_system = 'servicenow'",
        "asked_at = asked_at - interval '31 seconds'",
        "is_open = false",
        "is_assigned = false",
        "answered_at = NULL, is_open = NULL, is_assigned = NULL",
    ],
)
def test_a_case_check_answer_that_is_mismatched_or_outdated_or_negative_confirms_nothing(
    world: World, adapter: CaseAdapterServer, superuser: Engine, changed: str
) -> None:
    World.make(world.db)
    _run(world, _asked(world), adapter)
    write_unchecked(superuser, f"UPDATE case_checks SET {changed}")  # noqa: S608 - ours

    with pytest.raises(DBAPIError, match=HELD):
        world.fresh(**CONFIRMED)

    (row,) = read(world.db, STATES)
    assert row.request_id is None


def test_only_the_requesting_engineer_can_start_or_read_a_case_check(world: World) -> None:
    world.add("eve", Role.ENGINEER)
    number = _asked(world)

    for question in (
        _question(world, "eve", engineer_id=world.people["erin"].person_id),
        _question(world, "ann"),
        _question(world, "gate", tenant_id=new_id()),
    ):
        with pytest.raises(DBAPIError), world.db.transaction() as session:
            case_check.ask(session, question, MOST)
    for who in ("eve", "ann", "tara", "max", "olga", "vera"):
        with as_caller(world.db, world.people[who], at=world.tenant.id) as connection:
            assert connection.exec_driver_sql("SELECT id FROM case_checks").all() == []
    with as_caller(world.db, world.people["erin"], at=world.tenant.id) as connection:
        assert [row.id for row in connection.exec_driver_sql("SELECT id FROM case_checks")] == [number]


def test_a_recorded_case_check_answer_is_never_changed(world: World, adapter: CaseAdapterServer) -> None:
    adapter.says = {"open": False, "assigned": True}
    _run(world, _asked(world), adapter)

    with pytest.raises(DBAPIError, match="answered once"):
        write(as_sender(world.db).engine, "UPDATE case_checks SET is_open = true")


def test_case_checks_are_deleted_after_a_day(world: World, worker: Database, superuser: Engine) -> None:
    old, young = _asked(world), _asked(world)
    age = "UPDATE case_checks SET asked_at = asked_at - CAST(:age AS interval) WHERE id = :id"
    write_unchecked(superuser, age, age=timedelta(hours=25), id=old)
    write_unchecked(superuser, age, age=timedelta(hours=23), id=young)
    write(worker.engine, "DELETE FROM case_checks WHERE id = :id", id=young)

    for _ in reconcile.reconcile(worker, None):
        pass

    assert [row.id for row in read(world.db, "SELECT id FROM case_checks")] == [young]


DESK, THEIRS = "https://desk-adapter.vendor.example/moves", "https://siem.contoso.example/lockbox"
CASE: dict[str, Any] = {
    "case_ref": "CASE-7",
    "case_system": "helpdesk",
    "case_url": "https://helpdesk.vendor.example/CASE-7",
}
SAID = {"system": "helpdesk", "ref": "CASE-7", "url": "https://helpdesk.vendor.example/CASE-7"}
MOVES = "SELECT id FROM events WHERE request_id IS NOT NULL AND seq IS NOT NULL"


def _lives(world: World, worker: Database, still: StoppedClock) -> set[UUID]:
    """Bring requests of one case to each kind of end; return their ids."""
    first = world.act("ann", Action.APPROVE, world.fresh(**CASE).id)
    later = world.act("ann", Action.APPROVE, extended(world, first.id).id)
    begins = world.act("ann", Action.APPROVE, world.fresh(**CASE, not_before=still.at + timedelta(hours=1)).id)
    denied = world.act("ann", Action.DENY, world.fresh(**CASE).id)
    cancelled = world.act("erin", Action.CANCEL, world.fresh(**CASE).id)
    revoked = world.act("ann", Action.REVOKE, begins.id)
    emergency = world.fresh(**CASE, break_glass=True)
    world.act("max", Action.BREAK_GLASS, emergency.id, comment="Mail is down for everybody")
    find(world, "ann", world.act("ann", Action.REVOKE, emergency.id))
    silent = world.fresh(**CASE)
    still.at += timedelta(days=2)
    timers.run(worker, [first.id, silent.id])
    timers.run(worker, [later.id])
    return {one.id for one in (first, later, begins, denied, cancelled, revoked, emergency, silent)}


def test_each_move_calls_the_vendors_webhook_with_the_case_of_the_request(
    api: Database, worker: Database, still: StoppedClock
) -> None:
    world = World.make(api, Policy(vendor_review=False, break_glass_services=("exchange-online",)))
    post = Postbag()
    post.endpoint(world, DESK, tenant_id=None)
    post.endpoint(world, THEIRS, tenant_id=world.tenant.id)

    requests = _lives(world, worker, still)
    while ids := open_notifications(world.db):
        post.deliver(world.db, ids)

    calls = [(call.url, json.loads(call.body)) for call in post.hooks.sent]
    ours = [body for url, body in calls if url == DESK and "request_id" in body["data"]]
    assert {body["data"].get("case", {}).get("ref") for _, body in calls if _ == THEIRS} == {None}
    assert [body["type"] for body in ours if body["data"].get("case") != SAID] == []
    assert {UUID(body["data"]["request_id"]) for body in ours} == requests
    assert {str(row.id) for row in read(world.db, MOVES)} <= {body["event_id"] for body in ours}
    assert {body["type"].removeprefix("request.") for body in ours} >= {
        *("submitted", "approved", "denied", "cancelled", "revoked", "expired", "timed_out"),
        *("break_glass", "after_review"),
    }
