"""What a call may say beside its body: the query parameters and form fields that its route knows, and no others."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_flat_params
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form, Query
from fastapi.routing import APIRoute

ANY_QUERY = "any query"
"""The tag of a route that another party's answer arrives at, who may say more than we know."""

LONGEST_NAME = 100
MOST_NAMED = 20


@dataclass(frozen=True)
class Parameters:
    """The query parameters and the form fields of a route."""

    of: APIRoute
    queries: frozenset[str]
    fields: frozenset[str]


LOOKED_UP: dict[int, Parameters] = {}
"""By the id of the route, which they keep: to go through all that it depends on takes longer than most calls."""


async def known_alone(request: Request) -> None:
    """Refuse what the route would ignore: whoever misspells a filter must not take the whole list for its result.

    Raises:
        RequestValidationError: names each query parameter and each field of a form that the route does not know.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    errors: list[dict[str, Any]] = []
    known = _parameters(route)
    if request.query_params and ANY_QUERY not in route.tags:
        errors += _unknown("query", request.query_params, known.queries)
    if known.fields:
        errors += _unknown("body", await request.form(), known.fields)
    if errors:
        raise RequestValidationError(errors)


def _parameters(route: APIRoute) -> Parameters:
    found = LOOKED_UP.get(id(route))
    if found is None:
        queries = (field.alias for field in get_flat_params(route.dependant) if isinstance(field.field_info, Query))
        found = Parameters(route, frozenset(queries), frozenset(form_fields(route.dependant)))
        LOOKED_UP[id(route)] = found
    return found


def _unknown(where: str, said: Iterable[str], known: frozenset[str]) -> list[dict[str, Any]]:
    choice = f"there is none of that name; choose from {', '.join(sorted(known))}" if known else "leave it out"
    unknown = [name for name in dict.fromkeys(said) if name not in known]
    return [
        {"type": "extra_forbidden", "loc": (where, name[:LONGEST_NAME]), "msg": choice}
        for name in unknown[:MOST_NAMED]
    ]


def form_fields(dependant: Dependant) -> Iterator[str]:
    """Yield the fields that the form of a route has."""
    yield from (field.alias for field in dependant.body_params if isinstance(field.field_info, Form))
    for part in dependant.dependencies:
        yield from form_fields(part)
