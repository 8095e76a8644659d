"""Shared parts of signing in."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from api import browser, deps, refusal_log
from api.browser import OAuthState, Visitor
from api.portal import pages
from api.portal.pages import go, page
from catalogue.issuers import IdentityProvider
from config.settings import Settings
from lockbox.database import Database, UnitOfWork
from lockbox.errors import NotSignedIn, TooMany
from lockbox.identity import attempt_limits, sessions
from lockbox.identity.attempt_limits import AttemptLimits
from lockbox.identity.roles import Caller
from lockbox.identity.sessions import OVER, SignInPurpose
from lockbox.notifications import addresses

ANY_MEANS = "any"


def limits(settings: Settings) -> AttemptLimits:
    return AttemptLimits(
        settings.sign_ins_per_account, settings.sign_ins_per_address, settings.sign_ins_per_account_and_network
    )


def count(request: Request, settings: Settings, db: Database, account: str | None = None) -> None:
    """Raises TooMany: the network, or the named account, has reached its limit."""
    with db.transaction() as session:
        counted = attempt_limits.count(session, limits(settings), address=deps.address(request), account=account)
    try:
        counted.check()
    except TooMany as too_many:
        # If the network is at its limit, name no account: otherwise it could cause one event per invented account.
        refusal_log.sign_in(request, db, ANY_MEANS, too_many, account=None if counted.of_address else account)
        raise


def begin(request: Request, session: UnitOfWork, settings: Settings, caller: Caller) -> str:
    """End the browser's previous session, and return the new session's secret."""
    old = browser.session_secret(request, settings)
    if old is not None:
        sessions.end(session, old)
    lasting = sessions.SessionLifetime(
        idle=timedelta(seconds=settings.session_idle_seconds), absolute=timedelta(seconds=settings.session_seconds)
    )
    secret = sessions.begin(session, caller, deps.place(request), lasting)
    addresses.adopt_time_zone(session, caller, browser.time_zone(request, settings))
    return secret


def signed_in(request: Request, settings: Settings, secret: str, path: str) -> Response:
    answer = go(request, pages.local(path))
    browser.keep_session(answer, settings, secret)
    browser.drop_oauth_state(answer, settings)
    return answer


def own(errand: OAuthState | None, purpose: SignInPurpose) -> OAuthState:
    if errand is None or errand.purpose is not purpose:
        raise NotSignedIn(OVER)
    return errand


def visitor(request: Request, session: UnitOfWork, settings: Settings) -> Visitor | None:
    with suppress(NotSignedIn):
        return browser.visitor(request, session, settings)
    return None


def issuers(settings: Settings) -> Mapping[int, IdentityProvider]:
    """Identity providers that support browsers, by number."""
    return {number: issuer for number, issuer in enumerate(settings.issuers) if issuer.client_id is not None}


def ways(
    request: Request,
    settings: Settings,
    path: str | None,
    status: int = 200,
    *,
    visitor: Visitor | None = None,
    error: str | None = None,
    address: str = "",
) -> HTMLResponse:
    return page(
        request,
        "sign_in",
        status,
        visitor=visitor,
        error=error,
        address=address,
        path=pages.local(path),
        issuers={number: issuer.title for number, issuer in issuers(settings).items()},
        by_passkey=settings.passkey_domain is not None,
        by_mail=settings.mail_sign_in,
    )
