"""FastAPI dependencies of all routes: parameter checks, transaction, caller, origin.

Dependencies that only read the request are coroutines, because FastAPI runs plain functions in threads.
"""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial, wraps
from itertools import islice
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from fastapi import Depends, HTTPException, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form, Query
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from starlette.routing import BaseRoute

from api import browser, call_routes, incoming_request
from api.incoming_request import client_address
from config.settings import Settings
from lockbox.audit.events import Origin
from lockbox.call_groups.groups import CallGroups
from lockbox.database import Database, UnitOfWork, now
from lockbox.errors import Invalid, NotSignedIn, NotYours, VersionRequired
from lockbox.identity import authentication, identities, oidc, sessions
from lockbox.identity.oidc_providers import IdentityProviders
from lockbox.identity.passkeys import RelyingParty
from lockbox.identity.roles import Caller
from lockbox.identity.token_creation import TokenRules
from lockbox.notifications.endpoints import SecretVault
from lockbox.requests.submit import SubmissionLimits

ANY_QUERY = "any query"
"""The tag of a route that receives another party's answer, which may have parameters unknown to us."""
NOT_READ_ALONE = re.compile(r"/live|/sign-in/oidc(?:/.*)?")
"""Paths at which a GET does more than read: it streams without end, begins something, or uses something up."""
LONGEST_NAME = 100
MOST_NAMED = 20
LONGEST_AGENT = 256
MOST_OF_AGENT = 1024
OURS = "lbx_"
TAG = re.compile(r'"([0-9a-f]{16})"')
NO_PASSKEYS = "Passkeys need a host name, and this Lockbox has none. Sign in another way."
Found = TypeVar("Found")


@dataclass(frozen=True)
class Parameters:
    """Query parameters and form fields of the route `of`: each name, and whether it may be repeated."""

    of: APIRoute
    queries: dict[str, bool]
    fields: dict[str, bool]


LOOKED_UP: dict[int, Parameters] = {}
"""A cache by the route's id; each entry keeps its route alive. Finding parameters takes longer than most calls."""


async def known_alone(request: Request) -> None:
    """Refuse parameters that the route would ignore: unknown ones, and repeated ones that are not lists.

    A misspelled filter must not return the whole list, and a question about one resource must not be answered about
    another.

    Raises:
        HTTPException: 405, the path belongs to another route, which has other methods.
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
    found = LOOKED_UP.get(id(route))
    if found is None:
        queries, fields = dict(_taken(route.dependant, Query)), dict(_taken(route.dependant, Form))
        found = LOOKED_UP[id(route)] = Parameters(route, queries, fields)
    return found


def _unknown(where: str, said: Iterable[str], known: Iterable[str]) -> list[dict[str, Any]]:
    choice = f"there is none of that name; choose from {', '.join(sorted(known))}" if known else "leave it out"
    return _errors("extra_forbidden", where, (name for name in dict.fromkeys(said) if name not in known), choice)


def _repeated(where: str, said: Iterable[str], known: dict[str, bool]) -> list[dict[str, Any]]:
    repeated = (name for name, count in Counter(said).items() if count > 1 and not known.get(name))
    return _errors("repeated", where, repeated, "send it once; it is repeated")


def _errors(kind: str, where: str, names: Iterable[str], says: str) -> list[dict[str, Any]]:
    return [{"type": kind, "loc": (where, name[:LONGEST_NAME]), "msg": says} for name in islice(names, MOST_NAMED)]


def _taken(dependant: Dependant, kind: type[Query] | type[Form]) -> Iterator[tuple[str, bool]]:
    for field in (*dependant.query_params, *dependant.body_params):
        annotation = field.field_info.annotation
        if not isinstance(field.field_info, kind):
            continue
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            for name, part in annotation.model_fields.items():
                yield part.alias or name, _is_list(part.annotation)
        else:
            yield field.alias, _is_list(annotation)
    for dependency in dependant.dependencies:
        yield from _taken(dependency, kind)


def _is_list(annotation: object) -> bool:
    kinds = get_args(annotation) if get_origin(annotation) in {Union, UnionType} else (annotation,)
    return any(get_origin(kind) in {list, tuple} for kind in kinds)


class RouteTable:
    def __init__(self, routes: Sequence[BaseRoute]) -> None:
        self.routes = list(iter_route_contexts(routes))
        self.plain = frozenset(route.path for route in self.routes if route.path and "{" not in route.path)


def allowed(request: Request) -> list[str]:
    """Return the methods for an `Allow` header (RFC 9110 section 10.2.1)."""
    path, known = request.scope["path"], _known(request)
    routes = [route for route in known.routes if route.path_regex.match(path)]
    if path in known.plain:
        routes = [route for route in routes if route.path == path]
    found = {method for route in routes for method in route.methods or ()}
    if "GET" in found and not NOT_READ_ALONE.fullmatch(path):
        found.add("HEAD")
    return sorted(found)


def is_of_another(request: Request, route: APIRoute) -> bool:
    """Whether another route has exactly this path without this method; `route` only matched by a path parameter."""
    return "{" in route.path and request.scope["path"] in _known(request).plain


def _known(request: Request) -> RouteTable:
    found: RouteTable = request.app.state.addresses
    return found


def without_thread(look: Callable[[Request], Found]) -> Callable[[Request], Awaitable[Found]]:
    """Make a dependency that runs `look` on the event loop. `look` must not block."""

    @wraps(look)
    async def looked(request: Request) -> Found:
        return look(request)

    return looked


def settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


def database(request: Request) -> Database:
    """Return the database with the connections that are reserved for this kind of request."""
    found: Database = request.app.state.vital if incoming_request.is_vital(request) else request.app.state.database
    return found


def issuers(request: Request) -> IdentityProviders:
    found: IdentityProviders = request.app.state.issuers
    return found


def vault(request: Request) -> SecretVault:
    found: SecretVault = request.app.state.vault
    return found


SettingsDep = Annotated[Settings, Depends(without_thread(settings))]
DatabaseDep = Annotated[Database, Depends(without_thread(database))]
IdentityProvidersDep = Annotated[IdentityProviders, Depends(without_thread(issuers))]
VaultDep = Annotated[SecretVault, Depends(without_thread(vault))]


async def unit_of_work(request: Request) -> UnitOfWork:
    """Begin the transaction of a request. It commits before the answer is sent."""
    return call_routes.begin(request, database(request))


SessionDep = Annotated[UnitOfWork, Depends(unit_of_work)]


def caller(request: Request, session: SessionDep) -> Caller:
    """Authenticate by a bearer token (of Lockbox or an issuer), or else by a browser's session.

    Raises:
        NotSignedIn: there is no valid credential.
        ForeignForm: a call by a browser's session would change something, and did not come from one of our pages.
    """
    chosen = settings(request)
    sent = request.headers.getlist("authorization")
    if len(sent) > 1:
        raise NotSignedIn("Send one header Authorization: there are several.")
    authorization = sent[0] if sent else None
    if authorization is None and browser.session_secret(request, chosen) is not None:
        return _of_browser(request, session, chosen)
    scheme, _, shown = (authorization or "").partition(" ")
    shown = shown.strip()
    if scheme.lower() != "bearer" or not shown:
        raise NotSignedIn("Send a token: Authorization: Bearer lbx_…")
    if shown.startswith(OURS) or not chosen.issuers:
        found = authentication.authenticate_token(session, shown, environment=chosen.environment)
    else:
        found = _of_issuer(session, shown, database(request), issuers(request))
    incoming_request.vouch(request)
    return found


CurrentUser = Annotated[Caller, Depends(caller)]


def groups(request: Request) -> CallGroups:
    found: CallGroups = request.app.state.groups[incoming_request.budget_of(request.method, request.url.path)]
    return found


CallGroupsDep = Annotated[CallGroups, Depends(without_thread(groups))]


class GroupedRoute(APIRoute):
    """If both a call and its credential are invalid, the answer names only the credential."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError:
                await groups(request).run(partial(caller, request))
                raise

        return handled


def _of_browser(request: Request, session: UnitOfWork, settings: Settings) -> Caller:
    found = browser.visitor(request, session, settings)
    if request.method not in browser.SAFE_METHODS:
        browser.check_same_site(request, settings)
        browser.check_form(found, request.headers.get(browser.CSRF_HEADER, ""))
    return found.caller


def _of_issuer(session: UnitOfWork, shown: str, db: Database, known: IdentityProviders) -> Caller:
    # A short transaction reads the time, so that no connection waits while an issuer's keys are fetched.
    session.wait()
    with db.transaction() as brief:
        at = now(brief)
    proven = oidc.verify(shown, known, at)
    issuer = known.configured(proven.issuer)
    if issuer is None:
        raise NotSignedIn(identities.NOBODY)
    return identities.caller_of(session, issuer, proven)


def origin(request: Request) -> Origin:
    return Origin("api", address(request), _agent(request))


def place(request: Request) -> sessions.ClientInfo:
    return sessions.ClientInfo(address(request), _agent(request))


def address(request: Request) -> str | None:
    """Return the client's address, from a header only if a trusted proxy sent it."""
    return client_address(request, settings(request).trusted_proxies)


def _agent(request: Request) -> str | None:
    agent = request.headers.get("user-agent", "")[:MOST_OF_AGENT]
    return "".join(mark for mark in agent if mark.isprintable())[:LONGEST_AGENT] or None


def if_match(request: Request) -> int | None:
    """Return the version in If-Match; None if the header is missing or `*`."""
    value = request.headers.get("if-match", "*").strip()
    if value == "*":
        return None
    number = value.removeprefix('"').removesuffix('"')
    if not number.isascii() or not number.isdigit() or len(number) > 9:  # noqa: PLR2004 - more is no version
        raise Invalid('Send If-Match as it came in ETag, such as "3".', field="If-Match")
    return int(number)


def must_match(request: Request) -> int | None:
    """As `if_match`, but the header is required."""
    _has_if_match(request)
    if request.headers["if-match"].strip().isdigit():
        raise Invalid('Send If-Match as it came in ETag, such as "3".', field="If-Match")
    return if_match(request)


def must_match_tag(request: Request) -> str | None:
    """Return the tag in If-Match, which is required; None if the header is `*`."""
    _has_if_match(request)
    value = request.headers["if-match"].strip()
    if value == "*":
        return None
    found = TAG.fullmatch(value)
    if found is None:
        raise Invalid('Send If-Match as it came in ETag, such as "0123456789abcdef".', field="If-Match")
    return found[1]


def _has_if_match(request: Request) -> None:
    if "if-match" not in request.headers:
        raise VersionRequired(
            "This replaces the whole document. Read it first and send If-Match with the ETag of that "
            "answer, or send If-Match: * to replace any version."
        )


RequestOrigin = Annotated[Origin, Depends(without_thread(origin))]
ClientInfoDep = Annotated[sessions.ClientInfo, Depends(without_thread(place))]
IfMatch = Annotated[int | None, Depends(without_thread(if_match))]
RequiredIfMatch = Annotated[int | None, Depends(without_thread(must_match))]
RequiredIfMatchTag = Annotated[str | None, Depends(without_thread(must_match_tag))]


def etag(version: int | str) -> dict[str, Any]:
    return {"etag": f'"{version}"', "cache-control": "no-store"}


def submission_limits(settings: Settings) -> SubmissionLimits:
    return SubmissionLimits(settings.submissions_per_person, settings.submissions_per_tenant)


def relying_party(settings: Settings) -> RelyingParty:
    if settings.passkey_domain is None:
        raise NotYours(NO_PASSKEYS)
    return RelyingParty(settings.passkey_domain, settings.origin)


async def token_rules(chosen: SettingsDep) -> TokenRules:
    return TokenRules(
        chosen.environment,
        timedelta(days=chosen.token_days),
        timedelta(days=chosen.most_token_days),
        timedelta(hours=chosen.token_overlap_hours),
        frozenset(chosen.catalogue.services),
    )


TokenRulesDep = Annotated[TokenRules, Depends(token_rules)]
