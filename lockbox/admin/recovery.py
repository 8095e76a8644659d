"""Recovery: an operator proposes an admin for a tenant.

The proposal takes effect after 72 hours unless the tenant objects.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from lockbox.admin import invitations, permissions
from lockbox.admin.invitations import InvitationOffer
from lockbox.audit.events import Origin
from lockbox.database import Query, UnitOfWork, now
from lockbox.errors import RecoveryOpen
from lockbox.identity import authentication
from lockbox.identity.models import Invitation, Tenant
from lockbox.identity.roles import Caller, Role

WAIT = timedelta(hours=72)
OBJECTORS = (Role.TENANT_ADMIN, Role.APPROVER)
PROPOSED = text("""
SELECT true FROM invitations i WHERE i.tenant_id = ANY (at_tenants()) AND i.is_recovery AND i.accepted_at IS NULL
    AND i.withdrawn_at IS NULL LIMIT 1
""")


@dataclass(frozen=True)
class AdminProposal:
    invitation: Invitation
    tenant: str
    slug: str


def propose(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, *, name: str, address: str) -> Invitation:
    """Admins and approvers are notified now; the invitation is mailed after 72 hours."""
    actor, tenant = permissions.operate(session, caller, origin, slug)
    permissions.require_fresh_operator(session, actor)
    at = now(session)
    proposed = select(Invitation.id).where(
        col(Invitation.tenant_id) == tenant.id, col(Invitation.is_recovery), invitations.is_open(at)
    )
    if session.orm.exec(proposed).first():
        raise RecoveryOpen(
            "Another proposed admin for this tenant is pending. Wait until it is accepted, or withdraw it."
        )
    invitations.not_of_the_vendor(session, address)
    wanted = InvitationOffer(
        name=name,
        address=address,
        roles=frozenset({Role.TENANT_ADMIN}),
        action="recovery_proposed",
        is_recovery=True,
        takes_effect_at=at + WAIT,
        facts={"takes_effect_at": at + WAIT},
    )
    return invitations.make(session, actor, wanted, at)


def withdraw(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, invitation_id: UUID) -> None:
    actor, _ = permissions.operate(session, caller, origin, slug)
    invitations.end(session, actor, invitation_id, only_recovery=True)


def ahead_of_open_for() -> Query:
    return PROPOSED, {}


def open_for(session: UnitOfWork, caller: Caller) -> list[AdminProposal]:
    authentication.enter(session, caller)
    if not session.execute(*ahead_of_open_for()).first():
        return []
    mine = select(Tenant).where(col(Tenant.id).in_(caller.tenants(OBJECTORS)))
    known = {tenant.id: tenant for tenant in session.orm.exec(mine).all()}
    query = invitations.without_secret().where(
        col(Invitation.tenant_id).in_(known), col(Invitation.is_recovery), invitations.is_open(now(session))
    )
    found = [(known[one.tenant_id], one) for one in session.orm.exec(query).all() if one.tenant_id]
    return [
        AdminProposal(one, tenant.name, tenant.slug) for tenant, one in sorted(found, key=lambda pair: pair[0].slug)
    ]


def object_to(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, invitation_id: UUID) -> None:
    """For admins and approvers of the tenant; this ends the recovery."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, OBJECTORS, tenant)
    invitations.end(session, actor, invitation_id, only_recovery=True)
