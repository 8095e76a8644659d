"""Switch the browser to a demo user, through that user's demo token."""

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Form, Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import DatabaseDep, SessionDep, SettingsDep, without_thread
from api.loopback import require_loopback
from api.playground.demo_users import DemoUsers
from api.portal import navigation, phrases
from api.portal.pages import TAG, go, page
from api.portal.sign_in import session as sign_in_session
from lockbox.database import now
from lockbox.errors import Invalid, NotFound, NotSignedIn, NotYours
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication

router = CallRouter(tags=[TAG], include_in_schema=False, dependencies=[Depends(require_loopback)])


def cast_of(request: Request) -> DemoUsers:
    found: DemoUsers = request.app.state.playground
    return found


DemoUsersDep = Annotated[DemoUsers, Depends(without_thread(cast_of))]


@router.get("/play")
def show(request: Request, chosen: SettingsDep, session: SessionDep, demo_users: DemoUsersDep) -> Response:
    if request.headers.get("host", "").lower() != chosen.origin.partition("//")[2]:
        return go(request, f"{chosen.origin}/play")
    return page(
        request,
        "play",
        visitor=sign_in_session.visitor(request, session, chosen),
        demo_users=demo_users,
        addresses={part.key: part.email for part in demo_users.people},
    )


@router.post("/play")
def switch(
    request: Request,
    chosen: SettingsDep,
    db: DatabaseDep,
    who: Annotated[str, Form(max_length=40)] = "",
    path: Annotated[str | None, Form(alias="next", max_length=100)] = None,
) -> Response:
    """Sign the browser in as a demo user."""
    browser.check_same_site(request, chosen)
    part = cast_of(request).find(who)
    if part is None:
        raise NotFound(phrases.NO_DEMO_USER)
    try:
        with db.transaction() as session:
            shown = part.token.get_secret_value()
            caller = authentication.authenticate_token(session, shown, environment=chosen.environment)
            if caller.means is not AuthMethod.SAMPLE:
                raise NotYours(phrases.DEMO_USERS_ONLY)
            played = replace(caller, key_id=None, signed_in_at=now(session))
            secret = sign_in_session.begin(request, session, chosen, played)
    except NotSignedIn:
        raise Invalid(phrases.DEMO_TOKENS_EXPIRED) from None
    return sign_in_session.signed_in(request, chosen, secret, path or navigation.home(caller))
