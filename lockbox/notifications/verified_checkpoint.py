"""What memos say of the trail: its key and its checkpoints, by keys that were given and not by the database."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Row

from lockbox.audit.log import checkpoint
from lockbox.audit.log.checkpoint import BadNote, Checkpoint, VerifierKey
from lockbox.notifications.account_mail import CHECKPOINT, DIGEST, INVITATION
from lockbox.notifications.attempts import UNVERIFIED
from lockbox.notifications.senders.protocol import SendFailed

log = structlog.get_logger(__name__)

Keys = Mapping[bytes, VerifierKey]
"""Public keys by their ids, the newest first."""

NOT_VERIFIED = "its checkpoint is not signed by a key of LOCKBOX_AUDIT_PUBLIC_KEYS; nothing was sent"


def told(row: Row[Any], keys: Keys, approval_keys: Sequence[str]) -> tuple[dict[str, str], datetime | None]:
    """Return what a notice of a checkpoint tells of it, and when it was noted; nothing of any other notice.

    A digest names the public keys of approvals too, so that its mail is all that a verifier needs beside an export.

    Raises:
        SendFailed: no key that we were given has signed it, or it is of another log; it is an alarm in the log.
    """
    if row.template not in {CHECKPOINT, DIGEST}:
        return {}, None
    try:
        said, key = checkpoint.verify(row.note or "", keys)
        at = _checked(said, row)
    except BadNote as bad:
        log.critical("checkpoint.not_verified", notice_id=str(row.id), tenant_id=str(row.tenant_id), reason=str(bad))
        raise SendFailed(NOT_VERIFIED, permanent=True, kind=UNVERIFIED) from None
    facts = {"events": str(said.size), "checkpoint": row.note, "key": key.text, "fingerprint": key.fingerprint}
    if row.template == DIGEST:
        facts["approval_keys"] = "\n".join(approval_keys)
    return facts, at


def fingerprint(row: Row[Any], keys: Keys) -> str | None:
    """Return the fingerprint of the newest key for whoever is invited, so that it is known from the first."""
    return next((key.fingerprint for key in keys.values()), None) if row.template == INVITATION else None


def _checked(said: Checkpoint, row: Row[Any]) -> datetime:
    """Return when a checkpoint was signed, which is of the log that the notice is about."""
    whose = row.tenant_id or "vendor"
    if not re.fullmatch(rf".+/audit/{whose}(/[0-9]+)?", said.origin):
        raise BadNote(f"this is a checkpoint of {said.origin}, which is another log")
    try:
        return datetime.fromisoformat(said.at)
    except ValueError:
        raise BadNote("this checkpoint does not say when it was signed") from None
