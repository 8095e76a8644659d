"""What comes of a try: sent, moot, dead, or tried again later; the record of it, and when that is."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox import database
from lockbox.database import now
from lockbox.notifications import attempts, outcome_events, undelivered
from lockbox.notifications.attempts import Attempt
from lockbox.notifications.models import Outcome
from lockbox.notifications.outbox import KIND
from lockbox.pubsub import OPERATORS
from lockbox.schedule import NOTICES, Promise

FIRST_BACK_OFF = timedelta(seconds=2)
LONGEST_BACK_OFF = timedelta(minutes=15)
LEAST_BACK_OFF = timedelta(seconds=1)
LEAST_JITTER = 0.75

LONGEST_ERROR = 200
TOO_LATE = "not delivered before it stopped mattering"

CHANCE = random.SystemRandom()

RECORD = text("""
WITH recorded AS (
    UPDATE notices n SET outcome = s.outcome, closed_at = s.closed_at, run_at = s.run_at,
        last_error = CASE WHEN s.last_error = :too_late AND n.last_error IS NOT NULL
            THEN left(s.last_error || '; the last try failed: ' || n.last_error, :longest) ELSE s.last_error END
    FROM unnest(CAST(:id AS uuid[]), CAST(:outcome AS text[]), CAST(:closed_at AS timestamptz[]),
        CAST(:run_at AS timestamptz[]), CAST(:last_error AS text[])) AS s (id, outcome, closed_at, run_at, last_error)
    WHERE n.id = s.id AND n.closed_at IS NULL AND (s.outcome IS NOT NULL OR n.run_at <> s.run_at)
    RETURNING n.id, n.tenant_id, n.request_id, n.event_id, n.about_id, n.person_id, n.endpoint_id, n.template,
        n.channel, n.attempts, n.outcome
), counted AS (
    INSERT INTO tallies (name, label, count, total)
    SELECT 'attempt', channel || ' ' || coalesce(outcome, 'again'), count(*), 0 FROM recorded GROUP BY 2
)
SELECT r.*, EXISTS (SELECT FROM events e WHERE e.id = r.event_id AND e.internal)
    OR EXISTS (SELECT FROM people p WHERE p.id = r.person_id AND p.side = 'vendor')
    OR EXISTS (SELECT FROM endpoints h WHERE h.id = r.endpoint_id AND h.tenant_id IS NULL) AS is_internal
FROM recorded r
""")


@dataclass(frozen=True)
class Try:
    """How one try ended; without an outcome it is tried again at `run_at`. No attempt: nothing left the house."""

    notice_id: UUID
    outcome: Outcome | None
    run_at: datetime
    error: str | None = None
    attempt: Attempt | None = None


def again(attempts_: int, at: datetime, until: datetime, wait: timedelta | None) -> datetime | None:
    """Return when to try again: with jitter, not before the endpoint asks for it, and before it stops mattering."""
    planned = next_try(attempts_, at, until)
    if planned is None:
        return None
    back_off = max((planned - at) * CHANCE.uniform(LEAST_JITTER, 1), LEAST_BACK_OFF)
    return at + max(back_off, min(wait or back_off, until - at - LEAST_BACK_OFF))


def next_try(attempts: int, at: datetime, until: datetime) -> datetime | None:
    """Return when to try again: a doubling back-off, squeezed to a quarter of the time left; None if none is."""
    left = until - at
    if left <= LEAST_BACK_OFF:
        return None
    doubled: timedelta = FIRST_BACK_OFF * (1 << min(attempts - 1, 12))
    back_off = min(doubled, LONGEST_BACK_OFF, left / 4)
    return at + max(back_off, LEAST_BACK_OFF)


def record(session: Session, tries: Sequence[Try]) -> None:
    """Write how these tries ended, with a row of the delivery log for each that left the house.

    What has arrived is an event for each thing that was told, and what is dead is one of its own; where that was the
    last hope to tell anybody of a request, its clock is set to now. Written again, nothing is told or counted twice.
    What ran out of time keeps why it had failed.
    """
    concerned = undelivered.lock_concerned(session, {one.notice_id: one.outcome for one in tries if one.outcome})
    at = now(session)
    recorded = (
        session.connection()
        .execute(
            RECORD,
            {
                "id": [one.notice_id for one in tries],
                "outcome": [one.outcome and one.outcome.value for one in tries],
                "closed_at": [at if one.outcome else None for one in tries],
                "run_at": [one.run_at for one in tries],
                "last_error": [one.error for one in tries],
                "too_late": TOO_LATE,
                "longest": LONGEST_ERROR,
            },
        )
        .all()
    )
    outcome_events.tell(session, [row for row in recorded if row.outcome == Outcome.SENT], at)
    ended = [row for row in recorded if row.outcome == Outcome.DEAD]
    undelivered.tell(session, ended, {one.notice_id: one.attempt.error for one in tries if one.attempt}, at)
    if concerned:
        undelivered.wake(session, concerned, at)
    attempts.write(session, [one.attempt for one in tries if one.attempt], at)
    if any(one.outcome for one in tries):
        database.news(session, [one.notice_id for one in tries if one.outcome], OPERATORS)
    settled = [Promise(str(one.notice_id), KIND, None if one.outcome else one.run_at) for one in tries]
    database.promise(session, NOTICES, settled)
