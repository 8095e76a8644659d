"""Access around Lockbox is declared by operators: the customer is told all of it, and nobody changes it."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from gate import outside_access
from gate.outside_access import DeclaredAccess, OutsideAccess
from harness.people import World
from harness.stage import Urls
from lockbox.admin import policies
from lockbox.database import Database
from lockbox.errors import Conflict, NotFound, UnknownEngineer, UnknownService
from lockbox.identity.time_zones import clock_time
from lockbox.monitoring import metrics, status
from lockbox.monitoring.metrics import MetricName
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import read
from tests.database.tenancy import does, id_of, on_the_database, reads
from tests.database.test_erasure import erase

SERVICE = "exchange-online"
BOXES = ["mailbox:anna@contoso.example", "mailbox:bob@contoso.example"]
WHY = "Lockbox could not be reached, and no mail was delivered."
FORGED = """
INSERT INTO events (id, tenant_id, at, action, actor_id, actor_role, body)
VALUES (uuidv7(), :tenant, now(), 'outside_access', :person, :role, '{}')
"""


def an_hour(world: World, *engineers: str, ago: float = 3.0, **changes: Any) -> OutsideAccess:
    """Return an hour of access, some hours ago."""
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
    """Declare access at the world's tenant."""
    return does(world, who, outside_access.declare, taken or an_hour(world), services={SERVICE}, **more)


def listed(world: World, who: str) -> list[DeclaredAccess]:
    return reads(world, who, outside_access.of_tenant)


def test_who_when_where_and_why_stand_in_the_customers_log_and_all_are_told(world: World, post: Postbag) -> None:
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


def test_the_tenants_members_read_what_was_declared(world: World) -> None:
    first = declared(world)
    second = declared(world, an_hour(world, "eve", ago=1.5))

    for who in ("ann", "tara", "aude"):
        assert [one.id for one in listed(world, who)] == [second, first]
    shown = listed(world, "ann")[1]
    assert (shown.engineers, shown.service, shown.resources, shown.reason) == (["Erin"], SERVICE, BOXES, WHY)
    assert shown.ended_at - shown.began_at == timedelta(hours=1)
    assert shown.declared_by == "Olga"


def test_somebody_of_another_tenant_does_not_learn_of_this_one(world: World) -> None:
    with pytest.raises(NotFound):
        declared(world, slug="nowhere")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"seconds": 4 * 3600}, Conflict),
        ({"began_at": datetime.now(UTC) + timedelta(days=1), "seconds": 1}, Conflict),
        ({"began_at": datetime.now(UTC) - timedelta(days=400)}, Conflict),
        ({"service": "teams"}, UnknownService),
        ({"engineers": [UUID(int=7)]}, UnknownEngineer),
    ],
)
def test_what_is_not_over_or_names_nobody_is_refused(
    world: World, changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        declared(world, an_hour(world, **changes))

    assert not recorded_changes(world.db)


@pytest.mark.parametrize("who", ["ann", "gate"])
def test_customers_and_service_accounts_are_no_engineers(world: World, who: str) -> None:
    with pytest.raises(UnknownEngineer):
        declared(world, an_hour(world, "erin", who))


def test_whoever_has_left_since_is_named(world: World) -> None:
    taken = an_hour(world, "eve")
    on_the_database(world, "olga", "UPDATE people SET disabled_at = now() WHERE id = :id", id=id_of(world, "eve"))

    declared(world, taken)

    assert listed(world, "ann")[0].engineers == ["Eve"]


def test_an_engineer_who_is_named_twice_is_named_once(world: World) -> None:
    declared(world, an_hour(world, "erin", "erin"))

    assert listed(world, "ann")[0].engineers == ["Erin"]


@pytest.mark.parametrize("who", ["erin", "max", "vera", "gate", "tara", "ann"])
def test_nobody_else_writes_such_an_event_on_the_database(world: World, who: str) -> None:
    with pytest.raises(DBAPIError, match="row-level security"):
        on_the_database(world, who, FORGED, tenant=world.tenant.id, person=id_of(world, who), role="operator")


@pytest.mark.parametrize("login", ["api", "worker", "notifications"])
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET body = '{}' WHERE action = 'outside_access'",
        "DELETE FROM events WHERE action = 'outside_access'",
        "UPDATE event_details SET fields = '{}'",
        "UPDATE counters SET count = 0",
        "SELECT count_outside_access()",
    ],
)
def test_no_login_changes_what_was_declared_or_its_count(
    world: World, urls: Urls, login: str, statement: str
) -> None:
    declared(world)
    engine = create_engine(getattr(urls, login))
    try:
        with engine.connect() as connection, pytest.raises(DBAPIError):
            connection.execute(text(statement))
    finally:
        engine.dispose()


def test_it_is_counted_for_ever_and_shown_for_thirty_days(world: World, api: Database) -> None:
    declared(world)
    declared(world)

    found = status.read(api, with_redis=False)

    assert found.figures.one(MetricName.OUTSIDE_ACCESS) == 2
    assert {one.name: one.value for one in status.lines(found)}[status.OUTSIDE_ACCESS] == "2"
    assert found.as_facts()["outside_access_30_days"] == 2
    assert metrics.read(api).one(MetricName.OUTSIDE_ACCESS_LATELY) == 2


def test_mails_say_who_when_where_and_why(world: World, worker: Database, post: Postbag) -> None:
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


def test_a_policy_that_keeps_justifications_out_of_mails_keeps_the_reason_out(
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


def test_an_erased_engineer_is_no_longer_named(world: World, urls: Urls) -> None:
    declared(world, an_hour(world, "eve", "erin"))

    erase(urls, id_of(world, "eve"))

    (shown,) = listed(world, "ann")
    assert (shown.engineers, shown.reason) == (["Erin"], WHY)
    assert not read(world.db, "SELECT FROM event_details WHERE fields::text LIKE '%Eve%'")
