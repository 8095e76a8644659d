"""Searching requests: text where the reader may read it, and the cursors that lead from page to page."""

import base64
import binascii
from uuid import UUID

from sqlalchemy import ColumnElement, String, cast, false, func, or_, true
from sqlmodel import col

from lockbox.errors import Invalid
from lockbox.identity.models import Person
from lockbox.identity.roles import TENANT_ROLES, VENDOR_ROLES, Caller, Role
from lockbox.requests.models import AccessRequest
from lockbox.requests.visibility import READERS, Capacity, Guarded

MOST_SCANNED = 20_000
"""How many of the newest requests one look for text goes through; the cursor leads on to those before them."""


def conditions(caller: Caller, engineer: str | None, words: str | None) -> list[ColumnElement[bool]]:
    """Return the conditions for which each request has to be looked through: part of a name, and words in it."""
    named = [] if engineer is None else [col(Person.name).icontains(engineer, autoescape=True)]
    return named if words is None else [*named, holds(caller, words)]


def readable(caller: Caller, field: Guarded) -> ColumnElement[bool]:
    """Return the condition for the requests of which the caller may read the field, by the table of `sight`."""
    readers = READERS[field]
    roles = {Role(one.value) for one in readers - {Capacity.REQUESTER}}
    if caller.holds(*(roles & VENDOR_ROLES)):
        return true()
    own = col(AccessRequest.requester_id) == caller.person_id if Capacity.REQUESTER in readers else false()
    return or_(own, col(AccessRequest.tenant_id).in_(caller.tenants(roles & TENANT_ROLES)))


def holds(caller: Caller, words: str) -> ColumnElement[bool]:
    """Return the condition for the requests that hold these words, in any case, in what the caller may read.

    They are looked for in the case reference, the names of resources, the id, and the justification.
    """
    return or_(
        col(AccessRequest.case_ref).icontains(words, autoescape=True),
        func.array_to_string(col(AccessRequest.resources), "\n").icontains(words, autoescape=True),
        cast(col(AccessRequest.id), String).icontains(words, autoescape=True),
        readable(caller, Guarded.JUSTIFICATION) & col(AccessRequest.justification).icontains(words, autoescape=True),
    )


def cursor(last: UUID) -> str:
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
        raise Invalid("The cursor is not one of ours; begin again without it.", field="cursor") from None
