"""A tenant's retention, legal holds and off-boarding."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel
from sqlalchemy import text

from lockbox.admin import legal_holds, permissions
from lockbox.admin.legal_holds import HoldSummary
from lockbox.admin.permissions import AdminActor, AdminChange, audit_event_of, change
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, Invalid, NotFound
from lockbox.identity import authentication, row_macs
from lockbox.identity.models import Offboarding, Person, Retention, Tenant
from lockbox.identity.roles import TENANT_ROLES, Caller, Role, Side
from lockbox.notifications import announcements

LEAST_DAYS, MOST_DAYS = 30, 36_500
RETENTION_CHANGED = "retention_changed"
ASKED, WITHDRAWN = "offboarding_asked", "offboarding_withdrawn"
ADMINS = (Role.TENANT_ADMIN,)
READERS = (Role.OPERATOR, Role.VENDOR_AUDITOR)
FOR_EVER = "for ever"
BEGUN = "The vendor has begun to off-board the tenant; this cannot be undone."
MOST_A_PAGE = 200
OF_TENANTS = text("""
SELECT t.slug, t.name, r.days, o.asked_at, o.closed_at, array(SELECT h.side FROM legal_holds h
    WHERE h.tenant_id = t.id AND h.released_at IS NULL ORDER BY h.side DESC) AS held_by
FROM tenants t LEFT JOIN retentions r ON r.tenant_id = t.id LEFT JOIN offboardings o ON o.tenant_id = t.id
WHERE (CAST(:cursor AS text) IS NULL OR t.slug > :cursor) AND o.erased_at IS NULL AND (r.days IS NOT NULL
    OR o.tenant_id IS NOT NULL
    OR EXISTS (SELECT FROM legal_holds h WHERE h.tenant_id = t.id AND h.released_at IS NULL))
ORDER BY t.slug LIMIT :most
""")
UNVERIFIED = "That this tenant leaves was written past Lockbox and counts for nothing. Withdraw it first."
NOT_ASKED = "Nobody has asked to off-board the tenant."


class OffboardingState(BaseModel, frozen=True):
    asked_at: datetime
    asked_by: str | None
    closed_at: datetime | None
    erased_at: datetime | None


@dataclass(frozen=True)
class TenantData:
    """`retention_days` None means the installation's limit. `most_days` is this limit, None for no limit."""

    retention_days: int | None
    most_days: int | None
    holds: Sequence[HoldSummary]
    offboarding: OffboardingState | None

    @property
    def kept_days(self) -> int | None:
        """None means indefinitely."""
        return min([one for one in (self.retention_days, self.most_days) if one], default=None)


@dataclass(frozen=True)
class TenantDataEntry:
    slug: str
    name: str
    retention_days: int | None
    held_by: Sequence[Side]
    offboarding_asked_at: datetime | None
    offboarding_closed_at: datetime | None


@dataclass(frozen=True)
class TenantDataListing:
    items: Sequence[TenantDataEntry]
    next_cursor: str | None


def listed(session: UnitOfWork, caller: Caller, *, cursor: str | None, most: int) -> TenantDataListing:
    """Tenants with a legal hold, an off-boarding or their own retention. For operators and auditors."""
    authentication.enter(session, caller)
    permissions.capacity(caller, READERS)
    rows = session.execute(OF_TENANTS, {"cursor": cursor, "most": most + 1}).all()
    shown = [
        TenantDataEntry(row.slug, row.name, row.days, [Side(one) for one in row.held_by], row.asked_at, row.closed_at)
        for row in rows[:most]
    ]
    return TenantDataListing(shown, shown[-1].slug if len(rows) > most else None)


def read(session: UnitOfWork, caller: Caller, slug: str, *, most: int | None) -> TenantData:
    """For the tenant's members, operators, and the vendor's auditors. `most` is the installation's limit in days."""
    tenant = permissions.known(session, caller, slug)
    if caller.side is Side.VENDOR:
        permissions.capacity(caller, READERS)
    else:
        permissions.capacity(caller, tuple(TENANT_ROLES), tenant.id)
    return TenantData(
        _days(session, tenant), most, legal_holds.listed(session, tenant, caller.side), _offboarding(session, tenant)
    )


def _days(session: UnitOfWork, tenant: Tenant) -> int | None:
    found = session.orm.get(Retention, tenant.id)
    return found.days if found and row_macs.is_vouched_for(session, found) else None


def keep_for(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, days: int | None, *, most: int | None
) -> None:
    """Set the tenant's retention, as its admin; `days` None means the installation's limit."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    tenant = permissions.locked(session, tenant)
    found, before = session.orm.get(Retention, tenant.id), _days(session, tenant)
    if days == before and (found is None or row_macs.is_vouched_for(session, found)):
        return
    was = found or Retention(tenant_id=tenant.id)
    permissions.require_fresh_admin(session, actor, tenant)
    limit = most or MOST_DAYS
    if days is not None and not LEAST_DAYS <= days <= limit:
        raise Invalid(f"Keep the log for {LEAST_DAYS} to {limit} days.", field="days")
    changes = {"retention": change(_words(before, most), _words(days, most))}
    was.days, was.set_at = days, now(session)
    row_macs.mark_data(session, was)
    session.orm.add(was)
    session.orm.flush()
    permissions.record_change(session, actor, AdminChange(RETENTION_CHANGED, was.set_at, changes))


def ask_to_leave(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> None:
    """Ask the vendor to off-board a tenant, as its admin."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    permissions.require_fresh_admin(session, actor, tenant)
    there = session.orm.get(Offboarding, tenant.id)
    if there is not None and not row_macs.is_vouched_for(session, there):
        raise Conflict(UNVERIFIED)
    if there is not None:
        return
    if legal_holds.listed(session, tenant, Side.CUSTOMER):
        raise Conflict("There is a legal hold at this tenant. Whoever set it has to release it first.")
    at = now(session)
    row = Offboarding(tenant_id=tenant.id, asked_by=actor.caller.person_id, asked_at=at)
    row_macs.mark_data(session, row)
    session.orm.add(row)
    session.orm.flush()
    _record(session, actor, AdminChange(ASKED, at, {"off-boarding": change(permissions.ABSENT, "asked")}))


def stay(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> None:
    """Withdraw the request to off-board the tenant, as its admin; possible until the off-boarding begins."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    permissions.require_fresh_admin(session, actor, tenant)
    row = session.orm.get(Offboarding, tenant.id)
    if row is None:
        raise NotFound(NOT_ASKED)
    if row.closed_at is not None:
        raise Conflict(BEGUN)
    session.orm.delete(row)
    session.orm.flush()
    said = AdminChange(WITHDRAWN, now(session), {"off-boarding": change("asked", permissions.ABSENT)})
    _record(session, actor, said)


def _record(session: UnitOfWork, actor: AdminActor, said: AdminChange) -> None:
    """Write the change to the customer's log and, without the admin's name, to the vendor's log."""
    permissions.record_change(session, actor, said)
    announcements.notify_operators(session, permissions.for_the_vendor(audit_event_of(actor, said)))


def _words(days: int | None, most: int | None) -> str:
    kept = min([one for one in (days, most) if one], default=None)
    return f"{kept} days" if kept else FOR_EVER


def _offboarding(session: UnitOfWork, tenant: Tenant) -> OffboardingState | None:
    row = session.orm.get(Offboarding, tenant.id)
    if row is None:
        return None
    person = session.orm.get(Person, row.asked_by) if row.asked_by else None
    asked_by = person.name if person else None
    return OffboardingState(
        asked_at=row.asked_at, asked_by=asked_by, closed_at=row.closed_at, erased_at=row.erased_at
    )
