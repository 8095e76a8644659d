"""Questions on a request's page: forms for whoever may ask or answer, nothing lost, and every word only a word."""

import pytest

from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.each import each
from tests.http.portal import Browser, OpenPortal, Portal

EVIL = "<script>alert(1)</script><img src=x onerror=y>"


def actions(browser: Browser, path: str) -> set[str]:
    """Return where the forms of a page go."""
    return {form.action for form in browser.get(path).read.forms}


def test_an_approver_asks_and_the_engineer_answers_on_the_requests_page(portal: Portal) -> None:
    request = portal.world.submit()
    ann, erin, here = portal.by_mail("ann"), portal.by_mail("erin"), f"/requests/{request.id}"

    asked = ann.submit(ann.get(here), "/questions", text=f"Which mails?\r\n{EVIL}")
    form = next(form for form in erin.get(here).read.forms if form.action.endswith("/answer"))
    answered = erin.post(form.action, form.fields | {"text": "Those of May"})

    assert (asked.status, asked.path) == (200, here)
    assert "There is no answer yet." in asked.words
    assert EVIL not in asked.text
    assert (answered.status, answered.path) == (200, here)
    after = ann.get(here)
    assert "Those of May" in after.words
    assert "There is no answer yet." not in after.words
    assert "asked a question" in after.words
    assert "answered a question" in after.words


@each(("who", "may_ask"), [("ann", True), ("tara", False), ("aude", False), ("max", False), ("erin", False)])
def test_the_form_to_ask_is_for_whoever_may(portal: Portal, who: str, *, may_ask: bool) -> None:
    request = portal.world.submit()
    browser, form = portal.by_mail(who), f"/requests/{request.id}/questions"

    assert (form in actions(browser, f"/requests/{request.id}")) is may_ask
    assert (form in actions(browser, form)) is may_ask


def test_a_manager_asks_during_the_review_and_the_customer_sees_none_of_it(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy())
    request = portal.world.submit()
    here, max_ = f"/requests/{request.id}", portal.by_mail("max")

    asked = max_.submit(max_.get(here), "/questions", text="Is it needed?")
    portal.world.act("max", Action.ENDORSE, request.id)

    assert "Is it needed?" in asked.words
    assert "Is it needed?" not in portal.by_mail("ann").get(here).words
    assert "Is it needed?" not in portal.by_mail("ann").get(f"{here}/questions").words


@pytest.mark.far
@each("words", ["  ", "x" * 2001, "evil\u202etxt"])
def test_what_is_refused_is_said_with_what_was_written(portal: Portal, words: str) -> None:
    request = portal.world.submit()
    browser, here = portal.by_mail("ann"), f"/requests/{request.id}"

    page = browser.submit(browser.get(here), "/questions", text=words)

    assert page.status == 422
    assert "Not accepted" in page.words
    kept = page.form("/questions").fields["text"]
    assert kept.removeprefix("\n") == words
    again = browser.submit(page, "/questions", text="Better")
    assert again.path == here


def test_what_ended_meanwhile_takes_no_question_and_says_so(portal: Portal) -> None:
    request = portal.world.submit()
    browser, here = portal.by_mail("ann"), f"/requests/{request.id}"
    page = browser.get(here)
    portal.world.act("amir", Action.DENY, request.id, comment="No")

    refused = browser.submit(page, "/questions", text="Too late?")

    assert refused.status == 409
    assert "This request is denied. Questions can no longer be asked" in refused.words


def test_the_page_says_that_the_clock_stands(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, questions_stop_clock=True))
    request = portal.world.submit()
    browser, here = portal.by_mail("ann"), f"/requests/{request.id}"

    page = browser.submit(browser.get(here), "/questions", text="Which?")

    assert "The time to decide is paused meanwhile." in page.words


def test_every_control_has_a_label(portal: Portal) -> None:
    request = portal.world.submit()
    browser, here = portal.by_mail("ann"), f"/requests/{request.id}"
    browser.submit(browser.get(here), "/questions", text="Which?")

    for who in ("ann", "erin"):
        read = portal.by_mail(who).get(f"{here}/questions").read

        assert set(read.named) <= read.labels
