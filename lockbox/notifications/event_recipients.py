"""Recipients of a request's event, and their addresses, chosen from a directory of possible recipients."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from lockbox.notifications.audience import (
    ALARMING,
    ANSWER,
    BY_BREAK_GLASS,
    CALLED_FOR,
    CONNECTED,
    COPIED,
    OPERATED,
    PROMPTS,
    QUESTION,
    RECEIPT,
    AudienceGroup,
    connection_groups,
    endpoints_to_notify,
    matters_until,
    people_to_notify,
    people_to_remind,
    question_groups,
    receipt_groups,
    type_of,
)
from lockbox.notifications.outbox import NotifiedMove
from lockbox.notifications.recipients import EndpointRecipient, RecipientDirectory

NOBODY = frozenset[UUID]()
CONVERSATION = frozenset({QUESTION, ANSWER})


@dataclass(frozen=True)
class NotificationRecipient:
    template: str
    person_id: UUID | None = None
    address_id: UUID | None = None
    observer_id: UUID | None = None
    endpoint_id: UUID | None = None

    @property
    def place_id(self) -> UUID | None:
        return self.address_id or self.person_id or self.observer_id


@dataclass(frozen=True)
class AudienceMember:
    """The notification stops mattering at `until_at`."""

    recipient: NotificationRecipient
    until_at: datetime


def notified_groups(move: NotifiedMove) -> frozenset[AudienceGroup]:
    if move.action in CONVERSATION:
        return question_groups(move.action, move.to_state)
    if move.action in BY_BREAK_GLASS:
        return BY_BREAK_GLASS[move.action]
    if move.action in CONNECTED:
        return connection_groups(move.template, move.mode)
    if move.reminder:
        return people_to_remind(move.reminder, move.to_state, move.mode)
    return people_to_notify(move.from_state, move.to_state, move.mode, customer_knows=move.customer_knows)


class AudienceCache:
    """Recipients of events, computed once for all events that have the same audience.

    `due` lists the recipients of all events. An event's audience is a range of positions in `due`, counted from one.
    """

    def __init__(self, known: RecipientDirectory) -> None:
        self.due: list[AudienceMember] = []
        self._known = known
        self._found: dict[object, range] = {}

    def of(self, move: NotifiedMove, informed: frozenset[UUID]) -> range:
        alike = (_likeness(move), informed)
        numbers = self._found.get(alike)
        if numbers is None:
            first = len(self.due) + 1
            for recipient in _recipients(self._known, move, informed):
                is_called = recipient.endpoint_id is not None
                until = (
                    move.at + CALLED_FOR
                    if is_called
                    else matters_until(recipient.template, move.at, move.deadline_at)
                )
                self.due.append(AudienceMember(recipient, until))
            numbers = self._found[alike] = range(first, len(self.due) + 1)
        return numbers


def _likeness(move: NotifiedMove) -> tuple[object, ...]:
    who = move.tenant_id, move.requester_id, move.actor.person_id, move.actor.role, move.asked, move.customer_knows
    what = move.action, move.mode, move.service, move.from_state, move.to_state, move.template, move.at
    return (*who, *what, move.deadline_at if move.reminder or move.to_state in PROMPTS else None)


def preview_recipients(known: RecipientDirectory, item: NotifiedMove) -> list[NotificationRecipient]:
    return list(_recipients(known, item, NOBODY))


def _recipients(
    known: RecipientDirectory, item: NotifiedMove, informed: frozenset[UUID]
) -> Iterator[NotificationRecipient]:
    """A receipt replaces the mail about the outcome."""
    receipts = _receipted(known, item)
    for person in sorted(receipts):
        yield from at_each_address(known, person, RECEIPT)
    for person in sorted(_people(known, item, informed) - receipts):
        yield from at_each_address(known, person, item.template)
    if AudienceGroup.OPERATORS in notified_groups(item):
        for person in sorted(known.operators):
            yield from at_each_address(known, person, OPERATED[item.template])
    event_type, receivers = type_of(item.action, item.from_state), _receivers(known, item)
    wanting = (receiver for receiver in receivers if receiver.wants(event_type))
    yield from (NotificationRecipient(item.template, endpoint_id=receiver.id) for receiver in wanting)
    if AudienceGroup.OBSERVERS in notified_groups(item):
        copy = COPIED if item.to_state == "pending" else item.template
        observers = [one for one in known.observers[item.tenant_id] if one.watches(item.service)]
        yield from (NotificationRecipient(copy, observer_id=observer.id) for observer in observers)


def at_each_address(known: RecipientDirectory, person: UUID, template: str) -> Iterator[NotificationRecipient]:
    yield NotificationRecipient(template, person)
    for box in known.mailboxes.get(person, ()):
        if box.prompts or template == RECEIPT or template in ALARMING:
            yield NotificationRecipient(template, person, box.id)


def _receipted(known: RecipientDirectory, item: NotifiedMove) -> set[UUID]:
    groups = receipt_groups(item.action, item.actor.role, customer_knows=item.customer_knows)
    people = set(known.admins[item.tenant_id]) if AudienceGroup.ADMINS in groups else set[UUID]()
    if AudienceGroup.DECIDER in groups and item.actor.person_id:
        people.add(item.actor.person_id)
    return people


def _people(known: RecipientDirectory, item: NotifiedMove, informed: frozenset[UUID]) -> set[UUID]:
    if item.action in CONVERSATION:
        return set(item.asked)
    groups, able = notified_groups(item), known.able(item.tenant_id)
    members: dict[AudienceGroup, AbstractSet[UUID]] = {
        AudienceGroup.MANAGERS: known.managers.keys(),
        AudienceGroup.ASKED: item.asked,
        AudienceGroup.INFORMED: informed,
        AudienceGroup.APPROVERS: able - known.quiet,
        AudienceGroup.EVERY_APPROVER: able,
        AudienceGroup.ADMINS: known.admins[item.tenant_id],
    }
    people = set[UUID]().union(*(some for group, some in members.items() if group in groups))
    people -= {item.actor.person_id, item.requester_id}
    if AudienceGroup.REQUESTER in groups:
        people.add(item.requester_id)
    return people


def _receivers(known: RecipientDirectory, item: NotifiedMove) -> list[EndpointRecipient]:
    receivers = list(known.receivers[None])
    knows = item.to_state != "reviewing" if item.action in CONVERSATION else item.customer_knows
    if AudienceGroup.TENANT_ENDPOINTS in endpoints_to_notify(customer_knows=knows):
        receivers += known.receivers[item.tenant_id]
    return receivers
