"""The vote count on pages: votes are counted as they are for the next decision."""

import html

from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.http.portal import OpenPortal, Portal, PortalPage
from tests.policy_setup import group, lay_down, stand_in


def seen(portal: Portal, who: str, request_id: object) -> PortalPage:
    """Open the page of a request as a signed-in person."""
    browser = portal.by_passkey(who)
    return browser.get(f"/requests/{request_id}")


def test_an_approver_and_their_delegate_count_as_one_vote(open_portal: OpenPortal) -> None:
    portal = open_portal()
    lay_down(portal.world, quorum=2)
    stand_in(portal.world, "aude", "ann")
    request = portal.world.submit()

    portal.world.act("ann", Action.APPROVE, request.id)
    first = seen(portal, "tara", request.id)
    portal.world.act("aude", Action.APPROVE, request.id)
    both = seen(portal, "tara", request.id)
    portal.world.act("amir", Action.APPROVE, request.id)
    opened = seen(portal, "tara", request.id)

    assert "Approvals 1 of 2" in first.words
    assert "Approvals 1 of 2" in both.words
    assert "Ann (approver) approved" in both.words
    assert "Aude (approver, on behalf of Ann) approved" in both.words
    assert "ends automatically" in opened.words
    assert "Approvals 2 of" not in opened.words


def test_a_former_approvers_vote_is_not_counted(open_portal: OpenPortal) -> None:
    portal = open_portal()
    lay_down(portal.world, quorum=2)
    request = portal.world.submit()
    portal.world.act("ann", Action.APPROVE, request.id)

    portal.sql("DELETE FROM memberships WHERE person_id = :p", p=portal.world.people["ann"].person_id)

    assert "Approvals 0 of 2" in seen(portal, "amir", request.id).words


def test_the_vote_count_shows_the_stricter_quorum_and_the_count_of_each_group(open_portal: OpenPortal) -> None:
    portal = open_portal()
    request = portal.world.submit()
    before = seen(portal, "ann", request.id)
    lay_down(
        portal.world, quorum=2, stages=[{"group": "legal"}], groups={"legal": group(portal.world, "amir", "abe")}
    )

    after = seen(portal, "ann", request.id)
    portal.world.act("amir", Action.APPROVE, request.id)
    voted = seen(portal, "ann", request.id)

    assert "Access opens only if an approver approves." in before.words
    assert "Access opens only if 2 approvers approve, among them 1 of legal." in after.words
    assert "Approvals 0 of 2 Approvals of legal 0 of 1" in after.words
    assert "Approvals 1 of 2 Approvals of legal 1 of 1" in voted.words
    assert "Policy version 1, in force when this was submitted; the stricter terms of a later version" in after.words


def test_the_vendor_sees_the_same_vote_count_without_names(open_portal: OpenPortal) -> None:
    portal = open_portal()
    lay_down(portal.world, quorum=2)
    stand_in(portal.world, "aude", "ann")
    request = portal.world.submit()
    for who in ("ann", "aude"):
        portal.world.act(who, Action.APPROVE, request.id)

    pages = [seen(portal, who, request.id) for who in ("erin", "max", "vera")]

    assert all("Approvals 1 of 2" in page.words for page in pages)
    assert not any("Amir" in page.words or "Abe" in page.words for page in pages)


def test_the_page_shows_no_vote_count_during_a_review(open_portal: OpenPortal) -> None:
    portal = open_portal()
    lay_down(portal.world, vendor_review=True)

    assert "Approvals" not in seen(portal, "max", portal.world.submit().id).words


def test_every_list_shows_the_vote_count_of_pending_requests(open_portal: OpenPortal) -> None:
    portal = open_portal()
    lay_down(portal.world, quorum=2)
    earlier = portal.world.submit(case_ref="CASE-2")
    portal.world.act("ann", Action.APPROVE, earlier.id)
    later = portal.world.submit("eve", case_ref="CASE-2")
    to_customer = "Waiting for your approval (1 of 2 approved)"
    to_vendor = "Waiting for the customer's approval (1 of 2 approved)"

    def words(who: str, path: str) -> str:
        browser = portal.by_passkey(who)
        return html.unescape(browser.get(path).words)

    for who in ("ann", "amir", "tara", "aude"):
        assert to_customer in words(who, "/requests")
        assert "Waiting for your approval (0 of 2 approved)" in words(who, "/requests")
        assert to_customer in words(who, f"/requests/{earlier.id}/questions")
        assert to_customer in words(who, f"/requests/{later.id}")
    for who in ("max", "vera"):
        assert to_vendor in words(who, "/requests")
    assert to_vendor in words("erin", "/mine")
    assert "(1 of 2 approved)" not in words("eve", "/mine")


def test_vendor_lists_show_each_tenants_vote_count_and_no_vote_count_in_review(
    open_portal: OpenPortal,
) -> None:
    first, second = open_portal(), open_portal()
    lay_down(first.world, quorum=2)
    lay_down(second.world, quorum=3)
    reviewed = open_portal(Policy(vendor_review=True))
    for portal in (first, second, reviewed):
        portal.world.submit()
    browser = first.by_passkey("max")

    page = html.unescape(browser.get("/requests").words)

    assert "Waiting for the customer's approval (0 of 2 approved)" in page
    assert "Waiting for the customer's approval (0 of 3 approved)" in page
    assert "In vendor review (" not in page


def test_lists_omit_the_general_vote_count_if_a_group_must_also_approve(open_portal: OpenPortal) -> None:
    portal = open_portal()
    lay_down(portal.world, stages=[{"group": "legal"}], groups={"legal": group(portal.world, "abe")})
    request = portal.world.submit()
    portal.world.act("ann", Action.APPROVE, request.id)
    browser = portal.by_passkey("abe")

    pages = [browser.get(path).words for path in ("/waiting", "/requests", f"/requests/{request.id}")]

    assert all("Waiting for your approval" in page for page in pages)
    assert not any("of 1 approved)" in page for page in pages)
    assert "Approvals 1 of 1 Approvals of legal 0 of 1" in pages[-1]
