"""Reading requests: who may see which, lists with a cursor, and whether a window is open."""

import base64
import binascii
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Boolean, ColumnElement, Select, and_, exists, false, literal_column, or_, select, true
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from lockbox.audit import behind
from lockbox.audit.models import Event
from lockbox.database import now
from lockbox.people import context
from lockbox.people.models import Membership, Person, Tenant
from lockbox.people.roles import Caller, Role, Scope
from lockbox.refusals import Invalid, NoOpenWindow, NotYours, TrailBehind, Unknown
from lockbox.requests import approving
from lockbox.requests.lifecycle import State
from lockbox.requests.models import AccessRequest
from lockbox.requests.sight import Reach, with_reach

MOST_A_PAGE = 200
RESTORED = (
    "The database was restored from a back-up and is behind its own trail: nobody gets in until whoever runs this "
    "installation has run `lockbox operate after-restore`."
)


@dataclass(frozen=True)
class Entry:
    """A request as a reader sees it: the row, the tenant's name, the requester's name, and whether it is open.

    `is_behind` is whether it is shut for the one reason that the database is behind what was shipped of its trail.
    """

    request: AccessRequest
    tenant: str
    requester: str
    open: bool
    is_behind: bool = False


@dataclass(frozen=True)
class Filter:
    """What a reader looks for; None is anything."""

    state: State | None = None
    service: str | None = None
    requester: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@dataclass(frozen=True)
class Page:
    """Some entries, newest first, and the cursor of those that follow."""

    entries: Sequence[Entry]
    next_cursor: str | None


@dataclass(frozen=True)
class Question:
    """What a guarded system asks: may this engineer do this to that resource, now?"""

    tenant: str
    service: str
    resource: str
    action: str
    engineer: UUID


def visible(caller: Caller) -> ColumnElement[bool]:
    """Return the condition for the requests that the caller may know of.

    How far each role reaches is in `sight.REACH`; whoever has asked for something knows of it, whatever they are now.
    """
    if caller.holds(*with_reach(Reach.ALL)):
        return true()
    conditions: list[ColumnElement[bool]] = [false(), col(AccessRequest.requester_id) == caller.person_id]
    if tenants := caller.tenants(with_reach(Reach.TENANTS)):
        told = col(AccessRequest.asked_at).is_not(None)
        conditions.append(and_(col(AccessRequest.tenant_id).in_(tenants), told))
    return or_(*conditions)


def granted() -> ColumnElement[bool]:
    """Return the condition, all but the clock and the approval's signature, for a window to be open.

    The state alone is not believed: the decisions must be there, and engineer and tenant in good standing.
    """
    holds = aliased(Membership)
    return and_(
        col(AccessRequest.state) == State.ACTIVE,
        literal_column("is_decided(requests)", Boolean),
        ~col(Tenant.suspended),
        col(Person.disabled_at).is_(None),
        exists().where(
            col(holds.person_id) == col(AccessRequest.requester_id),
            col(holds.tenant_id).is_(None),
            col(holds.role) == Role.ENGINEER,
        ),
    )


def find(session: Session, caller: Caller, request_id: UUID) -> Entry:
    """Return one request.

    Raises:
        Unknown: there is none that the caller may know of.
    """
    context.enter(session, caller)
    query = _entries().where(col(AccessRequest.id) == request_id, visible(caller))
    entries = _read(session, query)
    if not entries:
        raise Unknown("There is no such request.")
    return entries[0]


def page(session: Session, caller: Caller, wanted: Filter, *, cursor: str | None, most: int) -> Page:
    """Return the newest requests that match, at most `most` of them, from the cursor on.

    Raises:
        Invalid: the cursor is not one that this call gave out.
    """
    context.enter(session, caller)
    conditions = (
        None if wanted.state is None else col(AccessRequest.state) == wanted.state,
        None if wanted.service is None else col(AccessRequest.service) == wanted.service,
        None if wanted.requester is None else col(AccessRequest.requester_id) == wanted.requester,
        None if wanted.created_after is None else col(AccessRequest.created_at) > wanted.created_after,
        None if wanted.created_before is None else col(AccessRequest.created_at) < wanted.created_before,
        None if cursor is None else col(AccessRequest.id) < _read_cursor(cursor),
    )
    query = _entries().where(visible(caller), *(condition for condition in conditions if condition is not None))
    entries = _read(session, query.order_by(col(AccessRequest.id).desc()).limit(most + 1))
    more = len(entries) > most
    return Page(entries[:most], _cursor(entries[most - 1].request.id) if more else None)


def check(session: Session, caller: Caller, question: Question) -> Entry:
    """Return the open window that lets the engineer in; of several the one that lasts longest.

    Windows are independent: one that ends shuts no other. Names are compared exactly.

    Raises:
        NotYours: a system asks without the scope or about a service it is not bound to, or a person about another.
        NoOpenWindow: the door is shut, for whatever reason.
        TrailBehind: it is shut because the database was restored and is behind what was shipped of its trail.
    """
    context.enter(session, caller)
    _may_ask(caller, question)
    query = _entries().where(
        col(AccessRequest.requester_id) == question.engineer,
        col(AccessRequest.state) == State.ACTIVE,
        col(AccessRequest.service) == question.service,
        col(AccessRequest.resources).contains([question.resource]),
        col(AccessRequest.actions).contains([question.action]),
        col(Tenant.slug) == question.tenant,
    )
    found = _read(session, query)
    windows = [entry for entry in found if entry.open]
    if any(entry.is_behind for entry in found):
        raise TrailBehind(RESTORED, reason="restored")
    if not windows:
        raise NoOpenWindow("No window is open for this engineer, tenant, service, resource and action.")
    return max(windows, key=lambda entry: entry.request.deadline_at)


def _may_ask(caller: Caller, question: Question) -> None:
    if caller.holds(Role.SYSTEM):
        if Scope.ACCESS_CHECK not in caller.scopes or question.service not in caller.services:
            raise NotYours(f"This token needs the scope {Scope.ACCESS_CHECK} and must be bound to the service.")
    elif not caller.holds(Role.ENGINEER):
        raise NotYours("Only a system of the vendor, or an engineer, may ask whether a window is open.")
    elif caller.person_id != question.engineer:
        raise NotYours("An engineer may ask only about the own windows.")


def _entries() -> Select[AccessRequest, str, str, bool, bytes | None]:
    return (
        select(AccessRequest, col(Tenant.slug), col(Person.name), granted(), _opening())
        .join(Tenant, col(Tenant.id) == col(AccessRequest.tenant_id))
        .join(Person, col(Person.id) == col(AccessRequest.requester_id))
    )


def _opening() -> ColumnElement[bytes | None]:
    """Return the body of the event that opened the window, which is the last move as long as it is open."""
    return (
        select(col(Event.body))
        .where(
            col(AccessRequest.state) == State.ACTIVE,
            col(Event.request_id) == col(AccessRequest.id),
            col(Event.seq) == col(AccessRequest.version),
        )
        .correlate(AccessRequest)
        .scalar_subquery()
    )


def _read(session: Session, query: Select[AccessRequest, str, str, bool, bytes | None]) -> list[Entry]:
    rows = session.execute(query).all()
    signed = {request.id: approving.is_signed(session, request, body) for request, *_, body in rows}
    # The clock is read last: an answer may not be older than the clock that it was judged by.
    at = now(session)
    good = {
        request.id
        for request, _, _, is_granted, _ in rows
        if is_granted and at < request.deadline_at and signed[request.id]
    }
    behind_ = _behind(session, {request.tenant_id for request, *_ in rows if request.id in good})
    return [
        Entry(
            request,
            tenant,
            requester,
            open=request.id in good and request.tenant_id not in behind_,
            is_behind=request.id in good and request.tenant_id in behind_,
        )
        for request, tenant, requester, _, _ in rows
    ]


def _behind(session: Session, tenants: Collection[UUID]) -> Collection[UUID]:
    shipped = behind.of(session)
    return shipped.behind(session, tenants) if shipped else ()


def _cursor(last: UUID) -> str:
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def _read_cursor(cursor: str) -> UUID:
    try:
        return UUID(bytes=base64.urlsafe_b64decode(cursor + "=="))
    except (ValueError, binascii.Error):
        raise Invalid("The cursor is not one of ours; begin again without it.", field="cursor") from None
