"""The delivery log, and one event per cause, channel and batch about notifications that belong to no request."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox import database
from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.database import UnitOfWork
from lockbox.notifications import announcements, delivery_status
from lockbox.notifications.account_mail import CHECKPOINT, DIGEST, SIGN_IN_CODE
from lockbox.notifications.audience import ASKING
from lockbox.notifications.models import Delivery, Outcome
from lockbox.schedule import CLOCK, IndexEntry
from lockbox.sql import insert_rows, new_id

MOST_ANSWER = 1024
CONTROLS = frozenset({"Cc", "Cs", "Co", "Cn"})
STRANGE = "\N{REPLACEMENT CHARACTER}"
FAILS_TOO_LONG = timedelta(days=5)
GONE = "gone"
FAILING = "failing"
UNVERIFIED = "unverified"
WRITE = text(f"{insert_rows(Delivery)} ON CONFLICT DO NOTHING")
# Rows are locked in order, because other transactions write to the same endpoints.
ARRIVED = text("""
UPDATE endpoints SET failing_since = NULL WHERE id IN (SELECT id FROM endpoints
    WHERE id = ANY(:ids) AND failing_since IS NOT NULL AND removed_at IS NULL ORDER BY id FOR NO KEY UPDATE)
""")
FAILED = text("""
UPDATE endpoints SET failing_since = :at WHERE id IN (SELECT id FROM endpoints
    WHERE id = ANY(:ids) AND failing_since IS NULL AND removed_at IS NULL ORDER BY id FOR NO KEY UPDATE)
""")
DISABLE = text("""
UPDATE endpoints SET disabled_at = :at,
    why_disabled = CASE WHEN id = ANY(:gone) THEN 'gone' ELSE 'failing' END
WHERE disabled_at IS NULL AND (id = ANY(:gone) OR (id = ANY(:failed) AND failing_since <= :since))
RETURNING id, tenant_id, description, why_disabled
""")
NOTIFICATION_DEAD = "notification_dead"
TOO_LATE = "too_late"
UNRECORDED = (SIGN_IN_CODE,)
"""The templates whose dead notifications give no event, because their recipients have not yet proven who they are."""
# Selects open requests whose question to a person did not arrive, and all requests of dead notifications.
CONCERNED = text("""
SELECT DISTINCT n.request_id FROM notifications n JOIN requests r ON r.id = n.request_id
WHERE n.id = ANY(:ids) AND n.closed_at IS NULL
    AND (n.id = ANY(:dead) OR (n.person_id IS NOT NULL AND n.template = ANY(CASE r.state
        WHEN 'reviewing' THEN CAST(:reviewing AS text[]) WHEN 'pending' THEN CAST(:pending AS text[]) END)))
""")
LOCK = text("""
SELECT id, state FROM requests WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
""")
WAKE = text("""
UPDATE requests SET wake_at = :at WHERE id = ANY(:ids) AND wake_at > :at AND deadline_at > :at RETURNING id
""")
REMIND = "remind"
NOTIFICATIONS_SENT = "notifications_sent"
SILENT = (*UNRECORDED, CHECKPOINT, DIGEST)
"""The templates whose sending gives no event: a mail about a log that has not grown must not grow the log."""


@dataclass(frozen=True)
class DeliveryAttempt:
    """A try of a notification, for the delivery log.

    `is_gone` is whether the endpoint wants no more calls. `id` is the row's id, so that writing the row again after
    an unanswered commit adds no second row.
    """

    notification_id: UUID
    endpoint_id: UUID | None
    event_type: str
    at: datetime
    took: timedelta
    status: int | None = None
    answer: str = ""
    error: str | None = None
    is_gone: bool = False
    id: UUID = field(default_factory=new_id)


def write(session: UnitOfWork, attempts: Sequence[DeliveryAttempt], at: datetime) -> None:
    """Write the delivery log; disable endpoints that are gone, or have failed for days without one success."""
    if not attempts:
        return
    session.execute(
        WRITE,
        {
            "id": [attempt.id for attempt in attempts],
            "notification_id": [attempt.notification_id for attempt in attempts],
            "endpoint_id": [attempt.endpoint_id for attempt in attempts],
            "event_type": [attempt.event_type for attempt in attempts],
            "at": [attempt.at for attempt in attempts],
            "took_ms": [round(attempt.took.total_seconds() * 1000) for attempt in attempts],
            "status": [attempt.status for attempt in attempts],
            "answer": [shown(attempt.answer) for attempt in attempts],
            "error": [attempt.error for attempt in attempts],
        },
    )
    if called := [attempt for attempt in attempts if attempt.endpoint_id and attempt.error != UNVERIFIED]:
        _judge(session, called, at)


def shown(answer: str) -> str:
    """Without control characters, cut to a kilobyte."""
    kept = "".join(STRANGE if _is_control(mark) else mark for mark in answer.replace("\r\n", "\n"))
    return kept.encode()[:MOST_ANSWER].decode(errors="ignore")


def _is_control(mark: str) -> bool:
    return mark not in "\n\t" and unicodedata.category(mark) in CONTROLS


def _judge(session: UnitOfWork, called: Iterable[DeliveryAttempt], at: datetime) -> None:
    arrived = {one.endpoint_id for one in called if one.error is None}
    failed = {one.endpoint_id for one in called} - arrived
    gone = {one.endpoint_id for one in called if one.is_gone}
    if arrived:
        session.execute(ARRIVED, {"ids": list(arrived)})
    if failed | gone:
        session.execute(FAILED, {"ids": list(failed), "at": at})
        values = {"at": at, "gone": list(gone), "failed": list(failed), "since": at - FAILS_TOO_LONG}
        for row in session.execute(DISABLE, values).all():
            _notify_disabled(session, row, at)


def _notify_disabled(session: UnitOfWork, row: Row[Any], at: datetime) -> None:
    said = {GONE: "it answered 410 Gone", FAILING: f"it failed for {FAILS_TOO_LONG.days} days"}[row.why_disabled]
    audit_event = AuditEvent(
        at=at,
        action="endpoint_disabled",
        actor=THE_CLOCK,
        tenant_id=row.tenant_id,
        facts={"endpoint_id": row.id, "changes": {"reason": said, "id": str(row.id)}},
        personal={"endpoint": row.description or None},
    )
    if row.tenant_id is None:
        announcements.notify_operators(session, audit_event)
    else:
        announcements.announce(session, audit_event)


def lock_concerned(session: UnitOfWork, ended: Mapping[UUID, Outcome]) -> Mapping[UUID, str]:
    """Lock, in order, the requests whose notifications could not be delivered; return their states by id."""
    failed = {notification: outcome for notification, outcome in ended.items() if outcome is not Outcome.SENT}
    if not failed:
        return {}
    values = {
        "ids": list(failed),
        "dead": [notification for notification, outcome in failed.items() if outcome is Outcome.DEAD],
        **{stage: list(templates) for stage, templates in ASKING.items()},
    }
    concerned = list(session.execute(CONCERNED, values).scalars())
    rows = session.execute(LOCK, {"ids": concerned}) if concerned else ()
    return {row.id: row.state for row in rows}


def record_dead(
    session: UnitOfWork, rows: Sequence[Row[Any]], words: Mapping[UUID, str | None], at: datetime
) -> None:
    audit_events = [_audit_event(row, words.get(row.id), at) for row in rows if row.template not in UNRECORDED]
    if audit_events:
        announcements.record(session, *audit_events)


def wake_undelivered(session: UnitOfWork, states: Mapping[UUID, str], at: datetime) -> None:
    """Make waiting requests due now if none of their recipients could be notified.

    The requests are locked, and their notifications have ended.
    """
    asking = {one: state for one, state in states.items() if state in ASKING}
    unreached = [one for one, found in delivery_status.of_requests(session, asking).items() if found.nobody]
    if unreached:
        woken = session.execute(WAKE, {"ids": unreached, "at": at}).scalars()
        database.arm_after_commit(session, CLOCK, [IndexEntry(str(one), REMIND, at) for one in woken])


def _audit_event(row: Row[Any], word: str | None, at: datetime) -> AuditEvent:
    facts: dict[str, Value] = {
        "notification_id": row.id,
        "template": row.template,
        "attempts": row.attempts,
        "error": word or TOO_LATE,
        "person_id": row.person_id,
        "endpoint_id": row.endpoint_id,
        "about_id": row.about_id,
    }
    return AuditEvent(
        at=at,
        action=NOTIFICATION_DEAD,
        actor=replace(THE_CLOCK, channel=row.channel),
        tenant_id=row.tenant_id,
        stays_inside=row.is_internal,
        facts={name: value for name, value in facts.items() if value is not None},
    )


def record_sent(session: UnitOfWork, rows: Sequence[Row[Any]], at: datetime) -> None:
    counts = Counter(
        (row.tenant_id, row.event_id, row.template, row.channel, row.is_internal)
        for row in rows
        if row.template not in SILENT
    )
    audit_events = [
        AuditEvent(
            at=at,
            action=NOTIFICATIONS_SENT,
            actor=replace(THE_CLOCK, channel=channel),
            tenant_id=tenant_id,
            stays_inside=is_internal,
            facts={"of_event": event_id, "template": template, "count": count},
        )
        for (tenant_id, event_id, template, channel, is_internal), count in counts.items()
    ]
    if audit_events:
        announcements.record(session, *audit_events)
