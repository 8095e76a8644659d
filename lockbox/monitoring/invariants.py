"""Invariant checks by queries, each minute.

The checks report these violations:

- I1: a window is open without approval, or without the signature that the policy demands.
- I2: a window is open past its end.
- I4: an audit log has a gap, or an event is not sealed.
- I5: an event has no notification, or no event records the outcome of its notification.
- I12: a decision has no sign-in on record, or no event records who granted a power.
- used-outside: a gate let a caller in by a window that was not open.
- no-connector-worker: connectors are in use, but no connector worker runs.
- unsaid: no event records a legal hold, a retention or an off-boarding.
- unstated: a tenant's log lacks this month's statement of what can open without the tenant's approval.

Each check covers all open windows and the changes of the last minutes. Each minute, it also checks the next part of
all other data. No check reads more rows than `MOST`.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import TextClause, text

from lockbox.audit.events import VENDORS_LOG
from lockbox.database import UnitOfWork

NOBODY = UUID(int=0)
MOST = 20_000
PAGE = 2_000
PAGE_OF_SEALS = 5_000
PAGE_OF_PEOPLE = 500
TAIL = 200
LATELY = timedelta(minutes=3)
OVERDUE = timedelta(minutes=1)
SKEW = timedelta(minutes=15)
UNTOLD = timedelta(minutes=15)
MOMENT = timedelta(seconds=5)

UNAPPROVED = text("""
WITH looked AS MATERIALIZED (
    (SELECT id FROM requests WHERE state = 'active' LIMIT :most)
    UNION (SELECT e.request_id FROM events e
        WHERE e.id >= (SELECT uuidv7(-CAST(:lately AS interval))) AND e.seq IS NOT NULL AND e.to_state = 'active'
        ORDER BY e.id DESC LIMIT :most)
)
SELECT 'I1' AS rule, r.id, r.tenant_id, 'is or was open without the approval that it needs' AS what
FROM looked l JOIN requests r ON r.id = l.id
WHERE NOT CASE WHEN r.break_glass THEN
    r.mode = 'enforce' AND r.deadline_at <= r.opened_at + interval '1 hour'
    AND NOT EXISTS (SELECT FROM decisions d WHERE d.request_id = r.id AND d.decision = 'deny')
    AND EXISTS (SELECT FROM decisions d JOIN people p ON p.id = d.person_id
        WHERE d.request_id = r.id AND d.decision = 'break_glass' AND d.person_id <> r.requester_id
            AND p.side = 'vendor' AND d.decided_at <= r.opened_at
            AND EXISTS (SELECT FROM events e WHERE e.request_id = r.id AND e.seq IS NOT NULL
                AND e.action = 'break_glass' AND e.actor_id = d.person_id))
    AND EXISTS (SELECT FROM after_reviews a WHERE a.request_id = r.id AND a.due_at <= r.opened_at + interval '1 day')
WHEN r.mode = 'enforce' AND r.pre_approval_id IS NOT NULL THEN
    r.approve_means <> 'passkey-signed' AND EXISTS (SELECT FROM pre_approvals a
        WHERE a.id = r.pre_approval_id AND a.tenant_id = r.tenant_id AND a.service = r.service
        AND a.reason_code = r.reason_code AND r.actions <@ a.actions AND r.deadline_at <= a.ends_at
        AND NOT EXISTS (SELECT FROM unnest(r.resources) AS resource WHERE NOT fits(a.resource, resource))
        AND (SELECT count(*) FROM requests o WHERE o.pre_approval_id = a.id) <= a.used
        AND (a.revoked_at IS NULL OR (r.opened_at <= a.revoked_at
            AND (r.state <> 'active' OR r.deadline_at <= clock_timestamp())))
        AND r.quorum <= (SELECT count(DISTINCT v.person_id)
            FROM pre_approval_votes v JOIN people p ON p.id = v.person_id
            WHERE v.pre_approval_id = a.id AND v.person_id <> a.proposed_by AND p.side = 'customer'
            AND v.decided_at <= r.opened_at))
WHEN r.mode = 'enforce' THEN
    NOT EXISTS (SELECT FROM decisions d WHERE d.request_id = r.id AND d.decision = 'deny')
    AND r.quorum <= (SELECT count(DISTINCT d.person_id) FROM decisions d JOIN people p ON p.id = d.person_id
        WHERE d.request_id = r.id AND d.decision = 'approve' AND d.person_id <> r.requester_id AND p.side = 'customer'
            AND (d.assertion IS NOT NULL OR NOT (r.approve_means = 'passkey-signed' OR EXISTS (
                SELECT FROM policies p WHERE p.tenant_id = r.tenant_id AND p.version = r.policy_version
                AND demands_passkeys(p.body, r))))
            AND EXISTS (SELECT FROM events e WHERE e.request_id = r.id AND e.seq IS NOT NULL
                AND e.action = 'approve' AND e.actor_id = d.person_id AND e.at = d.decided_at
                AND e.seq <= (SELECT min(o.seq) FROM events o WHERE o.request_id = r.id AND o.to_state = 'active'))
            AND NOT EXISTS (SELECT FROM decisions o WHERE o.request_id = r.id AND o.decision = 'endorse'
                AND o.person_id = d.person_id))
ELSE
    EXISTS (SELECT FROM decisions d JOIN people p ON p.id = d.person_id
        WHERE d.request_id = r.id AND d.decision = 'endorse' AND d.person_id <> r.requester_id AND p.side = 'vendor'
            AND d.decided_at <= r.opened_at)
END
""")
TOO_LONG = text("""
SELECT 'I2' AS rule, r.id, r.tenant_id, CASE
    WHEN r.deadline_at < clock_timestamp() - CAST(:overdue AS interval)
        THEN 'has not been ended, though its end is over a minute ago'
    WHEN newest.to_state <> 'active' THEN 'is open, though its audit log says that it ended'
    ELSE 'is open for longer than was approved' END AS what
FROM (SELECT id, tenant_id, deadline_at FROM requests WHERE state = 'active' LIMIT :most) r
LEFT JOIN LATERAL (SELECT e.deadline_at FROM events e WHERE e.request_id = r.id AND e.seq IS NOT NULL
    AND e.to_state = 'active' ORDER BY e.seq LIMIT 1) opening ON true
LEFT JOIN LATERAL (SELECT e.to_state FROM events e WHERE e.request_id = r.id AND e.seq IS NOT NULL
    ORDER BY e.seq DESC LIMIT 1) newest ON true
WHERE r.deadline_at < clock_timestamp() - CAST(:overdue AS interval) OR r.deadline_at > opening.deadline_at
    OR newest.to_state <> 'active'
""")
# Events that retention has removed from a log's beginning are no gap (`lockbox operate retain`). The first moves of a
# reviewed request are in the vendor's log, which may keep events for another time than the tenant's log.
NOT_WHOLE = text("""
WITH looked AS MATERIALIZED (
    (SELECT id FROM requests WHERE state = 'active' LIMIT :most)
    UNION (SELECT e.request_id FROM events e
        WHERE e.id >= (SELECT uuidv7(-CAST(:lately AS interval))) AND e.seq IS NOT NULL
        ORDER BY e.id DESC LIMIT :most)
    UNION (SELECT id FROM requests WHERE id > :after ORDER BY id LIMIT :page)
)
SELECT 'I4' AS rule, r.id, r.tenant_id, 'has not exactly one event for each of its moves' AS what
FROM looked l JOIN requests r ON r.id = l.id
CROSS JOIN LATERAL (SELECT
    coalesce(bool_or(k.kept_from > 0) FILTER (WHERE k.id = :vendor), false) AS from_vendors,
    coalesce(bool_or(k.kept_from > 0) FILTER (WHERE k.id <> :vendor), false) AS from_tenants
    FROM logs k WHERE k.id IN (r.tenant_id, :vendor)) g
CROSS JOIN LATERAL (SELECT count(*) AS number, min(e.seq) AS first, max(e.seq) AS last,
    max(e.to_state) FILTER (WHERE e.seq = r.version) AS state,
    count(*) FILTER (WHERE e.log_id = :vendor) AS inside,
    min(e.seq) FILTER (WHERE e.log_id = :vendor) AS inside_first,
    max(e.seq) FILTER (WHERE e.log_id = :vendor) AS inside_last,
    count(*) FILTER (WHERE e.log_id <> :vendor) AS after, min(e.seq) FILTER (WHERE e.log_id <> :vendor) AS after_first
    FROM events e WHERE e.request_id = r.id AND e.seq IS NOT NULL) m
WHERE NOT CASE WHEN m.number = r.version THEN m.first = 1 AND m.last = r.version AND m.state = r.state
    ELSE r.closed_at IS NOT NULL AND (g.from_vendors OR g.from_tenants)
        AND (m.inside = 0 OR (m.inside_last - m.inside_first + 1 = m.inside
            AND (m.inside_first = 1 OR g.from_vendors)
            AND (g.from_tenants OR coalesce(m.after_first, r.version + 1) = m.inside_last + 1)))
        AND (m.after = 0 OR (m.last - m.after_first + 1 = m.after AND m.last = r.version AND m.state = r.state)) END
""")
GAP_IN_SEALS = text("""
WITH page AS MATERIALIZED (
    SELECT s.log_id, s.number, s.event_id, lag(s.number) OVER (PARTITION BY s.log_id ORDER BY s.number) AS before
    FROM (SELECT log_id, number, event_id FROM seals WHERE (log_id, number) > (:log, :number)
        ORDER BY log_id, number LIMIT :page) s
), gaps AS (
    SELECT p.log_id FROM page p JOIN logs g ON g.id = p.log_id
    WHERE p.number <> coalesce(p.before + 1, CASE WHEN p.log_id = :log THEN :number + 1 ELSE 0 END)
        OR p.number >= g.size
        OR (p.number >= g.kept_from AND NOT EXISTS (SELECT FROM events e WHERE e.id = p.event_id))
    UNION SELECT g.id FROM (SELECT id, size FROM logs
        WHERE noted_at >= clock_timestamp() - CAST(:lately AS interval) ORDER BY noted_at DESC LIMIT :page) g
    WHERE least(g.size, :tail) <> (SELECT count(*) FROM seals s
        WHERE s.log_id = g.id AND s.number >= g.size - :tail AND s.number < g.size)
)
SELECT 'I4' AS rule, id, tenant_id, 'has a gap in its seals' AS what FROM logs WHERE id IN (SELECT log_id FROM gaps)
""")
UNSEALED = text("""
WITH looked AS MATERIALIZED (
    (SELECT id, log_id FROM events
        WHERE id >= (SELECT uuidv7(-CAST(:lately AS interval))) ORDER BY id DESC LIMIT :most)
    UNION (SELECT id, log_id FROM events WHERE id > :event ORDER BY id LIMIT :page)
), forgotten AS (
    SELECT l.log_id FROM looked l
    WHERE NOT EXISTS (SELECT FROM seals s WHERE s.event_id = l.id OFFSET 0)
        AND NOT EXISTS (SELECT FROM unsealed u WHERE u.event_id = l.id OFFSET 0)
), waiting AS (
    SELECT e.log_id FROM (SELECT event_id FROM unsealed ORDER BY event_id LIMIT :most) u
    CROSS JOIN LATERAL (SELECT log_id, at FROM events WHERE id = u.event_id OFFSET 0) e
    WHERE e.at < (SELECT clock_timestamp()) - CAST(:overdue AS interval)
)
SELECT DISTINCT 'I4' AS rule, log_id AS id, nullif(log_id, :vendor) AS tenant_id,
    'has an event that is not sealed and does not wait for it' AS what FROM forgotten
UNION ALL
SELECT DISTINCT 'I4', log_id, nullif(log_id, :vendor), 'has an event that has waited for over a minute to be sealed'
FROM waiting
""")
# Notifications of an event wait in the outbox, the outcomes of its mails wait in `unsettled`, and at last an event
# records these outcomes. At least the requester is notified of each move that opens or ends a request.
FORGOTTEN = text("""
WITH lately AS MATERIALIZED (
    SELECT e.id, e.request_id, e.tenant_id, e.from_state IS DISTINCT FROM e.to_state
        AND e.to_state NOT IN ('reviewing', 'pending') AS is_outcome
    FROM events e
    WHERE e.id >= (SELECT uuidv7(-CAST(:lately AS interval))) AND e.seq IS NOT NULL ORDER BY e.id DESC LIMIT :most
)
SELECT 'I5' AS rule, request_id AS id, tenant_id, 'has waited for a quarter of an hour to be told to anybody' AS what
FROM (SELECT request_id, tenant_id FROM outbox
    WHERE at < clock_timestamp() - CAST(:untold AS interval) ORDER BY event_id LIMIT :page) o
UNION ALL
SELECT 'I5', request_id, tenant_id, 'was told to people, and no event says how that ended'
FROM (SELECT request_id, tenant_id FROM unsettled
    WHERE settle_by < clock_timestamp() - CAST(:untold AS interval) ORDER BY settle_by LIMIT :page) u
UNION ALL
SELECT 'I5', l.request_id, l.tenant_id, 'was opened or ended, and nobody is told of that' FROM lately l
WHERE l.is_outcome AND NOT EXISTS (SELECT FROM outbox o WHERE o.event_id = l.id)
    AND NOT EXISTS (SELECT FROM notifications n WHERE n.event_id = l.id)
UNION ALL
SELECT 'I5', l.request_id, l.tenant_id, 'was told to people, and no event says how that ended' FROM lately l
WHERE EXISTS (SELECT FROM notifications n WHERE n.event_id = l.id AND n.channel = 'mail' AND n.template <> 'report')
    AND NOT EXISTS (SELECT FROM unsettled u WHERE u.id = l.id)
    AND NOT EXISTS (SELECT FROM events e WHERE e.request_id = l.request_id AND e.action = 'notified'
        AND convert_from(e.body, 'UTF8')::jsonb ->> 'of_event' = l.id::text)
""")
# A gate counts a use when it answers, a moment after its check. A call may begin within a second of a revoke.
USED_OUTSIDE = text("""
WITH looked AS MATERIALIZED (
    (SELECT request_id AS id FROM window_uses WHERE look_at IS NOT NULL ORDER BY look_at LIMIT :most)
    UNION (SELECT id FROM requests WHERE id > :after ORDER BY id LIMIT :page)
)
SELECT 'used-outside' AS rule, r.id, r.tenant_id, 'was used at a gate when it was not open' AS what
FROM looked l JOIN window_uses w ON w.request_id = l.id JOIN requests r ON r.id = l.id
WHERE w.last_at > least(r.deadline_at, r.closed_at) + CAST(:moment AS interval)
    OR w.first_at < coalesce(r.opens_at, r.opened_at) - CAST(:moment AS interval)
""")
# A session lasts a week at most, and a bearer token of an identity provider begins no session. The clock may be set
# back by a moment between a sign-in and a decision. Events that retention has removed prove nothing any more.
UNSIGNED = text("""
WITH looked AS MATERIALIZED (
    (SELECT id FROM requests WHERE state = 'active' LIMIT :most)
    UNION (SELECT e.request_id FROM events e
        WHERE e.id >= (SELECT uuidv7(-CAST(:lately AS interval))) AND e.seq IS NOT NULL
        ORDER BY e.id DESC LIMIT :most)
    UNION (SELECT id FROM requests WHERE id > :after ORDER BY id LIMIT :page)
)
SELECT DISTINCT 'I12' AS rule, r.id, r.tenant_id, 'was decided without a sign-in on record' AS what
FROM looked l JOIN requests r ON r.id = l.id JOIN decisions d ON d.request_id = r.id
WHERE d.decided_at - interval '8 days' > coalesce((SELECT max(kept_since) FROM logs), '-infinity')
AND NOT CASE WHEN d.means IN ('token', 'sample') THEN
    EXISTS (SELECT FROM credentials_of(d.person_id) s WHERE s.kind = d.means
        AND s.at <= d.decided_at + CAST(:moment AS interval))
ELSE
    EXISTS (SELECT FROM events e WHERE e.actor_id = d.person_id AND e.action = 'signed_in'
        AND e.at BETWEEN d.decided_at - interval '8 days' AND d.decided_at + CAST(:moment AS interval)
        AND convert_from(e.body, 'UTF8')::jsonb ->> 'means' = d.means)
    OR (d.means IN ('oidc', 'mail') AND d.channel <> 'portal' AND EXISTS (SELECT FROM events e
        WHERE e.actor_id = d.person_id AND e.action = 'identity_bound'
        AND e.at <= d.decided_at + CAST(:moment AS interval)))
END
""")
# The id of a membership contains the time at which it was given, by the clock of the machine that gave it. Sample
# people, who have sample tokens, are made without events.
UNGIVEN = text("""
WITH looked AS MATERIALIZED (
    (SELECT person_id AS id FROM memberships WHERE id >= (SELECT uuidv7(-CAST(:lately AS interval)))
        ORDER BY id DESC LIMIT :most)
    UNION (SELECT id FROM people WHERE id > :person ORDER BY id LIMIT :page)
), kept AS MATERIALIZED (SELECT coalesce(max(kept_since), '-infinity') AS since FROM logs)
SELECT 'I12' AS rule, l.id, m.tenant_id, 'somebody is ' || m.role || CASE WHEN was_removed(m.mac)
    THEN ', and it was taken away' ELSE ', and no event says who gave it' END AS what
FROM looked l JOIN memberships m ON m.person_id = l.id CROSS JOIN kept k
CROSS JOIN LATERAL (SELECT coalesce(uuid_extract_timestamp(m.id), 'infinity') AS at) g
WHERE was_removed(m.mac)
OR (g.at > k.since
    AND NOT EXISTS (SELECT FROM events e WHERE e.action IN ('member_added', 'member_changed')
        AND e.at BETWEEN g.at - CAST(:skew AS interval) AND g.at + CAST(:skew AS interval)
        AND e.tenant_id IS NOT DISTINCT FROM m.tenant_id
        AND convert_from(e.body, 'UTF8')::jsonb ->> 'person_id' = m.person_id::text
        AND m.role = ANY (string_to_array(split_part(
            convert_from(e.body, 'UTF8')::jsonb #>> '{changes,roles}', ' → ', 2), ', ')))
    AND NOT EXISTS (SELECT FROM credentials_of(m.person_id) s WHERE s.kind = 'sample'))
UNION ALL
SELECT 'I12', l.id, NULL, 'somebody has ' || CASE s.kind WHEN 'identity' THEN 'an identity provider' ELSE 'a passkey'
    END || CASE WHEN s.was_removed THEN ' that was taken away' ELSE ' that no event says they added' END
FROM looked l CROSS JOIN kept k CROSS JOIN LATERAL credentials_of(l.id) s
WHERE s.kind IN ('passkey', 'identity') AND (s.was_removed OR (s.at > k.since
    AND NOT EXISTS (SELECT FROM events e WHERE e.actor_id = l.id
        AND e.action IN ('signed_in', 'identity_bound', 'passkey_added')
        AND e.action = CASE s.kind WHEN 'passkey' THEN 'passkey_added' ELSE 'identity_bound' END
        AND e.at BETWEEN s.at - interval '1 minute' AND s.at + interval '1 minute')))
""")
# Each of these changes has an event in its tenant's log at the time in the row, until retention removes the event.
UNSAID = text("""
WITH changed AS (
    SELECT tenant_id, 'hold_set' AS action, set_by AS who, set_at AS at, 'a legal hold' AS what FROM legal_holds
    UNION ALL SELECT tenant_id, 'hold_released', released_by, released_at, 'the end of a legal hold'
        FROM legal_holds WHERE released_at IS NOT NULL
    UNION ALL SELECT tenant_id, 'retention_changed', NULL, set_at, 'for how long the log is kept'
        FROM retentions WHERE set_at IS NOT NULL
    UNION ALL SELECT tenant_id, 'offboarding_asked', asked_by, asked_at, 'that somebody asked to off-board the tenant'
        FROM offboardings WHERE asked_by IS NOT NULL AND erased_at IS NULL
), near AS (
    SELECT r.tenant_id, r.action, r.who, r.at, r.what,
        uuidv7(r.at - clock_timestamp() - CAST(:skew AS interval)) AS first,
        uuidv7(r.at - clock_timestamp() + CAST(:skew AS interval)) AS last FROM changed r LIMIT :most
)
SELECT DISTINCT 'unsaid' AS rule, n.tenant_id AS id, n.tenant_id, 'no event says ' || n.what AS what FROM near n
WHERE n.at > coalesce((SELECT kept_since FROM logs WHERE id = n.tenant_id), '-infinity')
    AND NOT EXISTS (SELECT FROM events e WHERE e.log_id = n.tenant_id AND e.id BETWEEN n.first AND n.last
        AND e.action = n.action AND e.at = n.at AND e.actor_id = coalesce(n.who, e.actor_id) OFFSET 0)
""")
UNSTATED = text("""
SELECT 'unstated' AS rule, l.id, l.tenant_id,
    'its log was not told this month what can open without its approval: see unapproved_access.not_stated' AS what
FROM logs l WHERE l.unstated_at IS NOT NULL AND NOT is_erased(l.id) LIMIT :most
""")
# A running API compares logs with the shipped checkpoints, and answers no access check for logs that are behind.
AUDIT_LOG_BEHIND = text("""
SELECT
    'audit-log-rolled-back' AS rule, CAST(:nobody AS uuid) AS id, CAST(NULL AS uuid) AS tenant_id, node,
    rolled_back, doubt
FROM heartbeats WHERE rolled_back > 0 AND beat_at > clock_timestamp() - interval '1 minute'
ORDER BY rolled_back DESC, node LIMIT 1
""")
# A running API also reports rows without a valid MAC, because only an API has the keys.
UNVERIFIED = text("""
SELECT 'I12' AS rule, CAST(:nobody AS uuid) AS id, unverified, unverified_first
FROM heartbeats WHERE unverified > 0 AND beat_at > clock_timestamp() - interval '1 minute'
ORDER BY unverified DESC, node LIMIT 1
""")
GATE_DIFFERS = text("""
SELECT DISTINCT 'gate-differs' AS rule, CAST(:nobody AS uuid) AS id
FROM heartbeats WHERE gate_differs AND beat_at > clock_timestamp() - interval '1 minute'
""")
WITHOUT_CONNECTORS = text("""
SELECT 'no-connector-worker' AS rule, CAST(:nobody AS uuid) AS id
WHERE needs_connectors() AND NOT EXISTS (SELECT FROM heartbeats
    WHERE role = 'connectors' AND beat_at > clock_timestamp() - interval '1 minute')
""")
NEXT_REQUEST = text("SELECT id FROM requests WHERE id > :after ORDER BY id OFFSET :page - 1 LIMIT 1")
NEXT_SEAL = text("""
SELECT log_id, number FROM seals WHERE (log_id, number) > (:log, :number) ORDER BY log_id, number
OFFSET :page - 1 LIMIT 1
""")
NEXT_EVENT = text("SELECT id FROM events WHERE id > :event ORDER BY id OFFSET :page - 1 LIMIT 1")
NEXT_PERSON = text("SELECT id FROM people WHERE id > :person ORDER BY id OFFSET :page - 1 LIMIT 1")
GATE_WAS_WRONG = (
    "a gate remembered a window that was not open in the database, and has dropped it: look for gate.memory_differs "
    "in the logs of the API, and whether somebody has changed the database past the API"
)
NOBODY_CONNECTS = (
    "no connector worker has sent a heartbeat within a minute, though the catalogue has connectors or access at a "
    "target is not closed: nothing is opened there, and nothing is closed. Start `python -m worker connectors`"
)
QUERIES = (
    UNAPPROVED,
    TOO_LONG,
    NOT_WHOLE,
    FORGOTTEN,
    GAP_IN_SEALS,
    UNSEALED,
    UNSIGNED,
    UNGIVEN,
    USED_OUTSIDE,
    UNSAID,
    UNSTATED,
)


@dataclass(frozen=True)
class InvariantViolation:
    rule: str
    id: UUID
    tenant_id: UUID | None
    what: str

    @property
    def key(self) -> str:
        return f"{self.rule}:{self.id}"


@dataclass(frozen=True)
class ScanPosition:
    """The last request, seal, person and event that the rolling part of the scan has checked."""

    request: UUID = NOBODY
    log: UUID = VENDORS_LOG
    number: int = -1
    person: UUID = NOBODY
    event: UUID = NOBODY

    @property
    def values(self) -> dict[str, Any]:
        return {
            "after": self.request,
            "log": self.log,
            "number": self.number,
            "person": self.person,
            "event": self.event,
            "skew": SKEW,
            "lately": LATELY,
            "overdue": OVERDUE,
            "untold": UNTOLD,
            "moment": MOMENT,
            "most": MOST,
            "tail": TAIL,
            "vendor": VENDORS_LOG,
        }


def audit_log_rolled_back(logs: int, doubt: str) -> str:
    return (
        f"{logs} of the audit logs are not what was shipped of them ({doubt}): every access check of their tenants "
        "is answered with audit-log-rolled-back, and of all tenants where it is the vendor's log. If a back-up was "
        "restored, run `lockbox operate after-restore`; if the folder of checkpoints is away, mount it again"
    )


def unverified(rows: int, first: str) -> str:
    return (
        f"{rows} rows that would give power carry no mark of this installation's keys ({first}): they count for "
        "nothing, but a legal hold goes on. Somebody has written them past the API, or LOCKBOX_CREDENTIAL_KEY_FILES "
        "lacks a key: see The credential key in docs/operating.md"
    )


def scan(session: UnitOfWork, rota: ScanPosition) -> set[InvariantViolation]:
    found = {
        InvariantViolation(row.rule, row.id, row.tenant_id, audit_log_rolled_back(row.rolled_back, row.doubt))
        for row in session.execute(AUDIT_LOG_BEHIND, {"nobody": NOBODY})
    }
    found |= {
        InvariantViolation(row.rule, row.id, None, unverified(row.unverified, row.unverified_first))
        for row in session.execute(UNVERIFIED, {"nobody": NOBODY})
    }
    found |= {
        InvariantViolation(row.rule, row.id, None, GATE_WAS_WRONG)
        for row in session.execute(GATE_DIFFERS, {"nobody": NOBODY})
    }
    found |= {
        InvariantViolation(row.rule, row.id, None, NOBODY_CONNECTS)
        for row in session.execute(WITHOUT_CONNECTORS, {"nobody": NOBODY})
    }
    for query in QUERIES:
        rows = session.execute(query, rota.values | {"page": _page(query)})
        found |= {InvariantViolation(row.rule, row.id, row.tenant_id, row.what) for row in rows}
    return found


def _page(query: TextClause) -> int:
    if query in (GAP_IN_SEALS, UNSEALED):
        return PAGE_OF_SEALS
    return PAGE_OF_PEOPLE if query is UNGIVEN else PAGE


def next_position(session: UnitOfWork, rota: ScanPosition) -> ScanPosition:
    values = rota.values
    request = session.execute(NEXT_REQUEST, values | {"page": PAGE}).scalar_one_or_none()
    seal = session.execute(NEXT_SEAL, values | {"page": PAGE_OF_SEALS}).one_or_none()
    person = session.execute(NEXT_PERSON, values | {"page": PAGE_OF_PEOPLE}).scalar_one_or_none()
    event = session.execute(NEXT_EVENT, values | {"page": PAGE_OF_SEALS}).scalar_one_or_none()
    log, number = (seal.log_id, seal.number) if seal else (VENDORS_LOG, -1)
    return ScanPosition(request or NOBODY, log, number, person or NOBODY, event or NOBODY)
