-- The tables of Lockbox with their constraints and indexes, by noun: tenants and their policies, people, what they
-- sign in with, requests and decisions, the audit log, notifications, and what an operator watches.
--
-- Ids are UUIDv7 and sort by the time they were made. `mac` is a mark by a key that no login of the database holds
-- (four bytes of the key's id and an HMAC-SHA256): a row that gives power counts for nothing without it. A hash of a
-- secret is an HMAC of the same form, so both have 36 bytes.


-- People, tenants and roles

-- Nobody is both of the vendor and of a customer, whatever roles they get: see memberships.side.
CREATE TABLE people (
    id uuid CONSTRAINT pk_people PRIMARY KEY,
    side varchar(24) NOT NULL CONSTRAINT ck_people_side CHECK (side IN ('vendor', 'customer')),
    name varchar(200) NOT NULL CONSTRAINT ck_people_name CHECK (name <> ''),
    email varchar(320) NOT NULL CONSTRAINT ck_people_email CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    time_zone varchar(64) NOT NULL DEFAULT 'UTC'
        CONSTRAINT ck_people_time_zone CHECK (time_zone ~ '^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$'),
    wants_prompts boolean NOT NULL DEFAULT true,
    disabled_at timestamptz,
    created_at timestamptz NOT NULL,
    CONSTRAINT uq_people_id_side UNIQUE (id, side)
);
CREATE UNIQUE INDEX uq_people_email ON people (lower(email));

CREATE TABLE tenants (
    id uuid CONSTRAINT pk_tenants PRIMARY KEY,
    slug varchar(63) NOT NULL CONSTRAINT uq_tenants_slug UNIQUE
        CONSTRAINT ck_tenants_slug CHECK (slug ~ '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$'),
    name varchar(200) NOT NULL CONSTRAINT ck_tenants_name CHECK (name <> ''),
    plan varchar(63) NOT NULL,
    mode varchar(24) NOT NULL CONSTRAINT ck_tenants_mode CHECK (mode IN ('enforce', 'observe', 'off')),
    suspended boolean NOT NULL,
    policy_version integer NOT NULL,
    revision integer NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    mac bytea
);

-- Versions are only added. The first has no author: an operator adds it with the tenant.
CREATE TABLE policies (
    tenant_id uuid NOT NULL CONSTRAINT fk_policies_tenant_id REFERENCES tenants (id),
    version integer NOT NULL CONSTRAINT ck_policies_version CHECK (version >= 1),
    body jsonb NOT NULL,
    author_id uuid CONSTRAINT fk_policies_author_id REFERENCES people (id),
    created_at timestamptz NOT NULL,
    mac bytea,
    CONSTRAINT pk_policies PRIMARY KEY (tenant_id, version)
);
CREATE INDEX ix_policies_consent ON policies (tenant_id, version) WHERE body -> 'consent' ->> 'until' IS NOT NULL;

-- A tenant and its policy are written together, in either order.
ALTER TABLE tenants ADD CONSTRAINT fk_tenants_policy_version
    FOREIGN KEY (id, policy_version) REFERENCES policies (tenant_id, version) DEFERRABLE INITIALLY DEFERRED;

-- A role at a tenant, or at the vendor where there is no tenant. `review_tier` is the tier of the vendor's review in
-- which a manager is asked.
CREATE TABLE memberships (
    id uuid CONSTRAINT pk_memberships PRIMARY KEY,
    person_id uuid NOT NULL CONSTRAINT fk_memberships_person_id REFERENCES people (id),
    tenant_id uuid CONSTRAINT fk_memberships_tenant_id REFERENCES tenants (id),
    side varchar(24) NOT NULL
        GENERATED ALWAYS AS (CASE WHEN tenant_id IS NULL THEN 'vendor' ELSE 'customer' END) STORED,
    role varchar(24) NOT NULL,
    review_tier integer NOT NULL DEFAULT 1 CONSTRAINT ck_memberships_review_tier CHECK (review_tier = 1
        OR (review_tier BETWEEN 2 AND 5 AND tenant_id IS NULL AND role = 'manager')),
    mac bytea,
    CONSTRAINT uq_memberships_person_id_tenant_id_role UNIQUE NULLS NOT DISTINCT (person_id, tenant_id, role),
    CONSTRAINT fk_memberships_side FOREIGN KEY (person_id, side) REFERENCES people (id, side),
    CONSTRAINT ck_memberships_side CHECK (CASE WHEN tenant_id IS NULL
        THEN role IN ('engineer', 'manager', 'operator', 'vendor_auditor', 'system')
        ELSE role IN ('tenant_admin', 'approver', 'auditor') END)
);
CREATE INDEX ix_memberships_tenant_id_role ON memberships (tenant_id, role);

CREATE TABLE invitations (
    id uuid CONSTRAINT pk_invitations PRIMARY KEY,
    tenant_id uuid CONSTRAINT fk_invitations_tenant_id REFERENCES tenants (id),
    email varchar(320) NOT NULL CONSTRAINT ck_invitations_email CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    name varchar(200) NOT NULL CONSTRAINT ck_invitations_name CHECK (name <> ''),
    roles text[] NOT NULL CONSTRAINT ck_invitations_roles CHECK (cardinality(roles) >= 1
        AND roles <@ CASE WHEN tenant_id IS NULL
            THEN '{engineer,manager,operator,vendor_auditor,system}'::text[]
            ELSE '{tenant_admin,approver,auditor}'::text[] END),
    is_recovery boolean NOT NULL,
    invited_by uuid NOT NULL CONSTRAINT fk_invitations_invited_by REFERENCES people (id),
    created_at timestamptz NOT NULL,
    takes_effect_at timestamptz NOT NULL,
    secret_hash bytea CONSTRAINT ck_invitations_secret_hash CHECK (length(secret_hash) = 36),
    code_nonce bytea,
    expires_at timestamptz,
    accepted_at timestamptz,
    accepted_by uuid CONSTRAINT fk_invitations_accepted_by REFERENCES people (id),
    withdrawn_at timestamptz,
    withdrawn_by uuid CONSTRAINT fk_invitations_withdrawn_by REFERENCES people (id),
    mac bytea,
    CONSTRAINT ck_invitations_ended CHECK (accepted_at IS NULL OR withdrawn_at IS NULL)
);
CREATE INDEX ix_invitations_tenant_id ON invitations (tenant_id);

-- Whom an admin has allowed to decide for an approver, and when they do.
CREATE TABLE eligible_delegates (
    tenant_id uuid NOT NULL CONSTRAINT fk_eligible_delegates_tenant_id REFERENCES tenants (id),
    person_id uuid NOT NULL CONSTRAINT fk_eligible_delegates_person_id REFERENCES people (id),
    id uuid NOT NULL DEFAULT uuidv7(),
    mac bytea,
    CONSTRAINT pk_eligible_delegates PRIMARY KEY (tenant_id, person_id)
);

CREATE TABLE delegations (
    id uuid CONSTRAINT pk_delegations PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_delegations_tenant_id REFERENCES tenants (id),
    principal_id uuid NOT NULL CONSTRAINT fk_delegations_principal_id REFERENCES people (id),
    delegate_id uuid NOT NULL CONSTRAINT fk_delegations_delegate_id REFERENCES people (id),
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    made_by uuid NOT NULL CONSTRAINT fk_delegations_made_by REFERENCES people (id),
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    mac bytea,
    CONSTRAINT ck_delegations_self CHECK (principal_id <> delegate_id),
    CONSTRAINT ck_delegations_period CHECK (ends_at > starts_at)
);
CREATE INDEX ix_delegations_tenant_id_ends_at ON delegations (tenant_id, ends_at);


-- What people sign in with

-- `only_at`, here and below: what was shown counts at this tenant alone.
CREATE TABLE passkeys (
    id uuid CONSTRAINT pk_passkeys PRIMARY KEY,
    person_id uuid NOT NULL CONSTRAINT fk_passkeys_person_id REFERENCES people (id),
    only_at uuid CONSTRAINT fk_passkeys_only_at REFERENCES tenants (id),
    name varchar(100) NOT NULL,
    credential_id bytea NOT NULL CONSTRAINT uq_passkeys_credential_id UNIQUE,
    public_key bytea NOT NULL,
    sign_count bigint NOT NULL,
    created_at timestamptz NOT NULL,
    trusted_at timestamptz NOT NULL,
    last_used_at timestamptz,
    mac bytea
);
CREATE INDEX ix_passkeys_person_id ON passkeys (person_id);

-- An account at an identity provider.
CREATE TABLE identities (
    issuer varchar(500) NOT NULL,
    subject varchar(255) NOT NULL,
    person_id uuid NOT NULL CONSTRAINT fk_identities_person_id REFERENCES people (id),
    created_at timestamptz NOT NULL,
    trusted_at timestamptz NOT NULL,
    mac bytea,
    CONSTRAINT pk_identities PRIMARY KEY (issuer, subject)
);
CREATE INDEX ix_identities_person_id ON identities (person_id);

-- Whom the gate takes a caller for: an operator's word, by which nobody signs in. The issuer is an identity provider's,
-- or `mtls:` and a service, or `header:` and a gateway.
CREATE TABLE gate_identities (
    id uuid CONSTRAINT pk_gate_identities PRIMARY KEY,
    issuer varchar(500) NOT NULL CONSTRAINT ck_gate_identities_issuer CHECK (issuer <> ''),
    subject varchar(500) NOT NULL CONSTRAINT ck_gate_identities_subject CHECK (subject <> ''),
    person_id uuid NOT NULL CONSTRAINT fk_gate_identities_person_id REFERENCES people (id),
    added_by uuid NOT NULL CONSTRAINT fk_gate_identities_added_by REFERENCES people (id),
    created_at timestamptz NOT NULL,
    mac bytea,
    CONSTRAINT uq_gate_identities_issuer_subject UNIQUE (issuer, subject)
);
CREATE INDEX ix_gate_identities_person_id ON gate_identities (person_id);

-- What the catalogue says that the gate of a service does, as the API has recorded it. Each switch is a revision. What
-- was enforced once only reports for tenants with a consent to this revision.
CREATE TABLE enforcements (
    id uuid CONSTRAINT pk_enforcements PRIMARY KEY,
    service varchar(63) NOT NULL CONSTRAINT uq_enforcements_service UNIQUE,
    wanted varchar(24) NOT NULL CONSTRAINT ck_enforcements_wanted CHECK (wanted IN ('report', 'enforce')),
    revision integer NOT NULL CONSTRAINT ck_enforcements_revision CHECK (revision >= 1),
    enforced_at timestamptz,
    changed_at timestamptz NOT NULL,
    mac bytea,
    CONSTRAINT ck_enforcements_enforced_at CHECK (wanted = 'report' OR enforced_at IS NOT NULL)
);

-- Each revision that the logs are to tell of. `announced_to` is the last tenant, in the order of ids, in whose log it
-- is; before that it is null, and then the vendor's.
CREATE TABLE enforcement_switches (
    id uuid CONSTRAINT pk_enforcement_switches PRIMARY KEY,
    enforcement_id uuid NOT NULL CONSTRAINT fk_enforcement_switches_enforcement_id REFERENCES enforcements (id),
    revision integer NOT NULL CONSTRAINT ck_enforcement_switches_revision CHECK (revision >= 1),
    wanted varchar(24) NOT NULL CONSTRAINT ck_enforcement_switches_wanted CHECK (wanted IN ('report', 'enforce')),
    was_enforced boolean NOT NULL,
    switched_at timestamptz NOT NULL,
    announced_to uuid,
    CONSTRAINT uq_enforcement_switches_enforcement_id_revision UNIQUE (enforcement_id, revision)
);

-- The yes of a tenant's admin to it that a gate which was enforced only reports: to one revision, until it is removed.
CREATE TABLE report_consents (
    id uuid CONSTRAINT pk_report_consents PRIMARY KEY,
    enforcement_id uuid NOT NULL CONSTRAINT fk_report_consents_enforcement_id REFERENCES enforcements (id),
    tenant_id uuid NOT NULL CONSTRAINT fk_report_consents_tenant_id REFERENCES tenants (id),
    revision integer NOT NULL,
    person_id uuid NOT NULL CONSTRAINT fk_report_consents_person_id REFERENCES people (id),
    created_at timestamptz NOT NULL,
    mac bytea,
    CONSTRAINT uq_report_consents_enforcement_id_tenant_id UNIQUE (enforcement_id, tenant_id)
);
CREATE INDEX ix_report_consents_tenant_id ON report_consents (tenant_id);

-- A token of the API. One with `means` is a terminal's: it lasts as long as the sign-in that allowed it, at most.
CREATE TABLE tokens (
    id uuid CONSTRAINT pk_tokens PRIMARY KEY,
    person_id uuid NOT NULL CONSTRAINT fk_tokens_person_id REFERENCES people (id),
    only_at uuid CONSTRAINT fk_tokens_only_at REFERENCES tenants (id),
    name varchar(100) NOT NULL CONSTRAINT ck_tokens_name CHECK (name <> ''),
    secret_hash bytea NOT NULL CONSTRAINT ck_tokens_secret_hash CHECK (length(secret_hash) = 36),
    scopes text[] NOT NULL,
    services text[] NOT NULL,
    is_sample boolean NOT NULL,
    by_mail boolean NOT NULL,
    means varchar(24) CONSTRAINT ck_tokens_means CHECK (means IN ('oidc', 'passkey', 'mail', 'sample')),
    signed_in_at timestamptz,
    replaces uuid CONSTRAINT fk_tokens_replaces REFERENCES tokens (id),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    last_used_at timestamptz,
    revoked_at timestamptz,
    mac bytea,
    CONSTRAINT ck_tokens_signed_in_at CHECK ((means IS NULL) = (signed_in_at IS NULL)),
    CONSTRAINT ck_tokens_device_login CHECK (means IS NULL
        OR (expires_at - created_at <= interval '15 minutes' AND replaces IS NULL AND NOT is_sample))
);
CREATE INDEX ix_tokens_person_id ON tokens (person_id);

CREATE TABLE sessions (
    id uuid CONSTRAINT pk_sessions PRIMARY KEY,
    person_id uuid NOT NULL CONSTRAINT fk_sessions_person_id REFERENCES people (id),
    only_at uuid CONSTRAINT fk_sessions_only_at REFERENCES tenants (id),
    secret_hash bytea NOT NULL CONSTRAINT uq_sessions_secret_hash UNIQUE
        CONSTRAINT ck_sessions_secret_hash CHECK (length(secret_hash) = 36),
    means varchar(24) NOT NULL CONSTRAINT ck_sessions_means CHECK (means IN ('oidc', 'passkey', 'mail', 'sample')),
    signed_in_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    address varchar(45),
    user_agent varchar(256),
    mac bytea
);
CREATE INDEX ix_sessions_person_id ON sessions (person_id);

-- A sign-in that was begun in a browser and waits for its proof.
CREATE TABLE sign_ins (
    id uuid CONSTRAINT pk_sign_ins PRIMARY KEY,
    browser_hash bytea NOT NULL CONSTRAINT ck_sign_ins_browser_hash CHECK (length(browser_hash) = 36),
    means varchar(24) NOT NULL CONSTRAINT ck_sign_ins_means CHECK (means IN ('oidc', 'passkey', 'mail')),
    email varchar(320),
    code_nonce bytea,
    issuer varchar(500),
    state_hash bytea,
    nonce varchar(100),
    verifier varchar(200),
    challenge bytea,
    tries integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    proven_at timestamptz,
    used_at timestamptz
);
CREATE INDEX ix_sign_ins_expires_at ON sign_ins (expires_at);

CREATE TABLE sign_in_counts (
    key bytea CONSTRAINT pk_sign_in_counts PRIMARY KEY CONSTRAINT ck_sign_in_counts_key CHECK (length(key) = 32),
    since timestamptz NOT NULL,
    count integer NOT NULL
);
CREATE INDEX ix_sign_in_counts_since ON sign_in_counts (since);

-- A terminal asks for a code; who types it into a page lets it act for a quarter of an hour, as that session could.
CREATE TABLE device_logins (
    id uuid CONSTRAINT pk_device_logins PRIMARY KEY,
    secret_hash bytea NOT NULL CONSTRAINT uq_device_logins_secret_hash UNIQUE
        CONSTRAINT ck_device_logins_secret_hash CHECK (length(secret_hash) = 36),
    code_hash bytea NOT NULL CONSTRAINT uq_device_logins_code_hash UNIQUE
        CONSTRAINT ck_device_logins_code_hash CHECK (length(code_hash) = 36),
    address varchar(45),
    user_agent varchar(256),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    answered_by uuid CONSTRAINT fk_device_logins_answered_by REFERENCES people (id),
    answered_at timestamptz,
    is_allowed boolean,
    CONSTRAINT ck_device_logins_answer CHECK (num_nulls(answered_by, answered_at, is_allowed) IN (0, 3))
);
CREATE INDEX ix_device_logins_expires_at ON device_logins (expires_at);

-- The marks of rows that were removed or marked anew: such a row does not come back.
CREATE TABLE ended_powers (
    mac bytea CONSTRAINT pk_ended_powers PRIMARY KEY,
    ended_at timestamptz NOT NULL
);


-- Requests and decisions

-- A row is where the request is now; `version` counts its moves, each of which is an event. `wake_at` is when the
-- clock next has something to do: remind somebody, time out or expire. Windows are in seconds.
--
-- `quorum`, `mode`, `consent_until` and `approve_means` are the terms by which it is decided and only get stricter.
-- `granted_resources` and `granted_actions` are what a window was opened for, null where that is all that was asked
-- for. While a question stops the clock, `stopped_deadline` is the deadline of before, and `deadline_at` the last
-- that it may become.
CREATE TABLE requests (
    id uuid CONSTRAINT pk_requests PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_requests_tenant_id REFERENCES tenants (id),
    requester_id uuid NOT NULL CONSTRAINT fk_requests_requester_id REFERENCES people (id),
    submitted_by uuid CONSTRAINT fk_requests_submitted_by REFERENCES people (id),
    token_id uuid,
    follows uuid CONSTRAINT fk_requests_follows REFERENCES requests (id),

    service varchar(63) NOT NULL,
    resources text[] NOT NULL CONSTRAINT ck_requests_resources CHECK (cardinality(resources) BETWEEN 1 AND 50),
    actions text[] NOT NULL CONSTRAINT ck_requests_actions CHECK (cardinality(actions) BETWEEN 1 AND 20),
    reason_code varchar(24) NOT NULL,
    justification varchar(4000) NOT NULL CONSTRAINT ck_requests_justification CHECK (justification <> ''),
    case_ref varchar(100),

    policy_version integer NOT NULL,
    mode varchar(24) NOT NULL CONSTRAINT ck_requests_mode CHECK (mode IN ('enforce', 'observe', 'off')),
    consent_until timestamptz,
    quorum integer NOT NULL CONSTRAINT ck_requests_quorum CHECK (quorum >= 1),
    approve_means varchar(24) NOT NULL DEFAULT 'attested'
        CONSTRAINT ck_requests_approve_means CHECK (approve_means IN ('attested', 'passkey-signed')),
    approval_window integer NOT NULL CONSTRAINT ck_requests_approval_window CHECK (approval_window >= 1),
    access_window integer NOT NULL CONSTRAINT ck_requests_access_window CHECK (access_window BETWEEN 1 AND 604800),
    max_uses integer CONSTRAINT ck_requests_max_uses CHECK (max_uses BETWEEN 1 AND 1000),
    used integer NOT NULL DEFAULT 0 CONSTRAINT ck_requests_used CHECK (used BETWEEN 0 AND coalesce(max_uses, 0)),

    state varchar(24) NOT NULL CONSTRAINT ck_requests_state CHECK (state IN ('reviewing', 'pending', 'active',
        'denied', 'cancelled', 'timed_out', 'completed', 'revoked', 'expired')),
    version integer NOT NULL CONSTRAINT ck_requests_version CHECK (version >= 1),
    granted_resources text[] CONSTRAINT ck_requests_granted_resources
        CHECK (cardinality(granted_resources) >= 1 AND granted_resources <@ resources),
    granted_actions text[] CONSTRAINT ck_requests_granted_actions
        CHECK (cardinality(granted_actions) >= 1 AND granted_actions <@ actions),

    created_at timestamptz NOT NULL,
    asked_at timestamptz,
    opened_at timestamptz,
    closed_at timestamptz,
    deadline_at timestamptz NOT NULL,
    wake_at timestamptz CONSTRAINT ck_requests_wake_at CHECK (wake_at <= deadline_at),
    reminders integer NOT NULL DEFAULT 0 CONSTRAINT ck_requests_reminders CHECK (reminders >= 0),
    tiers_asked integer NOT NULL DEFAULT 0 CONSTRAINT ck_requests_tiers_asked CHECK (tiers_asked >= 0),
    warned boolean NOT NULL DEFAULT false,
    stopped_at timestamptz,
    stopped_deadline timestamptz,
    stopped_for integer NOT NULL DEFAULT 0
        CONSTRAINT ck_requests_stopped_for CHECK (stopped_for BETWEEN 0 AND approval_window),

    CONSTRAINT fk_requests_policy_version FOREIGN KEY (tenant_id, policy_version)
        REFERENCES policies (tenant_id, version),
    CONSTRAINT ck_requests_clock CHECK ((state IN ('reviewing', 'pending', 'active')) = (wake_at IS NOT NULL)
        AND (wake_at IS NULL) = (closed_at IS NOT NULL)),
    CONSTRAINT ck_requests_opened_at CHECK (state NOT IN ('active', 'completed', 'revoked', 'expired')
        OR opened_at IS NOT NULL),
    CONSTRAINT ck_requests_window CHECK (state <> 'active'
        OR deadline_at <= opened_at + access_window * interval '1 second'),
    CONSTRAINT ck_requests_granted CHECK (opened_at IS NOT NULL
        OR (granted_resources IS NULL AND granted_actions IS NULL)),
    CONSTRAINT ck_requests_consent_until CHECK (consent_until IS NULL OR mode <> 'enforce'),
    CONSTRAINT ck_requests_consent CHECK (state <> 'active' OR consent_until IS NULL OR deadline_at <= consent_until),
    CONSTRAINT ck_requests_stopped CHECK (CASE WHEN stopped_at IS NULL THEN stopped_deadline IS NULL
        ELSE stopped_deadline IS NOT NULL
            AND deadline_at <= stopped_deadline + (approval_window - stopped_for) * interval '1 second' END)
);
CREATE INDEX ix_requests_wake_at ON requests (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX ix_requests_tenant_id_id ON requests (tenant_id, id);
CREATE INDEX ix_requests_requester_id_id ON requests (requester_id, id);
-- Nearly everybody submits for themselves; this is for the requests that a system submits for somebody.
CREATE INDEX ix_requests_submitted_by_id ON requests (submitted_by, id) WHERE submitted_by <> requester_id;
-- Of what is open, by state: lists by the deadline and by the id, and the access check. What is closed has no entry.
CREATE INDEX ix_requests_open_of_tenant ON requests (tenant_id, state, deadline_at, id)
    WHERE state IN ('reviewing', 'pending', 'active');
CREATE INDEX ix_requests_open_of_requester ON requests (requester_id, state, id)
    WHERE state IN ('reviewing', 'pending', 'active');
CREATE INDEX ix_requests_open_by_id ON requests (state, id) WHERE state IN ('reviewing', 'pending', 'active');
CREATE INDEX ix_requests_open_by_deadline ON requests (state, deadline_at, id) WHERE state IN ('reviewing', 'active');
CREATE INDEX ix_requests_denied ON requests (tenant_id, service) WHERE state = 'denied' AND asked_at IS NOT NULL;
CREATE INDEX ix_requests_tenant_id_case_ref ON requests (tenant_id, case_ref) WHERE case_ref IS NOT NULL;
CREATE INDEX ix_requests_follows ON requests (follows) WHERE follows IS NOT NULL;
CREATE UNIQUE INDEX uq_requests_follows_open ON requests (follows) WHERE follows IS NOT NULL AND closed_at IS NULL;

-- `access_window`, `resources` and `actions` are what an approval allows, null where that is all that was asked for.
-- `max_uses` is how many uses it is for, null for any number.
-- `principals` names those for whom a delegate decided.
CREATE TABLE decisions (
    id uuid CONSTRAINT pk_decisions PRIMARY KEY,
    request_id uuid NOT NULL CONSTRAINT fk_decisions_request_id REFERENCES requests (id),
    person_id uuid NOT NULL CONSTRAINT fk_decisions_person_id REFERENCES people (id),
    principals uuid[] NOT NULL,
    decision varchar(24) NOT NULL CONSTRAINT ck_decisions_decision CHECK (decision IN ('endorse', 'approve', 'deny')),
    access_window integer CONSTRAINT ck_decisions_access_window CHECK (access_window >= 1),
    resources text[] CONSTRAINT ck_decisions_resources CHECK (cardinality(resources) >= 1),
    actions text[] CONSTRAINT ck_decisions_actions CHECK (cardinality(actions) >= 1),
    max_uses integer CONSTRAINT ck_decisions_max_uses CHECK (max_uses BETWEEN 1 AND 1000),
    comment varchar(2000),
    means varchar(24) NOT NULL
        CONSTRAINT ck_decisions_means CHECK (means IN ('token', 'sample', 'oidc', 'passkey', 'mail')),
    channel varchar(24) NOT NULL,
    address varchar(45),
    user_agent varchar(256),
    decided_at timestamptz NOT NULL,
    statement text,
    signed_content text,
    assertion text,
    passkey_id uuid,
    mac bytea,
    CONSTRAINT uq_decisions_request_id_person_id_decision UNIQUE (request_id, person_id, decision),
    CONSTRAINT ck_decisions_kept CHECK (decision = 'approve' OR num_nonnulls(resources, actions, max_uses) = 0),
    CONSTRAINT ck_decisions_signed CHECK (num_nulls(statement, signed_content, assertion, passkey_id) IN (0, 4)
        AND (decision = 'approve' OR statement IS NULL))
);

CREATE TABLE questions (
    id uuid CONSTRAINT pk_questions PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_questions_tenant_id REFERENCES tenants (id),
    request_id uuid NOT NULL CONSTRAINT fk_questions_request_id REFERENCES requests (id),
    state varchar(24) NOT NULL CONSTRAINT ck_questions_state CHECK (state IN ('reviewing', 'pending', 'active')),
    stops_clock boolean NOT NULL,
    asked_by uuid NOT NULL CONSTRAINT fk_questions_asked_by REFERENCES people (id),
    asked_at timestamptz NOT NULL,
    asked_event uuid NOT NULL,
    answered_by uuid CONSTRAINT fk_questions_answered_by REFERENCES people (id),
    answered_at timestamptz CONSTRAINT ck_questions_answered_at CHECK (answered_at >= asked_at),
    answer_event uuid,
    CONSTRAINT ck_questions_answer CHECK (num_nulls(answered_by, answered_at, answer_event) IN (0, 3)),
    CONSTRAINT ck_questions_stops_clock CHECK (state = 'pending' OR NOT stops_clock)
);
CREATE INDEX ix_questions_request_id ON questions (request_id);

-- When each of the vendor's people last read a request, so that each hour of it is on record once.
CREATE TABLE request_reads (
    person_id uuid NOT NULL CONSTRAINT fk_request_reads_person_id REFERENCES people (id),
    request_id uuid NOT NULL CONSTRAINT fk_request_reads_request_id REFERENCES requests (id),
    hour timestamptz NOT NULL,
    CONSTRAINT pk_request_reads PRIMARY KEY (person_id, request_id)
);

-- How often a window was used, first and last, through which gateway and for what. A resource is its place among those
-- that the window is open for: a name stands in the request alone. `first_told` is whether an event tells the first
-- use, `look_at` when the next event is due, null once the last use is told.
CREATE TABLE window_uses (
    request_id uuid CONSTRAINT pk_window_uses PRIMARY KEY
        CONSTRAINT fk_window_uses_request_id REFERENCES requests (id),
    count bigint NOT NULL CONSTRAINT ck_window_uses_count CHECK (count > 0),
    first_at timestamptz NOT NULL,
    first_gateway uuid NOT NULL,
    first_action varchar(63) NOT NULL,
    first_resource integer,
    last_at timestamptz NOT NULL,
    last_gateway uuid NOT NULL,
    last_action varchar(63) NOT NULL,
    last_resource integer,
    first_told boolean NOT NULL DEFAULT false,
    look_at timestamptz,
    CONSTRAINT ck_window_uses_order CHECK (first_at <= last_at)
);
CREATE INDEX ix_window_uses_look_at ON window_uses (look_at) WHERE look_at IS NOT NULL;

-- How many calls of its engineer to its tenant's service were refused while a window was open or within an hour after.
CREATE TABLE window_refusals (
    request_id uuid CONSTRAINT pk_window_refusals PRIMARY KEY
        CONSTRAINT fk_window_refusals_request_id REFERENCES requests (id),
    count bigint NOT NULL CONSTRAINT ck_window_refusals_count CHECK (count > 0),
    last_at timestamptz NOT NULL
);

-- What a connector opens at a target for a window, and closes with it. `verifier` is the SCRAM verifier of a password
-- that only the engineer has. `attempts` numbers the tries: what an overtaken one found out is not recorded.
CREATE TABLE connections (
    id uuid CONSTRAINT pk_connections PRIMARY KEY,
    request_id uuid NOT NULL CONSTRAINT fk_connections_request_id REFERENCES requests (id),
    tenant_id uuid NOT NULL CONSTRAINT fk_connections_tenant_id REFERENCES tenants (id),
    kind varchar(24) NOT NULL CONSTRAINT ck_connections_kind CHECK (kind IN ('postgres', 'webhook')),
    target varchar(63) NOT NULL,
    verifier varchar(200),
    state varchar(24) NOT NULL CONSTRAINT ck_connections_state
        CHECK (state IN ('opening', 'open', 'open_failed', 'closing', 'close_failed', 'closed')),
    run_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    last_error varchar(24),
    created_at timestamptz NOT NULL,
    opened_at timestamptz,
    closed_at timestamptz,
    mac bytea,
    CONSTRAINT ck_connections_closed CHECK ((state = 'closed') = (closed_at IS NOT NULL)
        AND (closed_at IS NULL) = (run_at IS NOT NULL)),
    CONSTRAINT ck_connections_verifier CHECK ((kind = 'postgres') = (verifier IS NOT NULL)
        AND (verifier IS NULL) = (mac IS NULL))
);
CREATE INDEX ix_connections_request_id ON connections (request_id);
CREATE INDEX ix_connections_run_at ON connections (run_at) WHERE run_at IS NOT NULL;
CREATE UNIQUE INDEX uq_connections_open ON connections (request_id) WHERE state IN ('opening', 'open', 'open_failed');

-- The calls that used windows for a number of uses within the last five seconds, as service accounts name them: a call
-- that is asked about again is the same use.
CREATE TABLE used_calls (
    account_id uuid NOT NULL CONSTRAINT fk_used_calls_account_id REFERENCES people (id),
    call varchar(100) NOT NULL,
    request_id uuid NOT NULL CONSTRAINT fk_used_calls_request_id REFERENCES requests (id),
    at timestamptz NOT NULL,
    CONSTRAINT pk_used_calls PRIMARY KEY (account_id, call, request_id)
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


-- The audit log

-- Which of the events that say how the mails about another one ended this is.
CREATE FUNCTION notified_of(body bytea) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN b ->> 'part' IN ('1', '2')
        THEN (b ->> 'of_event') || ' ' || (b ->> 'part') || ' ' || coalesce(b ->> 'template', '') END
    FROM (SELECT convert_from(body, 'UTF8')::jsonb) AS said (b)
$$;

-- `body` is what is sealed; the columns beside it say the same. `seq` is the number of the move, null for an event
-- that is none. A tenant's log holds what the tenant may see, and all of it: the moves of a request belong there from
-- the one on by which the customer is first asked or notified, and until then, as all that is `internal`, in the vendor's
-- log, whose id is zeros.
CREATE TABLE events (
    id uuid CONSTRAINT pk_events PRIMARY KEY,
    tenant_id uuid,
    internal boolean NOT NULL DEFAULT false,
    log_id uuid NOT NULL GENERATED ALWAYS AS (CASE WHEN internal OR tenant_id IS NULL
        THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE tenant_id END) STORED,
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
    xid bigint NOT NULL DEFAULT CAST(pg_current_xact_id()::text AS bigint),
    CONSTRAINT uq_events_request_id_seq UNIQUE (request_id, seq),
    CONSTRAINT ck_events_actor CHECK ((actor_id IS NULL) = (actor_role IN ('clock', 'owner'))),
    CONSTRAINT ck_events_move CHECK (seq IS NULL OR (request_id IS NOT NULL AND to_state IS NOT NULL)),
    CONSTRAINT ck_events_notified CHECK (action <> 'notified' OR notified_of(body) IS NOT NULL),
    CONSTRAINT ck_events_internal CHECK (seq IS NULL OR internal = (to_state = 'reviewing'
        OR (coalesce(from_state, '') = 'reviewing' AND to_state NOT IN ('pending', 'active'))))
);
CREATE INDEX ix_events_log_id_id ON events (log_id, id);
CREATE INDEX ix_events_activity ON events (request_id, at) WHERE action = 'activity';
CREATE INDEX ix_events_signing_in ON events (actor_id, at)
    WHERE action IN ('signed_in', 'identity_bound', 'passkey_added');
-- What may open or end a window, or say whose call one is: see window_changes.
CREATE INDEX ix_events_window_changes ON events (xid) WHERE (seq IS NOT NULL AND 'active' IN (from_state, to_state))
    OR action IN ('tenant_suspended', 'tenant_resumed', 'passkey_removed', 'person_erased', 'person_disabled', 'restored')
    OR (tenant_id IS NULL AND action IN ('member_added', 'member_changed', 'member_removed', 'powers_rekeyed',
        'identity_bound', 'identity_removed', 'gate_identity_added', 'gate_identity_removed'));
CREATE INDEX ix_events_probes ON events (tenant_id, id) WHERE action = 'gate_probed';
CREATE INDEX ix_events_outside_access ON events (tenant_id, id) WHERE action = 'outside_access';
CREATE INDEX ix_events_seating ON events (at) WHERE action IN ('member_added', 'member_changed');
-- The event is itself the record that a consent's end was announced: one for each tenant and end, whoever writes it.
CREATE UNIQUE INDEX uq_events_consent_ended ON events (tenant_id, deadline_at) WHERE action = 'consent_ended';

-- One tells the first use of a window and one the last, whoever writes them.
CREATE UNIQUE INDEX uq_events_uses ON events (request_id, action) WHERE action IN ('first_used', 'last_used');
-- At most two say how a move's mails ended in a log, whoever writes them.
CREATE UNIQUE INDEX uq_events_notified ON events (log_id, notified_of(body)) WHERE action = 'notified';

-- Personal details stand beside an event, which holds their salted hash: they can be erased without breaking the
-- seal. `fields` maps a field's name to its salt, in base64, and its value.
CREATE TABLE event_details (
    event_id uuid CONSTRAINT pk_event_details PRIMARY KEY CONSTRAINT fk_event_details_event_id REFERENCES events (id),
    fields jsonb NOT NULL CONSTRAINT ck_event_details_fields CHECK (jsonb_typeof(fields) = 'object')
);

-- Events that wait to be sealed. A trigger adds them.
CREATE TABLE unsealed (
    event_id uuid CONSTRAINT pk_unsealed PRIMARY KEY
);

-- Refusals that are counted together in one minute; once that is over, a worker makes an event of each row.
CREATE TABLE refused (
    key bytea CONSTRAINT pk_refused PRIMARY KEY CONSTRAINT ck_refused_key CHECK (octet_length(key) = 32),
    minute timestamptz NOT NULL,
    kind varchar(24) NOT NULL CONSTRAINT ck_refused_kind CHECK (kind IN ('sign_in_refused', 'decision_refused')),
    person_id uuid,
    request_id uuid,
    facts jsonb NOT NULL,
    personal jsonb NOT NULL,
    count bigint NOT NULL CONSTRAINT ck_refused_count CHECK (count > 0)
);
CREATE INDEX ix_refused_minute ON refused (minute);

-- A Merkle tree over each tenant's events and over the vendor's own. A tenant's log has the tenant's id. The signed
-- `note` is what counts; `size` and `root` beside it are held against it. Events before `kept_from` are recorded
-- as removed, and those before `cleared_to` are gone.
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
    kept_from bigint NOT NULL DEFAULT 0 CONSTRAINT ck_logs_kept_from CHECK (kept_from BETWEEN 0 AND size),
    cleared_to bigint NOT NULL DEFAULT 0 CONSTRAINT ck_logs_cleared_to CHECK (cleared_to BETWEEN 0 AND kept_from),
    kept_since timestamptz,
    CONSTRAINT ck_logs_id CHECK (id = coalesce(tenant_id, '00000000-0000-0000-0000-000000000000'))
);
CREATE INDEX ix_logs_kept_at ON logs (kept_at);
CREATE INDEX ix_logs_digest_at ON logs (digest_at);

-- Which event is the leaf with this number.
CREATE TABLE seals (
    log_id uuid NOT NULL CONSTRAINT fk_seals_log_id REFERENCES logs (id),
    number bigint NOT NULL CONSTRAINT ck_seals_number CHECK (number >= 0),
    event_id uuid NOT NULL CONSTRAINT uq_seals_event_id UNIQUE,
    CONSTRAINT pk_seals PRIMARY KEY (log_id, number)
);

-- The hashes of a tree, up to 256 of one level in a row.
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
    notified_at timestamptz
);
CREATE INDEX ix_checkpoints_log_id_at ON checkpoints (log_id, at);
CREATE INDEX ix_checkpoints_not_notified ON checkpoints (at) WHERE notified_at IS NULL;

-- Every public key that ever signed a log or an approval.
CREATE TABLE audit_keys (
    key varchar(255) CONSTRAINT pk_audit_keys PRIMARY KEY,
    purpose varchar(24) NOT NULL CONSTRAINT ck_audit_keys_purpose CHECK (purpose IN ('log', 'approval')),
    first_used_at timestamptz NOT NULL
);


-- Notifications

-- A further address of a person. It counts once its code was entered.
CREATE TABLE addresses (
    id uuid CONSTRAINT pk_addresses PRIMARY KEY,
    person_id uuid NOT NULL CONSTRAINT fk_addresses_person_id REFERENCES people (id),
    email varchar(320) NOT NULL CONSTRAINT ck_addresses_email CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    prompts boolean NOT NULL,
    code_nonce bytea,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL CONSTRAINT ck_addresses_expires_at CHECK (expires_at > created_at),
    confirmed_at timestamptz CONSTRAINT ck_addresses_confirmed_at CHECK (confirmed_at < expires_at),
    removed_at timestamptz,
    CONSTRAINT uq_addresses_id_person_id UNIQUE (id, person_id)
);
CREATE UNIQUE INDEX uq_addresses_person_id_email ON addresses (person_id, lower(email)) WHERE removed_at IS NULL;
CREATE INDEX ix_addresses_email ON addresses (lower(email)) WHERE removed_at IS NULL;
CREATE INDEX ix_addresses_person_id_created_at ON addresses (person_id, created_at);

-- An observer gets copies of a tenant's mails, of one service or of all, and decides nothing.
CREATE TABLE observers (
    id uuid CONSTRAINT pk_observers PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_observers_tenant_id REFERENCES tenants (id),
    service varchar(63),
    name varchar(200) NOT NULL CONSTRAINT ck_observers_name CHECK (name <> ''),
    email varchar(320) NOT NULL CONSTRAINT ck_observers_email CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    added_by uuid NOT NULL CONSTRAINT fk_observers_added_by REFERENCES people (id),
    created_at timestamptz NOT NULL,
    removed_at timestamptz,
    CONSTRAINT uq_observers_id_tenant_id UNIQUE (id, tenant_id)
);
CREATE UNIQUE INDEX uq_observers_tenant_id_service_email ON observers (tenant_id, service, lower(email))
    NULLS NOT DISTINCT WHERE removed_at IS NULL;
CREATE INDEX ix_observers_email ON observers (lower(email)) WHERE removed_at IS NULL;

-- A webhook of a tenant, or of the vendor where there is no tenant: the vendor's do not get the justification.
-- `last_sequence` is how many calls it was promised; whoever counts on holds the row's lock.
CREATE TABLE endpoints (
    id uuid CONSTRAINT pk_endpoints PRIMARY KEY,
    tenant_id uuid CONSTRAINT fk_endpoints_tenant_id REFERENCES tenants (id),
    url varchar(2000) NOT NULL,
    description varchar(200) NOT NULL,
    event_types text[] NOT NULL,
    format varchar(24) NOT NULL CONSTRAINT ck_endpoints_format CHECK (format IN ('json', 'slack')),
    with_justification boolean NOT NULL,
    secret bytea NOT NULL,
    public_key varchar(64),
    old_secret bytea,
    old_secret_until timestamptz,
    called_by_hand timestamptz[] NOT NULL,
    last_sequence bigint NOT NULL,
    failing_since timestamptz,
    disabled_at timestamptz,
    why_disabled varchar(24)
        CONSTRAINT ck_endpoints_why_disabled CHECK (why_disabled IN ('by_hand', 'gone', 'failing')),
    removed_at timestamptz,
    created_at timestamptz NOT NULL,
    CONSTRAINT ck_endpoints_with_justification
        CHECK (tenant_id IS NOT NULL OR NOT with_justification OR removed_at IS NOT NULL),
    CONSTRAINT ck_endpoints_old_secret CHECK ((old_secret IS NULL) = (old_secret_until IS NULL)),
    CONSTRAINT ck_endpoints_removed CHECK (removed_at IS NULL OR disabled_at IS NOT NULL)
);
CREATE INDEX ix_endpoints_tenant_id ON endpoints (tenant_id);

-- The outbox: an event of a request of which nobody was told yet. Whoever fans it out works out who is, and deletes
-- the row with the same commit that writes their notifications. `number` is given under the lock of the request and
-- says in which order its events are told. `run_at` is its place in the schedule: what asks somebody goes before the
-- rest. `asked` are those whom the event asks, `mode` is that of the request when it happened. The event was caused by
-- the HTTP request `http_request_id`, where it was one, and is part of the trace that `traceparent` names.
CREATE TABLE outbox (
    event_id uuid CONSTRAINT pk_outbox PRIMARY KEY,
    tenant_id uuid NOT NULL,
    request_id uuid NOT NULL,
    number bigint GENERATED ALWAYS AS IDENTITY,
    at timestamptz NOT NULL,
    run_at timestamptz NOT NULL,
    template varchar(24) NOT NULL,
    mode varchar(24) NOT NULL,
    asked uuid[] NOT NULL,
    http_request_id varchar(64),
    traceparent varchar(55)
);
CREATE INDEX ix_outbox_request_id ON outbox (request_id);

-- What is to be sent to whom, because of an event, a checkpoint or `about_id` (a sign-in, an invitation or an address
-- to confirm). It is due at `run_at` and pointless from `until_at` on. A notification to a further address
-- names its person too, one to an observer nobody. A webhook call has a `sequence`, which counts the calls of its
-- endpoint from one without a gap, since `numbered_at`; `blocked_by` is the call before it while it waits for that one.
-- `http_request_id` and `traceparent` are as in the outbox.
CREATE TABLE notifications (
    id uuid CONSTRAINT pk_notifications PRIMARY KEY,
    tenant_id uuid,
    request_id uuid,
    event_id uuid,
    about_id uuid,
    checkpoint_id uuid CONSTRAINT fk_notifications_checkpoint_id REFERENCES checkpoints (id),
    channel varchar(24) NOT NULL,
    template varchar(24) NOT NULL,
    person_id uuid,
    address_id uuid,
    observer_id uuid,
    endpoint_id uuid,
    run_at timestamptz NOT NULL,
    until_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    sequence bigint,
    numbered_at timestamptz,
    blocked_by uuid,
    last_error varchar(200),
    closed_at timestamptz,
    outcome varchar(24) CONSTRAINT ck_notifications_outcome CHECK (outcome IN ('sent', 'moot', 'dead')),
    http_request_id varchar(64),
    traceparent varchar(55),
    CONSTRAINT fk_notifications_address_id FOREIGN KEY (address_id, person_id) REFERENCES addresses (id, person_id),
    CONSTRAINT fk_notifications_observer_id FOREIGN KEY (observer_id, tenant_id) REFERENCES observers (id, tenant_id),
    CONSTRAINT uq_notifications_event_id_recipient UNIQUE NULLS NOT DISTINCT
        (event_id, person_id, endpoint_id, about_id, address_id, observer_id, checkpoint_id, template),
    CONSTRAINT ck_notifications_sequence CHECK ((sequence IS NULL) = (numbered_at IS NULL)
        AND (sequence IS NULL OR endpoint_id IS NOT NULL) AND (blocked_by IS NULL OR sequence IS NOT NULL)),
    CONSTRAINT ck_notifications_cause CHECK (num_nonnulls(event_id, about_id, checkpoint_id) > 0),
    CONSTRAINT ck_notifications_closed CHECK ((closed_at IS NULL) = (outcome IS NULL)),
    CONSTRAINT ck_notifications_recipient CHECK (CASE channel
        WHEN 'mail' THEN endpoint_id IS NULL AND num_nonnulls(person_id, about_id, observer_id) = 1
            AND (address_id IS NULL OR person_id IS NOT NULL) AND (observer_id IS NULL OR tenant_id IS NOT NULL)
        ELSE endpoint_id IS NOT NULL AND num_nonnulls(person_id, about_id, observer_id, address_id) = 0 END)
);
CREATE INDEX ix_notifications_run_at ON notifications (run_at) WHERE closed_at IS NULL;
CREATE UNIQUE INDEX uq_notifications_endpoint_id_sequence ON notifications (endpoint_id, sequence)
    WHERE endpoint_id IS NOT NULL;
CREATE INDEX ix_notifications_open_calls ON notifications (endpoint_id, sequence)
    WHERE closed_at IS NULL AND endpoint_id IS NOT NULL;
CREATE INDEX ix_notifications_blocked_by ON notifications (blocked_by) WHERE blocked_by IS NOT NULL;
CREATE INDEX ix_notifications_dead ON notifications (id) WHERE outcome = 'dead';
-- Who was notified of a request is also notified of its end.
CREATE INDEX ix_notifications_notified ON notifications (request_id) INCLUDE (person_id)
    WHERE template IN ('pending', 'answer_reminder', 'active') AND person_id IS NOT NULL;

-- Mails of an event of a request, or with `of_report` the reports on its window, of which no event says yet how they
-- ended. At `settle_by` one says so, even of what is open; `left_open` are the notifications that were open then, and
-- a second event says how these ended. The row goes with the last event.
CREATE TABLE unsettled (
    id uuid CONSTRAINT pk_unsettled PRIMARY KEY,
    event_id uuid NOT NULL,
    of_report boolean NOT NULL,
    tenant_id uuid NOT NULL,
    request_id uuid NOT NULL,
    settle_by timestamptz NOT NULL,
    left_open uuid[],
    CONSTRAINT uq_unsettled_event_id_of_report UNIQUE (event_id, of_report)
);
CREATE INDEX ix_unsettled_settle_by ON unsettled (settle_by);

-- Each attempt to send a notification. `answer` is the beginning of what a webhook answered.
CREATE TABLE deliveries (
    id uuid CONSTRAINT pk_deliveries PRIMARY KEY,
    notification_id uuid NOT NULL CONSTRAINT fk_deliveries_notification_id REFERENCES notifications (id),
    endpoint_id uuid CONSTRAINT fk_deliveries_endpoint_id REFERENCES endpoints (id),
    event_type varchar(64) NOT NULL,
    at timestamptz NOT NULL,
    took_ms integer NOT NULL CONSTRAINT ck_deliveries_took_ms CHECK (took_ms >= 0),
    status integer,
    answer varchar(1024) NOT NULL,
    error varchar(24)
);
CREATE INDEX ix_deliveries_notification_id ON deliveries (notification_id);
CREATE INDEX ix_deliveries_endpoint_id_id ON deliveries (endpoint_id, id) WHERE endpoint_id IS NOT NULL;
CREATE INDEX ix_deliveries_at ON deliveries (at);

-- Ends of windows for which reports are still to be added to the outbox.
CREATE TABLE reports_due (
    event_id uuid CONSTRAINT pk_reports_due PRIMARY KEY,
    due_at timestamptz NOT NULL
);
CREATE INDEX ix_reports_due_due_at ON reports_due (due_at);


-- What an operator watches

-- A process says that it lives. `rolled_back` is in how many logs the database is behind what was shipped of them,
-- `unverified` how many rows carry no valid mark, `connections` how many it opens to Postgres at most, `gate_differs`
-- whether its gate remembered a window that was not open, `needs_connectors` whether its catalogue has connectors.
CREATE TABLE heartbeats (
    id uuid NOT NULL,
    role varchar(24) NOT NULL
        CONSTRAINT ck_heartbeats_role CHECK (role IN ('api', 'core', 'notifications', 'connectors', 'reconcile', 'seal', 'invariants')),
    node varchar(255) NOT NULL,
    skew double precision NOT NULL,
    beat_at timestamptz NOT NULL,
    rolled_back integer CONSTRAINT ck_heartbeats_rolled_back CHECK (rolled_back >= 0),
    doubt varchar(300),
    unverified integer CONSTRAINT ck_heartbeats_unverified CHECK (unverified >= 0),
    unverified_first varchar(300),
    connections integer CONSTRAINT ck_heartbeats_connections CHECK (connections >= 0),
    gate_differs boolean,
    needs_connectors boolean,
    CONSTRAINT pk_heartbeats PRIMARY KEY (role, id)
);

-- Counters. Rows are added and folded now and then: their sums are what counts, and nobody waits for a lock.
CREATE TABLE counters (
    id uuid CONSTRAINT pk_counters PRIMARY KEY DEFAULT uuidv7(),
    name varchar(24) NOT NULL CONSTRAINT ck_counters_name CHECK (name IN ('deadline_lag', 'attempt', 'dropped', 'uses_lost',
        'outside_access')),
    label varchar(48) NOT NULL,
    count bigint NOT NULL CONSTRAINT ck_counters_count CHECK (count >= 0),
    total double precision NOT NULL
);

-- What the gate has answered, by minute for two hours, by hour for a month, and in all (then `at` is the epoch). A
-- gateway of zeros has shown no valid token.
CREATE TABLE gate_answers (
    span varchar(24) NOT NULL CONSTRAINT ck_gate_answers_span CHECK (span IN ('minute', 'hour', 'all')),
    at timestamptz NOT NULL,
    gateway_id uuid NOT NULL,
    service varchar(63) NOT NULL,
    decision varchar(24) NOT NULL CONSTRAINT ck_gate_answers_decision
        CHECK (decision IN ('allow', 'not-applicable', 'would-deny', 'deny')),
    reason varchar(24) NOT NULL,
    count bigint NOT NULL CONSTRAINT ck_gate_answers_count CHECK (count > 0),
    CONSTRAINT pk_gate_answers PRIMARY KEY (span, at, gateway_id, service, decision, reason)
);

-- Of the calls that a gate has let in and would refuse, those of each service and reason that came most often. A path
-- is without what it names. The row without a path counts the calls that no other row lists.
CREATE TABLE reported_calls (
    service varchar(63) NOT NULL,
    reason varchar(24) NOT NULL,
    path varchar(200) NOT NULL,
    tenant varchar(63) NOT NULL,
    caller varchar(300) NOT NULL,
    count bigint NOT NULL CONSTRAINT ck_reported_calls_count CHECK (count >= 0),
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    CONSTRAINT pk_reported_calls PRIMARY KEY (service, reason, path, tenant, caller)
);

-- The last batch of counts that each process has written, so that one that comes twice counts once.
CREATE TABLE gate_writers (
    process uuid CONSTRAINT pk_gate_writers PRIMARY KEY,
    batch bigint NOT NULL,
    written_at timestamptz NOT NULL
);

-- How late the schedule and the sealing were; `ended` and `late` are what the counters said by then: how many
-- deadlines the clock had ended, and how late in all.
CREATE TABLE lag_samples (
    at timestamptz CONSTRAINT pk_lag_samples PRIMARY KEY,
    schedule_lag double precision NOT NULL CONSTRAINT ck_lag_samples_schedule_lag CHECK (schedule_lag >= 0),
    seal_lag double precision NOT NULL CONSTRAINT ck_lag_samples_seal_lag CHECK (seal_lag >= 0),
    ended bigint NOT NULL CONSTRAINT ck_lag_samples_ended CHECK (ended >= 0),
    late double precision NOT NULL
);

-- What the invariant checks found and have raised an alarm about.
CREATE TABLE alarms (
    key varchar(100) CONSTRAINT pk_alarms PRIMARY KEY,
    raised_at timestamptz NOT NULL
);


-- All functions of the schema but triggers: session variables, checks for policies, and reads and writes across the
-- limits of row-level security.
--
-- SECURITY DEFINER functions run as the owner and see every row: each of them checks the caller itself and answers
-- with less than a row, unless it says otherwise. grants.sql says who may call which.


-- Versions of Lockbox

-- Processes that were built for this revision, or for a later one, may run on the schema as it stands. A migration that
-- takes away what earlier ones use replaces it with a higher number.
CREATE FUNCTION oldest_revision() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 1 $$;


-- The caller's context

-- Session variables end with the transaction. Without them no row is visible.
CREATE FUNCTION at_person() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.person', true), '')::uuid $$;

-- Where the caller is a member, and where an admin.
CREATE FUNCTION at_tenants() RETURNS uuid[] LANGUAGE sql STABLE
    AS $$ SELECT coalesce(nullif(current_setting('lockbox.tenants', true), ''), '{}')::uuid[] $$;

CREATE FUNCTION at_administers() RETURNS uuid[] LANGUAGE sql STABLE
    AS $$ SELECT coalesce(nullif(current_setting('lockbox.administers', true), ''), '{}')::uuid[] $$;

-- The caller's roles at the vendor.
CREATE FUNCTION at_roles() RETURNS text[] LANGUAGE sql STABLE
    AS $$ SELECT coalesce(nullif(current_setting('lockbox.roles', true), ''), '{}')::text[] $$;

-- The one tenant that a vendor user acts on.
CREATE FUNCTION at_tenant() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.at', true), '')::uuid $$;

CREATE FUNCTION at_reach() RETURNS uuid[] LANGUAGE sql STABLE
    AS $$ SELECT at_tenants() || at_tenant() $$;

-- Credentials of a caller who is no person yet.
CREATE FUNCTION at_invitation() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.invitation', true), '')::uuid $$;

CREATE FUNCTION at_sign_in() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.sign_in', true), '')::uuid $$;

CREATE FUNCTION at_device_login() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.device_login', true), '')::uuid $$;

-- A person who is no longer an engineer, and a tenant that was just suspended: an operator ends their requests.
CREATE FUNCTION at_leaving() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.leaving', true), '')::uuid $$;

CREATE FUNCTION at_suspending() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.suspending', true), '')::uuid $$;

-- A command of the database's owner sets this first, and no server can: `session_user` is the login.
CREATE FUNCTION is_owner_command(what text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT session_user = 'lockbox_owner' AND coalesce(current_setting('lockbox.owner_command', true), '') = what
$$;

-- Whether `new` is `old` without some of its keys, and nothing else.
CREATE FUNCTION only_removes(old jsonb, new jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT new = old - ARRAY(SELECT key FROM jsonb_object_keys(old) AS key WHERE NOT jsonb_exists(new, key))
$$;

CREATE FUNCTION enter_as(who uuid) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS $$
    SELECT set_config('lockbox.person', who::text, true),
        set_config('lockbox.tenants', coalesce(array_agg(DISTINCT m.tenant_id)
            FILTER (WHERE m.tenant_id IS NOT NULL), '{}')::text, true),
        set_config('lockbox.administers', coalesce(array_agg(m.tenant_id)
            FILTER (WHERE m.role = 'tenant_admin'), '{}')::text, true),
        set_config('lockbox.roles', coalesce(array_agg(m.role) FILTER (WHERE m.tenant_id IS NULL), '{}')::text, true)
    FROM memberships m WHERE m.person_id = who
$$;

-- Turn a credential into its person, and set the session variables.
CREATE FUNCTION authenticate(kind text, shown text, hash bytea) RETURNS TABLE (
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
        FROM identities i WHERE i.issuer = split_part(shown, E'\n', 1) AND i.subject = split_part(shown, E'\n', 2);
    WHEN 'gate_identity' THEN
        SELECT g.person_id INTO person_id FROM gate_identities g
        WHERE g.issuer = split_part(shown, E'\n', 1) AND g.subject = split_part(shown, E'\n', 2);
    WHEN 'mailbox' THEN
        SELECT p.id INTO person_id FROM people p WHERE lower(p.email) = lower(shown) AND p.side = 'vendor';
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
            FROM people p WHERE p.id = authenticate.person_id;
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
        FROM people p WHERE p.id = authenticate.person_id;
        SELECT array_agg(m.role), array_agg(m.tenant_id), array_agg(m.id), array_agg(m.mac)
        INTO roles, tenant_ids, membership_ids, macs
        FROM memberships m WHERE m.person_id = authenticate.person_id;
    END IF;
    RETURN NEXT;
END $$;

-- Narrow the session variables to the scope of the credential just authenticated. For a device login's token,
-- also return the sign-in that allowed it.
CREATE FUNCTION credential_scope(kind text, key uuid) RETURNS TABLE (only_at uuid, proven_by text, proven_at timestamptz)
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
                ARRAY(SELECT unnest(at_tenants()) INTERSECT SELECT credential_scope.only_at)::text, true),
            set_config('lockbox.administers',
                ARRAY(SELECT unnest(at_administers()) INTERSECT SELECT credential_scope.only_at)::text, true);
    END IF;
    RETURN NEXT;
END $$;

-- Find a device login by its own secret, or, while it is pending, by its code for a signed-in person.
CREATE FUNCTION find_device_login(secret bytea, code bytea) RETURNS uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE found uuid;
BEGIN
    SELECT t.id INTO found FROM device_logins t WHERE t.secret_hash = secret
        OR (t.code_hash = code AND t.answered_at IS NULL AND at_person() IS NOT NULL);
    PERFORM set_config('lockbox.device_login', coalesce(found::text, ''), true);
    RETURN found;
END $$;

-- The owner of a token whose id came with a wrong secret, who is notified of the attempt.
CREATE FUNCTION person_of_token(of_token uuid) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.person_id FROM tokens t WHERE t.id = of_token
$$;


-- Checks for policies and triggers

-- Operators invite a tenant's first admin; later ones they only propose, and the tenant has 72 hours to object.
CREATE FUNCTION is_new(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT NOT EXISTS (SELECT FROM memberships m WHERE m.tenant_id = tenant)
        AND NOT EXISTS (SELECT FROM invitations i WHERE i.tenant_id = tenant)
$$;

-- Admins change the roles of members; others need an invitation.
CREATE FUNCTION is_member(who uuid, tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM memberships m WHERE m.person_id = who AND m.tenant_id = tenant)
$$;

-- The roles of an open invitation are for the person with its address only.
CREATE FUNCTION is_guest(who uuid, tenant uuid, as_role text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM invitations i JOIN people p ON lower(p.email) = lower(i.email)
        WHERE i.id = at_invitation() AND p.id = who AND i.tenant_id IS NOT DISTINCT FROM tenant
        AND as_role = ANY (i.roles) AND i.withdrawn_at IS NULL AND i.accepted_at IS NULL)
$$;

CREATE FUNCTION is_of_the_vendor(who uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM people p WHERE p.id = who AND p.side = 'vendor')
$$;

CREATE FUNCTION is_engineer(who uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM memberships m JOIN people p ON p.id = m.person_id
        WHERE m.person_id = who AND m.tenant_id IS NULL AND m.role = 'engineer' AND p.disabled_at IS NULL)
$$;

CREATE FUNCTION is_suspended(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM tenants t WHERE t.id = tenant AND t.suspended)
$$;

-- A statement does not see the rows that it writes, so this finds only events of earlier statements.
CREATE FUNCTION event_exists(event uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM events e WHERE e.id = event)
$$;

CREATE FUNCTION strictness(mode text) RETURNS integer LANGUAGE sql IMMUTABLE
    AS $$ SELECT array_position(ARRAY['off', 'observe', 'enforce'], mode) $$;

-- The possible next states of each state, as in lockbox/requests/lifecycle.py.
CREATE FUNCTION leads_to(state text) RETURNS text[] LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE state
        WHEN 'reviewing' THEN '{pending,active,denied,cancelled,timed_out}'
        WHEN 'pending' THEN '{pending,active,denied,cancelled,timed_out}'
        WHEN 'active' THEN '{completed,revoked,expired}'
        ELSE '{}' END::text[]
$$;

-- Whether a policy requires signed approvals: as `fits` and `Match.matches` in lockbox/requests/policy_rules.py.
CREATE FUNCTION fits(pattern text, resource text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT resource LIKE replace(replace(replace(replace(pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
$$;

CREATE FUNCTION demands_passkeys(policy jsonb, service text, actions text[], reason text, resources text[])
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(policy ->> 'approve_means', '') = 'passkey-signed' OR EXISTS (
        SELECT FROM jsonb_array_elements(coalesce(policy -> 'rules', '[]')) AS rule
        CROSS JOIN LATERAL (SELECT coalesce(rule #> '{match,services}', '[]') AS services,
            coalesce(rule #> '{match,actions}', '[]') AS actions,
            coalesce(rule #> '{match,reasons}', '[]') AS reasons,
            coalesce(rule #> '{match,resources}', '[]') AS resources) AS about
        WHERE rule #>> '{terms,approve_means}' = 'passkey-signed'
            AND (about.services = '[]' OR about.services ? demands_passkeys.service)
            AND (about.actions = '[]' OR about.actions ?| demands_passkeys.actions)
            AND (about.reasons = '[]' OR about.reasons ? demands_passkeys.reason)
            AND (about.resources = '[]' OR EXISTS (SELECT FROM jsonb_array_elements_text(about.resources) AS pattern,
                unnest(demands_passkeys.resources) AS resource WHERE fits(pattern, resource))))
$$;

-- Whether the decisions on record let a request be open: no denial, and as many approvals as its quorum says, none of
-- them by the requester or by who endorsed it. An approval counts for no more than it keeps, and where passkeys have
-- to sign, it counts only with an assertion. Where the customer does not decide, a manager's endorsement is enough.
--
-- One rule makes two functions. Readers ask is_decided, as themselves; the triggers ask is_founded, as the owner: a
-- plan under row-level security is one user's, and Postgres would plan a shared function anew at each change of
-- hands. The triggers do not take the row's word for what has to be signed: the tenant's terms of when it was asked
-- may demand it.
DO $$
DECLARE
    rule CONSTANT text := $rule$
    SELECT CASE WHEN request.mode = 'enforce' THEN
        NOT EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id AND d.decision = 'deny')
        AND request.quorum <= (
            SELECT count(*) FROM decisions d
            WHERE d.request_id = request.id AND d.decision = 'approve' AND d.person_id <> request.requester_id
            AND (d.assertion IS NOT NULL OR NOT (%s))
            AND (d.resources IS NULL OR coalesce(request.granted_resources, request.resources) <@ d.resources)
            AND (d.actions IS NULL OR coalesce(request.granted_actions, request.actions) <@ d.actions)
            AND (d.max_uses IS NULL OR request.max_uses <= d.max_uses)
            AND NOT EXISTS (SELECT FROM decisions e WHERE e.request_id = request.id
                AND e.decision = 'endorse' AND e.person_id = d.person_id))
    ELSE
        EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id
            AND d.decision = 'endorse' AND d.person_id <> request.requester_id)
    END
$rule$;
    by_the_row CONSTANT text := $rule$request.approve_means = 'passkey-signed'$rule$;
    by_the_policy CONSTANT text := by_the_row || $rule$ OR EXISTS (SELECT FROM policies p
                WHERE p.tenant_id = request.tenant_id AND p.version = request.policy_version
                AND p.body ->> 'approve_means' = 'passkey-signed')$rule$;
    function CONSTANT text := 'CREATE FUNCTION %I(request requests) RETURNS boolean LANGUAGE sql STABLE AS %L';
BEGIN
    EXECUTE format(function, 'is_decided', format(rule, by_the_row));
    EXECUTE format(function, 'is_founded', format(rule, by_the_policy));
END $$;


-- Requests

-- Requests are counted over all of them; whoever submits one sees only their own. Ids sort by the time they were
-- made, by a clock that may differ from the database's by minutes at most. A range of one makes Postgres read the
-- index of the tenant or person and no further than the limit, by a plan that does not know the limit: one that knows
-- it takes few of many for a reason to sort all.
CREATE FUNCTION nth_submission(of_tenant uuid, most_tenant integer, most_person integer) RETURNS TABLE (
    tenant_at timestamptz, person_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET plan_cache_mode = force_generic_plan AS $$
    SELECT (SELECT r.created_at FROM requests r WHERE r.tenant_id BETWEEN of_tenant AND of_tenant
            AND of_tenant = ANY (at_reach()) AND r.id > (SELECT uuidv7(interval '-10 minutes'))
            ORDER BY r.tenant_id DESC, r.id DESC OFFSET most_tenant - 1 LIMIT 1),
        (SELECT f.created_at FROM (
            (SELECT r.id, r.created_at FROM requests r WHERE r.requester_id BETWEEN at_person() AND at_person()
                AND r.submitted_by = r.requester_id AND r.id > (SELECT uuidv7(interval '-10 minutes'))
                ORDER BY r.requester_id DESC, r.id DESC LIMIT most_person)
            UNION ALL
            (SELECT r.id, r.created_at FROM requests r WHERE r.submitted_by BETWEEN at_person() AND at_person()
                AND r.submitted_by <> r.requester_id AND r.id > (SELECT uuidv7(interval '-10 minutes'))
                ORDER BY r.submitted_by DESC, r.id DESC LIMIT most_person)
        ) f ORDER BY f.id DESC OFFSET most_person - 1 LIMIT 1)
$$;

-- Lock the request to resubmit, for its requester or for the service account that submitted it, which sees no closed
-- request. Two statements, so that a caller who waited for the lock sees what was submitted meanwhile.
CREATE FUNCTION lock_earlier_request(of_request uuid) RETURNS TABLE (
    tenant text, requester_id uuid, service text, resources text[], actions text[], reason_code text,
    justification text, case_ref text, access_window integer, max_uses integer, state text, open_follower uuid
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    r requests;
BEGIN
    SELECT o.* INTO r FROM requests o WHERE o.id = of_request AND (o.requester_id = at_person()
        OR ('system' = ANY (at_roles()) AND EXISTS (SELECT FROM events e
            WHERE e.request_id = o.id AND e.seq = 1 AND e.actor_id = at_person())))
    FOR UPDATE;
    IF r.id IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT t.slug::text, r.requester_id, r.service::text, r.resources, r.actions, r.reason_code::text,
        r.justification::text, r.case_ref::text, r.access_window, r.max_uses,
        r.state::text,
        (SELECT f.id FROM requests f WHERE f.follows = r.id AND f.closed_at IS NULL)
    FROM tenants t WHERE t.id = r.tenant_id;
END $$;

-- Whether the customer's last decision about a resource was a denial, ignoring case and by what was granted.
CREATE FUNCTION was_denied(of_tenant uuid, of_service text, of_resources text[]) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH asked AS (SELECT array_agg(lower(one)) AS names FROM unnest(of_resources) AS one)
    SELECT of_tenant = ANY (at_reach()) AND EXISTS (
        SELECT FROM asked, requests d, unnest(d.resources) AS resource
        WHERE d.tenant_id = of_tenant AND d.service = of_service AND d.state = 'denied' AND d.asked_at IS NOT NULL
            AND lower(resource) = ANY (asked.names)
            AND NOT EXISTS (SELECT FROM requests o, unnest(coalesce(o.granted_resources, o.resources)) AS opened
                WHERE o.tenant_id = of_tenant AND o.service = of_service AND o.opened_at > d.closed_at
                AND lower(opened) = lower(resource)))
$$;

-- When a tenant's consent ends, and under which mode it lets the vendor open.
CREATE FUNCTION consents(of_tenants uuid[]) RETURNS TABLE (tenant_id uuid, mode text, until_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id, p.body -> 'consent' ->> 'mode', CAST(p.body -> 'consent' ->> 'until' AS timestamptz)
    FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
    WHERE t.id = ANY (of_tenants) AND (t.id = ANY (at_reach()) OR cardinality(at_roles()) > 0)
        AND t.mode = 'enforce' AND p.body -> 'consent' ->> 'until' IS NOT NULL
$$;

-- An engineer sees the longest window that a tenant's policy allows, and nothing else of it.
CREATE FUNCTION longest_windows(of_tenants uuid[]) RETURNS TABLE (tenant_id uuid, seconds integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id, CAST(p.body ->> 'access_ceiling' AS integer)
    FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
    WHERE t.id = ANY (of_tenants) AND 'engineer' = ANY (at_roles())
$$;

-- The access check sees neither the deciders nor their passkeys: it gets what it needs to verify a window.
CREATE FUNCTION signed_decisions(of_requests uuid[]) RETURNS TABLE (
    request_id uuid, person_id uuid, principals uuid[], access_window integer, resources text[],
    actions text[], max_uses integer, comment text, statement text, signed_content text, assertion text, passkey_id uuid,
    credential_id bytea, public_key bytea, created_at timestamptz, trusted_at timestamptz, only_at uuid,
    mac bytea
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT d.request_id, d.person_id, d.principals, d.access_window, d.resources, d.actions, d.max_uses, d.comment,
        d.statement, d.signed_content, d.assertion, k.id, k.credential_id, k.public_key, k.created_at, k.trusted_at,
        k.only_at, k.mac
    FROM requests r JOIN decisions d ON d.request_id = r.id AND d.decision = 'approve'
    JOIN passkeys k ON k.id = d.passkey_id AND k.person_id = d.person_id
    WHERE r.id = ANY (of_requests) AND r.state = 'active'
        AND (r.tenant_id = ANY (at_reach()) OR cardinality(at_roles()) > 0)
$$;

CREATE FUNCTION approver_keys(of_tenant uuid) RETURNS TABLE (
    person_id uuid, name text, passkey_id uuid, credential_id bytea, public_key bytea, created_at timestamptz,
    trusted_at timestamptz, only_at uuid, mac bytea
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT p.id, p.name, k.id, k.credential_id, k.public_key, k.created_at, k.trusted_at, k.only_at, k.mac
    FROM people p JOIN passkeys k ON k.person_id = p.id AND (k.only_at IS NULL OR k.only_at = of_tenant)
    WHERE of_tenant = ANY (at_administers()) AND p.disabled_at IS NULL AND (
        EXISTS (SELECT FROM memberships m WHERE m.person_id = p.id AND m.tenant_id = of_tenant
            AND m.role = 'approver')
        OR EXISTS (SELECT FROM eligible_delegates e WHERE e.person_id = p.id AND e.tenant_id = of_tenant))
    ORDER BY p.name, p.id, k.id
$$;

-- A service account sees open windows only; to report activity later it needs a part of a closed one.
CREATE FUNCTION reported_window(of_request uuid) RETURNS TABLE (
    id uuid, tenant_id uuid, requester_id uuid, service text, resources text[], actions text[],
    max_uses integer, opened_at timestamptz, deadline_at timestamptz, closed_at timestamptz
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.id, r.tenant_id, r.requester_id, r.service, coalesce(r.granted_resources, r.resources),
        coalesce(r.granted_actions, r.actions), r.max_uses, r.opened_at, r.deadline_at, r.closed_at
    FROM requests r WHERE r.id = of_request AND 'system' = ANY (at_roles())
$$;

-- Which windows may have changed by transactions whose end an earlier snapshot had not seen; nothing without one. The
-- gate learns what an event is about, and of what it says only this: a move that `ends` a window ends it for good. In
-- the first columns, of one row at least, which server and database answers, and the snapshot to go on from. A passkey
-- that is gone may have signed at any tenant, one that its owner has left too: so that is about all windows. Of whom a
-- call is at the gate is remembered as windows are, and so told too. What comes from a back-up of another server has
-- numbers of that one, and is left out where this one has not come to them.
CREATE FUNCTION window_changes(before text) RETURNS TABLE (
    server text, seen text, event_id uuid, request_id uuid, ends boolean, tenant_id uuid, person_id text
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
    SELECT (SELECT oid FROM pg_database WHERE datname = current_database()) || ' of ' || pg_postmaster_start_time()
            || CASE WHEN pg_is_in_recovery() THEN ' in recovery' ELSE '' END,
        s.seen::text, e.id, e.request_id, e.seq IS NOT NULL AND e.to_state <> 'active',
        CASE WHEN e.action <> 'passkey_removed' THEN e.tenant_id END,
        CASE WHEN e.request_id IS NULL AND e.tenant_id IS NULL AND e.action <> 'passkey_removed'
            THEN CASE WHEN e.action IN ('identity_bound', 'identity_removed') THEN e.actor_id::text
                ELSE convert_from(e.body, 'UTF8')::jsonb ->> 'person_id' END END
    FROM (SELECT pg_current_snapshot() AS seen, CAST(before AS pg_snapshot) AS before) s
    LEFT JOIN events e ON before IS NOT NULL AND 'system' = ANY (at_roles())
        AND (e.xid >= CAST(pg_snapshot_xmax(s.before)::text AS bigint)
            OR e.xid = ANY (ARRAY(SELECT CAST(x::text AS bigint) FROM pg_snapshot_xip(s.before) AS x)))
        AND e.xid < CAST(pg_snapshot_xmax(s.seen)::text AS bigint)
        AND ((e.seq IS NOT NULL AND 'active' IN (e.from_state, e.to_state))
            OR e.action IN ('tenant_suspended', 'tenant_resumed', 'passkey_removed', 'person_erased', 'person_disabled',
                'restored')
            OR (e.tenant_id IS NULL AND e.action IN ('member_added', 'member_changed', 'member_removed',
                'powers_rekeyed', 'identity_bound', 'identity_removed', 'gate_identity_added',
                'gate_identity_removed')))
$$;

-- Add calls that a gate has let in and would refuse; of each service and reason the hundred that came most often stay,
-- and of those that came as often the latest. The row without a path, which is taken first, counts all others, and keeps
-- processes from changing the rows of one service and reason at once.
CREATE FUNCTION add_reported_calls(reported jsonb, now_at timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    most CONSTANT integer := 100;
BEGIN
    INSERT INTO reported_calls AS r (service, reason, path, tenant, caller, count, first_at, last_at)
    SELECT c.service, c.reason, '', '', '', coalesce(sum(c.count) FILTER (WHERE c.path = ''), 0), now_at, now_at
    FROM jsonb_to_recordset(reported) AS c (service text, reason text, path text, count bigint)
    GROUP BY c.service, c.reason ORDER BY 1, 2
    ON CONFLICT (service, reason, path, tenant, caller) DO UPDATE SET count = r.count + EXCLUDED.count,
        last_at = CASE WHEN EXCLUDED.count > 0 THEN EXCLUDED.last_at ELSE r.last_at END;
    INSERT INTO reported_calls AS r (service, reason, path, tenant, caller, count, first_at, last_at)
    SELECT c.service, c.reason, c.path, c.tenant, c.caller, c.count, now_at, now_at
    FROM jsonb_to_recordset(reported) AS c (service text, reason text, path text, tenant text, caller text, count bigint)
    WHERE c.path <> '' ORDER BY 1, 2, 3, 4, 5
    ON CONFLICT (service, reason, path, tenant, caller) DO UPDATE SET count = r.count + EXCLUDED.count,
        last_at = EXCLUDED.last_at;
    WITH places AS (
        SELECT r.service, r.reason, r.path, r.tenant, r.caller, row_number() OVER (PARTITION BY r.service, r.reason
            ORDER BY r.count DESC, r.last_at DESC, r.path, r.tenant, r.caller) AS place
        FROM reported_calls r WHERE r.path <> '' AND (r.service, r.reason) IN (
            SELECT c.service, c.reason FROM jsonb_to_recordset(reported) AS c (service text, reason text))
    ), gone AS (
        DELETE FROM reported_calls r USING places p
        WHERE p.place > most AND (r.service, r.reason, r.path, r.tenant, r.caller)
            = (p.service, p.reason, p.path, p.tenant, p.caller)
        RETURNING r.service, r.reason, r.count
    )
    UPDATE reported_calls r SET count = r.count + g.count, last_at = now_at
    FROM (SELECT service, reason, sum(count) AS count FROM gone GROUP BY 1, 2) g
    WHERE r.path = '' AND r.service = g.service AND r.reason = g.reason;
END $$;

-- Add what a process of the API has counted; a batch that comes twice counts once. Without a process it is a part of a
-- transaction that counts once. Rows are taken in the order of
-- their keys, so that processes never wait for each other in a circle. No login changes or lowers a count.
CREATE FUNCTION add_gate_counts(of_process uuid, of_batch bigint, answers jsonb, uses jsonb, refused jsonb,
    reported jsonb, lost bigint) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    now_at CONSTANT timestamptz := clock_timestamp();
BEGIN
    INSERT INTO gate_writers AS w (process, batch, written_at)
    SELECT of_process, of_batch, now_at WHERE of_process IS NOT NULL
    ON CONFLICT (process) DO UPDATE SET batch = EXCLUDED.batch, written_at = EXCLUDED.written_at
        WHERE w.batch < EXCLUDED.batch;
    IF NOT FOUND AND of_process IS NOT NULL THEN
        RETURN;
    END IF;
    INSERT INTO gate_answers AS g (span, at, gateway_id, service, decision, reason, count)
    SELECT s.span, s.at, a.gateway_id, a.service, a.decision, a.reason, a.count
    FROM jsonb_to_recordset(answers) AS a (gateway_id uuid, service text, decision text, reason text, count bigint)
    CROSS JOIN (VALUES ('minute', date_trunc('minute', now_at, 'UTC')), ('hour', date_trunc('hour', now_at, 'UTC')),
        ('all', to_timestamp(0))) AS s (span, at)
    ORDER BY 1, 2, 3, 4, 5, 6
    ON CONFLICT (span, at, gateway_id, service, decision, reason) DO UPDATE SET count = g.count + EXCLUDED.count;
    INSERT INTO window_uses AS w (request_id, count, first_at, first_gateway, first_action, first_resource, last_at,
        last_gateway, last_action, last_resource, look_at)
    SELECT u.request_id, u.count, u.first_at, u.first_gateway, u.first_action,
        array_position(coalesce(r.granted_resources, r.resources), u.first_resource), u.last_at, u.last_gateway,
        u.last_action, array_position(coalesce(r.granted_resources, r.resources), u.last_resource), now_at
    FROM jsonb_to_recordset(uses) AS u (request_id uuid, count bigint, first_at timestamptz, first_gateway uuid,
        first_action text, first_resource text, last_at timestamptz, last_gateway uuid, last_action text,
        last_resource text)
    JOIN requests r ON r.id = u.request_id AND r.opened_at IS NOT NULL
    ORDER BY u.request_id
    ON CONFLICT (request_id) DO UPDATE SET count = w.count + EXCLUDED.count,
        (first_at, first_gateway, first_action, first_resource) = (SELECT * FROM (VALUES
            (w.first_at, w.first_gateway, w.first_action, w.first_resource),
            (CASE WHEN w.first_told THEN 'infinity' ELSE EXCLUDED.first_at END, EXCLUDED.first_gateway,
                EXCLUDED.first_action, EXCLUDED.first_resource)) AS f ORDER BY 1 LIMIT 1),
        (last_at, last_gateway, last_action, last_resource) = (SELECT * FROM (VALUES
            (w.last_at, w.last_gateway, w.last_action, w.last_resource),
            (EXCLUDED.last_at, EXCLUDED.last_gateway, EXCLUDED.last_action, EXCLUDED.last_resource)) AS l
            ORDER BY 1 DESC LIMIT 1);
    INSERT INTO window_refusals AS w (request_id, count, last_at)
    SELECT r.id, sum(f.count), now_at
    FROM jsonb_to_recordset(refused) AS f (tenant text, service text, engineer uuid, count bigint)
    JOIN tenants t ON t.slug = f.tenant
    CROSS JOIN LATERAL (SELECT w.id FROM (
            SELECT r.id FROM requests r WHERE r.requester_id = f.engineer AND r.state = 'active'
                AND r.tenant_id = t.id AND r.service = f.service
            UNION ALL
            SELECT l.id FROM (SELECT * FROM requests r WHERE r.requester_id = f.engineer ORDER BY r.id DESC LIMIT 20) l
            WHERE l.tenant_id = t.id AND l.service = f.service AND l.opened_at IS NOT NULL
                AND l.closed_at > now_at - interval '1 hour') w
        ORDER BY w.id DESC LIMIT 1) r
    GROUP BY r.id ORDER BY r.id
    ON CONFLICT (request_id) DO UPDATE SET count = w.count + EXCLUDED.count, last_at = EXCLUDED.last_at;
    IF reported <> '[]' THEN
        PERFORM add_reported_calls(reported, now_at);
    END IF;
    IF lost > 0 THEN
        INSERT INTO counters (name, label, count, total) VALUES ('uses_lost', '', lost, 0);
    END IF;
    DELETE FROM gate_writers WHERE process IN (SELECT process FROM gate_writers
        WHERE written_at < now_at - interval '1 day' FOR UPDATE SKIP LOCKED);
END $$;

-- Use a window for a number of uses once, as a service account that checks access, and return how many are left; no row
-- where none is. Uses of one window come one after another, and none after the move that ends it. A call that has used
-- it within five seconds does not use it again. `name` is the account's.
CREATE FUNCTION use_window(of_request uuid, by_call text) RETURNS TABLE (uses_left integer, is_new boolean, name text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    named CONSTANT text := (SELECT p.name FROM people p WHERE p.id = at_person());
BEGIN
    IF NOT 'system' = ANY (at_roles()) THEN
        RETURN;
    END IF;
    PERFORM FROM requests r WHERE r.id = of_request FOR NO KEY UPDATE;
    RETURN QUERY SELECT r.max_uses - r.used, false, named FROM requests r
        WHERE r.id = of_request AND r.state = 'active' AND r.deadline_at > clock_timestamp()
            AND r.id IN (SELECT windows_used_by(by_call));
    IF FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY UPDATE requests r SET used = r.used + 1
        WHERE r.id = of_request AND r.state = 'active' AND r.used < r.max_uses AND r.deadline_at > clock_timestamp()
        RETURNING r.max_uses - r.used, true, named;
    IF FOUND AND by_call IS NOT NULL THEN
        DELETE FROM used_calls u WHERE u.request_id = of_request AND u.at <= clock_timestamp() - interval '5 seconds';
        INSERT INTO used_calls (account_id, call, request_id, at)
            VALUES (at_person(), by_call, of_request, clock_timestamp());
    END IF;
END $$;
CREATE FUNCTION windows_used_by(by_call text) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT u.request_id FROM used_calls u WHERE u.account_id = at_person() AND u.call = by_call
        AND u.at > clock_timestamp() - interval '5 seconds'
$$;

-- How many windows a suspension would end.
CREATE FUNCTION open_windows(of_tenants uuid[]) RETURNS TABLE (tenant_id uuid, windows bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.tenant_id, count(*) FROM requests r
    WHERE 'operator' = ANY (at_roles()) AND r.tenant_id = ANY (of_tenants) AND r.state = 'active'
        AND r.deadline_at > clock_timestamp()
    GROUP BY r.tenant_id
$$;

-- One listener serves the pages of many people and has no session variables: it learns which of them may see one
-- of the changed requests, but not which request. The caller says which roles see how much.
CREATE FUNCTION readers_of(ids uuid[], who uuid[], places uuid[], reach_all text[], reach_theirs text[])
RETURNS TABLE (
    reader integer
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH changed AS MATERIALIZED (
        SELECT DISTINCT r.tenant_id, r.requester_id, r.asked_at IS NOT NULL AS asked
        FROM requests r WHERE r.id = ANY (ids)
    )
    SELECT l.number::integer
    FROM unnest(who, places) WITH ORDINALITY AS l (person_id, only_at, number)
    JOIN people p ON p.id = l.person_id AND p.disabled_at IS NULL
    WHERE EXISTS (SELECT FROM changed c WHERE c.requester_id = l.person_id)
        OR EXISTS (SELECT FROM memberships m WHERE m.person_id = l.person_id AND (
            (m.tenant_id IS NULL AND l.only_at IS NULL AND m.role = ANY (reach_all) AND EXISTS (SELECT FROM changed))
            OR (m.role = ANY (reach_theirs) AND (l.only_at IS NULL OR l.only_at = m.tenant_id)
                AND EXISTS (SELECT FROM changed c WHERE c.tenant_id = m.tenant_id AND c.asked))))
$$;


-- The audit log

-- The public keys are readable by everyone.
CREATE FUNCTION known_audit_keys() RETURNS TABLE (key text, purpose text, first_used_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT k.key, k.purpose, k.first_used_at FROM audit_keys k ORDER BY k.first_used_at, k.key
$$;

-- The access check reads no events, only a log's signed checkpoint and the hashes that prove that it
-- has only grown.
CREATE FUNCTION log_heads(of_logs uuid[]) RETURNS TABLE (
    id uuid, origin text, generation integer, size bigint, root bytea, note text
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT l.id, l.origin, l.generation, l.size, l.root, l.note FROM logs l WHERE l.id = ANY (of_logs)
$$;

CREATE FUNCTION log_tiles(of_log uuid, of_levels smallint[], of_numbers bigint[]) RETURNS TABLE (
    level smallint, number bigint, hashes bytea
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.level, t.number, t.hashes FROM tiles t
    JOIN unnest(of_levels, of_numbers) AS w (level, number) USING (level, number) WHERE t.log_id = of_log
$$;

-- A refused caller may be unknown. The API only adds to the counts and reads nothing.
CREATE FUNCTION count_refused(of_key bytea, of_minute timestamptz, of_kind text, of_person uuid, of_request uuid,
    with_facts jsonb, with_personal jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    INSERT INTO refused AS r (key, minute, kind, person_id, request_id, facts, personal, count)
    VALUES (of_key, of_minute, of_kind, of_person, of_request, with_facts, with_personal, 1)
    ON CONFLICT (key) DO UPDATE SET count = r.count + 1
$$;


-- Notifications

-- Whether an address is someone's sign-in address, and whether it belongs to the other side.
CREATE FUNCTION is_sign_in(address text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM people p WHERE lower(p.email) = lower(address))
$$;

CREATE FUNCTION is_across(address text, of_side text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM people p WHERE lower(p.email) = lower(address) AND p.side <> of_side)
        OR EXISTS (SELECT FROM addresses a JOIN people p ON p.id = a.person_id WHERE lower(a.email) = lower(address)
            AND a.removed_at IS NULL AND a.confirmed_at IS NOT NULL AND p.side <> of_side)
        OR (of_side = 'vendor' AND EXISTS (SELECT FROM observers w
            WHERE lower(w.email) = lower(address) AND w.removed_at IS NULL))
$$;

-- The recipients of notifications, for callers who may not read their addresses.
CREATE FUNCTION webhook_receivers(tenants uuid[]) RETURNS TABLE (tenant_id uuid, id uuid, event_types text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT e.tenant_id, e.id, e.event_types FROM endpoints e
    WHERE e.disabled_at IS NULL AND (e.tenant_id IS NULL OR (e.tenant_id = ANY (tenants)
        AND (session_user <> 'lockbox_api' OR e.tenant_id = ANY (at_reach()))))
$$;

CREATE FUNCTION mail_addresses(tenants uuid[], persons uuid[]) RETURNS TABLE (person_id uuid, id uuid, prompts boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT a.person_id, a.id, a.prompts FROM addresses a
    WHERE a.confirmed_at IS NOT NULL AND a.removed_at IS NULL AND a.person_id IN (
        SELECT m.person_id FROM memberships m WHERE m.tenant_id = ANY (tenants)
            AND (session_user <> 'lockbox_api' OR m.tenant_id = ANY (at_reach()))
        UNION ALL SELECT m.person_id FROM memberships m WHERE m.tenant_id IS NULL AND m.role = 'manager'
        UNION ALL SELECT unnest(persons))
$$;

CREATE FUNCTION observers_of(tenants uuid[]) RETURNS TABLE (tenant_id uuid, id uuid, service text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT w.tenant_id, w.id, w.service FROM observers w WHERE w.removed_at IS NULL AND w.tenant_id = ANY (tenants)
        AND (session_user <> 'lockbox_api' OR w.tenant_id = ANY (at_reach()))
$$;

-- A request's readers see how many people were notified, but not who a tenant's members are.
CREATE FUNCTION is_still_there(who uuid, tenant uuid, stage text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM memberships m JOIN people p ON p.id = m.person_id
        WHERE m.person_id = who AND p.disabled_at IS NULL AND CASE stage
            WHEN 'reviewing' THEN m.tenant_id IS NULL AND m.role = 'manager' ELSE m.tenant_id = tenant END)
$$;

-- Anyone who may change a webhook may repeat a call, even about a request that they may not see: it
-- reports events to a machine.
CREATE FUNCTION reopen(of_delivery uuid, moment timestamptz) RETURNS TABLE (notification uuid, answer text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    n notifications;
BEGIN
    SELECT o.* INTO n FROM deliveries d JOIN endpoints h ON h.id = d.endpoint_id JOIN notifications o ON o.id = d.notification_id
    WHERE d.id = of_delivery AND h.removed_at IS NULL AND CASE WHEN h.tenant_id IS NULL
        THEN 'operator' = ANY (at_roles()) ELSE h.tenant_id = ANY (at_administers()) END
    FOR UPDATE OF o;
    IF n.id IS NULL THEN
        RETURN;
    ELSIF n.closed_at IS NULL THEN
        RETURN QUERY SELECT n.id, 'waiting';
    ELSIF EXISTS (SELECT FROM endpoints h WHERE h.id = n.endpoint_id AND h.disabled_at IS NOT NULL) THEN
        RETURN QUERY SELECT n.id, 'disabled';
    ELSE
        UPDATE notifications o SET closed_at = NULL, outcome = NULL, attempts = 0, run_at = moment,
            until_at = greatest(n.until_at, moment + interval '72 hours')
        WHERE o.id = n.id;
        RETURN QUERY SELECT n.id, 'reopened';
    END IF;
END $$;

-- Operators see which notifications of a request were not delivered, and nothing else of it.
CREATE FUNCTION dead_notifications(before uuid, most integer) RETURNS TABLE (
    id uuid, request_id uuid, tenant text, template text, channel text, died_at timestamptz, attempts integer,
    error text, delivery_id uuid
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT n.id, n.request_id, t.slug, n.template, n.channel, n.closed_at, n.attempts, d.error,
        CASE WHEN h.tenant_id IS NULL AND n.endpoint_id IS NOT NULL THEN d.id END
    FROM notifications n LEFT JOIN tenants t ON t.id = n.tenant_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
    LEFT JOIN LATERAL (SELECT v.id, v.error FROM deliveries v WHERE v.notification_id = n.id ORDER BY v.id DESC LIMIT 1) d
        ON true
    WHERE 'operator' = ANY (at_roles()) AND n.outcome = 'dead' AND (before IS NULL OR n.id < before)
    ORDER BY n.id DESC LIMIT most
$$;

-- A failing webhook's URL without path and login, which may contain a secret.
CREATE FUNCTION failing_webhooks(most integer, skipped integer) RETURNS TABLE (id uuid, tenant text, leads_to text,
    failing_since timestamptz, unsent bigint, error text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT h.id, t.name, regexp_replace(h.url, '^([a-z]+://)([^/?#]*@)?([^/?#]*).*$', '\1\3'), h.failing_since,
        coalesce(u.number, 0),
        (SELECT d.error FROM deliveries d WHERE d.endpoint_id = h.id ORDER BY d.id DESC LIMIT 1)
    FROM endpoints h LEFT JOIN tenants t ON t.id = h.tenant_id
    LEFT JOIN (SELECT w.endpoint_id, count(*) AS number FROM (SELECT n.endpoint_id FROM notifications n
        WHERE n.closed_at IS NULL AND n.channel = 'webhook' ORDER BY n.run_at LIMIT 100000) w
        GROUP BY w.endpoint_id) u ON u.endpoint_id = h.id
    WHERE 'operator' = ANY (at_roles()) AND h.failing_since IS NOT NULL AND h.disabled_at IS NULL
        AND h.removed_at IS NULL
    ORDER BY h.failing_since, h.id LIMIT most OFFSET skipped
$$;


-- Marks

-- Replace a row's mark with one under a newer key, if the caller has the present one.
CREATE FUNCTION renew_mark(kind text, which uuid, old bytea, new bytea, new_hash bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    CASE kind
    WHEN 'membership' THEN UPDATE memberships SET mac = new WHERE id = which AND mac = old;
    WHEN 'passkey' THEN UPDATE passkeys SET mac = new WHERE id = which AND mac = old;
    WHEN 'identity' THEN UPDATE identities SET mac = new WHERE person_id = which AND mac = old;
    WHEN 'gate identity' THEN UPDATE gate_identities SET mac = new WHERE id = which AND mac = old;
    WHEN 'session' THEN UPDATE sessions SET mac = new, secret_hash = new_hash WHERE id = which AND mac = old;
    WHEN 'token' THEN UPDATE tokens SET mac = new, secret_hash = new_hash WHERE id = which AND mac = old;
    END CASE;
END $$;

-- The API, which has the keys, checks the marks of all rows that grant rights, person by person and new ones at once.
-- Revoked and expired rows grant none.
CREATE FUNCTION people_to_check(after uuid, page integer) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT id FROM people WHERE id > after ORDER BY id LIMIT page
$$;

CREATE FUNCTION people_with_new_powers(lately interval, most integer) RETURNS SETOF uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    (SELECT person_id FROM memberships WHERE id >= (SELECT uuidv7(-lately)) ORDER BY id DESC LIMIT most)
    UNION (SELECT person_id FROM passkeys WHERE id >= (SELECT uuidv7(-lately)) ORDER BY id DESC LIMIT most)
    UNION (SELECT person_id FROM gate_identities WHERE id >= (SELECT uuidv7(-lately)) ORDER BY id DESC LIMIT most)
    UNION (SELECT person_id FROM sessions WHERE id >= (SELECT uuidv7(-lately)) ORDER BY id DESC LIMIT most)
    UNION (SELECT person_id FROM tokens WHERE id >= (SELECT uuidv7(-lately)) ORDER BY id DESC LIMIT most)
$$;

CREATE FUNCTION marked_memberships(people uuid[]) RETURNS SETOF memberships
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT m.* FROM memberships m WHERE m.person_id = ANY (people)
$$;

CREATE FUNCTION marked_passkeys(people uuid[]) RETURNS SETOF passkeys
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT k.* FROM passkeys k WHERE k.person_id = ANY (people)
$$;

CREATE FUNCTION marked_identities(people uuid[]) RETURNS SETOF identities
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT i.* FROM identities i WHERE i.person_id = ANY (people)
$$;

CREATE FUNCTION marked_gate_identities(people uuid[]) RETURNS SETOF gate_identities
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT g.* FROM gate_identities g WHERE g.person_id = ANY (people)
$$;

CREATE FUNCTION marked_sessions(people uuid[]) RETURNS SETOF sessions
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.* FROM sessions s
    WHERE s.person_id = ANY (people) AND s.revoked_at IS NULL AND s.expires_at > clock_timestamp()
$$;

CREATE FUNCTION marked_tokens(people uuid[]) RETURNS SETOF tokens
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.* FROM tokens t
    WHERE t.person_id = ANY (people) AND t.revoked_at IS NULL AND t.expires_at > clock_timestamp()
$$;

CREATE FUNCTION decided_lately(lately interval, most integer) RETURNS SETOF decisions
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT d.* FROM decisions d WHERE d.id >= (SELECT uuidv7(-lately)) ORDER BY d.id DESC LIMIT most
$$;

-- The same of tenants: their mode, the policies that hold, that were written since, and that judged what is still
-- open.
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

CREATE FUNCTION marked_eligible_delegates(which uuid[]) RETURNS SETOF eligible_delegates
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT l.* FROM eligible_delegates l WHERE l.tenant_id = ANY (which)
$$;

CREATE FUNCTION marked_report_consents(which uuid[]) RETURNS SETOF report_consents
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT c.* FROM report_consents c WHERE c.tenant_id = ANY (which)
$$;

-- The monitor sees which credentials a person has and since when, but not the secrets.
CREATE FUNCTION credentials_of(who uuid) RETURNS TABLE (kind text, at timestamptz, was_removed boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT CASE WHEN t.is_sample THEN 'sample' ELSE 'token' END, t.created_at, false
    FROM tokens t WHERE t.person_id = who
    UNION ALL SELECT 'passkey', k.created_at, EXISTS (SELECT FROM ended_powers p WHERE p.mac = k.mac)
    FROM passkeys k WHERE k.person_id = who
    UNION ALL SELECT 'identity', i.created_at, EXISTS (SELECT FROM ended_powers p WHERE p.mac = i.mac)
    FROM identities i WHERE i.person_id = who
$$;

CREATE FUNCTION was_removed(shown bytea) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM ended_powers p WHERE p.mac = shown)
$$;


-- Operations

-- Record a heartbeat, only for a role of the login: workers act on what they read here. Processes silent for an hour
-- are removed.
CREATE FUNCTION record_heartbeat(of_role text, of_process uuid, of_node text, with_skew double precision,
    logs_rolled_back integer DEFAULT NULL, why text DEFAULT NULL, most_connections integer DEFAULT NULL,
    that_gate_differs boolean DEFAULT NULL, that_needs_connectors boolean DEFAULT NULL) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DELETE FROM heartbeats WHERE (role, id) IN (SELECT role, id FROM heartbeats
        WHERE beat_at < clock_timestamp() - interval '1 hour' FOR UPDATE SKIP LOCKED);
    INSERT INTO heartbeats (role, id, node, skew, beat_at, rolled_back, doubt, connections, gate_differs,
        needs_connectors)
    SELECT of_role, of_process, left(of_node, 255), with_skew, clock_timestamp(), logs_rolled_back, left(why, 300),
        most_connections, that_gate_differs, that_needs_connectors
    WHERE (of_role = 'api') = (session_user = 'lockbox_api')
        AND (session_user <> 'lockbox_notifications' OR of_role = 'notifications')
        AND (session_user <> 'lockbox_connectors' OR of_role = 'connectors')
    ON CONFLICT (role, id) DO UPDATE SET skew = EXCLUDED.skew, beat_at = EXCLUDED.beat_at, rolled_back = EXCLUDED.rolled_back,
        doubt = EXCLUDED.doubt, connections = EXCLUDED.connections, gate_differs = EXCLUDED.gate_differs,
        needs_connectors = EXCLUDED.needs_connectors
$$;

-- Whether there is something for a connector worker to do: the catalogue has connectors, or access is not closed.
CREATE FUNCTION needs_connectors() RETURNS boolean
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM heartbeats WHERE needs_connectors AND beat_at > clock_timestamp() - interval '1 minute')
        OR EXISTS (SELECT FROM connections WHERE run_at IS NOT NULL)
$$;

-- How many connections Postgres gives to all logins together, how many to this one, and how many the living processes
-- open at most, but for those of one role on one machine.
CREATE FUNCTION connection_budget(but_role text, but_node text)
RETURNS TABLE (allowed integer, of_login integer, promised bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT least(current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
            - current_setting('reserved_connections')::integer,
            (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database())),
        (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = session_user),
        (SELECT coalesce(sum(connections), 0) FROM heartbeats
            WHERE beat_at > clock_timestamp() - interval '1 minute' AND (role, node) <> (but_role, but_node))
$$;

CREATE FUNCTION report_unverified(of_process uuid, number integer, first text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE heartbeats SET unverified = number, unverified_first = left(first, 300)
    WHERE role = 'api' AND id = of_process
$$;

CREATE FUNCTION operating_processes() RETURNS TABLE (
    role text, node text, age double precision, skew double precision, rolled_back integer, doubt text,
    unverified integer, unverified_first text
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT h.role, h.node, greatest(0, extract(epoch FROM clock_timestamp() - h.beat_at)), h.skew, h.rolled_back, h.doubt,
        h.unverified, h.unverified_first
    FROM heartbeats h ORDER BY h.role, h.beat_at DESC LIMIT 200
$$;

-- The age in seconds of the oldest unsealed event.
CREATE FUNCTION seal_lag() RETURNS double precision
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT coalesce((SELECT greatest(0, extract(epoch FROM clock_timestamp() - e.at))
        FROM events e WHERE e.id = (SELECT event_id FROM unsealed ORDER BY event_id LIMIT 1)), 0)
$$;

-- Every count is of an index, and of no more than 100,000 of its rows. The schedule's part for the clock is compared
-- from two seconds on to an hour ahead, or less where more is due by then; bounds are in ms since 1970, as in Redis.
CREATE FUNCTION operating_figures() RETURNS TABLE (name text, label text, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at),
    bounds AS MATERIALIZED (SELECT floor(extract(epoch FROM at) * 1000) + 2000 AS lower FROM clock),
    windows AS MATERIALIZED (SELECT deadline_at FROM requests WHERE state = 'active' LIMIT 100000),
    waiting AS MATERIALIZED (SELECT count(*) AS number
        FROM (SELECT FROM requests WHERE wake_at IS NOT NULL LIMIT 100000) w),
    pending AS MATERIALIZED (SELECT CASE WHEN number < 100000 THEN number ELSE greatest(number, (SELECT reltuples
        FROM pg_class WHERE oid = 'public.ix_requests_wake_at'::regclass)::bigint) END AS number FROM waiting),
    soon AS MATERIALIZED (SELECT ceil(extract(epoch FROM wake_at) * 1000) AS due FROM requests
        WHERE wake_at > (SELECT to_timestamp(lower / 1000) FROM bounds)
        AND wake_at <= (SELECT to_timestamp(lower / 1000) + interval '1 hour' FROM bounds)
        ORDER BY wake_at LIMIT 100000),
    edge AS MATERIALIZED (SELECT CASE WHEN count(*) < 100000 THEN (SELECT lower + 3600000 FROM bounds)
        ELSE max(due) - 1 END AS upper FROM soon),
    unsent AS MATERIALIZED (SELECT u.* FROM (VALUES ('mail'), ('webhook')) c (channel) CROSS JOIN LATERAL (
        SELECT n.id, n.run_at, n.channel FROM notifications n WHERE n.closed_at IS NULL AND n.channel = c.channel
        ORDER BY n.run_at LIMIT 100000) u
        UNION ALL (SELECT event_id, run_at, 'outbox' FROM outbox ORDER BY event_id LIMIT 100000))
    SELECT 'pending', 'expire', count(*) FROM windows
    UNION ALL SELECT 'pending', 'time_out', greatest(0, number - (SELECT count(*) FROM windows)) FROM pending
    UNION ALL SELECT 'access_open', '', count(*) FROM windows, clock WHERE deadline_at > at
    UNION ALL SELECT 'overdue', '', count(*) FROM (SELECT FROM requests
        WHERE wake_at <= (SELECT at - interval '1 second' FROM clock) LIMIT 100000) o
    UNION ALL SELECT 'soon', 'from', lower FROM bounds
    UNION ALL SELECT 'soon', 'to', upper FROM edge
    UNION ALL SELECT 'soon', 'count', count(*) FROM soon WHERE due <= (SELECT upper FROM edge)
    UNION ALL SELECT 'unsent', channel, count(*) FROM unsent GROUP BY channel
    UNION ALL SELECT 'oldest_unsent', channel, greatest(0, extract(epoch FROM (SELECT at FROM clock)
        - min(coalesce(uuid_extract_timestamp(id), run_at)))) FROM unsent GROUP BY channel
    UNION ALL SELECT 'dead', channel, count(*)
        FROM (SELECT channel FROM notifications WHERE outcome = 'dead' LIMIT 100000) d
        GROUP BY channel
    UNION ALL SELECT 'dead_lately', channel, count(*) FROM (SELECT channel FROM notifications, clock WHERE outcome = 'dead'
        AND id >= (SELECT uuidv7(interval '-4 days')) AND closed_at > at - interval '1 day' LIMIT 100000) l
        GROUP BY channel
    UNION ALL SELECT 'webhooks_failing', '', count(*) FROM endpoints
        WHERE failing_since IS NOT NULL AND disabled_at IS NULL AND removed_at IS NULL
    UNION ALL SELECT 'connection_state', state, count(*) FROM (SELECT state FROM connections
        WHERE run_at IS NOT NULL LIMIT 100000) c GROUP BY state
    UNION ALL SELECT 'needs_connectors', '', needs_connectors()::int
    UNION ALL SELECT 'unsealed', '', count(*) FROM (SELECT FROM unsealed LIMIT 100000) u
    UNION ALL SELECT 'seal_lag', '', seal_lag()
    UNION ALL SELECT 'checkpoint_age', '', greatest(0, extract(epoch FROM (SELECT at FROM clock) - max(noted_at)))
        FROM logs WHERE note <> '' HAVING count(*) > 0
    UNION ALL SELECT 'heartbeat', role, greatest(0, extract(epoch FROM (SELECT at FROM clock) - max(beat_at)))
        FROM heartbeats GROUP BY role
    UNION ALL SELECT 'processes', role, count(*) FROM heartbeats
        WHERE beat_at > (SELECT at - interval '1 minute' FROM clock) GROUP BY role
    UNION ALL SELECT 'skew', role, CASE WHEN max(skew) > -min(skew) THEN max(skew) ELSE min(skew) END FROM heartbeats
        WHERE beat_at > (SELECT at - interval '1 minute' FROM clock) AND role IN ('api', 'core', 'notifications')
        GROUP BY role
    UNION ALL SELECT 'rolled_back', role, max(rolled_back) FROM heartbeats
        WHERE beat_at > (SELECT at - interval '1 minute' FROM clock) GROUP BY role
    UNION ALL SELECT 'unverified', role, max(unverified) FROM heartbeats
        WHERE beat_at > (SELECT at - interval '1 minute' FROM clock) GROUP BY role
    UNION ALL SELECT 'connections_promised', role, sum(connections) FROM heartbeats
        WHERE beat_at > (SELECT at - interval '1 minute' FROM clock) AND connections > 0 GROUP BY role
    UNION ALL SELECT 'connections_allowed', '', allowed FROM connection_budget('', '')
    UNION ALL SELECT t.name, t.label, sum(t.count) FROM counters t GROUP BY t.name, t.label
    UNION ALL SELECT 'outside_access_lately', '', count(*) FROM (SELECT FROM events WHERE action = 'outside_access'
        AND id >= (SELECT uuidv7(interval '-30 days')) LIMIT 100000) a
    UNION ALL SELECT 'gate_reports', e.service, CASE WHEN e.enforced_at IS NULL
        THEN (SELECT count(*) FROM (SELECT FROM tenants LIMIT 100000) t)
        ELSE (SELECT count(*) FROM report_consents c WHERE c.enforcement_id = e.id AND c.revision = e.revision) END
        FROM enforcements e WHERE e.wanted = 'report'
    UNION ALL SELECT 'deadline_lag_total', '', sum(t.total) FROM counters t
        WHERE t.name = 'deadline_lag' HAVING count(*) > 0
$$;

-- What the gate has answered: in all, in the last hour and in the last day, by the names of the gateways' accounts.
CREATE FUNCTION operating_gate() RETURNS TABLE (
    gateway text, service text, decision text, reason text, number numeric, of_hour numeric, of_day numeric
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(p.name, ''), a.service, a.decision, a.reason,
        coalesce(sum(a.count) FILTER (WHERE a.span = 'all'), 0),
        coalesce(sum(a.count) FILTER (WHERE a.span = 'minute'), 0),
        coalesce(sum(a.count) FILTER (WHERE a.span = 'hour'), 0)
    FROM (SELECT * FROM gate_answers WHERE span = 'all'
        UNION ALL SELECT * FROM gate_answers
            WHERE span = 'minute' AND at > (SELECT clock_timestamp()) - interval '1 hour'
        UNION ALL SELECT * FROM gate_answers
            WHERE span = 'hour' AND at > (SELECT clock_timestamp()) - interval '1 day') a
    LEFT JOIN people p ON p.id = a.gateway_id
    GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4 LIMIT 1000
$$;

-- Of what is open, and no further than a thousand and one of each: what is closed is not counted.
CREATE FUNCTION operating_states() RETURNS TABLE (state text, number bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.state, (SELECT count(*) FROM (SELECT FROM requests r WHERE r.state = s.state
        AND r.state IN ('reviewing', 'pending', 'active') LIMIT 1001) few)
    FROM unnest('{reviewing,pending,active}'::text[]) AS s (state)
$$;

-- A day by the hour, by the ids of events and notifications, which are made as time goes: what was promised days ago may be
-- sent today. A plan that does not know what id the day begins with would read all there ever was.
CREATE FUNCTION operating_day() RETURNS TABLE (name text, hour timestamptz, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
    WITH span AS MATERIALIZED (
        SELECT date_trunc('hour', clock_timestamp(), 'UTC') - interval '23 hours' AS begins),
    moved AS MATERIALIZED (SELECT e.at, CASE WHEN e.action = 'submit' THEN 'submitted'
            WHEN e.to_state = 'timed_out' THEN 'timed_out'
            WHEN e.to_state IN ('active', 'denied') AND e.from_state IS DISTINCT FROM e.to_state THEN 'decided' END
            AS kind
        FROM events e WHERE e.id >= (SELECT uuidv7(interval '-25 hours')) AND e.seq IS NOT NULL
        ORDER BY e.id DESC LIMIT 100000),
    ended AS MATERIALIZED (SELECT n.id, n.closed_at, n.outcome FROM notifications n
        WHERE n.id >= (SELECT uuidv7(interval '-4 days')) ORDER BY n.id DESC LIMIT 100000)
    SELECT 'begins', begins, NULL::double precision FROM span
    UNION ALL SELECT kind, date_trunc('hour', at, 'UTC'), count(*) FROM moved, span
        WHERE kind IS NOT NULL AND at >= begins GROUP BY 1, 2
    UNION ALL SELECT outcome, date_trunc('hour', closed_at, 'UTC'), count(*) FROM ended, span
        WHERE outcome IN ('sent', 'dead') AND closed_at >= begins GROUP BY 1, 2
    UNION ALL SELECT 'schedule_lag', date_trunc('hour', at, 'UTC'), max(schedule_lag) FROM lag_samples, span
        WHERE at >= begins GROUP BY 2
    UNION ALL SELECT 'seal_lag', date_trunc('hour', at, 'UTC'), max(seal_lag) FROM lag_samples, span
        WHERE at >= begins GROUP BY 2
    UNION ALL (SELECT 'schedule_lag_now', at, schedule_lag FROM lag_samples ORDER BY at DESC LIMIT 1)
    UNION ALL SELECT 'moves_from', min(at), count(*) FROM moved HAVING count(*) >= 100000
    UNION ALL SELECT 'notifications_from', uuid_extract_timestamp((SELECT id FROM ended ORDER BY id LIMIT 1)), count(*)
        FROM ended HAVING count(*) >= 100000
$$;

CREATE FUNCTION operating_findings() RETURNS TABLE (rule text, about uuid, raised_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT split_part(key, ':', 1), split_part(key, ':', 2)::uuid, a.raised_at FROM alarms a
    ORDER BY a.raised_at DESC, key LIMIT 50
$$;


-- Row-level security: no context, no rows. People reach their tenants, the vendor's people what their role needs.
--
-- USING is about the rows that are there, WITH CHECK about what is written. The context is read in a sub-select, once
-- a statement and not once a row. Another row is looked up for each one (OFFSET 0), or Postgres would hash its whole
-- table. What a condition on one row cannot say is in triggers.sql.

DO $$
DECLARE
    secured text;
BEGIN
    FOR secured IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', secured);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', secured);
    END LOOP;
END $$;


-- The workers act for everybody; what they may do with a table is bound by their rights on it.

DO $$
DECLARE
    seen text;
    for_both CONSTANT text[] := '{people,tenants,policies,memberships,invitations,eligible_delegates,delegations,
        sign_ins,requests,decisions,events,event_details,logs,seals,checkpoints,addresses,observers,endpoints,notifications,
        outbox,unsettled,reports_due,deliveries,counters,window_uses}';
    for_one CONSTANT text[] := '{sessions,sign_in_counts,device_logins,idempotency_keys,unsealed,refused,tiles,audit_keys,
        lag_samples,alarms,gate_answers,reported_calls,enforcements,enforcement_switches}';
BEGIN
    FOREACH seen IN ARRAY for_both || for_one LOOP
        EXECUTE format('CREATE POLICY worker ON %I FOR ALL TO lockbox_worker USING (true)', seen);
    END LOOP;
    FOREACH seen IN ARRAY for_both LOOP
        EXECUTE format('CREATE POLICY notifications ON %I FOR ALL TO lockbox_notifications USING (true)', seen);
    END LOOP;
END $$;
CREATE POLICY worker ON heartbeats FOR SELECT TO lockbox_worker USING (true);
CREATE POLICY worker ON connections FOR SELECT TO lockbox_worker USING (true);
DO $$
DECLARE
    seen text;
BEGIN
    FOREACH seen IN ARRAY '{people,memberships,requests,connections,decisions,events,event_details,tenants,logs,seals,
        tiles}'::text[] LOOP
        EXECUTE format('CREATE POLICY connectors ON %I FOR ALL TO lockbox_connectors USING (true)', seen);
    END LOOP;
END $$;
-- It says what became of access at a target, and asks nobody.
CREATE POLICY connectors ON outbox FOR INSERT TO lockbox_connectors
    WITH CHECK (template ^@ 'connection_' AND cardinality(asked) = 0 AND NOT event_exists(event_id));
-- Whoever holds the worker's login wipes no trace of today.
CREATE POLICY worker_forgets ON deliveries AS RESTRICTIVE FOR DELETE TO lockbox_worker
    USING (at < now() - interval '1 day');
CREATE POLICY worker_forgets ON gate_answers AS RESTRICTIVE FOR DELETE TO lockbox_worker
    USING (at < now() - CASE span WHEN 'minute' THEN interval '2 hours' WHEN 'hour' THEN interval '30 days' END);
CREATE POLICY worker_forgets ON reported_calls AS RESTRICTIVE FOR DELETE TO lockbox_worker
    USING (last_at < now() - interval '30 days');


-- People, tenants and roles

CREATE POLICY api_select ON people FOR SELECT TO lockbox_api
    USING (id = (SELECT at_person()) OR (side = 'vendor' AND (SELECT at_person()) IS NOT NULL)
        OR EXISTS (SELECT FROM memberships m WHERE m.person_id = people.id
            AND m.tenant_id = ANY ((SELECT at_reach())::uuid[])));
-- Whoever accepts an invitation becomes a person of its side, with its address.
CREATE POLICY api_insert ON people FOR INSERT TO lockbox_api
    WITH CHECK (EXISTS (SELECT FROM invitations i WHERE i.id = (SELECT at_invitation())
        AND lower(i.email) = lower(people.email) AND i.withdrawn_at IS NULL AND i.accepted_at IS NULL
        AND people.side = CASE WHEN i.tenant_id IS NULL THEN 'vendor' ELSE 'customer' END));
CREATE POLICY api_update ON people FOR UPDATE TO lockbox_api
    USING (id = (SELECT at_person()) OR (side = 'vendor' AND (SELECT at_roles()) && '{operator}'::text[]));

CREATE POLICY api_select ON tenants FOR SELECT TO lockbox_api
    USING (cardinality((SELECT at_roles())) > 0 OR id = ANY ((SELECT at_reach())::uuid[]));
CREATE POLICY api_insert ON tenants FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_roles()) && '{operator}'::text[] AND mode = 'enforce' AND NOT suspended);
CREATE POLICY api_update ON tenants FOR UPDATE TO lockbox_api
    USING ((SELECT at_roles()) && '{operator}'::text[] OR id = ANY ((SELECT at_administers())::uuid[]));

CREATE POLICY api_select ON policies FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_reach())::uuid[]));
CREATE POLICY api_insert ON policies FOR INSERT TO lockbox_api
    WITH CHECK ((tenant_id = ANY ((SELECT at_administers())::uuid[]) AND author_id = (SELECT at_person()))
        OR ((SELECT at_roles()) && '{operator}'::text[] AND version = 1 AND author_id IS NULL));

CREATE POLICY api_select ON memberships FOR SELECT TO lockbox_api
    USING (person_id = (SELECT at_person()) OR (tenant_id IS NULL AND (SELECT at_person()) IS NOT NULL)
        OR tenant_id = ANY ((SELECT at_reach())::uuid[]));
CREATE POLICY api_insert ON memberships FOR INSERT TO lockbox_api
    WITH CHECK ((tenant_id = ANY ((SELECT at_administers())::uuid[]) AND is_member(person_id, tenant_id))
        OR (tenant_id IS NULL AND (SELECT at_roles()) && '{operator}'::text[] AND person_id <> (SELECT at_person()))
        OR is_guest(person_id, tenant_id, role));
CREATE POLICY api_update ON memberships FOR UPDATE TO lockbox_api
    USING (tenant_id IS NULL AND role = 'manager' AND (SELECT at_roles()) && '{operator}'::text[]
        AND person_id <> (SELECT at_person()));
CREATE POLICY api_delete ON memberships FOR DELETE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[])
        OR (tenant_id IS NULL AND (SELECT at_roles()) && '{operator}'::text[] AND person_id <> (SELECT at_person()))
        OR (tenant_id = ANY ((SELECT at_tenants())::uuid[]) AND person_id = (SELECT at_person())));

CREATE POLICY api_select ON invitations FOR SELECT TO lockbox_api
    USING (id = (SELECT at_invitation()) OR tenant_id = ANY ((SELECT at_tenants())::uuid[])
        OR ((SELECT at_roles()) && '{operator}'::text[] AND (tenant_id IS NULL OR is_recovery)));
CREATE POLICY api_insert ON invitations FOR INSERT TO lockbox_api
    WITH CHECK (invited_by = (SELECT at_person()) AND accepted_at IS NULL AND (
        (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND NOT is_recovery)
        OR ((SELECT at_roles()) && '{operator}'::text[] AND CASE
            WHEN tenant_id IS NULL THEN NOT is_recovery
            WHEN roles <> '{tenant_admin}' THEN false
            WHEN is_recovery THEN takes_effect_at >= now() + interval '72 hours'
            ELSE is_new(tenant_id) END)));
CREATE POLICY api_update ON invitations FOR UPDATE TO lockbox_api
    USING (id = (SELECT at_invitation()) OR tenant_id = ANY ((SELECT at_administers())::uuid[])
        OR ((SELECT at_roles()) && '{operator}'::text[] AND tenant_id IS NULL)
        OR (is_recovery AND EXISTS (SELECT FROM memberships m WHERE m.person_id = (SELECT at_person())
            AND m.tenant_id = invitations.tenant_id AND m.role = 'approver')));
-- An operator may take back what the vendor's side has offered.
CREATE POLICY api_select_offered ON invitations FOR SELECT TO lockbox_api
    USING ((SELECT at_roles()) && '{operator}'::text[] AND is_of_the_vendor(invited_by));
CREATE POLICY api_update_offered ON invitations FOR UPDATE TO lockbox_api
    USING ((SELECT at_roles()) && '{operator}'::text[] AND is_of_the_vendor(invited_by));

CREATE POLICY api_select ON eligible_delegates FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_reach())::uuid[]));
CREATE POLICY api_insert ON eligible_delegates FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND is_member(person_id, tenant_id));
CREATE POLICY api_delete ON eligible_delegates FOR DELETE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[])
        OR (tenant_id = ANY ((SELECT at_tenants())::uuid[]) AND person_id = (SELECT at_person())));

CREATE POLICY api_select ON delegations FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_reach())::uuid[]));
-- An approver names who decides for them, or an admin does; only whom an admin has allowed.
CREATE POLICY api_insert ON delegations FOR INSERT TO lockbox_api
    WITH CHECK (made_by = (SELECT at_person())
        AND (tenant_id = ANY ((SELECT at_administers())::uuid[])
            OR (tenant_id = ANY ((SELECT at_tenants())::uuid[]) AND principal_id = (SELECT at_person())))
        AND EXISTS (SELECT FROM eligible_delegates l
            WHERE l.tenant_id = delegations.tenant_id AND l.person_id = delegations.delegate_id)
        AND EXISTS (SELECT FROM memberships m WHERE m.tenant_id = delegations.tenant_id
            AND m.person_id = delegations.principal_id AND m.role = 'approver'));
CREATE POLICY api_update ON delegations FOR UPDATE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[])
        OR (tenant_id = ANY ((SELECT at_tenants())::uuid[]) AND (SELECT at_person()) IN (principal_id, delegate_id)));


-- What people sign in with, and what is theirs alone

DO $$
DECLARE
    owned record;
BEGIN
    FOR owned IN SELECT * FROM (VALUES
        ('passkeys', '{SELECT,INSERT,UPDATE,DELETE}'::text[]),
        ('identities', '{SELECT,INSERT,DELETE}'),
        ('tokens', '{SELECT,UPDATE}'),
        ('sessions', '{SELECT,INSERT,UPDATE}'),
        ('idempotency_keys', '{SELECT,INSERT,UPDATE,DELETE}')) AS theirs (name, commands), unnest(commands) AS command
    LOOP
        EXECUTE format('CREATE POLICY %I ON %I FOR %s TO lockbox_api %s (person_id = (SELECT at_person()))',
            'api_' || lower(owned.command), owned.name, owned.command,
            CASE owned.command WHEN 'INSERT' THEN 'WITH CHECK' ELSE 'USING' END);
    END LOOP;
END $$;
-- Operators map callers of gates to others, and never to themselves.
CREATE POLICY api_select ON gate_identities FOR SELECT TO lockbox_api
    USING (person_id = (SELECT at_person()) OR (SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);
CREATE POLICY api_insert ON gate_identities FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_roles()) && '{operator}'::text[] AND added_by = (SELECT at_person())
        AND person_id <> (SELECT at_person()) AND is_engineer(person_id));
CREATE POLICY api_delete ON gate_identities FOR DELETE TO lockbox_api
    USING ((SELECT at_roles()) && '{operator}'::text[]);

-- The gate, as which nobody signs in, records what the catalogue says; that is of all tenants. An admin says yes for
-- theirs, and takes it back.
CREATE POLICY api_select ON enforcements FOR SELECT TO lockbox_api USING ((SELECT at_person()) IS NOT NULL);
CREATE POLICY api_insert ON enforcements FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_person()) = '00000000-0000-0000-0000-000000000000' AND (SELECT at_roles()) && '{system}'::text[]);
CREATE POLICY api_update ON enforcements FOR UPDATE TO lockbox_api
    USING ((SELECT at_person()) = '00000000-0000-0000-0000-000000000000' AND (SELECT at_roles()) && '{system}'::text[]);
CREATE POLICY api_insert ON enforcement_switches FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_person()) = '00000000-0000-0000-0000-000000000000' AND (SELECT at_roles()) && '{system}'::text[]);
CREATE POLICY api_select ON report_consents FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[]) OR cardinality((SELECT at_roles())) > 0);
CREATE POLICY api_insert ON report_consents FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND person_id = (SELECT at_person())
        AND EXISTS (SELECT FROM enforcements e WHERE e.id = enforcement_id AND e.revision = report_consents.revision
            AND e.wanted = 'report' AND e.enforced_at IS NOT NULL));
CREATE POLICY api_delete ON report_consents FOR DELETE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[]));

-- The token of a terminal is as good as the session that allowed it, and no better.
CREATE POLICY api_insert ON tokens FOR INSERT TO lockbox_api
    WITH CHECK (person_id = (SELECT at_person()) AND (means IS NULL
        OR (id = (SELECT at_device_login()) AND EXISTS (SELECT FROM sessions s WHERE s.person_id = tokens.person_id
            AND s.means = tokens.means AND s.signed_in_at = tokens.signed_in_at AND s.revoked_at IS NULL
            AND s.only_at IS NOT DISTINCT FROM tokens.only_at))));

CREATE POLICY api_select ON sign_ins FOR SELECT TO lockbox_api USING (id = (SELECT at_sign_in()));
CREATE POLICY api_insert ON sign_ins FOR INSERT TO lockbox_api WITH CHECK (proven_at IS NULL AND used_at IS NULL);
CREATE POLICY api_update ON sign_ins FOR UPDATE TO lockbox_api USING (id = (SELECT at_sign_in()));

-- Whoever signs in is nobody yet; a count is found by a hash that says nothing of whom it is about.
CREATE POLICY api_select ON sign_in_counts FOR SELECT TO lockbox_api USING (true);
CREATE POLICY api_insert ON sign_in_counts FOR INSERT TO lockbox_api WITH CHECK (true);
CREATE POLICY api_update ON sign_in_counts FOR UPDATE TO lockbox_api USING (true);
CREATE POLICY api_delete ON sign_in_counts FOR DELETE TO lockbox_api USING (true);

CREATE POLICY api_select ON device_logins FOR SELECT TO lockbox_api USING (id = (SELECT at_device_login()));
CREATE POLICY api_insert ON device_logins FOR INSERT TO lockbox_api WITH CHECK (answered_at IS NULL);
CREATE POLICY api_update ON device_logins FOR UPDATE TO lockbox_api
    USING (id = (SELECT at_device_login()) AND answered_at IS NULL AND (SELECT at_person()) IS NOT NULL)
    WITH CHECK (answered_by = (SELECT at_person()));


-- Requests

-- The customer sees a request once it was asked; an admin also before, to stop it in an emergency. A system, which
-- guards a door, sees open windows.
CREATE POLICY api_select ON requests FOR SELECT TO lockbox_api
    USING (requester_id = (SELECT at_person()) OR (SELECT at_roles()) && '{manager,vendor_auditor}'::text[]
        OR (asked_at IS NOT NULL AND tenant_id = ANY ((SELECT at_tenants())::uuid[]))
        OR tenant_id = ANY ((SELECT at_administers())::uuid[])
        OR (state = 'active' AND (SELECT at_roles()) && '{system}'::text[]));
-- A mode without the customer's yes is the tenant's own, or one that its policy consents to for a time.
CREATE POLICY api_insert ON requests FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = (SELECT at_tenant())
        AND ((SELECT at_roles()) && '{system}'::text[]
            OR (requester_id = (SELECT at_person()) AND (SELECT at_roles()) && '{engineer}'::text[]))
        AND state IN ('reviewing', 'pending') AND (mode = 'enforce' OR EXISTS (
            SELECT FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
            WHERE t.id = requests.tenant_id AND (t.mode = requests.mode
                OR (p.body -> 'consent' ->> 'mode' = requests.mode
                    AND CAST(p.body -> 'consent' ->> 'until' AS timestamptz) = requests.consent_until)))));
CREATE POLICY api_insert_own ON requests AS RESTRICTIVE FOR INSERT TO lockbox_api
    WITH CHECK (submitted_by = (SELECT at_person()));
-- Who decides is one text with three uses: a function for the triggers and for questions, and a part of two policies
-- that Postgres plans with their statements. By a call of the function each approval would take half as long again.
-- The caller is an approver of the tenant, or has been named by one as delegate; when, is the server's to judge.
DO $$
DECLARE
    decides CONSTANT text := $text$
        %1$s = ANY (%3$s) AND (
            EXISTS (SELECT FROM memberships m
                WHERE m.person_id = %2$s AND m.tenant_id = %1$s AND m.role = 'approver')
            OR EXISTS (SELECT FROM delegations d
                WHERE d.delegate_id = %2$s AND d.tenant_id = %1$s AND d.ended_at IS NULL))
    $text$;
    person CONSTANT text := '(SELECT at_person())';
    tenants CONSTANT text := '(SELECT at_tenants())::uuid[]';
BEGIN
    EXECUTE format('CREATE FUNCTION at_decides(tenant uuid) RETURNS boolean LANGUAGE sql STABLE AS %L',
        'SELECT' || format(decides, 'tenant', 'at_person()', 'at_tenants()'));

    EXECUTE format($policy$CREATE POLICY api_update ON requests FOR UPDATE TO lockbox_api
        USING (requester_id = (SELECT at_person()) OR (SELECT at_roles()) && '{manager}'::text[]
            OR tenant_id = ANY ((SELECT at_administers())::uuid[]) OR (%s))$policy$,
        format(decides, 'requests.tenant_id', person, tenants));

    -- Nobody decides about their own request or in another's name.
    EXECUTE format($policy$CREATE POLICY api_insert ON decisions FOR INSERT TO lockbox_api
        WITH CHECK (person_id = (SELECT at_person()) AND EXISTS (SELECT FROM requests r
            WHERE r.id = request_id AND r.requester_id <> (SELECT at_person()) AND CASE decision
                WHEN 'endorse' THEN r.state = 'reviewing' AND (SELECT at_roles()) && '{manager}'::text[]
                WHEN 'approve' THEN r.state = 'pending' AND (%1$s)
                ELSE (r.state = 'reviewing' AND (SELECT at_roles()) && '{manager}'::text[])
                    OR r.tenant_id = ANY ((SELECT at_administers())::uuid[]) OR (%1$s) END))$policy$,
        format(decides, 'r.tenant_id', person, tenants));
END $$;
-- An operator ends the requests of somebody who leaves, and of a tenant that was just suspended.
CREATE POLICY api_select_leaving ON requests FOR SELECT TO lockbox_api
    USING (requester_id = (SELECT at_leaving()) AND (SELECT at_roles()) && '{operator}'::text[]
        AND NOT is_engineer(requester_id));
CREATE POLICY api_update_leaving ON requests FOR UPDATE TO lockbox_api
    USING (requester_id = (SELECT at_leaving()) AND (SELECT at_roles()) && '{operator}'::text[]
        AND NOT is_engineer(requester_id));
CREATE POLICY api_select_suspending ON requests FOR SELECT TO lockbox_api
    USING (tenant_id = (SELECT at_suspending()) AND (SELECT at_roles()) && '{operator}'::text[]
        AND is_suspended(tenant_id));
CREATE POLICY api_update_suspending ON requests FOR UPDATE TO lockbox_api
    USING (tenant_id = (SELECT at_suspending()) AND (SELECT at_roles()) && '{operator}'::text[]
        AND is_suspended(tenant_id));

CREATE POLICY api_select ON decisions FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0));
-- Who asks whom is the server's to judge, as with decisions; nobody asks in another's name, or answers for another.
-- The customer does not see what was asked in the vendor's review.
CREATE POLICY api_select ON questions FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0)
        AND (state <> 'reviewing' OR NOT tenant_id = ANY ((SELECT at_tenants())::uuid[])));
CREATE POLICY api_insert ON questions FOR INSERT TO lockbox_api
    WITH CHECK (asked_by = (SELECT at_person()) AND answered_at IS NULL
        AND EXISTS (SELECT FROM requests r WHERE r.id = request_id AND r.tenant_id = questions.tenant_id
            AND r.state = questions.state AND r.requester_id <> (SELECT at_person())
            AND ((r.state <> 'reviewing' AND at_decides(r.tenant_id))
                OR (r.state <> 'pending' AND (SELECT at_roles()) && '{manager}'::text[]))));
CREATE POLICY api_update ON questions FOR UPDATE TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id AND r.requester_id = (SELECT at_person())
        AND r.closed_at IS NULL))
    WITH CHECK (answered_by = (SELECT at_person()));

CREATE POLICY api_select ON window_uses FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0));
CREATE POLICY api_select ON window_refusals FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0));
-- Counted by add_gate_counts() alone; who runs gateways at the vendor sees all of it.
CREATE POLICY api_select ON gate_answers FOR SELECT TO lockbox_api
    USING ((SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);
CREATE POLICY api_select ON reported_calls FOR SELECT TO lockbox_api
    USING ((SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);

-- The engineer of an open window has it opened at the target, and a new credential closes the one before.
CREATE POLICY api_select ON connections FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0));
CREATE POLICY api_insert ON connections FOR INSERT TO lockbox_api
    WITH CHECK (state = 'opening' AND verifier IS NOT NULL AND EXISTS (SELECT FROM requests r WHERE r.id = request_id
        AND r.tenant_id = connections.tenant_id AND r.requester_id = (SELECT at_person()) AND r.state = 'active'));
CREATE POLICY api_update ON connections FOR UPDATE TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id AND r.requester_id = (SELECT at_person())))
    WITH CHECK (state = 'closing' AND run_at <= clock_timestamp());

CREATE POLICY api_select ON request_reads FOR SELECT TO lockbox_api USING (person_id = (SELECT at_person()));
CREATE POLICY api_insert ON request_reads FOR INSERT TO lockbox_api
    WITH CHECK (person_id = (SELECT at_person()) AND cardinality((SELECT at_roles())) > 0
        AND EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0));
CREATE POLICY api_update ON request_reads FOR UPDATE TO lockbox_api USING (person_id = (SELECT at_person()));


-- The audit log

-- Whoever is of a tenant reads its log, whatever became of the rows of its requests. Of what is sealed with the
-- vendor they see the moves of requests that they know of, and nothing else: no questions, reminders or mails of a
-- review. Who of a tenant was notified is for the tenant, and for auditors, who read whole logs.
CREATE POLICY api_select ON events FOR SELECT TO lockbox_api
    USING (log_id = ANY ((SELECT at_tenants())::uuid[])
        OR CASE WHEN request_id IS NOT NULL
            THEN EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0)
                AND CASE WHEN action = 'notified' AND NOT internal THEN (SELECT at_roles()) && '{vendor_auditor}'::text[]
                    ELSE NOT internal OR seq IS NOT NULL OR cardinality((SELECT at_roles())) > 0 END
            ELSE actor_id = (SELECT at_person()) OR (SELECT at_roles()) && '{vendor_auditor}'::text[] END);
CREATE POLICY api_insert ON events FOR INSERT TO lockbox_api
    WITH CHECK (actor_id = (SELECT at_person()) AND action <> 'notified'
        AND (action <> 'outside_access' OR (SELECT at_roles()) && '{operator}'::text[])
        AND (tenant_id IS NULL OR tenant_id = ANY ((SELECT at_reach())::uuid[])));

CREATE POLICY api_select ON event_details FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM events e WHERE e.id = event_id OFFSET 0));
CREATE POLICY api_insert ON event_details FOR INSERT TO lockbox_api WITH CHECK (NOT event_exists(event_id));

CREATE POLICY api_select ON logs FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[]) OR (SELECT at_roles()) && '{vendor_auditor}'::text[]);
CREATE POLICY api_select ON seals FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM logs l WHERE l.id = log_id));
CREATE POLICY api_select ON tiles FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM logs l WHERE l.id = log_id));
CREATE POLICY api_select ON checkpoints FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM logs l WHERE l.id = log_id));

-- Whoever opens a window lists the key that it was signed by; nobody without a context opens one.
CREATE POLICY api_insert ON audit_keys FOR INSERT TO lockbox_api
    WITH CHECK (purpose = 'approval' AND (SELECT at_person()) IS NOT NULL);


-- Notifications

CREATE POLICY api_select ON addresses FOR SELECT TO lockbox_api
    USING (person_id = (SELECT at_person()) OR EXISTS (SELECT FROM memberships m
        WHERE m.person_id = addresses.person_id AND CASE WHEN m.tenant_id IS NULL
            THEN cardinality((SELECT at_roles())) > 0 ELSE m.tenant_id = ANY ((SELECT at_tenants())::uuid[]) END));
CREATE POLICY api_insert ON addresses FOR INSERT TO lockbox_api
    WITH CHECK (person_id = (SELECT at_person()) AND confirmed_at IS NULL AND removed_at IS NULL);
CREATE POLICY api_update ON addresses FOR UPDATE TO lockbox_api USING (person_id = (SELECT at_person()));

CREATE POLICY api_select ON observers FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[]));
CREATE POLICY api_insert ON observers FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND added_by = (SELECT at_person())
        AND removed_at IS NULL AND NOT is_across(email, 'customer'));
CREATE POLICY api_update ON observers FOR UPDATE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[]));

CREATE POLICY api_select ON endpoints FOR SELECT TO lockbox_api
    USING ((tenant_id IS NULL AND cardinality((SELECT at_roles())) > 0)
        OR tenant_id = ANY ((SELECT at_tenants())::uuid[]));
CREATE POLICY api_insert ON endpoints FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[])
        OR (tenant_id IS NULL AND (SELECT at_roles()) && '{operator}'::text[]));
CREATE POLICY api_update ON endpoints FOR UPDATE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[])
        OR (tenant_id IS NULL AND (SELECT at_roles()) && '{operator}'::text[]));

CREATE POLICY api_select ON notifications FOR SELECT TO lockbox_api
    USING (CASE WHEN request_id IS NOT NULL THEN EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0)
        ELSE tenant_id = ANY ((SELECT at_tenants())::uuid[]) END);
-- A code to sign in with is mailed for somebody who is nobody yet, and names nobody. Of requests people are told by way
-- of the outbox alone.
CREATE POLICY api_insert ON notifications FOR INSERT TO lockbox_api
    WITH CHECK (request_id IS NULL AND CASE WHEN template = 'sign_in_code'
        THEN event_id IS NULL AND tenant_id IS NULL AND person_id IS NULL AND endpoint_id IS NULL
        ELSE (SELECT at_person()) IS NOT NULL
            AND (tenant_id IS NULL OR tenant_id = ANY ((SELECT at_reach())::uuid[])) END);

-- A row comes with its event, and asks nobody who has no part in such a request.
CREATE POLICY api_select ON outbox FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id));
CREATE POLICY api_insert ON outbox FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_person()) IS NOT NULL AND tenant_id = ANY ((SELECT at_reach())::uuid[])
        AND NOT event_exists(event_id)
        AND NOT EXISTS (SELECT FROM unnest(asked) AS a (id) WHERE NOT EXISTS (SELECT FROM memberships m
            WHERE m.person_id = a.id AND (m.tenant_id IS NULL OR m.tenant_id = outbox.tenant_id))));

-- What was answered is for the side that was called. The inner tables are seen through their own policies.
CREATE POLICY api_select ON deliveries FOR SELECT TO lockbox_api
    USING (CASE WHEN endpoint_id IS NOT NULL THEN EXISTS (SELECT FROM endpoints h WHERE h.id = endpoint_id)
        ELSE EXISTS (SELECT FROM notifications n JOIN memberships m ON m.person_id = n.person_id
            WHERE n.id = notification_id AND CASE WHEN m.tenant_id IS NULL THEN cardinality((SELECT at_roles())) > 0
                ELSE m.tenant_id = ANY ((SELECT at_tenants())::uuid[]) END OFFSET 0)
            OR EXISTS (SELECT FROM notifications n JOIN observers w ON w.id = n.observer_id
                WHERE n.id = notification_id OFFSET 0) END);


-- What the database itself refuses or adds, by table: the triggers, and the functions that only they call.
--
-- A rule that binds every role must not itself be bound by what one caller may see: where it reads other rows, its
-- function is SECURITY DEFINER. `current_user` is the login that acts: the API, the worker or the notifications
-- worker.


-- Refuse, with a message in which %s stands for the row's id.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', format(TG_ARGV[0], coalesce(to_jsonb(NEW), to_jsonb(OLD)) ->> 'id')
        USING ERRCODE = 'insufficient_privilege';
END $$;


-- Tenants and their policies

CREATE TRIGGER only_its_admins BEFORE UPDATE ON tenants FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND (NEW.mode <> OLD.mode OR NEW.policy_version <> OLD.policy_version
        OR NEW.name <> OLD.name) AND NOT NEW.id = ANY (at_administers()))
    EXECUTE FUNCTION refuse('only the admins of tenant %s change its mode, its policy and its name');
CREATE TRIGGER only_operators BEFORE UPDATE ON tenants FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND (NEW.suspended <> OLD.suspended OR NEW.plan <> OLD.plan)
        AND NOT 'operator' = ANY (at_roles()))
    EXECUTE FUNCTION refuse('only operators suspend tenant %s and change its plan');

-- The owner marks a version anew, and changes nothing that it says.
CREATE TRIGGER append_only BEFORE UPDATE ON policies FOR EACH ROW
    WHEN (NEW.mac IS NULL OR NEW.mac IS NOT DISTINCT FROM OLD.mac OR to_jsonb(OLD) - 'mac' <> to_jsonb(NEW) - 'mac')
    EXECUTE FUNCTION refuse('policies is append-only');
CREATE TRIGGER no_removal BEFORE DELETE ON policies FOR EACH ROW EXECUTE FUNCTION refuse('policies is append-only');
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON policies FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('policies is append-only');


-- People

CREATE TRIGGER operators_disable_the_vendors BEFORE UPDATE ON people FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND NEW.disabled_at IS DISTINCT FROM OLD.disabled_at
        AND (OLD.disabled_at IS NOT NULL OR NEW.side <> 'vendor' OR NEW.id = at_person()
            OR NOT 'operator' = ANY (at_roles())))
    EXECUTE FUNCTION refuse('only operators disable %s, a person of the vendor, and for good');
CREATE TRIGGER ones_own_preferences BEFORE UPDATE ON people FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND (NEW.time_zone <> OLD.time_zone OR NEW.wants_prompts <> OLD.wants_prompts)
        AND NEW.id IS DISTINCT FROM at_person())
    EXECUTE FUNCTION refuse('only %s chooses what mails to them are like');

-- Nobody is on both sides: whoever signs in by an address takes it from the other one.
CREATE FUNCTION take_from_the_other_side() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE addresses a SET removed_at = clock_timestamp() FROM people p
    WHERE p.id = a.person_id AND p.side <> NEW.side AND lower(a.email) = lower(NEW.email) AND a.removed_at IS NULL;
    UPDATE observers w SET removed_at = clock_timestamp()
    WHERE NEW.side = 'vendor' AND lower(w.email) = lower(NEW.email) AND w.removed_at IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER takes_its_address AFTER INSERT ON people FOR EACH ROW EXECUTE FUNCTION take_from_the_other_side();

CREATE FUNCTION refuse_mixed() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    -- Not a lock but a change: it also fails whoever judges by a snapshot from before another role was given.
    UPDATE people SET disabled_at = disabled_at WHERE id = NEW.person_id;
    IF EXISTS (SELECT FROM memberships m WHERE m.person_id = NEW.person_id
            AND (m.role = 'system') <> (NEW.role = 'system')) THEN
        RAISE EXCEPTION '% would be a system and something else', NEW.person_id
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER a_system_is_nothing_else AFTER INSERT OR UPDATE ON memberships FOR EACH ROW
    WHEN (NEW.tenant_id IS NULL) EXECUTE FUNCTION refuse_mixed();

-- The last admin stays, unless nobody else has ever joined whom they would leave behind.
CREATE FUNCTION refuse_no_admin() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
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
CREATE TRIGGER never_the_last_admin AFTER UPDATE OR DELETE ON memberships FOR EACH ROW
    WHEN (OLD.role = 'tenant_admin') EXECUTE FUNCTION refuse_no_admin();

CREATE TRIGGER only_the_guest_accepts BEFORE UPDATE ON invitations FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND NEW.accepted_at IS DISTINCT FROM OLD.accepted_at
        AND at_invitation() IS DISTINCT FROM NEW.id)
    EXECUTE FUNCTION refuse('only who has its code accepts invitation %s');
CREATE TRIGGER never_revived BEFORE UPDATE ON invitations FOR EACH ROW
    WHEN ((OLD.accepted_at IS NOT NULL OR OLD.withdrawn_at IS NOT NULL) AND NOT is_owner_command('erase'))
    EXECUTE FUNCTION refuse('invitation %s is over');

CREATE TRIGGER never_begun_again BEFORE UPDATE ON delegations FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.ended_at IS NOT NULL)
    EXECUTE FUNCTION refuse('delegation %s has ended');


-- What people sign in with

CREATE TRIGGER never_good_again BEFORE UPDATE ON tokens FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.revoked_at IS NOT NULL
        AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
    EXECUTE FUNCTION refuse('token %s stays revoked');
CREATE TRIGGER never_good_again BEFORE UPDATE ON sessions FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.revoked_at IS NOT NULL
        AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
    EXECUTE FUNCTION refuse('session %s stays revoked');

-- What was removed, or marked anew, does not come back: its mark is remembered, and no login forgets it.
CREATE FUNCTION remember_ended_power() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO ended_powers (mac, ended_at) VALUES (OLD.mac, clock_timestamp()) ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

CREATE FUNCTION refuse_ended_power() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM ended_powers p WHERE p.mac = NEW.mac) THEN
        RAISE EXCEPTION 'a row of % was taken away and does not come back', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;

DO $$
DECLARE
    marked text;
BEGIN
    FOREACH marked IN ARRAY '{memberships,passkeys,identities,gate_identities,tenants,eligible_delegates,
        enforcements,report_consents}'::text[] LOOP
        EXECUTE format('CREATE TRIGGER removed_for_good AFTER DELETE ON %I FOR EACH ROW
            WHEN (OLD.mac IS NOT NULL) EXECUTE FUNCTION remember_ended_power()', marked);
        EXECUTE format('CREATE TRIGGER marked_anew AFTER UPDATE ON %I FOR EACH ROW
            WHEN (OLD.mac IS NOT NULL AND OLD.mac IS DISTINCT FROM NEW.mac)
            EXECUTE FUNCTION remember_ended_power()', marked);
        EXECUTE format('CREATE TRIGGER never_put_back BEFORE INSERT ON %I FOR EACH ROW
            WHEN (NEW.mac IS NOT NULL) EXECUTE FUNCTION refuse_ended_power()', marked);
        EXECUTE format('CREATE TRIGGER never_marked_back BEFORE UPDATE ON %I FOR EACH ROW
            WHEN (NEW.mac IS NOT NULL AND NEW.mac IS DISTINCT FROM OLD.mac)
            EXECUTE FUNCTION refuse_ended_power()', marked);
    END LOOP;
END $$;


-- The gate

CREATE TRIGGER never_unenforced BEFORE UPDATE ON enforcements FOR EACH ROW
    WHEN (NEW.id <> OLD.id OR NEW.service <> OLD.service OR NEW.revision < OLD.revision
        OR (NEW.wanted <> OLD.wanted AND NEW.revision = OLD.revision)
        OR (OLD.enforced_at IS NOT NULL AND NEW.enforced_at IS DISTINCT FROM OLD.enforced_at))
    EXECUTE FUNCTION refuse('what gate %s has enforced stays on record, and each switch is a revision');


-- Requests

-- A request changes by one move at a time, from a state to one that it leads to. Three changes are no moves:
-- an approver's question stops the clock and the requester's answer lets it go on, by as much as it stood;
-- the notifications worker sets the clock forward where nobody could be reached;
-- the worker's clock reminds, escalates and warns, and only ever counts upwards.
CREATE FUNCTION refuse_wrong_way() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    reminder_columns CONSTANT text[] := '{wake_at,reminders,tiers_asked,warned}';
    clock CONSTANT text[] := '{deadline_at,wake_at,stopped_at,stopped_deadline,stopped_for}';
    moved CONSTANT interval := make_interval(secs => NEW.stopped_for - OLD.stopped_for);
BEGIN
    IF NEW.version = OLD.version AND OLD.state = 'pending' AND current_user = 'lockbox_api'
        AND to_jsonb(NEW) - clock = to_jsonb(OLD) - clock AND NEW.wake_at <= NEW.deadline_at
        AND (CASE WHEN OLD.stopped_at IS NULL
            THEN NEW.stopped_at IS NOT NULL AND NEW.stopped_deadline = OLD.deadline_at
                AND NEW.deadline_at > OLD.deadline_at AND NEW.stopped_for = OLD.stopped_for
                AND at_decides(OLD.tenant_id)
            ELSE NEW.stopped_at IS NULL AND NEW.stopped_for >= OLD.stopped_for AND NEW.deadline_at <= OLD.deadline_at
                AND NEW.deadline_at = OLD.stopped_deadline + moved AND OLD.requester_id = at_person() END) THEN
        RETURN NEW;
    END IF;
    IF NEW.version = OLD.version AND NEW.wake_at < OLD.wake_at AND current_user = 'lockbox_notifications'
        AND OLD.state IN ('reviewing', 'pending') AND to_jsonb(NEW) - 'wake_at' = to_jsonb(OLD) - 'wake_at' THEN
        RETURN NEW;
    END IF;
    IF NEW.version = OLD.version AND NEW.wake_at > OLD.wake_at
        AND current_user NOT IN ('lockbox_api', 'lockbox_notifications')
        AND to_jsonb(NEW) - reminder_columns = to_jsonb(OLD) - reminder_columns THEN
        IF NEW.reminders NOT BETWEEN OLD.reminders AND OLD.reminders + 1
            OR NEW.tiers_asked < OLD.tiers_asked OR (OLD.warned AND NOT NEW.warned) THEN
            RAISE EXCEPTION 'the counts of request % only go up', OLD.id USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN NEW;
    END IF;
    IF NEW.version = OLD.version AND OLD.state = 'active' AND NEW.used = OLD.used + 1
        AND current_user NOT IN ('lockbox_api', 'lockbox_worker', 'lockbox_notifications')
        AND to_jsonb(NEW) - 'used' = to_jsonb(OLD) - 'used' THEN
        RETURN NEW;
    END IF;
    IF NOT NEW.state = ANY (leads_to(OLD.state)) THEN
        RAISE EXCEPTION 'request % does not go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION 'request % changes by one move at a time', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF OLD.state = 'active' AND (NEW.deadline_at > OLD.deadline_at OR NEW.opened_at <> OLD.opened_at) THEN
        RAISE EXCEPTION 'the window of request % may not grow', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.reminders NOT IN (0, OLD.reminders) OR (NEW.state = OLD.state AND NEW.reminders <> OLD.reminders)
        OR (NEW.state = OLD.state AND NEW.tiers_asked < OLD.tiers_asked) OR NEW.warned <> OLD.warned THEN
        RAISE EXCEPTION 'a move of request % reminds nobody', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER one_way BEFORE UPDATE ON requests FOR EACH ROW EXECUTE FUNCTION refuse_wrong_way();
CREATE TRIGGER no_removal BEFORE DELETE ON requests FOR EACH ROW EXECUTE FUNCTION refuse('requests is append-only');

-- One that follows is of the same engineer at the same tenant, and one of them is open at a time.
CREATE FUNCTION refuse_stray() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM requests r WHERE r.id = NEW.follows AND r.tenant_id = NEW.tenant_id
        AND r.requester_id = NEW.requester_id AND r.state = 'timed_out') THEN
        RAISE EXCEPTION 'request % follows none that it could follow', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER follows_its_own BEFORE INSERT ON requests FOR EACH ROW
    WHEN (NEW.follows IS NOT NULL) EXECUTE FUNCTION refuse_stray();

-- Who opens, and who denies or endorses.
CREATE TRIGGER only_its_approvers_open BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.state = 'pending' AND NEW.state = 'active'
        AND NOT at_decides(NEW.tenant_id))
    EXECUTE FUNCTION refuse('only an approver, with the last vote, opens request %s');
CREATE TRIGGER only_managers_open_alone BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.state = 'reviewing' AND NEW.state <> 'cancelled'
        AND NOT 'manager' = ANY (at_roles())
        AND NOT (NEW.state = 'denied' AND OLD.tenant_id = ANY (at_administers())))
    EXECUTE FUNCTION refuse('only a manager endorses request %s, or denies it but for an emergency stop');
-- What the vendor opens alone is within the tenant's mode at that moment, or within consent that lasts as long.
CREATE FUNCTION refuse_without_the_customer() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
        WHERE t.id = NEW.tenant_id AND (t.mode <> 'enforce'
            OR CAST(p.body -> 'consent' ->> 'until' AS timestamptz) >= NEW.deadline_at)) THEN
        RAISE EXCEPTION 'the customer decides about request %', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_where_the_customer_lets BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.state = 'reviewing' AND NEW.state = 'active') EXECUTE FUNCTION refuse_without_the_customer();
CREATE TRIGGER leaving_only_ends BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.requester_id = at_leaving()
        AND NEW.state NOT IN ('cancelled', 'revoked'))
    EXECUTE FUNCTION refuse('request %s of somebody who leaves can only be cancelled or revoked');
CREATE TRIGGER suspending_only_ends BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.tenant_id = at_suspending() AND NEW.state <> 'revoked')
    EXECUTE FUNCTION refuse('request %s of a suspended tenant can only be revoked by an operator');

-- The terms of a request only ever get stricter.
CREATE TRIGGER never_looser BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.quorum < OLD.quorum) EXECUTE FUNCTION refuse('the quorum of request %s may not fall');
CREATE TRIGGER never_attested_again BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.approve_means = 'passkey-signed' AND NEW.approve_means <> OLD.approve_means)
    EXECUTE FUNCTION refuse('the approvals of request %s stay signed with passkeys');
CREATE TRIGGER never_in_a_looser_mode BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.mode <> OLD.mode AND (OLD.state <> 'reviewing' OR NEW.state NOT IN ('pending', 'active')
        OR strictness(NEW.mode) < strictness(OLD.mode)))
    EXECUTE FUNCTION refuse('the mode of request %s only gets stricter, as it leaves the review');
CREATE TRIGGER never_by_longer_consent BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.consent_until IS DISTINCT FROM OLD.consent_until AND (OLD.state <> 'reviewing'
        OR NEW.consent_until > OLD.consent_until OR (NEW.consent_until IS NULL AND NEW.mode <> 'enforce')))
    EXECUTE FUNCTION refuse('the consent that request %s rests on only gets shorter');
CREATE TRIGGER never_wider BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.opened_at IS NOT NULL AND (NEW.granted_resources IS DISTINCT FROM OLD.granted_resources
        OR NEW.granted_actions IS DISTINCT FROM OLD.granted_actions))
    EXECUTE FUNCTION refuse('what request %s was opened for stays as it is');
CREATE TRIGGER never_for_more_uses BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.max_uses IS NOT NULL AND (NEW.max_uses IS NULL OR NEW.max_uses > OLD.max_uses)
        OR OLD.opened_at IS NOT NULL AND NEW.max_uses IS DISTINCT FROM OLD.max_uses OR NEW.used < OLD.used)
    EXECUTE FUNCTION refuse('request %s is never for more uses');
CREATE TRIGGER never_unasked BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.asked_at IS NOT NULL AND NEW.asked_at IS DISTINCT FROM OLD.asked_at)
    EXECUTE FUNCTION refuse('who was asked about request %s was asked');

-- What the row says it is judged by, from then on: so it says that approvals are signed before it opens, where the
-- policy of submit or today's demands it. Somebody who approves while the policy gets stricter has to try again,
-- as the state of this error has it, and then to sign.
CREATE FUNCTION refuse_unsigned() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM tenants t JOIN policies p ON p.tenant_id = t.id
            AND p.version IN (t.policy_version, NEW.policy_version)
        WHERE t.id = NEW.tenant_id
            AND demands_passkeys(p.body, NEW.service, NEW.actions, NEW.reason_code, NEW.resources)) THEN
        RAISE EXCEPTION 'the policy demands signed approvals for request %', NEW.id
            USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_signed_where_demanded BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.state = 'active' AND OLD.state <> 'active' AND NEW.mode = 'enforce' AND NEW.approve_means = 'attested')
    EXECUTE FUNCTION refuse_unsigned();

-- No window is open without the decisions for it, and no move is made without its event. People's moves are judged at
-- their commit, in whatever order they were written; a worker writes each batch in one statement, which is judged at
-- once: by a look-up in an index for each row (OFFSET 0), as a join would read whole tables.
CREATE FUNCTION refuse_unfounded() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.state = 'active' AND NOT is_founded(NEW) THEN
        RAISE EXCEPTION 'request % is active without the decisions for it', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NOT EXISTS (SELECT FROM events e WHERE e.request_id = NEW.id AND e.seq = NEW.version
        AND e.to_state = NEW.state) THEN
        RAISE EXCEPTION 'request % moved without an event', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER moves_are_founded AFTER INSERT OR UPDATE ON requests DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (current_user <> 'lockbox_worker') EXECUTE FUNCTION refuse_unfounded();
CREATE FUNCTION refuse_unfounded_batch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    bad uuid;
BEGIN
    SELECT m.id INTO bad FROM moved m WHERE NOT EXISTS (SELECT FROM events e WHERE e.request_id = m.id
        AND e.seq = m.version AND e.to_state = m.state OFFSET 0) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'request % moved without an event', bad USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT m.id INTO bad FROM moved m WHERE m.state = 'active'
        AND NOT (SELECT is_founded(r) FROM requests r WHERE r.id = m.id) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'request % is active without the decisions for it', bad
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER batches_are_founded AFTER UPDATE ON requests REFERENCING NEW TABLE AS moved FOR EACH STATEMENT
    WHEN (current_user = 'lockbox_worker') EXECUTE FUNCTION refuse_unfounded_batch();

-- Where somebody was can be erased from what they decided; what they decided stays as it is.
CREATE TRIGGER append_only BEFORE UPDATE ON decisions FOR EACH ROW
    WHEN (NOT (is_owner_command('erase') AND to_jsonb(NEW) - '{address,user_agent}'::text[]
        = to_jsonb(OLD) - '{address,user_agent}'::text[]))
    EXECUTE FUNCTION refuse('decisions is append-only');
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON decisions FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('decisions is append-only');
CREATE TRIGGER never_goes BEFORE DELETE ON decisions FOR EACH ROW EXECUTE FUNCTION refuse('decisions is append-only');

CREATE TRIGGER answered_once BEFORE UPDATE ON questions FOR EACH ROW
    WHEN (OLD.answered_at IS NOT NULL) EXECUTE FUNCTION refuse('question %s was answered');
CREATE TRIGGER never_goes BEFORE DELETE ON questions FOR EACH ROW EXECUTE FUNCTION refuse('questions is append-only');

-- What is being closed is never opened again, and what was proven closed stays so.
CREATE TRIGGER never_opened_again BEFORE UPDATE ON connections FOR EACH ROW
    WHEN (OLD.state = 'closed' OR (OLD.state IN ('closing', 'close_failed')
        AND NEW.state NOT IN ('closing', 'close_failed', 'closed'))
        OR (NEW.state = 'closed' AND OLD.state NOT IN ('closing', 'close_failed')))
    EXECUTE FUNCTION refuse('connection %s is closed, or is to be');
CREATE TRIGGER never_goes BEFORE DELETE ON connections FOR EACH ROW
    EXECUTE FUNCTION refuse('connections is append-only');


-- The audit log

CREATE TRIGGER append_only BEFORE UPDATE ON events FOR EACH ROW EXECUTE FUNCTION refuse('events is append-only');
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON events FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('events is append-only');
-- Whole ranges go from the beginning of a log once they are old; what was sealed over them, and so every proof,
-- stays.
CREATE TRIGGER never_goes BEFORE DELETE ON events FOR EACH ROW
    WHEN (NOT is_owner_command('retain')) EXECUTE FUNCTION refuse('events is append-only');

-- Personal values are erased one by one, and go with their event; none is ever changed or added.
CREATE TRIGGER append_only BEFORE UPDATE ON event_details FOR EACH ROW
    WHEN (NOT (is_owner_command('erase') AND NEW.event_id = OLD.event_id AND only_removes(OLD.fields, NEW.fields)))
    EXECUTE FUNCTION refuse('event_details is append-only');
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON event_details FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('event_details is append-only');
CREATE TRIGGER never_goes BEFORE DELETE ON event_details FOR EACH ROW
    WHEN (NOT is_owner_command('retain')) EXECUTE FUNCTION refuse('event_details is append-only');

CREATE TRIGGER workers_speak_for_the_clock BEFORE INSERT ON events FOR EACH ROW
    WHEN ((current_user = 'lockbox_worker' AND (NEW.actor_role <> 'clock' OR NEW.action = 'notified'
            OR (NEW.seq IS NOT NULL AND NEW.to_state NOT IN ('timed_out', 'expired'))))
        OR (current_user = 'lockbox_notifications' AND (NEW.actor_role <> 'clock' OR NEW.seq IS NOT NULL
            OR NOT CASE WHEN NEW.request_id IS NOT NULL THEN NEW.action = 'notified'
                ELSE NEW.action IN ('notifications_sent', 'notification_dead', 'endpoint_disabled') END))
        OR (current_user = 'lockbox_connectors' AND (NEW.actor_role <> 'clock' OR NEW.seq IS NOT NULL
            OR NEW.request_id IS NULL OR NEW.action NOT IN ('connection_opened', 'connection_open_failed',
                'connection_closed', 'connection_close_failed'))))
    EXECUTE FUNCTION refuse('a worker speaks for the clock alone');

-- The rules for rows bind the columns; what is sealed is the body. Only the owner removes what is old. The core
-- worker is left out: its batches would take a tenth longer, and it seals.
CREATE FUNCTION refuse_contradicting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM fresh e, LATERAL jsonb_to_record(convert_from(e.body, 'UTF8')::jsonb) AS b (id uuid, log uuid,
            tenant_id uuid, request_id uuid, seq integer, at timestamptz, action text, actor_id uuid,
            actor_role text, from_state text, to_state text)
        WHERE e.action = 'audit_events_removed' OR (b.id, b.log, b.tenant_id, b.request_id, b.seq, b.at, b.action,
                b.actor_id, b.actor_role, b.from_state, b.to_state)
            IS DISTINCT FROM (e.id, e.log_id, e.tenant_id, e.request_id, e.seq, e.at, e.action::text,
                e.actor_id, e.actor_role::text, e.from_state::text, e.to_state::text)
    ) THEN
        RAISE EXCEPTION 'the body of an event says something else than its row'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER true_to_its_row AFTER INSERT ON events REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    WHEN (current_user IN ('lockbox_api', 'lockbox_notifications', 'lockbox_connectors'))
    EXECUTE FUNCTION refuse_contradicting();

-- No event tells of a move that was not made: at the commit, and a worker's batch at once.
CREATE FUNCTION refuse_invented() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM requests r WHERE r.id = NEW.request_id AND r.version >= NEW.seq) THEN
        RAISE EXCEPTION 'event % tells of a move that was not made', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER events_are_true AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.seq IS NOT NULL AND current_user <> 'lockbox_worker') EXECUTE FUNCTION refuse_invented();
CREATE FUNCTION refuse_invented_batch() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    bad uuid;
BEGIN
    SELECT f.id INTO bad FROM fresh f WHERE f.seq IS NOT NULL AND NOT EXISTS (SELECT FROM requests r
        WHERE r.id = f.request_id AND r.version >= f.seq OFFSET 0) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'event % tells of a move that was not made', bad USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER batches_are_true AFTER INSERT ON events REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    WHEN (current_user = 'lockbox_worker') EXECUTE FUNCTION refuse_invented_batch();

-- Events are of the tenant of their request.
CREATE FUNCTION refuse_foreign() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM requests r WHERE r.id = NEW.request_id AND r.tenant_id = NEW.tenant_id) THEN
        RAISE EXCEPTION '% % names another tenant than its request', TG_TABLE_NAME, NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER of_its_tenant AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user IN ('lockbox_api', 'lockbox_connectors') AND NEW.request_id IS NOT NULL)
    EXECUTE FUNCTION refuse_foreign();

-- What is told of an event is told of that one: whoever queues it writes both at once.
CREATE FUNCTION refuse_unfounded_outbox() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM events e WHERE e.id = NEW.event_id AND e.request_id = NEW.request_id
            AND e.tenant_id = NEW.tenant_id AND e.at = NEW.at) THEN
        RAISE EXCEPTION 'the outbox names another event than %', NEW.event_id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER of_its_event AFTER INSERT ON outbox DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user IN ('lockbox_api', 'lockbox_connectors')) EXECUTE FUNCTION refuse_unfounded_outbox();

-- Whoever writes an event queues nothing and leaves nothing out: the table does it, for a whole statement at once.
CREATE FUNCTION queue_for_sealing() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO unsealed (event_id) SELECT id FROM fresh ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER queued AFTER INSERT ON events REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    EXECUTE FUNCTION queue_for_sealing();

-- Access that was taken around Lockbox stays counted, also when its event is removed by retention.
CREATE FUNCTION count_outside_access() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO counters (name, label, count, total) VALUES ('outside_access', '', 1, 0);
    RETURN NULL;
END $$;
CREATE TRIGGER counted AFTER INSERT ON events FOR EACH ROW WHEN (NEW.action = 'outside_access')
    EXECUTE FUNCTION count_outside_access();

-- A log grows and does nothing else: what was hashed stays, in its place.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON seals FOR EACH ROW
    EXECUTE FUNCTION refuse('seals is append-only');
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON seals FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('seals is append-only');
CREATE TRIGGER append_only BEFORE UPDATE ON checkpoints FOR EACH ROW
    WHEN (to_jsonb(NEW) - 'notified_at' <> to_jsonb(OLD) - 'notified_at')
    EXECUTE FUNCTION refuse('checkpoints is append-only');
CREATE TRIGGER never_goes BEFORE DELETE ON checkpoints FOR EACH ROW
    EXECUTE FUNCTION refuse('checkpoints is append-only');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_keys FOR EACH ROW
    EXECUTE FUNCTION refuse('audit_keys is append-only');
CREATE TRIGGER only_grows BEFORE UPDATE ON tiles FOR EACH ROW
    WHEN (substr(NEW.hashes, 1, octet_length(OLD.hashes)) <> OLD.hashes)
    EXECUTE FUNCTION refuse('tiles only grow');
CREATE TRIGGER never_goes BEFORE DELETE ON tiles FOR EACH ROW EXECUTE FUNCTION refuse('tiles is append-only');
CREATE TRIGGER only_grows BEFORE UPDATE ON logs FOR EACH ROW
    WHEN (NEW.size < OLD.size OR (NEW.size = OLD.size AND NEW.root <> OLD.root) OR NEW.unproven <> OLD.unproven
        OR NEW.generation NOT IN (OLD.generation, OLD.generation + 1)
        OR (NEW.generation = OLD.generation AND NEW.origin <> OLD.origin AND OLD.size > 0))
    EXECUTE FUNCTION refuse('logs only grow');
CREATE TRIGGER never_goes BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION refuse('logs is append-only');


-- Notifications

CREATE TRIGGER never_revived BEFORE UPDATE ON addresses FOR EACH ROW
    WHEN (OLD.removed_at IS NOT NULL AND NOT is_owner_command('erase'))
    EXECUTE FUNCTION refuse('address %s was removed');
CREATE TRIGGER confirmed_once BEFORE UPDATE ON addresses FOR EACH ROW
    WHEN (OLD.confirmed_at IS NOT NULL AND NEW.confirmed_at IS DISTINCT FROM OLD.confirmed_at)
    EXECUTE FUNCTION refuse('address %s was confirmed');
CREATE TRIGGER never_revived BEFORE UPDATE ON observers FOR EACH ROW
    WHEN (OLD.removed_at IS NOT NULL AND NOT is_owner_command('erase'))
    EXECUTE FUNCTION refuse('observer %s was removed');
CREATE TRIGGER never_revived BEFORE UPDATE ON endpoints FOR EACH ROW
    WHEN (OLD.removed_at IS NOT NULL) EXECUTE FUNCTION refuse('endpoint %s was removed');

-- Of a request's event people are told by way of the outbox: a row that names one would stand in their way.
CREATE FUNCTION refuse_misdirected() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF (NEW.event_id IS NOT NULL AND NOT EXISTS (SELECT FROM events e
            WHERE e.id = NEW.event_id AND e.tenant_id IS NOT DISTINCT FROM NEW.tenant_id AND e.request_id IS NULL))
        OR (NEW.endpoint_id IS NOT NULL AND NOT EXISTS (SELECT FROM endpoints h
            WHERE h.id = NEW.endpoint_id AND (h.tenant_id IS NULL OR h.tenant_id = NEW.tenant_id))) THEN
        RAISE EXCEPTION 'notification % tells of a request, or one tenant of what is another''s', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER to_its_tenant AFTER INSERT ON notifications DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_api') EXECUTE FUNCTION refuse_misdirected();

-- Nobody says that a notification was sent without the row of deliveries that says when, where to and what was answered.
CREATE FUNCTION refuse_unrecorded() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM deliveries d WHERE d.notification_id = NEW.id AND d.error IS NULL) THEN
        RAISE EXCEPTION 'notification % was sent without a delivery', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER sent_is_on_record AFTER UPDATE ON notifications DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_notifications' AND NEW.outcome = 'sent' AND OLD.outcome IS DISTINCT FROM 'sent')
    EXECUTE FUNCTION refuse_unrecorded();


-- Who may do what: the API, the worker (deadlines, seals, reconciling) and the notifications worker. config/roles.sql
-- makes these logins. None of them owns a table, changes an event or a decision, or reads the secret of an
-- invitation.


-- Nobody chooses by which transaction an event was written.
GRANT INSERT (id, tenant_id, internal, request_id, seq, at, action, actor_id, actor_role, from_state, to_state,
    deadline_at, body) ON events TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;


-- The API

GRANT SELECT, INSERT ON people, tenants, policies, memberships, eligible_delegates, delegations, passkeys, identities,
    gate_identities, enforcements, report_consents, tokens, sessions, sign_ins, sign_in_counts, device_logins, requests, decisions, questions, request_reads,
    idempotency_keys, event_details, addresses, observers, endpoints, notifications, outbox TO lockbox_api;
GRANT SELECT ON events TO lockbox_api;
GRANT SELECT ON logs, seals, tiles, checkpoints, deliveries, gate_answers, reported_calls, window_uses, window_refusals
    TO lockbox_api;
GRANT INSERT ON invitations, audit_keys, enforcement_switches TO lockbox_api;
GRANT DELETE ON memberships, eligible_delegates, passkeys, identities, gate_identities, report_consents,
    sign_in_counts, idempotency_keys TO lockbox_api;
GRANT UPDATE ON sign_in_counts, idempotency_keys TO lockbox_api;

GRANT UPDATE (name, time_zone, wants_prompts, disabled_at) ON people TO lockbox_api;
GRANT UPDATE (name, plan, mode, suspended, policy_version, revision, mac) ON tenants TO lockbox_api;
GRANT UPDATE (review_tier) ON memberships TO lockbox_api;
GRANT UPDATE (wanted, revision, enforced_at, changed_at, mac) ON enforcements TO lockbox_api;
GRANT SELECT (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at, code_nonce,
    expires_at, accepted_at, accepted_by, withdrawn_at, withdrawn_by, mac) ON invitations TO lockbox_api;
GRANT UPDATE (accepted_at, accepted_by, withdrawn_at, withdrawn_by) ON invitations TO lockbox_api;
GRANT UPDATE (ends_at, ended_at) ON delegations TO lockbox_api;

GRANT UPDATE (name, sign_count, last_used_at) ON passkeys TO lockbox_api;
GRANT UPDATE (name, expires_at, last_used_at, revoked_at, mac) ON tokens TO lockbox_api;
GRANT UPDATE (last_seen_at, revoked_at) ON sessions TO lockbox_api;
GRANT UPDATE (tries, proven_at, used_at) ON sign_ins TO lockbox_api;
GRANT UPDATE (answered_by, answered_at, is_allowed) ON device_logins TO lockbox_api;

GRANT UPDATE (mode, consent_until, quorum, max_uses, approve_means, state, version, granted_resources, granted_actions,
    asked_at, opened_at, closed_at, deadline_at, wake_at, reminders, tiers_asked, warned, stopped_at,
    stopped_deadline, stopped_for) ON requests TO lockbox_api;
GRANT UPDATE (answered_by, answered_at, answer_event) ON questions TO lockbox_api;
GRANT UPDATE (hour) ON request_reads TO lockbox_api;

GRANT UPDATE (prompts, confirmed_at, removed_at) ON addresses TO lockbox_api;
GRANT UPDATE (removed_at) ON observers TO lockbox_api;
GRANT UPDATE (url, description, event_types, format, with_justification, secret, public_key, old_secret,
    old_secret_until, called_by_hand, failing_since, disabled_at, why_disabled, removed_at) ON endpoints
    TO lockbox_api;


GRANT INSERT (id, request_id, tenant_id, kind, target, verifier, state, run_at, created_at, mac) ON connections
    TO lockbox_api;
GRANT SELECT (id, request_id, tenant_id, kind, target, state, run_at, attempts, failures, last_error, created_at,
    opened_at, closed_at) ON connections TO lockbox_api;
GRANT UPDATE (state, run_at, failures) ON connections TO lockbox_api;


-- The worker moves requests by the clock and seals. It closes no notification, and knows no code and no token.

GRANT SELECT ON people, tenants, policies, memberships, eligible_delegates, delegations, requests, decisions,
    idempotency_keys, events, event_details, unsealed, refused, logs, seals, tiles, checkpoints, audit_keys, observers,
    endpoints, notifications, outbox, unsettled, reports_due, heartbeats, counters, lag_samples, alarms, gate_answers,
    reported_calls, window_uses, enforcements, enforcement_switches TO lockbox_worker;
GRANT INSERT ON event_details, logs, seals, tiles, checkpoints, audit_keys, notifications, outbox, unsettled,
    counters, lag_samples, alarms TO lockbox_worker;
GRANT DELETE ON sessions, sign_ins, sign_in_counts, device_logins, idempotency_keys, unsealed, refused, deliveries,
    reports_due, counters, lag_samples, alarms, gate_answers, reported_calls TO lockbox_worker;

GRANT SELECT (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at, expires_at,
    accepted_at, withdrawn_at) ON invitations TO lockbox_worker;
GRANT SELECT (id, means, email, created_at, expires_at, proven_at, used_at) ON sign_ins TO lockbox_worker;
GRANT SELECT (id, person_id, email, created_at, expires_at, confirmed_at, removed_at) ON addresses TO lockbox_worker;
-- To forget what is old takes to see when it was.
GRANT SELECT (id, expires_at) ON sessions, device_logins TO lockbox_worker;
GRANT SELECT (key, since) ON sign_in_counts TO lockbox_worker;
GRANT SELECT (id, at) ON deliveries TO lockbox_worker;

GRANT SELECT (id, state, run_at) ON connections TO lockbox_worker;

GRANT UPDATE (state, version, closed_at, wake_at, reminders, tiers_asked, warned) ON requests TO lockbox_worker;
GRANT UPDATE (origin, size, root, note, noted_at, kept_at, digest_at) ON logs TO lockbox_worker;
GRANT UPDATE (hashes) ON tiles TO lockbox_worker;
GRANT UPDATE (notified_at) ON checkpoints TO lockbox_worker;
GRANT UPDATE (raised_at) ON alarms TO lockbox_worker;
GRANT UPDATE (announced_to) ON enforcement_switches TO lockbox_worker;
GRANT UPDATE (first_told, look_at) ON window_uses TO lockbox_worker;


-- The notifications worker sends and records. It moves no request and seals nothing; it derives codes from their
-- nonce.

GRANT SELECT ON people, memberships, eligible_delegates, delegations, requests, events, event_details, logs, seals,
    checkpoints, observers, endpoints, notifications, outbox, unsettled, counters TO lockbox_notifications;
GRANT INSERT ON event_details, notifications, unsettled, reports_due, deliveries, counters
    TO lockbox_notifications;
GRANT DELETE ON outbox, unsettled TO lockbox_notifications;

GRANT SELECT (id, slug, name, plan, mode, suspended, policy_version, created_at) ON tenants TO lockbox_notifications;
GRANT SELECT (tenant_id, version, body, author_id, created_at) ON policies TO lockbox_notifications;
GRANT SELECT (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at, code_nonce,
    expires_at, accepted_at, withdrawn_at) ON invitations TO lockbox_notifications;
GRANT SELECT (id, means, email, code_nonce, created_at, expires_at, proven_at, used_at) ON sign_ins
    TO lockbox_notifications;
GRANT SELECT (id, person_id, email, code_nonce, created_at, expires_at, confirmed_at, removed_at) ON addresses
    TO lockbox_notifications;
GRANT SELECT (id, request_id, person_id, principals, decision, access_window, resources, actions, max_uses, comment, means,
    channel, address, user_agent, decided_at) ON decisions TO lockbox_notifications;
GRANT SELECT (id, at) ON deliveries TO lockbox_notifications;
GRANT SELECT (request_id, look_at) ON window_uses TO lockbox_notifications;

GRANT UPDATE (wake_at) ON requests TO lockbox_notifications;
GRANT UPDATE (last_sequence, failing_since, disabled_at, why_disabled) ON endpoints TO lockbox_notifications;
GRANT UPDATE (settle_by, left_open) ON unsettled TO lockbox_notifications;
GRANT UPDATE (look_at) ON window_uses TO lockbox_notifications;
GRANT UPDATE (attempts, run_at, sequence, numbered_at, blocked_by, last_error, closed_at, outcome) ON notifications
    TO lockbox_notifications;


-- The connector worker opens and closes at targets, judges windows as an access check does, and moves nothing.

GRANT SELECT ON people, memberships, requests, connections, decisions, events, tenants, logs, seals, tiles
    TO lockbox_connectors;
GRANT INSERT ON event_details TO lockbox_connectors;
GRANT INSERT (event_id, tenant_id, request_id, at, run_at, template, mode, asked, http_request_id, traceparent) ON outbox
    TO lockbox_connectors;
GRANT INSERT (id, request_id, tenant_id, kind, target, state, run_at, created_at) ON connections
    TO lockbox_connectors;
GRANT UPDATE (state, run_at, attempts, failures, last_error, opened_at, closed_at) ON connections
    TO lockbox_connectors;


-- Functions. Postgres lets everybody call a new one; here nobody may who is not named.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;

GRANT EXECUTE ON FUNCTION at_person, at_tenants, at_administers, at_roles, at_tenant, at_reach, at_invitation,
    at_sign_in, at_device_login, at_leaving, at_suspending, is_owner_command, at_decides, strictness, leads_to, fits,
    demands_passkeys, is_decided, notified_of, webhook_receivers, mail_addresses, observers_of, is_still_there, record_heartbeat,
    connection_budget, oldest_revision
    TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;

GRANT EXECUTE ON FUNCTION authenticate, credential_scope, find_device_login, person_of_token, is_new, is_member, is_guest,
    is_of_the_vendor, is_engineer, is_suspended, event_exists, nth_submission, lock_earlier_request, was_denied, consents,
    longest_windows, signed_decisions, approver_keys, reported_window, use_window, windows_used_by, window_changes, add_gate_counts, open_windows, readers_of, known_audit_keys,
    log_heads, log_tiles, count_refused, is_sign_in, is_across, reopen, dead_notifications, failing_webhooks, renew_mark,
    people_to_check, people_with_new_powers, marked_memberships, marked_passkeys, marked_identities,
    marked_gate_identities, marked_sessions, marked_tokens, tenants_to_check, tenants_with_new_powers, marked_tenants, marked_policies, marked_delegations,
    marked_eligible_delegates, marked_report_consents, decided_lately, report_unverified, operating_processes,
    operating_figures, operating_states, operating_day, operating_gate, operating_findings TO lockbox_api;

GRANT EXECUTE ON FUNCTION credentials_of, was_removed, seal_lag, needs_connectors TO lockbox_worker;
GRANT EXECUTE ON FUNCTION signed_decisions, log_heads, log_tiles, event_exists TO lockbox_connectors;
