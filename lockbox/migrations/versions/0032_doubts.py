"""An API says with each heartbeat in how many logs the database is behind what was shipped of them, and why."""

from alembic import op

revision = "0032"
down_revision = "0031"

COLUMNS = """
ALTER TABLE heartbeats
    ADD COLUMN behind integer CONSTRAINT ck_heartbeats_behind CHECK (behind >= 0),
    ADD COLUMN doubt varchar(300);
"""

BEAT = """
DROP FUNCTION beat(text, uuid, text, double precision);
CREATE FUNCTION beat(of_role text, of_process uuid, of_node text, with_skew double precision,
    logs_behind integer DEFAULT NULL, why text DEFAULT NULL) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DELETE FROM heartbeats WHERE (role, id) IN (SELECT role, id FROM heartbeats
        WHERE beat_at < clock_timestamp() - interval '1 hour' FOR UPDATE SKIP LOCKED);
    INSERT INTO heartbeats (role, id, node, skew, beat_at, behind, doubt)
    SELECT of_role, of_process, left(of_node, 255), with_skew, clock_timestamp(), logs_behind, left(why, 300)
    WHERE (of_role = 'api') = (session_user = 'lockbox_api')
    ON CONFLICT (role, id) DO UPDATE SET skew = EXCLUDED.skew, beat_at = EXCLUDED.beat_at, behind = EXCLUDED.behind,
        doubt = EXCLUDED.doubt
$$;
REVOKE ALL ON FUNCTION beat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION beat TO lockbox_api, lockbox_worker;
"""

PROCESSES = """
DROP FUNCTION operating_processes();
CREATE FUNCTION operating_processes() RETURNS TABLE (role text, node text, age double precision,
    skew double precision, behind integer, doubt text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT h.role, h.node, greatest(0, extract(epoch FROM clock_timestamp() - h.beat_at)), h.skew, h.behind, h.doubt
    FROM heartbeats h ORDER BY h.role, h.beat_at DESC LIMIT 200
$$;
REVOKE ALL ON FUNCTION operating_processes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION operating_processes TO lockbox_api;
"""


def upgrade() -> None:
    """Add two columns and the functions that write and show them."""
    for part in (COLUMNS, BEAT, PROCESSES):
        op.execute(part)
