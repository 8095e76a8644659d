"""Who of the customer has heard of some requests, who of them has voted, and on which requests a report is wanted."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

# A look-up by index for each request: joined the other way, a batch would read whole tables. Whose time as a deputy
# began while a request waited has a mail that lists it. A row without a person says that one of the policies which a
# request meets wants a report of something; of what, is for the terms to say when it is sent.
LOOK_UP = text("""
WITH policed AS MATERIALIZED (
    SELECT r.id, r.tenant_id, v.version
    FROM unnest(CAST(:ids AS uuid[])) AS i (id) JOIN requests r ON r.id = i.id JOIN tenants t ON t.id = r.tenant_id
    CROSS JOIN LATERAL (VALUES (r.policy_version), (t.policy_version)) AS v (version)
), wanting AS MATERIALIZED (
    SELECT p.tenant_id, p.version FROM (SELECT DISTINCT tenant_id, version FROM policed) d
    JOIN policies p ON p.tenant_id = d.tenant_id AND p.version = d.version
    WHERE coalesce(CAST(p.body ->> 'report_on_close' AS boolean), true)
        OR p.body @? '$.rules[*].terms.report_on_close ? (@ == true)'
)
SELECT r.id AS request_id, h.person_id, h.has_voted
FROM unnest(CAST(:ids AS uuid[])) AS i (id) JOIN requests r ON r.id = i.id
CROSS JOIN LATERAL (
    SELECT n.person_id, false AS has_voted FROM notices n
    WHERE n.request_id = r.id AND n.template IN ('pending', 'answer_reminder', 'active')
        AND n.person_id IS NOT NULL
    UNION
    SELECT d.person_id, true FROM decisions d WHERE d.request_id = r.id AND d.verdict <> 'endorse'
    UNION
    SELECT g.deputy_id, false FROM delegations g WHERE g.tenant_id = r.tenant_id
        AND greatest(g.starts_at, g.created_at) BETWEEN r.asked_at AND coalesce(r.opened_at, clock_timestamp())
        AND (g.ended_at IS NULL OR g.ended_at > g.starts_at)
) h
WHERE EXISTS (SELECT FROM memberships m WHERE m.person_id = h.person_id AND m.tenant_id = r.tenant_id)
UNION ALL
SELECT DISTINCT p.id, CAST(NULL AS uuid), false FROM policed p JOIN wanting USING (tenant_id, version)
""")


@dataclass
class Heard:
    """Who is still a member and was asked, told that it is open, or answered, and who of them by a vote.

    `wants_report` is whether any terms that the request may meet want a report on its window.
    """

    people: set[UUID] = field(default_factory=set)
    voters: set[UUID] = field(default_factory=set)
    wants_report: bool = False


NOBODY = Heard()


def look_up(session: Session, request_ids: Sequence[UUID]) -> Mapping[UUID, Heard]:
    """Return for each of these requests who has heard of it, by one query; for any other nobody."""
    found = defaultdict[UUID, Heard](Heard)
    if request_ids:
        for row in session.connection().execute(LOOK_UP, {"ids": list(request_ids)}):
            heard = found[row.request_id]
            if row.person_id is None:
                heard.wants_report = True
                continue
            heard.people.add(row.person_id)
            if row.has_voted:
                heard.voters.add(row.person_id)
    return found
