"""Recording of refusals: equal refusals of one minute become one event, so that no one can flood the audit log."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.audit import events
from lockbox.audit.canonical import canonical, instant
from lockbox.audit.events import CLOCK, THE_CLOCK, AuditEvent
from lockbox.audit.models import RefusalCount
from lockbox.database import Database, UnitOfWork, now
from lockbox.sql import columns

SIGN_IN_REFUSED = "sign_in_refused"
DECISION_REFUSED = "decision_refused"
MINUTE = timedelta(minutes=1)
MOST = 500

COUNT = text("""
SELECT count_refused(:key, :minute, :kind, CAST(:person_id AS uuid), CAST(:request_id AS uuid),
    CAST(:facts AS jsonb), CAST(:personal AS jsonb))
""")
TAKE = text(f"""
DELETE FROM refused WHERE key IN (SELECT key FROM refused WHERE minute <= :until ORDER BY minute LIMIT :most)
RETURNING {columns(RefusalCount, "refused")}, count AS times
""")  # noqa: S608 - ours
TENANTS_OF_PEOPLE = text("SELECT DISTINCT person_id, tenant_id FROM memberships WHERE person_id = ANY(:ids)")
REQUESTS = text("SELECT id, tenant_id, asked_at IS NULL AS is_internal FROM requests WHERE id = ANY(:ids)")
# Attempts on an account are recorded at the tenants where its person is a member.
ACCOUNTS = text("""
SELECT DISTINCT lower(a.account) AS account, p.id AS person_id, m.tenant_id
FROM unnest(CAST(:accounts AS text[])) AS a (account) JOIN people p ON lower(p.email) = lower(a.account)
LEFT JOIN memberships m ON m.person_id = p.id
""")
RECORD = text(f"WITH {events.APPEND} SELECT 1")


@dataclass(frozen=True)
class RefusalEntry:
    """Refusals with equal `facts`, `kind`, person, request and `of` are counted together within a minute.

    `of` distinguishes unidentified callers. `first` and `personal` describe the first refusal of the minute.
    """

    kind: str
    facts: Mapping[str, str]
    person_id: UUID | None = None
    request_id: UUID | None = None
    of: str = ""
    first: Mapping[str, str] = field(default_factory=dict)
    personal: Mapping[str, str | None] = field(default_factory=dict)


def count(session: UnitOfWork, refused: RefusalEntry) -> None:
    """Count one refusal in a transaction of its own, because the refused call's transaction is rolled back."""
    minute = now(session).replace(second=0, microsecond=0)
    identity: dict[str, Any] = {
        "minute": instant(minute),
        "kind": refused.kind,
        "person_id": refused.person_id,
        "request_id": refused.request_id,
        "of": refused.of,
        "facts": dict(refused.facts),
    }
    values = {
        "key": hashlib.sha256(canonical(identity)).digest(),
        "minute": minute,
        "kind": refused.kind,
        "person_id": refused.person_id,
        "request_id": refused.request_id,
        "facts": json.dumps({**refused.facts, **refused.first}),
        "personal": json.dumps({name: value for name, value in refused.personal.items() if value}),
    }
    session.execute(COUNT, values)


def record_finished_minutes(database: Database) -> int:
    with database.transaction() as session:
        at = now(session)
        until = at.replace(second=0, microsecond=0) - MINUTE
        rows = session.execute(TAKE, {"until": until, "most": MOST}).all()
        if not rows:
            return 0
        asked = [row.request_id for row in rows if row.request_id]
        requests = {row.id: row for row in session.execute(REQUESTS, {"ids": asked})}
        places = _places(session, rows, requests)
        audit_events = [
            AuditEvent(
                at=at,
                action=row.kind,
                actor=replace(THE_CLOCK, channel=row.facts.get("channel", CLOCK)),
                tenant_id=tenant_id,
                request_id=row.request_id,
                from_state=_stage(row),
                to_state=_stage(row),
                facts={
                    **row.facts,
                    "person_id": person_id,
                    "minute": row.minute,
                    "count": row.times,
                },
                personal=row.personal,
                stays_inside=row.request_id in requests and requests[row.request_id].is_internal,
            )
            for row, where in zip(rows, places, strict=True)
            for person_id, tenant_id in where
        ]
        session.execute(RECORD, events.append(audit_events))
        return len(rows)


def _stage(row: Row[Any]) -> str | None:
    return "reviewing" if row.facts.get("refused") == "endorse" else None


def _places(
    session: UnitOfWork, rows: Sequence[Row[Any]], requests: Mapping[UUID, Row[Any]]
) -> list[list[tuple[UUID | None, UUID | None]]]:
    accounts = [account for row in rows if (account := row.personal.get("account"))]
    people = [row.person_id for row in rows if row.person_id]
    known: dict[str | UUID, list[tuple[UUID | None, UUID | None]]] = defaultdict(list)
    for row in session.execute(ACCOUNTS, {"accounts": accounts}):
        known[row.account].append((row.person_id, row.tenant_id))
    for row in session.execute(TENANTS_OF_PEOPLE, {"ids": people}):
        known[row.person_id].append((row.person_id, row.tenant_id))
    return [
        [(row.person_id, requests[row.request_id].tenant_id if row.request_id in requests else None)]
        if row.request_id
        else known.get(row.person_id or str(row.personal.get("account", "")).lower()) or [(row.person_id, None)]
        for row in rows
    ]
