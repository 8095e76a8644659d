"""The access check that gateways call: may this engineer in, now?"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from api.deps import CallGroupsDep, GroupedRoute, caller
from api.schemas.parts import Resource, Slug, Word, problems
from api.schemas.requests import AccessView
from lockbox.database import UnitOfWork
from lockbox.requests import queries
from lockbox.requests.queries import AccessCheck, RequestEntry

router = APIRouter(tags=["access"], route_class=GroupedRoute)


@router.get("/v1/access", responses=problems())
async def check(
    request: Request,
    groups: CallGroupsDep,
    response: Response,
    tenant: Slug,
    service: Word,
    resource: Annotated[Resource, Query()],
    action: Word,
    engineer: UUID,
) -> AccessView:
    """Answer 200 while a window is open, else 403, so that a client that only reads the status fails closed.

    The answer repeats the parameters. A repeated parameter is answered with 422.
    """
    asked = AccessCheck(tenant, service, resource, action, engineer)

    def judge(session: UnitOfWork) -> RequestEntry:
        session.foresee(queries.ahead_of_check(asked))
        return queries.check(session, caller(request, session), asked)

    window = await groups.run(judge)
    response.headers["cache-control"] = "no-store"
    return AccessView(**vars(asked), request_id=window.request.id, deadline_at=window.request.deadline_at)
