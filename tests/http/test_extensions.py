"""Later starts and extensions over HTTP and on pages: what is shown to whom, and a clear answer to bad input."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from httpx import Response

from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from tests.http.door import Door, facts
from tests.http.portal import Browser, OpenPortal, Portal
from tests.http.test_portal_new_request import previewed, submitted
from tests.http.test_portal_requests import BY_MAIL
from tests.policy_setup import lay_down

MINUTE = timedelta(minutes=1)


@pytest.fixture
def by_mail(open_portal: OpenPortal) -> Portal:
    """The pages of a world whose tenant lets a mailed code approve."""
    return open_portal(BY_MAIL)


def extended(portal: Portal) -> tuple[UUID, UUID, Browser]:
    """Open a window for Erin, who asks for two hours more; return both requests and her browser."""
    first = portal.world.fresh(access_window=3600).id
    portal.world.act("ann", Action.APPROVE, first)
    browser, page = portal.opened("erin", first)
    browser.submit(page, f"/requests/{first}/extend", more="7200", why="It takes longer")
    (second,) = portal.sql("SELECT id FROM requests WHERE extends = :id", id=first)
    return first, second.id, browser


def extend(door: Door, who: str, request_id: str, **body: Any) -> Response:
    return door.call(who, "POST", f"/v1/requests/{request_id}/extend", json={"access_window": 7200} | body)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"access_window": 0}, 422, "invalid-request"),
        ({"justification": ""}, 422, "invalid-request"),
        ({"extends": None}, 422, "invalid-request"),
        ({"access_window": 8 * 3600}, 422, "window-too-long"),
    ],
)
def test_invalid_input_to_an_extension_is_reported(door: Door, body: dict[str, Any], status: int, code: str) -> None:
    facts(extend(door, "erin", door.active(case_ref=None), **body), status, code)


def test_the_pages_of_a_window_and_its_extension_show_the_approved_extra_time(portal: Portal) -> None:
    first, second, _ = extended(portal)
    portal.world.act("ann", Action.APPROVE, second, access_window=1800)

    _, shown = portal.opened("erin", second)
    _, window = portal.opened("ann", first)

    assert "This goes on from the end of an open window : +30 min until" in shown.words
    assert "More time was requested: +30 min until" in window.words


def test_an_extension_of_a_revoked_window_is_not_offered_on_any_page(portal: Portal) -> None:
    first, second, erin = extended(portal)
    ann, before = portal.opened("ann", second)
    inbox_before = ann.get("/waiting")
    portal.world.act("ann", Action.REVOKE, first)

    shown, inbox, own = ann.get(f"/requests/{second}"), ann.get("/waiting"), erin.get("/mine")
    window, others = ann.get(f"/requests/{first}"), [ann.get("/requests"), own]

    assert "can no longer be approved, and opens nothing" in shown.words
    assert "Nothing to decide" not in before.words
    for promise in ("Waiting for your approval", "Answer by", "If approved", "Access opens only if"):
        assert promise in before.words
        assert promise not in shown.words
    assert str(second) in inbox_before.text
    assert str(second) not in inbox.text
    assert all("Nothing to decide: the window was revoked" in page.words for page in (shown, window, *others))
    assert "Waiting for your approval" not in window.words
    assert "Waiting for the customer's approval" not in own.words
    assert "Waiting for:" not in own.words
    assert "Cancel the request" in own.words


def test_a_pending_extension_whose_window_was_revoked_is_flagged_and_can_only_be_denied(fresh_door: Door) -> None:
    first = fresh_door.active(case_ref=None)
    second = extend(fresh_door, "erin", first).json()["id"]
    before = fresh_door.get("ann", f"/v1/requests/{second}").json()

    fresh_door.act("ann", "revoke", first)

    view = fresh_door.get("ann", f"/v1/requests/{second}").json()
    assert (before["is_outlived"], view["is_outlived"], view["state"]) == (False, True, "pending")
    assert {one["action"] for one in view["available_moves"] if one["allowed"]} == {"deny"}
    listed = fresh_door.get("ann", "/v1/requests").json()["items"]
    assert [one["is_outlived"] for one in listed if one["id"] in {first, second}] == [True, False]
    assert fresh_door.act("ann", "deny", second).json()["state"] == "denied"


def test_only_an_open_window_can_be_extended(door: Door) -> None:
    assert facts(extend(door, "erin", door.pending()), 409, "invalid-move")["current_state"] == "pending"


@pytest.mark.parametrize("start", ["tomorrow", "2026-12-01T08:00:00", "2000-01-01T00:00:00Z", "2999-01-01T00:00:00Z"])
def test_the_requested_start_of_a_window_must_be_in_the_future(door: Door, start: str) -> None:
    answer = door.file(not_before=start)

    assert answer.status_code == 422
    assert answer.json().get("field", "not_before") == "not_before"


def test_an_approver_can_set_a_later_start_of_a_window(door: Door) -> None:
    start = datetime.now(UTC) + 10 * MINUTE
    carla = "mailbox:carla@contoso.example"
    request_id = door.file(not_before=start.isoformat(), resources=[carla]).json()["id"]

    later = (start + 20 * MINUTE).isoformat()
    view = door.call("ann", "POST", f"/v1/requests/{request_id}/approve", json={"opens_at": later}).json()

    assert (view["state"], view["open"]) == ("active", False)
    assert datetime.fromisoformat(view["opens_at"]) == start + 20 * MINUTE
    (decision,) = door.get("ann", f"/v1/requests/{request_id}").json()["decisions"]
    assert datetime.fromisoformat(decision["opens_at"]) == start + 20 * MINUTE
    assert door.ask("gate", resource=carla).status_code == 403
    assert door.later(minutes=31).ask("gate", resource=carla).status_code == 200


@pytest.mark.far
def test_the_request_page_tells_each_side_why_an_approved_window_admits_no_one(by_mail: Portal) -> None:
    portal = by_mail
    request = portal.world.fresh(not_before=datetime.now(UTC) + 120 * MINUTE)
    portal.world.act("ann", Action.APPROVE, request.id)
    lay_down(portal.world, mail_suffices=True, quorum=2)
    why = "has made its policy stricter since the approval, and the request no longer meets it"
    tenant = portal.world.tenant.name
    for name in ("ann", "erin", "max"):
        _, page = portal.opened(name, request.id)
        assert "As things stand, access will be held back:" in page.words
        assert why in page.words
        assert "automatically" not in page.words
        assert "It will not open." in page.words

    portal.wait(minutes=121)
    timers.run(portal.worker, [request.id])

    for name, listed in (("ann", "/open"), ("erin", "/mine"), ("max", "/open")):
        browser, page = portal.opened(name, request.id)
        for shown in (page, browser.get(listed)):
            assert "Held back" in shown.words
            assert "Access is held back: nobody is let in, because" in shown.words
            assert f"{why}. Access needs a new request, under the policy in force now." in shown.words
        assert f"Access that was approved for this time is held back, because {tenant} {why}" in page.words


def test_the_api_states_why_an_approved_window_admits_no_one(fresh_door: Door) -> None:
    start, greta = datetime.now(UTC) + 10 * MINUTE, "mailbox:greta@contoso.example"
    request_id = fresh_door.file(not_before=start.isoformat(), resources=[greta]).json()["id"]
    fresh_door.act("ann", "approve", request_id)
    assert fresh_door.get("ann", f"/v1/requests/{request_id}").json()["held_back"] is None

    fresh_door.run_sql("UPDATE tenants SET suspended = true WHERE id = :id", id=fresh_door.world.tenant.id)

    for name in ("ann", "erin"):
        view = fresh_door.later(minutes=11).get(name, f"/v1/requests/{request_id}").json()
        assert (view["state"], view["open"], view["held_back"]) == ("active", False, "tenant_suspended")


@pytest.mark.parametrize("more", ["", "soon", "-5"])
def test_an_extension_form_without_a_duration_is_refused(portal: Portal, more: str) -> None:
    first = portal.world.fresh()
    portal.world.act("ann", Action.APPROVE, first.id)
    browser, page = portal.opened("erin", first.id)

    page = browser.submit(page, f"/requests/{first.id}/extend", more=more, why="It takes longer")

    assert "Choose how much more time you need." in page.words
    assert 'value="It takes longer"' in page.text


@pytest.mark.far
def test_an_engineer_chooses_a_start_on_the_form_and_an_approver_may_move_the_start_later(by_mail: Portal) -> None:
    portal = by_mail
    day = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"
    browser = portal.by_mail("erin")
    page = previewed(browser, portal, not_before=f"{day}T08:00")
    assert "only if it is approved before it begins" in page.words
    browser.submit(page, "/ask")
    (request,) = submitted(portal)
    assert f"{request.not_before:%Y-%m-%dT%H:%M}" == f"{day}T08:00"
    ann, page = portal.opened("ann", request.id)
    assert "If approved, open from" in page.words

    page = ann.submit(page, f"/requests/{request.id}/approve", start=f"{day}T07:00")
    assert "You may move the start later, not earlier" in page.words
    page = ann.submit(page, f"/requests/{request.id}/approve", start=f"{day}T09:00")

    assert "Nobody is let in before." in page.words
    (request,) = submitted(portal)
    assert f"{request.opens_at:%Y-%m-%dT%H:%M}" == f"{day}T09:00"


def test_an_invalid_date_is_reported_next_to_its_form_field(portal: Portal) -> None:
    page = previewed(portal.by_mail("erin"), portal, not_before="2026-13-01T08:00")

    assert "Choose a day and a time, or neither." in page.words
