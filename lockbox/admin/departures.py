"""Places that somebody of the vendor has offered, and that end when they leave."""

from uuid import UUID

from sqlmodel import Session, col, select

from lockbox.admin import invitations, offers, permissions
from lockbox.admin.permissions import Seat
from lockbox.database import now
from lockbox.identity import row_security
from lockbox.identity.models import Invitation


def withdraw_offers(session: Session, seat: Seat, person_id: UUID) -> None:
    """Take back every open invitation and proposal of somebody of the vendor, in whatever place they made it.

    The vendor's people are held; those of the tenants are held here, by id. Each is told as ever.
    """
    invitations.end_those_by(session, seat, person_id)
    made = select(Invitation.tenant_id).where(
        col(Invitation.invited_by) == person_id, col(Invitation.tenant_id).is_not(None), offers.is_open(now(session))
    )
    tenants = session.exec(made.distinct().order_by(col(Invitation.tenant_id))).all()
    for tenant_id in tenants:
        permissions.hold(session, tenant_id)
    for tenant_id in tenants:
        assert tenant_id is not None  # noqa: S101 - the query says so
        row_security.turn_to(session, tenant_id)
        invitations.end_those_by(session, Seat(seat.caller, seat.role, seat.origin, tenant_id), person_id)
