"""The vendor's own people: operators invite them, set their roles and shut them out; never themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlmodel import Session, col, select

from lockbox.admin import change_events, invitations, memberships, permissions
from lockbox.admin.change_events import AdminChange, change, listed
from lockbox.admin.invitations import InvitationOffer
from lockbox.admin.memberships import Member, MemberListing
from lockbox.admin.permissions import AdminActor
from lockbox.audit.canonical import Value
from lockbox.database import now
from lockbox.errors import Invalid, NotFound, OwnRoles
from lockbox.identity import row_security
from lockbox.identity.models import Invitation, Person
from lockbox.identity.roles import Caller, Role
from lockbox.requests import shut_out
from lockbox.requests.models import AccessRequest
from lockbox.requests.transition import Origin

OPERATORS = (Role.OPERATOR,)
READERS = (Role.OPERATOR, Role.VENDOR_AUDITOR)
FIRST_TIER = 1


def withdraw_offers(session: Session, seat: AdminActor, person_id: UUID) -> None:
    """Take back every open invitation and proposal of somebody of the vendor, in whatever place they made it.

    The vendor's people are held; those of the tenants are held here, by id. Each is told as ever.
    """
    invitations.end_those_by(session, seat, person_id)
    made = select(Invitation.tenant_id).where(
        col(Invitation.invited_by) == person_id,
        col(Invitation.tenant_id).is_not(None),
        invitations.is_open(now(session)),
    )
    tenants = session.exec(made.distinct().order_by(col(Invitation.tenant_id))).all()
    for tenant_id in tenants:
        permissions.lock_members(session, tenant_id)
    for tenant_id in tenants:
        assert tenant_id is not None  # noqa: S101 - the query says so
        row_security.turn_to(session, tenant_id)
        invitations.end_those_by(session, AdminActor(seat.caller, seat.role, seat.origin, tenant_id), person_id)


@dataclass(frozen=True)
class StaffRoles:
    """All the roles that somebody is to have, and the tier of the review; None leaves that as it is."""

    roles: frozenset[Role]
    review_tier: int | None = None


def page(session: Session, caller: Caller, *, cursor: UUID | None, most: int) -> MemberListing:
    """Return everybody on the vendor's side, with or without roles, to its operators and auditors.

    Raises:
        NotYours: the caller is neither.
    """
    _may_read(session, caller, READERS)
    return memberships.page(session, None, cursor=cursor, most=most)


def show(session: Session, caller: Caller, person_id: UUID) -> Member:
    """Return somebody on the vendor's side, to its operators and auditors.

    Raises:
        NotYours: the caller is neither.
        NotFound: there is nobody of that id.
    """
    _may_read(session, caller, READERS)
    return _again(session, person_id)


def still_open(session: Session, caller: Caller) -> Sequence[Invitation]:
    """Return the open invitations to the vendor's side, to its operators.

    Raises:
        NotYours: the caller is none.
    """
    _may_read(session, caller, OPERATORS)
    return invitations.listed_at(session, None)


def invite(
    session: Session,
    caller: Caller,
    origin: Origin,
    *,
    name: str,
    address: str,
    roles: frozenset[Role],
    a_day: int | None = None,
) -> Invitation:
    """Invite somebody to the vendor's side by mail.

    Whether the address belongs to somebody of a customer is not told here; such an invitation cannot be accepted.

    Raises:
        NotYours: the caller is no operator.
        SignInAgain: the operator's sign-in is too weak or too old.
        AlreadyMember, AlreadyInvited: as named.
        TooMany: as many were invited to the vendor within 24 hours as `a_day` lets through.
    """
    seat = permissions.acting_as(session, caller, origin, OPERATORS)
    permissions.require_fresh_operator(session, seat)
    at = now(session)
    invitations.only_one(session, None, address, at)
    invitations.few_enough(session, None, at, a_day)
    return invitations.make(session, seat, InvitationOffer(name, address, roles), at)


def withdraw(session: Session, caller: Caller, origin: Origin, invitation_id: UUID) -> None:
    """Take an invitation to the vendor's side back.

    Raises:
        NotYours, Unknown, InvitationClosed: as named.
    """
    invitations.end(session, permissions.acting_as(session, caller, origin, OPERATORS), invitation_id)


def set_roles(
    session: Session,
    caller: Caller,
    origin: Origin,
    person_id: UUID,
    roles: frozenset[Role],
    *,
    review_tier: int | None = None,
    seen: str | None = None,
) -> Member:
    """Give somebody of the vendor exactly these roles; they hold from the next call on.

    What a role carried ends with it: what an operator has offered or proposed to others, what an engineer has asked
    for or has open. A manager is asked of a review in that tier; None leaves it as it is, the first for somebody new
    to it. `seen` is the version of the person that is replaced, None for whichever is there.

    Raises:
        NotYours, Unknown: as named.
        OwnRoles: it is the caller.
        StaleVersion: the person's roles or tier were changed since then.
        Invalid: the person is disabled, or no manager and to be in a tier.
        SignInAgain: it is a new role, and the operator's sign-in is too weak or too old.
    """
    seat, member = _colleague(session, caller, origin, person_id)
    member.check_seen(seen)
    if member.is_disabled:
        raise Invalid("Somebody who is disabled gets no roles.", field="person_id")
    if member.roles and (Role.SYSTEM in roles) is not (Role.SYSTEM in member.roles):
        raise Invalid("A person becomes no system, nor a system a person: invite the other one.", field="roles")
    if review_tier and Role.MANAGER not in roles:
        raise Invalid("Only a manager is in a tier of the review.", field="review_tier")
    if roles - member.roles:
        permissions.require_fresh_operator(session, seat)
    _replace(session, seat, member, StaffRoles(roles, review_tier), "member_changed")
    return _again(session, person_id)


def remove(session: Session, caller: Caller, origin: Origin, person_id: UUID) -> None:
    """Take every role from somebody of the vendor, and what it carried.

    Raises:
        NotYours, Unknown, OwnRoles: as named.
    """
    seat, member = _colleague(session, caller, origin, person_id)
    _replace(session, seat, member, StaffRoles(frozenset()), "member_removed")


def disable(session: Session, caller: Caller, origin: Origin, person_id: UUID) -> Member:
    """Shut somebody of the vendor out for good: tokens, sign-ins and open windows count no more from this moment.

    What they have offered or proposed to others is taken back, what they have asked for cancelled, and their open
    windows are revoked.

    Raises:
        NotYours, Unknown, OwnRoles: as named.
    """
    seat, member = _colleague(session, caller, origin, person_id)
    if not member.is_disabled:
        withdraw_offers(session, seat, person_id)
        person = session.get_one(Person, person_id)
        person.disabled_at = now(session)
        session.add(person)
        session.flush()
        ended = shut_out.end_all_of(session, seat.caller, origin, person_id)
        deed = _admin_change(session, "person_disabled", member, {"disabled": change("no", "yes")}, ended)
        change_events.record_change(session, seat, deed)
    return _again(session, person_id)


def _may_read(session: Session, caller: Caller, roles: Sequence[Role]) -> None:
    row_security.enter(session, caller)
    permissions.capacity(caller, roles)


def _colleague(session: Session, caller: Caller, origin: Origin, person_id: UUID) -> tuple[AdminActor, Member]:
    seat = permissions.acting_as(session, caller, origin, OPERATORS)
    if person_id == caller.person_id:
        raise OwnRoles("Nobody changes their own roles; ask another operator.")
    return seat, _again(session, person_id)


def _again(session: Session, person_id: UUID) -> Member:
    member = memberships.find(session, None, person_id)
    if member is None:
        raise NotFound("There is no such person at the vendor.")
    return member


def _replace(session: Session, seat: AdminActor, member: Member, place: StaffRoles, action: str) -> None:
    lost = member.roles - place.roles
    if Role.OPERATOR in lost:
        withdraw_offers(session, seat, member.person_id)
    diff = {}
    if place.roles != member.roles:
        memberships.give(session, member.person_id, None, place.roles - member.roles)
        memberships.take_away(session, member.person_id, None, lost)
        diff["roles"] = change(listed(memberships.words(member.roles)), listed(memberships.words(place.roles)))
    before = member.review_tier or FIRST_TIER
    if place.review_tier and place.review_tier != before:
        memberships.put_into_tier(session, member.person_id, place.review_tier)
        diff["review_tier"] = change(before, place.review_tier)
    ended: list[AccessRequest] = []
    if Role.ENGINEER in lost:
        ended = shut_out.end_all_of(session, seat.caller, seat.origin, member.person_id)
    if diff:
        change_events.record_change(session, seat, _admin_change(session, action, member, diff, ended))


def _admin_change(
    session: Session, action: str, member: Member, changes: dict[str, str], ended: Sequence[AccessRequest]
) -> AdminChange:
    personal = {"member": change_events.person(member.name, member.address)}
    facts: dict[str, Value] = {"person_id": member.person_id, "ended": [str(request.id) for request in ended]}
    return AdminChange(action, now(session), changes, personal, facts)
