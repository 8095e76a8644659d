"""The outbox: one row for each event of a request, until the notifications worker has worked out its recipients."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row

from config.traces import ORIGIN
from lockbox import database
from lockbox.audit.events import APPEND, Actor
from lockbox.database import UnitOfWork
from lockbox.facts.enumerations import Mode
from lockbox.notifications.audience import (
    ALARMING,
    BY_BREAK_GLASS,
    CONNECTED,
    CONVERSED,
    PROMPTS,
    REMINDER_TEMPLATES,
    REPEATED,
    SETTLED,
    Reminder,
)
from lockbox.notifications.models import OutboxEvent
from lockbox.schedule import BEFORE_OTHERS, NOTIFICATIONS, IndexEntry
from lockbox.sql import insert_list, new_id

KIND = NOTIFICATIONS.kinds[0]
REMINDERS = frozenset(Reminder)
FIRST = ALARMING.union(PROMPTS)
SETTLING, REPEATING = frozenset(SETTLED.values()), frozenset(REPEATED.values())
AS_IN_ROW = (
    *("event_id", "request_id", "tenant_id", "requester_id", "service", "action", "from_state", "to_state"),
    *("at", "deadline_at", "asked_at"),
)

# Used next to `audit.events.APPEND`, whose parameters it shares. It writes a row for each of the events.
QUEUE = f"""
new_outbox AS (
    INSERT INTO {insert_list(OutboxEvent)}
    SELECT o.event_id, o.tenant_id, o.request_id, o.at, o.run_at, o.template, o.mode, CAST(o.asked AS uuid[]),
        CAST(:o_http_request_id AS text), CAST(:o_traceparent AS text)
    FROM unnest(CAST(:e_id AS uuid[]), CAST(:e_tenant_id AS uuid[]), CAST(:e_request_id AS uuid[]),
        CAST(:e_at AS timestamptz[]), CAST(:o_run_at AS timestamptz[]), CAST(:o_template AS text[]),
        CAST(:o_mode AS text[]), CAST(:o_asked AS text[]))
        AS o (event_id, tenant_id, request_id, at, run_at, template, mode, asked)
)"""  # noqa: S608 - ours
ON_RECORD = f"{APPEND},{QUEUE}"
"""The SQL that goes with each change of a request: it writes the change's events, and the events' outbox rows."""


@dataclass(frozen=True, kw_only=True)
class NotifiedMove:
    """The facts of a request's event that notifications need; `requests.transition.Move` is such an event.

    `asked_at` is when the customer was first asked or notified, None while only the vendor knows of the request. For
    a connector's target, `settles` is whether access succeeds after a failure that people were notified of, `repeats`
    is whether such a failure continues.
    """

    request_id: UUID
    tenant_id: UUID
    requester_id: UUID
    mode: Mode
    service: str
    action: str
    actor: Actor
    from_state: str | None
    to_state: str
    at: datetime
    deadline_at: datetime
    asked_at: datetime | None
    asked: frozenset[UUID] = frozenset()
    reminder: Reminder | None = None
    settles: bool = False
    repeats: bool = False
    event_id: UUID = field(default_factory=new_id)

    @property
    def customer_knows(self) -> bool:
        """Whether the customer has been asked, or is asked or notified by this move."""
        return self.asked_at is not None

    @property
    def template(self) -> str:
        if self.reminder:
            return REMINDER_TEMPLATES[self.reminder, self.to_state]
        if self.action in BY_BREAK_GLASS:
            return str(self.action)
        if self.action in CONNECTED:
            told = SETTLED if self.settles else REPEATED if self.repeats else {}
            return told.get(self.action, self.action)
        return CONVERSED.get((self.action, self.to_state), str(self.to_state))


def queue(session: UnitOfWork, moves: Iterable[NotifiedMove]) -> dict[str, Any]:
    """Return the parameters of `QUEUE` that `audit.events.APPEND` lacks; schedule the events after the commit."""
    queued = [(move, move.template) for move in moves]
    due = [move.at - BEFORE_OTHERS if template in FIRST else move.at for move, template in queued]
    promises = [IndexEntry(str(move.event_id), KIND, run_at) for (move, _), run_at in zip(queued, due, strict=True)]
    database.arm_after_commit(session, NOTIFICATIONS, promises)
    origin = ORIGIN.get()
    return {
        "o_run_at": database.array(due),
        "o_template": [template for _, template in queued],
        "o_mode": [move.mode.value for move, _ in queued],
        "o_asked": [database.array(sorted(move.asked)) for move, _ in queued],
        "o_http_request_id": origin.http_request_id,
        "o_traceparent": origin.traceparent,
    }


def move_of(row: Row[Any]) -> NotifiedMove:
    return NotifiedMove(
        **{name: getattr(row, name) for name in AS_IN_ROW},
        mode=Mode(row.mode),
        actor=Actor(row.actor_id, row.actor_role),
        asked=frozenset(row.asked),
        reminder=Reminder(row.action) if row.action in REMINDERS else None,
        settles=row.template in SETTLING,
        repeats=row.template in REPEATING,
    )
