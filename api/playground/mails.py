"""The demo inbox: caught mails as text and as rendered HTML."""

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Query, Request, Response
from fastapi.responses import HTMLResponse

from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.loopback import require_loopback
from api.playground.demo_users import DemoUsers
from api.playground.mailbox import OpenedMail
from api.playground.play import DemoUsersDep
from api.portal import phrases
from api.portal.pages import LOCAL_PATH, POLICY, TAG, page, protect
from api.portal.sign_in import session as sign_in_session
from lockbox.errors import NotFound

router = CallRouter(prefix="/inbox", tags=[TAG], include_in_schema=False, dependencies=[Depends(require_loopback)])

LONGEST_ADDRESS = 320
# A mail's page may not run, fetch or send anything, and only our pages may frame it. Its links, when followed,
# navigate the whole tab.
SANDBOX = "allow-top-navigation-by-user-activation"
POLICY_OF_A_MAIL = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'; "
    f"frame-ancestors 'self'; sandbox {SANDBOX}"
)
HEAD = re.compile(r"<head\b[^>]*>", re.IGNORECASE)


@router.get("")
def show(
    request: Request,
    chosen: SettingsDep,
    session: SessionDep,
    demo_users: DemoUsersDep,
    to: Annotated[str, Query(max_length=LONGEST_ADDRESS)] = "",
) -> Response:
    # Read the mails from disk before any query, so that no transaction waits for the disk.
    mails, recipients = demo_users.mailbox.newest(to), demo_users.mailbox.recipients()
    visitor = sign_in_session.visitor(request, session, chosen)
    return page(request, "mails", visitor=visitor, mails=mails, recipients=recipients, to=to)


@router.get("/{key}")
def read(request: Request, key: str, chosen: SettingsDep, session: SessionDep, demo_users: DemoUsersDep) -> Response:
    mail = _find(demo_users, key)
    pieces = list(mail.pieces(chosen.origin))
    answer = page(
        request,
        "mail",
        visitor=sign_in_session.visitor(request, session, chosen),
        mail=mail,
        pieces=pieces,
        reader=demo_users.at(mail.to),
        leads_to=_leads_to(pieces, chosen.origin),
        sandbox=SANDBOX,
    )
    answer.headers["content-security-policy"] = f"{POLICY}; frame-src 'self'"
    return answer


@router.get("/{key}/page")
def look(request: Request, key: str, demo_users: DemoUsersDep) -> Response:
    """Show the original HTML, for a sandboxed frame."""
    html = _find(demo_users, key).html
    answer = HTMLResponse(HEAD.sub(r'\g<0><base target="_top">', html, count=1))
    protect(request, answer)
    answer.headers["content-security-policy"] = POLICY_OF_A_MAIL
    answer.headers["x-frame-options"] = "SAMEORIGIN"
    return answer


def _leads_to(pieces: Sequence[tuple[str, str | None]], origin: str) -> str | None:
    paths = (link.removeprefix(origin) for _, link in pieces if link)
    return next((path for path in paths if LOCAL_PATH.fullmatch(path)), None)


def _find(demo_users: DemoUsers, key: str) -> OpenedMail:
    mail = demo_users.mailbox.find(key)
    if mail is None:
        raise NotFound(phrases.NO_CAUGHT_MAIL)
    return mail
