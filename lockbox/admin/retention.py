"""Retention: the oldest part of a log goes, what was sealed over it stays; by a command of the database's owner."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.audit.events import THE_OWNER, Happening
from lockbox.audit.log import merkle, tiles
from lockbox.audit.log.tiles import Place
from lockbox.audit.verifier.event_checks import TRAIL_REMOVED
from lockbox.database import now
from lockbox.notifications import announcements

ERRAND = text("SELECT set_config('lockbox.errand', 'retain', true), set_config('statement_timeout', '0', true)")
# The sealer holds a log in the same way while it grows.
LOGS = text("SELECT id, tenant_id, size, kept_from FROM logs WHERE size > kept_from ORDER BY id FOR NO KEY UPDATE")
FIRST_TO_STAY = text("""
SELECT s.number FROM seals s JOIN events e ON e.id = s.event_id LEFT JOIN requests r ON r.id = e.request_id
WHERE s.log_id = :log_id AND s.number >= :kept_from
    AND (e.at >= :since OR (r.id IS NOT NULL AND (r.closed_at IS NULL OR r.closed_at >= :since)))
ORDER BY s.number LIMIT 1
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
        DELETE FROM deliveries d USING notices n JOIN gone g ON g.event_id = n.event_id WHERE d.notice_id = n.id
        """,
        "DELETE FROM notices n USING gone g WHERE n.event_id = g.event_id",
        "DELETE FROM event_details d USING gone g WHERE d.event_id = g.event_id",
        "DELETE FROM events e USING gone g WHERE e.id = g.event_id",
    )
)
KEPT = text("UPDATE logs SET kept_from = :end, kept_since = :since WHERE id = :log_id")


@dataclass(frozen=True)
class Removed:
    """The events of a log from `start` to before `end`, which are gone."""

    log_id: UUID
    start: int
    end: int


def retain(session: Session, keep: timedelta) -> list[Removed]:
    """Remove the sealed events that are older than that, each log from its beginning on and without a gap.

    The first event that is younger ends it, and so does one of a request that was still open then. Seals, tiles and
    checkpoints stay, so that what remains is proven as before. An event says which numbers are gone, all of them each
    time, and what the root over them was.
    """
    connection = session.connection()
    connection.execute(ERRAND)
    since = now(session) - keep
    removed = []
    for log in connection.execute(LOGS).all():
        values = {"log_id": log.id, "kept_from": log.kept_from, "since": since}
        stays = connection.execute(FIRST_TO_STAY, values).scalar_one_or_none()
        end = log.size if stays is None else stays
        if end == log.kept_from:
            continue
        for statement in REMOVE:
            connection.execute(statement, {"log_id": log.id, "start": log.kept_from, "end": end})
        connection.execute(KEPT, {"log_id": log.id, "end": end, "since": since})
        announcements.record(session, _happening(session, log.id, log.tenant_id, end))
        removed.append(Removed(log.id, log.kept_from, end))
    return removed


def _happening(session: Session, log_id: UUID, tenant_id: UUID | None, end: int) -> Happening:
    return Happening(
        at=now(session),
        action=TRAIL_REMOVED,
        actor=THE_OWNER,
        tenant_id=tenant_id,
        facts={
            "removed_from": 0,
            "removed_to": end,
            "removed_root": base64.b64encode(_root(session, log_id, end)).decode(),
        },
    )


def _root(session: Session, log_id: UUID, size: int) -> bytes:
    """Return the root that a log had at a size."""
    wanted = sorted({tiles.of_subtree(*place) for place in merkle.complete(0, size)})
    values = {
        "log_id": log_id,
        "level": [level for level, _ in wanted],
        "number": [number for _, number in wanted],
    }
    found: Mapping[Place, bytes] = {
        (row.level, row.number): bytes(row.hashes) for row in session.connection().execute(TILES, values)
    }
    return merkle.range_hash(lambda level, number: tiles.subtree(found, level, number), 0, size)
