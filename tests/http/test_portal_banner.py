"""The banner after each act: what happened, what comes next, and nothing that the reader has not done."""

import re
from dataclasses import replace

import pytest

from harness.people import HERE
from lockbox.requests import questions
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage


@pytest.fixture
def portal(shared: Portal) -> Portal:
    """The same world with a clock of the test's own."""
    return replace(shared)


def opened(portal: Portal, name: str, path: str) -> tuple[Browser, PortalPage]:
    browser = portal.by_passkey(name)
    return browser, browser.get(path)


def banner(page: PortalPage) -> str:
    """Return what the banner says; nothing if there is none."""
    found = re.search(r'<div id="done".*?</div>', page.text, re.DOTALL)
    assert found
    return " ".join(re.sub(r"<[^>]+>", " ", found[0]).split())


def test_an_approval_banner_says_what_opened_and_offers_to_revoke_the_window(portal: Portal) -> None:
    request = portal.world.fresh()
    browser, page = opened(portal, "ann", f"/requests/{request.id}")

    after = browser.submit(page, "/approve")

    assert re.fullmatch(
        r"You approved\. Erin can read 1 mailbox in Exchange Online until [\d:]+ \w+\."
        r" Revoke access",
        banner(after),
    ), banner(after)
    assert 'class="banner" tabindex="-1" autofocus' in after.text
    assert '<button class="bad outlined" form="revoke">' in after.text
    assert 'id="revoke"' in after.text


def test_the_banner_of_a_partial_approval_says_how_many_approvals_are_needed(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, quorum=2))
    request = portal.world.fresh()
    browser, page = opened(portal, "ann", f"/requests/{request.id}")

    after = browser.submit(page, "/approve")
    portal.world.act("amir", Action.DENY, request.id)
    later = browser.get(f"/requests/{request.id}?done=approve")

    assert banner(after).startswith(
        "You approved. 1 of 2 approvals so far. Access opens once the others have approved"
    )
    assert banner(later) == "You approved. Since then: Denied"


def test_the_banner_after_an_endorsement_says_on_page_and_list_who_is_asked_now(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=True))
    first, second = portal.world.fresh(), portal.world.fresh()
    browser, page = opened(portal, "max", f"/requests/{first.id}")
    on_page = browser.submit(page, "/endorse")
    listed = browser.get("/review")

    on_list = browser.submit(listed, f"/review/{second.id}/endorse")
    again = browser.get(f"/review?done=endorse&about={second.id}")

    asked = "You endorsed the request. The approvers of "
    assert banner(on_page).startswith(asked)
    assert banner(on_list).startswith(asked)
    assert banner(on_list).endswith("View the request")
    assert banner(again) == banner(on_list)
    assert banner(browser.get("/review")) == ""


@pytest.mark.parametrize("done", ["approve", "deny", "expire", "made-up", "", "x" * 20])
def test_a_banner_parameter_that_does_not_fit_the_request_shows_no_banner(portal: Portal, done: str) -> None:
    request = portal.world.fresh()
    with portal.db.transaction() as session:
        questions.ask(session, portal.world.people["amir"], HERE, request.id, "Which folder?")
    page = opened(portal, "ann", f"/requests/{request.id}?done={done}")[1]
    listed = opened(portal, "erin", f"/mine?done={done}&about={request.id}")[1]

    assert page.status == listed.status == 200
    assert banner(page) == banner(listed) == ""
    assert "autofocus" not in page.text


def test_a_list_shows_no_banner_of_other_peoples_requests(portal: Portal, open_portal: OpenPortal) -> None:
    other = open_portal()
    theirs = other.world.submit()
    other.world.act("erin", Action.CANCEL, theirs.id)

    _, page = opened(portal, "erin", f"/mine?done=cancel&about={theirs.id}")

    assert (page.status, banner(page)) == (200, "")
