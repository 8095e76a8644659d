"""The pages of a tenant: admins change its settings there, others read, and a refused form loses no input."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from catalogue.service_catalogue import Catalogue
from gate import definition_records, enforcement, gate_definition
from gate.enforcement import ENFORCE, REPORT
from gate.memory_reader import GATE
from lockbox.admin import gate_probes, members, outside_access, policies
from lockbox.admin.gate_probes import ProbeResult
from lockbox.admin.outside_access import OutsideAccess
from lockbox.facts.enumerations import AuthMethod, Mode
from lockbox.identity import authentication
from lockbox.identity.roles import Role
from lockbox.sql import new_id
from tests.database.tenancy import does, id_of, members_of, mode_of, reads
from tests.database.test_definition_records import SERVICE, A, B
from tests.each import each
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage

WEAK = [(AuthMethod.MAIL, 0), (AuthMethod.PASSKEY, 16)]


def nina() -> dict[str, str]:
    return {"name": "Nina Noor", "address": f"nina-{new_id().hex[-8:]}@contoso.example"}


def held(portal: Portal) -> policies.VersionedPolicy:
    return reads(portal.world, "tara", policies.read)


def written(portal: Portal, **changes: Any) -> str:
    return json.dumps(held(portal).policy.model_dump(mode="json") | changes)


def shown_to_change(portal: Portal, browser: Browser, text: str) -> PortalPage:
    """Write a policy into the page, and preview its changes."""
    return browser.submit(browser.get(portal.here("/policy")), "/policy", text=text)


def test_a_member_of_one_tenant_is_sent_to_the_page_of_that_tenant(portal: Portal) -> None:
    page = portal.by_passkey("aude").get("/tenants")

    assert (page.status, page.path) == (200, portal.here())
    assert "enforce : you decide" in page.words
    listed = portal.by_passkey("aude").get(portal.here("/members"))
    assert {"Tara", "Ann", "Amir", "Abe", "Aude"} <= set(listed.words.split())


@pytest.mark.parametrize("who", ["ann", "aude"])
def test_only_admins_see_forms_that_change_settings(portal: Portal, who: str) -> None:
    browser = portal.by_passkey(who)

    tails = ("", "/policy", "/mode", "/members", "/tiers", "/observers")
    pages = [browser.get(portal.here(tail)) for tail in tails]

    assert {page.status for page in pages} == {200}
    actions = {form.action for page in pages for form in page.read.forms}
    assert actions == {"/sign-out", "/account/preferences", portal.here("/leave")}
    assert [browser.get(portal.here(tail)).status for tail in ("/emergency-stop", "/endpoints")] == [403, 403]


def test_an_admin_changes_roles_and_removes_members(portal: Portal) -> None:
    browser, abe = portal.by_passkey("tara"), str(id_of(portal.world, "abe"))
    fields = {"csrf": browser.get(portal.here("/members")).form("/sign-out").fields["csrf"], "id": abe}

    seen = {"version": members_of(portal.world)["Abe"].version}
    browser.post(portal.here("/members/roles"), fields | seen | {"roles": "auditor"})
    changed = members_of(portal.world)["Abe"].roles
    page = browser.post(portal.here("/members/remove"), fields)

    assert changed == {Role.AUDITOR}
    assert page.path == portal.here("/members")
    assert "Abe" not in members_of(portal.world)


def test_member_roles_changed_meanwhile_are_shown_before_they_are_replaced(portal: Portal) -> None:
    browser, path = portal.by_passkey("tara"), portal.here("/members")
    page = browser.get(path)
    abe = str(id_of(portal.world, "abe"))
    (form,) = (one for one in page.read.forms if one.action.endswith("/roles") and one.fields["id"] == abe)
    does(portal.world, "tara", members.set_roles, UUID(abe), roles=frozenset({Role.APPROVER, Role.AUDITOR}))

    refused = browser.post(f"{path}/roles", form.fields | {"roles": "tenant_admin"})
    (again,) = (one for one in refused.read.forms if one.action.endswith("/roles") and one.fields["id"] == abe)
    browser.post(f"{path}/roles", again.fields | {"roles": "auditor"})

    assert (refused.status, "have changed since you read them" in refused.words) == (412, True)
    assert set(again.ticked["roles"]) == {"approver", "auditor"}
    assert members_of(portal.world)["Abe"].roles == {Role.AUDITOR}


@pytest.mark.far
@pytest.mark.parametrize(("means", "minutes"), WEAK)
def test_an_admin_with_a_weak_or_old_sign_in_changes_nothing_and_must_sign_in_again(
    portal: Portal, means: AuthMethod, minutes: int
) -> None:
    browser = portal.entered("tara", means)
    portal.wait(minutes=minutes)
    form = browser.get(portal.here("/members")).form(portal.here("/members"))
    wants_off = browser.submit(browser.get(portal.here("/mode")), "/mode", mode="off")

    invited = browser.post(portal.here("/members"), form.fields | nina() | {"roles": "approver"})
    switched = browser.submit(wants_off, "/mode/save")
    asked = shown_to_change(portal, browser, written(portal, mail_suffices=True))
    saved = browser.submit(asked, "/policy/save")

    for page, tail in ((invited, "/members"), (switched, "/mode")):
        assert page.status == 403
        assert f"/sign-in?next={portal.here(tail)}" in page.read.links
    assert (saved.status, f"/sign-in?next={portal.here('/policy')}" in saved.read.links) == (403, True)
    assert "mail_suffices&#34;: true" in saved.text
    assert (mode_of(portal.world), held(portal).edition.version) == (Mode.ENFORCE, 1)


@each(
    ("text", "says"),
    [
        ("{", "Line 1, column 2: this is not JSON"),
        ("[]", "This is not a valid policy. Write an object"),
        ('{"quorum": 0}', "In quorum (Approvals needed): write 1 or more."),
        (
            '{"approval_window": 9999999}',
            "In approval_window (Time to answer): this may be 336 h (1209600 seconds) at most.",
        ),
        ('{"stages": [{"group": "legal"}]}', "In stages (Must also agree): there is no group legal;"),
        ("[" * 20000, "not JSON"),
    ],
)
def test_an_invalid_policy_text_on_the_page_is_reported_and_stays_in_the_form(
    portal: Portal, text: str, says: str
) -> None:
    browser = portal.by_passkey("tara")

    page = shown_to_change(portal, browser, text)

    assert (page.status, says in page.words) == (422, True)
    assert page.form("/policy").fields["text"].strip() == text


@pytest.mark.far
def test_a_policy_changed_meanwhile_is_not_overwritten(portal: Portal) -> None:
    first, second = portal.by_passkey("tara"), portal.by_passkey("tara")
    asked = shown_to_change(portal, first, written(portal, quorum=2))
    browser_of_second = shown_to_change(portal, second, written(portal, quorum=3))
    second.submit(browser_of_second, "/policy/save")

    late = first.submit(asked, "/policy/save")

    assert (late.status, "has changed since you read it" in late.words) == (412, True)
    assert held(portal).policy.quorum == 3


def test_the_tenant_page_shows_the_last_gate_probe_and_its_result(portal: Portal) -> None:
    result = ProbeResult("exchange-online", "https://support.mail.example", 73, 1)
    does(portal.world, "olga", gate_probes.record, result, services={"exchange-online"})

    page = portal.by_passkey("ann").get(portal.here())

    assert "Gateway of Exchange Online" in page.text
    assert "1 of 74 calls were not refused" in page.text


def test_the_gates_page_shows_what_each_gate_does_and_its_last_probe(portal: Portal) -> None:
    with portal.world.db.transaction() as session:
        authentication.enter(session, GATE)
        enforcement.record(session, {"exchange-online": ENFORCE, "onedrive": REPORT})
    browser = portal.by_passkey("ann")

    before = browser.get(portal.here("/gates"))
    overview = browser.get(portal.here())
    result = ProbeResult("exchange-online", "https://support.mail.example", 74, 0)
    does(portal.world, "olga", gate_probes.record, result, services={"exchange-online"})
    after = browser.get(portal.here("/gates"))

    assert (before.status, after.status) == (200, 200)
    assert "<b>Exchange Online</b>: enforced" in before.text
    assert "<b>OneDrive</b>: <b>not enforced at this gateway yet</b>" in before.text
    assert "Gate of OneDrive" in overview.text
    assert "Gate of Exchange Online" not in overview.text
    # Gates are the installation's: those of other tests are not probed either.
    assert before.text.count("Not probed yet") - after.text.count("Not probed yet") == 1
    assert "all 74 calls were refused" in after.text


def test_the_gates_page_shows_when_and_how_a_gates_path_mapping_changed(open_portal: OpenPortal) -> None:
    portal = open_portal()

    def starts(with_this: Catalogue) -> PortalPage:
        with portal.world.db.transaction() as session:
            authentication.enter(session, GATE)
            enforcement.record(session, {SERVICE: ENFORCE})
            definition_records.record(session, gate_definition.definitions(with_this))
        return portal.by_passkey("ann").get(portal.here("/gates"))

    first, changed = starts(A), starts(B)

    assert "and has not been changed" in first.words
    assert "paths changed" not in first.words
    assert re.search(
        r"Since .*, paths changed: GET /boxes/\{box\} is read of mailbox:\{box\} → "
        r"GET /boxes/\{box\} is read of mailbox:of-\{box\}",
        changed.words,
    )
    assert "and has not been changed" not in changed.words


def test_outside_access_is_shown_to_every_member(portal: Portal) -> None:
    world = portal.world
    began = datetime.now(UTC) - timedelta(hours=3)
    for number in range(6):
        taken = OutsideAccess(
            [id_of(world, "erin")], "exchange-online", [f"mailbox:m{number}"], began, 600, f"Reason <{number}>"
        )
        does(world, "olga", outside_access.declare, taken, services={"exchange-online"})

    page = portal.by_passkey("ann").get(portal.here())

    assert "Access around Lockbox" in page.words
    for said in ("Exchange Online : Erin, from", "mailbox:m5", "Declared by Olga"):
        assert said in page.words
    assert "Reason &lt;5&gt;" in page.text
    assert "mailbox:m1" in page.words
    assert "mailbox:m0" not in page.words
    assert "These are the newest 5." in page.words


def test_without_declared_outside_access_the_page_does_not_mention_it(portal: Portal) -> None:
    assert "around Lockbox" not in portal.by_passkey("ann").get(portal.here()).words
