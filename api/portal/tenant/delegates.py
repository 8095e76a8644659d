"""The delegates page."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Form, Request, Response
from pydantic import BaseModel, Field

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal import phrases
from api.portal.pages import TAG, FormContextDep
from api.portal.tenant_admin import TenantAdminPage, done, tenant_admin_page
from api.schemas.parts import Slug
from lockbox.admin import delegates
from lockbox.admin.delegates import LONGEST, DelegationInput
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import Invalid, LockboxError
from lockbox.identity import time_zones
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import addresses

router = CallRouter(prefix="/tenants/{slug}/delegates", tags=[TAG], include_in_schema=False)

PersonOrTime = Annotated[str, Field(max_length=40)]


class DelegationForm(BaseModel):
    """Times are in the author's time zone."""

    principal: PersonOrTime = ""
    delegate: PersonOrTime = ""
    starts: PersonOrTime = ""
    ends: PersonOrTime = ""


@router.get("")
def show(request: Request, slug: Slug, chosen: SettingsDep, session: SessionDep) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug))


@router.post("")
def name(work: FormContextDep, slug: Slug, written: Annotated[DelegationForm, Form()]) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        zone = addresses.preferences(session, caller).time_zone
        wanted = DelegationInput(
            delegate_id=_person(written.delegate, phrases.DELEGATE),
            ends_at=_moment(written.ends, zone, phrases.DELEGATE_UNTIL),
            starts_at=_moment(written.starts, zone, phrases.DELEGATE_FROM) if written.starts.strip() else None,
            principal_id=_person(written.principal, phrases.DELEGATE_FOR) if written.principal else None,
        )
        delegates.add_delegation(session, caller, origin, slug, wanted)

    return done(work, slug, deed, lambda at, refused: _shown(at, refused, written), f"/tenants/{slug}/delegates")


@router.post("/end")
def end(work: FormContextDep, slug: Slug, one: Annotated[UUID, Form(alias="id")]) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        delegates.end(session, caller, origin, slug, one)

    return done(work, slug, deed, _shown, f"/tenants/{slug}/delegates")


def _person(text: str, which: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Invalid(phrases.CHOOSE.format(what=which)) from None


def _moment(text: str, zone: str, which: str) -> datetime:
    try:
        return time_zones.instant(text.strip(), zone)
    except ValueError as error:
        raise Invalid(phrases.SAY_WHEN.format(what=which, why=error)) from None


def _shown(
    at: TenantAdminPage, refused: LockboxError | None = None, written: DelegationForm | None = None
) -> Response:
    everybody = at.members()
    return at.page(
        "delegates",
        refused,
        current=delegates.current(at.session, at.caller, at.tenant.slug),
        approvers=[one for one in everybody if Role.APPROVER in one.roles],
        eligible=[one for one in everybody if one.is_eligible],
        is_approver=at.caller.holds(Role.APPROVER, tenant_id=at.tenant.id),
        written=written or DelegationForm(),
        longest=LONGEST.days,
    )
