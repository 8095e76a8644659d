"""What each route takes: its methods, and its query parameters and form fields, each once."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fastapi import HTTPException, Request
from fastapi._compat import ModelField, field_annotation_is_sequence
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form, Query
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import BaseRoute

ANY_QUERY = "any query"
"""The tag of a route that another party's answer arrives at, who may say more than we know."""

NOT_READ_ALONE = re.compile(r"/live|/sign-in/oidc(?:/.*)?")
"""Where a GET goes on and on, or begins or uses up something."""

LONGEST_NAME = 100
MOST_NAMED = 20


@dataclass(frozen=True)
class Parameters:
    """The query parameters and the form fields of a route; True where one may be there several times, as a list."""

    of: APIRoute
    queries: dict[str, bool]
    fields: dict[str, bool]


LOOKED_UP: dict[int, Parameters] = {}
"""By the id of the route, which they keep: to go through all that it depends on takes longer than most calls."""


async def known_alone(request: Request) -> None:
    """Refuse what the route would ignore: whoever misspells a filter must not take the whole list for its result.

    A parameter that is there twice would be ignored once: who asks about one resource must not be answered about
    another.

    Raises:
        RequestValidationError: names each query parameter and each field of a form that the route does not know, or
            that is there more than once where the route takes one.
        HTTPException: 405, the path is that of another route, which takes other methods.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    if is_of_another(request, route):
        raise HTTPException(405)
    errors: list[dict[str, Any]] = []
    known = parameters(route)
    if request.query_params:
        said = [name for name, _ in request.query_params.multi_items()]
        errors += [] if ANY_QUERY in route.tags else _unknown("query", said, known.queries)
        errors += _repeated("query", said, known.queries)
    if known.fields:
        said = [name for name, _ in (await request.form()).multi_items()]
        errors += _unknown("body", said, known.fields) + _repeated("body", said, known.fields)
    if errors:
        raise RequestValidationError(errors)


def parameters(route: APIRoute) -> Parameters:
    """Return what a route takes."""
    found = LOOKED_UP.get(id(route))
    if found is None:
        flat = get_flat_params(route.dependant)
        queries = {field.alias: _is_list(field) for field in flat if isinstance(field.field_info, Query)}
        found = Parameters(route, queries, dict(form_fields(route.dependant)))
        LOOKED_UP[id(route)] = found
    return found


def _unknown(where: str, said: Iterable[str], known: Iterable[str]) -> list[dict[str, Any]]:
    choice = f"there is none of that name; choose from {', '.join(sorted(known))}" if known else "leave it out"
    return _errors("extra_forbidden", where, (name for name in dict.fromkeys(said) if name not in known), choice)


def _repeated(where: str, said: Iterable[str], known: dict[str, bool]) -> list[dict[str, Any]]:
    repeated = (name for name, count in Counter(said).items() if count > 1 and not known.get(name))
    return _errors("repeated", where, repeated, "send it once; it is repeated")


def _errors(kind: str, where: str, names: Iterable[str], says: str) -> list[dict[str, Any]]:
    return [{"type": kind, "loc": (where, name[:LONGEST_NAME]), "msg": says} for name in islice(names, MOST_NAMED)]


def form_fields(dependant: Dependant) -> Iterator[tuple[str, bool]]:
    """Yield the fields that the form of a route has, and whether each is a list."""
    for field in dependant.body_params:
        if isinstance(field.field_info, Form):
            yield field.alias, _is_list(field)
    for part in dependant.dependencies:
        yield from form_fields(part)


def _is_list(field: ModelField) -> bool:
    return field_annotation_is_sequence(field.field_info.annotation)


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
