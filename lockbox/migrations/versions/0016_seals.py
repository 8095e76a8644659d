"""Seals: a Merkle tree over each tenant's events and over the vendor's own, its tiles, and signed checkpoints."""

from alembic import op

revision = "0016"
down_revision = "0015"

# The log of a tenant has the tenant's id; the vendor's own has zeros. `unproven` events are older than the seals.
TABLES = """
CREATE TABLE logs (
    id uuid CONSTRAINT pk_logs PRIMARY KEY,
    tenant_id uuid CONSTRAINT fk_logs_tenant_id REFERENCES tenants (id),
    origin varchar(255) NOT NULL CONSTRAINT uq_logs_origin UNIQUE,
    generation integer NOT NULL CONSTRAINT ck_logs_generation CHECK (generation >= 1),
    size bigint NOT NULL CONSTRAINT ck_logs_size CHECK (size >= 0),
    root bytea NOT NULL CONSTRAINT ck_logs_root CHECK (octet_length(root) = 32),
    unproven bigint NOT NULL CONSTRAINT ck_logs_unproven CHECK (unproven >= 0),
    note text NOT NULL,
    noted_at timestamptz NOT NULL,
    kept_at timestamptz NOT NULL,
    digest_at timestamptz NOT NULL,
    CONSTRAINT ck_logs_id CHECK (id = coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'))
);
CREATE INDEX ix_logs_kept_at ON logs (kept_at);
CREATE INDEX ix_logs_digest_at ON logs (digest_at);
CREATE TABLE seals (
    log_id uuid NOT NULL CONSTRAINT fk_seals_log_id REFERENCES logs (id),
    number bigint NOT NULL CONSTRAINT ck_seals_number CHECK (number >= 0),
    event_id uuid NOT NULL CONSTRAINT uq_seals_event_id UNIQUE,
    CONSTRAINT pk_seals PRIMARY KEY (log_id, number)
);
CREATE TABLE tiles (
    log_id uuid NOT NULL CONSTRAINT fk_tiles_log_id REFERENCES logs (id),
    level smallint NOT NULL,
    number bigint NOT NULL,
    hashes bytea NOT NULL
        CONSTRAINT ck_tiles_hashes CHECK (octet_length(hashes) % 32 = 0 AND octet_length(hashes) BETWEEN 32 AND 8192),
    CONSTRAINT pk_tiles PRIMARY KEY (log_id, level, number)
);
CREATE TABLE checkpoints (
    id uuid CONSTRAINT pk_checkpoints PRIMARY KEY,
    log_id uuid NOT NULL CONSTRAINT fk_checkpoints_log_id REFERENCES logs (id),
    size bigint NOT NULL,
    at timestamptz NOT NULL,
    note text NOT NULL,
    told_at timestamptz
);
CREATE INDEX ix_checkpoints_log_id_at ON checkpoints (log_id, at);
CREATE INDEX ix_checkpoints_untold ON checkpoints (at) WHERE told_at IS NULL;
CREATE TABLE audit_keys (
    key varchar(255) CONSTRAINT pk_audit_keys PRIMARY KEY,
    purpose varchar(24) NOT NULL CONSTRAINT ck_audit_keys_purpose CHECK (purpose IN ('log', 'approval')),
    first_used_at timestamptz NOT NULL
);
"""

# A checkpoint is told without an event of its own: else each would make a log grow that has nothing to say.
NOTICES = """
ALTER TABLE notices
    ADD COLUMN checkpoint_id uuid CONSTRAINT fk_notices_checkpoint_id REFERENCES checkpoints (id),
    DROP CONSTRAINT ck_notices_cause,
    ADD CONSTRAINT ck_notices_cause CHECK (num_nonnulls(event_id, about_id, checkpoint_id) > 0),
    DROP CONSTRAINT uq_notices_event_id_recipient,
    ADD CONSTRAINT uq_notices_event_id_recipient UNIQUE NULLS NOT DISTINCT
        (event_id, person_id, endpoint_id, about_id, address_id, watcher_id, checkpoint_id);
"""

# A log grows and does nothing else: what was hashed stays, in its place.
ONLY_GROWS = """
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON seals FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON seals FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE ON checkpoints FOR EACH ROW
    WHEN (to_jsonb(NEW) - 'told_at' <> to_jsonb(OLD) - 'told_at') EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_goes BEFORE DELETE ON checkpoints FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_keys FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE FUNCTION refuse_shrinking() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% only grow', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER only_grows BEFORE UPDATE ON tiles FOR EACH ROW
    WHEN (substr(NEW.hashes, 1, octet_length(OLD.hashes)) <> OLD.hashes) EXECUTE FUNCTION refuse_shrinking();
CREATE TRIGGER never_goes BEFORE DELETE ON tiles FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER only_grows BEFORE UPDATE ON logs FOR EACH ROW
    WHEN (NEW.size < OLD.size OR (NEW.size = OLD.size AND NEW.root <> OLD.root) OR NEW.unproven <> OLD.unproven
        OR NEW.generation NOT IN (OLD.generation, OLD.generation + 1)
        OR (NEW.generation = OLD.generation AND NEW.origin <> OLD.origin AND OLD.size > 0))
    EXECUTE FUNCTION refuse_shrinking();
CREATE TRIGGER never_goes BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

READS = "(tenant_id = ANY ((SELECT at_tenants())::uuid[])) OR (SELECT at_roles()) && '{vendor_auditor}'::text[]"
OF_A_LOG = "EXISTS (SELECT FROM logs l WHERE l.id = log_id)"
SECURITY = f"""
CREATE POLICY api_select ON logs FOR SELECT TO lockbox_api USING ({READS});
CREATE POLICY api_select ON seals FOR SELECT TO lockbox_api USING ({OF_A_LOG});
CREATE POLICY api_select ON tiles FOR SELECT TO lockbox_api USING ({OF_A_LOG});
CREATE POLICY api_select ON checkpoints FOR SELECT TO lockbox_api USING ({OF_A_LOG});
CREATE POLICY api_insert ON audit_keys FOR INSERT TO lockbox_api
    WITH CHECK (purpose = 'approval' AND (SELECT at_person()) IS NOT NULL);
-- Keys are for everybody to know, whoever asks.
CREATE FUNCTION known_audit_keys() RETURNS TABLE (key text, purpose text, first_used_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT k.key, k.purpose, k.first_used_at FROM audit_keys k ORDER BY k.first_used_at, k.key
$$;
REVOKE ALL ON FUNCTION known_audit_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION known_audit_keys TO lockbox_api;
GRANT SELECT ON logs, seals, tiles, checkpoints TO lockbox_api;
GRANT INSERT ON audit_keys TO lockbox_api;
GRANT SELECT, INSERT ON logs, seals, tiles, checkpoints, audit_keys TO lockbox_worker;
GRANT UPDATE (origin, size, root, note, noted_at, kept_at, digest_at) ON logs TO lockbox_worker;
GRANT UPDATE (told_at) ON checkpoints TO lockbox_worker;
GRANT UPDATE (hashes) ON tiles TO lockbox_worker;
GRANT SELECT, DELETE ON unsealed TO lockbox_worker;
"""
SECURED = ("logs", "seals", "tiles", "checkpoints", "audit_keys")


# What was written before there were seals is sealed first, in the order of its ids; nothing else vouches for it.
BEFORE_SEALS = """
INSERT INTO logs (id, tenant_id, origin, generation, size, root, unproven, note, noted_at, kept_at, digest_at)
SELECT coalesce(e.tenant_id, '00000000-0000-0000-0000-000000000000'), e.tenant_id,
    'unnamed/' || coalesce(e.tenant_id::text, 'vendor'), 1, 0, sha256(''), count(*), '', now(), '-infinity', now()
FROM unsealed u JOIN events e ON e.id = u.event_id GROUP BY e.tenant_id;
"""


def _secured() -> str:
    return "".join(
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"
        f"CREATE POLICY worker ON {table} FOR ALL TO lockbox_worker USING (true);"
        for table in SECURED
    )


def upgrade() -> None:
    for part in (TABLES, NOTICES, ONLY_GROWS, _secured(), SECURITY, BEFORE_SEALS):
        op.execute(part)
