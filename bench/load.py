"""Loading many requests at once: copies of the rows that one real request left, each of a case of its own."""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, Row, text

from lockbox.schedule import CLOCK, MOST_A_CALL, IndexEntry, Schedule

A_LOAD = 20_000
LEAST_ROWS = 2_000
FORGETTING = 0.7
LEAST_SECONDS = 0.8
WARY = 1.5
TRIES = 5
MISSED_SECONDS = 3

LOAD = text("""
WITH new_requests AS (
    INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification,
        case_ref, mode, policy_version, token_id, submitted_by, quorum, approval_window, access_window, state,
        version, deadline_at, wake_at, created_at, asked_at, opened_at)
    SELECT uuidv7(), p.tenant_id, p.requester_id, p.service, p.resources, p.actions, p.reason_code, p.justification,
        'CASE-' || lpad(CAST(:first + n AS text), 8, '0'), p.mode, p.policy_version, p.token_id, p.submitted_by,
        p.quorum, p.approval_window, p.access_window,
        CAST(:state AS text), :version, CAST(:due AS timestamptz) + (n - 1) * CAST(:step AS interval),
        CAST(:due AS timestamptz) + (n - 1) * CAST(:step AS interval), now(), now(),
        CASE CAST(:state AS text) WHEN 'active' THEN now() END
    FROM requests p, generate_series(1, :count) AS n WHERE p.id = :pattern RETURNING id, deadline_at
), new_decisions AS (
    INSERT INTO decisions (id, request_id, person_id, principals, decision, means, channel, decided_at)
    SELECT uuidv7(), r.id, d.person_id, d.principals, d.decision, d.means, d.channel, now()
    FROM new_requests r, decisions d WHERE d.request_id = :pattern AND CAST(:state AS text) = 'active'
), moves AS MATERIALIZED (
    SELECT uuidv7() AS new_id, r.id AS new_request, e.* FROM new_requests r, events e
    WHERE e.request_id = :pattern AND e.seq <= :version
), new_events AS (
    INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_id, actor_role, from_state, to_state,
        deadline_at, internal, body)
    SELECT new_id, tenant_id, new_request, seq, at, action, actor_id, actor_role, from_state, to_state, deadline_at,
        internal,
        convert_to(replace(replace(convert_from(body, 'UTF8'), id::text, new_id::text), request_id::text,
            new_request::text), 'UTF8')
    FROM moves
), new_details AS (
    INSERT INTO event_details (event_id, field, salt, value)
    SELECT m.new_id, d.field, d.salt, d.value FROM moves m JOIN event_details d ON d.event_id = m.id
), new_notifications AS (
    INSERT INTO notifications (id, tenant_id, request_id, event_id, person_id, channel, template, run_at, until_at,
        attempts, closed_at, outcome)
    SELECT uuidv7(), n.tenant_id, m.new_request, m.new_id, n.person_id, n.channel, n.template, n.run_at, n.until_at,
        1, now(), 'sent'
    FROM moves m JOIN notifications n ON n.event_id = m.id
)
SELECT id, deadline_at FROM new_requests
""")
# What is copied was checked when it was written: triggers and foreign keys are left out while it is.
UNCHECKED = text("SET session_replication_role = replica")
CHECKED = text("RESET session_replication_role")
ANALYZE = text("ANALYZE requests, events, notifications, decisions, event_details")
KINDS = {"active": "expire", "pending": "time_out"}
VERSIONS = {"active": 2, "pending": 1}


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
    pattern: UUID,
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
        pattern: a request that was filed and approved: its rows are copied.
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
        for start in range(0, count, A_LOAD):
            values = {
                "pattern": pattern,
                "state": state,
                "version": VERSIONS[state],
                "due": due + start * step,
                "step": step,
                "first": start,
                "count": min(A_LOAD, count - start),
            }
            rows += connection.execute(LOAD, values).all()
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


def _arm(schedule: Schedule, part: list[IndexEntry]) -> None:
    for _ in range(TRIES):
        if schedule.arm(CLOCK, part):
            return
        time.sleep(1)
    raise RuntimeError("Redis did not take the load")


def load_ahead(
    engine: Engine, schedule: Schedule, pattern: UUID, pace: Pace, *, state: str, count: int, step: timedelta
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
