"""Alerts: invariants are checked each minute; a violation becomes an event, a mail, a webhook call and a log line."""

from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import text

from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.database import Database, now
from lockbox.monitoring import invariants, metrics
from lockbox.monitoring.heartbeats import Alarm, HeartbeatSender, ProcessPart
from lockbox.monitoring.invariants import InvariantViolation, ScanPosition
from lockbox.notifications import announcements
from lockbox.notifications.account_mail import INVARIANT_BROKEN
from lockbox.sql import insert_list
from worker.loop import WorkerLoop
from worker.runtime import Runtime

log = structlog.get_logger(__name__)

TURN = "alarm"
EVERY = timedelta(seconds=60)
SAID_FOR = timedelta(hours=1)
MOST_LINES = 50
FIRST_SECONDS = 5.0
AGAIN_SECONDS = 5.0
SURE_SECONDS = 15.0

IS_DUE = text("""
SELECT NOT EXISTS (SELECT FROM heartbeats
    WHERE role = :part AND beat_at > clock_timestamp() - CAST(:every AS interval))
""")
# An alarm is not raised again within an hour, whichever worker checks.
RAISE = text(f"""
INSERT INTO {insert_list(Alarm, of="a")} SELECT unnest(CAST(:keys AS text[])), :at
ON CONFLICT (key) DO UPDATE SET raised_at = EXCLUDED.raised_at WHERE a.raised_at <= :at - CAST(:said_for AS interval)
RETURNING key
""")
FORGET = text("DELETE FROM alarms WHERE raised_at < CAST(:at AS timestamptz) - interval '1 day'")
SLUGS = text("SELECT id, slug FROM tenants WHERE id = ANY(:ids)")


class AlertMonitor(WorkerLoop):
    def __init__(self, tools: Runtime, heart: HeartbeatSender) -> None:
        super().__init__("watcher", tools)
        self._heart = heart
        self._rota = ScanPosition()

    def run(self) -> None:
        # This wait lets the worker finish the backlog of an outage before the first check.
        self.stopping.wait(FIRST_SECONDS)
        super().run()

    def round(self) -> None:
        """Check unless a worker did so in the last minute; raise an alarm for violations that last 15 seconds."""
        database = self.tools.database
        if self._is_due():
            with database.turn(TURN) as is_held:
                # Another worker may have checked before this one got the lock.
                if is_held and self._is_due():
                    self._look()
        self.stopping.wait(AGAIN_SECONDS)

    def _is_due(self) -> bool:
        with self.gate:
            return is_due(self.tools.database)

    def _look(self) -> None:
        database = self.tools.database
        with self.gate:
            metrics.sample(database)
        with self.gate:
            found, turned = find_violations(database, self._rota)
        if found and not self.stopping.wait(SURE_SECONDS):
            with self.gate:
                confirm(database, found, self._rota)
        with self.gate:
            self._heart.beat(database, ProcessPart.INVARIANTS)
        self._rota = turned


def is_due(database: Database) -> bool:
    with database.transaction() as session:
        values = {"part": ProcessPart.INVARIANTS.value, "every": EVERY}
        return bool(session.execute(IS_DUE, values).scalar_one())


def find_violations(database: Database, rota: ScanPosition) -> tuple[set[InvariantViolation], ScanPosition]:
    with database.transaction() as session:
        return invariants.scan(session, rota), invariants.next_position(session, rota)


def confirm(database: Database, found: set[InvariantViolation], rota: ScanPosition) -> list[InvariantViolation]:
    """Raise an alarm for violations that still exist and had no alarm within the last hour; return them."""
    with database.transaction() as session:
        still = found & invariants.scan(session, rota)
        at = now(session)
        session.execute(FORGET, {"at": at})
        values = {"keys": list({one.key for one in still}), "at": at, "said_for": SAID_FOR}
        fresh = set(session.execute(RAISE, values).scalars()) if still else set()
        said = sorted((one for one in still if one.key in fresh), key=lambda one: (one.key, one.what))
        if said:
            tenants = {one.tenant_id for one in said if one.tenant_id}
            rows = session.execute(SLUGS, {"ids": list(tenants)})
            lines = _lines(said, {row.id: row.slug for row in rows})
            facts: dict[str, Value] = {"broken": len(said), "changes": lines}
            announcements.alarm(session, AuditEvent(at=at, action=INVARIANT_BROKEN, actor=THE_CLOCK, facts=facts))
    for one in said:
        log.critical("invariant.broken", rule=one.rule, id=str(one.id), what=one.what)
    return said


def _lines(said: Sequence[InvariantViolation], slugs: dict[object, str]) -> dict[str, str]:
    lines: dict[str, str] = {}
    for one in said[:MOST_LINES]:
        whose = slugs.get(one.tenant_id, "the vendor")
        lines[str(one.id)] = _joined(lines.get(str(one.id)), f"{one.rule} at {whose}: {one.what}")
    if len(said) > MOST_LINES:
        lines["and"] = f"{len(said) - MOST_LINES} more"
    return lines


def _joined(*said: str | None) -> str:
    return "; ".join(one for one in said if one)
