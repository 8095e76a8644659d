"""Identities that people add to their accounts: which sign-in this needs, and when the identities count."""

import httpx
import pytest

from lockbox.sql import new_id
from tests.http import issuer_scene
from tests.http.door import facts
from tests.http.issuer_scene import IssuerScene
from tests.http.portal import BEGUN, Browser, PortalPage

running = issuer_scene.running
scene = issuer_scene.scene


def asked_to_add(scene: IssuerScene, browser: Browser) -> str:
    """Ask to add an identity, and return where the browser is sent for it."""
    leaving = browser.submit(browser.get("/account"), "/account/identities/new")
    (url,) = (link for link in leaving.read.links if link.startswith(scene.tenants.url))
    return url


@pytest.mark.far
def test_an_identity_is_added_only_in_the_session_that_began_the_addition(scene: IssuerScene) -> None:
    browser = scene.portal.browser()
    browser.sign_in("ann")
    url = asked_to_add(scene, browser)
    scene.tenants.subject = "ann"

    added = scene.come_back(browser, url)
    fresh = scene.portal.browser()
    page = scene.sign_in(fresh, "ann")

    assert (added.path, added.status, "Contoso" in added.words) == ("/account", 200, True)
    assert (page.status, "Ann" in page.words) == (200, True)
    assert browser.get("/account").form("/account/identities/remove").fields["subject"] == "ann"


@pytest.mark.far
def test_for_three_days_an_identity_added_after_a_mailed_code_cannot_be_used_to_approve(scene: IssuerScene) -> None:
    scene.was_invited("ann")
    reader, browser = scene.portal.browser(), scene.portal.browser()
    reader.sign_in("ann")
    added = scene.add(reader, "ann")

    def approve() -> PortalPage:
        request = scene.portal.world.submit("erin", scene.portal.db)
        scene.sign_in(browser, "ann")
        return browser.approve_anyway(request.id)

    early = approve()
    account = browser.get("/account")
    scene.wait(hours=72)
    late = approve()

    assert "counts as a code from a mail until" in added.words
    assert (
        early.status,
        "neither is a passkey or an identity provider that was added in the last 72 hours" in early.words,
    ) == (
        403,
        True,
    )
    assert "You signed in by a code from a mail" in account.words
    assert "Ann (approver) approved" in late.words
    assert "counts as a code from a mail" not in browser.get("/account").words


def test_a_bearer_token_of_an_identity_added_after_a_mailed_code_waits_three_days_to_approve(
    scene: IssuerScene,
) -> None:
    scene.was_invited("ann")
    reader = scene.portal.browser()
    reader.sign_in("ann")
    scene.add(reader, "ann")

    def answer(action: str) -> httpx.Response:
        asked = scene.portal.world.submit("erin", scene.portal.db, resources=[f"mailbox:{new_id()}"])
        body = {"comment": "No"}
        return reader.call("POST", f"/v1/requests/{asked.id}/{action}", headers=scene.bearing("ann"), json=body)

    early, denied = answer("approve"), answer("deny")
    made = reader.call("POST", "/v1/tokens", headers=scene.bearing("ann"), json={"name": "laptop"})
    scene.wait(hours=71, minutes=59)
    just = answer("approve")
    scene.wait(minutes=2)
    late = answer("approve")

    assert (
        "identity provider that was added in the last 72 hours" in facts(early, 403, "fresh-sign-in-needed")["detail"]
    )
    facts(made, 403, "fresh-sign-in-needed")
    facts(just, 403, "fresh-sign-in-needed")
    assert (denied.status_code, late.status_code) == (200, 200)


@pytest.mark.far
def test_an_identity_added_after_a_mailed_code_disables_mailed_codes_only_after_three_days(
    scene: IssuerScene,
) -> None:
    scene.was_invited("ann")
    thief, ann = scene.portal.browser(), scene.portal.browser()
    thief.sign_in("ann")
    scene.add(thief, "somebody else")

    seen = ann.sign_in("ann", "/account")
    scene.wait(hours=72)
    later = scene.portal.browser().sign_in("ann")

    assert (seen.status, "as somebody else" in seen.words) == (200, True)
    assert (later.status, "You sign in with your identity provider here" in later.words) == (401, True)


def test_an_identity_added_after_a_strong_sign_in_counts_as_strong_at_once(scene: IssuerScene) -> None:
    scene.was_invited("ann")
    scene.bind("ann")
    browser = scene.portal.browser()
    scene.sign_in(browser, "ann")

    page = scene.add(browser, "ann-at-home")

    assert "as ann-at-home" in page.words
    assert "counts as a code from a mail" not in page.words


def test_an_identity_is_not_added_to_a_person_who_did_not_begin_the_addition(scene: IssuerScene) -> None:
    """If a victim finished an attacker's round trip, the attacker's identity would sign in as the victim."""
    thief, victim = scene.portal.browser(), scene.portal.browser()
    thief.sign_in("amir")
    victim.sign_in("ann")
    url = asked_to_add(scene, thief)
    scene.tenants.subject = "amir"
    victim.put(BEGUN, thief.client.cookies[BEGUN])

    slipped = scene.come_back(victim, url)

    assert slipped.status == 401
    assert scene.portal.sql("SELECT * FROM identities") == []


@pytest.mark.far
def test_signing_in_adds_no_identity_and_adding_an_identity_does_not_sign_in(scene: IssuerScene) -> None:
    browser, stranger = scene.portal.browser(), scene.portal.browser()
    browser.sign_in("ann")
    url = scene.leave(browser)
    parts = browser.client.cookies[BEGUN].split(".")
    browser.put(BEGUN, ".".join(["add", *parts[1:]]))
    scene.tenants.subject = "ann"

    as_addition = scene.come_back(browser, url)
    url = asked_to_add(scene, browser)
    parts = browser.client.cookies[BEGUN].split(".")
    stranger.put(BEGUN, ".".join(["in", *parts[1:]]))
    as_sign_in = scene.come_back(stranger, url)

    assert (as_addition.status, as_sign_in.status) == (401, 401)
    assert scene.portal.sql("SELECT * FROM identities") == []


@pytest.mark.far
def test_another_persons_identity_cannot_be_added(scene: IssuerScene) -> None:
    scene.bind("ann")
    browser = scene.portal.browser()
    browser.sign_in("amir")
    url = asked_to_add(scene, browser)
    scene.tenants.subject = "ann"

    page = scene.come_back(browser, url)

    assert (page.status, "belongs to another account" in page.words) == (409, True)


@pytest.mark.far
def test_an_issuer_is_offered_only_to_people_of_its_own_side_and_tenant(scene: IssuerScene) -> None:
    browser = scene.portal.browser()
    browser.sign_in("max")
    page = browser.get("/account")
    form = page.form("/account/identities/new")

    forced = browser.post("/account/identities/new", form.fields | {"number": "0"})
    (url,) = (link for link in forced.read.links if link.startswith(scene.tenants.url))
    scene.tenants.subject = "max"
    bound = scene.come_back(browser, url)

    assert form.fields["number"] == "1"
    assert bound.status == 403
    assert scene.portal.sql("SELECT * FROM identities") == []


def test_adding_an_identity_needs_a_fresh_strong_sign_in(scene: IssuerScene) -> None:
    scene.bind("ann")
    browser = scene.portal.browser()
    scene.sign_in(browser, "ann")
    form = browser.get("/account").form("/account/identities/new")
    scene.portal.wait(minutes=16)

    added = browser.post(form.action, form.fields)
    removed = browser.submit(browser.get("/account"), "/account/identities/remove")

    assert (added.status, removed.status) == (403, 403)


def test_a_removed_identity_does_not_sign_in(scene: IssuerScene) -> None:
    scene.bind("ann")
    browser = scene.portal.browser()
    scene.sign_in(browser, "ann")

    browser.submit(browser.get("/account"), "/account/identities/remove")

    assert scene.sign_in(scene.portal.browser(), "ann").status == 401
