"""The page of a request says who could not be reached, and lets the requester resubmit."""

from uuid import UUID

import pytest

from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests import timers
from lockbox.requests.models import AccessRequest
from tests.database.postbag import Postbag, address
from tests.http.portal import Portal

DEAD = """
UPDATE notifications SET outcome = 'dead', closed_at = now() WHERE id IN (
    SELECT id FROM notifications WHERE request_id = :id ORDER BY id LIMIT :some)
"""


@pytest.mark.parametrize(("who", "is_told"), [("ann", True), ("tara", True), ("erin", False), ("max", False)])
def test_the_timeline_on_the_page_names_mailed_people_to_their_own_side(
    portal: Portal, who: str, *, is_told: bool
) -> None:
    request, post = portal.world.fresh(), Postbag()
    refused = address(portal.worker, portal.world, "abe")
    post.mail.refused[refused] = SendFailed("no such mailbox", permanent=True, kind="status")
    mails = portal.sql("SELECT id FROM notifications WHERE request_id = :id", id=request.id)
    post.deliver(portal.worker, [row.id for row in mails])

    _, page = portal.opened(who, request.id)

    assert ("Notification not delivered to Abe; mailed to A" in page.words) is is_told
    assert refused not in page.words


def timed_out(portal: Portal) -> AccessRequest:
    request = portal.world.fresh()
    portal.wait(hours=12)
    timers.run(portal.worker, [request.id])
    return request


def test_the_page_shows_how_many_people_could_not_be_reached(portal: Portal) -> None:
    request = portal.world.fresh()
    portal.sql(DEAD, id=request.id, some=2)

    for who in ("erin", "max", "ann"):
        _, page = portal.opened(who, request.id)
        assert "Two of three approvers could not be reached; one is still being tried." in page.words


def test_the_page_of_a_timed_out_request_says_if_no_one_could_be_notified(portal: Portal) -> None:
    request = timed_out(portal)

    _, page = portal.opened("erin", request.id)

    assert "Nobody could be notified" in page.words
    assert "Timed out" not in page.words
    assert "None of three approvers could be reached." in page.words
    assert "The request timed out, and nobody could be notified" in page.words


def test_a_requester_resubmits_by_a_button_and_sees_the_new_request(portal: Portal) -> None:
    request = timed_out(portal)
    browser, page = portal.opened("erin", request.id)

    landed = browser.submit(page, "/ask-again")

    assert landed.status == 200
    assert landed.path != f"/requests/{request.id}"
    assert f"/requests/{request.id}" in landed.read.links
    assert "Nobody could be notified" in landed.words
    assert "Timed out" not in landed.words
    first = browser.get(f"/requests/{request.id}")
    assert landed.path in first.read.links
    assert not [form for form in first.read.forms if form.action.endswith("/ask-again")]
    (row,) = portal.sql("SELECT follows FROM requests WHERE id = :id", id=UUID(landed.path.rpartition("/")[2]))
    assert row.follows == request.id


def test_a_double_click_on_resubmit_resubmits_once(portal: Portal) -> None:
    request = timed_out(portal)
    browser, page = portal.opened("erin", request.id)

    landed = [browser.submit(page, "/ask-again").path for _ in range(2)]

    assert landed[0] == landed[1]
    assert portal.sql("SELECT count(*) AS n FROM requests WHERE follows = :id", id=request.id)[0].n == 1


def test_other_people_are_neither_offered_nor_allowed_to_resubmit_a_request(portal: Portal) -> None:
    request = timed_out(portal)

    for who in ("ann", "max", "tara"):
        browser, page = portal.opened(who, request.id)
        assert not [form for form in page.read.forms if form.action.endswith("/ask-again")]
        (csrf,) = {form.fields["csrf"] for form in page.read.forms if "csrf" in form.fields}
        assert browser.post(f"/requests/{request.id}/ask-again", {"csrf": csrf}).status == 403


def test_a_refused_resubmission_is_shown_on_the_page(portal: Portal) -> None:
    request = portal.world.fresh()
    browser, page = portal.opened("erin", request.id)
    csrf = page.form("/cancel").fields["csrf"]

    refused = browser.post(f"/requests/{request.id}/ask-again", {"csrf": csrf})

    assert refused.status == 409
    assert "Only a request that timed out can be resubmitted." in refused.words
