"""Delivering notices: claim a few, say what each has to say, send, and record how it went."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from lockbox.notices import calls, correspondence, endpoints, letters, memos, outcomes, reading
from lockbox.notices.attempts import Attempt
from lockbox.notices.audience import PROMPTS, REMINDERS
from lockbox.notices.calls import Target
from lockbox.notices.letters import Letter
from lockbox.notices.models import Outcome
from lockbox.notices.outbox import KIND
from lockbox.notices.outcomes import Try
from lockbox.notices.reading import Item, Wordings
from lockbox.notices.senders.protocol import NOTHING, Hook, HookSender, MailSender, Reply, SendFailed
from lockbox.notices.vault import Vault
from lockbox.schedule import NOTICES, Promise

log = structlog.get_logger(__name__)

LEASE = NOTICES.lease
LONGEST_LEASE = timedelta(hours=1)
LONGEST_ERROR = 200
BATCH_SECONDS = 30.0

Targets = Mapping[UUID, Target]

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
    wordings: Wordings
    sender: str


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
        items = list(reading.read(session, claimed, at, senders.wordings)) if claimed else []
        targets = calls.targets(session, claimed) if claimed else {}
    tries = list(_attempts(database_, items, targets, at, senders))
    senders.mail.close()
    if tries:
        with database_.transaction() as session:
            outcomes.record(session, tries)
    return tries


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
    memo = correspondence.prepared(database_, row, at, senders.vault, senders.wordings)
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


def _failed(row: Row[Any], at: datetime, failure: SendFailed, attempt: Attempt) -> Try:
    log.warning(
        "notice.not_sent", notice_id=str(row.id), channel=row.channel, attempts=row.attempts, error=failure.reason
    )
    again = None if failure.permanent else outcomes.again(row.attempts, at, row.until_at, failure.wait)
    logged = replace(
        attempt,
        status=failure.reply.status,
        answer=failure.reply.text,
        error=failure.kind,
        is_gone=failure.gone,
    )
    outcome = Outcome.DEAD if again is None else None
    return Try(row.id, outcome, again or at, failure.reason[:LONGEST_ERROR], logged)
