"""The clock's moves: time-out and expiry, in batches, by the same rules as every move."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, text
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlmodel import Session

from lockbox import database
from lockbox.audit.events import THE_CLOCK
from lockbox.database import Database, now
from lockbox.notices import outbox
from lockbox.people.roles import Mode
from lockbox.requests import writing
from lockbox.requests.lifecycle import CLOCK_ACTIONS, Action, Move, Party, State, move
from lockbox.requests.writing import Change
from lockbox.schedule import CLOCK, Promise

log = structlog.get_logger(__name__)

BUSY_ROW_AGAIN = timedelta(milliseconds=250)

LOCK = text("""
SELECT id, tenant_id, requester_id, mode, state, version, deadline_at, wake_at, asked_at
FROM requests WHERE id = ANY(:ids) ORDER BY id FOR UPDATE SKIP LOCKED
""")
KNOWN = text("SELECT id, state FROM requests WHERE id = ANY(:ids)")
DUE = text("""
SELECT id FROM requests WHERE wake_at <= clock_timestamp() - CAST(:grace AS interval) ORDER BY wake_at LIMIT :most
""")


def due(session: Session, *, grace: timedelta, most: int) -> list[UUID]:
    """Return the requests whose clock should have run that long ago, the oldest first."""
    return list(session.connection().execute(DUE, {"grace": grace, "most": most}).scalars())


def run(database: Database, ids: Iterable[UUID]) -> int:
    """Let the clock act on those of the requests that are due, and settle the schedule for all of them.

    Each row is locked, read again and judged, so a hint that is late, early, doubled or made up does no harm. A
    batch that fails is run again in halves: one bad row never holds the others.

    Returns:
        How many requests moved.

    Raises:
        sqlalchemy.exc.OperationalError: Postgres is away; nothing has changed.
    """
    batch = sorted(set(ids))
    if not batch:
        return 0
    try:
        with database.transaction() as session:
            return _run(session, batch)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a row, its neighbours go on
        if len(batch) == 1:
            state = getattr(getattr(error, "orig", None), "sqlstate", None)
            log.error("clock.request_failed", request_id=str(batch[0]), error=type(error).__name__, sqlstate=state)  # noqa: TRY400 - a refused row may be quoted
            return 0
        middle = len(batch) // 2
        return run(database, batch[:middle]) + run(database, batch[middle:])


def _run(session: Session, ids: Sequence[UUID]) -> int:
    rows = session.connection().execute(LOCK, {"ids": list(ids)}).all()
    at = now(session)
    ready = [row for row in rows if row.wake_at is not None and row.wake_at <= at]
    if ready:
        changes = [_change(row, at) for row in ready]
        known = outbox.directory(session, {row.tenant_id for row in ready}, at)
        writing.end(session, changes, known)
        lag = max(at - row.wake_at for row in ready)
        log.info("clock.ran", moved=len(ready), of=len(ids), lag_ms=round(lag.total_seconds() * 1000))
    database.promise(session, CLOCK, _settled(session, ids, rows, at))
    return len(ready)


def _change(row: Row[Any], at: datetime) -> Change:
    state = State(row.state)
    action, taken = _by_the_clock(state)
    return Change(
        request_id=row.id,
        tenant_id=row.tenant_id,
        requester_id=row.requester_id,
        mode=Mode(row.mode),
        action=action,
        actor=THE_CLOCK,
        from_state=state,
        to_state=taken.to,
        version=row.version + 1,
        at=at,
        deadline_at=row.deadline_at,
        wake_at=None,
        asked_at=row.asked_at,
    )


@cache
def _by_the_clock(state: State) -> tuple[Action, Move]:
    action = CLOCK_ACTIONS[state]
    taken, _ = move(state, action, {Party.CLOCK})
    return action, taken


def _settled(session: Session, ids: Sequence[UUID], rows: Sequence[Row[Any]], at: datetime) -> list[Promise]:
    """Return what the index has to hold of every id that did not move: early ones again, strangers not at all."""
    promises = []
    for row in rows:
        if row.wake_at is None:
            promises.append(Promise(str(row.id), Action.EXPIRE.value, None))
        elif row.wake_at > at:
            kind = CLOCK_ACTIONS[State(row.state)].value
            promises.append(Promise(str(row.id), kind, row.wake_at - at))
    missing = set(ids) - {row.id for row in rows}
    if missing:
        busy = {row.id: State(row.state) for row in session.connection().execute(KNOWN, {"ids": list(missing)})}
        promises += [_again(one, busy.get(one)) for one in sorted(missing)]
    return promises


def _again(request_id: UUID, state: State | None) -> Promise:
    action = CLOCK_ACTIONS.get(state) if state else None
    return Promise(str(request_id), (action or Action.EXPIRE).value, BUSY_ROW_AGAIN if action else None)
