"""A route refuses unknown and repeated parameters and fields by name: no input is ignored."""

from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi.routing import APIRoute, iter_route_contexts

from api import deps
from api.app import make_app
from harness.people import SETTINGS
from lockbox.database import Database
from tests.http.door import Door, facts
from tests.http.portal import Browser, Portal


def routes(db: Database) -> list[tuple[str, str]]:
    """Return method and path of every route, of the API and of the pages."""
    found = iter_route_contexts(make_app(SETTINGS, db).routes)
    return sorted(
        {
            (method, str(route.path))
            for route in found
            if isinstance(route.original_route, APIRoute)
            for method in route.methods or ()
        }
    )


def test_only_the_issuer_callback_accepts_unknown_query_parameters(door: Door) -> None:
    taken = []
    for method, path in routes(door.db):
        answer = door.call("ann", method, path.replace("{number}", "1"), params={"no_such": "x"})
        if answer.status_code != 422 or "no_such" not in answer.text:
            taken.append(path)

    assert len(routes(door.db)) > 60
    assert taken == ["/sign-in/oidc/callback"]


@pytest.mark.parametrize(
    ("path", "query", "known"),
    [
        ("/v1/requests", {"stat": "pending", "State": "active", "limit": "1"}, "state"),
        ("/v1/tenants", {"page": "2"}, "cursor, limit"),
        ("/v1/requests/{id}", {"verbose": "1"}, "leave it out"),
    ],
)
def test_each_unknown_query_parameter_is_named_with_the_known_parameters(
    door: Door, path: str, query: dict[str, str], known: str
) -> None:
    answer = door.get("erin", path.replace("{id}", door.pending()), **query)

    told = facts(answer, 422, "invalid-request")
    assert [error["field"] for error in told["errors"]] == [name for name in query if name != "limit"]
    assert all(known in error["message"] for error in told["errors"])


def test_the_value_of_an_unknown_query_parameter_is_not_repeated(door: Door) -> None:
    answer = door.get("erin", "/v1/requests", **{"token": "s3cret", "x" * 500: "s3cret"})

    assert "s3cret" not in answer.text
    assert max(len(error["field"]) for error in answer.json()["errors"]) == 100


def test_every_known_query_parameter_is_accepted(door: Door) -> None:
    query: dict[str, Any] = {"state": "pending", "service": "exchange-online", "limit": 1}

    assert door.get("erin", "/v1/requests", **query).status_code == 200


def test_a_portal_form_with_an_unknown_field_does_nothing(portal: Portal) -> None:
    request = portal.world.submit()
    browser = Browser(portal)
    browser.enter("ann")
    form = browser.get(f"/requests/{request.id}").form(f"/requests/{request.id}/deny")

    answer = browser.send(f"/requests/{request.id}/deny", form.fields | {"seconds": "60"})

    assert answer.status_code == 422
    assert "seconds" in answer.text
    assert browser.send(f"/requests/{request.id}/deny", form.fields | {"comment": "No"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "name", "values"),
    [
        ("/v1/requests", "state", ["pending", "active"]),
        ("/v1/requests", "limit", [1, 200]),
        ("/v1/audit", "person", ["x", "y"]),
        ("/v1/tenants", "cursor", ["a", "a"]),
    ],
)
def test_a_repeated_query_parameter_is_refused(door: Door, path: str, name: str, values: list[Any]) -> None:
    told = facts(door.get("max", path, **{name: values}), 422, "invalid-request")

    assert {"field": name, "message": "send it once; it is repeated"} in told["errors"]


def test_every_scalar_query_parameter_is_refused_if_given_twice(door: Door) -> None:
    taken, tried = set(), 0
    for route in iter_route_contexts(make_app(SETTINGS, door.db).routes):
        if not isinstance(route.original_route, APIRoute):
            continue
        for name in deps.parameters(route.original_route).queries:
            method, path = min(route.methods or {"GET"}), str(route.path).replace("{number}", "1")
            answer = door.call("ann", method, path, params={name: ["1", "1"]})
            tried += 1
            if "send it once" not in answer.text:
                taken.add((route.path, name))

    assert tried > 40
    assert taken == {("/v1/audit/export", "since")}


def test_a_list_query_parameter_may_repeat(door: Door) -> None:
    answer = door.get("tara", "/v1/audit/export", since=["0", "0"])

    assert "send it once" not in answer.text
    assert answer.status_code != 422


def test_a_portal_form_with_a_repeated_field_does_nothing(portal: Portal) -> None:
    request = portal.world.submit()
    browser = Browser(portal)
    browser.enter("ann")
    form = browser.get(f"/requests/{request.id}").form(f"/requests/{request.id}/deny")
    said = [*form.fields.items(), ("comment", "No"), ("comment", "Yes")]

    answer = browser.call(
        "POST",
        f"/requests/{request.id}/deny",
        content=urlencode(said),
        headers={
            "origin": portal.settings.origin,
            "sec-fetch-site": "same-origin",
            "content-type": "application/x-www-form-urlencoded",
        },
    )

    assert answer.status_code == 422
    assert "send it once" in answer.text
    assert portal.sql("SELECT state FROM requests WHERE id = :id", id=request.id)[0].state == "pending"
