"""Notices that have left the house: one event for each thing that was told, channel and batch, with their number."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox import database
from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_CLOCK, Happening
from lockbox.notifications import announcements, delivery_status
from lockbox.notifications.account_mail import CHECKPOINT, DIGEST, SIGN_IN_CODE
from lockbox.notifications.audience import ASKING
from lockbox.notifications.models import Outcome
from lockbox.schedule import CLOCK, Promise

NOTICE_DEAD = "notice_dead"
TOO_LATE = "too_late"
UNTOLD = (SIGN_IN_CODE,)
"""The templates of which a dead notice is no event: whom it was for nobody has shown yet."""
# An open request whose question to somebody has ended without arriving; and any request of a notice that is dead.
CONCERNED = text("""
SELECT DISTINCT n.request_id FROM notices n JOIN requests r ON r.id = n.request_id
WHERE n.id = ANY(:ids) AND n.closed_at IS NULL
    AND (n.id = ANY(:dead) OR (n.person_id IS NOT NULL AND n.template = ANY(CASE r.state
        WHEN 'reviewing' THEN CAST(:reviewing AS text[]) WHEN 'pending' THEN CAST(:pending AS text[]) END)))
""")
LOCK = text("""
SELECT id, state FROM requests WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE
""")
WAKE = text("""
UPDATE requests SET wake_at = :at WHERE id = ANY(:ids) AND wake_at > :at AND deadline_at > :at RETURNING id
""")
KIND = CLOCK.kinds[0]
NOTICES_SENT = "notices_sent"
SILENT = (*UNTOLD, CHECKPOINT, DIGEST)
"""The templates of which nothing is said once they are sent: to say that the log has not grown must not grow it."""


def lock_concerned(session: Session, ended: Mapping[UUID, Outcome]) -> Mapping[UUID, str]:
    """Lock the requests whose notices end like this, in order and before any notice; return their states by id.

    What has arrived concerns none, nor what a request that went on has made moot.
    """
    failed = {notice: outcome for notice, outcome in ended.items() if outcome is not Outcome.SENT}
    if not failed:
        return {}
    values = {
        "ids": list(failed),
        "dead": [notice for notice, outcome in failed.items() if outcome is Outcome.DEAD],
        **{stage: list(templates) for stage, templates in ASKING.items()},
    }
    concerned = list(session.connection().execute(CONCERNED, values).scalars())
    rows = session.connection().execute(LOCK, {"ids": concerned}) if concerned else ()
    return {row.id: row.state for row in rows}


def tell_dead(session: Session, rows: Sequence[Row[Any]], words: Mapping[UUID, str | None], at: datetime) -> None:
    """Write an event for each of these notices, which are dead: its kind and recipient by id, and why as a word."""
    happenings = [_happening(row, words.get(row.id), at) for row in rows if row.template not in UNTOLD]
    if happenings:
        announcements.record(session, *happenings)


def wake(session: Session, states: Mapping[UUID, str], at: datetime) -> None:
    """Set the clocks of those requests to now that wait for an answer and of which nobody could be told.

    They are locked, and their notices have ended; what the clock does then is `nudging`'s to say.
    """
    asking = {one: state for one, state in states.items() if state in ASKING}
    untold = [one for one, found in delivery_status.of_requests(session, asking).items() if found.nobody]
    if untold:
        woken = session.connection().execute(WAKE, {"ids": untold, "at": at}).scalars()
        database.promise(session, CLOCK, [Promise(str(one), KIND, at) for one in woken])


def _happening(row: Row[Any], word: str | None, at: datetime) -> Happening:
    facts: dict[str, Value] = {
        "notice_id": row.id,
        "template": row.template,
        "attempts": row.attempts,
        "error": word or TOO_LATE,
        "person_id": row.person_id,
        "endpoint_id": row.endpoint_id,
        "about_id": row.about_id,
    }
    return Happening(
        at=at,
        action=NOTICE_DEAD,
        actor=replace(THE_CLOCK, channel=row.channel),
        tenant_id=row.tenant_id,
        request_id=row.request_id,
        stays_inside=row.is_internal,
        facts={name: value for name, value in facts.items() if value is not None},
    )


def tell(session: Session, rows: Sequence[Row[Any]], at: datetime) -> None:
    """Write the events of these notices, which were taken by their server: of what, by which channel, how many."""
    told = Counter(
        (row.tenant_id, row.request_id, row.event_id, row.template, row.channel, row.is_internal)
        for row in rows
        if row.template not in SILENT
    )
    happenings = [
        Happening(
            at=at,
            action=NOTICES_SENT,
            actor=replace(THE_CLOCK, channel=channel),
            tenant_id=tenant_id,
            request_id=request_id,
            stays_inside=is_internal,
            facts={"of_event": event_id, "template": template, "count": count},
        )
        for (tenant_id, request_id, event_id, template, channel, is_internal), count in told.items()
    ]
    if happenings:
        announcements.record(session, *happenings)
