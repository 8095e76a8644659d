"""Promising notices of a question about a request, or of its answer: who is told, and the SQL that writes them."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlmodel import Session

from lockbox.identity.roles import Mode
from lockbox.notifications.audience import CALLED_FOR, CONVERSED, Hearer, conversed, matters_until, type_of
from lockbox.notifications.outbox import Due, Told, addressed, at_each
from lockbox.notifications.recipients import Directory


@dataclass(frozen=True)
class Remark:
    """A question or an answer, `said`, as those who are told of it see it.

    `state` is that of the request when the question was asked, `to_state` that of the request now.
    """

    event_id: UUID
    request_id: UUID
    tenant_id: UUID
    requester_id: UUID
    asker_id: UUID
    mode: Mode
    said: str
    state: str
    to_state: str
    at: datetime
    deadline_at: datetime

    @property
    def template(self) -> str:
        """Which text tells of it."""
        return CONVERSED[self.said, self.state]


def promise(session: Session, known: Directory, remark: Remark) -> dict[str, Any]:
    """Return the parameters of `outbox.ADDRESSED`, and note on the session what to arm after the commit."""
    until = matters_until(remark.template, remark.at, remark.deadline_at)
    called_until = remark.at + CALLED_FOR
    due = [Due(told, remark.at, called_until if told.endpoint_id else until) for told in _told(known, remark)]
    return addressed(session, [remark], [range(1, len(due) + 1)], due)


def _told(known: Directory, remark: Remark) -> Iterator[Told]:
    hearers = conversed(remark.said, remark.state)
    people = {Hearer.REQUESTER: remark.requester_id, Hearer.ASKER: remark.asker_id}
    for hearer in sorted(hearers & people.keys()):
        yield from at_each(known, people[hearer], remark.template)
    receivers = known.receivers[None] if Hearer.VENDOR_ENDPOINTS in hearers else []
    if Hearer.TENANT_ENDPOINTS in hearers:
        receivers = [*receivers, *known.receivers[remark.tenant_id]]
    event_type = type_of(remark.said, remark.to_state)
    yield from (Told(remark.template, endpoint_id=one.id) for one in receivers if one.wants(event_type))
