"""Every page has an entry here: what nobody gets, and what each role does. A new page without one fails."""

import pytest
from fastapi.routing import iter_route_contexts

from lockbox.ids import new_id
from lockbox.people.roles import Role
from tests.http.portal import OpenPortal, Portal
from tests.logs import sealed

WHO = ("erin", "eve", "max", "olga", "vera", "gate", "tara", "ann", "aude", "zoe")
SIGN_IN = "sign-in"
# Of a request by Erin that waits for Ann's tenant: first what nobody gets, then what each of WHO does. A form is sent
# from a page of ours, without the token of a session: what is 403 for somebody signed in would be done with it.
MATRIX = {
    "GET /sign-in": "200 200 200 200 200 200 200 200 200 200 200",
    "POST /sign-in": "422 422 422 422 422 422 422 422 422 422 422",
    "GET /sign-in/code": "sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in sign-in",
    "POST /sign-in/code": "401 401 401 401 401 401 401 401 401 401 401",
    "POST /sign-in/passkey": "200 200 200 200 200 200 200 200 200 200 200",
    "POST /sign-in/passkey/answer": "401 401 401 401 401 401 401 401 401 401 401",
    "GET /sign-in/oidc/callback": "401 401 401 401 401 401 401 401 401 401 401",
    "GET /sign-in/oidc/{number}": "404 404 404 404 404 404 404 404 404 404 404",
    "POST /sign-out": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /waiting": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /open": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /requests.csv": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /requests": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /requests/{request_id}": "sign-in 200 404 200 404 200 404 200 200 200 404",
    "POST /requests/{request_id}/ask-again": "sign-in 403 404 403 404 403 404 403 403 403 404",
    "POST /requests/{request_id}/look": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /requests/{request_id}/{action}": "sign-in 403 404 403 404 403 404 403 403 403 404",
    "GET /account": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "POST /account/sessions/end": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/passkeys/new": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/passkeys": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/passkeys/remove": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/tokens/new": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/tokens/revoke": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/preferences": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/preferences/prompts": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/addresses": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/addresses/confirm": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/addresses/prompts": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/addresses/remove": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /account/identities/new": "404 404 404 404 404 404 404 404 404 404 404",
    "POST /account/identities/remove": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /proposals": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "POST /proposals/object": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /invitations/{invitation_id}": "200 200 200 200 200 200 200 200 200 200 200",
    "POST /invitations/{invitation_id}": "403 403 403 403 403 403 403 403 403 403 403",
    "GET /terminal": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "POST /terminal": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /terminal/answer": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /tenants": "sign-in 200 200 200 200 200 200 200 200 200 200",
    "GET /tenants/{slug}": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/name": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /tenants/{slug}/shut": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "POST /tenants/{slug}/shut": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/leave": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /tenants/{slug}/mode": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/mode": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/mode/save": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/mode/consent": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /tenants/{slug}/policy": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/policy": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/policy/terms": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/policy/save": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /live": "401 422 422 422 422 422 422 422 422 422 422",
    "GET /requests/{request_id}/questions": "sign-in 200 404 200 404 200 404 200 200 200 404",
    "POST /requests/{request_id}/questions": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /requests/{request_id}/questions/{question_id}/answer": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /ask": "sign-in 200 200 403 403 403 403 403 403 403 403",
    "POST /ask/preview": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /ask": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /mine": "sign-in 200 200 403 403 403 403 403 403 403 403",
    "POST /mine/{request_id}/{action}": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /review": "sign-in 403 403 200 403 403 403 403 403 403 403",
    "POST /review/{request_id}/{action}": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /operations": "sign-in 403 403 403 200 403 403 403 403 403 403",
    "GET /tenants/{slug}/members": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/members": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/members/roles": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/members/eligible": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/members/remove": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/members/withdraw": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /tenants/{slug}/tiers": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/tiers": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /tenants/{slug}/deputies": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/deputies": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/deputies/end": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /tenants/{slug}/approver-keys": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "GET /tenants/{slug}/approver-keys/file": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "GET /tenants/{slug}/endpoints": "sign-in 403 403 403 403 403 403 200 403 403 404",
    "POST /tenants/{slug}/endpoints": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /tenants/{slug}/endpoints/{endpoint_id}": "sign-in 403 403 403 403 403 403 404 403 403 404",
    "POST /tenants/{slug}/endpoints/change": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/endpoints/turn": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/endpoints/rotate": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/endpoints/test": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/endpoints/redeliver": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/endpoints/remove": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /tenants/{slug}/watchers": "sign-in 403 403 403 403 403 403 200 200 200 404",
    "POST /tenants/{slug}/watchers": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "POST /tenants/{slug}/watchers/remove": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /trail": "sign-in 403 403 403 403 200 403 200 403 200 403",
    "GET /trail/export": "sign-in 403 403 403 403 200 403 200 403 200 403",
    "GET /trail/checkpoint": "sign-in 403 403 403 403 200 403 200 403 200 403",
    "GET /trail/verify": "sign-in 403 403 403 403 200 403 200 403 200 403",
    "POST /trail/verify": "sign-in 403 403 403 403 403 403 403 403 403 403",
    "GET /static/{name}": "200 200 200 200 200 200 200 200 200 200 200",
}
BEGINNING = {"POST /sign-in/passkey"}
# That the trail was read is in the trail.
READING = {"GET /trail", "GET /trail/export"}
# So is that the vendor read a request, its page or what this answers with where a form was refused.
SHOWING = {
    "GET /requests/{request_id}",
    "GET /requests/{request_id}/questions",
    "POST /requests/{request_id}/ask-again",
    "POST /requests/{request_id}/{action}",
}


@pytest.fixture(scope="module")
def everybody(open_portal: OpenPortal) -> Portal:
    """A world, and Zoe, who approves for another tenant."""
    portal = open_portal()
    portal.world.submit()
    portal.world.add("zoe", Role.APPROVER, open_portal().world.tenant.id)
    reader = portal.browser()
    reader.enter("vera")
    reader.get("/trail")
    sealed(portal.worker)
    return portal


def test_every_page_has_an_entry_and_is_no_part_of_the_api(everybody: Portal) -> None:
    pages = [
        f"{method} {route.path}"
        for route in iter_route_contexts(everybody.app.routes)
        if "pages" in (getattr(route, "tags", None) or ())
        for method in route.methods or {"ANY"}
    ]

    assert sorted(pages) == sorted(MATRIX)
    assert not set(everybody.app.openapi()["paths"]) & {page.split()[1] for page in pages}


@pytest.mark.parametrize("who", [None, *WHO])
@pytest.mark.parametrize("route", MATRIX)
def test_a_page_answers_each_role_as_the_matrix_says(everybody: Portal, route: str, who: str | None) -> None:
    method, path = route.split()
    expected = dict(zip((None, *WHO), MATRIX[route].split(), strict=True))[who]
    browser = everybody.browser()
    if who:
        browser.enter(who)
    path = path.format(
        request_id=everybody.world.submit().id if "{request_id}" in path else None,
        action={"mine": "cancel", "review": "deny"}.get(path.split("/")[1], "approve"),
        number=0,
        question_id=new_id(),
        invitation_id=new_id(),
        slug=everybody.world.tenant.slug,
        endpoint_id=new_id(),
        name="portal.css",
    )
    fields = {
        "version": "1",
        "id": str(new_id()),
        "delivery": str(new_id()),
        "number": "0",
        "issuer": "x",
        "subject": "x",
        "slug": "x",
        "said": "allow",
        "key": "k" * 22,
    }
    before = everybody.count()

    page = browser.post(path, everybody.filled(path, fields)) if method == "POST" else browser.get(path)

    if expected == SIGN_IN:
        assert (page.status, page.path) == (200, "/sign-in")
    else:
        assert (str(page.status), page.answer.request.method) == (expected, method)
    if route not in BEGINNING | READING:
        read = int(route in SHOWING and who in {"max", "vera"})
        assert everybody.count()._asdict() == before._asdict() | {"events": before.events + read}
