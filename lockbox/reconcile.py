"""Repair of the schedule from Postgres: arm missing entries, rebuild lost indexes, and do overdue work."""

from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, text

from lockbox import sql
from lockbox.admin import pre_approvals, vendor_consent
from lockbox.audit import refusals_log
from lockbox.database import Database
from lockbox.facts.enumerations import State
from lockbox.failpoints import failpoint
from lockbox.notifications import due_reports, queue
from lockbox.redis_scripts import RedisUnavailable
from lockbox.requests import policy_store, timers
from lockbox.requests.deadlines import clock_task
from lockbox.schedule import CLOCK, CONNECTIONS, INDEXES, NOTIFICATIONS, IndexEntry, ScheduleIndex

log = structlog.get_logger(__name__)

Send = Callable[[list[UUID]], None]
Step = tuple[str, int]
"""What was done, and to how many items."""

GRACE = timedelta(seconds=3)
SOON = timedelta(minutes=1)
RECENT = timedelta(seconds=15)
BATCH = 500
PAGE = 2000
MOST_SOON = 5_000
TURN = "reconcile"
KEEP_KEYS = timedelta(hours=24)
KEEP_DELIVERIES = timedelta(days=90)

OPEN_CLOCKS = text("""
SELECT id, state, deadline_at, wake_at AS due FROM requests
WHERE wake_at IS NOT NULL AND id > :after ORDER BY id LIMIT :most
""")
OPEN_NOTIFICATIONS = text("""
SELECT id, due FROM (
    (SELECT event_id AS id, run_at AS due FROM outbox WHERE event_id > :after ORDER BY event_id LIMIT :most)
    UNION ALL
    (SELECT id, run_at FROM notifications WHERE closed_at IS NULL AND id > :after ORDER BY id LIMIT :most)
    UNION ALL
    (SELECT id, settle_by FROM unsettled WHERE id > :after ORDER BY id LIMIT :most)
) promised ORDER BY id LIMIT :most
""")
# The time is read once and not for each row, so that an index can find the rows that are due.
SOON_CLOCKS = text("""
SELECT id, state, deadline_at, wake_at AS due FROM requests
WHERE wake_at BETWEEN (SELECT clock_timestamp()) - CAST(:recent AS interval)
    AND (SELECT clock_timestamp()) + CAST(:soon AS interval)
ORDER BY wake_at LIMIT :most
""")
SOON_NOTIFICATIONS = text("""
(SELECT event_id AS id, run_at AS due FROM outbox
WHERE at >= (SELECT clock_timestamp()) - CAST(:recent AS interval) ORDER BY event_id LIMIT :most)
UNION ALL
(SELECT id, run_at FROM notifications
WHERE closed_at IS NULL
AND run_at BETWEEN (SELECT clock_timestamp()) - CAST(:recent AS interval)
    AND (SELECT clock_timestamp()) + CAST(:soon AS interval)
ORDER BY run_at LIMIT :most)
UNION ALL
(SELECT id, settle_by FROM unsettled
WHERE settle_by BETWEEN (SELECT clock_timestamp()) - CAST(:recent AS interval)
    AND (SELECT clock_timestamp()) + CAST(:soon AS interval)
ORDER BY settle_by LIMIT :most)
""")
OPEN_CONNECTIONS = text("""
SELECT id, run_at AS due FROM connections WHERE run_at IS NOT NULL AND id > :after ORDER BY id LIMIT :most
""")
SOON_CONNECTIONS = text("""
SELECT id, run_at AS due FROM connections
WHERE run_at BETWEEN (SELECT clock_timestamp()) - CAST(:recent AS interval)
    AND (SELECT clock_timestamp()) + CAST(:soon AS interval)
ORDER BY run_at LIMIT :most
""")
PAGES = {CLOCK: OPEN_CLOCKS, NOTIFICATIONS: OPEN_NOTIFICATIONS, CONNECTIONS: OPEN_CONNECTIONS}
SOONS = {CLOCK: SOON_CLOCKS, NOTIFICATIONS: SOON_NOTIFICATIONS, CONNECTIONS: SOON_CONNECTIONS}
FORGET_KEYS = text(
    "DELETE FROM idempotency_keys WHERE created_at < (SELECT clock_timestamp()) - CAST(:kept AS interval)"
)
# Each round deletes only some of the oldest rows, so that a large delivery log shrinks bit by bit.
FORGET_DELIVERIES = text("""
DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries
    WHERE at < (SELECT clock_timestamp()) - CAST(:kept AS interval) ORDER BY at LIMIT :most)
""")
FORGET_OLD = tuple(
    text(statement)
    for statement in (
        "DELETE FROM sign_ins WHERE expires_at < clock_timestamp() - interval '1 day'",
        "DELETE FROM device_logins WHERE expires_at < clock_timestamp() - interval '1 day'",
        "DELETE FROM sign_in_counts WHERE since < clock_timestamp() - interval '1 hour'",
        "DELETE FROM sessions WHERE expires_at < clock_timestamp() - interval '30 days'",
        "DELETE FROM case_checks WHERE asked_at < (SELECT clock_timestamp()) - interval '1 day'",
        "DELETE FROM gate_answers WHERE span = 'minute' AND at < (SELECT clock_timestamp()) - interval '2 hours'",
        "DELETE FROM gate_answers WHERE span = 'hour' AND at < (SELECT clock_timestamp()) - interval '30 days'",
        "DELETE FROM reported_calls WHERE last_at < (SELECT clock_timestamp()) - interval '30 days'",
    )
)


def reconcile(
    database: Database, send: Send | None, *, deliveries_kept: timedelta = KEEP_DELIVERIES
) -> Generator[Step, None, None]:
    """Repair in small steps. The caller may pause between steps, or stop: the next run continues.

    One process at a time repairs; in any other process the call returns at once, without a step. `send` delivers
    overdue notifications; with None, other processes send them.
    """
    with database.turn(TURN) as is_held:
        if not is_held:
            return
        yield from act_on_overdue(database, send, grace=GRACE)
        failpoint("reconcile.after_overdue")
        for number in pre_approvals.record_ended(database):
            yield "ended", number
        for _ in vendor_consent.record_expired_consents(database):
            yield "consents", 1
        for count in due_reports.promise(database, policy_store.wordings):
            yield "reports", count
        try:
            for index in INDEXES:
                if database.schedule.rebuild(index).is_whole():
                    yield from _arm_soon(database, index)
                else:
                    yield from _rebuild(database, index, send)
        except RedisUnavailable as away:
            log.warning("reconcile.redis_away", error=str(away))
        with database.transaction() as session:
            session.execute(FORGET_KEYS, {"kept": KEEP_KEYS})
            for forget in FORGET_OLD:
                session.execute(forget)
            session.execute(sql.FOLD, {"most": sql.MOST_ROWS})
            gone = session.connection().execute(FORGET_DELIVERIES, {"kept": deliveries_kept, "most": PAGE}).rowcount
        yield "forgotten", gone
        while settled := refusals_log.record_finished_minutes(database):
            yield "refusals", settled


def reconcile_notifications(database: Database, send: Send) -> Iterator[Step]:
    yield from act_on_overdue_notifications(database, send, grace=GRACE)
    try:
        if database.schedule.rebuild(NOTIFICATIONS).is_whole():
            yield from _arm_soon(database, NOTIFICATIONS)
    except RedisUnavailable as away:
        log.warning("reconcile.redis_away", error=str(away))


def act_on_overdue(database: Database, send: Send | None, *, grace: timedelta) -> Iterator[Step]:
    yield from act_on_overdue_clock(database, grace=grace)
    if send:
        yield from act_on_overdue_notifications(database, send, grace=grace)


def act_on_overdue_clock(database: Database, *, grace: timedelta) -> Iterator[Step]:
    """Run the timers of requests that are overdue by `grace`. This does not need Redis."""
    while ids := _overdue(database, timers.due, grace):
        counts = timers.run(database, ids)
        moved = counts.total() - counts["failed"]
        yield "overdue", moved
        if moved < len(ids):
            break


def act_on_overdue_notifications(database: Database, send: Send, *, grace: timedelta) -> Iterator[Step]:
    if ids := _overdue(database, queue.due, grace):
        send(ids)
        yield "overdue", len(ids)


def _overdue(database: Database, due: Callable[..., list[UUID]], grace: timedelta) -> list[UUID]:
    with database.transaction() as session:
        return due(session, grace=grace, most=BATCH)


def _arm_soon(database: Database, index: ScheduleIndex) -> Iterator[Step]:
    with database.transaction() as session:
        rows = session.execute(SOONS[index], {"recent": RECENT, "soon": SOON, "most": MOST_SOON}).all()
    for start in range(0, len(rows), BATCH):
        promises = [_promise(row, index) for row in rows[start : start + BATCH]]
        database.schedule.arm(index, promises, only_missing=True)
        yield "checked", len(promises)


def _rebuild(database: Database, index: ScheduleIndex, send: Send | None) -> Iterator[Step]:
    rebuild = database.schedule.rebuild(index)
    mark, after = rebuild.begin()
    log.warning("reconcile.rebuilding", index=index.name, after=str(after))
    count = 0
    failpoint("reconcile.epoch_changed")
    while True:
        with database.transaction() as session:
            rows = session.execute(PAGES[index], {"after": after, "most": PAGE}).all()
        if not rows:
            break
        if not database.schedule.arm(index, [_promise(row, index) for row in rows], only_missing=True):
            raise RedisUnavailable("arming was refused")
        failpoint("reconcile.mid_rebuild")
        after, count = rows[-1].id, count + len(rows)
        if not (mark := rebuild.move(mark, after)):
            log.warning("reconcile.lost_again", index=index.name)
            return
        yield f"rebuilt_{index.name}", len(rows)
        yield from act_on_overdue(database, send, grace=GRACE)
    failpoint("reconcile.before_whole")
    if not rebuild.complete(mark):
        log.warning("reconcile.lost_again", index=index.name)
        return
    failpoint("reconcile.after_whole")
    log.info("reconcile.rebuilt", index=index.name, count=count)
    yield "whole", 1


def _promise(row: Row[Any], index: ScheduleIndex) -> IndexEntry:
    kind = clock_task(State(row.state), row.due, row.deadline_at) if index is CLOCK else index.kinds[0]
    return IndexEntry(str(row.id), kind, row.due)
