"""Routes for the vendor's staff and undelivered notifications."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, RequiredIfMatchTag, SessionDep, SettingsDep, etag
from api.routes.members import invitation_view
from api.schemas.members import (
    ColleagueChange,
    ColleaguePage,
    ColleagueView,
    DirectoryInput,
    DirectoryView,
    InvitationList,
    InvitationView,
    NewColleague,
)
from api.schemas.parts import MUST_MATCH_TAG, PersonView, problems, view_of
from api.schemas.webhooks import DeadNotificationPage
from lockbox.admin import delivery_log, memberships, vendor_staff
from lockbox.admin.memberships import Member
from lockbox.admin.vendor_staff import StaffRecord
from lockbox.identity.directory import DirectoryEntry
from lockbox.identity.roles import Role

router = CallRouter(prefix="/v1/vendor", tags=["vendor"])


@router.get("/members", responses=problems())
def list_vendor_members(
    who: CurrentUser,
    session: SessionDep,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=memberships.MOST_A_PAGE)] = 50,
) -> ColleaguePage:
    """List everyone at the vendor, to its operators and auditors."""
    page = vendor_staff.page(session, who, cursor=cursor, most=limit)
    return ColleaguePage(items=[_colleague(member) for member in page.members], next_cursor=page.next_cursor)


@router.post("/members", status_code=201, responses=problems(400, 409))
def invite_vendor_member(
    body: NewColleague, who: CurrentUser, origin: RequestOrigin, session: SessionDep, chosen: SettingsDep
) -> InvitationView:
    """Invite a person to the vendor by mail, as an operator; the daily limit is the same as a tenant's."""
    roles, a_day = frozenset(map(Role, body.roles)), chosen.invitations_a_day
    invited = vendor_staff.invite(
        session, who, origin, name=body.name, address=body.address, roles=roles, a_day=a_day
    )
    return invitation_view(invited)


@router.get("/members/{person_id}", responses=problems(404))
def get_vendor_member(person_id: UUID, who: CurrentUser, session: SessionDep, response: Response) -> ColleagueView:
    """Show a person of the vendor, to its operators and auditors."""
    return _one(vendor_staff.show(session, who, person_id), response)


@router.put("/members/{person_id}", responses=problems(400, 404, 412, 428), openapi_extra=MUST_MATCH_TAG)
def change_vendor_member(
    person_id: UUID,
    body: ColleagueChange,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    seen: RequiredIfMatchTag,
    response: Response,
) -> ColleagueView:
    """As an operator, set the roles of someone else at the vendor and, for a manager, the review tier.

    Losing the role `engineer` ends the person's requests and windows; losing `operator` withdraws their invitations
    and proposals. If-Match names the version to replace; without it the answer is 428.
    """
    roles, tier = frozenset(map(Role, body.roles)), body.review_tier
    return _one(vendor_staff.set_roles(session, who, origin, person_id, roles, review_tier=tier, seen=seen), response)


@router.delete("/members/{person_id}", status_code=204, responses=problems(404))
def remove_vendor_member(person_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> None:
    """Remove every role of someone else at the vendor, as an operator.

    Their requests and windows end, and their invitations and proposals are withdrawn.
    """
    vendor_staff.remove(session, who, origin, person_id)


@router.post("/members/{person_id}/disable", responses=problems(404))
def disable_vendor_member(
    person_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> ColleagueView:
    """As an operator, permanently disable someone else at the vendor, and end that person's requests and windows."""
    return _colleague(vendor_staff.disable(session, who, origin, person_id))


@router.get("/members/{person_id}/directory", responses=problems(404))
def get_directory_record(person_id: UUID, who: CurrentUser, session: SessionDep) -> DirectoryView:
    """Show what the vendor's directory says of a person.

    For that person, operators, auditors, and service accounts with the scope `directory:write`.
    """
    return _directory_view(vendor_staff.read_record(session, who, person_id))


@router.put("/members/{person_id}/directory", responses=problems(400, 404))
def change_directory_record(
    person_id: UUID, body: DirectoryInput, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> DirectoryView:
    """Replace what the vendor's directory says of a person, as a service account with the scope `directory:write`.

    Customers see the record on each request that the person submits from then on, and their policies may use it.
    """
    entry = DirectoryEntry(body.employing_entity, body.office_country, body.physical_country)
    return _directory_view(vendor_staff.write_record(session, who, origin, person_id, entry))


@router.get("/invitations", responses=problems())
def list_vendor_invitations(who: CurrentUser, session: SessionDep) -> InvitationList:
    """List the open invitations to the vendor, to its operators."""
    return InvitationList(items=[invitation_view(one) for one in vendor_staff.still_open(session, who)])


@router.delete("/invitations/{invitation_id}", status_code=204, responses=problems(404, 409))
def withdraw_vendor_invitation(
    invitation_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> None:
    """Withdraw an invitation to the vendor, as an operator."""
    vendor_staff.withdraw(session, who, origin, invitation_id)


@router.get("/undelivered", responses=problems())
def list_undelivered_notifications(
    who: CurrentUser,
    session: SessionDep,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=delivery_log.MOST_A_PAGE)] = 50,
) -> DeadNotificationPage:
    """List undelivered notifications with their subject, channel and error, but without recipients. For operators."""
    page = delivery_log.page(session, who, cursor=cursor, most=limit)
    return DeadNotificationPage(items=list(page.notifications), next_cursor=page.next_cursor)


def _directory_view(found: StaffRecord) -> DirectoryView:
    row = found.record
    return DirectoryView(
        person=PersonView(id=found.person_id, name=found.name),
        employing_entity=row and row.employing_entity,
        office_country=row and row.office_country,
        physical_country=row and row.physical_country,
        source=row and row.source,
        as_of=row and row.as_of,
    )


def _one(member: Member, response: Response) -> ColleagueView:
    response.headers.update(etag(member.version))
    return _colleague(member)


def _colleague(member: Member) -> ColleagueView:
    own = {"id": member.person_id, "roles": sorted(member.roles), "disabled": member.is_disabled}
    return view_of(ColleagueView, member, **own)
