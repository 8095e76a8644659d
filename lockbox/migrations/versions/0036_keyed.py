"""Secrets stand as HMAC, mailed codes come from a nonce, and rows that give power carry a MAC.

The keys are files of the API, the notifications worker and the owner's commands: no login to the database holds them.
A mark is the four-byte id of its key and an HMAC-SHA256.
"""

from alembic import op

revision = "0036"
down_revision = "0035"

# Nothing that was kept as a plain hash is good any more: its key would be nobody's.
HASHES = r"""
DELETE FROM sessions;
DELETE FROM sign_ins;
DELETE FROM terminals;
ALTER TABLE tokens DROP CONSTRAINT ck_tokens_secret_hash;
UPDATE tokens SET secret_hash = '\x00000000' || secret_hash;
ALTER TABLE tokens ADD CONSTRAINT ck_tokens_secret_hash CHECK (length(secret_hash) = 36);
ALTER TABLE sessions DROP CONSTRAINT ck_sessions_secret_hash,
    ADD CONSTRAINT ck_sessions_secret_hash CHECK (length(secret_hash) = 36);
ALTER TABLE sign_ins DROP CONSTRAINT ck_sign_ins_browser_hash,
    ADD CONSTRAINT ck_sign_ins_browser_hash CHECK (length(browser_hash) = 36),
    DROP COLUMN code_hash, ADD COLUMN code_nonce bytea;
ALTER TABLE terminals DROP CONSTRAINT ck_terminals_secret_hash, DROP CONSTRAINT ck_terminals_code_hash,
    ADD CONSTRAINT ck_terminals_secret_hash CHECK (length(secret_hash) = 36),
    ADD CONSTRAINT ck_terminals_code_hash CHECK (length(code_hash) = 36);
ALTER TABLE invitations DROP CONSTRAINT ck_invitations_secret_hash;
UPDATE invitations SET secret_hash = NULL;
ALTER TABLE invitations ADD CONSTRAINT ck_invitations_secret_hash CHECK (length(secret_hash) = 36),
    ADD COLUMN code_nonce bytea;
ALTER POLICY api_insert ON invitations WITH CHECK (invited_by = (SELECT at_person()) AND accepted_at IS NULL AND (
    (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND NOT is_recovery)
    OR ((SELECT at_roles()) && '{operator}'::text[] AND CASE
        WHEN tenant_id IS NULL THEN NOT is_recovery
        WHEN roles <> '{tenant_admin}' THEN false
        WHEN is_recovery THEN takes_effect_at >= now() + interval '72 hours'
        ELSE is_new(tenant_id) END)));
REVOKE UPDATE (secret_hash, expires_at) ON invitations FROM lockbox_worker;
DROP POLICY api_insert ON addresses;
ALTER TABLE addresses DROP COLUMN code_hash, ADD COLUMN code_nonce bytea;
CREATE POLICY api_insert ON addresses FOR INSERT TO lockbox_api WITH CHECK (person_id = (SELECT at_person())
    AND confirmed_at IS NULL AND removed_at IS NULL);
GRANT SELECT (code_nonce) ON invitations, sign_ins, addresses TO lockbox_worker;
"""

# Who signs in, and as what: a row without a mark by a key of the API counts for nothing.
MACS = """
ALTER TABLE memberships ADD COLUMN mac bytea;
ALTER TABLE passkeys ADD COLUMN mac bytea;
ALTER TABLE identities ADD COLUMN mac bytea;
ALTER TABLE sessions ADD COLUMN mac bytea;
ALTER TABLE tokens ADD COLUMN mac bytea;
ALTER TABLE invitations ADD COLUMN mac bytea;
GRANT SELECT (code_nonce, mac) ON invitations TO lockbox_api;
GRANT UPDATE (mac) ON tokens TO lockbox_api;

-- What was taken away, or marked anew, does not come back: its mark is remembered, and no login forgets it.
CREATE TABLE ended_powers (
    mac bytea CONSTRAINT pk_ended_powers PRIMARY KEY,
    ended_at timestamptz NOT NULL
);
ALTER TABLE ended_powers ENABLE ROW LEVEL SECURITY;
ALTER TABLE ended_powers FORCE ROW LEVEL SECURITY;
CREATE FUNCTION remember_ended_power() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO ended_powers (mac, ended_at) VALUES (OLD.mac, clock_timestamp()) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE FUNCTION refuse_ended_power() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM ended_powers p WHERE p.mac = NEW.mac) THEN
        RAISE EXCEPTION 'a row of % was taken away and does not come back', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
"""

# A row's mark may be made anew by a newer key, where whoever asks has the one that is there.
REMARK = """
CREATE FUNCTION remark(kind text, which uuid, old bytea, new bytea, new_hash bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    CASE kind
    WHEN 'membership' THEN UPDATE memberships SET mac = new WHERE id = which AND mac = old;
    WHEN 'passkey' THEN UPDATE passkeys SET mac = new WHERE id = which AND mac = old;
    WHEN 'identity' THEN UPDATE identities SET mac = new WHERE person_id = which AND mac = old;
    WHEN 'session' THEN UPDATE sessions SET mac = new, secret_hash = new_hash WHERE id = which AND mac = old;
    WHEN 'token' THEN UPDATE tokens SET mac = new, secret_hash = new_hash WHERE id = which AND mac = old;
    END CASE;
END $$;
REVOKE ALL ON FUNCTION remark FROM PUBLIC;
GRANT EXECUTE ON FUNCTION remark TO lockbox_api;
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

RECOGNISE = """
DROP FUNCTION recognise;
CREATE FUNCTION recognise(kind text, shown text, hash bytea) RETURNS TABLE (
    key_id uuid, person_id uuid, name text, side text, disabled boolean, roles text[], tenant_ids uuid[],
    means text, signed_in_at timestamptz, last_seen_at timestamptz, expires_at timestamptz, revoked boolean,
    scopes text[], services text[], by_mail boolean, mac bytea, membership_ids uuid[], macs bytea[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    CASE kind
    WHEN 'token' THEN
        SELECT t.id, t.person_id, CASE WHEN t.is_sample THEN 'sample' ELSE 'token' END, t.created_at, t.last_used_at,
            t.expires_at, t.revoked_at IS NOT NULL, t.scopes, t.services, t.by_mail, t.mac
        INTO key_id, person_id, means, signed_in_at, last_seen_at, expires_at, revoked, scopes, services, by_mail, mac
        FROM tokens t WHERE t.id = shown::uuid AND t.secret_hash = hash;
    WHEN 'session' THEN
        SELECT s.id, s.person_id, s.means, s.signed_in_at, s.last_seen_at, s.expires_at, s.revoked_at IS NOT NULL,
            s.mac
        INTO key_id, person_id, means, signed_in_at, last_seen_at, expires_at, revoked, mac
        FROM sessions s WHERE s.secret_hash = hash;
    WHEN 'identity' THEN
        SELECT i.person_id, 'oidc' INTO person_id, means
        FROM identities i WHERE i.issuer = split_part(shown, E'\\n', 1) AND i.subject = split_part(shown, E'\\n', 2);
    WHEN 'passkey' THEN
        SELECT k.id, k.person_id, 'passkey' INTO key_id, person_id, means
        FROM passkeys k WHERE k.credential_id = hash;
    WHEN 'sign_in' THEN
        SELECT s.id, p.id, s.means, s.created_at, s.expires_at, s.used_at IS NOT NULL
        INTO key_id, person_id, means, signed_in_at, expires_at, revoked
        FROM sign_ins s LEFT JOIN people p
            ON s.means = 'mail' AND s.proven_at IS NOT NULL AND lower(p.email) = lower(s.email)
        WHERE s.id = shown::uuid AND s.browser_hash = hash;
        PERFORM set_config('lockbox.sign_in', coalesce(key_id::text, ''), true);
    WHEN 'invitation' THEN
        SELECT i.id, p.id, i.expires_at, i.accepted_at IS NOT NULL OR i.withdrawn_at IS NOT NULL, i.roles,
            ARRAY[i.tenant_id]
        INTO key_id, person_id, expires_at, revoked, roles, tenant_ids
        FROM invitations i LEFT JOIN people p ON lower(p.email) = lower(i.email)
        WHERE i.id = shown::uuid AND i.secret_hash = hash;
        IF key_id IS NOT NULL THEN
            PERFORM set_config('lockbox.invitation', CASE WHEN revoked OR expires_at IS NULL
                OR expires_at <= clock_timestamp() THEN '' ELSE key_id::text END, true);
            SELECT p.name, p.side, p.disabled_at IS NOT NULL INTO name, side, disabled
            FROM people p WHERE p.id = recognise.person_id;
            RETURN NEXT;
        END IF;
        RETURN;
    END CASE;
    IF key_id IS NULL AND person_id IS NULL THEN
        RETURN;
    END IF;
    IF person_id IS NOT NULL THEN
        PERFORM enter_as(person_id);
        SELECT p.name, p.side, p.disabled_at IS NOT NULL INTO name, side, disabled
        FROM people p WHERE p.id = recognise.person_id;
        SELECT array_agg(m.role), array_agg(m.tenant_id), array_agg(m.id), array_agg(m.mac)
        INTO roles, tenant_ids, membership_ids, macs
        FROM memberships m WHERE m.person_id = recognise.person_id;
    END IF;
    RETURN NEXT;
END $$;
REVOKE ALL ON FUNCTION recognise FROM PUBLIC;
GRANT EXECUTE ON FUNCTION recognise TO lockbox_api;
"""


def upgrade() -> None:
    """Key the hashes, derive the codes, and mark what gives power."""
    for part in (HASHES, MACS, REMARK, RECOGNISE):
        op.execute(part)
    for table in ("memberships", "passkeys", "identities"):
        op.execute(REMEMBERED.format(table=table))
