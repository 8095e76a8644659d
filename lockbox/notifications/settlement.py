"""Events about the outcomes of a move's mails: one, or two if mails are still open a minute after the fan-out.

The second event follows once the last mail has ended. A writer locks the row of `unsettled` before it reads results.
If two processes record the last results at once, the second therefore sees all results.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox import database
from lockbox.audit import events
from lockbox.audit.canonical import Plain, Value, instant
from lockbox.audit.event_search import RECIPIENT
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.audit.reported_mails import NOTIFIED
from lockbox.database import UnitOfWork, array, now
from lockbox.failpoints import failpoint
from lockbox.notifications.audience import REPORT
from lockbox.notifications.models import Outcome
from lockbox.notifications.outbox import KIND
from lockbox.schedule import NOTIFICATIONS, IndexEntry

SETTLED_WITHIN = timedelta(seconds=60)
ERASED_AGAIN = timedelta(seconds=1)
NAMES = "hashtextextended('lockbox names', 0)"
"""The advisory lock that an erasure takes exclusively, from before it looks for names until they are erased."""
MAY_NAME = f"pg_try_advisory_xact_lock_shared({NAMES})"
"""Blocks erasures until the commit. It is false while an erasure is under way; names may be read only once it has
been true."""
OPEN = "open"
MOST_LISTED = 500
"""How many mails one event lists, so that its line in an export always fits in 2^20 bytes."""
WORST_FIRST = (Outcome.DEAD.value, OPEN, Outcome.MOOT.value, Outcome.SENT.value)

# Rows are locked in order, because other transactions settle the same events.
LOCK = text(f"""
SELECT id, settle_by, {MAY_NAME} AS may_name FROM unsettled WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
""")  # noqa: S608 - our own SQL
# Mails of an event are read only once the event is due or all its mails have ended: it may have thousands of mails.
READ = text("""
SELECT u.id, u.event_id, u.of_report, u.tenant_id, u.request_id, u.left_open IS NOT NULL AS is_second,
    u.settle_by, e.internal OR coalesce(p.side = 'vendor', false) AS is_internal, n.id AS notification_id, n.channel,
    coalesce(n.person_id, n.observer_id) AS recipient_id, n.outcome, n.closed_at, n.until_at,
    coalesce(p.name, w.name) AS name, CASE WHEN n.address_id IS NULL THEN coalesce(p.email, w.email) ELSE x.email END
    AS address
FROM unsettled u JOIN events e ON e.id = u.event_id
LEFT JOIN notifications n ON n.event_id = u.event_id AND n.channel = 'mail' AND (n.template = 'report') = u.of_report
    AND (u.left_open IS NULL OR n.id = ANY(u.left_open))
LEFT JOIN people p ON p.id = n.person_id LEFT JOIN addresses x ON x.id = n.address_id
LEFT JOIN observers w ON w.id = n.observer_id
WHERE u.id = ANY(:ids) AND (u.settle_by <= :at OR NOT EXISTS (SELECT FROM notifications o
    WHERE o.event_id = u.event_id AND o.channel = 'mail' AND (o.template = 'report') = u.of_report
    AND o.closed_at IS NULL))
ORDER BY u.id, n.id
""")
WRITE = text(f"""
WITH {events.APPEND}, done AS (
    DELETE FROM unsettled WHERE id = ANY(CAST(:done AS uuid[]))
)
UPDATE unsettled u SET settle_by = s.settle_by, left_open = CAST(s.left_open AS uuid[])
FROM unnest(CAST(:id AS uuid[]), CAST(:settle_by AS timestamptz[]), CAST(:left_open AS text[]))
    AS s (id, settle_by, left_open)
WHERE u.id = s.id
""")  # noqa: S608 - our own SQL


def settle_due(session: UnitOfWork, ids: Sequence[UUID]) -> None:
    if not ids:
        return
    locked = {row.id: row for row in session.execute(LOCK, {"ids": list(ids)})}
    held = [IndexEntry(str(one), KIND, locked[one].settle_by if one in locked else None) for one in ids]
    database.arm_after_commit(session, NOTIFICATIONS, held)
    settle(session, {one: row.may_name for one, row in locked.items()}, now(session))


def settle(session: UnitOfWork, locked: Mapping[UUID, bool], at: datetime) -> None:
    """Write the events of rows whose mails have all ended or whose time is over.

    An earlier SQL statement locked the rows. `locked` maps each row's id to `MAY_NAME`: whether the event may contain
    names. While an erasure is under way, the event may not, and the row is tried again a second later.
    """
    put_off = [IndexEntry(str(one), KIND, ERASED_AGAIN) for one, may_name in locked.items() if not may_name]
    database.arm_after_commit(session, NOTIFICATIONS, put_off)
    ids = [one for one, may_name in locked.items() if may_name]
    rows = session.execute(READ, {"ids": ids, "at": at}).all() if ids else ()
    settled = [_Settlement(list(mails), at) for _, mails in groupby(rows, key=lambda row: row.id)]
    if not settled:
        return
    failpoint("settle.before_event")
    later = [one for one in settled if one.still_open]
    session.execute(
        WRITE,
        events.append([event for one in settled for event in one.audit_events()])
        | {
            "done": array(one.id for one in settled if not one.still_open),
            "id": array(one.id for one in later),
            "settle_by": array(one.settle_by for one in later),
            "left_open": [array(one.left_open) for one in later],
        },
    )
    failpoint("settle.after_event")
    database.arm_after_commit(
        session,
        NOTIFICATIONS,
        [IndexEntry(str(one.id), KIND, one.settle_by if one.still_open else None) for one in settled],
    )


class _Settlement:
    def __init__(self, mails: Sequence[Row[Any]], at: datetime) -> None:
        self._first = mails[0]
        self._mails = [row for row in mails if row.notification_id]
        self._open = [row for row in self._mails if row.outcome is None]
        self._at = at
        self.id: UUID = self._first.id
        self.still_open = bool(self._open)

    @property
    def left_open(self) -> list[UUID]:
        return [row.notification_id for row in (self._mails if self._first.is_second else self._open)]

    @property
    def settle_by(self) -> datetime:
        """The latest time for the next event: a minute after the last open mail stops mattering."""
        latest: datetime = max(self._at, *(row.until_at for row in self._open))
        return latest + SETTLED_WITHIN

    def audit_events(self) -> Iterator[AuditEvent]:
        if self.still_open and self._first.is_second:
            return
        for is_internal in (True, False):
            if mails := [row for row in self._mails if row.is_internal is is_internal]:
                yield self._audit_event(mails, is_internal=is_internal)

    def _audit_event(self, mails: Sequence[Row[Any]], *, is_internal: bool) -> AuditEvent:
        first = self._first
        by_outcome = sorted(mails, key=lambda row: WORST_FIRST.index(row.outcome or OPEN))[:MOST_LISTED]
        listed = {str(number): row for number, row in enumerate(by_outcome, 1)}
        counts = Counter(row.outcome or OPEN for row in mails)
        told: dict[str, Plain] = {number: _told(row) for number, row in listed.items()}
        facts: dict[str, Value] = {
            "of_event": first.event_id,
            "part": 2 if first.is_second else 1,
            "mails": told,
            **{outcome: counts[outcome] for outcome in WORST_FIRST},
            **({"template": REPORT} if first.of_report else {}),
            **({"not_listed": len(mails) - len(listed)} if len(mails) > len(listed) else {}),
        }
        return AuditEvent(
            at=max(self._at, *(row.closed_at or self._at for row in mails)),
            action=NOTIFIED,
            actor=THE_CLOCK,
            tenant_id=first.tenant_id,
            request_id=first.request_id,
            stays_inside=is_internal,
            facts=facts,
            personal={f"{RECIPIENT}_{number}": f"{row.name} <{row.address}>" for number, row in listed.items()},
        )


def _told(row: Row[Any]) -> list[str]:
    ended = [instant(row.closed_at)] if row.closed_at else []
    return [str(row.recipient_id), row.channel, row.outcome or OPEN, *ended]
