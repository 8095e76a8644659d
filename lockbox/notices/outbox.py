"""Promising notices: who there is to tell at some tenants, and the SQL that writes any number of notices at once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox import database
from lockbox.arrays import array
from lockbox.ids import new_id
from lockbox.notices.audience import (
    NUDGE_TEMPLATES,
    RECEIPT,
    Hearer,
    Nudge,
    hearers,
    matters_until,
    nudged,
    receipted,
)
from lockbox.people.roles import Mode, Role
from lockbox.schedule import NOTICES, Promise

KIND = NOTICES.kinds[0]

LOOK_UP = text("""
SELECT m.role AS role, m.tenant_id, p.id, NULL::text[] AS more, p.wants_prompts
FROM memberships m JOIN people p ON p.id = m.person_id
WHERE p.disabled_at IS NULL AND m.tenant_id = ANY(:tenants) AND m.role IN ('approver', 'tenant_admin')
UNION ALL
SELECT m.role, NULL, p.id, ARRAY[m.review_tier::text], p.wants_prompts
FROM memberships m JOIN people p ON p.id = m.person_id
WHERE p.disabled_at IS NULL AND m.tenant_id IS NULL AND m.role = 'manager'
UNION ALL
SELECT 'deputy', d.tenant_id, d.deputy_id, array_agg(d.principal_id::text), p.wants_prompts
FROM delegations d JOIN people p ON p.id = d.deputy_id
WHERE d.tenant_id = ANY(:tenants) AND d.starts_at <= :at AND d.ends_at > :at AND d.ended_at IS NULL
AND p.disabled_at IS NULL
AND EXISTS (SELECT FROM memberships m WHERE m.tenant_id = d.tenant_id AND m.person_id = d.deputy_id)
AND EXISTS (SELECT FROM eligible_deputies l WHERE l.tenant_id = d.tenant_id AND l.person_id = d.deputy_id)
AND EXISTS (SELECT FROM memberships m JOIN people q ON q.id = m.person_id AND q.disabled_at IS NULL
    WHERE m.tenant_id = d.tenant_id AND m.person_id = d.principal_id AND m.role = 'approver')
GROUP BY d.tenant_id, d.deputy_id, p.wants_prompts
UNION ALL
SELECT 'endpoint', r.tenant_id, r.id, r.event_types, true FROM receivers(:tenants) r
""")

PROMISE = """
new_notices AS (
    INSERT INTO notices (id, tenant_id, request_id, event_id, person_id, endpoint_id, channel, template, run_at,
        until_at, attempts)
    SELECT n.id, m.tenant_id, m.request_id, m.event_id, n.person_id, n.endpoint_id,
        CASE WHEN n.person_id IS NULL THEN 'webhook' ELSE 'mail' END, n.template, m.at, n.until_at, 0
    FROM unnest(CAST(:n_id AS uuid[]), CAST(:n_event_id AS uuid[]), CAST(:n_person_id AS uuid[]),
        CAST(:n_endpoint_id AS uuid[]), CAST(:n_template AS text[]), CAST(:n_until_at AS timestamptz[]))
        AS n (id, event_id, person_id, endpoint_id, template, until_at)
    JOIN unnest(CAST(:m_event_id AS uuid[]), CAST(:m_tenant_id AS uuid[]), CAST(:m_request_id AS uuid[]),
        CAST(:m_at AS timestamptz[])) AS m (event_id, tenant_id, request_id, at) USING (event_id)
)"""


@dataclass(frozen=True)
class Receiver:
    """A webhook endpoint and the event types it wants; none means all."""

    id: UUID
    event_types: tuple[str, ...]

    def wants(self, event_type: str) -> bool:
        """Whether the endpoint is to be told of this type."""
        return not self.event_types or event_type in self.event_types


@dataclass
class Directory:
    """Everyone who could be told at some tenants, and the vendor's managers.

    `managers` are these with the tier in which each is asked. `deputies` are those who stand in for approvers at this
    moment, each with the approvers. `quiet` are those of all of them who want no prompts.
    """

    managers: dict[UUID, int] = field(default_factory=dict)
    approvers: dict[UUID, set[UUID]] = field(default_factory=lambda: defaultdict(set))
    admins: dict[UUID, set[UUID]] = field(default_factory=lambda: defaultdict(set))
    deputies: dict[UUID, dict[UUID, frozenset[UUID]]] = field(default_factory=lambda: defaultdict(dict))
    quiet: set[UUID] = field(default_factory=set)
    receivers: dict[UUID | None, list[Receiver]] = field(default_factory=lambda: defaultdict(list))

    def able(self, tenant_id: UUID) -> frozenset[UUID]:
        """Return everyone who could decide for the tenant now: its approvers and those who stand in for one."""
        return frozenset(self.approvers[tenant_id] | self.deputies[tenant_id].keys())

    def seats(self, tenant_id: UUID) -> dict[UUID, frozenset[UUID]]:
        """Return for everyone who could decide for the tenant now the approvers in whose place they could."""
        approvers, deputies = self.approvers[tenant_id], self.deputies[tenant_id]
        return {person: deputies.get(person, frozenset()) | (approvers & {person}) for person in self.able(tenant_id)}

    def prompted(self, tenant_id: UUID, among: AbstractSet[UUID] | None = None) -> frozenset[UUID]:
        """Return whom to prompt: approvers, or those among them, with deputies in the place of who has one."""
        approvers = self.approvers[tenant_id] if among is None else self.approvers[tenant_id] & among
        standing_in = self.deputies[tenant_id]
        away = frozenset[UUID]().union(*standing_in.values())
        deputies = {deputy for deputy, principals in standing_in.items() if principals & approvers}
        return frozenset((approvers - away) | deputies)


@dataclass(frozen=True)
class Told:
    """Somebody who is told, a person or an endpoint, and by which template."""

    template: str
    person_id: UUID | None = None
    endpoint_id: UUID | None = None


@dataclass(frozen=True)
class News:
    """A move as the notices wing sees it; `asked` are those who are prompted, None all who can answer.

    They are managers during a review, and the customer's people after it. With a `nudge` it is no move: the request
    stays as it is.
    """

    event_id: UUID
    request_id: UUID
    tenant_id: UUID
    requester_id: UUID
    actor_id: UUID | None
    actor_role: str
    action: str
    mode: Mode
    from_state: str | None
    to_state: str
    customer_knows: bool
    at: datetime
    deadline_at: datetime
    asked: frozenset[UUID] | None = None
    nudge: Nudge | None = None

    @property
    def template(self) -> str:
        """Which text tells of it."""
        return NUDGE_TEMPLATES[self.nudge, self.to_state] if self.nudge else str(self.to_state)

    @property
    def hearers(self) -> frozenset[Hearer]:
        """Who hears of it."""
        if self.nudge:
            return nudged(self.nudge, self.to_state, self.mode)
        return hearers(self.from_state, self.to_state, self.mode, customer_knows=self.customer_knows)


def directory(session: Session, tenant_ids: AbstractSet[UUID], at: datetime) -> Directory:
    """Look up everyone in good standing who could be told at these tenants at this moment, in one query."""
    found = Directory()
    for row in session.connection().execute(LOOK_UP, {"tenants": list(tenant_ids), "at": at}):
        if not row.wants_prompts:
            found.quiet.add(row.id)
        if row.role == "endpoint":
            found.receivers[row.tenant_id].append(Receiver(row.id, tuple(row.more)))
        elif row.role == "deputy":
            found.deputies[row.tenant_id][row.id] = frozenset(map(UUID, row.more))
        elif row.role == Role.MANAGER:
            found.managers[row.id] = int(row.more[0])
        elif row.role == Role.APPROVER:
            found.approvers[row.tenant_id].add(row.id)
        else:
            found.admins[row.tenant_id].add(row.id)
    return found


def promise(session: Session, known: Directory, news: Iterable[News]) -> dict[str, Any]:
    """Return the parameters of PROMISE, and note on the session what to arm after the commit."""
    moves = tuple(news)
    told = [(new_id(), move, one) for move in moves for one in _told(known, move)]
    database.promise(session, NOTICES, [Promise(str(notice), KIND, move.at) for notice, move, _ in told])
    return {
        "n_id": array(notice for notice, _, _ in told),
        "n_event_id": array(move.event_id for _, move, _ in told),
        "n_person_id": array(one.person_id for _, _, one in told),
        "n_endpoint_id": array(one.endpoint_id for _, _, one in told),
        "n_template": array(one.template for _, _, one in told),
        "n_until_at": array(matters_until(one.template, move.at, move.deadline_at) for _, move, one in told),
        "m_event_id": array(move.event_id for move in moves),
        "m_tenant_id": array(move.tenant_id for move in moves),
        "m_request_id": array(move.request_id for move in moves),
        "m_at": array(move.at for move in moves),
    }


def _told(known: Directory, item: News) -> Iterator[Told]:
    """Yield everybody who is told of a move, once each: a receipt says all that the outcome would."""
    receipts = _receipted(known, item)
    yield from (Told(RECEIPT, person) for person in sorted(receipts))
    yield from (Told(item.template, person) for person in sorted(_people(known, item) - receipts))
    event_type = f"request.{item.to_state}"
    receivers = [receiver for receiver in _receivers(known, item) if receiver.wants(event_type)]
    yield from (Told(item.template, endpoint_id=receiver.id) for receiver in receivers)


def _receipted(known: Directory, item: News) -> set[UUID]:
    told = receipted(item.action, item.actor_role)
    people = set(known.admins[item.tenant_id]) if Hearer.ADMINS in told else set[UUID]()
    if Hearer.DECIDER in told and item.actor_id:
        people.add(item.actor_id)
    return people


def _people(known: Directory, item: News) -> set[UUID]:
    told = item.hearers
    people: set[UUID] = set()
    if Hearer.MANAGERS in told:
        people |= item.asked if item.asked is not None else known.managers.keys()
    if Hearer.APPROVERS in told:
        people |= item.asked if item.asked is not None else known.able(item.tenant_id)
    if Hearer.ADMINS in told:
        people |= known.admins[item.tenant_id]
    people -= {item.actor_id, item.requester_id}
    if Hearer.REQUESTER in told:
        people.add(item.requester_id)
    return people


def _receivers(known: Directory, item: News) -> list[Receiver]:
    told = hearers(item.from_state, item.to_state, item.mode, customer_knows=item.customer_knows)
    receivers: list[Receiver] = []
    if Hearer.VENDOR_ENDPOINTS in told:
        receivers += known.receivers[None]
    if Hearer.TENANT_ENDPOINTS in told:
        receivers += known.receivers[item.tenant_id]
    return receivers
