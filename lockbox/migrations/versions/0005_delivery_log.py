"""The delivery log, and what endpoints gain: a format, rotation with an overlap, and why one is disabled."""

from alembic import op

revision = "0005"
down_revision = "0004"

TABLES = """
ALTER TABLE endpoints
    ADD COLUMN description varchar(200) NOT NULL DEFAULT '',
    ADD COLUMN format varchar(24) NOT NULL DEFAULT 'json'
        CONSTRAINT ck_endpoints_format CHECK (format IN ('json', 'slack')),
    ADD COLUMN with_justification boolean NOT NULL DEFAULT false,
    ADD COLUMN public_key varchar(64),
    ADD COLUMN old_secret bytea,
    ADD COLUMN old_secret_until timestamptz,
    ADD COLUMN failing_since timestamptz,
    ADD COLUMN why_disabled varchar(24)
        CONSTRAINT ck_endpoints_why_disabled CHECK (why_disabled IN ('by_hand', 'gone', 'failing')),
    ADD COLUMN removed_at timestamptz,
    ADD CONSTRAINT ck_endpoints_old_secret CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
    ADD CONSTRAINT ck_endpoints_removed CHECK (removed_at IS NULL OR disabled_at IS NOT NULL);
ALTER TABLE endpoints ALTER COLUMN description DROP DEFAULT, ALTER COLUMN format DROP DEFAULT,
    ALTER COLUMN with_justification DROP DEFAULT;
CREATE TABLE deliveries (
    id uuid CONSTRAINT pk_deliveries PRIMARY KEY,
    notice_id uuid NOT NULL CONSTRAINT fk_deliveries_notice_id REFERENCES notices (id),
    endpoint_id uuid CONSTRAINT fk_deliveries_endpoint_id REFERENCES endpoints (id),
    event_type varchar(64) NOT NULL,
    at timestamptz NOT NULL,
    took_ms integer NOT NULL CONSTRAINT ck_deliveries_took_ms CHECK (took_ms >= 0),
    status integer,
    answer varchar(1024) NOT NULL,
    error varchar(24)
);
CREATE INDEX ix_deliveries_notice_id ON deliveries (notice_id);
CREATE INDEX ix_deliveries_endpoint_id_id ON deliveries (endpoint_id, id) WHERE endpoint_id IS NOT NULL;
"""

# What was answered is for the side that was called. Both inner tables are seen through their own policies.
SECURITY = """
ALTER TABLE deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE deliveries FORCE ROW LEVEL SECURITY;
CREATE POLICY api_select ON deliveries FOR SELECT TO lockbox_api USING (
    CASE WHEN endpoint_id IS NOT NULL THEN EXISTS (SELECT FROM endpoints h WHERE h.id = endpoint_id)
    ELSE EXISTS (SELECT FROM notices n JOIN memberships m ON m.person_id = n.person_id
        WHERE n.id = notice_id AND CASE WHEN m.tenant_id IS NULL THEN cardinality((SELECT at_roles())) > 0
            ELSE m.tenant_id = ANY ((SELECT at_tenants())::uuid[]) END) END);
CREATE POLICY worker ON deliveries FOR ALL TO lockbox_worker USING (true);
GRANT SELECT ON deliveries TO lockbox_api;
GRANT INSERT ON deliveries TO lockbox_worker;
GRANT UPDATE (description, format, with_justification, public_key, old_secret, old_secret_until, failing_since,
    why_disabled, removed_at) ON endpoints TO lockbox_api;
GRANT UPDATE (disabled_at, why_disabled, failing_since) ON endpoints TO lockbox_worker;
CREATE TRIGGER never_revived BEFORE UPDATE ON endpoints FOR EACH ROW
    WHEN (OLD.removed_at IS NOT NULL) EXECUTE FUNCTION refuse_change_by('endpoint %s was removed');
"""

# Whoever may change an endpoint may have a call repeated, whether or not they may see the request that it is about.
REOPEN = """
CREATE FUNCTION reopen(of_delivery uuid, moment timestamptz) RETURNS TABLE (notice uuid, answer text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    n notices;
    outdated boolean;
BEGIN
    SELECT o.* INTO n FROM deliveries d JOIN endpoints h ON h.id = d.endpoint_id JOIN notices o ON o.id = d.notice_id
    WHERE d.id = of_delivery AND h.removed_at IS NULL AND CASE WHEN h.tenant_id IS NULL
        THEN 'operator' = ANY (at_roles()) ELSE h.tenant_id = ANY (at_administers()) END
    FOR UPDATE OF o;
    IF n.id IS NULL THEN
        RETURN;
    END IF;
    outdated := n.template IN ('reviewing', 'pending') AND (n.until_at <= moment OR NOT EXISTS (
        SELECT FROM requests r WHERE r.id = n.request_id AND r.state = n.template));
    IF n.closed_at IS NULL THEN
        RETURN QUERY SELECT n.id, 'waiting';
    ELSIF EXISTS (SELECT FROM endpoints h WHERE h.id = n.endpoint_id AND h.disabled_at IS NOT NULL) THEN
        RETURN QUERY SELECT n.id, 'disabled';
    ELSIF outdated THEN
        RETURN QUERY SELECT n.id, 'outdated';
    ELSE
        UPDATE notices o SET closed_at = NULL, outcome = NULL, attempts = 0, run_at = moment,
            until_at = CASE WHEN n.template IN ('reviewing', 'pending') THEN n.until_at
                ELSE greatest(n.until_at, moment + interval '24 hours') END
        WHERE o.id = n.id;
        RETURN QUERY SELECT n.id, 'reopened';
    END IF;
END $$;
REVOKE ALL ON FUNCTION reopen FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reopen TO lockbox_api;
"""


def upgrade() -> None:
    for part in (TABLES, SECURITY, REOPEN):
        op.execute(part)
