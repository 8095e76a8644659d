"""The notification preview for a tenant's own people: who is notified and where, and who could decide, if anyone."""

from typing import Any
from uuid import UUID

import pytest

from lockbox.admin import webhooks
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from tests.database.postbag import address
from tests.database.tenancy import does
from tests.http.door import Door, facts
from tests.http.places import REACH, WHAT_IF
from tests.mailbox import code_of
from tests.policy_setup import group, lay_down

DESK = "desk@contoso.example"


def foresee(door: Door, who: str = "tara", **changes: Any) -> dict[str, Any]:
    answer = door.call(who, "POST", f"/v1/tenants/{door.world.tenant.slug}/preview", json=WHAT_IF | changes)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _also_at_the_desk(door: Door, worker: Database) -> None:
    added = door.call("ann", "POST", "/v1/me/addresses", json={"email": DESK}).json()["id"]
    door.call("ann", "POST", f"/v1/me/addresses/{added}/confirm", json={"code": code_of(worker, UUID(added))})


@pytest.mark.parametrize("who", ["tara", "ann", "aude"])
def test_a_members_preview_lists_who_is_notified_who_could_approve_and_who_is_copied(
    fresh_door: Door, worker: Database, who: str
) -> None:
    world = fresh_door.world
    _also_at_the_desk(fresh_door, worker)
    fresh_door.call("amir", "PATCH", "/v1/me", json={"wants_prompts": False})
    lay_down(world, vendor_review=True, tiers=[["first"]], groups={"first": group(world, "ann", "amir")})
    place = f"/v1/tenants/{world.tenant.slug}/observers"
    fresh_door.call("tara", "POST", place, json={"name": "Watch", "address": "watch@contoso.example"})
    wanted = webhooks.WebhookInput("https://hooks.contoso.example/secret-path")
    does(world, "tara", webhooks.add, wanted, reach=REACH)

    found = foresee(fresh_door, who)

    anns = address(world.db, world, "ann")
    assert found["notified_first"] == [{"name": "Ann", "addresses": [anns, DESK]}]
    assert (found["could_approve"], found["quiet"]) == (["Abe", "Amir", "Ann"], ["Amir"])
    assert found["copied"] == [{"name": "Watch", "addresses": ["watch@contoso.example"]}]
    assert found["endpoints"] == ["hooks.contoso.example"]
    assert (found["first_state"], found["warnings"]) == ("reviewing", [])
    assert found["reviewers"] >= 2


def test_an_engineers_notification_preview_has_counts_of_mailboxes_and_no_address(
    fresh_door: Door, worker: Database
) -> None:
    world = fresh_door.world
    _also_at_the_desk(fresh_door, worker)
    does(world, "tara", webhooks.add, webhooks.WebhookInput("https://hooks.contoso.example/"), reach=REACH)

    answer = fresh_door.call("erin", "POST", "/v1/requests/preview", json=world.body())

    found = answer.json()
    assert found["notified_first"] == [
        {"name": "Abe", "mailboxes": 1},
        {"name": "Amir", "mailboxes": 1},
        {"name": "Ann", "mailboxes": 2},
    ]
    assert found["endpoints"] == 1
    assert "@" not in answer.text.replace("mailbox:anna@contoso.example", "")


def test_the_notification_preview_warns_if_no_one_could_decide_or_be_asked(fresh_door: Door) -> None:
    lay_down(fresh_door.world, quorum=9)
    few = foresee(fresh_door)["warnings"]
    fresh_door.run_sql("UPDATE people SET disabled_at = now() WHERE name IN ('Ann', 'Amir', 'Abe')")

    nobody = foresee(fresh_door)

    assert len(few) == 1
    assert any("Nobody would be asked" in one for one in nobody["warnings"])
    assert nobody["notified_first"] == []


@pytest.mark.parametrize(("mode", "expected"), [(Mode.OBSERVE, ["Abe", "Amir", "Ann", "Tara"]), (Mode.OFF, ["Tara"])])
def test_the_notification_preview_names_notified_people_where_the_vendor_decides(
    fresh_door: Door, mode: Mode, expected: list[str]
) -> None:
    fresh_door.run_sql("UPDATE tenants SET mode = :mode WHERE id = :id", mode=mode, id=fresh_door.world.tenant.id)

    found = foresee(fresh_door)

    assert [one["name"] for one in found["notified_first"]] == expected
    assert (found["could_approve"], found["mode"]) == ([], mode.value)


def test_the_notification_preview_writes_nothing_and_reports_a_suspended_tenant(fresh_door: Door) -> None:
    fresh_door.run_sql("UPDATE tenants SET suspended = true")
    before = fresh_door.rows()

    found = foresee(fresh_door)

    assert "suspended" in found["warnings"][0]
    assert fresh_door.rows() == before


def test_the_notification_preview_refuses_an_unknown_service(door: Door) -> None:
    path = f"/v1/tenants/{door.world.tenant.slug}/preview"
    before = door.rows()

    facts(door.call("tara", "POST", path, json=WHAT_IF | {"service": "nothing"}), 422, "unknown-service")
    facts(door.call("tara", "POST", path, json=WHAT_IF | {"actions": ["fly"]}), 422, "unknown-service")
    assert door.call("tara", "POST", path, json={}).status_code == 422
    assert door.rows() == before
