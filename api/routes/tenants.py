"""Routes of tenants: add and list them, suspend, plan, mode and name; shut everything; the policy."""

from collections.abc import Iterable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Query, Response

from api.deps import Chosen, From, MustMatch, Who, Work, etag, relying_party
from api.schemas.parts import MUST_MATCH, Named, Slug, problems
from api.schemas.requests import Comment
from api.schemas.tenants import (
    ApproverKeysView,
    ClosedRequest,
    EditionList,
    EditionView,
    NewMode,
    NewName,
    NewPlan,
    NewTenant,
    PolicyView,
    ShutView,
    SwitchedView,
    TenantPage,
    TenantView,
)
from lockbox.admin import audit_access, emergency_stop, policies, tenants
from lockbox.admin.policies import Edition, Held
from lockbox.admin.tenants import Founding, Overview
from lockbox.audit.verifier import signed_approvals as files
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy

router = APIRouter(prefix="/v1/tenants", tags=["tenants"])

Version = Annotated[int | None, Query(ge=1, le=2**31 - 2)]


@router.post("", status_code=201, responses=problems(400, 409))
def add(body: NewTenant, who: Who, came: From, session: Work, chosen: Chosen, response: Response) -> TenantView:
    """Add a tenant, as an operator; its first admin is invited by a mail whose code nobody else ever sees."""
    founding = Founding(body.slug, body.name, body.plan, body.admin.name, body.admin.address)
    added = tenants.add(session, who, came, founding, chosen.plans)
    response.headers["location"] = f"/v1/tenants/{body.slug}"
    return _tenant(added)


@router.get("", responses=problems())
def list_tenants(
    who: Who,
    session: Work,
    cursor: Slug | None = None,
    limit: Annotated[int, Query(ge=1, le=tenants.MOST_A_PAGE)] = 50,
) -> TenantPage:
    """List the tenants that the caller may know of: all of them for people of the vendor, the own ones for others.

    Managers learn slugs and names alone, engineers also the longest window of each, machines nothing.
    """
    page = tenants.page(session, who, cursor=cursor, most=limit)
    return TenantPage(items=[_tenant(overview) for overview in page.overviews], next_cursor=page.next_cursor)


@router.get("/{slug}", responses=problems(404))
def show(slug: Slug, who: Who, session: Work) -> TenantView:
    """Show one tenant."""
    return _tenant(tenants.show(session, who, slug))


@router.post("/{slug}/suspend", responses=problems(404))
def suspend(slug: Slug, who: Who, came: From, session: Work) -> TenantView:
    """Suspend a tenant, as an operator: nothing can be asked of it, and its open windows are revoked.

    How many those are says `open_windows` of the tenant. None opens again by itself when the tenant is resumed.
    """
    return _tenant(tenants.suspend(session, who, came, slug))


@router.post("/{slug}/resume", responses=problems(404))
def resume(slug: Slug, who: Who, came: From, session: Work) -> TenantView:
    """End a suspension, as an operator."""
    return _tenant(tenants.resume(session, who, came, slug))


@router.put("/{slug}/plan", responses=problems(400, 404))
def set_plan(slug: Slug, body: NewPlan, who: Who, came: From, session: Work, chosen: Chosen) -> TenantView:
    """Set the plan of a tenant, as an operator; its mode stays what it is."""
    return _tenant(tenants.set_plan(session, who, came, slug, body.plan, plans=chosen.plans))


@router.put("/{slug}/mode", responses=problems(400, 404))
def switch_mode(slug: Slug, body: NewMode, who: Who, came: From, session: Work, chosen: Chosen) -> SwitchedView:
    """Switch the mode, as a tenant admin; switching to enforce closes what the vendor opened alone.

    What is in the vendor's review then waits for the customer once it is endorsed.
    """
    switched = emergency_stop.switch_mode(session, who, came, slug, body.mode, plans=chosen.plans)
    return SwitchedView(mode=switched.mode, closed=_closed(switched.closed), in_review=switched.in_review)


@router.put("/{slug}/name", responses=problems(400, 404))
def rename(slug: Slug, body: NewName, who: Who, came: From, session: Work) -> TenantView:
    """Change what the tenant is called, as a tenant admin."""
    return _tenant(tenants.rename(session, who, came, slug, body.name))


@router.post("/{slug}/shut", responses=problems(400, 404))
def shut(slug: Slug, who: Who, came: From, session: Work, body: Comment | None = None) -> ShutView:
    """Revoke all open windows and deny all that waits or is in the vendor's review, as a tenant admin."""
    done = emergency_stop.shut(session, who, came, slug, body.comment if body else None)
    return ShutView(
        revoked=_closed(done.revoked), denied=_closed(done.denied), denied_in_review=done.denied_in_review
    )


@router.get("/{slug}/policy", responses=problems(404))
def show_policy(slug: Slug, who: Who, session: Work, response: Response, version: Version = None) -> PolicyView:
    """Show the policy to the tenant's members, as it is now or as one version had it."""
    return _policy(policies.read(session, who, slug, version), response)


@router.put("/{slug}/policy", responses=problems(400, 404, 412, 428), openapi_extra=MUST_MATCH)
def change_policy(
    slug: Slug, body: Policy, who: Who, came: From, session: Work, seen: MustMatch, response: Response
) -> PolicyView:
    """Replace the whole policy, as a tenant admin, where If-Match names the version that is in force.

    A term that is left out gets its default. Without If-Match the answer is 428; `*` replaces whichever version is in
    force.
    """
    return _policy(policies.change(session, who, came, slug, body, seen=seen), response)


@router.get("/{slug}/approver-keys", responses=problems(404))
def show_approver_keys(slug: Slug, who: Who, session: Work, chosen: Chosen) -> ApproverKeysView:
    """Return the public keys of the tenant's approvers, as a tenant admin: the file that the verifier reads."""
    given = audit_access.export_approver_keys(session, who, slug, partial(relying_party, chosen))
    return ApproverKeysView.model_validate(files.document(given))


@router.get("/{slug}/policy/versions", responses=problems(404))
def list_versions(
    slug: Slug,
    who: Who,
    session: Work,
    before: Version = None,
    limit: Annotated[int, Query(ge=1, le=policies.MOST_A_PAGE)] = 50,
) -> EditionList:
    """List the versions of the policy to the tenant's members, the newest first, from below `before` on."""
    editions = policies.editions(session, who, slug, before=before, most=limit)
    return EditionList(items=[_edition(edition) for edition in editions])


def _tenant(overview: Overview) -> TenantView:
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
    )


def _closed(requests: Iterable[AccessRequest]) -> list[ClosedRequest]:
    return [ClosedRequest.model_validate(request, from_attributes=True) for request in requests]


def _edition(edition: Edition) -> EditionView:
    author = Named(id=edition.author_id, name=edition.author or "former member") if edition.author_id else None
    return EditionView(version=edition.version, author=author, created_at=edition.created_at)


def _policy(held: Held, response: Response) -> PolicyView:
    response.headers.update(etag(held.edition.version))
    return PolicyView(**dict(_edition(held.edition)), policy=held.policy)
