"""Pages to sign in with a passkey."""

from collections.abc import Mapping
from typing import Annotated

from fastapi import Form, Request, Response
from fastapi.responses import HTMLResponse

from api import browser, refusal_log
from api.browser import OAuthState
from api.call_routes import CallRouter
from api.deps import DatabaseDep, SettingsDep, relying_party
from api.portal import pages
from api.portal.pages import TAG, page
from api.portal.sign_in import session as sign_in_session
from lockbox.errors import NotSignedIn
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import passkeys, sessions
from lockbox.identity.passkeys import PasskeyChallenge
from lockbox.identity.sessions import SignInPurpose

router = CallRouter(tags=[TAG], include_in_schema=False)

LONGEST_ANSWER = 20_000

Credential = Annotated[str, Form(max_length=LONGEST_ANSWER)]


@router.post("/sign-in/passkey")
def ask(
    request: Request, chosen: SettingsDep, db: DatabaseDep, path: Annotated[str | None, Form(alias="next")] = None
) -> Response:
    browser.check_same_site(request, chosen)
    party = relying_party(chosen)
    sign_in_session.count(request, chosen, db)
    with db.transaction() as session:
        stub, challenge = sessions.begin_ceremony(session, SignInPurpose.SIGN_IN)
    asked = passkeys.sign_in_challenge(party, challenge)
    answer = ceremony(request, asked, kind="get", action="/sign-in/passkey/answer", back=pages.SIGN_IN)
    browser.keep_oauth_state(answer, chosen, OAuthState(stub, SignInPurpose.SIGN_IN, pages.local(path)))
    return answer


@router.post("/sign-in/passkey/answer")
def take(request: Request, chosen: SettingsDep, db: DatabaseDep, credential: Credential = "") -> Response:
    """The challenge is used up even if the answer is invalid."""
    browser.check_same_site(request, chosen)
    party, errand = relying_party(chosen), browser.oauth_state(request, chosen)
    sign_in_session.count(request, chosen, db)
    try:
        errand = sign_in_session.own(errand, SignInPurpose.SIGN_IN)
        with db.transaction() as session:
            challenge = sessions.use_ceremony(session, errand.stub, SignInPurpose.SIGN_IN)
        with db.transaction() as session:
            caller = passkeys.caller_of(session, party, challenge=challenge, shown=credential)
            secret = sign_in_session.begin(request, session, chosen, caller)
    except NotSignedIn as refusal:
        refusal_log.sign_in(request, db, AuthMethod.PASSKEY, refusal)
        return sign_in_session.ways(request, chosen, errand.path if errand else None, 401, error=refusal.detail)
    return sign_in_session.signed_in(request, chosen, secret, errand.path)


def ceremony(
    request: Request,
    asked: PasskeyChallenge,
    *,
    kind: str,
    action: str,
    back: str,
    visitor: browser.Visitor | None = None,
    fields: Mapping[str, str] | None = None,
    is_vouching: bool = False,
) -> HTMLResponse:
    """Ask an authenticator to `get` or `create` a passkey. `fields` are posted with its answer.

    With `is_vouching`, an older passkey signs that a new one is added; the person may continue without that
    signature.
    """
    return page(
        request,
        "passkey",
        visitor=visitor,
        kind=kind,
        options=asked.options,
        action=action,
        fields=fields or {},
        is_vouching=is_vouching,
        back=back,
    )
