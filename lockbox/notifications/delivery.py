"""Delivery of notifications: claim those that have a free slot, render and send them, and record the results."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lockbox.database import Database, async_commit
from lockbox.failpoints import failpoint
from lockbox.notifications import fan_out, load, queue, webhook
from lockbox.notifications.queue import Slot
from lockbox.notifications.results import AttemptResult
from lockbox.notifications.send_job import NotificationSendJob, Senders
from lockbox.notifications.senders.protocol import (
    SEND_SECONDS,
)
from lockbox.notifications.sending_pool import LONGEST_IN_QUEUE, ChannelPool

log = structlog.get_logger(__name__)

LEASE = queue.LEASE
RECORD_SECONDS = 1.0


class NotRecorded(Exception):  # noqa: N818 - a state of affairs that callers plan for
    """Claiming some notifications, or writing some results, failed. Claims last until their leases end."""


def deliver(database_: Database, ids: Iterable[UUID], senders: Senders) -> list[AttemptResult]:
    results = [one.result() for one in dispatch(database_, ids, senders)]
    return [result for result in results if result]


def notify(database_: Database, ids: Sequence[UUID], senders: Senders, stall: float = SEND_SECONDS) -> Counter[str]:
    """Dispatch notifications and wait, at most fifteen seconds, until their results are recorded.

    After four seconds, or once nothing has ended for `stall` seconds, notifications whose sending has not begun are
    given back. Raises NotRecorded.

    Returns:
        How many are `sent`, `moot` (not needed any more), `dead` (given up), `deferred` (tried again later),
        `unfinished` (still being sent) and `skipped` (not due).
    """
    batch = _dispatched(database_, ids, senders)
    goes_on = batch.wait(LONGEST_IN_QUEUE, stall)
    batch.withdraw()
    if goes_on:
        batch.wait(SEND_SECONDS, stall)
    senders.recorder.hasten()
    wait([job.recorded for job in batch.jobs if job.is_over], RECORD_SECONDS)
    counts = Counter(job.standing for job in batch.jobs)
    counts.update(deferred=batch.put_off, skipped=batch.skipped)
    if batch.failed:
        raise NotRecorded(f"{batch.failed} of {len(ids)} could not be claimed; they come again")
    if unrecorded := counts["unrecorded"]:
        raise NotRecorded(
            f"{unrecorded} of {len(ids)} results are not recorded; these are sent again after their lease"
        )
    return +counts


def dispatch(database_: Database, ids: Iterable[UUID], senders: Senders) -> "list[Future[AttemptResult | None]]":
    """Send the due notifications that have a free slot, and update the schedule for all `ids`.

    A claim is committed before anything is sent, and sets the next try to the end of a lease. Until then, no other
    process sends the notification. No row is locked while sending. Delivery is at least once, with the same
    Message-ID or webhook-id each time.

    Returns:
        For each claimed notification, a future of its recorded result; None if the notification was given back
        untried.
    """
    return [job.recorded for job in _dispatched(database_, ids, senders).jobs]


def _dispatched(database_: Database, ids: Iterable[UUID], senders: Senders) -> "_DispatchedBatch":
    failpoint("notify.before_claim")
    batch = _claimed_apart(database_, sorted(set(ids)), senders)
    failpoint("notify.after_claim")
    senders.recorder.expect(len(batch.jobs))
    senders.recorder.record([ended for job in batch.jobs if (ended := job.without_sending())])
    # A call is prepared before the call that it follows is sent.
    for job in sorted(batch.jobs, key=lambda one: one.claim.follows is None):
        job.prepare()
        job.set_out()
    return batch


def _claimed_apart(database_: Database, ids: Sequence[UUID], senders: Senders) -> "_DispatchedBatch":
    """If claiming fails, claim each half separately, so that one bad row never blocks the others."""
    try:
        return _claimed(database_, ids, senders)
    except (OperationalError, InterfaceError, PoolTimeout):
        raise
    except Exception as error:
        if len(ids) <= 1:
            log.exception("notification.not_claimed", ids=[str(one) for one in ids], error=type(error).__name__)
            return _DispatchedBatch([], failed=len(ids))
    middle = len(ids) // 2
    first, second = (_claimed_apart(database_, half, senders) for half in (ids[:middle], ids[middle:]))
    return _DispatchedBatch(
        first.jobs + second.jobs,
        first.put_off + second.put_off,
        first.skipped + second.skipped,
        first.failed + second.failed,
    )


def _claimed(database_: Database, ids: Sequence[UUID], senders: Senders) -> "_DispatchedBatch":
    promised: list[Slot] = []
    try:
        with database_.transaction() as session:
            async_commit(session)
            claims, at, put_off, skipped = fan_out.claim(session, ids, senders.sending_pool, promised)
            claimed = [claim.notification_id for claim in claims]
            if not claimed:
                return _DispatchedBatch([], put_off, skipped)
            loaded = {one.notification_id: one for one in load.read(session, claimed, at, senders.wordings)}
            targets = webhook.targets(session, claimed)
        began = senders.sending_pool.clock()
        jobs = {
            claim.notification_id: NotificationSendJob(
                database_,
                senders,
                claim,
                loaded[claim.notification_id],
                targets.get(claim.notification_id),
                at,
                began,
            )
            for claim in claims
        }
        for one in claims:
            if one.follows:
                _stand_behind(jobs[one.notification_id], jobs[one.follows])
        return _DispatchedBatch(list(jobs.values()), put_off, skipped)
    except BaseException:
        for slot in promised:
            slot.leave()
        raise


@dataclass(frozen=True)
class _DispatchedBatch:
    jobs: "list[NotificationSendJob]"
    put_off: int = 0
    skipped: int = 0
    failed: int = 0

    def wait(self, seconds: float, stall: float) -> bool:
        """Wait at most `seconds` for all jobs; return False once none has ended for `stall` seconds, else True."""
        until, over = time.monotonic() + seconds, 0
        while (left := until - time.monotonic()) > 0:
            if not wait([job.recorded for job in self.jobs], min(left, stall)).not_done:
                break
            before, over = over, sum(job.is_over for job in self.jobs)
            if over == before and left > stall:
                return False
        return True

    def withdraw(self) -> None:
        for job in self.jobs:
            job.stop()
        by_pool: dict[ChannelPool, list[NotificationSendJob]] = {}
        for job in self.jobs:
            if job.claim.slot and not job.recorded.done():
                by_pool.setdefault(job.claim.slot.pool, []).append(job)
        for pool, jobs in by_pool.items():
            pool.withdraw(jobs)


def _stand_behind(job: NotificationSendJob, before: NotificationSendJob) -> None:
    job.behind = before.behind
    job.behind.append(job)
