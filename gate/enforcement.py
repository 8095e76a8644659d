"""What the gate of each service does, as the catalogue says and Postgres records: `enforce`, or only `report`."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Row, text
from sqlmodel import col, select

from catalogue.service_catalogue import Catalogue
from gate import gate_news
from gate.gate_news import HOLD, SETTLED, GateNews
from lockbox.admin import permissions
from lockbox.admin.permissions import ABSENT, change
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.database import Database, UnitOfWork, now, publish_after_commit
from lockbox.identity import authentication, row_macs
from lockbox.identity.models import EnforcementSwitch, ServiceEnforcement
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import announcements
from lockbox.sql import new_id

REPORT: Literal["report"] = "report"
ENFORCE: Literal["enforce"] = "enforce"
BEGAN, ENFORCED, ASKED = "gate_report_began", "gate_enforced", "gate_report_asked"
READERS = (Role.OPERATOR, Role.VENDOR_AUDITOR)
WAITING = text("""
SELECT s.id, s.wanted, s.was_enforced, s.switched_at, s.announced_to, e.service,
    s.wanted = 'report' AND s.revision = e.revision AS reports
FROM enforcement_switches s JOIN enforcements e ON e.id = s.enforcement_id
WHERE NOT e.service = ANY (CAST(:failed AS text[])) AND (s.announced_to IS NULL OR EXISTS (SELECT FROM tenants t
    WHERE t.id > s.announced_to AND t.created_at < (SELECT clock_timestamp()) - CAST(:settled AS interval)
    AND NOT is_erased(t.id) AND (t.created_at <= s.switched_at OR s.wanted = 'report' AND s.revision = e.revision)))
ORDER BY e.service, s.revision LIMIT 1 FOR UPDATE OF s
""")
NEXT = text("""
SELECT t.id FROM tenants t
WHERE t.id > :announced_to AND NOT is_erased(t.id)
    AND t.created_at < (SELECT clock_timestamp()) - CAST(:settled AS interval)
    AND (:reports OR t.created_at <= :switched_at)
ORDER BY t.id LIMIT :most
""")
ANNOUNCED = text("UPDATE enforcement_switches SET announced_to = :to WHERE id = :id")
OVERVIEW = text("""
SELECT e.service, e.wanted, e.revision, e.enforced_at, e.changed_at,
    (SELECT count(*) FROM report_consents c WHERE c.enforcement_id = e.id AND c.revision = e.revision) AS consents,
    (SELECT count(*) FROM tenants t WHERE NOT is_erased(t.id)) AS tenants
FROM enforcements e ORDER BY e.service
""")


class EnforcementOverview(BaseModel, frozen=True):
    """What the gate of a service does, for operators: for how many of the tenants it only reports."""

    service: str
    wanted: Literal["report", "enforce"]
    revision: int
    was_enforced: bool
    since: datetime
    reporting: int
    tenants: int


def of_catalogue(catalogue: Catalogue) -> dict[str, str]:
    """Return what the catalogue says of each service with a gate."""
    return {name: one.gate.enforcement for name, one in catalogue.services.items() if one.gate is not None}


def record(session: UnitOfWork, wanted: Mapping[str, str]) -> None:
    """Record what the catalogue says, once, whichever process comes first; the logs hear of it by `announce`.

    A gate that was never enforced may report for all. From report to enforce counts at once and for all, and ends all
    consents. Back to report, a gate goes on enforcing for each tenant whose admin has not said yes to that. The
    transaction must be entered as a system.
    """
    session.execute(HOLD)
    query = select(ServiceEnforcement).where(col(ServiceEnforcement.service).in_(wanted))
    known = {row.service: row for row in session.orm.exec(query).all()}
    for service, says in wanted.items():
        row = known.get(service)
        if row is None:
            _begin(session, service, says)
        elif row.wanted != says:
            _switch(session, row, says)
    session.orm.flush()


def _begin(session: UnitOfWork, service: str, says: str) -> None:
    """Record a gate that there was not: one that enforces is what everybody expects, and no news."""
    at = now(session)
    row = ServiceEnforcement(
        id=new_id(),
        service=service,
        wanted=says,
        enforced_at=at if says == ENFORCE else None,
        changed_at=at,
    )
    row.mac = row_macs.mark(session, row_macs.enforcement(row))
    session.orm.add(row)
    if says == REPORT:
        _tell_of(session, row)
    publish_after_commit(session, [row.id])


def _switch(session: UnitOfWork, row: ServiceEnforcement, says: str) -> None:
    """Record a switch. A row without a valid mark counts as enforced before, and so opens nothing."""
    at = now(session)
    if says == ENFORCE or not row_macs.is_held(session, row.mac, row_macs.enforcement(row), row.id):
        row.enforced_at = row.enforced_at or at
    row.wanted, row.revision = says, row.revision + 1
    row.changed_at = at
    row.mac = row_macs.mark(session, row_macs.enforcement(row))
    session.orm.add(row)
    _tell_of(session, row)
    publish_after_commit(session, [row.id])


def _tell_of(session: UnitOfWork, row: ServiceEnforcement) -> None:
    """Have `announce` write this revision into the logs."""
    session.orm.flush()
    switch = EnforcementSwitch(
        id=new_id(),
        enforcement_id=row.id,
        revision=row.revision,
        wanted=row.wanted,
        was_enforced=row.enforced_at is not None,
        switched_at=row.changed_at,
    )
    session.orm.add(switch)


def announce(database: Database, *, settled: timedelta = SETTLED) -> Iterator[int]:
    """Tell of each switch, as `gate_news.announce` says; new tenants are told of gates that report."""
    return gate_news.announce(database, NEWS, settled=settled)


def _tell(session: UnitOfWork, row: Row[Any], tenant: Row[Any] | None) -> None:
    if tenant is None:
        announcements.notify_operators(session, _event(session, row, None))
    else:
        announcements.announce(session, _event(session, row, tenant.id))


def _event(session: UnitOfWork, row: Row[Any], tenant_id: UUID | None) -> AuditEvent:
    if row.wanted == ENFORCE:
        action, words = ENFORCED, change(REPORT, ENFORCE)
    elif not row.was_enforced:
        action, words = BEGAN, change(ABSENT, REPORT)
    else:
        action, words = ASKED, change(ENFORCE, f"{REPORT}, once an admin of the tenant allows it")
    facts = {"service": row.service, "changes": {f"gate of {row.service}": words}}
    return AuditEvent(at=now(session), action=action, actor=THE_CLOCK, tenant_id=tenant_id, facts=facts)


NEWS = GateNews(WAITING, NEXT, ANNOUNCED, _tell)


def overviews(session: UnitOfWork, caller: Caller) -> list[EnforcementOverview]:
    """Return what each gate does, for the vendor's operators and auditors, by the service's name.

    Raises:
        NotYours: the caller is neither.
    """
    authentication.enter(session, caller)
    permissions.capacity(caller, READERS)
    return [_overview(row) for row in session.execute(OVERVIEW)]


def _overview(row: Row[Any]) -> EnforcementOverview:
    everybody = row.tenants if row.enforced_at is None else row.consents
    reporting = everybody if row.wanted == REPORT else 0
    was_enforced = row.enforced_at is not None
    return EnforcementOverview(
        service=row.service,
        wanted=row.wanted,
        revision=row.revision,
        was_enforced=was_enforced,
        since=row.changed_at,
        reporting=reporting,
        tenants=row.tenants,
    )
