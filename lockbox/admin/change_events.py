"""Record an administrative change as one event with a diff, and notify the people concerned."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlmodel import Session

from lockbox.admin.permissions import AdminActor
from lockbox.audit.canonical import Value
from lockbox.audit.events import Actor, AuditEvent
from lockbox.notifications import announcements

ABSENT = "none"


@dataclass(frozen=True)
class AdminChange:
    """A change. `changes` is the diff, `personal` names the people concerned, `also` are further people to notify."""

    action: str
    at: datetime
    changes: Mapping[str, str]
    personal: Mapping[str, str | None] = field(default_factory=dict)
    facts: Mapping[str, Value] = field(default_factory=dict)
    also: frozenset[UUID] = frozenset()


def record_change(session: Session, seat: AdminActor, deed: AdminChange) -> UUID:
    """Write the event, create its notifications (the vendor's own go to operators), and return its id."""
    happening = audit_event_of(seat, deed)
    if seat.tenant_id is None:
        announcements.notify_operators(session, happening)
    else:
        announcements.announce(session, happening, also=deed.also)
    return happening.id


def audit_event_of(seat: AdminActor, deed: AdminChange) -> AuditEvent:
    """Return the audit event of a change."""
    return AuditEvent(
        at=deed.at,
        action=deed.action,
        actor=Actor(
            person_id=seat.caller.person_id,
            role=seat.role,
            name=seat.caller.name,
            channel=seat.origin.channel,
            address=seat.origin.address,
            user_agent=seat.origin.user_agent,
        ),
        tenant_id=seat.tenant_id,
        facts={**deed.facts, "changes": deed.changes},
        personal=deed.personal,
    )


def change(old: object, new: object) -> str:
    """Return one line of a diff."""
    return f"{old} → {new}"


def listed(words: Iterable[str]) -> str:
    """Return words in order, for a diff."""
    return ", ".join(sorted(words)) or ABSENT


def person(name: str, address: str) -> str:
    """Format a person as the personal field `member` of an event."""
    return f"{name} <{address}>"
