"""Marks of rows that give power: what each covers, and how one by an older key is made anew."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlmodel import Session

from lockbox.people import keyring
from lockbox.people.keyring import Part
from lockbox.people.keys import BrowserSession, Identity, Passkey, Token
from lockbox.people.models import Invitation

log = structlog.get_logger(__name__)

REMARK = text("SELECT remark(:kind, :which, :old, :new, :new_hash)")


class Power(StrEnum):
    """The rows that give power."""

    MEMBERSHIP = "membership"
    PASSKEY = "passkey"
    IDENTITY = "identity"
    SESSION = "session"
    TOKEN = "token"  # noqa: S105 - a word
    INVITATION = "invitation"
    DECISION = "decision"


def membership(row_id: UUID, person_id: UUID, tenant_id: UUID | None, role: str) -> Sequence[Part]:
    """Return what the mark of a membership covers; in which tier somebody reviews gives no power."""
    return (Power.MEMBERSHIP, row_id, person_id, tenant_id, role)


def passkey(row: Passkey) -> Sequence[Part]:
    """Return what the mark of a passkey covers: all but its name and what each use changes."""
    return (
        Power.PASSKEY,
        row.id,
        row.person_id,
        row.credential_id,
        row.public_key,
        row.created_at,
        row.trusted_at,
        row.only_at,
    )


def identity(row: Identity) -> Sequence[Part]:
    """Return what the mark of an identity covers."""
    return (Power.IDENTITY, row.issuer, row.subject, row.person_id, row.created_at, row.trusted_at)


def browser_session(
    row_id: UUID | None,
    person_id: UUID | None,
    secret_hash: bytes,
    *,
    means: str | None,
    signed_in_at: datetime | None,
    expires_at: datetime | None,
    only_at: UUID | None,
) -> Sequence[Part]:
    """Return what the mark of a browser session covers: all but where it is and when it was seen."""
    return (Power.SESSION, row_id, person_id, secret_hash, means, signed_in_at, expires_at, only_at)


def token(
    row_id: UUID | None,
    person_id: UUID | None,
    secret_hash: bytes,
    *,
    is_sample: bool,
    by_mail: bool,
    scopes: Sequence[str],
    services: Sequence[str],
    only_at: UUID | None,
    means: str | None,
    signed_in_at: datetime | None,
    created_at: datetime | None,
    expires_at: datetime | None,
) -> Sequence[Part]:
    """Return what the mark of a token covers: all but its name and when it was used."""
    bounds = (is_sample, by_mail, sorted(scopes), sorted(services), only_at, means, signed_in_at)
    return (Power.TOKEN, row_id, person_id, secret_hash, *bounds, created_at, expires_at)


def of_session(row: BrowserSession) -> Sequence[Part]:
    """Return what the mark of this browser session covers."""
    return browser_session(
        row.id,
        row.person_id,
        row.secret_hash,
        means=row.means,
        signed_in_at=row.signed_in_at,
        expires_at=row.expires_at,
        only_at=row.only_at,
    )


def of_token(row: Token) -> Sequence[Part]:
    """Return what the mark of this token covers."""
    return token(
        row.id,
        row.person_id,
        row.secret_hash,
        is_sample=row.is_sample,
        by_mail=row.by_mail,
        scopes=row.scopes,
        services=row.services,
        only_at=row.only_at,
        means=row.means,
        signed_in_at=row.signed_in_at,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )


def decision(
    row_id: UUID,
    request_id: UUID,
    person_id: UUID,
    verdict: str,
    *,
    means: str,
    stands_for: Sequence[UUID],
    access_window: int | None,
    resources: Sequence[str] | None,
    actions: Sequence[str] | None,
    assertion: str | None,
) -> Sequence[Part]:
    """Return what the mark of a decision covers: all by which it counts."""
    kept = (access_window, resources, actions)
    return (Power.DECISION, row_id, request_id, person_id, verdict, means, sorted(stands_for), *kept, assertion)


def invitation(row: Invitation) -> Sequence[Part]:
    """Return what the mark of an invitation covers: who offers what to which address, and from when until when."""
    return (
        Power.INVITATION,
        row.id,
        row.tenant_id,
        row.email,
        row.roles,
        row.is_recovery,
        row.invited_by,
        row.created_at,
        row.takes_effect_at,
        row.expires_at,
        row.code_nonce,
    )


def holds(session: Session, mac: bytes | None, parts: Sequence[Part], which: UUID | None) -> bool:
    """Whether a key of ours has marked a row as it stands; where none has, it counts for nothing, and is logged.

    `which` is the row, or the person whose it is where it has no id; one that an older key marked is marked anew.
    """
    if not is_held(session, mac, parts, which):
        return False
    powers = keyring.of(session).powers
    if mac is not None and not powers.is_newest(mac):
        remark(session, Power(str(parts[0])), which, old=mac, new=powers.mark(*parts))
    return True


def is_held(session: Session, mac: bytes | None, parts: Sequence[Part], which: UUID | None) -> bool:
    """Whether a key of ours has marked a row as it stands; it stays as it is."""
    if keyring.of(session).powers.is_mark(mac, *parts):
        return True
    log.critical("power.unverified", kind=str(parts[0]), row=str(which), do="see Keys in docs/operating.md")
    return False


def remark(
    session: Session, kind: Power, which: UUID | None, *, old: bytes, new: bytes, new_hash: bytes | None = None
) -> None:
    """Give a row the newest key's mark, and its secret the newest key's hash, unless somebody else was quicker."""
    values = {"kind": kind.value, "which": which, "old": old, "new": new, "new_hash": new_hash}
    session.connection().execute(REMARK, values)
