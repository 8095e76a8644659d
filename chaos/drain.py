"""After the faults, heal everything, and wait until nothing is open; at last, make back-offs and leases run out."""

import time
from collections.abc import Sequence

import httpx
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from chaos.servers import LOGINS, NO_ONE
from chaos.stage import ChaosStack
from harness.wait import within
from lockbox.schedule import NOTIFICATIONS, IndexEntry, Schedule

LOOK_SECONDS = 0.25
WIND_SECONDS = 4.0
HEAL_SECONDS = 120.0
READY_SECONDS = 20.0
LONGEST_SECONDS = 90.0

LEFT = text("""
SELECT (SELECT count(*) FROM requests WHERE wake_at IS NOT NULL AND NOT id = ANY(CAST(:calm AS uuid[]))) AS requests,
    (SELECT count(*) FROM notifications WHERE closed_at IS NULL) + (SELECT count(*) FROM outbox)
        + (SELECT count(*) FROM unsettled) AS notifications,
    (SELECT count(*) FROM reports_due) AS reports,
    (SELECT count(*) FROM unsealed) AS unsealed
""")
# If a worker is killed while it sends a notification, its lease lasts for a minute. Leases and back-offs double with
# each try. Locked rows are skipped: waiting for locks in another order than their holders would be a deadlock.
WIND = text("""
UPDATE notifications SET run_at = clock_timestamp() WHERE id IN (
    SELECT id FROM notifications WHERE closed_at IS NULL AND run_at > clock_timestamp() + interval '1 second'
    ORDER BY id FOR UPDATE SKIP LOCKED
) RETURNING id, run_at
""")
WIND_REPORTS = text("UPDATE reports_due SET due_at = clock_timestamp() WHERE due_at > clock_timestamp()")


class NotHealed(Exception):  # noqa: N818 - the name says what went wrong
    """The stack did not come up again although all faults are lifted; the message says what is missing."""


def heal(stage: ChaosStack) -> None:
    """Lift all faults that may remain, and wait until everything is up.

    Raises:
        NotHealed: something did not come up within two minutes.
    """
    stage.calm()
    for server in ("postgres", "redis"):
        stage.servers.start_again(server)
    with stage.redis() as redis:
        redis.replicaof(*NO_ONE)
        redis.config_set("maxmemory", 0)
        stage.messages.release(redis, 0)
    with stage.superuser.connect() as connection:
        for login in LOGINS:
            connection.execute(text(f"ALTER ROLE {login} CONNECTION LIMIT -1"))
    if not within(HEAL_SECONDS, stage.crew.are_up, LOOK_SECONDS):
        raise NotHealed("some process did not come up again")
    if not within(HEAL_SECONDS, lambda: _serves(stage.plan.public_url), LOOK_SECONDS):
        raise NotHealed("the API serves nobody any more")


def _serves(url: str) -> bool:
    """Whether the API is ready; on a very busy machine the answer may take a while."""
    try:
        return httpx.get(f"{url}/readyz", timeout=READY_SECONDS, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def drain(stage: ChaosStack, calm: Sequence[str], patience: float) -> dict[str, int]:
    """Wait until nothing is open except what is `calm`, and return what is left, empty if nothing is.

    After `patience` seconds, all that waits for a back-off, or for the lease of a killed process, is repeatedly made
    due, as time itself would do; what is still not done then never will be.
    """
    began = wound = time.monotonic()
    while left := _left(stage, calm):
        now = time.monotonic()
        if now > began + patience + LONGEST_SECONDS:
            return left
        if now > began + patience and now > wound + WIND_SECONDS:
            wound = now
            _wind(stage)
        time.sleep(LOOK_SECONDS)
    return {}


def _wind(stage: ChaosStack) -> None:
    schedule = Schedule(stage.servers.redis_url)
    with stage.superuser.connect() as connection:
        connection.execute(WIND_REPORTS)
        promises = [IndexEntry(str(row.id), NOTIFICATIONS.kinds[0], row.run_at) for row in connection.execute(WIND)]
    schedule.arm(NOTIFICATIONS, promises)
    schedule.close()


def _left(stage: ChaosStack, calm: Sequence[str]) -> dict[str, int]:
    try:
        with stage.superuser.connect() as connection:
            row = connection.execute(LEFT, {"calm": list(calm)}).one()
    except SQLAlchemyError:
        return {"postgres": 1}
    return {name: count for name, count in row._mapping.items() if count}  # noqa: SLF001 - SQLAlchemy's public name
