"""Ordered stages as the API and the pages show them."""

import pytest

from tests.http.door import Door, OpenDoor, facts
from tests.http.portal import OpenPortal, Portal
from tests.policy_setup import group, lay_down


@pytest.fixture
def door(open_door: OpenDoor) -> Door:
    """A world whose tenant asks Abe first and then Ann."""
    door = open_door()
    ordered(door)
    return door


def ordered(at: Door | Portal) -> None:
    groups = {"security": group(at.world, "abe"), "legal": group(at.world, "ann")}
    lay_down(at.world, stages=[{"group": "security"}, {"group": "legal", "order": 2}], groups=groups)


def test_the_api_shows_the_current_approval_step_and_permits_no_approval_of_a_later_step(door: Door) -> None:
    request = door.pending()

    view = door.get("ann", f"/v1/requests/{request}").json()
    refused = facts(door.act("ann", "approve", request), 409, "earlier-step-first")
    door.act("abe", "approve", request)
    after = door.get("ann", f"/v1/requests/{request}").json()
    steps = [one["step"] for one in door.get("ann", f"/v1/requests/{request}/events").json()["items"] if one["step"]]

    assert view["approvals"] == [
        {"group": None, "approvals": 0, "needed": 1, "step": 1},
        {"group": "security", "approvals": 0, "needed": 1, "step": 1},
        {"group": "legal", "approvals": 0, "needed": 1, "step": 2},
    ]
    moves = {one["action"]: one for one in view["available_moves"]}
    assert moves["deny"]["allowed"]
    assert (moves["approve"]["allowed"], moves["approve"]["reason"]) == (False, refused["detail"])
    assert refused["step"] == 1
    assert {one["action"]: one["allowed"] for one in after["available_moves"]}["approve"]
    assert steps == [2]


def test_the_request_page_shows_approval_steps_and_who_is_asked_first(open_portal: OpenPortal) -> None:
    portal = open_portal()
    ordered(portal)
    request = portal.world.submit()
    browser = portal.by_passkey("ann")

    page, inbox = browser.get(f"/requests/{request.id}"), browser.get("/waiting")

    assert "Step 1: asked now security 0 of 1" in page.words
    assert "Step 2: asked later legal 0 of 1" in page.words
    assert "Access opens only if these approve: 1 of security, then 1 of legal." in page.words
    assert "It is not your turn yet: the policy first asks for 1 of security." in page.words
    assert "First asked: security (0 of 1). You can deny this request now." in inbox.words


def test_the_groups_page_shows_the_approval_step_of_each_group(open_portal: OpenPortal) -> None:
    portal = open_portal()
    ordered(portal)
    browser = portal.by_passkey("tara")

    page = browser.get(f"/tenants/{portal.world.tenant.slug}/tiers")

    assert (
        "Required from security , step 1 1 approval (Abe) Required from legal , step 2 1 approval (Ann)" in page.words
    )
    assert page.form("/tiers").fields["step"] in {"1", "2"}
