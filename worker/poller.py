"""The pollers: threads that sleep until ids are due, claim them and send tasks, or act without Redis."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from celery import Celery
from kombu.exceptions import BatchPublishError  # type: ignore[attr-defined]  # newer than the stubs
from kombu.exceptions import OperationalError as BrokerAway

from lockbox import reconcile
from lockbox.failpoints import failpoint
from lockbox.pubsub import Bell
from lockbox.redis_scripts import RedisUnavailable
from lockbox.requests import case_check
from lockbox.schedule import CLOCK, CONNECTIONS, NOTIFICATIONS, ScheduleClaim, ScheduleIndex
from worker import messages
from worker.loop import IDLE_SECONDS, WorkerLoop
from worker.runtime import Runtime
from worker.tasks import MOST_CASES, MOST_CONNECTIONS, MOST_IDS, MOST_NOTIFICATIONS
from worker.without_redis import DirectConnector, DirectSender

AWAY_SECONDS = 0.5
NO_GRACE = timedelta(0)
LONGEST_FULL = 0.5


@dataclass(frozen=True)
class PollerSettings:
    """While `most_waiting` messages are untaken, no id is claimed; the poller looks again after `full_seconds`.

    After a claim, ids gather for `gather_seconds`: a message costs eight milliseconds, however few ids it names.
    """

    queue: str
    ids_a_message: int
    gather_seconds: float
    most_waiting: int
    full_seconds: float


POLLED = {
    CLOCK: PollerSettings("core", MOST_IDS, gather_seconds=0.015, most_waiting=2, full_seconds=0.005),
    NOTIFICATIONS: PollerSettings(
        "notify", MOST_NOTIFICATIONS, gather_seconds=0.1, most_waiting=20, full_seconds=0.05
    ),
    CONNECTIONS: PollerSettings("connect", MOST_CONNECTIONS, gather_seconds=0.0, most_waiting=20, full_seconds=0.05),
}


class Poller(WorkerLoop):
    """Watches one index of the schedule: claims due ids, sends them as tasks, and sleeps until a `Bell` wakes it."""

    def __init__(
        self,
        index: ScheduleIndex,
        app: Celery,
        tools: Runtime,
        poke: Callable[[], None],
        sending: DirectSender | None = None,
        *,
        connecting: DirectConnector | None = None,
    ) -> None:
        super().__init__(f"poller-{index.name}", tools)
        self.index = index
        self.settings = POLLED[index]
        self.app = app
        self._poke = poke
        self._sending = sending
        self._connecting = connecting
        self.bell: Bell = tools.database.schedule.bell(index)
        self.busy = False
        self.claimed_at = 0.0

    def round(self) -> None:
        try:
            with self.gate:
                rest = self._claim_and_send()
            if rest > 0 and not self.stopping.is_set():
                self.bell.wait(rest)
        except (RedisUnavailable, BrokerAway, BatchPublishError):
            self._act()
            self.stopping.wait(AWAY_SECONDS)
            # Entries that were claimed but not sent were not quite due at the first call.
            self._act()

    def stop(self) -> None:
        self.stopping.set()

    def _claim_and_send(self) -> float:
        schedule = self.tools.database.schedule
        self.bell.listen()
        if self.index.has_urgent:
            self._send(schedule.claim(self.index, urgent=True), messages.FIRST)
        if self.busy and self._is_full():
            return self.settings.full_seconds
        claim = schedule.claim(self.index)
        self.claimed_at = time.monotonic()
        self.busy = bool(claim.ids)
        if not claim.whole:
            self._poke()
        self._send(claim, messages.LATER if self.index.has_urgent else messages.FIRST)
        if claim.ids:
            self.stopping.wait(self.settings.gather_seconds)
        return min(claim.idle, IDLE_SECONDS)

    def _send(self, claim: ScheduleClaim, priority: int) -> None:
        for kind, ids in claim.ids.items():
            failpoint("poller.before_send")
            most = MOST_CASES if kind == case_check.KIND else self.settings.ids_a_message
            messages.send(self.app, kind, _parts(ids, most), priority=priority)
            failpoint("poller.after_send")

    def _is_full(self) -> bool:
        """False after half a second without a claim, because only a claim notices that Redis accepts no writes."""
        if time.monotonic() - self.claimed_at >= LONGEST_FULL:
            return False
        return messages.waiting(self.app, self.settings.queue) >= self.settings.most_waiting

    def _act(self) -> None:
        database = self.tools.database
        if self.index is CLOCK:
            self.stepwise(reconcile.act_on_overdue_clock(database, grace=NO_GRACE))
        elif self._connecting:
            with self.gate:
                self._connecting.ended()
                self._connecting.overdue(NO_GRACE)
        elif self._sending:
            self.stepwise(reconcile.act_on_overdue_notifications(database, self._sending, grace=NO_GRACE))


def _parts(ids: Sequence[str], size: int) -> Iterator[list[list[str]]]:
    rest = iter(ids)
    while part := list(islice(rest, size)):
        yield [part]
        failpoint("poller.mid_batch")
