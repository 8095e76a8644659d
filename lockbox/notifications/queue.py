"""Claims of due notifications that have a free slot; others are deferred without counting an attempt.

The calls of a webhook endpoint are numbered and claimed in order. Each call waits until the call before it is
settled, but for a limited time if that call fails.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Row, text

from lockbox import database
from lockbox.database import UnitOfWork, now
from lockbox.failpoints import failpoint
from lockbox.notifications.account_mail import SIGN_IN_CODE
from lockbox.notifications.audience import ALARMING, ENDINGS, PROMPTS
from lockbox.notifications.circuit_breaker import domain_of, host_of
from lockbox.notifications.models import Channel
from lockbox.notifications.outbox import KIND
from lockbox.notifications.sending_pool import ChannelPool, SendingPool
from lockbox.schedule import NOTIFICATIONS, IndexEntry

LEASE = NOTIFICATIONS.lease
LONGEST_LEASE = timedelta(hours=1)
LAST_MOMENT = timedelta(seconds=1)
MOST_JITTER = 0.2

URGENT = frozenset({*PROMPTS, *ALARMING, SIGN_IN_CODE})
"""The templates of mails that a person waits for, that ask for an answer by a deadline, or that raise an alarm."""

LONGEST_BLOCKED = timedelta(minutes=15)
LONGEST_END_BLOCKED = timedelta(seconds=60)
"""For how long a call waits behind a failing call; LONGEST_END_BLOCKED applies to calls about the end of access.

Behind a call that no worker has tried yet, every call waits for LONGEST_BLOCKED, counted from the numbering of that
call.
"""
MOST_IN_TURN = 50
"""How many calls of an endpoint are claimed together; they are made one after another."""

CHANCE = random.SystemRandom()

LOCK = text("""
SELECT id, run_at, until_at, closed_at, attempts, channel, template, endpoint_id, sequence FROM notifications
WHERE id = ANY(:ids) ORDER BY id FOR UPDATE SKIP LOCKED
""")
DUE = text("""
WITH clock AS MATERIALIZED (SELECT clock_timestamp() - CAST(:grace AS interval) AS at), queued AS (
    SELECT event_id AS id, at AS due FROM outbox WHERE at <= (SELECT at FROM clock) ORDER BY event_id LIMIT :most
), open AS (
    SELECT id, run_at AS due FROM notifications WHERE closed_at IS NULL AND run_at <= (SELECT at FROM clock)
    ORDER BY run_at LIMIT :most
), mails AS (
    SELECT id, settle_by AS due FROM unsettled WHERE settle_by <= (SELECT at FROM clock)
    ORDER BY settle_by LIMIT :most
)
SELECT id FROM (
    SELECT id, due FROM queued UNION ALL SELECT id, due FROM open UNION ALL SELECT id, due FROM mails
) promised ORDER BY due LIMIT :most
""")
KNOWN = text("SELECT id FROM notifications WHERE id = ANY(:ids)")
LEADS_TO = text("""
SELECT n.id, coalesce(x.email, p.email, w.email, i.email, s.email, f.email, g.email) AS place
FROM notifications n LEFT JOIN people p ON p.id = n.person_id
LEFT JOIN addresses x ON x.id = n.address_id LEFT JOIN observers w ON w.id = n.observer_id
LEFT JOIN invitations i ON i.id = n.about_id LEFT JOIN sign_ins s ON s.id = n.about_id
LEFT JOIN addresses f ON f.id = n.about_id
LEFT JOIN (SELECT d.id, q.email FROM delegations d JOIN people q ON q.id = d.delegate_id) g ON g.id = n.about_id
WHERE n.id = ANY(:ids)
""")
# A transaction that has locked an endpoint sees all of its numbered calls, and which of them have ended. So endpoints
# are locked in the order of ids before anything that depends on this is read. Calls to removed endpoints are neither
# made nor numbered.
NUMBER = text("""
WITH locked AS MATERIALIZED (
    SELECT id, last_sequence FROM endpoints WHERE id = ANY(:endpoints) AND removed_at IS NULL
    ORDER BY id FOR NO KEY UPDATE
), numbered AS (
    UPDATE notifications n SET sequence = c.sequence, numbered_at = :at
    FROM (SELECT f.id, l.last_sequence + row_number() OVER (PARTITION BY l.id ORDER BY f.number) AS sequence
        FROM unnest(CAST(:fresh AS uuid[]), CAST(:fresh_of AS uuid[])) WITH ORDINALITY AS f (id, endpoint_id, number)
        JOIN locked l ON l.id = f.endpoint_id) c
    WHERE n.id = c.id RETURNING n.endpoint_id, n.sequence
), counted AS (
    UPDATE endpoints h SET last_sequence = c.last_sequence
    FROM (SELECT endpoint_id AS id, max(sequence) AS last_sequence FROM numbered GROUP BY 1) c WHERE h.id = c.id
)
SELECT count(*) FROM locked
""")
# In addition to the given calls, the statement reads blocked calls of endpoints that work. For each call, it reads
# the open call before it and since when that call has failed. A call that was not tried counts as failing with its
# endpoint. The earlier of both times counts: a call that always fails restarts the failure of its endpoint again and
# again, and during an outage each call fails for the first time.
CALLS = text("""
SELECT n.id, n.run_at, n.until_at, n.attempts, n.template, n.channel, n.endpoint_id, n.blocked_by, h.url AS place,
    h.failing_since IS NULL AS answers, b.id AS before_id, b.numbered_at AS before_at, least(b.failed_at,
        CASE WHEN h.failing_since IS NOT NULL THEN greatest(b.numbered_at, h.failing_since) END) AS before_fails_since
FROM (
    SELECT unnest(CAST(:ids AS uuid[])) AS id
    UNION SELECT x.id FROM endpoints e CROSS JOIN LATERAL (
        SELECT o.id FROM notifications o
        WHERE o.endpoint_id = e.id AND o.closed_at IS NULL AND o.blocked_by IS NOT NULL
        ORDER BY o.sequence LIMIT :most
    ) x WHERE e.id = ANY(:endpoints) AND e.failing_since IS NULL
) c JOIN notifications n ON n.id = c.id JOIN endpoints h ON h.id = n.endpoint_id
LEFT JOIN LATERAL (
    SELECT o.id, o.numbered_at, o.failed_at FROM notifications o
    WHERE o.endpoint_id = n.endpoint_id AND o.sequence < n.sequence AND o.closed_at IS NULL
    ORDER BY o.sequence DESC LIMIT 1
) b ON true
ORDER BY n.endpoint_id, n.sequence FOR NO KEY UPDATE OF n SKIP LOCKED
""")
CLAIM = text("""
UPDATE notifications n SET attempts = n.attempts + 1, run_at = c.run_at, blocked_by = NULL
FROM unnest(CAST(:ids AS uuid[]), CAST(:run_at AS timestamptz[])) AS c (id, run_at) WHERE n.id = c.id
""")
PUT_OFF = text("""
UPDATE notifications n SET run_at = c.run_at, blocked_by = c.blocked_by
FROM unnest(CAST(:ids AS uuid[]), CAST(:run_at AS timestamptz[]), CAST(:blocked_by AS uuid[]))
    AS c (id, run_at, blocked_by) WHERE n.id = c.id
""")
# Only while the claim is still ours: after the lease, another worker may have claimed the notification.
GIVE_BACK = text("""
UPDATE notifications n SET attempts = n.attempts - 1,
    run_at = greatest(least(CAST(:at AS timestamptz) + c.wait, n.until_at - CAST(:last AS interval)), :at)
FROM unnest(CAST(:ids AS uuid[]), CAST(:lease AS timestamptz[]), CAST(:wait AS interval[])) AS c (id, lease, wait)
WHERE n.id = c.id AND n.run_at = c.lease AND n.closed_at IS NULL RETURNING n.id, n.run_at
""")


@dataclass(frozen=True)
class Slot:
    pool: ChannelPool
    destination: str
    is_urgent: bool = False

    def leave(self) -> None:
        self.pool.leave(self.destination)


@dataclass(frozen=True)
class ReadyNotification:
    id: UUID
    channel: Channel
    until_at: datetime
    template: str
    attempts: int = 0


@dataclass(frozen=True)
class NotificationClaim:
    """A claim on a notification: no other process sends it before `lease`.

    If the notification is too late, or finds no slot in its last second, `slot` is None: nothing is sent, and the
    notification ends as dead. A claim that `follows` another notification is sent, and gets its slot, once that
    notification is settled.
    """

    notification_id: UUID
    lease: datetime
    slot: Slot | None
    follows: UUID | None = None


LetIn = Callable[
    [Sequence[ReadyNotification], Mapping[UUID, str], datetime], tuple[list[NotificationClaim], dict[UUID, datetime]]
]
"""Decides which notifications are claimed now, by their addresses or URLs; see `let_in`."""


class ClaimedBatch(NamedTuple):
    """`put_off` counts notifications without a free slot, `skipped` counts notifications that are not due."""

    claims: list[NotificationClaim]
    at: datetime
    put_off: int
    skipped: int


@dataclass(frozen=True)
class ReturnedClaim:
    """No slot will be free for the time `wait`."""

    notification_id: UUID
    lease: datetime
    wait: timedelta


def due(session: UnitOfWork, *, grace: timedelta, most: int) -> list[UUID]:
    return list(session.execute(DUE, {"grace": grace, "most": most}).scalars())


def claim(session: UnitOfWork, ids: Sequence[UUID], sending_pool: SendingPool, at_once: list[Slot]) -> ClaimedBatch:
    """Claim due notifications that have a free slot, and update the schedule for the others.

    A notification without a slot is tried again when its destination may have one. In the last second before the
    notification is too late, it is claimed without a slot, to be recorded as dead. Calls without a number are
    numbered in the order of `ids`. `at_once` receives each slot when it is promised, so that the caller can release
    it if the transaction fails. The transaction must be committed before anything is sent.
    """
    rows = session.execute(LOCK, {"ids": list(ids)}).all()
    at = now(session)
    ready = [row for row in rows if row.closed_at is None and row.run_at <= at]
    mails = [row for row in ready if row.endpoint_id is None]
    found = session.execute(LEADS_TO, {"ids": [row.id for row in mails]}) if mails else ()
    leads_to = {row.id: row.place or "" for row in found}
    calls = _calls(session, [row for row in ready if row.endpoint_id], ids, at)
    claims, put_off = let_in(sending_pool, at_once, [_ready(row) for row in mails], leads_to, at)
    of_calls, full, blocked = _in_turn(calls, sending_pool, at_once, at)
    claims += of_calls
    put_off |= full | {row.id: _tried_again(row, at) for row in blocked}
    _write(session, claims, put_off, {row.id: row.before_id for row in blocked})
    database.arm_after_commit(session, NOTIFICATIONS, _settled(session, ids, rows, ready, at))
    # The index has leased only the ids that it handed out. Calls may be new or come with others, so they are armed
    # here.
    called = {row.id for row in calls}
    moved = put_off | {one.notification_id: one.lease for one in claims if one.notification_id in called}
    database.arm_after_commit(
        session, NOTIFICATIONS, [IndexEntry(str(one), KIND, until - at) for one, until in moved.items()]
    )
    return ClaimedBatch(claims, at, len(put_off), len(ids) - len(ready))


def _calls(session: UnitOfWork, ready: Sequence[Row[Any]], ids: Sequence[UUID], at: datetime) -> Sequence[Row[Any]]:
    if not ready:
        return ()
    place = {one: number for number, one in enumerate(ids)}
    fresh = sorted((row for row in ready if row.sequence is None), key=lambda row: place[row.id])
    endpoints = list({row.endpoint_id for row in ready})
    values = {"fresh": [row.id for row in fresh], "fresh_of": [row.endpoint_id for row in fresh], "at": at}
    session.execute(NUMBER, values | {"endpoints": endpoints})
    failpoint("notify.after_number")
    found = session.execute(CALLS, {"ids": [row.id for row in ready], "endpoints": endpoints, "most": MOST_IN_TURN})
    return found.all()


def _blocked_until(row: Row[Any]) -> datetime:
    fails_since, is_end = row.before_fails_since, row.template in ENDINGS
    longest = LONGEST_END_BLOCKED if is_end and fails_since else LONGEST_BLOCKED
    until: datetime = min((fails_since or row.before_at) + longest, row.until_at - LAST_MOMENT)
    return until


def _tried_again(row: Row[Any], at: datetime) -> datetime:
    until = _blocked_until(row)
    if until <= at:
        return at + LEASE
    # If the call before an end begins to fail meanwhile, the end is due within a minute of this failure.
    return min(until, at + LONGEST_END_BLOCKED) if row.template in ENDINGS else until


def _in_turn(
    calls: Sequence[Row[Any]], sending_pool: SendingPool, at_once: list[Slot], at: datetime
) -> tuple[list[NotificationClaim], dict[UUID, datetime], list[Row[Any]]]:
    """Return claims on unblocked calls, when to try the calls without a slot again, and the blocked calls.

    A failing endpoint gets one call at a time.
    """
    claims: list[NotificationClaim] = []
    full: dict[UUID, datetime] = {}
    blocked, turns, overtakes = [], Counter[UUID](), set[UUID]()
    for row in calls:
        turn = turns[row.before_id] if row.answers else 0
        may_overtake = row.before_id is not None and _blocked_until(row) <= at
        if row.before_id is None or (may_overtake and not turn):
            head, put_off = let_in(sending_pool, at_once, [_ready(row)], {row.id: row.place}, at)
            claims += head
            full |= put_off
            turns[row.id] = len(head)
        elif 0 < turn < MOST_IN_TURN and (may_overtake or row.before_id not in overtakes):
            turns[row.id] = turn + 1
            slot = Slot(sending_pool.hooks, host_of(row.place))
            claims.append(NotificationClaim(row.id, _lease(row, at), slot, row.before_id))
            may_overtake = row.before_id in overtakes
        elif row.run_at <= at or row.blocked_by != row.before_id:
            blocked.append(row)
        if may_overtake and turns[row.id]:
            overtakes.add(row.id)
    return claims, full, blocked


def _write(
    session: UnitOfWork,
    claims: Sequence[NotificationClaim],
    put_off: Mapping[UUID, datetime],
    blocked_by: Mapping[UUID, UUID],
) -> None:
    if claims:
        values = {"ids": [one.notification_id for one in claims], "run_at": [one.lease for one in claims]}
        session.execute(CLAIM, values)
    if put_off:
        blockers = [blocked_by.get(one) for one in put_off]
        values = {"ids": list(put_off), "run_at": list(put_off.values())}
        session.execute(PUT_OFF, values | {"blocked_by": blockers})


def _settled(
    session: UnitOfWork, ids: Sequence[UUID], rows: Sequence[Row[Any]], ready: Sequence[Row[Any]], at: datetime
) -> Iterator[IndexEntry]:
    taken = {row.id for row in ready}
    for row in rows:
        if row.id not in taken:
            yield IndexEntry(str(row.id), KIND, None if row.closed_at else row.run_at - at)
    yield from _strangers(session, set(ids) - {row.id for row in rows})


def give_back(session: UnitOfWork, returned: Sequence[ReturnedClaim]) -> None:
    """Undo claims without counting an attempt; the next try comes when a slot may be free."""
    at = now(session)
    values = {
        "at": at,
        "last": LAST_MOMENT,
        "ids": [one.notification_id for one in returned],
        "lease": [one.lease for one in returned],
        "wait": [one.wait * CHANCE.uniform(1, 1 + MOST_JITTER) for one in returned],
    }
    rows = session.execute(GIVE_BACK, values).all()
    database.arm_after_commit(
        session, NOTIFICATIONS, [IndexEntry(str(row.id), KIND, row.run_at - at) for row in rows]
    )


def let_in(
    sending_pool: SendingPool,
    at_once: list[Slot],
    ready: Sequence[ReadyNotification],
    leads_to: Mapping[UUID, str],
    at: datetime,
) -> tuple[list[NotificationClaim], dict[UUID, datetime]]:
    """Return claims on notifications that have a free slot, and when to try the others again.

    `leads_to` maps notifications to addresses or URLs.
    """
    claims, put_off = [], {}
    for row in ready:
        slot = _slot(row, leads_to[row.id], sending_pool)
        wait = slot.pool.enter(slot.destination, urgent=slot.is_urgent) if at < row.until_at else 0.0
        if not wait and at < row.until_at:
            at_once.append(slot)
        last = row.until_at - LAST_MOMENT
        if wait and at < last:
            put_off[row.id] = min(at + timedelta(seconds=wait * CHANCE.uniform(1, 1 + MOST_JITTER)), last)
        else:
            claims.append(NotificationClaim(row.id, _lease(row, at), None if wait or at >= row.until_at else slot))
    return claims, put_off


def _lease(row: ReadyNotification | Row[Any], at: datetime) -> datetime:
    doubled: timedelta = LEASE * (1 << min(row.attempts, 10))
    return at + min(doubled, LONGEST_LEASE)


def _ready(row: Row[Any]) -> ReadyNotification:
    return ReadyNotification(row.id, Channel(row.channel), row.until_at, row.template, row.attempts)


def _slot(row: ReadyNotification, leads_to: str, sending_pool: SendingPool) -> Slot:
    if row.channel == Channel.WEBHOOK:
        return Slot(sending_pool.hooks, host_of(leads_to))
    return Slot(sending_pool.mail, domain_of(leads_to), is_urgent=row.template in URGENT)


def _strangers(session: UnitOfWork, missing: set[UUID]) -> Iterator[IndexEntry]:
    if missing:
        busy = set(session.execute(KNOWN, {"ids": list(missing)}).scalars())
        yield from (IndexEntry(str(one), KIND, LEASE if one in busy else None) for one in sorted(missing))
