"""A tenant's yes to it that a gate which was enforced only reports: given by an admin, and taken back at any time."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import col, select

from gate import definition_records
from gate.definition_records import DefinitionChange
from gate.enforcement import ENFORCE, REPORT
from lockbox.admin import gate_probes, permissions
from lockbox.admin.gate_probes import RecordedProbe
from lockbox.admin.permissions import AdminActor, AdminChange, change
from lockbox.database import Query, UnitOfWork, now, publish_after_commit
from lockbox.errors import Conflict, NotFound
from lockbox.identity import row_macs
from lockbox.identity.models import ReportConsent, ServiceEnforcement, Tenant
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import announcements
from lockbox.requests.transition import Origin
from lockbox.sql import new_id

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


@dataclass(frozen=True)
class TenantGate:
    """What the gate of a service does for a tenant.

    It `is_enforced`, or only reports. Where it was enforced before, the vendor has asked for that (`is_asked`), and
    an admin decides. `revision` is what a yes is about. `last_asked_at` is when any gateway last asked, for whichever
    tenant: to the minute, and after two hours to the hour.
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
    """Return what each gate does for a tenant, to its members.

    Raises:
        NotFound, NotYours: there is no such tenant, or the caller has no role there.
    """
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
    """Return what `is_unenforced` reads."""
    return GATE_OF_REQUEST, {"id": request_id}


def is_unenforced(session: UnitOfWork, request_id: UUID) -> bool:
    """Return whether the gate of a request's service does not enforce for its tenant, as far as the reader knows."""
    row = session.execute(*ahead_of_unenforced(request_id)).one_or_none()
    return row is not None and not _gate(row).is_enforced


def allow(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, service: str, *, revision: int
) -> TenantGate:
    """Let the gate of a service only report for a tenant, as its admin; the vendor has asked for this revision.

    Raises:
        NotFound, NotYours: there is no such tenant or gate, or the caller is no admin there.
        SignInAgain: the admin's sign-in is too weak or too old.
        Conflict: nothing is asked, or something else by now.
    """
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


def end(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, service: str) -> None:
    """Take back the yes of a tenant, as its admin: the gate enforces at once; without a yes nothing changes.

    Raises:
        NotFound, NotYours: there is no such tenant or gate, or the caller is no admin there.
    """
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
    """Write the event into the tenant's log and the vendor's, tell both, and have every process read anew."""
    said = AdminChange(action, now(session), {f"gate of {gate.service}": words}, facts={"service": gate.service})
    permissions.record_change(session, actor, said)
    event = permissions.audit_event_of(actor, said)
    announcements.notify_operators(session, permissions.for_the_vendor(event))
    publish_after_commit(session, [gate.id])


def _gate(row: Row[Any]) -> TenantGate:
    reports = row.wanted == REPORT and (row.enforced_at is None or row.consented_at is not None)
    is_asked = row.wanted == REPORT and row.enforced_at is not None
    return TenantGate(row.service, not reports, is_asked, row.revision, row.changed_at, row.consented_at)
