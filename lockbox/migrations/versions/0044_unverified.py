"""An API, which has the key, checks the marks of all rows that give power, and says how many do not hold."""

from alembic import op

revision = "0044"
down_revision = "0043"

COLUMNS = """
ALTER TABLE heartbeats
    ADD COLUMN unverified integer CONSTRAINT ck_heartbeats_unverified CHECK (unverified >= 0),
    ADD COLUMN unverified_first varchar(300);
"""

# What is revoked or over gives no power.
MARKED = """
CREATE FUNCTION people_to_check(after uuid, page integer) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT id FROM people WHERE id > after ORDER BY id LIMIT page
$$;
CREATE FUNCTION people_with_new_powers(lately interval, most integer) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    (SELECT person_id FROM memberships WHERE id >= (SELECT uuidv7(-lately)) ORDER BY id DESC LIMIT most)
    UNION (SELECT person_id FROM passkeys WHERE id >= (SELECT uuidv7(-lately)) ORDER BY id DESC LIMIT most)
    UNION (SELECT person_id FROM sessions WHERE id >= (SELECT uuidv7(-lately)) ORDER BY id DESC LIMIT most)
    UNION (SELECT person_id FROM tokens WHERE id >= (SELECT uuidv7(-lately)) ORDER BY id DESC LIMIT most)
$$;
CREATE FUNCTION marked_memberships(people uuid[]) RETURNS SETOF memberships
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT m.* FROM memberships m WHERE m.person_id = ANY (people)
$$;
CREATE FUNCTION marked_passkeys(people uuid[]) RETURNS SETOF passkeys
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT k.* FROM passkeys k WHERE k.person_id = ANY (people)
$$;
CREATE FUNCTION marked_identities(people uuid[]) RETURNS SETOF identities
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT i.* FROM identities i WHERE i.person_id = ANY (people)
$$;
CREATE FUNCTION marked_sessions(people uuid[]) RETURNS SETOF sessions
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.* FROM sessions s
    WHERE s.person_id = ANY (people) AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
$$;
CREATE FUNCTION marked_tokens(people uuid[]) RETURNS SETOF tokens
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.* FROM tokens t
    WHERE t.person_id = ANY (people) AND t.revoked_at IS NULL AND t.expires_at > clock_timestamp()
$$;
"""

REPORT = """
CREATE FUNCTION report_unverified(of_process uuid, number integer, first text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE heartbeats SET unverified = number, unverified_first = left(first, 300)
    WHERE role = 'api' AND id = of_process
$$;
CREATE FUNCTION operating_unverified() RETURNS TABLE (role text, node text, unverified integer, first text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT h.role, h.node, h.unverified, h.unverified_first FROM heartbeats h
    WHERE h.unverified IS NOT NULL AND h.beat_at > clock_timestamp() - interval '1 minute'
    ORDER BY h.unverified DESC, h.node LIMIT 200
$$;
REVOKE ALL ON FUNCTION people_to_check, people_with_new_powers, marked_memberships, marked_passkeys,
    marked_identities, marked_sessions, marked_tokens, report_unverified, operating_unverified FROM PUBLIC;
GRANT EXECUTE ON FUNCTION people_to_check, people_with_new_powers, marked_memberships, marked_passkeys,
    marked_identities, marked_sessions, marked_tokens, report_unverified, operating_unverified TO lockbox_api;
"""


def upgrade() -> None:
    """Add two columns, and the functions by which an API reads what is marked and says what does not hold."""
    for part in (COLUMNS, MARKED, REPORT):
        op.execute(part)
