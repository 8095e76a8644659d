"""The members page, and the page of proposed admins."""

from typing import Annotated
from uuid import UUID

from fastapi import Form, Query, Request, Response
from pydantic import BaseModel, Field

from api import browser
from api.call_routes import CallRouter
from api.deps import SessionDep, SettingsDep
from api.portal.pages import TAG, FormContextDep, go, origin, page
from api.portal.tenant_admin import TenantAdminPage, done, read, tenant_admin_page
from api.schemas.members import MemberChange, NewMember
from api.schemas.parts import Slug
from lockbox.admin import access_review, first_passkeys, invitations, members, recovery
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork
from lockbox.errors import LockboxError, StaleVersion
from lockbox.identity.roles import Caller, Role

router = CallRouter(prefix="/tenants/{slug}/members", tags=[TAG], include_in_schema=False)
proposals = CallRouter(prefix="/proposals", tags=[TAG], include_in_schema=False)

PROPOSALS = "/proposals"

MOST = 100
CUSTOMERS_ROLES = (Role.TENANT_ADMIN, Role.APPROVER, Role.AUDITOR)

ById = Annotated[UUID, Form(alias="id")]
Roles = Annotated[list[str], Form(max_length=10)]


class MemberForm(BaseModel):
    name: Annotated[str, Field(max_length=1000)] = ""
    address: Annotated[str, Field(max_length=1000)] = ""
    roles: Annotated[list[str], Field(max_length=10)] = []


def here(slug: str) -> str:
    return f"/tenants/{slug}/members"


@router.get("")
def show(
    request: Request,
    slug: Slug,
    chosen: SettingsDep,
    session: SessionDep,
    after: Annotated[UUID | None, Query()] = None,
) -> Response:
    return _shown(tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug), after=after)


@router.get("/{person_id}")
def show_member(request: Request, slug: Slug, person_id: UUID, chosen: SettingsDep, session: SessionDep) -> Response:
    at = tenant_admin_page(request, session, browser.visitor(request, session, chosen), slug)
    member = members.show(session, at.caller, slug, person_id)
    return at.page(
        "member",
        member=member,
        approves_from=first_passkeys.end_of_wait(session, at.tenant, person_id),
        admins=[one for one in at.members() if Role.TENANT_ADMIN in one.roles],
    )


@router.post("")
def invite(work: FormContextDep, slug: Slug, written: Annotated[MemberForm, Form()]) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        body = read(NewMember, name=written.name.strip(), address=written.address.strip(), roles=written.roles)
        held, a_day = frozenset(map(Role, body.roles)), work.chosen.invitations_a_day
        facts = {"name": body.name, "address": body.address}
        members.invite(session, caller, origin, slug, **facts, roles=held, a_day=a_day)

    return done(work, slug, deed, lambda at, refused: _shown(at, refused, written=written), here(slug))


@router.post("/roles")
def set_roles(
    work: FormContextDep,
    slug: Slug,
    person: ById,
    seen: Annotated[str, Form(alias="version", max_length=16)] = "",
    roles: Roles = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Refused if the member's roles have changed since the form was shown."""

    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        held = frozenset(map(Role, read(MemberChange, roles=roles).roles))
        members.set_roles(session, caller, origin, slug, person, roles=held, seen=seen)

    def shown(at: TenantAdminPage, refused: LockboxError) -> Response:
        # If another admin was faster, the form shows the new roles.
        return _shown(at, refused, changed=(person, None if isinstance(refused, StaleVersion) else tuple(roles)))

    return done(work, slug, deed, shown, here(slug))


@router.post("/eligible")
def set_eligible(
    work: FormContextDep, slug: Slug, person: ById, eligible: Annotated[str, Form(max_length=3)] = "no"
) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        members.set_eligible(session, caller, origin, slug, person, eligible=eligible == "yes")

    return done(work, slug, deed, _shown, here(slug))


@router.post("/remove")
def remove(work: FormContextDep, slug: Slug, person: ById) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        members.remove(session, caller, origin, slug, person)

    return done(work, slug, deed, _shown, here(slug))


@router.post("/withdraw")
def withdraw(work: FormContextDep, slug: Slug, one: ById) -> Response:
    def deed(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
        invitations.withdraw(session, caller, origin, slug, one)

    return done(work, slug, deed, _shown, here(slug))


@proposals.get("")
def show_proposals(request: Request, chosen: SettingsDep, session: SessionDep) -> Response:
    visitor = browser.visitor(request, session, chosen)
    return page(request, "proposals", visitor=visitor, proposals=recovery.open_for(session, visitor.caller))


@proposals.post("/object")
def object_to(work: FormContextDep, slug: Annotated[Slug, Form()], one: ById) -> Response:
    """Objecting needs no particular means of sign-in."""
    with work.open() as (session, visitor):
        recovery.object_to(session, visitor.caller, origin(work.request), slug, one)
    return go(work.request, PROPOSALS)


def _shown(
    at: TenantAdminPage,
    refused: LockboxError | None = None,
    *,
    after: UUID | None = None,
    written: MemberForm | None = None,
    changed: tuple[UUID, tuple[str, ...] | None] | None = None,
) -> Response:
    return at.page(
        "members",
        refused,
        may_review=at.caller.holds(*access_review.READERS, tenant_id=at.tenant.id),
        listed=members.page(at.session, at.caller, at.tenant.slug, cursor=after, most=MOST),
        invitations=invitations.still_open(at.session, at.caller, at.tenant.slug),
        roles=CUSTOMERS_ROLES,
        written=written or MemberForm(),
        changed=changed,
    )
