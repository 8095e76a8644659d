"""Lists of requests, read by branches. Whatever the filter, each branch is read in the order of one index.

A branch holds the requests that a reader can see of one tenant, of one requester, or of everyone. Open requests come
from partial indexes of open requests. Closed requests are read from the newest id on, no further than a page. A
filter without an index looks through a bounded number of the newest requests, and the cursor leads on to older ones.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Select,
    String,
    any_,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.orm import aliased
from sqlalchemy.sql.elements import SQLCoreOperations
from sqlmodel import col

from catalogue.service_catalogue import Level
from lockbox.database import UnitOfWork
from lockbox.errors import Invalid
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.models import Person
from lockbox.identity.roles import (
    READERS,
    SEE_ALL,
    SEE_THEIR_TENANTS,
    TENANT_ROLES,
    VENDOR_ROLES,
    Caller,
    ProtectedField,
    ReaderRole,
    Role,
    Side,
)
from lockbox.requests import queries
from lockbox.requests.lifecycle import OPEN_STATES
from lockbox.requests.models import AccessRequest, RequestEntry
from lockbox.sql import SKEW, Ids, id_at, look_through, only, written

MOST_A_PAGE = 200
LOOKED_THROUGH = 1000
"""How many of the newest requests one page looks through for a filter without an index."""
SIZES: Final = (6, 32, 64, MOST_A_PAGE + 1)
"""The limits for reading a branch: few sizes, so that there are few different statements."""
FORM = re.compile(r"([0-9]{1,16})-([0-9a-f]{32})")
NO_PAGE = "The cursor is invalid. Start again with the first page."
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
NIL = UUID(int=0)
ID, TENANT, REQUESTER = col(AccessRequest.id), col(AccessRequest.tenant_id), col(AccessRequest.requester_id)
STATE, DEADLINE = col(AccessRequest.state), col(AccessRequest.deadline_at)
Conditions = Sequence[ColumnElement[bool]]


@dataclass(frozen=True)
class RequestFilter:
    """None matches anything. `engineer` is part of a name; `text` is part of a text that the reader may read."""

    state: State | None = None
    service: str | None = None
    requester: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    engineer: str | None = None
    text: str | None = None
    level: Level | None = None


@dataclass(frozen=True)
class RequestListing:
    entries: Sequence[RequestEntry]
    next_cursor: str | None


@dataclass(frozen=True)
class Branch:
    """The requests whose `column` is `value`, or all requests; optionally in one open state."""

    column: SQLCoreOperations[UUID] | None = None
    value: UUID | None = None
    conditions: tuple[ColumnElement[bool], ...] = ()
    state: State | None = None

    def within(self, *conditions: ColumnElement[bool]) -> "Branch":
        return replace(self, conditions=(*self.conditions, *conditions))

    def open_in(self, state: State | None) -> "Branch":
        return replace(self, state=state)

    def newest(self, *conditions: ColumnElement[bool]) -> Select[AccessRequest]:
        wanted, order = [*self.conditions, *conditions], list[ColumnElement[Any]]()
        if self.state and self.column is TENANT:
            # These requests are few. A subquery with OFFSET makes Postgres read all of them, in no index's order.
            is_its = col(AccessRequest.tenant_id) == self.value
            few = select(AccessRequest).where(is_its, _is_in(self.state), *wanted)
            part = aliased(AccessRequest, few.offset(written(0)).subquery())
            return select(part).order_by(col(part.id).desc())
        if self.column is not None:
            wanted, order = [only(self.column, self.value), *wanted], [self.column.desc()]
        if self.state:
            wanted.append(literal_column(f"requests.state = ANY (ARRAY['{self.state.value}'])", Boolean))
            order.append(STATE.desc())
        return select(AccessRequest).where(*wanted).order_by(*order, ID.desc())

    def bound(self, number: int) -> int | ColumnElement[int]:
        """The limit of a query for the branch: a parameter unless the branch holds all requests (`sql.only`)."""
        return written(number) if self.column is None else number

    def ids(self, *conditions: ColumnElement[bool]) -> Select[UUID]:
        query = self.newest(*conditions)
        return query.with_only_columns(query.selected_columns.id)

    def soonest(self, *conditions: ColumnElement[bool]) -> Select[datetime, UUID]:
        order: list[SQLCoreOperations[Any]] = [DEADLINE, ID]
        wanted = [_is_in(self.state), *self.conditions, *conditions]
        if self.column is not None:
            wanted, order = [only(self.column, self.value), *wanted], [self.column, *order]
        found: Select[datetime, UUID] = select(DEADLINE.label("deadline_at"), ID.label("id"))
        return found.where(*wanted).order_by(*order)


def of_tenant(tenant_id: UUID) -> Branch:
    return Branch(TENANT, tenant_id)


def of_requester(person_id: UUID) -> Branch:
    return Branch(REQUESTER, person_id)


def visible_branches(caller: Caller) -> list[Branch]:
    """Each request that the caller may know of is in one branch."""
    if caller.holds(*SEE_ALL):
        return [Branch()]
    known = col(AccessRequest.asked_at).is_not(None), col(AccessRequest.requester_id) != caller.person_id
    own = [of_requester(caller.person_id)] if caller.side is Side.VENDOR else []
    return own + [of_tenant(tenant).within(*known) for tenant in sorted(caller.tenants(SEE_THEIR_TENANTS))]


def page(
    session: UnitOfWork, caller: Caller, wanted: RequestFilter, *, cursor: str | None, most: int
) -> RequestListing:
    """Return the newest matching requests after the cursor.

    With a filter that has no index, a page may have fewer than `most` entries and still have a cursor.
    """
    authentication.enter(session, caller)
    before = [] if (latest := _latest(wanted, cursor)) is None else [col(AccessRequest.id) < latest]
    state = wanted.state if wanted.state in OPEN_STATES else None
    branches = [branch.open_in(state) for branch in _branches(caller, wanted)]
    if not branches:
        return RequestListing((), None)
    if wanted == RequestFilter(state, requester=wanted.requester if branches[0].column is REQUESTER else None):
        ids, end = newest(session, branches, before, most=most), None
    else:
        looked, filters = [branch.newest(*before) for branch in branches], partial(_filters, caller, wanted)
        query = look_through(
            AccessRequest, looked, filters, most_looked=LOOKED_THROUGH, limit=limit(most), bound=branches[0].bound
        )
        rows = session.orm.execute(query).all()
        ids, end = [one for _, one in rows if one], _beyond(wanted, rows[0][0])
    last = ids[most - 1] if len(ids) > most else end
    entries = queries.some(session, caller, ids[:most], state)
    return RequestListing(entries, cursor_after(last) if last else None)


def newest(session: UnitOfWork, branches: Sequence[Branch], bounds: Conditions, *, most: int) -> list[UUID]:
    return list(session.orm.execute(_newest(branches, bounds, limit(most))).scalars())


def soonest(
    session: UnitOfWork,
    branches: Sequence[Branch],
    state: State,
    conditions: Conditions,
    *,
    cursor: str | None,
    most: int,
) -> tuple[list[UUID], str | None]:
    """The ids of matching requests in an open state, soonest deadline first, and the next page's cursor."""
    if not branches:
        return [], None
    further = [*conditions, *([_later(cursor)] if cursor else [])]
    within = limit(most)
    found = union_all(
        *(branch.open_in(state).soonest(*further).limit(branch.bound(within)) for branch in branches)
    ).subquery()
    query = select(found.c.deadline_at, found.c.id).order_by(found.c.deadline_at, found.c.id).limit(written(within))
    rows = session.orm.execute(query).all()
    beyond = after_deadline(*rows[most - 1]) if len(rows) > most else None
    return [one for _, one in rows[:most]], beyond


def after_deadline(deadline_at: datetime, last: UUID) -> str:
    return f"{(deadline_at - EPOCH) // MICROSECOND}-{last.hex}"


def cursor_after(last: UUID) -> str:
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def read_cursor(given: str) -> UUID:
    """Raises Invalid."""
    try:
        return UUID(bytes=base64.urlsafe_b64decode(given + "=="))
    except (ValueError, binascii.Error):
        raise Invalid("The cursor is invalid. Start again without it.", field="cursor") from None


def holds(caller: Caller, words: str, rows: type[AccessRequest]) -> ColumnElement[bool]:
    """Match requests with a text that the caller may read and that contains `words`, ignoring case."""
    readers = READERS[ProtectedField.JUSTIFICATION]
    roles = {Role(one.value) for one in readers - {ReaderRole.REQUESTER}}
    own = col(rows.requester_id) == caller.person_id if ReaderRole.REQUESTER in readers else false()
    is_theirs = col(rows.tenant_id) == any_(literal(sorted(caller.tenants(roles & TENANT_ROLES)), Ids))
    readable = true() if caller.holds(*(roles & VENDOR_ROLES)) else or_(own, is_theirs)
    return or_(
        col(rows.case_ref).icontains(words, autoescape=True),
        col(rows.case_url).icontains(words, autoescape=True),
        func.array_to_string(col(rows.resources), "\n").icontains(words, autoescape=True),
        cast(col(rows.id), String).icontains(words, autoescape=True),
        readable & col(rows.justification).icontains(words, autoescape=True),
    )


def _is_in(state: State | None) -> ColumnElement[bool]:
    if state is None:
        return true()
    # A literal, because each index covers a single state.
    return col(AccessRequest.state) == literal_column(f"'{state.value}'", String)


def limit(most: int) -> int:
    return next(size for size in SIZES if size > most)


def _branches(caller: Caller, wanted: RequestFilter) -> list[Branch]:
    """Customers cannot see requests in review."""
    if wanted.requester and (wanted.requester == caller.person_id or caller.holds(*SEE_ALL)):
        return [of_requester(wanted.requester)]
    branches = visible_branches(caller)
    if wanted.requester:
        branches = [branch for branch in branches if branch.column is not REQUESTER]
    return [branch for branch in branches if branch.column is not TENANT or wanted.state is not State.REVIEWING]


def _filters(caller: Caller, wanted: RequestFilter, rows: type[AccessRequest]) -> list[ColumnElement[bool]]:
    named = select(col(Person.id)).where(col(Person.name).icontains(wanted.engineer or "", autoescape=True))
    filters = (
        None if wanted.requester is None else col(rows.requester_id) == wanted.requester,
        None if wanted.state is None or wanted.state in OPEN_STATES else col(rows.state) == wanted.state,
        None if wanted.level is None else col(rows.level) == wanted.level,
        None if wanted.service is None else col(rows.service) == wanted.service,
        None if wanted.created_after is None else col(rows.created_at) > wanted.created_after,
        None if wanted.created_before is None else col(rows.created_at) < wanted.created_before,
        None if wanted.engineer is None else col(rows.requester_id).in_(named),
        None if wanted.text is None else holds(caller, wanted.text, rows),
    )
    return [one for one in filters if one is not None]


def _newest(branches: Sequence[Branch], bounds: Conditions, size: int) -> Select[UUID]:
    found = union_all(*(branch.ids(*bounds).limit(branch.bound(size)) for branch in branches)).subquery()
    return select(found.c.id).order_by(found.c.id.desc()).limit(written(size))


def _latest(wanted: RequestFilter, cursor: str | None) -> UUID | None:
    """The id that bounds the search from above: ids grow with time."""
    bounds = [] if cursor is None else [read_cursor(cursor)]
    if wanted.created_before is not None:
        bounds.append(id_at(wanted.created_before, SKEW))
    return min(bounds, default=None)


def _beyond(wanted: RequestFilter, end: UUID | None) -> UUID | None:
    # The statement does not have this bound: with two bounds, Postgres would read all tenants' requests of that time.
    is_over = wanted.created_after is not None and end is not None and end < id_at(wanted.created_after, -SKEW)
    return None if is_over else end


def read_deadline(cursor: str) -> tuple[datetime, UUID]:
    read = FORM.fullmatch(cursor)
    if read is None:
        raise Invalid(NO_PAGE, field="after")
    return EPOCH + int(read[1]) * MICROSECOND, UUID(hex=read[2])


def _later(cursor: str) -> ColumnElement[Any]:
    deadline_at, last = read_deadline(cursor)
    return tuple_(DEADLINE, ID) > tuple_(literal(deadline_at), literal(last))
