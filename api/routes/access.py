"""The access check that gateways call."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response

from api.call_routes import CallRouter
from api.deps import CallGroupsDep, GroupedRoute, caller
from api.schemas.access import AccessView
from api.schemas.parts import Slug, problems
from gate.answers import GateReason
from gate.call_counts import CallCounts, CountedCall, GateDecision
from lockbox.database import UnitOfWork
from lockbox.errors import NoOpenWindow, WindowUsedUp
from lockbox.facts.bounds import Resource, Word
from lockbox.identity.roles import Caller, Role
from lockbox.requests import access_check
from lockbox.requests.access_check import AccessCheck
from lockbox.requests.models import RequestEntry

router = CallRouter(tags=["access"], route_class=GroupedRoute)


@router.get("/v1/access", responses=problems())
async def check_access(
    request: Request,
    groups: CallGroupsDep,
    response: Response,
    tenant: Slug,
    service: Word,
    resource: Annotated[Resource, Query()],
    action: Word,
    engineer: UUID,
    call: Annotated[str | None, Query(min_length=1, max_length=100, pattern=r"^[\x21-\x7e]+$")] = None,
) -> AccessView:
    """Answer 200 while a window is open, else 403, so that a client that only reads the status fails closed.

    The answer contains the checked parameters. A parameter that is sent twice is answered with 422. If access was
    approved for a limited number of uses, each 200 to a service account counts as one use. `call` is the service
    account's own id of the checked call; the same id within five seconds counts as the same use.
    """
    asked = AccessCheck(tenant, service, resource, action, engineer)

    def judge(session: UnitOfWork) -> tuple[Caller, RequestEntry | NoOpenWindow]:
        session.foresee(access_check.ahead_of_check(asked, call))
        asking = caller(request, session)
        try:
            return asking, access_check.check(session, asking, asked, call)
        except NoOpenWindow as refused:
            return asking, refused

    asking, window = await groups.run(judge)
    if asking.holds(Role.SYSTEM):
        _count(request.app.state.gateway.counts, asking, asked, window)
    if isinstance(window, NoOpenWindow):
        raise window
    response.headers["cache-control"] = "no-store"
    answer: dict[str, Any] = {"request_id": window.request.id, "deadline_at": window.request.deadline_at}
    answer["break_glass"] = window.request.break_glass
    return AccessView(**asked._asdict(), **answer, uses_left=window.uses_left)


def _count(counts: CallCounts, asking: Caller, asked: AccessCheck, window: RequestEntry | NoOpenWindow) -> None:
    call = CountedCall(asking.person_id, asked.service, asked)
    if isinstance(window, NoOpenWindow):
        reason = GateReason.USED_UP if isinstance(window, WindowUsedUp) else GateReason.NO_WINDOW
        counts.count(call, GateDecision.DENY, reason)
    else:
        counts.count_use(call, asked, window.request.id, is_same_use=window.is_same_use)
