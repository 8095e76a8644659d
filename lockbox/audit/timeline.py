"""Reading the trail of one request: its moves in order, with the personal details that still stand."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

MOVES = text("""
SELECT e.seq, e.at, e.action, e.actor_id, e.actor_role, e.from_state, e.to_state, e.deadline_at,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'name') AS actor_name,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'comment') AS comment,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'address') AS address,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'user_agent') AS user_agent,
    (SELECT jsonb_object_agg(d.field, d.value) FROM event_details d
        WHERE d.event_id = e.id AND starts_with(d.field, 'principal_')) AS principals,
    e.body
FROM events e WHERE e.request_id = :request_id AND e.seq IS NOT NULL ORDER BY e.seq
""")


def moves(session: Session, request_id: UUID) -> Sequence[Row[Any]]:
    """Return the moves of a request in order."""
    return session.connection().execute(MOVES, {"request_id": request_id}).all()
