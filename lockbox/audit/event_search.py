"""Search of the audit log; readers get only the events and fields that they may see."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Self
from uuid import UUID

from sqlalchemy import ColumnElement, Row, Select, and_, any_, func, literal, literal_column, select, text
from sqlmodel import col

from lockbox.audit.events import AuditEvent, body_of
from lockbox.audit.models import Event, Seal
from lockbox.audit.verifier import event_checks
from lockbox.database import Query, UnitOfWork
from lockbox.sql import SKEW, Ids, id_at, look_through, only

EVENTS = text("""
SELECT e.seq, e.at, e.action, e.actor_id, e.actor_role, e.from_state, e.to_state, e.deadline_at,
    d.fields #>> '{name,1}' AS actor_name, d.fields #>> '{comment,1}' AS comment,
    d.fields #>> '{address,1}' AS address, d.fields #>> '{user_agent,1}' AS user_agent,
    d.fields #>> '{kept_resources,1}' AS kept_resources,
    (SELECT jsonb_object_agg(f.key, f.value ->> 1) FROM jsonb_each(d.fields) f
        WHERE starts_with(f.key, 'principal_')) AS principals,
    CASE WHEN e.action = 'notified' THEN (SELECT jsonb_object_agg(f.key, f.value ->> 1) FROM jsonb_each(d.fields) f
        WHERE starts_with(f.key, 'recipient_')) END AS recipients,
    e.internal, e.id, e.body
FROM events e LEFT JOIN event_details d ON d.event_id = e.id
WHERE e.request_id = :request_id AND e.action <> 'activity'
ORDER BY e.at, e.seq NULLS LAST, e.id
""")
LOOKED_THROUGH = 1000
"""How many of a log's newest events a search reads for one page."""
WORDS = ("comment", "justification")
RECIPIENT = "recipient"
"""The name of the fields with the recipients of a move's mails; a number follows it."""
UNREAD = frozenset({"deadline_at", "internal", "log_id"})
DETAILS: ColumnElement[Any] = literal_column("(SELECT d.fields FROM event_details d WHERE d.event_id = events.id)")
# Whether the log's leaf at the event's number is the hash of the event's body; null until the event is sealed.
IN_PLACE: ColumnElement[Any] = literal_column(
    "(SELECT substr(t.hashes, CAST(seals.number % 256 * 32 + 1 AS integer), 32) "
    "= sha256('\\x00'::bytea || events.body) FROM tiles t "
    "WHERE t.log_id = seals.log_id AND t.level = 0 AND t.number = seals.number / 256)"
)
OF_SERVICE = text("EXISTS (SELECT FROM requests r WHERE r.id = events.request_id AND r.service = :service)")
SAYS = text("""EXISTS (SELECT FROM event_details d, jsonb_each(d.fields) f
    WHERE d.event_id = events.id AND f.key = ANY (:words) AND f.value ->> 1 ILIKE :pattern)""")


def ahead_of_events(request_id: UUID) -> Query:
    return EVENTS, {"request_id": request_id}


def events(session: UnitOfWork, request_id: UUID) -> Sequence[Row[Any]]:
    """In order, without events of the action `activity`. Only moves have a `seq`."""
    return session.execute(*ahead_of_events(request_id)).all()


def moves(events: Iterable["EventRow"]) -> list["EventRow"]:
    return sorted((event for event in events if event.seq is not None), key=lambda event: event.seq)


@dataclass(frozen=True)
class WrittenEvent:
    """An event that was just written, for its actor's page. It has the fields of a row of `events`."""

    seq: Any  # as in a row
    at: datetime
    action: str
    actor_id: UUID | None
    actor_role: str
    from_state: str | None
    to_state: str | None
    deadline_at: datetime | None
    actor_name: str | None
    comment: str | None
    address: str | None
    user_agent: str | None
    kept_resources: str | None
    principals: Mapping[str, str]
    recipients: None
    internal: bool
    id: UUID
    body: bytes

    @classmethod
    def of(cls, event: AuditEvent) -> Self:
        said = event.personal
        return cls(
            **{name: getattr(event, name) for name in ("seq", "at", "from_state", "to_state", "deadline_at", "id")},
            action=str(event.action),
            actor_id=event.actor.person_id,
            actor_role=str(event.actor.role),
            actor_name=event.actor.name,
            comment=said.get("comment"),
            address=event.actor.address,
            user_agent=event.actor.user_agent,
            kept_resources=said.get("kept_resources"),
            principals={name: value for name, value in said.items() if name.startswith("principal_") and value},
            recipients=None,
            internal=event.internal,
            body=body_of(event),
        )

    @property
    def _mapping(self) -> Mapping[str, Any]:
        return vars(self)


EventRow = Row[Any] | WrittenEvent


@dataclass(frozen=True)
class EventFilter:
    """A member that is None matches everything.

    `words` are looked for in comments and justifications. `moves` leaves out events that are not moves.
    """

    person: UUID | None = None
    action: str | None = None
    request: UUID | None = None
    service: str | None = None
    after: datetime | None = None
    before: datetime | None = None
    words: str | None = None
    moves: bool = False

    def recorded(self) -> dict[str, str]:
        """The filter, as the events of reads and exports record it."""
        return {"text" if name == "words" else name: str(value) for name, value in vars(self).items() if value}

    @property
    def is_all(self) -> bool:
        return self == EventFilter()


@dataclass(frozen=True)
class RecordedEvent:
    """An event as one reader may see it.

    `number` is the event's position in its log, None until sealed. `details` holds the salt and value of each
    personal field. `altered` names columns and values that contradict the body, and "body" if the sealed body
    is another. `altered` is empty in exports, which are unchecked.
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
    altered: tuple[str, ...] = ()

    @property
    def said(self) -> dict[str, Any]:
        return event_checks.parsed_body(self.body)

    @property
    def personal(self) -> dict[str, str]:
        """The personal values that still exist, match the event's commitments, and are visible to this reader."""
        return {name: value for name, (_, value) in self.details.items() if name not in self.altered}

    def value(self, name: str) -> str | None:
        return self.personal.get(name)


@dataclass(frozen=True)
class EventScope:
    """Which personal fields of a log's events one reader may read.

    `hidden` is left out of all events, `hidden_by_role` is left out of events by actors of these roles,
    `hidden_for_others` out of events by all other actors. In events about no request, only `shown_without_request` is
    readable, unless it is None. `recipient` stands for all fields `recipient_N`. In the vendor's log, `of_tenants`
    replaces this scope for events about a tenant.
    """

    hidden: frozenset[str] = frozenset()
    hidden_by_role: Mapping[str, frozenset[str]] = field(default_factory=dict)
    hidden_for_others: frozenset[str] = frozenset()
    shown_without_request: frozenset[str] | None = None
    of_tenants: "EventScope | None" = None

    def reads(self, event: RecordedEvent, name: str) -> bool:
        if self.of_tenants and event.tenant_id:
            return self.of_tenants.reads(event, name)
        name = RECIPIENT if name.startswith(f"{RECIPIENT}_") else name
        if name in self.hidden or name in self.hidden_by_role.get(event.actor_role, self.hidden_for_others):
            return False
        return (
            event.request_id is not None or self.shown_without_request is None or name in self.shown_without_request
        )


@dataclass(frozen=True)
class FoundEvents:
    """Events, newest first; `before` is the id to continue from, None at the end of the log."""

    events: Sequence[RecordedEvent]
    before: UUID | None


def page(
    session: UnitOfWork,
    log_id: UUID,
    sight: EventScope,
    wanted: EventFilter,
    *,
    before: UUID | None,
    most: int,
) -> FoundEvents:
    """Newest first, sealed or not.

    A page may be short although older events match: see LOOKED_THROUGH.
    """
    newest = select(Event).where(only(col(Event.log_id), log_id))
    bounds = [before, id_at(wanted.before, SKEW) if wanted.before else None]
    if latest := min((bound for bound in bounds if bound), default=None):
        newest = newest.where(col(Event.id) < latest)
    if wanted.request:
        newest = newest.where(col(Event.request_id) == wanted.request).order_by(col(Event.id).desc())
    else:
        newest = newest.order_by(col(Event.log_id).desc(), col(Event.id).desc())
    filters = partial(_filters, sight, wanted)
    query = look_through(Event, [newest], filters, most_looked=LOOKED_THROUGH, limit=most + 1)
    rows = session.orm.execute(query).all()
    ids = [one for _, one in rows if one]
    events = _events(session, sight, col(Event.id) == any_(literal(ids[:most], Ids))) if ids else []
    end = rows[0][0]
    is_over = end is None or (wanted.after is not None and end < id_at(wanted.after, -SKEW))
    return FoundEvents(events, ids[most - 1] if len(ids) > most else None if is_over else end)


def of_request(
    session: UnitOfWork, logs: Sequence[UUID], sight: EventScope, wanted: EventFilter, *, most: int
) -> list[RecordedEvent]:
    return _events(session, sight, *_conditions(logs, sight, wanted), most=most)


def _events(
    session: UnitOfWork, sight: EventScope, *conditions: ColumnElement[bool], most: int | None = None
) -> list[RecordedEvent]:
    query = _selected(IN_PLACE.label("in_place")).where(*conditions)
    query = query.outerjoin(Seal, col(Seal.event_id) == col(Event.id)).order_by(col(Event.id).desc())
    return [_seen(checked(row._asdict()), sight) for row in session.execute(query.limit(most))]


def span(
    session: UnitOfWork, log_id: UUID, sight: EventScope, wanted: EventFilter, *, start: int, end: int
) -> list[RecordedEvent]:
    """For an export; `end` is not included."""
    query = _matching([log_id], sight, wanted)
    rows = session.execute(_between(query, log_id, start, end).order_by(col(Seal.number)))
    return [_seen(RecordedEvent(**_plain(row._asdict())), sight) for row in rows]


def checked_span(
    session: UnitOfWork, log_id: UUID, sight: EventScope, wanted: EventFilter, *, start: int, end: int
) -> list[RecordedEvent]:
    """Check events against their bodies, for readers who do not verify exports; `end` is not included."""
    query = _matching([log_id], sight, wanted, IN_PLACE.label("in_place"))
    rows = session.execute(_between(query, log_id, start, end).order_by(col(Seal.number)))
    return [_seen(checked(row._asdict()), sight) for row in rows]


def count(session: UnitOfWork, log_id: UUID, sight: EventScope, wanted: EventFilter, *, end: int) -> int:
    query = select(func.count()).select_from(Event).where(*_conditions([log_id], sight, wanted))
    return int(session.execute(_between(query, log_id, 0, end)).scalar_one())


def items(session: UnitOfWork, log_id: UUID, events: Iterable[RecordedEvent]) -> dict[UUID, str]:
    ids = {event.request_id for event in events if event.request_id}
    query = select(col(Event.request_id), col(Event.body), DETAILS.label("details"))
    first = col(Event.request_id).in_(ids), col(Event.log_id) == log_id, col(Event.action).in_(event_checks.ASKING)
    rows = session.execute(query.where(*first))
    return {
        row.request_id: found for row in rows if (found := event_checks.item(bytes(row.body), _pairs(row.details)))
    }


def _between(query: Select[Any], log_id: UUID, start: int, end: int) -> Select[Any]:
    query = query.join(Seal, and_(col(Seal.event_id) == col(Event.id), col(Seal.log_id) == log_id))
    return query.where(col(Seal.number) >= start, col(Seal.number) < end)


def _matching(
    logs: Sequence[UUID], sight: EventScope, wanted: EventFilter, *further: ColumnElement[Any]
) -> Select[Any]:
    return _selected(*further).where(*_conditions(logs, sight, wanted))


def _selected(*further: ColumnElement[Any]) -> Select[Any]:
    table = Event.__table__  # type: ignore[attr-defined]
    columns = [column for column in table.columns if column.name not in UNREAD]
    query: Select[Any] = select(*columns, col(Seal.number).label("number"), DETAILS.label("details"), *further)
    return query.select_from(Event)


def _conditions(logs: Sequence[UUID], sight: EventScope, wanted: EventFilter) -> list[ColumnElement[bool]]:
    return [col(Event.log_id) == any_(literal(list(logs), Ids)), *_filters(sight, wanted, Event)]


def _filters(sight: EventScope, wanted: EventFilter, rows: type[Event]) -> list[ColumnElement[bool]]:
    words = [name for name in WORDS if name not in sight.hidden]
    says = SAYS.bindparams(words=words, pattern=_pattern(wanted.words or ""))
    filters = (
        None if wanted.person is None else col(rows.actor_id) == wanted.person,
        None if wanted.action is None else col(rows.action) == wanted.action,
        None if wanted.request is None else col(rows.request_id) == wanted.request,
        col(rows.seq).is_not(None) if wanted.moves else None,
        None if wanted.after is None else col(rows.at) >= wanted.after,
        None if wanted.before is None else col(rows.at) < wanted.before,
        None if wanted.service is None else OF_SERVICE.bindparams(service=wanted.service),
        col(rows.tenant_id).is_(None) if wanted.words and sight.of_tenants else None,
        says if wanted.words else None,
    )
    return [one for one in filters if one is not None]  # type: ignore[misc]


def _pattern(words: str) -> str:
    escaped = words.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    row.pop("seq")
    return row | {"body": bytes(row["body"]), "details": _pairs(row["details"])}


def _pairs(details: Mapping[str, Sequence[str]] | None) -> dict[str, tuple[str, str]]:
    return {name: (one[0], one[1]) for name, one in (details or {}).items()}


def checked(row: dict[str, Any]) -> RecordedEvent:
    """Return an event as its body states it.

    The row has the event's columns, `number`, `details` and `in_place`: whether exactly this body was sealed, None if
    unchecked.
    """
    in_place = row.pop("in_place")
    columns = {name: row[name] for name in event_checks.MEMBERS}
    plain = _plain(row)
    members, altered = event_checks.compare_columns(plain["body"], columns, plain["details"])
    members.pop("seq")
    return RecordedEvent(**(plain | members), altered=(*altered, "body") if in_place is False else altered)


def _seen(event: RecordedEvent, sight: EventScope) -> RecordedEvent:
    shown = {name: detail for name, detail in event.details.items() if sight.reads(event, name)}
    return RecordedEvent(**(vars(event) | {"details": shown}))
