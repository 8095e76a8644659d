"""Erasing a person: what names them goes, what they did stays, and every proof holds; as the database's owner."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import text
from sqlmodel import Session

from lockbox.audit.canonical import Value
from lockbox.audit.events import THE_OWNER, Happening
from lockbox.database import now
from lockbox.notices import announcing
from lockbox.people.models import Person
from lockbox.refusals import Conflict, Unknown

PERSON_ERASED = "person_erased"
DOMAIN = "erased.invalid"

ERRAND = text("SELECT set_config('lockbox.errand', 'erase', true)")
OPEN_REQUESTS = text("SELECT count(*) FROM requests WHERE requester_id = :id AND wake_at IS NOT NULL")
PLACES = text("SELECT DISTINCT tenant_id FROM memberships WHERE person_id = :id")
ADDRESSES = text("""
SELECT lower(email) FROM people WHERE id = :id UNION SELECT lower(email) FROM addresses WHERE person_id = :id
""")

# Of what they did: their name, and where they were. Of what was done to them, or refused them: how they were named.
# Of what deputies did for them: their name, by its place among those for whom the deputy stood in.
DETAILS = text("""
WITH said AS MATERIALIZED (
    SELECT d.event_id, d.field, d.value, e.actor_id, nullif(convert_from(e.body, 'UTF8'), '')::jsonb AS body
    FROM event_details d JOIN events e ON e.id = d.event_id
    WHERE d.field IN ('name', 'address', 'user_agent', 'member', 'mailbox', 'watcher', 'account', 'from_address',
        'wanted') OR starts_with(d.field, 'principal_')
)
DELETE FROM event_details d USING said s
WHERE d.event_id = s.event_id AND d.field = s.field AND CASE
    WHEN s.field IN ('address', 'user_agent') THEN s.actor_id = :id
    WHEN s.field = 'name' THEN s.actor_id = :id OR s.body ->> 'person_id' = CAST(:id AS text)
    WHEN starts_with(s.field, 'principal_')
        THEN s.body -> 'stands_for' ->> (substr(s.field, 11)::integer - 1) = CAST(:id AS text)
    ELSE s.body ->> 'person_id' = CAST(:id AS text) OR (s.actor_id = :id AND s.field = 'mailbox')
        OR EXISTS (SELECT FROM unnest(CAST(:addresses AS text[])) AS a (address)
            WHERE position(a.address IN lower(s.value)) > 0)
        OR (s.field = 'wanted' AND position(:called IN lower(s.value)) > 0)
    END
""")
ROWS = tuple(
    text(statement)
    for statement in (
        "UPDATE decisions SET address = NULL, user_agent = NULL WHERE person_id = :id",
        "DELETE FROM sessions WHERE person_id = :id",
        "DELETE FROM identities WHERE person_id = :id",
        "DELETE FROM passkeys WHERE person_id = :id",
        "DELETE FROM idempotency_keys WHERE person_id = :id",
        "DELETE FROM sign_ins WHERE lower(email) = ANY(:addresses)",
        "DELETE FROM refused WHERE person_id = :id OR lower(personal ->> 'account') = ANY(:addresses)",
        "UPDATE tokens SET name = 'erased', revoked_at = coalesce(revoked_at, :at) WHERE person_id = :id",
        """
        UPDATE notices SET closed_at = :at, outcome = 'moot'
        WHERE closed_at IS NULL AND (person_id = :id OR watcher_id IN
            (SELECT w.id FROM watchers w WHERE lower(w.email) = ANY(:addresses)))
        """,
        """
        UPDATE delegations SET ended_at = :at
        WHERE ended_at IS NULL AND ends_at > :at AND (deputy_id = :id OR principal_id = :id)
        """,
        """
        UPDATE invitations SET name = :name, email = :email, withdrawn_at = CASE WHEN accepted_at IS NULL
            THEN coalesce(withdrawn_at, :at) END
        WHERE accepted_by = :id OR lower(email) = ANY(:addresses)
        """,
        """
        UPDATE watchers SET name = :name, email = :email, removed_at = coalesce(removed_at, :at)
        WHERE lower(email) = ANY(:addresses)
        """,
        """
        UPDATE addresses SET email = :email, code_hash = NULL, removed_at = coalesce(removed_at, :at)
        WHERE person_id = :id
        """,
        """
        UPDATE people SET name = :name, email = :email, disabled_at = coalesce(disabled_at, :at) WHERE id = :id
        """,
    )
)


@dataclass(frozen=True)
class Erased:
    """What was done: the name that stands for the person from now on, and how many details went."""

    pseudonym: str
    details: int


def erase(session: Session, person_id: UUID) -> Erased:
    """Take out of everything who somebody was, and shut them out; their id, side and roles remain.

    Events are left as they are: the salted details are deleted without which nobody can tell what a commitment in
    them stands for. What people wrote themselves (reasons and comments) and the resources of requests are not theirs
    alone and stay.

    Raises:
        Unknown: there is no such person, or they were erased before.
        Conflict: something they asked for is still open.
    """
    person = session.get(Person, person_id, with_for_update=True)
    if person is None or person.email.endswith(f"@{DOMAIN}"):
        raise Unknown("There is no such person, or they were erased already.")
    connection, at = session.connection(), now(session)
    if connection.execute(OPEN_REQUESTS, {"id": person_id}).scalar_one():
        raise Conflict("Something that they asked for is still open: let an operator disable them first.")
    connection.execute(ERRAND)
    places = list(connection.execute(PLACES, {"id": person_id}).scalars()) or [None]
    addresses = list(connection.execute(ADDRESSES, {"id": person_id}).scalars())
    pseudonym = f"person {person_id.hex[-8:]}"
    named = {"id": person_id, "addresses": addresses, "called": person.name.lower()}
    gone = connection.execute(DETAILS, named).rowcount
    values = {
        "id": person_id,
        "at": at,
        "addresses": addresses,
        "name": pseudonym,
        "email": f"{person_id}@{DOMAIN}",
    }
    session.expunge(person)
    for statement in ROWS:
        connection.execute(statement, values)
    facts: dict[str, Value] = {"person_id": person_id, "pseudonym": pseudonym}
    announcing.record(
        session,
        *(Happening(at=at, action=PERSON_ERASED, actor=THE_OWNER, tenant_id=one, facts=facts) for one in places),
    )
    return Erased(pseudonym, gone)
