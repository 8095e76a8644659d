"""Who of the customer has heard of some requests: was asked, told that it is open, or answered unasked."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

# A look-up by index for each request: joined the other way, a batch would read whole tables. Whose time as a deputy
# began while a request waited has a mail that lists it.
LOOK_UP = text("""
SELECT r.id AS request_id, h.person_id
FROM unnest(CAST(:ids AS uuid[])) AS i (id) JOIN requests r ON r.id = i.id
CROSS JOIN LATERAL (
    SELECT n.person_id FROM notices n
    WHERE n.request_id = r.id AND n.template IN ('pending', 'answer_reminder', 'active')
        AND n.person_id IS NOT NULL
    UNION ALL
    SELECT d.person_id FROM decisions d WHERE d.request_id = r.id AND d.verdict <> 'endorse'
    UNION ALL
    SELECT g.deputy_id FROM delegations g WHERE g.tenant_id = r.tenant_id
        AND greatest(g.starts_at, g.created_at) BETWEEN r.asked_at AND coalesce(r.opened_at, clock_timestamp())
        AND (g.ended_at IS NULL OR g.ended_at > g.starts_at)
) h
WHERE EXISTS (SELECT FROM memberships m WHERE m.person_id = h.person_id AND m.tenant_id = r.tenant_id)
""")

NOBODY = frozenset[UUID]()


def look_up(session: Session, request_ids: Sequence[UUID]) -> Mapping[UUID, frozenset[UUID]]:
    """Return for each of these requests who has heard of it and is still a member; for any other nobody."""
    found = defaultdict[UUID, set[UUID]](set)
    if request_ids:
        for row in session.connection().execute(LOOK_UP, {"ids": list(request_ids)}):
            found[row.request_id].add(row.person_id)
    return defaultdict(frozenset, {request_id: frozenset(people) for request_id, people in found.items()})
