"""The Celery tasks: hints that carry ids. None is an authority; each looks again at the rows it is about."""

from collections.abc import Callable
from uuid import UUID

import structlog
from celery import shared_task
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lockbox import reconcile as repairing
from lockbox.notifications import delivery
from lockbox.requests import timers
from lockbox.schedule import UUID_FORM
from worker import sealer
from worker.runtime import Runtime, SealingSettings, runtime

log = structlog.get_logger(__name__)

MOST_IDS = 500
MOST_NOTIFICATIONS = 50
RECONCILE_SECONDS = 60
AWAY = (OperationalError, InterfaceError, PoolTimeout)


@shared_task(name="lockbox.time_out")
def time_out(ids: list[str]) -> None:
    """Look at requests whose time for an answer may have run out."""
    _run_with_reconnect("time_out", lambda: timers.run(runtime().database, _uuids(ids, MOST_IDS)))


@shared_task(name="lockbox.expire")
def expire(ids: list[str]) -> None:
    """Look at requests whose window may have ended."""
    _run_with_reconnect("expire", lambda: timers.run(runtime().database, _uuids(ids, MOST_IDS)))


@shared_task(name="lockbox.remind")
def remind(ids: list[str]) -> None:
    """Remind people of the given requests, ask the next tier, or warn before a window ends."""
    _run_with_reconnect("remind", lambda: timers.run(runtime().database, _uuids(ids, MOST_IDS)))


@shared_task(name="lockbox.notify")
def notify(ids: list[str]) -> None:
    """Hand notifications that may be due for sending to the lanes of this process; no server is waited for here."""
    tools = runtime()
    if tools.senders is None:
        raise RuntimeError("LOCKBOX_SMTP_URL is not set: this worker cannot send notifications")
    senders = tools.senders
    _run_with_reconnect("notify", lambda: delivery.dispatch(tools.database, _uuids(ids, MOST_NOTIFICATIONS), senders))


@shared_task(name="lockbox.reconcile", time_limit=RECONCILE_SECONDS)
def reconcile() -> None:
    """Repair the schedule from Postgres now rather than at the next round."""
    _run_with_reconnect("reconcile", _reconcile)


@shared_task(name="lockbox.seal", time_limit=RECONCILE_SECONDS)
def seal() -> None:
    """Seal what was written now rather than within the second."""
    tools = runtime()
    if tools.sealing is None:
        raise RuntimeError("LOCKBOX_AUDIT_KEY_FILES is not set: this worker cannot sign")
    sealing = tools.sealing
    _run_with_reconnect("seal", lambda: _seal(tools, sealing))


def _reconcile() -> None:
    tools = runtime()
    for step in repairing.reconcile(tools.database, None, deliveries_kept=tools.deliveries_kept):
        log.info("reconcile.step", step=step)


def _seal(tools: Runtime, sealing: SealingSettings) -> None:
    for step in sealer.seal(tools, sealing):
        log.info("seal.step", step=step)


def _run_with_reconnect(task: str, work: Callable[[], object]) -> None:
    """Do it, and once more where a connection turned out to be gone; every task may be done again.

    A Postgres that is away, or too slow, is no failure: what is due stays due and is given out again. A failure sends
    its traceback to the worker's parent. While that waits for the broker it reads none, pipes fill, and a time limit
    that strikes in the midst of such a write ends the whole worker (billiard 4.3).
    """
    for is_last in (False, True):
        try:
            work()
        except AWAY as error:
            if is_last or not getattr(error, "connection_invalidated", False):
                log.warning("task.waiting", task=task, error=type(error).__name__)
                return
        else:
            return


def _uuids(ids: list[str], most: int) -> list[UUID]:
    return [UUID(one) for one in ids[:most] if isinstance(one, str) and UUID_FORM.fullmatch(one)]
