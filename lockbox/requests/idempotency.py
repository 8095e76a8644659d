"""Idempotency keys: the same submit sent twice is filed once and answered alike, for 24 hours."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.errors import KeyInUse, KeyReused

KEPT = timedelta(hours=24)

LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
FIND = text("""
SELECT body_hash, answer FROM idempotency_keys
WHERE person_id = :person_id AND key = :key AND created_at > clock_timestamp() - CAST(:kept AS interval)
""")
KEEP = text("""
INSERT INTO idempotency_keys (person_id, key, body_hash, answer, created_at)
VALUES (:person_id, :key, :body_hash, CAST(:answer AS jsonb), clock_timestamp())
ON CONFLICT (person_id, key) DO UPDATE
SET body_hash = excluded.body_hash, answer = excluded.answer, created_at = excluded.created_at
""")


def earlier_answer(session: Session, person_id: UUID, key: str, body: bytes) -> Mapping[str, Any] | None:
    """Return the answer that this key got before, or None and hold the key until the transaction ends.

    Raises:
        KeyInUse: a twin is being handled at this moment.
        KeyReused: the key came with another body.
    """
    connection = session.connection()
    if not connection.execute(LOCK, {"name": f"{person_id}:{key}"}).scalar_one():
        raise KeyInUse("A request with this Idempotency-Key is being handled; ask again in a moment.")
    row = connection.execute(FIND, {"person_id": person_id, "key": key, "kept": KEPT}).one_or_none()
    if row is None:
        return None
    if row.body_hash != _hash(body):
        raise KeyReused("This Idempotency-Key came before with another body; use a new key.", field="Idempotency-Key")
    answer: Mapping[str, Any] = row.answer
    return answer


def keep(session: Session, person_id: UUID, key: str, body: bytes, answer: str) -> None:
    """Remember the answer, a JSON text, in the transaction that made it true: only successes are ever kept."""
    session.connection().execute(
        KEEP, {"person_id": person_id, "key": key, "body_hash": _hash(body), "answer": answer}
    )


def _hash(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
