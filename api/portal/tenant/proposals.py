"""The page of admins whom the vendor proposes, where a tenant can object."""

from typing import Annotated
from uuid import UUID

from fastapi import Form, Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal.account.profile import AccountContextDep
from api.portal.pages import TAG, go, origin, page
from api.schemas.parts import Slug
from lockbox.admin import recovery

router = CallRouter(prefix="/proposals", tags=[TAG], include_in_schema=False)

HERE = "/proposals"


@router.get("")
def show(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    """Show the open proposals that the person could object to."""
    visitor = browser.visitor(request, session, chosen)
    return page(request, "proposals", visitor=visitor, proposals=recovery.open_for(session, visitor.caller))


@router.post("/object")
def object_to(
    work: AccountContextDep, slug: Annotated[Slug, Form()], one: Annotated[UUID, Form(alias="id")]
) -> Response:
    """Object to a proposal, with any sign-in, which ends it."""
    with work.open() as (session, visitor):
        recovery.object_to(session, visitor.caller, origin(work.request), slug, one)
    return go(work.request, HERE)
