"""What was asked about a request and answered, as a reader may know of it, and what they may add to it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox.database import now
from lockbox.identity.roles import Caller, Role, Side
from lockbox.notifications import recipients
from lockbox.requests import queries, visibility
from lockbox.requests.lifecycle import OPEN_STATES, Party, State
from lockbox.requests.models import AccessRequest
from lockbox.requests.queries import Entry
from lockbox.requests.visibility import Guarded

MOST = 20
"""How many questions may be asked about one request."""

ASKERS: Mapping[State, tuple[Party, ...]] = {
    State.REVIEWING: (Party.MANAGER,),
    State.PENDING: (Party.APPROVER,),
    State.ACTIVE: (Party.APPROVER, Party.MANAGER),
}
"""Who may ask while a request is in this state."""

UNANSWERED = text("""
SELECT request_id, count(*) AS number FROM questions WHERE request_id = ANY(:ids) AND answered_at IS NULL GROUP BY 1
""")
READ = text("""
SELECT q.id, q.state, q.stops_clock, q.asked_by, q.asked_at, q.answered_by, q.answered_at, e.actor_role AS role,
    (SELECT d.value FROM event_details d WHERE d.event_id = q.asked_event AND d.field = 'name') AS asker,
    (SELECT d.value FROM event_details d WHERE d.event_id = q.asked_event AND d.field = 'comment') AS question,
    (SELECT d.value FROM event_details d WHERE d.event_id = q.answer_event AND d.field = 'name') AS answerer,
    (SELECT d.value FROM event_details d WHERE d.event_id = q.answer_event AND d.field = 'comment') AS answer
FROM questions q LEFT JOIN events e ON e.id = q.asked_event WHERE q.request_id = :request_id ORDER BY q.id
""")


@dataclass(frozen=True)
class Exchange:
    """A question and perhaps its answer; names and words are None where they were erased or not for the reader.

    `stops_clock` is whether the clock has waited for the answer, `role` in which one it was asked.
    """

    id: UUID
    state: State
    stops_clock: bool
    asked_by: UUID
    asker: str | None
    role: str | None
    asked_at: datetime
    question: str | None
    answered_by: UUID | None
    answerer: str | None
    answered_at: datetime | None
    answer: str | None


@dataclass(frozen=True)
class Talk:
    """What was asked about a request and answered, and whether the reader may ask more, or answer."""

    items: Sequence[Exchange]
    may_ask: bool = False
    may_answer: bool = False


def of_request(session: Session, caller: Caller, request_id: UUID) -> list[Exchange]:
    """Return what was asked about a request and answered, the oldest first; the words are for who reads comments.

    Raises:
        Unknown: there is no such request that the caller may know of.
    """
    return read(session, caller, queries.find(session, caller, request_id).request)


def unanswered(session: Session, request_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return for each of these requests how many questions about it wait for an answer, if any do."""
    rows = session.connection().execute(UNANSWERED, {"ids": list(request_ids)}) if request_ids else ()
    return {row.request_id: row.number for row in rows}


def talk(session: Session, caller: Caller, entry: Entry) -> Talk:
    """Return the same of a request that the caller looks at, and what they may add to it."""
    items, request, at = read(session, caller, entry.request), entry.request, now(session)
    is_own = request.requester_id == caller.person_id
    if request.state not in OPEN_STATES or at >= request.deadline_at:
        return Talk(items)
    asks = not is_own and len(items) < MOST and bool(_capacities(session, caller, request, at))
    return Talk(items, asks, is_own and any(one.answered_at is None for one in items))


def read(session: Session, caller: Caller, request: AccessRequest) -> list[Exchange]:
    """Return the exchanges about a request that the caller knows of, the oldest first."""
    held = visibility.capacities(caller, request.requester_id, request.tenant_id)
    reads = visibility.may_read(Guarded.COMMENT, held)
    rows = session.connection().execute(READ, {"request_id": request.id})
    return [_exchange(row, reads=reads) for row in rows if _is_for(row, caller)]


def _is_for(row: Row[Any], caller: Caller) -> bool:
    """Whether a side knows of a question: what a manager has asked during the review stays inside the vendor."""
    return row.state != State.REVIEWING or caller.side is Side.VENDOR


def _exchange(row: Row[Any], *, reads: bool) -> Exchange:
    facts = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    facts["state"] = State(row.state)
    return Exchange(**facts if reads else facts | {"question": None, "answer": None})


def _capacities(session: Session, caller: Caller, request: AccessRequest, at: datetime) -> list[Party]:
    if caller.side is Side.VENDOR:
        return among(caller, request, is_deputy=False)
    known = recipients.look_up(session, {request.tenant_id}, at)
    return among(caller, request, is_deputy=caller.person_id in known.deputies[request.tenant_id])


def among(caller: Caller, request: AccessRequest, *, is_deputy: bool) -> list[Party]:
    """Return in which capacities somebody may ask about a request as it is now."""
    held = {
        Party.MANAGER: caller.holds(Role.MANAGER),
        Party.APPROVER: is_deputy or caller.holds(Role.APPROVER, tenant_id=request.tenant_id),
    }
    return [party for party in ASKERS.get(State(request.state), ()) if held[party]]
