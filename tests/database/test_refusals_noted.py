"""Refusals in the audit log: counted per minute, one event each, in the log to which they belong."""

from datetime import timedelta
from typing import Any

from harness.clocks import ShiftedClock, StoppedClock
from harness.people import World
from lockbox import reconcile
from lockbox.audit import events, refusals_log
from lockbox.audit.events import VENDORS_LOG, Actor
from lockbox.audit.refusals_log import DECISION_REFUSED, SIGN_IN_REFUSED, RefusalEntry
from lockbox.database import Database
from lockbox.identity import authentication
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import LoggedChange, recorded_changes
from tests.database.scenes import read


def count(db: Database, times: int, **changes: Any) -> None:
    what: dict[str, Any] = {"kind": SIGN_IN_REFUSED, "facts": {"means": "mail"}, "of": "address 192.0.2.1"}
    for _ in range(times):
        with db.transaction() as session:
            refusals_log.count(session, RefusalEntry(**(what | changes)))


def settled(worker: Database, later: ShiftedClock) -> list[LoggedChange]:
    """Return the events of refusals after their minutes are over."""
    worker.clock = later
    later.shift = timedelta(minutes=2, seconds=1)
    while refusals_log.record_finished_minutes(worker):
        pass
    return [change for change in recorded_changes(worker) if change.action.endswith("_refused")]


def test_many_refusals_from_one_network_are_counted_in_one_event_per_minute(
    world: World, worker: Database, later: ShiftedClock
) -> None:
    world.db.clock = StoppedClock(later_at := _now(world))
    count(world.db, 40)
    world.db.clock = StoppedClock(later_at + timedelta(minutes=1))
    count(world.db, 3)

    told = settled(worker, later)
    later.shift = timedelta(minutes=5)
    told = settled(worker, later) if len(told) < 2 else told

    assert sorted(one.facts["count"] for one in told) == [3, 40]
    assert read(worker, "SELECT FROM refused") == []


def _now(world: World) -> Any:
    (row,) = read(world.db, "SELECT date_trunc('minute', clock_timestamp()) - interval '5 minutes' AS at")
    return row.at


def test_refusals_of_an_unfinished_minute_are_not_reported_yet(world: World, worker: Database) -> None:
    count(world.db, 1)

    assert refusals_log.record_finished_minutes(worker) == 0
    assert len(read(worker, "SELECT FROM refused")) == 1


def test_refusals_of_an_account_are_in_the_tenants_log_without_the_accounts_name_in_clear(
    world: World, worker: Database, later: ShiftedClock
) -> None:
    (ann,) = read(worker, "SELECT email FROM people WHERE id = :id", id=world.people["ann"].person_id)
    count(
        world.db,
        2,
        of=f"account {ann.email}",
        personal={"account": ann.email.upper(), "from_address": "192.0.2.1"},
    )
    count(world.db, 1, of="account x@y.example", personal={"account": "x@y.example"})

    known, stranger = sorted(settled(worker, later), key=lambda one: one.facts["count"], reverse=True)

    assert known.facts["person_id"] == str(world.people["ann"].person_id)
    assert known.facts["tenant_id"] == str(world.tenant.id)
    assert known.details["from_address"] == "192.0.2.1"
    assert (stranger.facts["tenant_id"], stranger.facts["person_id"]) == (None, None)
    bodies = b"".join(bytes(row.body) for row in read(worker, "SELECT body FROM events"))
    assert ann.email.encode() not in bodies.lower()
    assert b"x@y.example" not in bodies


def test_a_refused_decision_is_recorded_with_the_request(world: World, worker: Database, later: ShiftedClock) -> None:
    request, erin = world.submit(), world.people["erin"].person_id
    facts = {"refused": "approve", "code": "own-request", "channel": "api"}
    count(world.db, 2, kind=DECISION_REFUSED, facts=facts, person_id=erin, request_id=request.id, of="")

    (told,) = settled(worker, later)

    assert told.facts["request_id"] == str(request.id)
    assert told.facts["tenant_id"] == str(world.tenant.id)
    assert told.facts | facts == told.facts
    assert told.facts["count"] == 2


def test_reconciling_writes_the_events_of_counted_refusals(
    world: World, worker: Database, later: ShiftedClock
) -> None:
    count(world.db, 1)
    later.shift, worker.clock = timedelta(minutes=2, seconds=1), later

    steps = list(reconcile.reconcile(worker, None))

    assert ("refusals", 1) in steps


def test_a_refusal_about_a_request_in_review_is_in_the_vendors_log(
    api: Database, worker: Database, later: ShiftedClock
) -> None:
    world = World.make(api, Policy(vendor_review=True))
    request, max_ = world.submit(), world.people["max"].person_id
    facts = {"refused": "deny", "code": "stale", "channel": "api"}
    count(world.db, 1, kind=DECISION_REFUSED, facts=facts, person_id=max_, request_id=request.id, of="")

    (told,) = settled(worker, later)

    assert (told.facts["log"], told.facts["tenant_id"]) == (str(VENDORS_LOG), str(world.tenant.id))


def test_reading_the_audit_log_is_recorded_in_that_log(world: World) -> None:
    aude = world.people["aude"]
    with world.db.transaction() as session:
        authentication.enter(session, aude)
        actor = Actor(aude.person_id, "auditor", aude.name)
        wanted = {"person": "Erin"}
        events.record(session, actor, events.AUDIT_LOG_READ, logs=[world.tenant.id], wanted=wanted, count=7)

    (told,) = [change for change in recorded_changes(world.db) if change.action == "audit_log_read"]

    assert (told.actor, told.facts["count"]) == ("Aude", 7)
    assert told.details["wanted"] == '{"person": "Erin"}'
    assert "Erin" not in str(told.facts)
