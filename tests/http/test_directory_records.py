"""Where the vendor's people work: from a service account or their identity provider, and shown with requests."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from httpx import Response

from lockbox.identity.roles import Role, Scope
from lockbox.requests.policy_rules import Policy
from tests.database.tenancy import id_of
from tests.http.door import Door, facts
from tests.http.portal import OpenPortal, Portal, PortalPage
from tests.http.test_portal_new_request import previewed, submitted
from tests.oidc_issuer import LocalIssuer, local_issuer

WORKS = {"employing_entity": "Example Support GmbH", "office_country": "DE", "physical_country": "PL"}
CLAIMS = {"employing_entity_claim": "company", "office_country_claim": "ctry", "physical_country_claim": "here"}
BIND = "INSERT INTO identities VALUES (:i, 'erin', :p, now(), now())"
RECORD = "SELECT * FROM directory_records WHERE person_id = :p"


def puts(door: Door, body: Any, who: str = "copier", whose: str = "erin") -> Response:
    if who not in door.world.people:
        door.world.add(who, Role.SYSTEM, scopes={Scope.DIRECTORY_WRITE})
    return door.call(who, "PUT", f"/v1/vendor/members/{id_of(door.world, whose)}/directory", json=body)


def test_a_directory_record_is_copied_onto_each_new_request_and_shown_to_approvers(fresh_door: Door) -> None:
    put = puts(fresh_door, WORKS)
    request = fresh_door.file(severity="S1").json()
    puts(fresh_door, {"office_country": "US"})
    left = fresh_door.get("erin", f"/v1/vendor/members/{id_of(fresh_door.world, 'erin')}/directory").json()

    assert put.status_code == 200, put.text
    assert {name: put.json()[name] for name in WORKS} == WORKS
    assert put.json()["source"] == f"account:{id_of(fresh_door.world, 'copier')}"
    shown = fresh_door.get("ann", f"/v1/requests/{request['id']}").json()
    assert {name: shown[name] for name in WORKS} == WORKS
    assert (shown["severity"], shown["sign_in"], shown["sign_in_means"]) == ("S1", "session", "sample")
    assert shown["directory_as_of"] == put.json()["as_of"]
    assert [left[name] for name in WORKS] == [None, "US", None]


def test_only_a_service_account_token_with_the_scope_writes_directory_records(fresh_door: Door) -> None:
    said = facts(puts(fresh_door, WORKS, who="gate"), 403, "wrong-role")
    facts(puts(fresh_door, WORKS, who="erin"), 403, "wrong-role")
    facts(puts(fresh_door, WORKS, whose="ann"), 404, "not-found")

    assert "directory:write" in said["detail"]


BAD: list[tuple[Any, str]] = [
    ({"office_country": "Germany"}, "office_country"),
    ({"physical_country": "XX"}, "physical_country"),
    ({"physical_country": "de"}, "physical_country"),
    ({"employing_entity": ""}, "employing_entity"),
    ({"employing_entity": "a" * 101}, "employing_entity"),
    ({"employing_entity": "Two\nlines"}, "employing_entity"),
    ({"country": "DE"}, "country"),
]


def test_an_invalid_directory_record_is_refused_field_by_field(fresh_door: Door) -> None:
    for body, name in BAD:
        said = facts(puts(fresh_door, body), 422, "invalid-request")
        assert [error["field"] for error in said["errors"]] == [name], body


@dataclass
class ProviderScene:
    """The vendor's identity provider, which states where people work, and Erin, whom it knows."""

    portal: Portal
    provider: LocalIssuer
    at: int

    def sign_in(self, **claims: Any) -> PortalPage:
        """Sign Erin in through the provider, which makes these claims about her."""
        self.provider.subject = "erin"
        self.provider.id_token = {"iat": self.at, "exp": self.at + 300, "auth_time": self.at - 5} | claims
        browser = self.portal.browser()
        leaving = browser.call("GET", "/sign-in/oidc/0?next=/requests").headers["location"]
        back = urlsplit(httpx.get(leaving, trust_env=False).headers["location"])
        return browser.get(f"{back.path}?{back.query}")

    @property
    def record(self) -> Any:
        """The directory record of Erin; None if there is none."""
        rows = self.portal.sql(RECORD, p=id_of(self.portal.world, "erin"))
        return rows[0] if rows else None


@pytest.fixture(scope="module")
def provider() -> Iterator[LocalIssuer]:
    with local_issuer() as running:
        yield running


@pytest.fixture
def scene(open_portal: OpenPortal, provider: LocalIssuer) -> ProviderScene:
    """A portal whose vendor's identity provider states where people work."""
    portal = open_portal()
    issuers = (provider.configured(title="the vendor", **CLAIMS),)
    portal = replace(portal, settings=portal.settings.model_copy(update={"issuers": issuers}))
    portal.sql("DELETE FROM identities")
    portal.sql(BIND, i=provider.url, p=id_of(portal.world, "erin"))
    return ProviderScene(portal, provider, int(datetime.now(UTC).timestamp()))


@pytest.mark.far
def test_the_identity_providers_claims_at_sign_in_are_kept_in_the_directory_record(scene: ProviderScene) -> None:
    page = scene.sign_in(company="Example Support GmbH", ctry="de", here="PL")

    assert page.status == 200
    kept = scene.record
    assert (kept.employing_entity, kept.office_country, kept.physical_country) == tuple(WORKS.values())
    assert (kept.source, int(kept.as_of.timestamp())) == (scene.provider.url, scene.at)


@pytest.mark.far
def test_missing_or_invalid_directory_claims_are_stored_as_unknown(scene: ProviderScene) -> None:
    scene.sign_in(company="Example Support GmbH", ctry="DE", here="PL")
    scene.at += 1

    page = scene.sign_in(company=["Example"], ctry="Germany")

    assert page.status == 200
    kept = scene.record
    assert (kept.employing_entity, kept.office_country, kept.physical_country) == (None, None, None)


def test_an_id_token_older_than_the_directory_record_does_not_change_the_record(scene: ProviderScene) -> None:
    scene.sign_in(here="PL")
    scene.at -= 30

    scene.sign_in(here="DE")

    assert scene.record.physical_country == "PL"


def test_the_form_takes_a_severity_and_the_page_shows_the_requesters_location(portal: Portal) -> None:
    door = portal.world
    door.add("copier", Role.SYSTEM, scopes={Scope.DIRECTORY_WRITE})
    path = f"/v1/vendor/members/{id_of(door, 'erin')}/directory"
    written = portal.browser().call(
        "PUT", path, json=WORKS, headers={"authorization": f"Bearer {door.tokens['copier']}"}
    )
    browser = portal.by_mail("erin")

    page = browser.submit(previewed(browser, portal, severity="S2"), "/ask")

    assert written.status_code == 200, written.text
    (request,) = submitted(portal)
    assert (request.severity, request.sign_in, request.physical_country) == ("S2", "session", "PL")
    assert "Severity S2" in page.words
    assert "Example Support GmbH, office in DE, located in PL, by the vendor's directory as of" in page.words
    assert "in a browser" in page.words


def test_the_request_form_keeps_its_text_after_an_invalid_severity(portal: Portal) -> None:
    page = previewed(portal.by_mail("erin"), portal, severity="S9")

    assert "Choose a severity from the list, or none." in page.words
    assert page.form("/ask/preview").fields["case_ref"] == "CASE-7"


def test_the_request_page_says_if_the_requesters_location_is_unknown(portal: Portal) -> None:
    browser = portal.by_mail("erin")

    page = browser.submit(previewed(browser, portal), "/ask")

    assert "not known: the vendor's directory did not say it, or it was erased" in page.words


def test_the_request_form_refuses_a_country_the_policy_does_not_allow(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(countries=frozenset({"DE"})))

    page = previewed(portal.by_mail("erin"), portal)

    assert "has no location for this engineer" in page.words
    assert submitted(portal) == []
