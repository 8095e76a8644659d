"""The access review pages of tenants and of the vendor."""

from fastapi import Request, Response

from api import browser
from api.call_routes import CallRouter
from api.csv_answers import access_review_csv
from api.deps import SessionDep, SettingsDep
from api.portal.pages import NO_PAGE, TAG, page, protect
from api.portal.tenant_admin import tenant_admin_page
from api.schemas.parts import Slug
from lockbox.admin import access_review

router = CallRouter(prefix="/tenants/{slug}/access-review", tags=[TAG], include_in_schema=False)
of_vendor = CallRouter(prefix="/access-review", tags=[TAG], include_in_schema=False)


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    at = tenant_admin_page(request, session, visitor, slug, *access_review.READERS)
    found = access_review.of_tenant(session, visitor.caller, slug)
    return at.page("access_review", found=found)


@router.get("/export", tags=[NO_PAGE])
def export(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    answer = access_review_csv(access_review.of_tenant(session, visitor.caller, slug))
    protect(request, answer)
    return answer


@of_vendor.get("")
def show_vendors(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    return page(
        request, "vendor_access_review", visitor=visitor, found=access_review.of_vendor(session, visitor.caller)
    )


@of_vendor.get("/export", tags=[NO_PAGE])
def export_vendors(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    answer = access_review_csv(access_review.of_vendor(session, visitor.caller))
    protect(request, answer)
    return answer
