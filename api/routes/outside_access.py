"""Routes for access that bypassed Lockbox."""

from fastapi import Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep
from api.routes.requests import Key
from api.schemas.gate import NewOutsideAccess, OutsideAccessList, OutsideAccessReceipt, OutsideAccessView
from api.schemas.parts import Slug, problems
from lockbox.admin import outside_access
from lockbox.requests import idempotency

router = CallRouter(prefix="/v1/tenants/{slug}/outside-access")


@router.post(
    "",
    tags=["vendor"],
    status_code=201,
    response_model=OutsideAccessReceipt,
    responses=problems(400, 404, 409),
)
def declare_outside_access(
    slug: Slug,
    body: NewOutsideAccess,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
    key: Key = None,
) -> Response:
    """As an operator, declare access that engineers had around Lockbox and that has ended.

    It is recorded in the tenant's log, shown on the tenant's page, and sent to its admins, approvers and webhooks. It
    cannot be changed or withdrawn. With an Idempotency-Key, the call can be repeated safely for 24 hours.
    """
    plain = f"outside access {slug} {body.model_dump_json()}".encode()
    answer = idempotency.earlier_answer(session, key, plain) if key else None
    if answer is None:
        services = chosen.catalogue.services
        declared = outside_access.declare(session, who, origin, slug, body.taken(), services=services)
        text = OutsideAccessReceipt(id=declared).model_dump_json()
        if key:
            idempotency.keep(session, who.person_id, key, plain, text)
    else:
        text = OutsideAccessReceipt.model_validate(answer).model_dump_json()
    return Response(text, 201, {"cache-control": "no-store"}, "application/json")


@router.get("", tags=["tenants"], responses=problems(404))
def list_outside_access(slug: Slug, who: CurrentUser, session: SessionDep) -> OutsideAccessList:
    """Show the tenant's members the access around Lockbox that was declared, the newest first, fifty at most."""
    declared = outside_access.of_tenant(session, who, slug)
    return OutsideAccessList(items=[OutsideAccessView.model_validate(one, from_attributes=True) for one in declared])
