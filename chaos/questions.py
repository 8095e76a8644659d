"""SQL questions to Postgres after a run; most of them find what must not be there."""

UNFOUNDED = """
SELECT r.id FROM requests r WHERE r.opened_at IS NOT NULL AND NOT CASE
WHEN r.break_glass THEN EXISTS (SELECT FROM events e JOIN memberships m ON m.person_id = e.actor_id
    WHERE e.request_id = r.id AND e.seq IS NOT NULL AND e.action = 'break_glass' AND e.actor_id <> r.requester_id
        AND m.role = 'manager' AND m.tenant_id IS NULL AND e.at <= r.opened_at)
WHEN r.pre_approval_id IS NOT NULL THEN r.quorum <= (SELECT count(DISTINCT v.person_id)
    FROM pre_approval_votes v JOIN pre_approvals p ON p.id = v.pre_approval_id
    JOIN memberships m ON m.person_id = v.person_id AND m.role = 'approver' AND m.tenant_id = r.tenant_id
    WHERE p.id = r.pre_approval_id AND v.person_id NOT IN (p.proposed_by, r.requester_id)
        AND v.decided_at <= r.opened_at)
ELSE CASE r.mode WHEN 'enforce' THEN r.quorum ELSE 1 END <= (SELECT count(DISTINCT e.actor_id)
    FROM events e JOIN memberships m ON m.person_id = e.actor_id
    WHERE e.request_id = r.id AND e.seq IS NOT NULL AND e.actor_id <> r.requester_id AND e.at <= r.opened_at
    AND CASE r.mode WHEN 'enforce' THEN e.action = 'approve' AND m.role = 'approver' AND m.tenant_id = r.tenant_id
        ELSE e.action = 'endorse' AND m.role = 'manager' AND m.tenant_id IS NULL END) END
"""
LATE = """
SELECT e.request_id AS id FROM events e JOIN events b ON b.request_id = e.request_id AND b.seq = e.seq - 1
WHERE e.action IN ('endorse', 'break_glass', 'approve') AND e.at >= b.deadline_at
"""
OUT_OF_STEP = """
SELECT e.request_id AS id FROM events e JOIN requests r ON r.id = e.request_id
JOIN policies p ON p.tenant_id = r.tenant_id AND p.version = r.policy_version
CROSS JOIN LATERAL jsonb_array_elements(p.body -> 'stages') AS theirs
CROSS JOIN LATERAL jsonb_array_elements(p.body -> 'stages') AS earlier
WHERE e.action = 'approve' AND p.body -> 'groups' -> (theirs ->> 'group') ? CAST(e.actor_id AS text)
AND coalesce(CAST(earlier ->> 'order' AS integer), 1) < coalesce(CAST(theirs ->> 'order' AS integer), 1)
AND NOT EXISTS (SELECT FROM events b WHERE b.request_id = e.request_id AND b.action = 'approve' AND b.seq < e.seq
    AND p.body -> 'groups' -> (earlier ->> 'group') ? CAST(b.actor_id AS text))
"""
ELSEWHERE = """
SELECT x.id FROM requests x JOIN requests r ON r.id = x.extends
WHERE x.opened_at IS NOT NULL AND x.opens_at IS DISTINCT FROM r.deadline_at
"""
OUTLIVED = """
SELECT x.id FROM requests x JOIN requests r ON r.id = x.extends
WHERE x.opened_at IS NOT NULL AND x.state IN ('active', 'expired') AND r.state NOT IN ('active', 'expired')
"""
OVERUSED = """
SELECT p.id FROM pre_approvals p
WHERE p.used > p.max_uses OR p.used <> (SELECT count(*) FROM requests r WHERE r.pre_approval_id = p.id)
"""
BEYOND = """
SELECT r.id FROM requests r JOIN pre_approvals p ON p.id = r.pre_approval_id
WHERE r.opened_at > p.revoked_at OR r.deadline_at > p.ends_at OR (r.state = 'active' AND p.revoked_at IS NOT NULL)
    OR r.deadline_at > r.opened_at + p.access_window * interval '1 second'
"""
GLASS_TOO_LONG = """
SELECT r.id FROM requests r WHERE r.break_glass AND r.opened_at IS NOT NULL
AND (r.deadline_at > r.opened_at + interval '1 hour'
    OR NOT EXISTS (SELECT FROM after_reviews a WHERE a.request_id = r.id))
"""
GLASS_TOO_OFTEN = """
SELECT r.id FROM requests r JOIN policies p ON p.tenant_id = r.tenant_id AND p.version = r.policy_version
WHERE r.break_glass AND r.opened_at IS NOT NULL
AND coalesce(CAST(p.body ->> 'break_glass_monthly' AS integer), 2) < (SELECT count(*) FROM requests o
    WHERE o.tenant_id = r.tenant_id AND o.break_glass
    AND o.opened_at > r.opened_at - interval '30 days' AND o.opened_at <= r.opened_at)
"""
GLASS_WHILE_OVERDUE = """
SELECT r.id FROM requests r JOIN after_reviews a ON a.tenant_id = r.tenant_id AND a.request_id <> r.id
WHERE r.break_glass AND r.opened_at >= a.due_at AND r.opened_at < coalesce(a.found_at, 'infinity')
"""
GLASS_DURING_STOP = """
SELECT r.id FROM requests r JOIN emergency_stops s ON s.tenant_id = r.tenant_id
WHERE r.break_glass AND r.opened_at > s.stopped_at AND r.opened_at < coalesce(s.ended_at, 'infinity')
    OR r.break_glass AND r.state = 'active' AND s.ended_at IS NULL
"""
FINDINGS = "SELECT request_id AS id FROM after_reviews WHERE finding IS NOT NULL"
OVERDUE = """
UPDATE after_reviews SET opened_at = opened_at - interval '25 hours', due_at = due_at - interval '25 hours',
    remind_at = clock_timestamp()
WHERE finding IS NULL
"""
"""An update, not a question: it lets a day pass for each finding that is due."""
WINDOWS = """
SELECT r.id, coalesce(r.opens_at, e.at) AS opened_at, e.deadline_at, r.resources[1] AS resource
FROM events e JOIN requests r ON r.id = e.request_id
WHERE e.seq IS NOT NULL AND e.to_state = 'active' AND e.from_state IS DISTINCT FROM 'active'
"""
GATE_WINDOWS = """
SELECT r.id, t.slug AS tenant, r.service, r.requester_id, coalesce(r.granted_resources, r.resources) AS resources,
    coalesce(r.granted_actions, r.actions) AS actions, e.deadline_at, r.extends,
    extract(epoch FROM coalesce(r.opens_at, e.at))::float AS opened_at
FROM events e JOIN requests r ON r.id = e.request_id JOIN tenants t ON t.id = r.tenant_id
WHERE e.seq IS NOT NULL AND e.to_state = 'active' AND e.from_state IS DISTINCT FROM 'active'
"""
OPEN = "SELECT id, state FROM requests WHERE wake_at IS NOT NULL OR state IN ('reviewing', 'pending', 'active')"
GAPS = """
SELECT r.id FROM requests r LEFT JOIN events e ON e.request_id = r.id AND e.seq IS NOT NULL
GROUP BY r.id, r.version HAVING count(e.id) <> r.version OR max(e.seq) <> r.version OR min(e.seq) <> 1
"""
OTHER_STATE = """
SELECT r.id FROM requests r JOIN events e ON e.request_id = r.id AND e.seq = r.version WHERE e.to_state <> r.state
"""
BROKEN_SEALS = """
SELECT l.id FROM logs l LEFT JOIN seals s ON s.log_id = l.id
GROUP BY l.id, l.size HAVING count(s.number) <> l.size OR coalesce(max(s.number) + 1, 0) <> l.size
"""
NOT_SEALED_ONCE = """
SELECT e.id FROM events e LEFT JOIN seals s ON s.event_id = e.id LEFT JOIN unsealed u ON u.event_id = e.id
WHERE s.event_id IS NULL AND u.event_id IS NULL OR s.event_id IS NOT NULL AND u.event_id IS NOT NULL
"""
UNSEALED = """
SELECT e.id FROM events e JOIN unsealed u ON u.event_id = e.id WHERE e.at < clock_timestamp() - interval '30 seconds'
"""
MOVED_TWICE = """
SELECT request_id AS id, action FROM events WHERE seq IS NOT NULL
GROUP BY request_id, action, actor_id HAVING count(*) > 1
"""
ENDED_TWICE = """
SELECT request_id AS id FROM events WHERE seq IS NOT NULL
AND to_state IN ('denied', 'cancelled', 'timed_out', 'completed', 'revoked', 'expired')
GROUP BY request_id HAVING count(*) > 1
"""
VENDOR_NOT_TOLD = """
SELECT e.id FROM events e WHERE e.seq IS NOT NULL AND e.from_state IS DISTINCT FROM e.to_state
AND NOT EXISTS (SELECT FROM notifications n JOIN endpoints h ON h.id = n.endpoint_id
    WHERE n.event_id = e.id AND h.tenant_id IS NULL)
"""
NOT_ASKED = """
SELECT e.id FROM events e JOIN memberships m ON m.tenant_id = e.tenant_id AND m.role = 'approver'
JOIN requests r ON r.id = e.request_id
JOIN policies p ON p.tenant_id = r.tenant_id AND p.version = r.policy_version
WHERE e.seq IS NOT NULL AND e.to_state = 'pending' AND e.from_state IS DISTINCT FROM 'pending'
AND EXISTS (SELECT FROM notifications n WHERE n.event_id = e.id AND n.person_id = m.person_id AND n.channel = 'mail')
    = EXISTS (SELECT FROM jsonb_array_elements(p.body -> 'stages') s WHERE CAST(s ->> 'order' AS integer) > 1
        AND p.body -> 'groups' -> (s ->> 'group') ? CAST(m.person_id AS text))
"""
"""An approver of the first step was not asked at once, or one of a later step was."""
REQUESTER_NOT_TOLD = """
SELECT e.id FROM events e JOIN requests r ON r.id = e.request_id
WHERE e.seq IS NOT NULL AND e.from_state IS DISTINCT FROM e.to_state AND e.to_state NOT IN ('reviewing', 'pending')
AND NOT EXISTS (SELECT FROM notifications n WHERE n.event_id = e.id AND n.person_id = r.requester_id)
"""
PROMISED_TWICE = """
SELECT event_id AS id FROM notifications WHERE event_id IS NOT NULL
GROUP BY event_id, person_id, address_id, observer_id, endpoint_id, template HAVING count(*) > 1
"""
NOT_NOTED = """
SELECT n.id FROM notifications n WHERE n.request_id IS NOT NULL AND n.channel = 'mail'
AND NOT EXISTS (SELECT FROM unsettled u WHERE u.event_id = n.event_id AND u.of_report = (n.template = 'report'))
AND 1 <> (SELECT count(*) FROM events e
    CROSS JOIN LATERAL (SELECT convert_from(e.body, 'UTF8')::jsonb AS said) b
    CROSS JOIN LATERAL jsonb_each(b.said -> 'mails') m
    WHERE e.action = 'notified' AND e.request_id = n.request_id AND b.said ->> 'of_event' = n.event_id::text
        AND (b.said ->> 'template' IS NOT NULL) = (n.template = 'report')
        AND m.value ->> 0 = coalesce(n.person_id, n.observer_id)::text AND m.value ->> 2 = n.outcome)
"""
NOTIFICATIONS = """
SELECT n.id, n.outcome, n.last_error, n.template, n.attempts, coalesce(h.url, p.email) AS to,
    coalesce(n.until_at < e.at + interval '1 hour', false) AS is_prompt,
    extract(epoch FROM coalesce(e.at, n.run_at))::float AS notified_at,
    extract(epoch FROM n.until_at)::float AS until_at, extract(epoch FROM n.closed_at)::float AS closed_at
FROM notifications n LEFT JOIN endpoints h ON h.id = n.endpoint_id LEFT JOIN people p ON p.id = n.person_id
LEFT JOIN events e ON e.id = n.event_id
"""
ALARMED = "SELECT id FROM events WHERE action = 'invariant_broken'"
SUBMITTED = "SELECT id, tenant_id, resources[1] AS resource, extends FROM requests"
MOVES = "SELECT request_id, seq, action, actor_id FROM events WHERE seq IS NOT NULL"
COUNTS = """
SELECT (SELECT count(*) FROM requests) AS requests, (SELECT count(*) FROM events WHERE seq IS NOT NULL) AS moves,
    (SELECT count(*) FROM notifications) AS notifications, (SELECT count(*) FROM notifications WHERE outcome =
    'dead') AS dead,
    (SELECT count(*) FROM events) AS events
"""
