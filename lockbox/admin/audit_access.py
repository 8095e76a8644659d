"""Searches, exports and proofs of the audit log, for people who may read it.

A search in texts that the reader may not read raises Invalid.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import col, select

from lockbox.admin import permissions
from lockbox.audit import event_search, events, wording
from lockbox.audit import report as reports
from lockbox.audit.canonical import instant
from lockbox.audit.event_search import RECIPIENT, EventFilter, EventScope, FoundEvents, RecordedEvent
from lockbox.audit.events import VENDORS_LOG, Origin
from lockbox.audit.export import Export, Pages
from lockbox.audit.log import proofs
from lockbox.audit.log.proofs import LogHead
from lockbox.audit.report import ACTIVITY, Report, RequestRecord
from lockbox.audit.reported_mails import NOTIFIED
from lockbox.audit.verifier.approver_keys import ApproverKey, ApproverKeys
from lockbox.database import Database, UnitOfWork, now
from lockbox.errors import Invalid, NotFound, NotYours
from lockbox.facts.fact import why
from lockbox.identity import authentication, passkeys, row_macs
from lockbox.identity.credentials import Passkey
from lockbox.identity.models import EligibleDelegate, Membership
from lockbox.identity.passkeys import RelyingParty
from lockbox.identity.roles import CUSTOMERS_PARTIES, Caller, Role, Side
from lockbox.requests import queries
from lockbox.requests.models import AccessRequest

KEYS = text("""
SELECT person_id, name, passkey_id, credential_id, public_key, created_at, trusted_at, only_at, mac
FROM approver_keys(:tenant_id)
""")
CLEARED = text("SELECT cleared_to FROM logs WHERE id = :log_id")
MOST_A_PAGE = 200
MOST_SINCE = 4
MOST_MOVES = 500
MOST_USES = 500
MOST_SAID = 100
READERS = frozenset({Role.TENANT_ADMIN, Role.AUDITOR})
ORIGIN = frozenset({"address", "user_agent"})
CUSTOMERS = frozenset({*map(str, CUSTOMERS_PARTIES), Side.CUSTOMER.value})
OWN = EventScope(hidden_by_role=dict.fromkeys(CUSTOMERS, frozenset[str]()), hidden_for_others=ORIGIN)
VENDORS = EventScope(
    hidden=frozenset({"comment", RECIPIENT, *why(AccessRequest)}),
    hidden_by_role=dict.fromkeys(CUSTOMERS, ORIGIN),
    shown_without_request=frozenset({"name"}) | ORIGIN,
)
VENDORS_OWN = EventScope(of_tenants=replace(VENDORS, hidden=VENDORS.hidden - {RECIPIENT}))
"""Three scopes: a tenant's readers in the tenant's log, the vendor's readers in a tenant's log, and the vendor's
readers in the vendor's own log.

The vendor's readers do not see the people that a tenant invited, asked or gave something to.
"""


def export_approver_keys(
    session: UnitOfWork, caller: Caller, slug: str, party: Callable[[], RelyingParty]
) -> ApproverKeys:
    """Return the keys of approvers and possible delegates, for an admin; keys without a valid MAC are left out.

    `party` is called only for an admin: other callers are refused before it can raise an error.
    """
    tenant = permissions.readable(session, caller, slug, (Role.TENANT_ADMIN,))
    ours = party()
    found, people = [], _could_approve(session, tenant.id)
    for row in session.execute(KEYS, {"tenant_id": tenant.id}):
        covered = {name: getattr(row, name) for name in ("person_id", "credential_id", "public_key", "created_at")}
        key = Passkey(id=row.passkey_id, trusted_at=row.trusted_at, only_at=row.only_at, **covered)
        if row.person_id in people and row_macs.is_held(session, row.mac, row_macs.passkey(key), key.id):
            with suppress(ValueError):  # an unreadable key signs nothing
                public = passkeys.public_key(row.public_key)
                found.append(ApproverKey(str(row.person_id), row.name, public, instant(row.created_at)))
    return ApproverKeys(str(tenant.id), ours.domain, ours.origin, instant(now(session)), tuple(found))


def _could_approve(session: UnitOfWork, tenant_id: UUID) -> frozenset[UUID]:
    eligible = {
        one.person_id
        for one in session.orm.exec(select(EligibleDelegate).where(col(EligibleDelegate.tenant_id) == tenant_id))
        if row_macs.is_held(session, one.mac, row_macs.eligible_delegate(one), one.person_id)
    }
    return frozenset(
        one.person_id
        for one in session.orm.exec(select(Membership).where(col(Membership.tenant_id) == tenant_id))
        if (one.role is Role.APPROVER or one.person_id in eligible)
        and row_macs.is_held(
            session, one.mac, row_macs.membership(one.id, one.person_id, tenant_id, one.role), one.id
        )
    )


@dataclass(frozen=True)
class AuditReader:
    """`tenant_id` is None for the vendor's own log."""

    caller: Caller
    tenant_id: UUID | None
    sight: EventScope

    @property
    def log_id(self) -> UUID:
        return self.tenant_id or VENDORS_LOG


def audit_reader(session: UnitOfWork, caller: Caller, slug: str | None) -> AuditReader:
    """Without a slug, return a reader of the vendor's log, or of the log of the caller's only tenant."""
    authentication.enter(session, caller)
    if slug is not None:
        return _reader(caller, permissions.known(session, caller, slug).id)
    if caller.holds(Role.VENDOR_AUDITOR):
        return _reader(caller, None)
    tenants = caller.tenants(READERS)
    if len(tenants) > 1:
        raise Invalid("You can read several logs. Name one with `tenant`.", field="tenant")
    return _reader(caller, next(iter(tenants), None))


def _reader(caller: Caller, tenant_id: UUID | None) -> AuditReader:
    if tenant_id and caller.holds(*READERS, tenant_id=tenant_id):
        return AuditReader(caller, tenant_id, OWN)
    if caller.holds(Role.VENDOR_AUDITOR):
        return AuditReader(caller, tenant_id, VENDORS if tenant_id else VENDORS_OWN)
    raise NotYours("Only a tenant's admins and auditors, and the vendor's auditors, can read the audit log.")


def search(
    session: UnitOfWork, who: AuditReader, wanted: EventFilter, *, before: UUID | None, most: int
) -> FoundEvents:
    """Newest first. The number of events read is limited, so a page may be short although older events match."""
    authentication.enter(session, who.caller)
    _check(who, wanted)
    return event_search.page(session, who.log_id, who.sight, wanted, before=before, most=most)


def head(session: UnitOfWork, who: AuditReader) -> LogHead:
    """Raises NotFound if no event is sealed yet."""
    authentication.enter(session, who.caller)
    found = proofs.head(session, who.log_id)
    if found is None:
        raise NotFound("This log has no sealed events yet. Events are sealed within seconds; try again.")
    return found


def inclusion(session: UnitOfWork, who: AuditReader, event_id: UUID) -> tuple[LogHead, int, list[bytes]]:
    """Return the log, the event's index in it, and the audit path; raises NotFound if the event is not sealed yet."""
    log = head(session, who)
    number = proofs.number_of(session, log, event_id)
    if number is None or not _visible(session, who, number):
        raise NotFound(
            "There is no such event in this log, or it is not sealed yet. Sealing takes about a second; try again."
        )
    return log, number, proofs.inclusion(session, log, [number])[number]


def _visible(session: UnitOfWork, who: AuditReader, number: int) -> bool:
    return bool(event_search.span(session, who.log_id, who.sight, EventFilter(), start=number, end=number + 1))


def consistency(session: UnitOfWork, who: AuditReader, old: int, new: int | None) -> tuple[LogHead, int, list[bytes]]:
    """Return the log, the newer size, and the consistency proof; `new` is None for the newest size."""
    log = head(session, who)
    newer = log.size if new is None else new
    if not 0 <= old <= newer <= log.size:
        raise Invalid(f"Ask for sizes in order, up to {log.size}, which the log has now.", field="from")
    return log, newer, proofs.consistency(session, log.id, old, newer)


def export(
    session: UnitOfWork, who: AuditReader, wanted: EventFilter, asked: Mapping[str, Any], since: Iterable[int] = ()
) -> Export:
    """`since` lists older log sizes; the export proves consistency with each."""
    _check(who, wanted)
    log = head(session, who)
    proven = {}
    for size in since:
        if not 0 <= size <= log.size:
            raise Invalid(f"The log has {log.size} events; `since` is a size that it had before.", field="since")
        proven[size] = proofs.consistency(session, log.id, size, log.size)
    return Export(log, who.sight, wanted, asked, proven)


def length(session: UnitOfWork, export: Export) -> int:
    """Count the events that the export will have, unless the reader's rights change."""
    log = export.log
    if export.wanted.is_all:
        return log.size - int(session.execute(CLEARED, {"log_id": log.id}).scalar_one())
    return event_search.count(session, log.id, export.sight, export.wanted, end=log.size)


def report(session: UnitOfWork, caller: Caller, origin: Origin, request_id: UUID) -> Report:
    """Return the report of a request, and record in the tenant's log that it was read."""
    entry = queries.find(session, caller, request_id)
    who = _reader(caller, entry.request.tenant_id)
    moves = _events(session, who, EventFilter(request=request_id, moves=True), MOST_MOVES)
    used = _events(session, who, EventFilter(request=request_id, action=ACTIVITY), MOST_USES + 1)
    said = [
        _events(session, who, EventFilter(request=request_id, action=one), MOST_SAID) for one in reports.CONVERSED
    ]
    asked = [event for some in said for event in some]
    told = _events(session, who, EventFilter(request=request_id, action=NOTIFIED), MOST_SAID)
    ended = _events(session, who, EventFilter(request=request_id, action=reports.LAST_USED), 1)
    count = len(moves) + len(used) + len(asked) + len(told) + len(ended)
    record_read(session, who, origin, events.AUDIT_LOG_READ, asked={"request": str(request_id)}, count=count)
    more, kept = len(used) > MOST_USES, _kept(entry.request)
    in_order = sorted(asked, key=lambda event: (event.at, event.id))
    let_in = wording.let_in(ended[0].said, reports.moment) if ended else ""
    return reports.report(
        entry.tenant, moves, used[-MOST_USES:], asked=in_order, told=told, more=more, kept=kept, let_in=let_in
    )


def _kept(request: AccessRequest) -> RequestRecord:
    return RequestRecord(
        request_id=request.id,
        service=request.service,
        actions=tuple(request.actions),
        resources=tuple(request.resources),
        reason_code=request.reason_code,
        state=request.state,
        moves=request.version,
        opened_at=request.opens_at or request.opened_at,
        closed_at=request.closed_at,
    )


def _events(session: UnitOfWork, who: AuditReader, wanted: EventFilter, most: int) -> list[RecordedEvent]:
    logs = [who.log_id, VENDORS_LOG] if who.sight == VENDORS else [who.log_id]
    found = event_search.of_request(session, logs, who.sight, wanted, most=most)
    return sorted(found, key=lambda event: (event.at, event.id))


def record_read(
    session: UnitOfWork, who: AuditReader, origin: Origin, action: str, *, asked: Mapping[str, str], count: int
) -> None:
    if who.caller.side is Side.VENDOR and who.tenant_id:
        authentication.turn_to(session, who.tenant_id)
    roles = (*sorted(READERS), Role.VENDOR_AUDITOR)
    role = next(one for one in roles if who.caller.holds(one, tenant_id=who.tenant_id if one in READERS else None))
    actor = origin.actor(who.caller, role)
    events.record(session, actor, action, logs=[who.tenant_id], wanted=asked, count=count)


def pages(db: Database, who: AuditReader) -> Pages:
    """Return a function that opens a transaction for each page and checks the reader's rights again."""

    @contextmanager
    def opened() -> Iterator[UnitOfWork]:
        with db.transaction() as session:
            authentication.enter(session, who.caller)
            _reader(authentication.as_of_now(session, who.caller), who.tenant_id)
            yield session

    return opened


def _check(who: AuditReader, wanted: EventFilter) -> None:
    if wanted.words and not any(name not in who.sight.hidden for name in event_search.WORDS):
        raise Invalid(
            "The vendor's auditors cannot search comments and justifications. Leave out `text`.", field="text"
        )
