"""The page of access that can open without a tenant's approval."""

from fastapi import Request, Response

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal.pages import TAG
from api.portal.tenant_admin import tenant_admin_page
from api.schemas.parts import Slug
from lockbox.admin import unapproved_access

router = CallRouter(prefix="/tenants/{slug}/unapproved-access", tags=[TAG], include_in_schema=False)


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    at = tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug)
    return at.page("unapproved_access", found=unapproved_access.of_tenant(session, at.caller, slug))
