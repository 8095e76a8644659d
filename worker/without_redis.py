"""Go on without Redis: send notifications straight from Postgres, and list all that a worker does by itself.

What a worker does by itself, without a Celery message, and when. This is the one list of it:

- The poller of the clock (core worker), while Redis is away or takes no writes: it runs the clock on due requests.
- The poller of notifications (notifications worker), while Redis is away or takes no writes: it sends due ones.
- `MaintenanceLoop` (core worker), where a task cannot be sent, or where the last recorded run is older than twice
  the interval though one was sent: it seals or reconciles. So nothing waits for the queue that reconciling repairs.
- `NotificationReconciler` (notifications worker), every five seconds: it sends what is overdue by three seconds and
  arms what is due soon. Reconciling as a whole is not for that worker's login.
- Heartbeats, and the alert monitor, always: they watch the workers and are nobody's task.

All of it goes by the same functions as the tasks, straight from Postgres, where rows are claimed or locked; so it
does not matter who does a thing, or whether two try.
"""

import threading
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from lockbox import reconcile
from lockbox.notifications import delivery
from worker.loop import WorkerLoop
from worker.runtime import Runtime
from worker.tasks import MOST_NOTIFICATIONS

log = structlog.get_logger(__name__)

STOP_SECONDS = 5.0
RECONCILE_SECONDS = 5.0


class DirectSender:
    """Hands ids of notifications to the sending pool of this process, which has its own threads; never waits."""

    def __init__(self, tools: Runtime) -> None:
        self._tools = tools

    def __call__(self, ids: list[UUID]) -> None:
        """Dispatch these, a batch a transaction; what finds no room is put off, and what fails comes again."""
        for start in range(0, len(ids), MOST_NOTIFICATIONS):
            self._dispatch(ids[start : start + MOST_NOTIFICATIONS])

    def stop(self) -> None:
        """Take nothing more; what is being sent has a few seconds, or is picked up by others after its lease."""
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


class NotificationReconciler(WorkerLoop):
    """Sends notifications that nobody has taken and arms those due soon, every five seconds or when it is poked."""

    def __init__(self, tools: Runtime, sending: DirectSender) -> None:
        super().__init__("notification-reconciler", tools)
        self._sending = sending
        self._poked = threading.Event()

    def poke(self) -> None:
        """Have it done now."""
        self._poked.set()

    def stop(self) -> None:
        """Ask the thread to end."""
        self.stopping.set()
        self._poked.set()

    def round(self) -> None:
        """Repair, then rest until the next round or a poke."""
        self.stepwise(reconcile.reconcile_notifications(self.tools.database, self._sending))
        self._poked.wait(RECONCILE_SECONDS)
        self._poked.clear()
