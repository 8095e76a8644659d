"""The delivery log: a row for each try, written with the record of it, and endpoints that are gone."""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox.audit.events import THE_CLOCK, Happening
from lockbox.ids import new_id
from lockbox.notifications import announcements

MOST_ANSWER = 1024
CONTROLS = frozenset({"Cc", "Cs", "Co", "Cn"})
STRANGE = "\N{REPLACEMENT CHARACTER}"
FAILS_TOO_LONG = timedelta(days=5)
GONE = "gone"
FAILING = "failing"
UNVERIFIED = "unverified"

WRITE = text("""
INSERT INTO deliveries (id, notice_id, endpoint_id, event_type, at, took_ms, status, answer, error)
SELECT * FROM unnest(CAST(:id AS uuid[]), CAST(:notice_id AS uuid[]), CAST(:endpoint_id AS uuid[]),
    CAST(:event_type AS text[]), CAST(:at AS timestamptz[]), CAST(:took_ms AS integer[]), CAST(:status AS integer[]),
    CAST(:answer AS text[]), CAST(:error AS text[]))
ON CONFLICT DO NOTHING
""")
# Rows are locked in order, for others write of the same endpoints.
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


@dataclass(frozen=True)
class Attempt:
    """How one try went; `error` is a word, None where it arrived. `is_gone` is an endpoint that wants no more.

    What was not sent because it is not to be believed is no fault of its endpoint's. `id` is that of the row: a write
    that is repeated, since nobody heard whether it stands, adds no second one.
    """

    notice_id: UUID
    endpoint_id: UUID | None
    event_type: str
    at: datetime
    took: timedelta
    status: int | None = None
    answer: str = ""
    error: str | None = None
    is_gone: bool = False
    id: UUID = field(default_factory=new_id)


def write(session: Session, attempts: Sequence[Attempt], at: datetime) -> None:
    """Write the log, and disable endpoints that are gone or have failed for days without one success."""
    if not attempts:
        return
    session.connection().execute(
        WRITE,
        {
            "id": [one.id for one in attempts],
            "notice_id": [one.notice_id for one in attempts],
            "endpoint_id": [one.endpoint_id for one in attempts],
            "event_type": [one.event_type for one in attempts],
            "at": [one.at for one in attempts],
            "took_ms": [round(one.took.total_seconds() * 1000) for one in attempts],
            "status": [one.status for one in attempts],
            "answer": [shown(one.answer) for one in attempts],
            "error": [one.error for one in attempts],
        },
    )
    if called := [one for one in attempts if one.endpoint_id and one.error != UNVERIFIED]:
        _judge(session, called, at)


def shown(answer: str) -> str:
    """Return what the other side said as it may be kept and shown: at most a kilobyte, and no control characters."""
    kept = "".join(STRANGE if _is_control(mark) else mark for mark in answer.replace("\r\n", "\n"))
    return kept.encode()[:MOST_ANSWER].decode(errors="ignore")


def _is_control(mark: str) -> bool:
    return mark not in "\n\t" and unicodedata.category(mark) in CONTROLS


def _judge(session: Session, called: Iterable[Attempt], at: datetime) -> None:
    arrived = {one.endpoint_id for one in called if one.error is None}
    failed = {one.endpoint_id for one in called} - arrived
    gone = {one.endpoint_id for one in called if one.is_gone}
    if arrived:
        session.connection().execute(ARRIVED, {"ids": list(arrived)})
    if failed | gone:
        session.connection().execute(FAILED, {"ids": list(failed), "at": at})
        values = {"at": at, "gone": list(gone), "failed": list(failed), "since": at - FAILS_TOO_LONG}
        for row in session.connection().execute(DISABLE, values).all():
            _tell(session, row, at)


def _tell(session: Session, row: Row[Any], at: datetime) -> None:
    said = {GONE: "it answered 410 Gone", FAILING: f"it failed for {FAILS_TOO_LONG.days} days"}[row.why_disabled]
    happening = Happening(
        at=at,
        action="endpoint_disabled",
        actor=THE_CLOCK,
        tenant_id=row.tenant_id,
        facts={"endpoint_id": row.id, "changes": {"reason": said, "id": str(row.id)}},
        personal={"endpoint": row.description or None},
    )
    if row.tenant_id is None:
        announcements.tell_operators(session, happening)
    else:
        announcements.announce(session, happening)
