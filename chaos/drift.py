"""Where Redis' indexes break their promise (I8) to hold all of the next minute, and nothing beyond Postgres."""

import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from uuid import UUID

from sqlalchemy import Engine, text

from lockbox.schedule import CLOCK, CONNECTIONS, INDEXES, NOTIFICATIONS, IndexEntry, Schedule, ScheduleIndex

RECONCILED_SECONDS = 60.0
LOOK_SECONDS = 0.5
LATE_MS = 3000
PROMISED = {
    CLOCK: text("""
SELECT CASE WHEN wake_at < deadline_at THEN 'remind' WHEN state = 'active' THEN 'expire' ELSE 'time_out' END
    || ':' || id AS member,
    ceil(extract(epoch FROM wake_at) * 1000) AS due FROM requests WHERE wake_at IS NOT NULL
"""),
    NOTIFICATIONS: text("""
SELECT 'notify:' || id AS member, ceil(extract(epoch FROM run_at) * 1000) AS due FROM notifications WHERE closed_at
IS NULL
UNION ALL SELECT 'notify:' || event_id, ceil(extract(epoch FROM run_at) * 1000) FROM outbox
UNION ALL SELECT 'notify:' || id, ceil(extract(epoch FROM settle_by) * 1000) FROM unsettled
"""),
    CONNECTIONS: text("""
SELECT 'connect:' || id AS member, ceil(extract(epoch FROM run_at) * 1000) AS due FROM connections
WHERE run_at IS NOT NULL
"""),
}
# Well within the last minute, in which a reconcile has to arm the row.
WIND = {
    CLOCK: text("UPDATE requests SET wake_at = least(wake_at, clock_timestamp() + :soon) WHERE id = ANY(:ids)"),
    NOTIFICATIONS: text(
        "UPDATE notifications SET run_at = least(run_at, clock_timestamp() + :soon) WHERE id = ANY(:ids)"
    ),
    CONNECTIONS: text(
        "UPDATE connections SET run_at = least(run_at, clock_timestamp() + :soon) WHERE id = ANY(:ids)"
    ),
}
SOON = timedelta(seconds=50)


def drift(superuser: Engine, redis_url: str) -> list[str]:
    """Wait for a reconcile, and return where the indexes differ from the open timers and notifications in Postgres.

    An entry may not have been armed at its commit, because Redis was away or slow, or because the process that armed
    it died. It is armed in its last minute, unless the index is rebuilt earlier: so this function makes its last
    minute come. An entry that an index holds beyond Postgres is dropped only when it is due: so this function makes
    it due.
    """
    schedule = Schedule(redis_url)
    try:
        wind(superuser, schedule)
        until = time.monotonic() + RECONCILED_SECONDS
        while (found := list(differences(superuser, schedule))) and time.monotonic() < until:
            time.sleep(LOOK_SECONDS)
    finally:
        schedule.close()
    return found


def wind(superuser: Engine, schedule: Schedule) -> None:
    """For entries that the indexes lack, make their last minute come; make entries that Postgres lacks due."""
    for index in INDEXES:
        promised, held = _promised(superuser, index).keys(), schedule.members(index).keys()
        with (
            superuser.connect().execution_options(isolation_level="READ COMMITTED") as connection,
            connection.begin(),
        ):
            # Without triggers: they refuse a change that moves only a request's timer.
            connection.execute(text("SET LOCAL session_replication_role = replica"))
            connection.execute(WIND[index], {"soon": SOON, "ids": [UUID(id_) for _, id_ in _parted(promised - held)]})
        schedule.arm(index, [IndexEntry(id_, kind, timedelta(0)) for kind, id_ in _parted(held - promised)])


def differences(superuser: Engine, schedule: Schedule) -> Iterator[str]:
    """Yield a line for each difference at this moment.

    A process that looks at a request too early arms it again with a delay, which is late by its time on the way to
    Redis.
    """
    for index in INDEXES:
        promised, held = _promised(superuser, index), schedule.members(index)
        yield from (f"{index.name} lacks {member}" for member in promised.keys() - held.keys())
        yield from (f"{index.name} holds {member}" for member in held.keys() - promised.keys())
        for member in promised.keys() & held.keys():
            if not 0 <= held[member] - promised[member] <= LATE_MS:
                yield f"{index.name} has {member} at {held[member]}, not {promised[member]}"


def _promised(superuser: Engine, index: ScheduleIndex) -> dict[str, float]:
    with superuser.connect() as connection:
        return {row.member: float(row.due) for row in connection.execute(PROMISED[index]).all()}


def _parted(members: Iterable[str]) -> Iterator[tuple[str, str]]:
    for member in members:
        kind, _, id_ = member.partition(":")
        yield kind, id_
