"""Removal of old events from the beginning of logs, by the database's owner. Proofs of other events stay valid."""

import base64
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import select

from lockbox.admin import erased_texts, legal_holds
from lockbox.audit.events import THE_OWNER, AuditEvent
from lockbox.audit.log import merkle
from lockbox.audit.log.merkle import Place
from lockbox.audit.verifier.event_checks import AUDIT_EVENTS_REMOVED
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict
from lockbox.failpoints import failpoint
from lockbox.identity import row_macs
from lockbox.identity.models import Retention
from lockbox.notifications import announcements

RETENTION = text("SELECT set_config('lockbox.owner_command', 'retain', true)")
LOGS = text("""
SELECT l.id, l.tenant_id, l.size, l.kept_from, l.cleared_to FROM logs l WHERE l.size > l.cleared_to ORDER BY l.id
""")
FIRST_TO_STAY = text("""
SELECT s.number FROM seals s JOIN events e ON e.id = s.event_id LEFT JOIN requests r ON r.id = e.request_id
WHERE s.log_id = :log_id AND s.number >= :start AND s.number < :end
    AND (e.at >= :since OR (r.id IS NOT NULL AND (r.closed_at IS NULL OR r.closed_at >= :since))
        OR e.tenant_id = ANY(CAST(:held AS uuid[])))
ORDER BY s.number LIMIT 1
""")
IS_HELD = text("""
SELECT EXISTS (SELECT FROM seals s JOIN events e ON e.id = s.event_id
    WHERE s.log_id = :log_id AND s.number >= :start AND s.number < :end AND e.tenant_id = ANY(CAST(:held AS uuid[])))
""")
# The texts of a request are erased with its last move: in its row, and in the other log's events.
ENDED = text("""
SELECT r.id FROM seals s JOIN events e ON e.id = s.event_id JOIN requests r ON r.id = e.request_id
WHERE s.log_id = :log_id AND s.number >= :start AND s.number < :end AND e.seq = r.version AND r.closed_at IS NOT NULL
ORDER BY r.id
""")
TILES = text("""
SELECT t.level, t.number, t.hashes FROM tiles t
JOIN unnest(CAST(:level AS smallint[]), CAST(:number AS bigint[])) AS w (level, number) USING (level, number)
WHERE t.log_id = :log_id
""")
GONE = """
WITH gone AS (SELECT event_id FROM seals WHERE log_id = :log_id AND number >= :start AND number < :end)
"""
REMOVE = tuple(
    text(GONE + statement)
    for statement in (
        """
        DELETE FROM deliveries d USING notifications n JOIN gone g ON g.event_id = n.event_id WHERE d.notification_id
        = n.id
        """,
        "DELETE FROM notifications n USING gone g WHERE n.event_id = g.event_id",
        "DELETE FROM outbox o USING gone g WHERE o.event_id = g.event_id",
        "DELETE FROM unsettled u USING gone g WHERE u.event_id = g.event_id",
        "DELETE FROM event_details d USING gone g WHERE d.event_id = g.event_id",
        "DELETE FROM events e USING gone g WHERE e.id = g.event_id",
    )
)
# The sealer takes the same lock while a log grows.
KEPT = text("""
UPDATE logs SET kept_from = :end, kept_since = :since WHERE id = :log_id AND kept_from < :end RETURNING true
""")
CLEARED = text("""
UPDATE logs SET cleared_to = :end WHERE id = :log_id AND cleared_to = :start AND kept_from >= :end RETURNING true
""")
IS_OVERDUE = text("""
SELECT EXISTS (SELECT FROM requests WHERE wake_at <= clock_timestamp() - interval '1 second')
""")
A_LOOK, A_STEP = 10_000, 1_000
"""How many events one transaction searches for the first event to keep, and how many one transaction removes."""
YIELDED = 1.0
"""For how many seconds retention waits before a step while deadlines are overdue."""
Transactions = Callable[[], AbstractContextManager[UnitOfWork]]


@dataclass(frozen=True)
class RemovedRange:
    """`end` is not included."""

    log_id: UUID
    start: int
    end: int


def retain(transactions: Transactions, keep: timedelta | None) -> Iterator[RemovedRange]:
    """Remove old sealed events from the beginning of each log, without gaps.

    A tenant's log is kept for the time that its admins have set (in a row with a valid MAC), but no longer than
    `keep`. If `keep` is None, logs without a time set by admins are kept. The range ends before the first event that
    is younger than this time, whose request was open within this time, or whose tenant has a legal hold. When a
    request's last move is removed, the request's texts are erased in its row and in all logs. An interrupted run
    continues when called again.
    """
    with transactions() as session:
        at, logs = now(session), session.execute(LOGS).all()
        set_by_admins = [one for one in session.orm.exec(select(Retention)) if row_macs.is_vouched_for(session, one)]
    days = {admin.tenant_id: admin.days for admin in set_by_admins}
    for log in logs:
        kept_for = kept(days.get(log.tenant_id), keep)
        if kept_for is None:
            continue
        since = at - kept_for
        end = _first_to_stay(transactions, log, since)
        yield from remove(transactions, log, end, since)


def remove(transactions: Transactions, log: Row[Any], end: int, since: datetime) -> Iterator[RemovedRange]:
    """Record the removal of a log's events below `end`, and remove them, unless there is a legal hold.

    `log` has the columns `id`, `tenant_id`, `kept_from` and `cleared_to`.
    """
    with transactions() as session:
        span = {"log_id": log.id, "start": log.cleared_to, "end": end, "held": legal_holds.held(session)}
        if session.execute(IS_HELD, span).scalar_one():
            return
        marks = {"log_id": log.id, "end": end, "since": since}
        if end > log.kept_from and session.execute(KEPT, marks).scalar():
            announcements.record(session, _audit_event(session, log.id, log.tenant_id, end))
        failpoint("retention.before_record")
    failpoint("retention.after_record")
    if end > log.cleared_to:
        _clear(transactions, log.id, log.cleared_to, end)
        yield RemovedRange(log.id, log.cleared_to, end)


def kept(days: int | None, most: timedelta | None) -> timedelta | None:
    """Return the shorter of the tenant's retention and `most`; None means unlimited."""
    return min([one for one in (days and timedelta(days=days), most) if one], default=None)


def _first_to_stay(transactions: Transactions, log: Row[Any], since: datetime) -> int:
    """No lock is needed: a removable event stays removable."""
    for start in range(log.kept_from, log.size, A_LOOK):
        with transactions() as session:
            span = {"log_id": log.id, "start": start, "end": min(log.size, start + A_LOOK)}
            values = span | {"since": since, "held": legal_holds.held(session)}
            stays = session.execute(FIRST_TO_STAY, values).scalar()
        if stays is not None:
            return int(stays)
    return int(log.size)


def _clear(transactions: Transactions, log_id: UUID, start: int, end: int) -> None:
    for at in range(start, end, A_STEP):
        with transactions() as session:
            if session.execute(IS_OVERDUE).scalar_one():
                time.sleep(YIELDED)
        with transactions() as session:
            step = {"log_id": log_id, "start": at, "end": min(end, at + A_STEP)}
            session.execute(RETENTION)
            if not session.execute(CLEARED, step).scalar():
                raise Conflict("Another command is removing events of this log. Let it end, and run this one again.")
            erased_texts.blank(session.connection(), session.execute(ENDED, step).scalars().all())
            session.execute(RETENTION)
            for statement in REMOVE:
                session.execute(statement, step)
                failpoint("retention.mid_step")
        failpoint("retention.after_step")


def _audit_event(session: UnitOfWork, log_id: UUID, tenant_id: UUID | None, end: int) -> AuditEvent:
    return AuditEvent(
        at=now(session),
        action=AUDIT_EVENTS_REMOVED,
        actor=THE_OWNER,
        tenant_id=tenant_id,
        facts={
            "removed_from": 0,
            "removed_to": end,
            "removed_root": base64.b64encode(_root(session, log_id, end)).decode(),
        },
    )


def _root(session: UnitOfWork, log_id: UUID, size: int) -> bytes:
    wanted = sorted({merkle.of_subtree(*place) for place in merkle.complete(0, size)})
    values = {
        "log_id": log_id,
        "level": [level for level, _ in wanted],
        "number": [number for _, number in wanted],
    }
    found: Mapping[Place, bytes] = {
        (row.level, row.number): bytes(row.hashes) for row in session.execute(TILES, values)
    }
    return merkle.range_hash(lambda level, number: merkle.subtree(found, level, number), 0, size)
