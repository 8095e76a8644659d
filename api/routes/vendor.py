"""Routes of the vendor's own people: operators invite them, set their roles and shut them out."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from api.deps import Work, caller, origin
from api.routes.members import invitation_view
from api.schemas.members import (
    ColleagueChange,
    ColleaguePage,
    ColleagueView,
    InvitationList,
    InvitationView,
    NewColleague,
)
from api.schemas.parts import problems
from lockbox.people.roles import Caller, Role
from lockbox.requests.writing import Origin
from lockbox.tenancy import memberships, vendor
from lockbox.tenancy.memberships import Member

router = APIRouter(prefix="/v1/vendor", tags=["vendor"])

Who = Annotated[Caller, Depends(caller)]
From = Annotated[Origin, Depends(origin)]


@router.get("/members", responses=problems())
def list_colleagues(
    who: Who,
    session: Work,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=memberships.MOST_A_PAGE)] = 50,
) -> ColleaguePage:
    """List everybody on the vendor's side, to its operators and auditors."""
    page = vendor.page(session, who, cursor=cursor, most=limit)
    return ColleaguePage(items=[_colleague(member) for member in page.members], next_cursor=page.next_cursor)


@router.post("/members", status_code=201, responses=problems(400, 409))
def invite_colleague(body: NewColleague, who: Who, came: From, session: Work) -> InvitationView:
    """Invite somebody to the vendor's side by mail, as an operator."""
    roles = frozenset(map(Role, body.roles))
    return invitation_view(vendor.invite(session, who, came, name=body.name, address=body.address, roles=roles))


@router.put("/members/{person_id}", responses=problems(400, 404))
def change_colleague(person_id: UUID, body: ColleagueChange, who: Who, came: From, session: Work) -> ColleagueView:
    """Set all roles of somebody else at the vendor, as an operator; what a lost role carried ends."""
    return _colleague(vendor.set_roles(session, who, came, person_id, frozenset(map(Role, body.roles))))


@router.delete("/members/{person_id}", status_code=204, responses=problems(404))
def remove_colleague(person_id: UUID, who: Who, came: From, session: Work) -> None:
    """Take every role from somebody else at the vendor, as an operator; what they carried ends."""
    vendor.remove(session, who, came, person_id)


@router.post("/members/{person_id}/disable", responses=problems(404))
def disable_colleague(person_id: UUID, who: Who, came: From, session: Work) -> ColleagueView:
    """Shut somebody else at the vendor out for good, as an operator, and end what they asked for and have open."""
    return _colleague(vendor.disable(session, who, came, person_id))


@router.get("/invitations", responses=problems())
def list_vendor_invitations(who: Who, session: Work) -> InvitationList:
    """List the open invitations to the vendor's side, to its operators."""
    return InvitationList(items=[invitation_view(one) for one in vendor.still_open(session, who)])


@router.delete("/invitations/{invitation_id}", status_code=204, responses=problems(404, 409))
def withdraw_vendor_invitation(invitation_id: UUID, who: Who, came: From, session: Work) -> None:
    """Take an invitation to the vendor's side back, as an operator."""
    vendor.withdraw(session, who, came, invitation_id)


def _colleague(member: Member) -> ColleagueView:
    return ColleagueView(
        id=member.person_id,
        name=member.name,
        address=member.address,
        roles=sorted(member.roles),
        disabled=member.is_disabled,
        since=member.since,
    )
