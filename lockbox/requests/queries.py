"""Read requests, each judged as an access check judges it."""

from collections.abc import Collection, Sequence
from functools import cache
from uuid import UUID

from sqlalchemy import LargeBinary, Select, String, any_, literal, literal_column, select, text
from sqlmodel import col

from lockbox.database import UnitOfWork
from lockbox.errors import NotFound
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.models import Person, Tenant
from lockbox.identity.roles import Caller
from lockbox.requests.access_check import OBSTACLE, OPENING, RequestRow, judged
from lockbox.requests.models import IS_VISIBLE, AccessRequest
from lockbox.requests.request_entry import RequestEntry
from lockbox.sql import Ids

RequestQuery = Select[AccessRequest, str, str, str, str | None, bytes | None]
KNOWN = text(f"SELECT id FROM requests WHERE id = ANY(:ids) AND {IS_VISIBLE}")  # noqa: S608 - ours
NOT_KNOWN = "There is no such request."


def find(session: UnitOfWork, caller: Caller, request_id: UUID) -> RequestEntry:
    """Return one request.

    Raises:
        NotFound: there is none that the caller may know of.
    """
    authentication.enter(session, caller)
    found = read(session, entries().where(col(AccessRequest.id) == request_id, AccessRequest.visible_to(caller)))
    if not found:
        raise NotFound(NOT_KNOWN)
    return found[0]


def known(session: UnitOfWork, caller: Caller, ids: Collection[UUID]) -> frozenset[UUID]:
    """Return which of these are requests that the caller may know of."""
    authentication.enter(session, caller)
    return frozenset(session.execute(KNOWN, {"ids": list(ids)}).scalars()) if ids else frozenset()


def some(session: UnitOfWork, caller: Caller, ids: Sequence[UUID], state: State | None = None) -> list[RequestEntry]:
    """Return those of these requests that the caller may know of, in the order of the ids.

    With a state those alone that are in it by now: somebody may have decided since their ids were looked up.
    """
    authentication.enter(session, caller)
    theirs = col(AccessRequest.id) == any_(literal(list(ids), Ids)), AccessRequest.visible_to(caller)
    some_ = read(session, entries().where(*theirs)) if ids else []
    found = {entry.request.id: entry for entry in some_ if state in {None, entry.request.state}}
    return [found[one] for one in ids if one in found]


@cache
def entries() -> RequestQuery:
    """Return the query for requests, with all that `read` judges them by."""
    obstacle, opening = literal_column(OBSTACLE, String), literal_column(OPENING, LargeBinary)
    return (
        select(AccessRequest, col(Tenant.slug), col(Person.name), col(Tenant.name), obstacle, opening)
        .join(Tenant, col(Tenant.id) == col(AccessRequest.tenant_id))
        .join(Person, col(Person.id) == col(AccessRequest.requester_id))
    )


def read(session: UnitOfWork, query: RequestQuery) -> list[RequestEntry]:
    """Return what such a query finds, each judged on the database's clock."""
    return judged(session, [RequestRow(*row) for row in session.orm.execute(query)])
