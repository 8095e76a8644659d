"""The form of the customer's finding about access that was opened by break-glass; it stands on the request's page."""

from typing import Annotated
from uuid import UUID

from fastapi import Form, Response
from pydantic import ValidationError

from api.call_routes import CallRouter
from api.portal import phrases
from api.portal.account.profile import AccountContextDep
from api.portal.pages import TAG, go, origin
from api.portal.requests.decision_form import DecisionForm
from api.portal.requests.request import show_request
from api.schemas.after_reviews import FindingBody
from lockbox.errors import CommentRequired, Conflict, Invalid, NotYours
from lockbox.requests import after_reviews, policy_diff
from lockbox.requests.after_reviews import FindingInput

router = CallRouter(prefix="/requests", tags=[TAG], include_in_schema=False)


@router.post("/{request_id}/finding")
def give_finding(
    work: AccountContextDep,
    request_id: UUID,
    finding: Annotated[str, Form()] = "",
    comment: Annotated[str, Form()] = "",
) -> Response:
    """Give the finding; a refusal is shown on the request's page."""
    try:
        with work.open() as (session, visitor):
            came = origin(work.request)
            after_reviews.give_finding(session, visitor.caller, came, request_id, _said(finding, comment))
    except (Conflict, NotYours, Invalid) as refused:
        with work.open() as (session, visitor):
            said = DecisionForm("finding", comment, finding=finding)
            return show_request(work.request, session, work.chosen, visitor, request_id, refused=refused, said=said)
    return go(work.request, f"/requests/{request_id}", done="after_review")


def _said(finding: str, comment: str) -> FindingInput:
    if not comment.strip():
        raise CommentRequired(after_reviews.SAY_WHY, field="comment")
    try:
        body = FindingBody.model_validate({"finding": finding, "comment": comment.replace("\r\n", "\n")})
    except ValidationError as error:
        raise Invalid(phrases.NOT_ACCEPTED.format(why=policy_diff.advice(error)), field="comment") from None
    return FindingInput(body.finding, body.comment)
