"""Watchers of a tenant: whom its admins have copied on what it is asked and told, and who decide nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session, col, func, select

from lockbox.admin import change_events, permissions
from lockbox.admin.change_events import Deed
from lockbox.admin.permissions import Seat
from lockbox.database import now
from lockbox.errors import AddressTaken, Invalid, TooManyWatchers, Unknown
from lockbox.identity.models import Person
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications.models import Watcher
from lockbox.requests.transition import Origin
from lockbox.sql import new_id

MOST_WATCHERS = 50
ADMINS = (Role.TENANT_ADMIN,)
EVERY_SERVICE = "all services"
FORMER = "somebody who has left"

IS_ACROSS = text("SELECT is_across(:email, :side)")


@dataclass(frozen=True)
class Wanted:
    """Somebody who is to be copied: on one service, or on all for None."""

    name: str
    address: str
    service: str | None = None


@dataclass(frozen=True)
class Listed:
    """A watcher, and the name of whoever added it."""

    watcher: Watcher
    added_by: str


def listed(session: Session, caller: Caller, slug: str) -> Sequence[Listed]:
    """Return the watchers of a tenant to its members, the oldest first.

    Raises:
        Unknown, NotYours: as named.
    """
    found = _of(session, permissions.readable(session, caller, slug).id)
    names = _names(session, {one.added_by for one in found})
    return [Listed(one, names.get(one.added_by, FORMER)) for one in found]


def add(
    session: Session, caller: Caller, origin: Origin, slug: str, wanted: Wanted, *, services: Iterable[str]
) -> Listed:
    """Have somebody copied, as the tenant's admin.

    Raises:
        Unknown, NotYours, SignInAgain: as named.
        Invalid: there is no such service.
        AddressTaken: it is the address of somebody of the vendor, or it is copied on this already.
        TooManyWatchers: the most that there may be are there.
    """
    tenant = permissions.known(session, caller, slug)
    seat = permissions.take(session, caller, origin, ADMINS, tenant)
    permissions.firmly(session, seat, tenant)
    if wanted.service is not None and wanted.service not in services:
        raise Invalid(f"Choose one of the services {', '.join(sorted(services))}.", field="service")
    _addressable(session, tenant.id, wanted)
    if len(_of(session, tenant.id)) >= MOST_WATCHERS:
        raise TooManyWatchers(f"There may be {MOST_WATCHERS} watchers; remove one.")
    watcher = Watcher(
        id=new_id(),
        tenant_id=tenant.id,
        service=wanted.service,
        name=wanted.name,
        email=wanted.address,
        added_by=caller.person_id,
        created_at=now(session),
    )
    session.add(watcher)
    session.flush()
    copied = {"copied on": change_events.change(change_events.ABSENT, watcher.service or EVERY_SERVICE)}
    _tell(session, seat, watcher, "watcher_added", copied, at=watcher.created_at)
    return Listed(watcher, caller.name)


def remove(session: Session, caller: Caller, origin: Origin, slug: str, watcher_id: UUID) -> None:
    """Have somebody copied no longer, as the tenant's admin; what waits to be sent to them is not sent.

    Raises:
        Unknown, NotYours: as named.
    """
    tenant = permissions.known(session, caller, slug)
    seat = permissions.take(session, caller, origin, ADMINS, tenant)
    watcher = session.get(Watcher, watcher_id)
    if watcher is None or watcher.tenant_id != tenant.id or watcher.removed_at is not None:
        raise Unknown("There is no such watcher.")
    watcher.removed_at = now(session)
    session.add(watcher)
    session.flush()
    copied = {"copied on": change_events.change(watcher.service or EVERY_SERVICE, change_events.ABSENT)}
    _tell(session, seat, watcher, "watcher_removed", copied, at=watcher.removed_at)


def _of(session: Session, tenant_id: UUID) -> Sequence[Watcher]:
    query = select(Watcher).where(col(Watcher.tenant_id) == tenant_id, col(Watcher.removed_at).is_(None))
    return session.exec(query.order_by(col(Watcher.id))).all()


def _names(session: Session, people: set[UUID]) -> Mapping[UUID, str]:
    return dict(session.exec(select(Person.id, Person.name).where(col(Person.id).in_(people))).all())


def _addressable(session: Session, tenant_id: UUID, wanted: Wanted) -> None:
    across = {"email": wanted.address, "side": Side.CUSTOMER.value}
    if session.connection().execute(IS_ACROSS, across).scalar_one():
        raise AddressTaken("This address is of somebody of the vendor, who is told by the vendor.", field="address")
    same = select(Watcher.id).where(
        col(Watcher.tenant_id) == tenant_id,
        col(Watcher.service).is_not_distinct_from(wanted.service),
        func.lower(col(Watcher.email)) == func.lower(wanted.address),
        col(Watcher.removed_at).is_(None),
    )
    if session.exec(same).first():
        raise AddressTaken("This address is copied on this already.", field="address")


def _tell(
    session: Session, seat: Seat, watcher: Watcher, action: str, changes: Mapping[str, str], *, at: datetime
) -> None:
    named = {"watcher": change_events.person(watcher.name, watcher.email)}
    change_events.tell(session, seat, Deed(action, at, changes, personal=named, facts={"watcher_id": watcher.id}))
