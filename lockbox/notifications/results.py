"""Results of delivery attempts: sent, moot, dead, or the time of the next try."""

import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lockbox import database
from lockbox.database import Database, UnitOfWork, async_commit, now
from lockbox.failpoints import failpoint
from lockbox.notifications import outcome_events, queue, settlement
from lockbox.notifications.models import Notification, Outcome
from lockbox.notifications.outbox import KIND
from lockbox.notifications.outcome_events import DeliveryAttempt
from lockbox.notifications.queue import ReturnedClaim
from lockbox.pubsub import OPERATORS
from lockbox.schedule import NOTIFICATIONS, IndexEntry
from lockbox.sql import COUNTERS, columns

FIRST_BACK_OFF = timedelta(seconds=2)
LONGEST_BACK_OFF = timedelta(minutes=15)
LEAST_BACK_OFF = timedelta(seconds=1)
LEAST_JITTER = 0.75
LONGEST_ERROR = 200
TOO_LATE = "not delivered before it stopped mattering"
CHANCE = random.SystemRandom()
# A transaction that claims calls of an endpoint locks the endpoint too. So a call that is recorded here frees all
# calls that wait for it, and no call begins to wait for it meanwhile.
LOCK_CALLS = text("""
WITH ours AS MATERIALIZED (
    SELECT endpoint_id FROM notifications WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
)
SELECT id FROM endpoints WHERE id IN (SELECT endpoint_id FROM ours) ORDER BY id FOR NO KEY UPDATE
""")
RECORD = text(f"""
WITH recorded AS (
    UPDATE notifications n SET outcome = s.outcome, closed_at = s.closed_at, run_at = s.run_at, blocked_by = NULL,
        failed_at = CASE WHEN s.outcome IS NULL THEN coalesce(n.failed_at, :at) ELSE n.failed_at END,
        last_error = CASE WHEN s.last_error = :too_late AND n.last_error IS NOT NULL
            THEN left(s.last_error || '; the last try failed: ' || n.last_error, :longest) ELSE s.last_error END
    FROM unnest(CAST(:id AS uuid[]), CAST(:outcome AS text[]), CAST(:closed_at AS timestamptz[]),
        CAST(:run_at AS timestamptz[]), CAST(:last_error AS text[]), CAST(:lease AS timestamptz[]))
        AS s (id, outcome, closed_at, run_at, last_error, lease)
    WHERE n.id = s.id AND n.closed_at IS NULL AND (s.outcome = 'sent' OR n.run_at = s.lease)
    RETURNING {columns(Notification, "n")}
), freed AS (
    UPDATE notifications n SET run_at = :at, blocked_by = NULL
    WHERE n.id IN (SELECT f.id FROM notifications f WHERE f.blocked_by = ANY(ARRAY(
            SELECT r.id FROM recorded r WHERE r.outcome IS NOT NULL AND r.endpoint_id IS NOT NULL))
        AND f.id <> ALL(CAST(:id AS uuid[])) FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING n.id
), counted AS (
    INSERT INTO {COUNTERS}
    SELECT 'attempt', channel || ' ' || coalesce(outcome, 'again'), count(*), 0 FROM recorded GROUP BY 2
), held AS (
    SELECT u.id, u.event_id, u.of_report, {settlement.MAY_NAME} AS may_name FROM unsettled u
    WHERE EXISTS (SELECT FROM recorded r WHERE r.event_id = u.event_id AND (r.template = 'report') = u.of_report
        AND r.channel = 'mail' AND r.outcome IS NOT NULL)
    ORDER BY u.id FOR UPDATE OF u
)
SELECT {columns(Notification, "r")}, h.id AS unsettled_id, h.may_name,
    EXISTS (SELECT FROM events e WHERE e.id = r.event_id AND e.internal)
    OR EXISTS (SELECT FROM people p WHERE p.id = r.person_id AND p.side = 'vendor')
    OR EXISTS (SELECT FROM endpoints h WHERE h.id = r.endpoint_id AND h.tenant_id IS NULL) AS is_internal,
    ARRAY(SELECT id FROM freed) AS freed
FROM recorded r LEFT JOIN held h ON h.event_id = r.event_id AND h.of_report = (r.template = 'report')
""")  # noqa: S608 - our own SQL
DUE = text("SELECT id, run_at FROM notifications WHERE id = ANY(:ids) AND closed_at IS NULL")
log = structlog.get_logger(__name__)
MOST_A_TRANSACTION = 100
ENOUGH = 25
LONGEST_UNRECORDED = 0.5
IDLE_SECONDS = 2.0
AGAIN_SECONDS = 0.5
MOST_KEPT = 10_000
AWAY = (OperationalError, InterfaceError, PoolTimeout)


@dataclass(frozen=True)
class AttemptResult:
    """The result of a try; without an `outcome`, the next try is at `run_at`; without an `attempt`, nothing was sent.

    Once the lease has ended and another process has claimed the notification, only an arrival is recorded.
    """

    notification_id: UUID
    lease: datetime
    outcome: Outcome | None
    run_at: datetime
    error: str | None = None
    attempt: DeliveryAttempt | None = None
    endpoint_id: UUID | None = None


def retry_at(attempts_: int, at: datetime, until: datetime, wait: timedelta | None) -> datetime | None:
    """Return when to try again, with jitter, not before `wait`, and before `until`; None for no further try."""
    planned = next_try(attempts_, at, until)
    if planned is None:
        return None
    back_off = max((planned - at) * CHANCE.uniform(LEAST_JITTER, 1), LEAST_BACK_OFF)
    return at + max(back_off, min(wait or back_off, until - at - LEAST_BACK_OFF))


def next_try(attempts: int, at: datetime, until: datetime) -> datetime | None:
    """Return when to try again: a doubling back-off, at most a quarter of the time left; None for no further try."""
    left = until - at
    if left <= LEAST_BACK_OFF:
        return None
    doubled: timedelta = FIRST_BACK_OFF * (1 << min(attempts - 1, 12))
    back_off = min(doubled, LONGEST_BACK_OFF, left / 4)
    return at + max(back_off, LEAST_BACK_OFF)


def record(session: UnitOfWork, tries: Sequence[AttemptResult]) -> None:
    """Write the results of tries, with a row of the delivery log for each try that was sent.

    If no recipient of a request can be notified any more, the request is made due now. Recording a result again
    changes nothing.
    """
    concerned = outcome_events.lock_concerned(
        session, {one.notification_id: one.outcome for one in tries if one.outcome}
    )
    if any(one.endpoint_id for one in tries):
        session.execute(LOCK_CALLS, {"ids": [one.notification_id for one in tries]})
    at = now(session)
    recorded = (
        session.connection()
        .execute(
            RECORD,
            {
                "id": [one.notification_id for one in tries],
                "outcome": [one.outcome and one.outcome.value for one in tries],
                "closed_at": [at if one.outcome else None for one in tries],
                "run_at": [one.run_at for one in tries],
                "last_error": [one.error for one in tries],
                "at": at,
                "lease": [one.lease for one in tries],
                "too_late": TOO_LATE,
                "longest": LONGEST_ERROR,
            },
        )
        .all()
    )
    settlement.settle(session, {row.unsettled_id: row.may_name for row in recorded if row.unsettled_id}, at)
    of_accounts = [row for row in recorded if row.request_id is None]
    outcome_events.record_sent(session, [row for row in of_accounts if row.outcome == Outcome.SENT], at)
    ended = [row for row in of_accounts if row.outcome == Outcome.DEAD]
    outcome_events.record_dead(
        session, ended, {one.notification_id: one.attempt.error for one in tries if one.attempt}, at
    )
    if concerned:
        outcome_events.wake_undelivered(session, concerned, at)
    outcome_events.write(session, [one.attempt for one in tries if one.attempt], at)
    if any(one.outcome for one in tries):
        database.publish_after_commit(session, [one.notification_id for one in tries if one.outcome], OPERATORS)
    due = {row.id: None if row.outcome else row.run_at for row in recorded}
    # Another worker has claimed or recorded these notifications meanwhile. The schedule gets what their rows say.
    if others := [one.notification_id for one in tries if one.notification_id not in due]:
        due |= {row.id: row.run_at for row in session.execute(DUE, {"ids": others})}
    settled = [IndexEntry(str(one.notification_id), KIND, due.get(one.notification_id)) for one in tries]
    settled += [IndexEntry(str(one), KIND, at) for row in recorded[:1] for one in row.freed]
    database.arm_after_commit(session, NOTIFICATIONS, settled)


def _end_of_lease() -> float:
    return time.monotonic() + queue.LEASE.total_seconds()


@dataclass(frozen=True)
class ClaimResult:
    """`recorded` is set once the result is written.

    No other process sends the notification until `lease_ends`, by this process' monotonic clock.
    """

    database: Database
    result: AttemptResult | ReturnedClaim
    recorded: "Future[AttemptResult | None]"
    lease_ends: float = field(default_factory=_end_of_lease)

    @property
    def has_arrived(self) -> bool:
        return isinstance(self.result, AttemptResult) and self.result.outcome is Outcome.SENT


class ResultRecorder:
    """Writes results in a thread, which ends two seconds after the last result.

    While Postgres is unreachable, it keeps at most 10,000 results, and tries to write them every half second until
    their leases end. A notification that arrived, but is not recorded by then, is sent again.
    """

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._pending: deque[ClaimResult] = deque()
        self._expected = 0
        self._since = 0.0
        self._not_before = 0.0
        self._is_writing = False
        self._thread: threading.Thread | None = None

    def expect(self, number: int) -> None:
        """Announce results that belong together; once the last of them has come, they are written without waiting."""
        with self._change:
            self._expected += number

    def record(self, ended: Sequence[ClaimResult]) -> None:
        """Queue results for writing; never waits."""
        with self._change:
            self._expected = max(0, self._expected - len(ended))
            self._add(ended)

    def drop(self) -> None:
        with self._change:
            self._expected = max(0, self._expected - 1)
            self._change.notify_all()

    def hasten(self) -> None:
        with self._change:
            self._since = 0.0
            self._change.notify_all()

    def finish(self, seconds: float) -> bool:
        """Return whether everything is written within `seconds`."""
        with self._change:
            return self._change.wait_for(lambda: not (self._pending or self._is_writing), seconds)

    def _add(self, ended: Sequence[ClaimResult]) -> None:
        if not ended:
            return
        if not self._pending:
            self._since = time.monotonic()
        self._pending += ended
        self._change.notify_all()
        if not self._thread:
            self._thread = threading.Thread(target=self._live, name="recorder", daemon=True)
            self._thread.start()

    def _live(self) -> None:
        while batch := self._next():
            for part in _arrived_first(batch):
                self._write(part)
            with self._change:
                self._is_writing = False
                self._change.notify_all()

    def _next(self) -> list[ClaimResult]:
        with self._change:
            until = time.monotonic() + IDLE_SECONDS
            while (left := (self._due() if self._pending else until) - time.monotonic()) > 0:
                self._change.wait(left)
            if not self._pending:
                self._thread = None
                return []
            self._is_writing = True
            return self._taken()

    def _due(self) -> float:
        is_enough = len(self._pending) >= ENOUGH or not self._expected
        return max(self._not_before, self._since + (0.0 if is_enough else LONGEST_UNRECORDED))

    def _taken(self) -> list[ClaimResult]:
        taken: list[ClaimResult] = []
        for _ in range(len(self._pending)):
            one = self._pending.popleft()
            fits = len(taken) < MOST_A_TRANSACTION and one.database is (taken or [one])[0].database
            (taken if fits else self._pending).append(one)
        return taken

    def _write(self, batch: Sequence[ClaimResult]) -> None:
        """If the transaction fails, write each half separately, so that only a bad result fails."""
        if not batch:
            return
        try:
            _write_at_once(batch)
        except Exception as error:
            if _is_away(error):
                log.warning("notifications.not_recorded", count=len(batch), error=type(error).__name__)
                self._keep(batch, error)
                return
            if len(batch) > 1:
                middle = len(batch) // 2
                self._write(batch[:middle])
                self._write(batch[middle:])
                return
            log.exception("notification.not_recorded", notification_id=str(batch[0].result.notification_id))
            _fail(batch, error)
        except BaseException as error:  # noqa: BLE001 - the process ends, and waiting threads must learn of it
            _fail(batch, error)
        else:
            for one in batch:
                one.recorded.set_result(one.result if isinstance(one.result, AttemptResult) else None)

    def _keep(self, batch: Sequence[ClaimResult], error: Exception) -> None:
        with self._change:
            ours = [one for one in batch if time.monotonic() < one.lease_ends][: MOST_KEPT - len(self._pending)]
            self._not_before = time.monotonic() + AGAIN_SECONDS
            self._add(ours)
        kept = {id(one) for one in ours}
        lost = [one for one in batch if id(one) not in kept]
        if lost:
            log.error("notifications.given_up", count=len(lost), arrived=sum(one.has_arrived for one in lost))
            _fail(lost, error)


def _arrived_first(batch: Sequence[ClaimResult]) -> tuple[Sequence[ClaimResult], Sequence[ClaimResult]]:
    """Separate arrivals, to write them first: an arrival that is recorded too late would be sent again."""
    return [one for one in batch if one.has_arrived], [one for one in batch if not one.has_arrived]


def _is_away(error: Exception) -> bool:
    return isinstance(error, AWAY) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def _write_at_once(batch: Sequence[ClaimResult]) -> None:
    tries = [one.result for one in batch if isinstance(one.result, AttemptResult)]
    returned = [one.result for one in batch if isinstance(one.result, ReturnedClaim)]
    failpoint("notify.before_record")
    with batch[0].database.transaction() as session:
        async_commit(session)
        # Rows that another worker has locked are waited for before any endpoint is locked.
        if returned:
            queue.give_back(session, returned)
        if tries:
            record(session, tries)
        failpoint("notify.after_write")
    failpoint("notify.after_record")


def _fail(batch: Sequence[ClaimResult], error: BaseException) -> None:
    for one in batch:
        one.recorded.set_exception(error)
