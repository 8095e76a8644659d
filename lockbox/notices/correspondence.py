"""Reading what memos say, and making the secrets that invitations and sign-in codes carry, when they are sent."""

import base64
import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox.audit.events import CLOCK
from lockbox.database import Database
from lockbox.notices.memos import DEPUTY_BEGINS, INVITATION, LABELS, SIGN_IN_CODE, Memo, facts_of
from lockbox.notices.vault import Vault
from lockbox.people.zones import clock_time

MOST_WAITING = 50
OURSELVES = "Lockbox"
INVITED_FOR = timedelta(hours=72)
INVITATION_BYTES = 20
GROUP = 4
CODE_DIGITS = 8

READ = text("""
SELECT n.id, n.request_id, n.channel, n.template, n.until_at, n.attempts, n.about_id, n.event_id, e.at, e.body,
    t.id AS tenant_id, t.name AS tenant, h.url, h.secret, h.disabled_at AS endpoint_disabled,
    coalesce(p.name, i.name, w.name, g.name, '') AS recipient_name,
    coalesce(p.email, i.email, w.email, g.email) AS recipient_address,
    coalesce(p.time_zone, w.time_zone, g.time_zone, 'UTC') AS time_zone,
    coalesce(p.disabled_at, g.disabled_at) AS recipient_disabled,
    coalesce(s.expires_at, i.takes_effect_at, r.takes_effect_at) AS bound_at,
    CASE WHEN i.id IS NOT NULL THEN i.accepted_at IS NOT NULL OR i.withdrawn_at IS NOT NULL
        WHEN s.id IS NOT NULL THEN s.used_at IS NOT NULL OR s.expires_at <= clock_timestamp()
            OR w.id IS NULL OR w.disabled_at IS NOT NULL
        WHEN g.id IS NOT NULL THEN g.ended_at IS NOT NULL OR g.ends_at <= clock_timestamp()
        ELSE n.about_id IS NOT NULL END AS is_settled,
    (SELECT jsonb_object_agg(d.field, d.value) FROM event_details d WHERE d.event_id = e.id) AS details
FROM notices n
LEFT JOIN events e ON e.id = n.event_id LEFT JOIN tenants t ON t.id = n.tenant_id
LEFT JOIN people p ON p.id = n.person_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
LEFT JOIN invitations i ON i.id = n.about_id AND n.template = 'invitation'
LEFT JOIN sign_ins s ON s.id = n.about_id AND n.template = 'sign_in_code'
LEFT JOIN (SELECT d.id, d.ended_at, d.ends_at, q.name, q.email, q.disabled_at,
        q.time_zone
    FROM delegations d JOIN people q ON q.id = d.deputy_id) g ON g.id = n.about_id AND n.template = 'deputy_begins'
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
CODED = text("UPDATE sign_ins SET code_hash = :hash WHERE id = :id AND used_at IS NULL")


def read(session: Session, ids: Sequence[UUID]) -> Sequence[Row[Any]]:
    """Return the notices that are about no request, each with what it may say."""
    return session.connection().execute(READ, {"ids": list(ids)}).all()


def prepared(database: Database, row: Row[Any], at: datetime, vault: Vault) -> Memo:
    """Return the memo; where it carries a secret, a fresh one whose hash is committed before it leaves.

    A second try makes another secret: what was mailed before, if it arrived after all, is worthless then.
    """
    role, changes = facts_of(row.body)
    if row.template == DEPUTY_BEGINS:
        changes = _waiting(database, row)
    details = row.details or {}
    secret, until = _secret(database, row, at, vault)
    return Memo(
        notice_id=row.id,
        template=row.template,
        at=row.at or at,
        until=until or row.bound_at,
        tenant=row.tenant,
        tenant_id=row.tenant_id,
        event_id=row.event_id,
        about_id=row.about_id,
        actor=details.get("name") or (OURSELVES if role == CLOCK else None),
        role=role,
        changes=changes,
        named={label: details[label] for label in LABELS if label in details},
        recipient_name=row.recipient_name,
        recipient_address=row.recipient_address or "",
        time_zone=row.time_zone,
        secret=secret,
    )


def invitation_code() -> str:
    """Return 160 random bits as eight groups of four letters and digits."""
    letters = base64.b32encode(secrets.token_bytes(INVITATION_BYTES)).decode()
    return "-".join(letters[start : start + GROUP] for start in range(0, len(letters), GROUP))


def invitation_hash(code: str) -> bytes:
    """Return the SHA-256 of an invitation's code, however it was spaced and cased by whoever typed it."""
    return hashlib.sha256(code.replace("-", "").replace(" ", "").upper().encode()).digest()


def _secret(database: Database, row: Row[Any], at: datetime, vault: Vault) -> tuple[str | None, datetime | None]:
    if row.template == INVITATION:
        code, until = invitation_code(), at + INVITED_FOR
        with database.transaction() as session:
            values = {"id": row.about_id, "hash": invitation_hash(code), "until": until}
            session.connection().execute(INVITED, values)
        return code, until
    if row.template == SIGN_IN_CODE:
        code = f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}}"
        with database.transaction() as session:
            session.connection().execute(CODED, {"id": row.about_id, "hash": vault.mark(row.about_id, code)})
        return f"{code[:GROUP]} {code[GROUP:]}", row.bound_at
    return None, None


def _waiting(database: Database, row: Row[Any]) -> dict[str, str]:
    """Return what waits for an answer at the moment, the most urgent first: it moves across to a deputy."""
    with database.transaction() as session:
        rows = session.connection().execute(WAITING, {"tenant_id": row.tenant_id, "most": MOST_WAITING}).all()
    return {
        str(one.id): f"{one.name} asks for {one.service}; answer by {clock_time(one.deadline_at, row.time_zone)}"
        for one in rows
    }
