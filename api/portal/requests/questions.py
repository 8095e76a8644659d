"""The page of questions about a request."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Form, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import ValidationError

from api import browser
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import TAG, FormContextDep, go, origin, page, status_of
from api.schemas.questions import QuestionText
from config.settings import Settings
from lockbox import mistakes
from lockbox.database import UnitOfWork
from lockbox.errors import Conflict, Invalid, LockboxError, NotYours
from lockbox.requests import inbox, queries, questions, request_page

router = CallRouter(prefix="/requests/{request_id}/questions", tags=[TAG], include_in_schema=False)

Text = Annotated[str, Form()]


@dataclass(frozen=True)
class QuestionForm:
    text: str
    question_id: UUID | None = None


@router.get("")
def show(request: Request, request_id: UUID, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(request, session, browser.visitor(request, session, chosen), chosen, request_id)


@router.post("")
def ask(work: FormContextDep, request_id: UUID, text: Text = "") -> Response:
    try:
        with work.open() as (session, visitor):
            questions.ask(session, visitor.caller, origin(work.request), request_id, _said(text))
    except (Conflict, NotYours, Invalid) as refused:
        return _refused(work, request_id, refused, QuestionForm(text))
    return go(work.request, f"/requests/{request_id}", done="question")


@router.post("/{question_id}/answer")
def answer(work: FormContextDep, request_id: UUID, question_id: UUID, text: Text = "") -> Response:
    try:
        with work.open() as (session, visitor):
            questions.answer(session, visitor.caller, origin(work.request), request_id, question_id, _said(text))
    except (Conflict, NotYours, Invalid) as refused:
        return _refused(work, request_id, refused, QuestionForm(text, question_id))
    return go(work.request, f"/requests/{request_id}", done="answer")


def _said(text: str) -> str:
    try:
        return QuestionText(text=text.replace("\r\n", "\n")).text
    except ValidationError as error:
        raise Invalid(phrases.NOT_ACCEPTED.format(why=mistakes.advice(error)), field="text") from None


def _refused(work: FormContextDep, request_id: UUID, refused: LockboxError, written: QuestionForm) -> HTMLResponse:
    with work.open() as (session, visitor):
        return _shown(work.request, session, visitor, work.chosen, request_id, refused, written)


def _shown(
    request: Request,
    session: UnitOfWork,
    visitor: Visitor,
    settings: Settings,
    request_id: UUID,
    refused: LockboxError | None = None,
    written: QuestionForm | None = None,
) -> HTMLResponse:
    read = request_page.read(session, visitor.caller, request_id)
    entry = read.entry
    service = settings.catalogue.services.get(entry.request.service)
    shown = page(
        request,
        "questions_page",
        status_of(refused) if refused else 200,
        visitor=visitor,
        at=read.at,
        entry=entry,
        asked=entry.request,
        tallies=inbox.sole_tallies({request_id: read.tallies}),
        title=service.title if service else entry.request.service,
        talk=questions.conversation(read.exchanges, visitor.caller, entry.request, read.known, read.at),
        refused=refused,
        written=written,
    )
    queries.record_read(session, visitor.caller, origin(request), entry.request)
    return shown
