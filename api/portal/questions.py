"""The page of what is asked about a request and answered; its forms stand on the request's own page too."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError
from sqlmodel import Session

from api import browser
from api.browser import Visitor
from api.deps import Chosen, Work
from api.portal.account import AtDesk
from api.portal.pages import TAG, go, origin, page, status_of
from api.schemas.questions import Remark
from config.settings import Settings
from lockbox.database import now
from lockbox.errors import Conflict, Invalid, NotYours, Refusal
from lockbox.requests import inbox, policy_diff, queries, questions, read_log

router = APIRouter(prefix="/requests/{request_id}/questions", tags=[TAG], include_in_schema=False)

Text = Annotated[str, Form()]


@dataclass(frozen=True)
class Written:
    """What somebody has written that was refused: a question, or the answer to the one that is named."""

    text: str
    question_id: UUID | None = None


@router.get("")
def show(request: Request, request_id: UUID, chosen: Chosen, session: Work) -> Response:
    """Show what was asked about a request and answered, with forms for whoever may ask or answer."""
    return _shown(request, session, browser.visitor(request, session, chosen), chosen, request_id)


@router.post("")
def ask(work: AtDesk, request_id: UUID, text: Text = "") -> Response:
    """Ask the engineer something; what is refused loses nothing that was written."""
    try:
        with work.open() as (session, visitor):
            questions.ask(session, visitor.caller, origin(work.request), request_id, _said(text))
    except (Conflict, NotYours, Invalid) as refused:
        return _refused(work, request_id, refused, Written(text))
    return go(work.request, f"/requests/{request_id}")


@router.post("/{question_id}/answer")
def answer(work: AtDesk, request_id: UUID, question_id: UUID, text: Text = "") -> Response:
    """Answer a question; what is refused loses nothing that was written."""
    try:
        with work.open() as (session, visitor):
            came = origin(work.request)
            questions.answer(session, visitor.caller, came, request_id, question_id, _said(text))
    except (Conflict, NotYours, Invalid) as refused:
        return _refused(work, request_id, refused, Written(text, question_id))
    return go(work.request, f"/requests/{request_id}")


def _said(text: str) -> str:
    try:
        return Remark(text=text.replace("\r\n", "\n")).text
    except ValidationError as error:
        raise Invalid(f"What you wrote was not taken: {policy_diff.told(error)}.", field="text") from None


def _refused(work: AtDesk, request_id: UUID, refused: Refusal, written: Written) -> HTMLResponse:
    with work.open() as (session, visitor):
        return _shown(work.request, session, visitor, work.chosen, request_id, refused, written)


def _shown(
    request: Request,
    session: Session,
    visitor: Visitor,
    chosen: Settings,
    request_id: UUID,
    refused: Refusal | None = None,
    written: Written | None = None,
) -> HTMLResponse:
    entry = queries.find(session, visitor.caller, request_id)
    service = chosen.services.get(entry.request.service)
    shown = page(
        request,
        "questions_page",
        status_of(refused) if refused else 200,
        visitor=visitor,
        at=now(session),
        entry=entry,
        asked=entry.request,
        tallies=inbox.of_those_that_wait(session, visitor.caller, [entry.request]),
        title=service.title if service else entry.request.service,
        talk=questions.talk(session, visitor.caller, entry),
        refused=refused,
        written=written,
    )
    read_log.note(session, visitor.caller, origin(request), entry.request)
    return shown
