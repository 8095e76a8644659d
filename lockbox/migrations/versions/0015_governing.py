"""What a sign-in counts for: one tenant alone where that tenant's issuer stands behind it; and leaving a tenant."""

from alembic import op

revision = "0015"
down_revision = "0009"

ONLY_AT = """
ALTER TABLE sessions ADD COLUMN only_at uuid CONSTRAINT fk_sessions_only_at REFERENCES tenants (id);
ALTER TABLE passkeys ADD COLUMN only_at uuid CONSTRAINT fk_passkeys_only_at REFERENCES tenants (id);
ALTER TABLE tokens ADD COLUMN only_at uuid CONSTRAINT fk_tokens_only_at REFERENCES tenants (id);
"""

# Called with what was just recognised: the context becomes as narrow as what was shown.
BOUNDS = """
CREATE FUNCTION bounds(kind text, key uuid) RETURNS TABLE (only_at uuid)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    CASE kind
    WHEN 'token' THEN SELECT t.only_at INTO only_at FROM tokens t WHERE t.id = key AND t.person_id = at_person();
    WHEN 'session' THEN SELECT s.only_at INTO only_at FROM sessions s WHERE s.id = key AND s.person_id = at_person();
    WHEN 'passkey' THEN SELECT k.only_at INTO only_at FROM passkeys k WHERE k.id = key AND k.person_id = at_person();
    ELSE only_at := NULL;
    END CASE;
    IF only_at IS NOT NULL THEN
        PERFORM set_config('lockbox.tenants',
                ARRAY(SELECT unnest(at_tenants()) INTERSECT SELECT bounds.only_at)::text, true),
            set_config('lockbox.administers',
                ARRAY(SELECT unnest(at_administers()) INTERSECT SELECT bounds.only_at)::text, true);
    END IF;
    RETURN NEXT;
END $$;
REVOKE ALL ON FUNCTION bounds FROM PUBLIC;
GRANT EXECUTE ON FUNCTION bounds TO lockbox_api;
"""

# The last admin stays, unless nobody else has ever joined whom they would leave behind.
LEAVING = """
CREATE OR REPLACE FUNCTION refuse_no_admin() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    -- Not a lock but a change: it also fails whoever judges by a snapshot from before another removal.
    UPDATE tenants SET suspended = suspended WHERE id = OLD.tenant_id;
    IF OLD.person_id IS NOT DISTINCT FROM at_person()
        AND NOT EXISTS (SELECT FROM memberships m WHERE m.tenant_id = OLD.tenant_id)
        AND (SELECT bool_and(i.accepted_by = OLD.person_id) FROM invitations i
            WHERE i.tenant_id = OLD.tenant_id AND i.accepted_at IS NOT NULL) THEN
        RETURN NULL;
    END IF;
    IF NOT EXISTS (SELECT FROM memberships m JOIN people p ON p.id = m.person_id
        WHERE m.tenant_id = OLD.tenant_id AND m.role = 'tenant_admin' AND p.disabled_at IS NULL) THEN
        RAISE EXCEPTION 'tenant % would be left without an admin', OLD.tenant_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
ALTER POLICY api_delete ON memberships USING (tenant_id = ANY ((SELECT at_administers())::uuid[])
    OR (tenant_id IS NULL AND (SELECT at_roles()) && '{operator}'::text[] AND person_id <> (SELECT at_person()))
    OR (tenant_id = ANY ((SELECT at_tenants())::uuid[]) AND person_id = (SELECT at_person())));
ALTER POLICY api_delete ON eligible_deputies USING (tenant_id = ANY ((SELECT at_administers())::uuid[])
    OR (tenant_id = ANY ((SELECT at_tenants())::uuid[]) AND person_id = (SELECT at_person())));
ALTER POLICY api_update ON delegations USING (tenant_id = ANY ((SELECT at_administers())::uuid[])
    OR (tenant_id = ANY ((SELECT at_tenants())::uuid[]) AND (SELECT at_person()) IN (principal_id, deputy_id)));
"""


def upgrade() -> None:
    """Bind what is shown to a tenant, and let people leave."""
    for part in (ONLY_AT, BOUNDS, LEAVING):
        op.execute(part)
