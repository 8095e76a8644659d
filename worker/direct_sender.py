"""Send notifications beside Celery: what nobody else takes goes from Postgres straight to the sending pool."""

from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from lockbox.notifications import delivery
from worker.runtime import Runtime
from worker.tasks import MOST_NOTIFICATIONS

log = structlog.get_logger(__name__)

STOP_SECONDS = 5.0


class DirectSender:
    """Hands ids of notifications to the lanes of this process, which have their own threads; waits for no server."""

    def __init__(self, tools: Runtime) -> None:
        self._tools = tools

    def __call__(self, ids: list[UUID]) -> None:
        """Dispatch these, a batch a transaction; what finds no room is put off, and what fails comes again."""
        for start in range(0, len(ids), MOST_NOTIFICATIONS):
            self._dispatch(ids[start : start + MOST_NOTIFICATIONS])

    def stop(self) -> None:
        """Take nothing more; what is being sent has a few seconds, or is picked up by others after its lease."""
        senders = self._tools.senders
        if senders and not senders.lanes.stop(STOP_SECONDS):
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
