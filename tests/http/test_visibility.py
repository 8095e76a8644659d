"""Who sees what over HTTP: what is not yours looks as if it were not there."""

from uuid import UUID

import pytest

from harness.people import World
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.each import each
from tests.http.door import Door, OpenDoor, facts

ROUTES = [
    ("GET", ""),
    ("GET", "/events"),
    *(("POST", f"/{action}") for action in ("endorse", "approve", "deny", "cancel", "revoke", "complete")),
]


@pytest.fixture(scope="module")
def guarded(open_door: OpenDoor) -> Door:
    """A world with vendor review, and an approver, an admin and an auditor of another tenant."""
    door = open_door(Policy())
    elsewhere = World.make(door.db)
    for name, role in (("zoe", Role.APPROVER), ("zack", Role.TENANT_ADMIN), ("zara", Role.AUDITOR)):
        door.world.add(name, role, elsewhere.tenant.id)
    door.world.add("new", Role.ENGINEER)
    return door


@each(("method", "tail"), ROUTES)
@each("who", ["eve", "olga", "gate", "zoe", "zack", "zara"])
def test_a_request_of_others_answers_as_one_that_does_not_exist(
    guarded: Door, who: str, method: str, tail: str
) -> None:
    request = guarded.world.submit()
    guarded.world.act("max", Action.ENDORSE, request.id)
    before = guarded.rows()

    theirs = guarded.call(who, method, f"/v1/requests/{request.id}{tail}")
    nobodys = guarded.call(who, method, f"/v1/requests/{new_id()}{tail}")

    facts(theirs, 404, "not-found")
    assert theirs.content == nobodys.content
    assert set(theirs.headers) == set(nobodys.headers)
    assert guarded.rows() == before


@each(("method", "tail"), ROUTES)
@each("who", ["ann", "tara", "aude"])
def test_what_the_vendor_still_reviews_is_not_there_for_the_customer(
    guarded: Door, who: str, method: str, tail: str
) -> None:
    request_id = guarded.pending()

    theirs = guarded.call(who, method, f"/v1/requests/{request_id}{tail}")

    facts(theirs, 404, "not-found")
    assert theirs.content == guarded.call(who, method, f"/v1/requests/{UUID(int=5)}{tail}").content


@pytest.mark.parametrize("ending", [("max", Action.DENY), ("erin", Action.CANCEL)])
def test_what_ended_in_review_never_comes_to_the_customers_eyes(guarded: Door, ending: tuple[str, Action]) -> None:
    request = guarded.world.submit()
    guarded.world.act(*ending, request.id)

    assert guarded.get("ann", f"/v1/requests/{request.id}").status_code == 404
    assert str(request.id) not in guarded.get("ann", "/v1/requests").text
    assert guarded.get("max", f"/v1/requests/{request.id}").status_code == 200


@each(
    ("who", "sees"),
    [
        ("erin", {"own", "told"}),
        ("eve", set()),
        ("max", {"own", "told"}),
        ("vera", {"own", "told"}),
        ("olga", set()),
        ("gate", set()),
        ("ann", {"told"}),
        ("tara", {"told"}),
        ("aude", {"told"}),
        ("zoe", set()),
        ("new", set()),
    ],
)
def test_lists_and_looks_agree_on_who_sees_what(guarded: Door, who: str, sees: set[str]) -> None:
    told = guarded.world.submit()
    guarded.world.act("max", Action.ENDORSE, told.id)
    both = {"own": guarded.pending(), "told": str(told.id)}

    listed = {item["id"] for item in guarded.get(who, "/v1/requests", limit=200).json()["items"]}

    assert {name for name, one in both.items() if one in listed} == sees
    for name, one in both.items():
        for tail in ("", "/events"):
            assert guarded.get(who, f"/v1/requests/{one}{tail}").status_code == (200 if name in sees else 404)


def test_an_approver_of_two_tenants_sees_both(guarded: Door, open_door: OpenDoor) -> None:
    other = open_door()
    here, there = guarded.world.submit(), other.world.submit()
    guarded.world.act("max", Action.ENDORSE, here.id)
    grant = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (gen_random_uuid(), :p, :t, 'approver')"
    both = guarded.world.add("both", Role.APPROVER, guarded.world.tenant.id)
    guarded.run_sql(grant, p=both.person_id, t=other.world.tenant.id)

    listed = {item["id"] for item in guarded.get("both", "/v1/requests").json()["items"]}

    assert {str(here.id), str(there.id)} <= listed


def test_a_person_who_lost_the_role_sees_nothing_any_more(fresh_door: Door) -> None:
    request_id = fresh_door.pending()
    assert fresh_door.get("ann", f"/v1/requests/{request_id}").status_code == 200

    fresh_door.run_sql("DELETE FROM memberships WHERE person_id = :p", p=fresh_door.world.people["ann"].person_id)

    facts(fresh_door.get("ann", f"/v1/requests/{request_id}"), 404, "not-found")
    assert fresh_door.get("ann", "/v1/requests").json()["items"] == []
