"""Legal holds: while either side has one, nothing of a tenant is removed by retention or erased."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, text
from sqlmodel import col, select

from lockbox.admin import permissions
from lockbox.admin.permissions import AdminActor, AdminChange, change
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, NotFound
from lockbox.identity.models import LegalHold, Person, Tenant
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications import announcements
from lockbox.requests.transition import Origin
from lockbox.sql import new_id

SET, RELEASED = "hold_set", "hold_released"
LONGEST_REASON = 2000
ADMINS = (Role.TENANT_ADMIN,)
NO_HOLD = "Your side holds nothing of this tenant."
HELD_ALREADY = "Your side holds this tenant already. Release it first, to give another reason."
# Whoever erases shares it until their commit, so that nothing is erased once a hold was set.
WAIT_FOR_ERASURE = text(
    "SELECT pg_advisory_xact_lock(hashtextextended('legal hold of ' || CAST(:tenant AS uuid), 0))"
)
ERASING = text("""
SELECT pg_advisory_xact_lock_shared(hashtextextended('legal hold of ' || one, 0))
FROM unnest(CAST(:tenants AS uuid[])) AS one
""")
HELD = text("""
SELECT DISTINCT t.slug FROM legal_holds h JOIN tenants t ON t.id = h.tenant_id
WHERE h.tenant_id = ANY(:tenants) AND h.released_at IS NULL ORDER BY t.slug
""")


@dataclass(frozen=True)
class HoldSummary:
    """An open hold; the reason and the name are None to the other side."""

    side: Side
    since: datetime
    reason: str | None
    set_by: str | None


def listed(session: UnitOfWork, tenant: Tenant, side: Side) -> list[HoldSummary]:
    """Return the open holds of a tenant to somebody of one side; the caller has checked who reads."""
    found = _open(session, tenant)
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
    """Hold a tenant: as its admin for the customer, as an operator for the vendor.

    The customer is told of both. The vendor's reason stands in the vendor's log alone, the customer's in theirs.

    Raises:
        NotFound, NotYours: there is no such tenant, or the caller is neither.
        SignInAgain: the sign-in is too weak or too old.
        Conflict: this side holds it already.
    """
    actor, tenant, side = _acting(session, caller, origin, slug)
    if side is Side.VENDOR:
        permissions.require_fresh_operator(session, actor)
    else:
        permissions.require_fresh_admin(session, actor, tenant)
    session.execute(WAIT_FOR_ERASURE, {"tenant": tenant.id})
    if _held(session, tenant, side) is not None:
        raise Conflict(HELD_ALREADY)
    at = now(session)
    session.orm.add(
        LegalHold(
            id=new_id(), tenant_id=tenant.id, side=side, reason=reason, set_by=actor.caller.person_id, set_at=at
        )
    )
    session.orm.flush()
    _record(session, actor, side, AdminChange(SET, at, {"hold": change(permissions.ABSENT, side)}), reason)


def release(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> None:
    """Release the hold of the caller's side.

    Raises:
        NotFound, NotYours: there is no such tenant or hold, or the caller is neither admin nor operator.
        SignInAgain: the sign-in is too weak or too old.
    """
    actor, tenant, side = _acting(session, caller, origin, slug)
    if side is Side.VENDOR:
        permissions.require_fresh_operator(session, actor)
    else:
        permissions.require_fresh_admin(session, actor, tenant)
    held = _held(session, tenant, side)
    if held is None:
        raise NotFound(NO_HOLD)
    held.released_by, held.released_at = actor.caller.person_id, max(now(session), held.set_at)
    session.orm.add(held)
    session.orm.flush()
    changes = {"hold": change(side, permissions.ABSENT)}
    _record(session, actor, side, AdminChange(RELEASED, held.released_at, changes), None)


def refuse_held(connection: Connection, tenants: Collection[UUID | None]) -> None:
    """Check, as the database's owner, that none of these tenants is held, nor will be before the transaction ends.

    Raises:
        Conflict: one is; the sentence names them.
    """
    of_tenants = {"tenants": sorted(one for one in tenants if one)}
    connection.execute(ERASING, of_tenants)
    held = connection.execute(HELD, of_tenants).scalars().all()
    if held:
        raise Conflict(
            f"Nothing was erased: there is a legal hold at {', '.join(held)}. Whoever set it has to release it first."
        )


def _acting(session: UnitOfWork, caller: Caller, origin: Origin, slug: str) -> tuple[AdminActor, Tenant, Side]:
    """Return who acts for which side: whoever is of the vendor acts as an operator."""
    if caller.side is Side.VENDOR:
        actor, tenant = permissions.operate(session, caller, origin, slug)
        return actor, tenant, Side.VENDOR
    tenant = permissions.known(session, caller, slug)
    return permissions.acting_as(session, caller, origin, ADMINS, tenant), tenant, Side.CUSTOMER


def _open(session: UnitOfWork, tenant: Tenant) -> Sequence[LegalHold]:
    query = select(LegalHold).where(col(LegalHold.tenant_id) == tenant.id, col(LegalHold.released_at).is_(None))
    return session.orm.exec(query.order_by(col(LegalHold.side))).all()


def _held(session: UnitOfWork, tenant: Tenant, side: Side) -> LegalHold | None:
    return next((one for one in _open(session, tenant) if one.side is side), None)


def _record(session: UnitOfWork, actor: AdminActor, side: Side, said: AdminChange, reason: str | None) -> None:
    """Tell the customer and the operators; the reason stays with its side, and so does a customer's name."""
    customers = replace(said, personal={"comment": reason}) if side is Side.CUSTOMER else said
    permissions.record_change(session, actor, customers)
    event = permissions.audit_event_of(actor, replace(said, personal={"comment": reason}))
    if side is Side.CUSTOMER:
        event = permissions.for_the_vendor(event)
    announcements.notify_operators(session, replace(event, stays_inside=True))
