"""Reading the trail of one request: its events in order, with the personal details that still stand."""

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

EVENTS = text("""
SELECT e.seq, e.at, e.action, e.actor_id, e.actor_role, e.from_state, e.to_state, e.deadline_at,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'name') AS actor_name,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'comment') AS comment,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'address') AS address,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'user_agent') AS user_agent,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'kept_resources') AS kept_resources,
    (SELECT jsonb_object_agg(d.field, d.value) FROM event_details d
        WHERE d.event_id = e.id AND starts_with(d.field, 'principal_')) AS principals,
    CASE WHEN e.action = 'notice_dead' THEN convert_from(e.body, 'UTF8')::jsonb ->> 'template' END AS template, e.body
FROM events e WHERE e.request_id = :request_id AND e.action NOT IN ('activity', 'notices_sent')
ORDER BY e.at, e.seq NULLS LAST, e.id
""")


def events(session: Session, request_id: UUID) -> Sequence[Row[Any]]:
    """Return the events of a request in order: its moves, which have a seq, and what happened beside them.

    What was done inside its window is not among them, nor which notices went out: those have lists of their own.
    """
    return session.connection().execute(EVENTS, {"request_id": request_id}).all()


def moves(events: Iterable[Row[Any]]) -> list[Row[Any]]:
    """Return those of a request's events that are its moves, in order and without a gap."""
    return sorted((event for event in events if event.seq is not None), key=lambda event: event.seq)
