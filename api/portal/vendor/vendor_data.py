"""The vendor's data pages."""

from typing import Annotated

from fastapi import Form, Query, Request, Response
from pydantic import TypeAdapter, ValidationError

from api import browser
from api.browser import Visitor
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import REFUSED, TAG, FormContext, FormContextDep, go, origin, page, status_of
from api.portal.tenant_admin import AdminAction, read
from api.schemas.parts import Slug
from api.schemas.tenant_data import HoldInput
from config.settings import Settings
from lockbox.admin import legal_holds, permissions, tenant_data
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import LockboxError, NotFound, SignInAgain
from lockbox.identity.models import Tenant
from lockbox.identity.roles import Caller, Role, Side

router = CallRouter(prefix="/data", tags=[TAG], include_in_schema=False)

HERE = "/data"
Text = Annotated[str, Form(max_length=5000)]
SLUG = TypeAdapter[str](Slug)
Cursor = Annotated[str, Query(max_length=63, pattern="^[a-z0-9-]*$")]


@router.get("")
def show_all(
    request: Request,
    chosen: SettingsDep,
    session: SessionDep,
    tenant: Annotated[str, Query(max_length=200)] = "",
    after: Cursor = "",
) -> Response:
    visitor = browser.visitor(request, session, chosen)
    found = tenant_data.listed(session, visitor.caller, cursor=after or None, most=tenant_data.MOST_A_PAGE)
    refused: LockboxError | None = None
    if typed := tenant.strip().lower():
        try:
            return go(request, f"{HERE}/{_known(session, visitor.caller, typed).slug}")
        except NotFound as absent:
            refused = absent
    status = status_of(refused) if refused else 200
    return page(request, "vendor_data", status, visitor=visitor, found=found, typed=tenant, refused=refused)


@router.get("/{slug}")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(request, session, chosen, browser.visitor(request, session, chosen), slug)


@router.post("/{slug}/hold")
def hold(work: FormContextDep, slug: Slug, reason: Text = "") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        permissions.capacity(caller, (Role.OPERATOR,))
        said = read(HoldInput, reason=reason.replace("\r\n", "\n")).reason
        legal_holds.hold(session, caller, origin, slug, said)

    return _done(work, slug, deed, reason)


@router.post("/{slug}/release")
def release(work: FormContextDep, slug: Slug) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        permissions.capacity(caller, (Role.OPERATOR,))
        legal_holds.release(session, caller, origin, slug)

    return _done(work, slug, deed)


def _known(session: UnitOfWork, caller: Caller, typed: str) -> Tenant:
    try:
        return permissions.known(session, caller, SLUG.validate_python(typed))
    except ValidationError:
        raise NotFound(phrases.NO_TENANT) from None


def _done(work: FormContext, slug: str, deed: AdminAction, reason: str = "") -> Response:
    try:
        with work.open() as (session, visitor):
            deed(session, visitor.caller, origin(work.request))
    except REFUSED as refused:
        with work.open() as (session, visitor):
            return _shown(work.request, session, work.chosen, visitor, slug, refused, reason)
    return go(work.request, f"{HERE}/{slug}")


def _shown(
    request: Request,
    session: UnitOfWork,
    settings: Settings,
    visitor: Visitor,
    slug: str,
    refused: LockboxError | None = None,
    reason: str = "",
) -> Response:
    caller = visitor.caller
    permissions.capacity(caller, tenant_data.READERS)
    found = tenant_data.read(session, caller, slug, most=settings.retention_days or None)
    return page(
        request,
        "vendor_tenant_data",
        status_of(refused) if refused else 200,
        visitor=visitor,
        tenant=permissions.known(session, caller, slug),
        found=found,
        is_held=any(one.side is Side.VENDOR for one in found.holds),
        is_operator=caller.holds(Role.OPERATOR),
        reason=reason,
        refused=refused,
        needs_sign_in=isinstance(refused, SignInAgain),
    )
