"""The pages of a tenant."""

from typing import Annotated

from fastapi import Form, Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal.pages import TAG, FormContextDep, go, page
from api.portal.tenant_admin import TenantAdminPage, done, read, tenant_admin_page
from api.schemas.parts import Slug
from api.schemas.requests import CommentInput
from api.schemas.tenants import NewName
from gate import enforcement
from lockbox.admin import (
    emergency_stop,
    exclusions,
    gate_probes,
    members,
    observers,
    outside_access,
    policies,
    tenants,
    unapproved_access,
    webhooks,
    what_if,
)
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import LockboxError
from lockbox.identity.roles import Caller, Role

router = CallRouter(prefix="/tenants", tags=[TAG], include_in_schema=False)

MOST_OUTSIDE = 5


@router.get("")
def list_own(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    own = [one.tenant for one in tenants.own(session, visitor.caller)]
    if len(own) == 1:
        return go(request, f"/tenants/{own[0].slug}")
    return page(request, "tenants", visitor=visitor, tenants=own)


@router.get("/{slug}")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug))


@router.post("/{slug}/name")
def rename(work: FormContextDep, slug: Slug, name: Annotated[str, Form(max_length=1000)] = "") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        tenants.rename(session, caller, origin, slug, read(NewName, name=name.strip()).name)

    return done(work, slug, deed, lambda at, refused: _shown(at, refused, name), f"/tenants/{slug}")


@router.get("/{slug}/emergency-stop")
def preview_emergency_stop(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    return _emergency_stop_page(tenant_admin_page(request, session, visitor, slug, Role.TENANT_ADMIN))


@router.post("/{slug}/emergency-stop")
def stop(work: FormContextDep, slug: Slug, comment: Annotated[str, Form(max_length=5000)] = "") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        said = read(CommentInput, comment=comment.replace("\r\n", "\n").strip() or None).comment
        emergency_stop.stop_all(session, caller, origin, slug, said)

    return done(work, slug, deed, lambda at, refused: _emergency_stop_page(at, refused, comment), f"/tenants/{slug}")


@router.post("/{slug}/emergency-stop/end")
def end_stop(work: FormContextDep, slug: Slug) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        emergency_stop.end_stop(session, caller, origin, slug)

    return done(work, slug, deed, _shown, f"/tenants/{slug}")


@router.post("/{slug}/leave")
def leave(work: FormContextDep, slug: Slug) -> Response:
    return done(
        work, slug, lambda session, caller, origin: members.leave(session, caller, origin, slug), _shown, "/requests"
    )


def _shown(at: TenantAdminPage, refused: LockboxError | None = None, name: str | None = None) -> Response:
    session, caller, slug = at.session, at.caller, at.tenant.slug
    held = policies.read(session, caller, slug)
    unapproved = unapproved_access.of_tenant(session, caller, slug)
    return at.page(
        "tenant",
        refused,
        overview=tenants.show(session, caller, slug),
        held=held,
        unapproved=unapproved,
        delegates=len(unapproved.delegations),
        endpoints=webhooks.listed(session, caller, slug) if at.is_admin else [],
        gates=enforcement.of_tenant(session, caller, slug),
        probes=gate_probes.newest(session, at.tenant.id),
        outside=outside_access.newest(session, at.tenant.id, MOST_OUTSIDE + 1),
        most_outside=MOST_OUTSIDE,
        exclusions=exclusions.of_tenant(session, caller, slug),
        observers=len(observers.listed(session, caller, slug)),
        name=at.tenant.name if name is None else name,
    )


def _emergency_stop_page(at: TenantAdminPage, refused: LockboxError | None = None, comment: str = "") -> Response:
    active, pending, in_review = what_if.open_and_waiting(at.session, at.caller, at.tenant.slug)
    return at.page(
        "emergency_stop",
        refused,
        active=active,
        pending=pending,
        in_review=in_review,
        stopped_since=tenants.show(at.session, at.caller, at.tenant.slug).stopped_since,
        comment=comment,
    )
