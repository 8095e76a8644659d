"""Continue without Redis: send notifications directly from Postgres.

This is the complete list of the work that a worker does by itself, without a Celery message, and when:

- The poller of the clock (core worker), while Redis is away or accepts no writes: it runs due timers of requests.
- The poller of notifications (notifications worker), while Redis is away or accepts no writes: it sends due
  notifications.
- `MaintenanceLoop` (core worker), if a task cannot be sent, or if a task was sent but the last recorded run is older
  than twice the interval: it seals or reconciles.
- `NotificationReconciler` (notifications worker), every five seconds: it sends notifications that are overdue by
  three seconds, and schedules those due soon that are missing in Redis. Its database login does not allow the other
  parts of reconciling.
- The poller of connections (connector worker), while Redis is away or accepts no writes: it drives due connections.
- `ConnectionWatch` (connector worker), every second and when a request changes: it closes connections whose windows
  have ended, and drives connections that are overdue by three seconds.
- Heartbeats and the alert monitor, always.

All of this uses the same functions as the tasks, directly from Postgres, where rows are claimed or locked. So it does
not matter which process does the work, or whether two try.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from connectors import connection_steps
from lockbox import reconcile
from lockbox.database import UnitOfWork
from lockbox.notifications import delivery
from lockbox.schedule import CONNECTIONS, IndexEntry
from worker.loop import WorkerLoop
from worker.runtime import Runtime
from worker.tasks import MOST_NOTIFICATIONS

log = structlog.get_logger(__name__)

STOP_SECONDS = 5.0
RECONCILE_SECONDS = 5.0
WATCH_SECONDS = 1.0
WATCH_GRACE = timedelta(seconds=3)
MOST_OVERDUE = 100
DIRECT_THREADS = 16


class DirectSender:
    """Passes ids of notifications to the sending pool of this process. Never waits."""

    def __init__(self, tools: Runtime) -> None:
        self._tools = tools

    def __call__(self, ids: list[UUID]) -> None:
        for start in range(0, len(ids), MOST_NOTIFICATIONS):
            self._dispatch(ids[start : start + MOST_NOTIFICATIONS])

    def stop(self) -> None:
        """Begin no more sends, and give running ones a few seconds. Others send the rest once its leases end."""
        senders = self._tools.senders
        if senders and not senders.sending_pool.stop(STOP_SECONDS):
            log.warning("sending.cut_short")
        if senders and not senders.recorder.finish(STOP_SECONDS):
            log.warning("sending.not_recorded")

    def _dispatch(self, ids: list[UUID]) -> None:
        try:
            if self._tools.senders:
                delivery.dispatch(self._tools.database, ids, self._tools.senders)
        except DBAPIError as error:
            log.warning("sending.waiting", error=type(error).__name__)
        except Exception:
            log.exception("sending.failed", count=len(ids))


class DirectConnector:
    """Drives connections in threads of this process. Never waits for a target."""

    def __init__(self, tools: Runtime) -> None:
        self._tools = tools
        self._pool = ThreadPoolExecutor(DIRECT_THREADS, thread_name_prefix="connecting")
        self._lock = threading.Lock()
        self._driven: set[UUID] = set()
        self._stopped = False

    def overdue(self, grace: timedelta) -> int:
        return self._drive(lambda session: connection_steps.due(session, grace=grace, most=MOST_OVERDUE))

    def ended(self) -> int:
        return self._drive(lambda session: connection_steps.ended(session, most=MOST_OVERDUE))

    def stop(self) -> None:
        """Begin no more steps. After their lease, other workers repeat the steps that are running."""
        with self._lock:
            self._stopped = True
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _drive(self, find: Callable[[UnitOfWork], list[UUID]]) -> int:
        with self._tools.database.transaction() as session:
            found = find(session)
        with self._lock:
            fresh = [] if self._stopped else [one for one in found if one not in self._driven]
            self._driven.update(fresh)
            for one in fresh:
                self._pool.submit(self._run, one)
        return len(fresh)

    def _run(self, connection_id: UUID) -> None:
        try:
            if self._tools.driver:
                self._tools.driver.run([connection_id])
        except DBAPIError as error:
            log.warning("connecting.waiting", error=type(error).__name__)
        except Exception:
            log.exception("connecting.failed", connection=str(connection_id))
        finally:
            with self._lock:
                self._driven.discard(connection_id)


class ConnectionWatch(WorkerLoop):
    def __init__(self, tools: Runtime, connecting: DirectConnector) -> None:
        super().__init__("connection-watch", tools)
        self._connecting = connecting
        self._poked = threading.Event()
        self._news = tools.database.schedule.listener(self._hear, lambda _on: self.poke())

    def run(self) -> None:
        self._news.start()
        super().run()

    def poke(self) -> None:
        self._poked.set()

    def _hear(self, _: frozenset[str], side: str | None) -> None:
        """Start a round only for messages to everyone: messages to operators come with each sent mail."""
        if side is None:
            self.poke()

    def stop(self) -> None:
        self.stopping.set()
        self._poked.set()
        self._news.stop()
        self._connecting.stop()

    def round(self) -> None:
        self._poked.clear()
        if self.tools.driver:
            with self.gate:
                self.tools.driver.begin(most=MOST_OVERDUE)
        with self.gate, self.tools.database.transaction() as session:
            over = connection_steps.ended(session, most=MOST_OVERDUE)
        entries = [IndexEntry(str(one), connection_steps.KIND, timedelta(0)) for one in over]
        with self.gate:
            if over and not self.tools.database.schedule.arm(CONNECTIONS, entries):
                self._connecting.ended()
            self._connecting.overdue(WATCH_GRACE)
        self._poked.wait(WATCH_SECONDS)


class NotificationReconciler(WorkerLoop):
    def __init__(self, tools: Runtime, sending: DirectSender) -> None:
        super().__init__("notification-reconciler", tools)
        self._sending = sending
        self._poked = threading.Event()

    def poke(self) -> None:
        self._poked.set()

    def stop(self) -> None:
        self.stopping.set()
        self._poked.set()

    def round(self) -> None:
        self.stepwise(reconcile.reconcile_notifications(self.tools.database, self._sending))
        self._poked.wait(RECONCILE_SECONDS)
        self._poked.clear()
