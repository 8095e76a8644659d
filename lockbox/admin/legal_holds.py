"""Legal holds: while either side has a hold on a tenant, retention and erasure remove nothing of the tenant.

A hold without a valid MAC counts too, even if its row says that it was released.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from lockbox.admin import permissions
from lockbox.admin.permissions import AdminActor, AdminChange, change
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, NotFound
from lockbox.identity import row_macs
from lockbox.identity.models import LegalHold, Person, Tenant
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications import announcements
from lockbox.sql import new_id

SET, RELEASED = "hold_set", "hold_released"
LONGEST_REASON = 2000
ADMINS = (Role.TENANT_ADMIN,)
NO_HOLD = "Your side holds nothing of this tenant."
HELD_ALREADY = "Your side holds this tenant already. Release it first, to give another reason."
# An erasure shares this lock until its commit, so that nothing is erased once a hold was set.
WAIT_FOR_ERASURE = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('legal hold of ' || CAST(:tenant AS uuid), 0))"
)
ERASING = text("""
SELECT pg_advisory_xact_lock_shared(hashtextextended('legal hold of ' || one, 0))
FROM unnest(CAST(:tenants AS uuid[])) AS one
""")
SLUGS = text("SELECT slug FROM tenants WHERE id = ANY(:tenants) ORDER BY slug")


@dataclass(frozen=True)
class HoldSummary:
    """`reason` and `set_by` are None for a reader of the other side."""

    side: Side
    since: datetime
    reason: str | None
    set_by: str | None


def listed(session: UnitOfWork, tenant: Tenant, side: Side) -> list[HoldSummary]:
    """The calling function has checked the reader's rights."""
    found = _counting(session, tenant)
    people = select(Person.id, Person.name).where(col(Person.id).in_([one.set_by for one in found]))
    names = dict(session.orm.exec(people).all())
    return [
        HoldSummary(
            one.side,
            one.set_at,
            one.reason if one.side is side else None,
            names.get(one.set_by) if one.side is side else None,
        )
        for one in found
    ]


def hold(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, reason: str) -> None:
    """Set a hold, as the customer's admin or the vendor's operator.

    The customer is notified of both sides' holds.
    """
    actor, tenant, side = _acting(session, caller, origin, slug)
    session.execute(WAIT_FOR_ERASURE, {"tenant": tenant.id})
    if _held(session, tenant, side):
        raise Conflict(HELD_ALREADY)
    at = now(session)
    row = LegalHold(
        id=new_id(), tenant_id=tenant.id, side=side, reason=reason, set_by=actor.caller.person_id, set_at=at
    )
    row_macs.mark_data(session, row)
    session.orm.add(row)
    session.orm.flush()
    _record(session, actor, side, AdminChange(SET, at, {"hold": change(permissions.ABSENT, side)}), reason)


def release(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> None:
    actor, tenant, side = _acting(session, caller, origin, slug)
    found = _held(session, tenant, side)
    if not found:
        raise NotFound(NO_HOLD)
    at = max(now(session), *(one.released_at or one.set_at for one in found))
    for one in found:
        one.released_by, one.released_at = actor.caller.person_id, at
        row_macs.mark_data(session, one)
        session.orm.add(one)
    session.orm.flush()
    changes = {"hold": change(side, permissions.ABSENT)}
    _record(session, actor, side, AdminChange(RELEASED, at, changes), None)


def held(session: UnitOfWork) -> list[UUID]:
    """Return the ids of tenants with a legal hold, for the database's owner."""
    return sorted({one.tenant_id for one in session.orm.exec(select(LegalHold)) if _counts(session, one)})


def refuse_held(session: UnitOfWork, tenants: Collection[UUID | None]) -> None:
    """Check, as the database's owner, that these tenants have no hold; block holds until the transaction ends."""
    session.execute(ERASING, {"tenants": sorted(tenant for tenant in tenants if tenant)})
    found = [one for one in held(session) if one in tenants]
    if found:
        at = ", ".join(session.execute(SLUGS, {"tenants": found}).scalars())
        raise Conflict(f"Nothing was erased: there is a legal hold at {at}. Whoever set it has to release it first.")


def _acting(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> tuple[AdminActor, Tenant, Side]:
    if caller.side is Side.VENDOR:
        actor, tenant = permissions.operate(session, caller, origin, slug)
        permissions.require_fresh_operator(session, actor)
        return actor, tenant, Side.VENDOR
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    permissions.require_fresh_admin(session, actor, tenant)
    return actor, tenant, Side.CUSTOMER


def _counting(session: UnitOfWork, tenant: Tenant) -> list[LegalHold]:
    query = select(LegalHold).where(col(LegalHold.tenant_id) == tenant.id).order_by(col(LegalHold.side))
    return [one for one in session.orm.exec(query) if _counts(session, one)]


def _counts(session: UnitOfWork, hold: LegalHold) -> bool:
    return hold.released_at is None or not row_macs.is_vouched_for(session, hold)


def _held(session: UnitOfWork, tenant: Tenant, side: Side) -> list[LegalHold]:
    return [one for one in _counting(session, tenant) if one.side is side]


def _record(session: UnitOfWork, actor: AdminActor, side: Side, said: AdminChange, reason: str | None) -> None:
    """The reason goes only to the log of the hold's own side; the vendor's log never names a customer's admin."""
    customers = replace(said, personal={"comment": reason}) if side is Side.CUSTOMER else said
    permissions.record_change(session, actor, customers)
    event = permissions.audit_event_of(actor, replace(said, personal={"comment": reason}))
    if side is Side.CUSTOMER:
        event = permissions.for_the_vendor(event)
    announcements.notify_operators(session, replace(event, stays_inside=True))
