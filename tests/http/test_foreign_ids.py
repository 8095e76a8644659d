"""Ids of other people's requests and tokens, on every route that takes one: the usual 404, and nothing changes."""

from collections.abc import Mapping
from uuid import UUID

import pytest
from fastapi.routing import iter_route_contexts

from api.app import make_app, make_database
from config.settings import Settings
from connectors.scram import verifier_of
from tests.each import each
from tests.http.door import Door, OpenDoor, facts
from tests.http.places import SAYS, address, done, question
from tests.http.tokens import made

NOWHERE = Settings(environment="test", database_url="postgresql://nobody@localhost/x", redis_url="redis://localhost")
TAKES_IDS = sorted(
    f"{method} {route.path}"
    for route in iter_route_contexts(make_app(NOWHERE, make_database(NOWHERE)).routes)
    for method in route.methods or ()
    if "_id}" in str(route.path) and str(route.path).startswith(("/v1/requests", "/v1/tokens", "/v1/me"))
)
BODIES = {
    "POST /v1/requests/{request_id}/questions": SAYS,
    "POST /v1/requests/{request_id}/questions/{question_id}/answer": SAYS,
    "POST /v1/requests/{request_id}/extend": {"access_window": 600},
    "POST /v1/requests/{request_id}/finding": {"finding": "justified", "comment": "OK"},
    "POST /v1/requests/{request_id}/activity": {"entries": [done()]},
    "POST /v1/requests/{request_id}/credential": {"verifier": verifier_of("secret")},
    "POST /v1/me/addresses/{address_id}/confirm": {"code": "x"},
    "PATCH /v1/me/addresses/{address_id}": {"prompts": False},
}


@pytest.fixture(scope="module")
def home(open_door: OpenDoor) -> Door:
    """A tenant; and Zoe, who belongs to another tenant."""
    door = open_door()
    door.add_outsider(open_door())
    return door


@pytest.fixture(scope="module")
def named(home: Door) -> Mapping[str, object]:
    """The ids of rows of the tenant, which no one from another tenant can change."""
    waits = home.pending()
    ids = {"request_id": waits, "token_id": made(home, "ann")["id"], "address_id": address(home)}
    return ids | {"question_id": question(home, waits)}


def test_at_least_six_routes_are_tested_with_ids_of_other_people() -> None:
    assert len(TAKES_IDS) >= 6


@each("who", ["zoe", "eve", "olga"])
@each("route", TAKES_IDS)
def test_ids_that_belong_to_other_people_are_answered_like_unknown_ids(
    home: Door, named: Mapping[str, object], route: str, who: str
) -> None:
    unknown = dict.fromkeys(named, UUID(int=1))
    method, path = route.split()
    before = home.rows()

    body = {"json": BODIES[route]} if route in BODIES else {}
    theirs = home.call(who, method, path.format(action="deny", **named), **body)
    nobodys = home.call(who, method, path.format(action="deny", **unknown), **body)

    facts(theirs, 404, "not-found")
    assert theirs.content == nobodys.content
    assert set(theirs.headers) == set(nobodys.headers)
    assert home.rows() == before
