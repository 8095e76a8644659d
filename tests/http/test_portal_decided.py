"""The answer to a decision is the page that a reader would then get, and sending the form again decides nothing."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from harness.people import HERE
from lockbox.requests import questions
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.http.portal import OpenPortal, Portal
from tests.http.test_portal_banner import banner, opened

RUNS = (
    r' data-(at|away|since|reload|again)="[^"]*"',
    r"<progress [^>]*>",
    r' data-[a-z]+="[0-9T:.+-]{20,}"',
    r'<span class="left">[^<]*</span>',
    r"<dd data-now>.*",
)


@pytest.fixture(scope="module")
def shared(open_portal: OpenPortal) -> Portal:
    return open_portal()


@pytest.fixture
def portal(shared: Portal) -> Portal:
    """The same world with a clock of the test's own."""
    return replace(shared)


def still(html: str) -> list[str]:
    """Return the lines of a page without the parts that change with the clock."""
    for runs in RUNS:
        html = re.sub(runs, "", html)
    return html.splitlines()


def open_window(portal: Portal, request: AccessRequest) -> None:
    portal.world.act("ann", Action.APPROVE, request.id)


def ask(portal: Portal, request: AccessRequest) -> None:
    with portal.db.transaction() as session:
        questions.ask(session, portal.world.people["amir"], HERE, request.id, "Which folder?")


def narrow(portal: Portal, request: AccessRequest) -> None:
    portal.world.act("amir", Action.APPROVE, request.id, comment="Briefly", access_window=300)


DECISIONS: Mapping[str, tuple[str, str, Policy | None, Callable[[Portal, AccessRequest], None] | None]] = {
    "opens": ("ann", "approve", None, None),
    "opens after a question": ("ann", "approve", None, ask),
    "is the first of two": ("ann", "approve", Policy(vendor_review=False, quorum=2), None),
    "is the second of two": ("ann", "approve", Policy(vendor_review=False, quorum=2), narrow),
    "denies": ("ann", "deny", None, None),
    "denies after a yes": ("ann", "deny", Policy(vendor_review=False, quorum=2), narrow),
    "cancels": ("erin", "cancel", None, None),
    "revokes": ("ann", "revoke", None, open_window),
    "completes": ("erin", "complete", None, open_window),
    "endorses": ("max", "endorse", Policy(vendor_review=True), None),
    "denies for the vendor": ("max", "deny", Policy(vendor_review=True), None),
}


@pytest.mark.parametrize("what", DECISIONS)
def test_the_answer_to_a_decision_is_the_resulting_page(portal: Portal, open_portal: OpenPortal, what: str) -> None:
    who, action, policy, before = DECISIONS[what]
    portal = portal if policy is None else open_portal(policy)
    portal.world.fresh()
    request = portal.world.fresh()
    if before:
        before(portal, request)
    browser, page = opened(portal, who, f"/requests/{request.id}")

    answer = browser.submit(page, f"/{action}", comment="As told")
    again = browser.get(f"/requests/{request.id}?done={action}")

    assert banner(answer).startswith("You ")
    assert f'data-reload="/requests/{request.id}?done={action}"' in answer.text
    assert still(answer.text) == still(again.text)


@pytest.mark.parametrize(("who", "action"), [("ann", "approve"), ("ann", "deny"), ("erin", "cancel")])
def test_a_decision_sent_twice_is_shown_and_not_repeated(portal: Portal, who: str, action: str) -> None:
    request = portal.world.fresh()
    browser, page = opened(portal, who, f"/requests/{request.id}")
    first = browser.submit(page, f"/{action}", comment="As told")
    written = portal.count()

    again = browser.submit(page, f"/{action}", comment="As told")

    assert (again.status, banner(again)) == (200, banner(first))
    assert portal.count() == written


def test_a_decision_that_another_person_made_meanwhile_is_not_shown_as_the_readers_decision(portal: Portal) -> None:
    request = portal.world.fresh()
    browser, page = opened(portal, "ann", f"/requests/{request.id}")
    portal.world.act("amir", Action.DENY, request.id, comment="No")

    refused = browser.submit(page, "/deny", comment="No")

    assert refused.status == 412
    assert banner(refused) == ""


def test_a_reader_cannot_decide_a_second_time_from_the_same_page(portal: Portal) -> None:
    request = portal.world.fresh()
    browser, page = opened(portal, "ann", f"/requests/{request.id}")
    browser.submit(page, "/approve")

    refused = browser.submit(page, "/deny", comment="No")

    assert refused.status == 412
    (row,) = portal.sql("SELECT state FROM requests WHERE id = :id", id=request.id)
    assert row.state == "active"
