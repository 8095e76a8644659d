"""Claim due notifications that find a free slot, and defer the others without counting an attempt."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import text

from lockbox import database
from lockbox.database import UnitOfWork, now
from lockbox.notifications.account_mail import SIGN_IN_CODE
from lockbox.notifications.audience import PROMPTS
from lockbox.notifications.models import Channel
from lockbox.notifications.outbox import KIND
from lockbox.notifications.sending_pool import ChannelPool, SendingPool, domain_of, host_of
from lockbox.schedule import NOTIFICATIONS, IndexEntry

LEASE = NOTIFICATIONS.lease
LONGEST_LEASE = timedelta(hours=1)
LAST_MOMENT = timedelta(seconds=1)
MOST_JITTER = 0.2

URGENT = frozenset({*PROMPTS, SIGN_IN_CODE})
"""The templates of mails that somebody waits for, or by whose deadline they have to answer."""

CHANCE = random.SystemRandom()

LOCK = text("""
SELECT id, run_at, until_at, closed_at, attempts, channel, template FROM notifications
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
SELECT id FROM (SELECT * FROM queued UNION ALL SELECT * FROM open UNION ALL SELECT * FROM mails) promised
ORDER BY due LIMIT :most
""")
KNOWN = text("SELECT id FROM notifications WHERE id = ANY(:ids)")
LEADS_TO = text("""
SELECT n.id, coalesce(h.url, x.email, p.email, w.email, i.email, s.email, f.email, g.email) AS place
FROM notifications n LEFT JOIN endpoints h ON h.id = n.endpoint_id LEFT JOIN people p ON p.id = n.person_id
LEFT JOIN addresses x ON x.id = n.address_id LEFT JOIN observers w ON w.id = n.observer_id
LEFT JOIN invitations i ON i.id = n.about_id LEFT JOIN sign_ins s ON s.id = n.about_id
LEFT JOIN addresses f ON f.id = n.about_id
LEFT JOIN (SELECT d.id, q.email FROM delegations d JOIN people q ON q.id = d.delegate_id) g ON g.id = n.about_id
WHERE n.id = ANY(:ids)
""")
CLAIM = text("""
UPDATE notifications n SET attempts = n.attempts + 1, run_at = c.run_at
FROM unnest(CAST(:ids AS uuid[]), CAST(:run_at AS timestamptz[])) AS c (id, run_at) WHERE n.id = c.id
""")
PUT_OFF = text("""
UPDATE notifications n SET run_at = c.run_at
FROM unnest(CAST(:ids AS uuid[]), CAST(:run_at AS timestamptz[])) AS c (id, run_at) WHERE n.id = c.id
""")
# Only while the claim is still ours: after its lease somebody else may have begun.
GIVE_BACK = text("""
UPDATE notifications n SET attempts = n.attempts - 1,
    run_at = greatest(least(CAST(:at AS timestamptz) + c.wait, n.until_at - CAST(:last AS interval)), :at)
FROM unnest(CAST(:ids AS uuid[]), CAST(:lease AS timestamptz[]), CAST(:wait AS interval[])) AS c (id, lease, wait)
WHERE n.id = c.id AND n.run_at = c.lease AND n.closed_at IS NULL RETURNING n.id, n.run_at
""")


@dataclass(frozen=True)
class Slot:
    """A slot of a destination that was promised to one notification; urgent ones are queued before the others."""

    pool: ChannelPool
    destination: str
    is_urgent: bool = False

    def leave(self) -> None:
        """Give it back unused."""
        self.pool.leave(self.destination)


@dataclass(frozen=True)
class ReadyNotification:
    """A notification that is due, written or about to be."""

    id: UUID
    channel: Channel
    until_at: datetime
    template: str
    attempts: int = 0


@dataclass(frozen=True)
class NotificationClaim:
    """A notification that nobody else sends before `lease`; without a slot it is too late, and it is not sent."""

    notification_id: UUID
    lease: datetime
    slot: Slot | None


LetIn = Callable[
    [Sequence[ReadyNotification], Mapping[UUID, str], datetime], tuple[list[NotificationClaim], dict[UUID, datetime]]
]
"""Decides which notifications, each leading to an address or a URL, are claimed at a moment: see `let_in`."""


class ClaimedBatch(NamedTuple):
    """What was claimed, and when; how many found no free slot and were deferred, and how many were not due."""

    claims: list[NotificationClaim]
    at: datetime
    put_off: int
    skipped: int


@dataclass(frozen=True)
class ReturnedClaim:
    """A claim that led to no attempt, and for how long there is no free slot."""

    notification_id: UUID
    lease: datetime
    wait: timedelta


def due(session: UnitOfWork, *, grace: timedelta, most: int) -> list[UUID]:
    """Return what is overdue by that much, the oldest first: events, notifications, and what is unsettled."""
    return list(session.execute(DUE, {"grace": grace, "most": most}).scalars())


def claim(session: UnitOfWork, ids: Sequence[UUID], sending_pool: SendingPool, at_once: list[Slot]) -> ClaimedBatch:
    """Claim those of the notifications that are due and find a slot, and settle the schedule for all others.

    A claim moves the next attempt past a lease. One that finds no slot comes again when its destination may have one,
    at the latest a second before it is too late; if that is now, it is claimed without a slot.

    Args:
        session: of a transaction that is committed before anything is sent.
        ids: of notifications, each once.
        sending_pool: where there is room or not.
        at_once: takes each slot as it is promised, for the case that the transaction fails.

    """
    rows = session.execute(LOCK, {"ids": list(ids)}).all()
    at = now(session)
    ready = [row for row in rows if row.closed_at is None and row.run_at <= at]
    found = session.execute(LEADS_TO, {"ids": [row.id for row in ready]}) if ready else ()
    leads_to = {row.id: row.place or "" for row in found}
    claims, put_off = let_in(
        sending_pool,
        at_once,
        [ReadyNotification(row.id, Channel(row.channel), row.until_at, row.template, row.attempts) for row in ready],
        leads_to,
        at,
    )
    if claims:
        values = {"ids": [one.notification_id for one in claims], "run_at": [one.lease for one in claims]}
        session.execute(CLAIM, values)
    if put_off:
        session.execute(PUT_OFF, {"ids": list(put_off), "run_at": list(put_off.values())})
    taken = {row.id for row in ready}
    settled = [IndexEntry(str(one), KIND, until - at) for one, until in put_off.items()]
    settled += [
        IndexEntry(str(row.id), KIND, None if row.closed_at else row.run_at - at)
        for row in rows
        if row.id not in taken
    ]
    settled += _strangers(session, set(ids) - {row.id for row in rows})
    database.arm_after_commit(session, NOTIFICATIONS, settled)
    return ClaimedBatch(claims, at, len(put_off), len(ids) - len(claims) - len(put_off))


def give_back(session: UnitOfWork, returned: Sequence[ReturnedClaim]) -> None:
    """Undo claims that led to no attempt: it does not count, and the next one comes when there may be a slot."""
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
    """Return claims on those that find a slot where they lead to, and when the others come again.

    Args:
        sending_pool: where there is room or not.
        at_once: takes each slot as it is promised, for the case that the transaction fails.
        ready: notifications that are due.
        leads_to: the address or URL of each.
        at: the moment as of which they are claimed.
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
            lease = at + min(LEASE * 2 ** min(row.attempts, 10), LONGEST_LEASE)
            claims.append(NotificationClaim(row.id, lease, None if wait or at >= row.until_at else slot))
    return claims, put_off


def _slot(row: ReadyNotification, leads_to: str, sending_pool: SendingPool) -> Slot:
    if row.channel == Channel.WEBHOOK:
        return Slot(sending_pool.hooks, host_of(leads_to))
    return Slot(sending_pool.mail, domain_of(leads_to), is_urgent=row.template in URGENT)


def _strangers(session: UnitOfWork, missing: set[UUID]) -> Iterator[IndexEntry]:
    if missing:
        busy = set(session.execute(KNOWN, {"ids": list(missing)}).scalars())
        yield from (IndexEntry(str(one), KIND, LEASE if one in busy else None) for one in sorted(missing))
