"""Checkpoints that leave the house by notices: to webhooks each hour, and to people in a digest."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta

from sqlalchemy import text
from sqlmodel import Session

from lockbox.database import Database, now
from lockbox.failpoints import reach
from lockbox.notifications import announcements
from lockbox.notifications.account_mail import CHECKPOINT, CHECKPOINT_TYPE, DIGEST
from lockbox.notifications.announcements import Occasion, Recipient

MOST = 200
MATTERS_FOR = timedelta(hours=24)

UNTOLD = text("""
SELECT c.id, l.tenant_id, ARRAY(SELECT h.id FROM endpoints h
    WHERE h.tenant_id IS NOT DISTINCT FROM l.tenant_id AND h.disabled_at IS NULL AND h.removed_at IS NULL
        AND (h.event_types = '{}' OR :type = ANY (h.event_types)) ORDER BY h.id) AS endpoints
FROM checkpoints c JOIN logs l ON l.id = c.log_id WHERE c.told_at IS NULL ORDER BY c.at LIMIT :most
FOR NO KEY UPDATE OF c SKIP LOCKED
""")
TOLD = text("UPDATE checkpoints SET told_at = :at WHERE id = ANY(:ids)")
DUE = text("""
SELECT l.id, l.tenant_id, (SELECT c.id FROM checkpoints c WHERE c.log_id = l.id ORDER BY c.at DESC LIMIT 1) AS newest,
    ARRAY(SELECT DISTINCT m.person_id FROM memberships m JOIN people p ON p.id = m.person_id
        WHERE m.tenant_id = l.tenant_id AND m.role IN ('tenant_admin', 'auditor') AND p.disabled_at IS NULL
        ) AS readers
FROM logs l WHERE l.tenant_id IS NOT NULL AND l.digest_at <= :since ORDER BY l.digest_at LIMIT :most
FOR NO KEY UPDATE OF l SKIP LOCKED
""")
MAILED = text("UPDATE logs SET digest_at = :at WHERE id = ANY(:ids)")


def tell(database: Database, digest_every: timedelta) -> Iterator[str]:
    """Promise what is due of both, page by page; a digest every zero seconds is none at all."""
    while told := _page(database, _tell_endpoints):
        yield f"checkpoints told {told}"
    while digest_every and (mailed := _page(database, lambda session, at: _mail(session, at - digest_every, at))):
        yield f"digests {mailed}"


def _page(database: Database, work: Callable[[Session, datetime], int]) -> int:
    with database.transaction() as session:
        return work(session, now(session))


def _tell_endpoints(session: Session, at: datetime) -> int:
    rows = session.connection().execute(UNTOLD, {"type": CHECKPOINT_TYPE, "most": MOST}).all()
    for row in rows:
        told = [Recipient(endpoint_id=one) for one in row.endpoints]
        announcements.promise(session, told, Occasion(CHECKPOINT, row.tenant_id, None, at, at + MATTERS_FOR, row.id))
    if rows:
        reach("sealer.after_promise")
        session.connection().execute(TOLD, {"ids": [row.id for row in rows], "at": at})
    return len(rows)


def _mail(session: Session, since: datetime, at: datetime) -> int:
    rows = session.connection().execute(DUE, {"since": since, "most": MOST}).all()
    for row in rows:
        told = [Recipient(person_id=one) for one in row.readers] if row.newest else []
        announcements.promise(session, told, Occasion(DIGEST, row.tenant_id, None, at, at + MATTERS_FOR, row.newest))
    if rows:
        session.connection().execute(MAILED, {"ids": [row.id for row in rows], "at": at})
    return len(rows)
