"""Sealing and reconciling: as tasks when they are due, or in this process as a fallback.

`without_redis.py` lists the work that a worker does without a Celery message.
"""

import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from uuid import NAMESPACE_DNS, UUID, uuid5

import structlog
from celery import Celery
from kombu.exceptions import BatchPublishError  # type: ignore[attr-defined]  # newer than the stubs
from kombu.exceptions import OperationalError as BrokerAway
from sqlalchemy.exc import DBAPIError

from gate import call_counts, definition_records, enforcement
from lockbox import reconcile as reconciler
from lockbox.admin import exclusions, unapproved_access
from lockbox.audit.log import sealer
from lockbox.audit.log.sealer import RollbackDetected
from lockbox.database import Database
from lockbox.monitoring import heartbeats
from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.notifications import checkpoint_digest
from lockbox.pubsub import OPERATORS
from lockbox.reconcile import Step
from lockbox.redis_scripts import RedisUnavailable
from lockbox.requests import after_reviews
from lockbox.schedule import CLOCK, MOST_A_CALL
from worker import messages
from worker.loop import WorkerLoop
from worker.runtime import Runtime

log = structlog.get_logger(__name__)

WORK_SECONDS = 4.0
UNDISTURBED_SECONDS = 0.3
QUEUE = "maintenance"
MOST_WAITING = 4
SHOW_AGAIN_SECONDS = 5.0
SAY_AGAIN_SECONDS = 30.0
YIELD_SECONDS = 2.0
YIELD_LOOK_SECONDS = 0.1


@dataclass(frozen=True)
class MaintenanceJob:
    """Work that one worker at a time does, in small steps, as a task named `lockbox.NAME`. Times are in seconds.

    A run is recorded as a heartbeat of `part`. While `is_due` is true, there is one run each `interval`, else one
    each `rest`; this is checked each `look`. A job that `gives_way` waits while many deadlines are due. A result
    contains the figure named `counts` even if it is 0.
    """

    name: str
    part: ProcessPart
    interval: float
    rest: float
    look: float
    gives_way: bool
    counts: str
    is_due: Callable[[Database], bool]
    steps: Callable[[Runtime], Generator[Step, None, None]]


def _reconcile(tools: Runtime) -> Generator[Step, None, None]:
    has_lock = False
    with closing(reconciler.reconcile(tools.database, None, deliveries_kept=tools.deliveries_kept)) as steps:
        for step in steps:
            has_lock = True
            yield step
    if has_lock:
        for count in enforcement.announce(tools.database):
            yield "announced", count
        for count in definition_records.announce(tools.database):
            yield "announced", count
        for count in exclusions.announce(tools.database):
            yield "announced", count
        for count in call_counts.record_uses(tools.database):
            yield "uses", count
        for count in after_reviews.remind(tools.database):
            yield "findings_awaited", count
        for count in unapproved_access.state(tools.database):
            yield "stated", count


def _seal(tools: Runtime) -> Generator[Step, None, None]:
    """Seal new events, ship signed checkpoints, and queue the notifications about them."""
    own = tools.sealing
    if own is None:
        raise OSError(0, "set LOCKBOX_AUDIT_KEY_FILES: this worker cannot sign")
    held: dict[UUID, str] = {}
    counted, has_lock = 0, False
    with suppress(RollbackDetected), closing(sealer.seal(tools.database, own.signer, own.folder, held)) as signed:
        for noted in signed:
            has_lock = True
            tools.database.schedule.tell([str(one.log_id) for one in noted[:1]], OPERATORS)
            yield "events", sum(one.grown for one in noted)
            yield "checkpoints", len(noted)
            yield "held", len(held) - counted
            counted = len(held)
    if not has_lock:
        return
    yield from checkpoint_digest.queue_due(tools.database, own.digest_every)
    if held:
        raise RollbackDetected(sealer.held_logs(held))


RECONCILE = MaintenanceJob(
    "reconcile",
    ProcessPart.RECONCILE,
    interval=5.0,
    rest=5.0,
    look=1.0,
    gives_way=False,
    counts="overdue",
    is_due=lambda _: True,
    steps=_reconcile,
)
SEAL = MaintenanceJob(
    "seal",
    ProcessPart.SEAL,
    interval=1.0,
    rest=10.0,
    look=0.5,
    gives_way=True,
    counts="events",
    is_due=sealer.is_due,
    steps=_seal,
)
JOBS = (RECONCILE, SEAL)


def run(tools: Runtime, job: MaintenanceJob) -> dict[str, int]:
    """Do a job for four seconds at most, record the run, and return counts; the next run continues.

    The result is `skipped` if another run is at work.

    Raises:
        RollbackDetected, OSError: some logs could not be sealed, or some checkpoints not shipped.
    """
    began, counts, has_begun = time.monotonic(), Counter[str](), False
    with closing(job.steps(tools)) as steps:
        for name, count in steps:
            has_begun = True
            counts[name] += count
            lasted = time.monotonic() - began
            waits = job.gives_way and lasted > UNDISTURBED_SECONDS and _deadlines_wait(tools)
            if waits or lasted > WORK_SECONDS:
                counts["cut_short"] += 1
                break
    if not has_begun:
        return {"skipped": 1}
    if counts["held"]:
        # The run is not recorded. So the thread makes the whole pass and names these logs.
        raise RollbackDetected(f"{counts['held']} so far, and the run was cut short")
    _record(tools, job)
    return {job.counts: 0} | +counts


def _record(tools: Runtime, job: MaintenanceJob) -> None:
    _sender().beat(tools.database, job.part)


@cache
def _sender() -> HeartbeatSender:
    node = f"{ProcessPart.CORE}@{socket.gethostname()}"
    return HeartbeatSender(node, uuid5(NAMESPACE_DNS, node))


def _deadlines_wait(tools: Runtime) -> bool:
    with suppress(RedisUnavailable):
        return tools.database.schedule.leased(CLOCK) > MOST_A_CALL
    return False


class MaintenanceLoop(WorkerLoop):
    """Sends a job's task when it is due, and does the job itself if no run of the task is recorded."""

    def __init__(self, job: MaintenanceJob, app: Celery, tools: Runtime) -> None:
        super().__init__(job.name, tools)
        self._job = job
        self._app = app
        self._poked = threading.Event()
        # When the first message was sent that no recorded run has answered. The first value lets this thread do an
        # overdue run at once.
        self._asked_at = time.monotonic() - 2 * job.interval
        self._shown_at = -math.inf
        self._silent_until = 0.0

    def run(self) -> None:
        if self._job is RECONCILE:
            try:
                self.tools.database.schedule.ping()
            except RedisUnavailable as unfit:
                log.warning("schedule.unfit", reason=str(unfit))
        super().run()

    def poke(self) -> None:
        self._poked.set()

    def stop(self) -> None:
        self.stopping.set()
        self._poked.set()

    def round(self) -> None:
        is_poked = self._poked.is_set()
        self._poked.clear()
        with self.gate:
            ran_at, is_due = self._look()
        if is_due and self._job.gives_way:
            self._let_the_clock_pass()
        with self.gate:
            is_for_us = self._is_for_us(ran_at, is_due=is_due or is_poked)
        if is_for_us:
            self._do()
        self._poked.wait(max(self._job.look, ran_at + self._job.interval - time.monotonic()))

    def _look(self) -> tuple[float, bool]:
        """Return when the job last ran, as a monotonic time never later than the run, and whether the job is due.

        If Postgres is unreachable, a task is sent now and then, so that its failure shows in Flower.
        """
        now = time.monotonic()
        try:
            age = heartbeats.age(self.tools.database, self._job.part)
            is_due = age >= self._job.rest or (age >= self._job.interval and self._job.is_due(self.tools.database))
        except DBAPIError:
            if now - self._shown_at >= SHOW_AGAIN_SECONDS:
                self._shown_at = now
                self._send()
            raise
        return now - age, is_due

    def _is_for_us(self, ran_at: float, *, is_due: bool) -> bool:
        now = time.monotonic()
        if ran_at > self._asked_at:
            # Some process has run the job since.
            self._asked_at = math.inf
        if not is_due:
            return False
        asked_for = now - self._asked_at
        if asked_for >= 2 * self._job.interval:
            self._asked_at = math.inf
            return True
        if asked_for < 0:
            self._asked_at = now if self._send() else math.inf
            return self._asked_at == math.inf
        return False

    def _send(self) -> bool:
        try:
            # This call reports an unresponsive Redis within two seconds; the broker's connection needs ten.
            self.tools.database.schedule.leased(CLOCK)
            if messages.waiting(self._app, QUEUE) < MOST_WAITING:
                messages.send(self._app, self._job.name, [()])
        except (RedisUnavailable, BrokerAway, BatchPublishError):
            return False
        return True

    def _do(self) -> None:
        try:
            if self.stepwise(self._job.steps(self.tools)):
                with self.gate:
                    _record(self.tools, self._job)
                log.info("maintenance.done_here", job=self._job.name)
        except RollbackDetected as behind:
            self._say("audit.rolled_back", str(behind), do="see Back-ups in docs/operating.md")
        except OSError as error:
            self._say("audit.not_shipped", str(error.strerror), error=type(error).__name__)

    def _let_the_clock_pass(self) -> None:
        until = time.monotonic() + YIELD_SECONDS
        while _deadlines_wait(self.tools) and time.monotonic() < until:
            self.stopping.wait(YIELD_LOOK_SECONDS)

    def _say(self, what: str, reason: str, **further: str) -> None:
        if time.monotonic() >= self._silent_until:
            log.critical(what, reason=reason, **further)
            self._silent_until = time.monotonic() + SAY_AGAIN_SECONDS
