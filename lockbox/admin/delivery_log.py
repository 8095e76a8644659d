"""Show the attempts to call webhooks, send test calls, and repeat calls."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from lockbox import database
from lockbox.admin import permissions, webhooks
from lockbox.admin.permissions import AdminChange
from lockbox.database import UnitOfWork, now
from lockbox.errors import EndpointDisabled, NotFound, StillWaiting
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import announcements
from lockbox.notifications import endpoints as kept
from lockbox.notifications.models import Delivery, Endpoint, Notification, Outcome
from lockbox.notifications.outbox import KIND
from lockbox.notifications.outcome_events import TOO_LATE
from lockbox.notifications.webhook import TEST
from lockbox.requests.transition import Origin
from lockbox.schedule import NOTIFICATIONS, IndexEntry

READ = text("SELECT * FROM dead_notifications(:before, :most)")
MOST_A_PAGE = 200
REOPEN = text("SELECT notification, answer FROM reopen(:delivery, :moment)")


@dataclass(frozen=True)
class DeadNotification:
    """An undelivered notification, without its content or recipient; `error` is a word.

    `request_id` and `tenant` are null if it was about none. `delivery_id` is the last attempt if a webhook of the
    vendor was called: it can be repeated.
    """

    id: UUID
    request_id: UUID | None
    tenant: str | None
    template: str
    channel: str
    died_at: datetime
    attempts: int
    error: str
    delivery_id: UUID | None


@dataclass(frozen=True)
class DeadNotificationListing:
    """A page of dead notifications, the latest first, and the cursor of the next page."""

    notifications: Sequence[DeadNotification]
    next_cursor: UUID | None


def page(session: UnitOfWork, caller: Caller, *, cursor: UUID | None, most: int) -> DeadNotificationListing:
    """Return the dead notifications of all tenants and of the vendor, from the cursor on.

    Raises:
        NotYours: the caller is no operator.
    """
    authentication.enter(session, caller)
    permissions.capacity(caller, (Role.OPERATOR,))
    rows = session.execute(READ, {"before": cursor, "most": most + 1}).all()
    found = [
        DeadNotification(
            id=row.id,
            request_id=row.request_id,
            tenant=row.tenant,
            template=row.template,
            channel=row.channel,
            died_at=row.died_at,
            attempts=row.attempts,
            error=row.error or TOO_LATE,
            delivery_id=row.delivery_id,
        )
        for row in rows[:most]
    ]
    return DeadNotificationListing(found, found[-1].id if len(rows) > most else None)


@dataclass(frozen=True)
class DeliveryListing:
    """A page of attempts, the newest first, and the cursor of the next page."""

    deliveries: Sequence[Delivery]
    next_cursor: UUID | None


@dataclass(frozen=True)
class DeliveryState:
    """The state of a notification to a webhook: its outcome, or None and the time of the next attempt."""

    attempts: int
    outcome: Outcome | None
    next_try_at: datetime | None


def try_out(session: UnitOfWork, caller: Caller, origin: Origin, endpoint_id: UUID) -> UUID:
    """Send a test call to a webhook, whatever it subscribes to, and return the call's id.

    Raises:
        NotFound, NotYours: there is no such tenant or row, or the caller lacks the role.
        EndpointDisabled: it is called no more.
        TooMany: it was called by hand ten times in the last minute.
    """
    actor, endpoint, _ = webhooks.locked(session, caller, origin, endpoint_id)
    if endpoint.disabled_at is not None:
        raise EndpointDisabled("The webhook is disabled; enable it first.")
    at = now(session)
    _count(session, endpoint, at)
    admin_change = AdminChange(TEST, at, {}, facts={"endpoint_id": endpoint.id})
    return announcements.try_out(session, permissions.audit_event_of(actor, admin_change), endpoint.id)


def log(session: UnitOfWork, caller: Caller, endpoint_id: UUID, *, cursor: UUID | None, most: int) -> DeliveryListing:
    """Return a webhook's attempts, the newest first, from the cursor on.

    Raises:
        NotFound, NotYours: there is no such tenant or row, or the caller lacks the role.
    """
    webhooks.show(session, caller, endpoint_id)
    query = select(Delivery).where(col(Delivery.endpoint_id) == endpoint_id)
    if cursor is not None:
        query = query.where(col(Delivery.id) < cursor)
    found = session.orm.exec(query.order_by(col(Delivery.id).desc()).limit(most + 1)).all()
    return DeliveryListing(found[:most], found[most - 1].id if len(found) > most else None)


def delivery_states(
    session: UnitOfWork, caller: Caller, deliveries: Iterable[Delivery]
) -> Mapping[UUID, DeliveryState]:
    """Return the state of each attempt's notification, if the caller may know what it is about."""
    authentication.enter(session, caller)
    query = select(Notification).where(col(Notification.id).in_({one.notification_id for one in deliveries}))
    return {
        one.id: DeliveryState(one.attempts, one.outcome, one.run_at if one.outcome is None else None)
        for one in session.orm.exec(query)
    }


def redeliver(session: UnitOfWork, caller: Caller, origin: Origin, delivery_id: UUID) -> UUID:
    """Repeat a finished notification under its previous id, and return that id.

    Raises:
        NotFound, NotYours: there is no such tenant or row, or the caller lacks the role.
        EndpointDisabled: the endpoint is called no more.
        StillWaiting: it has not ended, and will be tried again by itself.
        TooMany: the endpoint was called by hand ten times in the last minute.
    """
    authentication.enter(session, caller)
    delivery = session.orm.get(Delivery, delivery_id)
    if delivery is None or delivery.endpoint_id is None:
        raise NotFound("There is no such delivery.")
    actor, endpoint, _ = webhooks.locked(session, caller, origin, delivery.endpoint_id)
    at = now(session)
    notification, answer = session.execute(REOPEN, {"delivery": delivery_id, "moment": at}).one()
    if answer == "disabled":
        raise EndpointDisabled("The webhook is disabled; enable it first.")
    if answer == "waiting":
        raise StillWaiting("The notification is still being retried. Wait until it has ended.")
    _count(session, endpoint, at)
    database.arm_after_commit(session, NOTIFICATIONS, [IndexEntry(str(notification), KIND, at)])
    admin_change = AdminChange(
        "delivery_repeated", at, {}, facts={"endpoint_id": endpoint.id, "notification_id": notification}
    )
    announcements.record(session, permissions.audit_event_of(actor, admin_change))
    return UUID(str(notification))


def _count(session: UnitOfWork, endpoint: Endpoint, at: datetime) -> None:
    kept.count_call(endpoint, at)
    session.orm.add(endpoint)
    session.orm.flush()
