"""Alerts: a violated invariant becomes an event, a mail to operators, a webhook call and a log line."""

from collections.abc import Sequence
from datetime import timedelta

import structlog
from sqlalchemy import text

from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.database import Database, now
from lockbox.monitoring import invariants
from lockbox.monitoring.heartbeats import Alarm, ProcessPart
from lockbox.monitoring.invariants import InvariantViolation, ScanPosition
from lockbox.notifications import announcements
from lockbox.notifications.account_mail import INVARIANT_BROKEN
from lockbox.sql import insert_list

log = structlog.get_logger(__name__)

TURN = "alarm"
EVERY = timedelta(seconds=60)
SAID_FOR = timedelta(hours=1)
MOST_LINES = 50

IS_DUE = text("""
SELECT NOT EXISTS (SELECT FROM heartbeats
    WHERE role = :part AND beat_at > clock_timestamp() - CAST(:every AS interval))
""")
# What was said within the hour is not said again, whichever worker looks.
RAISE = text(f"""
INSERT INTO {insert_list(Alarm, of="a")} SELECT unnest(CAST(:keys AS text[])), :at
ON CONFLICT (key) DO UPDATE SET raised_at = EXCLUDED.raised_at WHERE a.raised_at <= :at - CAST(:said_for AS interval)
RETURNING key
""")
FORGET = text("DELETE FROM alarms WHERE raised_at < CAST(:at AS timestamptz) - interval '1 day'")
SLUGS = text("SELECT id, slug FROM tenants WHERE id = ANY(:ids)")


def is_due(database: Database) -> bool:
    with database.transaction() as session:
        values = {"part": ProcessPart.INVARIANTS.value, "every": EVERY}
        return bool(session.execute(IS_DUE, values).scalar_one())


def find_violations(database: Database, rota: ScanPosition) -> tuple[set[InvariantViolation], ScanPosition]:
    with database.transaction() as session:
        return invariants.scan(session, rota), invariants.next_position(session, rota)


def confirm(database: Database, found: set[InvariantViolation], rota: ScanPosition) -> list[InvariantViolation]:
    """Check again and raise an alarm for what is still violated; return what was not alarmed within the hour.

    An outage's backlog is done by then and raises no alarm.
    """
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
