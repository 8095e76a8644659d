"""Approvals that a passkey signs, by the pages and by the API: asked once, answered once, shown as what they are."""

import json
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from psycopg import errors

from harness.authenticator import Authenticator
from lockbox.audit.verifier import approver_keys
from lockbox.audit.verifier.passkey_assertion import fingerprint
from lockbox.identity import passkeys
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage
from tests.http.test_sign_in_passkeys import options
from tests.passkey_approvals import DEMANDED, cose_bytes, enrol

WITHOUT_REVIEW = Policy(vendor_review=False)
UNSIGNED = "Approve without a signature"


@pytest.fixture
def demanding(open_portal: OpenPortal) -> Portal:
    """A portal of a tenant whose policy demands passkeys' signatures."""
    return open_portal(DEMANDED)


@pytest.fixture
def lenient(open_portal: OpenPortal) -> Portal:
    """A portal of a tenant whose policy takes the word of the vendor's server."""
    return open_portal(WITHOUT_REVIEW)


def asked(browser: Browser, request: AccessRequest, **filled: str) -> PortalPage:
    """Approve on the request's page, and return the page that asks for the signature."""
    return browser.submit(browser.get(f"/requests/{request.id}"), "/approve", **filled)


def answer(browser: Browser, page: PortalPage, authenticator: Authenticator, **lies: Any) -> PortalPage:
    return browser.submit_first(page, "/approve", credential=authenticator.get(options(page), **lies))


def proofs(portal: Portal) -> list[Any]:
    """Return the proofs that the events of approvals state."""
    rows = portal.sql(
        "SELECT convert_from(body, 'UTF8') AS body FROM events "
        "WHERE action = 'approve' AND tenant_id = :id ORDER BY id",
        id=portal.world.tenant.id,
    )
    return [json.loads(row.body)["proof"] for row in rows]


def test_an_approver_with_a_passkey_signs_what_the_page_shows(demanding: Portal) -> None:
    authenticator, request = enrol(demanding.world, "ann"), demanding.world.submit()
    browser = demanding.by_passkey("ann")

    page = asked(browser, request, comment="For the case", window="300", uses="2")
    done = answer(browser, page, authenticator)

    assert "mailbox:anna@contoso.example" in page.words
    assert "For the case" in page.words
    assert re.search(r"Access window 5 min\w* at most, at most 2 uses", page.words)
    assert UNSIGNED not in page.words
    assert page.read.scripts[-1] == "/static/passkey.js"
    assert "ends automatically" in done.words
    assert "signed with a passkey" in done.words
    assert "at most 2 uses (2 left" in done.words
    assert proofs(demanding) == ["passkey-signed"]


def test_an_approval_without_a_passkey_is_refused_where_signing_is_required(demanding: Portal) -> None:
    request, browser = demanding.world.submit(), demanding.by_passkey("ann")

    refused = asked(browser, request)

    assert refused.status == 403
    assert "requires each approval to be signed with a passkey" in refused.words
    assert "account page" in refused.words
    assert proofs(demanding) == []


def test_declining_to_sign_an_approval_does_not_bypass_the_policy(demanding: Portal) -> None:
    enrol(demanding.world, "ann")
    request, browser = demanding.world.submit(), demanding.by_passkey("ann")
    page = asked(browser, request)

    refused = browser.submit_first(page, "/approve", credential="", unsigned="yes")
    posted = browser.post(f"/requests/{request.id}/approve", page.form("/approve").filled | {"unsigned": "yes"})

    assert refused.status == posted.status == 403
    assert proofs(demanding) == []


def test_where_signing_is_optional_an_unsigned_approval_is_shown_as_attested(lenient: Portal) -> None:
    enrol(lenient.world, "ann")
    request, browser = lenient.world.submit(), lenient.by_passkey("ann")
    page = asked(browser, request)
    unsigned = [form for form in page.read.forms if form.fields.get("unsigned")]

    done = browser.post(unsigned[0].action, unsigned[0].filled)

    assert UNSIGNED in page.words
    assert "attested by the vendor" in done.words
    assert proofs(lenient) == ["attested"]


def test_an_approver_without_a_passkey_approves_unsigned_where_the_policy_allows_it(lenient: Portal) -> None:
    request, browser = lenient.world.submit(), lenient.by_passkey("ann")

    done = asked(browser, request)

    assert "attested by the vendor" in done.words


@pytest.mark.far
def test_an_approval_signature_counts_once_and_only_in_its_browser(demanding: Portal) -> None:
    authenticator = enrol(demanding.world, "ann")
    request, browser, other = demanding.world.submit(), demanding.by_passkey("ann"), demanding.by_passkey("ann")
    page = asked(browser, request)
    credential = authenticator.get(options(page))
    foreign = asked(other, request)

    elsewhere = other.submit_first(foreign, "/approve", credential=credential)
    wrong = browser.submit_first(page, "/approve", credential="{}")
    used_up = browser.submit_first(page, "/approve", credential=credential)

    assert (elsewhere.status, wrong.status, used_up.status) == (422, 422, 422)
    assert "was used" in used_up.words
    assert proofs(demanding) == []


def test_an_approval_signature_after_ten_minutes_is_refused(demanding: Portal) -> None:
    authenticator = enrol(demanding.world, "ann")
    request, browser = demanding.world.submit(), demanding.by_passkey("ann")
    page = asked(browser, request)

    demanding.wait(minutes=10)
    late = answer(browser, page, authenticator)

    assert (late.status, "has expired" in late.words) == (422, True)


@pytest.mark.far
@pytest.mark.parametrize(
    "changed", [{"comment": "Another"}, {"window": "300"}, {"uses": "1"}, {"resources": "mailbox:else"}]
)
def test_the_submitted_values_of_an_approval_must_equal_the_signed_values(
    demanding: Portal, changed: dict[str, str]
) -> None:
    authenticator = enrol(demanding.world, "ann")
    request, browser = demanding.world.submit(), demanding.by_passkey("ann")
    page = asked(browser, request)

    refused = browser.submit_first(page, "/approve", credential=authenticator.get(options(page)), **changed)

    assert refused.status in {409, 412, 422}
    assert proofs(demanding) == []


def call(browser: Browser, method: str, path: str, body: object = None) -> Any:
    """Call the API as a page of ours does: with the session's cookie and its form token."""
    page = browser.get("/account")
    csrf = page.read.forms[0].fields["csrf"]
    headers = {"origin": "https://lockbox.example", "sec-fetch-site": "same-origin", "x-csrf-token": csrf}
    return browser.call(method, path, json=body, headers=headers)


def test_an_api_client_gets_an_approval_challenge_and_returns_the_assertion(demanding: Portal) -> None:
    authenticator, request = enrol(demanding.world, "ann"), demanding.world.submit()
    browser, path = demanding.by_passkey("ann"), f"/v1/requests/{request.id}/approve"
    body = {"comment": "By the API", "access_window": 600}

    bare = call(browser, "POST", path, body)
    challenge = call(browser, "POST", f"{path}/challenge", body).json()
    credential = json.loads(authenticator.get(challenge["options"]))
    signed = {name: challenge[name] for name in ("ticket", "statement", "content")} | {"credential": credential}
    other = call(browser, "POST", path, body | {"access_window": 300, "signed": signed})
    done = call(browser, "POST", path, body | {"signed": signed})

    assert (bare.status_code, bare.json()["code"]) == (403, "passkey-must-sign")
    assert challenge["is_demanded"] is True
    assert json.loads(challenge["statement"])["access_window"] == 600
    assert (other.status_code, done.status_code) == (412, 422)
    assert "was used" in done.json()["detail"]


def test_an_api_clients_signed_approval_opens_the_window_and_is_shown_as_signed(demanding: Portal) -> None:
    authenticator, request = enrol(demanding.world, "ann"), demanding.world.submit()
    browser, path = demanding.by_passkey("ann"), f"/v1/requests/{request.id}/approve"
    challenge = call(browser, "POST", f"{path}/challenge").json()
    credential = json.loads(authenticator.get(challenge["options"]))
    signed = {name: challenge[name] for name in ("ticket", "statement", "content")} | {"credential": credential}

    done = call(browser, "POST", path, {"signed": signed})

    assert (done.status_code, done.json()["open"]) == (200, True)
    (decision,) = call(browser, "GET", f"/v1/requests/{request.id}").json()["decisions"]
    assert decision["proof"] == "passkey-signed"


@pytest.mark.far
def test_a_signed_approval_counts_once_if_the_database_refuses_the_first_commit(
    demanding: Portal, refuse_commit: Callable[..., None]
) -> None:
    authenticator, request = enrol(demanding.world, "ann"), demanding.world.submit()
    browser, path = demanding.by_passkey("ann"), f"/v1/requests/{request.id}/approve"
    challenge = call(browser, "POST", f"{path}/challenge").json()
    credential = json.loads(authenticator.get(challenge["options"]))
    signed = {name: challenge[name] for name in ("ticket", "statement", "content")} | {"credential": credential}
    # A page for the form's token, the challenge that is used up, and then the approval.
    refuse_commit(errors.SerializationFailure, after=2)

    done = call(browser, "POST", path, {"signed": signed})
    again = call(browser, "POST", path, {"signed": signed})

    assert (done.status_code, again.status_code) == (200, 422)
    assert "was used" in again.json()["detail"]
    assert proofs(demanding) == ["passkey-signed"]


def test_an_invalid_ticket_of_an_approval_challenge_is_refused(demanding: Portal) -> None:
    enrol(demanding.world, "ann")
    request, browser = demanding.world.submit(), demanding.by_passkey("ann")
    signed = {"ticket": f"{UUID(int=7)}.x", "statement": "{}", "content": "{}", "credential": {}}

    for ticket in ("", "x", signed["ticket"]):
        body = {"signed": signed | {"ticket": ticket}}
        refused = call(browser, "POST", f"/v1/requests/{request.id}/approve", body)
        assert refused.status_code == 422


@pytest.mark.far
@pytest.mark.parametrize("key", [b"", b"no key", b"\xa0", b"\xa5\x01\x02\x03&\x20\x01"])
def test_a_passkey_with_an_unreadable_key_is_shown_as_unusable_and_removable(demanding: Portal, key: bytes) -> None:
    enrol(demanding.world, "ann")
    ann_id = demanding.world.people["ann"].person_id
    demanding.sql(
        "UPDATE passkeys SET public_key = :key, name = 'Broken', mac = NULL WHERE person_id = :id", key=key, id=ann_id
    )
    good = enrol(demanding.world, "ann")
    ann, tara, slug = demanding.by_passkey("ann"), demanding.by_passkey("tara"), demanding.world.tenant.slug

    page = ann.get("/account")
    keys = approver_keys.read(tara.call("GET", f"/tenants/{slug}/approver-keys/file").text).keys
    listed = tara.get(f"/tenants/{slug}/approver-keys")
    gone = ann.submit_first(page, "/account/passkeys/remove")

    assert page.status == 200
    assert "unusable: its key cannot be read" in page.words
    assert (listed.status, [one.public_key for one in keys]) == (200, [passkeys.public_key(cose_bytes(good))])
    assert gone.status == 200
    assert "Broken" not in gone.words
    assert "unusable" not in gone.words


def test_an_admin_compares_and_exports_the_passkeys_of_approvers(demanding: Portal) -> None:
    authenticator = enrol(demanding.world, "ann")
    ann, tara, slug = demanding.by_passkey("ann"), demanding.by_passkey("tara"), demanding.world.tenant.slug
    print_ = approver_keys.grouped(fingerprint(passkeys.public_key(cose_bytes(authenticator))))

    own = ann.get("/account")
    page = tara.get(f"/tenants/{slug}/approver-keys")
    file = tara.call("GET", f"/tenants/{slug}/approver-keys/file")
    given = call(tara, "GET", f"/v1/tenants/{slug}/approver-keys")
    foreign = ann.get(f"/tenants/{slug}/approver-keys")

    assert print_ in own.words
    assert print_ in page.words
    assert "attachment" in file.headers["content-disposition"]
    assert [key.name for key in approver_keys.read(file.text).keys] == ["Ann"]
    assert approver_keys.read(given.text).keys == approver_keys.read(file.text).keys
    assert foreign.status == 403
