"""Whether the gate of each service enforces or only reports, and tenants' consents to gates that only report.

A gate that enforced before continues to enforce for each tenant until an admin of the tenant consents.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Row, text
from sqlmodel import col, select

from catalogue.service_catalogue import Catalogue
from gate import definition_records, gate_news
from gate.definition_records import DefinitionChange
from gate.gate_news import HOLD, SETTLED, GateNews
from gate.window_memory import BOOT_CLOCK, FRESH_SECONDS
from lockbox.admin import gate_probes, permissions
from lockbox.admin.gate_probes import RecordedProbe
from lockbox.admin.permissions import ABSENT, AdminActor, AdminChange, change
from lockbox.audit.events import THE_CLOCK, AuditEvent, Origin
from lockbox.database import Database, Query, UnitOfWork, now, publish_after_commit
from lockbox.errors import Conflict, NotFound
from lockbox.identity import authentication, row_macs
from lockbox.identity.keyring import Part
from lockbox.identity.models import EnforcementSwitch, ReportConsent, ServiceEnforcement, Tenant
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
ALLOWED, ENDED = "gate_report_allowed", "gate_report_ended"
GATES = text("""
SELECT e.service, e.wanted, e.revision, e.enforced_at, e.changed_at, c.created_at AS consented_at
FROM enforcements e LEFT JOIN report_consents c
    ON c.enforcement_id = e.id AND c.tenant_id = :tenant AND c.revision = e.revision
WHERE CAST(:service AS text) IS NULL OR e.service = :service
ORDER BY e.service
""")
GATE_OF_REQUEST = text("""
SELECT e.service, e.wanted, e.revision, e.enforced_at, e.changed_at, c.created_at AS consented_at
FROM requests r JOIN enforcements e ON e.service = r.service LEFT JOIN report_consents c
    ON c.enforcement_id = e.id AND c.tenant_id = r.tenant_id AND c.revision = e.revision
WHERE r.id = :id
""")
LAST_ASKED = text("SELECT service, at FROM gates_last_asked()")
NO_GATE = "There is no gate of this service."
OUTDATED = "The vendor has changed what it asks for. Check the gates of your tenant again."
STATES = text("""
SELECT id, service, wanted, revision, enforced_at, mac FROM enforcements
WHERE service = ANY (:services) AND wanted = 'report'
""")
CONSENTS = text("""
SELECT c.id, c.enforcement_id, c.tenant_id, c.revision, c.person_id, c.mac
FROM report_consents c JOIN enforcements e ON e.id = c.enforcement_id AND e.revision = c.revision
WHERE c.enforcement_id = ANY (:ids)
""")
TENANTS = text("""
SELECT id, slug, mode, plan, suspended, policy_version, revision, mac FROM tenants WHERE id = ANY (:ids)
""")
Parts = Callable[[Row[Any]], Sequence[Part]]


class EnforcementOverview(BaseModel, frozen=True):
    """`reporting` counts the tenants for which the gate only reports."""

    service: str
    wanted: Literal["report", "enforce"]
    revision: int
    was_enforced: bool
    since: datetime
    reporting: int
    tenants: int


def of_catalogue(catalogue: Catalogue) -> dict[str, str]:
    return {name: one.gate.enforcement for name, one in catalogue.services.items() if one.gate is not None}


def record(session: UnitOfWork, wanted: Mapping[str, str]) -> None:
    """Record the catalogue's `enforcement` of each gate.

    A gate that never enforced may report for all tenants. A switch to enforce takes effect at once for all tenants
    and ends all consents. The transaction must belong to a system caller (`authentication.enter`).
    """
    session.execute(HOLD)
    query = select(ServiceEnforcement).where(col(ServiceEnforcement.service).in_(wanted))
    known = {row.service: row for row in session.orm.exec(query).all()}
    for service, says in wanted.items():
        row = known.get(service)
        if row is None or row.wanted != says:
            _write(session, row, service, says)
    session.orm.flush()


def _write(session: UnitOfWork, row: ServiceEnforcement | None, service: str, says: str) -> None:
    """A row without a valid MAC is treated as enforced before, so that it opens nothing."""
    at = now(session)
    is_news = row is not None or says == REPORT
    if row is None:
        row = ServiceEnforcement(id=new_id(), service=service, wanted=says, changed_at=at)
        was_enforced = says == ENFORCE
    else:
        was_enforced = says == ENFORCE or not row_macs.is_held(session, row.mac, row_macs.enforcement(row), row.id)
        row.wanted, row.revision, row.changed_at = says, row.revision + 1, at
    if was_enforced:
        row.enforced_at = row.enforced_at or at
    row.mac = row_macs.mark(session, row_macs.enforcement(row))
    session.orm.add(row)
    if is_news:
        session.orm.flush()
        switch = EnforcementSwitch(
            id=new_id(),
            enforcement_id=row.id,
            revision=row.revision,
            wanted=says,
            was_enforced=row.enforced_at is not None,
            switched_at=at,
        )
        session.orm.add(switch)
    publish_after_commit(session, [row.id])


def announce(database: Database, *, settled: timedelta = SETTLED) -> Iterator[int]:
    """Announce gates' switches as `gate_news.announce` does.

    A tenant created later is notified if the gate only reports.
    """
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


@dataclass(frozen=True)
class TenantGate:
    """`is_asked`: the gate enforced before, and the vendor asks for consent to `revision`.

    `last_asked_at` is when a gateway last asked about a call, at any tenant. It is exact to the minute, and after two
    hours only to the hour.
    """

    service: str
    is_enforced: bool
    is_asked: bool
    revision: int
    since: datetime
    consented_at: datetime | None
    last_asked_at: datetime | None = None
    definition: DefinitionChange | None = None
    probe: RecordedProbe | None = None


def of_tenant(session: UnitOfWork, caller: Caller, slug: str) -> list[TenantGate]:
    tenant = permissions.readable(session, caller, slug)
    return _gates(session, tenant)


def _gates(session: UnitOfWork, tenant: Tenant, service: str | None = None) -> list[TenantGate]:
    asked: dict[str, datetime] = {row.service: row.at for row in session.execute(LAST_ASKED)}
    defined = definition_records.of_tenant(session, tenant.slug)
    probes = {one.result.service: one for one in gate_probes.newest(session, tenant.id)}
    return [
        replace(
            _gate(row),
            last_asked_at=asked.get(row.service),
            definition=defined.get(row.service),
            probe=probes.get(row.service),
        )
        for row in session.execute(GATES, {"tenant": tenant.id, "service": service})
    ]


def ahead_of_unenforced(request_id: UUID) -> Query:
    return GATE_OF_REQUEST, {"id": request_id}


def is_unenforced(session: UnitOfWork, request_id: UUID) -> bool:
    """Return whether the gate only reports for the request's tenant; False if the reader may not see the gate."""
    row = session.execute(*ahead_of_unenforced(request_id)).one_or_none()
    return row is not None and not _gate(row).is_enforced


def allow_report(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, service: str, *, revision: int
) -> TenantGate:
    """Raises Conflict if the vendor does not ask for consent to this revision."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, (Role.TENANT_ADMIN,), tenant)
    permissions.require_fresh_admin(session, actor, tenant)
    gate = _known(session, service)
    if gate.wanted != REPORT or gate.enforced_at is None or gate.revision != revision:
        raise Conflict(OUTDATED)
    if (given := _consent(session, gate.id, tenant.id)) is not None:
        if given.revision == revision:
            return _gates(session, tenant, service)[0]
        session.orm.delete(given)
        session.orm.flush()
    consent = ReportConsent(
        id=new_id(),
        enforcement_id=gate.id,
        tenant_id=tenant.id,
        revision=revision,
        person_id=actor.caller.person_id,
        created_at=now(session),
    )
    consent.mac = row_macs.mark(session, row_macs.report_consent(consent))
    session.orm.add(consent)
    session.orm.flush()
    _record(session, actor, gate, ALLOWED, change(ENFORCE, REPORT))
    return _gates(session, tenant, service)[0]


def end_report(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, service: str) -> None:
    """Withdraw the consent to a gate that only reports: the gate enforces at once."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, (Role.TENANT_ADMIN,), tenant)
    gate = _known(session, service)
    given = _consent(session, gate.id, tenant.id)
    if given is not None:
        was_in_force = given.revision == gate.revision
        session.orm.delete(given)
        session.orm.flush()
        if was_in_force:
            _record(session, actor, gate, ENDED, change(REPORT, ENFORCE))


def _known(session: UnitOfWork, service: str) -> ServiceEnforcement:
    gate = session.orm.exec(
        select(ServiceEnforcement).where(col(ServiceEnforcement.service) == service)
    ).one_or_none()
    if gate is None:
        raise NotFound(NO_GATE)
    return gate


def _consent(session: UnitOfWork, gate_id: UUID, tenant_id: UUID) -> ReportConsent | None:
    query = select(ReportConsent).where(
        col(ReportConsent.enforcement_id) == gate_id, col(ReportConsent.tenant_id) == tenant_id
    )
    return session.orm.exec(query).one_or_none()


def _record(session: UnitOfWork, actor: AdminActor, gate: ServiceEnforcement, action: str, words: str) -> None:
    said = AdminChange(action, now(session), {f"gate of {gate.service}": words}, facts={"service": gate.service})
    permissions.record_change(session, actor, said)
    event = permissions.audit_event_of(actor, said)
    announcements.notify_operators(session, permissions.for_the_vendor(event))
    publish_after_commit(session, [gate.id])


def _gate(row: Row[Any]) -> TenantGate:
    reports = row.wanted == REPORT and (row.enforced_at is None or row.consented_at is not None)
    is_asked = row.wanted == REPORT and row.enforced_at is not None
    return TenantGate(row.service, not reports, is_asked, row.revision, row.changed_at, row.consented_at)


class EnforcementMemory:
    """The services and tenants for which the gate only reports. One thread writes; any number read.

    The gate enforces if this process' catalogue says so, or if the last read of Postgres began at least a second ago.
    Rows without a valid MAC are ignored.
    """

    def __init__(self, wanted: Mapping[str, str], clock: Callable[[], float] = BOOT_CLOCK) -> None:
        self.wanted = wanted
        self._services = sorted(name for name, says in wanted.items() if says == REPORT)
        self._clock = clock
        self._changing = threading.Lock()
        self._ids: dict[str, str] = {}
        self._heard: set[str] = set()
        self._judged: dict[Row[Any], bool] = {}
        # When the last read began, and by service the tenants for which the gate only reports: None is all tenants.
        self._read: tuple[float, Mapping[str, frozenset[str] | None]] = (float("-inf"), {})

    def reports_anywhere(self, service: str) -> bool:
        return service in self._current()

    def reports(self, service: str, tenant: str | None) -> bool:
        """A `tenant` of None means an unknown tenant."""
        tenants = self._current().get(service, frozenset())
        return tenants is None or tenant in tenants

    def forget(self, ids: Collection[str]) -> bool:
        """Until the next read, enforce for the services whose rows (`ids`) changed.

        Return whether any of the rows is known.
        """
        with self._changing:
            gone = {name for one, name in self._ids.items() if one in ids}
            self._heard |= gone
            began, reporting = self._read
            self._read = (began, {name: who for name, who in reporting.items() if name not in gone})
            return bool(gone)

    def read(self, session: UnitOfWork, began: float) -> None:
        """`began` is when the transaction began.

        The transaction must belong to a system caller (`authentication.enter`).
        """
        if not self._services:
            return
        with self._changing:
            self._heard.clear()
        states = session.execute(STATES, {"services": self._services}).all()
        judged: dict[Row[Any], bool] = {}
        good = [row for row in states if self._holds(session, judged, row, row_macs.enforcement)]
        consented = self._consented(session, judged, [row.id for row in good if row.enforced_at is not None])
        found = {row.service: consented.get(row.id, frozenset()) if row.enforced_at else None for row in good}
        with self._changing:
            self._judged, self._ids = judged, {str(row.id): row.service for row in states}
            new = {name: who for name, who in found.items() if name not in self._heard and (who is None or who)}
            self._read = (began, new)

    def _consented(
        self, session: UnitOfWork, judged: dict[Row[Any], bool], ids: Sequence[UUID]
    ) -> dict[UUID, frozenset[str]]:
        if not ids:
            return {}
        rows = session.execute(CONSENTS, {"ids": list(ids)}).all()
        good = [row for row in rows if self._holds(session, judged, row, row_macs.report_consent)]
        tenants = session.execute(TENANTS, {"ids": list({row.tenant_id for row in good})}).all()
        slugs = {row.id: row.slug for row in tenants if self._holds(session, judged, row, row_macs.tenant)}
        found = defaultdict[UUID, set[str]](set)
        for row in good:
            if row.tenant_id in slugs:
                found[row.enforcement_id].add(slugs[row.tenant_id])
        return {one: frozenset(who) for one, who in found.items()}

    def _holds(self, session: UnitOfWork, judged: dict[Row[Any], bool], row: Row[Any], parts: Parts) -> bool:
        """Return whether a row has a valid MAC."""
        is_good = self._judged.get(row)
        if is_good is None:
            is_good = row_macs.is_held(session, row.mac, parts(row), row.id)
        judged[row] = is_good
        return is_good

    def _current(self) -> Mapping[str, frozenset[str] | None]:
        began, reporting = self._read
        return reporting if self._clock() - began < FRESH_SECONDS else {}
