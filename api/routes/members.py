"""Routes for a tenant's people."""

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, RequiredIfMatchTag, SessionDep, SettingsDep, etag
from api.schemas.members import (
    DelegationList,
    DelegationView,
    InvitationList,
    InvitationView,
    Invitee,
    MemberChange,
    MemberPage,
    MemberView,
    NewDelegation,
    NewMember,
    RecoveryView,
)
from api.schemas.parts import MUST_MATCH_TAG, PersonView, Slug, problems, view_of
from lockbox.admin import delegates, invitations, members, memberships, recovery
from lockbox.admin.delegates import DelegationInput, DelegationSummary
from lockbox.admin.memberships import Member
from lockbox.identity.models import Invitation
from lockbox.identity.roles import Role

router = CallRouter(prefix="/v1/tenants/{slug}", tags=["members"])


@router.get("/members", responses=problems(404))
def list_members(
    slug: Slug,
    who: CurrentUser,
    session: SessionDep,
    cursor: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=memberships.MOST_A_PAGE)] = 50,
) -> MemberPage:
    """List the members to the tenant's own people."""
    page = members.page(session, who, slug, cursor=cursor, most=limit)
    return MemberPage(items=[_member(member) for member in page.members], next_cursor=page.next_cursor)


@router.post("/members", status_code=201, responses=problems(400, 404, 409))
def invite_member(
    slug: Slug, body: NewMember, who: CurrentUser, origin: RequestOrigin, session: SessionDep, chosen: SettingsDep
) -> InvitationView:
    """Invite a person by mail, as a tenant admin; they become a member when they accept.

    A tenant can invite 30 people in 24 hours by default; more are answered with 429.
    """
    roles, a_day = frozenset(map(Role, body.roles)), chosen.invitations_a_day
    invited = members.invite(
        session, who, origin, slug, name=body.name, address=body.address, roles=roles, a_day=a_day
    )
    return invitation_view(invited)


@router.get("/members/{person_id}", responses=problems(404))
def get_member(slug: Slug, person_id: UUID, who: CurrentUser, session: SessionDep, response: Response) -> MemberView:
    """Show one member to the tenant's own people."""
    return _one(members.show(session, who, slug, person_id), response)


@router.put("/members/{person_id}", responses=problems(400, 404, 409, 412, 428), openapi_extra=MUST_MATCH_TAG)
def change_member(
    slug: Slug,
    person_id: UUID,
    body: MemberChange,
    who: CurrentUser,
    origin: RequestOrigin,
    session: SessionDep,
    seen: RequiredIfMatchTag,
    response: Response,
) -> MemberView:
    """As a tenant admin, set a member's roles, and whether approvers may name the member as delegate.

    If-Match names the version of the member to replace; without it the answer is 428.
    """
    roles = frozenset(map(Role, body.roles))
    member = members.set_roles(session, who, origin, slug, person_id, roles=roles, seen=seen)
    if body.eligible is not None:
        member = members.set_eligible(session, who, origin, slug, person_id, eligible=body.eligible)
    return _one(member, response)


@router.delete("/members/{person_id}", status_code=204, responses=problems(404, 409))
def remove_member(slug: Slug, person_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> None:
    """Remove a member at once, as a tenant admin; the last admin cannot be removed."""
    members.remove(session, who, origin, slug, person_id)


@router.post("/leave", status_code=204, responses=problems(404, 409))
def leave_tenant(slug: Slug, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> None:
    """Leave the tenant, as any member; the last admin can leave only if no one else stays."""
    members.leave(session, who, origin, slug)


@router.get("/invitations", responses=problems(404))
def list_invitations(slug: Slug, who: CurrentUser, session: SessionDep) -> InvitationList:
    """List the open invitations, those of proposed admins included. For the tenant's members."""
    return InvitationList(items=[invitation_view(one) for one in invitations.still_open(session, who, slug)])


@router.delete("/invitations/{invitation_id}", status_code=204, responses=problems(404, 409))
def withdraw_invitation(
    slug: Slug, invitation_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> None:
    """Withdraw an invitation, as a tenant admin; its mailed code no longer works."""
    invitations.withdraw(session, who, origin, slug, invitation_id)


@router.get("/delegations", responses=problems(404))
def list_delegations(slug: Slug, who: CurrentUser, session: SessionDep) -> DelegationList:
    """List current and future delegations. For the tenant's members."""
    return DelegationList(items=[delegation_view(entry) for entry in delegates.current(session, who, slug)])


@router.post("/delegations", status_code=201, responses=problems(400, 404, 409))
def add_delegation(
    slug: Slug, body: NewDelegation, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> DelegationView:
    """As an approver, name a delegate for yourself; as a tenant admin, name one for an absent approver."""
    wanted = DelegationInput(body.delegate, body.ends_at, body.starts_at, body.principal)
    return delegation_view(delegates.add_delegation(session, who, origin, slug, wanted))


@router.delete("/delegations/{delegation_id}", status_code=204, responses=problems(404, 409))
def end_delegation(
    slug: Slug, delegation_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> None:
    """End a delegation now, as its principal or a tenant admin."""
    delegates.end(session, who, origin, slug, delegation_id)


@router.post("/recovery", status_code=201, responses=problems(400, 404, 409))
def propose_admin(
    slug: Slug, body: Invitee, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> RecoveryView:
    """Propose an admin, as an operator: all admins and approvers are notified, and have 72 hours to object."""
    proposed = recovery.propose(session, who, origin, slug, name=body.name, address=body.address)
    return RecoveryView(id=proposed.id, takes_effect_at=proposed.takes_effect_at)


@router.post("/recovery/{invitation_id}/object", status_code=204, responses=problems(404, 409))
def object_to_proposed_admin(
    slug: Slug, invitation_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> None:
    """As an admin or approver of the tenant, object to a proposed admin; this ends the proposal."""
    recovery.object_to(session, who, origin, slug, invitation_id)


@router.delete("/recovery/{invitation_id}", status_code=204, responses=problems(404, 409))
def withdraw_proposed_admin(
    slug: Slug, invitation_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep
) -> None:
    """As an operator, withdraw a proposed admin; everyone who was notified of the proposal is notified again."""
    recovery.withdraw(session, who, origin, slug, invitation_id)


def invitation_view(invitation: Invitation) -> InvitationView:
    return view_of(InvitationView, invitation, address=invitation.email)


def _one(member: Member, response: Response) -> MemberView:
    response.headers.update(etag(member.version))
    return _member(member)


def _member(member: Member) -> MemberView:
    own = {"id": member.person_id, "roles": sorted(member.roles), "eligible": member.is_eligible}
    return view_of(MemberView, member, **own)


def delegation_view(entry: DelegationSummary) -> DelegationView:
    delegation = entry.delegation
    principal = PersonView(id=delegation.principal_id, name=entry.principal)
    delegate = PersonView(id=delegation.delegate_id, name=entry.delegate)
    return view_of(DelegationView, delegation, principal=principal, delegate=delegate, counts=entry.counts)
