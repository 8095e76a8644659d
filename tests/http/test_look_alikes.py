"""One human with two accounts is not stopped, but the second person to decide is warned of equal names."""

import json

from cli import request_table
from lockbox.facts.enumerations import State
from lockbox.requests.policy_rules import Policy
from tests.database.test_pre_approvals import in_force, propose
from tests.http.door import Door
from tests.http.portal import OpenPortal, Portal

WARNING = "has your name or your mailbox"


def name_like(door: Door, who: str, whom: str) -> None:
    people = door.world.people
    named = "UPDATE people SET name = (SELECT name FROM people WHERE id = :whom) WHERE id = :id"
    door.run_sql(named, id=people[who].person_id, whom=people[whom].person_id)


def test_a_manager_with_the_requesters_name_gets_a_warning_and_is_not_refused(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy())
    request = portal.world.fresh()
    browser = portal.by_passkey("max")
    before = browser.get(f"/requests/{request.id}")
    portal.sql(
        "UPDATE people SET name = 'Erin ' WHERE id = :id RETURNING id", id=portal.world.people["max"].person_id
    )

    page = browser.get(f"/requests/{request.id}")
    after = browser.submit(page, f"/requests/{request.id}/endorse")

    assert WARNING not in before.words
    assert WARNING in page.words
    assert after.status == 200
    (row,) = portal.sql("SELECT state FROM requests WHERE id = :id", id=request.id)
    assert row.state == State.PENDING


def test_the_api_warns_an_approver_whose_name_equals_the_requesters_name(fresh_door: Door) -> None:
    request_id = fresh_door.pending()
    before = fresh_door.get("ann", f"/v1/requests/{request_id}").json()["look_alikes"]
    name_like(fresh_door, "erin", "ann")

    view = fresh_door.get("ann", f"/v1/requests/{request_id}").json()

    assert (before, view["look_alikes"]) == ([], ["Ann"])
    assert fresh_door.get("amir", f"/v1/requests/{request_id}").json()["look_alikes"] == []
    assert request_table.request(view).rows["Your name or mailbox"] == "Ann"
    assert fresh_door.act("ann", "approve", request_id).json()["state"] == "active"


def test_look_alike_warnings_include_confirmed_additional_mail_addresses(fresh_door: Door) -> None:
    request_id = fresh_door.pending()
    people = {name: fresh_door.world.people[name].person_id for name in ("ann", "erin")}
    adds = (
        "INSERT INTO addresses (id, person_id, email, prompts, code_nonce, created_at, expires_at) "
        "SELECT uuidv7(), :id, email, true, 'n', now(), now() + interval '1 h' FROM people WHERE id = :whose"
    )
    fresh_door.run_sql(adds, id=people["ann"], whose=people["erin"])
    before = fresh_door.get("ann", f"/v1/requests/{request_id}").json()["look_alikes"]
    fresh_door.run_sql("UPDATE addresses SET confirmed_at = now() WHERE person_id = :id", id=people["ann"])

    after = fresh_door.get("ann", f"/v1/requests/{request_id}").json()["look_alikes"]

    assert (before, after) == ([], ["Erin"])


def test_an_approver_of_a_pre_approval_is_warned_of_a_proposer_with_a_similar_name(portal: Portal) -> None:
    which, slug = propose(portal.world), portal.world.tenant.slug
    place, view = f"/tenants/{slug}/pre-approvals", f"/v1/tenants/{slug}/pre-approvals/{which}"
    ann = portal.by_passkey("ann")
    before = ann.get(place)
    people = portal.world.people
    portal.sql("UPDATE people SET name = 'Tara ' WHERE id = :id RETURNING id", id=people["ann"].person_id)

    page, shown = ann.get(place), json.loads(ann.call("GET", view).text)
    approved = ann.submit(page, f"{place}/{which}/approve")

    assert WARNING not in before.words
    assert WARNING in page.words
    assert shown["look_alikes"] == ["Tara"]
    assert approved.status == 200


def test_the_unapproved_access_api_names_people_whose_names_resemble_the_readers_name(fresh_door: Door) -> None:
    which, slug = in_force(fresh_door.world), fresh_door.world.tenant.slug
    name_like(fresh_door, "tara", "amir")
    places = (f"/v1/tenants/{slug}/pre-approvals/{which}", f"/v1/tenants/{slug}/unapproved-access")

    by_itself, found = (fresh_door.get("amir", place).json() for place in places)

    assert by_itself["look_alikes"] == ["Amir"]
    assert found["pre_approvals"] == [by_itself]
