"""Loading many requests at once: copies of the rows that one real request left, each of a case of its own."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Row, text

from bench.rows import REQUESTS, Footprint
from lockbox.schedule import CLOCK, MOST_A_CALL, IndexEntry, Schedule

A_LOAD = 20_000
LEAST_ROWS = 2_000
FORGETTING = 0.7
LEAST_SECONDS = 0.8
WARY = 1.5
TRIES = 5
MISSED_SECONDS = 3

# What is copied was checked when it was written: triggers and foreign keys are left out while it is.
UNCHECKED = text("SET session_replication_role = replica")
CHECKED = text("RESET session_replication_role")
ANALYZE = text("ANALYZE")
KINDS = {"active": "expire", "pending": "time_out"}
VERSIONS = {"active": 2, "pending": 1}
OF_EACH = {
    "case_ref": "'CASE-' || lpad((%(first)s + n.number)::text, 8, '0')",
    "deadline_at": "n.due",
    "wake_at": "n.due",
    "created_at": "now()",
    "asked_at": "now()",
}
OPENED = {"active": "now()", "pending": "NULL::timestamptz"}


@dataclass
class Pace:
    """How many seconds a row took to be loaded and armed, of late: due times are chosen by it."""

    seconds_each: float = 1 / 3000

    def ahead(self, count: int) -> timedelta:
        """Return how far ahead due times have to be."""
        return timedelta(seconds=LEAST_SECONDS + WARY * count * self.seconds_each)

    def learn(self, count: int, seconds: float) -> None:
        """Hear how long so many took: more than so far counts at once, less little by little."""
        self.seconds_each = max(seconds / max(count, LEAST_ROWS), FORGETTING * self.seconds_each)


@dataclass(frozen=True)
class LoadedRows:
    """The ids of what was loaded, in the order in which it is due, and when the first is."""

    ids: list[UUID]
    dues: list[datetime]

    @property
    def due(self) -> datetime:
        """The first due time: that of all, unless they were spread."""
        return self.dues[0]


def clock(engine: Engine) -> datetime:
    """Return what Postgres' clock says."""
    with engine.connect() as connection:
        now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def load(
    engine: Engine,
    schedule: Schedule | None,
    pattern: Footprint,
    *,
    state: str,
    count: int,
    due: datetime,
    step: timedelta = timedelta(0),
) -> LoadedRows:
    """Write that many requests in a state like the pattern was in, and arm them where a schedule is given.

    Args:
        engine: with every right.
        schedule: what is armed.
        pattern: the rows of a request that was submitted and approved.
        state: `pending` or `active`.
        count: how many.
        due: when the first is due.
        step: how long after it the next one is.

    Raises:
        RuntimeError: Redis did not take the load.
    """
    rows: list[Row[Any]] = []
    with engine.connect() as connection:
        connection.execute(UNCHECKED)
        statement = _statement(pattern, state)
        for start in range(0, count, A_LOAD):
            values = {
                "due": due + start * step,
                "step": step,
                "first": start,
                "count": min(A_LOAD, count - start),
            }
            rows += connection.exec_driver_sql(statement, values).all()
        connection.execute(CHECKED)
        if count > 1:
            connection.execute(ANALYZE)
            connection.execute(text("CHECKPOINT"))
    rows.sort(key=lambda row: row.deadline_at)
    for start in range(0, len(rows), MOST_A_CALL) if schedule else ():
        part = [IndexEntry(str(row.id), KINDS[state], row.deadline_at) for row in rows[start : start + MOST_A_CALL]]
        if schedule:
            _arm(schedule, part)
    return LoadedRows([row.id for row in rows], [row.deadline_at for row in rows])


def _statement(pattern: Footprint, state: str) -> str:
    """Return what copies the rows of a request that was submitted, or approved too, so many times."""
    wanted = pattern.until(VERSIONS[state])
    row = {"state": f"'{state}'", "version": str(VERSIONS[state]), "opened_at": OPENED[state], **OF_EACH}
    inserts = [f"{table}_rows AS ({insert})" for table, insert in wanted.inserts({REQUESTS: row})]
    due = "%(due)s::timestamptz + (number - 1) * %(step)s::interval AS due"
    numbers = "generate_series(1, %(count)s) AS number"
    made = f"SELECT uuidv7() AS request_id, {wanted.fresh()}, number, {due} FROM {numbers}"
    return f"WITH n AS MATERIALIZED ({made}), {', '.join(inserts)} SELECT request_id AS id, due AS deadline_at FROM n"


def _arm(schedule: Schedule, part: list[IndexEntry]) -> None:
    for _ in range(TRIES):
        if schedule.arm(CLOCK, part):
            return
        time.sleep(1)
    raise RuntimeError("Redis did not take the load")


def load_ahead(
    engine: Engine, schedule: Schedule, pattern: Footprint, pace: Pace, *, state: str, count: int, step: timedelta
) -> LoadedRows:
    """Load what falls due soon, as far ahead as loading takes, and learn from how long it took.

    What was due before the last of it was armed is left to end, and another load is tried.

    Raises:
        RuntimeError: it took too long each time.
    """
    for _ in range(TRIES):
        began = time.monotonic()
        due = clock(engine) + pace.ahead(count)
        loaded = load(engine, schedule, pattern, state=state, count=count, due=due, step=step)
        pace.learn(count, time.monotonic() - began)
        if clock(engine) < loaded.due:
            return loaded
        time.sleep(MISSED_SECONDS)
    raise RuntimeError(f"loading {count} requests takes ever longer; run the benchmark on a quiet machine")
