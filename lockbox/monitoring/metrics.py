"""Metrics of an installation, read from Postgres and Redis."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from lockbox import sql, startup_checks
from lockbox.database import Database
from lockbox.monitoring.heartbeats import LagSample
from lockbox.redis_scripts import QueueDepth, RedisUnavailable
from lockbox.sql import insert_list

KEPT = timedelta(hours=25)
# The average delay of the deadlines that the clock has ended since the last sample, or for how long the oldest
# deadline is overdue, if that is more.
SAMPLE = text(f"""
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at),
so_far AS MATERIALIZED (
    SELECT coalesce(sum(count), 0) AS ended, coalesce(sum(total), 0) AS late FROM counters
    WHERE name = 'deadline_lag'),
before AS MATERIALIZED (SELECT ended, late FROM lag_samples ORDER BY at DESC LIMIT 1),
oldest AS MATERIALIZED (SELECT wake_at FROM requests WHERE wake_at IS NOT NULL ORDER BY wake_at LIMIT 1)
INSERT INTO {insert_list(LagSample)}
SELECT c.at,
    greatest(0, extract(epoch FROM c.at - (SELECT wake_at FROM oldest)),
        (s.late - b.late) / nullif(s.ended - b.ended, 0)),
    seal_lag(), s.ended, s.late
FROM clock c CROSS JOIN so_far s LEFT JOIN before b ON true
""")  # noqa: S608 - ours
PRUNE = text("DELETE FROM lag_samples WHERE at < clock_timestamp() - CAST(:kept AS interval)")
log = structlog.get_logger(__name__)
MOST_SILENT = 60.0
"""For how many seconds after its last heartbeat a process counts as alive."""
MOST_COUNTED = 100_000
"""The highest count (see operating_figures() in lockbox/schema/functions.sql)."""
MOST_SHOWN = 1000
"""The highest shown number of requests of a state; counting stops one above (see operating_states() there)."""
LIMITS = text("SELECT set_config('statement_timeout', '3s', true), set_config('lock_timeout', '500ms', true)")
READ = text(f"""
SELECT name, label, value FROM operating_figures()
UNION ALL SELECT 'lagging_standby', '', ({startup_checks.LAGGING_STANDBY})::int
""")  # noqa: S608 - put together from parts of our own
HOURS = 24
HOUR = timedelta(hours=1)
MOVES = frozenset({"submitted", "decided", "timed_out"})
"""Names of counts of requests; the other counts, `sent` and `dead`, count notifications."""
DAY = text("SELECT name, hour, value FROM operating_day()")
GATE = text("SELECT gateway, service, decision, reason, number, of_hour, of_day FROM operating_gate()")


class MetricName(StrEnum):
    OVERDUE = "overdue"
    PENDING = "pending"
    ACCESS_OPEN = "access_open"
    SOON = "soon"
    UNSENT = "unsent"
    OLDEST_UNSENT = "oldest_unsent"
    DEAD = "dead"
    DEAD_LATELY = "dead_lately"
    WEBHOOKS_FAILING = "webhooks_failing"
    CONNECTION_STATE = "connection_state"
    NEEDS_CONNECTORS = "needs_connectors"
    UNSEALED = "unsealed"
    SEAL_LAG = "seal_lag"
    CHECKPOINT_AGE = "checkpoint_age"
    HEARTBEAT = "heartbeat"
    PROCESSES = "processes"
    SKEW = "skew"
    ROLLED_BACK = "rolled_back"
    UNVERIFIED = "unverified"
    CONNECTIONS_PROMISED = "connections_promised"
    CONNECTIONS_ALLOWED = "connections_allowed"
    LAGGING_STANDBY = "lagging_standby"
    ATTEMPT = sql.ATTEMPT
    DROPPED = sql.DROPPED
    USES_LOST = "uses_lost"
    OUTSIDE_ACCESS = "outside_access"
    OUTSIDE_ACCESS_LATELY = "outside_access_lately"
    GATE_REPORTS = "gate_reports"
    CASE_CHECKS = "case_checks"
    FINDINGS = "findings"
    LEGAL_HOLDS = "legal_holds"
    OFFBOARDINGS = "offboardings"
    DEADLINE_LAG = sql.DEADLINE_LAG
    DEADLINE_LAG_TOTAL = "deadline_lag_total"


def sample(database: Database) -> None:
    """Record the lags, and delete samples older than 25 hours."""
    with database.transaction() as session:
        connection = session.connection()
        connection.execute(PRUNE, {"kept": KEPT})
        connection.execute(SAMPLE)


@dataclass(frozen=True)
class MetricSnapshot:
    """Postgres' numbers by name and label, and the state of Redis; each is None if its server is unreachable."""

    postgres: Mapping[tuple[str, str], float] | None
    redis: QueueDepth | None

    def one(self, name: MetricName, label: str = "") -> float | None:
        return (self.postgres or {}).get((name, label))

    def labelled(self, name: MetricName) -> dict[str, float]:
        return {label: value for (held, label), value in (self.postgres or {}).items() if held == name}

    def missing(self) -> float:
        return sum(number for (_, way), number in self.drift().items() if way == "missing")

    def drift(self) -> dict[tuple[str, str], float]:
        """Return how many entries each index lacks (`missing`) or has in excess (`extra`), compared with Postgres.

        The comparison covers the timers due within the next hour, and all notifications if there are not too many to
        count.
        """
        if self.postgres is None or self.redis is None:
            return {}
        surplus = {"clock": self.redis.clocks_in_span - (self.one(MetricName.SOON, "count") or 0)}
        unsent = sum(self.labelled(MetricName.UNSENT).values())
        if unsent < MOST_COUNTED:
            surplus["notifications"] = self.redis.notifications - unsent
        return {
            (index, direction): max(0, sign * by)
            for index, by in surplus.items()
            for direction, sign in (("missing", -1), ("extra", 1))
        }

    def channel(self, channel: str) -> dict[str, float | None]:
        """All figures are None if Postgres is unreachable."""
        names: dict[str, MetricName] = {
            "unsent": MetricName.UNSENT,
            "oldest_unsent_seconds": MetricName.OLDEST_UNSENT,
        }
        names |= {"dead": MetricName.DEAD, "dead_within_a_day": MetricName.DEAD_LATELY}
        known = self.postgres is not None
        return {said: self.one(name, channel) or 0.0 if known else None for said, name in names.items()}

    def gates_reporting(self) -> str | None:
        if self.postgres is None:
            return None
        services = sorted(self.labelled(MetricName.GATE_REPORTS).items())
        named = [f"{name} for {number:,.0f} {'tenant' if number == 1 else 'tenants'}" for name, number in services]
        return ", ".join(named) or "none"

    def oldest_unacked_age(self) -> float | None:
        """In seconds; 0 if there is no unacknowledged message, None if Redis is unreachable."""
        if self.redis is None:
            return None
        oldest = self.redis.oldest_unacked_at
        return max(0.0, self.redis.now - oldest) if oldest is not None else 0.0


def at_most(number: int) -> str:
    return f"{MOST_SHOWN:,}+" if number > MOST_SHOWN else f"{number:,}"


def read(database: Database) -> MetricSnapshot:
    """Read the figures; each server gets a few seconds at most."""
    numbers = _postgres(database)
    of = numbers or {}
    span = (of.get((MetricName.SOON, "from"), 0.0), of.get((MetricName.SOON, "to"), 0.0))
    try:
        held = database.schedule.look(span)
    except RedisUnavailable as away:
        log.warning("figures.redis_away", error=str(away))
        held = None
    return MetricSnapshot(numbers, held)


def _postgres(database: Database) -> dict[tuple[str, str], float] | None:
    try:
        with database.transaction() as session:
            session.execute(LIMITS)
            rows = session.execute(READ).all()
    except SQLAlchemyError as error:
        log.warning("figures.postgres_away", error=type(error).__name__)
        return None
    return {(row.name, row.label): float(row.value) for row in rows if row.value is not None}


@dataclass(frozen=True)
class HourlyCounts:
    """Numbers by name and hour; `hours` are the beginnings of the last 24 hours, the current hour last."""

    hours: tuple[datetime, ...]
    numbers: Mapping[tuple[str, datetime], float]
    moves_from: datetime | None = None
    notifications_from: datetime | None = None
    schedule_lag: float | None = None

    def counts(self, name: str) -> tuple[float | None, ...]:
        since = self.moves_from if name in MOVES else self.notifications_from
        return tuple(
            None if since and hour + HOUR <= since else self.numbers.get((name, hour), 0.0) for hour in self.hours
        )

    def worst(self, name: str) -> tuple[float | None, ...]:
        """The longest lags, in seconds; None for hours without samples."""
        return tuple(self.numbers.get((name, hour)) for hour in self.hours)


def read_day(database: Database) -> HourlyCounts | None:
    try:
        with database.transaction() as session:
            session.execute(LIMITS)
            rows = session.execute(DAY).all()
    except SQLAlchemyError as error:
        log.warning("day.postgres_away", error=type(error).__name__)
        return None
    found = {(row.name, row.hour): row.value for row in rows}
    at = {row.name: row.hour for row in rows}
    begins = at["begins"]
    return HourlyCounts(
        hours=tuple(begins + HOUR * number for number in range(HOURS)),
        numbers=found,
        moves_from=at.get("moves_from"),
        notifications_from=at.get("notifications_from"),
        schedule_lag=next((row.value for row in rows if row.name == "schedule_lag_now"), None),
    )


@dataclass(frozen=True)
class GateAnswers:
    """How often the gate gave one kind of answer to one gateway: in all, in the last hour, and in the last day.

    `gateway` is empty without a valid token. `service` is empty if the gateway may not ask about the named service.
    """

    gateway: str
    service: str
    decision: str
    reason: str
    number: int
    of_hour: int
    of_day: int


def read_gate(database: Database) -> list[GateAnswers] | None:
    """At most a thousand kinds of answers; None if Postgres does not answer."""
    try:
        with database.transaction() as session:
            session.execute(LIMITS)
            rows = session.execute(GATE).all()
    except SQLAlchemyError as error:
        log.warning("gate_answers.postgres_away", error=type(error).__name__)
        return None
    return [
        GateAnswers(
            row.gateway, row.service, row.decision, row.reason, int(row.number), int(row.of_hour), int(row.of_day)
        )
        for row in rows
    ]
