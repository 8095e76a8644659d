"""A day of an installation by the hour, samples of how late it was, what was found, and sessions of a try-out."""

from alembic import op

revision = "0028"
down_revision = "0027"

# `ended` and `late` are what the tallies said by then: how many deadlines the clock had ended, and how late in all.
SAMPLES = """
CREATE TABLE lag_samples (
    at timestamptz CONSTRAINT pk_lag_samples PRIMARY KEY,
    schedule_lag double precision NOT NULL CONSTRAINT ck_lag_samples_schedule_lag CHECK (schedule_lag >= 0),
    seal_lag double precision NOT NULL CONSTRAINT ck_lag_samples_seal_lag CHECK (seal_lag >= 0),
    ended bigint NOT NULL CONSTRAINT ck_lag_samples_ended CHECK (ended >= 0),
    late double precision NOT NULL
);
ALTER TABLE lag_samples ENABLE ROW LEVEL SECURITY;
ALTER TABLE lag_samples FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON lag_samples FOR ALL TO lockbox_worker USING (true);
GRANT SELECT, INSERT, DELETE ON lag_samples TO lockbox_worker;
"""

MOST = 100_000
# By the ids of events and notices, which are made as time goes; what was promised days ago may be sent today.
DAY = f"""
CREATE FUNCTION operating_day() RETURNS TABLE (name text, hour timestamptz, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH span AS MATERIALIZED (
        SELECT date_trunc('hour', clock_timestamp(), 'UTC') - interval '23 hours' AS begins),
    moved AS MATERIALIZED (SELECT e.at, CASE WHEN e.action = 'submit' THEN 'filed'
            WHEN e.to_state = 'timed_out' THEN 'timed_out'
            WHEN e.to_state IN ('active', 'denied') AND e.from_state IS DISTINCT FROM e.to_state THEN 'decided' END
            AS kind
        FROM events e WHERE e.id >= (SELECT uuidv7(interval '-25 hours')) AND e.seq IS NOT NULL
        ORDER BY e.id DESC LIMIT {MOST}),
    told AS MATERIALIZED (SELECT n.id, n.closed_at, n.outcome FROM notices n
        WHERE n.id >= (SELECT uuidv7(interval '-4 days')) ORDER BY n.id DESC LIMIT {MOST})
    SELECT 'begins', begins, NULL::double precision FROM span
    UNION ALL SELECT kind, date_trunc('hour', at, 'UTC'), count(*) FROM moved, span
        WHERE kind IS NOT NULL AND at >= begins GROUP BY 1, 2
    UNION ALL SELECT outcome, date_trunc('hour', closed_at, 'UTC'), count(*) FROM told, span
        WHERE outcome IN ('sent', 'dead') AND closed_at >= begins GROUP BY 1, 2
    UNION ALL SELECT 'schedule_lag', date_trunc('hour', at, 'UTC'), max(schedule_lag) FROM lag_samples, span
        WHERE at >= begins GROUP BY 2
    UNION ALL SELECT 'seal_lag', date_trunc('hour', at, 'UTC'), max(seal_lag) FROM lag_samples, span
        WHERE at >= begins GROUP BY 2
    UNION ALL (SELECT 'schedule_lag_now', at, schedule_lag FROM lag_samples ORDER BY at DESC LIMIT 1)
    UNION ALL SELECT 'moves_from', min(at), count(*) FROM moved HAVING count(*) >= {MOST}
    UNION ALL SELECT 'notices_from', uuid_extract_timestamp((SELECT id FROM told ORDER BY id LIMIT 1)), count(*)
        FROM told HAVING count(*) >= {MOST}
$$;
CREATE FUNCTION operating_findings() RETURNS TABLE (rule text, about uuid, raised_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT split_part(key, ':', 1), split_part(key, ':', 2)::uuid, a.raised_at FROM alarms a
    ORDER BY a.raised_at DESC, key LIMIT 50
$$;
REVOKE ALL ON FUNCTION operating_day, operating_findings FROM PUBLIC;
GRANT EXECUTE ON FUNCTION operating_day, operating_findings TO lockbox_api;
"""

# A browser that plays a sample person shows no more than a sample token: no server takes it in production.
PLAYED = """
ALTER TABLE sessions DROP CONSTRAINT ck_sessions_means,
    ADD CONSTRAINT ck_sessions_means CHECK (means IN ('oidc', 'passkey', 'mail', 'sample'));
ALTER TABLE tokens DROP CONSTRAINT ck_tokens_means,
    ADD CONSTRAINT ck_tokens_means CHECK (means IN ('oidc', 'passkey', 'mail', 'sample'));
"""


def upgrade() -> None:
    """Add a table and functions, and let sessions be of a try-out; what is there stays as it is."""
    for part in (SAMPLES, DAY, PLAYED):
        op.execute(part)
