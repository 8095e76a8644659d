"""Routes for the exclusions."""

from typing import Annotated

from fastapi import Query, Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, RequiredIfMatch, SessionDep, etag
from api.schemas.exclusions import (
    AcknowledgementInput,
    ExclusionsInput,
    ExclusionsList,
    ExclusionsView,
    TenantExclusionsView,
    TenantStandingPage,
    TenantStandingView,
)
from api.schemas.parts import MUST_MATCH, Slug, problems
from lockbox.admin import exclusions
from lockbox.admin.exclusions import Exclusions

router = CallRouter()

Version = Annotated[int | None, Query(ge=1, le=2**31 - 2)]


@router.get("/v1/exclusions", tags=["vendor"], responses=problems(404))
def get_exclusions(
    who: CurrentUser, session: SessionDep, response: Response, version: Version = None
) -> ExclusionsView:
    """Show what Lockbox does not cover, as the vendor states it, for anyone who is signed in.

    Without `version`, the version in force is shown; 404 if the vendor has stated none.
    """
    return _shown(exclusions.read(session, who, version), response)


@router.put("/v1/exclusions", tags=["vendor"], responses=problems(400, 412, 428), openapi_extra=MUST_MATCH)
def declare_exclusions(
    body: ExclusionsInput,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    seen: RequiredIfMatch,
    response: Response,
) -> ExclusionsView:
    """Put a new version of the exclusions in force, as an operator with a fresh sign-in.

    If-Match names the version in force, `"0"` where there is none; without it the answer is 428. Within minutes every
    customer's log records the version, and the customer's admins are asked to acknowledge it.
    """
    return _shown(exclusions.state(session, who, origin, body.text, seen=seen), response)


@router.get("/v1/exclusions/versions", tags=["vendor"], responses=problems())
def list_exclusions_versions(
    who: CurrentUser,
    session: SessionDep,
    before: Version = None,
    limit: Annotated[int, Query(ge=1, le=exclusions.MOST_A_PAGE)] = 50,
) -> ExclusionsList:
    """List the versions of the exclusions below `before`, the newest first. For anyone who is signed in."""
    found = exclusions.versions(session, who, before=before, most=limit)
    return ExclusionsList(items=[ExclusionsView.of(one) for one in found])


@router.get("/v1/exclusions/acknowledgements", tags=["vendor"], responses=problems())
def list_exclusions_acknowledgements(
    who: CurrentUser,
    session: SessionDep,
    cursor: Slug | None = None,
    limit: Annotated[int, Query(ge=1, le=exclusions.MOST_A_PAGE)] = 50,
) -> TenantStandingPage:
    """List which version each tenant has acknowledged, by slug. For the vendor's operators and auditors."""
    page = exclusions.standings(session, who, cursor=cursor, most=limit)
    items = [
        TenantStandingView(tenant=one.slug, name=one.name, version=one.version, at=one.at) for one in page.standings
    ]
    return TenantStandingPage(items=items, next_cursor=page.next_cursor)


@router.get("/v1/tenants/{slug}/exclusions", tags=["tenants"], responses=problems(404))
def get_tenant_exclusions(slug: Slug, who: CurrentUser, session: SessionDep) -> TenantExclusionsView:
    """Show the exclusions in force, and the newest version that the tenant has acknowledged, to its members."""
    return TenantExclusionsView.of(exclusions.of_tenant(session, who, slug))


@router.put("/v1/tenants/{slug}/exclusions", tags=["tenants"], responses=problems(400, 404, 409))
def acknowledge_exclusions(
    slug: Slug, body: AcknowledgementInput, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> TenantExclusionsView:
    """Acknowledge the version in force for the tenant, as a tenant admin with a fresh sign-in.

    The acknowledgement states that the tenant knows of the exclusions, and gives no one access. 409 if there is a
    newer version.
    """
    return TenantExclusionsView.of(exclusions.acknowledge(session, who, origin, slug, version=body.version))


def _shown(held: Exclusions, response: Response) -> ExclusionsView:
    response.headers.update(etag(held.version))
    return ExclusionsView.of(held)
