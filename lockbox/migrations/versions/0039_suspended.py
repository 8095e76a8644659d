"""A suspension ends the open windows of a tenant, and its operator learns beforehand how many those are."""

from alembic import op

revision = "0039"
down_revision = "0038"

OPERATOR = "(SELECT at_roles()) && '{operator}'::text[]"

# The context's `lockbox.suspending` is a tenant that an operator has just suspended.
SUSPENDING = f"""
CREATE FUNCTION at_suspending() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.suspending', true), '')::uuid $$;
CREATE FUNCTION is_suspended(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM tenants t WHERE t.id = tenant AND t.suspended)
$$;
REVOKE ALL ON FUNCTION is_suspended FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_suspended TO lockbox_api;
CREATE POLICY api_select_suspending ON requests FOR SELECT TO lockbox_api
    USING (tenant_id = (SELECT at_suspending()) AND {OPERATOR} AND is_suspended(tenant_id));
CREATE POLICY api_update_suspending ON requests FOR UPDATE TO lockbox_api
    USING (tenant_id = (SELECT at_suspending()) AND {OPERATOR} AND is_suspended(tenant_id));
CREATE TRIGGER suspending_only_ends BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.tenant_id = at_suspending() AND NEW.state <> 'revoked')
    EXECUTE FUNCTION refuse_change_by('request %s of a suspended tenant can only be revoked by an operator');
"""

# How many windows would end: a number, and nothing of what they are for.
COUNTED = """
CREATE FUNCTION open_windows(of_tenants uuid[]) RETURNS TABLE (tenant_id uuid, windows bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.tenant_id, count(*) FROM requests r
    WHERE 'operator' = ANY (at_roles()) AND r.tenant_id = ANY (of_tenants) AND r.state = 'active'
        AND r.deadline_at > clock_timestamp()
    GROUP BY r.tenant_id
$$;
REVOKE ALL ON FUNCTION open_windows FROM PUBLIC;
GRANT EXECUTE ON FUNCTION open_windows TO lockbox_api;
"""


def upgrade() -> None:
    """Add what an operator may do and learn."""
    for part in (SUSPENDING, COUNTED):
        op.execute(part)
