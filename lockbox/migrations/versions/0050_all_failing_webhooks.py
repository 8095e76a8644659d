"""The list of failing webhooks has pages, and says how many there are."""

from alembic import op

revision = "0050"
down_revision = "0049"

# As in 0035, but with a start, and the number of all in each row.
FAILING = r"""
DROP FUNCTION failing_webhooks;
CREATE FUNCTION failing_webhooks(most integer, skipped integer) RETURNS TABLE (id uuid, tenant text, leads_to text,
    failing_since timestamptz, unsent bigint, error text, in_all bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT h.id, t.name, regexp_replace(h.url, '^([a-z]+://)([^/?#]*@)?([^/?#]*).*$', '\1\3'), h.failing_since,
        coalesce(u.number, 0),
        (SELECT d.error FROM deliveries d WHERE d.endpoint_id = h.id ORDER BY d.id DESC LIMIT 1),
        count(*) OVER ()
    FROM endpoints h LEFT JOIN tenants t ON t.id = h.tenant_id
    LEFT JOIN (SELECT w.endpoint_id, count(*) AS number FROM (SELECT n.endpoint_id FROM notices n
        WHERE n.closed_at IS NULL AND n.channel = 'webhook' ORDER BY n.run_at LIMIT 100000) w
        GROUP BY w.endpoint_id) u ON u.endpoint_id = h.id
    WHERE 'operator' = ANY (at_roles()) AND h.failing_since IS NOT NULL AND h.disabled_at IS NULL
        AND h.removed_at IS NULL
    ORDER BY h.failing_since, h.id LIMIT most OFFSET skipped
$$;
REVOKE ALL ON FUNCTION failing_webhooks FROM PUBLIC;
GRANT EXECUTE ON FUNCTION failing_webhooks TO lockbox_api;
"""


def upgrade() -> None:
    """Replace the function."""
    op.execute(FAILING)
