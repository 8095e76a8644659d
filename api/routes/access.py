"""The route that a guarded system asks before it serves: may this engineer in, now?"""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response

from api.deps import CurrentUser, SessionDep
from api.schemas.parts import Resource, Slug, Word, problems
from api.schemas.requests import AccessView
from lockbox.requests import queries
from lockbox.requests.queries import AccessCheck

router = APIRouter(tags=["access"])


@router.get("/v1/access", responses=problems())
def check(
    who: CurrentUser,
    session: SessionDep,
    response: Response,
    tenant: Slug,
    service: Word,
    resource: Annotated[Resource, Query()],
    action: Word,
    engineer: UUID,
) -> AccessView:
    """Answer 200 while a window is open, else 403: a client that reads only the status fails shut.

    The answer repeats what it is about. Each parameter may be there once, or the answer is 422.
    """
    asked = AccessCheck(tenant, service, resource, action, engineer)
    window = queries.check(session, who, asked)
    response.headers["cache-control"] = "no-store"
    return AccessView(**vars(asked), request_id=window.request.id, deadline_at=window.request.deadline_at)
