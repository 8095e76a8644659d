"""Routes for activity."""

from uuid import UUID

from fastapi import Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep
from api.routes.requests import Key
from api.schemas.activity import ActivityList, ActivityReceipt, NewActivity
from api.schemas.parts import problems
from lockbox.errors import Invalid
from lockbox.requests import activity, idempotency, queries

router = CallRouter(prefix="/v1/requests", tags=["requests"])


@router.post(
    "/{request_id}/activity", status_code=201, response_model=ActivityReceipt, responses=problems(400, 404, 409)
)
def report_activity(
    request_id: UUID, body: NewActivity, who: CurrentUser, origin: RequestOrigin, session: SessionDep, key: Key = None
) -> Response:
    """Report an engineer's activity, up to an hour after the window's end; needs the scope `activity:report`.

    If any entry or use lies outside the window, none is accepted (`outside-window`). With an Idempotency-Key, a
    report can be repeated safely for 24 hours. A report with uses requires the key.
    """
    if body.uses and key is None:
        raise Invalid("A report with uses needs an Idempotency-Key.", field="Idempotency-Key")
    plain = f"activity {request_id} {body.model_dump_json()}".encode()
    answer = idempotency.earlier_answer(session, key, plain) if key else None
    if answer is None:
        entries, uses = [entry.entry() for entry in body.entries], [use.use() for use in body.uses]
        taken = activity.report(session, who, origin, request_id, entries, uses=uses)
        text = ActivityReceipt(events=taken).model_dump_json()
        if key:
            idempotency.keep(session, who.person_id, key, plain, text)
    else:
        text = ActivityReceipt.model_validate(answer).model_dump_json()
    return Response(text, 201, {"cache-control": "no-store"}, "application/json")


@router.get("/{request_id}/activity", responses=problems(404))
def list_activity(request_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> ActivityList:
    """Show the reported activity inside the window; the list is empty if nothing was reported."""
    entry = queries.find(session, who, request_id)
    shown = ActivityList(items=activity.read(session, who, request_id))
    queries.record_read(session, who, origin, entry.request)
    return shown
