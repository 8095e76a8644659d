"""The invitation page, on which a person types the mailed code."""

from typing import Annotated
from uuid import UUID

from fastapi import Form, Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import DatabaseDep, SettingsDep
from api.portal import phrases
from api.portal.account import welcome
from api.portal.pages import TAG, origin, page, status_of
from api.portal.sign_in import session as sign_in_session
from lockbox.admin import invitations
from lockbox.errors import NotFound, NotYours, SignInAgain

router = CallRouter(prefix="/invitations", tags=[TAG], include_in_schema=False)


@router.get("/{invitation_id}")
def show(request: Request, invitation_id: str) -> Response:
    """The page looks the same for an unknown invitation."""
    return _shown(request, _id(invitation_id))


@router.post("/{invitation_id}")
def accept(
    request: Request,
    invitation_id: str,
    chosen: SettingsDep,
    db: DatabaseDep,
    code: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """The mailed code proves that the person has the address."""
    browser.check_same_site(request, chosen)
    one = _id(invitation_id)
    sign_in_session.count(request, chosen, db)
    with db.transaction() as session:
        found = sign_in_session.visitor(request, session, chosen)
    try:
        with db.transaction() as session:
            caller = invitations.accept(
                session,
                one,
                code,
                origin=origin(request),
                issuers=chosen.issuers,
                visitor=found.caller if found else None,
            )
            secret = sign_in_session.begin(request, session, chosen, caller)
    except NotYours as refused:
        return _shown(request, one, refused, code)
    return sign_in_session.signed_in(request, chosen, secret, welcome.HERE)


def _shown(request: Request, one: UUID, refused: NotYours | None = None, code: str = "") -> Response:
    return page(
        request,
        "invitation",
        status_of(refused) if refused else 200,
        action=f"/invitations/{one}",
        refused=refused,
        code=code,
        needs_sign_in=isinstance(refused, SignInAgain),
    )


def _id(shown: str) -> UUID:
    try:
        return UUID(shown)
    except ValueError:
        raise NotFound(phrases.NO_PAGE) from None
