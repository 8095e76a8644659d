"""The page of a person's own requests: their state, who has yet to decide, and forms to end them."""

from typing import Annotated, Literal
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse

from api import browser
from api.browser import Visitor
from api.deps import SessionDep, SettingsDep
from api.portal import list_actions
from api.portal.account import AccountContextDep
from api.portal.list_actions import RefusedListAction
from api.portal.pages import TAG, go, page, status_of
from config.settings import Settings
from lockbox.database import UnitOfWork, now
from lockbox.requests import inbox, review_queue
from lockbox.requests.lifecycle import Action

router = APIRouter(prefix="/mine", tags=[TAG], include_in_schema=False)

HERE = "/mine"
MOST = 20

Cursor = Annotated[str, Query(max_length=40)]


@router.get("")
def show(request: Request, chosen: SettingsDep, session: SessionDep, after: Cursor = "") -> Response:
    """Show the person's own requests, the open ones first."""
    return _shown(request, session, browser.visitor(request, session, chosen), chosen, after)


@router.post("/{request_id}/{action}")
def act(
    work: AccountContextDep,
    request_id: UUID,
    action: Literal["cancel", "complete"],
    version: Annotated[int, Form(ge=1, le=999_999_999)],
    comment: Annotated[str, Form()] = "",
) -> Response:
    """Cancel or complete a request; a refusal is shown beside it."""
    refused = list_actions.do(work, request_id, Action(action), comment, version)
    if refused is None:
        return go(work.request, HERE)
    with work.open() as (session, visitor):
        return _shown(
            work.request, session, visitor, work.chosen, "", RefusedListAction(request_id, action, refused, comment)
        )


def _shown(
    request: Request,
    session: UnitOfWork,
    visitor: Visitor,
    chosen: Settings,
    after: str,
    refused: RefusedListAction | None = None,
) -> HTMLResponse:
    found = review_queue.own_requests(session, visitor.caller, cursor=after or None, most=MOST)
    return page(
        request,
        "mine",
        status_of(refused.why) if refused else 200,
        visitor=visitor,
        at=now(session),
        items=found.items,
        tallies=inbox.tallies_of(session, visitor.caller, [one.entry.request for one in found.items]),
        next_cursor=found.next_cursor,
        is_first=not after,
        titles={name: service.title for name, service in chosen.services.items()},
        refused=refused,
        is_listed=refused is not None and refused.request_id in {one.entry.request.id for one in found.items},
    )
