"""Operators declare access outside Lockbox: the customer sees all of each declaration, and no one can change it."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from harness.people import World
from harness.stage import Urls
from lockbox.admin import gate_probes, outside_access, policies, unapproved_access
from lockbox.admin.gate_probes import ProbeResult, RecordedProbe
from lockbox.admin.outside_access import DeclaredAccess, OutsideAccess
from lockbox.audit.verifier.verify import GOOD
from lockbox.database import Database, ProcessKeys
from lockbox.errors import Conflict, Invalid, NotFound, UnknownEngineer, UnknownService
from lockbox.identity import authentication
from lockbox.identity.keyring import Keyring
from lockbox.identity.time_zones import clock_time
from lockbox.monitoring import metrics, status
from lockbox.monitoring.invariants import ScanPosition
from lockbox.monitoring.metrics import MetricName
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import at_once, read, write_unchecked
from tests.database.tenancy import does, id_of, is_erased_now, on_the_database, reads
from tests.database.test_erasure import erase
from tests.database.test_exports import exported, verified
from tests.database.test_pre_approvals import in_force
from tests.each import each
from tests.logs import sealed
from tests.policy_setup import lay_down, stand_in
from worker import alerts

SERVICE = "exchange-online"
BOXES = ["mailbox:anna@contoso.example", "mailbox:bob@contoso.example"]
WHY = "Lockbox could not be reached, and no mail was delivered."
FORGED = """
INSERT INTO events (id, tenant_id, at, action, actor_id, actor_role, body)
VALUES (uuidv7(), :tenant, now(), 'outside_access', :person, :role, '{}')
"""


def an_hour(world: World, *engineers: str, ago: float = 3.0, **changes: Any) -> OutsideAccess:
    facts: dict[str, Any] = {
        "engineers": [id_of(world, one) for one in engineers or ("erin",)],
        "service": SERVICE,
        "resources": BOXES,
        "began_at": datetime.now(UTC).replace(microsecond=0) - timedelta(hours=ago),
        "seconds": 3600,
        "reason": WHY,
    }
    return OutsideAccess(**facts | changes)


def declared(world: World, taken: OutsideAccess | None = None, who: str = "olga", **more: Any) -> UUID:
    return does(world, who, outside_access.declare, taken or an_hour(world), services={SERVICE}, **more)


def listed(world: World, who: str) -> list[DeclaredAccess]:
    return reads(world, who, outside_access.of_tenant)


def test_declared_outside_access_is_in_the_customers_log_and_everyone_is_notified(
    world: World, post: Postbag
) -> None:
    post.endpoint(world, "https://hooks.contoso.example/", tenant_id=world.tenant.id)
    taken = an_hour(world, "erin", "eve")

    declared(world, taken)

    event = last_change(world.db)
    assert (event.action, event.actor, event.role) == ("outside_access", "Olga", "operator")
    assert event.told == {"Abe", "Amir", "Ann", "Tara", "https://hooks.contoso.example/"}
    assert event.facts["log"] == event.facts["tenant_id"] == str(world.tenant.id)
    assert event.facts["engineers"] == [str(id_of(world, one)) for one in ("erin", "eve")]
    assert datetime.fromisoformat(event.facts["ended_at"]) == taken.began_at + timedelta(hours=1)
    assert (event.details["engineer_1"], event.details["engineer_2"]) == ("Erin", "Eve")
    assert event.details["justification"] == WHY
    assert "Erin" not in str(event.facts)
    assert "anna" not in str(event.facts)


def test_members_read_the_declarations_of_outside_access(world: World) -> None:
    first = declared(world)
    second = declared(world, an_hour(world, "eve", ago=1.5))

    for who in ("ann", "tara", "aude"):
        assert [one.id for one in listed(world, who)] == [second, first]
    shown = listed(world, "ann")[1]
    assert (shown.engineers, shown.service, shown.resources, shown.reason) == (["Erin"], SERVICE, BOXES, WHY)
    assert shown.ended_at - shown.began_at == timedelta(hours=1)
    assert shown.declared_by == "Olga"


def test_a_declaration_of_outside_access_is_hidden_from_other_tenants(world: World) -> None:
    with pytest.raises(NotFound):
        declared(world, slug="nowhere")


@each(
    ("changes", "error"),
    [
        ({"seconds": 4 * 3600}, Conflict),
        ({"began_at": datetime.now(UTC) + timedelta(days=1), "seconds": 1}, Conflict),
        ({"began_at": datetime.now(UTC) - timedelta(days=400)}, Conflict),
        ({"service": "teams"}, UnknownService),
        ({"engineers": [UUID(int=7)]}, UnknownEngineer),
    ],
)
def test_declaring_unfinished_or_anonymous_outside_access_is_refused(
    world: World, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        declared(world, an_hour(world, **changes))

    assert not recorded_changes(world.db)


@each("who", ["ann", "gate"])
def test_customers_and_service_accounts_cannot_be_declared_as_engineers(world: World, who: str) -> None:
    with pytest.raises(UnknownEngineer):
        declared(world, an_hour(world, "erin", who))


def test_a_declaration_of_outside_access_can_name_a_former_engineer(world: World) -> None:
    taken = an_hour(world, "eve")
    on_the_database(world, "olga", "UPDATE people SET disabled_at = now() WHERE id = :id", id=id_of(world, "eve"))

    declared(world, taken)

    assert listed(world, "ann")[0].engineers == ["Eve"]


def test_an_engineer_named_twice_in_a_declaration_is_listed_once(world: World) -> None:
    declared(world, an_hour(world, "erin", "erin"))

    assert listed(world, "ann")[0].engineers == ["Erin"]


@each("who", ["erin", "max", "vera", "gate", "tara", "ann"])
def test_the_database_refuses_declarations_by_anyone_but_an_operator(world: World, who: str) -> None:
    with pytest.raises(DBAPIError, match="row-level security"):
        on_the_database(world, who, FORGED, tenant=world.tenant.id, person=id_of(world, who), role="operator")


@each("login", ["api", "worker", "notifications"])
@each(
    "statement",
    [
        "UPDATE events SET body = '{}' WHERE action = 'outside_access'",
        "DELETE FROM events WHERE action = 'outside_access'",
        "UPDATE event_details SET fields = '{}'",
        "UPDATE counters SET count = 0",
        "SELECT count_outside_access()",
    ],
)
def test_no_database_role_changes_a_declaration_of_outside_access_or_the_count_of_declarations(
    world: World, urls: Urls, login: str, statement: str
) -> None:
    declared(world)
    engine = create_engine(getattr(urls, login))
    try:
        with engine.connect() as connection, pytest.raises(DBAPIError):
            connection.execute(text(statement))
    finally:
        engine.dispose()


def test_outside_access_is_counted_permanently_and_shown_for_thirty_days(world: World, api: Database) -> None:
    declared(world)
    declared(world)

    found = status.read(api, with_redis=False)

    assert found.figures.one(MetricName.OUTSIDE_ACCESS) == 2
    assert {line.name: line.value for line in status.lines(found)}[status.OUTSIDE_ACCESS] == "2"
    assert found.as_facts()["outside_access_30_days"] == 2
    assert metrics.read(api).one(MetricName.OUTSIDE_ACCESS_LATELY) == 2


def test_mails_about_outside_access_state_who_had_access_and_when_and_where_and_why(
    world: World, worker: Database, post: Postbag
) -> None:
    taken = an_hour(world, "erin", "eve")
    declared(world, taken)

    post.deliver(worker, open_notifications(worker))

    (mail,) = (one for one in post.mail.sent if one.to_name == "Ann")
    assert mail.subject == f"Access to {world.tenant.name} was taken around Lockbox"
    for said in ("without a request in Lockbox", "Erin, Eve", "Exchange Online", ", ".join(BOXES), WHY, "Olga"):
        assert said in mail.text
    assert f"{clock_time(taken.began_at, 'UTC')}" in mail.text
    labels = re.findall(r"^([A-Za-z]+) {3,}\S", mail.text, flags=re.MULTILINE)
    assert labels == ["Engineer", "Service", "Resource", "From", "Until", "Why"]


def test_a_policy_that_omits_justifications_omits_the_reason_of_outside_access(
    world: World, worker: Database, post: Postbag
) -> None:
    version = reads(world, "tara", policies.read).edition.version
    does(world, "tara", policies.change, Policy(mail_justification=False), seen=version)
    declared(world)

    post.deliver(worker, open_notifications(worker))

    told = [one for one in post.mail.sent if "around Lockbox" in one.subject]
    assert len(told) == 4
    assert not [one for one in told if WHY in one.text or WHY in (one.html or "")]
    assert listed(world, "ann")[0].reason == WHY


def test_an_erased_engineer_is_no_longer_named_in_a_declaration(world: World, urls: Urls) -> None:
    declared(world, an_hour(world, "eve", "erin"))

    erase(urls, id_of(world, "eve"))

    (shown,) = listed(world, "ann")
    assert (shown.engineers, shown.reason) == (["Erin"], WHY)
    assert not read(world.db, "SELECT FROM event_details WHERE fields::text LIKE '%Eve%'")


EVENTS = """
SELECT tenant_id, actor_role, convert_from(body, 'UTF8') AS body,
    (SELECT count(*) FROM event_details d WHERE d.event_id = e.id) AS details,
    (SELECT count(*) FROM notifications n WHERE n.event_id = e.id) AS told
FROM events e WHERE action = 'unapproved_access_stated' ORDER BY id
"""
OLD = "UPDATE tenants SET created_at = created_at - interval '40 days'"


@pytest.fixture(name="core")
def _core(worker: Database) -> Database:
    """The core worker's database: it has no keys, and trusts the rows."""
    return Database(worker.engine, worker.schedule, worker.clock, keys=ProcessKeys(Keyring([])))


@pytest.fixture(name="old")
def _old(world: World, core: Database, superuser: Engine) -> World:
    """A world with a log, whose tenant existed before this month."""
    world.submit(resources=["mailbox:old@elsewhere.example"])
    sealed(core)
    write_unchecked(superuser, OLD)
    return world


def stated(world: World) -> list[dict[str, Any]]:
    return [json.loads(row.body) for row in read(world.db, EVENTS)]


def test_the_monthly_statement_has_counts_and_services_of_unapproved_access(old: World, core: Database) -> None:
    lay_down(old, break_glass_services=("exchange-online",), break_glass_ceiling=900)
    stand_in(old, "aude", "ann")
    in_force(old)
    request = old.submit(break_glass=True, access_window=900)
    old.act("max", Action.BREAK_GLASS, request.id, comment="Mail is down")

    assert list(unapproved_access.state(core)) == [1]

    (said,) = stated(old)
    (row,) = read(old.db, EVENTS)
    assert (row.tenant_id, row.actor_role, row.details, row.told) == (old.tenant.id, "clock", 0, 0)
    assert said["month"] == said["at"][:7]
    assert (said["mode"], said["consent_until"], said["gates"], said["pre_approvals"]) == ("enforce", None, [], 1)
    assert (said["break_glass"], said["break_glass_ceiling"], said["break_glass_monthly"]) == (
        *(["exchange-online"], 900, 2),
    )
    assert (said["delegates"], said["opened"]["break_glass"], said["opened"]["pre_approval"]) == (1, 1, 0)


def test_concurrent_workers_write_the_monthly_statement_once(
    old: World, core: Database, superuser: Engine, pool: ThreadPoolExecutor
) -> None:
    at_once(pool, *[lambda: list(unapproved_access.state(core))] * 4)
    assert list(unapproved_access.state(core)) == []
    assert len(stated(old)) == 1

    write_unchecked(superuser, "UPDATE logs SET stated_for = stated_for - interval '1 month'")
    assert list(unapproved_access.state(core)) == [1]


def test_both_verifiers_accept_a_log_with_a_statement_of_unapproved_access(
    old: World, core: Database, worker: Database
) -> None:
    list(unapproved_access.state(core))
    sealed(worker)

    found = exported(old)

    assert b"unapproved_access_stated" in found
    assert verified(found).exit_code == GOOD


def test_new_and_erased_tenants_get_no_monthly_statement(world: World, core: Database, superuser: Engine) -> None:
    world.submit()
    sealed(core)
    assert list(unapproved_access.state(core)) == []
    write_unchecked(superuser, OLD)
    is_erased_now(world, superuser)

    assert list(unapproved_access.state(core)) == []
    assert stated(world) == []


def unstated(core: Database) -> list[object]:
    return [
        violation.tenant_id
        for violation in alerts.find_violations(core, ScanPosition())[0]
        if violation.rule == "unstated"
    ]


def test_an_unreadable_policy_blocks_the_monthly_statement_of_one_tenant_and_raises_an_alarm(
    api: Database, old: World, core: Database, superuser: Engine
) -> None:
    other = World.make(api)
    other.submit(resources=["mailbox:old@elsewhere.example"])
    sealed(core)
    write_unchecked(superuser, OLD)
    broken = min(old.tenant.id, other.tenant.id)
    bodies = "UPDATE policies SET body = jsonb_set(body, '{quorum}', :quorum) WHERE tenant_id = :id"
    write_unchecked(superuser, bodies, quorum='"x"', id=broken)

    assert list(unapproved_access.state(core)) == [2]

    assert [row.tenant_id for row in read(core, EVENTS)] == [max(old.tenant.id, other.tenant.id)]
    assert unstated(core) == [broken]
    assert list(unapproved_access.state(core)) == []

    write_unchecked(superuser, bodies, quorum="1", id=broken)
    write_unchecked(superuser, "UPDATE logs SET unstated_at = unstated_at - interval '1 hour'")
    assert list(unapproved_access.state(core)) == [1]
    assert unstated(core) == []
    assert len(read(core, EVENTS)) == 2


@pytest.mark.usefixtures("old")
def test_the_core_workers_database_role_cannot_mark_a_monthly_statement_as_made(core: Database) -> None:
    with pytest.raises(DBAPIError, match="was not told so"), core.transaction() as session:
        session.execute(text("UPDATE logs SET stated_for = date_trunc('month', now())"))


MAIL, DRIVE = "exchange-online", "onedrive"
SERVICES = frozenset({MAIL, DRIVE})
ALL_REFUSED = ProbeResult(MAIL, "https://support.mail.example", 74, 0)


def recorded(world: World, result: ProbeResult = ALL_REFUSED, who: str = "olga") -> RecordedProbe:
    return does(world, who, gate_probes.record, result, services=SERVICES)


def newest(world: World, who: str) -> list[ProbeResult]:
    with world.db.transaction() as session:
        authentication.enter(session, world.people[who])
        return [one.result for one in gate_probes.newest(session, world.tenant.id)]


def test_a_gateway_probe_writes_a_log_event_and_notifies_no_one(world: World) -> None:
    recorded(world)

    told = last_change(world.db)
    assert (told.action, told.actor, told.role, told.told) == ("gate_probed", "Olga", "operator", set())
    assert told.changes == {f"gateway of {MAIL}": "74 of 74 refused"}
    assert told.facts["tenant_id"] == str(world.tenant.id)
    assert (told.facts["gateway"], told.facts["refused"], told.facts["let_through"]) == (ALL_REFUSED.gateway, 74, 0)


def test_the_newest_gateway_probe_of_each_service_is_shown_only_to_the_probed_tenant(world: World) -> None:
    hole, drive = ProbeResult(MAIL, "https://a.example", 70, 4), ProbeResult(DRIVE, "https://b.example", 40, 0)
    recorded(world)
    recorded(world, drive)
    recorded(world, hole)

    assert newest(world, "tara") == newest(world, "ann") == [hole, drive]
    assert newest(world, "erin") == []
    assert newest(world, "eve") == []


def test_a_probe_of_a_service_missing_from_the_catalogue_is_refused(world: World) -> None:
    with pytest.raises(Invalid):
        recorded(world, ProbeResult("teams", "https://a.example", 1, 1))
