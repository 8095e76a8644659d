"""Promising notices: who is told of a move and where, and the SQL that writes any number of notices at once."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox import database
from lockbox.arrays import array
from lockbox.ids import new_id
from lockbox.notices.audience import (
    COPIED,
    NUDGE_TEMPLATES,
    RECEIPT,
    Hearer,
    Nudge,
    hearers,
    matters_until,
    nudged,
    receipted,
    reported,
)
from lockbox.notices.directory import Directory, Receiver
from lockbox.people.roles import Mode
from lockbox.schedule import NOTICES, Promise

KIND = NOTICES.kinds[0]

# A look-up by index for each request: joined the other way, a batch would read whole tables. Whose time as a deputy
# began while a request waited has a mail that lists it.
HEARD = text("""
SELECT r.id AS request_id, h.person_id
FROM unnest(CAST(:ids AS uuid[])) AS i (id) JOIN requests r ON r.id = i.id
CROSS JOIN LATERAL (
    SELECT n.person_id FROM notices n
    WHERE n.request_id = r.id AND n.template IN ('pending', 'answer_reminder', 'active')
        AND n.person_id IS NOT NULL
    UNION
    SELECT d.person_id FROM decisions d WHERE d.request_id = r.id AND d.verdict <> 'endorse'
    UNION
    SELECT g.deputy_id FROM delegations g WHERE g.tenant_id = r.tenant_id
        AND greatest(g.starts_at, g.created_at) BETWEEN r.asked_at AND coalesce(r.opened_at, clock_timestamp())
        AND (g.ended_at IS NULL OR g.ended_at > g.starts_at)
) h
WHERE EXISTS (SELECT FROM memberships m WHERE m.person_id = h.person_id AND m.tenant_id = r.tenant_id)
""")

PROMISE = """
new_notices AS (
    INSERT INTO notices (id, tenant_id, request_id, event_id, person_id, address_id, watcher_id, endpoint_id, channel,
        template, run_at, until_at, attempts)
    SELECT n.id, m.tenant_id, m.request_id, m.event_id, n.person_id, n.address_id, n.watcher_id, n.endpoint_id,
        CASE WHEN n.endpoint_id IS NULL THEN 'mail' ELSE 'webhook' END, n.template, m.at, n.until_at, 0
    FROM unnest(CAST(:n_id AS uuid[]), CAST(:n_event_id AS uuid[]), CAST(:n_person_id AS uuid[]),
        CAST(:n_address_id AS uuid[]), CAST(:n_watcher_id AS uuid[]), CAST(:n_endpoint_id AS uuid[]),
        CAST(:n_template AS text[]), CAST(:n_until_at AS timestamptz[]))
        AS n (id, event_id, person_id, address_id, watcher_id, endpoint_id, template, until_at)
    JOIN unnest(CAST(:m_event_id AS uuid[]), CAST(:m_tenant_id AS uuid[]), CAST(:m_request_id AS uuid[]),
        CAST(:m_at AS timestamptz[])) AS m (event_id, tenant_id, request_id, at) USING (event_id)
)"""

# What closes waits here for its report, so that a crowd of windows that end at once is not made to wait for theirs.
CLOSED = """
closed AS (
    INSERT INTO unreported (event_id, tenant_id, request_id, at)
    SELECT * FROM unnest(CAST(:c_event_id AS uuid[]), CAST(:c_tenant_id AS uuid[]), CAST(:c_request_id AS uuid[]),
        CAST(:c_at AS timestamptz[]))
)"""


@dataclass(frozen=True)
class Told:
    """Somebody who is told, and by which template: a person, at a further address if one is given, or another."""

    template: str
    person_id: UUID | None = None
    address_id: UUID | None = None
    watcher_id: UUID | None = None
    endpoint_id: UUID | None = None


@dataclass(frozen=True)
class News:
    """A move as the notices wing sees it; `asked` are those whom it asks.

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
    service: str
    from_state: str | None
    to_state: str
    customer_knows: bool
    at: datetime
    deadline_at: datetime
    asked: frozenset[UUID] = frozenset()
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


def promise(session: Session, known: Directory, news: Iterable[News]) -> dict[str, Any]:
    """Return the parameters of PROMISE and CLOSED, and note on the session what to arm after the commit."""
    moves = tuple(news)
    closing = [move for move in moves if reported(move.from_state, move.to_state)]
    heard = _heard(session, [move.request_id for move in moves if Hearer.HEARD in move.hearers])
    told = [(new_id(), move, one) for move in moves for one in _told(known, move, heard[move.request_id])]
    database.promise(session, NOTICES, [Promise(str(notice), KIND, move.at) for notice, move, _ in told])
    return {
        "n_id": array(notice for notice, _, _ in told),
        "n_event_id": array(move.event_id for _, move, _ in told),
        "n_person_id": array(one.person_id for _, _, one in told),
        "n_address_id": array(one.address_id for _, _, one in told),
        "n_watcher_id": array(one.watcher_id for _, _, one in told),
        "n_endpoint_id": array(one.endpoint_id for _, _, one in told),
        "n_template": array(one.template for _, _, one in told),
        "n_until_at": array(matters_until(one.template, move.at, move.deadline_at) for _, move, one in told),
        "m_event_id": array(move.event_id for move in moves),
        "m_tenant_id": array(move.tenant_id for move in moves),
        "m_request_id": array(move.request_id for move in moves),
        "m_at": array(move.at for move in moves),
        "c_event_id": array(move.event_id for move in closing),
        "c_tenant_id": array(move.tenant_id for move in closing),
        "c_request_id": array(move.request_id for move in closing),
        "c_at": array(move.at for move in closing),
    }


def foreseen(known: Directory, item: News) -> list[Told]:
    """Return who would be told of a move that nobody has made, and where."""
    return list(_told(known, item, frozenset()))


def _heard(session: Session, request_ids: Sequence[UUID]) -> Mapping[UUID, AbstractSet[UUID]]:
    """Return for each request who was asked, told that it is open, or answered unasked, and is still a member."""
    found = defaultdict[UUID, set[UUID]](set)
    if request_ids:
        for row in session.connection().execute(HEARD, {"ids": list(request_ids)}):
            found[row.request_id].add(row.person_id)
    return found


def _told(known: Directory, item: News, heard: AbstractSet[UUID]) -> Iterator[Told]:
    """Yield everybody who is told of a move, once at each address: a receipt says all that the outcome would."""
    receipts = _receipted(known, item)
    for person in sorted(receipts):
        yield from at_each(known, person, RECEIPT)
    for person in sorted(_people(known, item, heard) - receipts):
        yield from at_each(known, person, item.template)
    event_type = f"request.{item.to_state}"
    receivers = [receiver for receiver in _receivers(known, item) if receiver.wants(event_type)]
    yield from (Told(item.template, endpoint_id=receiver.id) for receiver in receivers)
    if Hearer.WATCHERS in item.hearers:
        copy = COPIED if item.to_state == "pending" else item.template
        watchers = [one for one in known.watchers[item.tenant_id] if one.watches(item.service)]
        yield from (Told(copy, watcher_id=watcher.id) for watcher in watchers)


def at_each(known: Directory, person: UUID, template: str) -> Iterator[Told]:
    """Yield a person at the address to sign in with, and at those others at which they want this to arrive."""
    yield Told(template, person)
    for box in known.mailboxes.get(person, ()):
        if box.prompts or template == RECEIPT:
            yield Told(template, person, box.id)


def _receipted(known: Directory, item: News) -> set[UUID]:
    told = receipted(item.action, item.actor_role)
    people = set(known.admins[item.tenant_id]) if Hearer.ADMINS in told else set[UUID]()
    if Hearer.DECIDER in told and item.actor_id:
        people.add(item.actor_id)
    return people


def _people(known: Directory, item: News, heard: AbstractSet[UUID]) -> set[UUID]:
    told = item.hearers
    people: set[UUID] = set()
    if Hearer.MANAGERS in told:
        people |= known.managers.keys()
    if Hearer.ASKED in told:
        people |= item.asked
    if Hearer.HEARD in told:
        people |= heard
    if Hearer.APPROVERS in told:
        people |= known.able(item.tenant_id) - known.quiet
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
