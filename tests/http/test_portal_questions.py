"""Questions on a request's page: hidden from the customer during a review, and a clock that they pause."""

from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.http.portal import OpenPortal


def test_a_managers_question_during_the_review_is_hidden_from_the_customer(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy())
    request = portal.world.submit()
    here, max_ = f"/requests/{request.id}", portal.by_mail("max")

    asked = max_.submit(max_.get(here), "/questions", text="Is it needed?")
    portal.world.act("max", Action.ENDORSE, request.id)

    assert "Is it needed?" in asked.words
    assert "Is it needed?" not in portal.by_mail("ann").get(here).words
    assert "Is it needed?" not in portal.by_mail("ann").get(f"{here}/questions").words


def test_the_request_page_says_that_the_approval_clock_is_paused(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, questions_stop_clock=True))
    request = portal.world.submit()
    browser, here = portal.by_mail("ann"), f"/requests/{request.id}"

    page = browser.submit(browser.get(here), "/questions", text="Which?")

    assert "The time to decide is paused meanwhile." in page.words
