"""The earlier requests for the same case or resource, which mails list."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import text

from lockbox.database import UnitOfWork

MOST = 5
LOOKED_THROUGH = 500
# The customer's people see requests of which the customer was asked or notified. Managers see all requests, and other
# people of the vendor see their own. Up to :through requests of the case and as many of the tenant's newest requests
# are searched. BETWEEN with equal bounds makes Postgres use the tenant's index, however many requests other tenants
# have. OFFSET 0 makes it look up each notification's rows by their ids; without statistics, it would join whole
# tables.
EARLIER = text("""
SELECT n.id AS notification_id, o.id AS request_id, q.name AS requester, v.at, d.fields #>> '{name,1}' AS actor,
    CASE WHEN v.to_state = 'timed_out' AND convert_from(v.body, 'UTF8') LIKE '%"nobody_notified"%' THEN
    'nobody_notified'
        ELSE v.to_state END AS state
FROM notifications n
CROSS JOIN LATERAL (SELECT e.at FROM events e WHERE e.id = n.event_id OFFSET 0) e
CROSS JOIN LATERAL (SELECT r.id, r.tenant_id, r.case_ref, r.service, r.resources FROM requests r
    WHERE r.id = n.request_id OFFSET 0) r
CROSS JOIN LATERAL (SELECT p.id, p.side FROM people p WHERE p.id = n.person_id OFFSET 0) p
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
CROSS JOIN LATERAL (SELECT q.name FROM people q WHERE q.id = o.requester_id OFFSET 0) q
JOIN LATERAL (
    SELECT x.id, x.to_state, x.at, x.actor_id, x.body FROM events x
    WHERE x.request_id = o.id AND x.seq IS NOT NULL AND x.at <= e.at ORDER BY x.seq DESC LIMIT 1
) v ON true
LEFT JOIN LATERAL (SELECT d.fields FROM event_details d WHERE d.event_id = v.id OFFSET 0) d ON true
WHERE n.id = ANY(:ids) ORDER BY n.id, o.id DESC
""")


@dataclass(frozen=True)
class EarlierRequest:
    """An earlier request; `state` and `actor` are as of the event that the mail is about."""

    request_id: UUID
    requester: str
    state: str
    at: datetime
    actor: str | None


def read(session: UnitOfWork, notification_ids: Sequence[UUID]) -> Mapping[UUID, Sequence[EarlierRequest]]:
    found: dict[UUID, list[EarlierRequest]] = defaultdict(list)
    if notification_ids:
        for row in session.execute(EARLIER, {"ids": list(notification_ids), "most": MOST, "through": LOOKED_THROUGH}):
            found[row.notification_id].append(
                EarlierRequest(row.request_id, row.requester, row.state, row.at, row.actor)
            )
    return found
