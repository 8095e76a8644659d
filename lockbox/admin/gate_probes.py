"""Results of operators' probes of gateways, recorded in a tenant's log."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import String, literal_column
from sqlmodel import col, select

from lockbox.admin import permissions
from lockbox.admin.permissions import AdminChange
from lockbox.audit.canonical import Value
from lockbox.audit.events import Origin
from lockbox.audit.models import Event
from lockbox.database import UnitOfWork, now
from lockbox.errors import Invalid
from lockbox.identity.roles import Caller
from lockbox.notifications import announcements

PROBED = "gate_probed"
IS_PROBE = col(Event.action) == literal_column(f"'{PROBED}'", String)
"""The action is a literal, not a parameter: a query plan for any action would read all events of all tenants."""
MOST_A_PAGE = 200
MOST_READ = 50
"""How many of the newest records are searched for the newest record of each service."""


@dataclass(frozen=True)
class ProbeResult:
    service: str
    gateway: str
    refused: int
    let_through: int

    @property
    def calls(self) -> int:
        return self.refused + self.let_through


@dataclass(frozen=True)
class RecordedProbe:
    """`id` is the id of the event."""

    id: UUID
    at: datetime
    result: ProbeResult


@dataclass(frozen=True)
class ProbePage:
    probes: Sequence[RecordedProbe]
    next_cursor: UUID | None


def record(
    session: UnitOfWork, caller: Caller, origin: Origin, slug: str, result: ProbeResult, *, services: Collection[str]
) -> RecordedProbe:
    """Write the result to the tenant's log, as an operator; no one is notified."""
    actor, _ = permissions.operate(session, caller, origin, slug)
    if result.service not in services:
        raise Invalid(f"Choose one of the services {', '.join(sorted(services))}.", field="service")
    facts: dict[str, Value] = {
        "service": result.service,
        "gateway": result.gateway,
        "refused": result.refused,
        "let_through": result.let_through,
    }
    changes = {f"gateway of {result.service}": f"{result.refused} of {result.calls} refused"}
    at = now(session)
    event = permissions.audit_event_of(actor, AdminChange(PROBED, at, changes, facts=facts))
    announcements.record(session, event)
    return RecordedProbe(event.id, at, result)


def page(session: UnitOfWork, caller: Caller, slug: str, *, cursor: UUID | None, most: int) -> ProbePage:
    """Newest first. For the tenant's members."""
    found = _newest(session, permissions.readable(session, caller, slug).id, most + 1, before=cursor)
    return ProbePage(found[:most], found[most - 1].id if len(found) > most else None)


def newest(session: UnitOfWork, tenant_id: UUID) -> Sequence[RecordedProbe]:
    """Sorted by service. For readers of the tenant's log."""
    found: dict[str, RecordedProbe] = {}
    for one in _newest(session, tenant_id, MOST_READ):
        found.setdefault(one.result.service, one)
    return [found[name] for name in sorted(found)]


def _newest(session: UnitOfWork, tenant_id: UUID, most: int, *, before: UUID | None = None) -> list[RecordedProbe]:
    query = select(Event).where(col(Event.tenant_id) == tenant_id, IS_PROBE)
    if before is not None:
        query = query.where(col(Event.id) < before)
    return [_probe(event) for event in session.orm.exec(query.order_by(col(Event.id).desc()).limit(most))]


def _probe(event: Event) -> RecordedProbe:
    said = json.loads(event.body)
    result = ProbeResult(said["service"], said["gateway"], said["refused"], said["let_through"])
    return RecordedProbe(event.id, event.at, result)
