"""Routes for tenants."""

from collections.abc import Iterable
from functools import partial
from typing import Annotated

from fastapi import Query, Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, RequiredIfMatch, SessionDep, SettingsDep, etag, relying_party
from api.schemas.parts import MUST_MATCH, PersonView, Slug, problems
from api.schemas.requests import CommentInput
from api.schemas.tenants import (
    ApproverKeysView,
    ClosedRequest,
    EditionList,
    EditionView,
    EmergencyStopView,
    ModeChangeView,
    NewMode,
    NewName,
    NewPlan,
    NewTenant,
    PolicyView,
    TenantPage,
    TenantView,
)
from lockbox.admin import audit_access, emergency_stop, policies, tenants
from lockbox.admin.policies import PolicyEdition, VersionedPolicy
from lockbox.admin.tenants import TenantInput, TenantOverview
from lockbox.audit.verifier import approver_keys as files
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy

router = CallRouter(prefix="/v1/tenants", tags=["tenants"])

Version = Annotated[int | None, Query(ge=1, le=2**31 - 2)]


@router.post("", status_code=201, responses=problems(400, 409))
def add_tenant(
    body: NewTenant,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    chosen: SettingsDep,
    response: Response,
) -> TenantView:
    """Create a tenant, as an operator; its first admin gets an invitation whose code no one else sees."""
    founding = TenantInput(body.slug, body.name, body.plan, body.admin.name, body.admin.address)
    added = tenants.add(session, who, origin, founding, chosen.catalogue.plans)
    response.headers["location"] = f"/v1/tenants/{body.slug}"
    return _tenant(added)


@router.get("", responses=problems())
def list_tenants(
    who: CurrentUser,
    session: SessionDep,
    cursor: Slug | None = None,
    limit: Annotated[int, Query(ge=1, le=tenants.MOST_A_PAGE)] = 50,
) -> TenantPage:
    """List the tenants that the caller may see: all for people of the vendor, their own for others.

    Managers see only slugs and names, engineers also the longest window, service accounts nothing.
    """
    page = tenants.page(session, who, cursor=cursor, most=limit)
    return TenantPage(items=[_tenant(overview) for overview in page.overviews], next_cursor=page.next_cursor)


@router.get("/{slug}", responses=problems(404))
def get_tenant(slug: Slug, who: CurrentUser, session: SessionDep) -> TenantView:
    """Show one tenant; what the caller may not know is null."""
    return _tenant(tenants.show(session, who, slug))


@router.post("/{slug}/suspend", responses=problems(404, 409))
def suspend_tenant(slug: Slug, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> TenantView:
    """Suspend a tenant, as an operator: nothing can be submitted for it, and its open windows are revoked.

    Before the call, the tenant's `open_windows` says how many windows will be revoked. Resuming the tenant reopens
    none.
    """
    return _tenant(tenants.suspend(session, who, origin, slug))


@router.post("/{slug}/resume", responses=problems(404, 409))
def resume_tenant(slug: Slug, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> TenantView:
    """End a suspension, as an operator."""
    return _tenant(tenants.resume(session, who, origin, slug))


@router.put("/{slug}/plan", responses=problems(400, 404, 409))
def change_tenant_plan(
    slug: Slug, body: NewPlan, who: CurrentUser, origin: RequestOrigin, session: SessionDep, chosen: SettingsDep
) -> TenantView:
    """Set a tenant's plan, as an operator; its mode stays."""
    return _tenant(tenants.set_plan(session, who, origin, slug, body.plan, plans=chosen.catalogue.plans))


@router.put("/{slug}/mode", responses=problems(400, 404, 409))
def change_tenant_mode(
    slug: Slug, body: NewMode, who: CurrentUser, origin: RequestOrigin, session: SessionDep, chosen: SettingsDep
) -> ModeChangeView:
    """Switch the mode, as a tenant admin; switching to enforce closes windows opened without the customer.

    Requests in the vendor's review go to the customer once endorsed.
    """
    switched = emergency_stop.switch_mode(session, who, origin, slug, body.mode, plans=chosen.catalogue.plans)
    return ModeChangeView(mode=switched.mode, closed=_closed(switched.closed), in_review=switched.in_review)


@router.put("/{slug}/name", responses=problems(400, 404, 409))
def rename_tenant(
    slug: Slug, body: NewName, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> TenantView:
    """Rename the tenant, as a tenant admin."""
    return _tenant(tenants.rename(session, who, origin, slug, body.name))


@router.post("/{slug}/emergency-stop", responses=problems(400, 404, 409))
def start_emergency_stop(
    slug: Slug, who: CurrentUser, origin: RequestOrigin, session: SessionDep, body: CommentInput | None = None
) -> EmergencyStopView:
    """As a tenant admin, revoke all open windows and deny all requests that are pending or in review.

    Break-glass is barred until an admin ends the stop.
    """
    done = emergency_stop.stop_all(session, who, origin, slug, body.comment if body else None)
    return EmergencyStopView(
        revoked=_closed(done.revoked), denied=_closed(done.denied), denied_in_review=done.denied_in_review
    )


@router.delete("/{slug}/emergency-stop", status_code=204, responses=problems(404, 409))
def end_emergency_stop(slug: Slug, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> None:
    """End an emergency stop, as a tenant admin: the policy decides about break-glass again. No window is reopened."""
    emergency_stop.end_stop(session, who, origin, slug)


@router.get("/{slug}/policy", responses=problems(404))
def get_policy(
    slug: Slug, who: CurrentUser, session: SessionDep, response: Response, version: Version = None
) -> PolicyView:
    """Show the policy to the tenant's members, in its current or another version."""
    return _policy(policies.read(session, who, slug, version), response)


@router.put("/{slug}/policy", responses=problems(400, 404, 409, 412, 428), openapi_extra=MUST_MATCH)
def change_policy(
    slug: Slug,
    body: Policy,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    seen: RequiredIfMatch,
    response: Response,
) -> PolicyView:
    """As a tenant admin, replace the whole policy; If-Match has to name the version in force.

    A term that is left out gets its default. Without If-Match the answer is 428; `*` replaces whichever version is in
    force.
    """
    return _policy(policies.change(session, who, origin, slug, body, seen=seen), response)


@router.get("/{slug}/approver-keys", responses=problems(404))
def get_approver_keys(slug: Slug, who: CurrentUser, session: SessionDep, chosen: SettingsDep) -> ApproverKeysView:
    """Return the public keys of the tenant's approvers to a tenant admin, as a file for the verifier."""
    given = audit_access.export_approver_keys(session, who, slug, partial(relying_party, chosen))
    return ApproverKeysView.model_validate(files.document(given))


@router.get("/{slug}/policy/versions", responses=problems(404))
def list_policy_versions(
    slug: Slug,
    who: CurrentUser,
    session: SessionDep,
    before: Version = None,
    limit: Annotated[int, Query(ge=1, le=policies.MOST_A_PAGE)] = 50,
) -> EditionList:
    """List the policy's versions below `before` to the tenant's members, the newest first."""
    editions = policies.editions(session, who, slug, before=before, most=limit)
    return EditionList(items=[_edition(edition) for edition in editions])


def _tenant(overview: TenantOverview) -> TenantView:
    tenant = overview.tenant
    if overview.by_name_only:
        return TenantView(slug=tenant.slug, name=tenant.name, longest_window=overview.longest_window)
    return TenantView(
        slug=tenant.slug,
        name=tenant.name,
        mode=tenant.mode,
        effective_mode=overview.effective_mode,
        consent_until=overview.consented.until if overview.consented else None,
        plan=tenant.plan,
        suspended=tenant.suspended,
        policy_version=tenant.policy_version if overview.is_own else None,
        members=overview.members,
        open_windows=overview.open_windows,
        in_review=overview.in_review,
        longest_window=overview.longest_window,
        stopped_since=overview.stopped_since,
    )


def _closed(requests: Iterable[AccessRequest]) -> list[ClosedRequest]:
    return [ClosedRequest.model_validate(request, from_attributes=True) for request in requests]


def _edition(edition: PolicyEdition) -> EditionView:
    author = PersonView(id=edition.author_id, name=edition.author or "former member") if edition.author_id else None
    return EditionView(version=edition.version, author=author, created_at=edition.created_at)


def _policy(held: VersionedPolicy, response: Response) -> PolicyView:
    response.headers.update(etag(held.edition.version))
    return PolicyView(**dict(_edition(held.edition)), policy=held.policy)
