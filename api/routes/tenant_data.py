"""Routes for tenants' data."""

from typing import Annotated

from fastapi import Query

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep, SettingsDep
from api.schemas.parts import Slug, problems
from api.schemas.tenant_data import HoldInput, RetentionInput, TenantDataPage, TenantDataView
from config.settings import Settings
from lockbox.admin import legal_holds, tenant_data
from lockbox.database import UnitOfWork
from lockbox.identity.roles import Caller

router = CallRouter()

AT_TENANT = "/v1/tenants/{slug}"


@router.get("/v1/vendor/data", tags=["vendor"], responses=problems())
def list_tenant_data(
    who: CurrentUser,
    session: SessionDep,
    cursor: Slug | None = None,
    limit: Annotated[int, Query(ge=1, le=tenant_data.MOST_A_PAGE)] = 50,
) -> TenantDataPage:
    """List the tenants with a legal hold, an off-boarding or a retention of their own, by slug.

    For the vendor's operators and auditors.
    """
    return TenantDataPage.of(tenant_data.listed(session, who, cursor=cursor, most=limit))


@router.get(f"{AT_TENANT}/data", tags=["tenants"], responses=problems(404))
def get_tenant_data(slug: Slug, who: CurrentUser, session: SessionDep, chosen: SettingsDep) -> TenantDataView:
    """Show for how long a tenant's log is kept, its legal holds, and whether it is leaving.

    For its members, and for the vendor's operators and auditors.
    """
    return _shown(session, who, slug, chosen)


@router.put(f"{AT_TENANT}/retention", tags=["tenants"], responses=problems(400, 404, 409))
def change_retention(
    slug: Slug,
    body: RetentionInput,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
) -> TenantDataView:
    """Set for how many days the tenant's log is kept, as a tenant admin with a fresh sign-in.

    At least 30 days, and at most as many as the installation keeps. Older events are removed when the owner of the
    installation next runs `lockbox operate retain`, unless there is a legal hold.
    """
    tenant_data.keep_for(session, who, origin, slug, body.days, most=chosen.retention_days or None)
    return _shown(session, who, slug, chosen)


@router.put(f"{AT_TENANT}/hold", tags=["tenants"], responses=problems(400, 404, 409))
def start_legal_hold(
    slug: Slug, body: HoldInput, who: CurrentUser, origin: RequestOrigin, session: SessionDep, chosen: SettingsDep
) -> TenantDataView:
    """Set a legal hold, with a fresh sign-in, as a tenant admin for the customer or as an operator for the vendor.

    Until the side that set the hold releases it, none of the tenant's data is removed or erased.
    """
    legal_holds.hold(session, who, origin, slug, body.reason)
    return _shown(session, who, slug, chosen)


@router.delete(f"{AT_TENANT}/hold", tags=["tenants"], status_code=204, responses=problems(404, 409))
def end_legal_hold(slug: Slug, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> None:
    """Release the hold of the caller's side, as a tenant admin or an operator with a fresh sign-in."""
    legal_holds.release(session, who, origin, slug)


@router.put(f"{AT_TENANT}/off-boarding", tags=["tenants"], responses=problems(400, 404, 409))
def request_off_boarding(
    slug: Slug, who: CurrentUser, origin: RequestOrigin, session: SessionDep, chosen: SettingsDep
) -> TenantDataView:
    """Ask the vendor to export and then erase all data of the tenant, as a tenant admin.

    Requires a fresh sign-in. The owner of the installation does this with `lockbox operate off-board`.
    """
    tenant_data.ask_to_leave(session, who, origin, slug)
    return _shown(session, who, slug, chosen)


@router.delete(f"{AT_TENANT}/off-boarding", tags=["tenants"], status_code=204, responses=problems(404, 409))
def withdraw_off_boarding(slug: Slug, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> None:
    """Withdraw the off-boarding, as a tenant admin, before the owner has begun it."""
    tenant_data.stay(session, who, origin, slug)


def _shown(session: UnitOfWork, who: Caller, slug: str, settings: Settings) -> TenantDataView:
    return TenantDataView.of(tenant_data.read(session, who, slug, most=settings.retention_days or None))
