"""Answers to calls with an Idempotency-Key, kept for 24 hours so that the calls can be repeated safely."""

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from lockbox.database import Query, UnitOfWork
from lockbox.errors import KeyInUse, KeyReused
from lockbox.requests.models import IdempotencyKey
from lockbox.sql import excluded, insert

KEPT = timedelta(hours=24)
LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(at_person()::text || ':' || :key, 0))")
FIND = text("""
SELECT body_hash, answer FROM idempotency_keys
WHERE person_id = at_person() AND key = :key AND created_at > clock_timestamp() - CAST(:kept AS interval)
""")
KEEP = text(f"""
{insert(IdempotencyKey, created_at="clock_timestamp()")}
ON CONFLICT (person_id, key) DO UPDATE SET {excluded(IdempotencyKey, but={"person_id", "key"})}
""")


def earlier_answer(session: UnitOfWork, key: str, body: bytes) -> Mapping[str, Any] | None:
    """Return the earlier answer to the caller's key, or lock the key and return None.

    Raises KeyInUse, KeyReused.
    """
    lock, find = ahead_of_answer(key)
    if not session.execute(*lock).scalar_one():
        raise KeyInUse("A request with this Idempotency-Key is still being processed. Try again in a moment.")
    row = session.execute(*find).one_or_none()
    if row is None:
        return None
    if row.body_hash != _hash(body):
        raise KeyReused("This Idempotency-Key was used with another body. Use a new key.", field="Idempotency-Key")
    answer: Mapping[str, Any] = row.answer
    return answer


def ahead_of_answer(key: str) -> tuple[Query, Query]:
    return (LOCK, {"key": key}), (FIND, {"key": key, "kept": KEPT})


def keep(session: UnitOfWork, person_id: UUID, key: str, body: bytes, answer: str) -> None:
    """Store the answer, a JSON text, in the submission's transaction: only successes are stored."""
    session.write(KEEP, {"person_id": person_id, "key": key, "body_hash": _hash(body), "answer": answer})


def _hash(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()
