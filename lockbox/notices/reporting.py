"""Promising reports: a minute after windows have closed, to those of the customer who are there by then."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox import database as database_
from lockbox.arrays import array
from lockbox.database import Database, now
from lockbox.ids import new_id
from lockbox.notices import directory, outbox
from lockbox.notices.audience import REPORT, REPORTED, REPORTED_AFTER, Hearer, matters_until
from lockbox.notices.directory import Directory
from lockbox.notices.outbox import KIND, Told
from lockbox.schedule import NOTICES, Promise

MOST = 500

TAKE = text("""
DELETE FROM unreported u
WHERE u.event_id IN (SELECT event_id FROM unreported WHERE at <= :until ORDER BY at LIMIT :most)
RETURNING u.event_id, u.tenant_id, u.request_id, EXISTS (SELECT FROM events e WHERE e.id = u.event_id) AS is_kept
""")
# Whether any rule of a policy that a request meets wants a report of something; of what, is for the terms to say when
# it is sent. A row without a person is of a request on which nobody voted who is still there.
WANTED = text("""
WITH policed AS MATERIALIZED (
    SELECT r.id, r.tenant_id, v.version
    FROM unnest(CAST(:ids AS uuid[])) AS i (id) JOIN requests r ON r.id = i.id JOIN tenants t ON t.id = r.tenant_id
    CROSS JOIN LATERAL (VALUES (r.policy_version), (t.policy_version)) AS v (version)
), wanting AS MATERIALIZED (
    SELECT p.tenant_id, p.version FROM (SELECT DISTINCT tenant_id, version FROM policed) d
    JOIN policies p ON p.tenant_id = d.tenant_id AND p.version = d.version
    WHERE coalesce(CAST(p.body ->> 'report_on_close' AS boolean), true)
        OR p.body @? '$.rules[*].terms.report_on_close ? (@ == true)'
)
SELECT w.id, v.person_id
FROM (SELECT DISTINCT p.id, p.tenant_id FROM policed p JOIN wanting USING (tenant_id, version)) w
LEFT JOIN LATERAL (
    SELECT DISTINCT d.person_id FROM decisions d WHERE d.request_id = w.id AND d.verdict <> 'endorse'
        AND EXISTS (SELECT FROM memberships m WHERE m.person_id = d.person_id AND m.tenant_id = w.tenant_id)
) v ON true
""")
PROMISED = text(f"WITH {outbox.PROMISE} SELECT 1")


def promise_due(house: Database) -> int:
    """Promise the reports on windows that closed a minute ago or earlier; return how many windows that were.

    One process at a time does it.
    """
    with house.transaction() as session:
        at = now(session)
        rows = session.connection().execute(TAKE, {"until": at - REPORTED_AFTER, "most": MOST}).all()
        if rows:
            _promise(session, rows, at)
        return len(rows)


def _promise(session: Session, rows: Sequence[Row[Any]], at: datetime) -> None:
    voters = _voters(session, [row.request_id for row in rows])
    known = directory.look_up(session, {row.tenant_id for row in rows}, at)
    wanted = [row for row in rows if row.request_id in voters and row.is_kept]
    told = [(new_id(), row, one) for row in wanted for one in _told(known, row, voters[row.request_id])]
    values = {
        "n_id": array(notice for notice, _, _ in told),
        "n_event_id": array(row.event_id for _, row, _ in told),
        "n_person_id": array(one.person_id for _, _, one in told),
        "n_address_id": array(one.address_id for _, _, one in told),
        "n_watcher_id": array(one.watcher_id for _, _, one in told),
        "n_endpoint_id": array(one.endpoint_id for _, _, one in told),
        "n_template": array(one.template for _, _, one in told),
        "n_until_at": array(matters_until(one.template, at, at) for _, _, one in told),
        "m_event_id": array(row.event_id for row in wanted),
        "m_tenant_id": array(row.tenant_id for row in wanted),
        "m_request_id": array(row.request_id for row in wanted),
        "m_at": array(at for _ in wanted),
    }
    session.connection().execute(PROMISED, values)
    database_.promise(session, NOTICES, [Promise(str(notice), KIND, at) for notice, _, _ in told])


def _told(known: Directory, row: Row[Any], voters: AbstractSet[UUID]) -> Iterator[Told]:
    groups = {
        Hearer.VOTERS: voters,
        Hearer.ADMINS: known.admins[row.tenant_id],
        Hearer.AUDITORS: known.auditors[row.tenant_id],
    }
    for person in sorted(set[UUID]().union(*(groups[hearer] for hearer in REPORTED))):
        yield from outbox.at_each(known, person, REPORT)


def _voters(session: Session, request_ids: Sequence[UUID]) -> Mapping[UUID, AbstractSet[UUID]]:
    """Return who has voted and is still a member, for those requests on which a report may be wanted."""
    found = defaultdict[UUID, set[UUID]](set)
    for row in session.connection().execute(WANTED, {"ids": list(request_ids)}):
        found[row.id] |= {row.person_id} - {None}
    return found
