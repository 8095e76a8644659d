"""Own requests on a page: open ones first, who has yet to answer, who was not reached, and how to end a request."""

import re
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine

from harness.people import HERE
from lockbox.requests import questions
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import ApprovalStage
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import write_unchecked
from tests.each import each
from tests.http.door import Door
from tests.http.places import opened_by_break_glass
from tests.http.portal import OpenPortal, Portal, PortalPage
from tests.policy_setup import group, lay_down

DEAD = """
UPDATE notifications SET outcome = 'dead', closed_at = now()
WHERE request_id = :r AND person_id = ANY(CAST(:p AS uuid[])) AND closed_at IS NULL
"""


def order(page: PortalPage) -> list[str]:
    """Return the requests that a page lists, in its order."""
    return [found[1] for link in page.read.links if (found := re.fullmatch(r"/requests/([0-9a-f-]{36})", link))]


def fail(portal: Portal, request_id: UUID, *names: str) -> None:
    """Mark the notifications of a request to these people as not delivered."""
    portal.sql(DEAD, r=request_id, p=[str(portal.world.people[name].person_id) for name in names])


def form_of(page: PortalPage, action: str) -> Any:
    return next(form for form in page.read.forms if form.action == action)


def test_an_empty_list_of_own_requests_says_what_to_do(portal: Portal) -> None:
    page = portal.by_mail("erin").get("/mine")

    assert "You have no requests yet" in page.words
    assert "/ask" in page.read.links


def test_the_list_of_own_requests_has_open_requests_first_and_none_of_other_people(portal: Portal) -> None:
    world = portal.world
    oldest, closed, newest = (world.fresh() for _ in range(3))
    others = world.fresh("eve")
    world.act("erin", Action.CANCEL, closed.id)

    page = portal.by_mail("erin").get("/mine")

    assert order(page) == [str(newest.id), str(oldest.id), str(closed.id)]
    assert str(others.id) not in page.text


@pytest.mark.far
def test_the_pages_of_own_requests_list_every_request_once(portal: Portal) -> None:
    world = portal.world
    ids = [world.fresh().id for _ in range(43)]
    for one in ids[::2]:
        world.act("erin", Action.CANCEL, one)
    browser = portal.by_mail("erin")

    page, seen = browser.get("/mine"), list[str]()
    while True:
        seen += order(page)
        following = [link for link in page.read.links if link.startswith("/mine?after=")]
        if not following:
            break
        page = browser.get(following[0])

    expected = [*sorted(ids[1::2], reverse=True), *sorted(ids[::2], reverse=True)]
    assert seen == [str(one) for one in expected]
    assert "/mine" in page.read.links


@each("after", ["x", "open-", "open-" + "g" * 32, "closed-" + "0" * 31])
def test_a_cursor_of_another_persons_list_is_refused(portal: Portal, after: str) -> None:
    assert portal.by_mail("erin").get(f"/mine?after={after}").status == 422


def test_the_list_of_own_requests_names_the_people_who_still_have_to_decide(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, quorum=2))
    request = portal.world.fresh()
    before = portal.by_mail("erin").get("/mine")
    portal.world.act("amir", Action.APPROVE, request.id)

    after = portal.by_mail("erin").get("/mine")

    assert "Waiting for: Abe, Amir, Ann." in before.words
    assert "Waiting for: Abe, Ann." in after.words


def test_during_a_review_the_list_of_own_requests_names_managers_as_deciders(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy())
    portal.world.fresh()

    words = portal.by_mail("erin").get("/mine").words

    # Others of the vendor, and of other tests, review too: that those who could have are named is what counts.
    named = re.search(r"Waiting for: ([^.]+)\.", words)
    assert named
    assert {"Max", "Mia"} & set(named[1].replace(" and ", ", ").split(", "))


def test_unreached_customer_approvers_are_only_counted_but_unreached_managers_are_named(
    open_portal: OpenPortal,
) -> None:
    portal = open_portal(Policy())
    reviewing, pending = portal.world.fresh(), portal.world.fresh()
    portal.world.act("max", Action.ENDORSE, pending.id)
    fail(portal, reviewing.id, "mia")
    fail(portal, pending.id, "ann", "abe")

    words = portal.by_mail("erin").get("/mine").words

    assert re.search(
        r"One of \S+ managers could not be reached; \S+ \S+ still being tried\. The mail to Mia did", words
    )
    assert "Two of three approvers could not be reached; one is still being tried." in words
    assert "The mail to Ann" not in words


def test_the_list_of_own_requests_mentions_unanswered_questions(portal: Portal) -> None:
    request, world = portal.world.fresh(), portal.world
    with world.db.transaction() as session:
        questions.ask(session, world.people["ann"], HERE, request.id, "Which mails?")

    page = portal.by_mail("erin").get("/mine")

    assert "A question is waiting for your answer ." in page.words
    assert f"/requests/{request.id}/questions" in page.read.links


def test_a_request_is_cancelled_or_completed_on_the_list_of_own_requests(portal: Portal) -> None:
    world, browser = portal.world, portal.by_mail("erin")
    waits, opened = world.fresh(), world.fresh()
    world.act("ann", Action.APPROVE, opened.id)

    browser.submit(browser.get("/mine"), f"/mine/{waits.id}/cancel", comment="Not needed")
    page = browser.submit(browser.get("/mine"), f"/mine/{opened.id}/complete")

    assert (page.status, page.path) == (200, "/mine")
    states = {state.id: state.state for state in portal.states()}
    assert (states[waits.id], states[opened.id]) == ("cancelled", "completed")
    assert f"/ask?from={waits.id}" in page.read.links


def test_a_cancellation_that_comes_after_a_decision_is_refused_and_keeps_the_typed_comment(portal: Portal) -> None:
    browser, request = portal.by_mail("erin"), portal.world.fresh()
    page = browser.get("/mine")
    portal.world.act("ann", Action.APPROVE, request.id)

    refused = browser.submit(page, f"/mine/{request.id}/cancel", comment="Too late & <so>")

    assert refused.status == 412
    assert "The request has changed since you read it" in refused.words
    assert form_of(refused, f"/mine/{request.id}/complete").fields["comment"] == "Too late & <so>"
    assert portal.states()[-1].state == "active"


def test_hostile_text_in_the_list_of_own_requests_is_escaped(portal: Portal) -> None:
    portal.world.fresh(case_ref="<script>alert(1)</script>", resources=["mailbox:<img/src=x>@contoso.example"])

    page = portal.by_mail("erin").get("/mine")

    assert "<script>alert" not in page.text
    assert "<img/src" not in page.text
    assert page.read.forms


def test_the_list_of_own_requests_shows_the_current_step_and_how_to_extend_a_window(open_portal: OpenPortal) -> None:
    portal = open_portal()
    world = portal.world
    opened = world.act("ann", Action.APPROVE, world.fresh().id)
    erin = portal.by_mail("erin")
    before = erin.get("/mine")
    shown = erin.get(f"/requests/{opened.id}")
    lay_down(
        world,
        groups={"desk": group(world, "ann"), "legal": group(world, "amir")},
        stages=(ApprovalStage(group="desk", quorum=1), ApprovalStage(group="legal", quorum=1, order=2)),
    )
    erin.submit(shown, "/extend")
    after = erin.get("/mine")

    assert "Request more time : up to 4 h after this window." in before.words
    assert f"/requests/{opened.id}#extend" in before.read.links
    assert "allows 4 h more at most" in shown.words
    assert "Step 1 of 2 is asked now: desk 0 of 1." in after.words
    assert "More time was requested: +5 min until" in after.words
    assert "More time for an open window : +5 min until" in after.words
    assert "#extend" not in after.text


def test_a_break_glass_request_shows_its_finding_and_what_the_finding_blocks(
    open_portal: OpenPortal, superuser: Engine
) -> None:
    portal = open_portal()
    request_id = opened_by_break_glass(Door(portal.world, portal.db, portal.root, portal.runner))
    erin = portal.by_mail("erin")

    due = erin.get("/mine")
    write_unchecked(
        superuser,
        "UPDATE after_reviews SET opened_at = opened_at - interval '25 h', due_at = due_at - interval '25 h'"
        " WHERE request_id = :request_id",
        request_id=request_id,
    )
    overdue = erin.get("/mine")

    assert "The customer says by" in due.words
    assert "there is no other break-glass" not in due.words
    assert "this is overdue, and until it is said there is no other break-glass." in overdue.words
