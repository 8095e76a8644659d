"""Requests by their ids, each with the result of an access check; reads by vendor users are logged."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from uuid import UUID

from sqlalchemy import LargeBinary, Select, String, any_, literal, literal_column, select, text
from sqlmodel import col

from lockbox.audit import events
from lockbox.audit.events import AuditEvent, Origin
from lockbox.database import UnitOfWork, now
from lockbox.errors import NotFound
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.models import Person, Tenant
from lockbox.identity.roles import SEE_ALL, SEE_THEIR_TENANTS, Caller, Role, Side
from lockbox.requests.access_check import OBSTACLE, OPENING, RequestRow, judged
from lockbox.requests.models import IS_VISIBLE, AccessRequest, RequestEntry, RequestRead
from lockbox.sql import Ids, insert_list

RequestQuery = Select[AccessRequest, str, str, str, str | None, bytes | None]
KNOWN = text(f"SELECT id FROM requests WHERE id = ANY(:ids) AND {IS_VISIBLE}")  # noqa: S608 - ours
NOT_KNOWN = "There is no such request."


def find(session: UnitOfWork, caller: Caller, request_id: UUID) -> RequestEntry:
    authentication.enter(session, caller)
    found = read(session, entries().where(col(AccessRequest.id) == request_id, AccessRequest.visible_to(caller)))
    if not found:
        raise NotFound(NOT_KNOWN)
    return found[0]


def known(session: UnitOfWork, caller: Caller, ids: Collection[UUID]) -> frozenset[UUID]:
    authentication.enter(session, caller)
    return frozenset(session.execute(KNOWN, {"ids": list(ids)}).scalars()) if ids else frozenset()


def some(session: UnitOfWork, caller: Caller, ids: Sequence[UUID], state: State | None = None) -> list[RequestEntry]:
    """Return the requests in the order of the ids, without requests that the caller may not know of.

    With `state`, only requests still in this state.
    """
    authentication.enter(session, caller)
    theirs = col(AccessRequest.id) == any_(literal(list(ids), Ids)), AccessRequest.visible_to(caller)
    some_ = read(session, entries().where(*theirs)) if ids else []
    found = {entry.request.id: entry for entry in some_ if state in {None, entry.request.state}}
    return [found[one] for one in ids if one in found]


@cache
def entries() -> RequestQuery:
    obstacle, opening = literal_column(OBSTACLE, String), literal_column(OPENING, LargeBinary)
    return (
        select(AccessRequest, col(Tenant.slug), col(Person.name), col(Tenant.name), obstacle, opening)
        .join(Tenant, col(Tenant.id) == col(AccessRequest.tenant_id))
        .join(Person, col(Person.id) == col(AccessRequest.requester_id))
    )


def read(session: UnitOfWork, query: RequestQuery) -> list[RequestEntry]:
    return judged(session, [RequestRow(*row) for row in session.orm.execute(query)])


REQUEST_READ = "request_read"
# The statement writes a row only for the first read of an hour, so repeated reads leave one event.
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
    """Record at most once an hour that a vendor user reads another person's request.

    The event goes to the tenant's log if the customer was already asked, otherwise to the vendor's log. Call this
    last: it may make the request's tenant the transaction's tenant (`authentication.turn_to`).
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
        actor=origin.actor(caller, role),
        tenant_id=request.tenant_id if known else None,
        facts={"request": request.id},
    )
    session.execute(RECORD, events.append([audit_event]))


@dataclass(frozen=True)
class LiveReader:
    """`only_at` is the only tenant at which the reader's sign-in counts."""

    person_id: UUID
    only_at: UUID | None = None


def concerned(session: UnitOfWork, ids: Collection[UUID], readers: Sequence[LiveReader]) -> frozenset[LiveReader]:
    if not ids or not readers:
        return frozenset()
    values = {
        "ids": list(ids),
        "people": [reader.person_id for reader in readers],
        "places": [reader.only_at for reader in readers],
        "reach_all": sorted(role.value for role in SEE_ALL),
        "reach_theirs": sorted(role.value for role in SEE_THEIR_TENANTS),
    }
    return frozenset(readers[number - 1] for number in session.execute(CONCERNED, values).scalars())
