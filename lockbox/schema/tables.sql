-- The tables of Lockbox with their constraints and indexes, by subject: tenants and their policies, people,
-- credentials, requests and decisions, the audit log, notifications, and operations.
--
-- Ids are UUIDv7 and sort by the time when they were made. `mac` is a MAC under a key that no database login has
-- (four bytes of the key's id and an HMAC-SHA256). Without a valid MAC, a row that grants power counts for nothing. A
-- hash of a secret is an HMAC of the same form, so both have 36 bytes.


-- People, tenants and roles

-- No one is both of the vendor and of a customer, whatever roles they get: see memberships.side.
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

-- What the vendor states that Lockbox does not cover; versions are only added. `announced_to` is the last tenant, in
-- the order of ids, whose log has an event about the version. It is null before the first tenant, and all ones after
-- the last.
CREATE TABLE exclusions (
    version integer CONSTRAINT pk_exclusions PRIMARY KEY CONSTRAINT ck_exclusions_version CHECK (version >= 1),
    body varchar(20000) NOT NULL CONSTRAINT ck_exclusions_body CHECK (body <> ''),
    author_id uuid NOT NULL CONSTRAINT fk_exclusions_author_id REFERENCES people (id),
    created_at timestamptz NOT NULL,
    announced_to uuid
);

-- The acknowledgement of a version by an admin of a tenant.
CREATE TABLE exclusion_acknowledgements (
    tenant_id uuid NOT NULL CONSTRAINT fk_exclusion_acknowledgements_tenant_id REFERENCES tenants (id),
    version integer NOT NULL CONSTRAINT fk_exclusion_acknowledgements_version REFERENCES exclusions (version),
    person_id uuid NOT NULL CONSTRAINT fk_exclusion_acknowledgements_person_id REFERENCES people (id),
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_exclusion_acknowledgements PRIMARY KEY (tenant_id, version)
);

-- For how many days a tenant's log is kept, if its admins have set this; null means as long as the installation says.
CREATE TABLE retentions (
    tenant_id uuid CONSTRAINT pk_retentions PRIMARY KEY
        CONSTRAINT fk_retentions_tenant_id REFERENCES tenants (id),
    days integer CONSTRAINT ck_retentions_days CHECK (days BETWEEN 30 AND 36500),
    set_at timestamptz,
    mac bytea
);

-- While a hold of either side is open, nothing of the tenant is removed or erased.
CREATE TABLE legal_holds (
    id uuid CONSTRAINT pk_legal_holds PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_legal_holds_tenant_id REFERENCES tenants (id),
    side varchar(24) NOT NULL CONSTRAINT ck_legal_holds_side CHECK (side IN ('vendor', 'customer')),
    reason varchar(2000) NOT NULL CONSTRAINT ck_legal_holds_reason CHECK (reason <> ''),
    set_by uuid NOT NULL CONSTRAINT fk_legal_holds_set_by REFERENCES people (id),
    set_at timestamptz NOT NULL,
    released_by uuid CONSTRAINT fk_legal_holds_released_by REFERENCES people (id),
    released_at timestamptz CONSTRAINT ck_legal_holds_released_at CHECK (released_at >= set_at),
    mac bytea,
    CONSTRAINT ck_legal_holds_released CHECK ((released_by IS NULL) = (released_at IS NULL))
);
CREATE UNIQUE INDEX uq_legal_holds_open ON legal_holds (tenant_id, side) WHERE released_at IS NULL;

-- A tenant that leaves: one of its admins has asked for it, or the owner began it without being asked. The row
-- records what the owner's command has done, so that it continues where it stopped. `size` and `digest` are those of
-- the export.
CREATE TABLE offboardings (
    tenant_id uuid CONSTRAINT pk_offboardings PRIMARY KEY
        CONSTRAINT fk_offboardings_tenant_id REFERENCES tenants (id),
    asked_by uuid CONSTRAINT fk_offboardings_asked_by REFERENCES people (id),
    asked_at timestamptz NOT NULL,
    closed_at timestamptz,
    size bigint,
    digest varchar(64) CONSTRAINT ck_offboardings_digest CHECK (digest ~ '^[0-9a-f]{64}$'),
    erased_at timestamptz,
    mac bytea,
    CONSTRAINT ck_offboardings_exported CHECK ((size IS NULL) = (digest IS NULL)),
    CONSTRAINT ck_offboardings_erased CHECK (erased_at IS NULL OR (closed_at IS NOT NULL AND size IS NOT NULL))
);

-- A role at a tenant, or without a tenant at the vendor. `review_tier` is the tier of the vendor's review in which a
-- manager is asked.
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

-- People whom an admin has allowed to decide for an approver, and the periods in which they do.
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

-- `only_at`, here and below: the credential counts at this tenant only.
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

-- The person that the gate recognises in a caller, as an operator has stated. No one signs in by this. The issuer is
-- an identity provider's, or `mtls:` and a service, or `header:` and a gateway.
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

-- Where a person of the vendor works and is, according to the vendor's directory. The source is the issuer of the
-- identity provider by which the person signed in, or `account:` and the id of a service account. Null is what the
-- directory does not state.
CREATE TABLE directory_records (
    person_id uuid CONSTRAINT pk_directory_records PRIMARY KEY
        CONSTRAINT fk_directory_records_person_id REFERENCES people (id),
    employing_entity varchar(200) CONSTRAINT ck_directory_records_employing_entity CHECK (employing_entity <> ''),
    office_country varchar(2) CONSTRAINT ck_directory_records_office_country CHECK (office_country ~ '^[A-Z]{2}$'),
    physical_country varchar(2)
        CONSTRAINT ck_directory_records_physical_country CHECK (physical_country ~ '^[A-Z]{2}$'),
    source varchar(500) NOT NULL CONSTRAINT ck_directory_records_source CHECK (source <> ''),
    as_of timestamptz NOT NULL,
    mac bytea
);

-- Whether the gate of a service reports or enforces according to the catalogue, as the API has recorded it. Each
-- switch is a new revision. A gate that has enforced before only reports for tenants with a consent to this revision.
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

-- The revisions that the logs have to tell of. `announced_to` is the last tenant, in the order of ids, whose log has
-- an event about the revision. It is null at first, and then the id of the vendor's log.
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

-- The consent of a tenant's admin that a gate which has enforced only reports. It is for one revision, until it is
-- removed.
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

-- The gate's part of the catalogue for each service, as the API has recorded it, with a revision for each change.
-- `used_at` is when a process last had this definition, to five minutes. `only_for` are the slugs of the tenants that
-- calls can concern, null for all. `announced_to` is as in `enforcement_switches`.
CREATE TABLE gate_definitions (
    id uuid CONSTRAINT pk_gate_definitions PRIMARY KEY,
    service varchar(63) NOT NULL,
    revision integer NOT NULL CONSTRAINT ck_gate_definitions_revision CHECK (revision >= 1),
    digest bytea NOT NULL CONSTRAINT ck_gate_definitions_digest CHECK (digest = sha256(convert_to(body, 'UTF8'))),
    body text NOT NULL CONSTRAINT ck_gate_definitions_body CHECK (body <> ''),
    only_for text[] CONSTRAINT ck_gate_definitions_only_for
        CHECK (only_for IS NULL OR coalesce(CAST(body AS jsonb) #>> '{tenant,fixed}' = ANY (only_for), false)),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    announced_to uuid,
    CONSTRAINT uq_gate_definitions_service_revision UNIQUE (service, revision)
);

-- A token of the API. A token with `means` is a terminal's: it lasts at most as long as the sign-in that allowed it.
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
    used_at timestamptz,
    mac bytea
);
CREATE INDEX ix_sign_ins_expires_at ON sign_ins (expires_at);

CREATE TABLE sign_in_counts (
    key bytea CONSTRAINT pk_sign_in_counts PRIMARY KEY CONSTRAINT ck_sign_in_counts_key CHECK (length(key) = 32),
    since timestamptz NOT NULL,
    count integer NOT NULL
);
CREATE INDEX ix_sign_in_counts_since ON sign_in_counts (since);

-- A terminal asks for a code. A person who types the code into a page lets the terminal act for a quarter of an hour,
-- with the rights of the person's session.
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

-- The MACs of rows that were removed or got a new MAC. A row with such a MAC is refused.
CREATE TABLE ended_powers (
    mac bytea CONSTRAINT pk_ended_powers PRIMARY KEY,
    ended_at timestamptz NOT NULL
);


-- Requests and decisions

-- What a customer has approved beforehand. Requests that it covers open without another approval, `max_uses` times
-- and until `ends_at`, while its approvers could still approve it under the policy of that day. `resource` is a
-- pattern, and `access_window` is the longest window in seconds. `ended_at` is when the end was recorded.
CREATE TABLE pre_approvals (
    id uuid CONSTRAINT pk_pre_approvals PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_pre_approvals_tenant_id REFERENCES tenants (id),
    service varchar(63) NOT NULL,
    resource varchar(256) NOT NULL CONSTRAINT ck_pre_approvals_resource CHECK (resource <> ''),
    actions text[] NOT NULL CONSTRAINT ck_pre_approvals_actions CHECK (cardinality(actions) BETWEEN 1 AND 20),
    reason_code varchar(24) NOT NULL,
    access_window integer NOT NULL
        CONSTRAINT ck_pre_approvals_access_window CHECK (access_window BETWEEN 1 AND 604800),
    max_uses integer NOT NULL CONSTRAINT ck_pre_approvals_max_uses CHECK (max_uses BETWEEN 1 AND 1000),
    ends_at timestamptz NOT NULL,
    proposed_by uuid NOT NULL CONSTRAINT fk_pre_approvals_proposed_by REFERENCES people (id),
    proposed_at timestamptz NOT NULL,
    used integer NOT NULL DEFAULT 0 CONSTRAINT ck_pre_approvals_used CHECK (used BETWEEN 0 AND max_uses),
    revoked_at timestamptz,
    revoked_by uuid CONSTRAINT fk_pre_approvals_revoked_by REFERENCES people (id),
    ended_at timestamptz,
    mac bytea,
    CONSTRAINT ck_pre_approvals_ends_at CHECK (ends_at > proposed_at AND ends_at <= proposed_at + interval '90 days'),
    CONSTRAINT ck_pre_approvals_revoked CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX ix_pre_approvals_tenant_id_id ON pre_approvals (tenant_id, id);
CREATE INDEX ix_pre_approvals_ends_at ON pre_approvals (ends_at) WHERE ended_at IS NULL;

-- Who approved a pre-approval, and how they had signed in. `principals` are the approvers for whom a delegate
-- decided.
CREATE TABLE pre_approval_votes (
    id uuid CONSTRAINT pk_pre_approval_votes PRIMARY KEY,
    pre_approval_id uuid NOT NULL CONSTRAINT fk_pre_approval_votes_pre_approval_id REFERENCES pre_approvals (id),
    person_id uuid NOT NULL CONSTRAINT fk_pre_approval_votes_person_id REFERENCES people (id),
    principals uuid[] NOT NULL,
    means varchar(24) NOT NULL
        CONSTRAINT ck_pre_approval_votes_means CHECK (means IN ('sample', 'oidc', 'passkey', 'mail')),
    decided_at timestamptz NOT NULL,
    mac bytea,
    CONSTRAINT uq_pre_approval_votes_pre_approval_id_person_id UNIQUE (pre_approval_id, person_id)
);

-- A row is the present state of a request. `version` counts its moves, each of which is an event. `wake_at` is when
-- the clock next has to act: remind someone, time out or expire. Windows are in seconds.
--
-- `quorum`, `mode`, `consent_until` and `approve_means` are the terms by which the request is decided; they only get
-- stricter. `level` is the highest level of its actions, null for requests from before levels were recorded.
-- `context` holds the parameters that the service declares, null if there are none. `granted_resources` and
-- `granted_actions` are what a window was opened for, null for all that was asked for. `pre_approval_id` is the
-- pre-approval that opened the window, if any. While a question stops the clock, `stopped_deadline` is the previous
-- deadline, and `deadline_at` is the latest that it may become. With `break_glass`, two people of the vendor may open
-- the request in an emergency. It is dropped when the customer is asked, so a window with it was opened without the
-- customer.
CREATE TABLE requests (
    id uuid CONSTRAINT pk_requests PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_requests_tenant_id REFERENCES tenants (id),
    requester_id uuid NOT NULL CONSTRAINT fk_requests_requester_id REFERENCES people (id),
    submitted_by uuid CONSTRAINT fk_requests_submitted_by REFERENCES people (id),
    token_id uuid,
    follows uuid CONSTRAINT fk_requests_follows REFERENCES requests (id),
    pre_approval_id uuid,
    extends uuid CONSTRAINT fk_requests_extends REFERENCES requests (id),

    service varchar(63) NOT NULL,
    resources text[] NOT NULL CONSTRAINT ck_requests_resources CHECK (cardinality(resources) BETWEEN 1 AND 50),
    actions text[] NOT NULL CONSTRAINT ck_requests_actions CHECK (cardinality(actions) BETWEEN 1 AND 20),
    reason_code varchar(24) NOT NULL,
    justification varchar(4000) NOT NULL CONSTRAINT ck_requests_justification CHECK (justification <> ''),
    case_ref varchar(100),
    case_system varchar(63),
    case_url varchar(2000),
    case_check varchar(24) CONSTRAINT ck_requests_case_check CHECK (case_check IN ('confirmed', 'unconfirmed')),
    duplicate_of uuid CONSTRAINT fk_requests_duplicate_of REFERENCES requests (id),
    duplicate_reason varchar(500),
    level varchar(16) CONSTRAINT ck_requests_level CHECK (level IN ('read', 'change', 'export', 'admin')),
    context jsonb CONSTRAINT ck_requests_context CHECK (jsonb_typeof(context) = 'object'),
    severity varchar(24) CONSTRAINT ck_requests_severity CHECK (severity IN ('S1', 'S2', 'S3', 'S4')),

    employing_entity varchar(200),
    office_country varchar(2) CONSTRAINT ck_requests_office_country CHECK (office_country ~ '^[A-Z]{2}$'),
    physical_country varchar(2) CONSTRAINT ck_requests_physical_country CHECK (physical_country ~ '^[A-Z]{2}$'),
    directory_as_of timestamptz,
    sign_in varchar(24) CONSTRAINT ck_requests_sign_in
        CHECK (sign_in IN ('session', 'provider_token', 'token', 'device_login', 'system')),
    sign_in_means varchar(24) CONSTRAINT ck_requests_sign_in_means
        CHECK (sign_in_means IN ('token', 'sample', 'oidc', 'passkey', 'mail')),
    signed_in_at timestamptz,

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
    not_before timestamptz,
    opens_at timestamptz,
    first_opened_at timestamptz,
    deadline_at timestamptz NOT NULL,
    wake_at timestamptz CONSTRAINT ck_requests_wake_at CHECK (wake_at <= deadline_at),
    reminders integer NOT NULL DEFAULT 0 CONSTRAINT ck_requests_reminders CHECK (reminders >= 0),
    tiers_asked integer NOT NULL DEFAULT 0 CONSTRAINT ck_requests_tiers_asked CHECK (tiers_asked >= 0),
    warned boolean NOT NULL DEFAULT false,
    stopped_at timestamptz,
    stopped_deadline timestamptz,
    stopped_for integer NOT NULL DEFAULT 0
        CONSTRAINT ck_requests_stopped_for CHECK (stopped_for BETWEEN 0 AND approval_window),
    break_glass boolean NOT NULL DEFAULT false,

    CONSTRAINT fk_requests_policy_version FOREIGN KEY (tenant_id, policy_version)
        REFERENCES policies (tenant_id, version),
    CONSTRAINT ck_requests_clock CHECK ((state IN ('reviewing', 'pending', 'active')) = (wake_at IS NOT NULL)
        AND (wake_at IS NULL) = (closed_at IS NOT NULL)),
    CONSTRAINT ck_requests_opened_at CHECK (state NOT IN ('active', 'completed', 'revoked', 'expired')
        OR opened_at IS NOT NULL),
    CONSTRAINT ck_requests_window CHECK (state <> 'active'
        OR deadline_at <= coalesce(opens_at, opened_at) + access_window * interval '1 second'),
    CONSTRAINT ck_requests_opens_at CHECK (CASE WHEN opened_at IS NULL THEN opens_at IS NULL
        WHEN not_before IS NULL THEN opens_at IS NULL OR opens_at > opened_at
        ELSE opens_at IS NOT NULL AND opens_at > opened_at AND opens_at >= not_before END),
    CONSTRAINT ck_requests_extends CHECK (CASE WHEN extends IS NULL THEN first_opened_at IS NULL
        ELSE not_before IS NOT NULL AND first_opened_at IS NOT NULL AND first_opened_at < not_before END),
    CONSTRAINT ck_requests_granted CHECK (opened_at IS NOT NULL
        OR (granted_resources IS NULL AND granted_actions IS NULL)),
    CONSTRAINT ck_requests_consent_until CHECK (consent_until IS NULL OR mode <> 'enforce'),
    CONSTRAINT ck_requests_consent CHECK (state <> 'active' OR consent_until IS NULL OR deadline_at <= consent_until),
    CONSTRAINT ck_requests_stopped CHECK (CASE WHEN stopped_at IS NULL THEN stopped_deadline IS NULL
        ELSE stopped_deadline IS NOT NULL
            AND deadline_at <= stopped_deadline + (approval_window - stopped_for) * interval '1 second' END),
    CONSTRAINT ck_requests_break_glass CHECK (NOT break_glass OR (state <> 'pending' AND mode = 'enforce'
        AND (opened_at IS NULL OR deadline_at <= opened_at + interval '1 hour')))
);
CREATE INDEX ix_requests_wake_at ON requests (wake_at) WHERE wake_at IS NOT NULL;
CREATE INDEX ix_requests_tenant_id_id ON requests (tenant_id, id);
CREATE INDEX ix_requests_requester_id_id ON requests (requester_id, id);
-- Nearly all people submit for themselves. This index is for the requests that a system submits for someone.
CREATE INDEX ix_requests_submitted_by_id ON requests (submitted_by, id) WHERE submitted_by <> requester_id;
-- Open requests by state, for lists by deadline and by id and for the access check. Closed requests have no entry.
CREATE INDEX ix_requests_open_of_tenant ON requests (tenant_id, state, deadline_at, id)
    WHERE state IN ('reviewing', 'pending', 'active');
CREATE INDEX ix_requests_open_of_requester ON requests (requester_id, state, id)
    WHERE state IN ('reviewing', 'pending', 'active');
CREATE INDEX ix_requests_open_by_id ON requests (state, id) WHERE state IN ('reviewing', 'pending', 'active');
CREATE INDEX ix_requests_open_by_deadline ON requests (state, deadline_at, id) WHERE state IN ('reviewing', 'active');
CREATE INDEX ix_requests_denied ON requests (tenant_id, service) WHERE state = 'denied' AND asked_at IS NOT NULL;
CREATE INDEX ix_requests_tenant_id_case_ref ON requests (tenant_id, case_ref) WHERE case_ref IS NOT NULL;
CREATE INDEX ix_requests_pre_approval_id ON requests (pre_approval_id) WHERE pre_approval_id IS NOT NULL;
CREATE INDEX ix_requests_follows ON requests (follows) WHERE follows IS NOT NULL;
CREATE UNIQUE INDEX uq_requests_follows_open ON requests (follows) WHERE follows IS NOT NULL AND closed_at IS NULL;
CREATE INDEX ix_requests_extends ON requests (extends) WHERE extends IS NOT NULL;
CREATE UNIQUE INDEX uq_requests_extends_open ON requests (extends) WHERE extends IS NOT NULL AND closed_at IS NULL;
-- Windows that were opened without the customer's approval, of which there are few.
CREATE INDEX ix_requests_unapproved ON requests (tenant_id, opened_at)
    WHERE opened_at IS NOT NULL AND (break_glass OR pre_approval_id IS NOT NULL OR mode <> 'enforce');

-- `access_window`, `resources` and `actions` are what an approval allows, null for all that was asked for. `max_uses`
-- is the number of uses, null for any number. `opens_at` is the start of the window, null for at once. `principals`
-- are the approvers for whom a delegate decided. `knows_context` is whether the decider was shown the request's
-- context, and signed a text that contains it: the code of 0.2.0 knows no context.
CREATE TABLE decisions (
    id uuid CONSTRAINT pk_decisions PRIMARY KEY,
    request_id uuid NOT NULL CONSTRAINT fk_decisions_request_id REFERENCES requests (id),
    person_id uuid NOT NULL CONSTRAINT fk_decisions_person_id REFERENCES people (id),
    principals uuid[] NOT NULL,
    decision varchar(24) NOT NULL
        CONSTRAINT ck_decisions_decision CHECK (decision IN ('endorse', 'break_glass', 'approve', 'deny')),
    access_window integer CONSTRAINT ck_decisions_access_window CHECK (access_window >= 1),
    resources text[] CONSTRAINT ck_decisions_resources CHECK (cardinality(resources) >= 1),
    actions text[] CONSTRAINT ck_decisions_actions CHECK (cardinality(actions) >= 1),
    max_uses integer CONSTRAINT ck_decisions_max_uses CHECK (max_uses BETWEEN 1 AND 1000),
    opens_at timestamptz,
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
    knows_context boolean NOT NULL DEFAULT false,
    CONSTRAINT uq_decisions_request_id_person_id_decision UNIQUE (request_id, person_id, decision),
    CONSTRAINT ck_decisions_kept CHECK (decision = 'approve'
        OR num_nonnulls(resources, actions, max_uses, opens_at) = 0),
    CONSTRAINT ck_decisions_signed CHECK (num_nulls(statement, signed_content, assertion, passkey_id) IN (0, 4)
        AND (decision = 'approve' OR statement IS NULL))
);
CREATE INDEX ix_decisions_delegated ON decisions (decided_at)
    WHERE decision = 'approve' AND cardinality(principals) > 0;

-- The customer's finding about a window that was opened by break-glass, due a day after the opening. `remind_at` is
-- when people are reminded next, null once there is a finding or no one is left to give one.
CREATE TABLE after_reviews (
    request_id uuid CONSTRAINT pk_after_reviews PRIMARY KEY
        CONSTRAINT fk_after_reviews_request_id REFERENCES requests (id),
    tenant_id uuid NOT NULL CONSTRAINT fk_after_reviews_tenant_id REFERENCES tenants (id),
    opened_at timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    remind_at timestamptz,
    reminders integer NOT NULL DEFAULT 0 CONSTRAINT ck_after_reviews_reminders CHECK (reminders >= 0),
    finding varchar(24) CONSTRAINT ck_after_reviews_finding CHECK (finding IN ('justified', 'not_justified')),
    found_by uuid CONSTRAINT fk_after_reviews_found_by REFERENCES people (id),
    found_at timestamptz,
    found_event uuid,
    CONSTRAINT ck_after_reviews_due_at CHECK (due_at BETWEEN opened_at AND opened_at + interval '1 day'),
    CONSTRAINT ck_after_reviews_found CHECK (num_nulls(finding, found_by, found_at, found_event) IN (0, 4)
        AND (finding IS NULL OR remind_at IS NULL))
);
CREATE INDEX ix_after_reviews_tenant_id_opened_at ON after_reviews (tenant_id, opened_at);
CREATE INDEX ix_after_reviews_remind_at ON after_reviews (remind_at) WHERE remind_at IS NOT NULL;

-- While an emergency stop is open, no one opens a window by break-glass at the tenant. The event of the stop adds the
-- row, and an admin ends the stop.
CREATE TABLE emergency_stops (
    id uuid CONSTRAINT pk_emergency_stops PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_emergency_stops_tenant_id REFERENCES tenants (id),
    stopped_by uuid NOT NULL CONSTRAINT fk_emergency_stops_stopped_by REFERENCES people (id),
    stopped_at timestamptz NOT NULL,
    ended_by uuid CONSTRAINT fk_emergency_stops_ended_by REFERENCES people (id),
    ended_at timestamptz CONSTRAINT ck_emergency_stops_ended_at CHECK (ended_at >= stopped_at),
    ended_event uuid,
    CONSTRAINT ck_emergency_stops_ended CHECK (num_nulls(ended_by, ended_at, ended_event) IN (0, 3))
);
CREATE UNIQUE INDEX uq_emergency_stops_open ON emergency_stops (tenant_id) WHERE ended_at IS NULL;

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

-- When each of the vendor's people last read a request, so that all reads of an hour are recorded once.
CREATE TABLE request_reads (
    person_id uuid NOT NULL CONSTRAINT fk_request_reads_person_id REFERENCES people (id),
    request_id uuid NOT NULL CONSTRAINT fk_request_reads_request_id REFERENCES requests (id),
    hour timestamptz NOT NULL,
    CONSTRAINT pk_request_reads PRIMARY KEY (person_id, request_id)
);

-- How often a window was used, and its first and last use: through which gateway and for what. A resource is stored
-- by its position among the window's resources, so that only the request contains the name. `first_told` is whether
-- an event reports the first use. `look_at` is when the next event is due, null once the last use is reported.
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

-- How many calls of the window's engineer to its tenant's service were refused while the window was open or within an
-- hour after.
CREATE TABLE window_refusals (
    request_id uuid CONSTRAINT pk_window_refusals PRIMARY KEY
        CONSTRAINT fk_window_refusals_request_id REFERENCES requests (id),
    count bigint NOT NULL CONSTRAINT ck_window_refusals_count CHECK (count > 0),
    last_at timestamptz NOT NULL
);

-- Access that a connector opens at a target for a window, and closes with it. `verifier` is the SCRAM verifier of a
-- password that only the engineer has. `attempts` numbers the tries: the result of an overtaken try is not recorded.
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

-- Calls that used windows for a number of uses within the last five seconds, as service accounts name them. A second
-- check of the same call is the same use.
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

-- Questions to the adapters of ticket systems: is this case open, and assigned to the engineer? The API asks, the
-- notifications worker answers once, and an answer confirms one request. `failure` is why there is no answer. Rows
-- are kept for a day.
CREATE TABLE case_checks (
    id uuid CONSTRAINT pk_case_checks PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_case_checks_tenant_id REFERENCES tenants (id),
    engineer_id uuid NOT NULL CONSTRAINT fk_case_checks_engineer_id REFERENCES people (id),
    asked_by uuid NOT NULL CONSTRAINT fk_case_checks_asked_by REFERENCES people (id),
    case_system varchar(63) NOT NULL,
    case_ref varchar(100) NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    answered_at timestamptz,
    is_open boolean,
    is_assigned boolean,
    failure varchar(24),
    request_id uuid CONSTRAINT uq_case_checks_request_id UNIQUE
        CONSTRAINT fk_case_checks_request_id REFERENCES requests (id),
    CONSTRAINT ck_case_checks_answer CHECK (CASE
        WHEN answered_at IS NULL THEN num_nonnulls(is_open, is_assigned, failure) = 0
        WHEN failure IS NULL THEN num_nonnulls(is_open, is_assigned) = 2
        ELSE num_nonnulls(is_open, is_assigned) = 0 END),
    CONSTRAINT ck_case_checks_used CHECK (request_id IS NULL OR coalesce(is_open AND is_assigned, false))
);
CREATE INDEX ix_case_checks_asked_at ON case_checks (asked_at);
CREATE INDEX ix_case_checks_asked_by_asked_at ON case_checks (asked_by, asked_at);


-- The audit log

-- The key of an event that states how the mails about another event ended: the other event, the part, and the
-- template.
CREATE FUNCTION notified_of(body bytea) RETURNS text LANGUAGE sql IMMUTABLE STRICT AS $$
    SELECT CASE WHEN b ->> 'part' IN ('1', '2')
        THEN (b ->> 'of_event') || ' ' || (b ->> 'part') || ' ' || coalesce(b ->> 'template', '') END
    FROM (SELECT convert_from(body, 'UTF8')::jsonb) AS said (b)
$$;

-- `body` is what is sealed; the other columns repeat its content. `seq` is the number of the move, null for an event
-- that is no move. A tenant's log holds all that the tenant may see, and nothing else. The moves of a request belong
-- there from the move by which the customer is first asked or notified. Earlier moves, like all `internal` events,
-- are in the vendor's log, whose id is zeros.
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
-- Events that may open or end a window, or change the person of a caller: see window_changes.
CREATE INDEX ix_events_window_changes ON events (xid) WHERE (seq IS NOT NULL AND 'active' IN (from_state, to_state))
    OR action IN ('tenant_suspended', 'tenant_resumed', 'passkey_removed', 'person_erased', 'person_disabled', 'restored')
    OR (tenant_id IS NULL AND action IN ('member_added', 'member_changed', 'member_removed', 'powers_rekeyed',
        'identity_bound', 'identity_removed', 'gate_identity_added', 'gate_identity_removed'));
CREATE INDEX ix_events_probes ON events (tenant_id, id) WHERE action = 'gate_probed';
CREATE INDEX ix_events_outside_access ON events (tenant_id, id) WHERE action = 'outside_access';
CREATE INDEX ix_events_seating ON events (at) WHERE action IN ('member_added', 'member_changed');
-- The event itself is the record that the end of a consent was announced: one event for each tenant and end, from any
-- writer.
CREATE UNIQUE INDEX uq_events_consent_ended ON events (tenant_id, deadline_at) WHERE action = 'consent_ended';

-- One event reports the first use of a window and one event the last, from any writer.
CREATE UNIQUE INDEX uq_events_uses ON events (request_id, action) WHERE action IN ('first_used', 'last_used');
-- At most two events in a log state how a move's mails ended, from any writer.
CREATE UNIQUE INDEX uq_events_notified ON events (log_id, notified_of(body)) WHERE action = 'notified';

-- Personal details of an event are stored apart from the event, which holds their salted hash. So they can be erased
-- without breaking the seal. `fields` maps a field's name to its salt, in base64, and its value.
CREATE TABLE event_details (
    event_id uuid CONSTRAINT pk_event_details PRIMARY KEY CONSTRAINT fk_event_details_event_id REFERENCES events (id),
    fields jsonb NOT NULL CONSTRAINT ck_event_details_fields CHECK (jsonb_typeof(fields) = 'object')
);

-- Events that wait to be sealed. A trigger adds them.
CREATE TABLE unsealed (
    event_id uuid CONSTRAINT pk_unsealed PRIMARY KEY
);

-- A process that seals, reconciles or checks for alarms locks the row. Only the core worker's login may lock it.
CREATE TABLE turns (
    name varchar(24) CONSTRAINT pk_turns PRIMARY KEY
);
INSERT INTO turns (name) VALUES ('seal'), ('reconcile'), ('alarm');

-- Refusals that are counted together in one minute. Once the minute is over, a worker makes an event of each row.
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
-- `note` is what counts; `size` and `root` are checked against it. Events before `kept_from` are recorded as removed,
-- and events before `cleared_to` are deleted. `stated_for` is the last month for which the log states what can open
-- without its tenant's approval, and `unstated_at` is when such a statement failed.
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
    stated_for date,
    unstated_at timestamptz,
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

-- A webhook of a tenant, or without a tenant of the vendor. The vendor's webhooks do not get the justification.
-- `last_sequence` is how many calls the webhook was promised; it only increases under the row's lock.
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

-- The outbox: events of requests of which no one was notified yet. The transaction that fans an event out finds its
-- recipients, writes their notifications and deletes the row. `number` is given under the lock of the request;
-- notifications follow this order. `run_at` is the place in the schedule: events that ask someone come before the
-- rest. `asked` are the people whom the event asks, and `mode` is the request's mode when the event happened.
-- `http_request_id` is the HTTP request that caused the event, if there was one, and `traceparent` names the trace of
-- the event.
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
-- to confirm). It is due at `run_at` and pointless from `until_at` on. A notification to a further address also names
-- its person; a notification to an observer names no person. A webhook call has a `sequence`, which counts the calls
-- of its endpoint from one without a gap; it was given at `numbered_at`. While the call waits for the call before it,
-- `blocked_by` is that call. `failed_at` is when a try failed for the first time. `http_request_id` and `traceparent`
-- are as in the outbox.
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
    failed_at timestamptz,
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
-- People who were notified of a request are also notified of its end.
CREATE INDEX ix_notifications_notified ON notifications (request_id) INCLUDE (person_id)
    WHERE template IN ('pending', 'answer_reminder', 'active', 'break_glass') AND person_id IS NOT NULL;

-- Mails about an event of a request, or with `of_report` the reports on its window, whose outcomes no event states
-- yet. At `settle_by`, an event states them, even if some mails are still open. `left_open` are the notifications
-- that were open then; a second event states their outcomes. The last event deletes the row.
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

-- Heartbeats of processes. `rolled_back` is in how many logs the database is behind the shipped checkpoints,
-- `unverified` how many rows have no valid MAC, and `connections` how many connections the process opens to Postgres
-- at most. `gate_differs` is whether its gate remembered a window that was not open, and `needs_connectors` whether
-- its catalogue has connectors.
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

-- Counters. Rows are added, and folded into sums now and then. Only the sums count, so no process waits for a lock.
CREATE TABLE counters (
    id uuid CONSTRAINT pk_counters PRIMARY KEY DEFAULT uuidv7(),
    name varchar(24) NOT NULL CONSTRAINT ck_counters_name CHECK (name IN ('deadline_lag', 'attempt', 'dropped', 'uses_lost',
        'outside_access')),
    label varchar(48) NOT NULL,
    count bigint NOT NULL CONSTRAINT ck_counters_count CHECK (count >= 0),
    total double precision NOT NULL
);

-- The gate's answers by minute for two hours, by hour for a month, and in total (then `at` is the epoch). A gateway
-- of zeros has shown no valid token.
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

-- Calls that a gate has admitted and would refuse: the most frequent ones of each service and reason. A path leaves
-- out the names in it. The row without a path counts the calls that no other row lists.
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

-- The last batch of counts that each process has written, so that a repeated batch counts once.
CREATE TABLE gate_writers (
    process uuid CONSTRAINT pk_gate_writers PRIMARY KEY,
    batch bigint NOT NULL,
    written_at timestamptz NOT NULL
);

-- How late the schedule and the sealing were. `ended` and `late` are the counters at that time: how many deadlines
-- the clock had ended, and how late in total.
CREATE TABLE lag_samples (
    at timestamptz CONSTRAINT pk_lag_samples PRIMARY KEY,
    schedule_lag double precision NOT NULL CONSTRAINT ck_lag_samples_schedule_lag CHECK (schedule_lag >= 0),
    seal_lag double precision NOT NULL CONSTRAINT ck_lag_samples_seal_lag CHECK (seal_lag >= 0),
    ended bigint NOT NULL CONSTRAINT ck_lag_samples_ended CHECK (ended >= 0),
    late double precision NOT NULL
);

-- Violations that the invariant checks found and raised an alarm about.
CREATE TABLE alarms (
    key varchar(100) CONSTRAINT pk_alarms PRIMARY KEY,
    raised_at timestamptz NOT NULL
);
