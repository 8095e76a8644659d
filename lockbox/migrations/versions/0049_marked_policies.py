"""A tenant's mode, its policies, delegations and eligible deputies carry MACs; an API checks them in turn."""

from alembic import op

revision = "0049"
down_revision = "0048"

# What stood before has no mark: `lockbox operate re-key --key-is-lost` marks it.
COLUMNS = """
ALTER TABLE tenants ADD COLUMN revision integer NOT NULL DEFAULT 1, ADD COLUMN mac bytea;
ALTER TABLE policies ADD COLUMN mac bytea;
ALTER TABLE delegations ADD COLUMN mac bytea;
ALTER TABLE eligible_deputies ADD COLUMN id uuid NOT NULL DEFAULT uuidv7(), ADD COLUMN mac bytea;
GRANT UPDATE (revision, mac) ON tenants TO lockbox_api;

-- The owner marks a version anew, and changes nothing that it says.
DROP TRIGGER append_only ON policies;
CREATE TRIGGER append_only BEFORE UPDATE ON policies FOR EACH ROW
    WHEN (NEW.mac IS NULL OR NEW.mac IS NOT DISTINCT FROM OLD.mac OR to_jsonb(OLD) - 'mac' <> to_jsonb(NEW) - 'mac')
    EXECUTE FUNCTION refuse_change();
CREATE TRIGGER no_removal BEFORE DELETE ON policies FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

REMEMBERED = """
CREATE TRIGGER removed_for_good AFTER DELETE ON {table} FOR EACH ROW WHEN (OLD.mac IS NOT NULL)
    EXECUTE FUNCTION remember_ended_power();
CREATE TRIGGER marked_anew AFTER UPDATE ON {table} FOR EACH ROW
    WHEN (OLD.mac IS NOT NULL AND OLD.mac IS DISTINCT FROM NEW.mac) EXECUTE FUNCTION remember_ended_power();
CREATE TRIGGER never_put_back BEFORE INSERT ON {table} FOR EACH ROW WHEN (NEW.mac IS NOT NULL)
    EXECUTE FUNCTION refuse_ended_power();
CREATE TRIGGER never_marked_back BEFORE UPDATE ON {table} FOR EACH ROW
    WHEN (NEW.mac IS NOT NULL AND NEW.mac IS DISTINCT FROM OLD.mac) EXECUTE FUNCTION refuse_ended_power();
"""

# Of the policies, those that hold, that were written since, and that judged what is still open.
MARKED = """
CREATE FUNCTION tenants_to_check(after uuid, page integer) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT id FROM tenants WHERE id > after ORDER BY id LIMIT page
$$;
CREATE FUNCTION tenants_with_new_powers(lately interval, most integer) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    (SELECT id FROM tenants WHERE id >= (SELECT uuidv7(-lately)) ORDER BY id DESC LIMIT most)
    UNION (SELECT tenant_id FROM events WHERE id >= (SELECT uuidv7(-lately)) AND tenant_id IS NOT NULL
        ORDER BY id DESC LIMIT most)
$$;
CREATE FUNCTION marked_tenants(which uuid[]) RETURNS SETOF tenants
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.* FROM tenants t WHERE t.id = ANY (which)
$$;
CREATE FUNCTION marked_policies(which uuid[]) RETURNS SETOF policies
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT p.* FROM policies p JOIN tenants t ON t.id = p.tenant_id
    WHERE p.tenant_id = ANY (which) AND (p.version >= t.policy_version OR p.version IN (SELECT r.policy_version
        FROM requests r WHERE r.tenant_id = p.tenant_id AND r.state IN ('reviewing', 'pending')))
$$;
CREATE FUNCTION marked_delegations(which uuid[]) RETURNS SETOF delegations
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT d.* FROM delegations d
    WHERE d.tenant_id = ANY (which) AND d.ended_at IS NULL AND d.ends_at > clock_timestamp()
$$;
CREATE FUNCTION marked_eligible_deputies(which uuid[]) RETURNS SETOF eligible_deputies
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT l.* FROM eligible_deputies l WHERE l.tenant_id = ANY (which)
$$;
REVOKE ALL ON FUNCTION tenants_to_check, tenants_with_new_powers, marked_tenants, marked_policies,
    marked_delegations, marked_eligible_deputies FROM PUBLIC;
GRANT EXECUTE ON FUNCTION tenants_to_check, tenants_with_new_powers, marked_tenants, marked_policies,
    marked_delegations, marked_eligible_deputies TO lockbox_api;
"""


def upgrade() -> None:
    """Add the columns, keep marks that were replaced from coming back, and let an API read what is marked."""
    op.execute(COLUMNS)
    for table in ("tenants", "eligible_deputies"):
        op.execute(REMEMBERED.format(table=table))
    op.execute(MARKED)
