"""How an installation stands, for whoever operates it: everything at once, from whatever answers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from lockbox import migrations, startup_checks
from lockbox.admin import permissions
from lockbox.database import Database
from lockbox.identity import row_security
from lockbox.identity.roles import Caller, Role
from lockbox.monitoring import metrics
from lockbox.monitoring.heartbeats import ProcessPart
from lockbox.monitoring.invariants import audit_log_rolled_back, unverified
from lockbox.monitoring.metrics import MOST_SILENT, MetricSnapshot
from lockbox.notifications.models import Channel
from lockbox.schedule import RedisUnavailable
from lockbox.sql import DROPPED
from lockbox.startup_checks import StartupCheckFailed

log = structlog.get_logger(__name__)
HOURS = 24
HOUR = timedelta(hours=1)
MOVES = frozenset({"filed", "decided", "timed_out"})
"""What requests did; the other counts, `sent` and `dead`, are of notifications."""
READ = text("SELECT name, hour, value FROM operating_day()")
STATES = text("SELECT state, number FROM operating_states()")
PROCESSES = text("SELECT role, node, age, skew, behind, doubt FROM operating_processes()")
UNVERIFIED = text("SELECT node, unverified, first FROM operating_unverified() WHERE unverified > 0 LIMIT 1")
MOST_SEAL_LAG = 60.0
MOST_UNSENT_AGE = 300.0
MOST_SKEW = 5.0
MOST_UNACKED_AGE = 300.0
MOST_CHECKPOINT_AGE = 2 * 3600.0
NEEDED = (ProcessPart.API, ProcessPart.CORE, ProcessPart.NOTIFICATIONS, ProcessPart.RECONCILE, ProcessPart.WATCH)
MOST_FAILING = 50
FAILING = text("SELECT * FROM failing_webhooks(:most, :skipped)")
FINDINGS = text("SELECT rule, about, raised_at FROM operating_findings()")


@dataclass(frozen=True)
class HourlyCounts:
    """Numbers by name and hour. `hours` are the beginnings of 24 hours, the one that runs last."""

    hours: tuple[datetime, ...]
    numbers: Mapping[tuple[str, datetime], float]
    moves_from: datetime | None = None
    notifications_from: datetime | None = None
    schedule_lag: float | None = None

    def counts(self, name: str) -> tuple[float | None, ...]:
        """Return how many there were in each hour; None for hours that lie before what could be counted."""
        since = self.moves_from if name in MOVES else self.notifications_from
        return tuple(
            None if since and hour + HOUR <= since else self.numbers.get((name, hour), 0.0) for hour in self.hours
        )

    def worst(self, name: str) -> tuple[float | None, ...]:
        """Return the longest lag in each hour, in seconds; None where nobody looked."""
        return tuple(self.numbers.get((name, hour)) for hour in self.hours)


def read_day(database: Database) -> HourlyCounts | None:
    """Ask Postgres, for a few seconds at most; None where it does not answer by then."""
    try:
        with database.transaction() as session:
            session.connection().execute(metrics.LIMITS)
            rows = session.connection().execute(READ).all()
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
class ProcessHeartbeat:
    """When a process last said that it lives, in seconds ago, and by how many its clock is ahead.

    `behind` is in how many logs it finds the database behind what was shipped of them, `doubt` what is wrong with
    the first.
    """

    part: str
    node: str
    age: float
    skew: float
    behind: int | None = None
    doubt: str | None = None


@dataclass(frozen=True)
class Status:
    """What was found; `troubles` are sentences, none where all is well. Without Postgres most is unknown: empty."""

    postgres: str
    redis: str
    migration: str | None
    wanted: str
    figures: MetricSnapshot
    states: dict[str, int] = field(default_factory=dict)
    beats: tuple[ProcessHeartbeat, ...] = ()
    unverified: str | None = None

    @property
    def troubles(self) -> list[str]:
        """What somebody has to look at, the worst first."""
        found = [f"Postgres: {self.postgres}"] if self.postgres != "ok" else []
        found += [f"Redis: {self.redis}"] if self.redis not in {"ok", "not asked"} else []
        if self.figures.postgres is not None:
            found += _behind(self.beats)
            found += [self.unverified] if self.unverified else []
            found += [said for said, is_so in _late(self.figures) if is_so]
            found += _silent(self.figures)
        return found

    def as_facts(self) -> dict[str, Any]:
        """Return all of it, as JSON takes it."""
        of = self.figures
        return {
            "ok": not self.troubles,
            "troubles": self.troubles,
            "postgres": self.postgres,
            "redis": self.redis,
            "migration": {"database": self.migration, "code": self.wanted},
            "requests": self.states,
            "deadlines": {
                "pending": of.labelled("pending"),
                "overdue": of.one("overdue"),
                "drift": {f"{index} {way}": number for (index, way), number in of.drift().items()},
            },
            "access_open": of.one("access_open"),
            "notifications": {channel.value: _of_channel(of, channel) for channel in Channel},
            "webhooks_failing": of.one("webhooks_failing"),
            "trail": {
                "unsealed": of.one("unsealed"),
                "seal_lag_seconds": of.one("seal_lag"),
                "newest_checkpoint_seconds": of.one("checkpoint_age"),
            },
            "hints": {
                "unacked": of.redis.unacked if of.redis else None,
                "oldest_unacked_seconds": of.oldest_unacked_age(),
            },
            "messages_dropped": of.labelled(DROPPED),
            "last_reconcile_seconds": of.one("heartbeat", ProcessPart.RECONCILE),
            "last_watch_seconds": of.one("heartbeat", ProcessPart.WATCH),
            "processes": [vars(beat) for beat in self.beats],
        }


def read(database: Database, *, with_redis: bool) -> Status:
    """Ask whatever answers; nothing is raised, and no question takes longer than a few seconds.

    Args:
        database: by the login of the API or of the owner.
        with_redis: whether it is known where Redis is.
    """
    redis = _redis(database) if with_redis else "not asked"
    wanted = migrations.head()
    found: str | None = None
    try:
        with database.engine.connect() as connection:
            found = migrations.current(connection)
            startup_checks.fits(connection)
        with database.transaction() as session:
            session.connection().execute(metrics.LIMITS)
            states, beats, unmarked = _states(session), _heartbeats(session), _unverified(session)
    except StartupCheckFailed as unfit:
        return Status(str(unfit), redis, found, wanted, MetricSnapshot(None, None))
    except SQLAlchemyError as error:
        said = getattr(getattr(error, "orig", None), "sqlstate", None) or type(error).__name__
        return Status(f"away or unwilling ({said})", redis, found, wanted, MetricSnapshot(None, None))
    return Status("ok", redis, found, wanted, metrics.read(database), states, beats, unmarked)


def _redis(database: Database) -> str:
    try:
        database.schedule.ping()
    except RedisUnavailable as away:
        return f"away: {away}"
    return "ok"


def _states(session: Session) -> dict[str, int]:
    return {row.state: row.number for row in session.connection().execute(STATES)}


def _heartbeats(session: Session) -> tuple[ProcessHeartbeat, ...]:
    rows = session.connection().execute(PROCESSES)
    return tuple(ProcessHeartbeat(row.role, row.node, row.age, row.skew, row.behind, row.doubt) for row in rows)


def _behind(beats: Iterable[ProcessHeartbeat]) -> list[str]:
    """Say who is refused because the database is behind its own log; of all processes one that finds the most."""
    doubting = [beat for beat in beats if beat.behind and beat.age <= MOST_SILENT]
    worst = max(doubting, key=lambda beat: beat.behind or 0, default=None)
    return [f"{worst.node} finds {audit_log_rolled_back(worst.behind or 0, worst.doubt or '')}"] if worst else []


def _unverified(session: Session) -> str | None:
    """Say of which process of the API how many marks do not hold; the one that finds the most."""
    row = session.connection().execute(UNVERIFIED).one_or_none()
    return f"{row.node} finds that {unverified(row.unverified, row.first)}" if row else None


def _of_channel(of: MetricSnapshot, channel: Channel) -> dict[str, float | None]:
    """Return how notifications by mail, or calls of webhooks, stand; None where Postgres is away."""
    names = {"unsent": "unsent", "oldest_unsent_seconds": "oldest_unsent", "dead": "dead"}
    names |= {"dead_within_a_day": "dead_lately"}
    known = of.postgres is not None
    return {said: of.one(name, channel) or 0.0 if known else None for said, name in names.items()}


def _late(of: MetricSnapshot) -> list[tuple[str, bool]]:
    drift = sum(number for (_, way), number in of.drift().items() if way == "missing")
    overdue, unsealed = (int(of.one(name) or 0) for name in ("overdue", "unsealed"))
    # A webhook is a customer's to mend: one that is dead is no trouble of this installation's.
    dead, oldest = (of.one(name, Channel.MAIL) or 0 for name in ("dead_lately", "oldest_unsent"))
    return [
        (startup_checks.NAME_THE_STANDBY, of.one("lagging_standby") == 1),
        (f"{overdue} deadlines are overdue: is a core worker running?", overdue > 0),
        (f"{dead:.0f} mails were not delivered within a day: see `lockbox vendor undelivered`", dead > 0),
        (
            f"the oldest unsent mail waits for {oldest:.0f} s: see the notifications worker's log",
            oldest > MOST_UNSENT_AGE,
        ),
        (
            f"{unsealed} events are not sealed, for up to {of.one('seal_lag') or 0:.0f} s: see the core worker's log",
            (of.one("seal_lag") or 0) > MOST_SEAL_LAG,
        ),
        (
            "no log has had a checkpoint for two hours: see the core worker's log",
            (of.one("checkpoint_age") or 0) > MOST_CHECKPOINT_AGE,
        ),
        (f"the schedule lacks {drift:.0f} of what Postgres promises: is a worker running?", drift > 0),
        (
            f"hints wait unacknowledged for {of.oldest_unacked_age() or 0:.0f} s",
            (of.oldest_unacked_age() or 0) > MOST_UNACKED_AGE,
        ),
    ]


def _silent(of: MetricSnapshot) -> list[str]:
    ages = of.labelled("heartbeat")
    found = [
        f"{part}: nobody has said for a minute that it lives" if part in ages else f"{part}: nobody lives"
        for part in NEEDED
        if ages.get(part, float("inf")) > MOST_SILENT * (2 if part is ProcessPart.WATCH else 1)
    ]
    return found + [
        f"{part}: a clock is off by {skew:+.1f} s: set it right (NTP)"
        for part, skew in of.labelled("skew").items()
        if abs(skew) > MOST_SKEW
    ]


@dataclass(frozen=True)
class InvariantFinding:
    """Something that must never be: which invariant, of which request or log, and when it was last said."""

    rule: str
    about: UUID
    raised_at: datetime


@dataclass(frozen=True)
class FailingWebhook:
    """A webhook whose last call failed: the tenant's name, None for the vendor's own, and where it leads.

    `leads_to` is scheme, host and port, for a path may hold a secret. `unsent` is how many
    calls wait, `error` the word of the last try.
    """

    id: UUID
    tenant: str | None
    leads_to: str
    failing_since: datetime
    unsent: int
    error: str | None


@dataclass(frozen=True)
class FailingWebhooks:
    """A page of the failing webhooks, those first that have failed for longest.

    `first` is the place of the first of them, from 1 on; `in_all` is how many there are, 0 also on a page behind the
    last.
    """

    webhooks: Sequence[FailingWebhook]
    first: int
    in_all: int

    @property
    def last(self) -> int:
        """The place of the last one on the page."""
        return self.first + len(self.webhooks) - 1


@dataclass(frozen=True)
class OperationsStatus:
    """Counts, ages and failing webhooks; all but `status` are None where Postgres does not say."""

    status: Status
    day: HourlyCounts | None
    findings: Sequence[InvariantFinding] | None
    failing: FailingWebhooks | None


def read_operations(database: Database, caller: Caller, *, failing_page: int = 1) -> OperationsStatus:
    """Ask whatever answers; what is away is said, and no question takes longer than a few seconds.

    `failing_page` is which page of the failing webhooks, from 1 on.

    Raises:
        NotYours: the caller is no operator.
    """
    permissions.capacity(caller, (Role.OPERATOR,))
    stands = read(database, with_redis=True)
    return OperationsStatus(stands, read_day(database), _findings(database), _failing(database, caller, failing_page))


def _findings(database: Database) -> Sequence[InvariantFinding] | None:
    try:
        with database.transaction() as session:
            rows = session.connection().execute(FINDINGS).all()
    except SQLAlchemyError:
        return None
    return [InvariantFinding(row.rule, row.about, row.raised_at) for row in rows]


def _failing(database: Database, caller: Caller, number: int) -> FailingWebhooks | None:
    skipped = (number - 1) * MOST_FAILING
    try:
        with database.transaction() as session:
            row_security.enter(session, caller)
            rows = session.connection().execute(FAILING, {"most": MOST_FAILING, "skipped": skipped}).all()
    except SQLAlchemyError:
        return None
    found = [
        FailingWebhook(row.id, row.tenant, row.leads_to, row.failing_since, row.unsent, row.error) for row in rows
    ]
    return FailingWebhooks(found, skipped + 1, rows[0].in_all if rows else 0)
