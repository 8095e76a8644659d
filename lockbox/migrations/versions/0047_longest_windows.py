"""An engineer learns the longest window that a tenant's policy allows, and nothing else of the policy."""

from alembic import op

revision = "0047"
down_revision = "0046"

LONGEST_WINDOWS = """
CREATE FUNCTION longest_windows(of_tenants uuid[]) RETURNS TABLE (tenant_id uuid, seconds integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id, CAST(p.body ->> 'access_ceiling' AS integer)
    FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
    WHERE t.id = ANY (of_tenants) AND 'engineer' = ANY (at_roles())
$$;
REVOKE ALL ON FUNCTION longest_windows FROM PUBLIC;
GRANT EXECUTE ON FUNCTION longest_windows TO lockbox_api;
"""


def upgrade() -> None:
    """Add the function by which the request form and the list of tenants say it."""
    op.execute(LONGEST_WINDOWS)
