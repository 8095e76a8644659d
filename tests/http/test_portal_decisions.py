"""Decisions on a request's page: narrowed approvals, reasons for denials, and what an approver sees at a glance."""

from dataclasses import replace
from typing import Any

import pytest

from lockbox.facts.enumerations import AuthMethod
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage
from tests.http.test_portal_requests import offered
from tests.policy_setup import lay_down

A, B = "mailbox:anna@contoso.example", "mailbox:bob@contoso.example"
WIDE: dict[str, Any] = {"resources": [A, B], "actions": ["read", "export"]}


@pytest.fixture
def portal(shared: Portal) -> Portal:
    """The same world with a clock of the test's own."""
    return replace(shared)


def send(browser: Browser, page: PortalPage, action: str, **changes: Any) -> PortalPage:
    """Send a form with these changes; a field changed to None is left out, like a box that is not ticked."""
    form = page.form(action)
    fields = {name: value for name, value in (form.filled | changes).items() if value is not None}
    return browser.post(form.action, fields)


def test_the_approval_form_ticks_every_resource_and_action_by_default(portal: Portal) -> None:
    request = portal.world.submit(**WIDE)
    browser, page = portal.opened("ann", request.id, AuthMethod.PASSKEY)

    after = send(browser, page, "/approve")

    assert page.form("/approve").ticked == WIDE
    assert after.status == 200
    (row,) = portal.sql("SELECT granted_resources, granted_actions FROM requests WHERE id = :r", r=request.id)
    assert (row.granted_resources, row.granted_actions) == (None, None)


def test_an_approval_opens_only_the_ticked_parts_and_the_page_marks_the_parts_left_out(portal: Portal) -> None:
    request = portal.world.submit(**WIDE)
    browser, page = portal.opened("ann", request.id, AuthMethod.PASSKEY)

    after = send(browser, page, "/approve", resources=[B], actions=["read"], window="900")

    (row,) = portal.sql("SELECT granted_resources, granted_actions FROM requests WHERE id = :r", r=request.id)
    assert (row.granted_resources, row.granted_actions) == ([B], ["read"])
    assert f"Resources {A} (left out) {B} Actions read export (left out)" in after.words
    assert f"Ann (approver) approved for 15 min, only to read, only in {B}" in after.words


@pytest.mark.far
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"resources": None}, "Keep at least one of the resources, or deny the request."),
        ({"actions": None}, "Keep at least one of the actions, or deny the request."),
        ({"resources": [A, "mailbox:boss@contoso.example"]}, "mailbox:boss@contoso.example was not requested"),
        ({"actions": ["delete"]}, "delete was not requested"),
        ({"resources": ["\x00<script>"]}, "was not requested"),
    ],
)
def test_a_forged_or_empty_selection_of_parts_is_refused_and_the_form_keeps_its_values(
    portal: Portal, changes: dict[str, Any], sentence: str
) -> None:
    request = portal.world.submit(**WIDE)
    browser, page = portal.opened("ann", request.id, AuthMethod.PASSKEY)
    before = portal.count()

    answer = send(browser, page, "/approve", comment="My long thoughts", **changes)

    assert (answer.status, sentence in answer.words) == (422, True), answer.words
    assert "<script>" not in answer.text.replace("<script src", "")
    assert portal.count() == before
    form = answer.form("/approve")
    assert form.fields["comment"] == "My long thoughts"
    for field in ("resources", "actions"):
        kept = changes.get(field, WIDE[field]) or []
        assert form.ticked.get(field, []) == [name for name in WIDE[field] if name in kept]


@pytest.mark.parametrize("comment", ["", "  \r\n "])
def test_a_denial_without_a_reason_is_refused_on_the_page_with_a_message(portal: Portal, comment: str) -> None:
    request = portal.world.submit()
    browser, page = portal.opened("ann", request.id, AuthMethod.PASSKEY)

    answer = send(browser, page, "/deny", comment=comment)

    assert (answer.status, "Say in a comment why you deny" in answer.words) == (422, True)
    assert 'aria-invalid="true"' in answer.text
    assert portal.sql("SELECT state FROM requests WHERE id = :r", r=request.id)[0].state == "pending"


def test_the_request_page_names_endorser_and_policy_and_says_what_happens_without_an_answer(
    open_portal: OpenPortal,
) -> None:
    portal = open_portal(Policy(vendor_review=True))
    request = portal.world.submit()
    portal.world.act("max", Action.ENDORSE, request.id)

    _, page = portal.opened("ann", request.id, AuthMethod.PASSKEY)

    for words in (
        "Requester Erin, endorsed for the vendor by Max",
        "Policy version 1, in force when this was submitted; the stricter terms of a later version also apply",
        "If nobody answers in time, access is refused.",
        "Waiting for your approval (0 of 1 approved)",
    ):
        assert words in page.words


def test_the_request_page_marks_facts_and_votes_for_live_updates_and_leaves_forms_unmarked(portal: Portal) -> None:
    request = portal.world.submit()

    _, page = portal.opened("ann", request.id, AuthMethod.PASSKEY)

    for part in ("state", "answer", "facts", "votes", "timeline"):
        assert f'id="{part}"' in page.text
        (tag,) = (tag for tag in page.text.split("<") if f'id="{part}"' in tag)
        assert "data-live" in tag
    (form,) = (tag for tag in page.text.split("<") if 'id="decision"' in tag)
    assert "data-live" not in form
    assert page.form("/approve").fields["version"] == page.form("/deny").fields["version"] == str(request.version)


@pytest.mark.far
def test_a_policy_can_require_a_fresh_sign_in_to_revoke_and_the_page_keeps_the_comment(
    open_portal: OpenPortal,
) -> None:
    portal = open_portal()
    lay_down(portal.world, revoke_sign_in_age=300)
    request = portal.world.act("amir", Action.APPROVE, portal.world.submit().id)
    browser, page = portal.opened("ann", request.id, AuthMethod.PASSKEY)
    portal.wait(minutes=6)

    refused = send(browser, page, "/revoke", comment="Enough")
    browser.enter("ann", AuthMethod.PASSKEY)
    again = browser.get(f"/requests/{request.id}")
    after = send(browser, again, "/revoke", comment="Enough")

    assert (refused.status, "the limit of the policy for revoking. Sign in again" in refused.words) == (403, True)
    assert f"/sign-in?next=/requests/{request.id}" in refused.read.links
    assert refused.form("/revoke").fields["comment"] == "Enough"
    assert "Revoked" in after.words


def test_the_page_says_in_advance_that_a_weak_sign_in_can_deny_but_not_approve(open_portal: OpenPortal) -> None:
    portal = open_portal()
    request = portal.world.fresh()
    browser, page = portal.opened("ann", request.id)

    browser.enter("ann", AuthMethod.PASSKEY)
    strong = browser.get(f"/requests/{request.id}")

    assert "A code from a mail is not enough here" in page.words
    assert "With this sign-in you can deny, but not approve." in page.words
    assert f"/sign-in?next=/requests/{request.id}" in page.read.links
    assert offered(page) == {"deny"}
    assert "With this sign-in" not in strong.words
    assert offered(strong) == {"approve", "deny"}


def test_a_managers_old_sign_in_is_reported_on_the_page(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=True, sign_in_age=86_400))
    request = portal.world.fresh()
    browser, fresh = portal.opened("max", request.id, AuthMethod.PASSKEY)

    portal.wait(minutes=16)
    old = browser.get(f"/requests/{request.id}")

    assert offered(fresh) == {"endorse", "deny"}
    assert (
        "Your sign-in is older than 15 minutes. Sign in again. With this sign-in you can deny, but not endorse."
        in (old.words)
    )
    assert offered(old) == {"deny"}


def test_text_typed_before_a_required_new_sign_in_is_kept(open_portal: OpenPortal) -> None:
    portal = open_portal()
    browser, page = portal.opened("ann", portal.world.fresh().id, AuthMethod.PASSKEY)
    portal.wait(minutes=16)

    refused = send(browser, page, "/approve", comment="Only the inbox")

    assert (refused.status, "older than 15 minutes. Sign in again" in refused.words) == (403, True)
    assert refused.form("/approve").fields["comment"] == "Only the inbox"


def test_the_page_mentions_no_sign_in_strength_where_a_mailed_code_suffices(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, mail_suffices=True))

    _, page = portal.opened("ann", portal.world.fresh().id)

    assert "With this sign-in" not in page.words
    assert offered(page) == {"approve", "deny"}
