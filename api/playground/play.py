"""Switch the browser to a demo user, through that user's demo token."""

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from api import browser
from api.deps import DatabaseDep, SessionDep, SettingsDep, without_thread
from api.loopback import require_loopback
from api.playground.demo_users import DemoUsers
from api.portal import navigation, sign_in_session
from api.portal.pages import TAG, go, page
from lockbox.database import now
from lockbox.errors import Invalid, NotFound, NotSignedIn, NotYours
from lockbox.identity import authentication
from lockbox.identity.roles import AuthMethod

router = APIRouter(tags=[TAG], include_in_schema=False, dependencies=[Depends(require_loopback)])

OLD = "The demo users' tokens have expired after a day. Stop `make run` and start it again."


@dataclass(frozen=True)
class TourStep:
    """A step of the tour: the demo user, the page, what to do there, and the button's text."""

    who: str
    path: str
    title: str
    hint: str
    button: str


STORY = (
    TourStep(
        "erin",
        "/ask",
        "Be Erin, and request access",
        "She is an engineer of the vendor. Choose a service, give a reason, and submit.",
        "Be Erin",
    ),
    TourStep(
        "max",
        "/review",
        "Be Max, and endorse it",
        "He is her manager: the customer is asked only after he endorses.",
        "Be Max",
    ),
    TourStep(
        "",
        "/inbox?to={ann}",
        "Read the mail to Ann",
        "She approves for the customer, and has just been asked. All mails are caught on this machine.",
        "Open the inbox",
    ),
    TourStep(
        "ann",
        "/waiting",
        "Be Ann, and approve it",
        "Check who requests what and why, choose a shorter duration if you like, and approve.",
        "Be Ann",
    ),
    TourStep(
        "ann",
        "/open",
        "See the open window, and revoke it",
        "Open windows show the time left. Revoke the access: it ends immediately, and everybody is notified.",
        "See open windows",
    ),
    TourStep(
        "olga",
        "/operations",
        "Be Olga, and see how it runs",
        "She operates the installation. She sees counts, delays and workers, but no content of requests.",
        "Be Olga",
    ),
)


def cast_of(request: Request) -> DemoUsers:
    """Return the demo users."""
    found: DemoUsers = request.app.state.playground
    return found


DemoUsersDep = Annotated[DemoUsers, Depends(without_thread(cast_of))]


@router.get("/play")
def show(request: Request, chosen: SettingsDep, session: SessionDep, demo_users: DemoUsersDep) -> Response:
    """Show the demo users, and the first step; under the URL from which forms are sent."""
    if request.headers.get("host", "").lower() != chosen.origin.partition("//")[2]:
        return go(request, f"{chosen.origin}/play")
    return page(
        request,
        "play",
        visitor=sign_in_session.visitor(request, session, chosen),
        demo_users=demo_users,
        story=STORY,
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
    """Sign the browser in as a demo user, as their token would; never in production."""
    browser.check_same_site(request, chosen)
    part = cast_of(request).find(who)
    if part is None:
        raise NotFound("There is no demo user of that name. Choose one from the page.")
    try:
        with db.transaction() as session:
            shown = part.token.get_secret_value()
            caller = authentication.authenticate_token(session, shown, environment=chosen.environment)
            if caller.means is not AuthMethod.SAMPLE:
                raise NotYours("Only demo users can be chosen. Choose one from the page.")
            played = replace(caller, key_id=None, signed_in_at=now(session))
            secret = sign_in_session.begin(request, session, chosen, played)
    except NotSignedIn:
        raise Invalid(OLD) from None
    return sign_in_session.signed_in(request, chosen, secret, path or navigation.home(caller))
