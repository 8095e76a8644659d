"""Sign in with an identity provider, or bind its identity to a signed-in person."""

from typing import Annotated
from uuid import UUID

import httpx
from fastapi import Query, Request, Response
from fastapi.responses import RedirectResponse

from api import browser, deps
from api import refusal_log as note
from api.browser import OAuthState
from api.call_routes import CallRouter
from api.deps import ANY_QUERY, DatabaseDep, IdentityProvidersDep, SettingsDep
from api.portal import pages, phrases
from api.portal.pages import NO_PAGE, TAG, go
from api.portal.sign_in import session as sign_in_session
from catalogue.issuers import IdentityProvider
from config.settings import Settings
from lockbox.database import Database, now
from lockbox.errors import Conflict, Invalid, NotFound, NotSignedIn, NotYours, SignInAgain
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import identities, oidc, sessions
from lockbox.identity.credentials import PendingLogin
from lockbox.identity.oidc import NOT_COMPLETED, VerifiedIdentity
from lockbox.identity.oidc_providers import IdentityProviders, ProviderUnavailable
from lockbox.identity.sessions import OVER, SignInPurpose

router = CallRouter(tags=[TAG], include_in_schema=False)

CALLBACK = "/sign-in/oidc/callback"
ACCOUNT = "/account"


@router.get(CALLBACK, tags=[ANY_QUERY, NO_PAGE])
def come_back(
    request: Request,
    chosen: SettingsDep,
    db: DatabaseDep,
    known: IdentityProvidersDep,
    code: Annotated[str, Query(max_length=4000)] = "",
    state: Annotated[str, Query(max_length=200)] = "",
    iss: Annotated[str | None, Query(max_length=1000)] = None,
) -> Response:
    """The login is used up whatever the result.

    Unknown parameters from a provider are ignored, as RFC 6749 section 4.1.2 demands.
    """
    errand = browser.oauth_state(request, chosen)
    is_adding = errand is not None and errand.purpose is SignInPurpose.ADD
    try:
        row = _taken(request, db, chosen, errand)
        issuer, proven = _finished(db, known, chosen, row, code=code, state=state, answered_by=iss)
        if is_adding:
            return _added(request, db, chosen, issuer, proven)
        with db.transaction() as session:
            caller = identities.caller_of(session, issuer, proven)
            secret = sign_in_session.begin(request, session, chosen, caller)
    except ProviderUnavailable as away:
        return _unavailable(request, chosen, errand.path if errand else None, away)
    except (NotSignedIn, NotYours, Conflict) as refused:
        if is_adding:
            needs_sign_in = isinstance(refused, NotSignedIn | SignInAgain)
            status = pages.status_of(refused)
            return pages.problem(request, status, refused.detail, back=ACCOUNT, needs_sign_in=needs_sign_in)
        note.sign_in(request, db, AuthMethod.OIDC, refused)
        return sign_in_session.ways(request, chosen, errand.path if errand else None, 401, error=refused.detail)
    return sign_in_session.signed_in(request, chosen, secret, errand.path if errand else pages.HOME)


@router.get("/sign-in/oidc/{number}", tags=[NO_PAGE])
def ask(
    request: Request,
    number: int,
    chosen: SettingsDep,
    db: DatabaseDep,
    known: IdentityProvidersDep,
    path: Annotated[str | None, Query(alias="next")] = None,
) -> Response:
    """A person who is signed in must authenticate at the provider again."""
    if "prefetch" in request.headers.get("sec-purpose", "") + request.headers.get("purpose", ""):
        raise Invalid(phrases.NO_PREFETCH)
    issuer = find(chosen, number)
    sign_in_session.count(request, chosen, db)
    with db.transaction() as session:
        is_again = sign_in_session.visitor(request, session, chosen) is not None
    try:
        url, errand = begin(db, known, chosen, issuer, is_again=is_again, path=pages.local(path))
    except ProviderUnavailable as away:
        return _unavailable(request, chosen, path, away)
    answer = RedirectResponse(url, 303)
    pages.protect(request, answer)
    browser.keep_oauth_state(answer, chosen, errand)
    return answer


def _unavailable(request: Request, settings: Settings, path: str | None, away: ProviderUnavailable) -> Response:
    why = phrases.provider_unavailable(away.issuer, away.trouble, settings.vendor_name)
    answer = sign_in_session.ways(request, settings, path, pages.status_of(away), error=why)
    answer.headers["retry-after"] = "1"
    return answer


def find(settings: Settings, number: int) -> IdentityProvider:
    issuer = sign_in_session.issuers(settings).get(number)
    if issuer is None:
        raise NotFound(phrases.NO_PROVIDER)
    return issuer


def begin(
    db: Database,
    known: IdentityProviders,
    settings: Settings,
    issuer: IdentityProvider,
    *,
    path: str,
    is_again: bool = False,
    tied_to: UUID | None = None,
) -> tuple[str, OAuthState]:
    """Return the provider's URL, and the state that the browser keeps.

    `tied_to` is the session of a signed-in person who adds this identity to their account.
    """
    asked = oidc.begin(issuer, known.metadata(issuer), settings.public_url + CALLBACK)
    purpose = SignInPurpose.ADD if tied_to else SignInPurpose.SIGN_IN
    with db.transaction() as session:
        stub = sessions.begin_login(
            session,
            AuthMethod.OIDC,
            purpose,
            tied_to=tied_to,
            issuer=issuer.issuer,
            state=asked.state,
            nonce=asked.nonce,
            verifier=asked.verifier,
        )
    # OpenID Connect Core 1.0 section 3.1.2.1: authenticate the person again, and report when.
    again = {"prompt": "login", "max_age": "0"} if is_again else {}
    url = str(httpx.URL(asked.url).copy_merge_params(again))
    return url, OAuthState(stub, purpose, path)


def _taken(request: Request, db: Database, settings: Settings, errand: OAuthState | None) -> PendingLogin:
    """A login that adds an identity must have begun in this session."""
    if errand is None:
        raise NotSignedIn(OVER)
    with db.transaction() as session:
        is_adding = errand.purpose is SignInPurpose.ADD
        tied_to = browser.visitor(request, session, settings).caller.key_id if is_adding else None
        purpose = SignInPurpose.ADD if is_adding else SignInPurpose.SIGN_IN
        return sessions.use(session, errand.stub, AuthMethod.OIDC, purpose, tied_to=tied_to)


def _finished(
    db: Database,
    known: IdentityProviders,
    settings: Settings,
    row: PendingLogin,
    *,
    code: str,
    state: str,
    answered_by: str | None,
) -> tuple[IdentityProvider, VerifiedIdentity]:
    """No Postgres connection is in use while the provider is called."""
    issuer = known.configured(row.issuer or "")
    with db.transaction() as session:
        is_ours, at = sessions.is_state(session, row, state), now(session)
    if issuer is None or not code or not is_ours:
        raise NotSignedIn(NOT_COMPLETED)
    return issuer, oidc.finish(
        known,
        issuer,
        code=code,
        verifier=row.verifier or "",
        nonce=row.nonce or "",
        redirect_uri=settings.public_url + CALLBACK,
        now=at,
        answered_by=answered_by,
    )


def _added(
    request: Request, db: Database, settings: Settings, issuer: IdentityProvider, proven: VerifiedIdentity
) -> Response:
    with db.transaction() as session:
        caller = browser.visitor(request, session, settings).caller
        identities.bind(session, caller, issuer, proven, deps.place(request))
    answer = go(request, ACCOUNT)
    browser.drop_oauth_state(answer, settings)
    return answer
