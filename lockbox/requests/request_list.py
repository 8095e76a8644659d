"""List requests by ordered branches, each of which one index holds in order, whatever else was asked before.

A branch is what a reader sees of one tenant, of one requester, or of everybody. What is open is found by indexes of
what is open; what is closed is read from the newest on, by the id, and no further than a page. A filter that no index
answers goes through so many of the newest at a time, and the cursor leads on to those before them.

Limits are written out: a plan that does not know one takes few of many for a reason to sort all. An array of one has
Postgres order by the tenant, requester or state too, which only their own index does: else it would read the index of
everybody, where a reader's requests may be few. A bound is a column that was looked up, and no expression, which
would be judged row by row, after row-level security.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Integer,
    Select,
    String,
    Uuid,
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
from sqlalchemy.orm import Mapped, aliased
from sqlmodel import col

from lockbox.database import UnitOfWork
from lockbox.errors import Invalid
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
from lockbox.requests.lifecycle import OPEN_STATES, State
from lockbox.requests.models import AccessRequest
from lockbox.requests.queries import RequestEntry
from lockbox.sql import Ids

MOST_A_PAGE = 200
LOOKED_THROUGH = 1000
"""So many of the newest requests one page goes through for a filter that no index answers."""
SIZES: Final = (6, 32, 64, MOST_A_PAGE + 1)
"""The limits that a branch is read with: one statement each, however many a page is to hold."""
SKEW = timedelta(minutes=10)
"""By how much the clock of whoever makes an id may differ from the one that says when a request was submitted."""
FORM = re.compile(r"([0-9]{1,16})-([0-9a-f]{32})")
NO_PAGE = "This page is not one of ours; begin again with the first."
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
LAST_MILLISECOND = 2**48 - 1
NIL = UUID(int=0)
ID, TENANT, REQUESTER = col(AccessRequest.id), col(AccessRequest.tenant_id), col(AccessRequest.requester_id)
STATE, DEADLINE = col(AccessRequest.state), col(AccessRequest.deadline_at)
Conditions = Sequence[ColumnElement[bool]]
FoundIds = Select[UUID | None, UUID | None]


@dataclass(frozen=True)
class RequestFilter:
    """What a reader looks for; None is anything. `engineer` is part of a name, `text` of what the reader may read."""

    state: State | None = None
    service: str | None = None
    requester: UUID | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    engineer: str | None = None
    text: str | None = None

    @property
    def open_state(self) -> State | None:
        """The state, if requests in it are open."""
        return self.state if self.state in OPEN_STATES else None


@dataclass(frozen=True)
class RequestListing:
    """Some entries, newest first, and the cursor of those that follow."""

    entries: Sequence[RequestEntry]
    next_cursor: str | None


@dataclass(frozen=True)
class Branch:
    """Requests that share a tenant, a requester or a state, or all: conditions, and the columns that these fix.

    `is_fenced` is whether they are few and read whole, in no index's order: what a tenant has open.
    """

    conditions: tuple[ColumnElement[bool], ...] = ()
    fixed: tuple[Mapped[Any], ...] = ()
    is_fenced: bool = False

    def is_of(self, column: Mapped[UUID]) -> bool:
        """Return whether a column is the same in all of it."""
        return any(one is column for one in self.fixed)

    def within(self, *conditions: ColumnElement[bool]) -> "Branch":
        """Return the part of it that also meets these conditions."""
        return replace(self, conditions=(*self.conditions, *conditions))

    def open_in(self, state: State) -> "Branch":
        """Return what of it is open in a state."""
        if self.is_of(TENANT):
            return replace(self.within(_is_in(state)), is_fenced=True)
        among = literal_column(f"requests.state = ANY (ARRAY['{state.value}'])", Boolean)
        return replace(self.within(among), fixed=(*self.fixed, STATE))

    def newest(self, *conditions: ColumnElement[bool]) -> Select[AccessRequest]:
        """Return the query for its requests, the newest first."""
        found = select(AccessRequest).where(*self.conditions, *conditions)
        if self.is_fenced:
            part = aliased(AccessRequest, found.offset(written(0)).subquery())
            return select(part).order_by(col(part.id).desc())
        return found.order_by(*(column.desc() for column in self.fixed), ID.desc())

    def ids(self, *conditions: ColumnElement[bool]) -> Select[UUID]:
        """Return the query for their ids."""
        query = self.newest(*conditions)
        return query.with_only_columns(query.selected_columns.id)

    def soonest(self, state: State, *conditions: ColumnElement[bool]) -> Select[datetime, UUID]:
        """Return the query for deadlines and ids of those that are open in a state, the first deadline first."""
        found: Select[datetime, UUID] = select(DEADLINE.label("deadline_at"), ID.label("id"))
        return found.where(*self.conditions, _is_in(state), *conditions).order_by(*self.fixed, DEADLINE, ID)


def of_tenant(tenant_id: UUID) -> Branch:
    """Return the requests about a tenant."""
    return Branch((_among(TENANT, tenant_id),), (TENANT,))


def of_requester(person_id: UUID) -> Branch:
    """Return the requests of one requester."""
    return Branch((_among(REQUESTER, person_id),), (REQUESTER,))


def visible_branches(caller: Caller) -> list[Branch]:
    """Return branches that hold what the caller may know of, each request once."""
    if caller.holds(*SEE_ALL):
        return [Branch()]
    known = col(AccessRequest.asked_at).is_not(None), col(AccessRequest.requester_id) != caller.person_id
    own = [of_requester(caller.person_id)] if caller.side is Side.VENDOR else []
    return own + [of_tenant(one).within(*known) for one in sorted(caller.tenants(SEE_THEIR_TENANTS))]


def page(
    session: UnitOfWork, caller: Caller, wanted: RequestFilter, *, cursor: str | None, most: int
) -> RequestListing:
    """Return the newest requests that match, at most `most` of them, from the cursor on.

    A look for what no index answers goes through a bounded number of requests: it may find fewer, and say by its
    cursor that there are more to look through.

    Raises:
        Invalid: the cursor is not one that this call gave out.
    """
    authentication.enter(session, caller)
    bounds = [*_between(wanted), *([] if cursor is None else [col(AccessRequest.id) < read_cursor(cursor)])]
    state, branches = wanted.open_state, _branches(caller, wanted)
    if not branches:
        return RequestListing((), None)
    parts = [one.open_in(state) if state else one for one in branches]
    fixed = wanted.requester if branches[0].is_of(REQUESTER) else None
    if wanted == RequestFilter(state, requester=fixed):
        ids, end = newest(session, parts, bounds, most=most), None
    else:
        query = _looked_through(parts, bounds, partial(_filters, caller, wanted), limit(most))
        rows = session.orm.execute(query).all()
        ids, end = [one for _, one in rows if one], rows[0][0]
    last = ids[most - 1] if len(ids) > most else end
    entries = queries.some(session, caller, ids[:most], state)
    return RequestListing(entries, cursor_after(last) if last else None)


def newest(session: UnitOfWork, branches: Sequence[Branch], bounds: Conditions, *, most: int) -> list[UUID]:
    """Return the newest ids of several branches: more than `most` where there are more."""
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
    """Return the ids of requests that are open in a state and match, the soonest deadline first, from the cursor on.

    At most `most` are returned, and the cursor of those that follow.

    Raises:
        Invalid: the cursor is not one that this call gave out.
    """
    if not branches:
        return [], None
    further = [*conditions, *([_later(cursor)] if cursor else [])]
    within = limit(most)
    found = union_all(*(one.soonest(state, *further).limit(within) for one in branches)).subquery()
    query = select(found.c.deadline_at, found.c.id).order_by(found.c.deadline_at, found.c.id).limit(within)
    rows = session.orm.execute(query).all()
    at, last = rows[most - 1] if len(rows) > most else (None, None)
    beyond = f"{(at - EPOCH) // MICROSECOND}-{last.hex}" if at and last else None
    return [one for _, one in rows[:most]], beyond


def written(number: int) -> ColumnElement[int]:
    """Return a number that is part of the statement."""
    return literal_column(str(number), Integer)


def cursor_after(last: UUID) -> str:
    """Return the cursor of what follows this request in a list, the newest first."""
    return base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def read_cursor(given: str) -> UUID:
    """Return the request that a cursor stands for.

    Raises:
        Invalid: it is not one of ours.
    """
    try:
        return UUID(bytes=base64.urlsafe_b64decode(given + "=="))
    except (ValueError, binascii.Error):
        raise Invalid("The cursor is invalid. Start again without it.", field="cursor") from None


def holds(caller: Caller, words: str, among: type[AccessRequest] = AccessRequest) -> ColumnElement[bool]:
    """Return the condition for the requests that hold these words, in any case, in what the caller may read.

    They are looked for in the case reference, the names of resources, the id, and the justification.
    """
    readers = READERS[ProtectedField.JUSTIFICATION]
    roles = {Role(one.value) for one in readers - {ReaderRole.REQUESTER}}
    own = col(among.requester_id) == caller.person_id if ReaderRole.REQUESTER in readers else false()
    is_theirs = col(among.tenant_id) == any_(literal(sorted(caller.tenants(roles & TENANT_ROLES)), Ids))
    readable = true() if caller.holds(*(roles & VENDOR_ROLES)) else or_(own, is_theirs)
    return or_(
        col(among.case_ref).icontains(words, autoescape=True),
        func.array_to_string(col(among.resources), "\n").icontains(words, autoescape=True),
        cast(col(among.id), String).icontains(words, autoescape=True),
        readable & col(among.justification).icontains(words, autoescape=True),
    )


def _is_in(state: State) -> ColumnElement[bool]:
    """Return the condition for a state, written out, for indexes are of single states."""
    return col(AccessRequest.state) == literal_column(f"'{state.value}'", String)


def _among(column: Mapped[UUID], one: UUID) -> ColumnElement[bool]:
    """Return the condition for a column to be among an array of one."""
    return column == any_(literal([one], Ids))


def limit(most: int) -> ColumnElement[int]:
    """Return the smallest limit that shows whether there are more than `most`, written out."""
    return written(next(size for size in SIZES if size > most))


def _branches(caller: Caller, wanted: RequestFilter) -> list[Branch]:
    """Return branches that hold what the caller may know of, of one requester or of anybody.

    No customer knows of what is in review.
    """
    if wanted.requester and (wanted.requester == caller.person_id or caller.holds(*SEE_ALL)):
        return [of_requester(wanted.requester)]
    branches = visible_branches(caller)
    if wanted.requester:
        branches = [one for one in branches if not one.is_of(REQUESTER)]
    return [one for one in branches if not one.is_of(TENANT) or wanted.state is not State.REVIEWING]


def _filters(caller: Caller, wanted: RequestFilter, among: type[AccessRequest]) -> list[ColumnElement[bool]]:
    """Return the conditions for which each request has to be looked through."""
    named = select(col(Person.id)).where(col(Person.name).icontains(wanted.engineer or "", autoescape=True))
    filters = (
        None if wanted.requester is None else col(among.requester_id) == wanted.requester,
        None if wanted.state is None or wanted.open_state else col(among.state) == wanted.state,
        None if wanted.service is None else col(among.service) == wanted.service,
        None if wanted.created_after is None else col(among.created_at) > wanted.created_after,
        None if wanted.created_before is None else col(among.created_at) < wanted.created_before,
        None if wanted.engineer is None else col(among.requester_id).in_(named),
        None if wanted.text is None else holds(caller, wanted.text, among),
    )
    return [one for one in filters if one is not None]


def _looked_through(
    branches: Sequence[Branch],
    bounds: Conditions,
    filters: Callable[[type[AccessRequest]], Conditions],
    size: ColumnElement[int],
) -> FoundIds:
    """Return the query for the newest ids that match, each beside that of the last request which was looked through.

    The latter is null where no more are left; its row is there also where nothing matches.
    """
    each = LOOKED_THROUGH // len(branches) or 1
    ends = [one.ids(*bounds).offset(written(each - 1)).limit(written(1)).scalar_subquery() for one in branches]
    end = select(func.greatest(*ends).label("id")).cte("end_of_look")
    looked = select(end.c.id, func.coalesce(end.c.id, literal(NIL, Uuid)).label("since")).cte("looked")
    parts = []
    for branch in branches:
        since = col(AccessRequest.id) >= select(looked.c.since).scalar_subquery()
        rows = branch.newest(*bounds, since).limit(written(each)).subquery()
        among = aliased(AccessRequest, rows)
        parts.append(select(col(among.id)).where(*filters(among)).order_by(col(among.id).desc()).limit(size))
    found = union_all(*parts).subquery()
    query = select(looked.c.id, found.c.id).select_from(looked.outerjoin(found, true()))
    return query.order_by(found.c.id.desc()).limit(size)


def _newest(branches: Sequence[Branch], bounds: Conditions, size: ColumnElement[int]) -> Select[UUID]:
    """Return the query for the newest ids of several branches."""
    found = union_all(*(one.ids(*bounds).limit(size) for one in branches)).subquery()
    return select(found.c.id).order_by(found.c.id.desc()).limit(size)


def _between(wanted: RequestFilter) -> Iterator[ColumnElement[bool]]:
    """Yield bounds of the ids of requests of a time: they are made as time goes."""
    if wanted.created_after is not None:
        yield col(AccessRequest.id) >= _id_at(wanted.created_after, -SKEW)
    if wanted.created_before is not None:
        yield col(AccessRequest.id) <= _id_at(wanted.created_before, SKEW)


def _id_at(moment: datetime, further: timedelta) -> UUID:
    """Return an id like those that are made then."""
    milliseconds = (moment - EPOCH + further) // timedelta(milliseconds=1)
    return UUID(int=min(max(milliseconds, 0), LAST_MILLISECOND) << 80)


def _later(cursor: str) -> ColumnElement[Any]:
    read = FORM.fullmatch(cursor)
    if read is None:
        raise Invalid(NO_PAGE, field="after")
    return tuple_(DEADLINE, ID) > tuple_(literal(EPOCH + int(read[1]) * MICROSECOND), literal(UUID(hex=read[2])))
