"""Record how a step of a connection ended: update its row, write an event if its state changed, and notify people."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text

from connectors.models import ConnectionState
from lockbox.audit import events
from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.database import UnitOfWork
from lockbox.facts.enumerations import Mode
from lockbox.notifications import outbox
from lockbox.notifications.outbox import NotifiedMove

TRIES_BEFORE_FAILED = 3
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=1), timedelta(seconds=60)
MOST_DOUBLINGS = 6
FAILED = {True: ConnectionState.OPEN_FAILED, False: ConnectionState.CLOSE_FAILED}
TOLD_AGAIN_AFTER = timedelta(hours=1)
"""If no failure is recorded for this long, the next one at the same target for the same request is notified again."""
EVENTS = {
    ConnectionState.OPEN: "connection_opened",
    ConnectionState.OPEN_FAILED: "connection_open_failed",
    ConnectionState.CLOSED: "connection_closed",
    ConnectionState.CLOSE_FAILED: "connection_close_failed",
}

UPDATED = """
UPDATE connections SET state = :state, run_at = :run_at, failures = :failures, last_error = :last_error,
    opened_at = :opened_at, closed_at = :closed_at
WHERE id = :id
"""
RECORD = text(UPDATED)
RECORD_AND_TELL = text(f"WITH {outbox.ON_RECORD} {UPDATED}")
ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended('connected ' || CAST(:request_id AS uuid), 0))")
# What people were told about the request's access at this target, over all connections that the request had there.
TOLD = text("""
SELECT coalesce(open_failed_at > coalesce(opened_at, '-infinity'), false) AS open_fails,
    coalesce(open_failed_at > since, false) AS open_failed_lately,
    coalesce(close_failed_at > since, false) AS close_failed_lately,
    EXISTS (SELECT FROM connections c WHERE c.request_id = :request_id AND c.target = :target AND c.id <> :id
        AND c.state = 'close_failed') AS another_close_fails
FROM (SELECT CAST(:since AS timestamptz) AS since,
        max(e.at) FILTER (WHERE e.action = 'connection_opened') AS opened_at,
        max(e.at) FILTER (WHERE e.action = 'connection_open_failed') AS open_failed_at,
        max(e.at) FILTER (WHERE e.action = 'connection_close_failed') AS close_failed_at
    FROM events e WHERE e.request_id = :request_id AND convert_from(e.body, 'UTF8')::jsonb ->> 'target' = :target
        AND e.action IN ('connection_opened', 'connection_open_failed', 'connection_close_failed')) t
""")
OF_REQUEST = text("""
SELECT state, mode, requester_id, service, deadline_at, asked_at FROM requests WHERE id = :id
""")


def failed(row: Row[Any], at: datetime, reason: str, *, is_open: bool) -> dict[str, Any]:
    failures = row.failures + 1
    state = FAILED[is_open] if failures >= TRIES_BEFORE_FAILED else ConnectionState(row.state)
    pause = min(FIRST_PAUSE * 2 ** min(failures - 1, MOST_DOUBLINGS), LONGEST_PAUSE)
    return _outcome(row, state, at + pause, failures=failures, last_error=reason)


def done(row: Row[Any], at: datetime, until: datetime | None) -> dict[str, Any]:
    if until is not None:
        return _outcome(row, ConnectionState.OPEN, until) | {"opened_at": at}
    return _outcome(row, ConnectionState.CLOSED, None) | {"closed_at": at}


def _outcome(
    row: Row[Any],
    state: ConnectionState,
    run_at: datetime | None,
    *,
    failures: int = 0,
    last_error: str | None = None,
) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": state,
        "run_at": run_at,
        "failures": failures,
        "last_error": last_error,
        "opened_at": row.opened_at,
        "closed_at": None,
    }


def record(session: UnitOfWork, row: Row[Any], outcome: dict[str, Any], at: datetime, until: datetime | None) -> None:
    """Write an outcome. Only a change of state is an event.

    A repeated failure at the same target for the same request causes no second notification, until the failure is
    settled or an hour passes without a further failure. `until` is the end of the window that was to be opened.
    """
    state = outcome["state"]
    if state == row.state or state not in EVENTS:
        session.execute(RECORD, outcome)
        return
    request = session.execute(OF_REQUEST, {"id": row.request_id}).one()
    facts: dict[str, Value] = {"connection": row.id, "connector": row.kind, "target": row.target}
    if outcome["last_error"]:
        facts["reason"] = outcome["last_error"]
    if until is not None:
        facts["until"] = until
    moment = {"at": at, "from_state": request.state, "to_state": request.state, "deadline_at": request.deadline_at}
    event = AuditEvent(
        action=EVENTS[state],
        actor=THE_CLOCK,
        tenant_id=row.tenant_id,
        request_id=row.request_id,
        facts=facts,
        **moment,
    )
    settles, repeats = _told(session, row, state, at)
    told = NotifiedMove(
        request_id=row.request_id,
        tenant_id=row.tenant_id,
        requester_id=request.requester_id,
        mode=Mode(request.mode),
        service=request.service,
        action=event.action,
        actor=THE_CLOCK,
        asked_at=request.asked_at,
        event_id=event.id,
        settles=settles,
        repeats=repeats,
        **moment,
    )
    session.execute(RECORD_AND_TELL, outcome | events.append([event]) | outbox.queue(session, [told]))


def _told(session: UnitOfWork, row: Row[Any], state: ConnectionState, at: datetime) -> tuple[bool, bool]:
    """Return whether this outcome settles an earlier failure, and whether it repeats a failure.

    Calls are serialised by request.
    """
    session.execute(ONE_AT_A_TIME, {"request_id": row.request_id})
    of = {"id": row.id, "request_id": row.request_id, "target": row.target, "since": at - TOLD_AGAIN_AFTER}
    told = session.execute(TOLD, of).one()
    if state is ConnectionState.OPEN:
        return told.open_fails, False
    if state is ConnectionState.CLOSED:
        return row.state == ConnectionState.CLOSE_FAILED and not told.another_close_fails, False
    if state is ConnectionState.OPEN_FAILED:
        return False, told.open_fails and told.open_failed_lately
    return False, told.another_close_fails and told.close_failed_lately
