"""Notifications of events that are not moves of a request, and mails to people without an account."""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text

from config.traces import ORIGIN
from lockbox import database
from lockbox.audit import events
from lockbox.audit.events import AuditEvent
from lockbox.database import UnitOfWork, array
from lockbox.notifications import recipients
from lockbox.notifications.models import Notification
from lockbox.notifications.outbox import KIND
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.schedule import BEFORE_OTHERS, NOTIFICATIONS, IndexEntry
from lockbox.sql import insert_list, new_id

MATTERS_FOR = timedelta(hours=72)
TEST_MATTERS_FOR = timedelta(minutes=10)
HURRIED = timedelta(minutes=15)
# Someone who takes a tenant over must not be able to choose beforehand who is notified of it.
UNFILTERED = frozenset({"recovery_proposed", "recovery_objected"})
OPERATORS = text("""
SELECT m.person_id FROM memberships m JOIN people p ON p.id = m.person_id
WHERE m.tenant_id IS NULL AND m.role = 'operator' AND p.disabled_at IS NULL
""")
LATER = {"sequence", "numbered_at", "blocked_by", "failed_at", "closed_at", "outcome", "last_error"}
"""Columns that are not set in a new notification."""
ANNOUNCE = f"""
written AS (
    INSERT INTO {insert_list(Notification, but={"request_id", "observer_id", *LATER})}
    SELECT n.id, CAST(:t_tenant_id AS uuid), CAST(:t_event_id AS uuid), n.about_id, n.person_id, n.address_id,
        n.endpoint_id, CAST(:t_checkpoint_id AS uuid),
        CASE WHEN n.endpoint_id IS NULL THEN 'mail' ELSE 'webhook' END, :t_template, :t_run_at, :t_until_at, 0,
        CAST(:t_http_request_id AS text), CAST(:t_traceparent AS text)
    FROM unnest(CAST(:n_id AS uuid[]), CAST(:n_person_id AS uuid[]), CAST(:n_address_id AS uuid[]),
        CAST(:n_endpoint_id AS uuid[]), CAST(:n_about_id AS uuid[]))
        AS n (id, person_id, address_id, endpoint_id, about_id)
)"""  # noqa: S608 - ours
RECORDED = text(f"WITH {events.APPEND} SELECT 1")
ANNOUNCED = text(f"WITH {ANNOUNCE} SELECT 1")


@dataclass(frozen=True)
class AnnouncementRecipient:
    """A person (perhaps at a further address), an endpoint, or the address of `about_id`; see `write_to`."""

    person_id: UUID | None = None
    address_id: UUID | None = None
    endpoint_id: UUID | None = None
    about_id: UUID | None = None


@dataclass(frozen=True)
class Announcement:
    template: str
    tenant_id: UUID | None
    event_id: UUID | None
    at: datetime
    until: datetime
    checkpoint_id: UUID | None = None


def record(session: UnitOfWork, *audit_events: AuditEvent) -> None:
    session.execute(RECORDED, events.append(audit_events))


def announce(session: UnitOfWork, audit_event: AuditEvent, *, also: AbstractSet[UUID] = frozenset()) -> None:
    """Write a tenant's event; notify the tenant's admins, approvers and endpoints, and the people in `also`.

    An endpoint is called if it wants this type of event. All endpoints are called when the vendor proposes a new
    admin, or when someone objects to the proposal.
    """
    assert audit_event.tenant_id is not None  # noqa: S101 - what concerns no tenant is recorded, not announced
    record(session, audit_event)
    known = _directory(session, {audit_event.tenant_id}, audit_event.at, also)
    everybody = known.admins[audit_event.tenant_id] | known.approvers[audit_event.tenant_id] | also
    _notify(session, audit_event, known, everybody, _endpoints(known, audit_event))


def try_out(session: UnitOfWork, audit_event: AuditEvent, endpoint_id: UUID) -> UUID:
    """Write an event and call one endpoint with it, whatever types the endpoint wants."""
    record(session, audit_event)
    occasion = Announcement(
        str(audit_event.action),
        audit_event.tenant_id,
        audit_event.id,
        audit_event.at,
        audit_event.at + TEST_MATTERS_FOR,
    )
    return queue_notifications(session, [AnnouncementRecipient(endpoint_id=endpoint_id)], occasion)[0]


def notify_operators(session: UnitOfWork, audit_event: AuditEvent) -> None:
    record(session, audit_event)
    operators = set(session.execute(OPERATORS).scalars())
    known = _directory(session, frozenset(), audit_event.at, operators)
    _notify(session, audit_event, known, operators, ())


def alarm(session: UnitOfWork, audit_event: AuditEvent) -> None:
    """Write an event of the vendor's own, mail the operators, and call all of the vendor's endpoints.

    The endpoints' choice of types is ignored, so that an attacker cannot silence them beforehand.
    """
    record(session, audit_event)
    operators = set(session.execute(OPERATORS).scalars())
    known = _directory(session, frozenset(), audit_event.at, operators)
    _notify(session, audit_event, known, operators, [receiver.id for receiver in known.receivers[None]])


def notify_person(session: UnitOfWork, audit_event: AuditEvent, person_id: UUID) -> None:
    """Notify one person, at all their addresses, of an event that is already written."""
    known = _directory(session, frozenset(), audit_event.at, frozenset({person_id}))
    _notify(session, audit_event, known, {person_id}, ())


def write_to(
    session: UnitOfWork,
    about_id: UUID,
    *,
    template: str,
    tenant_id: UUID | None,
    event_id: UUID | None,
    at: datetime,
    until: datetime,
) -> None:
    """Schedule a mail about the invitation, pending sign-in, delegation or unconfirmed address `about_id`.

    The mail is sent at `at`, and stops mattering at `until`.
    """
    queue_notifications(
        session, [AnnouncementRecipient(about_id=about_id)], Announcement(template, tenant_id, event_id, at, until)
    )


def _directory(
    session: UnitOfWork, tenants: AbstractSet[UUID], at: datetime, also: AbstractSet[UUID]
) -> RecipientDirectory:
    return recipients.with_places(session, recipients.look_up(session, tenants, at), tenants, also=also)


def _notify(
    session: UnitOfWork,
    audit_event: AuditEvent,
    known: RecipientDirectory,
    people: AbstractSet[UUID],
    endpoints: Iterable[UUID],
) -> None:
    chosen = [AnnouncementRecipient(person_id=person) for person in sorted(people)]
    chosen += [
        AnnouncementRecipient(person, box.id) for person in sorted(people) for box in known.mailboxes.get(person, ())
    ]
    chosen += [AnnouncementRecipient(endpoint_id=endpoint) for endpoint in endpoints]
    at, until = audit_event.at, audit_event.at + MATTERS_FOR
    queue_notifications(
        session, chosen, Announcement(str(audit_event.action), audit_event.tenant_id, audit_event.id, at, until)
    )


def queue_notifications(
    session: UnitOfWork, chosen: Sequence[AnnouncementRecipient], occasion: Announcement
) -> list[UUID]:
    if not chosen:
        return []
    ids, origin = [new_id() for _ in chosen], ORIGIN.get()
    session.execute(
        ANNOUNCED,
        {
            "t_tenant_id": occasion.tenant_id,
            "t_event_id": occasion.event_id,
            "t_checkpoint_id": occasion.checkpoint_id,
            "t_template": occasion.template,
            "t_run_at": occasion.at,
            "t_until_at": occasion.until,
            "t_http_request_id": origin.http_request_id,
            "t_traceparent": origin.traceparent,
            "n_id": array(ids),
            "n_person_id": array(one.person_id for one in chosen),
            "n_address_id": array(one.address_id for one in chosen),
            "n_endpoint_id": array(one.endpoint_id for one in chosen),
            "n_about_id": array(one.about_id for one in chosen),
        },
    )
    database.arm_after_commit(session, NOTIFICATIONS, [IndexEntry(str(one), KIND, _turn(occasion)) for one in ids])
    return ids


def _turn(occasion: Announcement) -> datetime:
    """Return the due time for the schedule. Codes go first, because they matter only for minutes."""
    hurries = occasion.until - occasion.at <= HURRIED
    return occasion.at - 2 * BEFORE_OTHERS if hurries else occasion.at


def _endpoints(known: RecipientDirectory, audit_event: AuditEvent) -> list[UUID]:
    event_type, wanted = f"tenant.{audit_event.action}", audit_event.action in UNFILTERED
    return [
        receiver.id for receiver in known.receivers[audit_event.tenant_id] if wanted or receiver.wants(event_type)
    ]
