"""Every route has an entry here: who may call it, and how. A new route without one fails."""

import json
from typing import Any
from uuid import UUID

import pytest
from fastapi.routing import iter_route_contexts

from api import document
from api.app import make_app, make_database
from config.settings import Settings
from lockbox.database import Database
from lockbox.identity.roles import Role
from tests.http.audit_logs import one_event
from tests.http.door import BACK, Door, OpenDoor, facts
from tests.http.places import place_of
from tests.http.places import question as question_about
from tests.http.tokens import made
from tests.logs import sealed
from tests.policy_setup import stand_in

NOWHERE = Settings(environment="test", database_url="postgresql://nobody@localhost/x", redis_url="redis://localhost")
APP = make_app(NOWHERE, make_database(NOWHERE))
DESCRIBED = json.loads(document.FILE.read_text(encoding="utf-8"))
ROUTES = sorted(
    f"{method} {route.path}"
    for route in iter_route_contexts(APP.routes)
    if "pages" not in (getattr(route, "tags", None) or ())  # they have a matrix of their own: test_portal_routes
    for method in route.methods or {"ANY"}
    if method != "HEAD"
)

NO_TOKENS = "UPDATE tokens SET revoked_at = now() WHERE revoked_at IS NULL AND NOT is_sample AND person_id = :p"
WITHOUT_TOKEN = {
    "GET /livez": 200,
    "GET /readyz": 200,
    "GET /metrics": 403,
    "GET /openapi.json": 200,
    "GET /.well-known/lockbox-audit-keys": 200,
    "GET /.well-known/authzen-configuration": 200,
    "POST /v1/device-logins": 201,
    "POST /v1/device-logins/state": 422,
}
WHO = ("erin", "eve", "max", "olga", "vera", "gate", "tara", "ann", "aude", "zoe", "dora")
# what each gets at best: of a request by Erin that waits for Ann's tenant, and of a window that is open for Erin
MATRIX = {
    "POST /v1/requests": "201 201 403 403 403 403 403 403 403 403 403",
    "POST /v1/requests/preview": "200 200 403 403 403 403 403 403 403 403 403",
    "POST /v1/requests/decisions": "200 200 200 200 200 200 200 200 200 200 200",
    "GET /v1/requests": "200 200 200 200 200 200 200 200 200 200 200",
    "GET /v1/requests/{request_id}": "200 404 200 404 200 404 200 200 200 404 200",
    "GET /v1/requests/{request_id}/events": "200 404 200 404 200 404 200 200 200 404 200",
    "POST /v1/requests/{request_id}/ask-again": "409 404 403 404 403 404 403 403 403 404 403",
    "POST /v1/requests/{request_id}/extend": "409 404 403 404 403 404 403 403 403 404 403",
    "GET /v1/requests/{request_id}/notifications": "200 404 200 404 200 404 200 200 200 404 200",
    "POST /v1/requests/{request_id}/approve": "403 404 403 404 403 404 403 200 403 404 200",
    "POST /v1/requests/{request_id}/approve/challenge": "403 404 403 404 403 404 403 403 403 404 403",
    "POST /v1/requests/{request_id}/endorse": "403 404 409 404 403 404 403 403 403 404 403",
    "POST /v1/requests/{request_id}/break-glass": "403 404 409 404 403 404 403 403 403 404 403",
    "GET /v1/findings": "200 200 200 200 200 200 200 200 200 200 200",
    "POST /v1/requests/{request_id}/finding": "403 404 403 404 403 404 409 409 403 404 409",
    "POST /v1/requests/{request_id}/deny": "403 404 403 404 403 404 200 200 403 404 200",
    "POST /v1/requests/{request_id}/cancel": "200 404 403 404 403 404 403 403 403 404 403",
    "POST /v1/requests/{request_id}/revoke": "403 404 409 404 403 404 409 409 403 404 409",
    "POST /v1/requests/{request_id}/complete": "409 404 403 404 403 404 403 403 403 404 403",
    "POST /v1/cases/{case_system}/{case_ref}/closed": "403 403 403 403 403 403 403 403 403 403 403",
    "POST /v1/requests/{request_id}/activity": "403 404 403 404 403 403 403 403 403 404 403",
    "GET /v1/requests/{request_id}/activity": "200 404 200 404 200 404 200 200 200 404 200",
    "POST /v1/requests/{request_id}/credential": "403 404 403 404 403 404 403 403 403 404 403",
    "GET /v1/requests/{request_id}/connections": "200 404 200 404 200 404 200 200 200 404 200",
    "POST /v1/requests/{request_id}/questions": "403 404 403 404 403 404 403 201 403 404 201",
    "GET /v1/requests/{request_id}/questions": "200 404 200 404 200 404 200 200 200 404 200",
    "POST /v1/requests/{request_id}/questions/{question_id}/answer": "200 404 403 404 403 404 403 403 403 404 403",
    "POST /access/v1/evaluation": "401 401 401 401 401 401 401 401 401 401 401",
    "POST /access/v1/evaluations": "401 401 401 401 401 401 401 401 401 401 401",
    "GET /v1/access": "200 403 403 403 403 200 403 403 403 403 403",
    "POST /v1/tenants": "403 403 403 201 403 403 403 403 403 403 403",
    "GET /v1/tenants": "200 200 200 200 200 200 200 200 200 200 200",
    "GET /v1/tenants/{slug}": "200 200 200 200 200 404 200 200 200 404 200",
    "POST /v1/tenants/{slug}/suspend": "403 403 403 200 403 403 403 403 403 404 403",
    "POST /v1/tenants/{slug}/resume": "403 403 403 200 403 403 403 403 403 404 403",
    "PUT /v1/tenants/{slug}/plan": "403 403 403 200 403 403 403 403 403 404 403",
    "PUT /v1/tenants/{slug}/mode": "403 403 403 403 403 403 200 403 403 404 403",
    "PUT /v1/tenants/{slug}/name": "403 403 403 403 403 403 200 403 403 404 403",
    "POST /v1/tenants/{slug}/emergency-stop": "403 403 403 403 403 403 200 403 403 404 403",
    "DELETE /v1/tenants/{slug}/emergency-stop": "403 403 403 403 403 403 204 403 403 404 403",
    "GET /v1/tenants/{slug}/policy": "403 403 403 403 403 403 200 200 200 404 200",
    "PUT /v1/tenants/{slug}/policy": "403 403 403 403 403 403 200 403 403 404 403",
    "GET /v1/tenants/{slug}/policy/versions": "403 403 403 403 403 403 200 200 200 404 200",
    "GET /v1/tenants/{slug}/approver-keys": "403 403 403 403 403 403 403 403 403 404 403",
    "GET /v1/tenants/{slug}/members": "403 403 403 403 403 403 200 200 200 404 200",
    "POST /v1/tenants/{slug}/members": "403 403 403 403 403 403 201 403 403 404 403",
    "GET /v1/tenants/{slug}/members/{person_id}": "403 403 403 403 403 403 200 200 200 404 200",
    "PUT /v1/tenants/{slug}/members/{person_id}": "403 403 403 403 403 403 200 403 403 404 403",
    "DELETE /v1/tenants/{slug}/members/{person_id}": "403 403 403 403 403 403 204 403 403 404 403",
    "POST /v1/tenants/{slug}/leave": "403 403 403 403 403 403 403 204 204 404 204",
    "GET /v1/tenants/{slug}/invitations": "403 403 403 403 403 403 200 200 200 404 200",
    "DELETE /v1/tenants/{slug}/invitations/{invitation_id}": "403 403 403 403 403 403 204 403 403 404 403",
    "GET /v1/tenants/{slug}/delegations": "403 403 403 403 403 403 200 200 200 404 200",
    "POST /v1/tenants/{slug}/delegations": "403 403 403 403 403 403 201 201 403 404 403",
    "DELETE /v1/tenants/{slug}/delegations/{delegation_id}": "403 403 403 403 403 403 204 204 403 404 403",
    "GET /v1/tenants/{slug}/pre-approvals": "403 403 403 403 403 403 200 200 200 404 200",
    "POST /v1/tenants/{slug}/pre-approvals": "403 403 403 403 403 403 201 403 403 404 403",
    "GET /v1/tenants/{slug}/pre-approvals/{pre_approval_id}": "403 403 403 403 403 403 200 200 200 404 200",
    "POST /v1/tenants/{slug}/pre-approvals/{pre_approval_id}/approve": "403 403 403 403 403 403 403 200 403 404 200",
    "POST /v1/tenants/{slug}/pre-approvals/{pre_approval_id}/revoke": "403 403 403 403 403 403 200 200 403 404 200",
    "POST /v1/tenants/{slug}/recovery": "403 403 403 201 403 403 403 403 403 404 403",
    "DELETE /v1/tenants/{slug}/recovery/{invitation_id}": "403 403 403 204 403 403 403 403 403 404 403",
    "POST /v1/tenants/{slug}/recovery/{invitation_id}/object": "403 403 403 403 403 403 204 204 403 404 403",
    "GET /v1/tenants/{slug}/endpoints": "403 403 403 403 403 403 200 403 403 404 403",
    "POST /v1/tenants/{slug}/endpoints": "403 403 403 403 403 403 201 403 403 404 403",
    "GET /v1/vendor/endpoints": "403 403 403 200 403 403 403 403 403 403 403",
    "POST /v1/vendor/endpoints": "403 403 403 201 403 403 403 403 403 403 403",
    "GET /v1/tenants/{slug}/observers": "403 403 403 403 403 403 200 200 200 404 200",
    "POST /v1/tenants/{slug}/observers": "403 403 403 403 403 403 201 403 403 404 403",
    "DELETE /v1/tenants/{slug}/observers/{observer_id}": "403 403 403 403 403 403 204 403 403 404 403",
    "POST /v1/tenants/{slug}/preview": "403 403 403 403 403 403 200 200 200 404 200",
    "GET /v1/endpoints/{endpoint_id}": "404 404 404 404 404 404 200 403 403 404 403",
    "PATCH /v1/endpoints/{endpoint_id}": "404 404 404 404 404 404 200 403 403 404 403",
    "DELETE /v1/endpoints/{endpoint_id}": "404 404 404 404 404 404 204 403 403 404 403",
    "POST /v1/endpoints/{endpoint_id}/rotate": "404 404 404 404 404 404 200 403 403 404 403",
    "POST /v1/endpoints/{endpoint_id}/test": "404 404 404 404 404 404 202 403 403 404 403",
    "GET /v1/endpoints/{endpoint_id}/deliveries": "404 404 404 404 404 404 200 403 403 404 403",
    "POST /v1/deliveries/{delivery_id}/redeliver": "404 404 404 404 404 404 202 403 403 404 403",
    "POST /v1/tenants/{slug}/gate-probes": "403 403 403 201 403 403 403 403 403 404 403",
    "GET /v1/tenants/{slug}/gate-probes": "403 403 403 403 403 403 200 200 200 404 200",
    "POST /v1/tenants/{slug}/outside-access": "403 403 403 201 403 403 403 403 403 404 403",
    "GET /v1/tenants/{slug}/outside-access": "403 403 403 403 403 403 200 200 200 404 200",
    "GET /v1/gate/identities": "403 403 403 200 200 403 403 403 403 403 403",
    "POST /v1/gate/identities": "403 403 403 201 403 403 403 403 403 403 403",
    "DELETE /v1/gate/identities/{identity_id}": "403 403 403 204 403 403 403 403 403 403 403",
    "GET /v1/gate/enforcement": "403 403 403 200 200 403 403 403 403 403 403",
    "GET /v1/gate/enforcement/{service}/report": "403 403 403 200 200 403 403 403 403 403 403",
    "GET /v1/tenants/{slug}/gates": "403 403 403 403 403 403 200 200 200 404 200",
    "PUT /v1/tenants/{slug}/gates/{service}/report": "403 403 403 403 403 403 200 403 403 404 403",
    "DELETE /v1/tenants/{slug}/gates/{service}/report": "403 403 403 403 403 403 204 403 403 404 403",
    "GET /v1/exclusions": "200 200 200 200 200 200 200 200 200 200 200",
    "PUT /v1/exclusions": "403 403 403 200 403 403 403 403 403 403 403",
    "GET /v1/exclusions/versions": "200 200 200 200 200 200 200 200 200 200 200",
    "GET /v1/exclusions/acknowledgements": "403 403 403 200 200 403 403 403 403 403 403",
    "GET /v1/tenants/{slug}/exclusions": "403 403 403 403 403 403 200 200 200 404 200",
    "PUT /v1/tenants/{slug}/exclusions": "403 403 403 403 403 403 200 403 403 404 403",
    "GET /v1/tenants/{slug}/data": "403 403 403 200 200 403 200 200 200 404 200",
    "PUT /v1/tenants/{slug}/retention": "403 403 403 403 403 403 200 403 403 404 403",
    "PUT /v1/tenants/{slug}/hold": "403 403 403 200 403 403 200 403 403 404 403",
    "DELETE /v1/tenants/{slug}/hold": "403 403 403 204 403 403 204 403 403 404 403",
    "PUT /v1/tenants/{slug}/off-boarding": "403 403 403 403 403 403 200 403 403 404 403",
    "DELETE /v1/tenants/{slug}/off-boarding": "403 403 403 403 403 403 204 403 403 404 403",
    "GET /v1/tenants/{slug}/unapproved-access": "403 403 403 403 403 403 200 200 200 404 200",
    "GET /v1/tenants/{slug}/access-review": "403 403 403 403 403 403 200 403 200 404 200",
    "GET /v1/tenants/{slug}/access-review/export": "403 403 403 403 403 403 200 403 200 404 200",
    "GET /v1/vendor/data": "403 403 403 200 200 403 403 403 403 403 403",
    "GET /v1/vendor/access-review": "403 403 403 200 200 403 403 403 403 403 403",
    "GET /v1/vendor/access-review/export": "403 403 403 200 200 403 403 403 403 403 403",
    "GET /v1/vendor/members": "403 403 403 200 200 403 403 403 403 403 403",
    "POST /v1/vendor/members": "403 403 403 201 403 403 403 403 403 403 403",
    "GET /v1/vendor/members/{person_id}": "403 403 403 200 200 403 403 403 403 403 403",
    "PUT /v1/vendor/members/{person_id}": "403 403 403 200 403 403 403 403 403 403 403",
    "GET /v1/vendor/members/{person_id}/directory": "403 403 403 200 200 403 403 403 403 403 403",
    "PUT /v1/vendor/members/{person_id}/directory": "403 403 403 403 403 403 403 403 403 403 403",
    "DELETE /v1/vendor/members/{person_id}": "403 403 403 204 403 403 403 403 403 403 403",
    "POST /v1/vendor/members/{person_id}/disable": "403 403 403 200 403 403 403 403 403 403 403",
    "GET /v1/vendor/undelivered": "403 403 403 200 403 403 403 403 403 403 403",
    "GET /v1/vendor/invitations": "403 403 403 200 403 403 403 403 403 403 403",
    "DELETE /v1/vendor/invitations/{invitation_id}": "403 403 403 204 403 403 403 403 403 403 403",
    "GET /v1/events": "403 403 403 403 200 403 200 403 200 404 200",
    "GET /v1/statistics": "403 403 403 403 200 403 200 403 200 200 200",
    "GET /v1/statistics/export": "403 403 403 403 200 403 200 403 200 200 200",
    "GET /v1/audit": "403 403 403 403 200 403 200 403 200 404 200",
    "GET /v1/audit/export": "403 403 403 403 200 403 200 403 200 404 200",
    "GET /v1/audit/checkpoint": "403 403 403 403 200 403 200 403 200 404 200",
    "GET /v1/audit/proof/inclusion": "403 403 403 403 200 403 200 403 200 404 200",
    "GET /v1/audit/proof/consistency": "403 403 403 403 200 403 200 403 200 404 200",
    "GET /v1/audit/report": "403 404 403 404 200 404 200 403 200 404 200",
    "GET /v1/me": "200 200 200 200 200 200 200 200 200 200 200",
    "PATCH /v1/me": "200 200 200 200 200 200 200 200 200 200 200",
    "GET /v1/me/addresses": "200 200 200 200 200 200 200 200 200 200 200",
    "POST /v1/me/addresses": "201 201 201 201 201 201 201 201 201 201 201",
    "POST /v1/me/addresses/{address_id}/confirm": "404 404 404 404 404 404 404 422 404 404 404",
    "PATCH /v1/me/addresses/{address_id}": "404 404 404 404 404 404 404 200 404 404 404",
    "DELETE /v1/me/addresses/{address_id}": "404 404 404 404 404 404 404 204 404 404 404",
    "GET /v1/tokens": "200 200 200 200 200 200 200 200 200 200 200",
    "POST /v1/tokens": "201 201 201 201 201 201 201 201 201 201 201",
    "POST /v1/tokens/{token_id}/rotate": "404 404 404 404 404 404 404 201 404 404 404",
    "DELETE /v1/tokens/{token_id}": "404 404 404 404 404 404 404 204 404 404 404",
}

CHANGING = ("/v1/tenants", "/v1/vendor", "/v1/tokens/", "/v1/endpoints", "/v1/deliveries", "/v1/me/addresses")


class Anything(dict[str, object]):
    """Values for any parameter of a path: an unknown id, which is an unknown name too."""

    def __missing__(self, key: str) -> str:
        return {"action": "deny"}.get(key, str(UUID(int=1)))


@pytest.fixture(scope="module")
def everybody(open_door: OpenDoor, worker: Database) -> Door:
    """A world with an open window, whose audit log is sealed, and people of other kinds."""
    door = open_door()
    _others(door, open_door())
    door.active()
    sealed(worker)
    return door


@pytest.fixture(scope="module")
def changing(open_door: OpenDoor) -> Door:
    """Another such world, whose tenant and people the calls change."""
    door = open_door()
    _others(door, open_door())
    return door


def _others(door: Door, elsewhere: Door) -> None:
    """Add Zoe, who has every role that another tenant can give, and Dora, an auditor who is Ann's delegate."""
    door.add_outsider(elsewhere)
    door.world.add("dora", Role.AUDITOR, door.world.tenant.id)
    stand_in(door.world, "dora", "ann")


def _come_back(door: Door, who: str) -> None:
    """Give a person who has left the tenant their role again."""
    role = Role.APPROVER if who == "ann" else Role.AUDITOR
    door.run_sql(BACK, p=door.world.people[who].person_id, t=door.world.tenant.id, r=role.value)
    if who in {"ann", "dora"}:
        stand_in(door.world, "dora", "ann")


def test_every_api_route_has_an_entry_in_the_role_matrix() -> None:
    assert set(ROUTES) == MATRIX.keys() | WITHOUT_TOKEN.keys()
    assert len(ROUTES) == len(set(ROUTES))


def test_the_api_document_describes_every_route_and_nothing_else() -> None:
    described = {f"{method.upper()} {path}" for path, methods in DESCRIBED["paths"].items() for method in methods}

    assert described == set(ROUTES) - {"GET /openapi.json"}


def test_every_api_route_needs_a_token_unless_listed_as_a_route_without_token(door: Door) -> None:
    before, found = door.rows(), {}

    for route in ROUTES:
        method, path = route.split()
        answer = door.call(None, method, path.format_map(Anything()))
        found[route] = answer.status_code
        if route not in WITHOUT_TOKEN:
            facts(answer, 401, "invalid-token")
            assert answer.headers["www-authenticate"] == "Bearer", route

    assert found == {route: WITHOUT_TOKEN.get(route, 401) for route in ROUTES}
    assert door.rows() == before


@pytest.mark.parametrize("route", MATRIX)
def test_each_api_route_answers_each_role_as_the_role_matrix_says(
    everybody: Door, changing: Door, route: str
) -> None:
    expected = dict(zip(WHO, MATRIX[route].split(), strict=True))
    refused = [who for who in WHO if expected[who] >= "400"]
    door = changing if route.split()[1].startswith(CHANGING) else everybody

    # Who is refused leaves it as it is for the next one; who is not gets another one.
    call = _call(everybody, door, route) if refused else {}
    before = door.rows()
    found = {who: _called(door, route, who, call) for who in refused}
    assert door.rows() == before
    found |= {who: _called(door, route, who, _call(everybody, door, route)) for who in WHO if who not in refused}

    assert found == expected


def _call(everybody: Door, door: Door, route: str) -> dict[str, Any]:
    """Return how to call a route, with rows of its own and a good body."""
    _, path = route.split()
    world = door.world
    question = {
        "tenant": world.tenant.slug,
        "service": "exchange-online",
        "resource": "mailbox:anna@contoso.example",
        "action": "read",
        "engineer": str(world.people["erin"].person_id),
    }
    parts = {
        "POST /v1/requests": {"json": world.body()},
        "POST /v1/requests/preview": {"json": world.body()},
        "POST /v1/requests/decisions": {"json": {"action": "endorse", "requests": [{"id": str(UUID(int=1))}]}},
        "POST /v1/requests/{request_id}/deny": {"json": {"comment": "No"}},
        "POST /v1/requests/{request_id}/extend": {"json": {"access_window": 3600}},
        "POST /v1/tokens": {"json": {"name": "laptop"}},
        "PATCH /v1/me": {"json": {"time_zone": "Europe/Berlin"}},
        "GET /v1/access": {"params": question},
    }.get(route, {})
    if path == "/v1/events":
        parts = {"params": {"tenant": world.tenant.slug}}
    if path.startswith("/v1/audit"):
        asked: dict[str, dict[str, Any]] = {"inclusion": {"event": one_event(everybody)}, "consistency": {"from": 1}}
        whose: dict[str, Any] = {"tenant": world.tenant.slug}
        query = {"request": everybody.pending()} if "report" in path else whose | asked.get(path.split("/")[-1], {})
        parts = {"params": query}
    place = place_of(door, route)
    body: dict[str, Any] = {"json": place.body, "headers": place.headers} if place.body else {}
    named: dict[str, Any] = {"slug": world.tenant.slug, **place.ids}
    if "{request_id}" in path:
        named["request_id"] = everybody.pending()
    if "{question_id}" in path:
        named["question_id"] = question_about(everybody, str(named["request_id"]))
    if "{token_id}" in path:
        door.run_sql(NO_TOKENS, p=world.people["ann"].person_id)
        named["token_id"] = made(door, "ann")["id"]
    return {"path": path.format_map(Anything(named)), **parts, **body}


def _called(door: Door, route: str, who: str, call: dict[str, Any]) -> str:
    """Call a route as a person; return the status."""
    method, path = route.split()
    answer = door.call(who, method, **call)
    if path.endswith("/leave") and answer.status_code == 204:
        _come_back(door, who)
    if answer.status_code >= 400:
        facts(answer, answer.status_code, answer.json()["code"])
    return str(answer.status_code)


def test_no_api_route_is_reached_with_an_extra_slash_or_from_another_site(everybody: Door) -> None:
    slashes, foreign = {}, {}

    for route in MATRIX:
        method, path = route.split()
        path = path.format_map(Anything())
        slashes[route] = everybody.call("max", method, path + "/").json()["code"]
        answer = everybody.call("max", method, path, headers={"origin": "https://evil.example"})
        foreign[route] = [name for name in answer.headers if name.startswith("access-control-")]

    assert slashes == dict.fromkeys(MATRIX, "not-found")
    assert foreign == {route: [] for route in MATRIX}


def test_every_api_route_lists_its_problems() -> None:
    described = DESCRIBED
    for route in MATRIX:
        method, path = route.split()
        operation = described["paths"][path][method.lower()]

        problems = {status for status in operation["responses"] if int(status) >= 400}

        assert {"400", "401", "403", "405", "422", "429", "503"} <= problems, route
        assert operation["security"] == [{"bearer": []}], route
        for status in problems:
            assert operation["responses"][status] == {"$ref": f"#/components/responses/Problem{status}"}, route
            content = described["components"]["responses"][f"Problem{status}"]["content"]["application/problem+json"]
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}, route
