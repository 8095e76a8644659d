"""What the API tells callers about themselves."""

from datetime import UTC, datetime, timedelta

import pytest

from harness.stage import setting
from lockbox.identity import tenants
from lockbox.identity.roles import Role
from tests.database.scenes import read
from tests.http.door import Door, OpenDoor, facts
from tests.http.portal import Portal
from tests.http.tokens import by, made


@pytest.mark.parametrize(
    ("who", "role"), [("erin", "engineer"), ("max", "manager"), ("olga", "operator"), ("gate", "system")]
)
def test_vendor_people_see_their_own_roles(door: Door, who: str, role: str) -> None:
    answer = door.get(who, "/v1/me")

    me = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert me.pop("signed_in_at")
    assert me == {
        "id": str(door.world.people[who].person_id),
        "name": who.capitalize(),
        "side": "vendor",
        "roles": [role],
        "tenants": {},
        "means": "sample",
        "time_zone": "UTC",
        "wants_prompts": True,
    }


def test_customers_see_their_own_roles_by_tenant(open_door: OpenDoor) -> None:
    door, elsewhere = open_door(), open_door()
    zoe = door.world.add("zoe", Role.APPROVER, door.world.tenant.id)
    with setting(door.db).transaction() as session:
        tenants.give_role(session, zoe.person_id, Role.AUDITOR, door.world.tenant.id)
        tenants.give_role(session, zoe.person_id, Role.TENANT_ADMIN, elsewhere.world.tenant.id)

    me = door.get("zoe", "/v1/me").json()

    assert (me["side"], me["roles"]) == ("customer", [])
    assert me["tenants"] == {
        door.world.tenant.slug: ["approver", "auditor"],
        elsewhere.world.tenant.slug: ["tenant_admin"],
    }


def test_an_api_token_does_not_count_as_a_sign_in(door: Door) -> None:
    me = by(made(door, "max"), door, "GET", "/v1/me").json()

    assert (me["means"], me["signed_in_at"]) == ("token", None)


def test_the_api_shows_when_and_how_the_person_of_a_session_signed_in(portal: Portal) -> None:
    browser = portal.browser()
    browser.sign_in("ann")

    me = browser.call("GET", "/v1/me").json()

    assert me["means"] == "mail"
    assert abs(datetime.fromisoformat(me["signed_in_at"]) - datetime.now(UTC)) < timedelta(minutes=1)


def test_a_person_sees_only_their_current_roles(fresh_door: Door) -> None:
    fresh_door.run_sql("DELETE FROM memberships WHERE person_id = :p", p=fresh_door.world.people["ann"].person_id)

    me = fresh_door.get("ann", "/v1/me").json()

    assert (me["roles"], me["tenants"]) == ([], {})


def test_an_anonymous_caller_learns_nothing(door: Door) -> None:
    facts(door.get(None, "/v1/me"), 401, "invalid-token")


def test_a_person_sets_the_time_zone_of_their_mails(fresh_door: Door) -> None:
    answer = fresh_door.call("ann", "PATCH", "/v1/me", json={"time_zone": "Europe/Berlin"})

    assert (answer.status_code, answer.json()["time_zone"]) == (200, "Europe/Berlin")
    assert answer.headers["cache-control"] == "no-store"
    assert fresh_door.get("ann", "/v1/me").json()["time_zone"] == "Europe/Berlin"
    assert fresh_door.get("amir", "/v1/me").json()["time_zone"] == "UTC"


@pytest.mark.parametrize(
    "name", ["Nowhere/Land", "europe/berlin", "../UTC", "localtime", "CEST+99", "Europe/Berlin "]
)
def test_an_unknown_time_zone_is_refused(door: Door, name: str) -> None:
    answer = door.call("ann", "PATCH", "/v1/me", json={"time_zone": name})

    assert facts(answer, 422, "invalid-request")["field"] == "time_zone"
    assert door.get("ann", "/v1/me").json()["time_zone"] == "UTC"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"time_zone": None},
        {"wants_prompts": "no"},
        {"wants_prompts": 0},
        {"time_zone": ""},
        {"time_zone": "UTC", "name": "Mallory"},
    ],
)
def test_an_account_change_with_an_invalid_unknown_or_missing_field_is_refused(
    door: Door, body: dict[str, object]
) -> None:
    facts(door.call("ann", "PATCH", "/v1/me", json=body), 422, "invalid-request")


def test_an_api_token_changes_no_notification_preference(door: Door) -> None:
    answer = by(made(door, "max"), door, "PATCH", "/v1/me", json={"time_zone": "Asia/Tokyo"})

    facts(answer, 403, "fresh-sign-in-needed")
    assert door.get("max", "/v1/me").json()["time_zone"] == "UTC"


def test_the_time_zone_can_be_set_on_the_account_page(portal: Portal) -> None:
    browser = portal.by_mail("abe")

    page = browser.submit(browser.get("/account"), "/account/preferences", time_zone=" Asia/Kathmandu ")
    refused = browser.submit(browser.get("/account"), "/account/preferences", time_zone="Nowhere/Land")

    assert "Your time zone is Asia/Kathmandu" in page.words
    assert refused.status == 422
    assert "Choose a time zone by its name, such as Europe/Berlin" in refused.words
    assert "Your time zone is Asia/Kathmandu" in browser.get("/account").words


def test_turning_prompts_off_is_recorded(fresh_door: Door) -> None:
    ann = fresh_door.world.people["ann"].person_id

    for wanted in (False, False, True):
        answer = fresh_door.call("ann", "PATCH", "/v1/me", json={"wants_prompts": wanted})
        assert (answer.status_code, answer.json()["wants_prompts"]) == (200, wanted)

    query = "SELECT action FROM events WHERE actor_id = :p AND action LIKE 'prompts%' ORDER BY id"
    events = read(fresh_door.db, query, p=ann)
    assert [row.action for row in events] == ["prompts_declined", "prompts_wanted"]


def test_an_api_token_cannot_turn_prompts_off(door: Door) -> None:
    answer = by(made(door, "max"), door, "PATCH", "/v1/me", json={"wants_prompts": False})

    facts(answer, 403, "fresh-sign-in-needed")
    assert door.get("max", "/v1/me").json()["wants_prompts"] is True


def test_prompts_can_be_turned_off_and_on_on_the_account_page(portal: Portal) -> None:
    browser = portal.by_mail("amir")

    declined = browser.submit(browser.get("/account"), "/account/preferences/prompts")
    wanted = browser.submit(declined, "/account/preferences/prompts")

    assert "only when there are too few other approvers" in declined.words
    assert "for each request that you can decide" in wanted.words
