"""The "I'm reviewing this" form on a request's page, which the pages' script renews."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import Form, Response

from api.call_routes import CallRouter
from api.portal import phrases
from api.portal.account.profile import AccountContextDep
from api.portal.pages import TAG, go
from lockbox.errors import NotFound
from lockbox.requests import inbox

router = CallRouter(prefix="/requests", tags=[TAG], include_in_schema=False)


@router.post("/{request_id}/look")
def look(
    work: AccountContextDep, request_id: str, looking: Annotated[Literal["on", "off"], Form()] = "on"
) -> Response:
    """Show the others on the person's side that they are reviewing a request, or no longer."""
    change = inbox.begin if looking == "on" else inbox.end
    with work.open() as (session, visitor):
        try:
            one = UUID(request_id)
        except ValueError:
            raise NotFound(phrases.NO_REQUEST) from None
        change(session, work.db.schedule, visitor.caller, one)
    return go(work.request, f"/requests/{one}")
