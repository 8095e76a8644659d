"""The route that decides several requests, each separately."""

from functools import partial
from uuid import UUID

from fastapi import Depends, Request

from api.call_routes import CallRouter
from api.deps import DatabaseDep, RequestOrigin, caller
from api.problems import problem_of
from api.routes.requests import view
from api.schemas.decisions import DecisionResult, DecisionResults, SeveralDecisions
from api.schemas.parts import Problem, problems
from api.separate_moves import attempt
from lockbox.audit.events import Origin
from lockbox.database import Database
from lockbox.errors import LockboxError
from lockbox.requests.decision_context import DecisionInput


def _signed_in(request: Request, db: DatabaseDep) -> None:
    """Refuse a call without a valid credential before anything else is checked."""
    with db.transaction() as session:
        caller(request, session)


router = CallRouter(prefix="/v1/requests", tags=["requests"], dependencies=[Depends(_signed_in)])


@router.post("/decisions", responses=problems(400))
def decide_requests(
    request: Request, body: SeveralDecisions, origin: RequestOrigin, db: DatabaseDep
) -> DecisionResults:
    """Endorse, approve or deny up to 50 requests, each by itself as if it were the only one.

    The answer is always 200 and holds the outcome of each: the `request` after the decision, or the `problem` that
    says why the decision was refused. If a call is repeated, requests that the first call has decided are refused.

    Each approval covers everything requested. Like a single approval, it needs a fresh sign-in. It is refused with
    `passkey-must-sign` if the policy requires a passkey's signature.
    """
    items = [
        _result(request, db, origin, one.id, DecisionInput(body.action, body.comment, version=one.version))
        for one in body.requests
    ]
    return DecisionResults(items=items)


def _result(
    request: Request, db: Database, origin: Origin, request_id: UUID, decision_input: DecisionInput
) -> DecisionResult:
    done = attempt(request, db, partial(caller, request), request_id, decision_input, origin=origin, shown=view)
    if isinstance(done, LockboxError):
        return DecisionResult(request_id=request_id, request=None, problem=Problem(**problem_of(done)))
    return DecisionResult(request_id=request_id, request=done, problem=None)
