"""Schedule the reports on closed windows for everyone who gets one, many at once."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.database import Database, UnitOfWork, now
from lockbox.notifications import outbox, recipients
from lockbox.notifications.audience import REPORT, matters_until
from lockbox.notifications.load import Wordings
from lockbox.notifications.outbox import ScheduledNotification
from lockbox.notifications.recipients import RecipientDirectory

MOST = 500

TAKE = text("""
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
WRITE = text(f"WITH {outbox.ADDRESSED} SELECT 1")


def promise_due(database: Database, wordings: Wordings) -> Iterator[int]:
    """Promise what is due, batch by batch, where the policy that is laid down by now wants a report."""
    while taken := _batch(database, wordings):
        yield taken


def _batch(database: Database, wordings: Wordings) -> int:
    with database.transaction() as session:
        at = now(session)
        rows = session.execute(TAKE, {"at": at, "most": MOST}).all()
        ended = [row for row in rows if row.request_id]
        worded = wordings(session, [row.request_id for row in ended]) if ended else {}
        wanted = [row for row in ended if worded[row.request_id].report]
        if wanted:
            _promise(session, wanted)
        return len(rows)


def _promise(session: UnitOfWork, ended: Sequence[Row[Any]]) -> None:
    at = now(session)
    voters = {person for row in ended for person in row.voters or ()}
    known = recipients.look_up(session, {row.tenant_id for row in ended}, at, also=voters, with_auditors=True)
    due: list[ScheduledNotification] = []
    audiences: dict[tuple[UUID, frozenset[UUID]], range] = {}
    told = []
    for row in ended:
        key = row.tenant_id, frozenset(row.voters or ())
        if key not in audiences:
            first = len(due) + 1
            for person in sorted(_readers(known, *key)):
                until = matters_until(REPORT, at, at)
                due += [
                    ScheduledNotification(one, at, until) for one in outbox.at_each_address(known, person, REPORT)
                ]
            audiences[key] = range(first, len(due) + 1)
        told.append(audiences[key])
    session.execute(WRITE, outbox.addressed(session, ended, told, due))


def _readers(known: RecipientDirectory, tenant_id: UUID, voters: frozenset[UUID]) -> frozenset[UUID]:
    """Return who gets the report: those who have approved or denied, the tenant's admins and its auditors."""
    return voters | known.admins[tenant_id] | known.auditors[tenant_id]
