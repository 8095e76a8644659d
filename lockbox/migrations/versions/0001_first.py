"""The first schema: people, requests, notices, audit; what the database itself refuses; who may do what."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE tenants (
    id uuid CONSTRAINT pk_tenants PRIMARY KEY,
    slug varchar(63) NOT NULL CONSTRAINT uq_tenants_slug UNIQUE
        CONSTRAINT ck_tenants_slug CHECK (slug ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'),
    name varchar(200) NOT NULL CONSTRAINT ck_tenants_name CHECK (name <> ''),
    mode varchar(24) NOT NULL CONSTRAINT ck_tenants_mode CHECK (mode IN ('enforce', 'observe', 'off')),
    suspended boolean NOT NULL,
    policy jsonb NOT NULL,
    created_at timestamptz NOT NULL
);
CREATE TABLE people (
    id uuid CONSTRAINT pk_people PRIMARY KEY,
    name varchar(200) NOT NULL CONSTRAINT ck_people_name CHECK (name <> ''),
    email varchar(320) NOT NULL CONSTRAINT ck_people_email CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    disabled_at timestamptz,
    created_at timestamptz NOT NULL
);
CREATE UNIQUE INDEX uq_people_email ON people (lower(email));
CREATE TABLE memberships (
    id uuid CONSTRAINT pk_memberships PRIMARY KEY,
    person_id uuid NOT NULL CONSTRAINT fk_memberships_person_id REFERENCES people (id),
    tenant_id uuid CONSTRAINT fk_memberships_tenant_id REFERENCES tenants (id),
    role varchar(24) NOT NULL,
    CONSTRAINT uq_memberships_person_id_tenant_id_role UNIQUE NULLS NOT DISTINCT (person_id, tenant_id, role),
    CONSTRAINT ck_memberships_side CHECK (CASE WHEN tenant_id IS NULL
        THEN role IN ('engineer', 'manager', 'operator', 'vendor_auditor', 'system')
        ELSE role IN ('tenant_admin', 'approver', 'auditor') END)
);
CREATE INDEX ix_memberships_tenant_id_role ON memberships (tenant_id, role);
CREATE TABLE tokens (
    id uuid CONSTRAINT pk_tokens PRIMARY KEY,
    person_id uuid NOT NULL CONSTRAINT fk_tokens_person_id REFERENCES people (id),
    secret_hash bytea NOT NULL CONSTRAINT ck_tokens_secret_hash CHECK (length(secret_hash) = 32),
    scopes text[] NOT NULL,
    services text[] NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL
);
CREATE INDEX ix_tokens_person_id ON tokens (person_id);

CREATE TABLE requests (
    id uuid CONSTRAINT pk_requests PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_requests_tenant_id REFERENCES tenants (id),
    requester_id uuid NOT NULL CONSTRAINT fk_requests_requester_id REFERENCES people (id),
    service varchar(63) NOT NULL,
    resources text[] NOT NULL CONSTRAINT ck_requests_resources CHECK (cardinality(resources) BETWEEN 1 AND 50),
    actions text[] NOT NULL CONSTRAINT ck_requests_actions CHECK (cardinality(actions) BETWEEN 1 AND 20),
    reason_code varchar(24) NOT NULL,
    justification varchar(4000) NOT NULL CONSTRAINT ck_requests_justification CHECK (justification <> ''),
    case_ref varchar(100),
    mode varchar(24) NOT NULL CONSTRAINT ck_requests_mode CHECK (mode IN ('enforce', 'observe', 'off')),
    quorum integer NOT NULL CONSTRAINT ck_requests_quorum CHECK (quorum >= 1),
    approval_window integer NOT NULL CONSTRAINT ck_requests_approval_window CHECK (approval_window >= 1),
    access_window integer NOT NULL CONSTRAINT ck_requests_access_window CHECK (access_window BETWEEN 1 AND 604800),
    state varchar(24) NOT NULL CONSTRAINT ck_requests_state CHECK (state IN ('reviewing', 'pending', 'active',
        'denied', 'cancelled', 'timed_out', 'completed', 'revoked', 'expired')),
    version integer NOT NULL CONSTRAINT ck_requests_version CHECK (version >= 1),
    deadline_at timestamptz NOT NULL,
    wake_at timestamptz,
    created_at timestamptz NOT NULL,
    asked_at timestamptz,
    opened_at timestamptz,
    closed_at timestamptz,
    CONSTRAINT ck_requests_clock CHECK ((state IN ('reviewing', 'pending', 'active'))
        = (wake_at IS NOT NULL) AND (wake_at IS NULL) = (closed_at IS NOT NULL)),
    CONSTRAINT ck_requests_window CHECK (state <> 'active'
        OR deadline_at <= opened_at + access_window * interval '1 second'),
    CONSTRAINT ck_requests_wake_at CHECK (wake_at <= deadline_at),
    CONSTRAINT ck_requests_opened_at CHECK (state NOT IN ('active', 'completed', 'revoked', 'expired')
        OR opened_at IS NOT NULL)
);
CREATE INDEX ix_requests_wake_at ON requests (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX ix_requests_tenant_id_id ON requests (tenant_id, id);
CREATE INDEX ix_requests_requester_id_id ON requests (requester_id, id);
CREATE INDEX ix_requests_open_windows ON requests (requester_id, tenant_id) WHERE state = 'active';

CREATE TABLE decisions (
    id uuid CONSTRAINT pk_decisions PRIMARY KEY,
    request_id uuid NOT NULL CONSTRAINT fk_decisions_request_id REFERENCES requests (id),
    person_id uuid NOT NULL CONSTRAINT fk_decisions_person_id REFERENCES people (id),
    verdict varchar(24) NOT NULL CONSTRAINT ck_decisions_verdict CHECK (verdict IN ('endorse', 'approve', 'deny')),
    access_window integer CONSTRAINT ck_decisions_access_window CHECK (access_window >= 1),
    comment varchar(2000),
    channel varchar(24) NOT NULL,
    address varchar(45),
    user_agent varchar(256),
    decided_at timestamptz NOT NULL,
    CONSTRAINT uq_decisions_request_id_person_id_verdict UNIQUE (request_id, person_id, verdict)
);

CREATE TABLE idempotency_keys (
    person_id uuid NOT NULL CONSTRAINT fk_idempotency_keys_person_id REFERENCES people (id),
    key varchar(255) NOT NULL,
    body_hash bytea NOT NULL,
    answer jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (person_id, key)
);
CREATE INDEX ix_idempotency_keys_created_at ON idempotency_keys (created_at);

CREATE TABLE events (
    id uuid CONSTRAINT pk_events PRIMARY KEY,
    tenant_id uuid,
    request_id uuid CONSTRAINT fk_events_request_id REFERENCES requests (id),
    seq integer CONSTRAINT ck_events_seq CHECK (seq >= 1),
    at timestamptz NOT NULL,
    action varchar(24) NOT NULL,
    actor_id uuid,
    actor_role varchar(24) NOT NULL,
    from_state varchar(24),
    to_state varchar(24),
    deadline_at timestamptz,
    body bytea NOT NULL,
    CONSTRAINT uq_events_request_id_seq UNIQUE (request_id, seq),
    CONSTRAINT ck_events_actor CHECK ((actor_id IS NULL) = (actor_role = 'clock')),
    CONSTRAINT ck_events_move CHECK (seq IS NULL OR (request_id IS NOT NULL AND to_state IS NOT NULL))
);
CREATE TABLE event_details (
    event_id uuid NOT NULL CONSTRAINT fk_event_details_event_id REFERENCES events (id),
    field varchar(24) NOT NULL,
    salt bytea NOT NULL,
    value text NOT NULL,
    CONSTRAINT pk_event_details PRIMARY KEY (event_id, field)
);
CREATE TABLE unsealed (
    event_id uuid CONSTRAINT pk_unsealed PRIMARY KEY
);

CREATE TABLE endpoints (
    id uuid CONSTRAINT pk_endpoints PRIMARY KEY,
    tenant_id uuid CONSTRAINT fk_endpoints_tenant_id REFERENCES tenants (id),
    url varchar(2000) NOT NULL,
    secret bytea NOT NULL,
    event_types text[] NOT NULL,
    disabled_at timestamptz,
    created_at timestamptz NOT NULL
);
CREATE INDEX ix_endpoints_tenant_id ON endpoints (tenant_id);
CREATE TABLE notices (
    id uuid CONSTRAINT pk_notices PRIMARY KEY,
    tenant_id uuid NOT NULL,
    request_id uuid NOT NULL,
    event_id uuid NOT NULL,
    person_id uuid,
    endpoint_id uuid,
    channel varchar(24) NOT NULL,
    template varchar(24) NOT NULL,
    run_at timestamptz NOT NULL,
    until_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    closed_at timestamptz,
    outcome varchar(24) CONSTRAINT ck_notices_outcome CHECK (outcome IN ('sent', 'moot', 'dead')),
    last_error varchar(200),
    CONSTRAINT uq_notices_event_id_person_id_endpoint_id UNIQUE NULLS NOT DISTINCT (event_id, person_id, endpoint_id),
    CONSTRAINT ck_notices_recipient CHECK ((channel = 'mail' AND person_id IS NOT NULL AND endpoint_id IS NULL)
        OR (channel = 'webhook' AND endpoint_id IS NOT NULL AND person_id IS NULL)),
    CONSTRAINT ck_notices_closed CHECK ((closed_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX ix_notices_run_at ON notices (run_at) WHERE closed_at IS NULL;
"""

APPEND_ONLY = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON events FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON decisions FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON decisions FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
"""

NO_WINDOW_WITHOUT_DECISIONS = """
CREATE FUNCTION is_decided(request requests) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN request.mode = 'enforce' THEN
        NOT EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id AND d.verdict = 'deny')
        AND request.quorum <= (
            SELECT count(*) FROM decisions d
            WHERE d.request_id = request.id AND d.verdict = 'approve' AND d.person_id <> request.requester_id
            AND NOT EXISTS (SELECT FROM decisions e WHERE e.request_id = request.id
                AND e.verdict = 'endorse' AND e.person_id = d.person_id))
    ELSE
        EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id
            AND d.verdict = 'endorse' AND d.person_id <> request.requester_id)
    END
$$;
CREATE FUNCTION refuse_unfounded() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.state = 'active' AND NOT is_decided(NEW) THEN
        RAISE EXCEPTION 'request % is active without the decisions for it', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NOT EXISTS (SELECT FROM events e WHERE e.request_id = NEW.id AND e.seq = NEW.version
        AND e.to_state = NEW.state) THEN
        RAISE EXCEPTION 'request % moved without an event', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER moves_are_founded AFTER INSERT OR UPDATE ON requests
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_unfounded();

CREATE FUNCTION refuse_invented() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM requests r WHERE r.id = NEW.request_id AND r.version >= NEW.seq) THEN
        RAISE EXCEPTION 'event % tells of a move that was not made', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER events_are_true AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.seq IS NOT NULL) EXECUTE FUNCTION refuse_invented();
CREATE FUNCTION refuse_other_voice() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a worker speaks for the clock alone' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER workers_speak_for_the_clock BEFORE INSERT ON events FOR EACH ROW
    WHEN (current_user = 'lockbox_worker' AND (NEW.actor_role <> 'clock' OR (NEW.seq IS NOT NULL
        AND NEW.to_state NOT IN ('timed_out', 'expired')))) EXECUTE FUNCTION refuse_other_voice();

CREATE FUNCTION refuse_wrong_way() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NOT (CASE OLD.state
        WHEN 'reviewing' THEN NEW.state IN ('pending', 'active', 'denied', 'cancelled', 'timed_out')
        WHEN 'pending' THEN NEW.state IN ('pending', 'active', 'denied', 'cancelled', 'timed_out')
        WHEN 'active' THEN NEW.state IN ('completed', 'revoked', 'expired')
        ELSE false END) THEN
        RAISE EXCEPTION 'request % does not go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION 'request % changes by one move at a time', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF OLD.state = 'active' AND (NEW.deadline_at > OLD.deadline_at OR NEW.opened_at <> OLD.opened_at) THEN
        RAISE EXCEPTION 'the window of request % may not grow', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER one_way BEFORE UPDATE ON requests FOR EACH ROW EXECUTE FUNCTION refuse_wrong_way();
CREATE TRIGGER no_removal BEFORE DELETE ON requests FOR EACH ROW EXECUTE FUNCTION refuse_change();
"""

RIGHTS = """
GRANT SELECT ON alembic_version TO lockbox_api, lockbox_worker;

GRANT SELECT, INSERT ON tenants, people, memberships, tokens, endpoints, requests, decisions, events,
    event_details, notices TO lockbox_api;
GRANT INSERT ON unsealed TO lockbox_api;
GRANT UPDATE (name, mode, suspended, policy) ON tenants TO lockbox_api;
GRANT UPDATE (name, disabled_at) ON people TO lockbox_api;
GRANT DELETE ON memberships TO lockbox_api;
GRANT UPDATE (expires_at, revoked_at) ON tokens TO lockbox_api;
GRANT UPDATE (url, secret, event_types, disabled_at) ON endpoints TO lockbox_api;
GRANT UPDATE (state, version, deadline_at, wake_at, asked_at, opened_at, closed_at) ON requests TO lockbox_api;
GRANT SELECT, INSERT, UPDATE, DELETE ON idempotency_keys TO lockbox_api;

GRANT SELECT ON tenants, people, memberships, endpoints, requests, decisions, event_details TO lockbox_worker;
GRANT UPDATE (state, version, wake_at, closed_at) ON requests TO lockbox_worker;
GRANT SELECT, INSERT ON events TO lockbox_worker;
GRANT INSERT ON unsealed, event_details TO lockbox_worker;
GRANT SELECT, INSERT ON notices TO lockbox_worker;
GRANT UPDATE (run_at, attempts, closed_at, outcome, last_error) ON notices TO lockbox_worker;
GRANT SELECT, DELETE ON idempotency_keys TO lockbox_worker;
"""


def upgrade() -> None:
    for part in (TABLES, APPEND_ONLY, NO_WINDOW_WITHOUT_DECISIONS, RIGHTS):
        op.execute(part)
