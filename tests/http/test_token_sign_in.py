"""Creating a token needs a fresh sign-in of its person, by an issuer or in a browser."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import Response

from api.browser import CSRF_HEADER
from config.settings import Settings
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import sessions
from lockbox.identity.sessions import ClientInfo, SessionLifetime
from tests.http.door import facts
from tests.http.portal import HOME, SESSION, Browser, OpenPortal, Portal
from tests.oidc_issuer import LocalIssuer, local_issuer

BIND = "INSERT INTO identities VALUES (:i, :s, :p, now(), now())"
HAVE_A_PASSKEY = """
INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at)
VALUES (uuidv7(), :p, uuid_send(uuidv7()), '', 0, 'key', now(), now())
"""


def signed_in(portal: Portal, name: str, means: AuthMethod) -> Browser:
    """Open a browser in which a person has just signed in by this means."""
    browser = portal.browser()
    caller = replace(portal.world.people[name], means=means, signed_in_at=None)
    with portal.db.transaction() as session:
        lasting = SessionLifetime(timedelta(hours=1), timedelta(hours=12))
        secret = sessions.begin(session, caller, ClientInfo(None, None), lasting)
    browser.put(SESSION, secret)
    return browser


def asks(browser: Browser, path: str = "/v1/tokens", **body: Any) -> Response:
    ours = {"origin": HOME, "sec-fetch-site": "same-origin", CSRF_HEADER: sessions.csrf(browser.session or "")}
    return browser.call("POST", path, headers=ours, json={"name": "laptop"} | body)


@pytest.mark.parametrize("means", [AuthMethod.PASSKEY, AuthMethod.OIDC, AuthMethod.MAIL])
def test_a_fresh_browser_sign_in_creates_a_token(portal: Portal, means: AuthMethod) -> None:
    answer = asks(signed_in(portal, "ann", means))

    assert answer.status_code == 201
    shown = {"authorization": f"Bearer {answer.json()['token']}"}
    me = portal.browser().call("GET", "/v1/me", headers=shown).json()
    assert (me["id"], me["means"]) == (str(portal.world.people["ann"].person_id), "token")


def test_creating_a_token_needs_the_pages_form_token(portal: Portal) -> None:
    browser = signed_in(portal, "ann", AuthMethod.PASSKEY)

    facts(browser.call("POST", "/v1/tokens", json={"name": "laptop"}), 403, "cross-site")
    facts(
        browser.call("POST", "/v1/tokens", json={"name": "laptop"}, headers={"origin": "https://evil.test"}),
        *(403, "cross-site"),
    )


@pytest.mark.parametrize("means", [AuthMethod.PASSKEY, AuthMethod.OIDC, AuthMethod.MAIL])
def test_a_fifteen_minute_old_sign_in_creates_no_token(portal: Portal, means: AuthMethod) -> None:
    browser = signed_in(portal, "ann", means)
    token = asks(browser).json()

    portal.wait(minutes=14)
    fresh = asks(browser)
    portal.wait(minutes=1)
    stale = [asks(browser), browser_rotates(browser, token["id"])]

    assert fresh.status_code == 201
    for answer in stale:
        assert facts(answer, 403, "fresh-sign-in-needed")["max_age"] == 900


def browser_rotates(browser: Browser, token_id: str, **body: Any) -> Response:
    ours = {"origin": HOME, "sec-fetch-site": "same-origin", CSRF_HEADER: sessions.csrf(browser.session or "")}
    return browser.call("POST", f"/v1/tokens/{token_id}/rotate", headers=ours, json=body)


def lasts(told: dict[str, Any]) -> timedelta:
    return datetime.fromisoformat(told["expires_at"]) - datetime.fromisoformat(told["created_at"])


def test_a_token_made_with_a_mailed_code_lasts_a_week_despite_rotation(portal: Portal) -> None:
    browser, script = signed_in(portal, "ann", AuthMethod.MAIL), portal.browser()

    def by(token: dict[str, Any], **body: Any) -> Response:
        shown = {"authorization": f"Bearer {token['token']}"}
        return script.call("POST", f"/v1/tokens/{token['id']}/rotate", headers=shown, json=body)

    first = asks(browser).json()
    longer = by(first, days=8)
    second = by(first).json()
    third = by(second).json()
    still = by(third, days=8)

    assert [lasts(one) for one in (first, second, third)] == [timedelta(days=7)] * 3
    for answer in (longer, still):
        assert facts(answer, 422, "invalid-request")["limit_days"] == 7


def test_a_mailed_code_limits_a_rotated_token_to_a_week_and_a_passkey_does_not(portal: Portal) -> None:
    mine = asks(signed_in(portal, "ann", AuthMethod.PASSKEY), days=30).json()
    by_mail = browser_rotates(signed_in(portal, "ann", AuthMethod.MAIL), mine["id"]).json()
    by_passkey = browser_rotates(signed_in(portal, "ann", AuthMethod.PASSKEY), by_mail["id"], days=90).json()

    again = portal.browser().call(
        "POST",
        f"/v1/tokens/{by_passkey['id']}/rotate",
        headers={"authorization": f"Bearer {by_passkey['token']}"},
    )

    assert [lasts(one).days for one in (mine, by_mail, by_passkey, again.json())] == [30, 7, 90, 90]


def test_an_old_session_can_still_list_and_revoke_tokens(portal: Portal) -> None:
    browser = signed_in(portal, "ann", AuthMethod.MAIL)
    token = asks(browser).json()
    portal.wait(minutes=20)
    ours = {"origin": HOME, "sec-fetch-site": "same-origin", CSRF_HEADER: sessions.csrf(browser.session or "")}

    revoked = browser.call("DELETE", f"/v1/tokens/{token['id']}", headers=ours)

    assert revoked.status_code == 204
    assert token["id"] not in browser.call("GET", "/v1/tokens").text


def test_a_mailed_code_is_not_enough_to_create_tokens_for_a_person_with_a_passkey(portal: Portal) -> None:
    portal.sql(HAVE_A_PASSKEY, p=portal.world.people["ann"].person_id)

    facts(asks(signed_in(portal, "ann", AuthMethod.MAIL)), 403, "fresh-sign-in-needed")

    assert asks(signed_in(portal, "ann", AuthMethod.PASSKEY)).status_code == 201


def test_an_installation_sets_the_lifetime_of_tokens(open_portal: OpenPortal) -> None:
    settings = Settings(environment="test", public_url=HOME, most_token_days=30, token_overlap_hours=2)
    portal = open_portal(settings=settings)
    browser = signed_in(portal, "ann", AuthMethod.PASSKEY)

    usual, most, more = asks(browser), asks(browser, days=30), asks(browser, days=31)
    rotated = browser_rotates(browser, usual.json()["id"])

    def until(answer: Response) -> timedelta:
        told = answer.json()
        return datetime.fromisoformat(told["expires_at"]) - datetime.fromisoformat(told["created_at"])

    assert [until(answer) for answer in (usual, most, rotated)] == [timedelta(days=30)] * 3
    assert facts(more, 422, "invalid-request")["limit_days"] == 30
    (old,) = portal.sql("SELECT expires_at FROM tokens WHERE id = :i", i=usual.json()["id"])
    overlap = old.expires_at - datetime.fromisoformat(rotated.json()["created_at"])
    assert timedelta(hours=1, minutes=59) < overlap <= timedelta(hours=2)


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


def bearing(open_portal: OpenPortal, issuer: LocalIssuer) -> tuple[Portal, dict[str, Any]]:
    """Return pages that trust the issuer, which knows Erin, and valid claims for its tokens."""
    configured = (issuer.configured(title="the vendor"),)
    portal = open_portal(settings=Settings(environment="test", public_url=HOME, issuers=configured))
    portal.sql("DELETE FROM identities WHERE issuer = :i", i=issuer.url)
    portal.sql(BIND, i=issuer.url, s="erin", p=portal.world.people["erin"].person_id)
    at = int(datetime.now(UTC).timestamp())
    return portal, {"sub": "erin", "iat": at, "exp": at + 300}


def test_a_fresh_bearer_token_of_an_issuer_creates_and_rotates_api_tokens(
    open_portal: OpenPortal, issuer: LocalIssuer
) -> None:
    portal, claims = bearing(open_portal, issuer)
    browser = portal.browser()
    fresh = {"authorization": f"Bearer {issuer.token(**claims)}"}
    stale = {"authorization": f"Bearer {issuer.token(**claims, auth_time=claims['iat'] - 901)}"}

    made = browser.call("POST", "/v1/tokens", headers=fresh, json={"name": "laptop"})
    path = f"/v1/tokens/{made.json()['id']}/rotate"

    assert made.status_code == 201
    facts(browser.call("POST", "/v1/tokens", headers=stale, json={"name": "laptop"}), 403, "fresh-sign-in-needed")
    facts(browser.call("POST", path, headers=stale), 403, "fresh-sign-in-needed")
    assert browser.call("POST", path, headers=fresh).status_code == 201
