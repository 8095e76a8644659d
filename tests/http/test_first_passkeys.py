"""An invited person's first passkey: all deciders are notified at once, and a policy can make it wait."""

import json
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import pytest

from harness.authenticator import Authenticator
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.time_zones import clock_time, page_time
from lockbox.notifications.senders.protocol import OutgoingMail
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.database.postbag import Postbag
from tests.database.tenancy import id_of
from tests.database.test_pre_approvals import propose
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage
from tests.http.test_portal_invitations import invite, sign
from tests.http.test_sign_in_passkeys import add, use

HOUR = 3600
TOLD = "SELECT id, person_id FROM notifications WHERE template = 'first_passkey_added' AND tenant_id = :t"
DECIDING = "SELECT DISTINCT person_id FROM memberships WHERE tenant_id = :t AND role IN ('approver', 'tenant_admin')"


@dataclass
class Joined:
    """An invited person, at the browser in which they have added their first passkey."""

    portal: Portal
    browser: Browser
    authenticator: Authenticator
    person_id: UUID
    address: str

    def approve(self, request: AccessRequest) -> PortalPage:
        """Sign in by the passkey, approve on the request's page, and sign the approval."""
        browser = self.portal.browser()
        use(browser, self.authenticator)
        page = browser.approve_anyway(request.id)
        return sign(browser, page, self.authenticator) if "Sign your approval" in page.words else page

    def told(self) -> dict[UUID, list[OutgoingMail]]:
        """Send the notifications about the passkey, and return the mails by recipient."""
        bag, rows = Postbag(public_url=self.portal.settings.public_url), self.portal.sql(TOLD, t=self.tenant_id)
        bag.deliver(self.portal.worker, [row.id for row in rows])
        found: dict[UUID, list[OutgoingMail]] = {}
        for row in rows:
            email = self.portal.sql("SELECT email FROM people WHERE id = :p", p=row.person_id)[0].email
            found[row.person_id] = [one for one in bag.mail.sent if one.to_address == email]
        return found

    @property
    def tenant_id(self) -> UUID:
        return self.portal.world.tenant.id

    @property
    def page(self) -> str:
        """The path of the page to which the mail leads."""
        return f"/tenants/{self.portal.world.tenant.slug}/members/{self.person_id}"


def joined(portal: Portal, *roles: str) -> Joined:
    """Invite a person, who accepts and adds a passkey."""
    nora = invite(portal, f"nora-{new_id().hex[-8:]}@contoso.example", *roles)
    browser, authenticator = portal.browser(agent="Strangefox 9"), Authenticator()
    nora.accept(browser)
    add(browser, authenticator)
    (row,) = portal.sql("SELECT id FROM people WHERE email = :e", e=nora.address)
    return Joined(portal, browser, authenticator, row.id, nora.address)


@pytest.fixture
def waiting(open_portal: OpenPortal) -> Portal:
    """A portal of a tenant whose policy makes first passkeys wait for an hour."""
    return open_portal(Policy(vendor_review=False, first_passkey_wait=HOUR))


def test_all_deciders_get_a_mail_with_details_and_instructions_about_a_first_passkey(portal: Portal) -> None:
    nora = joined(portal)
    deciding = {row.person_id for row in portal.sql(DECIDING, t=nora.tenant_id)}

    told = nora.told()

    assert told.keys() == deciding
    assert nora.person_id in told
    (event,) = portal.sql(
        "SELECT at FROM events WHERE action = 'first_passkey_added' AND tenant_id = :t", t=nora.tenant_id
    )
    for mails in told.values():
        (mail,) = mails
        for body in (mail.text, mail.html):
            assert nora.address in body
            assert nora.browser.address in body
            assert "Strangefox 9" in body
            assert clock_time(event.at) in body
            assert "at once" in body
            assert f"{portal.settings.public_url}{nora.page}" in body
        assert "Disable" in mail.html
        assert f"To disable them, open {portal.settings.public_url}{nora.page} and sign in as an admin." in mail.text


@pytest.mark.parametrize("roles", [("tenant_admin",), ("auditor", "approver"), ("auditor",)])
def test_first_passkeys_of_approvers_admins_and_delegates_are_announced(
    portal: Portal, roles: tuple[str, ...]
) -> None:
    nora = joined(portal, *roles)

    assert bool(portal.sql(TOLD, t=nora.tenant_id)) is (roles != ("auditor",))


def test_a_second_passkey_and_a_passkey_without_an_invitation_are_not_announced(portal: Portal) -> None:
    nora = joined(portal)
    before = len(portal.sql(TOLD, t=nora.tenant_id))
    ann = portal.by_mail("ann")

    use(nora.browser, nora.authenticator)
    further = add(nora.browser, Authenticator(), older=nora.authenticator)
    others = add(ann, Authenticator())

    assert (further.status, others.status) == (200, 200)
    assert len(portal.sql(TOLD, t=nora.tenant_id)) == before > 0


def test_a_row_written_by_a_database_role_does_not_suppress_a_passkey_announcement(portal: Portal) -> None:
    nora = invite(portal, f"nora-{new_id().hex[-8:]}@contoso.example")
    browser = portal.browser()
    nora.accept(browser)
    portal.sql(
        "INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at) "
        "SELECT uuidv7(), id, uuid_send(id), '', 0, 'old', now(), '2100-01-01' FROM people WHERE email = :e",
        e=nora.address,
    )
    portal.sql(
        "UPDATE passkeys SET mac = NULL WHERE person_id = (SELECT id FROM people WHERE email = :e)", e=nora.address
    )

    assert add(browser, Authenticator()).status == 200
    assert portal.sql(TOLD, t=portal.world.tenant.id)


def test_viewing_the_page_of_a_first_passkey_changes_nothing_and_admins_can_remove_its_owner(portal: Portal) -> None:
    nora, request = joined(portal), portal.world.submit()
    admin, approver = portal.browser(), portal.browser()
    admin.enter("tara", AuthMethod.PASSKEY)
    approver.enter("ann", AuthMethod.PASSKEY)
    before = portal.count()

    read, asked = approver.get(nora.page), admin.get(nora.page)

    assert portal.count() == before
    assert not [form for form in read.read.forms if form.action.endswith("/remove")]
    assert "Ask an admin to do so at once: Tara" in read.words
    removed = admin.submit(asked, "/members/remove")
    assert (removed.status, removed.path) == (200, f"/tenants/{portal.world.tenant.slug}/members")
    assert nora.browser.get(f"/requests/{request.id}").status == 404
    assert admin.get(nora.page).status == 404


def test_a_first_passkey_approves_nothing_during_the_waiting_time_set_by_the_policy(waiting: Portal) -> None:
    nora, request = joined(waiting), waiting.world.submit()
    (row,) = waiting.sql("SELECT created_at FROM passkeys WHERE person_id = :p", p=nora.person_id)
    until = clock_time(row.created_at + timedelta(seconds=HOUR))

    early = nora.approve(request)
    told = nora.told()
    waiting.wait(minutes=59)
    later = nora.approve(request)
    waiting.wait(minutes=1)

    assert (early.status, f"approves from {until} on" in early.words) == (403, True)
    assert later.status == 403
    assert all("after 1 h" in mail.text for mails in told.values() for mail in mails)
    assert "Nora (approver) approved" in nora.approve(request).words


def test_welcome_and_account_pages_show_when_a_new_first_passkey_may_approve(waiting: Portal) -> None:
    nora = joined(waiting)

    for path in ("/welcome?later=yes", "/account"):
        assert "your first passkey is new: by the policy there, it approves from" in nora.browser.get(path).words
    waiting.wait(hours=1)
    use(nora.browser, nora.authenticator)
    assert "your first passkey is new" not in nora.browser.get("/account").words


def test_only_admins_see_on_the_page_of_a_member_from_what_time_a_new_first_passkey_may_approve(
    waiting: Portal,
) -> None:
    nora = joined(waiting)
    (row,) = waiting.sql("SELECT created_at FROM passkeys WHERE person_id = :p", p=nora.person_id)
    until = f"by your policy, it approves from {page_time(row.created_at + timedelta(seconds=HOUR))} on"

    during = {who: waiting.by_passkey(who).get(nora.page) for who in ("tara", "ann")}
    other = waiting.by_passkey("tara").get(nora.page.replace(str(nora.person_id), str(id_of(waiting.world, "ann"))))
    waiting.wait(hours=1)
    later = waiting.by_passkey("tara").get(nora.page)

    assert {who: until in page.words for who, page in during.items()} == {"tara": True, "ann": False}
    assert not [page for page in (other, later) if "first passkey is new" in page.words]


def test_a_second_passkey_added_with_a_waiting_first_passkey_waits_as_long_as_the_first(waiting: Portal) -> None:
    nora, request = joined(waiting), waiting.world.submit()
    waiting.wait(minutes=30)
    use(nora.browser, nora.authenticator)
    second = Authenticator()
    add(nora.browser, second, older=nora.authenticator)
    nora.authenticator = second

    early = nora.approve(request)
    waiting.wait(minutes=30)

    assert early.status == 403
    assert "Nora (approver) approved" in nora.approve(request).words


def test_a_backdated_passkey_row_written_by_a_database_role_does_not_shorten_the_wait(waiting: Portal) -> None:
    nora, request = joined(waiting), waiting.world.submit()
    waiting.sql(
        "INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at) "
        "SELECT uuidv7(), person_id, 'x', public_key, 0, 'old', now() - interval '1 year', now() FROM passkeys "
        "WHERE person_id = :p",
        p=nora.person_id,
    )
    waiting.sql("UPDATE passkeys SET mac = NULL WHERE person_id = :p AND credential_id = 'x'", p=nora.person_id)

    assert nora.approve(request).status == 403


def test_the_request_page_and_the_api_say_when_a_waiting_first_passkey_may_approve(waiting: Portal) -> None:
    nora, request = joined(waiting), waiting.world.submit()
    (row,) = waiting.sql("SELECT created_at FROM passkeys WHERE person_id = :p", p=nora.person_id)
    until = f"approves from {clock_time(row.created_at + timedelta(seconds=HOUR))} on"
    use(nora.browser, nora.authenticator)

    page = nora.browser.get(f"/requests/{request.id}")
    view = json.loads(nora.browser.call("GET", f"/v1/requests/{request.id}").text)
    waiting.wait(hours=1)
    use(nora.browser, nora.authenticator)
    later = nora.browser.get(f"/requests/{request.id}")

    assert until in page.words
    assert not [form for form in page.read.forms if form.action.endswith("/approve")]
    assert [form for form in page.read.forms if form.action.endswith("/deny")]
    moves = {one["action"]: one for one in view["available_moves"]}
    assert (moves["approve"]["allowed"], until in moves["approve"]["reason"]) == (False, True)
    assert moves["deny"]["allowed"]
    assert "first passkey is new" not in later.words
    assert [form for form in later.read.forms if form.action.endswith("/approve")]


def test_a_first_passkey_that_still_waits_cannot_approve_a_pre_approval(waiting: Portal) -> None:
    nora, slug = joined(waiting), waiting.world.tenant.slug
    which, place = propose(waiting.world), f"/tenants/{slug}/pre-approvals"
    use(nora.browser, nora.authenticator)
    csrf = nora.browser.get(place).form(f"{which}/revoke").fields["csrf"]

    page = nora.browser.get(place)
    refused = nora.browser.post(f"{place}/{which}/approve", {"csrf": csrf, "comment": ""})
    inbox = nora.browser.get("/waiting")
    waiting.wait(hours=1)
    use(nora.browser, nora.authenticator)
    later = nora.browser.get(place)
    approved = nora.browser.submit(later, f"{place}/{which}/approve")

    assert "Your first passkey is new." in page.words
    assert not [form for form in page.read.forms if form.action.endswith(f"{which}/approve")]
    assert (refused.status, "approves from" in refused.words) == (403, True)
    assert "waits for your approval" not in inbox.words
    assert "in force" in approved.words


def test_the_api_refuses_an_approval_by_a_passkey_that_still_waits(waiting: Portal) -> None:
    nora, request = joined(waiting), waiting.world.submit()
    use(nora.browser, nora.authenticator)
    home = waiting.settings.origin
    page = nora.browser.get(f"/requests/{request.id}")
    csrf = page.form("/deny").fields["csrf"]
    headers = {"origin": home, "sec-fetch-site": "same-origin", "x-csrf-token": csrf}

    answer = nora.browser.call("POST", f"/v1/requests/{request.id}/approve", headers=headers, json={})

    assert answer.status_code == 403
    assert "approves from" in json.loads(answer.text)["detail"]
