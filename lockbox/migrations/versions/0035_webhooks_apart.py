"""Mail and webhooks are measured apart, and operators see which webhooks fail."""

from alembic import op

revision = "0035"
down_revision = "0034"

# Each change of the function as it stands: what is counted of notices is counted by channel.
FIGURES = """
DO $$
DECLARE
    said text := pg_get_functiondef('operating_figures()'::regprocedure);
    before text;
    change text[];
BEGIN
    FOREACH change SLICE 1 IN ARRAY ARRAY[
        ['unsent AS MATERIALIZED (SELECT id, run_at FROM notices WHERE closed_at IS NULL ORDER BY run_at '
            || 'LIMIT 100000)',
         'unsent AS MATERIALIZED (SELECT u.* FROM (VALUES (''mail''), (''webhook'')) c (channel) CROSS JOIN LATERAL (
            SELECT n.id, n.run_at, n.channel FROM notices n WHERE n.closed_at IS NULL AND n.channel = c.channel
            ORDER BY n.run_at LIMIT 100000) u)'],
        ['''unsent'', '''', count(*) FROM unsent', '''unsent'', channel, count(*) FROM unsent GROUP BY channel'],
        ['''oldest_unsent'', '''',', '''oldest_unsent'', channel,'],
        ['run_at)))) FROM unsent HAVING count(*) > 0', 'run_at)))) FROM unsent GROUP BY channel'],
        ['''dead'', '''', count(*) FROM (SELECT FROM notices',
         '''dead'', channel, count(*) FROM (SELECT channel FROM notices'],
        ['LIMIT 100000) d', 'LIMIT 100000) d GROUP BY channel'],
        ['''dead_lately'', '''', count(*) FROM (SELECT FROM notices',
         '''dead_lately'', channel, count(*) FROM (SELECT channel FROM notices'],
        ['LIMIT 100000) l', 'LIMIT 100000) l GROUP BY channel
    UNION ALL SELECT ''webhooks_failing'', '''', count(*) FROM endpoints
        WHERE failing_since IS NOT NULL AND disabled_at IS NULL AND removed_at IS NULL']
    ] LOOP
        before := said;
        said := replace(said, change[1], change[2]);
        IF said = before THEN
            RAISE EXCEPTION 'operating_figures() does not say %', change[1];
        END IF;
    END LOOP;
    EXECUTE said;
END $$;
"""

# Where it leads, without path and login, in which a secret may stand.
FAILING = r"""
CREATE FUNCTION failing_webhooks(most integer) RETURNS TABLE (id uuid, tenant text, leads_to text,
    failing_since timestamptz, unsent bigint, error text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT h.id, t.name, regexp_replace(h.url, '^([a-z]+://)([^/?#]*@)?([^/?#]*).*$', '\1\3'), h.failing_since,
        coalesce(u.number, 0),
        (SELECT d.error FROM deliveries d WHERE d.endpoint_id = h.id ORDER BY d.id DESC LIMIT 1)
    FROM endpoints h LEFT JOIN tenants t ON t.id = h.tenant_id
    LEFT JOIN (SELECT w.endpoint_id, count(*) AS number FROM (SELECT n.endpoint_id FROM notices n
        WHERE n.closed_at IS NULL AND n.channel = 'webhook' ORDER BY n.run_at LIMIT 100000) w
        GROUP BY w.endpoint_id) u ON u.endpoint_id = h.id
    WHERE 'operator' = ANY (at_roles()) AND h.failing_since IS NOT NULL AND h.disabled_at IS NULL
        AND h.removed_at IS NULL
    ORDER BY h.failing_since, h.id LIMIT most
$$;
REVOKE ALL ON FUNCTION failing_webhooks FROM PUBLIC;
GRANT EXECUTE ON FUNCTION failing_webhooks TO lockbox_api;
"""


def upgrade() -> None:
    """Replace a function and add one."""
    op.execute(FIGURES)
    op.execute(FAILING)
