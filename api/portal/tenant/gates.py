"""The gates pages of tenants and of the vendor."""

from typing import Annotated

from fastapi import Form, Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal.pages import TAG, FormContextDep, page
from api.portal.tenant_admin import TenantAdminPage, done, tenant_admin_page
from api.schemas.parts import Slug
from gate import enforcement, gate_report
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import LockboxError
from lockbox.facts.bounds import Word
from lockbox.identity.roles import Caller

router = CallRouter(prefix="/tenants/{slug}/gates", tags=[TAG], include_in_schema=False)
of_vendor = CallRouter(prefix="/gates", tags=[TAG], include_in_schema=False)

ServiceName = Annotated[str, Form(max_length=63)]


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug))


@router.post("/allow")
def allow(
    work: FormContextDep,
    slug: Slug,
    service: ServiceName = "",
    revision: Annotated[int, Form(ge=0, le=2**31 - 1)] = 0,
) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        enforcement.allow_report(session, caller, origin, slug, service, revision=revision)

    return done(work, slug, deed, _shown, f"/tenants/{slug}/gates")


@router.post("/end")
def end(work: FormContextDep, slug: Slug, service: ServiceName = "") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        enforcement.end_report(session, caller, origin, slug, service)

    return done(work, slug, deed, _shown, f"/tenants/{slug}/gates")


def _shown(at: TenantAdminPage, refused: LockboxError | None = None) -> Response:
    gates = enforcement.of_tenant(at.session, at.caller, at.tenant.slug)
    return at.page("gates", refused, gates=gates)


@of_vendor.get("")
def list_all(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    gates = enforcement.overviews(session, visitor.caller)
    return page(request, "vendor_gates", visitor=visitor, gates=gates, services=chosen.catalogue.titles)


@of_vendor.get("/{service}")
def show_report(request: Request, service: Word, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    found = gate_report.of_service(session, visitor.caller, service)
    title = chosen.catalogue.titles.get(service, service)
    return page(
        request, "gate_report", visitor=visitor, found=found, title=title, service=service, days=gate_report.MOST_DAYS
    )
