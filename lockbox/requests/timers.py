"""The timers: they time out and expire requests in batches, and send the reminders that are due."""

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, text
from sqlalchemy.exc import InterfaceError, OperationalError

from lockbox import database as database_
from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK
from lockbox.database import Database, UnitOfWork, now
from lockbox.facts.enumerations import State
from lockbox.failpoints import failpoint
from lockbox.notifications.delivery_status import DeliveryReach
from lockbox.requests import reminders, transition
from lockbox.requests.deadlines import clock_task
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.transition import OF_MOVE, OF_PHASE, Move
from lockbox.schedule import CLOCK, IndexEntry
from lockbox.sql import columns

log = structlog.get_logger(__name__)


Fail = Callable[[UUID, Exception], Counter[str]]


BUSY_ROW_AGAIN = timedelta(milliseconds=250)


# A message may come a little before its time. The wait takes no lock, so that an answer can still come in time.
SOON = text("""
SELECT extract(epoch FROM max(wake_at) - clock_timestamp()) FROM requests
WHERE id = ANY(:ids) AND wake_at BETWEEN clock_timestamp() AND clock_timestamp() + CAST(:soon AS interval)
""")


LOCKED = "SELECT {columns} FROM requests WHERE id = ANY(:ids) ORDER BY id FOR UPDATE SKIP LOCKED"
LOCK = text(LOCKED.format(columns=columns(AccessRequest, "requests", *OF_MOVE)))
LOCK_TO_REMIND = text(LOCKED.format(columns=columns(AccessRequest, "requests", *OF_PHASE, "reminders")))


LEFT_ALONE = text("""
UPDATE requests SET wake_at = deadline_at WHERE id = :id AND wake_at <= :at
RETURNING id, state, wake_at, deadline_at
""")


KNOWN = text("SELECT id, state, wake_at, deadline_at FROM requests WHERE id = ANY(:ids)")


DUE = text("""
SELECT id FROM requests WHERE wake_at <= (SELECT clock_timestamp()) - CAST(:grace AS interval)
ORDER BY wake_at LIMIT :most
""")


def due(session: UnitOfWork, *, grace: timedelta, most: int) -> list[UUID]:
    return list(session.execute(DUE, {"grace": grace, "most": most}).scalars())


def run(database: Database, ids: Iterable[UUID]) -> Counter[str]:
    """Run the timers that are due for these requests, and update the schedule for all of them.

    Each row is locked, read again and checked, so a late, early, repeated or forged message does no harm. One bad row
    never blocks the others. Return how many requests timed_out, expired, were reminded, and failed; failed requests
    are claimed again when their lease ends.

    Raises:
        sqlalchemy.exc.OperationalError: Postgres is down; nothing has changed.
    """
    _wait_for(database, ids := set(ids))
    early: set[UUID] = set()
    ended = _in_halves(database, sorted(ids), partial(_end, early=early), _lost)
    failpoint("clock.after_commit")
    return ended + _in_halves(database, sorted(early), _remind, partial(_leave_alone, database))


def _wait_for(database: Database, ids: Collection[UUID]) -> None:
    with database.engine.connect() as connection:
        left = connection.execute(SOON, {"ids": list(ids), "soon": 2 * CLOCK.lead}).scalar()
    if left and left > 0:
        time.sleep(float(left))


def _in_halves(
    database: Database, batch: Sequence[UUID], work: Callable[[UnitOfWork, Sequence[UUID]], Counter[str]], fail: Fail
) -> Counter[str]:
    if not batch:
        return Counter()
    try:
        with database.transaction() as session:
            return work(session, batch)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # noqa: BLE001 - an error at one row stops no other
        if len(batch) == 1:
            return fail(batch[0], error)
        middle = len(batch) // 2
        first, second = batch[:middle], batch[middle:]
        return _in_halves(database, first, work, fail) + _in_halves(database, second, work, fail)


def _lost(request_id: UUID, error: Exception) -> Counter[str]:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    log.error("clock.request_failed", request_id=str(request_id), error=type(error).__name__, sqlstate=state)
    return Counter(failed=1)


def _leave_alone(database: Database, request_id: UUID, error: Exception) -> Counter[str]:
    """After a failed reminder, set the timer to the deadline, so that the request does not block others."""
    failed = _lost(request_id, error)
    with database.transaction() as session:
        rows = session.execute(LEFT_ALONE, {"id": request_id, "at": now(session)}).all()
        database_.arm_after_commit(session, CLOCK, [_entry(row, row.wake_at) for row in rows])
    return failed


def _end(session: UnitOfWork, ids: Sequence[UUID], *, early: set[UUID]) -> Counter[str]:
    """End requests past their deadline. Other due requests stay leased, and are added to `early`."""
    rows = session.execute(LOCK, {"ids": list(ids)}).all()
    at = now(session)
    due = [row for row in rows if row.wake_at is not None and row.wake_at <= at]
    ready = [row for row in due if row.deadline_at <= at]
    early |= {row.id for row in due if row.deadline_at > at}
    ended = Counter[str]()
    if ready:
        failpoint("clock.after_lock")
        reaches = reminders.reaches(session, ready)
        moves = [_move(row, reaches.get(row.id), at) for row in ready]
        transition.end(session, moves)
        ended.update(move.to_state.value for move in moves)
        failpoint("clock.after_move")
        reminders.notify_undelivered(session, ready, reaches, at)
        lag = max(at - row.wake_at for row in ready)
        failpoint("clock.before_commit")
        log.info("clock.ran", moved=len(ready), of=len(ids), lag_ms=round(lag.total_seconds() * 1000))
    database_.arm_after_commit(session, CLOCK, _settled(session, ids, rows, at))
    return ended


def _remind(session: UnitOfWork, ids: Sequence[UUID]) -> Counter[str]:
    rows = session.execute(LOCK_TO_REMIND, {"ids": list(ids)}).all()
    at = now(session)
    ready = [row for row in rows if row.wake_at is not None and row.wake_at <= at < row.deadline_at]
    if ready:
        reminders.remind(session, ready, at)
        failpoint("clock.after_reminder")
        log.info("clock.reminded", reminded=len(ready), of=len(ids))
    over = [row for row in rows if row.wake_at is not None and row.deadline_at <= at]
    promises = [_entry(row, row.wake_at) for row in over]
    database_.arm_after_commit(session, CLOCK, [*promises, *_settled(session, ids, rows, at)])
    return Counter(reminded=len(ready))


def _move(row: Row[Any], reach: DeliveryReach | None, at: datetime) -> Move:
    facts: dict[str, Value] = {"asked": reach.asked, "reached": reach.reached} if reach else {}
    if reach and not reach.reached:
        facts["nobody_notified"] = True
    return Move.ended(row, THE_CLOCK, at, facts=facts)


def _settled(session: UnitOfWork, ids: Sequence[UUID], rows: Sequence[Row[Any]], at: datetime) -> list[IndexEntry]:
    """Early requests are scheduled again, and unknown ids are removed."""
    promises = []
    for row in rows:
        if row.wake_at is None:
            promises.append(IndexEntry(str(row.id), Action.EXPIRE.value, None))
        elif row.wake_at > at:
            promises.append(_entry(row, row.wake_at - at))
    missing = set(ids) - {row.id for row in rows}
    if missing:
        found = session.execute(KNOWN, {"ids": list(missing)}).all()
        promises += [_entry(row, BUSY_ROW_AGAIN if row.wake_at else None) for row in found]
        unknown = missing - {row.id for row in found}
        promises += [IndexEntry(str(one), Action.EXPIRE.value, None) for one in sorted(unknown)]
    return promises


def _entry(row: Row[Any], due: datetime | timedelta | None) -> IndexEntry:
    return IndexEntry(str(row.id), clock_task(State(row.state), row.wake_at, row.deadline_at), due)
