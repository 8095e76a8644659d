"""Find the open pages that a change concerns, and log what the vendor's people read."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text

from lockbox.audit import events
from lockbox.audit.events import Actor, AuditEvent
from lockbox.database import UnitOfWork, now
from lockbox.identity import authentication
from lockbox.identity.roles import SEE_ALL, SEE_THEIR_TENANTS, Caller, Role, Side
from lockbox.requests.models import AccessRequest, RequestRead
from lockbox.requests.transition import Origin
from lockbox.sql import insert_list

REQUEST_READ = "request_read"
# The row is the first read of its hour or it is not written: whoever reads again and again leaves one event.
FIRST = text(f"""
WITH this AS (SELECT date_trunc('hour', CAST(:at AS timestamptz)) AS hour)
INSERT INTO {insert_list(RequestRead, of="r")} SELECT :person_id, :request_id, this.hour FROM this
WHERE NOT EXISTS (SELECT FROM request_reads o
    WHERE o.person_id = :person_id AND o.request_id = :request_id AND o.hour >= this.hour)
ON CONFLICT (person_id, request_id) DO UPDATE SET hour = EXCLUDED.hour WHERE r.hour < EXCLUDED.hour
RETURNING true
""")  # noqa: S608 - ours
RECORD = text(f"WITH {events.APPEND} SELECT 1")
CONCERNED = text("""
SELECT reader FROM readers_of(CAST(:ids AS uuid[]), CAST(:people AS uuid[]), CAST(:places AS uuid[]),
    CAST(:reach_all AS text[]), CAST(:reach_theirs AS text[]))
""")


def record_read(session: UnitOfWork, caller: Caller, origin: Origin, request: AccessRequest) -> None:
    """Write that somebody of the vendor has read a request, unless it is their own or they did so in this hour.

    The event is in the tenant's log once the customer was asked, and in the vendor's own before that. It is written
    after all that is shown was read: the transaction deals with the tenant from here on.
    """
    if caller.side is not Side.VENDOR or caller.person_id == request.requester_id:
        return
    at = now(session)
    values = {"person_id": caller.person_id, "request_id": request.id, "at": at}
    if session.execute(FIRST, values).scalar() is None:
        return
    known = request.asked_at is not None
    role = Role.MANAGER if caller.holds(Role.MANAGER) else Role.VENDOR_AUDITOR
    if known:
        authentication.turn_to(session, request.tenant_id)
    audit_event = AuditEvent(
        at=at,
        action=REQUEST_READ,
        actor=Actor(caller.person_id, role, caller.name, origin.channel, origin.address, origin.user_agent),
        tenant_id=request.tenant_id if known else None,
        facts={"request": request.id},
    )
    session.execute(RECORD, events.append([audit_event]))


@dataclass(frozen=True)
class LiveReader:
    """Somebody who listens, at one tenant alone if what they have shown counts only there."""

    person_id: UUID
    only_at: UUID | None = None


def concerned(session: UnitOfWork, ids: Collection[UUID], readers: Sequence[LiveReader]) -> frozenset[LiveReader]:
    """Return which of these may know of any of these requests, by their roles as they are now, in one query."""
    if not ids or not readers:
        return frozenset()
    values = {
        "ids": list(ids),
        "people": [one.person_id for one in readers],
        "places": [one.only_at for one in readers],
        "reach_all": sorted(role.value for role in SEE_ALL),
        "reach_theirs": sorted(role.value for role in SEE_THEIR_TENANTS),
    }
    return frozenset(readers[number - 1] for number in session.execute(CONCERNED, values).scalars())
