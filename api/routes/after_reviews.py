"""The route of the customer's finding about access that was opened by break-glass."""

from uuid import UUID

from fastapi import APIRouter

from api.deps import CurrentUser, RequestOrigin, SessionDep
from api.schemas.after_reviews import AfterReviewView, FindingBody
from api.schemas.parts import problems
from lockbox.requests import after_reviews
from lockbox.requests.after_reviews import FindingInput

router = APIRouter(prefix="/v1/requests", tags=["requests"])


@router.post("/{request_id}/finding", responses=problems(400, 404, 409))
def record_finding(
    request_id: UUID, who: CurrentUser, came: RequestOrigin, session: SessionDep, body: FindingBody
) -> AfterReviewView:
    """Say as an approver or admin whether access by break-glass was justified, once it has ended."""
    found = after_reviews.find(session, who, came, request_id, FindingInput(body.finding, body.comment))
    return AfterReviewView(**vars(found))
