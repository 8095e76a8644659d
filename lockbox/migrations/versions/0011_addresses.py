"""Where else mails go: further addresses of a person, and watchers, who are copied and decide nothing."""

from alembic import op

revision = "0011"
down_revision = "0010"

TABLES = """
CREATE TABLE addresses (
    id uuid CONSTRAINT pk_addresses PRIMARY KEY,
    person_id uuid NOT NULL CONSTRAINT fk_addresses_person_id REFERENCES people (id),
    email varchar(320) NOT NULL CONSTRAINT ck_addresses_email CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    prompts boolean NOT NULL,
    code_hash bytea CONSTRAINT ck_addresses_code_hash CHECK (length(code_hash) = 32),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CONSTRAINT ck_addresses_expires_at CHECK (expires_at > created_at),
    confirmed_at timestamptz CONSTRAINT ck_addresses_confirmed_at CHECK (confirmed_at < expires_at),
    removed_at timestamptz,
    CONSTRAINT uq_addresses_id_person_id UNIQUE (id, person_id)
);
CREATE UNIQUE INDEX uq_addresses_person_id_email ON addresses (person_id, lower(email)) WHERE removed_at IS NULL;
CREATE INDEX ix_addresses_email ON addresses (lower(email)) WHERE removed_at IS NULL;
CREATE INDEX ix_addresses_person_id_created_at ON addresses (person_id, created_at);

CREATE TABLE watchers (
    id uuid CONSTRAINT pk_watchers PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_watchers_tenant_id REFERENCES tenants (id),
    service varchar(63),
    name varchar(200) NOT NULL CONSTRAINT ck_watchers_name CHECK (name <> ''),
    email varchar(320) NOT NULL CONSTRAINT ck_watchers_email CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    added_by uuid NOT NULL CONSTRAINT fk_watchers_added_by REFERENCES people (id),
    created_at timestamptz NOT NULL,
    removed_at timestamptz,
    CONSTRAINT uq_watchers_id_tenant_id UNIQUE (id, tenant_id)
);
CREATE UNIQUE INDEX uq_watchers_tenant_id_service_email ON watchers (tenant_id, service, lower(email))
    NULLS NOT DISTINCT WHERE removed_at IS NULL;
CREATE INDEX ix_watchers_email ON watchers (lower(email)) WHERE removed_at IS NULL;
"""

# A notice to a further address names its person too, one to a watcher nobody.
NOTICES = """
ALTER TABLE notices ADD COLUMN address_id uuid, ADD COLUMN watcher_id uuid,
    ADD CONSTRAINT fk_notices_address_id FOREIGN KEY (address_id, person_id) REFERENCES addresses (id, person_id),
    ADD CONSTRAINT fk_notices_watcher_id FOREIGN KEY (watcher_id, tenant_id) REFERENCES watchers (id, tenant_id),
    DROP CONSTRAINT uq_notices_event_id_person_id_endpoint_id_about_id,
    ADD CONSTRAINT uq_notices_event_id_recipient UNIQUE NULLS NOT DISTINCT
        (event_id, person_id, endpoint_id, about_id, address_id, watcher_id),
    DROP CONSTRAINT ck_notices_recipient,
    ADD CONSTRAINT ck_notices_recipient CHECK (CASE channel
        WHEN 'mail' THEN endpoint_id IS NULL AND num_nonnulls(person_id, about_id, watcher_id) = 1
            AND (address_id IS NULL OR person_id IS NOT NULL) AND (watcher_id IS NULL OR tenant_id IS NOT NULL)
        ELSE endpoint_id IS NOT NULL AND num_nonnulls(person_id, about_id, watcher_id, address_id) = 0 END);
-- Who heard of a request, for those are told how it ended.
CREATE INDEX ix_notices_heard ON notices (request_id) INCLUDE (person_id)
    WHERE template IN ('pending', 'active') AND person_id IS NOT NULL;
"""

# Each answers with less than a row: whether, how many, and ids.
SIGHT = """
CREATE FUNCTION is_sign_in(address text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM people p WHERE lower(p.email) = lower(address))
$$;
CREATE FUNCTION is_across(address text, of_side text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM people p WHERE lower(p.email) = lower(address) AND p.side <> of_side)
        OR EXISTS (SELECT FROM addresses a JOIN people p ON p.id = a.person_id WHERE lower(a.email) = lower(address)
            AND a.removed_at IS NULL AND a.confirmed_at IS NOT NULL AND p.side <> of_side)
        OR (of_side = 'vendor' AND EXISTS (SELECT FROM watchers w
            WHERE lower(w.email) = lower(address) AND w.removed_at IS NULL))
$$;
-- Whoever causes a notice need not read where else its readers have it sent.
CREATE FUNCTION mailboxes(tenants uuid[], persons uuid[]) RETURNS TABLE (person_id uuid, id uuid, prompts boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.person_id, a.id, a.prompts FROM addresses a
    WHERE a.confirmed_at IS NOT NULL AND a.removed_at IS NULL AND a.person_id IN (
        SELECT m.person_id FROM memberships m WHERE m.tenant_id = ANY (tenants)
            AND (session_user <> 'lockbox_api' OR m.tenant_id = ANY (at_reach()))
        UNION ALL SELECT m.person_id FROM memberships m WHERE m.tenant_id IS NULL AND m.role = 'manager'
        UNION ALL SELECT unnest(persons))
$$;
CREATE FUNCTION watching(tenants uuid[]) RETURNS TABLE (tenant_id uuid, id uuid, service text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT w.tenant_id, w.id, w.service FROM watchers w WHERE w.removed_at IS NULL AND w.tenant_id = ANY (tenants)
        AND (session_user <> 'lockbox_api' OR w.tenant_id = ANY (at_reach()))
$$;
REVOKE ALL ON FUNCTION is_sign_in, is_across, mailboxes, watching FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_sign_in, is_across, mailboxes, watching TO lockbox_api;
GRANT EXECUTE ON FUNCTION mailboxes, watching TO lockbox_worker;
"""

SECURITY = """
ALTER TABLE addresses ENABLE ROW LEVEL SECURITY;
ALTER TABLE addresses FORCE ROW LEVEL SECURITY;
CREATE POLICY api_select ON addresses FOR SELECT TO lockbox_api USING (person_id = (SELECT at_person())
    OR EXISTS (SELECT FROM memberships m WHERE m.person_id = addresses.person_id
        AND CASE WHEN m.tenant_id IS NULL THEN cardinality((SELECT at_roles())) > 0
            ELSE m.tenant_id = ANY ((SELECT at_tenants())::uuid[]) END));
CREATE POLICY api_insert ON addresses FOR INSERT TO lockbox_api WITH CHECK (person_id = (SELECT at_person())
    AND confirmed_at IS NULL AND removed_at IS NULL AND code_hash IS NULL);
CREATE POLICY api_update ON addresses FOR UPDATE TO lockbox_api USING (person_id = (SELECT at_person()));
CREATE POLICY worker ON addresses FOR ALL TO lockbox_worker USING (true);
GRANT SELECT, INSERT ON addresses TO lockbox_api;
GRANT UPDATE (prompts, confirmed_at, removed_at) ON addresses TO lockbox_api;
GRANT SELECT (id, person_id, email, created_at, expires_at, confirmed_at, removed_at) ON addresses
    TO lockbox_worker;
GRANT UPDATE (code_hash) ON addresses TO lockbox_worker;
CREATE TRIGGER never_revived BEFORE UPDATE ON addresses FOR EACH ROW
    WHEN (OLD.removed_at IS NOT NULL) EXECUTE FUNCTION refuse_change_by('address %s was removed');
CREATE TRIGGER confirmed_once BEFORE UPDATE ON addresses FOR EACH ROW
    WHEN (OLD.confirmed_at IS NOT NULL AND NEW.confirmed_at IS DISTINCT FROM OLD.confirmed_at)
    EXECUTE FUNCTION refuse_change_by('address %s was confirmed');

ALTER TABLE watchers ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchers FORCE ROW LEVEL SECURITY;
CREATE POLICY api_select ON watchers FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[]));
CREATE POLICY api_insert ON watchers FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND added_by = (SELECT at_person())
        AND removed_at IS NULL AND NOT is_across(email, 'customer'));
CREATE POLICY api_update ON watchers FOR UPDATE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[]));
CREATE POLICY worker ON watchers FOR ALL TO lockbox_worker USING (true);
GRANT SELECT, INSERT ON watchers TO lockbox_api;
GRANT UPDATE (removed_at) ON watchers TO lockbox_api;
GRANT SELECT ON watchers TO lockbox_worker;
CREATE TRIGGER never_revived BEFORE UPDATE ON watchers FOR EACH ROW
    WHEN (OLD.removed_at IS NOT NULL) EXECUTE FUNCTION refuse_change_by('watcher %s was removed');

ALTER POLICY api_select ON deliveries USING (
    CASE WHEN endpoint_id IS NOT NULL THEN EXISTS (SELECT FROM endpoints h WHERE h.id = endpoint_id)
    ELSE EXISTS (SELECT FROM notices n JOIN memberships m ON m.person_id = n.person_id
        WHERE n.id = notice_id AND CASE WHEN m.tenant_id IS NULL THEN cardinality((SELECT at_roles())) > 0
            ELSE m.tenant_id = ANY ((SELECT at_tenants())::uuid[]) END)
        OR EXISTS (SELECT FROM notices n JOIN watchers w ON w.id = n.watcher_id WHERE n.id = notice_id) END);
"""

# Nobody is on both sides: whoever signs in by an address takes it from the other one.
TAKEN = """
CREATE FUNCTION take_from_the_other_side() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE addresses a SET removed_at = clock_timestamp() FROM people p
    WHERE p.id = a.person_id AND p.side <> NEW.side AND lower(a.email) = lower(NEW.email) AND a.removed_at IS NULL;
    UPDATE watchers w SET removed_at = clock_timestamp()
    WHERE NEW.side = 'vendor' AND lower(w.email) = lower(NEW.email) AND w.removed_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER takes_its_address AFTER INSERT ON people FOR EACH ROW EXECUTE FUNCTION take_from_the_other_side();
"""


def upgrade() -> None:
    """Add the tables, who may do what with them, and the two kinds of recipients."""
    for part in (TABLES, NOTICES, SIGHT, SECURITY, TAKEN):
        op.execute(part)
