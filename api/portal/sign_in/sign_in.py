"""Pages to sign in with a mailed code, and to sign out."""

import re
from typing import Annotated

from fastapi import Form, Query, Request, Response

from api import browser, deps, refusal_log
from api.browser import OAuthState
from api.call_routes import CallRouter
from api.deps import DatabaseDep, SessionDep, SettingsDep
from api.portal import pages, phrases
from api.portal.pages import TAG, go, page
from api.portal.sign_in import session as sign_in_session
from config.settings import Settings
from lockbox.database import UnitOfWork
from lockbox.errors import NotSignedIn, NotYours, TooMany
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import identities, sessions
from lockbox.identity.roles import Caller
from lockbox.identity.sessions import OVER, SignInPurpose
from lockbox.notifications import mailed_codes

router = CallRouter(tags=[TAG], include_in_schema=False)

ADDRESS = re.compile(r"[^@\s]{1,64}@[^@\s]{1,255}")


@router.get("/sign-in")
def show(
    request: Request,
    chosen: SettingsDep,
    session: SessionDep,
    path: Annotated[str | None, Query(alias="next")] = None,
    ended: Annotated[str | None, Query()] = None,
) -> Response:
    visitor = sign_in_session.visitor(request, session, chosen)
    return sign_in_session.ways(
        request, chosen, path, visitor=visitor, error=phrases.SIGNED_OUT if ended and visitor is None else None
    )


@router.post("/sign-in")
def ask(
    request: Request,
    chosen: SettingsDep,
    db: DatabaseDep,
    address: Annotated[str, Form()] = "",
    path: Annotated[str | None, Form(alias="next")] = None,
) -> Response:
    """The answer is the same whether or not a person has the address."""
    browser.check_same_site(request, chosen)
    if not chosen.mail_sign_in:
        raise NotYours(phrases.NO_MAIL)
    email = address.strip()
    if not ADDRESS.fullmatch(email) or not email.isprintable():
        return sign_in_session.ways(request, chosen, path, 422, error=phrases.NO_ADDRESS, address=address)
    sign_in_session.count(request, chosen, db, account=email)
    with db.transaction() as session:
        stub = mailed_codes.send_code(session, email)
    answer = go(request, "/sign-in/code")
    browser.keep_oauth_state(answer, chosen, OAuthState(stub, SignInPurpose.SIGN_IN, pages.local(path)))
    return answer


@router.get("/sign-in/code")
def show_code(request: Request, chosen: SettingsDep) -> Response:
    if browser.oauth_state(request, chosen) is None:
        return go(request, pages.SIGN_IN)
    return page(request, "sign_in_code", error=None, is_over=False, code="")


@router.post("/sign-in/code")
def redeem(
    request: Request, chosen: SettingsDep, db: DatabaseDep, code: Annotated[str, Form(max_length=100)] = ""
) -> Response:
    """A code works once, in five attempts at most, and only in the browser that requested it."""
    browser.check_same_site(request, chosen)
    sign_in_session.count(request, chosen, db)
    try:
        errand = sign_in_session.own(browser.oauth_state(request, chosen), SignInPurpose.SIGN_IN)
        with db.transaction() as session:
            counted = mailed_codes.count_try(
                session, errand.stub, sign_in_session.limits(chosen), deps.address(request)
            )
        counted.check()
        with db.transaction() as session:
            caller = mailed_codes.redeem(session, errand.stub, code)
            _without_issuer(session, chosen, caller)
            secret = sign_in_session.begin(request, session, chosen, caller)
    except (NotSignedIn, TooMany) as refusal:
        begun = browser.oauth_state(request, chosen)
        refusal_log.sign_in(request, db, AuthMethod.MAIL, refusal, stub=begun.stub if begun else None)
        if isinstance(refusal, TooMany):
            raise
        is_over = refusal.detail in {OVER, phrases.BY_ISSUER}
        return page(request, "sign_in_code", 401, error=refusal.detail, is_over=is_over, code=code)
    return sign_in_session.signed_in(request, chosen, secret, errand.path)


@router.post("/sign-out")
def sign_out(
    request: Request, chosen: SettingsDep, session: SessionDep, csrf: Annotated[str, Form()] = ""
) -> Response:
    browser.check_same_site(request, chosen)
    visitor = sign_in_session.visitor(request, session, chosen)
    if visitor is not None:
        browser.check_form(visitor, csrf)
        sessions.end(session, visitor.secret)
    answer = go(request, pages.SIGN_IN)
    browser.drop_session(answer, chosen)
    return answer


def _without_issuer(session: UnitOfWork, settings: Settings, caller: Caller) -> None:
    if identities.is_bound(session, caller, settings.issuers):
        raise NotSignedIn(phrases.BY_ISSUER)
