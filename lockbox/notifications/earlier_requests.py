"""Earlier requests for the same case or resource, and what had become of them when the reader was asked."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.notifications.request_mail import Earlier

MOST = 5
LOOKED_THROUGH = 500

# A reader of the customer hears of what the customer was asked or told, a manager of everything, anybody else of the
# vendor of their own. So many of the case and so many of the tenant's newest are looked through, by ranges
# of one, for which Postgres takes the index of the tenant, however many requests others have.
EARLIER = text("""
SELECT n.id AS notice_id, o.id AS request_id, q.name AS requester, v.at, d.value AS actor,
    CASE WHEN v.to_state = 'timed_out' AND convert_from(v.body, 'UTF8') LIKE '%"nobody_told"%' THEN 'nobody_told'
        ELSE v.to_state END AS state
FROM notices n
JOIN events e ON e.id = n.event_id JOIN requests r ON r.id = n.request_id JOIN people p ON p.id = n.person_id
JOIN LATERAL (
    SELECT a.id, a.requester_id FROM (
        (SELECT c.id, c.requester_id, c.asked_at FROM requests c
        WHERE c.tenant_id BETWEEN r.tenant_id AND r.tenant_id AND c.case_ref BETWEEN r.case_ref AND r.case_ref
        ORDER BY c.tenant_id DESC, c.case_ref DESC LIMIT :through)
        UNION
        SELECT s.id, s.requester_id, s.asked_at FROM (
            SELECT l.id, l.requester_id, l.asked_at, l.service, l.resources FROM requests l
            WHERE l.tenant_id BETWEEN r.tenant_id AND r.tenant_id AND l.id < r.id
            ORDER BY l.tenant_id DESC, l.id DESC LIMIT :through
        ) s
        WHERE s.service = r.service AND s.resources && r.resources
    ) a
    WHERE a.id < r.id AND CASE WHEN p.side = 'customer' THEN a.asked_at <= e.at
        ELSE a.requester_id = p.id OR EXISTS (SELECT FROM memberships m
            WHERE m.person_id = p.id AND m.tenant_id IS NULL AND m.role = 'manager') END
    ORDER BY a.id DESC LIMIT :most
) o ON true
JOIN people q ON q.id = o.requester_id
JOIN LATERAL (
    SELECT x.id, x.to_state, x.at, x.actor_id, x.body FROM events x
    WHERE x.request_id = o.id AND x.seq IS NOT NULL AND x.at <= e.at ORDER BY x.seq DESC LIMIT 1
) v ON true
LEFT JOIN event_details d ON d.event_id = v.id AND d.field = 'name'
WHERE n.id = ANY(:ids) ORDER BY n.id, o.id DESC
""")


def read(session: Session, notice_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[Earlier]]:
    """Return for each of these notices the newest earlier requests that its reader may know of, five at most."""
    found: dict[UUID, list[Earlier]] = defaultdict(list)
    if notice_ids:
        for row in session.connection().execute(
            EARLIER, {"ids": list(notice_ids), "most": MOST, "through": LOOKED_THROUGH}
        ):
            found[row.notice_id].append(Earlier(row.request_id, row.requester, row.state, row.at, row.actor))
    return found
