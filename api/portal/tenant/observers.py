"""The observers page."""

from typing import Annotated
from uuid import UUID

from fastapi import Form, Request, Response
from pydantic import BaseModel, Field

from api import browser, rate_limits
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal.pages import TAG, FormContextDep
from api.portal.tenant_admin import TenantAdminPage, done, read, tenant_admin_page
from api.schemas.addresses import NewObserver
from api.schemas.parts import Slug
from lockbox.admin import observers
from lockbox.admin.observers import ObserverInput
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import LockboxError
from lockbox.identity.roles import Caller

router = CallRouter(prefix="/tenants/{slug}/observers", tags=[TAG], include_in_schema=False)


class ObserverForm(BaseModel):
    name: Annotated[str, Field(max_length=1000)] = ""
    address: Annotated[str, Field(max_length=1000)] = ""
    service: Annotated[str, Field(max_length=100)] = ""


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug))


@router.post("")
def add(work: FormContextDep, slug: Slug, written: Annotated[ObserverForm, Form()]) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        name, address = written.name.strip(), written.address.strip()
        body = read(NewObserver, name=name, address=address, service=written.service or None)
        wanted = ObserverInput(body.name, body.address, body.service)
        observers.add(session, caller, origin, slug, wanted, services=work.chosen.catalogue.services)

    def shown(at: TenantAdminPage, refused: LockboxError) -> Response:
        return _shown(at, refused, written)

    return done(
        work,
        slug,
        deed,
        shown,
        f"/tenants/{slug}/observers",
        first=lambda who: rate_limits.count_address(who, work.db),
    )


@router.post("/remove")
def remove(work: FormContextDep, slug: Slug, one: Annotated[UUID, Form(alias="id")]) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        observers.remove(session, caller, origin, slug, one)

    return done(work, slug, deed, _shown, f"/tenants/{slug}/observers")


def _shown(at: TenantAdminPage, refused: LockboxError | None = None, written: ObserverForm | None = None) -> Response:
    return at.page(
        "observers",
        refused,
        observers=observers.listed(at.session, at.caller, at.tenant.slug),
        written=written or ObserverForm(),
    )
