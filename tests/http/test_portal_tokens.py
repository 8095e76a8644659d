"""A person makes a token on the account page: shown once, good for the API, worthless once it is revoked."""

import re

from lockbox.facts.enumerations import AuthMethod
from tests.http.portal import Portal, PortalPage

TOKEN = re.compile(r"lbx_test_[0-9a-f]{32}_[A-Za-z0-9_-]{51}")


def made(portal: Portal, means: AuthMethod = AuthMethod.PASSKEY) -> tuple[PortalPage, str]:
    """Let Ann make a token in a browser of hers; return the page that shows it, and its text."""
    browser = portal.entered("ann", means)
    page = browser.submit(browser.get("/account"), "/account/tokens/new", name="command line")
    (text,) = TOKEN.findall(page.text)
    return page, text


def test_a_new_api_token_is_shown_once_and_works(portal: Portal) -> None:
    page, token = made(portal)

    answer = portal.browser().call("GET", "/v1/me", headers={"authorization": f"Bearer {token}"})

    assert page.status == 200
    assert answer.json()["means"] == "token"
    newest = portal.sql("SELECT name FROM tokens WHERE NOT is_sample AND revoked_at IS NULL ORDER BY id DESC LIMIT 1")
    assert [row.name for row in newest] == ["command line"]


def test_the_account_page_lists_a_token_without_its_text_and_can_revoke_the_token(portal: Portal) -> None:
    browser = portal.by_passkey("amir")
    shown = browser.submit(browser.get("/account"), "/account/tokens/new", name="to be gone")
    (token,) = TOKEN.findall(shown.text)

    account = browser.get("/account")
    browser.submit_first(account, "/account/tokens/revoke")
    answer = portal.browser().call("GET", "/v1/me", headers={"authorization": f"Bearer {token}"})

    assert "to be gone" in account.text
    assert token not in account.text
    assert answer.status_code == 401


def test_a_gateway_token_form_without_a_service_is_refused_and_keeps_the_ticked_scopes(portal: Portal) -> None:
    browser = portal.by_passkey("gate")

    page = browser.submit(browser.get("/account"), "/account/tokens/new", name="nginx", scopes="gate:nginx")

    assert page.status == 422
    assert "names the services that it stands before" in page.text
    assert re.findall(r'value="([^"]+)" checked', page.text) == ["gate:nginx"]
    assert not TOKEN.findall(page.text)
