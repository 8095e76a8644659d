"""The pages of a tenant: who its members are, what its mode is, and what its admins may change of that."""

from collections.abc import Callable
from typing import Annotated, TypeVar
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ValidationError
from sqlmodel import Session

from api import browser
from api.browser import Visitor
from api.deps import Chosen, Work
from api.portal.account import AtDesk, Desk
from api.portal.pages import TAG, go, page, status_of
from api.schemas.members import MemberChange, NewMember
from api.schemas.parts import Slug
from api.schemas.tenants import NewMode
from lockbox.people.roles import Caller, Role
from lockbox.refusals import Conflict, Invalid, NotYours, Refusal, SignInAgain
from lockbox.requests.writing import Origin
from lockbox.tenancy import invitations, members, shutting, tenants

router = APIRouter(prefix="/tenants", tags=[TAG], include_in_schema=False)

MOST = 100
CUSTOMERS_ROLES = (Role.TENANT_ADMIN, Role.APPROVER, Role.AUDITOR)

Person = Annotated[UUID, Form(alias="id")]
Roles = Annotated[list[str], Form(max_length=10)]
Deed = Callable[[Session, Caller, Origin], object]
Body = TypeVar("Body", bound=BaseModel)


@router.get("")
def list_own(request: Request, chosen: Chosen, session: Work) -> Response:
    """Lead to the person's own tenant, or show which there are."""
    visitor = browser.visitor(request, session, chosen)
    own = [one.tenant for one in tenants.own(session, visitor.caller)]
    if len(own) == 1:
        return go(request, f"/tenants/{own[0].slug}")
    return page(request, "tenants", visitor=visitor, tenants=own)


@router.get("/{slug}")
def show(
    request: Request,
    slug: Slug,
    chosen: Chosen,
    session: Work,
    after: Annotated[UUID | None, Query()] = None,
) -> Response:
    """Show a tenant to its members, with forms for its admins."""
    return _shown(request, session, browser.visitor(request, session, chosen), slug, after=after)


@router.post("/{slug}/members")
def invite(
    work: AtDesk,
    slug: Slug,
    name: Annotated[str, Form(max_length=1000)] = "",
    address: Annotated[str, Form(max_length=1000)] = "",
    roles: Roles = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """Invite somebody by mail."""

    def deed(session: Session, caller: Caller, origin: Origin) -> None:
        body = read(NewMember, name=name.strip(), address=address.strip(), roles=roles)
        held = frozenset(map(Role, body.roles))
        members.invite(session, caller, origin, slug, name=body.name, address=body.address, roles=held)

    return _done(work, slug, deed)


@router.post("/{slug}/members/roles")
def set_roles(work: AtDesk, slug: Slug, person: Person, roles: Roles = []) -> Response:  # noqa: B006 - likewise
    """Give a member exactly these roles."""

    def deed(session: Session, caller: Caller, origin: Origin) -> None:
        held = frozenset(map(Role, read(MemberChange, roles=roles).roles))
        members.set_roles(session, caller, origin, slug, person, roles=held)

    return _done(work, slug, deed)


@router.post("/{slug}/members/remove")
def remove(work: AtDesk, slug: Slug, person: Person) -> Response:
    """Take a member out of the tenant."""
    return _done(work, slug, lambda session, caller, origin: members.remove(session, caller, origin, slug, person))


@router.post("/{slug}/invitations/withdraw")
def withdraw(work: AtDesk, slug: Slug, one: Annotated[UUID, Form(alias="id")]) -> Response:
    """Take an invitation back."""
    return _done(work, slug, lambda session, caller, origin: invitations.withdraw(session, caller, origin, slug, one))


@router.post("/{slug}/mode")
def switch_mode(work: AtDesk, slug: Slug, mode: Annotated[str, Form(max_length=20)] = "") -> Response:
    """Switch the mode."""

    def deed(session: Session, caller: Caller, origin: Origin) -> None:
        wanted = read(NewMode, mode=mode).mode
        shutting.switch_mode(session, caller, origin, slug, wanted, plans=work.chosen.plans)

    return _done(work, slug, deed)


@router.post("/{slug}/leave")
def leave(work: AtDesk, slug: Slug) -> Response:
    """Leave the tenant."""
    return _done(
        work, slug, lambda session, caller, origin: members.leave(session, caller, origin, slug), then="/requests"
    )


def read(kind: type[Body], **fields: object) -> Body:
    """Read a form by the rules of the API's own bodies.

    Raises:
        Invalid: with a sentence that names each field.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False, include_context=False)
        told = "; ".join(f"{one['loc'][0]}: {one['msg'].removeprefix('Value error, ')}" for one in found)
        raise Invalid(f"This was not taken: {told}.") from None


def _done(work: Desk, slug: str, deed: Deed, then: str | None = None) -> Response:
    """Do it and go back to the page; what is refused is said on it."""
    place = work.place
    try:
        with work.open() as (session, visitor):
            deed(session, visitor.caller, Origin("portal", place.address, place.user_agent))
    except (Conflict, NotYours, Invalid) as refused:
        with work.open() as (session, visitor):
            return _shown(work.request, session, visitor, slug, refused=refused)
    return go(work.request, then or f"/tenants/{slug}")


def _shown(
    request: Request,
    session: Session,
    visitor: Visitor,
    slug: str,
    *,
    after: UUID | None = None,
    refused: Refusal | None = None,
) -> HTMLResponse:
    listed = members.page(session, visitor.caller, slug, cursor=after, most=MOST)
    overview = tenants.show(session, visitor.caller, slug)
    return page(
        request,
        "tenant",
        status_of(refused) if refused else 200,
        visitor=visitor,
        tenant=overview.tenant,
        overview=overview,
        listed=listed,
        invitations=invitations.still_open(session, visitor.caller, slug),
        is_admin=visitor.caller.holds(Role.TENANT_ADMIN, tenant_id=overview.tenant.id),
        roles=CUSTOMERS_ROLES,
        refused=refused,
        needs_sign_in=isinstance(refused, SignInAgain),
    )
