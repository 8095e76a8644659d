"""Rules made firmer: the vendor's webhooks hear no reason, who files is counted, and consent ends with an event."""

from alembic import op

revision = "0013"
down_revision = "0012"

# What was removed is never changed again and never called.
NO_REASON_FOR_THE_VENDOR = """
UPDATE endpoints SET with_justification = false WHERE tenant_id IS NULL AND with_justification AND removed_at IS NULL;
ALTER TABLE endpoints ADD CONSTRAINT ck_endpoints_with_justification
    CHECK (tenant_id IS NOT NULL OR NOT with_justification OR removed_at IS NOT NULL);
"""

# Whoever files is one person, whatever they show: tokens come and go. Null is what was filed before this.
FILERS = """
ALTER TABLE requests ADD COLUMN filed_by uuid CONSTRAINT fk_requests_filed_by REFERENCES people (id);
DROP INDEX ix_requests_token_id_id;
CREATE INDEX ix_requests_filed_by_id ON requests (filed_by, id) WHERE filed_by IS NOT NULL;
CREATE POLICY api_insert_own ON requests AS RESTRICTIVE FOR INSERT TO lockbox_api
    WITH CHECK (filed_by = (SELECT at_person()));
DROP FUNCTION nth_filing;
CREATE FUNCTION nth_filing(of_tenant uuid, most_tenant integer, most_person integer)
RETURNS TABLE (tenant_at timestamptz, person_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT (SELECT r.created_at FROM requests r WHERE r.tenant_id = of_tenant AND of_tenant = ANY (at_reach())
            ORDER BY r.id DESC OFFSET most_tenant - 1 LIMIT 1),
        (SELECT r.created_at FROM requests r WHERE r.filed_by = at_person()
            ORDER BY r.id DESC OFFSET most_person - 1 LIMIT 1)
$$;
REVOKE ALL ON FUNCTION nth_filing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nth_filing TO lockbox_api;
"""

# The event is itself the record that a consent's end was told: one for each tenant and end, whoever writes it.
CONSENT = """
CREATE UNIQUE INDEX uq_events_consent_ended ON events (tenant_id, deadline_at) WHERE action = 'consent_ended';
CREATE INDEX ix_policies_consent ON policies (tenant_id, version) WHERE body -> 'consent' ->> 'until' IS NOT NULL;
CREATE FUNCTION consents(of_tenants uuid[]) RETURNS TABLE (tenant_id uuid, mode text, until_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id, p.body -> 'consent' ->> 'mode', CAST(p.body -> 'consent' ->> 'until' AS timestamptz)
    FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
    WHERE t.id = ANY (of_tenants) AND (t.id = ANY (at_reach()) OR cardinality(at_roles()) > 0)
        AND t.mode = 'enforce' AND p.body -> 'consent' ->> 'until' IS NOT NULL
$$;
REVOKE ALL ON FUNCTION consents FROM PUBLIC;
GRANT EXECUTE ON FUNCTION consents TO lockbox_api;
"""


def upgrade() -> None:
    """Add columns, indexes and functions; what waits and what is open stays as it is."""
    for part in (NO_REASON_FOR_THE_VENDOR, FILERS, CONSENT):
        op.execute(part)
