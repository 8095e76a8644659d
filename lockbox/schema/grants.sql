-- The rights of the API, the worker (deadlines, seals, reconciling), the notifications worker and the connector
-- worker. config/roles.sql makes these logins. None of them owns a table, changes an event or a decision, or reads
-- the secret of an invitation.


-- No login can choose the transaction id that an event records.
GRANT INSERT (id, tenant_id, internal, request_id, seq, at, action, actor_id, actor_role, from_state, to_state,
    deadline_at, body) ON events TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;


-- The API

GRANT SELECT, INSERT ON people, tenants, policies, memberships, eligible_delegates, delegations, passkeys, identities,
    gate_identities, directory_records, enforcements, report_consents, tokens, sessions, sign_ins, sign_in_counts, device_logins, requests, decisions, questions, request_reads,
    pre_approvals, pre_approval_votes, idempotency_keys, event_details, addresses, observers, endpoints, notifications, outbox TO lockbox_api;
GRANT SELECT ON events TO lockbox_api;
GRANT SELECT ON logs, seals, tiles, checkpoints, deliveries, gate_answers, reported_calls, window_uses, window_refusals
    TO lockbox_api;
GRANT INSERT ON invitations, audit_keys, enforcement_switches TO lockbox_api;
GRANT SELECT, INSERT ON exclusions, exclusion_acknowledgements, retentions, legal_holds, offboardings TO lockbox_api;
GRANT DELETE ON offboardings TO lockbox_api;
GRANT UPDATE (days, set_at, mac) ON retentions TO lockbox_api;
GRANT UPDATE (released_by, released_at, mac) ON legal_holds TO lockbox_api;
GRANT DELETE ON memberships, eligible_delegates, passkeys, identities, gate_identities, report_consents,
    idempotency_keys TO lockbox_api;
GRANT UPDATE ON sign_in_counts, idempotency_keys TO lockbox_api;

GRANT UPDATE (name, time_zone, wants_prompts, disabled_at) ON people TO lockbox_api;
GRANT UPDATE (name, plan, mode, suspended, policy_version, revision, mac) ON tenants TO lockbox_api;
GRANT UPDATE (review_tier) ON memberships TO lockbox_api;
GRANT UPDATE (employing_entity, office_country, physical_country, source, as_of, mac) ON directory_records TO lockbox_api;
GRANT UPDATE (wanted, revision, enforced_at, changed_at, mac) ON enforcements TO lockbox_api;
-- Postgres sets when a definition was recorded, and the worker sets how far the definition was announced.
GRANT SELECT ON gate_definitions TO lockbox_api;
GRANT INSERT (id, service, revision, digest, body, only_for) ON gate_definitions TO lockbox_api;
GRANT UPDATE (used_at) ON gate_definitions TO lockbox_api;
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
    asked_at, opened_at, opens_at, closed_at, deadline_at, wake_at, reminders, tiers_asked, warned, stopped_at,
    stopped_deadline, stopped_for, pre_approval_id, break_glass) ON requests TO lockbox_api;
GRANT UPDATE (revoked_at, revoked_by, mac) ON pre_approvals TO lockbox_api;
GRANT UPDATE (answered_by, answered_at, answer_event) ON questions TO lockbox_api;
GRANT SELECT, INSERT ON after_reviews TO lockbox_api;
GRANT UPDATE (remind_at, finding, found_by, found_at, found_event) ON after_reviews TO lockbox_api;
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


-- The worker moves requests by the clock and seals. It closes no notification, and reads no code and no token.

GRANT SELECT ON people, tenants, policies, memberships, eligible_delegates, delegations, requests, decisions,
    idempotency_keys, events, event_details, unsealed, refused, logs, seals, tiles, checkpoints, audit_keys, observers,
    endpoints, notifications, outbox, unsettled, reports_due, heartbeats, counters, lag_samples, alarms, gate_answers,
    reported_calls, window_uses, enforcements, enforcement_switches, pre_approvals,
    pre_approval_votes, turns TO lockbox_worker;
GRANT INSERT ON event_details, logs, seals, tiles, checkpoints, audit_keys, notifications, outbox, unsettled,
    counters, lag_samples, alarms TO lockbox_worker;
-- Core workers of 0.2.0 delete from `unsealed`; a trigger refuses to delete events that are not sealed.
GRANT DELETE ON sessions, sign_ins, sign_in_counts, device_logins, idempotency_keys, unsealed, refused, deliveries,
    reports_due, counters, lag_samples, alarms, gate_answers, reported_calls TO lockbox_worker;

GRANT SELECT (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at, expires_at,
    accepted_at, withdrawn_at) ON invitations TO lockbox_worker;
GRANT SELECT (id, means, email, created_at, expires_at, proven_at, used_at) ON sign_ins TO lockbox_worker;
GRANT SELECT (id, person_id, email, created_at, expires_at, confirmed_at, removed_at) ON addresses TO lockbox_worker;
-- To delete old rows, the worker has to see how old they are.
GRANT SELECT (id, expires_at) ON sessions, device_logins TO lockbox_worker;
GRANT SELECT (key, since) ON sign_in_counts TO lockbox_worker;
GRANT SELECT (id, at) ON deliveries TO lockbox_worker;

GRANT SELECT (id, state, run_at) ON connections TO lockbox_worker;
-- The worker checks that each of these changes has an event in its tenant's log. It does not see the reasons.
GRANT SELECT (tenant_id, days, set_at) ON retentions TO lockbox_worker;
GRANT SELECT (tenant_id, set_by, set_at, released_by, released_at) ON legal_holds TO lockbox_worker;
GRANT SELECT (tenant_id, asked_by, asked_at, erased_at) ON offboardings TO lockbox_worker;

GRANT UPDATE (state, version, closed_at, wake_at, reminders, tiers_asked, warned) ON requests TO lockbox_worker;
GRANT UPDATE (origin, size, root, note, noted_at, kept_at, digest_at, stated_for, unstated_at) ON logs TO lockbox_worker;
-- The worker states what can open without a customer's approval.
GRANT SELECT (enforcement_id, tenant_id, revision, created_at) ON report_consents TO lockbox_worker;
GRANT SELECT (tenant_id, stopped_at, ended_at) ON emergency_stops TO lockbox_worker;
GRANT UPDATE (hashes) ON tiles TO lockbox_worker;
GRANT UPDATE (notified_at) ON checkpoints TO lockbox_worker;
GRANT UPDATE (raised_at) ON alarms TO lockbox_worker;
GRANT UPDATE (announced_to) ON enforcement_switches TO lockbox_worker;
GRANT SELECT, UPDATE (announced_to) ON gate_definitions TO lockbox_worker;
GRANT SELECT ON exclusions TO lockbox_worker;
GRANT UPDATE (announced_to) ON exclusions TO lockbox_worker;
GRANT UPDATE (first_told, look_at) ON window_uses TO lockbox_worker;
GRANT UPDATE (ended_at) ON pre_approvals TO lockbox_worker;
-- To lock a row, the worker needs the right to change it; a trigger refuses the change.
GRANT UPDATE (name) ON turns TO lockbox_worker;
GRANT SELECT ON after_reviews TO lockbox_worker;
GRANT UPDATE (remind_at, reminders) ON after_reviews TO lockbox_worker;


-- The notifications worker sends and records. It moves no request and seals nothing. It derives codes from their
-- nonces.

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
GRANT SELECT (id, request_id, person_id, principals, decision, access_window, resources, actions, max_uses, opens_at, comment, means,
    channel, address, user_agent, decided_at) ON decisions TO lockbox_notifications;
GRANT SELECT (id, at) ON deliveries TO lockbox_notifications;
GRANT SELECT (request_id, look_at) ON window_uses TO lockbox_notifications;
GRANT SELECT ON after_reviews TO lockbox_notifications;

GRANT UPDATE (wake_at) ON requests TO lockbox_notifications;
GRANT UPDATE (last_sequence, failing_since, disabled_at, why_disabled) ON endpoints TO lockbox_notifications;
GRANT UPDATE (settle_by, left_open) ON unsettled TO lockbox_notifications;
GRANT UPDATE (look_at) ON window_uses TO lockbox_notifications;
GRANT UPDATE (attempts, run_at, sequence, numbered_at, blocked_by, failed_at, last_error, closed_at, outcome)
    ON notifications TO lockbox_notifications;


-- The connector worker opens and closes access at targets. It judges windows as an access check does, and moves
-- nothing.

GRANT SELECT ON people, memberships, requests, connections, decisions, events, tenants, logs, seals, tiles
    TO lockbox_connectors;
GRANT INSERT ON event_details TO lockbox_connectors;
GRANT INSERT (event_id, tenant_id, request_id, at, run_at, template, mode, asked, http_request_id, traceparent) ON outbox
    TO lockbox_connectors;
GRANT INSERT (id, request_id, tenant_id, kind, target, state, run_at, created_at) ON connections
    TO lockbox_connectors;
GRANT UPDATE (state, run_at, attempts, failures, last_error, opened_at, closed_at) ON connections
    TO lockbox_connectors;


-- Functions. By default, Postgres lets everyone call a new function; here only the named logins may.

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;

GRANT EXECUTE ON FUNCTION at_person, at_tenants, at_administers, at_roles, at_tenant, at_reach, at_invitation,
    at_sign_in, at_device_login, at_leaving, at_suspending, at_directory, is_owner_command, at_decides, strictness, leads_to, fits,
    demands_passkeys(jsonb, text, text[], text, text[]), demands_passkeys(jsonb, requests), is_decided, ran_to_its_end, is_pre_approved, notified_of, webhook_receivers, mail_addresses, observers_of, is_still_there, record_heartbeat,
    connection_budget, oldest_revision
    TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;

GRANT EXECUTE ON FUNCTION authenticate, credential_scope, find_device_login, person_of_token, is_new, is_member, is_guest,
    is_of_the_vendor, is_engineer, is_suspended, event_exists, nth_submission, lock_earlier_request, lock_extended_request, was_denied, break_glass_record, consents,
    longest_windows, usable_pre_approvals, use_pre_approval, signed_decisions, policies_at_start, approver_keys, reported_window, use_window, windows_used_by, window_changes, add_gate_counts, open_windows, readers_of, known_audit_keys,
    log_heads, log_tiles, count_refused, is_sign_in, is_across, reopen, dead_notifications, failing_webhooks, renew_mark,
    people_to_check, people_with_new_powers, marked_memberships, marked_passkeys, marked_identities,
    marked_gate_identities, marked_directory_records, marked_sessions, marked_tokens, tenants_to_check, tenants_with_new_powers, marked_tenants, marked_policies, marked_delegations,
    marked_eligible_delegates, marked_report_consents, marked_pre_approvals, marked_pre_approval_votes,
    marked_retentions, marked_legal_holds, marked_offboardings, decided_lately, report_unverified, operating_processes,
    operating_figures, operating_states, operating_day, operating_gate, operating_findings TO lockbox_api;

GRANT EXECUTE ON FUNCTION without_texts, only_erases TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;
GRANT EXECUTE ON FUNCTION is_held, last_sign_ins, gates_last_asked TO lockbox_api;
GRANT EXECUTE ON FUNCTION is_erased TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;

GRANT EXECUTE ON FUNCTION credentials_of, was_removed, seal_lag, needs_connectors, policies_at_start, take_unsealed,
    forget_sealed TO lockbox_worker;
GRANT EXECUTE ON FUNCTION signed_decisions, policies_at_start, log_heads, log_tiles, event_exists TO lockbox_connectors;

-- Cases and duplicates
GRANT EXECUTE ON FUNCTION at_closing TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;
GRANT EXECUTE ON FUNCTION closing_tenants, open_duplicate TO lockbox_api;
-- The API asks, but can neither answer nor set when it asked. The notifications worker answers, and the worker
-- deletes.
GRANT SELECT, INSERT (id, tenant_id, engineer_id, asked_by, case_system, case_ref) ON case_checks TO lockbox_api;
GRANT SELECT ON case_checks TO lockbox_notifications;
GRANT UPDATE (answered_at, is_open, is_assigned, failure) ON case_checks TO lockbox_notifications;
GRANT SELECT (id, asked_at), DELETE ON case_checks TO lockbox_worker;

-- Emergency stops
GRANT SELECT, UPDATE (ended_by, ended_at, ended_event) ON emergency_stops TO lockbox_api;
GRANT EXECUTE ON FUNCTION stopped_since TO lockbox_api;
