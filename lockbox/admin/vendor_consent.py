"""A tenant's temporary consent, and the event and notification when it ends."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import Row, text
from sqlalchemy.exc import InterfaceError, OperationalError

from lockbox.admin.permissions import ABSENT, change
from lockbox.audit.canonical import instant
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.database import Database, UnitOfWork, now
from lockbox.facts.enumerations import Mode
from lockbox.notifications import announcements

log = structlog.get_logger(__name__)

CONSENT_ENDED = "consent_ended"
MOST = 500

CONSENTS = text("SELECT tenant_id, mode, until_at FROM consents(:tenants) WHERE until_at > :at")
# The policy version that was in force when its consent ended counts, even if it was replaced since.
ENDED = text("""
SELECT p.tenant_id, t.mode, c.mode AS consented, c.until_at
FROM policies p JOIN tenants t ON t.id = p.tenant_id
LEFT JOIN policies s ON s.tenant_id = p.tenant_id AND s.version = p.version + 1
CROSS JOIN LATERAL (SELECT p.body -> 'consent' ->> 'mode' AS mode,
    CAST(p.body -> 'consent' ->> 'until' AS timestamptz) AS until_at) c
WHERE p.body -> 'consent' ->> 'until' IS NOT NULL AND c.until_at > p.created_at AND c.until_at <= :at
    AND (s.version IS NULL OR s.created_at > c.until_at) AND NOT EXISTS (SELECT FROM events e
        WHERE e.action = 'consent_ended' AND e.tenant_id = p.tenant_id AND e.deadline_at = c.until_at)
    AND NOT EXISTS (SELECT FROM logs l WHERE l.id = p.tenant_id AND l.kept_since >= c.until_at)
ORDER BY c.until_at LIMIT :most
""")
HOLD = text("SELECT pg_advisory_xact_lock(hashtextextended('lockbox consent of ' || :tenant, 0))")
IS_KNOWN = text("""
SELECT EXISTS (SELECT FROM events WHERE action = 'consent_ended' AND tenant_id = :tenant AND deadline_at = :until)
""")


@dataclass(frozen=True)
class ActiveConsent:
    """Until `until`, `mode` applies instead of `enforce`."""

    mode: Mode
    until: datetime


def lasting(session: UnitOfWork, tenant_ids: Collection[UUID], at: datetime) -> dict[UUID, ActiveConsent]:
    """Leaves out tenants that the caller may not see."""
    rows = session.execute(CONSENTS, {"tenants": list(tenant_ids), "at": at})
    return {row.tenant_id: ActiveConsent(Mode(row.mode), row.until_at) for row in rows}


def record_expired_consents(database: Database) -> Iterator[str]:
    """Write an event for each consent that has ended, and notify the tenant. If one fails, the others continue."""
    with database.transaction() as session:
        ended = session.execute(ENDED, {"at": now(session), "most": MOST}).all()
    for row in ended:
        try:
            with database.transaction() as session:
                recorded = _record_expiry(session, row)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:  # noqa: BLE001 - an error at one tenant stops no other
            _failed(row.tenant_id, error)
        else:
            if recorded:
                yield "consent"


def _failed(tenant_id: UUID, error: Exception) -> None:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    log.error("consent.end_not_recorded", tenant_id=str(tenant_id), error=type(error).__name__, sqlstate=state)


def _record_expiry(session: UnitOfWork, row: Row[Any]) -> bool:
    session.execute(HOLD, {"tenant": str(row.tenant_id)})
    if session.execute(IS_KNOWN, {"tenant": row.tenant_id, "until": row.until_at}).scalar_one():
        return False
    relaxed = f"{row.consented} until {instant(row.until_at)}"
    decides_again = row.mode == Mode.ENFORCE
    audit_event = AuditEvent(
        at=now(session),
        action=CONSENT_ENDED,
        actor=THE_CLOCK,
        tenant_id=row.tenant_id,
        deadline_at=row.until_at,
        facts={
            "changes": {"mode": change(relaxed, row.mode)} if decides_again else {"consent": change(relaxed, ABSENT)}
        },
    )
    announcements.announce(session, audit_event)
    return True
