"""Webhook deliveries: attempts, test calls, repeated deliveries, and replays of missed events."""

import base64
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import col, select

from lockbox import database
from lockbox.admin import permissions, webhooks
from lockbox.admin.audit_access import CLEARED, AuditReader
from lockbox.admin.permissions import AdminChange
from lockbox.audit.events import Origin
from lockbox.audit.log import proofs
from lockbox.database import UnitOfWork, now
from lockbox.errors import EndpointDisabled, Invalid, NotFound, StillWaiting
from lockbox.facts.ask import Ask
from lockbox.facts.fact import read as read_part
from lockbox.facts.window import Window
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import account_mail, announcements, webhook
from lockbox.notifications import endpoints as kept
from lockbox.notifications.account_mail import PERSONAL
from lockbox.notifications.audience import CONNECTED, EVENTS, type_of
from lockbox.notifications.mail_text import ACCOUNT_TITLES
from lockbox.notifications.models import Delivery, Endpoint, Notification, Outcome
from lockbox.notifications.outbox import KIND
from lockbox.notifications.outcome_events import TOO_LATE
from lockbox.notifications.target_failure import TargetFailure
from lockbox.notifications.webhook import TEST, RequestEvent
from lockbox.schedule import NOTIFICATIONS, IndexEntry
from lockbox.sql import columns

READ = text("""
SELECT id, request_id, tenant, template, channel, died_at, attempts, error, delivery_id
FROM dead_notifications(:before, :most)
""")
MOST_A_PAGE = 200
LOOKED_THROUGH = 1000
"""How many events of a log are read for one page of a replay."""
CURSOR = struct.Struct(">16sIQ")
CHANGES = sorted(ACCOUNT_TITLES.keys() - PERSONAL)
# Ordered by the number that the sealer gives under the log's lock: an event that is committed late gets a later
# number.
REPLAY = text(f"""
SELECT s.number, e.id, e.at, e.action, e.from_state, e.to_state, e.deadline_at, e.request_id, e.tenant_id, e.body,
    t.slug, {columns(Ask, "r")}, {columns(Window, "r")}
FROM seals s JOIN events e ON e.id = s.event_id LEFT JOIN tenants t ON t.id = e.tenant_id
LEFT JOIN requests r ON r.id = e.request_id
WHERE s.log_id = :log_id AND s.number >= :first AND s.number < :last
    AND e.action = ANY(CASE WHEN e.request_id IS NULL THEN CAST(:changes AS text[]) ELSE CAST(:moves AS text[]) END)
ORDER BY s.number LIMIT :most
""")  # noqa: S608 - ours
REOPEN = text("SELECT notification, answer FROM reopen(:delivery, :moment)")


@dataclass(frozen=True)
class DeadNotification:
    """An undelivered notification, without its content or recipient; `error` is a code.

    `request_id` and `tenant` are null if the notification was about no request or tenant. If a webhook of the vendor
    was called, `delivery_id` is the last call, which can be repeated.
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
    notifications: Sequence[DeadNotification]
    next_cursor: UUID | None


def page(session: UnitOfWork, caller: Caller, *, cursor: UUID | None, most: int) -> DeadNotificationListing:
    """Latest first. For operators."""
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
    """Newest first."""

    deliveries: Sequence[Delivery]
    next_cursor: UUID | None


@dataclass(frozen=True)
class DeliveryState:
    """`outcome` is None while another attempt is due at `next_try_at`."""

    attempts: int
    outcome: Outcome | None
    next_try_at: datetime | None


def try_out(session: UnitOfWork, caller: Caller, origin: Origin, endpoint_id: UUID) -> UUID:
    """Send a test call, whatever events the webhook subscribes to; return the id of the call."""
    actor, endpoint, _ = webhooks.locked(session, caller, origin, endpoint_id)
    if endpoint.disabled_at is not None:
        raise EndpointDisabled("The webhook is disabled; enable it first.")
    at = now(session)
    _count(session, endpoint, at)
    admin_change = AdminChange(TEST, at, {}, facts={"endpoint_id": endpoint.id})
    return announcements.try_out(session, permissions.audit_event_of(actor, admin_change), endpoint.id)


def log(session: UnitOfWork, caller: Caller, endpoint_id: UUID, *, cursor: UUID | None, most: int) -> DeliveryListing:
    webhooks.show(session, caller, endpoint_id)
    query = select(Delivery).where(col(Delivery.endpoint_id) == endpoint_id)
    if cursor is not None:
        query = query.where(col(Delivery.id) < cursor)
    found = session.orm.exec(query.order_by(col(Delivery.id).desc()).limit(most + 1)).all()
    return DeliveryListing(found[:most], found[most - 1].id if len(found) > most else None)


def delivery_states(
    session: UnitOfWork, caller: Caller, deliveries: Iterable[Delivery]
) -> Mapping[UUID, DeliveryState]:
    """Return, by id, the states of the notifications that the caller may know of."""
    authentication.enter(session, caller)
    query = select(Notification).where(
        col(Notification.id).in_({delivery.notification_id for delivery in deliveries})
    )
    return {
        one.id: DeliveryState(one.attempts, one.outcome, one.run_at if one.outcome is None else None)
        for one in session.orm.exec(query)
    }


def redeliver(session: UnitOfWork, caller: Caller, origin: Origin, delivery_id: UUID) -> UUID:
    """Send a delivery's notification again, unless it is still being retried; return the notification's id."""
    authentication.enter(session, caller)
    delivery = session.orm.get(Delivery, delivery_id)
    if delivery is None or delivery.endpoint_id is None:
        raise NotFound("There is no such delivery.")
    webhooks.show(session, caller, delivery.endpoint_id)
    # Senders lock notifications before endpoints, so this function does the same.
    found = session.execute(REOPEN, {"delivery": delivery_id, "moment": now(session)}).one_or_none()
    if found is None:
        raise NotFound("There is no such delivery.")
    notification, answer = found
    actor, endpoint, _ = webhooks.locked(session, caller, origin, delivery.endpoint_id)
    at = now(session)
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


@dataclass(frozen=True)
class EventReplay:
    """Webhook bodies, oldest first.

    `next_cursor` continues after the last event read; `more` is whether further events follow.
    """

    bodies: Sequence[Mapping[str, Any]]
    next_cursor: str
    more: bool


def replay(session: UnitOfWork, who: AuditReader, *, after: str | None, most: int, public_url: str) -> EventReplay:
    """Return the webhook bodies of a log's sealed events after a cursor, reading at most a thousand events.

    The id of a body is the id of its event. Raises Invalid if the cursor is of another log or from before a restore,
    or if the events after the cursor were removed.
    """
    authentication.enter(session, who.caller)
    head = proofs.head(session, who.log_id)
    generation, size = (head.generation, head.size) if head else (1, 0)
    kept_from = int(session.execute(CLEARED, {"log_id": who.log_id}).scalar() or 0)
    first = _position(after, who.log_id, generation, size) if after else kept_from
    if first < kept_from:
        raise Invalid("Events that follow this cursor are no longer kept. Start again without it.", field="after")
    last = min(first + LOOKED_THROUGH, size)
    values = {"log_id": who.log_id, "first": first, "last": last, "most": most}
    rows = session.execute(REPLAY, values | {"moves": [*map(str, EVENTS)], "changes": CHANGES}).all()
    following = rows[-1].number + 1 if len(rows) == most else last
    bodies = [_body(row, public_url) for row in rows]
    return EventReplay(bodies, _cursor(who.log_id, generation, following), following < size)


def _body(row: Row[Any], public_url: str) -> dict[str, Any]:
    if row.request_id is None:
        begun = webhook.head(row.id, account_mail.type_of(row.action), row.at, row.id, {})
        return begun | webhook.account_data(row.slug, row.tenant_id, account_mail.facts_of(row.body)[1])
    said = json.loads(row.body)
    return RequestEvent(
        event_id=row.id,
        event_type=type_of(row.action, row.from_state),
        at=row.at,
        request_id=row.request_id,
        tenant=row.slug,
        tenant_id=row.tenant_id,
        state=row.to_state,
        deadline_at=row.deadline_at,
        ask=read_part(Ask, row),
        window=read_part(Window, row),
        nobody_notified="nobody_notified" in said,
        connection=TargetFailure.of(said) if row.action in CONNECTED else None,
        held_back=said.get("held_back"),
    ).body(row.id, {}, public_url)


def _cursor(log_id: UUID, generation: int, number: int) -> str:
    return base64.urlsafe_b64encode(CURSOR.pack(log_id.bytes, generation, number)).rstrip(b"=").decode()


def _position(cursor: str, log_id: UUID, generation: int, size: int) -> int:
    try:
        of_log, of_generation, number = CURSOR.unpack(base64.urlsafe_b64decode(cursor + "=="))
    except (ValueError, struct.error):
        raise Invalid("The cursor is invalid. Start again without it.", field="after") from None
    if of_log != log_id.bytes or of_generation != generation or number > size:
        raise Invalid(
            "The cursor is of another log, or of this one before it was restored. Start again without it.",
            field="after",
        )
    return int(number)
