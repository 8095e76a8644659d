"""Every route has an entry here: who may call it, and how. A new route without one fails."""

from uuid import UUID

import pytest
from fastapi.routing import iter_route_contexts

from api.app import make_app, make_database
from config.settings import Settings
from lockbox.people.roles import Role
from tests.http.door import Door, OpenDoor, facts

NOWHERE = Settings(environment="test", database_url="postgresql://nobody@localhost/x", redis_url="redis://localhost")
APP = make_app(NOWHERE, make_database(NOWHERE))
ROUTES = sorted(
    f"{method} {route.path}"
    for route in iter_route_contexts(APP.routes)
    for method in route.methods or {"ANY"}
    if method != "HEAD"
)

WITHOUT_TOKEN = {"GET /livez", "GET /readyz", "GET /openapi.json"}
WHO = ("erin", "eve", "max", "olga", "vera", "gate", "tara", "ann", "aude", "zoe")
# what each gets at best: of a request by Erin that waits for Ann's tenant, and of a window that is open for Erin
MATRIX = {
    "POST /v1/requests": "201 201 403 403 403 403 403 403 403 403",
    "GET /v1/requests": "200 200 200 200 200 200 200 200 200 200",
    "GET /v1/requests/{request_id}": "200 404 200 404 200 404 200 200 200 404",
    "GET /v1/requests/{request_id}/events": "200 404 200 404 200 404 200 200 200 404",
    "POST /v1/requests/{request_id}/approve": "403 404 403 404 403 404 403 200 403 404",
    "POST /v1/requests/{request_id}/{action}": "403 404 403 404 403 404 403 200 403 404",
    "GET /v1/access": "200 403 403 403 403 200 403 403 403 403",
}


@pytest.fixture(scope="module")
def everybody(open_door: OpenDoor) -> Door:
    """A world with an open window, and Zoe, who approves for another tenant."""
    door = open_door()
    door.world.add("zoe", Role.APPROVER, open_door().world.tenant.id)
    door.active()
    return door


def test_every_route_has_an_entry() -> None:
    assert set(ROUTES) == MATRIX.keys() | WITHOUT_TOKEN
    assert len(ROUTES) == len(set(ROUTES))


def test_every_route_is_described_and_nothing_else_is() -> None:
    described = {f"{method.upper()} {path}" for path, methods in APP.openapi()["paths"].items() for method in methods}

    assert described == set(ROUTES) - {"GET /openapi.json"}


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_is_for_nobody_without_a_token_unless_it_says_so(door: Door, route: str) -> None:
    method, path = route.split()
    before = door.rows()

    answer = door.call(None, method, path.format(request_id=UUID(int=1), action="deny"))

    if route in WITHOUT_TOKEN:
        assert answer.status_code == 200
    else:
        facts(answer, 401, "invalid-token")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert door.rows() == before


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("route", MATRIX)
def test_a_route_answers_each_role_as_the_matrix_says(everybody: Door, route: str, who: str) -> None:
    method, path = route.split()
    expected = dict(zip(WHO, MATRIX[route].split(), strict=True))[who]
    world = everybody.world
    question = {
        "tenant": world.tenant.slug,
        "service": "exchange-online",
        "resource": "mailbox:anna@contoso.example",
        "action": "read",
        "engineer": str(world.people["erin"].person_id),
    }
    parts = {"POST /v1/requests": {"json": world.body()}, "GET /v1/access": {"params": question}}.get(route, {})

    answer = everybody.call(who, method, path.format(request_id=everybody.pending(), action="deny"), **parts)

    assert str(answer.status_code) == expected, answer.text
    if answer.status_code >= 400:
        facts(answer, answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("route", sorted(MATRIX))
def test_no_route_is_reached_by_a_slash_more_or_from_another_site(everybody: Door, route: str) -> None:
    method, path = route.split()
    path = path.format(request_id=UUID(int=1), action="deny")

    slash = everybody.call("max", method, path + "/")
    foreign = everybody.call("max", method, path, headers={"origin": "https://evil.example"})

    facts(slash, 404, "not-found")
    assert not [name for name in foreign.headers if name.startswith("access-control-")]


@pytest.mark.parametrize("route", sorted(MATRIX))
def test_every_route_says_which_problems_it_may_answer_with(route: str) -> None:
    method, path = route.split()
    responses = APP.openapi()["paths"][path][method.lower()]["responses"]

    problems = {status for status in responses if int(status) >= 400}

    assert {"401", "403", "422", "503"} <= problems
    for status in problems:
        content = responses[status]["content"]["application/problem+json"]
        assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
