"""What whoever runs an installation watches: heartbeats, counts that only grow, alarms, and figures without names."""

from alembic import op

revision = "0024"
down_revision = "0022"

# Rows are added beside what they count and folded now and then: their sums are what counts, and nobody waits.
TABLES = """
CREATE TABLE tallies (
    id uuid CONSTRAINT pk_tallies PRIMARY KEY DEFAULT uuidv7(),
    name varchar(24) NOT NULL CONSTRAINT ck_tallies_name CHECK (name IN ('deadline_lag', 'attempt')),
    label varchar(48) NOT NULL,
    count bigint NOT NULL CONSTRAINT ck_tallies_count CHECK (count >= 0),
    total double precision NOT NULL
);
CREATE TABLE heartbeats (
    id uuid NOT NULL,
    role varchar(24) NOT NULL
        CONSTRAINT ck_heartbeats_role CHECK (role IN ('api', 'core', 'notices', 'reconcile', 'watch')),
    node varchar(255) NOT NULL,
    skew double precision NOT NULL,
    beat_at timestamptz NOT NULL,
    CONSTRAINT pk_heartbeats PRIMARY KEY (role, id)
);
CREATE TABLE alarms (
    key varchar(100) CONSTRAINT pk_alarms PRIMARY KEY,
    raised_at timestamptz NOT NULL
);
"""

SECURITY = """
ALTER TABLE tallies ENABLE ROW LEVEL SECURITY;
ALTER TABLE tallies FORCE ROW LEVEL SECURITY;
ALTER TABLE heartbeats ENABLE ROW LEVEL SECURITY;
ALTER TABLE heartbeats FORCE ROW LEVEL SECURITY;
ALTER TABLE alarms ENABLE ROW LEVEL SECURITY;
ALTER TABLE alarms FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON tallies FOR ALL TO lockbox_worker USING (true);
CREATE POLICY worker ON heartbeats FOR SELECT TO lockbox_worker USING (true);
CREATE POLICY worker ON alarms FOR ALL TO lockbox_worker USING (true);
GRANT SELECT, INSERT, DELETE ON tallies TO lockbox_worker;
GRANT SELECT ON heartbeats TO lockbox_worker;
GRANT SELECT, INSERT, DELETE ON alarms TO lockbox_worker;
GRANT UPDATE (raised_at) ON alarms TO lockbox_worker;
"""

# A process says that it lives, in no other role than its login has. Whoever was silent for an hour is forgotten.
BEAT = """
CREATE FUNCTION beat(of_role text, of_process uuid, of_node text, with_skew double precision) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DELETE FROM heartbeats WHERE (role, id) IN (SELECT role, id FROM heartbeats
        WHERE beat_at < clock_timestamp() - interval '1 hour' FOR UPDATE SKIP LOCKED);
    INSERT INTO heartbeats (role, id, node, skew, beat_at)
    SELECT of_role, of_process, left(of_node, 255), with_skew, clock_timestamp()
    WHERE (of_role = 'api') = (session_user = 'lockbox_api')
    ON CONFLICT (role, id) DO UPDATE SET skew = EXCLUDED.skew, beat_at = EXCLUDED.beat_at
$$;
REVOKE ALL ON FUNCTION beat FROM PUBLIC;
GRANT EXECUTE ON FUNCTION beat TO lockbox_api, lockbox_worker;
"""

MOST = 100_000
# Every count is of an index, and of no more than 100,000 of its rows. The schedule's part for the clock is compared
# from two seconds on to an hour ahead, or less where more is due by then; bounds are in ms since 1970, as in Redis.
FIGURES = f"""
CREATE FUNCTION operating_figures() RETURNS TABLE (name text, label text, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at),
    bounds AS MATERIALIZED (SELECT floor(extract(epoch FROM at) * 1000) + 2000 AS lower FROM clock),
    windows AS MATERIALIZED (SELECT deadline_at FROM requests WHERE state = 'active' LIMIT {MOST}),
    waiting AS MATERIALIZED (SELECT count(*) AS number
        FROM (SELECT FROM requests WHERE wake_at IS NOT NULL LIMIT {MOST}) w),
    pending AS MATERIALIZED (SELECT CASE WHEN number < {MOST} THEN number ELSE greatest(number, (SELECT reltuples
        FROM pg_class WHERE oid = 'public.ix_requests_wake_at'::regclass)::bigint) END AS number FROM waiting),
    soon AS MATERIALIZED (SELECT ceil(extract(epoch FROM wake_at) * 1000) AS due FROM requests
        WHERE wake_at > (SELECT to_timestamp(lower / 1000) FROM bounds)
        AND wake_at <= (SELECT to_timestamp(lower / 1000) + interval '1 hour' FROM bounds)
        ORDER BY wake_at LIMIT {MOST}),
    edge AS MATERIALIZED (SELECT CASE WHEN count(*) < {MOST} THEN (SELECT lower + 3600000 FROM bounds)
        ELSE max(due) - 1 END AS upper FROM soon),
    unsent AS MATERIALIZED (SELECT id, run_at FROM notices WHERE closed_at IS NULL ORDER BY run_at LIMIT {MOST})
    SELECT 'pending', 'expire', count(*) FROM windows
    UNION ALL SELECT 'pending', 'time_out', greatest(0, number - (SELECT count(*) FROM windows)) FROM pending
    UNION ALL SELECT 'access_open', '', count(*) FROM windows, clock WHERE deadline_at > at
    UNION ALL SELECT 'overdue', '', count(*) FROM (SELECT FROM requests
        WHERE wake_at <= (SELECT at - interval '1 second' FROM clock) LIMIT {MOST}) o
    UNION ALL SELECT 'soon', 'from', lower FROM bounds
    UNION ALL SELECT 'soon', 'to', upper FROM edge
    UNION ALL SELECT 'soon', 'count', count(*) FROM soon WHERE due <= (SELECT upper FROM edge)
    UNION ALL SELECT 'unsent', '', count(*) FROM unsent
    UNION ALL SELECT 'oldest_unsent', '', greatest(0, extract(epoch FROM (SELECT at FROM clock)
        - min(coalesce(uuid_extract_timestamp(id), run_at)))) FROM unsent HAVING count(*) > 0
    UNION ALL SELECT 'dead', '', count(*) FROM (SELECT FROM notices WHERE outcome = 'dead' LIMIT {MOST}) d
    UNION ALL SELECT 'dead_lately', '', count(*) FROM (SELECT FROM notices, clock WHERE outcome = 'dead'
        AND id >= (SELECT uuidv7(interval '-4 days')) AND closed_at > at - interval '1 day' LIMIT {MOST}) l
    UNION ALL SELECT 'unsealed', '', count(*) FROM (SELECT FROM unsealed LIMIT {MOST}) u
    UNION ALL SELECT 'seal_lag', '', coalesce((SELECT greatest(0, extract(epoch FROM c.at - e.at))
        FROM clock c, events e WHERE e.id = (SELECT event_id FROM unsealed ORDER BY event_id LIMIT 1)), 0)
    UNION ALL SELECT 'checkpoint_age', '', greatest(0, extract(epoch FROM (SELECT at FROM clock) - max(noted_at)))
        FROM logs WHERE note <> '' HAVING count(*) > 0
    UNION ALL SELECT 'heartbeat', role, greatest(0, extract(epoch FROM (SELECT at FROM clock) - max(beat_at)))
        FROM heartbeats GROUP BY role
    UNION ALL SELECT 'processes', role, count(*) FROM heartbeats
        WHERE beat_at > (SELECT at - interval '1 minute' FROM clock) GROUP BY role
    UNION ALL SELECT 'skew', role, CASE WHEN max(skew) > -min(skew) THEN max(skew) ELSE min(skew) END FROM heartbeats
        WHERE beat_at > (SELECT at - interval '1 minute' FROM clock) AND role IN ('api', 'core', 'notices')
        GROUP BY role
    UNION ALL SELECT t.name, t.label, sum(t.count) FROM tallies t GROUP BY t.name, t.label
    UNION ALL SELECT 'deadline_lag_total', '', sum(t.total) FROM tallies t
        WHERE t.name = 'deadline_lag' HAVING count(*) > 0
$$;
CREATE FUNCTION operating_states() RETURNS TABLE (state text, number bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.state, count(*) FROM requests r GROUP BY r.state
$$;
CREATE FUNCTION operating_processes() RETURNS TABLE (role text, node text, age double precision,
    skew double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT h.role, h.node, greatest(0, extract(epoch FROM clock_timestamp() - h.beat_at)), h.skew
    FROM heartbeats h ORDER BY h.role, h.beat_at DESC LIMIT 200
$$;
REVOKE ALL ON FUNCTION operating_figures, operating_states, operating_processes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION operating_figures, operating_states, operating_processes TO lockbox_api;
"""


def upgrade() -> None:
    """Add tables and functions; what is there stays as it is."""
    for part in (TABLES, SECURITY, BEAT, FIGURES):
        op.execute(part)
