"""Which methods an address takes: for the `Allow` header, and so that no id is read where a route has its name."""

from collections.abc import Sequence

from fastapi import Request
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute

from api.heads import NOT_READ_ALONE


class RouteTable:
    """The addresses of an app: those without parameters, and all of them."""

    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self.routes = list(iter_route_contexts(routes))
        self.plain = frozenset(route.path for route in self.routes if route.path and "{" not in route.path)


def allowed(request: Request) -> list[str]:
    """Return the methods that the called address takes, for an `Allow` header (RFC 9110 section 10.2.1)."""
    path, known = request.scope["path"], _known(request)
    routes = [route for route in known.routes if route.path_regex.match(path)]
    if path in known.plain:
        routes = [route for route in routes if route.path == path]
    found = {method for route in routes for method in route.methods or ()}
    if "GET" in found and not NOT_READ_ALONE.fullmatch(path):
        found.add("HEAD")
    return sorted(found)


def is_of_another(request: Request, route: APIRoute) -> bool:
    """Whether the called address is that of a route without parameters, and the method led to another route."""
    return "{" in route.path and request.scope["path"] in _known(request).plain


def _known(request: Request) -> RouteTable:
    found: RouteTable = request.app.state.addresses
    return found
