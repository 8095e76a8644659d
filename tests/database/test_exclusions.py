"""The exclusions: an operator states them, every customer's log holds them, and an admin acknowledges the newest."""

import json
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError

from harness.people import World
from lockbox.admin import exclusions
from lockbox.admin.exclusions import TenantExclusions
from lockbox.audit.verifier.verify import GOOD
from lockbox.database import Database
from lockbox.errors import Conflict, NotFound, SignInAgain, StaleVersion
from lockbox.facts.enumerations import AuthMethod
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.scenes import read
from tests.database.tenancy import does, manages, on_the_database, reads
from tests.database.test_exports import exported, verified
from tests.each import each
from tests.logs import sealed
from tests.policy_setup import signed_in

TEXT = "Demands by law are not covered.\n\nNor is what an incident shows by chance."
AT_ONCE = timedelta(0)


def stated(world: World, text: str = TEXT, **more: Any) -> int:
    return manages(world, "olga", exclusions.state, text, **more).version


def told(worker: Database) -> int:
    return sum(exclusions.announce(worker, settled=AT_ONCE))


def standing(world: World, who: str = "ann") -> TenantExclusions:
    return reads(world, who, exclusions.of_tenant)


def test_every_version_of_the_vendors_exclusions_reaches_the_log_and_admins_of_each_tenant(
    world: World, worker: Database
) -> None:
    stated(world)
    by_the_operator = last_change(world.db)

    assert told(worker) == 1
    assert told(worker) == 0

    event = last_change(world.db)
    assert (by_the_operator.actor, by_the_operator.told) == ("Olga", {"Olga"})
    assert (event.action, event.role, event.facts["log"]) == ("exclusions_changed", "clock", str(world.tenant.id))
    assert (event.facts["version"], event.facts["text"]) == (1, TEXT)
    assert {"Tara", "Ann"} <= event.told
    assert event.changes == {"version": "none → 1"}


def test_both_verifiers_accept_an_export_that_contains_the_text_of_the_exclusions(
    world: World, worker: Database
) -> None:
    stated(world)
    told(worker)
    does(world, "tara", exclusions.acknowledge, version=1)
    sealed(worker)

    found = exported(world)

    bodies = [json.loads(json.loads(line)["body"]) for line in found.splitlines() if b'"body"' in line]
    assert [body["text"] for body in bodies if body["action"].startswith("exclusions_")] == [TEXT, TEXT]
    assert verified(found).exit_code == GOOD


def test_an_admin_acknowledges_each_version_of_the_exclusions_once(world: World) -> None:
    stated(world)
    assert standing(world).is_due

    found = does(world, "tara", exclusions.acknowledge, version=1)
    again = does(world, "tara", exclusions.acknowledge, version=1)

    assert not found.is_due
    assert found == again
    events = [change for change in recorded_changes(world.db) if change.action == "exclusions_acknowledged"]
    assert [event.details.get("name") for event in events] == ["Tara", None]
    assert [event.facts["log"] for event in events] == [str(world.tenant.id), "00000000-0000-0000-0000-000000000000"]
    stated(world, "Another text")
    due = standing(world)
    assert (due.is_due, due.current and due.current.version, due.acknowledged and due.acknowledged.version) == (
        True,
        2,
        1,
    )


def test_an_admin_can_acknowledge_only_the_current_exclusions_and_needs_a_fresh_sign_in(world: World) -> None:
    with pytest.raises(NotFound):
        does(world, "tara", exclusions.acknowledge, version=1)
    stated(world)
    stated(world, "Another text")

    with pytest.raises(Conflict):
        does(world, "tara", exclusions.acknowledge, version=1)
    with pytest.raises(NotFound):
        does(world, "tara", exclusions.acknowledge, version=3)
    world.people["tara"] = signed_in(world, "tara", AuthMethod.MAIL)
    with pytest.raises(SignInAgain):
        does(world, "tara", exclusions.acknowledge, version=2)
    assert standing(world).acknowledged is None


def test_publishing_unchanged_exclusions_changes_nothing(world: World) -> None:
    assert [stated(world), stated(world, seen=1), stated(world, "Another text", seen=1)] == [1, 1, 2]
    with pytest.raises(StaleVersion):
        stated(world, "A third text", seen=1)


def test_the_vendor_sees_acknowledgements_of_the_exclusions(world: World) -> None:
    stated(world)
    does(world, "tara", exclusions.acknowledge, version=1)

    with world.db.transaction() as session:
        page = exclusions.standings(session, world.people["vera"], cursor=None, most=200)
    (one,) = [one for one in page.standings if one.slug == world.tenant.slug]

    assert one.version == 1


@each(
    ("who", "statement"),
    [
        ("olga", "UPDATE exclusions SET body = 'x'"),
        ("olga", "DELETE FROM exclusions"),
        ("tara", "INSERT INTO exclusions (version, body, author_id, created_at) SELECT 7, 'x', at_person(), now()"),
        ("ann", "INSERT INTO exclusion_acknowledgements SELECT at_tenant(), 1, at_person(), now()"),
        ("tara", "UPDATE exclusion_acknowledgements SET version = 2"),
    ],
)
def test_no_database_role_changes_a_published_version_of_the_exclusions(
    world: World, who: str, statement: str
) -> None:
    stated(world)

    with pytest.raises(DBAPIError):
        on_the_database(world, who, statement)
    assert [row.body for row in read(world.db, "SELECT body FROM exclusions")] == [TEXT]
