"""Whoever looks for what must never be sees who has which power since when, and finds the event that gave it."""

from alembic import op

revision = "0043"
down_revision = "0042"

INDEXES = """
CREATE INDEX ix_events_signing_in ON events (actor_id, at)
    WHERE action IN ('signed_in', 'identity_bound', 'passkey_added');
CREATE INDEX ix_events_seating ON events (at) WHERE action IN ('member_added', 'member_changed');
"""

# Of what somebody signs in with, the watcher sees since when there is one; what proves it, it does not.
POWERS = """
CREATE FUNCTION shown_by(who uuid) RETURNS TABLE (kind text, at timestamptz, was_taken boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT CASE WHEN t.is_sample THEN 'sample' ELSE 'token' END, t.created_at, false
    FROM tokens t WHERE t.person_id = who
    UNION ALL SELECT 'passkey', k.created_at, EXISTS (SELECT FROM ended_powers p WHERE p.mac = k.mac)
    FROM passkeys k WHERE k.person_id = who
    UNION ALL SELECT 'identity', i.created_at, EXISTS (SELECT FROM ended_powers p WHERE p.mac = i.mac)
    FROM identities i WHERE i.person_id = who
$$;
CREATE FUNCTION was_taken(shown bytea) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM ended_powers p WHERE p.mac = shown)
$$;
REVOKE ALL ON FUNCTION shown_by, was_taken FROM PUBLIC;
GRANT EXECUTE ON FUNCTION shown_by, was_taken TO lockbox_worker;
"""


def upgrade() -> None:
    """Add indexes of the events by which people get powers, and functions for the core worker that watches."""
    op.execute(INDEXES)
    op.execute(POWERS)
