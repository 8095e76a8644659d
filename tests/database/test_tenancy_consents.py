"""Temporary consent: the mode shown while it lasts, and its end, which is announced once, by whichever worker."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from catalogue.service_catalogue import Plan
from harness.clocks import ShiftedClock
from harness.people import World
from harness.stage import unbound
from lockbox.admin import emergency_stop, policies, tenants, vendor_consent
from lockbox.audit.canonical import instant
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.reconcile import reconcile
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import LoggedChange, recorded_changes
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import at_once, read, write
from tests.database.tenancy import does, reads

PLANS = {"standard": Plan()}
HOUR = timedelta(hours=1)
HOOK = "https://hooks.contoso.example/"


@pytest.fixture
def until() -> datetime:
    return datetime.now(UTC) + HOUR


@pytest.fixture
def late(worker: Database, later: ShiftedClock) -> Database:
    return Database(worker.engine, worker.schedule, later)


def consents_to(world: World, until: datetime | None, mode: str = "observe", **terms: object) -> None:
    """Let the tenant's admin set a policy with consent until a time, or without consent for None."""
    consent = {"mode": mode, "until": until} if until else None
    policy = Policy.model_validate({"vendor_review": False, "consent": consent} | terms)
    does(world, "tara", policies.change, policy)


def ends(world: World) -> list[LoggedChange]:
    return [change for change in recorded_changes(world.db) if change.action == "consent_ended"]


@pytest.mark.parametrize("who", ["tara", "aude", "erin", "olga"])
def test_a_tenant_page_shows_the_effective_mode_and_when_consent_ends(
    world: World, until: datetime, later: ShiftedClock, who: str
) -> None:
    consents_to(world, until)

    during = reads(world, who, tenants.show)
    with world.db.transaction() as session:
        listed = tenants.page(session, world.people[who], cursor=None, most=10).overviews
    later.shift = HOUR
    with Database(world.db.engine, world.db.schedule, later).transaction() as session:
        after = tenants.show(session, world.people[who], world.tenant.slug)

    assert during.consented is not None
    assert (during.tenant.mode, during.effective_mode) == (Mode.ENFORCE, Mode.OBSERVE)
    assert during.consented.until == until
    assert listed == [during]
    assert (after.tenant.mode, after.effective_mode, after.consented) == (Mode.ENFORCE, Mode.ENFORCE, None)


def test_consent_to_vendor_decisions_has_an_effect_only_in_mode_enforce(world: World, until: datetime) -> None:
    consents_to(world, until)
    does(world, "tara", emergency_stop.switch_mode, Mode.OFF, plans=PLANS)

    shown = reads(world, "tara", tenants.show)

    assert (shown.effective_mode, shown.consented) == (Mode.OFF, None)


def test_the_consent_of_a_tenant_is_hidden_from_other_tenants(world: World, api: Database, until: datetime) -> None:
    elsewhere = World.make(api)
    consents_to(elsewhere, until)

    with world.db.transaction() as session:
        tenants.show(session, world.people["tara"], world.tenant.slug)
        found = vendor_consent.lasting(session, [elsewhere.tenant.id], datetime.now(UTC))

    assert found == {}


def test_the_end_of_consent_writes_one_event_and_notifies_people(
    world: World, late: Database, later: ShiftedClock, post: Postbag, until: datetime
) -> None:
    post.endpoint(world, HOOK, tenant_id=world.tenant.id)
    consents_to(world, until)
    consents_to(world, until, quorum=2)
    post.deliver(late, open_notifications(late))
    post.mail.sent.clear()

    list(reconcile(late, None))
    before = ends(world)
    later.shift = HOUR
    for _ in range(3):
        list(reconcile(late, None))
    post.deliver(late, open_notifications(late))

    assert before == []
    (told,) = ends(world)
    assert (told.role, told.told) == ("clock", {"Tara", "Ann", "Amir", "Abe", HOOK})
    assert told.changes == {"mode": f"observe until {instant(until)} → enforce"}
    assert told.facts["deadline_at"] == instant(until)
    assert {mail.subject for mail in post.mail.sent} == {"The dated consent of Contoso has ended"}
    assert "Lockbox (clock)" in post.mail.sent[0].text


def test_concurrent_workers_announce_an_end_of_consent_once(
    world: World, late: Database, later: ShiftedClock, until: datetime, pool: ThreadPoolExecutor
) -> None:
    consents_to(world, until)
    later.shift = HOUR

    said = at_once(pool, *[lambda: list(vendor_consent.record_expired_consents(late)) for _ in range(4)])

    assert sorted(map(len, said)) == [0, 0, 0, 1]  # type: ignore[arg-type]
    assert len(ends(world)) == 1


@pytest.mark.parametrize("afterwards", ["replaced", "taken away", "switched"])
def test_an_end_of_consent_missed_by_workers_is_announced_after_later_changes(
    world: World, late: Database, later: ShiftedClock, until: datetime, afterwards: str
) -> None:
    consents_to(world, until)
    later.shift = 2 * HOUR
    api = Database(world.db.engine, world.db.schedule, later)
    again = until + 5 * HOUR
    policy = (
        Policy.model_validate({"consent": {"mode": "off", "until": again}}) if afterwards == "replaced" else Policy()
    )
    if afterwards == "switched":
        does(world, "tara", emergency_stop.switch_mode, Mode.ENFORCE, plans=PLANS, db=api)
    else:
        does(world, "tara", policies.change, policy, db=api)

    list(vendor_consent.record_expired_consents(late))
    first = [told.facts["deadline_at"] for told in ends(world)]
    later.shift = 9 * HOUR
    list(vendor_consent.record_expired_consents(late))

    both = [instant(until), instant(again)]
    assert first == both[:1]
    assert [told.facts["deadline_at"] for told in ends(world)] == (both if afterwards == "replaced" else first)


@pytest.mark.parametrize("instead", ["longer", "shorter", "none"])
def test_changed_consent_ends_at_the_changed_time(
    world: World, late: Database, later: ShiftedClock, until: datetime, instead: str
) -> None:
    consents_to(world, until)
    changed = {"longer": until + HOUR, "shorter": until - HOUR / 2, "none": None}[instead]
    consents_to(world, changed)
    later.shift = 3 * HOUR

    list(vendor_consent.record_expired_consents(late))

    assert [told.facts["deadline_at"] for told in ends(world)] == ([instant(changed)] if changed else [])


def test_consent_whose_end_has_passed_before_it_is_saved_has_no_end_event(
    world: World, late: Database, later: ShiftedClock, until: datetime
) -> None:
    consents_to(world, until - 2 * HOUR)
    later.shift = HOUR

    assert list(vendor_consent.record_expired_consents(late)) == []
    assert ends(world) == []


def test_the_event_about_an_end_of_consent_states_the_consented_mode_even_in_mode_off(
    world: World, late: Database, later: ShiftedClock, until: datetime
) -> None:
    consents_to(world, until)
    does(world, "tara", emergency_stop.switch_mode, Mode.OFF, plans=PLANS)
    later.shift = HOUR

    list(vendor_consent.record_expired_consents(late))

    (told,) = ends(world)
    assert told.changes == {"consent": f"observe until {instant(until)} → none"}


@pytest.mark.far
@pytest.mark.usefixtures("alone")
def test_a_failure_to_announce_the_end_of_one_consent_does_not_block_other_consents(
    world: World, api: Database, late: Database, later: ShiftedClock, until: datetime
) -> None:
    elsewhere = World.make(api)
    for one, end in ((world, until), (elsewhere, until + HOUR)):
        consents_to(one, end)
    write(
        unbound(api),
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
        "CREATE TRIGGER fails BEFORE INSERT ON events FOR EACH ROW "
        f"WHEN (NEW.tenant_id = '{world.tenant.id}') EXECUTE FUNCTION fail()",
    )
    later.shift = 3 * HOUR

    list(vendor_consent.record_expired_consents(late))

    rows = read(api, "SELECT tenant_id FROM events WHERE action = 'consent_ended'")
    assert [row.tenant_id for row in rows] == [elsewhere.tenant.id]


def test_an_index_serves_the_lookup_of_consents_whose_end_must_be_announced(
    world: World, worker: Database, until: datetime
) -> None:
    consents_to(world, until)

    with worker.engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        values = {"at": until + HOUR, "most": 1}
        plan = connection.execute(text(f"EXPLAIN {vendor_consent.ENDED.text}"), values).scalars().all()

    assert "ix_policies_consent" in "".join(plan)
    assert "uq_events_consent_ended" in "".join(plan)


def test_the_database_accepts_only_one_end_event_of_a_consent(
    world: World, late: Database, later: ShiftedClock, until: datetime
) -> None:
    consents_to(world, until)
    later.shift = HOUR
    list(vendor_consent.record_expired_consents(late))

    with pytest.raises(DBAPIError, match="uq_events_consent_ended"):
        write(
            unbound(world.db),
            "INSERT INTO events (id, tenant_id, at, action, actor_role, deadline_at, body) "
            "SELECT uuidv7(), tenant_id, now(), action, actor_role, deadline_at, body FROM events "
            "WHERE action = 'consent_ended'",
        )
