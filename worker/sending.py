"""Sending notices beside Celery: a few threads of a notices worker, for when nobody else takes them."""

import threading
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from lockbox.notices import delivery
from worker.runtime import Runtime
from worker.tasks import MOST_NOTICES

log = structlog.get_logger(__name__)

THREADS = 8


class Sending:
    """Takes ids of notices and delivers them on threads of its own; what does not fit is left for the next round."""

    def __init__(self, tools: Runtime) -> None:
        self._tools = tools
        self._free = threading.BoundedSemaphore(THREADS)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="sending")

    def __call__(self, ids: list[UUID]) -> None:
        """Deliver as many of these as there are free threads for, a few to each."""
        for start in range(0, len(ids), MOST_NOTICES):
            if not self._free.acquire(blocking=False):
                return
            self._threads.submit(self._deliver, ids[start : start + MOST_NOTICES])

    def stop(self) -> None:
        """Take nothing more; what is being sent is finished or picked up by others after its lease."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _deliver(self, ids: list[UUID]) -> None:
        try:
            if self._tools.senders:
                delivery.deliver(self._tools.database, ids, self._tools.senders)
        except DBAPIError as error:
            log.warning("sending.waiting", error=type(error).__name__)
        except Exception:
            log.exception("sending.failed", count=len(ids))
        finally:
            self._free.release()
