"""Two issuers, one of a tenant and one of the vendor, and browsers that sign in through them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest

from api.browser import CSRF_HEADER
from lockbox.identity import sessions
from tests.http.portal import HOME, Browser, OpenPortal, Portal, PortalPage
from tests.oidc_issuer import LocalIssuer, local_issuer

CALLBACK = "/sign-in/oidc/callback"
BIND = "INSERT INTO identities VALUES (:i, :s, :p, now(), now())"
WAS_INVITED = """
INSERT INTO invitations (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at,
    accepted_at, accepted_by)
VALUES (uuidv7(), :t, :e, 'Ann', '{approver}', false, :p, now(), now(), now() - interval '1 day', :p)
"""


@dataclass
class IssuerScene:
    """A tenant with its issuer, the vendor's issuer, and their people: Ann and Max are known to them."""

    portal: Portal
    tenants: LocalIssuer
    vendors: LocalIssuer
    at: int

    def bind(self, name: str, issuer: LocalIssuer | None = None) -> None:
        person = self.portal.world.people[name].person_id
        self.portal.sql(BIND, i=(issuer or self.tenants).url, s=name, p=person)

    def leave(self, browser: Browser, number: int = 0, next_: str = "/requests") -> str:
        """Follow the link to an issuer and return its address."""
        answer = browser.call("GET", f"/sign-in/oidc/{number}?next={next_}")
        assert answer.status_code == 303, answer.text
        return str(answer.headers["location"])

    def add(self, browser: Browser, name: str) -> PortalPage:
        """Go from the account page to the tenant's issuer, and come back with its answer."""
        leaving = browser.submit(browser.get("/account"), "/account/identities/new")
        (url,) = (link for link in leaving.read.links if link.startswith(self.tenants.url))
        self.tenants.subject = name
        return self.come_back(browser, url)

    def was_invited(self, name: str) -> None:
        tenant, person = self.portal.world.tenant.id, self.portal.world.people[name].person_id
        self.portal.sql(WAS_INVITED, t=tenant, e=self.portal.address(name), p=person)

    def wait(self, **shift: float) -> None:
        self.portal.wait(**shift)
        self.at += int(timedelta(**shift).total_seconds())
        for issuer in (self.tenants, self.vendors):
            issuer.id_token = {"iat": self.at, "exp": self.at + 300, "auth_time": self.at - 5}

    def bearing(self, name: str) -> dict[str, str]:
        """Return the header for calls with a person's token of the tenant's issuer."""
        token = self.tenants.token(sub=name, iat=self.at, exp=self.at + 300)
        return {"authorization": f"Bearer {token}"}

    def calls(self, browser: Browser, method: str, path: str, **parts: Any) -> httpx.Response:
        ours = {"origin": HOME, "sec-fetch-site": "same-origin", CSRF_HEADER: sessions.csrf(browser.session or "")}
        return browser.call(method, path, headers=ours, **parts)

    def made(self, browser: Browser) -> dict[str, Any]:
        """Make a token for the person signed in at a browser."""
        told: dict[str, Any] = self.calls(browser, "POST", "/v1/tokens", json={"name": "laptop"}).json()
        return told

    def sign_in(self, browser: Browser, name: str, number: int = 0, **back: str) -> PortalPage:
        """Go to an issuer, which knows the person, and come back; `back` changes what comes back."""
        self.tenants.subject = self.vendors.subject = name
        return self.come_back(browser, self.leave(browser, number), **back)

    def come_back(self, browser: Browser, url: str, **changes: str) -> PortalPage:
        return browser.get(f"{CALLBACK}?{urlencode(answered(url) | changes)}")


def answered(url: str) -> dict[str, str]:
    location = httpx.get(url, trust_env=False).headers["location"]
    assert location.startswith(f"{HOME}{CALLBACK}?")
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[LocalIssuer, LocalIssuer]]:
    with local_issuer() as tenants, local_issuer() as vendors:
        yield tenants, vendors


@pytest.fixture
def scene(open_portal: OpenPortal, running: tuple[LocalIssuer, LocalIssuer]) -> IssuerScene:
    portal = open_portal()
    at = int(datetime.now(UTC).timestamp())
    for issuer in running:
        issuer.id_token = {"iat": at, "exp": at + 300, "auth_time": at - 5}
        issuer.troubles = {}
    tenants, vendors = running
    configured = (
        tenants.configured(tenant=portal.world.tenant.slug, title="Contoso"),
        vendors.configured(title="the vendor"),
    )
    portal = replace(portal, settings=portal.settings.model_copy(update={"issuers": configured}))
    # Each test has tenants of its own; the issuers stay.
    portal.sql("DELETE FROM identities")
    return IssuerScene(portal, tenants, vendors, at)
