"""Routes for findings about access by break-glass."""

from uuid import UUID

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep
from api.schemas.after_reviews import AfterReviewView, DueFindingList, DueFindingView, FindingBody
from api.schemas.parts import PersonView, problems, view_of
from lockbox.requests import after_reviews
from lockbox.requests.after_reviews import DueFinding, FindingInput

router = CallRouter(prefix="/v1", tags=["requests"])


@router.get("/findings", responses=problems())
def list_due_findings(who: CurrentUser, session: SessionDep) -> DueFindingList:
    """List the findings about break-glass that the caller may give now, the earliest due first.

    While a finding is overdue, the customer's policy may block other break-glass. At most 50 are listed, and none to
    an API token, which cannot give a finding.
    """
    return DueFindingList(items=[_due(finding) for finding in after_reviews.due_findings(session, who)])


@router.post("/requests/{request_id}/finding", responses=problems(400, 404, 409))
def record_finding(
    request_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep, body: FindingBody
) -> AfterReviewView:
    """Say as an approver or admin whether access by break-glass was justified, once it has ended."""
    found = after_reviews.give_finding(session, who, origin, request_id, FindingInput(body.finding, body.comment))
    return AfterReviewView.model_validate(found, from_attributes=True)


def _due(one: DueFinding) -> DueFindingView:
    request = one.entry.request
    return view_of(
        DueFindingView,
        one,
        request_id=request.id,
        tenant=one.entry.tenant,
        service=request.service,
        requester=PersonView(id=request.requester_id, name=one.entry.requester),
    )
