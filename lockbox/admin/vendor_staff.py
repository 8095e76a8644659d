"""The vendor's staff: operators invite and disable people and set roles; service accounts write directory records."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlmodel import col, select

from lockbox.admin import emergency_stop, invitations, memberships, permissions
from lockbox.admin.invitations import InvitationOffer
from lockbox.admin.memberships import Member, MemberListing
from lockbox.admin.permissions import AdminActor, AdminChange, change, listed
from lockbox.audit.canonical import Value
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid, NotFound, NotYours, OwnRoles
from lockbox.identity import authentication, directory
from lockbox.identity.directory import DirectoryEntry
from lockbox.identity.models import DirectoryRecord, Invitation, Person
from lockbox.identity.roles import Caller, Role, Scope
from lockbox.requests.models import AccessRequest

OPERATORS = (Role.OPERATOR,)
READERS = (Role.OPERATOR, Role.VENDOR_AUDITOR)
FIRST_TIER = 1
NO_SUCH_PERSON = "There is no such person at the vendor."
ACCOUNT = "account:"
"""The prefix of a directory record's source, if a service account has written the record."""


def withdraw_offers(session: UnitOfWork, actor: AdminActor, person_id: UUID) -> None:
    """Withdraw all open invitations and proposals made by a person of the vendor.

    The vendor's people are already locked; each tenant's people are locked here, in order of the ids.
    """
    invitations.end_those_by(session, actor, person_id)
    made = select(Invitation.tenant_id).where(
        col(Invitation.invited_by) == person_id,
        col(Invitation.tenant_id).is_not(None),
        invitations.is_open(now(session)),
    )
    tenants = session.orm.exec(made.distinct().order_by(col(Invitation.tenant_id))).all()
    for tenant_id in tenants:
        permissions.lock_members(session, tenant_id)
    for tenant_id in tenants:
        assert tenant_id is not None  # noqa: S101 - the query says so
        authentication.turn_to(session, tenant_id)
        invitations.end_those_by(session, AdminActor(actor.caller, actor.role, actor.origin, tenant_id), person_id)


@dataclass(frozen=True)
class StaffRoles:
    """`review_tier` None keeps the current tier."""

    roles: frozenset[Role]
    review_tier: int | None = None


@dataclass(frozen=True)
class StaffRecord:
    person_id: UUID
    name: str
    record: DirectoryRecord | None


def page(session: UnitOfWork, caller: Caller, *, cursor: UUID | None, most: int) -> MemberListing:
    """Includes people without roles. For operators and auditors."""
    _may_read(session, caller, READERS)
    return memberships.page(session, None, cursor=cursor, most=most)


def show(session: UnitOfWork, caller: Caller, person_id: UUID) -> Member:
    """For operators and auditors."""
    _may_read(session, caller, READERS)
    return _again(session, person_id)


def still_open(session: UnitOfWork, caller: Caller) -> Sequence[Invitation]:
    """For operators."""
    _may_read(session, caller, OPERATORS)
    return invitations.listed_at(session, None)


def invite(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    *,
    name: str,
    address: str,
    roles: frozenset[Role],
    a_day: int | None = None,
) -> Invitation:
    """For operators."""
    actor = permissions.acting_as(session, caller, origin, OPERATORS)
    permissions.require_fresh_operator(session, actor)
    at = now(session)
    invitations.only_one(session, None, address, at)
    invitations.few_enough(session, None, at, a_day)
    return invitations.make(session, actor, InvitationOffer(name, address, roles), at)


def withdraw(session: UnitOfWork, caller: Caller, origin: Origin, invitation_id: UUID) -> None:
    invitations.end(session, permissions.acting_as(session, caller, origin, OPERATORS), invitation_id)


def set_roles(
    session: UnitOfWork,
    caller: Caller,
    origin: Origin,
    person_id: UUID,
    roles: frozenset[Role],
    *,
    review_tier: int | None = None,
    seen: str | None = None,
) -> Member:
    """As an operator, set a person's roles. They are in force from the next call.

    Losing the role *engineer* ends requests and windows; losing *operator* withdraws invitations and proposals.
    `review_tier` None keeps the tier, or sets the first tier for a new manager.
    """
    actor, member = _colleague(session, caller, origin, person_id)
    member.check_seen(seen)
    if member.is_disabled:
        raise Invalid("This person is disabled and cannot get roles.", field="person_id")
    if member.roles and (Role.SYSTEM in roles) is not (Role.SYSTEM in member.roles):
        raise Invalid(
            "A person account cannot become a service account (or the reverse). Invite a separate account.",
            field="roles",
        )
    if review_tier and Role.MANAGER not in roles:
        raise Invalid("Only managers have a review tier. Leave it out.", field="review_tier")
    if roles - member.roles:
        permissions.require_fresh_operator(session, actor)
    _replace(session, actor, member, StaffRoles(roles, review_tier), "member_changed")
    return _again(session, person_id)


def remove(session: UnitOfWork, caller: Caller, origin: Origin, person_id: UUID) -> None:
    actor, member = _colleague(session, caller, origin, person_id)
    _replace(session, actor, member, StaffRoles(frozenset()), "member_removed")


def disable(session: UnitOfWork, caller: Caller, origin: Origin, person_id: UUID) -> Member:
    """Permanent. The person's tokens, sign-ins, invitations, proposals, requests and windows end."""
    actor, member = _colleague(session, caller, origin, person_id)
    if not member.is_disabled:
        withdraw_offers(session, actor, person_id)
        person = session.orm.get_one(Person, person_id)
        person.disabled_at = now(session)
        session.orm.add(person)
        session.orm.flush()
        ended = emergency_stop.end_all_of(session, actor.caller, origin, person_id)
        admin_change = _admin_change(session, "person_disabled", member, {"disabled": change("no", "yes")}, ended)
        permissions.record_change(session, actor, admin_change)
    return _again(session, person_id)


def read_record(session: UnitOfWork, caller: Caller, person_id: UUID) -> StaffRecord:
    """For operators, auditors, the person concerned, and the service account that writes the record."""
    authentication.enter(session, caller)
    if not (caller.holds(*READERS) or person_id == caller.person_id):
        _may_write_records(caller)
    return StaffRecord(person_id, _again(session, person_id).name, directory.find(session, person_id))


def write_record(
    session: UnitOfWork, caller: Caller, origin: Origin, person_id: UUID, entry: DirectoryEntry
) -> StaffRecord:
    """For service accounts with the scope for directory records; the record is dated now."""
    authentication.enter(session, caller)
    _may_write_records(caller)
    member = _again(session, person_id)
    if member.is_disabled or Role.SYSTEM in member.roles:
        raise NotFound(NO_SUCH_PERSON)
    actor = origin.actor(caller, Role.SYSTEM)
    authentication.describe(session, person_id)
    source = f"{ACCOUNT}{caller.person_id}"
    directory.keep(session, actor, person_id, entry, source=source, as_of=now(session))
    return StaffRecord(person_id, member.name, directory.find(session, person_id))


def _may_write_records(caller: Caller) -> None:
    if not caller.holds(Role.SYSTEM):
        raise NotYours("Only a service account of the vendor writes what the directory says. Use its token.")
    if Scope.DIRECTORY_WRITE not in caller.scopes:
        raise NotYours(f"This token needs the scope {Scope.DIRECTORY_WRITE}: create a token that has it.")


def _may_read(session: UnitOfWork, caller: Caller, roles: Sequence[Role]) -> None:
    authentication.enter(session, caller)
    permissions.capacity(caller, roles)


def _colleague(session: UnitOfWork, caller: Caller, origin: Origin, person_id: UUID) -> tuple[AdminActor, Member]:
    actor = permissions.acting_as(session, caller, origin, OPERATORS)
    if person_id == caller.person_id:
        raise OwnRoles("You cannot change your own roles. Ask another operator.")
    return actor, _again(session, person_id)


def _again(session: UnitOfWork, person_id: UUID) -> Member:
    member = memberships.find(session, None, person_id)
    if member is None:
        raise NotFound(NO_SUCH_PERSON)
    return member


def _replace(session: UnitOfWork, actor: AdminActor, member: Member, place: StaffRoles, action: str) -> None:
    lost = member.roles - place.roles
    if Role.OPERATOR in lost:
        withdraw_offers(session, actor, member.person_id)
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
        ended = emergency_stop.end_all_of(session, actor.caller, actor.origin, member.person_id)
    if diff:
        permissions.record_change(session, actor, _admin_change(session, action, member, diff, ended))


def _admin_change(
    session: UnitOfWork, action: str, member: Member, changes: dict[str, str], ended: Sequence[AccessRequest]
) -> AdminChange:
    personal = {"member": permissions.person(member.name, member.address)}
    facts: dict[str, Value] = {"person_id": member.person_id, "ended": [str(request.id) for request in ended]}
    return AdminChange(action, now(session), changes, personal, facts)
