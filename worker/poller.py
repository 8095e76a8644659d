"""The pollers: threads that sleep until something is due, claim it and send hints, or act without Redis."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from itertools import islice
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import BatchPublishError  # type: ignore[attr-defined]  # newer than the stubs
from kombu.exceptions import OperationalError as BrokerAway

from lockbox import reconcile as repairing
from lockbox.failpoints import failpoint
from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.schedule import CLOCK, NOTIFICATIONS, Bell, RedisUnavailable, ScheduleIndex
from worker.direct_sender import DirectSender
from worker.loop import IDLE_SECONDS, WorkerLoop
from worker.runtime import Runtime
from worker.tasks import MOST_IDS, MOST_NOTIFICATIONS

log = structlog.get_logger(__name__)

AWAY_SECONDS = 0.5
FULL_SECONDS = {CLOCK: 0.005, NOTIFICATIONS: 0.05}
RECONCILE_SECONDS = 5.0
NO_GRACE = timedelta(0)
LONGEST_FULL = 0.5
QUEUES = {CLOCK: "core", NOTIFICATIONS: "notify"}
IDS_A_HINT = {CLOCK: MOST_IDS, NOTIFICATIONS: MOST_NOTIFICATIONS}
GATHER_SECONDS = {CLOCK: 0.0, NOTIFICATIONS: 0.1}
MOST_HINTS_WAITING = {CLOCK: 2, NOTIFICATIONS: 20}


class Reconciler(WorkerLoop):
    """Repairs the schedule every five seconds, or at once when a poller finds an index that is not whole.

    In the notifications worker it delivers what nobody has taken; its login reaches no more.
    """

    def __init__(self, tools: Runtime, sending: DirectSender | None, heart: HeartbeatSender) -> None:
        super().__init__("reconciler", tools)
        self._heart = heart
        self.sending = sending
        self.poked = threading.Event()

    def run(self) -> None:
        """Say once if this Redis is away or unfit, then go round."""
        try:
            self.tools.database.schedule.ping()
        except RedisUnavailable as unfit:
            log.warning("schedule.unfit", reason=str(unfit))
        super().run()

    def round(self) -> None:
        """Repair, then rest until the next round or a poke."""
        if self.sending:
            self.stepwise(repairing.reconcile_notifications(self.tools.database, self.sending))
        elif self.stepwise(
            # Only who held the lock has taken a step.
            repairing.reconcile(self.tools.database, None, deliveries_kept=self.tools.deliveries_kept)
        ):
            with self.gate:
                self._heart.beat(self.tools.database, ProcessPart.RECONCILE)
        self.poked.wait(RECONCILE_SECONDS)
        self.poked.clear()

    def stop(self) -> None:
        """Ask the thread to end."""
        self.stopping.set()
        self.poked.set()


class Poller(WorkerLoop):
    """Watches one index: claims what is due, hands it out as hints, and sleeps on the bell.

    Where Redis is away it acts on due rows straight from Postgres, by the same functions as the tasks.
    """

    def __init__(self, index: ScheduleIndex, app: Celery, tools: Runtime, reconciler: Reconciler) -> None:
        super().__init__(f"poller-{index.name}", tools)
        self.index = index
        self.app = app
        self.reconciler = reconciler
        self.bell: Bell = tools.database.schedule.bell(index)
        self.busy = False
        self.claimed_at = 0.0

    def round(self) -> None:
        """Claim and hint, then sleep until something more is due; or act, where Redis is away."""
        try:
            with self.gate:
                rest = self._claim_and_hint()
            if rest > 0 and not self.stopping.is_set():
                self.bell.wait(rest)
        except (RedisUnavailable, BrokerAway, BatchPublishError):
            self._act()
            self.stopping.wait(AWAY_SECONDS)
            # What could be claimed and not be handed out had not quite fallen due.
            self._act()

    def stop(self) -> None:
        """Ask the thread to end; it does within a second."""
        self.stopping.set()

    def _claim_and_hint(self) -> float:
        """Return how long there is nothing to do, in seconds."""
        schedule = self.tools.database.schedule
        self.bell.listen()
        if self.busy and self._is_full():
            return FULL_SECONDS[self.index]
        claim = schedule.claim(self.index)
        self.claimed_at = time.monotonic()
        self.busy = bool(claim.ids)
        if not claim.whole:
            self.reconciler.poked.set()
        for kind, ids in claim.ids.items():
            failpoint("poller.before_hint")
            self._hint(kind, ids)
            failpoint("poller.after_hint")
        if claim.ids:
            self.stopping.wait(GATHER_SECONDS[self.index])
        return min(claim.idle, IDLE_SECONDS)

    def _is_full(self) -> bool:
        """Whether hints enough wait, as far as it goes: a Redis that takes no writes says so to a claim alone."""
        rested = time.monotonic() - self.claimed_at
        return rested < LONGEST_FULL and self._waiting_hints() >= MOST_HINTS_WAITING[self.index]

    def _waiting_hints(self) -> int:
        with self.app.producer_pool.acquire(block=True, timeout=5) as producer:
            channel: Any = producer.channel
            connection = channel.connection.client
            try:
                return int(channel.queue_declare(QUEUES[self.index]).message_count)
            except (*connection.connection_errors, *connection.channel_errors) as error:
                raise BrokerAway(type(error).__name__) from error

    def _hint(self, kind: str, ids: Sequence[str]) -> None:
        task = self.app.tasks[f"lockbox.{kind}"]
        with self.app.producer_pool.acquire(block=True, timeout=5) as producer, _batch(producer):
            for part in _parts(ids, IDS_A_HINT[self.index]):
                task.apply_async((part,), producer=producer, retry=False)
                failpoint("poller.mid_batch")

    def _act(self) -> None:
        database = self.tools.database
        if self.index is CLOCK:
            self.stepwise(repairing.act_on_overdue_clock(database, grace=NO_GRACE))
        elif self.reconciler.sending:
            self.stepwise(repairing.act_on_overdue_notifications(database, self.reconciler.sending, grace=NO_GRACE))


def _batch(producer: Any) -> AbstractContextManager[object]:  # noqa: ANN401 - kombu's stubs lack batch()
    batch: AbstractContextManager[object] = producer.batch()
    return batch


def _parts(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    rest = iter(ids)
    while part := list(islice(rest, size)):
        yield part
