"""Routes for requests that follow an earlier request: resubmissions and extensions."""

from uuid import UUID

from fastapi import Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep, submission_limits
from api.routes.requests import Key, submission_answer
from api.schemas.parts import problems
from api.schemas.requests import NewRequestView
from api.schemas.submissions import ExtensionRequest
from lockbox.requests import extend, resubmission
from lockbox.requests.extend import ExtensionInput
from lockbox.requests.submit import SubmittedRequest

router = CallRouter(prefix="/v1/requests", tags=["requests"])


@router.post("/{request_id}/ask-again", status_code=201, response_model=NewRequestView, responses=problems(404, 409))
def resubmit_request(
    request_id: UUID,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
    key: Key = None,
) -> Response:
    """Resubmit a request that is `timed_out`, as its requester; today's policy applies.

    In any other state the answer is `not-timed-out`. If an earlier resubmission is still open, the answer is
    `asked-again` with the id of that resubmission in `request_id`. An Idempotency-Key works as for a submission.
    """
    limits = submission_limits(chosen)

    def file() -> SubmittedRequest:
        return resubmission.resubmit(session, who, origin, request_id, chosen.catalogue.services, limits=limits)

    return submission_answer(session, who, key, f"ask-again {request_id}".encode(), file)


@router.post(
    "/{request_id}/extend", status_code=201, response_model=NewRequestView, responses=problems(400, 404, 409)
)
def submit_extension(
    request_id: UUID,
    body: ExtensionRequest,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
    key: Key = None,
) -> Response:
    """Request more time for an open window, as its requester: a linked request whose window follows the open one.

    Today's policy and approvers decide about it; the open window stays as it is. If an extension is already open, the
    answer is `already-extended` with its id in `request_id`. An Idempotency-Key works as for a submission.
    """
    limits = submission_limits(chosen)
    wanted = ExtensionInput(**dict(body))

    def file() -> SubmittedRequest:
        return extend.extend(session, who, origin, request_id, wanted, chosen.catalogue.services, limits=limits)

    return submission_answer(session, who, key, f"extend {request_id} {body.model_dump_json()}".encode(), file)
