"""The Celery tasks: each task reads its rows again by their ids, and does the work on them.

A task ends when its work is recorded, and returns counts, which Flower shows. A task whose work could not be done
fails. The work is still recorded as due in Postgres, so the schedule sends it again.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import structlog
from celery import Task, shared_task
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from config import traces
from config.traces import SpanKind
from lockbox.audit.log.sealer import RollbackDetected
from lockbox.notifications import delivery
from lockbox.notifications.senders.protocol import SEND_SECONDS
from lockbox.requests import case_check, timers
from lockbox.text_rules import UUID_FORM
from worker import maintenance
from worker.maintenance import RECONCILE, SEAL, MaintenanceJob
from worker.runtime import NOTIFY_THREADS, runtime

log = structlog.get_logger(__name__)

MOST_IDS = 500
MOST_NOTIFICATIONS = 200
MOST_CASES = 1
MOST_CONNECTIONS = 1
"""A target that does not answer delays one connection, and no others that came in the same message."""
HURRIED_SECONDS = 0.5
AWAY = (OperationalError, InterfaceError, PoolTimeout)

_patient = threading.BoundedSemaphore(NOTIFY_THREADS // 2)
_asking = threading.BoundedSemaphore(NOTIFY_THREADS // 4)


class TaskFailed(Exception):  # noqa: N818 - Flower shows the name
    """The only error that a task raises."""


class LockboxTask(Task):  # type: ignore[type-arg]  # generic in the stubs alone
    """A task whose failure is reported without a traceback."""

    # A child sends a task's exception, with its traceback, to the worker's parent. While the parent waits for the
    # broker, it does not read, and tracebacks fill the pipe. If a time limit strikes during such a write, the whole
    # worker ends (billiard 4.3). The frames of a traceback take tens of kilobytes; its text takes hundreds of bytes.

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:  # noqa: ANN401, ARG002 - Celery's signature
        einfo.tb = None


def _task(name: str) -> Callable[[Callable[..., dict[str, int]]], Any]:
    return shared_task(name=f"lockbox.{name}", base=LockboxTask, throws=(TaskFailed,))


@_task("time_out")
def time_out(ids: list[str]) -> dict[str, int]:
    return _run("time_out", lambda: _run_clock(ids, "timed_out"))


@_task("expire")
def expire(ids: list[str]) -> dict[str, int]:
    return _run("expire", lambda: _run_clock(ids, "expired"))


@_task("remind")
def remind(ids: list[str]) -> dict[str, int]:
    return _run("remind", lambda: _run_clock(ids, "reminded"))


@_task("notify")
def notify(ids: list[str]) -> dict[str, int]:
    return _run("notify", lambda: _notify(_uuids(ids, MOST_NOTIFICATIONS)))


@_task("case_check")
def check_case(ids: list[str]) -> dict[str, int]:
    """Ask a ticket system about a case, and record its answer once. An engineer is waiting for the answer."""
    return _run("case_check", lambda: _check_case(_uuids(ids, MOST_CASES)))


@_task("connect")
def connect(ids: list[str]) -> dict[str, int]:
    return _run("connect", lambda: _connect(_uuids(ids, MOST_CONNECTIONS)))


@_task("reconcile")
def reconcile() -> dict[str, int]:
    return _run("reconcile", lambda: _maintain(RECONCILE))


@_task("seal")
def seal() -> dict[str, int]:
    return _run("seal", lambda: _maintain(SEAL))


def _run_clock(ids: list[str], wanted: str) -> Mapping[str, int]:
    """Run the timers of these requests. Each row, not the task's name, decides which action is due."""
    requests = _uuids(ids, MOST_IDS)
    with traces.span(f"clock {wanted}", SpanKind.INTERNAL):
        counts = timers.run(runtime().database, requests)
    if failed := counts["failed"]:
        raise TaskFailed(f"{failed} of {len(requests)} requests could not be written; they come again")
    return {wanted: 0} | counts | _nonzero(skipped=len(set(requests)) - counts.total())


def _notify(ids: list[UUID]) -> Mapping[str, int]:
    tools = runtime()
    if tools.senders is None:
        raise TaskFailed("set LOCKBOX_SMTP_URL: this worker cannot send notifications")
    with _patience() as stall:
        try:
            return {"sent": 0} | delivery.notify(tools.database, ids, tools.senders, stall)
        except delivery.NotRecorded as error:
            raise TaskFailed(str(error)) from None


def _check_case(ids: list[UUID]) -> Mapping[str, int]:
    tools = runtime()
    if tools.cases is None:
        raise TaskFailed("this worker asks no ticket systems")
    may_wait = _asking.acquire(timeout=HURRIED_SECONDS)
    try:
        return Counter(case_check.run(tools.database, one, tools.cases, may_wait=may_wait) for one in ids)
    finally:
        if may_wait:
            _asking.release()


def _connect(ids: list[UUID]) -> Mapping[str, int]:
    driver = runtime().driver
    if driver is None:
        raise TaskFailed("set LOCKBOX_CONNECTORS_DATABASE_URL: this worker opens nothing at targets")
    with traces.span("connect", SpanKind.INTERNAL):
        counts = driver.run(ids)
    if failed := counts["failed"]:
        raise TaskFailed(f"{failed} of {counts.total()} steps at targets failed; they are taken again")
    return counts


@contextmanager
def _patience() -> Iterator[float]:
    """Yield how many seconds to wait for one more result: fewer if half of the threads already wait."""
    is_patient = _patient.acquire(blocking=False)
    try:
        yield SEND_SECONDS if is_patient else HURRIED_SECONDS
    finally:
        if is_patient:
            _patient.release()


def _maintain(job: MaintenanceJob) -> Mapping[str, int]:
    try:
        return maintenance.run(runtime(), job)
    except RollbackDetected as held:
        raise TaskFailed(f"some logs are held: {held}") from None
    except OSError as error:
        raise TaskFailed(f"checkpoints cannot be shipped: {error.strerror}") from None


def _run(task: str, work: Callable[[], Mapping[str, int]]) -> dict[str, int]:
    """Do the work, and once more if a connection was lost: every task may be repeated."""
    try:
        try:
            return dict(work())
        except AWAY as error:
            if not getattr(error, "connection_invalidated", False):
                raise
            return dict(work())
    except TaskFailed as error:
        log.warning("task.failed", task=task, error=str(error))
        raise
    except AWAY as error:
        log.warning("task.failed", task=task, error=type(error).__name__)
        reason = f"Postgres is away or too slow ({type(error).__name__}); the work is still due and comes again"
    except Exception as error:
        log.exception("task.failed", task=task)
        reason = f"{type(error).__name__}: see the worker's log; the work is still due and comes again"
    # Raised outside the handlers, the exception has no context that would be sent with it.
    raise TaskFailed(reason)


def _nonzero(**counts: int) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def _uuids(ids: list[str], most: int) -> list[UUID]:
    return [UUID(one) for one in ids[:most] if isinstance(one, str) and UUID_FORM.fullmatch(one)]
