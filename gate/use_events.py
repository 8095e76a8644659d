"""Write events for the first and the last use of a window, each once, from what the gates have counted."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text

from lockbox import database
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.audit.report import FIRST_USED, LAST_USED, USES_SETTLE
from lockbox.database import Database, UnitOfWork, now
from lockbox.notifications import announcements
from lockbox.pubsub import PAGES
from lockbox.requests.models import WindowUse
from lockbox.sql import columns

MOST = 200
CHANNEL = "gate"
# The lock is that of the counts. What is due is asked once more of the row as it is when it is locked: whoever wrote
# its events in between has moved it on.
DUE = text(f"""
WITH due AS MATERIALIZED (SELECT request_id FROM window_uses WHERE look_at <= :at ORDER BY look_at LIMIT :most)
SELECT {columns(WindowUse, "w")}, w.count AS times, r.tenant_id, r.requester_id, r.closed_at, r.deadline_at,
    coalesce(r.granted_resources, r.resources) AS resources,
    (SELECT p.name FROM people p WHERE p.id = w.first_gateway) AS first_name,
    (SELECT p.name FROM people p WHERE p.id = w.last_gateway) AS last_name
FROM due d JOIN window_uses w ON w.request_id = d.request_id JOIN requests r ON r.id = d.request_id
WHERE w.look_at <= :at
ORDER BY w.request_id FOR UPDATE OF w SKIP LOCKED
""")  # noqa: S608 - ours
TOLD = text("""
UPDATE window_uses w SET first_told = true, look_at = t.look_at
FROM unnest(CAST(:ids AS uuid[]), CAST(:look_at AS timestamptz[])) AS t (id, look_at) WHERE w.request_id = t.id
""")


def record(db: Database) -> Iterator[int]:
    """Write the events that are due, batch by batch; yield how many each time.

    It may run anywhere, at once and any number of times. The first use is due as soon as it is counted, the last one
    some time after the end of the window: until then a process may still write what it has counted.
    """
    while True:
        with db.transaction() as session:
            read, written = _batch(session)
        if written:
            yield written
        if read < MOST:
            return


def _batch(session: UnitOfWork) -> tuple[int, int]:
    at = now(session)
    rows = session.execute(DUE, {"at": at, "most": MOST}).all()
    if not rows:
        return 0, 0
    audit_events: list[AuditEvent] = []
    look_at = []
    for row in rows:
        ends = min(row.closed_at or row.deadline_at, row.deadline_at) + USES_SETTLE
        is_over = ends <= at
        if not row.first_told:
            audit_events.append(_event(row, at, FIRST_USED))
        if is_over:
            audit_events.append(_event(row, at, LAST_USED))
        look_at.append(None if is_over else ends)
    announcements.record(session, *audit_events)
    session.write(TOLD, {"ids": [row.request_id for row in rows], "look_at": look_at})
    database.publish_after_commit(session, [row.request_id for row in rows], PAGES)
    return len(rows), len(audit_events)


def _event(row: Row[Any], at: datetime, action: str) -> AuditEvent:
    which = "first" if action == FIRST_USED else "last"
    found = {name: getattr(row, f"{which}_{name}") for name in ("gateway", "action", "resource", "name")}
    facts = {"gateway": found["gateway"], "did": found["action"], "first_at": row.first_at}
    return AuditEvent(
        at=at,
        action=action,
        actor=replace(THE_CLOCK, channel=CHANNEL),
        tenant_id=row.tenant_id,
        request_id=row.request_id,
        facts=facts if action == FIRST_USED else facts | {"last_at": row.last_at, "count": row.times},
        personal={
            "resource": row.resources[found["resource"] - 1] if found["resource"] else None,
            "gateway_name": found["name"],
        },
    )
