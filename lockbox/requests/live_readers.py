"""Whom a change concerns: of those who listen, who may know of one of the requests that changed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.requests.visibility import VisibilityScope, roles_with_scope

CONCERNED = text("""
SELECT reader FROM readers_of(CAST(:ids AS uuid[]), CAST(:people AS uuid[]), CAST(:places AS uuid[]),
    CAST(:reach_all AS text[]), CAST(:reach_theirs AS text[]))
""")


@dataclass(frozen=True)
class LiveReader:
    """Somebody who listens, at one tenant alone if what they have shown counts only there."""

    person_id: UUID
    only_at: UUID | None = None


def concerned(session: Session, ids: Collection[UUID], readers: Sequence[LiveReader]) -> frozenset[LiveReader]:
    """Return which of these may know of any of these requests, by their roles as they are now, in one query."""
    if not ids or not readers:
        return frozenset()
    values = {
        "ids": list(ids),
        "people": [one.person_id for one in readers],
        "places": [one.only_at for one in readers],
        "reach_all": sorted(role.value for role in roles_with_scope(VisibilityScope.ALL)),
        "reach_theirs": sorted(role.value for role in roles_with_scope(VisibilityScope.TENANTS)),
    }
    return frozenset(readers[number - 1] for number in session.connection().execute(CONCERNED, values).scalars())
