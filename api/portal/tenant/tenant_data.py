"""The data page of a tenant."""

from typing import Annotated

from fastapi import Form, Request, Response

from api import browser, deps
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import TAG, FormContextDep
from api.portal.tenant_admin import TenantAdminPage, done, read, tenant_admin_page
from api.schemas.parts import Slug
from api.schemas.tenant_data import HoldInput
from lockbox.admin import legal_holds, permissions, tenant_data
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import Invalid, LockboxError
from lockbox.identity.roles import Caller, Role, Side

router = CallRouter(prefix="/tenants/{slug}/data", tags=[TAG], include_in_schema=False)

Text = Annotated[str, Form(max_length=5000)]


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug))


@router.post("/retention")
def keep_for(work: FormContextDep, slug: Slug, days: Annotated[str, Form(max_length=20)] = "") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        most = work.chosen.retention_days or None
        tenant_data.keep_for(session, caller, origin, slug, _days(days), most=most)

    return done(work, slug, deed, lambda at, refused: _shown(at, refused, days=days), _here(slug))


@router.post("/hold")
def hold(work: FormContextDep, slug: Slug, reason: Text = "") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        permissions.readable(session, caller, slug, (Role.TENANT_ADMIN,))
        said = read(HoldInput, reason=reason.replace("\r\n", "\n")).reason
        legal_holds.hold(session, caller, origin, slug, said)

    return done(work, slug, deed, lambda at, refused: _shown(at, refused, reason=reason), _here(slug))


@router.post("/release")
def release(work: FormContextDep, slug: Slug) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        permissions.readable(session, caller, slug, (Role.TENANT_ADMIN,))
        legal_holds.release(session, caller, origin, slug)

    return done(work, slug, deed, _shown, _here(slug))


@router.post("/off-board")
def off_board(work: FormContextDep, slug: Slug, typed: Annotated[str, Form(max_length=100)] = "") -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        if typed.strip() != slug:
            raise Invalid(phrases.TYPE_THE_SLUG.format(slug=slug))
        tenant_data.ask_to_leave(session, caller, origin, slug)

    return done(work, slug, deed, lambda at, refused: _shown(at, refused, typed=typed), _here(slug))


@router.post("/stay")
def stay(work: FormContextDep, slug: Slug) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        tenant_data.stay(session, caller, origin, slug)

    return done(work, slug, deed, _shown, _here(slug))


def _here(slug: str) -> str:
    return f"/tenants/{slug}/data"


def _days(typed: str) -> int | None:
    if not typed.strip():
        return None
    if not (typed.strip().isascii() and typed.strip().isdigit()):
        raise Invalid(phrases.NO_DAYS)
    return int(typed)


def _shown(
    at: TenantAdminPage,
    refused: LockboxError | None = None,
    days: str | None = None,
    reason: str = "",
    typed: str = "",
) -> Response:
    most = deps.settings(at.request).retention_days or None
    found = tenant_data.read(at.session, at.caller, at.tenant.slug, most=most)
    return at.page(
        "tenant_data",
        refused,
        found=found,
        is_held=any(one.side is Side.CUSTOMER for one in found.holds),
        least=tenant_data.LEAST_DAYS,
        days=(found.retention_days or "") if days is None else days,
        reason=reason,
        typed=typed,
    )
