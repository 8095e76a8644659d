"""Notice to a tenant that an invited person has added a first passkey; it says when the passkey can begin to approve.

The tenant is notified because someone else could have read the invitation's code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from lockbox.admin import permissions
from lockbox.admin.permissions import AdminActor, AdminChange
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import NotFound
from lockbox.identity import passkeys
from lockbox.identity.credentials import Passkey
from lockbox.identity.models import Person, Tenant
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications.account_mail import FIRST_PASSKEY
from lockbox.notifications.mail_text import duration
from lockbox.requests import approvals, policy_store
from lockbox.requests.policy import Terms
from lockbox.requests.policy_rules import Policy, strictest

DECIDING = (Role.APPROVER, Role.TENANT_ADMIN)
"""Roles that decide requests or set the policy. Someone who intercepts an invitation to such a role could do the
same."""
AT_ONCE = "at once"
INVITED = text("""
SELECT DISTINCT tenant_id FROM invitations WHERE accepted_by = :id AND tenant_id = ANY(CAST(:tenants AS uuid[]))
""")
KEYS_OF = text("""
SELECT passkey_id AS id, person_id, credential_id, public_key, created_at, trusted_at, only_at, mac
FROM approver_keys(:tenant_id) WHERE person_id = :person_id
""")


@dataclass(frozen=True)
class FirstPasskeyWait:
    tenant: str
    until: datetime


def announce(session: UnitOfWork, caller: Caller, origin: Origin) -> None:
    """Notify all admins and approvers of each tenant that has invited the person."""
    held = {place for place in caller.tenants(set(DECIDING)) if place is not None}
    invited = session.execute(INVITED, {"id": caller.person_id, "tenants": sorted(held)}).scalars().all()
    person, at = session.orm.get_one(Person, caller.person_id), now(session)
    for place in sorted(invited):
        wait = _terms(session, place).first_passkey_wait
        role = permissions.capacity(caller, DECIDING, place)
        change = AdminChange(
            FIRST_PASSKEY,
            at,
            {"approves": f"after {duration(wait)}" if wait else AT_ONCE},
            {"member": permissions.person(person.name, person.email)},
            {"person_id": caller.person_id},
        )
        permissions.record_change(session, AdminActor(caller, role, origin, place), change)


def waits(session: UnitOfWork, caller: Caller) -> Sequence[FirstPasskeyWait]:
    if caller.side is not Side.CUSTOMER:
        return ()
    added, at = passkeys.first_added(session, passkeys.held_by(session, caller.person_id)), now(session)
    if added is None:
        return ()
    held = sorted(caller.tenants({Role.APPROVER}))
    ends = [(place, approvals.passkey_approves_from(added, _terms(session, place))) for place in held]
    return [FirstPasskeyWait(session.orm.get_one(Tenant, place).name, until) for place, until in ends if at < until]


def end_of_wait(session: UnitOfWork, tenant: Tenant, person_id: UUID) -> datetime | None:
    """Return when a member's first passkey can begin to approve; None if it already can. Only admins can read it."""
    rows = session.execute(KEYS_OF, {"tenant_id": tenant.id, "person_id": person_id})
    added = passkeys.first_added(session, [Passkey(**row._asdict()) for row in rows])
    until = added and approvals.passkey_approves_from(added, _terms(session, tenant.id))
    return until if until and now(session) < until else None


def _terms(session: UnitOfWork, tenant_id: UUID) -> Terms:
    tenant = session.orm.get(Tenant, tenant_id)
    if tenant is None:
        raise NotFound("There is no such tenant.")
    return strictest(policy_store.verified(session, tenant) or Policy())
