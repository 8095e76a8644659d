"""Erasure of a person's identifying data, by the database's owner. Proofs stay valid."""

import json
import re
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

from lockbox.admin import erased_texts, legal_holds
from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_OWNER, VENDORS_LOG, AuditEvent
from lockbox.database import UnitOfWork, now
from lockbox.errors import Conflict, NotFound
from lockbox.facts.ask import Ask
from lockbox.facts.fact import committed
from lockbox.identity.models import Person
from lockbox.notifications import announcements, settlement

PERSON_ERASED = "person_erased"
DOMAIN = "erased.invalid"
# Postgres regular expressions. ADDRESS matches a whole address that is not part of a longer one, and WORDS matches
# whole words.
ADDRESS = "(?<![[:alnum:]._%+-]){}(?![[:alnum:]_-]|[.][[:alnum:]])"
WORDS = "(?<![[:alnum:]]){}(?![[:alnum:]])"
# Events that record who was notified are written later and contain names. None of them may be written during an
# erasure.
HOLD_NAMES = text(f"SELECT pg_advisory_xact_lock({settlement.NAMES})")
PURPOSE = text("SELECT set_config('lockbox.owner_command', 'erase', true)")
OPEN_REQUESTS = text("""
SELECT count(*) FROM requests WHERE requester_id = :id AND state IN ('reviewing', 'pending', 'active')
""")
# Leaves out unconfirmed addresses, which may be anyone's, and addresses that someone else uses too.
ADDRESSES = text("""
SELECT lower(email) FROM people WHERE id = :id
UNION SELECT lower(a.email) FROM addresses a WHERE a.person_id = :id AND a.confirmed_at IS NOT NULL
    AND NOT EXISTS (SELECT FROM people p WHERE lower(p.email) = lower(a.email) AND p.id <> :id)
    AND NOT EXISTS (SELECT FROM addresses b WHERE lower(b.email) = lower(a.email) AND b.person_id <> :id
        AND b.confirmed_at IS NOT NULL)
""")
# Finds requests whose texts contain one of the person's addresses; with `texts`, also all requests that they
# submitted.
NAMING = text(f"""
SELECT r.id, r.tenant_id FROM requests r
WHERE r.closed_at <= CAST(:at AS timestamptz) - CAST(:settled AS interval) AND (
    (:texts AND r.requester_id = :id)
    OR lower(concat_ws(' ', {", ".join(f"r.{name}" for name in committed(Ask))},
        array_to_string(r.resources, ' '), r.context)) ~ ANY(:addressed)
    OR EXISTS (SELECT FROM events e JOIN event_details d ON d.event_id = e.id CROSS JOIN jsonb_each(d.fields) AS f
        WHERE e.request_id = r.id AND NOT (f.key = ANY(:people) OR f.key ~ :numbered)
        AND lower(f.value ->> 1) ~ ANY(:addressed)))
ORDER BY r.id
""")  # noqa: S608 - names of our own
OWN_WORDS = text("""
UPDATE decisions d SET comment = CASE WHEN d.comment IS NOT NULL THEN 'erased' END,
    signed_content = CASE WHEN d.signed_content IS NOT NULL THEN '{}' END
FROM requests r WHERE r.id = d.request_id AND d.person_id = :id AND r.closed_at IS NOT NULL
""")
CALLED = text("SELECT lower(name) FROM people WHERE id = :id")
PLACES = text("SELECT DISTINCT tenant_id FROM memberships WHERE person_id = :id")
# In the person's own events: their name and address. In events about them: the name used there. In delegates' events:
# their name, by its position among the principals. Where they worked: in the directory's statements about them and in
# their requests. The origin of a refused sign-in is erased with the account that it was for.
DETAILS = text("""
WITH said AS MATERIALIZED (
    SELECT d.event_id, f.field, e.log_id, e.tenant_id, e.actor_id, e.request_id,
        nullif(convert_from(e.body, 'UTF8'), '')::jsonb AS body,
        lower(coalesce(CASE WHEN f.field = 'from_address' THEN d.fields #>> '{account,1}' END, f.said ->> 1)) AS value
    FROM event_details d JOIN events e ON e.id = d.event_id CROSS JOIN jsonb_each(d.fields) AS f (field, said)
    WHERE f.field IN ('name', 'address', 'user_agent', 'member', 'mailbox', 'observer', 'account', 'from_address',
        'wanted', 'principal', 'delegate', 'engineer', 'credential', 'subject', 'employing_entity', 'office_country',
        'physical_country') OR starts_with(f.field, 'principal_')
        OR starts_with(f.field, 'recipient_') OR starts_with(f.field, 'engineer_')
        OR (f.field = 'comment' AND (e.action IN ('question', 'answer') OR :texts))
        OR (f.field = 'signed_content' AND :texts)
), theirs AS (
    SELECT s.event_id, s.log_id, s.tenant_id, array_agg(s.field) AS fields FROM said s
    WHERE CASE
        WHEN s.field IN ('address', 'user_agent', 'comment', 'credential', 'signed_content') THEN s.actor_id = :id
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
        WHEN s.field IN ('employing_entity', 'office_country', 'physical_country') THEN s.body ->> 'person_id'
            = CAST(:id AS text) OR s.request_id IN (SELECT r.id FROM requests r WHERE r.requester_id = :id)
        WHEN s.field IN ('member', 'observer') THEN s.body ->> 'person_id' = CAST(:id AS text)
            OR substring(s.value FROM '<([^<>]*)>$') = ANY(:addresses)
        ELSE s.body ->> 'person_id' = CAST(:id AS text) OR (s.actor_id = :id AND s.field = 'mailbox')
            OR s.value = ANY(:addresses)
        END
    GROUP BY s.event_id, s.log_id, s.tenant_id
), gone AS (
    UPDATE event_details d SET fields = d.fields - t.fields FROM theirs t WHERE d.event_id = t.event_id
    RETURNING t.log_id, t.tenant_id, cardinality(t.fields) AS number
)
SELECT nullif(log_id, :vendor) AS tenant_id, array_agg(DISTINCT tenant_id) AS about, sum(number) AS details
FROM gone GROUP BY log_id
""")
# In mails to the person, the server's answer may hold anything. In mails to others, it may contain the person's
# address.
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
        """
        UPDATE requests SET employing_entity = NULL, office_country = NULL, physical_country = NULL
        WHERE requester_id = :id AND num_nonnulls(employing_entity, office_country, physical_country) > 0
        """,
        "DELETE FROM directory_records WHERE person_id = :id",
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
class ErasureResult:
    """`pseudonym` replaces the name. `requests` counts the requests whose texts were erased."""

    pseudonym: str
    details: int
    requests: int = 0


def erase(session: UnitOfWork, person_id: UUID, *, texts: bool = False) -> ErasureResult:
    """Erase a person's identifying data everywhere and disable the person; id, side and roles remain.

    The texts of a closed request are erased if one contains an address of the person. `texts` also erases the
    person's comments and the texts of all requests that they submitted.

    Raises:
        Conflict: a request of the person is open, or there is a legal hold on a tenant of the person or of the texts
            to erase.
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
    naming = connection.execute(NAMING, named | erased_texts.FIELDS | {"texts": texts, "at": at}).all()
    details = erased_texts.blank(connection, [row.id for row in naming])
    gone = connection.execute(DETAILS, named | {"vendor": VENDORS_LOG, "texts": texts}).all()
    if texts:
        connection.execute(OWN_WORDS, {"id": person_id})
    places = {*connection.execute(PLACES, {"id": person_id}).scalars(), *(row.tenant_id for row in (*gone, *naming))}
    # A hold on a tenant also keeps what the vendor's own log says of this tenant.
    legal_holds.refuse_held(session, places.union(*(row.about for row in gone)))
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
    return ErasureResult(pseudonym, details + sum(row.details for row in gone), len(naming))


def _named(connection: Connection, person_id: UUID) -> dict[str, Any]:
    addresses = list(connection.execute(ADDRESSES, {"id": person_id}).scalars())
    called = connection.execute(CALLED, {"id": person_id}).scalar_one()
    quoted = json.dumps(called, ensure_ascii=False)[1:-1]
    addressed = [ADDRESS.format(re.escape(address)) for address in addresses]
    return {
        "id": person_id,
        "addresses": addresses,
        "addressed": addressed,
        "mentions": [*addressed, *(WORDS.format(re.escape(one)) for one in {called, quoted})],
    }
