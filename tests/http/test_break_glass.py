"""Break-glass over HTTP: by the API and on the pages, from the submission to the customer's finding."""

from typing import Any

import pytest

from harness.gateway_world import ANNA
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.http.door import OpenDoor, facts
from tests.http.gate_door import GateDoor, gate_before
from tests.http.guard_streams import GuardReader
from tests.http.portal import OpenPortal
from tests.http.test_portal_new_request import previewed, submitted
from tests.http.tokens import by, made
from tests.policy_setup import stand_in

ON = Policy(vendor_review=False, break_glass_services=("exchange-online",))
BOB = "bob@contoso.example"
ASK: dict[str, Any] = {"break_glass": True, "access_window": 900}


def test_gate_and_guards_flag_only_break_glass_windows_as_break_glass(open_door: OpenDoor) -> None:
    door = open_door(ON)
    plain = door.world.submit(resources=[f"mailbox:{BOB}"])
    door.world.act("ann", Action.APPROVE, plain.id)
    glass = door.world.submit(resources=[f"mailbox:{ANNA}"], **ASK)
    door.world.act("max", Action.BREAK_GLASS, glass.id, comment="Mail is down")

    with gate_before(door.world, door.db) as gate:
        answers = {name: gate.until(200, path=gate.path(name)).headers for name in (ANNA, BOB)}
        told = opened_on_stream(gate, {str(plain.id), str(glass.id)})

    assert answers[ANNA]["lockbox-break-glass"] == "true"
    assert "lockbox-break-glass" not in answers[BOB]
    assert (told[str(glass.id)], told[str(plain.id)]) == (True, None)


def opened_on_stream(gate: GateDoor, wanted: set[str]) -> dict[str, bool | None]:
    """Read a guard's stream until these windows are open; return of each open one whether break-glass opened it."""
    stream = GuardReader(gate)
    found = {one["request"]: one.get("break_glass") for event in stream.snapshot() for one in event.said["windows"]}
    while not wanted <= found.keys():
        told = stream.until("open", "close", "snapshot")
        if told.kind == "open":
            found[told.said["request"]] = told.said.get("break_glass")
        elif told.kind == "close":
            found.pop(told.said["request"], None)
        else:
            found = {one["request"]: one.get("break_glass") for one in told.said["windows"]}
    stream.close()
    return found


def test_due_break_glass_findings_are_listed_only_to_people_who_may_record_findings(open_door: OpenDoor) -> None:
    door = open_door(ON)
    stand_in(door.world, "aude", "ann")
    door.world.add("rob", Role.AUDITOR, door.world.tenant.id)
    request_id = door.file("erin", **ASK).json()["id"]
    door.act("max", "break-glass", request_id, comment="Mail is down")
    still_open = door.get("ann", "/v1/findings").json()["items"]
    door.act("ann", "revoke", request_id)

    shown = {who: door.get(who, "/v1/findings").json()["items"] for who in ("ann", "aude", "tara", "rob", "max")}
    token = made(door, "ann")
    by_token = by(token, door, "GET", "/v1/findings").json()["items"]
    seen = by(token, door, "GET", f"/v1/requests/{request_id}").json()["after_review"]
    said = {"finding": "justified", "comment": "As agreed"}
    facts(by(token, door, "POST", f"/v1/requests/{request_id}/finding", json=said), 403, "fresh-sign-in-needed")
    door.call("tara", "POST", f"/v1/requests/{request_id}/finding", json=said)

    assert still_open == by_token == []
    assert {who for who, items in shown.items() if items} == {"ann", "aude", "tara"}
    assert seen["may_find"] is False
    (due,) = shown["ann"]
    assert (due["request_id"], due["requester"]["name"], due["opened_by"]) == (request_id, "Erin", "Max")
    assert (due["tenant"], due["is_overdue"]) == (door.world.tenant.slug, False)
    assert door.get("ann", "/v1/findings").json() == {"items": []}


def test_the_inbox_shows_due_break_glass_findings_until_they_are_recorded(open_portal: OpenPortal) -> None:
    portal = open_portal(ON)
    stand_in(portal.world, "aude", "ann")
    portal.world.add("rob", Role.AUDITOR, portal.world.tenant.id)
    request = portal.world.submit(**ASK)
    portal.world.act("max", Action.BREAK_GLASS, request.id, comment="Mail is down")
    readers = {name: portal.browser() for name in ("ann", "aude", "tara", "rob", "max", "erin")}
    for name, browser in readers.items():
        browser.enter(name, AuthMethod.PASSKEY)

    assert "about break-glass due" not in readers["ann"].get("/waiting").words
    portal.world.act("ann", Action.REVOKE, request.id)
    shown = {name: browser.get("/waiting") for name, browser in readers.items()}

    told = {name for name, page in shown.items() if f"/requests/{request.id}#glass" in page.read.links}
    assert told == {"ann", "aude", "tara"}
    assert "alert glass" in shown["ann"].text
    assert "1 finding about break-glass due" in shown["ann"].words
    assert "Erin: access to Exchange Online at" in shown["ann"].words
    assert "Opened by Max" in shown["ann"].words
    page = readers["ann"].get(f"/requests/{request.id}")
    readers["ann"].submit(page, "/finding", finding="not_justified", comment="We were awake")
    assert "about break-glass due" not in readers["tara"].get("/waiting").words


@pytest.mark.far
def test_the_form_submits_break_glass_only_if_the_customers_policy_allows_break_glass(
    open_portal: OpenPortal,
) -> None:
    allowed, other = open_portal(ON), open_portal()

    refused = previewed(other.by_mail("erin"), other, break_glass="yes")
    browser = allowed.by_passkey("erin")
    browser.submit(previewed(browser, allowed, break_glass="yes"), "/ask")

    assert "This customer does not allow break-glass for this. Submit a request without it." in refused.words
    (request,) = submitted(allowed)
    assert (request.break_glass, request.state) == (True, "reviewing")
    assert submitted(other) == []


def test_break_glass_pages_are_red_and_both_sides_can_act_on_the_pages(open_portal: OpenPortal) -> None:
    portal = open_portal(ON)
    request_id = portal.world.submit(**ASK).id
    manager, approver = portal.browser(), portal.browser()
    manager.enter("max", AuthMethod.PASSKEY)
    approver.enter("ann", AuthMethod.PASSKEY)

    listed = manager.get("/review")
    page = manager.submit(manager.get(f"/requests/{request_id}"), "/break_glass", comment="Mail is down")

    assert "state glass" in listed.text
    assert "alert glass" in page.text
    assert "You broke the glass: access is open." in page.words
    seen = approver.get(f"/requests/{request_id}")
    assert "Any approver or admin can revoke it at once." in seen.words
    ended = approver.submit(seen, "/revoke")
    finders = (
        "Any approver of your organisation, a delegate of one, or an admin can give it, once. An API token cannot."
    )
    assert (finders in seen.words, finders in ended.words) == (False, True)
    refused = approver.submit(ended, "/finding", finding="justified", comment="")
    assert refused.status == 422
    assert 'value="justified" required checked' in refused.text
    found = approver.submit(refused, "/finding", finding="justified", comment="As agreed by phone")
    assert "You gave the finding." in found.words
    assert "Found justified by Ann" in found.words


def test_the_preview_says_who_opens_break_glass_and_who_is_notified(open_portal: OpenPortal) -> None:
    portal = open_portal(ON)
    browser = portal.by_passkey("erin")

    page = previewed(browser, portal, break_glass="yes", access_window="900")

    assert "Opened by nobody" not in page.words
    assert "Then approved by" not in page.words
    assert "The customer is not asked: a manager of the vendor opens access, and Abe, Amir, Ann, Tara" in page.words
    assert "15 min after it is opened, or sooner; if opened now, until" in page.words
