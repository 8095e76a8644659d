"""Every form of the portal belongs to a page, where people continue after a sign-in or a refusal."""

import re
from types import SimpleNamespace
from uuid import UUID

import pytest
from fastapi import Request

from api.app import ROUTES
from api.deps import RouteTable
from api.portal.pages import NO_PAGE, TAG, own_page
from tests.each import each

APP = SimpleNamespace(state=SimpleNamespace(addresses=RouteTable(ROUTES)))
REQUEST = Request({"type": "http", "app": APP})
OF_PORTAL = [route for route in APP.state.addresses.routes if TAG in getattr(route, "tags", ())]
ONE = str(UUID(int=7))
ANYWHERE = {"/", "/live", "/sign-out", "/static/{name}"}
"""What belongs to no page of its own."""


def filled(path: str) -> str:
    """Return a path with a value for each of its parameters."""
    return re.sub(r"\{\w+\}", ONE, path)


@each("path", sorted({route.path for route in OF_PORTAL if "GET" in route.methods and NO_PAGE not in route.tags}))
def test_each_portal_page_belongs_to_itself(path: str) -> None:
    assert own_page(REQUEST, filled(path)) == filled(path)


@each("path", sorted({route.path for route in OF_PORTAL}))
def test_each_portal_form_and_file_belongs_to_a_page(path: str) -> None:
    found = own_page(REQUEST, filled(path))

    assert (found == "/") is (path in ANYWHERE)
    assert filled(path).startswith(found)


@pytest.mark.parametrize(
    ("path", "page"),
    [
        ("/tenants/contoso/endpoints/change", "/tenants/contoso/endpoints"),
        (f"/tenants/contoso/endpoints/{ONE}", f"/tenants/contoso/endpoints/{ONE}"),
        (f"/requests/{ONE}/approve", f"/requests/{ONE}"),
        ("/requests.csv", "/requests"),
        ("/waiting/deny", "/waiting/deny"),
        ("/nowhere/else", "/"),
        ("//elsewhere.example", "/"),
        ("/" + "a/" * 5_000, "/"),
    ],
)
def test_a_refused_portal_form_returns_to_the_page_to_which_it_belongs_or_to_the_start_page(
    path: str, page: str
) -> None:
    assert own_page(REQUEST, path) == page
