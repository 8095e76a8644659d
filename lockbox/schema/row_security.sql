-- Row-level security: without a context, no row is visible. People reach the rows of their tenants, and the vendor's
-- people reach what their roles need.
--
-- USING is about existing rows, and WITH CHECK is about written rows. The context is read in a sub-select, once for a
-- statement and not once for each row. Another row is looked up for each row (OFFSET 0); otherwise, Postgres would
-- hash the whole other table. Rules that a condition on one row cannot express are in triggers.sql.

DO $$
DECLARE
    secured text;
BEGIN
    FOR secured IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', secured);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', secured);
    END LOOP;
END $$;


-- The workers act for all people. Their rights on a table limit what they may do with it.

DO $$
DECLARE
    seen text;
    for_both CONSTANT text[] := '{people,tenants,policies,memberships,invitations,eligible_delegates,delegations,
        sign_ins,requests,decisions,events,event_details,logs,seals,checkpoints,addresses,observers,endpoints,notifications,
        outbox,unsettled,reports_due,deliveries,counters,window_uses,after_reviews,
        case_checks}';
    for_one CONSTANT text[] := '{sessions,sign_in_counts,device_logins,idempotency_keys,unsealed,turns,refused,tiles,audit_keys,
        lag_samples,alarms,gate_answers,reported_calls,enforcements,enforcement_switches,gate_definitions,
        pre_approvals,pre_approval_votes,exclusions}';
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
CREATE POLICY worker ON retentions FOR SELECT TO lockbox_worker USING (true);
CREATE POLICY worker ON legal_holds FOR SELECT TO lockbox_worker USING (true);
CREATE POLICY worker ON offboardings FOR SELECT TO lockbox_worker USING (true);
CREATE POLICY worker ON report_consents FOR SELECT TO lockbox_worker USING (true);
CREATE POLICY worker ON emergency_stops FOR SELECT TO lockbox_worker USING (true);
DO $$
DECLARE
    seen text;
BEGIN
    FOREACH seen IN ARRAY '{people,memberships,requests,connections,decisions,events,event_details,tenants,logs,seals,
        tiles}'::text[] LOOP
        EXECUTE format('CREATE POLICY connectors ON %I FOR ALL TO lockbox_connectors USING (true)', seen);
    END LOOP;
END $$;
-- The connector worker reports what happened to access at a target, and asks no one.
CREATE POLICY connectors ON outbox FOR INSERT TO lockbox_connectors
    WITH CHECK (template ^@ 'connection_' AND cardinality(asked) = 0 AND NOT event_exists(event_id));
-- An attacker with the worker's login cannot delete recent traces.
CREATE POLICY worker_forgets ON deliveries AS RESTRICTIVE FOR DELETE TO lockbox_worker
    USING (at < now() - interval '1 day');
CREATE POLICY worker_forgets ON case_checks AS RESTRICTIVE FOR DELETE TO lockbox_worker
    USING (asked_at < now() - interval '1 day');
CREATE POLICY worker_forgets ON gate_answers AS RESTRICTIVE FOR DELETE TO lockbox_worker
    USING (at < now() - CASE span WHEN 'minute' THEN interval '2 hours' WHEN 'hour' THEN interval '30 days' END);
CREATE POLICY worker_forgets ON reported_calls AS RESTRICTIVE FOR DELETE TO lockbox_worker
    USING (last_at < now() - interval '30 days');


-- People, tenants and roles

CREATE POLICY api_select ON people FOR SELECT TO lockbox_api
    USING (id = (SELECT at_person()) OR (side = 'vendor' AND (SELECT at_person()) IS NOT NULL)
        OR EXISTS (SELECT FROM memberships m WHERE m.person_id = people.id
            AND m.tenant_id = ANY ((SELECT at_reach())::uuid[])));
-- A person who accepts an invitation becomes a person of the invitation's side, with its address.
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

-- Exclusions are the same for all tenants. An operator states them, and an admin acknowledges them for a tenant.
CREATE POLICY api_select ON exclusions FOR SELECT TO lockbox_api USING ((SELECT at_person()) IS NOT NULL);
CREATE POLICY api_insert ON exclusions FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_roles()) && '{operator}'::text[] AND author_id = (SELECT at_person())
        AND announced_to IS NULL);
CREATE POLICY api_select ON exclusion_acknowledgements FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[])
        OR (SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);
CREATE POLICY api_insert ON exclusion_acknowledgements FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND person_id = (SELECT at_person()));

-- A tenant's admins set how long its log is kept.
CREATE POLICY api_select ON retentions FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[])
        OR (SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);
CREATE POLICY api_insert ON retentions FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[]));
CREATE POLICY api_update ON retentions FOR UPDATE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[]));

-- Each side holds a tenant for itself: the customer's admins, and the vendor's operators.
CREATE POLICY api_select ON legal_holds FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[])
        OR (SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);
CREATE POLICY api_insert ON legal_holds FOR INSERT TO lockbox_api
    WITH CHECK (set_by = (SELECT at_person()) AND released_at IS NULL AND CASE side
        WHEN 'customer' THEN tenant_id = ANY ((SELECT at_administers())::uuid[])
        ELSE tenant_id = (SELECT at_tenant()) AND (SELECT at_roles()) && '{operator}'::text[] END);
CREATE POLICY api_update ON legal_holds FOR UPDATE TO lockbox_api
    USING (CASE side WHEN 'customer' THEN tenant_id = ANY ((SELECT at_administers())::uuid[])
        ELSE tenant_id = (SELECT at_tenant()) AND (SELECT at_roles()) && '{operator}'::text[] END)
    WITH CHECK (released_by = (SELECT at_person()));

CREATE POLICY api_select ON offboardings FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[])
        OR (SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);
CREATE POLICY api_insert ON offboardings FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND asked_by = (SELECT at_person())
        AND num_nonnulls(closed_at, size, erased_at) = 0);
CREATE POLICY api_delete ON offboardings FOR DELETE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND closed_at IS NULL);

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
-- An operator may withdraw any invitation that the vendor's side has made.
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
-- An approver, or an admin for them, names who decides for the approver; only people whom an admin has allowed.
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


-- What people sign in with, and rows that only their owner sees

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
-- Operators map callers of gates to other people, and never to themselves.
CREATE POLICY api_select ON gate_identities FOR SELECT TO lockbox_api
    USING (person_id = (SELECT at_person()) OR (SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);
CREATE POLICY api_insert ON gate_identities FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_roles()) && '{operator}'::text[] AND added_by = (SELECT at_person())
        AND person_id <> (SELECT at_person()) AND is_engineer(person_id));
CREATE POLICY api_delete ON gate_identities FOR DELETE TO lockbox_api
    USING ((SELECT at_roles()) && '{operator}'::text[]);

-- At a sign-in, the person's own identity provider is the directory. Otherwise, a service account writes another
-- person's record.
CREATE POLICY api_select ON directory_records FOR SELECT TO lockbox_api
    USING (person_id = (SELECT at_person())
        OR (SELECT at_roles()) && '{manager,operator,vendor_auditor,system}'::text[]);
CREATE POLICY api_insert ON directory_records FOR INSERT TO lockbox_api
    WITH CHECK (is_of_the_vendor(person_id) AND as_of < now() + interval '1 day'
        AND (person_id = (SELECT at_person())
            OR ((SELECT at_roles()) && '{system}'::text[] AND person_id = (SELECT at_directory()))));
CREATE POLICY api_update ON directory_records FOR UPDATE TO lockbox_api
    USING (person_id = (SELECT at_person())
        OR ((SELECT at_roles()) && '{system}'::text[] AND person_id = (SELECT at_directory())))
    WITH CHECK (as_of < now() + interval '1 day');

-- The gate records what the catalogue says, which concerns all tenants; no one can sign in as the gate. An admin
-- gives consent for their tenant, and takes it back.
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

-- The gate records the definitions of gates. A customer reads the definitions of gates whose calls can concern it.
CREATE POLICY api_select ON gate_definitions FOR SELECT TO lockbox_api
    USING (cardinality((SELECT at_roles())) > 0 OR ((SELECT at_person()) IS NOT NULL AND (only_for IS NULL
        OR EXISTS (SELECT FROM tenants t WHERE t.slug = ANY (only_for) AND t.id = ANY ((SELECT at_tenants())::uuid[])))));
CREATE POLICY api_insert ON gate_definitions FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_person()) = '00000000-0000-0000-0000-000000000000' AND (SELECT at_roles()) && '{system}'::text[]);
CREATE POLICY api_update ON gate_definitions FOR UPDATE TO lockbox_api
    USING ((SELECT at_person()) = '00000000-0000-0000-0000-000000000000' AND (SELECT at_roles()) && '{system}'::text[]);

-- The token of a terminal has the rights of the session that allowed it, and no more.
CREATE POLICY api_insert ON tokens FOR INSERT TO lockbox_api
    WITH CHECK (person_id = (SELECT at_person()) AND (means IS NULL
        OR (id = (SELECT at_device_login()) AND EXISTS (SELECT FROM sessions s WHERE s.person_id = tokens.person_id
            AND s.means = tokens.means AND s.signed_in_at = tokens.signed_in_at AND s.revoked_at IS NULL
            AND s.only_at IS NOT DISTINCT FROM tokens.only_at))));

CREATE POLICY api_select ON sign_ins FOR SELECT TO lockbox_api USING (id = (SELECT at_sign_in()));
CREATE POLICY api_insert ON sign_ins FOR INSERT TO lockbox_api
    WITH CHECK (proven_at IS NULL AND used_at IS NULL AND tries = 0);
CREATE POLICY api_update ON sign_ins FOR UPDATE TO lockbox_api USING (id = (SELECT at_sign_in()));

-- A person who signs in is not known yet, so there is no caller to check. A count is found by a hash that does not
-- reveal its subject.
CREATE POLICY api_select ON sign_in_counts FOR SELECT TO lockbox_api USING (true);
CREATE POLICY api_insert ON sign_in_counts FOR INSERT TO lockbox_api WITH CHECK (true);
CREATE POLICY api_update ON sign_in_counts FOR UPDATE TO lockbox_api USING (true);

CREATE POLICY api_select ON device_logins FOR SELECT TO lockbox_api USING (id = (SELECT at_device_login()));
CREATE POLICY api_insert ON device_logins FOR INSERT TO lockbox_api WITH CHECK (answered_at IS NULL);
CREATE POLICY api_update ON device_logins FOR UPDATE TO lockbox_api
    USING (id = (SELECT at_device_login()) AND answered_at IS NULL AND (SELECT at_person()) IS NOT NULL)
    WITH CHECK (answered_by = (SELECT at_person()));


-- Requests

-- Customers see a request once they were asked; an admin sees it also before, to stop it in an emergency. A system,
-- which guards access, sees open windows.
CREATE POLICY api_select ON requests FOR SELECT TO lockbox_api
    USING (requester_id = (SELECT at_person()) OR (SELECT at_roles()) && '{manager,vendor_auditor}'::text[]
        OR (asked_at IS NOT NULL AND tenant_id = ANY ((SELECT at_tenants())::uuid[]))
        OR tenant_id = ANY ((SELECT at_administers())::uuid[])
        OR (state = 'active' AND (SELECT at_roles()) && '{system}'::text[]));
-- A mode without the customer's approval is the tenant's own mode, or one to which its policy consents for a time.
CREATE POLICY api_insert ON requests FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = (SELECT at_tenant())
        AND ((SELECT at_roles()) && '{system}'::text[]
            OR (requester_id = (SELECT at_person()) AND (SELECT at_roles()) && '{engineer}'::text[]))
        AND (state IN ('reviewing', 'pending') OR (state = 'active' AND mode = 'enforce' AND pre_approval_id IS NOT NULL))
        AND (mode = 'enforce' OR EXISTS (
            SELECT FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
            WHERE t.id = requests.tenant_id AND (t.mode = requests.mode
                OR (p.body -> 'consent' ->> 'mode' = requests.mode
                    AND CAST(p.body -> 'consent' ->> 'until' AS timestamptz) = requests.consent_until)))));
CREATE POLICY api_insert_own ON requests AS RESTRICTIVE FOR INSERT TO lockbox_api
    WITH CHECK (submitted_by = (SELECT at_person()));

-- A submitter has a case checked for themselves or, as a system, for an engineer. use_case_check() uses the answer.
CREATE POLICY api_select ON case_checks FOR SELECT TO lockbox_api USING (asked_by = (SELECT at_person()));
CREATE POLICY api_insert ON case_checks FOR INSERT TO lockbox_api
    WITH CHECK (asked_by = (SELECT at_person()) AND tenant_id = (SELECT at_tenant())
        AND ((SELECT at_roles()) && '{system}'::text[]
            OR (engineer_id = (SELECT at_person()) AND (SELECT at_roles()) && '{engineer}'::text[])));
-- The rule for who decides is one text with three uses: a function for the triggers and for questions, and a part of
-- two policies that Postgres plans with their statements. With a call of the function, each approval would take half
-- as long again. The caller is an approver of the tenant, or one of its approvers has named the caller as delegate.
-- The server judges whether the delegation applies now.
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
                WHEN 'break_glass' THEN r.break_glass AND r.state = 'reviewing'
                    AND (SELECT at_roles()) && '{manager}'::text[]
                WHEN 'approve' THEN r.state = 'pending' AND (%1$s)
                ELSE (r.state = 'reviewing' AND (SELECT at_roles()) && '{manager}'::text[])
                    OR r.tenant_id = ANY ((SELECT at_administers())::uuid[]) OR (%1$s) END))$policy$,
        format(decides, 'r.tenant_id', person, tenants));
END $$;
-- An admin proposes a pre-approval, and approvers approve it, but never their own proposal. The server judges which
-- of these people may revoke it. Only use_pre_approval() uses it.
CREATE POLICY api_select ON pre_approvals FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[]));
CREATE POLICY api_insert ON pre_approvals FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND proposed_by = (SELECT at_person())
        AND used = 0 AND revoked_at IS NULL AND ended_at IS NULL);
CREATE POLICY api_update ON pre_approvals FOR UPDATE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[]) OR at_decides(tenant_id))
    WITH CHECK (revoked_by = (SELECT at_person()));
CREATE POLICY api_select ON pre_approval_votes FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM pre_approvals p WHERE p.id = pre_approval_id));
CREATE POLICY api_insert ON pre_approval_votes FOR INSERT TO lockbox_api
    WITH CHECK (person_id = (SELECT at_person()) AND EXISTS (SELECT FROM pre_approvals p
        WHERE p.id = pre_approval_id AND p.proposed_by <> (SELECT at_person()) AND p.revoked_at IS NULL
            AND p.ends_at > clock_timestamp() AND at_decides(p.tenant_id)));
-- An operator ends the requests of a person who leaves, and of a tenant that was just suspended.
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
-- A ticket system ends the requests for a closed case at the tenants to which its token is bound.
CREATE POLICY api_select_closing ON requests FOR SELECT TO lockbox_api
    USING ((SELECT at_closing()) IS NOT NULL AND case_ref IS NOT NULL
        AND tenant_id = ANY ((SELECT closing_tenants())::uuid[]));
CREATE POLICY api_update_closing ON requests FOR UPDATE TO lockbox_api
    USING ((SELECT at_closing()) IS NOT NULL AND case_ref IS NOT NULL
        AND tenant_id = ANY ((SELECT closing_tenants())::uuid[]));

CREATE POLICY api_select ON decisions FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0));
-- As with decisions, the server judges who may ask whom. No one asks or answers in another person's name. The
-- customer does not see questions of the vendor's review.
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

-- The tenant's members see its emergency stops; an admin ends one.
CREATE POLICY api_select ON emergency_stops FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[]));
CREATE POLICY api_update ON emergency_stops FOR UPDATE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[]))
    WITH CHECK (ended_by = (SELECT at_person()));

-- The manager who opens a window by break-glass adds the row that asks the customer for a finding and schedules
-- reminders. The finding comes from the customer's approvers and admins.
CREATE POLICY api_select ON after_reviews FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0));
CREATE POLICY api_insert ON after_reviews FOR INSERT TO lockbox_api
    WITH CHECK (finding IS NULL AND reminders = 0 AND remind_at <= due_at
        AND (SELECT at_roles()) && '{manager}'::text[]
        AND EXISTS (SELECT FROM requests r WHERE r.id = request_id AND r.tenant_id = after_reviews.tenant_id
            AND r.break_glass AND r.state = 'active' AND r.opened_at = after_reviews.opened_at));
CREATE POLICY api_update ON after_reviews FOR UPDATE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[]) OR at_decides(tenant_id))
    WITH CHECK (found_by = (SELECT at_person()));

CREATE POLICY api_select ON window_uses FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0));
CREATE POLICY api_select ON window_refusals FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id OFFSET 0));
-- Only add_gate_counts() counts. The vendor's people who run gateways see all counts.
CREATE POLICY api_select ON gate_answers FOR SELECT TO lockbox_api
    USING ((SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);
CREATE POLICY api_select ON reported_calls FOR SELECT TO lockbox_api
    USING ((SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);

-- The engineer of an open window has access opened at the target. A new credential closes the previous connection.
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

-- A tenant's members read its log, whatever has happened to the rows of its requests. Of events in the vendor's log,
-- they see only the moves of requests that they know: no questions, reminders or mails of a review. Only the tenant,
-- and auditors, who read whole logs, see which of its people were notified.
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

-- A person who opens a window lists the key that signed it. Without a context, no one opens a window.
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
-- A sign-in code is mailed before the person is known, so its row names no one. Notifications about requests come
-- only from the outbox.
CREATE POLICY api_insert ON notifications FOR INSERT TO lockbox_api
    WITH CHECK (request_id IS NULL AND CASE WHEN template = 'sign_in_code'
        THEN event_id IS NULL AND tenant_id IS NULL AND person_id IS NULL AND endpoint_id IS NULL
        ELSE (SELECT at_person()) IS NOT NULL
            AND (tenant_id IS NULL OR tenant_id = ANY ((SELECT at_reach())::uuid[])) END);

-- A row comes with its event, and asks only people who can have a part in the request.
CREATE POLICY api_select ON outbox FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id));
CREATE POLICY api_insert ON outbox FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_person()) IS NOT NULL AND tenant_id = ANY ((SELECT at_reach())::uuid[])
        AND NOT event_exists(event_id)
        AND NOT EXISTS (SELECT FROM unnest(asked) AS a (id) WHERE NOT EXISTS (SELECT FROM memberships m
            WHERE m.person_id = a.id AND (m.tenant_id IS NULL OR m.tenant_id = outbox.tenant_id))));

-- The answer to a call is visible to the side that was called. The policies of the inner tables apply here.
CREATE POLICY api_select ON deliveries FOR SELECT TO lockbox_api
    USING (CASE WHEN endpoint_id IS NOT NULL THEN EXISTS (SELECT FROM endpoints h WHERE h.id = endpoint_id)
        ELSE EXISTS (SELECT FROM notifications n JOIN memberships m ON m.person_id = n.person_id
            WHERE n.id = notification_id AND CASE WHEN m.tenant_id IS NULL THEN cardinality((SELECT at_roles())) > 0
                ELSE m.tenant_id = ANY ((SELECT at_tenants())::uuid[]) END OFFSET 0)
            OR EXISTS (SELECT FROM notifications n JOIN observers w ON w.id = n.observer_id
                WHERE n.id = notification_id OFFSET 0) END);

