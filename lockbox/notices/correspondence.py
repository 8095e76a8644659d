"""Reading what memos say, and making the secrets that invitations and sign-in codes carry, when they are sent."""

import base64
import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox.audit.events import CLOCK
from lockbox.database import Database
from lockbox.notices import noted
from lockbox.notices.letters import Wording
from lockbox.notices.memos import (
    ADDRESS_CODE,
    DEPUTY_BEGINS,
    INVITATION,
    LABELS,
    SIGN_IN_CODE,
    Memo,
    Waiting,
    facts_of,
)
from lockbox.notices.noted import Keys
from lockbox.notices.vault import Vault

Wordings = Callable[[Session, Sequence[UUID]], Mapping[UUID, Wording]]

MOST_WAITING = 50
OURSELVES = "Lockbox"
INVITED_FOR = timedelta(hours=72)
LONG_BYTES = 20
GROUP = 4
CODE_DIGITS = 8

READ = text("""
SELECT n.id, n.request_id, n.channel, n.template, n.until_at, n.attempts, n.about_id, n.event_id, e.at, e.body,
    t.id AS tenant_id, t.name AS tenant, t.slug, h.url, h.secret, h.disabled_at AS endpoint_disabled,
    coalesce(p.name, i.name, w.name, g.name, f.name, '') AS recipient_name,
    coalesce(x.email, p.email, i.email, w.email, g.email, f.email) AS recipient_address,
    coalesce(p.time_zone, w.time_zone, g.time_zone, f.time_zone, 'UTC') AS time_zone,
    coalesce(p.disabled_at, g.disabled_at, f.disabled_at,
        CASE WHEN n.template <> 'address_removed' THEN x.removed_at END) AS recipient_disabled,
    coalesce(s.expires_at, i.takes_effect_at, r.takes_effect_at, g.ends_at, f.expires_at) AS bound_at, g.principal,
    CASE WHEN i.id IS NOT NULL THEN i.accepted_at IS NOT NULL OR i.withdrawn_at IS NOT NULL
        WHEN s.id IS NOT NULL THEN s.used_at IS NOT NULL OR s.expires_at <= clock_timestamp()
            OR w.id IS NULL OR w.disabled_at IS NOT NULL
        WHEN f.id IS NOT NULL THEN f.is_settled OR f.expires_at <= clock_timestamp()
        WHEN g.id IS NOT NULL THEN g.ended_at IS NOT NULL OR g.ends_at <= clock_timestamp()
        ELSE n.about_id IS NOT NULL END AS is_settled,
    (SELECT jsonb_object_agg(d.field, d.value) FROM event_details d WHERE d.event_id = e.id) AS details,
    c.note
FROM notices n
LEFT JOIN events e ON e.id = n.event_id LEFT JOIN tenants t ON t.id = n.tenant_id
LEFT JOIN people p ON p.id = n.person_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
LEFT JOIN invitations i ON i.id = n.about_id AND n.template = 'invitation'
LEFT JOIN sign_ins s ON s.id = n.about_id AND n.template = 'sign_in_code'
LEFT JOIN (SELECT d.id, d.ended_at, d.ends_at, q.name, q.email, q.disabled_at,
        q.time_zone, a.name AS principal
    FROM delegations d JOIN people q ON q.id = d.deputy_id JOIN people a ON a.id = d.principal_id) g
    ON g.id = n.about_id AND n.template = 'deputy_begins'
LEFT JOIN (SELECT b.id, b.email, b.expires_at, b.confirmed_at IS NOT NULL OR b.removed_at IS NOT NULL AS is_settled,
        o.name, o.time_zone, o.disabled_at
    FROM addresses b JOIN people o ON o.id = b.person_id) f ON f.id = n.about_id AND n.template = 'address_code'
LEFT JOIN addresses x ON x.id = n.address_id
LEFT JOIN checkpoints c ON c.id = n.checkpoint_id
LEFT JOIN people w ON lower(w.email) = lower(s.email)
LEFT JOIN LATERAL (SELECT max(v.takes_effect_at) AS takes_effect_at FROM invitations v
    WHERE v.tenant_id = n.tenant_id AND v.is_recovery AND v.created_at = e.at) r ON n.template = 'recovery_proposed'
WHERE n.id = ANY(:ids) AND n.request_id IS NULL ORDER BY n.id
""")
WAITING = text("""
SELECT r.id, q.name, r.service, r.deadline_at FROM requests r JOIN people q ON q.id = r.requester_id
WHERE r.tenant_id = :tenant_id AND r.state = 'pending' ORDER BY r.deadline_at LIMIT :most
""")
INVITED = text("""
UPDATE invitations SET secret_hash = :hash, expires_at = :until
WHERE id = :id AND accepted_at IS NULL AND withdrawn_at IS NULL
""")
CONFIRMING = text("""
UPDATE addresses SET code_hash = :hash WHERE id = :id AND confirmed_at IS NULL AND removed_at IS NULL
""")
CODED = text("UPDATE sign_ins SET code_hash = :hash WHERE id = :id AND used_at IS NULL")


def read(session: Session, ids: Sequence[UUID]) -> Sequence[Row[Any]]:
    """Return the notices that are about no request, each with what it may say."""
    return session.connection().execute(READ, {"ids": list(ids)}).all()


def prepared(
    database: Database, row: Row[Any], at: datetime, vault: Vault, wordings: Wordings, *, audit_keys: Keys
) -> Memo:
    """Return the memo; where it carries a secret, a fresh one whose hash is committed before it leaves.

    A second try makes another secret: what was mailed before, if it arrived after all, is worthless then. `wordings`
    says which requests a mail may link to, `audit_keys` whose checkpoints are told.

    Raises:
        SendFailed: it is about a checkpoint that none of these keys has signed.
    """
    role, changes = facts_of(row.body)
    of_checkpoint, noted_at = noted.told(row, audit_keys)
    details = row.details or ({"principal": row.principal} if row.principal else {})
    secret, until = _secret(database, row, at, vault)
    return Memo(
        notice_id=row.id,
        template=row.template,
        at=row.at or noted_at or at,
        until=until or row.bound_at,
        tenant=row.tenant,
        slug=row.slug,
        tenant_id=row.tenant_id,
        event_id=row.event_id,
        about_id=row.about_id,
        actor=details.get("name") or (OURSELVES if role == CLOCK else None),
        role=role,
        changes=changes | of_checkpoint,
        named={label: details[label] for label in LABELS if label in details},
        recipient_name=row.recipient_name,
        recipient_address=row.recipient_address or "",
        time_zone=row.time_zone,
        secret=secret,
        fingerprint=noted.fingerprint(row, audit_keys),
        waiting=_waiting(database, row, wordings) if row.template == DEPUTY_BEGINS else (),
    )


def long_code() -> str:
    """Return 160 random bits as eight groups of four letters and digits."""
    letters = base64.b32encode(secrets.token_bytes(LONG_BYTES)).decode()
    return "-".join(letters[start : start + GROUP] for start in range(0, len(letters), GROUP))


def hash_of(code: str) -> bytes:
    """Return the SHA-256 of the code of an invitation or an address, however whoever typed it spaced and cased it."""
    return hashlib.sha256(code.replace("-", "").replace(" ", "").upper().encode()).digest()


def _secret(database: Database, row: Row[Any], at: datetime, vault: Vault) -> tuple[str | None, datetime | None]:
    if row.template == INVITATION:
        code, until = long_code(), at + INVITED_FOR
        with database.transaction() as session:
            values = {"id": row.about_id, "hash": hash_of(code), "until": until}
            session.connection().execute(INVITED, values)
        return code, until
    if row.template == ADDRESS_CODE:
        code = long_code()
        with database.transaction() as session:
            session.connection().execute(CONFIRMING, {"id": row.about_id, "hash": hash_of(code)})
        return code, row.bound_at
    if row.template == SIGN_IN_CODE:
        code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
        with database.transaction() as session:
            session.connection().execute(CODED, {"id": row.about_id, "hash": vault.mark(row.about_id, code)})
        return f"{code[:GROUP]} {code[GROUP:]}", row.bound_at
    return None, None


def _waiting(database: Database, row: Row[Any], wordings: Wordings) -> list[Waiting]:
    """Return what waits for an answer at the moment, the most urgent first: it moves across to a deputy."""
    with database.transaction() as session:
        rows = session.connection().execute(WAITING, {"tenant_id": row.tenant_id, "most": MOST_WAITING}).all()
        worded = wordings(session, [one.id for one in rows])
    return [Waiting(one.id, one.name, one.service, one.deadline_at, worded[one.id].link) for one in rows]
