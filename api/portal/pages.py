"""How a page is made: templates that escape everything, strict headers, and refusals in sentences."""

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from inspect import iscoroutinefunction
from typing import Any
from urllib.parse import urlencode

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from api import deps
from api.browser import Visitor
from api.problems import STATUS
from lockbox.notices.phrases import duration
from lockbox.people.zones import clock_time
from lockbox.refusals import NotSignedIn, Refusal, SignInAgain

TAG = "pages"
HOME = "/requests"
SIGN_IN = "/sign-in"

# Where a sign-in may lead: paths of ours and nothing that a browser could take for another host.
LOCAL_PATH = re.compile(r"/[a-z][a-z0-9-]{0,31}(?:/[a-z0-9-]{1,64}){0,2}")
OWN_PAGE = re.compile(
    r"/(?:account|proposals|terminal|requests(?:/[0-9a-f-]{36})?|tenants(?:/[a-z0-9][a-z0-9-]{0,62}(?:/policy)?)?)(?=/|$)"
)

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; "
    "base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
KEPT = ("retry-after", "allow")
TITLES = {
    403: "This is not open to you",
    404: "There is nothing here",
    429: "Too many attempts",
    503: "Try again in a moment",
}
HTTPS_ALONE = {"strict-transport-security": "max-age=31536000"}

TEMPLATES = Environment(
    loader=PackageLoader("api.portal"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters["duration"] = duration
TEMPLATES.filters["time"] = clock_time


def page(
    request: Request,
    template: str,
    status: int = 200,
    *,
    visitor: Visitor | None = None,
    with_script: bool = False,
    **said: Any,  # noqa: ANN401 - a template is told whatever it says
) -> HTMLResponse:
    """Return a page.

    Args:
        request: that it answers.
        template: its file, without the ending.
        status: of the answer.
        visitor: the person who is signed in, if the page may say so.
        with_script: whether the page runs our script, as passkeys need.
        said: what the template says.
    """
    text = TEMPLATES.get_template(f"{template}.html").render(visitor=visitor, with_script=with_script, **said)
    answer = HTMLResponse(text, status)
    protect(request, answer)
    if with_script:
        answer.headers["content-security-policy"] = f"{POLICY}; script-src 'self'"
    return answer


def go(request: Request, path: str, **query: str) -> Response:
    """Return an answer that sends the browser on to a page of ours by GET."""
    answer = RedirectResponse(f"{path}?{urlencode(query)}" if query else path, HTTPStatus.SEE_OTHER)
    protect(request, answer)
    return answer


def protect(request: Request, answer: Response) -> None:
    """Give an answer the headers of every page."""
    answer.headers.update(HEADERS)
    if deps.settings(request).environment == "production":
        answer.headers.update(HTTPS_ALONE)


def local(path: str | None) -> str:
    """Return a path to go on to after a sign-in; the home page for anything but a plain path of ours."""
    return path if path and LOCAL_PATH.fullmatch(path) and not path.startswith(SIGN_IN) else HOME


def own_page(path: str) -> str:
    """Return the page to which a form's path belongs."""
    found = OWN_PAGE.match(path)
    return found[0] if found else HOME


def install(app: FastAPI) -> None:
    """Let refusals of pages be pages; the map from refusals to answers stays where it is."""
    for kind, handler in list(app.exception_handlers.items()):
        if not iscoroutinefunction(handler):
            app.exception_handlers[kind] = _dressed(handler)


def _dressed(handler: Callable[..., Any]) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, error: Exception) -> Response:
        plain: Response = handler(request, error)
        if TAG not in getattr(request.scope.get("route"), "tags", ()):
            return plain
        if isinstance(error, NotSignedIn):
            ended = {} if request.method == "GET" else {"ended": "yes"}
            return go(request, SIGN_IN, next=own_page(request.url.path), **ended)
        told = json.loads(bytes(plain.body))
        shown = problem(request, plain.status_code, told["detail"], needs_sign_in=isinstance(error, SignInAgain))
        shown.headers.update({name: plain.headers[name] for name in KEPT if name in plain.headers})
        return shown

    return answer


def problem(
    request: Request, status: int, detail: str, *, back: str | None = None, needs_sign_in: bool = False
) -> HTMLResponse:
    """Return the page that says what was refused and what to do."""
    where = back or (HOME if request.method == "GET" else own_page(request.url.path))
    title = TITLES.get(status, "That did not work")
    return page(request, "problem", status, title=title, detail=detail, back=where, needs_sign_in=needs_sign_in)


def status_of(refused: Refusal) -> int:
    """Return the status that a refusal has everywhere."""
    return next(STATUS[kind] for kind in type(refused).__mro__ if kind in STATUS)
