"""Fan-out of requests' events: work out their recipients, and write their notifications, already claimed.

The transaction that writes an event's notifications deletes the event's row in the outbox. The rows of one request
are fanned out in order, because the audience of a request's end depends on who was asked.
"""

import hashlib
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text

from config import traces
from config.traces import NOWHERE, CallOrigin, SpanKind
from lockbox import database
from lockbox.audit.report import USES_SETTLE
from lockbox.database import UnitOfWork, array, listed, now
from lockbox.failpoints import failpoint
from lockbox.notifications import outbox, queue, recipients, settlement
from lockbox.notifications.announcements import LATER, OPERATORS
from lockbox.notifications.audience import (
    OPERATED,
    REPORTED_AFTER,
    AudienceGroup,
    is_reported,
)
from lockbox.notifications.event_recipients import (
    AudienceCache,
    AudienceMember,
    NotificationRecipient,
    notified_groups,
)
from lockbox.notifications.models import Channel, Notification, OutboxEvent, ReportDue, UnsettledMails
from lockbox.notifications.outbox import KIND, NotifiedMove
from lockbox.notifications.queue import ClaimedBatch, LetIn, NotificationClaim, ReadyNotification, Slot
from lockbox.notifications.recipients import RecipientDirectory
from lockbox.notifications.sending_pool import SendingPool
from lockbox.notifications.settlement import SETTLED_WITHIN
from lockbox.schedule import NOTIFICATIONS, IndexEntry
from lockbox.sql import columns, insert_list, insert_rows

BUSY_AGAIN = timedelta(milliseconds=250)

# One process at a time fans a request out. The lock function does not wait, and tells whether this process got the
# lock.
FIND = text("""
SELECT event_id, request_id, pg_try_advisory_xact_lock(hashtextextended('fan out ' || request_id, 0)) AS is_ours
FROM outbox WHERE event_id = ANY(:ids)
UNION ALL SELECT id, NULL, NULL FROM unsettled WHERE id = ANY(:ids)
""")
# LATERAL leads from each event to its rows by their ids. A plan made while the tables were empty may read all rows
# for each of 500 events, row security included.
TAKE = text(f"""
WITH taken AS (DELETE FROM outbox WHERE request_id = ANY(:ids) RETURNING {columns(OutboxEvent, "outbox")})
SELECT {columns(OutboxEvent, "o")}, e.action, e.actor_id, e.actor_role, e.from_state, e.to_state,
    coalesce(e.deadline_at, o.at) AS deadline_at, r.requester_id, r.service,
    CASE WHEN NOT e.internal THEN r.asked_at END AS asked_at
FROM taken o CROSS JOIN LATERAL (SELECT e.action, e.actor_id, e.actor_role, e.from_state, e.to_state, e.deadline_at,
    e.internal FROM events e WHERE e.id = o.event_id OFFSET 0) e
CROSS JOIN LATERAL (SELECT r.requester_id, r.service, r.asked_at FROM requests r WHERE r.id = o.request_id OFFSET 0) r
ORDER BY o.request_id, o.number
""")  # noqa: S608 - ours
PLACES = text("""
SELECT id, email AS place FROM people WHERE id = ANY(:ids)
UNION ALL SELECT id, email FROM addresses WHERE id = ANY(:ids)
UNION ALL SELECT id, email FROM observers WHERE id = ANY(:ids)
""")
# Many of a thousand events notify the same people. So each audience is sent once, and each notification refers to it
# by two numbers. Recipients of mails are recorded later: see `settlement`.
ADDRESSED = f"""
addressed AS (
    INSERT INTO {insert_list(Notification, but={"about_id", "checkpoint_id", *LATER})}
    SELECT n.id, c.tenant_id, c.request_id, c.event_id, t.person_id, t.address_id, t.observer_id, t.endpoint_id,
        CASE WHEN t.endpoint_id IS NULL THEN 'mail' ELSE 'webhook' END, t.template, n.run_at, t.until_at, n.attempts,
        c.http_request_id, c.traceparent
    FROM unnest(CAST(:n_id AS uuid[]), CAST(:n_cause AS integer[]), CAST(:n_member AS integer[]),
        CAST(:n_run_at AS timestamptz[]), CAST(:n_attempts AS integer[])) AS n (id, cause, member, run_at, attempts)
    JOIN unnest(CAST(:c_event_id AS uuid[]), CAST(:c_tenant_id AS uuid[]), CAST(:c_request_id AS uuid[]),
        CAST(:c_http_request_id AS text[]), CAST(:c_traceparent AS text[]))
        WITH ORDINALITY AS c (event_id, tenant_id, request_id, http_request_id, traceparent, number)
        ON c.number = n.cause
    JOIN unnest(CAST(:t_person_id AS uuid[]), CAST(:t_address_id AS uuid[]), CAST(:t_observer_id AS uuid[]),
        CAST(:t_endpoint_id AS uuid[]), CAST(:t_template AS text[]), CAST(:t_until_at AS timestamptz[]))
        WITH ORDINALITY AS t (person_id, address_id, observer_id, endpoint_id, template, until_at, number)
        ON t.number = n.member
    ON CONFLICT DO NOTHING RETURNING id
), unsettled_mails AS (
    INSERT INTO {insert_list(UnsettledMails, but={"left_open"})}
    SELECT u.id, u.event_id, u.id <> u.event_id, u.tenant_id, u.request_id, CAST(:settle_by AS timestamptz)
    FROM unnest(CAST(:c_unsettled AS uuid[]), CAST(:c_event_id AS uuid[]), CAST(:c_tenant_id AS uuid[]),
        CAST(:c_request_id AS uuid[])) AS u (id, event_id, tenant_id, request_id)
    WHERE u.id IS NOT NULL ON CONFLICT DO NOTHING
)"""  # noqa: S608 - ours
# The recipients of a window's report are looked up when it is due, so one row is enough now. The report of the last
# use was planned for after the window's latest end, and is now due sooner.
REPORTED = f"""
reported AS (
    {insert_rows(ReportDue, prefix="r_")} ON CONFLICT DO NOTHING
), looked_at_sooner AS (
    UPDATE window_uses w SET look_at = r.at
    FROM unnest(CAST(:r_request_id AS uuid[]), CAST(:r_look_at AS timestamptz[])) AS r (id, at)
    WHERE w.request_id = r.id AND w.look_at > r.at
)"""  # noqa: S608 - ours
WRITE = text(f"WITH {ADDRESSED},{REPORTED} SELECT id FROM addressed")  # noqa: S608 - our own SQL


class FannedCall(NamedTuple):
    event_id: UUID
    id: UUID


@dataclass
class FannedBatch:
    """The result of one fan-out.

    `known` holds the ids of the events that this fan-out read from the outbox, and the ids in `unsettled`. `calls`
    are webhook calls in the order of their events; they are not claimed or numbered yet. `put_off` counts mails for
    which the sending pool had no free slot, and events that another process works on.
    """

    known: set[UUID]
    claims: list[NotificationClaim] = field(default_factory=list)
    calls: list[FannedCall] = field(default_factory=list)
    origins: Mapping[UUID, CallOrigin] = field(default_factory=dict)
    unsettled: list[UUID] = field(default_factory=list)
    put_off: int = 0


def claim(session: UnitOfWork, ids: Sequence[UUID], sending_pool: SendingPool, at_once: list[Slot]) -> ClaimedBatch:
    """Fan out the events in the outbox that `ids` names, and claim due notifications as `queue.claim` does."""
    fanned = fan_out(session, ids, partial(queue.let_in, sending_pool, at_once))
    due = queue.claim(
        session, [*(call.id for call in fanned.calls), *sorted(set(ids) - fanned.known)], sending_pool, at_once
    )
    # The recorder of results locks endpoints before rows of `unsettled`, so this function does the same.
    settlement.settle_due(session, fanned.unsettled)
    return due._replace(claims=[*fanned.claims, *due.claims], put_off=fanned.put_off + due.put_off)


def fan_out(session: UnitOfWork, ids: Sequence[UUID], let_in: LetIn) -> FannedBatch:
    """Fan out the events in the outbox with these ids, and all other events of their requests in the outbox.

    Events that another process works on are tried again later. `let_in` decides which notifications are claimed now.
    The transaction must be committed before anything is sent.
    """
    rows = session.execute(FIND, {"ids": list(ids)}).all()
    found = [row for row in rows if row.request_id]
    settled = [IndexEntry(str(row.event_id), KIND, BUSY_AGAIN) for row in found if not row.is_ours]
    batch = FannedBatch({row.event_id for row in rows}, put_off=len(settled))
    batch.unsettled = [row.event_id for row in rows if not row.request_id]
    ours = {row.request_id for row in found if row.is_ours}
    if ours:
        rows = session.execute(TAKE, {"ids": sorted(ours)}).all()
        failpoint("fan_out.after_take")
        batch.known |= {row.event_id for row in rows}
        at, moves = now(session), [outbox.move_of(row) for row in rows]
        known = _directory(session, moves, at)
        caused = {row.event_id: CallOrigin(row.http_request_id, row.traceparent) for row in rows}
        with traces.spans("outbox", SpanKind.CONSUMER, caused) as batch.origins:
            for alike in _rounds(moves):
                settled += _write(session, alike, known, at, let_in, batch)
        numbers = {row.event_id: row.number for row in rows}
        batch.calls.sort(key=lambda one: (numbers[one.event_id], one.id))
        failpoint("fan_out.after_write")
    database.arm_after_commit(session, NOTIFICATIONS, settled)
    return batch


def _directory(session: UnitOfWork, moves: Sequence[NotifiedMove], at: datetime) -> RecipientDirectory:
    tenants = {move.tenant_id for move in moves}
    known = recipients.look_up(session, tenants, at)
    if any(move.template in OPERATED for move in moves):
        known.operators |= set(session.execute(OPERATORS).scalars())
    also = {move.requester_id for move in moves}.union(known.operators, *(move.asked for move in moves))
    also |= {move.actor.person_id for move in moves if move.actor.person_id}
    return recipients.with_places(session, known, tenants, also=also)


def _rounds(moves: Sequence[NotifiedMove]) -> Iterator[list[NotifiedMove]]:
    rounds: list[list[NotifiedMove]] = []
    seen = defaultdict[UUID, int](int)
    for move in moves:
        number = seen[move.request_id]
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(move)
        seen[move.request_id] += 1
    yield from rounds


def _write(  # noqa: PLR0917 - all that notifications are made from
    session: UnitOfWork,
    moves: Sequence[NotifiedMove],
    known: RecipientDirectory,
    at: datetime,
    let_in: LetIn,
    batch: FannedBatch,
) -> list[IndexEntry]:
    informed = recipients.prompted(
        session,
        [move.request_id for move in moves if AudienceGroup.INFORMED in notified_groups(move)],
    )
    audiences = AudienceCache(known)
    chosen = [audiences.of(move, informed[move.request_id]) for move in moves]
    pairs = list(notifications_of(moves, chosen, audiences.due))
    claims, put_off = let_in(*_ready(session, pairs, audiences.due), at)
    leases = {claim.notification_id: claim.lease for claim in claims}
    closed = [move for move in moves if is_reported(move.from_state, move.to_state)]
    reports = {
        "r_event_id": array(move.event_id for move in closed),
        "r_due_at": array(move.at + REPORTED_AFTER for move in closed),
        "r_request_id": array(move.request_id for move in closed),
        "r_look_at": array(move.at + USES_SETTLE for move in closed),
    }
    due = put_off | leases
    unsettled = mailed_causes(pairs, audiences.due, [move.event_id for move in moves])
    values = addressed(
        moves, pairs, audiences.due, [due.get(pair.id, at) for pair in pairs], leases, origins=batch.origins
    )
    values |= {"c_unsettled": array(unsettled), "settle_by": at + SETTLED_WITHIN}
    written = set(session.execute(WRITE, values | reports).scalars())
    batch.claims += [claim for claim in claims if claim.notification_id in written]
    for claim in claims:
        if claim.slot and claim.notification_id not in written:
            claim.slot.leave()
    batch.put_off += len(put_off)
    calls = [
        FannedCall(moves[pair.cause - 1].event_id, pair.id) for pair in pairs if pair.is_call and pair.id in written
    ]
    batch.calls += calls
    mails = written.difference(call.id for call in calls)
    database.arm_after_commit(
        session, NOTIFICATIONS, [IndexEntry(str(mail), KIND, due[mail] - at if mail in due else at) for mail in mails]
    )
    return [
        IndexEntry(str(move.event_id), KIND, at + SETTLED_WITHIN if mailed else None)
        for move, mailed in zip(moves, unsettled, strict=True)
    ]


@dataclass(frozen=True)
class NewNotification:
    """`cause` and `member` are indexes of causes and audience members, counted from one."""

    id: UUID
    cause: int
    member: int
    is_call: bool


def notifications_of(
    causes: Sequence[Any], chosen: Sequence[Iterable[int]], due: Sequence[AudienceMember]
) -> Iterator[NewNotification]:
    for number, (cause, audience) in enumerate(zip(causes, chosen, strict=True), 1):
        for one in audience:
            recipient = due[one - 1].recipient
            id_ = notification_id(cause.event_id, recipient)
            yield NewNotification(id_, number, one, recipient.endpoint_id is not None)


def mailed_causes(
    pairs: Sequence[NewNotification], due: Sequence[AudienceMember], ids: Sequence[UUID]
) -> list[UUID | None]:
    mailed = {pair.cause for pair in pairs if due[pair.member - 1].recipient.endpoint_id is None}
    return [one if number in mailed else None for number, one in enumerate(ids, 1)]


def notification_id(event_id: UUID, recipient: NotificationRecipient) -> UUID:
    """Return a notification's id: the same at each call, and sorted like the event's id."""
    ids = (recipient.person_id, recipient.address_id, recipient.observer_id, recipient.endpoint_id)
    named = b"".join(one.bytes if one else bytes(16) for one in (event_id, *ids)) + recipient.template.encode()
    bits = int.from_bytes(event_id.bytes[:6] + hashlib.sha256(named).digest()[:10])
    return UUID(int=bits & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def _ready(
    session: UnitOfWork, pairs: Sequence[NewNotification], due: Sequence[AudienceMember]
) -> tuple[list[ReadyNotification], Mapping[UUID, str]]:
    ids = {one.recipient.place_id for one in due if one.recipient.endpoint_id is None}
    places = {row.id: row.place for row in session.execute(PLACES, {"ids": list(ids)})} if ids else {}
    ready, leads_to = [], {}
    for pair in pairs:
        if pair.is_call:
            continue
        member = due[pair.member - 1]
        ready.append(ReadyNotification(pair.id, Channel.MAIL, member.until_at, member.recipient.template))
        leads_to[pair.id] = places.get(member.recipient.place_id, "")
    return ready, leads_to


def addressed(
    causes: Sequence[Any],
    pairs: Sequence[NewNotification],
    due: Sequence[AudienceMember],
    run_at: Sequence[datetime],
    claimed: Container[UUID] = (),
    *,
    origins: Mapping[UUID, CallOrigin] = MappingProxyType({}),
) -> dict[str, Any]:
    caused = [origins.get(cause.event_id, NOWHERE) for cause in causes]
    return {
        "c_http_request_id": [one.http_request_id for one in caused],
        "c_traceparent": [one.traceparent for one in caused],
        "n_id": listed(str(pair.id) for pair in pairs),
        "n_cause": array(pair.cause for pair in pairs),
        "n_member": array(pair.member for pair in pairs),
        "n_run_at": array(run_at),
        "n_attempts": array(int(pair.id in claimed) for pair in pairs),
        "c_event_id": array(cause.event_id for cause in causes),
        "c_tenant_id": array(cause.tenant_id for cause in causes),
        "c_request_id": array(cause.request_id for cause in causes),
        "t_person_id": array(one.recipient.person_id for one in due),
        "t_address_id": array(one.recipient.address_id for one in due),
        "t_observer_id": array(one.recipient.observer_id for one in due),
        "t_endpoint_id": array(one.recipient.endpoint_id for one in due),
        "t_template": array(one.recipient.template for one in due),
        "t_until_at": array(one.until_at for one in due),
    }
