"""Routes for a request's events and notifications."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from api.call_routes import CallRouter
from api.deps import CurrentUser, RequestOrigin, SessionDep
from api.schemas.parts import PersonView, problems
from api.schemas.requests import (
    EventList,
    EventView,
    NotificationCount,
    NotificationList,
    NotifiedRecipientView,
    NotifiedView,
)
from lockbox.audit import event_search
from lockbox.audit.event_search import RECIPIENT
from lockbox.audit.reported_mails import NOTIFIED
from lockbox.identity.roles import ProtectedField, ReaderRole, Side, may_read, origin_of, reader_roles
from lockbox.notifications import delivery_status
from lockbox.notifications.audience import knows_of
from lockbox.requests import queries
from lockbox.requests.on_behalf_of import EventPerson, OnBehalfOf, on_behalf_of

router = CallRouter(prefix="/v1/requests", tags=["requests"])

ERASED = "erased"
"""The placeholder of an erased name."""


@router.get("/{request_id}/events", responses=problems(404))
def list_request_events(request_id: UUID, who: CurrentUser, origin: RequestOrigin, session: SessionDep) -> EventList:
    """Show a request's timeline: its moves in order without a gap, and other events."""
    entry = queries.find(session, who, request_id)
    held = reader_roles(who, entry.request.requester_id, entry.request.tenant_id)
    rows = event_search.events(session, request_id)
    numbers = {str(row.id): row.seq for row in rows}
    said = on_behalf_of(session, event_search.moves(rows))
    seen = [row for row in rows if row.seq is not None or _knows_of(who.side, row)]
    shown = EventList(items=[_event(row, said.get(row.seq, OnBehalfOf()), held, numbers) for row in seen])
    queries.record_read(session, who, origin, entry.request)
    return shown


@router.get("/{request_id}/notifications", responses=problems(404))
def list_request_notifications(request_id: UUID, who: CurrentUser, session: SessionDep) -> NotificationList:
    """Show a request's notifications and their state: by name on the reader's own side, else as numbers."""
    queries.find(session, who, request_id)
    found = delivery_status.of_request(session, request_id, who.side)
    return NotificationList(own=list(found.own), other=NotificationCount(**found.other))


def on_behalf_of_fields(voice: OnBehalfOf) -> dict[str, Any]:
    return {
        "on_behalf_of": _named(voice.on_behalf_of) if voice.on_behalf_of else None,
        "principals": [_named(principal) for principal in voice.principals],
        "means": voice.means,
        "proof": voice.proof,
    }


def _named(one: EventPerson) -> PersonView:
    return PersonView(id=one.id, name=one.name or ERASED)


def _knows_of(side: Side, row: Row[Any]) -> bool:
    """Each side sees only which of its own people were notified."""
    return row.internal is (side is Side.VENDOR) if row.action == NOTIFIED else knows_of(side, row.to_state, None)


def _event(
    row: Row[Any], voice: OnBehalfOf, held: frozenset[ReaderRole], numbers: Mapping[str, int | None]
) -> EventView:
    """`numbers` are the numbers of moves by the id of their event."""
    actor = PersonView(id=row.actor_id, name=row.actor_name or ERASED) if row.actor_id else None
    columns = row._mapping.items()  # noqa: SLF001 - SQLAlchemy's public name for a row as a mapping
    facts = {name: value for name, value in columns if name in EventView.model_fields}
    said = json.loads(row.body) if row.body else {}
    if not may_read(ProtectedField.COMMENT, held):
        facts["comment"] = None
    if not may_read(origin_of(row.actor_role), held):
        facts |= {"address": None, "user_agent": None}
    told = ("follows", "asked", "reached", "unreached", "step", "held_back")
    facts |= {name: said.get(name) for name in told} | on_behalf_of_fields(voice)
    return EventView(
        **facts,
        actor=actor,
        role=row.actor_role,
        nobody_notified="nobody_notified" in said,
        notified=_notified(said, row.recipients or {}, numbers) if row.action == NOTIFIED else None,
    )


def _notified(said: Mapping[str, Any], names: Mapping[str, str], numbers: Mapping[str, int | None]) -> NotifiedView:
    return NotifiedView(
        **{name: said[name] for name in ("part", "sent", "dead", "moot", "open")},
        of_seq=numbers.get(said["of_event"]),
        template=said.get("template"),
        not_listed=said.get("not_listed", 0),
        recipients=[
            NotifiedRecipientView(
                id=told[0],
                name=names.get(f"{RECIPIENT}_{number}", ERASED).rpartition(" <")[0] or ERASED,
                channel=told[1],
                outcome=told[2],
                at=told[3] if len(told) > len(("id", "channel", "outcome")) else None,
            )
            for number, told in sorted(said["mails"].items(), key=lambda mail: int(mail[0]))
        ],
    )
