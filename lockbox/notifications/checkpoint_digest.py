"""Sending checkpoints outside: to webhooks each hour, and to people in a digest."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Row, text

from lockbox.audit.log import checkpoint
from lockbox.audit.log.checkpoint import BadNote, Checkpoint, VerifierKey
from lockbox.database import Database, UnitOfWork, now
from lockbox.failpoints import failpoint
from lockbox.notifications import announcements
from lockbox.notifications.account_mail import CHECKPOINT, CHECKPOINT_TYPE, DIGEST, INVITATION
from lockbox.notifications.announcements import Announcement, AnnouncementRecipient
from lockbox.notifications.outcome_events import UNVERIFIED
from lockbox.notifications.senders.protocol import SendFailed

log = structlog.get_logger(__name__)
Keys = Mapping[bytes, VerifierKey]
"""Public keys by their ids, the newest first."""
NOT_VERIFIED = "its checkpoint is not signed by a key of LOCKBOX_AUDIT_PUBLIC_KEYS; nothing was sent"
MOST = 200
MATTERS_FOR = timedelta(hours=24)
UNANNOUNCED = text("""
SELECT c.id, l.tenant_id, ARRAY(SELECT h.id FROM endpoints h
    WHERE h.tenant_id IS NOT DISTINCT FROM l.tenant_id AND h.disabled_at IS NULL AND h.removed_at IS NULL
        AND (h.event_types = '{}' OR :type = ANY (h.event_types)) ORDER BY h.id) AS endpoints
FROM checkpoints c JOIN logs l ON l.id = c.log_id WHERE c.notified_at IS NULL ORDER BY c.at LIMIT :most
FOR NO KEY UPDATE OF c SKIP LOCKED
""")
ANNOUNCED = text("UPDATE checkpoints SET notified_at = :at WHERE id = ANY(:ids)")
DUE = text("""
SELECT l.id, l.tenant_id, (SELECT c.id FROM checkpoints c WHERE c.log_id = l.id ORDER BY c.at DESC LIMIT 1) AS newest,
    ARRAY(SELECT DISTINCT m.person_id FROM memberships m JOIN people p ON p.id = m.person_id
        WHERE m.tenant_id = l.tenant_id AND m.role IN ('tenant_admin', 'auditor') AND p.disabled_at IS NULL
        ) AS readers
FROM logs l WHERE l.tenant_id IS NOT NULL AND l.digest_at <= :since ORDER BY l.digest_at LIMIT :most
FOR NO KEY UPDATE OF l SKIP LOCKED
""")
MAILED = text("UPDATE logs SET digest_at = :at WHERE id = ANY(:ids)")


def checkpoint_of(row: Row[Any], keys: Keys, approval_keys: Sequence[str]) -> tuple[dict[str, str], datetime | None]:
    """Return the checkpoint of a notification and the checkpoint's time, or an empty mapping and None.

    Raises:
        SendFailed: no key in `keys` has signed the checkpoint, or the checkpoint is of another log.
    """
    if row.template not in {CHECKPOINT, DIGEST}:
        return {}, None
    try:
        said, key = checkpoint.verify(row.note or "", keys)
        at = _checked(said, row)
    except BadNote as bad:
        log.critical(
            "checkpoint.not_verified", notification_id=str(row.id), tenant_id=str(row.tenant_id), reason=str(bad)
        )
        raise SendFailed(NOT_VERIFIED, permanent=True, kind=UNVERIFIED) from None
    facts = {"events": str(said.size), "checkpoint": row.note, "key": key.text, "fingerprint": key.fingerprint}
    if row.template == DIGEST:
        facts["approval_keys"] = "\n".join(approval_keys)
    return facts, at


def fingerprint(row: Row[Any], keys: Keys) -> str | None:
    return next((key.fingerprint for key in keys.values()), None) if row.template == INVITATION else None


def _checked(said: Checkpoint, row: Row[Any]) -> datetime:
    whose = row.tenant_id or "vendor"
    if not re.fullmatch(rf".+/audit/{whose}(/[0-9]+)?", said.origin):
        raise BadNote(f"this is a checkpoint of {said.origin}, which is another log")
    try:
        return datetime.fromisoformat(said.at)
    except ValueError:
        raise BadNote("this checkpoint does not say when it was signed") from None


def queue_due(database: Database, digest_every: timedelta) -> Iterator[tuple[str, int]]:
    """Queue the due webhook calls and digests, page by page; a `digest_every` of zero means no digests."""
    while announced := _page(database, _notify_endpoints):
        yield "webhooks", announced
    while digest_every and (mailed := _page(database, lambda session, at: _mail(session, at - digest_every, at))):
        yield "digests", mailed


def _page(database: Database, work: Callable[[UnitOfWork, datetime], int]) -> int:
    with database.transaction() as session:
        return work(session, now(session))


def _notify_endpoints(session: UnitOfWork, at: datetime) -> int:
    rows = session.execute(UNANNOUNCED, {"type": CHECKPOINT_TYPE, "most": MOST}).all()
    for row in rows:
        recipients = [AnnouncementRecipient(endpoint_id=endpoint) for endpoint in row.endpoints]
        announcements.queue_notifications(
            session, recipients, Announcement(CHECKPOINT, row.tenant_id, None, at, at + MATTERS_FOR, row.id)
        )
    if rows:
        failpoint("sealer.after_promise")
        session.execute(ANNOUNCED, {"ids": [row.id for row in rows], "at": at})
    return len(rows)


def _mail(session: UnitOfWork, since: datetime, at: datetime) -> int:
    rows = session.execute(DUE, {"since": since, "most": MOST}).all()
    for row in rows:
        recipients = [AnnouncementRecipient(person_id=reader) for reader in row.readers] if row.newest else []
        announcements.queue_notifications(
            session, recipients, Announcement(DIGEST, row.tenant_id, None, at, at + MATTERS_FOR, row.newest)
        )
    if rows:
        session.execute(MAILED, {"ids": [row.id for row in rows], "at": at})
    return len(rows)
