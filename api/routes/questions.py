"""Routes for questions about a request."""

from uuid import UUID

from fastapi import Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep
from api.routes.requests import Key
from api.routes.timeline import ERASED
from api.schemas.parts import PersonView, problems, view_of
from api.schemas.questions import QuestionList, QuestionText, QuestionView
from lockbox.requests import idempotency, queries, questions
from lockbox.requests.questions import Exchange

router = CallRouter(prefix="/v1/requests", tags=["requests"])


@router.post(
    "/{request_id}/questions", status_code=201, response_model=QuestionView, responses=problems(400, 404, 409)
)
def ask_question(
    request_id: UUID,
    body: QuestionText,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    key: Key = None,
) -> Response:
    """Ask the engineer a question, as a manager during the review, or as an approver or delegate after it.

    The engineer is notified. If the policy says so (`questions_stop_clock`), the approval clock pauses until all
    questions are answered, for at most one further approval window. An Idempotency-Key works as for a submission.
    """
    plain = f"ask {request_id} {body.model_dump_json()}".encode()
    answer = idempotency.earlier_answer(session, key, plain) if key else None
    if answer is None:
        answered = _view(questions.ask(session, who, origin, request_id, body.text)).model_dump_json()
        if key:
            idempotency.keep(session, who.person_id, key, plain, answered)
    else:
        answered = QuestionView.model_validate(answer).model_dump_json()
    return Response(answered, 201, media_type="application/json")


@router.get("/{request_id}/questions", responses=problems(404))
def list_questions(request_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> QuestionList:
    """List a request's questions with their answers, the oldest first."""
    entry = queries.find(session, who, request_id)
    shown = QuestionList(items=[_view(one) for one in questions.of_request(session, who, request_id)])
    queries.record_read(session, who, origin, entry.request)
    return shown


@router.post("/{request_id}/questions/{question_id}/answer", responses=problems(400, 404, 409))
def answer_question(
    request_id: UUID,
    question_id: UUID,
    body: QuestionText,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
) -> QuestionView:
    """Answer a question, as the requester; the asker is notified."""
    return _view(questions.answer(session, who, origin, request_id, question_id, body.text))


def _view(one: Exchange) -> QuestionView:
    answered_by = PersonView(id=one.answered_by, name=one.answerer or ERASED) if one.answered_by else None
    asked_by = PersonView(id=one.asked_by, name=one.asker or ERASED)
    return view_of(QuestionView, one, asked_by=asked_by, answered_by=answered_by)
