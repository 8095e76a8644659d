"""Offers: what an invitation holds out to an address, whom none may be made, and which are still open."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

from sqlalchemy import ColumnElement, and_, func, or_
from sqlalchemy.orm import defer
from sqlmodel import Session, col, select
from sqlmodel.sql.expression import SelectOfScalar

from lockbox.admin import change_events, memberships
from lockbox.admin.change_events import Deed, change, listed
from lockbox.admin.permissions import Seat
from lockbox.audit.canonical import Value
from lockbox.errors import AlreadyInvited, AlreadyMember, OtherSide, TooMany
from lockbox.identity import keyring, row_marks
from lockbox.identity.models import Invitation, Membership, Person
from lockbox.identity.roles import Role, Side
from lockbox.ids import new_id
from lockbox.notifications import announcements, load_account
from lockbox.notifications.account_mail import INVITATION
from lockbox.notifications.announcements import MATTERS_FOR

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Offer:
    """What is offered to an address, and how the trail tells of it: action, diff and facts beyond the usual ones.

    It is mailed at `takes_effect_at`, or at once for None.
    """

    name: str
    address: str
    roles: frozenset[Role]
    action: str = "member_invited"
    is_recovery: bool = False
    takes_effect_at: datetime | None = None
    changes: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, Value] = field(default_factory=dict)


def make(session: Session, seat: Seat, wanted: Offer, at: datetime) -> Invitation:
    """Offer a place and promise the mail; only who sends it says the code that accepts it.

    Who is on the other side is not told to whoever invites: they could not accept it.
    """
    invitation = Invitation(
        id=new_id(),
        tenant_id=seat.tenant_id,
        email=wanted.address,
        name=wanted.name,
        roles=memberships.words(wanted.roles),
        is_recovery=wanted.is_recovery,
        invited_by=seat.caller.person_id,
        created_at=at,
        takes_effect_at=wanted.takes_effect_at or at,
    )
    sealed(session, invitation, invitation.takes_effect_at + load_account.INVITED_FOR)
    session.add(invitation)
    session.flush()
    deed = Deed(
        wanted.action,
        at,
        {**wanted.changes, "roles": change(change_events.ABSENT, listed(invitation.roles))},
        {"member": change_events.person(wanted.name, wanted.address)},
        {**wanted.facts, "invitation_id": invitation.id},
    )
    event_id = change_events.tell(session, seat, deed)
    sent_at = invitation.takes_effect_at
    announcements.write_to(
        session,
        invitation.id,
        template=INVITATION,
        tenant_id=seat.tenant_id,
        event_id=event_id,
        at=sent_at,
        until=sent_at + MATTERS_FOR,
    )
    return invitation


def sealed(session: Session, invitation: Invitation, until: datetime) -> str:
    """Give an invitation its end, the hash of its code and its mark; return the code."""
    ring = keyring.of(session)
    invitation.code_nonce, invitation.expires_at = ring.codes.nonce(), until
    code = load_account.code_of(ring.codes, INVITATION, invitation.id, invitation.code_nonce, invitation.email)
    invitation.secret_hash = load_account.hashes(session, invitation.id, code)[0]
    invitation.mac = ring.powers.mark(*row_marks.invitation(invitation))
    return code


def only_one(session: Session, tenant_id: UUID | None, address: str, at: datetime) -> None:
    """Check that nobody with this address is a member of the tenant, or has a role at the vendor, or is invited.

    Raises:
        AlreadyMember, AlreadyInvited: as named.
    """
    same_address = func.lower(col(Person.email)) == func.lower(address)
    place = col(Membership.tenant_id).is_not_distinct_from(tenant_id)
    if session.exec(select(Person.id).join(Membership).where(same_address, place)).first():
        raise AlreadyMember("Somebody with this address is a member already; set their roles instead.")
    invited = func.lower(col(Invitation.email)) == func.lower(address)
    query = select(Invitation.id).where(at_place(tenant_id), invited, is_open(at), ~col(Invitation.is_recovery))
    if session.exec(query).first():
        raise AlreadyInvited("This address is invited already; withdraw that invitation to write another one.")


def few_enough(session: Session, tenant_id: UUID | None, at: datetime, most: int | None) -> None:
    """Check that fewer people than so many were invited within 24 hours; proposals of admins do not count.

    Each invitation is a mail that Lockbox sends to whatever address somebody names.

    Raises:
        TooMany: as many were; `retry_after` is in seconds.
    """
    if most is None:
        return
    since = (at_place(tenant_id), ~col(Invitation.is_recovery), col(Invitation.created_at) > at - DAY)
    query = select(Invitation.created_at).where(*since).order_by(col(Invitation.created_at).desc())
    first = session.exec(query.offset(most - 1).limit(1)).first()
    if first is not None:
        raise TooMany(
            f"At most {most} people can be invited within 24 hours. Invite the others later, or ask the vendor "
            "to raise LOCKBOX_INVITATIONS_A_DAY.",
            retry_after=ceil((first + DAY - at).total_seconds()),
        )


def not_of_the_vendor(session: Session, address: str) -> None:
    """Check that no admin of a customer is sought among the vendor's own people, whom an operator knows.

    Raises:
        OtherSide: the address belongs to one of them.
    """
    same_address = func.lower(col(Person.email)) == func.lower(address)
    if session.exec(select(Person.id).where(same_address, col(Person.side) == Side.VENDOR)).first():
        raise OtherSide("This address belongs to somebody at the vendor, who can never be a member of a customer.")


def is_open(at: datetime) -> ColumnElement[bool]:
    """Return the condition for an invitation that can still be accepted, or will be."""
    return and_(
        col(Invitation.accepted_at).is_(None),
        col(Invitation.withdrawn_at).is_(None),
        or_(col(Invitation.expires_at).is_(None), col(Invitation.expires_at) > at),
    )


def at_place(tenant_id: UUID | None) -> ColumnElement[bool]:
    """Return the condition for an invitation to a tenant, or to the vendor's side for None."""
    return col(Invitation.tenant_id).is_not_distinct_from(tenant_id)


def without_secret() -> SelectOfScalar[Invitation]:
    """Return the query for invitations without the hash of their code."""
    # The API's login may not read the hash: it is compared, in the database, with that of the code that is shown.
    return select(Invitation).options(defer(Invitation.secret_hash, raiseload=True))  # type: ignore[arg-type]
