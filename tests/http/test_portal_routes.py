"""Every page has an entry here: what each role gets, and an anonymous reader. A new page without one fails."""

import json
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from httpx import Response

from api import document
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import sessions
from lockbox.identity.roles import Role
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.http.portal import SETTINGS, Browser, OpenPortal, Portal
from tests.http.portal_places import Errand, Stage, errand
from tests.logs import sealed

NOBODY = "nobody"
WHO = ("erin", "eve", "max", "olga", "vera", "gate", "tara", "ann", "aude", "zoe")
SIGN_IN = "sign-in"
PATIENT = SETTINGS.model_copy(update={"submissions_per_person": 1_000_000, "submissions_per_tenant": 1_000_000})
REFUSED = {SIGN_IN, "401", "403", "404"}
# Of a request by Erin that Ann may answer: first what nobody gets, then what each of WHO does. A form is filled in
# well, and has the token of its session. What was done leads on (303) or shows what comes of it (200).
MATRIX = {
    "GET /sign-in": "200 200 200 200 200 200 200 200 200 200 200",
    "POST /sign-in": "422 422 422 422 422 422 422 422 422 422 422",
    "GET /sign-in/code": "sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in",
    "POST /sign-in/code": "401 401 401 401 401 401 401 401 401 401 401",
    "POST /sign-in/passkey": "200 200 200 200 200 200 200 200 200 200 200",
    "POST /sign-in/passkey/answer": "401 401 401 401 401 401 401 401 401 401 401",
    "GET /sign-in/oidc/callback": "401 401 401 401 401 401 401 401 401 401 401",
    "GET /sign-in/oidc/{number}": "404 404 404 404 404 404 404 404 404 404 404",
    "POST /sign-out": "sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in",
    "GET /": "sign-in 303 303 303 303 303 303 303 303 303 303",
    "GET /waiting": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /open": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /requests.csv": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /requests": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /requests/{request_id}": "sign-in 200 404 200 404 200 404 200 200 200 404",
    "POST /requests/{request_id}/ask-again": "sign-in 303 404 403 404 403 404 403 403 403 404",
    "POST /requests/{request_id}/extend": "sign-in 303 404 403 404 403 404 403 403 403 404",
    "POST /requests/{request_id}/finding": "sign-in 403 404 403 404 403 404 303 303 403 404",
    "POST /requests/{request_id}/look": "sign-in 303 404 303 404 303 404 303 303 403 404",
    "POST /requests/{request_id}/approve": "sign-in 403 404 403 404 403 404 403 200 403 404",
    "POST /requests/{request_id}/deny": "sign-in 403 404 403 404 403 404 200 200 403 404",
    "POST /requests/{request_id}/revoke": "sign-in 403 404 200 404 403 404 200 200 403 404",
    "GET /account": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "POST /account/sessions/end": "sign-in 303 303 303 303 303 303 303 303 303 303",
    "POST /account/passkeys/new": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "POST /account/passkeys": "sign-in 422 422 422 422 422 422 422 422 422 422",
    "POST /account/passkeys/remove": "sign-in 404 404 404 404 404 404 404 404 404 404",
    "POST /account/tokens/new": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "POST /account/tokens/revoke": "sign-in 303 303 303 303 303 303 303 303 303 303",
    "POST /account/preferences": "sign-in 303 303 303 303 303 303 303 303 303 303",
    "POST /account/preferences/prompts": "sign-in 303 303 303 303 303 303 303 303 303 303",
    "POST /account/addresses": "sign-in 303 303 303 303 303 303 303 303 303 303",
    "POST /account/addresses/confirm": "sign-in 404 404 404 404 404 404 404 422 404 404",
    "POST /account/addresses/prompts": "sign-in 404 404 404 404 404 404 404 303 404 404",
    "POST /account/addresses/remove": "sign-in 404 404 404 404 404 404 404 303 404 404",
    "POST /account/identities/new": "404 404 404 404 404 404 404 404 404 404 404",
    "POST /account/identities/remove": "sign-in 404 404 404 404 404 404 404 404 404 404",
    "GET /welcome": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /proposals": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "POST /proposals/object": "sign-in 403 403 403 403 403 403 303 303 403 404",
    "GET /invitations/{invitation_id}": "200 200 200 200 200 200 200 200 200 200 200",
    "POST /invitations/{invitation_id}": "403 403 403 403 403 403 403 403 403 403 403",
    "GET /device": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "POST /device": "sign-in 200 200 200 200 200 403 200 200 200 200",
    "POST /device/answer": "sign-in 200 200 200 200 200 403 200 200 200 200",
    "GET /tenants": "sign-in 200 200 200 200 200 200 303 303 303 303",
    "GET /gates": "sign-in 403 403 403 200 200 403 403 403 403 403",
    "GET /gates/{service}": "sign-in 403 403 403 404 404 403 403 403 403 403",
    "GET /tenants/{slug}": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/name": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "GET /tenants/{slug}/emergency-stop": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "POST /tenants/{slug}/emergency-stop": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/emergency-stop/end": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/leave": "sign-in 403 403 403 403 403 403 403 303 303 404",
    "GET /tenants/{slug}/mode": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/mode": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "POST /tenants/{slug}/mode/save": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/mode/consent": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "GET /tenants/{slug}/policy": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/policy": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "POST /tenants/{slug}/policy/terms": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "POST /tenants/{slug}/policy/save": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "GET /live": "401 422 422 422 422 422 422 422 422 422 422",
    "GET /requests/{request_id}/questions": "sign-in 200 404 200 404 200 404 200 200 200 404",
    "POST /requests/{request_id}/questions": "sign-in 403 404 403 404 403 404 403 303 403 404",
    "POST /requests/{request_id}/questions/{question_id}/answer": "sign-in 303 404 403 404 403 404 403 403 403 404",
    "GET /ask": "sign-in 200 200 403 403 403 403 403 403 403 403",
    "POST /ask/preview": "sign-in 200 200 403 403 403 403 403 403 403 403",
    "POST /ask": "sign-in 303 303 403 403 403 403 403 403 403 403",
    "GET /mine": "sign-in 200 200 403 403 403 403 403 403 403 403",
    "POST /mine/{request_id}/cancel": "sign-in 303 404 403 404 403 404 403 403 403 404",
    "POST /mine/{request_id}/complete": "sign-in 303 404 403 404 403 404 403 403 403 404",
    "GET /review": "sign-in 403 403 200 403 403 403 403 403 403 403",
    "POST /review/{request_id}/endorse": "sign-in 403 404 303 404 403 404 404 404 404 404",
    "POST /review/{request_id}/deny": "sign-in 403 404 303 404 403 404 404 404 404 404",
    "GET /waiting/deny": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "POST /waiting/deny": "sign-in 403 404 403 404 403 404 200 200 403 404",
    "GET /review/deny": "sign-in 403 403 200 403 403 403 403 403 403 403",
    "POST /review/deny": "sign-in 403 404 200 404 403 404 404 404 404 404",
    "GET /mine/cancel": "sign-in 200 200 403 403 403 403 403 403 403 403",
    "POST /mine/cancel": "sign-in 200 404 403 404 403 404 403 403 403 404",
    "GET /operations": "sign-in 403 403 403 200 403 403 403 403 403 403",
    "GET /tenants/{slug}/members": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/members": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "GET /tenants/{slug}/members/{person_id}": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/members/roles": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/members/eligible": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/members/remove": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/members/withdraw": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "GET /tenants/{slug}/tiers": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/tiers": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "GET /tenants/{slug}/pre-approvals": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/pre-approvals": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/pre-approvals/{pre_approval_id}/approve": "sign-in 403 403 403 403 403 403 403 303 403 404",
    "POST /tenants/{slug}/pre-approvals/{pre_approval_id}/revoke": "sign-in 403 403 403 403 403 403 303 303 403 404",
    "GET /tenants/{slug}/delegates": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/delegates": "sign-in 403 403 403 403 403 403 303 303 403 404",
    "POST /tenants/{slug}/delegates/end": "sign-in 403 403 403 403 403 403 303 303 403 404",
    "GET /tenants/{slug}/approver-keys": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "GET /tenants/{slug}/approver-keys/file": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "GET /tenants/{slug}/endpoints": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "POST /tenants/{slug}/endpoints": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "GET /tenants/{slug}/endpoints/{endpoint_id}": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "POST /tenants/{slug}/endpoints/change": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/endpoints/turn": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/endpoints/rotate": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "POST /tenants/{slug}/endpoints/test": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/endpoints/redeliver": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/endpoints/remove": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "GET /tenants/{slug}/observers": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/observers": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/observers/remove": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "GET /tenants/{slug}/gates": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/gates/allow": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/gates/end": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "GET /exclusions": "sign-in 403 403 403 200 200 403 303 303 303 303",
    "POST /exclusions": "sign-in 403 403 403 303 403 403 403 403 403 403",
    "GET /tenants/{slug}/exclusions": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/exclusions": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "GET /tenants/{slug}/data": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/data/retention": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/data/hold": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/data/release": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/data/off-board": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "POST /tenants/{slug}/data/stay": "sign-in 403 403 403 403 403 403 303 403 403 404",
    "GET /data": "sign-in 403 403 403 200 200 403 403 403 403 403",
    "GET /data/{slug}": "sign-in 403 403 403 200 200 403 403 403 403 403",
    "POST /data/{slug}/hold": "sign-in 403 403 403 303 403 403 403 403 403 403",
    "POST /data/{slug}/release": "sign-in 403 403 403 303 403 403 403 403 403 403",
    "GET /access-review": "sign-in 403 403 403 200 200 403 403 403 403 403",
    "GET /access-review/export": "sign-in 403 403 403 200 200 403 403 403 403 403",
    "GET /tenants/{slug}/unapproved-access": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "GET /tenants/{slug}/access-review": "sign-in 403 403 403 403 403 403 200 403 200 404",
    "GET /tenants/{slug}/access-review/export": "sign-in 403 403 403 403 403 403 200 403 200 404",
    "GET /statistics": "sign-in 403 403 403 403 200 403 200 403 200 403",
    "GET /statistics/export": "sign-in 403 403 403 403 200 403 200 403 200 403",
    "GET /audit-log": "sign-in 403 403 403 403 200 403 200 403 200 403",
    "GET /audit-log/export": "sign-in 403 403 403 403 200 403 200 403 200 403",
    "GET /audit-log/checkpoint": "sign-in 403 403 403 403 200 403 200 403 200 403",
    "GET /audit-log/verify": "sign-in 403 403 403 403 200 403 200 403 200 403",
    "POST /audit-log/verify": "sign-in 403 403 403 403 422 403 422 403 422 403",
    "GET /docs": "200 200 200 200 200 200 200 200 200 200 200",
    "GET /docs/problems": "200 200 200 200 200 200 200 200 200 200 200",
    "GET /docs/schemas": "200 200 200 200 200 200 200 200 200 200 200",
    "GET /docs/schemas/{schema}": "200 200 200 200 200 200 200 200 200 200 200",
    "GET /docs/{section}": "200 200 200 200 200 200 200 200 200 200 200",
    "GET /static/{name}": "200 200 200 200 200 200 200 200 200 200 200",
}
# A form of one address may do several things: each has an entry of its own.
SEVERAL = {
    "POST /requests/{request_id}/{action}": ("approve", "deny", "revoke"),
    "POST /mine/{request_id}/{action}": ("cancel", "complete"),
    "POST /review/{request_id}/{action}": ("endorse", "deny"),
}
# What is sent before anybody is signed in has no session to hold a token against.
WITHOUT_SESSION = {
    "POST /sign-in",
    "POST /sign-in/code",
    "POST /sign-in/passkey",
    "POST /sign-in/passkey/answer",
    "POST /invitations/{invitation_id}",
}
# Of requests that the vendor reviews first, at a tenant whose people may leave it: who left has no token any more.
APART = ("POST /review", "POST /tenants/{slug}/leave")
# Whoever sends these stays signed in, and has begun nothing.
KEEPING = ("POST /requests", "POST /mine", "POST /proposals", "POST /tenants")
# No page of ours has these: there is no identity provider, and what is sent there is refused before it is read.
NOWHERE = {"POST /account/identities/new"}
# What is refused leaves a line in the audit log at most: that the vendor was shown the request again, beside the
# refusal.
ONLY_TOLD = {"events"}
# That the audit log was read is in the audit log, and a challenge is kept for whoever asks for one.
WRITING = {"GET /audit-log", "GET /audit-log/export"}
# So is that the vendor read a request on its page.
SHOWING = {"GET /requests/{request_id}", "GET /requests/{request_id}/questions"}
READERS = 2
BACK = """
INSERT INTO memberships (id, person_id, tenant_id, role)
SELECT uuidv7(), :p, :t, :r
WHERE NOT EXISTS (SELECT FROM memberships WHERE person_id = :p AND tenant_id = :t)
"""


def _stage(portal: Portal, elsewhere: Portal) -> Stage:
    """Add Zoe, who approves for another tenant, and seal the audit logs of the tenant and the vendor."""
    portal.world.submit()
    portal.world.add("zoe", Role.APPROVER, elsewhere.world.tenant.id)
    stage = Stage.of(portal)
    _signed_in(stage, "vera").get("/audit-log")
    sealed(portal.worker)
    return stage


@pytest.fixture(scope="module")
def everybody(open_portal: OpenPortal) -> Stage:
    """A world without vendor review."""
    return _stage(open_portal(settings=PATIENT), open_portal())


@pytest.fixture(scope="module")
def apart(open_portal: OpenPortal) -> Stage:
    return _stage(open_portal(Policy(), PATIENT), open_portal())


def test_every_portal_route_has_an_entry_in_the_role_matrix_and_none_in_the_api_document(everybody: Stage) -> None:
    app = everybody.portal.app
    pages = [
        f"{method} {route.path}"
        for route in iter_route_contexts(app.routes)
        if "pages" in (getattr(route, "tags", None) or ())
        for method in route.methods or {"ANY"}
    ]
    entries = [page.replace("{action}", action) for page in pages for action in SEVERAL.get(page, ("",))]

    assert sorted(entries) == sorted(MATRIX)
    assert len(pages) == len(set(pages))
    # The committed description is that of the app: tests/http/test_openapi.py.
    described = json.loads(document.FILE.read_text(encoding="utf-8"))["paths"]
    assert not set(described) & {page.split()[1] for page in pages}


@pytest.fixture(scope="module")
def browsers(everybody: Stage) -> dict[str, Browser]:
    """A browser for each person, to look at pages and to send forms that are refused."""
    return {who: _signed_in(everybody, who) for who in (NOBODY, *WHO)}


@pytest.mark.parametrize("route", [route for route in MATRIX if route.startswith("GET ")])
def test_each_portal_page_answers_each_role_as_the_role_matrix_says(
    everybody: Stage, browsers: dict[str, Browser], route: str
) -> None:
    about = errand(everybody, route, "erin")
    before = everybody.portal.count()

    found = {who: _outcome(browser.call("GET", _path(everybody, route, about))) for who, browser in browsers.items()}

    assert found == _expected(route)
    if route not in WRITING:
        read = READERS if route in SHOWING else 0
        assert everybody.portal.count()._asdict() == before._asdict() | {"events": before.events + read}


@pytest.mark.far
@pytest.mark.parametrize("route", [route for route in MATRIX if route.startswith("POST ")])
def test_each_portal_form_answers_each_role_as_the_role_matrix_says(
    everybody: Stage, apart: Stage, browsers: dict[str, Browser], route: str
) -> None:
    stage = apart if route.startswith(APART) else everybody
    expected = _expected(route)
    refused = [who for who in expected if expected[who] in REFUSED]
    found, written = {}, {}
    about = errand(stage, route, "erin")
    # Who is refused leaves it as it is for the next one; who is not gets another one.
    stays = stage is everybody
    looking = {
        who: browsers[who] if stays and expected[who] in {"403", "404"} else _signed_in(stage, who) for who in refused
    }
    before = stage.portal.count()
    for who, browser in looking.items():
        found[who] = _sent(stage, browser, route, about)

        after = stage.portal.count()
        if more := _more(before, after):
            written[who] = more
        before = after
    for who in [name for name in expected if name not in refused]:
        about = errand(stage, route, who)
        browser = browsers[who] if stays and route.startswith(KEEPING) else _signed_in(stage, who)
        found[who] = _sent(stage, browser, route, about)
        if route.endswith("/leave"):
            _come_back(stage, who)

    assert found == expected
    assert {who: more for who, more in written.items() if set(more) - ONLY_TOLD} == {}


@pytest.mark.far
@pytest.mark.parametrize("route", [route for route in MATRIX if route.startswith("POST ")])
def test_a_permitted_portal_form_needs_its_form_token(everybody: Stage, apart: Stage, route: str) -> None:
    if route in WITHOUT_SESSION | NOWHERE:
        return
    stage = apart if route.startswith(APART) else everybody
    who = next((name for name in WHO if _expected(route)[name] not in REFUSED), "erin")
    about = errand(stage, route, who)
    browser, other = _signed_in(stage, who), _signed_in(stage, who)
    before = stage.portal.count()

    found = [_sent(stage, browser, route, about, token) for token in ("", "x", sessions.csrf(other.session or ""))]

    assert found == ["403", "403", "403"]
    assert not set(_more(before, stage.portal.count())) - ONLY_TOLD


def _expected(route: str) -> dict[str, str]:
    return dict(zip((NOBODY, *WHO), MATRIX[route].split(), strict=True))


def _signed_in(stage: Stage, who: str) -> Browser:
    """Open a browser in which a person has just signed in by the strongest means, so that this causes no refusal."""
    browser = stage.portal.browser()
    if who != NOBODY:
        browser.enter(who, AuthMethod.PASSKEY)
    return browser


def _path(stage: Stage, route: str, about: Errand) -> str:
    ids = ("request_id", "question_id", "invitation_id", "endpoint_id", "pre_approval_id", "person_id")
    known: dict[str, object] = {name: new_id() for name in ids}
    known |= {
        "slug": stage.slug,
        "service": "no-gate",
        "number": 0,
        "name": "portal.css",
        "schema": "Problem",
        "section": "requests",
    } | {**about.ids}
    return route.split()[1].format(**known)


def _sent(stage: Stage, browser: Browser, route: str, about: Errand, token: str | None = None) -> str:
    """Send a form with the token of its session, or with another one; return what came of it."""
    token = sessions.csrf(browser.session or "") if token is None else token
    fields = about.fields if route in WITHOUT_SESSION else {**about.fields, "csrf": token}
    return _outcome(browser.send(_path(stage, route, about), fields))


def _outcome(answer: Response) -> str:
    if answer.is_redirect and answer.headers["location"].startswith("/sign-in"):
        return SIGN_IN
    return str(answer.status_code)


def _more(before: Any, after: Any) -> dict[str, int]:
    return {
        name: count - before[place]
        for place, (name, count) in enumerate(after._asdict().items())
        if count != before[place]
    }


def _come_back(stage: Stage, who: str) -> None:
    """Give a person who has left the tenant their role again."""
    world = stage.portal.world
    role = {"tara": Role.TENANT_ADMIN, "ann": Role.APPROVER, "aude": Role.AUDITOR}.get(who)
    if role:
        stage.portal.sql(BACK, p=world.people[who].person_id, t=world.tenant.id, r=role.value)
