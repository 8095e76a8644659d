"""Look-up of the possible recipients at some tenants, and of their addresses."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text

from lockbox.database import Query, UnitOfWork
from lockbox.identity import row_macs
from lockbox.identity.roles import Role

# Each request is looked up by index; the reverse join would read whole tables. People whose time as a delegate began
# while a request waited got a mail that lists the request.
PROMPTED = text("""
SELECT r.id AS request_id, h.person_id
FROM unnest(CAST(:ids AS uuid[])) AS i (id) JOIN requests r ON r.id = i.id
CROSS JOIN LATERAL (
    SELECT n.person_id FROM notifications n
    WHERE n.request_id = r.id AND n.template IN ('pending', 'answer_reminder', 'active', 'break_glass')
        AND n.person_id IS NOT NULL
    UNION ALL
    SELECT d.person_id FROM decisions d WHERE d.request_id = r.id AND d.decision <> 'endorse'
    UNION ALL
    SELECT g.delegate_id FROM delegations g WHERE g.tenant_id = r.tenant_id
        AND greatest(g.starts_at, g.created_at) BETWEEN r.asked_at AND coalesce(r.opened_at, clock_timestamp())
        AND (g.ended_at IS NULL OR g.ended_at > g.starts_at)
) h
WHERE EXISTS (SELECT FROM memberships m WHERE m.person_id = h.person_id AND m.tenant_id = r.tenant_id)
""")
ASKED = [Role.APPROVER, Role.TENANT_ADMIN]
# By default, the tenants that the transaction deals with, and the current time.
TENANTS = "coalesce(CAST(:tenants AS uuid[]), at_reach())"
AT = "coalesce(CAST(:at AS timestamptz), clock_timestamp())"
FOUND_BY_ROLE = f"""
SELECT m.role AS role, m.tenant_id, p.id, NULL::text[] AS more, p.wants_prompts
FROM memberships m JOIN people p ON p.id = m.person_id
WHERE p.disabled_at IS NULL AND m.tenant_id = ANY({TENANTS}) AND m.role = ANY(:roles)
UNION ALL
SELECT m.role, NULL, p.id, ARRAY[m.review_tier::text], p.wants_prompts
FROM memberships m JOIN people p ON p.id = m.person_id
WHERE p.disabled_at IS NULL AND m.tenant_id IS NULL AND m.role = 'manager'
UNION ALL
SELECT 'delegate', d.tenant_id, d.delegate_id, ARRAY[d.id, d.principal_id, d.made_by, l.id, d.starts_at, d.ends_at,
    d.created_at, encode(d.mac, 'hex'), encode(l.mac, 'hex')]::text[], p.wants_prompts
FROM delegations d JOIN people p ON p.id = d.delegate_id
JOIN eligible_delegates l ON l.tenant_id = d.tenant_id AND l.person_id = d.delegate_id
WHERE d.tenant_id = ANY({TENANTS}) AND d.starts_at <= {AT} AND d.ends_at > {AT} AND d.ended_at IS NULL
AND p.disabled_at IS NULL
AND EXISTS (SELECT FROM memberships m WHERE m.tenant_id = d.tenant_id AND m.person_id = d.delegate_id)
AND EXISTS (SELECT FROM memberships m JOIN people q ON q.id = m.person_id AND q.disabled_at IS NULL
    WHERE m.tenant_id = d.tenant_id AND m.person_id = d.principal_id AND m.role = 'approver')
"""  # noqa: S608 - ours
LOOK_UP = text(FOUND_BY_ROLE)
ASKED_AT = f"""
coalesce(CAST(:tenants AS uuid[]), ARRAY(
    SELECT m.tenant_id FROM memberships m
    WHERE m.person_id = at_person() AND m.tenant_id = ANY(at_tenants()) AND m.role IN ('approver', 'tenant_admin')
    UNION
    SELECT d.tenant_id FROM delegations d
    WHERE d.delegate_id = at_person() AND d.tenant_id = ANY(at_tenants()) AND d.ended_at IS NULL
        AND tstzrange(d.starts_at, d.ends_at) @> {AT}))"""  # noqa: S608 - ours
"""The given tenants, or by default the tenants at which the transaction's person is an approver, an admin or a
delegate now.

This SQL trusts the rows; its callers check the rows' MACs.
"""
PLACES = text("""
SELECT 'endpoint' AS role, r.tenant_id, r.id, r.event_types AS more, true AS prompts
FROM webhook_receivers(:tenants) r
UNION ALL
SELECT 'observer', w.tenant_id, w.id, ARRAY[w.service], true FROM observers_of(:tenants) w
UNION ALL
SELECT 'mailbox', NULL, b.person_id, ARRAY[b.id::text], b.prompts FROM mail_addresses(:tenants, :also) b
""")


def prompted(session: UnitOfWork, request_ids: Sequence[UUID]) -> Mapping[UUID, frozenset[UUID]]:
    """Return for each request the notified people who are still members."""
    found = defaultdict[UUID, set[UUID]](set)
    if request_ids:
        for row in session.execute(PROMPTED, {"ids": list(request_ids)}):
            found[row.request_id].add(row.person_id)
    return defaultdict(frozenset, {request_id: frozenset(people) for request_id, people in found.items()})


@dataclass(frozen=True)
class EndpointRecipient:
    """No event types means all types."""

    id: UUID
    event_types: tuple[str, ...]

    def wants(self, event_type: str) -> bool:
        return not self.event_types or event_type in self.event_types


@dataclass(frozen=True)
class MailboxRecipient:
    """A confirmed further address of a person; without `prompts`, it gets only receipts and notices of changes."""

    id: UUID
    prompts: bool


@dataclass(frozen=True)
class ObserverRecipient:
    """`service` is None for all services."""

    id: UUID
    service: str | None

    def watches(self, service: str) -> bool:
        return self.service in {None, service}


@dataclass
class RecipientDirectory:
    """The possible recipients at some tenants, and the vendor's managers.

    `managers` maps each manager to a tier. `delegates` maps each delegate now in force to the approvers that they
    replace. `quiet` are the people who want no prompts. `auditors` and `operators` are empty unless they were asked
    for; `with_places` adds `receivers` (endpoints), `observers` and `mailboxes` (further addresses).
    """

    managers: dict[UUID, int] = field(default_factory=dict)
    approvers: dict[UUID, set[UUID]] = field(default_factory=lambda: defaultdict(set))
    admins: dict[UUID, set[UUID]] = field(default_factory=lambda: defaultdict(set))
    auditors: dict[UUID, set[UUID]] = field(default_factory=lambda: defaultdict(set))
    delegates: dict[UUID, dict[UUID, frozenset[UUID]]] = field(default_factory=lambda: defaultdict(dict))
    quiet: set[UUID] = field(default_factory=set)
    receivers: dict[UUID | None, list[EndpointRecipient]] = field(default_factory=lambda: defaultdict(list))
    observers: dict[UUID, list[ObserverRecipient]] = field(default_factory=lambda: defaultdict(list))
    mailboxes: dict[UUID, list[MailboxRecipient]] = field(default_factory=lambda: defaultdict(list))
    operators: set[UUID] = field(default_factory=set)

    @property
    def review_tiers(self) -> int:
        """The highest tier that has a manager."""
        return max(self.managers.values(), default=0)

    def able(self, tenant_id: UUID) -> frozenset[UUID]:
        return frozenset(self.approvers[tenant_id] | self.delegates[tenant_id].keys())

    def seats(self, tenant_id: UUID) -> dict[UUID, frozenset[UUID]]:
        """Return, for each person who could decide now, the approvers for whom they could decide."""
        approvers, delegates = self.approvers[tenant_id], self.delegates[tenant_id]
        return {
            person: delegates.get(person, frozenset()) | (approvers & {person}) for person in self.able(tenant_id)
        }

    def prompted(self, tenant_id: UUID, among: AbstractSet[UUID] | None = None) -> frozenset[UUID]:
        """Return the approvers to prompt. If `among` is set, leave out all others.

        Delegates replace their principals.
        """
        approvers = self.approvers[tenant_id] if among is None else self.approvers[tenant_id] & among
        standing_in = self.delegates[tenant_id]
        away = frozenset[UUID]().union(*standing_in.values())
        delegates = {delegate for delegate, principals in standing_in.items() if principals & approvers}
        return frozenset((approvers - away) | delegates)


def ahead_of_look_up(tenant_ids: AbstractSet[UUID] | None = None) -> Query:
    return LOOK_UP, {"tenants": None if tenant_ids is None else list(tenant_ids), "at": None, "roles": ASKED}


def look_up(
    session: UnitOfWork,
    tenant_ids: AbstractSet[UUID] | None,
    at: datetime | None,
    *,
    with_auditors: bool = False,
) -> RecipientDirectory:
    """Look up everyone in good standing who could be notified, in one query.

    Without `tenant_ids`, the transaction's tenants are used; without `at`, Postgres' present time. A delegate is
    included only if the MACs of the delegation and of the eligibility are valid. A worker has no keys to check MACs;
    it accepts the rows, because it only sends messages to these people.
    """
    roles = [*ASKED, Role.AUDITOR] if with_auditors else ASKED
    tenants = None if tenant_ids is None else list(tenant_ids)
    return directory_in(session, session.execute(LOOK_UP, {"tenants": tenants, "at": at, "roles": roles}))


def directory_in(session: UnitOfWork, rows: Iterable[Row[Any]]) -> RecipientDirectory:
    found = RecipientDirectory()
    for row in rows:
        if row.role != "delegate":
            _seat(found, row)
        elif principal := _principal(session, row):
            theirs = found.delegates[row.tenant_id]
            theirs[row.id] = theirs.get(row.id, frozenset()) | {principal}
            if not row.wants_prompts:
                found.quiet.add(row.id)
    return found


def with_places(
    session: UnitOfWork, known: RecipientDirectory, tenant_ids: AbstractSet[UUID], *, also: AbstractSet[UUID]
) -> RecipientDirectory:
    """Add the tenants' endpoints and observers, and the further addresses of everyone in `known` or `also`."""
    for row in session.execute(PLACES, {"tenants": list(tenant_ids), "also": list(also)}):
        if row.role == "endpoint":
            known.receivers[row.tenant_id].append(EndpointRecipient(row.id, tuple(row.more)))
        elif row.role == "observer":
            known.observers[row.tenant_id].append(ObserverRecipient(row.id, row.more[0]))
        else:
            known.mailboxes[row.id].append(MailboxRecipient(UUID(row.more[0]), row.prompts))
    return known


def _principal(session: UnitOfWork, row: Row[Any]) -> UUID | None:
    """None if the delegation's or the eligibility's MAC is invalid."""
    id_, principal_id, made_by, eligible_id = (UUID(one) for one in row.more[:4])
    starts_at, ends_at, created_at = (datetime.fromisoformat(one) for one in row.more[4:7])
    delegated, eligible = (None if one is None else bytes.fromhex(one) for one in row.more[7:])
    delegation = SimpleNamespace(
        id=id_,
        tenant_id=row.tenant_id,
        principal_id=principal_id,
        delegate_id=row.id,
        starts_at=starts_at,
        ends_at=ends_at,
        made_by=made_by,
        created_at=created_at,
    )
    leave = SimpleNamespace(tenant_id=row.tenant_id, person_id=row.id, id=eligible_id)
    is_named = row_macs.is_believed(session, delegated, row_macs.delegation(delegation), id_)
    is_eligible = row_macs.is_believed(session, eligible, row_macs.eligible_delegate(leave), row.id)
    return principal_id if is_named and is_eligible else None


def _seat(found: RecipientDirectory, row: Row[Any]) -> None:
    if not row.wants_prompts:
        found.quiet.add(row.id)
    if row.role == Role.MANAGER:
        found.managers[row.id] = int(row.more[0])
    elif row.role == Role.APPROVER:
        found.approvers[row.tenant_id].add(row.id)
    elif row.role == Role.AUDITOR:
        found.auditors[row.tenant_id].add(row.id)
    else:
        found.admins[row.tenant_id].add(row.id)
