"""Record how the catalogue defines each gate, and notify customers of changes.

While a new catalogue is rolled out, old and new processes run side by side. The change is recorded once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, text
from sqlmodel import col, or_, select

from gate import gate_news
from gate.gate_definition import GateDefinition, differences
from gate.gate_news import HOLD, SETTLED, GateNews
from lockbox.admin.permissions import ABSENT, change
from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, AuditEvent
from lockbox.database import Database, UnitOfWork, now
from lockbox.identity.models import GateDefinitionRecord
from lockbox.notifications import announcements
from lockbox.sql import insert, new_id

DEFINED, REDEFINED = "gate_defined", "gate_redefined"
SAID_AGAIN = timedelta(minutes=5)
IN_USE = timedelta(hours=1)
"""A definition counts as in use for this long after a process last used it: another process may still use it."""
ADDED = text(insert(GateDefinitionRecord, but={"recorded_at", "used_at", "announced_to"}))
USED = text("UPDATE gate_definitions SET used_at = greatest(used_at, clock_timestamp()) WHERE id = :id")
KNOWN = text("""
SELECT d.id, d.service, d.revision, d.digest,
    d.used_at < (SELECT clock_timestamp()) - CAST(:again AS interval) AS is_old,
    d.used_at >= (SELECT clock_timestamp()) - CAST(:in_use AS interval) AS is_used
FROM gate_definitions d WHERE d.service = ANY (CAST(:services AS text[])) ORDER BY d.service, d.revision DESC
""")
WAITING = text("""
SELECT d.id, d.service, d.revision, d.body, d.only_for, d.recorded_at, d.announced_to,
    n.newest = d.revision AS is_newest
FROM gate_definitions d
JOIN (SELECT service, max(revision) AS newest FROM gate_definitions GROUP BY service) n ON n.service = d.service
WHERE NOT d.service = ANY (CAST(:failed AS text[])) AND (d.announced_to IS NULL OR EXISTS (SELECT FROM tenants t
    WHERE t.id > d.announced_to AND NOT is_erased(t.id)
    AND t.created_at < (SELECT clock_timestamp()) - CAST(:settled AS interval)
    AND (d.only_for IS NULL OR t.slug = ANY (d.only_for))
    AND (t.created_at <= d.recorded_at OR n.newest = d.revision)))
ORDER BY d.service, d.revision LIMIT 1 FOR UPDATE OF d
""")
NEXT = text("""
SELECT t.id, t.slug, t.created_at <= :recorded_at AS was_there FROM tenants t
WHERE t.id > :announced_to AND NOT is_erased(t.id)
    AND t.created_at < (SELECT clock_timestamp()) - CAST(:settled AS interval)
    AND (CAST(:only_for AS text[]) IS NULL OR t.slug = ANY (CAST(:only_for AS text[])))
    AND (:is_newest OR t.created_at <= :recorded_at)
ORDER BY t.id LIMIT :most
""")
ANNOUNCED = text("UPDATE gate_definitions SET announced_to = :to WHERE id = :id")
NEWEST = text("""
SELECT d.service, d.body, d.recorded_at, d.place, d.is_used FROM (SELECT g.service, g.body, g.recorded_at,
    row_number() OVER (PARTITION BY g.service ORDER BY g.revision DESC) AS place,
    g.used_at >= (SELECT clock_timestamp()) - CAST(:in_use AS interval) AS is_used
    FROM gate_definitions g WHERE g.only_for IS NULL OR CAST(:slug AS text) = ANY (g.only_for)) d
WHERE d.place <= 2 ORDER BY d.service, d.place
""")


@dataclass(frozen=True)
class DefinitionChange:
    """`changes` has two texts for each part: what only the old definition has, and what only the new one has.

    While `is_beside` is true, some process may still use the old definition.
    """

    since: datetime
    sha256: str
    changes: Mapping[str, tuple[str, str]]
    is_first: bool
    is_beside: bool


def record(session: UnitOfWork, said: Mapping[str, GateDefinition]) -> None:
    """Record this process' definitions that are new or were not confirmed lately.

    A definition is new if it differs from the newest record, unless both were in use within the last hour. The
    transaction must belong to the gate's caller (`authentication.enter`).
    """
    if not _due(session, said):
        return
    session.execute(HOLD)
    for service, (newest, same) in _due(session, said).items():
        if same is not None and (same is newest or (same.is_used and newest is not None and newest.is_used)):
            session.execute(USED, {"id": same.id})
        else:
            _add(session, service, said[service], newest)


def _due(
    session: UnitOfWork, said: Mapping[str, GateDefinition]
) -> dict[str, tuple[Row[Any] | None, Row[Any] | None]]:
    """Return the services to write, each with its newest record and the newest record equal to its definition."""
    values = {"services": list(said), "again": SAID_AGAIN, "in_use": IN_USE}
    newest: dict[str, Row[Any]] = {}
    same: dict[str, Row[Any]] = {}
    for row in session.execute(KNOWN, values):
        newest.setdefault(row.service, row)
        if bytes(row.digest) == said[row.service].digest:
            same.setdefault(row.service, row)
    return {
        name: (newest.get(name), same.get(name))
        for name in said
        if name not in same or same[name].is_old or not newest[name].is_used
    }


def _add(session: UnitOfWork, service: str, said: GateDefinition, newest: Row[Any] | None) -> None:
    only_for: list[str] | None = None if said.only_tenant is None else [said.only_tenant]
    if newest is not None and only_for is not None:
        before = GateDefinition(_body(session, service, newest.revision)).only_tenant
        only_for = None if before is None else sorted({before, *only_for})
    values = {
        "id": new_id(),
        "service": service,
        "revision": newest.revision + 1 if newest else 1,
        "digest": said.digest,
        "body": said.body,
        "only_for": only_for,
    }
    session.execute(ADDED, values)


def _body(session: UnitOfWork, service: str, revision: int) -> str:
    query = select(GateDefinitionRecord.body).where(
        col(GateDefinitionRecord.service) == service, col(GateDefinitionRecord.revision) == revision
    )
    return session.orm.exec(query).one()


def announce(database: Database, *, settled: timedelta = SETTLED) -> Iterator[int]:
    """Announce new definitions as `gate_news.announce` does. A gate's first definition is logged without a mail."""
    return gate_news.announce(database, NEWS, settled=settled)


def _tell(session: UnitOfWork, row: Row[Any], tenant: Row[Any] | None) -> None:
    slug, tenant_id = (tenant.slug, tenant.id) if tenant else (None, None)
    is_change = row.revision > 1 and (tenant is None or tenant.was_there)
    before = _before(session, row, slug) if is_change else None
    facts = _facts(row.service, GateDefinition(row.body), before, slug)
    action = REDEFINED if is_change else DEFINED
    event = AuditEvent(at=now(session), action=action, actor=THE_CLOCK, tenant_id=tenant_id, facts=facts)
    if not is_change:
        announcements.record(session, event)
    elif tenant is None:
        announcements.notify_operators(session, event)
    else:
        announcements.announce(session, event)


def _before(session: UnitOfWork, row: Row[Any], slug: str | None) -> GateDefinition | None:
    known = GateDefinitionRecord
    query = select(known.body).where(col(known.service) == row.service, col(known.revision) < row.revision)
    if slug is not None:
        query = query.where(or_(col(known.only_for).is_(None), col(known.only_for).contains([slug])))
    body = session.orm.exec(query.order_by(col(known.revision).desc()).limit(1)).one_or_none()
    return None if body is None else GateDefinition(body)


def _facts(service: str, said: GateDefinition, before: GateDefinition | None, slug: str | None) -> dict[str, Value]:
    facts: dict[str, Value] = {"service": service, "sha256": said.digest.hex()}
    if before is None:
        return facts | {"changes": {f"gate of {service}": change(ABSENT, f"{said.paths} paths")}}
    found = differences(before.body, said.body, slug).items()
    changes = {f"{part} at the gate of {service}": change(*sides) for part, sides in found}
    return facts | {"before": before.digest.hex(), "changes": changes}


NEWS = GateNews(WAITING, NEXT, ANNOUNCED, _tell)


def of_tenant(session: UnitOfWork, slug: str) -> dict[str, DefinitionChange]:
    """Return the newest definition of each gate that can decide a tenant's calls.

    The transaction must belong to a caller (`authentication.enter`).
    """
    rows: dict[str, list[Row[Any]]] = {}
    for row in session.execute(NEWEST, {"slug": slug, "in_use": IN_USE}):
        rows.setdefault(row.service, []).append(row)
    return {service: _change(found, slug) for service, found in rows.items()}


def _change(found: list[Row[Any]], slug: str) -> DefinitionChange:
    newest, before = found[0], found[1] if len(found) > 1 else None
    return DefinitionChange(
        newest.recorded_at,
        GateDefinition(newest.body).digest.hex(),
        differences(before.body, newest.body, slug) if before else {},
        before is None,
        before is not None and before.is_used,
    )
