"""A tenant's observers, who get copies of notifications and decide nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, func, select

from lockbox.admin import permissions
from lockbox.admin.permissions import AdminActor, AdminChange
from lockbox.audit.events import Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import AddressTaken, Invalid, NotFound, TooManyObservers
from lockbox.identity.models import Person
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications.mail_text import FORMER
from lockbox.notifications.models import Observer
from lockbox.sql import new_id

MOST_OBSERVERS = 50
ADMINS = (Role.TENANT_ADMIN,)
EVERY_SERVICE = "all services"

IS_ACROSS = text("SELECT is_across(:email, :side)")


@dataclass(frozen=True)
class ObserverInput:
    """`service` is None for all services."""

    name: str
    address: str
    service: str | None = None


@dataclass(frozen=True)
class ObserverSummary:
    observer: Observer
    added_by: str


def listed(session: UnitOfWork, caller: Caller, slug: str) -> Sequence[ObserverSummary]:
    """Oldest first. For the tenant's members."""
    found = _of(session, permissions.readable(session, caller, slug).id)
    names = _names(session, {one.added_by for one in found})
    return [ObserverSummary(one, names.get(one.added_by, FORMER)) for one in found]


def add(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, wanted: ObserverInput, *, services: Iterable[str]
) -> ObserverSummary:
    """For the tenant's admins."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    permissions.require_fresh_admin(session, actor, tenant)
    if wanted.service is not None and wanted.service not in services:
        raise Invalid(f"Choose one of the services {', '.join(sorted(services))}.", field="service")
    _addressable(session, tenant.id, wanted)
    if len(_of(session, tenant.id)) >= MOST_OBSERVERS:
        raise TooManyObservers(f"There may be {MOST_OBSERVERS} observers; remove one.")
    observer = Observer(
        id=new_id(),
        tenant_id=tenant.id,
        service=wanted.service,
        name=wanted.name,
        email=wanted.address,
        added_by=caller.person_id,
        created_at=now(session),
    )
    session.orm.add(observer)
    session.orm.flush()
    copied = {"copied on": permissions.change(permissions.ABSENT, observer.service or EVERY_SERVICE)}
    _record_change(session, actor, observer, "observer_added", copied, at=observer.created_at)
    return ObserverSummary(observer, caller.name)


def remove(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, observer_id: UUID) -> None:
    """For the tenant's admins. Queued copies are not sent."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, ADMINS, tenant)
    observer = session.orm.get(Observer, observer_id)
    if observer is None or observer.tenant_id != tenant.id or observer.removed_at is not None:
        raise NotFound("There is no such observer.")
    observer.removed_at = now(session)
    session.orm.add(observer)
    session.orm.flush()
    copied = {"copied on": permissions.change(observer.service or EVERY_SERVICE, permissions.ABSENT)}
    _record_change(session, actor, observer, "observer_removed", copied, at=observer.removed_at)


def _of(session: UnitOfWork, tenant_id: UUID) -> Sequence[Observer]:
    query = select(Observer).where(col(Observer.tenant_id) == tenant_id, col(Observer.removed_at).is_(None))
    return session.orm.exec(query.order_by(col(Observer.id))).all()


def _names(session: UnitOfWork, people: set[UUID]) -> Mapping[UUID, str]:
    return dict(session.orm.exec(select(Person.id, Person.name).where(col(Person.id).in_(people))).all())


def _addressable(session: UnitOfWork, tenant_id: UUID, wanted: ObserverInput) -> None:
    across = {"email": wanted.address, "side": Side.CUSTOMER.value}
    if session.execute(IS_ACROSS, across).scalar_one():
        raise AddressTaken(
            "This address belongs to someone at the vendor, who cannot be an observer. Use another address.",
            field="address",
        )
    same = select(Observer.id).where(
        col(Observer.tenant_id) == tenant_id,
        col(Observer.service).is_not_distinct_from(wanted.service),
        func.lower(col(Observer.email)) == func.lower(wanted.address),
        col(Observer.removed_at).is_(None),
    )
    if session.orm.exec(same).first():
        raise AddressTaken("This address is an observer of this already.", field="address")


def _record_change(
    session: UnitOfWork,
    actor: AdminActor,
    observer: Observer,
    action: str,
    changes: Mapping[str, str],
    *,
    at: datetime,
) -> None:
    named = {"observer": permissions.person(observer.name, observer.email)}
    permissions.record_change(
        session, actor, AdminChange(action, at, changes, personal=named, facts={"observer_id": observer.id})
    )
