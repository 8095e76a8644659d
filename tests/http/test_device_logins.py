"""A terminal signs in by a page: a typed code, a person who allows it, a token that administers but opens nothing."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from httpx import Response

from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.roles import Role
from lockbox.requests.policy_rules import Policy
from tests.http.door import facts
from tests.http.portal import SETTINGS, Browser, OpenPortal, Portal, PortalPage

ASK, STATE = "/v1/device-logins", "/v1/device-logins/state"
KEPT = """
SELECT (SELECT string_agg(t::text, ' ') FROM device_logins t) || (SELECT string_agg(t::text, ' ') FROM tokens t)
    || (SELECT string_agg(convert_from(body, 'UTF8'), ' ') FROM events) AS text
"""
NINA = {"name": "Nina", "address": "nina@contoso.example", "roles": ["auditor"]}


class AskingTerminal:
    """A terminal that has asked to sign in."""

    def __init__(self, portal: Portal, agent: str = "lockbox on desk") -> None:
        self.shell = portal.browser(agent=agent)
        answer = self.shell.call("POST", ASK)
        assert answer.status_code == 201, answer.text
        self.told: dict[str, Any] = answer.json()

    @property
    def code(self) -> str:
        return str(self.told["user_code"])

    @property
    def state(self) -> str:
        return str(self.shell.call("POST", STATE, json={"token": self.told["token"]}).json()["state"])

    def call(self, method: str, path: str, **parts: Any) -> Response:
        return self.shell.call(method, path, headers={"authorization": f"Bearer {self.told['token']}"}, **parts)


def types(browser: Browser, code: str) -> PortalPage:
    return browser.submit(browser.get("/device"), "/device", code=code)


def allows(browser: Browser, terminal: AskingTerminal, said: str = "allow") -> PortalPage:
    return browser.submit(types(browser, terminal.code), "/device/answer", said=said)


def test_a_terminal_acts_as_the_confirming_person_for_fifteen_minutes(portal: Portal) -> None:
    terminal, tara = AskingTerminal(portal), portal.by_passkey("tara")
    slug = portal.world.tenant.slug
    before = (terminal.state, terminal.call("GET", "/v1/me"))

    asks = types(tara, terminal.code.lower().replace("-", " "))
    done = tara.submit(asks, "/device/answer", said="allow")
    me = terminal.call("GET", "/v1/me").json()
    invited = terminal.call("POST", f"/v1/tenants/{slug}/members", json=NINA)
    portal.wait(minutes=15)
    after = terminal.call("GET", "/v1/me")

    assert terminal.told["verification_uri"] == f"{portal.settings.public_url}/device"
    assert re.fullmatch("[BCDFGHJKLMNPQRSTVWXZ]{4}-[BCDFGHJKLMNPQRSTVWXZ]{4}", terminal.code)
    assert before[0] == "waiting"
    facts(before[1], 401, "invalid-token")
    assert terminal.shell.address in asks.words
    assert "lockbox on desk" in asks.words
    assert "Allow it only if you have just run lockbox sign-in yourself." in asks.words
    assert (done.status, terminal.state) == (200, "allowed")
    assert (me["name"], me["means"]) == ("Tara", "passkey")
    assert invited.status_code == 201, invited.text
    assert "expired" in facts(after, 401, "invalid-token")["detail"]


@pytest.mark.far
def test_a_terminal_inherits_strength_and_age_from_the_confirming_sign_in(portal: Portal) -> None:
    slug = portal.world.tenant.slug
    by_mail = AskingTerminal(portal)
    allows(portal.by_mail("tara"), by_mail)
    tara = portal.by_passkey("tara")
    portal.wait(minutes=14)
    by_passkey = AskingTerminal(portal)
    allows(tara, by_passkey)

    weak = by_mail.call("POST", f"/v1/tenants/{slug}/members", json=NINA)
    fresh = by_passkey.call("PUT", f"/v1/tenants/{slug}/name", json={"name": "Contoso AG"})
    portal.wait(minutes=1, seconds=1)
    stale = by_passkey.call("POST", f"/v1/tenants/{slug}/members", json=NINA)

    facts(weak, 403, "fresh-sign-in-needed")
    assert fresh.status_code == 200
    facts(stale, 403, "fresh-sign-in-needed")


def test_a_signed_in_terminal_cannot_approve_but_may_close_windows(open_portal: OpenPortal) -> None:
    portal = open_portal()
    manager, approver = AskingTerminal(portal), AskingTerminal(portal)
    allows(portal.by_passkey("max"), manager)
    allows(portal.by_passkey("ann"), approver)
    waiting = portal.world.submit()

    approved = approver.call("POST", f"/v1/requests/{waiting.id}/approve")
    denied = approver.call("POST", f"/v1/requests/{waiting.id}/deny", json={"comment": "No"})

    assert "A device login cannot approve" in facts(approved, 403, "fresh-sign-in-needed")["detail"]
    assert denied.json()["state"] == "denied"
    assert manager.call("GET", "/v1/me").json()["means"] == "passkey"


def test_a_signed_in_terminal_cannot_endorse(open_portal: OpenPortal) -> None:
    from_vendor = open_portal(policy=Policy())
    manager = AskingTerminal(from_vendor)
    allows(from_vendor.by_passkey("max"), manager)
    reviewing = from_vendor.world.submit()

    answer = manager.call("POST", f"/v1/requests/{reviewing.id}/endorse")

    assert "A device login cannot approve" in facts(answer, 403, "fresh-sign-in-needed")["detail"]


def test_the_token_of_a_terminal_creates_nothing_that_outlasts_the_token(portal: Portal) -> None:
    terminal, ann = AskingTerminal(portal), portal.by_passkey("ann")
    allows(ann, terminal)
    one = terminal.call("GET", "/v1/tokens").json()["items"][0]

    made = terminal.call("POST", "/v1/tokens", json={"name": "lasting"})
    rotated = terminal.call("POST", f"/v1/tokens/{one['id']}/rotate")

    facts(made, 403, "fresh-sign-in-needed")
    facts(rotated, 403, "fresh-sign-in-needed")
    assert one["name"] == f"command line at {terminal.shell.address}"


def test_the_token_of_a_terminal_is_listed_and_revoked_on_the_account_page(portal: Portal) -> None:
    terminal, ann = AskingTerminal(portal), portal.by_passkey("ann")
    allows(ann, terminal)
    works = terminal.call("GET", "/v1/me").status_code

    account = ann.get("/account")
    ann.submit_first(account, "/account/tokens/revoke")

    assert "command line at" in account.words
    assert works == 200
    facts(terminal.call("GET", "/v1/me"), 401, "invalid-token")


@pytest.mark.parametrize("said", ["allow", "refuse"])
def test_a_second_person_cannot_answer_a_device_code_already_allowed_or_refused(portal: Portal, said: str) -> None:
    terminal, ann, amir = AskingTerminal(portal), portal.by_passkey("ann"), portal.by_passkey("amir")
    asks = types(amir, terminal.code)

    allows(ann, terminal, said)
    late = amir.submit(asks, "/device/answer", said="allow")

    assert (late.status, "This code is wrong, was used, or has expired" in late.words) == (422, True)
    if said == "refuse":
        assert terminal.state == "refused"
        facts(terminal.call("GET", "/v1/me"), 401, "invalid-token")
    else:
        assert terminal.call("GET", "/v1/me").json()["name"] == "Ann"


def test_a_device_code_expires_after_ten_minutes(portal: Portal) -> None:
    terminal, ann = AskingTerminal(portal), portal.by_passkey("ann")

    portal.wait(minutes=10)
    page = types(ann, terminal.code)

    assert (page.status, terminal.state) == (422, "over")


def test_an_old_sign_in_cannot_confirm_a_terminal(portal: Portal) -> None:
    terminal, ann = AskingTerminal(portal), portal.by_passkey("ann")

    portal.wait(minutes=15)
    again = AskingTerminal(portal)
    page = types(ann, again.code)

    assert (page.status, "Sign in again" in page.words) == (403, True)
    assert "/sign-in?next=/device" in page.read.links
    assert again.state == "waiting"
    assert terminal.state == "over"


def test_a_service_account_cannot_confirm_a_terminal(portal: Portal) -> None:
    assert types(portal.by_passkey("gate"), AskingTerminal(portal).code).status == 403


def test_a_link_cannot_fill_in_a_device_code_nor_can_another_site_post_the_form(portal: Portal) -> None:
    terminal, ann = AskingTerminal(portal), portal.by_passkey("ann")

    link = ann.get(f"/device?code={terminal.code}&user_code={terminal.code}")
    page = ann.get("/device")
    foreign = ann.send("/device/answer", {"code": terminal.code, "said": "allow"}, {"origin": "https://evil.test"})
    without = ann.post("/device/answer", {"code": terminal.code, "said": "allow"})

    assert (link.status, terminal.code in link.text) == (422, False)
    assert page.form("/device").fields["code"] == ""
    assert (foreign.status_code, without.status, terminal.state) == (403, 403, "waiting")


def test_device_code_attempts_are_limited(open_portal: OpenPortal) -> None:
    few = SETTINGS.model_copy(update={"sign_ins_per_account": 3})
    portal = open_portal(settings=few)
    terminal, ann = AskingTerminal(portal), portal.by_passkey("ann")

    tried = [types(ann, "BBBB-BBBB").status for _ in range(3)]
    page = types(ann, terminal.code)

    assert (tried, page.status) == ([422] * 3, 429)


def test_device_code_requests_are_limited(open_portal: OpenPortal) -> None:
    portal = open_portal(settings=SETTINGS.model_copy(update={"sign_ins_per_address": 3}))
    shell = portal.browser()

    answers = [shell.call("POST", ASK) for _ in range(4)]

    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    assert int(answers[3].headers["retry-after"]) <= timedelta(minutes=10).total_seconds()


def test_a_device_code_and_its_token_are_stored_hashed(portal: Portal) -> None:
    terminal = AskingTerminal(portal)
    allows(portal.by_passkey("ann"), terminal)

    (row,) = portal.sql(KEPT)

    for secret in (terminal.code, terminal.code.replace("-", ""), terminal.told["token"][-51:-8]):
        assert secret not in row.text


@pytest.mark.parametrize("change", [lambda t: t[:-1] + ("0" if t[-1] != "0" else "1"), lambda _: "x", lambda _: ""])
def test_a_caller_without_the_token_of_a_terminal_learns_nothing_about_the_terminal(
    portal: Portal, change: Callable[[str], str]
) -> None:
    terminal = AskingTerminal(portal)

    answer = terminal.shell.call("POST", STATE, json={"token": change(terminal.told["token"])})
    others = terminal.shell.call("POST", STATE, json={"token": portal.world.tokens["ann"]})

    facts(answer, 401, "invalid-token")
    facts(others, 401, "invalid-token")


def test_a_tenant_scoped_sign_in_confirms_a_terminal_for_that_tenant(portal: Portal, open_portal: OpenPortal) -> None:
    elsewhere = open_portal().world.tenant
    grant = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, :t, :r)"
    ann = portal.world.people["ann"]
    portal.sql(grant, p=ann.person_id, t=elsewhere.id, r=Role.APPROVER.value)
    portal.world.people["ann"] = ann.within(portal.world.tenant.id)
    terminal = AskingTerminal(portal)

    allows(portal.entered("ann", AuthMethod.OIDC), terminal)

    assert terminal.call("GET", "/v1/me").json()["tenants"].keys() == {portal.world.tenant.slug}
