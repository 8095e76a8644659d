"""Versions of the vendor's statement of what Lockbox does not cover, sent to every customer for acknowledgement."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.admin import permissions
from lockbox.admin.permissions import AdminChange, change
from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, AuditEvent, Origin
from lockbox.database import Database, UnitOfWork, now
from lockbox.errors import Conflict, NotFound, StaleVersion
from lockbox.identity import authentication
from lockbox.identity.models import ExclusionAcknowledgement, ExclusionsVersion, Tenant
from lockbox.identity.roles import Caller, Role
from lockbox.notifications import announcements

CHANGED, ACKNOWLEDGED = "exclusions_changed", "exclusions_acknowledged"
LONGEST = 20_000
"""The most characters that a version may have: its event contains the whole text."""
MOST_A_PAGE = 200
AT_ONCE = 20
SETTLED = timedelta(minutes=1)
"""A version is announced once it has this age. By then, each tenant with an earlier id is committed, so none is
missed."""
NOBODY, EVERYBODY = UUID(int=0), UUID(int=2**128 - 1)
READERS = (Role.OPERATOR, Role.VENDOR_AUDITOR)
NONE_YET = "The vendor has stated no exclusions yet."
NO_VERSION = "There is no such version of the exclusions."
OVERTAKEN = "The exclusions have changed since you read them. Read them again."
OUTDATED = "There is a newer version of the exclusions. Read it, and acknowledge that one."
VERSIONS = text("""
SELECT x.version, x.body, x.author_id, p.name AS author, x.created_at
FROM exclusions x LEFT JOIN people p ON p.id = x.author_id
WHERE (CAST(:version AS integer) IS NULL OR x.version = :version)
    AND (CAST(:before AS integer) IS NULL OR x.version < :before)
ORDER BY x.version DESC LIMIT :most
""")
ACKNOWLEDGEMENT = text("""
SELECT a.version, a.person_id, p.name, a.created_at
FROM exclusion_acknowledgements a LEFT JOIN people p ON p.id = a.person_id
WHERE a.tenant_id = :tenant ORDER BY a.version DESC LIMIT 1
""")
OF_TENANTS = text("""
SELECT t.slug, t.name, a.version, a.created_at FROM tenants t
LEFT JOIN LATERAL (SELECT c.version, c.created_at FROM exclusion_acknowledgements c WHERE c.tenant_id = t.id
    ORDER BY c.version DESC LIMIT 1) a ON true
WHERE (CAST(:cursor AS text) IS NULL OR t.slug > :cursor) AND NOT is_erased(t.id) ORDER BY t.slug LIMIT :most
""")
UNTOLD = text("""
SELECT x.version, x.body, x.created_at, coalesce(x.announced_to, :nobody) AS announced_to FROM exclusions x
WHERE (x.announced_to IS NULL OR x.announced_to < :everybody)
    AND x.created_at < (SELECT clock_timestamp()) - CAST(:settled AS interval)
ORDER BY x.version LIMIT 1 FOR UPDATE OF x
""")
NEXT = text("""
SELECT id FROM tenants WHERE id > :after AND created_at <= :at AND NOT is_erased(id) ORDER BY id LIMIT :most
""")
TOLD = text("UPDATE exclusions SET announced_to = :to WHERE version = :version")


@dataclass(frozen=True)
class Exclusions:
    """`author` is None if the reader may not see the name."""

    version: int
    body: str
    author_id: UUID
    author: str | None
    created_at: datetime


@dataclass(frozen=True)
class Acknowledgement:
    version: int
    person_id: UUID
    name: str | None
    at: datetime


@dataclass(frozen=True)
class TenantExclusions:
    current: Exclusions | None
    acknowledged: Acknowledgement | None

    @property
    def is_due(self) -> bool:
        seen = self.acknowledged.version if self.acknowledged else 0
        return self.current is not None and seen < self.current.version


@dataclass(frozen=True)
class TenantStanding:
    """`version` and `at` are None if the tenant has acknowledged no version."""

    slug: str
    name: str
    version: int | None
    at: datetime | None


@dataclass(frozen=True)
class StandingListing:
    standings: Sequence[TenantStanding]
    next_cursor: str | None


def state(session: UnitOfWork, caller: Caller, origin: Origin, body: str, *, seen: int | None = None) -> Exclusions:
    """Put a new version in force, as an operator; the same text again changes nothing."""
    actor = permissions.acting_as(session, caller, origin, (Role.OPERATOR,))
    permissions.require_fresh_operator(session, actor)
    held = _newest(session)
    version = held.version if held else 0
    if seen is not None and seen != version:
        raise StaleVersion(OVERTAKEN, current_version=version)
    if held and held.body == body:
        return held
    at = now(session)
    added = ExclusionsVersion(version=version + 1, body=body, author_id=actor.caller.person_id, created_at=at)
    session.orm.add(added)
    session.orm.flush()
    changes = {"version": change(version or permissions.ABSENT, added.version)}
    permissions.record_change(session, actor, AdminChange(CHANGED, at, changes, facts=_said(added.version, body)))
    return Exclusions(added.version, body, actor.caller.person_id, actor.caller.name, at)


def read(session: UnitOfWork, caller: Caller, version: int | None = None) -> Exclusions:
    """`version` is None for the version in force. For everyone who is signed in."""
    authentication.enter(session, caller)
    found = _versions(session, version=version, most=1)
    if not found:
        raise NotFound(NO_VERSION if version else NONE_YET)
    return found[0]


def versions(session: UnitOfWork, caller: Caller, *, before: int | None, most: int) -> list[Exclusions]:
    """Newest first. For everyone who is signed in."""
    authentication.enter(session, caller)
    return _versions(session, before=before, most=most)


def of_tenant(session: UnitOfWork, caller: Caller, slug: str) -> TenantExclusions:
    return _of_tenant(session, permissions.readable(session, caller, slug))


def acknowledge(session: UnitOfWork, caller: Caller, origin: Origin, slug: str, *, version: int) -> TenantExclusions:
    """Acknowledge the version in force, as the tenant's admin; idempotent. This grants no access."""
    tenant = permissions.known(session, caller, slug)
    actor = permissions.acting_as(session, caller, origin, (Role.TENANT_ADMIN,), tenant)
    permissions.require_fresh_admin(session, actor, tenant)
    held = _newest(session)
    if held is None or version > held.version:
        raise NotFound(NO_VERSION)
    if version < held.version:
        raise Conflict(OUTDATED)
    known = _of_tenant(session, tenant)
    if not known.is_due:
        return known
    at = now(session)
    session.orm.add(
        ExclusionAcknowledgement(
            tenant_id=tenant.id, version=version, person_id=actor.caller.person_id, created_at=at
        )
    )
    session.orm.flush()
    before = known.acknowledged.version if known.acknowledged else permissions.ABSENT
    said = AdminChange(ACKNOWLEDGED, at, {"version": change(before, version)}, facts=_said(version, held.body))
    permissions.record_change(session, actor, said)
    event = permissions.audit_event_of(actor, replace(said, facts={"version": version}))
    announcements.record(session, permissions.for_the_vendor(event))
    return _of_tenant(session, tenant)


def standings(session: UnitOfWork, caller: Caller, *, cursor: str | None, most: int) -> StandingListing:
    """Sorted by slug. For the vendor's operators and auditors."""
    authentication.enter(session, caller)
    permissions.capacity(caller, READERS)
    rows = session.execute(OF_TENANTS, {"cursor": cursor, "most": most + 1}).all()
    shown = [TenantStanding(row.slug, row.name, row.version, row.created_at) for row in rows[:most]]
    return StandingListing(shown, shown[-1].slug if len(rows) > most else None)


def announce(database: Database, *, settled: timedelta = SETTLED) -> Iterator[int]:
    """Write each version to all logs and notify the admins; yield the number of logs per step.

    Older versions go first. A version must be at least as old as `settled`.
    """
    while True:
        with database.transaction() as session:
            values = {"nobody": NOBODY, "everybody": EVERYBODY, "settled": settled}
            row = session.execute(UNTOLD, values).one_or_none()
            if row is None:
                return
            count = _tell_some(session, row)
        yield count


def _tell_some(session: UnitOfWork, row: Row[Any]) -> int:
    values = {"after": row.announced_to, "at": row.created_at, "most": AT_ONCE}
    tenants = session.execute(NEXT, values).scalars().all()
    at = now(session)
    changes = {"version": change(row.version - 1 or permissions.ABSENT, row.version)}
    facts = {**_said(row.version, row.body), "changes": changes}
    for tenant in tenants:
        announcements.announce(
            session, AuditEvent(at=at, action=CHANGED, actor=THE_CLOCK, tenant_id=tenant, facts=facts)
        )
    is_last = len(tenants) < AT_ONCE
    session.execute(TOLD, {"version": row.version, "to": EVERYBODY if is_last else tenants[-1]})
    return len(tenants)


def _said(version: int, body: str) -> dict[str, Value]:
    return {"version": version, "text": body, "sha256": hashlib.sha256(body.encode()).hexdigest()}


def _versions(
    session: UnitOfWork, *, version: int | None = None, before: int | None = None, most: int
) -> list[Exclusions]:
    rows = session.execute(VERSIONS, {"version": version, "before": before, "most": most})
    return [Exclusions(row.version, row.body, row.author_id, row.author, row.created_at) for row in rows]


def _newest(session: UnitOfWork) -> Exclusions | None:
    return next(iter(_versions(session, most=1)), None)


def _of_tenant(session: UnitOfWork, tenant: Tenant) -> TenantExclusions:
    row = session.execute(ACKNOWLEDGEMENT, {"tenant": tenant.id}).one_or_none()
    seen = Acknowledgement(row.version, row.person_id, row.name, row.created_at) if row else None
    return TenantExclusions(_newest(session), seen)
