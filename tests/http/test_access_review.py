"""Access reviews: who may approve, through what, and when they signed in last; over HTTP, as CSV and on pages."""

import csv
import io

from lockbox.admin import access_review
from lockbox.identity.roles import Role
from tests.database.tenancy import id_of
from tests.http.door import Door, facts
from tests.http.portal import OpenPortal
from tests.policy_setup import stand_in


def test_an_access_review_of_a_tenant_states_who_may_approve_and_by_what_right(fresh_door: Door) -> None:
    world, place = fresh_door.world, f"/v1/tenants/{fresh_door.world.tenant.slug}/access-review"
    stand_in(world, "aude", "ann")
    world.add("both", Role.ENGINEER)
    fresh_door.run_sql(
        "INSERT INTO memberships (id, person_id, role) VALUES (uuidv7(), :p, 'manager')", p=id_of(world, "both")
    )

    found = fresh_door.get("aude", place).json()
    table = list(csv.DictReader(io.StringIO(fresh_door.get("tara", f"{place}/export").text)))

    people = {one["name"]: one for one in found["items"]}
    assert (people["Ann"]["may_approve"], people["Ann"]["through"]) == (True, ["approver"])
    assert people["Aude"]["may_approve"]
    assert people["Aude"]["through"][0].startswith("delegate of Ann until ")
    assert (people["Tara"]["may_approve"], people["Tara"]["through"]) == (False, [])
    assert people["Tara"]["roles"] == ["tenant_admin"]
    assert {"id": str(id_of(world, "both")), "name": "Both", "roles": ["engineer", "manager"]} in found[
        "vendor_with_two_roles"
    ]
    assert {one["name"] for one in table if one["part"] == "member"} == set(people)
    facts(fresh_door.get("ann", place), 403, "wrong-role")
    facts(fresh_door.get("tara", "/v1/tenants/nowhere/access-review"), 404, "not-found")


def test_only_operators_and_auditors_read_the_access_review_of_the_vendor(door: Door) -> None:
    found = door.get("vera", "/v1/vendor/access-review").json()

    assert found["tenant"] is None
    assert {"Erin", "Max", "Olga", "Vera"} <= {one["name"] for one in found["items"]}
    assert not any(one["may_approve"] for one in found["items"])
    facts(door.get("max", "/v1/vendor/access-review"), 403, "wrong-role")
    assert door.get("olga", "/v1/vendor/access-review/export").text.startswith(",".join(access_review.COLUMNS))


def test_the_access_review_pages_show_the_last_sign_in_of_each_person(open_portal: OpenPortal) -> None:
    portal = open_portal()
    here, admin = f"/tenants/{portal.world.tenant.slug}/access-review", portal.by_passkey("tara")

    page, members = admin.get(here), admin.get(f"/tenants/{portal.world.tenant.slug}/members")
    vendors = portal.by_passkey("olga").get("/access-review")

    assert "May approve as approver" in page.words
    assert "No sign-in on record" in page.words
    assert here in members.read.links
    assert here not in portal.by_passkey("ann").get(f"/tenants/{portal.world.tenant.slug}/members").read.links
    assert admin.call("GET", f"{here}/export").headers["content-type"].startswith("text/csv")
    assert "Erin" in vendors.words
