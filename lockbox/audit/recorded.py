"""Events as they are read from the trail: by what somebody looks for, and only what they may read of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, and_, literal_column, select, text
from sqlmodel import Session, col

from lockbox.audit.models import Event, Seal

WORDS = ("comment", "justification")
DETAILS: ColumnElement[Any] = literal_column(
    "(SELECT jsonb_object_agg(d.field, jsonb_build_array(encode(d.salt, 'base64'), d.value)) "
    "FROM event_details d WHERE d.event_id = events.id)"
)
ITEM: ColumnElement[Any] = literal_column(
    "(SELECT r.service || ' ' || array_to_string(r.resources, ', ') FROM requests r WHERE r.id = events.request_id)"
)
TOLD = "events.request_id IS NULL OR EXISTS (SELECT FROM requests r WHERE r.id = events.request_id{})"
OF_SERVICE = "EXISTS (SELECT FROM requests r WHERE r.id = events.request_id AND r.service = :service)"
SAYS = """EXISTS (SELECT FROM event_details d WHERE d.event_id = events.id AND d.field = ANY (:words)
    AND d.value ILIKE :pattern)"""


@dataclass(frozen=True)
class Wanted:
    """What somebody looks for; None is anything. `words` is looked for in comments and justifications.

    `moves` leaves out what is no move of a request.
    """

    person: UUID | None = None
    action: str | None = None
    request: UUID | None = None
    service: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    words: str | None = None
    moves: bool = False

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return self == Wanted()


@dataclass(frozen=True)
class Recorded:
    """An event; `number` is its place in its log, None until it is sealed; `details` are salt and value by field.

    `item` is what its request is about: the service and the resources.
    """

    id: UUID
    number: int | None
    tenant_id: UUID | None
    request_id: UUID | None
    at: datetime
    action: str
    actor_id: UUID | None
    actor_role: str
    from_state: str | None
    to_state: str | None
    body: bytes
    details: Mapping[str, tuple[str, str]]
    item: str | None = None

    @property
    def said(self) -> dict[str, Any]:
        """What the body says."""
        said: dict[str, Any] = json.loads(self.body)
        return said

    def value(self, name: str) -> str | None:
        """Return a personal value, None where it was erased, never given, or is not for this reader."""
        return self.details[name][1] if name in self.details else None


@dataclass(frozen=True)
class Sight:
    """What one reader may read of a log's events.

    `hidden` are fields that are left out, of all events or of those by actors of some roles or about no request;
    `sees_untold` is whether they may know of requests that nobody at the customer was ever asked about.
    """

    sees_untold: bool
    hidden: frozenset[str] = frozenset()
    hidden_by_role: Mapping[str, frozenset[str]] = field(default_factory=dict)
    hidden_for_others: frozenset[str] = frozenset()
    shown_without_request: frozenset[str] | None = None

    def reads(self, event: Recorded, name: str) -> bool:
        """Whether the reader may read a personal field of an event."""
        if name in self.hidden or name in self.hidden_by_role.get(event.actor_role, self.hidden_for_others):
            return False
        return (
            event.request_id is not None or self.shown_without_request is None or name in self.shown_without_request
        )


def page(
    session: Session, tenant_id: UUID | None, sight: Sight, wanted: Wanted, *, before: UUID | None, most: int
) -> list[Recorded]:
    """Return the newest events of a log that match, sealed or not yet, at most `most` of them, from the id on."""
    query = _matching(tenant_id, sight, wanted).outerjoin(Seal, col(Seal.event_id) == col(Event.id))
    if before:
        query = query.where(col(Event.id) < before)
    return _read(session, query.order_by(col(Event.id).desc()).limit(most), sight)


def span(
    session: Session, log_id: UUID, tenant_id: UUID | None, sight: Sight, wanted: Wanted, *, start: int, end: int
) -> list[Recorded]:
    """Return the events of a log that match, from one number to before another, in order."""
    query = _matching(tenant_id, sight, wanted).join(
        Seal, and_(col(Seal.event_id) == col(Event.id), col(Seal.log_id) == log_id)
    )
    query = query.where(col(Seal.number) >= start, col(Seal.number) < end).order_by(col(Seal.number))
    return _read(session, query, sight)


def _matching(tenant_id: UUID | None, sight: Sight, wanted: Wanted) -> Select[Any]:
    table = Event.__table__  # type: ignore[attr-defined]
    columns = [column for column in table.columns if column.name not in {"seq", "deadline_at"}]
    further: tuple[ColumnElement[Any], ...] = (
        col(Seal.number).label("number"),
        DETAILS.label("details"),
        ITEM.label("item"),
    )
    query: Select[Any] = select(*columns, *further)
    return query.select_from(Event).where(*_conditions(tenant_id, sight, wanted))


def _conditions(tenant_id: UUID | None, sight: Sight, wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    yield col(Event.tenant_id).is_(None) if tenant_id is None else col(Event.tenant_id) == tenant_id
    yield text(f"({TOLD.format('' if sight.sees_untold else ' AND r.asked_at IS NOT NULL')})")  # type: ignore[misc]
    if wanted.person:
        yield col(Event.actor_id) == wanted.person
    if wanted.action:
        yield col(Event.action) == wanted.action
    if wanted.request:
        yield col(Event.request_id) == wanted.request
    if wanted.moves:
        yield col(Event.seq).is_not(None)
    if wanted.after:
        yield col(Event.at) >= wanted.after
    if wanted.before:
        yield col(Event.at) < wanted.before
    if wanted.service:
        yield text(OF_SERVICE).bindparams(service=wanted.service)  # type: ignore[misc]
    if wanted.words:
        words = [name for name in WORDS if name not in sight.hidden]
        yield text(SAYS).bindparams(words=words, pattern=_pattern(wanted.words))  # type: ignore[misc]


def _pattern(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _read(session: Session, query: Select[Any], sight: Sight) -> list[Recorded]:
    return [_seen(Recorded(**_plain(row._asdict())), sight) for row in session.connection().execute(query)]


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    details: Mapping[str, Sequence[str]] = row["details"] or {}
    return row | {"body": bytes(row["body"]), "details": {name: (one[0], one[1]) for name, one in details.items()}}


def _seen(event: Recorded, sight: Sight) -> Recorded:
    shown = {name: detail for name, detail in event.details.items() if sight.reads(event, name)}
    return Recorded(**(vars(event) | {"details": shown}))
