"""Render pages and refusals, and open the transactions of forms.

Errors of Lockbox that a page's route does not catch become pages.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from importlib.resources import files
from inspect import isawaitable
from typing import Annotated, Any
from urllib.parse import urlencode

from anyio import to_thread
from fastapi import Depends, FastAPI, Form, Request, Response
from fastapi.exceptions import WebSocketRequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.types import Scope

from api import browser, call_routes, deps
from api.browser import Visitor
from api.deps import DatabaseDep, SettingsDep
from api.portal import navigation, phrases, user_agents
from api.problems import STATUS
from api.problems import problem as plain_problem
from config.settings import Settings
from lockbox.audit import reported_mails
from lockbox.audit.events import Origin
from lockbox.database import Database, UnitOfWork
from lockbox.errors import Conflict, Invalid, LockboxError, NotSignedIn, NotYours, SignInAgain, TooMany
from lockbox.facts.ask import Ask
from lockbox.facts.fact import LIST, PAGE, FactView, lines, read
from lockbox.facts.labels import label_text
from lockbox.facts.window import Window
from lockbox.identity import time_zones
from lockbox.identity.roles import ProtectedField, Side, may_read, reader_roles
from lockbox.identity.sessions import ClientInfo
from lockbox.notifications import request_wording
from lockbox.notifications.mail_text import STATE_WORDINGS, StateWording, Tone, approved, duration, joined
from lockbox.requests.models import AccessRequest, RequestEntry
from lockbox.requests.quorum import sole
from lockbox.text_rules import alphabets, flagged, warning

TAG = "pages"
NO_PAGE = "no-page"
"""The tag of a page's route whose GET returns no page but a file, live updates, or a step of a sign-in."""

HOME = "/"
"""Redirects to the page on which the person works."""
SIGN_IN = "/sign-in"

REFUSED = (Conflict, NotYours, Invalid, TooMany)
"""Errors that are shown on the form's page, with the person's input. All other errors get a page of their own."""

# After a sign-in, only our own paths are opened, in a form that no browser can read as another host.
LOCAL_PATH = re.compile(r"/[a-z][a-z0-9-]{0,31}(?:/[a-z0-9-]{1,64}){0,3}")
LOCAL_QUERY = re.compile(r"[A-Za-z0-9._~=&%+:@,-]{1,300}")
MOST_SEGMENTS = 6
"""More segments than the path of any page has. The search for a form's page begins with this number."""

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
KEPT = ("retry-after", "allow", "connection")
MOST_SHOWN, MOST_LINES = 800, 10
"""The longest text shown in full. A longer text scrolls in a box, so that the rest of the page stays visible."""

HTTPS_ALONE = {"strict-transport-security": "max-age=31536000"}

READER: ContextVar[Visitor | None] = ContextVar("reader", default=None)
"""The reader of the page being rendered, for imported macros, which do not see the page's variables."""

MADE_AT: ContextVar[datetime | None] = ContextVar("made_at", default=None)
"""The database's time at which the page is made, also for imported macros."""

ICON_FOLDER = files("api.portal").joinpath("static", "vendor", "lucide-1.62.0")
SHAPE = re.compile(r"<(?:circle|line|path|polyline|rect)\s[^>]*>")
INLINE = '<svg class="icon" viewBox="0 0 24 24" aria-hidden="true">{shapes}</svg>'
TONES = {
    Tone.WAITS: "hourglass",
    Tone.OPEN: "lock-open",
    Tone.REFUSED: "ban",
    Tone.GIVEN_BACK: "undo-2",
    Tone.LAPSED: "timer-off",
}
"""The icon of each kind of state: states differ in shape as well as in colour."""


def _inline(drawing: str) -> Markup:
    shapes = "".join(" ".join(shape.split()) for shape in SHAPE.findall(drawing))
    return Markup(INLINE.format(shapes=shapes))  # noqa: S704 - a file of ours


ICONS = {
    file.name.removesuffix(".svg"): _inline(file.read_text())
    for file in ICON_FOLDER.iterdir()
    if file.name.endswith(".svg")
}


def icon(name: str) -> Markup:
    return ICONS[name]


def tone_icon(tone: str) -> Markup:
    return ICONS[TONES[Tone(tone)]]


TEMPLATES = Environment(
    loader=PackageLoader("api.portal"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _here(tell: Callable[[datetime, str], str]) -> Callable[..., str]:
    def formatted(moment: datetime, zone: str | None = None) -> str:
        reader = READER.get()
        return tell(moment, zone or (reader.time_zone if reader else time_zones.DEFAULT))

    return formatted


def _day_clock(moment: datetime, at: datetime) -> str:
    reader = READER.get()
    return phrases.time_of_day(moment, at, reader.time_zone if reader else time_zones.DEFAULT)


def _from_now(tell: Callable[[datetime, datetime], str]) -> Callable[[datetime], str]:
    def formatted(moment: datetime) -> str:
        at = MADE_AT.get()
        return tell(moment, at) if at else ""

    return formatted


def _state_words(saying: StateWording) -> str:
    reader = READER.get()
    return saying.to(reader.caller.side if reader else Side.VENDOR)


def _located(asked: AccessRequest) -> str:
    return request_wording.located(asked.employing_entity, asked.office_country, asked.physical_country)


def _signed_in(asked: AccessRequest) -> str:
    at = asked.created_at
    return request_wording.signed_in(asked.sign_in, asked.sign_in_means, asked.signed_in_at, at)


def _facts(view: FactView) -> Callable[[AccessRequest], list[tuple[str, str]]]:
    def said(asked: AccessRequest) -> list[tuple[str, str]]:
        reader = READER.get()
        held = reader_roles(reader.caller, asked.requester_id, asked.tenant_id) if reader else frozenset()
        reads_why = may_read(ProtectedField.JUSTIFICATION, held)
        return [line for part in (Ask, Window) for line in lines(read(part, asked), view, reads_why=reads_why)]

    return said


def _held_back(entry: RequestEntry) -> str:
    asked, at = entry.request, MADE_AT.get()
    is_ahead = bool(at and asked.opens_at and asked.opens_at > at)
    if entry.held_back is None:
        return ""
    return request_wording.held_back(
        entry.held_back, tenant=entry.tenant_name, requester=entry.requester, is_ahead=is_ahead
    )


def _why_held_back(reason: str, entry: RequestEntry) -> str:
    return request_wording.held_back_because(reason, tenant=entry.tenant_name, requester=entry.requester)


TEMPLATES.filters["duration"] = duration
TEMPLATES.filters["warning"] = warning
TEMPLATES.filters["flagged"] = flagged
TEMPLATES.filters["time"] = _here(time_zones.page_time)
TEMPLATES.filters["full_time"] = _here(time_zones.clock_time)
TEMPLATES.filters["short_time"] = _here(time_zones.short_time)
TEMPLATES.filters["day_clock"] = _day_clock
TEMPLATES.filters["away"] = _from_now(phrases.away)
TEMPLATES.filters["left"] = _from_now(phrases.left)
TEMPLATES.filters["things"] = phrases.things
TEMPLATES.filters["label_text"] = label_text
TEMPLATES.filters["some"] = reported_mails.some
TEMPLATES.filters["joined"] = joined
TEMPLATES.filters["full_duration"] = phrases.full_duration
TEMPLATES.filters["words"] = _state_words
TEMPLATES.filters["on_page"] = _facts(PAGE)
TEMPLATES.filters["listed"] = _facts(LIST)
TEMPLATES.filters["located"] = _located
TEMPLATES.filters["signed_in"] = _signed_in
TEMPLATES.filters["held_back"] = _held_back
TEMPLATES.filters["why_held_back"] = _why_held_back
TEMPLATES.filters["browser"] = user_agents.known_as
TEMPLATES.filters["seconds"] = lambda count: timedelta(seconds=count)
TEMPLATES.tests["mixed"] = alphabets
TEMPLATES.tests["long"] = lambda text: len(text) > MOST_SHOWN or text.count("\n") >= MOST_LINES
TEMPLATES.globals["states"] = STATE_WORDINGS
TEMPLATES.globals["approved"] = approved
TEMPLATES.globals["sole"] = sole
TEMPLATES.globals["sections"] = navigation.of
TEMPLATES.globals["icon"] = icon
TEMPLATES.globals["tone_icon"] = tone_icon


def page(
    request: Request,
    template: str,
    status: int = 200,
    *,
    visitor: Visitor | None = None,
    reload_path: str | None = None,
    **said: Any,  # noqa: ANN401 - a template takes any variables
) -> HTMLResponse:
    """If the page answers a form, `reload_path` is the path at which a browser gets the page again."""
    made = TEMPLATES.get_template(f"{template}.html")
    playing = getattr(request.app.state, "playground", None)
    settings = deps.settings(request)
    known = {
        "visitor": visitor,
        "here": request.url.path,
        "live": _live(request, reload_path),
        "playing": playing,
        "vendor": settings.vendor_name or phrases.VENDOR,
        "brand": {
            "name": settings.vendor_name,
            "colour": settings.vendor_colour,
            "logo": settings.vendor_logo,
        },
    }
    if visitor:
        known["at"] = visitor.at
    reading, timing = READER.set(visitor), MADE_AT.set(said.get("at", known.get("at")))
    try:
        answer = HTMLResponse(made.render(known | said), status)
    finally:
        READER.reset(reading)
        MADE_AT.reset(timing)
    protect(request, answer)
    return answer


def _live(request: Request, reload_path: str | None) -> Mapping[str, str]:
    path, query = request.url.path, request.url.query
    again = (f"{path}?{query}" if query else path) if request.method == "GET" else own_page(request, path)
    position = request.app.state.live_updates.position
    return {"again": reload_path or again, "since": position, "reload": reload_path or ""}


def go(request: Request, path: str, **query: str) -> Response:
    answer = RedirectResponse(f"{path}?{urlencode(query)}" if query else path, HTTPStatus.SEE_OTHER)
    protect(request, answer)
    return answer


def protect(request: Request, answer: Response) -> None:
    answer.headers.update(HEADERS)
    if deps.settings(request).environment == "production":
        answer.headers.update(HTTPS_ALONE)


def local(path: str | None) -> str:
    """Return the path to open after a sign-in: a plain path of ours, else the home page.

    A query that a browser could misread is dropped.
    """
    place, _, query = (path or "").partition("?")
    if not LOCAL_PATH.fullmatch(place) or place.startswith(SIGN_IN):
        return HOME
    return f"{place}?{query}" if LOCAL_QUERY.fullmatch(query) else place


def origin(request: Request) -> Origin:
    place = deps.place(request)
    return Origin("portal", place.address, place.user_agent)


@dataclass(frozen=True)
class FormContext:
    request: Request
    chosen: Settings
    db: Database
    csrf: str

    @contextmanager
    def open(self) -> Iterator[tuple[UnitOfWork, Visitor]]:
        with call_routes.transaction(self.request, self.db) as session:
            yield session, self.visitor(session)

    def visitor(self, session: UnitOfWork) -> Visitor:
        visitor = browser.visitor(self.request, session, self.chosen)
        browser.check_form(visitor, self.csrf)
        return visitor

    @property
    def place(self) -> ClientInfo:
        return deps.place(self.request)


async def form_context(
    request: Request, chosen: SettingsDep, db: DatabaseDep, csrf: Annotated[str, Form()] = ""
) -> FormContext:
    browser.check_same_site(request, chosen)
    return FormContext(request, chosen, db, csrf)


FormContextDep = Annotated[FormContext, Depends(form_context)]


def own_page(request: Request, path: str) -> str:
    """Return the longest prefix of a form's path that is the path of a page."""
    parts = path.partition(".")[0].split("/")[:MOST_SEGMENTS]
    beginnings = ("/".join(parts[:length]) for length in range(len(parts), 1, -1))
    return next((beginning for beginning in beginnings if _is_page(request, beginning)), HOME)


def _is_page(request: Request, path: str) -> bool:
    found = [route for route in request.app.state.addresses.routes if TAG in getattr(route, "tags", ())]
    found = [route for route in found if route.path_regex.fullmatch(path)]
    fewest = min((route.path.count("{") for route in found), default=0)
    there = [route for route in found if route.path.count("{") == fewest]
    return any("GET" in route.methods and NO_PAGE not in route.tags for route in there)


def _wanted(request: Request) -> str:
    path, query = request.url.path, request.url.query
    page_of = own_page(request, path)
    return local(f"{path}?{query}" if query and request.method == "GET" and page_of == path else page_of)


def install(app: FastAPI) -> None:
    for kind, handler in list(app.exception_handlers.items()):
        if kind is not WebSocketRequestValidationError:
            app.exception_handlers[kind] = _dressed(handler)


def _dressed(handler: Callable[..., Any]) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        made = handler(request, error)
        plain: Response = await made if isawaitable(made) else made
        return await to_thread.run_sync(_page_of, request, error, plain) if _is_for_people(request) else plain

    return answer


def _page_of(request: Request, error: Exception, plain: Response) -> Response:
    if isinstance(error, NotSignedIn):
        ended = {} if request.method == "GET" else {"ended": "yes"}
        return go(request, SIGN_IN, next=_wanted(request), **ended)
    said = json.loads(bytes(plain.body))
    shown = problem(request, plain.status_code, said["detail"], needs_sign_in=isinstance(error, SignInAgain))
    shown.headers.update({name: plain.headers[name] for name in KEPT if name in plain.headers})
    return shown


def _is_for_people(request: Request) -> bool:
    route = request.scope.get("route")
    return TAG in getattr(route, "tags", ()) if route else browser.reads_pages(request)


def problem(
    request: Request, status: int, detail: str, *, back: str | None = None, needs_sign_in: bool = False
) -> HTMLResponse:
    return _problem(
        request, status, detail, visitor=_visitor(request, status), back=back, needs_sign_in=needs_sign_in
    )


def early(scope: Scope, status: int, code: str, detail: str, headers: Mapping[str, str]) -> Response:
    request = Request(scope)
    if not browser.reads_pages(request):
        return plain_problem(status, code, detail, headers=headers)
    shown = _problem(request, status, detail)
    shown.headers.update(headers)
    return shown


def _problem(
    request: Request,
    status: int,
    detail: str,
    *,
    visitor: Visitor | None = None,
    back: str | None = None,
    needs_sign_in: bool = False,
) -> HTMLResponse:
    origin_page = HOME if request.method in browser.SAFE_METHODS else own_page(request, request.url.path)
    return page(
        request,
        "problem",
        status,
        visitor=visitor,
        title=phrases.TITLES.get(status, phrases.WENT_WRONG),
        detail=detail,
        back=back or (origin_page if origin_page != HOME else None),
        onward=navigation.first(visitor.caller) if visitor else None,
        wanted=_wanted(request),
        needs_sign_in=needs_sign_in,
        # A missing page and a page that the person may not see get the same text, so it must not contain the time.
        at=None,
        live={"again": HOME, "since": request.app.state.live_updates.position, "reload": ""},
    )


def _visitor(request: Request, status: int) -> Visitor | None:
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return browser.recognised(request)
    return signed_in(request)


def signed_in(request: Request) -> Visitor | None:
    """Return the visitor, for pages that need no sign-in; None also if the database is away."""
    known, chosen = browser.recognised(request), deps.settings(request)
    if known or not browser.session_secret(request, chosen):
        return known
    try:
        with deps.database(request).transaction() as session:
            return browser.visitor(request, session, chosen)
    except (NotSignedIn, DBAPIError, PoolTimeout):
        return None


def status_of(refused: LockboxError) -> int:
    return next(STATUS[kind] for kind in type(refused).__mro__ if kind in STATUS)
