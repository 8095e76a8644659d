"""Recording how sends went, many in one transaction: what ends while one is written waits for the next."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lockbox.database import Database, lazily
from lockbox.failpoints import reach
from lockbox.notifications import queue, results
from lockbox.notifications.models import Outcome
from lockbox.notifications.queue import Returned
from lockbox.notifications.results import Try

log = structlog.get_logger(__name__)

MOST_A_TRANSACTION = 100
GATHER_SECONDS = 0.03
AGAIN_SECONDS = 0.5
MOST_KEPT = 10_000
AWAY = (OperationalError, InterfaceError, PoolTimeout)


def _end_of_lease() -> float:
    return time.monotonic() + queue.LEASE.total_seconds()


@dataclass(frozen=True)
class Ended:
    """What became of a claim: a try, or nothing at all; `told` is set once it is written.

    Until `lease_ends`, by this process' monotonic clock, nobody else sends it.
    """

    database: Database
    result: Try | Returned
    told: "Future[Try | None]"
    lease_ends: float = field(default_factory=_end_of_lease)

    @property
    def has_arrived(self) -> bool:
        """Whether it is at the recipient's."""
        return isinstance(self.result, Try) and self.result.outcome is Outcome.SENT


class Recorder:
    """Writes down what ended. Whoever comes while somebody writes leaves it to them: no thread waits for another.

    What could not be written because Postgres was away is kept, at most 10,000 results, and written again every half
    second until its lease ends: what has arrived and is not recorded by then is sent again.
    """

    def __init__(self) -> None:
        self._pending: list[Ended] = []
        self._kept: list[Ended] = []
        self._changing = threading.Lock()
        self._writing = threading.Lock()
        self._again: threading.Thread | None = None

    def record(self, ended: Sequence[Ended]) -> None:
        """Write these, now or with what another thread is about to write."""
        with self._changing:
            self._pending += ended
        # Looked at again after the lock is free: somebody may have come in between and left it to us.
        while self._pending and self._writing.acquire(blocking=False):
            try:
                time.sleep(GATHER_SECONDS)
                for part in _arrived_first(self._taken()):
                    self._write(part)
            finally:
                self._writing.release()

    def finish(self, seconds: float) -> bool:
        """Wait at most that long until everything is written; return whether it is."""
        until = time.monotonic() + seconds
        while not (is_done := self._is_done()) and time.monotonic() < until:
            time.sleep(GATHER_SECONDS)
        return is_done

    def _is_done(self) -> bool:
        with self._changing:
            return not (self._pending or self._kept or self._again or self._writing.locked())

    def _taken(self) -> list[Ended]:
        with self._changing:
            taken: list[Ended] = []
            kept: list[Ended] = []
            for one in self._pending:
                fits = one.database is self._pending[0].database and len(taken) < MOST_A_TRANSACTION
                (taken if fits else kept).append(one)
            self._pending = kept
        return taken

    def _write(self, batch: Sequence[Ended]) -> None:
        """Write them in one transaction, or in halves: one that cannot be written is not to take the others along."""
        if not batch:
            return
        try:
            _write_at_once(batch)
        except Exception as error:
            if _is_away(error):
                log.warning("notices.not_recorded", count=len(batch), error=type(error).__name__)
                self._keep(batch, error)
                return
            if len(batch) > 1:
                middle = len(batch) // 2
                self._write(batch[:middle])
                self._write(batch[middle:])
                return
            log.exception("notice.not_recorded", notice_id=str(batch[0].result.notice_id))
            _tell(batch, error)
        except BaseException as error:  # noqa: BLE001 - this process ends: whoever waits is to know
            _tell(batch, error)
        else:
            for one in batch:
                one.told.set_result(one.result if isinstance(one.result, Try) else None)

    def _keep(self, batch: Sequence[Ended], error: Exception) -> None:
        with self._changing:
            ours = [one for one in batch if time.monotonic() < one.lease_ends][: MOST_KEPT - len(self._kept)]
            self._kept += ours
            if ours and not self._again:
                self._again = threading.Thread(target=self._write_again, name="recorder", daemon=True)
                self._again.start()
        kept = {id(one) for one in ours}
        lost = [one for one in batch if id(one) not in kept]
        if lost:
            log.error("notices.given_up", count=len(lost), arrived=sum(one.has_arrived for one in lost))
            _tell(lost, error)

    def _write_again(self) -> None:
        while True:
            time.sleep(AGAIN_SECONDS)
            with self._changing:
                kept, self._kept = self._kept, []
                if not kept:
                    self._again = None
                    return
            self.record(kept)


def _arrived_first(batch: Sequence[Ended]) -> tuple[Sequence[Ended], Sequence[Ended]]:
    """Part what has arrived from the rest, which may have to wait for its requests: none is to be sent again."""
    return [one for one in batch if one.has_arrived], [one for one in batch if not one.has_arrived]


def _is_away(error: Exception) -> bool:
    return isinstance(error, AWAY) or (isinstance(error, DBAPIError) and error.connection_invalidated)


def _write_at_once(batch: Sequence[Ended]) -> None:
    tries = [one.result for one in batch if isinstance(one.result, Try)]
    returned = [one.result for one in batch if isinstance(one.result, Returned)]
    reach("notify.before_record")
    with batch[0].database.transaction() as session:
        lazily(session)
        if tries:
            results.record(session, tries)
        if returned:
            queue.give_back(session, returned)
        reach("notify.after_write")
    reach("notify.after_record")


def _tell(batch: Sequence[Ended], error: BaseException) -> None:
    for one in batch:
        one.told.set_exception(error)
