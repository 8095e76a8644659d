"""The outbox: who is notified of a move and where, and the SQL that writes many notifications at once."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import uuid_utils

from lockbox import database
from lockbox.audit.events import Actor
from lockbox.database import UnitOfWork, array, listed
from lockbox.identity.roles import Mode
from lockbox.notifications import recipients
from lockbox.notifications.audience import (
    CALLED_FOR,
    COPIED,
    PROMPTS,
    RECEIPT,
    REMINDER_TEMPLATES,
    REPORTED_AFTER,
    AudienceGroup,
    Reminder,
    endpoints_to_notify,
    is_reported,
    matters_until,
    people_to_notify,
    people_to_remind,
    receipt_groups,
    type_of,
)
from lockbox.notifications.recipients import NOBODY, EndpointRecipient, RecipientDirectory
from lockbox.schedule import NOTIFICATIONS, IndexEntry
from lockbox.sql import new_id

KIND = NOTIFICATIONS.kinds[0]

# Of a thousand moves many are told to the same people: each audience is written once, each notification as two
# numbers.
ADDRESSED = """
new_notifications AS (
    INSERT INTO notifications (id, tenant_id, request_id, event_id, person_id, address_id, observer_id, endpoint_id,
    channel,
        template, run_at, until_at, attempts)
    SELECT n.id, c.tenant_id, c.request_id, c.event_id, t.person_id, t.address_id, t.observer_id, t.endpoint_id,
        CASE WHEN t.endpoint_id IS NULL THEN 'mail' ELSE 'webhook' END, t.template, t.run_at, t.until_at, 0
    FROM unnest(CAST(:n_id AS uuid[]), CAST(:n_cause AS integer[]), CAST(:n_told AS integer[])) AS n (id, cause, told)
    JOIN unnest(CAST(:c_event_id AS uuid[]), CAST(:c_tenant_id AS uuid[]), CAST(:c_request_id AS uuid[]))
        WITH ORDINALITY AS c (event_id, tenant_id, request_id, number) ON c.number = n.cause
    JOIN unnest(CAST(:t_person_id AS uuid[]), CAST(:t_address_id AS uuid[]), CAST(:t_observer_id AS uuid[]),
        CAST(:t_endpoint_id AS uuid[]), CAST(:t_template AS text[]), CAST(:t_run_at AS timestamptz[]),
        CAST(:t_until_at AS timestamptz[]))
        WITH ORDINALITY AS t (person_id, address_id, observer_id, endpoint_id, template, run_at, until_at, number)
        ON t.number = n.told
)"""
# Who gets the report on a window is asked when it is due: a row now, and not one for each of them.
REPORT_DUE = """
new_reports AS (
    INSERT INTO reports_due (event_id, due_at)
    SELECT * FROM unnest(CAST(:r_event_id AS uuid[]), CAST(:r_due_at AS timestamptz[]))
)"""
PROMISE = f"{ADDRESSED},{REPORT_DUE}"


@dataclass(frozen=True)
class NotificationRecipient:
    """Somebody who is told, and by which template: a person, at a further address if one is given, or another."""

    template: str
    person_id: UUID | None = None
    address_id: UUID | None = None
    observer_id: UUID | None = None
    endpoint_id: UUID | None = None


@dataclass(frozen=True, kw_only=True)
class NotifiedMove:
    """What notifications need to know of a move; `requests.transition.Move` is one.

    `asked` are the people whom it asks: managers for a review, approvers after it. `asked_at` is when the customer
    was first asked or told of the request, None while only the vendor knows of it. With a `reminder` the request
    stays as it is.
    """

    request_id: UUID
    tenant_id: UUID
    requester_id: UUID
    mode: Mode
    service: str
    action: str
    actor: Actor
    from_state: str | None
    to_state: str
    at: datetime
    deadline_at: datetime
    asked_at: datetime | None
    asked: frozenset[UUID] = frozenset()
    reminder: Reminder | None = None
    event_id: UUID = field(default_factory=new_id)

    @property
    def customer_knows(self) -> bool:
        """Whether the customer has been asked, or is being told by this very move."""
        return self.asked_at is not None

    @property
    def template(self) -> str:
        """The template of its notifications."""
        return REMINDER_TEMPLATES[self.reminder, self.to_state] if self.reminder else str(self.to_state)

    @property
    def hearers(self) -> frozenset[AudienceGroup]:
        """Which groups of people are notified."""
        if self.reminder:
            return people_to_remind(self.reminder, self.to_state, self.mode)
        return people_to_notify(self.from_state, self.to_state, self.mode, customer_knows=self.customer_knows)


@dataclass(frozen=True)
class ScheduledNotification:
    """Somebody who is told, when, and until when it matters."""

    told: NotificationRecipient
    run_at: datetime
    until_at: datetime


class NotificationCause(Protocol):
    """What notifications tell of."""

    @property
    def event_id(self) -> UUID:
        """The event."""

    @property
    def tenant_id(self) -> UUID:
        """The tenant whose event it is."""

    @property
    def request_id(self) -> UUID:
        """The request that it is about."""


def queue_notifications(
    session: UnitOfWork, known: RecipientDirectory, news: Iterable[NotifiedMove]
) -> dict[str, Any]:
    """Return the parameters of PROMISE, and note on the session what to arm after the commit."""
    moves = tuple(news)
    found = recipients.prompted(session, [move.request_id for move in moves if AudienceGroup.HEARD in move.hearers])
    audiences = AudienceCache(known)
    told = [audiences.of(move, found[move.request_id]) for move in moves]
    closed = [move for move in moves if is_reported(move.from_state, move.to_state)]
    return addressed(session, moves, told, audiences.due) | {
        "r_event_id": array(move.event_id for move in closed),
        "r_due_at": array(move.at + REPORTED_AFTER for move in closed),
    }


def addressed(
    session: UnitOfWork,
    causes: Sequence[NotificationCause],
    told: Sequence[Sequence[int]],
    due: Sequence[ScheduledNotification],
) -> dict[str, Any]:
    """Return the parameters of ADDRESSED, and note on the session what to arm after the commit.

    Args:
        session: the open transaction.
        causes: what is told of.
        told: for each of these who is told, as numbers in `due` that count from one.
        due: everybody who is told of any of them.
    """
    pairs = [(number, one) for number, audience in enumerate(told, 1) for one in audience]
    # Thousands of them: as text at once, without an object for each.
    ids = [str(uuid_utils.uuid7()) for _ in pairs]
    promises = [IndexEntry(id_, KIND, due[one - 1].run_at) for id_, (_, one) in zip(ids, pairs, strict=True)]
    database.arm_after_commit(session, NOTIFICATIONS, promises)
    return {
        "n_id": listed(ids),
        "n_cause": array(number for number, _ in pairs),
        "n_told": array(one for _, one in pairs),
        "c_event_id": array(cause.event_id for cause in causes),
        "c_tenant_id": array(cause.tenant_id for cause in causes),
        "c_request_id": array(cause.request_id for cause in causes),
        "t_person_id": array(one.told.person_id for one in due),
        "t_address_id": array(one.told.address_id for one in due),
        "t_observer_id": array(one.told.observer_id for one in due),
        "t_endpoint_id": array(one.told.endpoint_id for one in due),
        "t_template": array(one.told.template for one in due),
        "t_run_at": array(one.run_at for one in due),
        "t_until_at": array(one.until_at for one in due),
    }


class AudienceCache:
    """Who is told of moves, worked out once for moves that are alike in all that it depends on.

    `due` are all who are told of any of them; an audience is the numbers of some of them, counted from one.
    """

    def __init__(self, known: RecipientDirectory) -> None:
        self.due: list[ScheduledNotification] = []
        self._known = known
        self._found: dict[object, range] = {}

    def of(self, move: NotifiedMove, found: frozenset[UUID]) -> range:
        """Return the numbers of those who are told of a move."""
        alike = (_likeness(move), found)
        numbers = self._found.get(alike)
        if numbers is None:
            first = len(self.due) + 1
            for one in _recipients(self._known, move, found):
                is_called = one.endpoint_id is not None
                until = move.at + CALLED_FOR if is_called else matters_until(one.template, move.at, move.deadline_at)
                self.due.append(ScheduledNotification(one, move.at, until))
            numbers = self._found[alike] = range(first, len(self.due) + 1)
        return numbers


def _likeness(move: NotifiedMove) -> tuple[object, ...]:
    """Return all of a move that its audience and the times of its notifications depend on."""
    who = move.tenant_id, move.requester_id, move.actor.person_id, move.actor.role, move.asked, move.customer_knows
    what = move.action, move.mode, move.service, move.from_state, move.to_state, move.reminder, move.at
    return (*who, *what, move.deadline_at if move.reminder or move.to_state in PROMPTS else None)


def preview_recipients(known: RecipientDirectory, item: NotifiedMove) -> list[NotificationRecipient]:
    """Return who would be told of a move that nobody has made, and where."""
    return list(_recipients(known, item, NOBODY))


def _recipients(
    known: RecipientDirectory, item: NotifiedMove, found: frozenset[UUID]
) -> Iterator[NotificationRecipient]:
    """Yield everybody who is told of a move, once at each address: a receipt says all that the outcome would."""
    receipts = _receipted(known, item)
    for person in sorted(receipts):
        yield from at_each_address(known, person, RECEIPT)
    for person in sorted(_people(known, item, found) - receipts):
        yield from at_each_address(known, person, item.template)
    event_type = type_of(item.action, item.from_state)
    receivers = [receiver for receiver in _receivers(known, item) if receiver.wants(event_type)]
    yield from (NotificationRecipient(item.template, endpoint_id=receiver.id) for receiver in receivers)
    if AudienceGroup.OBSERVERS in item.hearers:
        copy = COPIED if item.to_state == "pending" else item.template
        observers = [one for one in known.observers[item.tenant_id] if one.watches(item.service)]
        yield from (NotificationRecipient(copy, observer_id=observer.id) for observer in observers)


def at_each_address(known: RecipientDirectory, person: UUID, template: str) -> Iterator[NotificationRecipient]:
    """Yield a person at the address to sign in with, and at those others at which they want this to arrive."""
    yield NotificationRecipient(template, person)
    for box in known.mailboxes.get(person, ()):
        if box.prompts or template == RECEIPT:
            yield NotificationRecipient(template, person, box.id)


def _receipted(known: RecipientDirectory, item: NotifiedMove) -> set[UUID]:
    told = receipt_groups(item.action, item.actor.role, customer_knows=item.customer_knows)
    people = set(known.admins[item.tenant_id]) if AudienceGroup.ADMINS in told else set[UUID]()
    if AudienceGroup.DECIDER in told and item.actor.person_id:
        people.add(item.actor.person_id)
    return people


def _people(known: RecipientDirectory, item: NotifiedMove, found: frozenset[UUID]) -> set[UUID]:
    told = item.hearers
    people: set[UUID] = set()
    if AudienceGroup.MANAGERS in told:
        people |= known.managers.keys()
    if AudienceGroup.ASKED in told:
        people |= item.asked
    if AudienceGroup.HEARD in told:
        people |= found
    if AudienceGroup.APPROVERS in told:
        people |= known.able(item.tenant_id) - known.quiet
    if AudienceGroup.ADMINS in told:
        people |= known.admins[item.tenant_id]
    people -= {item.actor.person_id, item.requester_id}
    if AudienceGroup.REQUESTER in told:
        people.add(item.requester_id)
    return people


def _receivers(known: RecipientDirectory, item: NotifiedMove) -> list[EndpointRecipient]:
    receivers = list(known.receivers[None])
    if AudienceGroup.TENANT_ENDPOINTS in endpoints_to_notify(customer_knows=item.customer_knows):
        receivers += known.receivers[item.tenant_id]
    return receivers
