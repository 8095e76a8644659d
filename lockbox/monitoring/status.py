"""The status of an installation for its operators, from the servers that answer."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from lockbox import migrations, startup_checks
from lockbox.database import Database, UnitOfWork
from lockbox.monitoring import metrics
from lockbox.monitoring.heartbeats import ProcessPart
from lockbox.monitoring.invariants import audit_log_rolled_back, unverified
from lockbox.monitoring.metrics import MOST_SILENT, MetricName, MetricSnapshot
from lockbox.notifications.models import Channel
from lockbox.redis_scripts import RedisUnavailable
from lockbox.startup_checks import StartupCheckFailed

log = structlog.get_logger(__name__)
STATES = text("SELECT state, number FROM operating_states()")
PROCESSES = text("""
SELECT role AS part, node, age, skew, rolled_back, doubt, unverified, unverified_first FROM operating_processes()
""")
# A process that ended has no session, which shows its end while its heartbeat is still young.
CONNECTED = text("""
SELECT DISTINCT usename::text FROM pg_stat_activity
WHERE datname = current_database() AND usename IN ('lockbox_worker', 'lockbox_notifications')
""")
LOGINS = {ProcessPart.CORE: "lockbox_worker", ProcessPart.NOTIFICATIONS: "lockbox_notifications"}
MOST_SEAL_LAG = 60.0
MOST_UNSENT_AGE = MOST_UNACKED_AGE = 300.0
OUTBOX = "outbox"
MOST_SKEW = 5.0
MOST_CHECKPOINT_AGE = 2 * 3600.0
NEEDED = (ProcessPart.API, ProcessPart.CORE, ProcessPart.NOTIFICATIONS, ProcessPart.RECONCILE, ProcessPart.INVARIANTS)
ALIVE = {
    ProcessPart.API: "API processes",
    ProcessPart.CORE: "Core workers",
    ProcessPart.NOTIFICATIONS: "Notifications workers",
}
CONNECTING = {ProcessPart.CONNECTORS: "Connector workers"}
UNKNOWN = "not known"
GATES_REPORTING = "Gates that only report"
OUTSIDE_ACCESS = "Access around Lockbox, 30 days"
LEGAL_HOLDS = "Legal holds"
OFFBOARDINGS = "Customers that asked to be off-boarded"
CUSTOMERS = (
    ("Findings about break-glass due", MetricName.FINDINGS, "due"),
    ("Findings about break-glass overdue", MetricName.FINDINGS, "overdue"),
    (LEGAL_HOLDS, MetricName.LEGAL_HOLDS, ""),
    (OFFBOARDINGS, MetricName.OFFBOARDINGS, "asked"),
    ("Off-boardings that have begun", MetricName.OFFBOARDINGS, "begun"),
)
MINUTE = 60.0


@dataclass(frozen=True)
class ProcessHeartbeat:
    """A process' last heartbeat; `age` is in seconds, `skew` is how many seconds the process' clock is ahead.

    `rolled_back` counts logs that differ from their shipped checkpoints; `doubt` describes the first difference.
    `unverified` counts rows that would grant rights but have no valid MAC.
    """

    part: str
    node: str
    age: float
    skew: float
    rolled_back: int | None = None
    doubt: str | None = None
    unverified: int | None = None
    unverified_first: str | None = None


@dataclass(frozen=True)
class Status:
    """`troubles` are sentences, none if all is well. Without Postgres most members are empty."""

    postgres: str
    redis: str
    migration: str | None
    wanted: str
    figures: MetricSnapshot
    states: dict[str, int] = field(default_factory=dict)
    beats: tuple[ProcessHeartbeat, ...] = ()
    connected: frozenset[str] = frozenset(LOGINS.values())
    relay: str = "not asked"

    @property
    def troubles(self) -> list[str]:
        found = [f"Postgres: {self.postgres}"] if self.postgres != "ok" else []
        found += [f"Redis: {self.redis}"] if self.redis not in {"ok", "not asked"} else []
        if self.figures.postgres is not None:
            found += _doubts(self.beats)
            found += [said for said, is_so in _late(self.figures) if is_so]
            found += _silent(self.figures)
            found += _gone(self.beats, self.connected)
        found += [f"Mail relay: {self.relay}"] if self.relay not in {"ok", "not asked"} else []
        return found

    def as_facts(self) -> dict[str, Any]:
        of = self.figures
        return {
            "ok": not self.troubles,
            "troubles": self.troubles,
            "postgres": self.postgres,
            "redis": self.redis,
            "relay": self.relay,
            "migration": {"database": self.migration, "code": self.wanted},
            "requests": {state: min(number, metrics.MOST_SHOWN) for state, number in self.states.items()},
            "deadlines": {
                "pending": of.labelled(MetricName.PENDING),
                "overdue": of.one(MetricName.OVERDUE),
                "drift": {f"{index} {way}": number for (index, way), number in of.drift().items()},
            },
            "access_open": of.one(MetricName.ACCESS_OPEN),
            "notifications": {str(channel): of.channel(channel) for channel in (*Channel, OUTBOX)},
            "webhooks_failing": of.one(MetricName.WEBHOOKS_FAILING),
            "gates_reporting": of.labelled(MetricName.GATE_REPORTS),
            "outside_access_30_days": of.one(MetricName.OUTSIDE_ACCESS_LATELY),
            "findings": of.labelled(MetricName.FINDINGS),
            "legal_holds": of.one(MetricName.LEGAL_HOLDS),
            "offboardings": of.labelled(MetricName.OFFBOARDINGS),
            "audit_log": {
                "unsealed": of.one(MetricName.UNSEALED),
                "seal_lag_seconds": of.one(MetricName.SEAL_LAG),
                "newest_checkpoint_seconds": of.one(MetricName.CHECKPOINT_AGE),
            },
            "messages": {
                "unacked": of.redis.unacked if of.redis else None,
                "oldest_unacked_seconds": of.oldest_unacked_age(),
            },
            "messages_dropped": of.labelled(MetricName.DROPPED),
            "last_reconcile_seconds": of.one(MetricName.HEARTBEAT, ProcessPart.RECONCILE),
            "last_invariant_check_seconds": of.one(MetricName.HEARTBEAT, ProcessPart.INVARIANTS),
            "processes": [vars(beat) for beat in self.beats],
        }


def read(database: Database, *, with_redis: bool) -> Status:
    """Read the status. It raises no error if a server fails, and no query takes longer than a few seconds.

    `with_redis` is False if the address of Redis is not known.
    """
    redis = _redis(database) if with_redis else "not asked"
    wanted = migrations.head()
    found: str | None = None
    try:
        with database.engine.connect() as connection:
            found = migrations.current(connection)
            startup_checks.fits(connection)
        with database.transaction() as session:
            session.execute(metrics.LIMITS)
            states, beats = _states(session), _heartbeats(session)
            connected = frozenset(session.execute(CONNECTED).scalars())
    except StartupCheckFailed as unfit:
        return Status(str(unfit), redis, found, wanted, MetricSnapshot(None, None))
    except SQLAlchemyError as error:
        said = getattr(getattr(error, "orig", None), "sqlstate", None) or type(error).__name__
        return Status(f"unavailable ({said})", redis, found, wanted, MetricSnapshot(None, None))
    return Status("ok", redis, found, wanted, metrics.read(database), states, beats, connected)


def _redis(database: Database) -> str:
    try:
        database.schedule.ping()
    except RedisUnavailable as away:
        return f"away: {away}"
    return "ok"


def _states(session: UnitOfWork) -> dict[str, int]:
    return {row.state: row.number for row in session.execute(STATES)}


def _heartbeats(session: UnitOfWork) -> tuple[ProcessHeartbeat, ...]:
    return tuple(ProcessHeartbeat(**row) for row in session.execute(PROCESSES).mappings())


def _doubts(beats: Iterable[ProcessHeartbeat]) -> Iterator[str]:
    alive = [beat for beat in beats if beat.age <= MOST_SILENT]
    rolled_back = max(alive, key=lambda beat: beat.rolled_back or 0, default=None)
    if rolled_back and rolled_back.rolled_back:
        yield f"{rolled_back.node} finds {audit_log_rolled_back(rolled_back.rolled_back, rolled_back.doubt or '')}"
    doubting = max(alive, key=lambda beat: beat.unverified or 0, default=None)
    if doubting and doubting.unverified:
        yield f"{doubting.node} finds that {unverified(doubting.unverified, doubting.unverified_first or '')}"


def _late(of: MetricSnapshot) -> list[tuple[str, bool]]:
    missing = of.missing()
    seal_lag = of.one(MetricName.SEAL_LAG) or 0.0
    overdue, unsealed = int(of.one(MetricName.OVERDUE) or 0), int(of.one(MetricName.UNSEALED) or 0)
    # Customers mend their own webhooks, so a dead webhook call is no trouble of this installation.
    dead = of.one(MetricName.DEAD_LATELY, Channel.MAIL) or 0
    oldest = max(of.one(MetricName.OLDEST_UNSENT, label) or 0 for label in (Channel.MAIL, OUTBOX))
    still_open = of.one(MetricName.CONNECTION_STATE, "close_failed") or 0
    return [
        (startup_checks.NAME_THE_STANDBY, of.one(MetricName.LAGGING_STANDBY) == 1),
        (f"{overdue} deadlines are overdue: is a core worker running?", overdue > 0),
        (f"{still_open:.0f} targets did not close their access: see docs/connectors.md", still_open > 0),
        (f"{dead:.0f} mails were not delivered within a day: see `lockbox vendor undelivered`", dead > 0),
        (
            f"the oldest unsent mail has waited for {oldest:.0f} s: see the notifications worker's log",
            oldest > MOST_UNSENT_AGE,
        ),
        (
            f"{unsealed} events are not sealed, for up to {seal_lag:.0f} s: see the core worker's log",
            seal_lag > MOST_SEAL_LAG,
        ),
        (
            "no log has had a checkpoint for two hours: see the core worker's log",
            (of.one(MetricName.CHECKPOINT_AGE) or 0) > MOST_CHECKPOINT_AGE,
        ),
        (f"the schedule lacks {missing:.0f} entries of Postgres: is a worker running?", missing > 0),
        (
            f"a Celery message is unacknowledged for {of.oldest_unacked_age() or 0:.0f} s: see the workers' logs",
            (of.oldest_unacked_age() or 0) > MOST_UNACKED_AGE,
        ),
    ]


def _silent(of: MetricSnapshot) -> list[str]:
    ages = of.labelled(MetricName.HEARTBEAT)
    found = [
        f"{part}: the last heartbeat is {lag(ages[part])} old: is it running?"
        if part in ages
        else f"{part}: no heartbeat yet: start the API and the workers"
        for part in (*NEEDED, *(CONNECTING if of.one(MetricName.NEEDS_CONNECTORS) else ()))
        if ages.get(part, float("inf")) > MOST_SILENT * (2 if part is ProcessPart.INVARIANTS else 1)
    ]
    return found + [
        f"{part}: a clock is off by {skew:+.1f} s: set it right (NTP)"
        for part, skew in of.labelled(MetricName.SKEW).items()
        if abs(skew) > MOST_SKEW
    ]


def _gone(beats: Iterable[ProcessHeartbeat], connected: frozenset[str]) -> list[str]:
    alive = {beat.part for beat in beats if beat.age <= MOST_SILENT}
    return [
        f"{part}: no such worker is connected to Postgres: has it ended?"
        for part, login in LOGINS.items()
        if part in alive and login not in connected
    ]


@dataclass(frozen=True)
class StatusLine:
    """`is_well` is None if the value is neither good nor bad."""

    name: str
    value: str
    is_well: bool | None = None


def lines(found: Status, schedule_lag: float | None = None) -> Iterator[StatusLine]:
    """Yield lines for the operators' page and the terminal; `schedule_lag` is in seconds."""
    of = found.figures
    yield StatusLine("Windows open", _count(of.one(MetricName.ACCESS_OPEN)))
    pending = sum(of.labelled(MetricName.PENDING).values()) if of.postgres is not None else None
    yield StatusLine("Scheduled steps", _count(pending))
    yield _none_of("Overdue steps", of.one(MetricName.OVERDUE))
    if schedule_lag is not None:
        yield StatusLine("Schedule lag of the last minute", lag(schedule_lag))
    yield StatusLine("Last reconcile", _ago(of.one(MetricName.HEARTBEAT, ProcessPart.RECONCILE)))
    yield from _notification_lines(of)
    yield StatusLine("Webhooks failing", _count(of.one(MetricName.WEBHOOKS_FAILING)))
    yield StatusLine(GATES_REPORTING, of.gates_reporting() or UNKNOWN)
    yield StatusLine(OUTSIDE_ACCESS, _count(of.one(MetricName.OUTSIDE_ACCESS_LATELY)))
    yield from _customer_lines(of)
    yield StatusLine("Events to seal", _count(of.one(MetricName.UNSEALED)))
    yield _within("Seal lag", of.one(MetricName.SEAL_LAG), MOST_SEAL_LAG)
    yield StatusLine("Newest checkpoint", _ago(of.one(MetricName.CHECKPOINT_AGE)))
    yield StatusLine("Last invariant check", _ago(of.one(MetricName.HEARTBEAT, ProcessPart.INVARIANTS)))
    alive = of.labelled(MetricName.PROCESSES)
    for part, name in (ALIVE | CONNECTING if of.one(MetricName.NEEDS_CONNECTORS) else ALIVE).items():
        yield StatusLine(f"{name} alive", _count(alive.get(part, 0.0)), bool(alive.get(part)))
    yield from _redis_lines(found)


def _customer_lines(of: MetricSnapshot) -> Iterator[StatusLine]:
    for name, figure, label in CUSTOMERS:
        yield StatusLine(name, UNKNOWN if of.postgres is None else _count(of.one(figure, label) or 0.0))


def _notification_lines(of: MetricSnapshot) -> Iterator[StatusLine]:
    events = of.channel(OUTBOX)
    yield StatusLine("Events to notify", _count(events["unsent"]))
    yield _within("Oldest event to notify", events["oldest_unsent_seconds"], MOST_UNSENT_AGE)
    for channel, name in ((Channel.MAIL, "mail"), (Channel.WEBHOOK, "webhook call")):
        found = of.channel(channel)
        many = f"{name.capitalize()}s"
        yield StatusLine(f"{many} to send", _count(found["unsent"]))
        for line in (
            _within(f"Oldest {name} to send", found["oldest_unsent_seconds"], MOST_UNSENT_AGE),
            _none_of(f"{many} not delivered within a day", found["dead_within_a_day"]),
        ):
            yield line if channel is Channel.MAIL else replace(line, is_well=None)
        yield StatusLine(f"{many} not delivered", _count(found["dead"]))


def _redis_lines(found: Status) -> Iterator[StatusLine]:
    held, missing = found.figures.redis, found.figures.missing()
    away, is_well = (UNKNOWN, None) if found.redis == "not asked" else ("Redis is away", held is not None)
    yield StatusLine("Unacknowledged messages", _count(held.unacked) if held else away, is_well)
    yield StatusLine("Missing in the schedule", _count(missing) if held else away, is_well and not missing)


def lag(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds else "0 s"
    if seconds < MINUTE:
        return f"{seconds:.1f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 60 * MINUTE else f"{seconds / MINUTE / 60:.1f} h"


def _count(number: float | None) -> str:
    return UNKNOWN if number is None else f"{number:,.0f}"


def _ago(seconds: float | None) -> str:
    return UNKNOWN if seconds is None else f"{lag(seconds)} ago"


def _none_of(name: str, number: float | None) -> StatusLine:
    return StatusLine(name, _count(number), not number)


def _within(name: str, seconds: float | None, most: float) -> StatusLine:
    return StatusLine(name, UNKNOWN if seconds is None else lag(seconds), (seconds or 0.0) <= most)
