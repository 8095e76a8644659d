"""What must hold after a process ended at a failpoint and was started again; each check returns its findings."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import httpx

from chaos import questions
from harness.wait import within
from lockbox.audit.log.merkle import leaf_hash, root_of
from lockbox.schedule import CLOCK, NOTIFICATIONS
from tests.whole.failpoints.hall import FailpointStage
from tests.whole.failpoints.plays import FailpointPlay

PATIENCE = 40.0
# What was armed from a row that was closed meanwhile goes when it comes up: after the lease of a claim.
PAST_A_LEASE = 100.0
SETTLED = {httpx.codes.OK, httpx.codes.CREATED, httpx.codes.CONFLICT}

BROKEN_AUDIT_LOGS = """
SELECT r.id FROM requests r LEFT JOIN events e ON e.request_id = r.id AND e.seq IS NOT NULL
WHERE r.tenant_id = :tenant GROUP BY r.id, r.version
HAVING count(e.id) <> r.version OR max(e.seq) <> r.version OR min(e.seq) <> 1
"""
TWICE_TOLD = """
SELECT event_id, template FROM notifications WHERE tenant_id = :tenant AND event_id IS NOT NULL
GROUP BY event_id, person_id, address_id, observer_id, endpoint_id, template HAVING count(*) > 1
"""
REMINDED_TWICE = """
SELECT request_id FROM events WHERE tenant_id = :tenant AND action IN ('remind', 'begin', 'after_review_reminder')
GROUP BY request_id HAVING count(*) > 1
"""
UNTOLD = """
SELECT e.id FROM events e WHERE e.tenant_id = :tenant AND e.seq IS NOT NULL
    AND NOT EXISTS (SELECT FROM notifications n WHERE n.event_id = e.id)
    AND NOT EXISTS (SELECT FROM outbox o WHERE o.event_id = e.id)
"""
UNSETTLED = """
SELECT id FROM unsettled WHERE tenant_id = :tenant UNION ALL SELECT event_id FROM outbox WHERE tenant_id = :tenant
"""
NOT_SENT = "SELECT id, outcome FROM notifications WHERE tenant_id = :tenant AND outcome = 'dead'"
OPEN_NOTIFICATIONS = "SELECT id FROM notifications WHERE tenant_id = :tenant AND closed_at IS NULL"
SENT = "SELECT id, channel FROM notifications WHERE tenant_id = :tenant AND outcome = 'sent'"
MOVES = "SELECT id FROM events WHERE tenant_id = :tenant AND seq IS NOT NULL"
STATES = "SELECT id, state FROM requests WHERE tenant_id = :tenant"
OVER = "SELECT deadline_at <= clock_timestamp() AS over FROM requests WHERE id = :id"
UNSEALED = "SELECT event_id FROM unsealed"
LOG = "SELECT size, root, note FROM logs WHERE id = :tenant"
LEAVES = "SELECT e.body FROM seals s JOIN events e ON e.id = s.event_id WHERE s.log_id = :tenant ORDER BY s.number"
EVENTS = "SELECT count(*) AS count FROM events WHERE log_id = :tenant"
MISPLACED = """
SELECT e.id FROM events e WHERE e.tenant_id = :tenant
    AND NOT EXISTS (SELECT FROM seals s WHERE s.event_id = e.id AND s.log_id = e.log_id)
"""

Found = Iterator[str]


def found(hall: FailpointStage, play: FailpointPlay) -> list[str]:
    """Wait until everything has settled, and return what is lost, doubled or open."""
    checks: list[Callable[[FailpointStage], Found]] = [
        _lost,
        _unfinished,
        _open,
        _notifications,
        _doubled,
        _noted,
        _mails,
        _index,
        _audit_log,
    ]
    return [f"{play.process}: {line}" for check in checks for line in check(hall)]


def open_past_the_end(hall: FailpointStage) -> list[str]:
    """Return the requests that still grant access after the end of their window by Postgres' clock."""
    return [f"{one} is open past its end" for one in hall.asked if _is_over(hall, one) and hall.is_let_in(one)]


def _is_over(hall: FailpointStage, request_id: UUID) -> bool:
    return bool(hall.stage.rows(OVER, id=str(request_id))[0].over)


def _lost(hall: FailpointStage) -> Found:
    there = {str(row.id) for row in hall.stage.rows(STATES, tenant=hall.tenant)}
    yield from (f"{one} was acknowledged and is lost" for one in {*hall.acknowledged} - there)
    if hall.answers and hall.answers[-1].status_code not in SETTLED:
        yield f"the API answered {hall.answers[-1].status_code} once it was back"
    if len(there) != len(hall.asked):
        yield f"{len(hall.asked)} requests were submitted, and {len(there)} are there"


def _unfinished(hall: FailpointStage) -> Found:
    def others() -> list[str]:
        rows = hall.stage.rows(STATES, tenant=hall.tenant)
        return [f"{row.id} is {row.state}" for row in rows if row.state != hall.expected]

    if not within(PATIENCE, lambda: not others()):
        yield from others()


def _open(hall: FailpointStage) -> Found:
    yield from (f"{one} is open, and it is {hall.expected}" for one in hall.asked if hall.is_let_in(one))
    yield from (f"{row.id} opened without an approval" for row in hall.stage.rows(questions.UNFOUNDED))


def _notifications(hall: FailpointStage) -> Found:
    if not within(PATIENCE, lambda: not _rows(hall, OPEN_NOTIFICATIONS)):
        yield from (f"notification {row.id} is never closed" for row in _rows(hall, OPEN_NOTIFICATIONS))
    yield from (f"notification {row.id} is dead" for row in _rows(hall, NOT_SENT))
    yield from (f"nobody is told of {row.id}" for row in _rows(hall, UNTOLD))


def _doubled(hall: FailpointStage) -> Found:
    yield from (f"{row.id} has not one event a move" for row in _rows(hall, BROKEN_AUDIT_LOGS))
    yield from (f"{row.event_id} was told twice as {row.template}" for row in _rows(hall, TWICE_TOLD))
    yield from (
        f"pre-approval {row.id} is not used as its requests say" for row in hall.stage.rows(questions.OVERUSED)
    )
    yield from (f"{row.id} goes on from a window that was ended" for row in hall.stage.rows(questions.OUTLIVED))
    yield from (f"{row.request_id} was reminded twice" for row in _rows(hall, REMINDED_TWICE))


def _noted(hall: FailpointStage) -> Found:
    if not within(PATIENCE, lambda: not _rows(hall, UNSETTLED)):
        yield from (f"how the mails about {row.id} ended is never said" for row in _rows(hall, UNSETTLED))
    yield from (f"not one event says how the mail {row.id} ended" for row in hall.stage.rows(questions.NOT_NOTED))


def _mails(hall: FailpointStage) -> Found:
    mailed, called = hall.mailed(), hall.called()
    for row in _rows(hall, SENT):
        if str(row.id) not in (mailed if row.channel == "mail" else called):
            yield f"the {row.channel} {row.id} counts as sent and never arrived"


def _index(hall: FailpointStage) -> Found:
    ids = {str(row.id) for query in (SENT, MOVES) for row in hall.stage.rows(query, tenant=hall.tenant)}
    ids |= {str(one) for one in hall.asked}

    def held() -> list[str]:
        members = [*hall.stage.db.schedule.members(CLOCK), *hall.stage.db.schedule.members(NOTIFICATIONS)]
        return [member for member in members if member.partition(":")[2] in ids]

    if not within(PAST_A_LEASE, lambda: not held()):
        yield from (f"the index still holds {one}" for one in held())


def _audit_log(hall: FailpointStage) -> Found:
    shipped = hall.checkpoints / hall.tenant / "latest.note"

    def is_shipped() -> bool:
        rows = _rows(hall, LOG)
        return bool(rows) and shipped.exists() and shipped.read_text() == rows[0].note

    if not within(PATIENCE, lambda: not hall.stage.rows(UNSEALED) and is_shipped()):
        yield "events are left unsealed, or their checkpoint was not shipped"
        return
    (log,), bodies, (events,) = _rows(hall, LOG), _rows(hall, LEAVES), _rows(hall, EVENTS)
    if not log.size == len(bodies) == events.count:
        yield f"the log says {log.size}, and {len(bodies)} of its {events.count} events are sealed in it"
    yield from (f"{row.id} is not sealed in the log where it belongs" for row in _rows(hall, MISPLACED))
    if root_of([leaf_hash(bytes(row.body)) for row in bodies]) != bytes(log.root):
        yield "the signed root is not that of the events"


def _rows(hall: FailpointStage, query: str) -> list[Any]:
    return hall.stage.rows(query, tenant=hall.tenant)
