"""The exclusions pages."""

from typing import Annotated

from fastapi import Form, Request, Response

from api import browser
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import REFUSED, TAG, FormContextDep, go, origin, page, status_of
from api.portal.tenant_admin import TenantAdminPage, done, read, tenant_admin_page
from api.schemas.exclusions import ExclusionsInput
from api.schemas.parts import Slug
from lockbox.admin import exclusions, tenants
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import LockboxError, NotYours, SignInAgain
from lockbox.identity.roles import Caller, Role, Side

router = CallRouter(prefix="/tenants/{slug}/exclusions", tags=[TAG], include_in_schema=False)
of_vendor = CallRouter(prefix="/exclusions", tags=[TAG], include_in_schema=False)

HERE = "/exclusions"
Number = Annotated[int, Form(ge=0, le=2**31 - 2)]


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug))


@router.post("")
def acknowledge(work: FormContextDep, slug: Slug, version: Number = 0) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        exclusions.acknowledge(session, caller, origin, slug, version=version)

    return done(work, slug, deed, _shown, f"/tenants/{slug}/exclusions")


def _shown(at: TenantAdminPage, refused: LockboxError | None = None) -> Response:
    found = exclusions.of_tenant(at.session, at.caller, at.tenant.slug)
    return at.page("exclusions", refused, found=found)


@of_vendor.get("")
def show_all(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    if visitor.caller.side is Side.CUSTOMER:
        own = [one.tenant for one in tenants.own(session, visitor.caller)]
        return go(request, f"/tenants/{own[0].slug}/exclusions" if len(own) == 1 else "/tenants")
    return _all(request, session, visitor)


@of_vendor.post("")
def state(work: FormContextDep, text: Annotated[str, Form(max_length=50_000)] = "", version: Number = 0) -> Response:
    try:
        with work.open() as (session, visitor):
            body = read(ExclusionsInput, text=text.replace("\r\n", "\n"))
            exclusions.state(session, visitor.caller, origin(work.request), body.text, seen=version)
    except REFUSED as refused:
        with work.open() as (session, visitor):
            return _all(work.request, session, visitor, refused, text)
    return go(work.request, HERE)


def _all(
    request: Request,
    session: UnitOfWork,
    visitor: Visitor,
    refused: LockboxError | None = None,
    written: str | None = None,
) -> Response:
    caller = visitor.caller
    if not caller.holds(*exclusions.READERS):
        raise NotYours(phrases.NOT_THE_VENDORS_EXCLUSIONS)
    current = next(iter(exclusions.versions(session, caller, before=None, most=1)), None)
    standings = exclusions.standings(session, caller, cursor=None, most=exclusions.MOST_A_PAGE)
    return page(
        request,
        "vendor_exclusions",
        status_of(refused) if refused else 200,
        visitor=visitor,
        current=current,
        standings=standings,
        is_operator=caller.holds(Role.OPERATOR),
        longest=exclusions.LONGEST,
        text=written if written is not None else current.body if current else "",
        refused=refused,
        needs_sign_in=isinstance(refused, SignInAgain),
    )
