"""Signing in by an issuer: only in the browser that began, and only people for whom the issuer may speak."""

import json
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from catalogue.issuers import IdentityProvider
from harness.authenticator import Authenticator
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.roles import Role
from tests.http import issuer_scene
from tests.http.door import facts
from tests.http.issuer_scene import CALLBACK, IssuerScene, answered
from tests.http.portal import BEGUN, HOME, OpenPortal, Portal, code_in
from tests.oidc_issuer import BROKEN, ec_key

running = issuer_scene.running
scene = issuer_scene.scene

GRANT = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, :t, 'approver')"
NOBODY = "This sign-in is not linked to an account"
NOT_COMPLETED = "The sign-in was not completed"
OVER = "was begun in another browser"


def test_a_person_signs_in_with_their_issuer_and_reaches_the_requested_page(scene: IssuerScene) -> None:
    request_id = scene.portal.world.submit().id
    scene.bind("ann")
    browser = scene.portal.browser()
    first = browser.get(f"/requests/{request_id}")
    (link,) = (link for link in first.read.links if link.startswith("/sign-in/oidc/0"))
    scene.tenants.subject = "ann"

    page = scene.come_back(browser, browser.call("GET", link).headers["location"])
    approved = browser.submit(page, "/approve")

    assert (page.status, page.path) == (200, f"/requests/{request_id}")
    assert "ends automatically" in approved.words
    (session,) = scene.portal.sql(
        "SELECT means, signed_in_at FROM sessions WHERE person_id = :p",
        p=scene.portal.world.people["ann"].person_id,
    )
    assert session.means == "oidc"
    assert session.signed_in_at.timestamp() == scene.at - 5


def test_the_authorisation_request_is_bound_by_state_nonce_and_pkce(scene: IssuerScene) -> None:
    url = scene.leave(scene.portal.browser())

    asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}

    assert asked["redirect_uri"] == f"{HOME}{CALLBACK}"
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) >= 43
    assert "prompt" not in asked


def test_an_issuer_identity_without_a_linked_person_signs_no_one_in(scene: IssuerScene) -> None:
    browser = scene.portal.browser()

    page = scene.sign_in(browser, "ann")

    assert (page.status, NOBODY in page.words, browser.session) == (401, True, None)


@pytest.mark.parametrize(
    ("name", "known_by", "number"),
    [("max", "tenants", 0), ("ann", "vendors", 1), ("tara", "vendors", 1), ("olga", "tenants", 0)],
)
def test_an_issuer_signs_in_no_person_of_the_other_side(
    scene: IssuerScene, name: str, known_by: str, number: int
) -> None:
    scene.bind(name, getattr(scene, known_by))
    browser = scene.portal.browser()

    page = scene.sign_in(browser, name, number)

    assert (page.status, NOBODY in page.words, browser.session) == (401, True, None)


def test_an_issuer_of_one_tenant_signs_in_no_person_of_another_tenant(
    scene: IssuerScene, open_portal: OpenPortal
) -> None:
    elsewhere = open_portal().world
    zoe = scene.portal.world.add("zoe", Role.APPROVER, elsewhere.tenant.id)
    scene.bind("zoe")
    browser = scene.portal.browser()

    page = scene.sign_in(browser, "zoe")

    assert zoe.tenants() == {elsewhere.tenant.id}
    assert (page.status, NOBODY in page.words) == (401, True)
    assert browser.session is None
    (counted,) = scene.portal.sql("SELECT facts, count FROM refused WHERE person_id = :p", p=zoe.person_id)
    assert (counted.facts, counted.count) == ({"means": "oidc", "code": "invalid-token"}, 1)


def test_an_issuer_signs_in_a_member_of_two_tenants_only_at_its_own_tenant(
    scene: IssuerScene, open_portal: OpenPortal
) -> None:
    elsewhere = open_portal().world
    scene.portal.sql(GRANT, p=scene.portal.world.people["ann"].person_id, t=elsewhere.tenant.id)
    scene.bind("ann")
    here, there = scene.portal.world.submit(), elsewhere.submit()
    browser = scene.portal.browser()

    listed = scene.sign_in(browser, "ann")
    approved = browser.submit(browser.get(f"/requests/{here.id}"), "/approve")
    foreign = browser.get(f"/requests/{there.id}")
    bearing = browser.call("GET", "/v1/me", headers=scene.bearing("ann")).json()
    reached = browser.call("GET", f"/v1/tenants/{elsewhere.tenant.slug}", headers=scene.bearing("ann"))

    assert [link for link in listed.read.links if "/requests/" in link] == [f"/requests/{here.id}"]
    assert "Ann (approver) approved" in approved.words
    assert foreign.status == 404
    assert bearing["tenants"] == {scene.portal.world.tenant.slug: ["approver"]}
    facts(reached, 404, "not-found")


def test_credentials_added_under_one_tenants_issuer_do_not_count_at_another_tenant(
    scene: IssuerScene, open_portal: OpenPortal
) -> None:
    elsewhere = open_portal().world
    scene.portal.sql(GRANT, p=scene.portal.world.people["ann"].person_id, t=elsewhere.tenant.id)
    scene.bind("ann")
    wide, narrow, authenticator = scene.portal.browser(), scene.portal.browser(), Authenticator()
    wide.enter("ann", AuthMethod.PASSKEY)
    lasting = scene.made(wide)
    scene.sign_in(narrow, "ann")

    own = scene.made(narrow)
    account = narrow.get("/account")
    rotated = scene.calls(narrow, "POST", f"/v1/tokens/{lasting['id']}/rotate")
    revoked = scene.calls(narrow, "DELETE", f"/v1/tokens/{lasting['id']}")
    asked = narrow.submit(account, "/account/passkeys/new", name="theirs")
    options = json.loads(asked.form("/account/passkeys").data["options"])
    narrow.submit(asked, "/account/passkeys", credential=authenticator.create(options))
    asked = narrow.submit(narrow.get("/sign-in"), "/sign-in/passkey")
    answer = authenticator.get(json.loads(asked.form("/answer").data["options"]))
    narrow.submit(asked, "/answer", credential=answer)
    by_passkey = narrow.call("GET", "/v1/me").json()

    def known_by(token: dict[str, str]) -> dict[str, list[str]]:
        shown = {"authorization": f"Bearer {token['token']}"}
        tenants: dict[str, list[str]] = narrow.call("GET", "/v1/me", headers=shown).json()["tenants"]
        return tenants

    both = {scene.portal.world.tenant.slug, elsewhere.tenant.slug}
    assert known_by(own).keys() == by_passkey["tenants"].keys() == {scene.portal.world.tenant.slug}
    assert by_passkey["means"] == "passkey"
    assert known_by(lasting).keys() == both
    facts(rotated, 404, "not-found")
    facts(revoked, 404, "not-found")
    assert {one["id"] for one in scene.calls(narrow, "GET", "/v1/tokens").json()["items"]} == {own["id"]}
    assert account.text.count("/account/sessions/end") == 1


def trap(scene: IssuerScene, open_portal: OpenPortal, name: str) -> tuple[Portal, str, str]:
    """Invite somebody into another tenant as its admin; return its portal, the invitation's page and the code."""
    elsewhere = open_portal()
    answer = elsewhere.browser().call(
        "POST",
        f"/v1/tenants/{elsewhere.world.tenant.slug}/members",
        json={"name": "Trap", "address": scene.portal.address(name), "roles": ["tenant_admin"]},
        headers={"authorization": f"Bearer {elsewhere.world.tokens['tara']}"},
    )
    invitation = answer.json()["id"]
    (mail,) = elsewhere.post(invitation)
    return elsewhere, f"/invitations/{invitation}", code_in(mail)


def test_a_person_with_an_issuer_cannot_join_another_tenant_by_a_mailed_code_only(
    scene: IssuerScene, open_portal: OpenPortal
) -> None:
    scene.bind("ann")
    _, page, code = trap(scene, open_portal, "ann")
    thief, other, ann = scene.portal.browser(), scene.portal.browser(), scene.portal.browser()
    other.enter("amir", AuthMethod.PASSKEY)
    before = scene.portal.count().memberships

    tried = [who.submit(who.get(page), page, code=code) for who in (thief, other)]

    for answer in tried:
        assert (answer.status, "the code from the mail is not enough" in answer.words) == (403, True)
        assert f"/sign-in?next={page}" in answer.read.links
    assert (thief.session, scene.portal.count().memberships) == (None, before)
    assert scene.sign_in(ann, "ann").status == 200
    assert "You sign in with your identity provider here" in scene.portal.browser().sign_in("ann").words


def test_a_person_who_joins_another_tenant_still_signs_in_by_issuer_and_not_by_mail(
    scene: IssuerScene, open_portal: OpenPortal
) -> None:
    scene.bind("ann")
    elsewhere, page, code = trap(scene, open_portal, "ann")
    here, there = scene.portal.world.submit(), elsewhere.world.submit()
    ann, authenticator = scene.portal.browser(), Authenticator()
    scene.sign_in(ann, "ann")

    account = ann.submit(ann.get(page), page, code=code)
    seen = [ann.get(f"/requests/{one.id}").status for one in (here, there)]
    asked = ann.submit(ann.get("/account"), "/account/passkeys/new", name="for there")
    options = json.loads(asked.form("/account/passkeys").data["options"])
    added = ann.submit(asked, "/account/passkeys", credential=authenticator.create(options))
    mailed = scene.portal.browser().sign_in("ann")
    again = scene.sign_in(scene.portal.browser(), "ann")

    assert (account.status, account.path) == (200, "/welcome")
    assert seen == [404, 200]
    assert "for there" in added.words
    assert "counts as a code from a mail" not in added.words
    assert (mailed.status, "You sign in with your identity provider here" in mailed.words) == (401, True)
    assert (again.status, f"/requests/{here.id}" in again.read.links) == (200, True)
    assert f"/requests/{there.id}" not in again.read.links


def test_vendor_people_sign_in_with_the_vendors_issuer(scene: IssuerScene) -> None:
    scene.bind("max", scene.vendors)
    browser = scene.portal.browser()

    assert scene.sign_in(browser, "max", 1).status == 200
    assert browser.session


@pytest.mark.parametrize(
    "back",
    [
        {"state": "x"},
        {"state": ""},
        {"code": "x"},
        {"code": ""},
        {"iss": "https://evil.test"},
        {"error": "access_denied", "code": ""},
    ],
)
def test_a_mismatched_callback_is_refused_and_ends_the_issuer_sign_in(
    scene: IssuerScene, back: dict[str, str]
) -> None:
    scene.bind("ann")
    browser = scene.portal.browser()
    scene.tenants.subject = "ann"
    url = scene.leave(browser)
    truth = answered(url)

    wrong = browser.get(f"{CALLBACK}?{urlencode(truth | back)}")
    right = browser.get(f"{CALLBACK}?{urlencode(truth)}")

    assert (wrong.status, NOT_COMPLETED in wrong.words) == (401, True)
    assert (right.status, OVER in right.words) == (401, True)
    assert browser.session is None


@pytest.mark.parametrize("lie", [{"nonce": "x"}, {"aud": "other"}, {"iss": "https://evil.test"}, {"exp": 1}])
def test_an_id_token_with_a_false_claim_is_refused(scene: IssuerScene, lie: dict[str, Any]) -> None:
    scene.bind("ann")
    scene.tenants.id_token |= lie
    browser = scene.portal.browser()

    assert scene.sign_in(browser, "ann").status == 401
    assert browser.session is None


@pytest.mark.far
def test_an_id_token_signed_by_another_key_is_refused(scene: IssuerScene) -> None:
    scene.bind("ann")
    browser = scene.portal.browser()
    scene.sign_in(browser, "ann")
    scene.tenants.keys, kept = [ec_key(7)], scene.tenants.keys
    scene.tenants.troubles = {"/jwks": BROKEN}

    try:
        page = scene.sign_in(scene.portal.browser(), "ann")
    finally:
        scene.tenants.keys = kept

    assert page.status in {401, 503}


def test_an_issuer_sign_in_can_be_completed_only_in_the_browser_where_it_began(scene: IssuerScene) -> None:
    scene.bind("ann")
    thief, victim = scene.portal.browser(), scene.portal.browser()
    scene.tenants.subject = "ann"
    url = scene.leave(thief)
    scene.leave(victim)

    page = scene.come_back(victim, url)
    without = scene.come_back(scene.portal.browser(), scene.leave(scene.portal.browser()))

    assert (page.status, NOT_COMPLETED in page.words, victim.session) == (401, True, None)
    assert (without.status, OVER in without.words) == (401, True)


def test_an_issuer_callback_works_once(scene: IssuerScene) -> None:
    scene.bind("ann")
    browser, thief = scene.portal.browser(), scene.portal.browser()
    scene.tenants.subject = "ann"
    query = urlencode(answered(scene.leave(browser)))
    thief.put(BEGUN, browser.client.cookies[BEGUN])

    first = browser.get(f"{CALLBACK}?{query}")
    second = thief.get(f"{CALLBACK}?{query}")

    assert (first.status, second.status, thief.session) == (200, 401, None)


def test_an_issuer_sign_in_expires_after_ten_minutes(scene: IssuerScene) -> None:
    scene.bind("ann")
    browser = scene.portal.browser()
    scene.tenants.subject = "ann"
    url = scene.leave(browser)

    scene.portal.wait(minutes=10)

    assert scene.come_back(browser, url).status == 401


def test_a_mailed_code_cannot_complete_an_issuer_sign_in(scene: IssuerScene) -> None:
    browser = scene.portal.browser()
    scene.leave(browser)

    page = browser.post("/sign-in/code", {"code": "00000000"})

    assert (page.status, OVER in page.words) == (401, True)


@pytest.mark.far
def test_signing_in_again_makes_the_issuer_re_authenticate_the_person(scene: IssuerScene) -> None:
    scene.bind("ann")
    browser = scene.portal.browser()
    scene.sign_in(browser, "ann")
    first = browser.session

    url = scene.leave(browser)
    page = scene.come_back(browser, url)

    assert "prompt=login" in url
    assert "max_age=0" in url
    assert page.status == 200
    assert browser.session != first


@pytest.mark.far
def test_an_old_sign_in_at_the_issuer_does_not_count_as_fresh_at_lockbox(scene: IssuerScene) -> None:
    request_id = scene.portal.world.submit().id
    scene.bind("ann")
    scene.tenants.id_token |= {"auth_time": scene.at - 3600}
    browser = scene.portal.browser()
    scene.sign_in(browser, "ann")

    page = browser.approve_anyway(request_id)

    assert (page.status, "Sign in again" in page.words) == (403, True)
    assert f"/sign-in?next=/requests/{request_id}" in page.read.links


@pytest.mark.far
def test_a_person_with_an_issuer_cannot_sign_in_by_mail(scene: IssuerScene) -> None:
    scene.bind("ann")
    ann, amir = scene.portal.browser(), scene.portal.browser()

    page = ann.sign_in("ann")
    amir.sign_in("amir")

    assert (page.status, "You sign in with your identity provider here" in page.words) == (401, True)
    assert ann.session is None
    assert amir.session


@pytest.mark.parametrize("header", [{"sec-purpose": "prefetch"}, {"sec-purpose": "prefetch;prerender"}])
def test_a_prefetched_sign_in_link_starts_no_sign_in(scene: IssuerScene, header: dict[str, str]) -> None:
    browser = scene.portal.browser()

    answer = browser.call("GET", "/sign-in/oidc/0", headers=header)

    assert answer.status_code == 422
    assert browser.begun is None


@pytest.mark.parametrize("number", ["2", "-1", "99999999999999999999", "x"])
def test_a_sign_in_with_an_unknown_issuer_is_not_found(scene: IssuerScene, number: str) -> None:
    assert scene.portal.browser().get(f"/sign-in/oidc/{number}").status in {404, 422}


def test_an_unreachable_issuer_is_reported_at_sign_in(scene: IssuerScene) -> None:
    scene.bind("ann")
    browser = scene.portal.browser()
    scene.leave(browser)
    scene.tenants.troubles = {"/token": BROKEN}

    page = scene.sign_in(browser, "ann")

    assert page.status == 503
    assert page.answer.headers["retry-after"]
    assert "stack trace" not in page.text
    assert "sign in with Contoso now: it does not answer as an identity provider has to." in page.text
    assert "ask whoever runs your organisation&#39;s identity provider" in page.text
    assert "Mail me a code" in page.text


@pytest.mark.parametrize(
    ("tenant", "whom"),
    [
        (None, "ask the operator of this installation at Fabrikam Support."),
        ("contoso", "ask whoever runs your organisation&#39;s identity provider."),
    ],
)
def test_the_sign_in_page_reports_a_faulty_issuer_and_its_contact(
    open_portal: OpenPortal, tenant: str | None, whom: str
) -> None:
    portal = open_portal()
    inside = IdentityProvider(issuer="https://10.20.0.7", audience="a", client_id="c", tenant=tenant, title="Acme ID")
    changes = {"issuers": (inside,), "vendor_name": "Fabrikam Support"}
    portal = replace(portal, settings=portal.settings.model_copy(update=changes))

    page = portal.browser().get("/sign-in/oidc/0?next=/requests")

    assert page.status == 503
    assert page.answer.headers["retry-after"]
    assert "Acme ID now: its address is in a private network that Lockbox may not call." in page.text
    assert whom in page.text
