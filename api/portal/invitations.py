"""The page of an invitation: the mailed code is typed here, and the place is taken."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response

from api import browser, deps
from api.deps import Chosen, House
from api.portal import entering
from api.portal.pages import TAG, page, status_of
from lockbox.refusals import NotYours, Unknown
from lockbox.requests.writing import Origin
from lockbox.tenancy import invitations

router = APIRouter(prefix="/invitations", tags=[TAG], include_in_schema=False)


@router.get("/{invitation_id}")
def show(request: Request, invitation_id: str) -> Response:
    """Show the form for the code; it looks the same for an invitation that there is not."""
    return page(request, "invitation", action=f"/invitations/{_id(invitation_id)}", error=None)


@router.post("/{invitation_id}")
def accept(
    request: Request,
    invitation_id: str,
    chosen: Chosen,
    house: House,
    code: Annotated[str, Form(max_length=200)] = "",
) -> Response:
    """Take the place and sign in: the mail has proved the address."""
    browser.check_same_site(request, chosen)
    one = _id(invitation_id)
    entering.count(request, chosen, house)
    place = deps.place(request)
    try:
        with house.transaction() as session:
            caller = invitations.accept(session, one, code, origin=Origin("portal", place.address, place.user_agent))
            secret = entering.begin(request, session, chosen, caller)
    except NotYours as refused:
        action = f"/invitations/{one}"
        return page(request, "invitation", status_of(refused), action=action, error=refused.detail)
    return entering.signed_in(request, chosen, secret, "/account")


def _id(shown: str) -> UUID:
    try:
        return UUID(shown)
    except ValueError:
        raise Unknown("There is no such page.") from None
