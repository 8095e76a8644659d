"""The gate's mode per tenant: each switch is recorded once; a gate enforces at once, and reports only by consent."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from gate import enforcement, gate_news
from gate.enforcement import ENFORCE, REPORT, EnforcementMemory, TenantGate
from gate.memory_reader import GATE, MemoryReader
from gate.window_memory import BOOT_CLOCK, FRESH_SECONDS, WindowMemory
from harness.people import HERE, World
from harness.stage import setting
from lockbox.audit.events import AuditEvent
from lockbox.database import Database, UnitOfWork
from lockbox.errors import Conflict, NotFound, SignInAgain
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication, row_macs
from lockbox.identity import tenants as all_tenants
from lockbox.notifications import announcements
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import recorded_changes
from tests.database.scenes import read, write_unchecked
from tests.database.tenancy import does, id_of, on_the_database, reads
from tests.each import each

SERVICE = "exchange-online"
ROWS = "SELECT service, wanted, revision, enforced_at IS NOT NULL AS was_enforced FROM enforcements"
PUT_BACK = """
INSERT INTO report_consents SELECT * FROM jsonb_populate_record(NULL::report_consents, CAST(:row AS jsonb))
"""


class WatchedModes:
    """The gate's memory of modes in a process whose catalogue sets this mode, with a clock that the test moves."""

    def __init__(self, db: Database, says: str = REPORT) -> None:
        self.later = BOOT_CLOCK()
        self.modes = EnforcementMemory({SERVICE: says}, self._clock)
        self.reader = MemoryReader(db, WindowMemory(self._clock), self.modes)
        self.settle()

    def _clock(self) -> float:
        self.later += 1e-6
        return self.later

    def settle(self) -> None:
        """Read until nothing is left to read, including what this process recorded."""
        while self.reader.read():
            pass
        self.reader.read()

    def reports(self, tenant: str | None) -> bool:
        return self.modes.reports(SERVICE, tenant)


def says(db: Database, wanted: str, service: str = SERVICE) -> None:
    with db.transaction() as session:
        authentication.enter(session, GATE)
        enforcement.record(session, {service: wanted})


def asked(world: World) -> int:
    """Ask tenants to let an enforced gate only report; return the revision."""
    says(world.db, ENFORCE)
    says(world.db, REPORT)
    return gate_of(world).revision


def gate_of(world: World, who: str = "tara") -> TenantGate:
    (gate,) = reads(world, who, enforcement.of_tenant)
    return gate


def allow(world: World, revision: int, who: str = "tara") -> TenantGate:
    return does(world, who, enforcement.allow_report, SERVICE, revision=revision)


def another_tenant(world: World, slug: str = "fabrikam") -> str:
    with setting(world.db).transaction() as session:
        return all_tenants.add(session, slug, slug.title(), policy=Policy().model_dump(mode="json")).slug


def test_a_gate_never_set_to_mode_enforce_is_in_mode_report_for_every_tenant(world: World) -> None:
    watched = WatchedModes(world.db)

    assert watched.reports(world.tenant.slug)
    assert watched.reports("nobody-knows")
    assert watched.reports(None)
    assert not watched.modes.reports("another-service", world.tenant.slug)
    assert not gate_of(world).is_enforced
    assert not gate_of(world).is_asked


def test_switching_a_gate_to_mode_enforce_applies_at_once_to_all_tenants(world: World) -> None:
    watched = WatchedModes(world.db)

    says(world.db, ENFORCE)
    watched.settle()

    assert not watched.reports(world.tenant.slug)
    assert not watched.reports(None)
    assert gate_of(world).is_enforced


def test_switching_a_gate_to_mode_report_applies_only_to_consenting_tenants(world: World) -> None:
    revision = asked(world)
    watched = WatchedModes(world.db)
    assert not watched.modes.reports_anywhere(SERVICE)
    assert (gate_of(world).is_enforced, gate_of(world).is_asked) == (True, True)

    given = allow(world, revision)
    watched.settle()

    assert (given.is_enforced, given.consented_at is not None) == (False, True)
    assert watched.reports(world.tenant.slug)
    assert not watched.reports(None)
    assert not watched.reports("nobody-knows")
    does(world, "tara", enforcement.end_report, SERVICE)
    watched.settle()
    assert not watched.reports(world.tenant.slug)
    assert gate_of(world).is_enforced


def test_each_switch_of_a_gate_to_mode_report_needs_a_new_consent(world: World) -> None:
    revision = asked(world)
    allow(world, revision)
    says(world.db, ENFORCE)
    watched = WatchedModes(world.db)
    assert not watched.reports(world.tenant.slug)

    says(world.db, REPORT)
    watched.settle()

    assert not watched.reports(world.tenant.slug)
    assert gate_of(world).is_enforced
    with pytest.raises(Conflict):
        allow(world, revision)
    allow(world, revision + 2)
    watched.settle()
    assert watched.reports(world.tenant.slug)


def test_consent_to_mode_report_of_a_gate_is_void_if_the_gate_was_switched_meanwhile(world: World) -> None:
    """The admin's transaction read the revision; the switch is committed before it is."""
    revision = asked(world)
    with world.db.transaction() as session:
        enforcement.allow_report(session, world.people["tara"], HERE, world.tenant.slug, SERVICE, revision=revision)
        says(world.db, ENFORCE)
    says(world.db, REPORT)

    watched = WatchedModes(world.db)

    assert not watched.reports(world.tenant.slug)
    assert gate_of(world).is_enforced


def test_concurrent_processes_record_a_gate_switch_once(world: World) -> None:
    says(world.db, REPORT)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: says(world.db, ENFORCE), range(16)))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: says(world.db, ENFORCE, "new"), range(16)))

    rows = [tuple(row) for row in read(world.db, f"{ROWS} ORDER BY service")]

    assert rows == [(SERVICE, ENFORCE, 2, True), ("new", ENFORCE, 1, True)]


def test_a_gate_process_enforces_if_its_own_catalogue_sets_mode_enforce(world: World) -> None:
    says(world.db, REPORT)
    watched = WatchedModes(world.db, ENFORCE)
    with world.db.transaction() as session:
        authentication.enter(session, GATE)
        session.execute(text("UPDATE enforcements SET revision = revision + 1, wanted = 'report'"))

    watched.settle()

    assert not watched.reports(world.tenant.slug)


def test_a_gate_enforces_if_the_switch_state_was_read_more_than_a_second_ago(world: World) -> None:
    watched = WatchedModes(world.db)
    watched.later += FRESH_SECONDS - 0.1
    assert watched.reports(None)

    watched.later += 0.1

    assert not watched.reports(None)
    assert not watched.modes.reports_anywhere(SERVICE)


def test_after_a_message_about_a_switch_the_gate_enforces_until_it_reads_the_switch_again(world: World) -> None:
    watched = WatchedModes(world.db)
    (row,) = read(world.db, "SELECT id FROM enforcements")

    watched.reader.hear([str(id_of(world, "erin"))])
    assert watched.reports(None)
    watched.reader.hear([str(row.id)])

    assert not watched.reports(None)
    watched.settle()
    assert watched.reports(None)


def test_the_gate_discards_a_switch_state_if_a_message_about_a_switch_arrives_during_the_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(world.db, REPORT)
    watched = WatchedModes(world.db)
    (row,) = read(world.db, "SELECT id FROM enforcements")
    named = row_macs.enforcement

    def overtaken(known: Any) -> Any:
        watched.modes.forget([str(row.id)])
        return named(known)

    says(world.db, ENFORCE)
    watched.reader.read()
    with world.db.transaction() as session:
        authentication.enter(session, GATE)
        enforcement.record(session, {SERVICE: REPORT})
    monkeypatch.setattr(row_macs, "enforcement", overtaken)
    watched.reader.read()

    assert not watched.reports(None)


def test_consent_to_mode_report_needs_a_fresh_sign_in_but_withdrawal_does_not(world: World) -> None:
    revision = asked(world)
    tara = world.people["tara"]
    old = replace(tara, means=AuthMethod.OIDC, signed_in_at=datetime.now(UTC) - timedelta(hours=1))
    for stale in (replace(tara, means=AuthMethod.TOKEN), old):
        with world.db.transaction() as session, pytest.raises(SignInAgain):
            enforcement.allow_report(session, stale, HERE, world.tenant.slug, SERVICE, revision=revision)
    allow(world, revision)

    with world.db.transaction() as session:
        enforcement.end_report(session, old, HERE, world.tenant.slug, SERVICE)

    assert gate_of(world).is_enforced


def test_a_tenant_can_consent_to_mode_report_of_a_gate_only_if_consent_is_requested(world: World) -> None:
    with pytest.raises(NotFound):
        allow(world, 1)
    says(world.db, REPORT)
    with pytest.raises(Conflict):
        allow(world, 1)
    says(world.db, ENFORCE)
    with pytest.raises(Conflict):
        allow(world, 2)


def test_every_affected_log_records_gate_switches_and_consents_and_requests_for_consent(
    world: World, worker: Database
) -> None:
    says(world.db, REPORT)
    assert list(enforcement.announce(worker, settled=timedelta(0))) == [1, 1]
    assert list(enforcement.announce(worker, settled=timedelta(0))) == []
    says(world.db, ENFORCE)
    list(enforcement.announce(worker, settled=timedelta(0)))
    says(world.db, REPORT)
    list(enforcement.announce(worker, settled=timedelta(0)))
    allow(world, 3)
    does(world, "tara", enforcement.end_report, SERVICE)
    does(world, "tara", enforcement.end_report, SERVICE)

    events = read(
        world.db, "SELECT action, actor_role, tenant_id, internal FROM events WHERE seq IS NULL ORDER BY id"
    )
    ours = world.tenant.id

    def of(log: UUID | None) -> list[str]:
        return [event.action for event in events if (None if event.internal else event.tenant_id) == log]

    every = ["gate_report_began", "gate_enforced", "gate_report_asked", "gate_report_allowed", "gate_report_ended"]
    assert (of(ours), of(None)) == (every, every)
    assert {event.actor_role for event in events} == {"clock", "tenant_admin"}
    told = sorted((change.action, sorted(change.told)) for change in recorded_changes(world.db))
    assert told == sorted((name, who) for name in every for who in (["Abe", "Amir", "Ann", "Tara"], ["Olga"]))


def test_a_gate_switch_that_a_newer_switch_has_replaced_is_still_recorded_in_every_log(
    world: World, worker: Database
) -> None:
    says(world.db, ENFORCE)
    another_tenant(world)
    says(world.db, REPORT)
    says(world.db, ENFORCE)
    says(world.db, REPORT)

    assert list(enforcement.announce(worker, settled=timedelta(0))) == [1, 2] * 3
    slug = another_tenant(world, "woodgrove")
    assert list(enforcement.announce(worker, settled=timedelta(0))) == [1]

    rows = read(
        world.db,
        "SELECT t.slug, array_agg(e.action ORDER BY e.id) AS actions"
        " FROM events e LEFT JOIN tenants t ON t.id = e.tenant_id WHERE e.action LIKE 'gate%' GROUP BY t.slug",
    )
    every = ["gate_report_asked", "gate_enforced", "gate_report_asked"]
    found = {row.slug: row.actions for row in rows}
    assert found == {None: every, world.tenant.slug: every, "fabrikam": every, slug: every[-1:]}


def test_an_interrupted_announcement_of_gate_switches_finishes_the_older_switch_first(
    world: World, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_news, "AT_ONCE", 1)
    another_tenant(world)
    says(world.db, REPORT)
    begun = enforcement.announce(worker, settled=timedelta(0))
    assert [next(begun), next(begun)] == [1, 1]
    says(world.db, ENFORCE)
    del begun

    assert list(enforcement.announce(worker, settled=timedelta(0))) == [1, 1, 1, 1]

    rows = read(world.db, "SELECT tenant_id, action FROM events WHERE action LIKE 'gate%' ORDER BY id")
    by_log = {log: [row.action for row in rows if row.tenant_id == log] for log in {row.tenant_id for row in rows}}
    assert len(by_log) == 3
    assert all(actions == ["gate_report_began", "gate_enforced"] for actions in by_log.values())


def test_a_new_tenant_is_notified_only_of_gates_that_do_not_enforce(world: World, worker: Database) -> None:
    says(world.db, ENFORCE, "enforced")
    says(world.db, REPORT, "switched")
    says(world.db, ENFORCE, "switched")
    says(world.db, REPORT)
    list(enforcement.announce(worker, settled=timedelta(0)))
    slug = another_tenant(world)

    assert list(enforcement.announce(worker)) == []
    assert list(enforcement.announce(worker, settled=timedelta(0))) == [1]

    (row,) = read(
        world.db, "SELECT e.action FROM events e JOIN tenants t ON t.id = e.tenant_id WHERE t.slug = :slug", slug=slug
    )
    assert row.action == "gate_report_began"


def test_a_gate_switch_that_cannot_be_announced_does_not_block_other_gates(
    world: World, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(world.db, REPORT, "bad")
    says(world.db, REPORT, "good")
    notify = announcements.notify_operators

    def fails(session: UnitOfWork, event: AuditEvent) -> None:
        if event.facts["service"] == "bad":
            raise ValueError
        notify(session, event)

    monkeypatch.setattr(announcements, "notify_operators", fails)

    assert list(enforcement.announce(worker, settled=timedelta(0))) == [1, 1]


FORGED = {
    "never enforced": "UPDATE enforcements SET enforced_at = NULL",
    "an old revision": "UPDATE enforcements SET revision = 1, enforced_at = NULL",
    "a consent of another": "UPDATE report_consents SET tenant_id = (SELECT id FROM tenants WHERE slug = 'fabrikam')",
    "no mark": "UPDATE enforcements SET mac = NULL, enforced_at = NULL",
    "a tenant by another name": "UPDATE tenants SET slug = 'renamed' WHERE slug <> 'fabrikam'",
}


@pytest.mark.parametrize("forgery", FORGED)
def test_gate_switch_rows_not_written_by_the_api_have_no_effect(
    world: World, superuser: Engine, forgery: str
) -> None:
    revision = asked(world)
    another_tenant(world)
    allow(world, revision)

    write_unchecked(superuser, FORGED[forgery])
    watched = WatchedModes(world.db)

    assert not watched.reports("fabrikam")
    assert not watched.reports("renamed")
    assert not watched.reports(None)


def test_a_gate_whose_switch_row_was_forged_keeps_enforcing_after_a_further_switch(
    world: World, superuser: Engine
) -> None:
    says(world.db, ENFORCE)
    write_unchecked(superuser, "UPDATE enforcements SET wanted = 'report', enforced_at = NULL")
    assert not WatchedModes(world.db).reports(None)
    says(world.db, ENFORCE)

    watched = WatchedModes(world.db)

    assert not watched.reports(None)
    assert gate_of(world).is_asked


def test_withdrawn_consent_to_a_reporting_gate_cannot_be_restored(world: World) -> None:
    allow(world, asked(world))
    (row,) = read(world.db, "SELECT CAST(to_jsonb(c) AS text) AS row FROM report_consents c")
    does(world, "tara", enforcement.end_report, SERVICE)

    with pytest.raises(DBAPIError, match="does not come back"):
        on_the_database(world, "tara", PUT_BACK, row=row.row)


@each(
    "statement",
    [
        "UPDATE enforcements SET enforced_at = NULL, revision = revision + 1",
        "UPDATE enforcements SET wanted = 'enforce'",
        "UPDATE enforcements SET revision = revision - 1",
    ],
)
def test_no_database_role_clears_the_record_that_a_gate_was_enforced(world: World, statement: str) -> None:
    asked(world)
    with world.db.transaction() as session:
        authentication.enter(session, GATE)
        with pytest.raises(DBAPIError):
            session.execute(text(statement))


def test_the_database_refuses_consents_and_gate_switches_by_people_without_that_right(world: World) -> None:
    asked(world)
    consent = """
    INSERT INTO report_consents (id, enforcement_id, tenant_id, revision, person_id, created_at)
    SELECT uuidv7(), e.id, :tenant, e.revision, :person, now() FROM enforcements e
    """
    for who in ("ann", "olga", "erin", "gate"):
        with pytest.raises(DBAPIError, match="row-level security"):
            on_the_database(world, who, consent, tenant=world.tenant.id, person=id_of(world, who))
    gate = """
    INSERT INTO enforcements (id, service, wanted, revision, changed_at) VALUES (uuidv7(), 'x', 'report', 1, now())
    """
    for who in ("tara", "olga", "erin", "gate"):
        with pytest.raises(DBAPIError, match="row-level security"):
            on_the_database(world, who, gate)


def test_operators_see_the_number_of_tenants_for_which_a_gate_only_reports(world: World) -> None:
    allow(world, asked(world))
    says(world.db, REPORT, "new")
    says(world.db, ENFORCE, "safe")

    with world.db.transaction() as session:
        found = enforcement.overviews(session, world.people["olga"])

    assert [(one.service, one.wanted, one.was_enforced, one.reporting, one.tenants) for one in found] == [
        (SERVICE, REPORT, True, 1, 1),
        ("new", REPORT, False, 1, 1),
        ("safe", ENFORCE, True, 0, 1),
    ]
