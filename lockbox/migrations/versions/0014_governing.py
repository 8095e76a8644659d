"""What a sign-in counts for: one tenant alone, or a terminal for a while; and leaving a tenant on one's own."""

from alembic import op

revision = "0014"
down_revision = "0013"

ONLY_AT = """
ALTER TABLE sessions ADD COLUMN only_at uuid CONSTRAINT fk_sessions_only_at REFERENCES tenants (id);
ALTER TABLE passkeys ADD COLUMN only_at uuid CONSTRAINT fk_passkeys_only_at REFERENCES tenants (id);
ALTER TABLE tokens ADD COLUMN only_at uuid CONSTRAINT fk_tokens_only_at REFERENCES tenants (id);
"""

# A terminal asks for a code; who types it into a page lets it act for a quarter of an hour, as that session could.
TERMINALS = """
CREATE TABLE terminals (
    id uuid CONSTRAINT pk_terminals PRIMARY KEY,
    secret_hash bytea NOT NULL CONSTRAINT uq_terminals_secret_hash UNIQUE
        CONSTRAINT ck_terminals_secret_hash CHECK (length(secret_hash) = 32),
    code_hash bytea NOT NULL CONSTRAINT uq_terminals_code_hash UNIQUE
        CONSTRAINT ck_terminals_code_hash CHECK (length(code_hash) = 32),
    address varchar(45),
    user_agent varchar(256),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    answered_by uuid CONSTRAINT fk_terminals_answered_by REFERENCES people (id),
    answered_at timestamptz,
    is_allowed boolean,
    CONSTRAINT ck_terminals_answer CHECK (num_nulls(answered_by, answered_at, is_allowed) IN (0, 3))
);
CREATE INDEX ix_terminals_expires_at ON terminals (expires_at);
ALTER TABLE tokens
    ADD COLUMN means varchar(24) CONSTRAINT ck_tokens_means CHECK (means IN ('oidc', 'passkey', 'mail')),
    ADD COLUMN signed_in_at timestamptz,
    ADD CONSTRAINT ck_tokens_signed_in_at CHECK ((means IS NULL) = (signed_in_at IS NULL)),
    ADD CONSTRAINT ck_tokens_terminal CHECK (means IS NULL
        OR (expires_at - created_at <= interval '15 minutes' AND replaces IS NULL AND NOT is_sample));

CREATE FUNCTION at_terminal() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.terminal', true), '')::uuid $$;
-- Found by its own secret, or by its code while it waits, by somebody who is signed in.
CREATE FUNCTION meet_terminal(secret bytea, code bytea) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE found uuid;
BEGIN
    SELECT t.id INTO found FROM terminals t WHERE t.secret_hash = secret
        OR (t.code_hash = code AND t.answered_at IS NULL AND at_person() IS NOT NULL);
    PERFORM set_config('lockbox.terminal', coalesce(found::text, ''), true);
    RETURN found;
END $$;
REVOKE ALL ON FUNCTION meet_terminal FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meet_terminal TO lockbox_api;

ALTER TABLE terminals ENABLE ROW LEVEL SECURITY;
ALTER TABLE terminals FORCE ROW LEVEL SECURITY;
CREATE POLICY api_select ON terminals FOR SELECT TO lockbox_api USING (id = (SELECT at_terminal()));
CREATE POLICY api_insert ON terminals FOR INSERT TO lockbox_api WITH CHECK (answered_at IS NULL);
CREATE POLICY api_update ON terminals FOR UPDATE TO lockbox_api USING (id = (SELECT at_terminal())
    AND answered_at IS NULL AND (SELECT at_person()) IS NOT NULL) WITH CHECK (answered_by = (SELECT at_person()));
CREATE POLICY worker ON terminals FOR ALL TO lockbox_worker USING (true);
ALTER POLICY api_insert ON tokens WITH CHECK (person_id = (SELECT at_person()) AND (means IS NULL
    OR (id = (SELECT at_terminal()) AND EXISTS (SELECT FROM sessions s WHERE s.person_id = tokens.person_id
        AND s.means = tokens.means AND s.signed_in_at = tokens.signed_in_at AND s.revoked_at IS NULL
        AND s.only_at IS NOT DISTINCT FROM tokens.only_at))));
GRANT SELECT, INSERT, UPDATE (answered_by, answered_at, is_allowed) ON terminals TO lockbox_api;
GRANT SELECT (id, expires_at), DELETE ON terminals TO lockbox_worker;
"""

# Called with what was just recognised: the context becomes as narrow as what was shown. For the token of a terminal
# it also tells by which sign-in it was allowed.
BOUNDS = """
CREATE FUNCTION bounds(kind text, key uuid) RETURNS TABLE (only_at uuid, proven_by text, proven_at timestamptz)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    CASE kind
    WHEN 'token' THEN SELECT t.only_at, t.means, t.signed_in_at INTO only_at, proven_by, proven_at
        FROM tokens t WHERE t.id = key AND t.person_id = at_person();
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
    """Bind what is shown to a tenant, let terminals sign in, and let people leave."""
    for part in (ONLY_AT, TERMINALS, BOUNDS, LEAVING):
        op.execute(part)
