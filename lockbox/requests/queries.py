"""Read requests, and check whether a window is open."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Boolean,
    ColumnElement,
    Select,
    String,
    Text,
    and_,
    any_,
    bindparam,
    exists,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.orm import aliased
from sqlmodel import col

from lockbox.audit.log import witness
from lockbox.audit.models import Event
from lockbox.database import UnitOfWork, now
from lockbox.errors import AuditLogRolledBack, NoOpenWindow, NotFound, NotYours
from lockbox.identity import authentication
from lockbox.identity.models import Membership, Person, Tenant
from lockbox.identity.roles import (
    Caller,
    Role,
    Scope,
)
from lockbox.requests import approvals
from lockbox.requests.lifecycle import State
from lockbox.requests.models import AccessRequest
from lockbox.sql import Ids

Query = Select[AccessRequest, str, str, str, bool, bytes | None]
NAMES = ARRAY(Text)
# Written out, for the index of open windows is of those alone, and a plan that takes any state cannot use it.
IS_ACTIVE = col(AccessRequest.state) == literal_column("'active'", String)
RESTORED = (
    "The database was restored from a back-up and is behind its own audit log: no access is granted until the "
    "operator of this installation has run `lockbox operate after-restore`."
)


@dataclass(frozen=True)
class RequestEntry:
    """A request as a reader sees it: the row, the requester's name, and whether it is open.

    `tenant` is the tenant's slug, and `tenant_name` what it is called now.
    `is_rolled_back` is whether it is shut for the one reason that the database is behind what was shipped of its
    audit log.
    """

    request: AccessRequest
    tenant: str
    requester: str
    open: bool
    is_rolled_back: bool = False
    tenant_name: str = ""


@dataclass(frozen=True)
class AccessCheck:
    """What a guarded system asks: may this engineer do this to that resource, now?"""

    tenant: str
    service: str
    resource: str
    action: str
    engineer: UUID

    @property
    def values(self) -> Mapping[str, object]:
        """The parameters of the query for windows."""
        return {**asdict(self), "resource": [self.resource], "action": [self.action]}


@cache
def granted() -> ColumnElement[bool]:
    """Return the condition, all but the clock and the approval's signature, for a window to be open.

    The state alone is not believed: the decisions must be there, and engineer and tenant in good standing.
    """
    holds = aliased(Membership)
    return and_(
        IS_ACTIVE,
        literal_column("is_decided(requests)", Boolean),
        ~col(Tenant.suspended),
        col(Person.disabled_at).is_(None),
        exists().where(
            col(holds.person_id) == col(AccessRequest.requester_id),
            col(holds.tenant_id).is_(None),
            col(holds.role) == Role.ENGINEER,
        ),
    )


def find(session: UnitOfWork, caller: Caller, request_id: UUID) -> RequestEntry:
    """Return one request.

    Raises:
        NotFound: there is none that the caller may know of.
    """
    authentication.enter(session, caller)
    found = read(session, entries().where(col(AccessRequest.id) == request_id, AccessRequest.visible_to(caller)))
    if not found:
        raise NotFound("There is no such request.")
    return found[0]


def known(session: UnitOfWork, caller: Caller, ids: Collection[UUID]) -> frozenset[UUID]:
    """Return which of these are requests that the caller may know of."""
    authentication.enter(session, caller)
    among = col(AccessRequest.id) == any_(literal(list(ids), Ids))
    query = select(col(AccessRequest.id)).where(among, AccessRequest.visible_to(caller))
    return frozenset(session.orm.execute(query).scalars()) if ids else frozenset()


def some(session: UnitOfWork, caller: Caller, ids: Sequence[UUID], state: State | None = None) -> list[RequestEntry]:
    """Return those of these requests that the caller may know of, in the order of the ids.

    With a state those alone that are in it by now: somebody may have decided since their ids were looked up.
    """
    authentication.enter(session, caller)
    theirs = col(AccessRequest.id) == any_(literal(list(ids), Ids)), AccessRequest.visible_to(caller)
    some_ = read(session, entries().where(*theirs)) if ids else []
    found = {entry.request.id: entry for entry in some_ if state in {None, entry.request.state}}
    return [found[one] for one in ids if one in found]


def check(session: UnitOfWork, caller: Caller, question: AccessCheck) -> RequestEntry:
    """Return the open window that lets the engineer in; of several the one that lasts longest.

    Windows are independent: one that ends shuts no other. Names are compared exactly.

    Raises:
        NotYours: a system asks without the scope or about a service it is not bound to, or a person about another.
        NoOpenWindow: the door is shut, for whatever reason.
        AuditLogRolledBack: it is shut because the database was restored and is behind what was shipped of its audit
            log.
    """
    authentication.enter(session, caller)
    _may_ask(caller, question)
    found = read(session, _windows(), question.values)
    windows = [entry for entry in found if entry.open]
    if any(entry.is_rolled_back for entry in found):
        raise AuditLogRolledBack(RESTORED, reason="restored")
    if not windows:
        raise NoOpenWindow("No window is open for this engineer, tenant, service, resource and action.")
    return max(windows, key=lambda entry: entry.request.deadline_at)


@cache
def _windows() -> Query:
    """Return the query for what may be a window that answers a question, whose fields are its parameters."""
    return entries().where(
        col(AccessRequest.requester_id) == bindparam("engineer"),
        IS_ACTIVE,
        col(AccessRequest.service) == bindparam("service"),
        _open_for(AccessRequest.granted_resources, AccessRequest.resources, "resource"),
        _open_for(AccessRequest.granted_actions, AccessRequest.actions, "action"),
        col(Tenant.slug) == bindparam("tenant"),
    )


def _open_for(granted: list[str] | None, asked: list[str], name: str) -> ColumnElement[bool]:
    named = bindparam(name, type_=NAMES)
    return or_(col(granted).contains(named), and_(col(granted).is_(None), col(asked).contains(named)))


def _may_ask(caller: Caller, question: AccessCheck) -> None:
    if caller.holds(Role.SYSTEM):
        if Scope.ACCESS_CHECK not in caller.scopes:
            raise NotYours(f"This token needs the scope {Scope.ACCESS_CHECK}: make one that has it.")
        if question.service not in caller.services:
            raise NotYours(f"This token needs to be bound to {question.service}: make one that is.")
    elif not caller.holds(Role.ENGINEER):
        raise NotYours("Only a system of the vendor, or an engineer, may ask whether a window is open.")
    elif caller.person_id != question.engineer:
        raise NotYours("An engineer may ask only about the own windows.")


@cache
def entries() -> Query:
    """Return the query for requests, with all that `read` judges them by."""
    return (
        select(AccessRequest, col(Tenant.slug), col(Person.name), col(Tenant.name), granted(), _opening())
        .join(Tenant, col(Tenant.id) == col(AccessRequest.tenant_id))
        .join(Person, col(Person.id) == col(AccessRequest.requester_id))
    )


def _opening() -> ColumnElement[bytes | None]:
    """Return the body of the event that opened the window, which is the last move as long as it is open."""
    return (
        select(col(Event.body))
        .where(
            IS_ACTIVE,
            col(Event.request_id) == col(AccessRequest.id),
            col(Event.seq) == col(AccessRequest.version),
        )
        .correlate(AccessRequest)
        .scalar_subquery()
    )


def read(session: UnitOfWork, query: Query, values: Mapping[str, object] | None = None) -> list[RequestEntry]:
    """Return what such a query finds by these values, each judged on the database's clock."""
    rows = session.orm.execute(query, params=values).all()
    signed = {
        request.id: (request, body) for request, *_, body in rows if approvals.is_signed(session, request, body)
    }
    held = approvals.hold_by_signatures(session, signed.values())
    # The clock is read last: an answer may not be older than the clock that it was judged by.
    at = now(session)
    good = {
        request.id
        for request, _, _, _, is_granted, _ in rows
        if is_granted and at < request.deadline_at and request.id in held
    }
    rolled_back = _rolled_back(session, {request.tenant_id for request, *_ in rows if request.id in good})
    return [
        RequestEntry(
            request,
            tenant,
            requester,
            open=request.id in good and request.tenant_id not in rolled_back,
            is_rolled_back=request.id in good and request.tenant_id in rolled_back,
            tenant_name=name,
        )
        for request, tenant, requester, name, _, _ in rows
    ]


def _rolled_back(session: UnitOfWork, tenants: Collection[UUID]) -> Collection[UUID]:
    shipped = witness.of(session)
    return shipped.rolled_back(session, tenants) if shipped else ()
