"""Read and check what browsers send: session cookies, origins and CSRF tokens."""

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from fastapi import Request, Response
from starlette.requests import HTTPConnection

from api.incoming_request import vouch
from config.settings import Settings
from lockbox.database import UnitOfWork
from lockbox.errors import ForeignForm, NotSignedIn
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import sessions, time_zones
from lockbox.identity.roles import Caller
from lockbox.identity.sessions import LoginStub, SignInPurpose

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "x-csrf-token"
BY_ITSELF = "x-lockbox-by-itself"
"""The header of a page's automatic requests, which are not activity of the user."""
API = "/v1"
HTML = frozenset({"text/html", "application/xhtml+xml"})
WEIGHT = re.compile(r"[01](?:\.[0-9]{0,3})?")
FOREIGN = "This form did not come from a page of this Lockbox. Open the page again and repeat what you did."


@dataclass(frozen=True)
class Visitor:
    """The person who is signed in at a browser. `secret` is the session's secret."""

    caller: Caller
    secret: str = field(repr=False)
    at: datetime
    time_zone: str = time_zones.DEFAULT

    @property
    def csrf(self) -> str:
        return sessions.csrf(self.secret)


@dataclass(frozen=True)
class OAuthState:
    """A login that this browser has begun. `path` is opened afterwards."""

    stub: LoginStub
    purpose: SignInPurpose
    path: str


def visitor(request: Request, session: UnitOfWork, settings: Settings) -> Visitor:
    secret = session_secret(request, settings)
    if secret is None:
        raise NotSignedIn(sessions.ENDED)
    idle, by_itself = timedelta(seconds=settings.session_idle_seconds), BY_ITSELF in request.headers
    found = sessions.authenticate(session, secret, idle=idle, by_itself=by_itself)
    if found.caller.means is AuthMethod.SAMPLE and settings.environment == "production":
        raise NotSignedIn(sessions.ENDED)
    signed_in = Visitor(found.caller, secret, found.at, found.time_zone)
    request.state.visitor = signed_in
    vouch(request)
    return signed_in


def recognised(request: Request) -> Visitor | None:
    """Return what `visitor` returned earlier for this HTTP request; None if `visitor` has not run."""
    found: Visitor | None = getattr(request.state, "visitor", None)
    return found


def reads_pages(request: Request) -> bool:
    """Whether the browser prefers HTML (RFC 9110 section 12.5.1). Always false under the API's own path."""
    path = request.url.path
    if path == API or path.startswith(f"{API}/"):
        return False
    wanted = {"html": 0.0, "json": 0.0}
    for part in ",".join(request.headers.getlist("accept")).split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        weight = _weight(parameters)
        if kind in HTML:
            wanted["html"] = max(wanted["html"], weight)
        elif kind.startswith("application/") and kind.endswith("json"):
            wanted["json"] = max(wanted["json"], weight)
    return wanted["html"] > wanted["json"]


def _weight(parameters: Iterable[str]) -> float:
    said = next((parameter.removeprefix("q=") for parameter in parameters if parameter.startswith("q=")), "1")
    return float(said) if WEIGHT.fullmatch(said) else 0.0


def session_secret(request: HTTPConnection, settings: Settings) -> str | None:
    """The session's secret as sent, unchecked."""
    return request.cookies.get(_name(settings)) or None


def check_same_site(request: Request, settings: Settings) -> None:
    """Check, by Origin or else by Sec-Fetch-Site, that a form came from one of our pages.

    Our pages send no referrer, so their forms have the Origin `null`. Forms of other sites may have the Origin `null`
    too: then Sec-Fetch-Site decides, because no page can set this header.

    Raises:
        ForeignForm: the form came from another site, or the headers do not show where it came from.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    if site not in {None, "same-origin"}:
        raise ForeignForm(FOREIGN)
    if origin != settings.origin and (origin not in {None, "null"} or site is None):
        raise ForeignForm(FOREIGN)


def check_form(found: Visitor, token: str) -> None:
    if not sessions.is_csrf(found.secret, token):
        raise ForeignForm(FOREIGN)


def keep_session(response: Response, settings: Settings, secret: str) -> None:
    _set(response, settings, _name(settings), secret)


def drop_session(response: Response, settings: Settings) -> None:
    _set(response, settings, _name(settings), "", 0)


def keep_oauth_state(response: Response, settings: Settings, errand: OAuthState) -> None:
    path = base64.urlsafe_b64encode(errand.path.encode()).rstrip(b"=").decode()
    value = f"{errand.purpose}.{errand.stub.id.hex}.{errand.stub.secret}.{path}"
    _set(response, settings, _name(settings, "-begun"), value, int(sessions.LASTS.total_seconds()))


def time_zone(request: Request, settings: Settings) -> str:
    """Return the time zone that a page's script wrote into a cookie, unchecked."""
    return request.cookies.get(_name(settings, "-zone"), "")


def drop_oauth_state(response: Response, settings: Settings) -> None:
    _set(response, settings, _name(settings, "-begun"), "", 0)


def oauth_state(request: Request, settings: Settings) -> OAuthState | None:
    """Return the pending login in this browser's cookie, unchecked."""
    parts = request.cookies.get(_name(settings, "-begun"), "").split(".")
    try:
        purpose, one, secret, path = parts
        where = base64.urlsafe_b64decode(path + "=" * (-len(path) % 4)).decode("ascii")
        return OAuthState(LoginStub(UUID(hex=one), secret), SignInPurpose(purpose), where)
    except (ValueError, binascii.Error):
        return None


def _name(settings: Settings, tail: str = "") -> str:
    return ("__Host-lockbox" if settings.is_https else "lockbox") + tail


def _set(response: Response, settings: Settings, name: str, value: str, seconds: int | None = None) -> None:
    response.set_cookie(
        name, value, max_age=seconds, path="/", secure=settings.is_https, httponly=True, samesite="lax"
    )
