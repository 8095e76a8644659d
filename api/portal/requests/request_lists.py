"""List pages with actions: the engineer's own requests, and the vendor's review."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Form, Query, Request, Response
from fastapi.responses import HTMLResponse

from api import browser
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal.pages import TAG, FormContext, FormContextDep, go, page, status_of
from api.portal.requests import act_banner
from api.portal.requests.act_banner import ActBanner
from api.portal.requests.selection import do, grouped
from config.settings import Settings
from lockbox.database import UnitOfWork, now
from lockbox.errors import LockboxError, NotFound, SignInAgain
from lockbox.requests import review_queue
from lockbox.requests.lifecycle import Action

router = CallRouter(tags=[TAG], include_in_schema=False)

MOST_OWN, MOST_TO_REVIEW = 20, 20

Cursor = Annotated[str, Query(max_length=60)]
Done = Annotated[str, Query(max_length=20)]
About = Annotated[UUID | None, Query()]
Version = Annotated[int, Form(ge=1, le=999_999_999)]


@dataclass(frozen=True)
class RefusedListAction:
    request_id: UUID
    action: str
    why: LockboxError
    comment: str


@dataclass(frozen=True)
class RequestListPage:
    path: str
    template: str
    most: int
    read: Callable[..., Any]

    def show(
        self,
        request: Request,
        session: UnitOfWork,
        visitor: Visitor,
        settings: Settings,
        after: str = "",
        refused: RefusedListAction | None = None,
        done: ActBanner | None = None,
    ) -> HTMLResponse:
        found = self.read(session, visitor.caller, cursor=after or None, most=self.most)
        return page(
            request,
            self.template,
            status_of(refused.why) if refused else 200,
            visitor=visitor,
            at=now(session),
            found=found,
            groups=grouped(found.items, lambda one: one.entry),
            is_first=not after,
            most=self.most,
            titles=settings.catalogue.titles,
            refused=refused,
            done=done,
            needs_sign_in=refused is not None and isinstance(refused.why, SignInAgain),
            is_listed=refused is not None and refused.request_id in {one.entry.request.id for one in found.items},
        )

    def act(self, work: FormContext, request_id: UUID, action: Action, comment: str, version: int) -> Response:
        refused = do(work, request_id, action, comment, version)
        if isinstance(refused, NotFound):
            raise refused
        if refused is None:
            return go(work.request, self.path, done=action.value, about=str(request_id))
        said = RefusedListAction(request_id, action, refused, comment)
        with work.open() as (session, visitor):
            return self.show(work.request, session, visitor, work.chosen, refused=said)


OWN = RequestListPage("/mine", "own_requests", MOST_OWN, review_queue.own_requests)
TO_REVIEW = RequestListPage("/review", "review_queue", MOST_TO_REVIEW, review_queue.to_review)


@router.get("/mine")
def show_own(
    request: Request,
    chosen: SettingsDep,
    session: SessionDep,
    after: Cursor = "",
    done: Done = "",
    about: About = None,
) -> Response:
    visitor = browser.visitor(request, session, chosen)
    banner = act_banner.on_a_list(session, visitor.caller, done, about, chosen.catalogue.titles)
    return OWN.show(request, session, visitor, chosen, after, done=banner)


@router.post("/mine/{request_id}/{action}")
def end_own(
    work: FormContextDep,
    request_id: UUID,
    action: Literal["cancel", "complete"],
    version: Version,
    comment: Annotated[str, Form()] = "",
) -> Response:
    return OWN.act(work, request_id, Action(action), comment, version)


@router.get("/review")
def show_to_review(
    request: Request,
    chosen: SettingsDep,
    session: SessionDep,
    after: Cursor = "",
    done: Done = "",
    about: About = None,
) -> Response:
    visitor = browser.visitor(request, session, chosen)
    banner = act_banner.on_a_list(session, visitor.caller, done, about, chosen.catalogue.titles)
    return TO_REVIEW.show(request, session, visitor, chosen, after, done=banner)


@router.post("/review/{request_id}/{action}")
def review(
    work: FormContextDep,
    request_id: UUID,
    action: Literal["endorse", "deny"],
    version: Version,
    comment: Annotated[str, Form()] = "",
) -> Response:
    return TO_REVIEW.act(work, request_id, Action(action), comment, version)
