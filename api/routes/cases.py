"""The route by which a ticket system closes a case."""

from typing import Annotated

from fastapi import Path, Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep
from api.schemas.cases import CaseClosingView, EndedRequestView
from api.schemas.parts import problems
from lockbox.errors import NotFound
from lockbox.facts.bounds import Word
from lockbox.requests import closed_cases
from lockbox.text_rules import IS_LINE

router = CallRouter(prefix="/v1/cases", tags=["requests"])

CaseRef = Annotated[str, Path(min_length=1, max_length=100), IS_LINE]


@router.post("/{case_system}/{case_ref}/closed", responses=problems(404))
def end_case(
    case_system: Word,
    case_ref: CaseRef,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
    response: Response,
) -> CaseClosingView:
    """Cancel the pending requests of a closed case and revoke its open windows; needs the scope `case:close`.

    Only tenants that the token is bound to are affected. If the catalogue has only one ticket system, the call also
    ends requests that name no ticket system. Repeating the call is harmless.
    """
    systems = chosen.catalogue.case_systems
    is_only = systems.keys() == {case_system}
    closing = closed_cases.close_case(session, who, origin, case_system, case_ref, is_only=is_only)
    if case_system not in systems and not closing.ended:
        raise NotFound("The catalogue has no such ticket system.")
    response.headers["cache-control"] = "no-store"
    ended = [
        EndedRequestView(request_id=one.request.id, tenant=one.tenant, state=one.request.state)
        for one in closing.ended
    ]
    return CaseClosingView(case_system=case_system, case_ref=case_ref, ended=ended, left=closing.left)
