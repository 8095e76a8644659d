"""The Celery tasks: hints that carry ids. None is an authority; each looks again at the rows it is about."""

from uuid import UUID

import structlog
from celery import shared_task

from lockbox import reconcile as repairing
from lockbox.notices import delivery
from lockbox.requests import clock
from lockbox.schedule import UUID_FORM
from worker import sealer
from worker.runtime import runtime

log = structlog.get_logger(__name__)

MOST_IDS = 500
MOST_NOTICES = 50
RECONCILE_SECONDS = 60


@shared_task(name="lockbox.time_out")
def time_out(ids: list[str]) -> None:
    """Look at requests whose time for an answer may have run out."""
    clock.run(runtime().database, _uuids(ids, MOST_IDS))


@shared_task(name="lockbox.expire")
def expire(ids: list[str]) -> None:
    """Look at requests whose window may have ended."""
    clock.run(runtime().database, _uuids(ids, MOST_IDS))


@shared_task(name="lockbox.notify")
def notify(ids: list[str]) -> None:
    """Hand notices that may be due for sending to the lanes of this process; no server is waited for here."""
    tools = runtime()
    if tools.senders is None:
        raise RuntimeError("LOCKBOX_SMTP_URL is not set: this worker cannot send notices")
    delivery.dispatch(tools.database, _uuids(ids, MOST_NOTICES), tools.senders)


@shared_task(name="lockbox.reconcile", time_limit=RECONCILE_SECONDS, soft_time_limit=RECONCILE_SECONDS - 5)
def reconcile() -> None:
    """Repair the schedule from Postgres now rather than at the next round."""
    tools = runtime()
    for step in repairing.reconcile(tools.database, None, deliveries_kept=tools.deliveries_kept):
        log.info("reconcile.step", step=step)


@shared_task(name="lockbox.seal", time_limit=RECONCILE_SECONDS, soft_time_limit=RECONCILE_SECONDS - 5)
def seal() -> None:
    """Seal what was written now rather than within the second."""
    tools = runtime()
    if tools.sealing is None:
        raise RuntimeError("LOCKBOX_AUDIT_KEY_FILES is not set: this worker cannot sign")
    for step in sealer.seal(tools, tools.sealing):
        log.info("seal.step", step=step)


def _uuids(ids: list[str], most: int) -> list[UUID]:
    return [UUID(one) for one in ids[:most] if isinstance(one, str) and UUID_FORM.fullmatch(one)]
