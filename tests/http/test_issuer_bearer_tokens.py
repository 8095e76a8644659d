"""A bearer token of an issuer: whose it is on the API, and what it opens."""

from typing import Any

import pytest

from lockbox.identity.roles import Role
from tests.http import issuer_scene
from tests.http.door import facts
from tests.http.issuer_scene import IssuerScene
from tests.http.portal import OpenPortal
from tests.oidc_issuer import LocalIssuer

running = issuer_scene.running
scene = issuer_scene.scene


def bearer(scene: IssuerScene, issuer: LocalIssuer, subject: str, **claims: Any) -> dict[str, str]:
    """Return the header for a call with a token of an issuer."""
    issuer.subject = subject
    return {"authorization": f"Bearer {issuer.token(**{'iat': scene.at, 'exp': scene.at + 300} | claims)}"}


def test_a_persons_bearer_token_from_an_issuer_can_read_and_approve(scene: IssuerScene) -> None:
    request_id = scene.portal.world.submit().id
    scene.bind("ann")
    browser = scene.portal.browser()
    path = f"/v1/requests/{request_id}"

    read = browser.call("GET", path, headers=bearer(scene, scene.tenants, "ann"))
    approved = browser.call("POST", f"{path}/approve", headers=bearer(scene, scene.tenants, "ann"))

    assert read.json()["id"] == str(request_id)
    assert approved.json()["state"] == "active"
    (decision,) = scene.portal.sql("SELECT means FROM decisions WHERE request_id = :r", r=request_id)
    assert decision.means == "oidc"


def test_a_bearer_token_of_an_old_sign_in_approves_nothing(scene: IssuerScene) -> None:
    request_id = scene.portal.world.submit().id
    scene.bind("ann")
    header = bearer(scene, scene.tenants, "ann", auth_time=scene.at - 3600)

    answer = scene.portal.browser().call("POST", f"/v1/requests/{request_id}/approve", headers=header)

    facts(answer, 403, "fresh-sign-in-needed")


def test_a_bearer_token_is_bound_to_the_side_and_tenant_of_its_issuer(
    scene: IssuerScene, open_portal: OpenPortal
) -> None:
    elsewhere = open_portal().world
    scene.portal.world.add("zoe", Role.APPROVER, elsewhere.tenant.id)
    for name, issuer in (("max", scene.tenants), ("ann", scene.vendors), ("zoe", scene.tenants)):
        scene.bind(name, issuer)
    browser = scene.portal.browser()

    answers = [
        browser.call("GET", "/v1/requests", headers=bearer(scene, issuer, name))
        for name, issuer in (("max", scene.tenants), ("ann", scene.vendors), ("zoe", scene.tenants))
    ]
    unknown = browser.call("GET", "/v1/requests", headers=bearer(scene, scene.tenants, "nobody"))

    for answer in answers:
        facts(answer, 401, "invalid-token")
        assert answer.content == unknown.content


@pytest.mark.parametrize("lie", [{"aud": "other"}, {"exp": 1}, {"sub": None}, {"iss": "https://evil.test"}])
def test_a_bearer_token_with_a_false_claim_is_refused(scene: IssuerScene, lie: dict[str, Any]) -> None:
    scene.bind("ann")

    answer = scene.portal.browser().call("GET", "/v1/requests", headers=bearer(scene, scene.tenants, "ann", **lie))

    facts(answer, 401, "invalid-token")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_bearer_token_that_is_unsigned_or_belongs_to_a_disabled_person_is_refused(scene: IssuerScene) -> None:
    scene.bind("ann")
    scene.tenants.subject = "ann"
    browser = scene.portal.browser()
    unsigned = {"authorization": f"Bearer {scene.tenants.unsigned_token()}"}

    facts(browser.call("GET", "/v1/requests", headers=unsigned), 401, "invalid-token")
    scene.portal.sql(
        "UPDATE people SET disabled_at = now() WHERE id = :p", p=scene.portal.world.people["ann"].person_id
    )

    facts(browser.call("GET", "/v1/requests", headers=bearer(scene, scene.tenants, "ann")), 401, "invalid-token")
    assert scene.sign_in(browser, "ann").status == 401
