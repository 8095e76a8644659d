"""Invitations: create, list, withdraw and accept. `tenant_id` is None for the vendor."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_, text
from sqlalchemy.orm import defer
from sqlmodel import col, select
from sqlmodel.sql.expression import SelectOfScalar

from catalogue.issuers import IdentityProvider
from lockbox.admin import memberships, permissions
from lockbox.admin.permissions import AdminActor, AdminChange, change, listed
from lockbox.audit.canonical import Value
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import (
    AlreadyInvited,
    AlreadyMember,
    InvitationClosed,
    InvitationExpired,
    InvitationRefused,
    NotFound,
    OtherSide,
    SignInAgain,
    TooMany,
)
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication, credential_trust, identities, keyring, row_macs
from lockbox.identity import tenants as registry
from lockbox.identity.authentication import CredentialKind, CredentialLookup
from lockbox.identity.models import Invitation, Membership, Person
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications import announcements, mailed_codes
from lockbox.notifications.account_mail import INVITATION
from lockbox.notifications.announcements import MATTERS_FOR
from lockbox.sql import new_id

DAY = timedelta(days=1)
INVITED_FOR = timedelta(hours=72)
REFUSED = "This invitation or its code is not valid. Ask for a new invitation."
OVER = "This invitation has expired. Ask for a new one."
SIGN_IN_TOO = (
    "You sign in with your identity provider here, so the code from the mail is not enough. Sign in there, then open "
    "the link of the mail again."
)
MIXED = "A person account cannot become a service account (or the reverse). Ask for an invitation to another address."
INVITED = "invited"
UNSAID = Origin("api")
HOLD_ADDRESS = text("SELECT pg_advisory_xact_lock(hashtextextended('lockbox address ' || lower(:address), 0))")


@dataclass(frozen=True)
class InvitationOffer:
    """The invitation is mailed at `takes_effect_at`, or at once if None.

    `action`, `changes` and `facts` describe the event.
    """

    name: str
    address: str
    roles: frozenset[Role]
    action: str = "member_invited"
    is_recovery: bool = False
    takes_effect_at: datetime | None = None
    changes: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Value] = field(default_factory=dict)


def make(session: UnitOfWork, actor: AdminActor, wanted: InvitationOffer, at: datetime) -> Invitation:
    """Create an invitation, its event and its mail. Only the mail shows the code.

    The inviter does not learn whether the address belongs to someone on the other side (vendor or customer). Such a
    person could not accept.
    """
    invitation = Invitation(
        id=new_id(),
        tenant_id=actor.tenant_id,
        email=wanted.address,
        name=wanted.name,
        roles=memberships.words(wanted.roles),
        is_recovery=wanted.is_recovery,
        invited_by=actor.caller.person_id,
        created_at=at,
        takes_effect_at=wanted.takes_effect_at or at,
    )
    sealed(session, invitation, invitation.takes_effect_at + INVITED_FOR)
    session.orm.add(invitation)
    session.orm.flush()
    admin_change = AdminChange(
        wanted.action,
        at,
        {**wanted.changes, "roles": change(permissions.ABSENT, listed(invitation.roles))},
        {"member": permissions.person(wanted.name, wanted.address)},
        {**wanted.facts, "invitation_id": invitation.id},
    )
    event_id = permissions.record_change(session, actor, admin_change)
    sent_at = invitation.takes_effect_at
    announcements.write_to(
        session,
        invitation.id,
        template=INVITATION,
        tenant_id=actor.tenant_id,
        event_id=event_id,
        at=sent_at,
        until=sent_at + MATTERS_FOR,
    )
    return invitation


def sealed(session: UnitOfWork, invitation: Invitation, until: datetime) -> str:
    """Set the expiry, the hash of the code and the MAC of an invitation; return the code."""
    ring = keyring.of(session)
    invitation.code_nonce, invitation.expires_at = ring.codes.nonce(), until
    code = mailed_codes.code_of(ring.codes, INVITATION, invitation.id, invitation.code_nonce, invitation.email)
    invitation.secret_hash = mailed_codes.hashes(session, invitation.id, code)[0]
    invitation.mac = ring.powers.mark(*row_macs.invitation(invitation))
    return code


def only_one(session: UnitOfWork, tenant_id: UUID | None, address: str, at: datetime) -> None:
    same_address = func.lower(col(Person.email)) == func.lower(address)
    place = col(Membership.tenant_id).is_not_distinct_from(tenant_id)
    if session.orm.exec(select(Person.id).join(Membership).where(same_address, place)).first():
        raise AlreadyMember("Someone with this address is a member already. Set their roles instead.")
    invited = func.lower(col(Invitation.email)) == func.lower(address)
    query = select(Invitation.id).where(at_place(tenant_id), invited, is_open(at), ~col(Invitation.is_recovery))
    if session.orm.exec(query).first():
        raise AlreadyInvited("This address has an open invitation. Withdraw it to send another one.")


def few_enough(session: UnitOfWork, tenant_id: UUID | None, at: datetime, most: int | None) -> None:
    """Check the limit of invitations within 24 hours; proposed admins are not counted."""
    if most is None:
        return
    since = (at_place(tenant_id), ~col(Invitation.is_recovery), col(Invitation.created_at) > at - DAY)
    query = select(Invitation.created_at).where(*since).order_by(col(Invitation.created_at).desc())
    first = session.orm.exec(query.offset(most - 1).limit(1)).first()
    if first is not None:
        raise TooMany(
            f"At most {most} people can be invited within 24 hours. Invite the others later, or ask the vendor "
            "to raise LOCKBOX_INVITATIONS_A_DAY.",
            retry_after=ceil((first + DAY - at).total_seconds()),
        )


def not_of_the_vendor(session: UnitOfWork, address: str) -> None:
    """Raises OtherSide if the address belongs to someone at the vendor. Only for operators, who may know this."""
    same_address = func.lower(col(Person.email)) == func.lower(address)
    if session.orm.exec(select(Person.id).where(same_address, col(Person.side) == Side.VENDOR)).first():
        raise OtherSide(
            "This address belongs to someone at the vendor, who cannot be a member of a customer. Use "
            "another address."
        )


def is_open(at: datetime) -> ColumnElement[bool]:
    return and_(
        col(Invitation.accepted_at).is_(None),
        col(Invitation.withdrawn_at).is_(None),
        or_(col(Invitation.expires_at).is_(None), col(Invitation.expires_at) > at),
    )


def at_place(tenant_id: UUID | None) -> ColumnElement[bool]:
    return col(Invitation.tenant_id).is_not_distinct_from(tenant_id)


def without_secret() -> SelectOfScalar[Invitation]:
    # The API's login may not read the hash; the database compares it with that of the given code.
    return select(Invitation).options(defer(Invitation.secret_hash, raiseload=True))  # type: ignore[arg-type]


def still_open(session: UnitOfWork, caller: Caller, slug: str) -> Sequence[Invitation]:
    """Newest first; `secret_hash` cannot be read. For the tenant's members."""
    tenant = permissions.readable(session, caller, slug)
    return listed_at(session, tenant.id)


def listed_at(session: UnitOfWork, tenant_id: UUID | None) -> Sequence[Invitation]:
    query = without_secret().where(at_place(tenant_id), is_open(now(session)))
    return session.orm.exec(query.order_by(col(Invitation.id).desc())).all()


def withdraw(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, invitation_id: UUID) -> None:
    tenant = permissions.known(session, caller, slug)
    end(session, permissions.acting_as(session, caller, origin, (Role.TENANT_ADMIN,), tenant), invitation_id)


def end(session: UnitOfWork, actor: AdminActor, invitation_id: UUID, *, only_recovery: bool = False) -> None:
    """Withdraw an invitation.

    With `only_recovery`, it must be the invitation of a proposed admin; withdrawing it ends the recovery.
    """
    query = without_secret().where(col(Invitation.id) == invitation_id, at_place(actor.tenant_id))
    invitation = session.orm.exec(query.with_for_update()).one_or_none()
    if invitation is None or (only_recovery and not invitation.is_recovery):
        raise NotFound("There is no such invitation.")
    if invitation.accepted_at or invitation.withdrawn_at:
        raise InvitationClosed("This invitation was accepted or withdrawn already.")
    _end(session, actor, invitation)


def end_those_by(session: UnitOfWork, actor: AdminActor, person_id: UUID) -> None:
    """Withdraw the invitations made by a person who may no longer invite for the actor's tenant or the vendor."""
    theirs = (col(Invitation.invited_by) == person_id, at_place(actor.tenant_id), is_open(now(session)))
    query = without_secret().where(*theirs).order_by(col(Invitation.id)).with_for_update()
    for invitation in session.orm.exec(query).all():
        _end(session, actor, invitation)


def accept(
    session: UnitOfWork,
    invitation_id: UUID,
    code: str,
    *,
    origin: Origin = UNSAID,
    issuers: Iterable[IdentityProvider] = (),
    visitor: Caller | None = None,
) -> Caller:
    """Accept an invitation with the mailed code, once; the transaction then acts as the invited person.

    A new person is created on the inviting side. A user of an identity provider needs a fresh and strong sign-in in
    this browser (`visitor`), and gets the roles of this tenant only: a mailed code opens no other tenant.

    Raises:
        InvitationRefused: the invitation, the code or the person is not valid; the answer does not say which.
    """
    invitation = _locked(session, invitation_id, code)
    at = now(session)
    # The credential is read again, because much may have changed during the wait for the locks.
    found = _valid_invitation(_shown(session, invitation_id, code), invitation, at)
    side = Side.CUSTOMER if invitation.tenant_id else Side.VENDOR
    if found.side not in {None, side}:
        raise OtherSide("This address belongs to someone on the other side. Use another address.")
    name, person_id = found.name or invitation.name, found.person_id
    if person_id is None:
        person_id = registry.add_person(session, name, invitation.email, side).id
    caller = Caller(person_id, name, frozenset(), side=side, means=AuthMethod.MAIL, signed_in_at=at)
    authentication.enter(session, caller)
    caller = authentication.as_of_now(session, caller)
    authentication.reenter(session, caller)
    is_bound = identities.is_bound(session, caller, issuers)
    if is_bound:
        _signed_in_too(caller, visitor, at)
    seated = _seated(session, caller, invitation, origin, at)
    return _narrowed(session, seated, invitation.tenant_id) if is_bound else seated


def _signed_in_too(caller: Caller, visitor: Caller | None, at: datetime) -> None:
    is_theirs = (
        visitor is not None and visitor.person_id == caller.person_id and visitor.means in credential_trust.STRONG
    )
    if visitor is None or not is_theirs or visitor.signed_in_at is None:
        raise SignInAgain(SIGN_IN_TOO)
    if at - visitor.signed_in_at >= credential_trust.FRESH:
        raise SignInAgain(SIGN_IN_TOO, max_age=int(credential_trust.FRESH.total_seconds()))


def _narrowed(session: UnitOfWork, caller: Caller, tenant_id: UUID | None) -> Caller:
    narrow = caller.within(tenant_id)
    authentication.reenter(session, narrow)
    return narrow


def _end(session: UnitOfWork, actor: AdminActor, invitation: Invitation) -> None:
    at = now(session)
    invitation.withdrawn_at, invitation.withdrawn_by = at, actor.caller.person_id
    session.orm.add(invitation)
    session.orm.flush()
    admin_change = AdminChange(
        _ending(actor, invitation),
        at,
        {"roles": change(listed(invitation.roles), permissions.ABSENT)},
        {"member": permissions.person(invitation.name, invitation.email)},
        {"invitation_id": invitation.id},
    )
    permissions.record_change(session, actor, admin_change)


def _ending(actor: AdminActor, invitation: Invitation) -> str:
    if not invitation.is_recovery:
        return "invitation_withdrawn"
    return "recovery_withdrawn" if actor.role == Role.OPERATOR else "recovery_objected"


def _locked(session: UnitOfWork, invitation_id: UUID, code: str) -> Invitation:
    found = _shown(session, invitation_id, code)
    if found is None or found.revoked or found.disabled:
        raise InvitationRefused(REFUSED)
    if found.expires_at is None or now(session) >= found.expires_at:
        raise InvitationExpired(OVER)
    permissions.lock_members(session, next(iter(found.standings)).tenant_id)
    query = without_secret().where(col(Invitation.id) == invitation_id).with_for_update()
    invitation = session.orm.exec(query.execution_options(populate_existing=True)).one()
    if not row_macs.is_held(session, invitation.mac, row_macs.invitation(invitation), invitation.id):
        raise InvitationRefused(REFUSED)
    # Two invitations to one new address must not create two people.
    session.execute(HOLD_ADDRESS, {"address": invitation.email})
    return invitation


def _shown(session: UnitOfWork, invitation_id: UUID, code: str) -> CredentialLookup | None:
    hashes = mailed_codes.hashes(session, invitation_id, code)
    return authentication.look_up_credential(session, CredentialKind.INVITATION, str(invitation_id), hashes)


def _valid_invitation(found: CredentialLookup | None, invitation: Invitation, at: datetime) -> CredentialLookup:
    if found is None or found.revoked or found.disabled or at < invitation.takes_effect_at:
        raise InvitationRefused(REFUSED)
    if found.expires_at is None or at >= found.expires_at:
        raise InvitationExpired(OVER)
    return found


def _seated(session: UnitOfWork, caller: Caller, invitation: Invitation, origin: Origin, at: datetime) -> Caller:
    place, offered = invitation.tenant_id, frozenset(Role(role) for role in invitation.roles)
    before = _roles_at(caller, place)
    if before and (Role.SYSTEM in before) is not (Role.SYSTEM in offered):
        raise InvitationRefused(MIXED)
    memberships.give(session, caller.person_id, place, offered)
    invitation.accepted_at, invitation.accepted_by = at, caller.person_id
    session.orm.add(invitation)
    session.orm.flush()
    caller = authentication.as_of_now(session, caller)
    authentication.reenter(session, caller)
    admin_change = AdminChange(
        "member_added",
        at,
        {"roles": change(listed(before), listed(_roles_at(caller, place)))},
        {"member": permissions.person(caller.name, invitation.email)},
        {"invitation_id": invitation.id, "person_id": caller.person_id},
    )
    permissions.record_change(session, AdminActor(caller, INVITED, origin, place), admin_change)
    return caller


def _roles_at(caller: Caller, place: UUID | None) -> frozenset[Role]:
    return frozenset(standing.role for standing in caller.standings if standing.tenant_id == place)
