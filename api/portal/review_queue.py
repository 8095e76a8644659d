"""The review queue: requests in the vendor's review, with forms to endorse and deny."""

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
from lockbox.errors import SignInAgain
from lockbox.requests import review_queue
from lockbox.requests.lifecycle import Action

router = APIRouter(prefix="/review", tags=[TAG], include_in_schema=False)

HERE = "/review"
MOST = 50
Cursor = Annotated[str, Query(max_length=60)]


@router.get("")
def show(request: Request, chosen: SettingsDep, session: SessionDep, after: Cursor = "") -> Response:
    """Show a manager the requests in review, the nearest deadline first."""
    return _shown(request, session, browser.visitor(request, session, chosen), chosen, after)


@router.post("/{request_id}/{action}")
def act(
    work: AccountContextDep,
    request_id: UUID,
    action: Literal["endorse", "deny"],
    version: Annotated[int, Form(ge=1, le=999_999_999)],
    comment: Annotated[str, Form()] = "",
) -> Response:
    """Endorse or deny a request; a refusal is shown beside it, with the form as sent."""
    refused = list_actions.do(work, request_id, Action(action), comment, version)
    if refused is None:
        return go(work.request, HERE)
    with work.open() as (session, visitor):
        said = RefusedListAction(request_id, action, refused, comment)
        return _shown(work.request, session, visitor, work.chosen, "", said)


def _shown(
    request: Request,
    session: UnitOfWork,
    visitor: Visitor,
    chosen: Settings,
    after: str,
    refused: RefusedListAction | None = None,
) -> HTMLResponse:
    found = review_queue.to_review(session, visitor.caller, cursor=after or None, most=MOST)
    return page(
        request,
        "review",
        status_of(refused.why) if refused else 200,
        visitor=visitor,
        at=now(session),
        found=found,
        is_first=not after,
        most=MOST,
        titles={name: service.title for name, service in chosen.services.items()},
        refused=refused,
        needs_sign_in=refused is not None and isinstance(refused.why, SignInAgain),
        is_listed=refused is not None and refused.request_id in {one.entry.request.id for one in found.items},
    )
