"""Invitations: the person with the mailed code accepts, is signed in, and can add a way to sign in."""

import json
import re
from dataclasses import dataclass

import pytest

from harness.authenticator import Authenticator
from lockbox.identity.roles import Role
from lockbox.notifications.senders.protocol import OutgoingMail
from lockbox.sql import new_id
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage, code_in
from tests.http.test_sign_in_passkeys import options
from tests.passkey_approvals import PARTY, cose_bytes

LOST = """
INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at)
VALUES (uuidv7(), :p, uuidv7()::text::bytea, :key, 0, 'lost', now(), now())
"""
REFUSED = "This invitation or its code is not valid"


@dataclass
class Newcomer:
    """An invited person, with the mail, and the path and the code in it."""

    portal: Portal
    address: str
    path: str
    code: str
    mail: OutgoingMail

    def accept(self, browser: Browser, code: str | None = None) -> PortalPage:
        return browser.submit(browser.get(self.path), self.path, code=code or self.code)


def invite(portal: Portal, address: str, *roles: str) -> Newcomer:
    """Let the tenant's admin invite somebody, and look into the mail."""
    slug, token = portal.world.tenant.slug, portal.world.tokens["tara"]
    answer = portal.browser().call(
        "POST",
        f"/v1/tenants/{slug}/members",
        json={"name": "Nora", "address": address, "roles": roles or ("approver",)},
        headers={"authorization": f"Bearer {token}"},
    )
    (mail,) = portal.post(answer.json()["id"])
    (link,) = re.findall(r"https://\S+/invitations/[0-9a-f-]{36}", mail.text)
    assert mail.to_address == address
    return Newcomer(portal, address, link.removeprefix(portal.settings.public_url), code_in(mail), mail)


def sign(browser: Browser, page: PortalPage, authenticator: Authenticator) -> PortalPage:
    """Let a passkey sign the approval, as the page's script does."""
    return browser.submit_first(page, "/approve", credential=authenticator.get(options(page)))


def some_key() -> bytes:
    """Return the public key of a lost authenticator."""
    authenticator = Authenticator()
    authenticator.create({"rp": {"id": PARTY.domain}, "user": {"id": "AA"}, "challenge": "AA"})
    return cose_bytes(authenticator)


@pytest.fixture
def nora(portal: Portal) -> Newcomer:
    return invite(portal, f"nora-{new_id().hex[-8:]}@contoso.example")


def test_the_person_with_the_invitation_code_accepts_and_is_signed_in(nora: Newcomer) -> None:
    browser = nora.portal.browser()
    request = nora.portal.world.submit()

    page = nora.accept(browser)

    assert (page.status, page.path) == (200, "/welcome")
    assert "Welcome, Nora First, add a passkey" in page.words
    assert f"/requests/{request.id}" in browser.get("/requests").read.links


@pytest.mark.far
def test_a_new_person_adds_a_passkey_and_approves_with_that_passkey(nora: Newcomer) -> None:
    browser, authenticator = nora.portal.browser(), Authenticator()
    request = nora.portal.world.submit()

    account = nora.accept(browser)
    asked = browser.submit(account, "/account/passkeys/new", name="phone")
    options = json.loads(asked.form("/account/passkeys").data["options"])
    added = browser.submit(asked, "/account/passkeys", credential=authenticator.create(options))
    asked = browser.submit(browser.get(f"/sign-in?next=/requests/{request.id}"), "/sign-in/passkey")
    options = json.loads(asked.form("/answer").data["options"])
    page = browser.submit(asked, "/answer", credential=authenticator.get(options))
    page = sign(browser, browser.submit(page, "/approve"), authenticator)

    assert (added.path, "First, add a passkey" in added.words) == ("/welcome", False)
    assert "phone" in browser.get("/account").words
    assert "Nora (approver) approved" in page.words


def test_a_passkey_added_after_a_mailed_code_approves_nothing_for_three_days(nora: Newcomer) -> None:
    nora.accept(nora.portal.browser())
    nora.portal.wait(minutes=1)
    reader, authenticator = nora.portal.browser(), Authenticator()
    reader.submit(reader.ask_for_code(nora.address), "/sign-in/code", code=reader.code())
    asked = reader.submit(reader.get("/account"), "/account/passkeys/new", name="theirs")
    options = json.loads(asked.form("/account/passkeys").data["options"])
    reader.submit(asked, "/account/passkeys", credential=authenticator.create(options))

    def approve() -> PortalPage:
        request = nora.portal.world.submit("erin", nora.portal.db)
        asked = reader.submit(reader.get(f"/sign-in?next=/requests/{request.id}"), "/sign-in/passkey")
        options = json.loads(asked.form("/answer").data["options"])
        reader.submit(asked, "/answer", credential=authenticator.get(options))
        page = reader.approve_anyway(request.id)
        return sign(reader, page, authenticator) if "Sign your approval" in page.words else page

    early = approve()
    nora.portal.wait(minutes=72 * 60)

    assert "is not enough here" in early.words
    assert "Nora (approver) approved" in approve().words


def test_an_invitation_link_without_the_code_shows_a_form_and_names_no_one(nora: Newcomer) -> None:
    browser = nora.portal.browser()

    theirs, nobodys = browser.get(nora.path), browser.get(f"/invitations/{new_id()}")

    assert nora.address not in theirs.text
    assert "Contoso" not in theirs.text
    assert re.sub(r"/invitations/[0-9a-f-]+", "", theirs.text) == re.sub(r"/invitations/[0-9a-f-]+", "", nobodys.text)
    assert browser.get("/invitations/x").status == 404


@pytest.mark.parametrize("code", ["x", "AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA-AAAA", "\x00", "\u00e9"])
def test_a_wrong_code_and_an_unknown_invitation_get_the_same_answer(nora: Newcomer, code: str) -> None:
    browser = nora.portal.browser()

    wrong = nora.accept(browser, code)
    unknown = browser.post(f"/invitations/{new_id()}", {"code": nora.code})

    assert (wrong.status, REFUSED in wrong.words) == (403, True)
    assert (unknown.status, REFUSED in unknown.words) == (403, True)
    assert browser.session is None


def test_an_invitation_is_accepted_once_within_three_days(nora: Newcomer) -> None:
    late = invite(nora.portal, f"late-{new_id().hex[-8:]}@contoso.example")
    nora.accept(nora.portal.browser())
    thief = nora.portal.browser()

    again = nora.accept(thief)
    nora.portal.wait(hours=72, minutes=1)
    too_late = late.accept(thief)

    assert (again.status, REFUSED in again.words) == (403, True)
    assert (too_late.status, "has expired" in too_late.words) == (403, True)
    assert thief.session is None


@pytest.mark.far
def test_accepting_an_invitation_ends_the_existing_session_of_the_browser(nora: Newcomer) -> None:
    browser = nora.portal.by_mail("amir")
    before = browser.session

    page = nora.accept(browser)

    assert browser.session != before
    assert "Nora" in page.words
    assert "Amir" not in page.words
    rows = nora.portal.sql(
        "SELECT revoked_at FROM sessions WHERE person_id = :p", p=nora.portal.world.people["amir"].person_id
    )
    assert all(row.revoked_at for row in rows)


def test_a_person_who_lost_their_passkey_can_add_another_if_their_tenant_invites_them_again(portal: Portal) -> None:
    person = {"p": portal.world.people["ann"].person_id}
    portal.sql(LOST, key=some_key(), **person)
    portal.sql("DELETE FROM memberships WHERE person_id = :p", **person)
    browser = portal.browser()
    account = invite(portal, portal.address("ann")).accept(browser)

    confirm = browser.submit(account, "/account/passkeys/new", name="new phone")
    asked = browser.submit_first(confirm, "/account/passkeys/new", unsigned="yes")

    assert "without that, it counts only as much as a mailed code for 72 hours" in confirm.words.lower()
    assert asked.form("/account/passkeys").data["options"]


@pytest.mark.far
def test_a_new_invitation_by_another_tenant_does_not_replace_a_lost_passkey(
    portal: Portal, open_portal: OpenPortal
) -> None:
    """An attacker who reads a mailbox and owns a tenant must not become the mailbox's owner."""
    zoe = portal.world.add("zoe", Role.APPROVER, open_portal().world.tenant.id)
    portal.sql(LOST, key=some_key(), p=zoe.person_id)
    browser = portal.browser()
    account = invite(portal, portal.address("zoe")).accept(browser)

    asked = browser.submit(account, "/account/passkeys/new", name="mine now")

    assert (asked.status, "A code from a mail is not enough" in asked.words) == (403, True)


def test_the_invitation_mail_names_inviter_and_roles_and_has_the_code_in_the_link_fragment(portal: Portal) -> None:
    nora = invite(portal, f"nora-{new_id().hex[-8:]}@contoso.example", "approver", "auditor")

    mail = nora.mail

    for body in (mail.text, mail.html):
        assert "Tara invites you to Lockbox at Contoso, as an approver and an auditor" in body
        assert "Lockbox is where engineers of the vendor request access to data of Contoso" in " ".join(body.split())
        assert f"{nora.path}#{nora.code.replace('-', '')}" in body
    assert mail.subject.startswith("Tara invites you to Lockbox at Contoso as an approver and an auditor, until ")
    assert mail.html.count("href=") == 1


@pytest.mark.far
@pytest.mark.parametrize(
    ("roles", "words", "onward"),
    [
        (
            ["approver"],
            ["You are an approver at Contoso", "What a request looks like", "Each request, a"],
            "/waiting",
        ),
        (["tenant_admin"], ["You are an admin at Contoso", "What a request looks like"], "/waiting"),
        (
            ["auditor"],
            ["You are an auditor at Contoso", "What the audit log looks like", "a checkpoint"],
            "/audit-log",
        ),
        (["auditor", "approver"], ["You are an approver and an auditor at Contoso"], "/waiting"),
    ],
)
def test_the_welcome_page_explains_a_new_members_role_and_links_to_the_next_page(
    portal: Portal, roles: list[str], words: list[str], onward: str
) -> None:
    browser = portal.browser()
    page = invite(portal, f"new-{new_id().hex[-8:]}@contoso.example", *roles).accept(browser)

    welcome = browser.get("/welcome?later=yes")

    assert "/welcome?later=yes" in page.read.links
    assert [said for said in words if said not in welcome.words] == []
    assert onward in welcome.read.links
    assert browser.get("/").path == onward


def test_the_passkey_form_redirects_to_lockbox_pages_only(nora: Newcomer) -> None:
    browser, authenticator = nora.portal.browser(), Authenticator()
    account = nora.accept(browser)

    asked = browser.submit(account, "/account/passkeys/new", name="phone", next="https://evil.test/")
    options = json.loads(asked.form("/account/passkeys").data["options"])
    added = browser.submit(asked, "/account/passkeys", credential=authenticator.create(options))

    assert "evil.test" not in asked.text
    assert (added.status, added.path) == (200, "/waiting")
