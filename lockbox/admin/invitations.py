"""Invitations: which are open, taking one back, and accepting it, once, with the mailed code."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session, col

from config.issuers import Issuer
from lockbox.admin import change_events, memberships, offers, permissions
from lockbox.admin.change_events import Deed, change, listed
from lockbox.admin.permissions import Seat
from lockbox.database import now
from lockbox.errors import InvitationClosed, InvitationExpired, InvitationRefused, OtherSide, SignInAgain, Unknown
from lockbox.identity import authentication, enrolment, identities, row_marks, row_security
from lockbox.identity import tenants as registry
from lockbox.identity.authentication import Found, Kind
from lockbox.identity.models import Invitation
from lockbox.identity.roles import Caller, Means, Role, Side
from lockbox.notifications import load_account
from lockbox.requests.transition import Origin

REFUSED = "This invitation is not good, or the code is not its own: ask for another one."
OVER = "The time to accept this invitation is over; ask for another one."
SIGN_IN_TOO = (
    "You sign in by a sign-in service here, so the code from the mail is not enough: sign in by that service, then "
    "come back to this page and enter the code."
)
MIXED = "A person becomes no system, nor a system a person: ask for an invitation to another address."
INVITED = "invited"
UNSAID = Origin("api")

HOLD_ADDRESS = text("SELECT pg_advisory_xact_lock(hashtextextended('lockbox address ' || lower(:address), 0))")


def still_open(session: Session, caller: Caller, slug: str) -> Sequence[Invitation]:
    """Return a tenant's open invitations to its members, the newest first; `secret_hash` is out of reach.

    Raises:
        Unknown, NotYours: as named.
    """
    tenant = permissions.readable(session, caller, slug)
    return listed_at(session, tenant.id)


def listed_at(session: Session, tenant_id: UUID | None) -> Sequence[Invitation]:
    """Return the open invitations of a tenant, or of the vendor for None."""
    query = offers.without_secret().where(offers.at_place(tenant_id), offers.is_open(now(session)))
    return session.exec(query.order_by(col(Invitation.id).desc())).all()


def withdraw(session: Session, caller: Caller, origin: Origin, slug: str, invitation_id: UUID) -> None:
    """Take an invitation of a tenant back, as its admin; a recovery too.

    Raises:
        Unknown, NotYours: as named.
        InvitationClosed: it has been accepted or withdrawn.
    """
    tenant = permissions.known(session, caller, slug)
    end(session, permissions.take(session, caller, origin, (Role.TENANT_ADMIN,), tenant), invitation_id)


def end(session: Session, seat: Seat, invitation_id: UUID, *, only_recovery: bool = False) -> None:
    """Take an invitation back in the capacity in which somebody acts; that of a recovery is an objection.

    Raises:
        Unknown: there is none, or none of that kind.
        InvitationClosed: it has been accepted or withdrawn.
    """
    query = offers.without_secret().where(col(Invitation.id) == invitation_id, offers.at_place(seat.tenant_id))
    invitation = session.exec(query.with_for_update()).one_or_none()
    if invitation is None or (only_recovery and not invitation.is_recovery):
        raise Unknown("There is no such invitation.")
    if invitation.accepted_at or invitation.withdrawn_at:
        raise InvitationClosed("This invitation has been accepted or withdrawn; there is nothing left to take back.")
    _end(session, seat, invitation)


def end_those_by(session: Session, seat: Seat, person_id: UUID) -> None:
    """Take back what somebody has offered who no longer may: at one tenant, or at the vendor, where somebody acts."""
    theirs = (col(Invitation.invited_by) == person_id, offers.at_place(seat.tenant_id), offers.is_open(now(session)))
    query = offers.without_secret().where(*theirs).order_by(col(Invitation.id)).with_for_update()
    for invitation in session.exec(query).all():
        _end(session, seat, invitation)


def accept(
    session: Session,
    invitation_id: UUID,
    code: str,
    *,
    origin: Origin = UNSAID,
    issuers: Iterable[Issuer] = (),
    visitor: Caller | None = None,
) -> Caller:
    """Let whoever has the mailed code take the place, once; the transaction becomes theirs.

    Somebody with the address is made a person on the side that invites; a person of that side keeps what they have
    and gets the roles too. Nothing is written when it is refused. Who signs in by an issuer elsewhere takes a further
    place as the `visitor` whom a browser shows, strongly signed in: no mailbox takes them anywhere.

    Returns:
        The person, signed in by mail alone, with every role held now; who signs in by one of the issuers, with those
        at this tenant alone.

    Raises:
        InvitationRefused: the invitation is unknown, used, withdrawn or not yet good, the code is wrong, or the
            person was disabled; all of these answer alike. Or it would make a system something else as well.
        InvitationExpired: the code is right and its time is over.
        OtherSide: the address belongs to a person of the other side.
        SignInAgain: the person signs in by an issuer, and is not so signed in.
    """
    invitation = _locked(session, invitation_id, code)
    at = now(session)
    # Looked at once more: much may have changed while the locks were waited for.
    found = _judged(_shown(session, invitation_id, code), invitation, at)
    side = Side.CUSTOMER if invitation.tenant_id else Side.VENDOR
    if found.side not in {None, side}:
        raise OtherSide("This address belongs to somebody on the other side, and nobody is on both.")
    name, person_id = found.name or invitation.name, found.person_id
    if person_id is None:
        person_id = registry.add_person(session, name, invitation.email, side).id
    caller = Caller(person_id, name, frozenset(), side=side, means=Means.MAIL, signed_in_at=at)
    row_security.enter(session, caller)
    caller = registry.as_of_now(session, caller)
    row_security.reenter(session, caller)
    is_bound = identities.is_bound(session, caller, issuers)
    if is_bound:
        _signed_in_too(caller, visitor, at)
    seated = _seated(session, caller, invitation, origin, at)
    return _narrowed(session, seated, invitation.tenant_id) if is_bound else seated


def _signed_in_too(caller: Caller, visitor: Caller | None, at: datetime) -> None:
    """Check that somebody who signs in by an issuer does more than read their mailbox."""
    is_theirs = visitor is not None and visitor.person_id == caller.person_id and visitor.means in enrolment.STRONG
    if visitor is None or not is_theirs or visitor.signed_in_at is None:
        raise SignInAgain(SIGN_IN_TOO)
    if at - visitor.signed_in_at >= enrolment.FRESH:
        raise SignInAgain(SIGN_IN_TOO, max_age=int(enrolment.FRESH.total_seconds()))


def _narrowed(session: Session, caller: Caller, tenant_id: UUID | None) -> Caller:
    """Return somebody as far as the code goes that they were mailed: no mailbox opens where their issuer signs in."""
    narrow = caller.within(tenant_id)
    row_security.reenter(session, narrow)
    return narrow


def _end(session: Session, seat: Seat, invitation: Invitation) -> None:
    at = now(session)
    invitation.withdrawn_at, invitation.withdrawn_by = at, seat.caller.person_id
    session.add(invitation)
    session.flush()
    deed = Deed(
        _ending(seat, invitation),
        at,
        {"roles": change(listed(invitation.roles), change_events.ABSENT)},
        {"member": change_events.person(invitation.name, invitation.email)},
        {"invitation_id": invitation.id},
    )
    change_events.tell(session, seat, deed)


def _ending(seat: Seat, invitation: Invitation) -> str:
    if not invitation.is_recovery:
        return "invitation_withdrawn"
    return "recovery_withdrawn" if seat.role == Role.OPERATOR else "recovery_objected"


def _locked(session: Session, invitation_id: UUID, code: str) -> Invitation:
    found = _shown(session, invitation_id, code)
    if found is None or found.revoked or found.disabled:
        raise InvitationRefused(REFUSED)
    if found.expires_at is None or now(session) >= found.expires_at:
        raise InvitationExpired(OVER)
    permissions.hold(session, next(iter(found.standings)).tenant_id)
    query = offers.without_secret().where(col(Invitation.id) == invitation_id).with_for_update()
    invitation = session.exec(query.execution_options(populate_existing=True)).one()
    if not row_marks.is_held(session, invitation.mac, row_marks.invitation(invitation), invitation.id):
        raise InvitationRefused(REFUSED)
    # Two places, offered to one new address, must not make two people.
    session.connection().execute(HOLD_ADDRESS, {"address": invitation.email})
    return invitation


def _shown(session: Session, invitation_id: UUID, code: str) -> Found | None:
    hashes = load_account.hashes(session, invitation_id, code)
    return authentication.recognise(session, Kind.INVITATION, str(invitation_id), hashes)


def _judged(found: Found | None, invitation: Invitation, at: datetime) -> Found:
    if found is None or found.revoked or found.disabled or at < invitation.takes_effect_at:
        raise InvitationRefused(REFUSED)
    if found.expires_at is None or at >= found.expires_at:
        raise InvitationExpired(OVER)
    return found


def _seated(session: Session, caller: Caller, invitation: Invitation, origin: Origin, at: datetime) -> Caller:
    place, offered = invitation.tenant_id, frozenset(Role(role) for role in invitation.roles)
    before = _roles_at(caller, place)
    if before and (Role.SYSTEM in before) is not (Role.SYSTEM in offered):
        raise InvitationRefused(MIXED)
    memberships.give(session, caller.person_id, place, offered)
    invitation.accepted_at, invitation.accepted_by = at, caller.person_id
    session.add(invitation)
    session.flush()
    caller = registry.as_of_now(session, caller)
    row_security.reenter(session, caller)
    deed = Deed(
        "member_added",
        at,
        {"roles": change(listed(before), listed(_roles_at(caller, place)))},
        {"member": change_events.person(caller.name, invitation.email)},
        {"invitation_id": invitation.id, "person_id": caller.person_id},
    )
    change_events.tell(session, Seat(caller, INVITED, origin, place), deed)
    return caller


def _roles_at(caller: Caller, place: UUID | None) -> frozenset[Role]:
    return frozenset(standing.role for standing in caller.standings if standing.tenant_id == place)
