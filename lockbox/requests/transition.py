"""Locks of requests, and the writing of moves: rows, events and outbox of many moves in one statement."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Row, TextClause, text

from lockbox import database, sql
from lockbox.audit import events
from lockbox.audit.canonical import Value
from lockbox.audit.events import Actor, AuditEvent
from lockbox.audit.models import AuditKey
from lockbox.database import Query, UnitOfWork, array
from lockbox.errors import NotFound, NotYours
from lockbox.facts.enumerations import Mode, State
from lockbox.identity.roles import Caller
from lockbox.notifications import outbox
from lockbox.notifications.outbox import NotifiedMove
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.requests import queries
from lockbox.requests.deadlines import Phase, clock_task
from lockbox.requests.lifecycle import Party, end_by
from lockbox.requests.models import IS_VISIBLE, AccessRequest, Decision, RequestEntry
from lockbox.requests.queries import NOT_KNOWN
from lockbox.schedule import CLOCK, IndexEntry

LOCK = text(f"""
SELECT {sql.columns(AccessRequest, "requests")}, t.slug AS tenant, p.name AS requester, t.name AS tenant_name
FROM requests JOIN tenants t ON t.id = requests.tenant_id JOIN people p ON p.id = requests.requester_id
WHERE requests.id = :id AND {IS_VISIBLE} FOR UPDATE OF requests
""")  # noqa: S608 - ours
# A row is sent as one value: psycopg parses a statement with more than fifty values again each time.
ROW = "jsonb_populate_record(CAST(NULL AS requests), CAST(:request AS jsonb)) AS n"
NEW_REQUEST = f"""
new_request AS (
    INSERT INTO {sql.insert_list(AccessRequest)} SELECT {sql.columns(AccessRequest, "n")} FROM {ROW}
)"""  # noqa: S608 - names of our own columns

CHANGED = (
    *("state", "version", "mode", "consent_until", "deadline_at", "wake_at", "asked_at", "opened_at", "opens_at"),
    *("closed_at", "quorum", "max_uses", "reminders", "tiers_asked", "warned", "stopped_at", "stopped_deadline"),
    *("stopped_for", "granted_resources", "granted_actions", "approve_means", "pre_approval_id", "break_glass"),
)
MOVED = f"""
moved AS (
    UPDATE requests r SET {", ".join(f"{name} = n.{name}" for name in CHANGED)} FROM {ROW} WHERE r.id = n.id
)"""  # noqa: S608 - names of our own columns

DECIDED = f"decided AS ({sql.insert(Decision, prefix='d_')})"

LIST_KEY = f"""
listed AS (
    INSERT INTO {sql.insert_list(AuditKey)}
        SELECT CAST(:approval_key AS text), 'approval', CAST(:listed_at AS timestamptz)
    WHERE CAST(:approval_key AS text) IS NOT NULL ON CONFLICT DO NOTHING
)"""
"""Lists the public approval key at its first use, so that others can verify approvals."""

ENDED = """
ended AS (
    UPDATE requests r SET state = e.state, version = e.version, wake_at = NULL, closed_at = e.closed_at
    FROM unnest(CAST(:id AS uuid[]), CAST(:state AS text[]), CAST(:version AS integer[]),
        CAST(:closed_at AS timestamptz[])) AS e (id, state, version, closed_at)
    WHERE r.id = e.id
)"""

REMINDED = """
reminded AS (
    UPDATE requests r SET wake_at = n.wake_at, reminders = n.reminders, tiers_asked = n.tiers_asked,
        warned = n.warned
    FROM unnest(CAST(:id AS uuid[]), CAST(:wake_at AS timestamptz[]), CAST(:reminders AS integer[]),
        CAST(:tiers_asked AS integer[]), CAST(:warned AS boolean[]))
        AS n (id, wake_at, reminders, tiers_asked, warned)
    WHERE r.id = n.id
)"""

SUBMITTED = text(f"WITH {NEW_REQUEST},{outbox.ON_RECORD} SELECT 1")
SUBMITTED_OPEN = text(f"WITH {NEW_REQUEST},{LIST_KEY},{outbox.ON_RECORD} SELECT 1")
MOVED_ALONE = text(f"WITH {MOVED},{outbox.ON_RECORD} SELECT 1")
MOVED_BY_DECISION = text(f"WITH {MOVED},{DECIDED},{LIST_KEY},{outbox.ON_RECORD} SELECT 1")
ENDED_BY_CLOCK = text(f"WITH {ENDED},{sql.ADD_LAGS},{outbox.ON_RECORD} SELECT 1")
REMINDED_BY_CLOCK = text(f"WITH {REMINDED},{outbox.ON_RECORD} SELECT 1")


FROM_ROW: Mapping[str, Callable[[Any], Any]] = {
    "request_id": lambda row: row.id,
    "mode": lambda row: Mode(row.mode),
    "to_state": lambda row: State(row.state),
    **{name: attrgetter(name) for name in ("tenant_id", "requester_id", "service", "version")},
    **{name: attrgetter(name) for name in ("deadline_at", "wake_at", "asked_at")},
}
"""The fields of a move that come from a request's row, and how to read them."""
OF_MOVE = (
    *("id", "tenant_id", "requester_id", "mode", "service", "state"),
    *("version", "deadline_at", "wake_at", "asked_at"),
)
"""The columns of a request that a move reads."""
OF_PHASE = (*OF_MOVE, "created_at", "opened_at", "opens_at", "tiers_asked", "warned", "severity")
"""The columns that `phase_of` and a move read."""


@dataclass(frozen=True, kw_only=True)
class Move(NotifiedMove):
    """`version` is the request's version after the move.

    `policy_version` is the version of the tenant's policy by which the move was checked, None for moves by a timer.
    `personal` values enter the event as commitments with `salts`, or with new salts.
    """

    to_state: State
    version: int
    wake_at: datetime | None
    policy_version: int | None = None
    facts: Mapping[str, Value] = field(default_factory=dict)
    personal: Mapping[str, str | None] = field(default_factory=dict)
    salts: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, row: AccessRequest | Row[Any], **changes: Any) -> Self:  # noqa: ANN401 - fields of a move
        """`changes` are fields that the row lacks, or has with old values."""
        known = {name: read(row) for name, read in FROM_ROW.items() if name not in changes}
        return cls(**(known | changes))

    @classmethod
    def ended(cls, row: Row[Any], by: Actor, at: datetime, **changes: Any) -> Self:  # noqa: ANN401 - fields of a move
        state = State(row.state)
        action, to_state = end_by(Party(by.role), state)
        version = row.version + 1
        ended = {"action": action, "actor": by, "from_state": state, "to_state": to_state, "version": version}
        return cls.of(row, at=at, wake_at=None, **ended, **changes)

    @property
    def starts_a_clock(self) -> bool:
        """Whether this move set the request's current deadline."""
        return self.wake_at is not None and self.to_state is not self.from_state

    def event(self) -> AuditEvent:
        """The event of a reminder has no seq, because the request stays unchanged."""
        return AuditEvent(
            id=self.event_id,
            at=self.at,
            action=self.action,
            actor=self.actor,
            tenant_id=self.tenant_id,
            request_id=self.request_id,
            seq=None if self.reminder else self.version,
            from_state=self.from_state,
            to_state=self.to_state,
            deadline_at=self.deadline_at if self.reminder or self.starts_a_clock else None,
            policy_version=self.policy_version,
            facts=self.facts,
            personal=self.personal,
            salts=self.salts,
        )

    def promise(self) -> IndexEntry:
        kind = clock_task(self.to_state, self.wake_at, self.deadline_at)
        return IndexEntry(str(self.request_id), kind, self.wake_at)


def phase_of(row: AccessRequest | Row[Any], known: RecipientDirectory) -> Phase:
    state = State(row.state)
    begun = {
        State.REVIEWING: row.created_at,
        State.PENDING: row.asked_at,
        State.ACTIVE: row.opens_at or row.opened_at,
    }
    return Phase(
        state=state,
        since=begun.get(state) or row.created_at,
        deadline_at=row.deadline_at,
        tiers_asked=row.tiers_asked,
        review_tiers=known.review_tiers,
        warned=row.warned,
        opens_at=row.opens_at,
        severity=row.severity,
    )


@dataclass(frozen=True)
class ReminderUpdate:
    request_id: UUID
    state: State
    deadline_at: datetime
    wake_at: datetime
    reminders: int
    tiers_asked: int
    warned: bool
    moves: Sequence[Move]

    def promise(self) -> IndexEntry:
        kind = clock_task(self.state, self.wake_at, self.deadline_at)
        return IndexEntry(str(self.request_id), kind, self.wake_at)


def locked(session: UnitOfWork, caller: Caller, request_id: UUID) -> AccessRequest:
    return locked_entry(session, caller, request_id).request


def locked_entry(session: UnitOfWork, caller: Caller, request_id: UUID) -> RequestEntry:
    """Lock a request's row; ignore the entry's `open`. Raises NotYours if the caller may only read the request."""
    row = session.execute(*ahead_of_lock(request_id)).one_or_none()
    if row is None:
        if not queries.known(session, caller, [request_id]):
            raise NotFound(NOT_KNOWN)
        raise NotYours("You have read-only access to this request.")
    return RequestEntry(AccessRequest.of(row), row.tenant, row.requester, open=False, tenant_name=row.tenant_name)


def ahead_of_lock(request_id: UUID) -> Query:
    return LOCK, {"id": request_id}


def insert(session: UnitOfWork, request: AccessRequest, move: Move, approval_key: str | None = None) -> None:
    """`approval_key` is as in `update`; it is given if the window opens at once."""
    row = _row(request)
    if approval_key is None:
        _write(session, SUBMITTED, [move], row)
    else:
        _write(session, SUBMITTED_OPEN, [move], row | {"approval_key": approval_key, "listed_at": move.at})


def update(
    session: UnitOfWork,
    request: AccessRequest,
    move: Move,
    decision: Decision | None = None,
    approval_key: str | None = None,
    *,
    beside: Sequence[Move] = (),
) -> None:
    """`beside` are reminders that follow from the move.

    `approval_key` is the public key for signed approvals; it is listed with the first decision it verifies.
    """
    row = _row(request)
    if decision is None:
        _write(session, MOVED_ALONE, [move, *beside], row)
    else:
        prefixed = {f"d_{name}": value for name, value in decision.model_dump().items()}
        listed = {"approval_key": approval_key, "listed_at": move.at}
        _write(session, MOVED_BY_DECISION, [move, *beside], row | prefixed | listed)


def end(session: UnitOfWork, moves: Sequence[Move]) -> None:
    rows = {
        "id": array(move.request_id for move in moves),
        "state": array(move.to_state.value for move in moves),
        "version": array(move.version for move in moves),
        "closed_at": array(move.at for move in moves),
        **sql.lags((one.at - one.deadline_at).total_seconds() for one in moves if one.at >= one.deadline_at),
    }
    _write(session, ENDED_BY_CLOCK, moves, rows)


def remind(session: UnitOfWork, updates: Sequence[ReminderUpdate]) -> None:
    rows = {
        "id": array(one.request_id for one in updates),
        "wake_at": array(one.wake_at for one in updates),
        "reminders": array(one.reminders for one in updates),
        "tiers_asked": array(one.tiers_asked for one in updates),
        "warned": array(str(one.warned).lower() for one in updates),
    }
    moves = [move for one in updates for move in one.moves]
    _write(session, REMINDED_BY_CLOCK, moves, rows, promises=[one.promise() for one in updates])


def _write(
    session: UnitOfWork,
    statement: TextClause,
    moves: Sequence[Move],
    row: Mapping[str, Any],
    promises: Sequence[IndexEntry] | None = None,
) -> None:
    parameters = {
        **row,
        **events.append(move.event() for move in moves),
        **outbox.queue(session, moves),
    }
    session.write(statement, _plain(parameters))
    database.arm_after_commit(session, CLOCK, promises or [move.promise() for move in moves])


def _row(request: AccessRequest) -> dict[str, Any]:
    return {"request": request.model_dump_json()}


def _plain(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.value if isinstance(value, StrEnum) else value for name, value in parameters.items()}
