"""Erase a person's identifying data and remove old events, as the database's owner; proofs stay valid."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, text

from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_OWNER, VENDORS_LOG, AuditEvent
from lockbox.audit.log import merkle
from lockbox.audit.log.merkle import Place
from lockbox.audit.verifier.event_checks import AUDIT_EVENTS_REMOVED
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, NotFound
from lockbox.failpoints import failpoint
from lockbox.identity.models import Person
from lockbox.notifications import announcements, settlement

RETENTION = text("SELECT set_config('lockbox.owner_command', 'retain', true)")
LOGS = text("SELECT id, tenant_id, size, kept_from, cleared_to FROM logs WHERE size > cleared_to ORDER BY id")
FIRST_TO_STAY = text("""
SELECT s.number FROM seals s JOIN events e ON e.id = s.event_id LEFT JOIN requests r ON r.id = e.request_id
WHERE s.log_id = :log_id AND s.number >= :start AND s.number < :end
    AND (e.at >= :since OR (r.id IS NOT NULL AND (r.closed_at IS NULL OR r.closed_at >= :since)))
ORDER BY s.number LIMIT 1
""")
TILES = text("""
SELECT t.level, t.number, t.hashes FROM tiles t
JOIN unnest(CAST(:level AS smallint[]), CAST(:number AS bigint[])) AS w (level, number) USING (level, number)
WHERE t.log_id = :log_id
""")
GONE = """
WITH gone AS (SELECT event_id FROM seals WHERE log_id = :log_id AND number >= :start AND number < :end)
"""
REMOVE = tuple(
    text(GONE + statement)
    for statement in (
        """
        DELETE FROM deliveries d USING notifications n JOIN gone g ON g.event_id = n.event_id WHERE d.notification_id
        = n.id
        """,
        "DELETE FROM notifications n USING gone g WHERE n.event_id = g.event_id",
        "DELETE FROM outbox o USING gone g WHERE o.event_id = g.event_id",
        "DELETE FROM unsettled u USING gone g WHERE u.event_id = g.event_id",
        "DELETE FROM event_details d USING gone g WHERE d.event_id = g.event_id",
        "DELETE FROM events e USING gone g WHERE e.id = g.event_id",
    )
)
# The sealer locks a log in the same way while it grows.
KEPT = text("""
UPDATE logs SET kept_from = :end, kept_since = :since WHERE id = :log_id AND kept_from < :end RETURNING true
""")
CLEARED = text("""
UPDATE logs SET cleared_to = :end WHERE id = :log_id AND cleared_to = :start AND kept_from >= :end RETURNING true
""")
IS_OVERDUE = text("""
SELECT EXISTS (SELECT FROM requests WHERE wake_at <= clock_timestamp() - interval '1 second')
""")
A_LOOK, A_STEP = 10_000, 1_000
"""How many events one transaction looks through for the first that stays, and how many one removes."""
YIELDED = 1.0
"""For how many seconds retention waits before a step while deadlines are overdue."""
Transactions = Callable[[], AbstractContextManager[UnitOfWork]]
PERSON_ERASED = "person_erased"
DOMAIN = "erased.invalid"
# Postgres regular expressions: the whole address but no longer one around it, and whole words.
ADDRESS = "(?<![[:alnum:]._%+-]){}(?![[:alnum:]_-]|[.][[:alnum:]])"
WORDS = "(?<![[:alnum:]]){}(?![[:alnum:]])"
# Who was notified is said after the fact, and named: no such event may be written beside an erasure.
HOLD_NAMES = text(f"SELECT pg_advisory_xact_lock({settlement.NAMES})")
PURPOSE = text("SELECT set_config('lockbox.owner_command', 'erase', true)")
OPEN_REQUESTS = text("""
SELECT count(*) FROM requests WHERE requester_id = :id AND state IN ('reviewing', 'pending', 'active')
""")
# An unconfirmed address may be anyone's, and one that someone else uses too stays theirs.
ADDRESSES = text("""
SELECT lower(email) FROM people WHERE id = :id
UNION SELECT lower(a.email) FROM addresses a WHERE a.person_id = :id AND a.confirmed_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM people p WHERE lower(p.email) = lower(a.email) AND p.id <> :id)
    AND NOT EXISTS (SELECT FROM addresses b WHERE lower(b.email) = lower(a.email) AND b.person_id <> :id
        AND b.confirmed_at IS NOT NULL)
""")
CALLED = text("SELECT lower(name) FROM people WHERE id = :id")
PLACES = text("SELECT DISTINCT tenant_id FROM memberships WHERE person_id = :id")
# In their own events: their name and address. In events about them: how they were named.
# In delegates' events: their name, by its position among the principals. The origin of a refused sign-in goes
# with the account that it was for.
DETAILS = text("""
WITH said AS MATERIALIZED (
    SELECT d.event_id, f.field, e.log_id, e.actor_id, nullif(convert_from(e.body, 'UTF8'), '')::jsonb AS body,
        lower(coalesce(CASE WHEN f.field = 'from_address' THEN d.fields #>> '{account,1}' END, f.said ->> 1)) AS value
    FROM event_details d JOIN events e ON e.id = d.event_id CROSS JOIN jsonb_each(d.fields) AS f (field, said)
    WHERE f.field IN ('name', 'address', 'user_agent', 'member', 'mailbox', 'observer', 'account', 'from_address',
        'wanted', 'principal', 'delegate', 'engineer', 'credential', 'subject') OR starts_with(f.field, 'principal_')
        OR starts_with(f.field, 'recipient_') OR starts_with(f.field, 'engineer_')
        OR (f.field = 'comment' AND e.action IN ('question', 'answer'))
), theirs AS (
    SELECT s.event_id, s.log_id, array_agg(s.field) AS fields FROM said s
    WHERE CASE
        WHEN s.field IN ('address', 'user_agent', 'comment', 'credential') THEN s.actor_id = :id
        WHEN s.field = 'name'
            THEN s.actor_id = :id OR (s.actor_id IS NULL AND s.body ->> 'person_id' = CAST(:id AS text))
        WHEN s.field = 'engineer' THEN s.body -> 'submission' ->> 'engineer' = CAST(:id AS text)
        WHEN s.field IN ('principal', 'delegate') THEN s.body ->> (s.field || '_id') = CAST(:id AS text)
        WHEN starts_with(s.field, 'principal_')
            THEN s.body -> 'principals' ->> (substr(s.field, 11)::integer - 1) = CAST(:id AS text)
        WHEN starts_with(s.field, 'engineer_')
            THEN s.body -> 'engineers' ->> (substr(s.field, 10)::integer - 1) = CAST(:id AS text)
        WHEN starts_with(s.field, 'recipient_') THEN s.body -> 'mails' -> substr(s.field, 11) ->> 0
            = CAST(:id AS text) OR substring(s.value FROM '<([^<>]*)>$') = ANY(:addresses)
        WHEN s.field = 'wanted' THEN s.value ~ ANY(:mentions)
        WHEN s.field IN ('member', 'observer') THEN s.body ->> 'person_id' = CAST(:id AS text)
            OR substring(s.value FROM '<([^<>]*)>$') = ANY(:addresses)
        ELSE s.body ->> 'person_id' = CAST(:id AS text) OR (s.actor_id = :id AND s.field = 'mailbox')
            OR s.value = ANY(:addresses)
        END
    GROUP BY s.event_id, s.log_id
), gone AS (
    UPDATE event_details d SET fields = d.fields - t.fields FROM theirs t WHERE d.event_id = t.event_id
    RETURNING t.log_id, cardinality(t.fields) AS number
)
SELECT nullif(log_id, :vendor) AS tenant_id, sum(number) AS details FROM gone GROUP BY log_id
""")
# Mails to them: the server's answer may hold anything. Other people's answers may contain their address.
TO_THEM = """
WITH to_them AS (
    SELECT n.id FROM notifications n
    WHERE n.person_id = :id OR n.observer_id IN (SELECT w.id FROM observers w WHERE lower(w.email) = ANY(:addresses))
        OR n.about_id IN (SELECT i.id FROM invitations i WHERE i.accepted_by = :id OR lower(i.email) = ANY(:addresses)
            UNION ALL SELECT s.id FROM sign_ins s WHERE lower(s.email) = ANY(:addresses)
            UNION ALL SELECT a.id FROM addresses a WHERE a.person_id = :id
            UNION ALL SELECT g.id FROM delegations g WHERE g.delegate_id = :id)
)
"""
MAILS = tuple(
    TO_THEM + statement
    for statement in (
        """
        UPDATE deliveries SET answer = '' WHERE answer <> ''
            AND (notification_id IN (SELECT id FROM to_them) OR lower(answer) ~ ANY(:addressed))
        """,
        """
        UPDATE notifications SET last_error = NULL WHERE last_error IS NOT NULL
            AND (id IN (SELECT id FROM to_them) OR lower(last_error) ~ ANY(:addressed))
        """,
        """
        UPDATE notifications SET closed_at = :at, outcome = 'moot'
        WHERE closed_at IS NULL AND id IN (SELECT id FROM to_them)
        """,
    )
)
ROWS = tuple(
    text(statement)
    for statement in (
        *MAILS,
        "UPDATE decisions SET address = NULL, user_agent = NULL WHERE person_id = :id",
        "DELETE FROM sessions WHERE person_id = :id",
        "DELETE FROM device_logins WHERE answered_by = :id",
        "DELETE FROM identities WHERE person_id = :id",
        "DELETE FROM gate_identities WHERE person_id = :id",
        "DELETE FROM passkeys WHERE person_id = :id",
        "DELETE FROM idempotency_keys WHERE person_id = :id OR position(CAST(:id AS text) IN answer::text) > 0",
        "DELETE FROM sign_ins WHERE lower(email) = ANY(:addresses)",
        """
        UPDATE refused SET personal = '{}' WHERE person_id = :id OR lower(personal ->> 'account') = ANY(:addresses)
        """,
        "UPDATE tokens SET name = 'erased', revoked_at = coalesce(revoked_at, :at) WHERE person_id = :id",
        """
        UPDATE delegations SET ended_at = :at
        WHERE ended_at IS NULL AND ends_at > :at AND (delegate_id = :id OR principal_id = :id)
        """,
        """
        UPDATE invitations SET name = :name, email = :email, withdrawn_at = CASE WHEN accepted_at IS NULL
            THEN coalesce(withdrawn_at, :at) END
        WHERE accepted_by = :id OR lower(email) = ANY(:addresses)
        """,
        """
        UPDATE observers SET name = :name, email = :email, removed_at = coalesce(removed_at, :at)
        WHERE lower(email) = ANY(:addresses)
        """,
        """
        UPDATE addresses SET email = :email, code_nonce = NULL, removed_at = coalesce(removed_at, :at)
        WHERE person_id = :id
        """,
        """
        UPDATE people SET name = :name, email = :email, time_zone = 'UTC', disabled_at = coalesce(disabled_at, :at)
        WHERE id = :id
        """,
    )
)


@dataclass(frozen=True)
class RemovedRange:
    """A log's removed events, from `start` to before `end`."""

    log_id: UUID
    start: int
    end: int


def retain(transactions: Transactions, keep: timedelta) -> Iterator[RemovedRange]:
    """Remove the sealed events older than that, in each log from its beginning without a gap; yield what is gone.

    The range ends at the first event that is younger, or whose request was still open then. Seals, tiles and
    checkpoints stay, so that proofs of the rest stay valid. An event records the whole removed range each time, and
    its root, before the first of it is removed.

    A transaction removes a thousand events and no more; while deadlines are overdue, each waits for a second. What
    was interrupted goes on when it is called again.
    """
    with transactions() as session:
        since, logs = now(session) - keep, session.execute(LOGS).all()
    for log in logs:
        end = _first_to_stay(transactions, log, since)
        with transactions() as session:
            kept = {"log_id": log.id, "end": end, "since": since}
            if end > log.kept_from and session.execute(KEPT, kept).scalar():
                announcements.record(session, _audit_event(session, log.id, log.tenant_id, end))
            failpoint("retention.before_record")
        failpoint("retention.after_record")
        if end > log.cleared_to:
            _clear(transactions, log.id, log.cleared_to, end)
            yield RemovedRange(log.id, log.cleared_to, end)


def _first_to_stay(transactions: Transactions, log: Row[Any], since: datetime) -> int:
    """Return the number of the first event that stays: what may go now may also go later, so no lock is needed."""
    for start in range(log.kept_from, log.size, A_LOOK):
        with transactions() as session:
            values = {"log_id": log.id, "start": start, "end": min(log.size, start + A_LOOK), "since": since}
            stays = session.execute(FIRST_TO_STAY, values).scalar()
        if stays is not None:
            return int(stays)
    return int(log.size)


def _clear(transactions: Transactions, log_id: UUID, start: int, end: int) -> None:
    """Remove the events of a range that are recorded as removed, step by step."""
    for at in range(start, end, A_STEP):
        with transactions() as session:
            if session.execute(IS_OVERDUE).scalar_one():
                time.sleep(YIELDED)
        with transactions() as session:
            step = {"log_id": log_id, "start": at, "end": min(end, at + A_STEP)}
            session.execute(RETENTION)
            if not session.execute(CLEARED, step).scalar():
                raise Conflict("Another command is removing events of this log. Let it end, and run this one again.")
            for statement in REMOVE:
                session.execute(statement, step)
                failpoint("retention.mid_step")
        failpoint("retention.after_step")


def _audit_event(session: UnitOfWork, log_id: UUID, tenant_id: UUID | None, end: int) -> AuditEvent:
    return AuditEvent(
        at=now(session),
        action=AUDIT_EVENTS_REMOVED,
        actor=THE_OWNER,
        tenant_id=tenant_id,
        facts={
            "removed_from": 0,
            "removed_to": end,
            "removed_root": base64.b64encode(_root(session, log_id, end)).decode(),
        },
    )


def _root(session: UnitOfWork, log_id: UUID, size: int) -> bytes:
    """Return the root of a log at a size."""
    wanted = sorted({merkle.of_subtree(*place) for place in merkle.complete(0, size)})
    values = {
        "log_id": log_id,
        "level": [level for level, _ in wanted],
        "number": [number for _, number in wanted],
    }
    found: Mapping[Place, bytes] = {
        (row.level, row.number): bytes(row.hashes) for row in session.execute(TILES, values)
    }
    return merkle.range_hash(lambda level, number: merkle.subtree(found, level, number), 0, size)


@dataclass(frozen=True)
class ErasureResult:
    """The result: the name that replaces the person's, and how many details were deleted."""

    pseudonym: str
    details: int


def erase(session: UnitOfWork, person_id: UUID) -> ErasureResult:
    """Erase a person's identifying data everywhere and disable them; their id, side and roles remain.

    Events stay as they are: the salted details are deleted, without which nobody can tell what a commitment stands
    for. Reasons, comments and the resources of requests stay, because they are not theirs alone; their questions and
    answers are deleted. Each tenant of theirs, or whose log has lost details, gets an event.

    Raises:
        NotFound: there is no such person, or they were erased before.
        Conflict: something they asked for is still open.
    """
    person = session.orm.get(Person, person_id, with_for_update=True)
    if person is None or person.email.endswith(f"@{DOMAIN}"):
        raise NotFound("There is no such person, or they were erased already.")
    connection, at = session.connection(), now(session)
    if connection.execute(OPEN_REQUESTS, {"id": person_id}).scalar_one():
        raise Conflict("This person has open requests. Have an operator disable them first.")
    connection.execute(PURPOSE)
    connection.execute(HOLD_NAMES)
    named = _named(connection, person_id)
    gone = connection.execute(DETAILS, named | {"vendor": VENDORS_LOG}).all()
    places = {*connection.execute(PLACES, {"id": person_id}).scalars(), *(row.tenant_id for row in gone)}
    pseudonym = f"person {person_id.hex[-8:]}"
    values = {**named, "at": at, "name": pseudonym, "email": f"{person_id}@{DOMAIN}"}
    session.orm.expunge(person)
    for statement in ROWS:
        connection.execute(statement, {name: values[name] for name in statement.compile().params})
    facts: dict[str, Value] = {"person_id": person_id, "pseudonym": pseudonym}
    announcements.record(
        session,
        *(
            AuditEvent(at=at, action=PERSON_ERASED, actor=THE_OWNER, tenant_id=one, facts=facts)
            for one in sorted(places, key=str) or [None]
        ),
    )
    return ErasureResult(pseudonym, sum(row.details for row in gone))


def _named(connection: Connection, person_id: UUID) -> dict[str, Any]:
    """Return what identifies a person: the id, addresses, and patterns of these and of the name."""
    addresses = list(connection.execute(ADDRESSES, {"id": person_id}).scalars())
    called = connection.execute(CALLED, {"id": person_id}).scalar_one()
    quoted = json.dumps(called, ensure_ascii=False)[1:-1]
    addressed = [ADDRESS.format(re.escape(one)) for one in addresses]
    return {
        "id": person_id,
        "addresses": addresses,
        "addressed": addressed,
        "mentions": [*addressed, *(WORDS.format(re.escape(one)) for one in {called, quoted})],
    }
