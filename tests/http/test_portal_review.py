"""The review queue on a page: nearest deadline first, with who, what and why; requests not to endorse are marked."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from api.portal.requests.request_lists import MOST_TO_REVIEW as MOST
from devstack.embedded import ServerAddresses
from harness.people import World
from harness.stage import fresh_database
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import many
from tests.each import each
from tests.http.conftest import db_at, root_at
from tests.http.door import LoopThread
from tests.http.portal import OpenPortal, Portal, PortalPage
from tests.policy_setup import lay_down

ROLE = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, NULL, :r)"


@contextmanager
def alone(template: ServerAddresses, runner: LoopThread) -> Iterator[OpenPortal]:
    """Make worlds in a database of their own: the vendor's queue holds the requests to all tenants."""
    with fresh_database(template, flushes=False) as urls:
        db, root = db_at(urls), root_at(urls)
        yield lambda policy: Portal(World.make(db, policy), db, db, root, runner)
        db.dispose()
        root.dispose()


@pytest.fixture(scope="module")
def open_alone(template: ServerAddresses, runner: LoopThread) -> Iterator[OpenPortal]:
    """A function that makes worlds in a database of this file's own."""
    with alone(template, runner) as opened:
        yield opened


@pytest.fixture
def reviewed(open_alone: OpenPortal) -> Portal:
    return open_alone(Policy())


def order(page: PortalPage) -> list[str]:
    """Return the requests that a page lists, in its order."""
    return re.findall(r'data-row="([0-9a-f-]{36})"', page.text)


def forms(page: PortalPage, request_id: Any) -> set[str]:
    """Return the actions on a request that the page offers."""
    prefix = f"/review/{request_id}/"
    return {form.action.removeprefix(prefix) for form in page.read.forms if form.action.startswith(prefix)}


def test_an_empty_review_queue_says_what_will_appear(template: ServerAddresses, runner: LoopThread) -> None:
    with alone(template, runner) as opened:
        page = opened(Policy()).by_passkey("max").get("/review")

    assert "There are no requests to review." in page.words


def test_requests_to_review_are_listed_with_requester_and_resource_and_reason(reviewed: Portal) -> None:
    request = reviewed.world.fresh(justification="The <b>disk</b> is full", case_ref="CASE-5")

    page = reviewed.by_passkey("max").get("/review")

    assert str(request.id) in order(page)
    for said in (
        "Erin requests access to Exchange Online at",
        "CASE-5",
        "read in mailbox:",
        "for 1 h",
        "Support case:",
    ):
        assert said in page.words
    assert "The &lt;b&gt;disk&lt;/b&gt; is full" in page.text
    assert f'data-until="{request.deadline_at.isoformat()}"' in page.text
    assert forms(page, request.id) == {"endorse", "deny"}


def test_the_review_queue_lists_the_nearest_deadline_first(open_alone: OpenPortal) -> None:
    slow, quick = open_alone(Policy()), open_alone(Policy(review_window=600))
    later, sooner = slow.world.fresh(), quick.world.fresh()

    listed = order(slow.by_passkey("max").get("/review"))

    assert listed.index(str(sooner.id)) < listed.index(str(later.id))


def test_requests_that_need_no_review_or_have_ended_are_not_in_the_review_queue(reviewed: Portal) -> None:
    pending, denied = reviewed.world.fresh(), reviewed.world.fresh()
    reviewed.world.act("max", Action.ENDORSE, pending.id)
    reviewed.world.act("max", Action.DENY, denied.id, comment="No")

    listed = order(reviewed.by_passkey("max").get("/review"))

    assert not {str(pending.id), str(denied.id)} & set(listed)


def test_a_manager_endorses_a_request_on_the_review_queue(reviewed: Portal) -> None:
    request, browser = reviewed.world.fresh(), reviewed.by_passkey("max")

    page = browser.submit(browser.get("/review"), f"/review/{request.id}/endorse", comment="A real fault")

    assert (page.status, page.path) == (200, "/review")
    assert str(request.id) not in order(page)
    assert {state.id: state.state for state in reviewed.states()}[request.id] == "pending"


def test_a_denial_in_the_review_queue_without_a_reason_is_refused(reviewed: Portal) -> None:
    request, browser = reviewed.world.fresh(), reviewed.by_passkey("max")
    page = browser.get("/review")

    without = browser.submit(page, f"/review/{request.id}/deny", comment="  ")
    denied = browser.submit(without, f"/review/{request.id}/deny", comment="Ask for less")

    assert without.status == 422
    assert "Say in a comment why you deny" in without.words
    assert (denied.status, denied.path) == (200, "/review")
    assert {state.id: state.state for state in reviewed.states()}[request.id] == "denied"


def test_a_managers_own_requests_are_labelled_in_the_review_queue_and_have_no_forms(reviewed: Portal) -> None:
    reviewed.sql(ROLE, p=reviewed.world.people["max"].person_id, r=Role.ENGINEER.value)
    browser = reviewed.by_passkey("max")
    csrf = browser.get("/account").form("/sign-out").fields["csrf"]
    sent = {
        "tenant": reviewed.world.tenant.slug,
        "service": "exchange-online",
        "resources": "mailbox:max@contoso.example",
        "actions": "read",
        "reason_code": "other",
        "justification": "Mine",
        "access_window": "600",
        "key": "m" * 22,
        "csrf": csrf,
    }
    own = browser.post("/ask", sent).path.removeprefix("/requests/")

    page = browser.get("/review")
    refused = browser.post(f"/review/{own}/endorse", {"csrf": csrf, "version": "1"})

    assert "This is your own request" in page.words
    assert forms(page, own) == set()
    assert refused.status == 403
    assert "Somebody else has to decide" in refused.words
    assert forms(reviewed.by_passkey("mia").get("/review"), own) == {"endorse", "deny"}


def test_a_request_no_longer_meeting_the_policy_can_only_be_denied(reviewed: Portal) -> None:
    request = reviewed.world.fresh(case_ref=None)
    lay_down(reviewed.world, require_case=True)

    page = reviewed.by_passkey("max").get("/review")

    assert "policy has become stricter, and this request" in page.words
    assert forms(page, request.id) == {"deny"}


def test_the_review_queue_mentions_a_weak_sign_in_once_and_denying_stays_possible(reviewed: Portal) -> None:
    request = reviewed.world.fresh()

    page = reviewed.by_mail("max").get("/review")

    assert "With this sign-in you can deny, but not endorse." in page.words
    assert "/sign-in?next=/review" in page.read.links
    assert forms(page, request.id) == {"deny"}


def test_an_action_of_a_colleague_in_the_meantime_is_shown_in_the_review_queue(reviewed: Portal) -> None:
    request, browser = reviewed.world.fresh(), reviewed.by_passkey("max")
    page = browser.get("/review")
    reviewed.world.act("mia", Action.ENDORSE, request.id)

    refused = browser.submit(page, f"/review/{request.id}/deny", comment="Too slow")

    assert refused.status == 412
    assert "The request has changed since you read it" in refused.words
    assert f"/requests/{request.id}" in refused.read.links


def test_a_full_review_queue_continues_on_the_next_page(template: ServerAddresses, runner: LoopThread) -> None:
    with alone(template, runner) as opened:
        portal = opened(Policy())
        asked = [str(one) for one in many(portal.world, MOST + 3)]
        browser = portal.by_passkey("max")

        first = browser.get("/review")
        (link,) = (one for one in first.read.links if one.startswith("/review?after="))
        rest = browser.get(link)

    assert (order(first), order(rest)) == (asked[:MOST], asked[MOST:])
    assert f"The {MOST} most urgent are listed; there are more." in first.words
    assert "/review" in rest.read.links


@each("after", ["x", "1", "1-2", "-1-" + "f" * 32])
def test_an_invalid_page_number_of_the_review_queue_is_refused(reviewed: Portal, after: str) -> None:
    page = reviewed.by_passkey("max").get(f"/review?after={after}")

    assert page.status == 422
    assert "Start again with the first" in page.words
