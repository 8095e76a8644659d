"""Queueing of the reports on closed windows.

A report is queued once due, for the people who are then entitled to it.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.database import Database, UnitOfWork, arm_after_commit, array, now
from lockbox.notifications import recipients
from lockbox.notifications.audience import REPORT, matters_until
from lockbox.notifications.event_recipients import AudienceMember, at_each_address
from lockbox.notifications.fan_out import ADDRESSED, addressed, mailed_causes, notifications_of
from lockbox.notifications.load import Wordings
from lockbox.notifications.outbox import KIND
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.notifications.settlement import SETTLED_WITHIN
from lockbox.schedule import NOTIFICATIONS, IndexEntry
from lockbox.sql import new_id

MOST_REPORTS = 500
WRITE_REPORTS = text(f"WITH {ADDRESSED} SELECT id FROM addressed")  # noqa: S608 - our own SQL
TAKE_REPORTS = text("""
WITH taken AS (
    DELETE FROM reports_due WHERE event_id IN (SELECT event_id FROM reports_due WHERE due_at <= :at
        ORDER BY due_at LIMIT :most)
    RETURNING event_id
)
SELECT t.event_id, e.tenant_id, e.request_id, v.voters
FROM taken t LEFT JOIN events e ON e.id = t.event_id AND e.seq IS NOT NULL AND e.from_state = 'active'
    AND e.to_state <> 'active'
    AND NOT EXISTS (SELECT FROM notifications n WHERE n.event_id = e.id AND n.template = 'report')
LEFT JOIN LATERAL (SELECT array_agg(DISTINCT d.person_id) AS voters FROM decisions d
    WHERE d.request_id = e.request_id AND d.decision <> 'endorse' AND EXISTS (SELECT FROM memberships m
        WHERE m.person_id = d.person_id AND m.tenant_id = e.tenant_id)) v ON true
""")


def promise(database: Database, wordings: Wordings) -> Iterator[int]:
    while taken := _report_batch(database, wordings):
        yield taken


def _report_batch(database: Database, wordings: Wordings) -> int:
    with database.transaction() as session:
        at = now(session)
        rows = session.execute(TAKE_REPORTS, {"at": at, "most": MOST_REPORTS}).all()
        ended = [row for row in rows if row.request_id]
        worded = wordings(session, [row.request_id for row in ended]) if ended else {}
        wanted = [row for row in ended if worded[row.request_id].report]
        if wanted:
            _promise_reports(session, wanted, at)
        return len(rows)


def _promise_reports(session: UnitOfWork, ended: Sequence[Row[Any]], at: datetime) -> None:
    tenants, voters = {row.tenant_id for row in ended}, {person for row in ended for person in row.voters or ()}
    known = recipients.look_up(session, tenants, at, with_auditors=True)
    recipients.with_places(session, known, tenants, also=voters)
    due: list[AudienceMember] = []
    audiences: dict[tuple[UUID, frozenset[UUID]], range] = {}
    chosen = []
    for row in ended:
        key = row.tenant_id, frozenset(row.voters or ())
        if key not in audiences:
            first, until = len(due) + 1, matters_until(REPORT, at, at)
            for person in sorted(_readers(known, *key)):
                due += [AudienceMember(one, until) for one in at_each_address(known, person, REPORT)]
            audiences[key] = range(first, len(due) + 1)
        chosen.append(audiences[key])
    pairs = list(notifications_of(ended, chosen, due))
    unsettled = mailed_causes(pairs, due, [new_id() for _ in ended])
    values = addressed(ended, pairs, due, [at] * len(pairs))
    values |= {"c_unsettled": array(unsettled), "settle_by": at + SETTLED_WITHIN}
    session.execute(WRITE_REPORTS, values)
    promises = [IndexEntry(str(pair.id), KIND, at) for pair in pairs]
    promises += [IndexEntry(str(one), KIND, at + SETTLED_WITHIN) for one in unsettled if one]
    arm_after_commit(session, NOTIFICATIONS, promises)


def _readers(known: RecipientDirectory, tenant_id: UUID, voters: frozenset[UUID]) -> frozenset[UUID]:
    return voters | known.admins[tenant_id] | known.auditors[tenant_id]
