"""Off-boarding of a tenant by the database's owner: close, export and erase the tenant, and prove the erasure.

Each step commits separately and is recorded in `offboardings`. An interrupted command continues when run again.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import any_, literal, text
from sqlmodel import col, select

from lockbox.admin import erased_texts, erasure, legal_holds, retention
from lockbox.admin.retention import Transactions
from lockbox.audit.canonical import Value
from lockbox.audit.event_search import EventFilter, EventScope
from lockbox.audit.events import THE_OWNER, AuditEvent
from lockbox.audit.export import Export
from lockbox.audit.log import proofs
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, NotFound
from lockbox.facts.ask import Ask
from lockbox.facts.clock import Clock
from lockbox.facts.fact import FactView, facts_of
from lockbox.facts.requester import Requester
from lockbox.facts.window import Window
from lockbox.failpoints import failpoint
from lockbox.identity import row_macs
from lockbox.identity import tenants as registry
from lockbox.identity.credentials import Token
from lockbox.identity.models import Offboarding, PolicyVersion, Tenant
from lockbox.identity.roles import BOUND_TO
from lockbox.notifications import announcements
from lockbox.requests.policy_rules import Policy
from lockbox.sql import columns

BEGUN, TENANT_ERASED = "offboarding_begun", "tenant_erased"
ALL = EventScope()
AT_ONCE = 500
ROW = text(
    "SELECT asked_by, closed_at, size, digest, erased_at FROM offboardings WHERE tenant_id = :tenant FOR UPDATE"
)
FORGED = (
    "That this tenant leaves has no valid mark: it was written past Lockbox, or LOCKBOX_CREDENTIAL_KEY_FILES lacks a "
    "key. Have an admin of it withdraw that and ask again (page Data, `lockbox data stay` and `leave`)."
)
OPEN = text("""
SELECT count(*) FILTER (WHERE closed_at IS NULL) AS open,
    count(*) FILTER (WHERE closed_at > CAST(:at AS timestamptz) - CAST(:settled AS interval)) AS fresh
FROM requests WHERE tenant_id = :tenant
""")
MEMBERS = text("SELECT DISTINCT person_id FROM memberships WHERE tenant_id = :tenant ORDER BY person_id")
CLOSE = tuple(
    text(statement)
    for statement in (
        "DELETE FROM memberships WHERE tenant_id = :tenant",
        "DELETE FROM eligible_delegates WHERE tenant_id = :tenant",
        "UPDATE delegations SET ended_at = :at WHERE tenant_id = :tenant AND ended_at IS NULL",
        """
        UPDATE invitations SET withdrawn_at = :at
        WHERE tenant_id = :tenant AND withdrawn_at IS NULL AND accepted_at IS NULL
        """,
        """
        UPDATE endpoints SET disabled_at = coalesce(disabled_at, :at), removed_at = :at,
            why_disabled = coalesce(why_disabled, 'by_hand')
        WHERE tenant_id = :tenant AND removed_at IS NULL
        """,
        "UPDATE observers SET removed_at = :at WHERE tenant_id = :tenant AND removed_at IS NULL",
        """
        UPDATE notifications SET closed_at = :at, outcome = 'moot'
        WHERE tenant_id = :tenant AND closed_at IS NULL
        """,
        "DELETE FROM outbox WHERE tenant_id = :tenant",
        "DELETE FROM unsettled WHERE tenant_id = :tenant",
        "UPDATE pre_approvals SET ended_at = :at WHERE tenant_id = :tenant AND ended_at IS NULL",
        # No one is left to give a finding or to be reminded of it.
        "UPDATE after_reviews SET remind_at = NULL WHERE tenant_id = :tenant AND finding IS NULL",
        "DELETE FROM case_checks WHERE tenant_id = :tenant",
        "UPDATE offboardings SET closed_at = :at WHERE tenant_id = :tenant",
    )
)
UNSEALED = text("SELECT count(*) FROM unsealed u JOIN events e ON e.id = u.event_id WHERE e.log_id = :tenant")
EXPORTED = text("UPDATE offboardings SET size = :size, digest = :digest WHERE tenant_id = :tenant")
LOG = text("SELECT id, tenant_id, size, kept_from, cleared_to FROM logs WHERE id = :tenant")
REQUESTS = text("SELECT id FROM requests WHERE tenant_id = :tenant AND id > :after ORDER BY id LIMIT :most")
BEGAN = text(
    "SELECT body FROM events WHERE log_id = :tenant AND action = 'offboarding_begun' ORDER BY id DESC LIMIT 1"
)
# Events that the erasure itself adds do not count.
HAS_GROWN = text("""
SELECT EXISTS (SELECT FROM events e LEFT JOIN seals s ON s.event_id = e.id WHERE e.log_id = :tenant
    AND coalesce(s.number >= :size, true) AND e.action NOT IN ('person_erased', 'audit_events_removed'))
""")
# Selects people who were members at the end, were invited, or left a trace in the log, and are members of no other
# tenant.
PEOPLE = text("""
SELECT p.id FROM people p WHERE p.side = 'customer' AND NOT p.email LIKE '%@erased.invalid'
    AND NOT EXISTS (SELECT FROM memberships m WHERE m.person_id = p.id)
    AND (p.id = ANY(CAST(:members AS uuid[]))
        OR EXISTS (SELECT FROM invitations i WHERE i.tenant_id = :tenant AND i.accepted_by = p.id)
        OR EXISTS (SELECT FROM delegations d WHERE d.tenant_id = :tenant AND p.id IN (d.principal_id, d.delegate_id))
        OR EXISTS (SELECT FROM decisions d JOIN requests r ON r.id = d.request_id
            WHERE d.person_id = p.id AND r.tenant_id = :tenant))
ORDER BY p.id
""")
BLANK = tuple(
    text(statement)
    for statement in (
        """
        UPDATE invitations SET name = 'erased', email = 'erased@erased.invalid' WHERE tenant_id = :tenant
        """,
        """
        UPDATE invitations SET withdrawn_at = clock_timestamp()
        WHERE tenant_id = :tenant AND withdrawn_at IS NULL AND accepted_at IS NULL
        """,
        """
        UPDATE observers SET name = 'erased', email = id || '@erased.invalid' WHERE tenant_id = :tenant
        """,
        """
        UPDATE deliveries d SET answer = '' FROM endpoints h WHERE h.id = d.endpoint_id AND h.tenant_id = :tenant
        """,
        """
        UPDATE endpoints SET url = 'https://erased.invalid/', description = 'erased', secret = '', old_secret = NULL,
            old_secret_until = NULL, public_key = NULL
        WHERE tenant_id = :tenant
        """,
        "UPDATE legal_holds SET reason = 'erased' WHERE tenant_id = :tenant",
        "DELETE FROM reported_calls WHERE tenant = :slug",
        "UPDATE pre_approvals SET resource = 'erased:1' WHERE tenant_id = :tenant",
    )
)
ERASED = text("UPDATE offboardings SET erased_at = :at WHERE tenant_id = :tenant")
COUNTS = text("SELECT count(*) AS requests FROM requests WHERE tenant_id = :tenant")


SNAPSHOT = {
    "tenant": text("""
    SELECT t.id, t.slug, t.name, t.plan, t.mode, t.created_at, k.days AS retention_days
    FROM tenants t LEFT JOIN retentions k ON k.tenant_id = t.id WHERE t.id = :tenant
    """),
    "members": text("""
    SELECT p.id, p.name, p.email, m.role FROM memberships m JOIN people p ON p.id = m.person_id
    WHERE m.tenant_id = :tenant
    UNION ALL
    SELECT p.id, p.name, p.email, NULL FROM events e
    CROSS JOIN jsonb_array_elements_text(convert_from(e.body, 'UTF8')::jsonb -> 'members') AS k (id)
    JOIN people p ON p.id = CAST(k.id AS uuid)
    WHERE e.log_id = :tenant AND e.action = 'offboarding_begun'
    ORDER BY name, role
    """),
    "policies": text("SELECT version, body, created_at FROM policies WHERE tenant_id = :tenant ORDER BY version"),
    "delegations": text("""
    SELECT principal_id, delegate_id, starts_at, ends_at, ended_at FROM delegations WHERE tenant_id = :tenant
    ORDER BY id
    """),
    "endpoints": text("""
    SELECT url, description, event_types, format, created_at, removed_at FROM endpoints WHERE tenant_id =
    :tenant ORDER BY id
    """),
    "observers": text("SELECT name, email, service, removed_at FROM observers WHERE tenant_id = :tenant ORDER BY id"),
    "acknowledgements": text("""
    SELECT version, person_id, created_at FROM exclusion_acknowledgements WHERE tenant_id = :tenant ORDER BY
    version
    """),
    "requests": text(f"""
    SELECT r.id, r.requester_id, {columns(Ask, "r")}, {columns(Requester, "r")}, {columns(Window, "r")},
    {columns(Clock, "r", "state", "created_at", "asked_at", "closed_at", *facts_of(Clock, FactView.NONE))}
    FROM requests r WHERE r.tenant_id = :tenant AND r.asked_at IS NOT NULL ORDER BY r.id
    """),  # noqa: S608 - ours
}


@dataclass(frozen=True)
class LeavingTenant:
    id: UUID
    slug: str
    closed_at: datetime | None
    size: int | None
    digest: str | None
    erased_at: datetime | None


def find(session: UnitOfWork, slug: str, tenant_id: UUID | None = None) -> LeavingTenant:
    """An erased tenant can be looked up only by its id."""
    tenant = session.orm.get(Tenant, tenant_id) if tenant_id else registry.find(session, slug)
    if tenant is None:
        raise NotFound("There is no such tenant.")
    row = session.execute(ROW, {"tenant": tenant.id}).one_or_none()
    if row is None:
        return LeavingTenant(tenant.id, tenant.slug, None, None, None, None)
    return LeavingTenant(tenant.id, tenant.slug, row.closed_at, row.size, row.digest, row.erased_at)


def snapshot(session: UnitOfWork, tenant_id: UUID) -> dict[str, Any]:
    """Return a tenant's data outside its log."""
    found = {
        name: [dict(row._mapping) for row in session.execute(query, {"tenant": tenant_id})]  # noqa: SLF001 - documented
        for name, query in SNAPSHOT.items()
    }
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def close(session: UnitOfWork, tenant_id: UUID, *, unasked: bool = False) -> None:
    """Remove all memberships and stop all notifications of a tenant; idempotent.

    Raises:
        Conflict: the tenant is not suspended; requests are open or were closed within the last hour; there is a legal
            hold; or no row with a valid MAC records that an admin has asked for the off-boarding (`unasked` skips
            this check).
    """
    at = now(session)
    row = session.orm.get(Offboarding, tenant_id, with_for_update=True)
    is_ours = row is not None and row_macs.is_vouched_for(session, row)
    if row is not None and not is_ours and (row.closed_at is not None or not unasked):
        raise Conflict(FORGED)
    if row is not None and row.closed_at is not None:
        return
    tenant = session.orm.get_one(Tenant, tenant_id)
    if row is None and not unasked:
        raise Conflict("No admin of this tenant has asked to leave (page Data, `lockbox data leave`).")
    if not tenant.suspended:
        raise Conflict("Have an operator suspend the tenant first: lockbox tenant suspend.")
    legal_holds.refuse_held(session, [tenant_id])
    found = session.execute(OPEN, {"tenant": tenant_id, "at": at, "settled": erased_texts.SETTLED}).one()
    if found.open or found.fresh:
        raise Conflict(
            f"Open requests: {found.open}. Closed within the hour: {found.fresh}. Run this again an hour after the "
            "last one has ended; an admin's emergency stop ends all."
        )
    if row is None:
        row = Offboarding(tenant_id=tenant_id, asked_at=at)
    elif not is_ours:
        row.asked_by, row.asked_at = None, at
    row_macs.mark_data(session, row)
    session.orm.add(row)
    session.orm.flush()
    members = [str(one) for one in session.execute(MEMBERS, {"tenant": tenant_id}).scalars()]
    session.execute(erased_texts.PURPOSE)
    for statement in CLOSE:
        session.execute(statement, {name: {"tenant": tenant_id, "at": at}[name] for name in _names(statement)})
    facts: dict[str, Value] = {"members": members, "asked_by": row.asked_by}
    announcements.record(session, AuditEvent(at=at, action=BEGUN, actor=THE_OWNER, tenant_id=tenant_id, facts=facts))
    failpoint("departure.before_close")


def is_sealed(session: UnitOfWork, tenant_id: UUID) -> bool:
    return not session.execute(UNSEALED, {"tenant": tenant_id}).scalar_one()


def export(session: UnitOfWork, tenant_id: UUID) -> Export:
    failpoint("departure.before_export")
    log = proofs.head(session, tenant_id)
    if log is None:
        raise Conflict("This log has no sealed events yet. Start the core worker, and run this again.")
    return Export(log, ALL, EventFilter(), {}, {})


def exported(session: UnitOfWork, tenant_id: UUID, size: int, digest: str) -> None:
    """Record that the tenant's log was exported; `digest` is the SHA-256 of the file, in hex."""
    session.execute(EXPORTED, {"tenant": tenant_id, "size": size, "digest": digest})
    failpoint("departure.before_exported")


def erase(transactions: Transactions, leaving: LeavingTenant) -> Iterator[str]:
    """Erase an exported tenant; yield a sentence after each step. Ids, times, states and hashes remain.

    Raises:
        Conflict: there is a legal hold, the off-boarding has no valid MAC, or the log has grown since the export.
    """
    with transactions() as session:
        if not row_macs.is_vouched_for(session, session.orm.get_one(Offboarding, leaving.id)):
            raise Conflict(FORGED)
        legal_holds.refuse_held(session, [leaving.id])
        log = session.execute(LOG, {"tenant": leaving.id}).one()
        members = _members(session, leaving.id) if log.cleared_to == 0 else []
        if session.execute(HAS_GROWN, {"tenant": leaving.id, "size": leaving.size or 0}).scalar_one():
            raise Conflict("The log has grown since the export. Export it again.")
        at = now(session)
    yield from _texts(transactions, leaving.id)
    people = 0
    for person in _people(transactions, leaving.id, members):
        with transactions() as session:
            erasure.erase(session, person)
        failpoint("departure.after_person")
        people += 1
    yield f"{people} people were erased."
    for removed in retention.remove(transactions, log, leaving.size or 0, at):
        yield f"{removed.end - removed.start} events were removed."
    with transactions() as session:
        _rows(session, leaving, people)
    yield "The tenant's name and settings were erased."


def _texts(transactions: Transactions, tenant_id: UUID) -> Iterator[str]:
    count, after = 0, UUID(int=0)
    while True:
        with transactions() as session:
            legal_holds.refuse_held(session, [tenant_id])
            values = {"tenant": tenant_id, "after": after, "most": AT_ONCE}
            ids = session.execute(REQUESTS, values).scalars().all()
            erased_texts.blank(session.connection(), ids)
        failpoint("departure.after_texts")
        count += len(ids)
        if len(ids) < AT_ONCE:
            yield f"The texts of {count} requests were erased."
            return
        after = ids[-1]


def _members(session: UnitOfWork, tenant_id: UUID) -> list[UUID]:
    body = session.execute(BEGAN, {"tenant": tenant_id}).scalar_one()
    return [UUID(one) for one in json.loads(bytes(body))["members"]]


def _people(transactions: Transactions, tenant_id: UUID, members: Sequence[UUID]) -> list[UUID]:
    with transactions() as session:
        return list(session.execute(PEOPLE, {"tenant": tenant_id, "members": members}).scalars())


def _rows(session: UnitOfWork, leaving: LeavingTenant, people: int) -> None:
    legal_holds.refuse_held(session, [leaving.id])
    session.execute(erased_texts.PURPOSE)
    values = {"tenant": leaving.id, "slug": leaving.slug}
    for statement in BLANK:
        session.execute(statement, {name: values[name] for name in _names(statement)})
    tenant = session.orm.get_one(Tenant, leaving.id)
    body = Policy().model_dump(mode="json")
    for version in session.orm.exec(select(PolicyVersion).where(col(PolicyVersion.tenant_id) == leaving.id)):
        if version.body != body:
            version.body = body
            version.mac = row_macs.mark(session, row_macs.policy(leaving.id, version.version, body))
            session.orm.add(version)
    _unbind_tokens(session, f"{BOUND_TO}{leaving.slug}")
    tenant.slug = tenant.name = f"erased-{leaving.id.hex[-12:]}"
    registry.mark(session, tenant)
    at = now(session)
    session.execute(ERASED, {"tenant": leaving.id, "at": at})
    counts = session.execute(COUNTS, {"tenant": leaving.id}).one()
    facts: dict[str, Value] = {
        "export_size": leaving.size,
        "export_sha256": leaving.digest,
        "requests": counts.requests,
        "people": people,
    }
    event = AuditEvent(at=at, action=TENANT_ERASED, actor=THE_OWNER, tenant_id=leaving.id, facts=facts)
    announcements.record(session, event)
    failpoint("departure.before_erased")


def _unbind_tokens(session: UnitOfWork, bound: str) -> None:
    """Remove a tenant from the scopes of tokens, because another customer may later get the same slug."""
    for token in session.orm.exec(select(Token).where(literal(bound) == any_(col(Token.scopes)))):
        is_ours = row_macs.is_held(session, token.mac, row_macs.token(token), token.id)
        token.scopes = [scope for scope in token.scopes if scope != bound]
        token.mac = row_macs.mark(session, row_macs.token(token)) if is_ours else None
        session.orm.add(token)


def _names(statement: Any) -> set[str]:  # noqa: ANN401 - a statement
    return set(statement.compile().params)
