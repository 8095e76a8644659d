"""The page of proposed admins: the mail links to it, and only people with the right can object by its form."""

import re

import pytest

from lockbox.admin import recovery
from lockbox.identity.roles import Role
from tests.database.tenancy import does
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage

WITHDRAWN = "SELECT withdrawn_at, withdrawn_by FROM invitations WHERE id = :id"


@pytest.fixture
def proposed(portal: Portal) -> Portal:
    """A world for whose tenant the vendor proposes Rita as an admin."""
    does(portal.world, "olga", recovery.propose, name="Rita <b>", address="rita@contoso.example")
    return portal


def objects(browser: Browser) -> PortalPage:
    return browser.submit(browser.get("/proposals"), "/proposals/object")


@pytest.mark.parametrize("who", ["tara", "ann"])
def test_an_admin_or_approver_objects_to_a_recovery_by_a_form_with_any_sign_in(proposed: Portal, who: str) -> None:
    browser = proposed.by_mail(who)

    page = objects(browser)

    assert (page.status, page.path) == (200, "/proposals")
    assert "no pending admin proposals" in page.words
    tenant = proposed.world.tenant.id
    (event,) = proposed.sql(
        "SELECT actor_id, action, body FROM events WHERE tenant_id = :t AND seq IS NULL ORDER BY id DESC LIMIT 1",
        t=tenant,
    )
    assert (event.action, event.actor_id) == ("recovery_objected", proposed.world.people[who].person_id)
    assert b'"channel":"portal"' in bytes(event.body)
    assert "proposes" not in browser.get("/requests").words


def test_the_link_in_a_recovery_mail_leads_to_the_page_after_signing_in(proposed: Portal) -> None:
    browser = proposed.browser()

    asked = browser.get("/proposals")
    page = browser.submit(asked, "/sign-in", address=proposed.address("ann"))
    page = browser.submit(page, "/sign-in/code", code=browser.code())

    assert (asked.path, page.path) == ("/sign-in", "/proposals")
    assert page.form("/proposals/object")


@pytest.mark.far
@pytest.mark.parametrize("who", ["olga", "max", "aude", "zoe"])
def test_people_without_the_right_neither_see_nor_object_to_a_recovery_proposal(
    proposed: Portal, open_portal: OpenPortal, who: str
) -> None:
    proposed.world.add("zoe", Role.APPROVER, open_portal().world.tenant.id)
    form = proposed.by_mail("ann").get("/proposals").form("/proposals/object")
    browser = proposed.by_mail(who)
    csrf = browser.get("/account").form("/account/tokens/new").fields["csrf"]

    page = browser.get("/proposals")
    forced = browser.post("/proposals/object", form.fields | {"csrf": csrf})

    assert "no pending admin proposals" in page.words
    assert forced.status in {403, 404}
    assert proposed.sql(WITHDRAWN, id=form.fields["id"])[0].withdrawn_at is None


def test_the_recovery_page_works_without_script_and_has_no_id_in_its_address(proposed: Portal) -> None:
    page = proposed.by_mail("ann").get("/proposals")

    assert re.search(r"<button[^>]*>Object</button>", page.text)
    assert page.form("/proposals/object").method == "post"
