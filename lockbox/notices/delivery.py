"""Delivering notices: claim a few, say what each has to say, send, and record how it went."""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from cryptography.fernet import InvalidToken
from sqlalchemy import Row, text
from sqlmodel import Session

from lockbox import database
from lockbox.database import Database, now
from lockbox.notices import attempts, calls, correspondence, earlier, endpoints, letters, memos
from lockbox.notices.attempts import Attempt
from lockbox.notices.audience import PROMPTS, REMINDERS
from lockbox.notices.calls import Target
from lockbox.notices.letters import Earlier, Letter, Wording
from lockbox.notices.models import Channel, Outcome
from lockbox.notices.outbox import KIND
from lockbox.notices.senders.protocol import NOTHING, Hook, HookSender, MailSender, Reply, SendFailed
from lockbox.notices.vault import Vault
from lockbox.people.roles import Mode
from lockbox.schedule import NOTICES, Promise

log = structlog.get_logger(__name__)

LEASE = NOTICES.lease
LONGEST_LEASE = timedelta(hours=1)
FIRST_BACK_OFF = timedelta(seconds=2)
LONGEST_BACK_OFF = timedelta(minutes=15)
LEAST_BACK_OFF = timedelta(seconds=1)
LEAST_JITTER = 0.75
LONGEST_ERROR = 200
BATCH_SECONDS = 30.0

Item = tuple[Row[Any], Letter | None]
Targets = Mapping[UUID, Target]

CHANCE = random.SystemRandom()

DUE = text("""
SELECT id FROM notices WHERE closed_at IS NULL AND run_at <= clock_timestamp() - CAST(:grace AS interval)
ORDER BY run_at LIMIT :most
""")
LOCK = text("""
SELECT id, run_at, closed_at, attempts FROM notices WHERE id = ANY(:ids) ORDER BY id FOR UPDATE SKIP LOCKED
""")
KNOWN = text("SELECT id FROM notices WHERE id = ANY(:ids)")
CLAIM = text("""
UPDATE notices n SET attempts = n.attempts + 1, run_at = c.run_at
FROM unnest(CAST(:ids AS uuid[]), CAST(:run_at AS timestamptz[])) AS c (id, run_at) WHERE n.id = c.id
""")
READ = text("""
SELECT n.id, n.channel, n.template, n.until_at, n.attempts, e.at, e.deadline_at, e.action, e.to_state, e.actor_id,
    e.actor_role, r.mode, coalesce(p.time_zone, 'UTC') AS time_zone,
    r.id AS request_id, r.state, r.service, r.resources, r.actions, r.reason_code, r.justification, r.case_ref,
    r.access_window, r.requester_id, t.slug AS tenant, t.id AS tenant_id, q.name AS requester,
    p.id AS recipient_id, p.name AS recipient_name, p.email AS recipient_address,
    p.disabled_at IS NOT NULL OR (p.id IS NOT NULL AND NOT EXISTS (SELECT FROM memberships m
        WHERE m.person_id = p.id AND (m.tenant_id IS NULL OR m.tenant_id = n.tenant_id))) AS recipient_disabled,
    h.url, h.secret, h.disabled_at AS endpoint_disabled,
    EXISTS (SELECT FROM decisions d WHERE d.request_id = r.id AND d.person_id = p.id) AS has_decided,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'name') AS actor_name,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'comment') AS comment,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'address' AND a.side = p.side)
        AS address,
    (SELECT d.value FROM event_details d WHERE d.event_id = e.id AND d.field = 'user_agent' AND a.side = p.side)
        AS user_agent
FROM notices n
JOIN events e ON e.id = n.event_id JOIN requests r ON r.id = n.request_id JOIN tenants t ON t.id = n.tenant_id
JOIN people q ON q.id = r.requester_id
LEFT JOIN people p ON p.id = n.person_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
LEFT JOIN people a ON a.id = e.actor_id
WHERE n.id = ANY(:ids) ORDER BY n.id
""")
RECORD = text("""
UPDATE notices n SET outcome = s.outcome, closed_at = s.closed_at, run_at = s.run_at, last_error = s.last_error
FROM unnest(CAST(:id AS uuid[]), CAST(:outcome AS text[]), CAST(:closed_at AS timestamptz[]),
    CAST(:run_at AS timestamptz[]), CAST(:last_error AS text[])) AS s (id, outcome, closed_at, run_at, last_error)
WHERE n.id = s.id AND n.closed_at IS NULL
""")


@dataclass(frozen=True)
class Senders:
    """The ways out, and what every text needs to know; `sender` is the From header of mails.

    `wordings` looks up, for requests by id, what the customers' policies let a mail about them say.
    """

    mail: MailSender
    hooks: HookSender
    vault: Vault
    public_url: str
    services: Mapping[str, str]
    wordings: Callable[[Session, Sequence[UUID]], Mapping[UUID, Wording]]
    sender: str


@dataclass(frozen=True)
class Try:
    """How one try ended; without an outcome it is tried again at `run_at`. No attempt: nothing left the house."""

    notice_id: UUID
    outcome: Outcome | None
    run_at: datetime
    error: str | None = None
    attempt: Attempt | None = None


def due(session: Session, *, grace: timedelta, most: int) -> list[UUID]:
    """Return the open notices whose next try is overdue by that much, the oldest first."""
    return list(session.connection().execute(DUE, {"grace": grace, "most": most}).scalars())


def deliver(database_: Database, ids: Iterable[UUID], senders: Senders) -> list[Try]:
    """Send those of the notices that are due, and settle the schedule for all of them.

    A claim is a commit of its own that moves the next try past a lease; so nobody else sends meanwhile, and a
    process that dies leaves the notice to the next one. Nothing is locked while sending. At least once: the same
    Message-ID or webhook-id each time.

    Returns:
        One Try for each notice that was claimed.
    """
    with database_.transaction() as session:
        claimed = _claim(session, sorted(set(ids)))
        at = now(session)
        items = list(_items(session, claimed, at, senders)) if claimed else []
        targets = calls.targets(session, claimed) if claimed else {}
    tries = list(_attempts(database_, items, targets, at, senders))
    senders.mail.close()
    if tries:
        with database_.transaction() as session:
            _record(session, tries)
    return tries


def _items(session: Session, claimed: Sequence[UUID], at: datetime, senders: Senders) -> Iterator[Item]:
    """Read the notices: each with its letter where it is about a request, and without one where it is a memo."""
    rows = session.connection().execute(READ, {"ids": claimed}).all()
    wordings = senders.wordings(session, [row.request_id for row in rows])
    prompts = [row.id for row in rows if row.template in PROMPTS and row.channel == Channel.MAIL]
    before = earlier.read(session, prompts)
    yield from ((row, _letter(row, at, wordings[row.request_id], before.get(row.id, ()))) for row in rows)
    if len(rows) < len(claimed):
        yield from ((row, None) for row in correspondence.read(session, claimed))


def _attempts(
    database_: Database, items: Sequence[Item], targets: Targets, at: datetime, senders: Senders
) -> Iterator[Try]:
    """Try one after the other, and leave the rest to the end of their lease once the time for a batch is used up."""
    started = time.monotonic()
    for item in items:
        began = time.monotonic() - started
        if began < BATCH_SECONDS:
            one = _attempt(database_, item, targets.get(item[0].id), at, senders)
            took = timedelta(seconds=time.monotonic() - started - began)
            logged = one.attempt and replace(one.attempt, at=at + timedelta(seconds=began), took=took)
            yield replace(one, attempt=logged)


def _claim(session: Session, ids: Sequence[UUID]) -> list[UUID]:
    rows = session.connection().execute(LOCK, {"ids": list(ids)}).all()
    at = now(session)
    ready = [row for row in rows if row.closed_at is None and row.run_at <= at]
    if ready:
        leases = [at + min(LEASE * 2 ** min(row.attempts, 10), LONGEST_LEASE) for row in ready]
        session.connection().execute(CLAIM, {"ids": [row.id for row in ready], "run_at": leases})
    taken = {row.id for row in ready}
    settled = [
        Promise(str(row.id), KIND, None if row.closed_at else row.run_at - at) for row in rows if row.id not in taken
    ]
    if missing := set(ids) - {row.id for row in rows}:
        busy = set(session.connection().execute(KNOWN, {"ids": list(missing)}).scalars())
        settled += [Promise(str(one), KIND, LEASE if one in busy else None) for one in sorted(missing)]
    database.promise(session, NOTICES, settled)
    return [row.id for row in ready]


def _attempt(database_: Database, item: Item, target: Target | None, at: datetime, senders: Senders) -> Try:
    row, letter = item
    if row.recipient_disabled or row.endpoint_disabled or _is_moot(row):
        return Try(row.id, Outcome.MOOT, at)
    if at >= row.until_at:
        return Try(row.id, Outcome.DEAD, at, "not delivered before it stopped mattering")
    blank = Attempt(
        row.id,
        target.endpoint_id if target else None,
        calls.event_type(row.template, letter.event_type if letter else None),
        at,
        timedelta(0),
    )
    try:
        if letter is None:
            reply = _send_memo(database_, row, target, at, senders)
        else:
            reply = _send(row, letter, target, senders)
    except SendFailed as failure:
        return _failed(row, at, failure, blank)
    except Exception as error:
        log.exception("notice.failed", notice_id=str(row.id))
        return _failed(row, at, SendFailed(type(error).__name__), blank)
    return Try(row.id, Outcome.SENT, at, attempt=replace(blank, status=reply.status, answer=reply.text))


def _is_moot(row: Row[Any]) -> bool:
    if row.request_id is None:
        return bool(row.is_settled)
    if row.template in REMINDERS and row.has_decided:
        return True
    return row.template in PROMPTS and row.state != PROMPTS[row.template]


def _send(row: Row[Any], letter: Letter, target: Target | None, senders: Senders) -> Reply:
    if target is None:
        written = letters.mail(
            letter, public_url=senders.public_url, services=senders.services, sender=senders.sender
        )
        senders.mail.send(written)
        return NOTHING
    body = calls.of_letter(letter, target, public_url=senders.public_url, services=senders.services)
    return _call(row, target, body, senders)


def _send_memo(database_: Database, row: Row[Any], target: Target | None, at: datetime, senders: Senders) -> Reply:
    memo = correspondence.prepared(database_, row, at, senders.vault)
    if target is None:
        senders.mail.send(memos.mail(memo, public_url=senders.public_url, sender=senders.sender))
        return NOTHING
    return _call(row, target, calls.of_memo(memo, target, public_url=senders.public_url), senders)


def _call(row: Row[Any], target: Target, body: bytes, senders: Senders) -> Reply:
    try:
        secrets = endpoints.signers(senders.vault, target.secret, target.old_secret)
    except InvalidToken:
        raise SendFailed("no key opens the endpoint's secret", kind="secret") from None
    return senders.hooks.send(Hook(hook_id=str(row.id), url=target.url, body=body, secrets=secrets))


def _letter(row: Row[Any], at: datetime, wording: Wording, before: Sequence[Earlier]) -> Letter:
    return Letter(
        notice_id=row.id,
        template=row.template,
        now=at,
        at=row.at,
        deadline_at=row.deadline_at,
        action=row.action,
        to_state=row.to_state,
        actor_id=row.actor_id,
        actor_name=row.actor_name,
        actor_role=row.actor_role,
        comment=row.comment,
        event_type=f"request.{row.to_state}",
        request_id=row.request_id,
        tenant=row.tenant,
        tenant_id=row.tenant_id,
        mode=Mode(row.mode),
        requester=row.requester,
        requester_id=row.requester_id,
        service=row.service,
        resources=row.resources,
        actions=row.actions,
        reason_code=row.reason_code,
        justification=row.justification,
        case_ref=row.case_ref,
        access_window=row.access_window,
        recipient_id=row.recipient_id,
        recipient_name=row.recipient_name or "",
        recipient_address=row.recipient_address or "",
        wording=wording,
        time_zone=row.time_zone,
        address=row.address,
        user_agent=row.user_agent,
        earlier=before,
    )


def _failed(row: Row[Any], at: datetime, failure: SendFailed, attempt: Attempt) -> Try:
    log.warning(
        "notice.not_sent", notice_id=str(row.id), channel=row.channel, attempts=row.attempts, error=failure.reason
    )
    again = None if failure.permanent else _again(row.attempts, at, row.until_at, failure.wait)
    logged = replace(
        attempt,
        status=failure.reply.status,
        answer=failure.reply.text,
        error=failure.kind,
        is_gone=failure.gone,
    )
    outcome = Outcome.DEAD if again is None else None
    return Try(row.id, outcome, again or at, failure.reason[:LONGEST_ERROR], logged)


def _again(attempts_: int, at: datetime, until: datetime, wait: timedelta | None) -> datetime | None:
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


def _record(session: Session, tries: Sequence[Try]) -> None:
    at = now(session)
    session.connection().execute(
        RECORD,
        {
            "id": [one.notice_id for one in tries],
            "outcome": [one.outcome and one.outcome.value for one in tries],
            "closed_at": [at if one.outcome else None for one in tries],
            "run_at": [one.run_at for one in tries],
            "last_error": [one.error for one in tries],
        },
    )
    attempts.write(session, [one.attempt for one in tries if one.attempt], at)
    settled = [Promise(str(one.notice_id), KIND, None if one.outcome else one.run_at) for one in tries]
    database.promise(session, NOTICES, settled)
