-- All functions of the schema except those of triggers: session variables, checks for policies, and reads and writes
-- across the limits of row-level security.
--
-- SECURITY DEFINER functions run as the owner and see every row. Each of them checks the caller itself and returns
-- less than a row, unless its comment says otherwise. grants.sql says who may call which function.


-- Versions of Lockbox

-- Processes that were built for this revision, or for a later one, may run on the schema as it is. A migration that
-- takes away what earlier processes use replaces this function by one with a higher number.
CREATE FUNCTION oldest_revision() RETURNS integer LANGUAGE sql IMMUTABLE AS $$ SELECT 1 $$;


-- The caller's context

-- Session variables end with the transaction. Without them no row is visible.
CREATE FUNCTION at_person() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.person', true), '')::uuid $$;

-- The tenants of which the caller is a member, and those of which the caller is an admin.
CREATE FUNCTION at_tenants() RETURNS uuid[] LANGUAGE sql STABLE
    AS $$ SELECT coalesce(nullif(current_setting('lockbox.tenants', true), ''), '{}')::uuid[] $$;

CREATE FUNCTION at_administers() RETURNS uuid[] LANGUAGE sql STABLE
    AS $$ SELECT coalesce(nullif(current_setting('lockbox.administers', true), ''), '{}')::uuid[] $$;

-- The caller's roles at the vendor.
CREATE FUNCTION at_roles() RETURNS text[] LANGUAGE sql STABLE
    AS $$ SELECT coalesce(nullif(current_setting('lockbox.roles', true), ''), '{}')::text[] $$;

-- The one tenant that a person of the vendor acts on.
CREATE FUNCTION at_tenant() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.at', true), '')::uuid $$;

CREATE FUNCTION at_reach() RETURNS uuid[] LANGUAGE sql STABLE
    AS $$ SELECT at_tenants() || at_tenant() $$;

-- Credentials of a caller who has no person yet.
CREATE FUNCTION at_invitation() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.invitation', true), '')::uuid $$;

CREATE FUNCTION at_sign_in() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.sign_in', true), '')::uuid $$;

CREATE FUNCTION at_device_login() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.device_login', true), '')::uuid $$;

-- A person who is no longer an engineer, and a tenant that was just suspended. An operator ends the requests of both.
CREATE FUNCTION at_leaving() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.leaving', true), '')::uuid $$;

CREATE FUNCTION at_suspending() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.suspending', true), '')::uuid $$;

-- The token of a ticket system that reports a closed case, and the tenants to which the token is bound. There the
-- ticket system ends the requests for the case.
CREATE FUNCTION at_closing() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.closing', true), '')::uuid $$;

CREATE FUNCTION closing_tenants() RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(array_agg(t.id), '{}') FROM tokens k JOIN tenants t ON 'tenant:' || t.slug = ANY (k.scopes)
    WHERE k.id = at_closing() AND k.person_id = at_person() AND 'system' = ANY (at_roles())
        AND 'case:close' = ANY (k.scopes) AND k.revoked_at IS NULL AND k.expires_at > clock_timestamp()
$$;

-- The person whose directory record a service account writes.
CREATE FUNCTION at_directory() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.directory', true), '')::uuid $$;

-- A command of the database's owner sets this variable first. No server can act as the owner: `session_user` is the
-- database login.
CREATE FUNCTION is_owner_command(what text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT session_user = 'lockbox_owner' AND coalesce(current_setting('lockbox.owner_command', true), '') = what
$$;

-- Whether `new` is `old` without some of its keys, and nothing else.
CREATE FUNCTION only_removes(old jsonb, new jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT new = old - ARRAY(SELECT key FROM jsonb_object_keys(old) AS key WHERE NOT jsonb_exists(new, key))
$$;

-- A row of requests or decisions without the texts that the owner may erase once the request is closed.
CREATE FUNCTION without_texts(of_row jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT of_row - '{justification,case_ref,case_url,duplicate_reason,resources,granted_resources,context,comment,signed_content,
        address,user_agent,employing_entity,office_country,physical_country}'::text[]
$$;

-- Whether `new` is `old` except for erased texts. An erased text is null, says that it was erased, or has only its
-- position as a name.
CREATE FUNCTION only_erases(old jsonb, new jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT without_texts(new) = without_texts(old) AND NOT EXISTS (SELECT FROM jsonb_each(new) AS n (key, value)
        WHERE n.value <> old -> n.key AND NOT CASE jsonb_typeof(n.value)
            WHEN 'array' THEN NOT EXISTS (SELECT FROM jsonb_array_elements_text(n.value) AS one
                WHERE one !~ '^erased:[0-9]+$')
            ELSE n.value IN ('null', '"erased"', '"{}"') END)
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

-- Operators invite a tenant's first admin. Later admins they can only propose, and the tenant has 72 hours to object.
CREATE FUNCTION is_new(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT NOT EXISTS (SELECT FROM memberships m WHERE m.tenant_id = tenant)
        AND NOT EXISTS (SELECT FROM invitations i WHERE i.tenant_id = tenant)
$$;

-- Admins change the roles of members; other people need an invitation.
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

-- While either side holds the tenant, nothing of the tenant is removed.
CREATE FUNCTION is_held(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM legal_holds h WHERE h.tenant_id = tenant AND h.released_at IS NULL)
$$;

-- Whether all of a tenant was erased: then nothing of it changes any more.
CREATE FUNCTION is_erased(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM offboardings o WHERE o.tenant_id = tenant AND o.erased_at IS NOT NULL)
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

-- The same as `fits` in lockbox/requests/policy_parts.py.
CREATE FUNCTION fits(pattern text, resource text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT resource LIKE replace(replace(replace(replace(pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
$$;

-- Whether a policy requires signed approvals, as the invariants of 0.2.0 call it. Facts that the call does not name
-- meet every rule.
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

-- The same for a request, as `Match.matches` in policy_rules.py: an unknown level or parameter meets every rule that
-- names one.
CREATE FUNCTION demands_passkeys(policy jsonb, request requests) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(policy ->> 'approve_means', '') = 'passkey-signed' OR EXISTS (
        SELECT FROM jsonb_array_elements(coalesce(policy -> 'rules', '[]')) AS rule
        CROSS JOIN LATERAL (SELECT coalesce(rule #> '{match,services}', '[]') AS services,
            coalesce(rule #> '{match,actions}', '[]') AS actions,
            coalesce(rule #> '{match,reasons}', '[]') AS reasons,
            coalesce(rule #> '{match,resources}', '[]') AS resources,
            coalesce(rule #> '{match,levels}', '[]') AS levels,
            coalesce(rule #> '{match,context}', '{}') AS context,
            coalesce(rule #> '{match,severities}', '[]') AS severities,
            coalesce(rule #> '{match,outside_countries}', '[]') AS countries,
            coalesce(rule #> '{match,outside_entities}', '[]') AS entities) AS about
        WHERE rule #>> '{terms,approve_means}' = 'passkey-signed'
            AND (about.services = '[]' OR about.services ? request.service)
            AND (about.actions = '[]' OR about.actions ?| request.actions)
            AND (about.reasons = '[]' OR about.reasons ? request.reason_code)
            AND (about.resources = '[]' OR EXISTS (SELECT FROM jsonb_array_elements_text(about.resources) AS pattern,
                unnest(request.resources) AS resource WHERE fits(pattern, resource)))
            AND (about.levels = '[]' OR request.level IS NULL OR about.levels ? request.level)
            AND NOT EXISTS (SELECT FROM jsonb_each(about.context) AS parameter
                WHERE NOT parameter.value @> (request.context -> parameter.key))
            AND (about.severities = '[]' OR coalesce(about.severities ? request.severity, false))
            AND (about.countries = '[]' OR NOT (coalesce(about.countries ? request.office_country, false)
                AND coalesce(about.countries ? request.physical_country, false)))
            AND (about.entities = '[]' OR NOT coalesce(about.entities ? request.employing_entity, false)))
$$;

-- Whether a pre-approval lets a request be open. It covers what is open, for no longer than its window and no later
-- than its end. It was used for each window that it opened. As many people have approved it as the request needs, and
-- its proposer is none of them. Its approvals have no passkey signatures, so it opens no request that demands them.
CREATE FUNCTION is_pre_approved(request requests) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT request.approve_means <> 'passkey-signed' AND EXISTS (SELECT FROM pre_approvals p
        WHERE p.id = request.pre_approval_id AND p.tenant_id = request.tenant_id AND p.revoked_at IS NULL
            AND p.service = request.service AND p.reason_code = request.reason_code
            AND coalesce(request.granted_actions, request.actions) <@ p.actions
            AND NOT EXISTS (SELECT FROM unnest(coalesce(request.granted_resources, request.resources)) AS resource
                WHERE NOT fits(p.resource, resource))
            AND request.deadline_at <= least(p.ends_at, request.opened_at + p.access_window * interval '1 second')
            AND (SELECT count(*) FROM requests r WHERE r.pre_approval_id = p.id) <= p.used
            AND request.quorum <= (SELECT count(*) FROM pre_approval_votes v WHERE v.pre_approval_id = p.id
                AND v.person_id <> p.proposed_by AND v.decided_at <= request.opened_at))
$$;

-- Whether the decisions on record let a request be open: no denial, and as many approvals as its quorum demands, none
-- of them by the requester or by the endorser. An approval counts only for what it keeps of the request. Where
-- passkeys have to sign, it counts only with an assertion. A pre-approved request needs no other approval. Where the
-- customer does not decide, a manager's endorsement is enough. Break-glass needs a manager who is not the requester.
--
-- One rule makes two functions. Readers call is_decided, as themselves. The triggers call is_founded, as the owner: a
-- plan under row-level security belongs to one user, and Postgres would plan a shared function anew at each change of
-- the user. The triggers do not trust the row about what has to be signed: the tenant's policy of the time when the
-- customer was asked may demand it.
DO $$
DECLARE
    rule CONSTANT text := $rule$
    SELECT CASE WHEN request.break_glass THEN
        NOT EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id AND d.decision = 'deny')
        AND EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id
            AND d.decision = 'break_glass' AND d.person_id <> request.requester_id)
    WHEN request.mode = 'enforce' AND request.pre_approval_id IS NOT NULL THEN
        is_pre_approved(request)
    WHEN request.mode = 'enforce' THEN
        NOT EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id AND d.decision = 'deny')
        AND request.quorum <= (
            SELECT count(*) FROM decisions d
            WHERE d.request_id = request.id AND d.decision = 'approve' AND d.person_id <> request.requester_id
            AND (d.assertion IS NOT NULL OR NOT (%s))
            AND (d.resources IS NULL OR coalesce(request.granted_resources, request.resources) <@ d.resources)
            AND (d.actions IS NULL OR coalesce(request.granted_actions, request.actions) <@ d.actions)
            AND (d.max_uses IS NULL OR request.max_uses <= d.max_uses)
            AND (d.opens_at IS NULL OR coalesce(request.opens_at, request.opened_at) >= d.opens_at)
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

-- Requests are counted over all people, but a submitter sees only their own. Ids sort by the time when they were
-- made, by a clock that may differ from the database's by minutes at most. BETWEEN with equal bounds, and a plan that
-- does not know the limit, make Postgres read the index of the tenant or person, and no further than the limit. A
-- plan that knows a small limit would sort all rows.
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

-- Lock the request to resubmit, for its requester or for the service account that submitted it. The account sees no
-- closed request otherwise. There are two statements, so that a caller who waited for the lock sees what was
-- submitted meanwhile.
CREATE FUNCTION lock_earlier_request(of_request uuid) RETURNS TABLE (
    tenant text, requester_id uuid, service text, resources text[], actions text[], reason_code text,
    justification text, case_ref text, case_system text, case_url text, access_window integer, max_uses integer,
    not_before timestamptz, state text, open_follower uuid, context jsonb, severity text
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
        r.justification::text, r.case_ref::text, r.case_system::text, r.case_url::text, r.access_window, r.max_uses,
        r.not_before,
        r.state::text,
        (SELECT f.id FROM requests f WHERE f.follows = r.id AND f.closed_at IS NULL), r.context, r.severity::text
    FROM tenants t WHERE t.id = r.tenant_id;
END $$;

-- Lock the request whose window is to be extended, for the same callers. `first_opened_at` is when the first window
-- of the chain of extensions began.
CREATE FUNCTION lock_extended_request(of_request uuid) RETURNS TABLE (
    tenant text, requester_id uuid, service text, resources text[], actions text[], reason_code text,
    justification text, case_ref text, case_system text, case_url text, case_check text, max_uses integer,
    first_opened_at timestamptz, deadline_at timestamptz, opens_at timestamptz, version integer, state text,
    open_extension uuid, break_glass boolean, context jsonb, severity text
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
    RETURN QUERY SELECT t.slug::text, r.requester_id, r.service::text, coalesce(r.granted_resources, r.resources),
        coalesce(r.granted_actions, r.actions), r.reason_code::text, r.justification::text, r.case_ref::text,
        r.case_system::text, r.case_url::text, r.case_check::text, r.max_uses,
        coalesce(r.first_opened_at, r.opens_at, r.opened_at), r.deadline_at, r.opens_at, r.version, r.state::text,
        (SELECT f.id FROM requests f WHERE f.extends = r.id AND f.closed_at IS NULL), r.break_glass, r.context,
        r.severity::text
    FROM tenants t WHERE t.id = r.tenant_id;
END $$;

-- Whether a window still runs or ran to its end. If someone has ended it early, a request that extends it admits no
-- one.
CREATE FUNCTION ran_to_its_end(of_request uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM requests r WHERE r.id = of_request AND r.state IN ('active', 'expired'))
$$;

-- Whether the customer's last decision about one of the resources was a denial. Case is ignored, and an approval
-- counts for the granted resources only. A window that was opened without asking the customer is no decision.
CREATE FUNCTION was_denied(of_tenant uuid, of_service text, of_resources text[]) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH asked AS (SELECT array_agg(lower(one)) AS names FROM unnest(of_resources) AS one)
    SELECT of_tenant = ANY (at_reach()) AND EXISTS (
        SELECT FROM asked, requests d, unnest(d.resources) AS resource
        WHERE d.tenant_id = of_tenant AND d.service = of_service AND d.state = 'denied' AND d.asked_at IS NOT NULL
            AND lower(resource) = ANY (asked.names)
            AND NOT EXISTS (SELECT FROM requests o, unnest(coalesce(o.granted_resources, o.resources)) AS opened
                WHERE o.tenant_id = of_tenant AND o.service = of_service AND o.opened_at > d.closed_at
                AND o.mode = 'enforce' AND o.pre_approval_id IS NULL AND NOT o.break_glass
                AND lower(opened) = lower(resource)))
$$;

-- The pre-approvals that could open such a request, with their votes; null if there are none.
CREATE FUNCTION usable_pre_approvals(of_tenant uuid, of_service text, of_reason text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_agg(to_jsonb(p) || jsonb_build_object('votes', (SELECT jsonb_agg(to_jsonb(v))
        FROM pre_approval_votes v WHERE v.pre_approval_id = p.id)) ORDER BY p.id)
    FROM pre_approvals p
    WHERE p.tenant_id = of_tenant AND of_tenant = ANY (at_reach()) AND p.service = of_service
        AND p.reason_code = of_reason AND p.revoked_at IS NULL AND p.used < p.max_uses
        AND p.ends_at > clock_timestamp()
$$;

-- Use a pre-approval once, and return how many uses are left; null if it cannot be used any more. Uses of a
-- pre-approval come one after another, and none comes after it was revoked. A request that opens as it is submitted
-- has no row yet for which another transaction could wait. So with `of_engineer`, this locks the tenant, the policy
-- that judged the request, and the engineer's role. A transaction that ends their windows waits for these locks and
-- then finds the window.
CREATE FUNCTION use_pre_approval(of_pre_approval uuid, of_policy integer, of_engineer uuid) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    uses_left integer;
BEGIN
    IF of_engineer IS NOT NULL THEN
        PERFORM FROM tenants t WHERE t.id = at_tenant() AND t.policy_version = of_policy AND NOT t.suspended FOR SHARE;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
        PERFORM FROM people p JOIN memberships m ON m.person_id = p.id
            WHERE p.id = of_engineer AND p.disabled_at IS NULL AND m.tenant_id IS NULL AND m.role = 'engineer'
            FOR SHARE;
        IF NOT FOUND THEN
            RETURN NULL;
        END IF;
    END IF;
    UPDATE pre_approvals p SET used = p.used + 1
    WHERE p.id = of_pre_approval AND p.tenant_id = at_tenant() AND p.revoked_at IS NULL AND p.used < p.max_uses
        AND p.ends_at > clock_timestamp()
    RETURNING p.max_uses - p.used INTO uses_left;
    RETURN uses_left;
END $$;

-- The engineer's newest open request for the same case and one of these resources, among 500 requests of the case.
CREATE FUNCTION open_duplicate(of_tenant uuid, of_person uuid, of_service text, of_resources text[], of_system text,
    of_case text) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.id FROM (
        SELECT c.* FROM requests c WHERE c.tenant_id BETWEEN of_tenant AND of_tenant
            AND c.case_ref BETWEEN of_case AND of_case ORDER BY c.tenant_id DESC, c.case_ref DESC LIMIT 500
    ) r
    WHERE of_tenant = ANY (at_reach()) AND (of_person = at_person() OR 'system' = ANY (at_roles()))
        AND coalesce(r.case_system = of_system, true) AND r.requester_id = of_person AND r.service = of_service AND r.closed_at IS NULL
        AND r.deadline_at > clock_timestamp()
        AND coalesce(r.granted_resources, r.resources) && of_resources
    ORDER BY r.id DESC LIMIT 1
$$;

-- How many windows were opened by break-glass within 30 days, and how many findings about such windows are overdue.
CREATE FUNCTION break_glass_record(of_tenant uuid) RETURNS TABLE (lately integer, overdue integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT CAST(count(*) FILTER (WHERE a.opened_at > clock_timestamp() - interval '30 days') AS integer),
        CAST(count(*) FILTER (WHERE a.finding IS NULL AND a.due_at <= clock_timestamp()) AS integer)
    FROM after_reviews a WHERE a.tenant_id = of_tenant AND of_tenant = ANY (at_reach())
        AND (a.finding IS NULL OR a.opened_at > clock_timestamp() - interval '30 days')
$$;

-- Since when an emergency stop has barred break-glass at a tenant; null if there is none.
CREATE FUNCTION stopped_since(of_tenant uuid) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.stopped_at FROM emergency_stops s WHERE s.tenant_id = of_tenant AND s.ended_at IS NULL
$$;

-- When a tenant's consent ends, and under which mode it lets the vendor open windows.
CREATE FUNCTION consents(of_tenants uuid[]) RETURNS TABLE (tenant_id uuid, mode text, until_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id, p.body -> 'consent' ->> 'mode', CAST(p.body -> 'consent' ->> 'until' AS timestamptz)
    FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
    WHERE t.id = ANY (of_tenants) AND (t.id = ANY (at_reach()) OR cardinality(at_roles()) > 0)
        AND t.mode = 'enforce' AND p.body -> 'consent' ->> 'until' IS NOT NULL
$$;

-- An engineer sees the longest window that a tenant's policy allows, and nothing else of the policy.
CREATE FUNCTION longest_windows(of_tenants uuid[]) RETURNS TABLE (tenant_id uuid, seconds integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.id, CAST(p.body ->> 'access_ceiling' AS integer)
    FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
    WHERE t.id = ANY (of_tenants) AND 'engineer' = ANY (at_roles())
$$;

-- For a window that was approved for later: the policy in force when it began, and the policy under which it was
-- approved if that was another one.
CREATE FUNCTION policies_at_start(of_requests uuid[]) RETURNS TABLE (
    request_id uuid, tenant_id uuid, version integer, body text, mac bytea, before text
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.id, p.tenant_id, p.version, p.body::text, p.mac, b.body::text
    FROM requests r
    CROSS JOIN LATERAL (SELECT p.* FROM policies p WHERE p.tenant_id = r.tenant_id AND p.created_at <= r.opens_at
        ORDER BY p.version DESC LIMIT 1) p
    LEFT JOIN events e ON e.request_id = r.id AND e.seq = r.version
    JOIN policies b ON b.tenant_id = r.tenant_id AND b.version
        = coalesce(CAST(convert_from(e.body, 'UTF8')::jsonb ->> 'policy_version' AS integer), r.policy_version)
    WHERE r.id = ANY (of_requests) AND r.state = 'active' AND r.opens_at IS NOT NULL AND p.version <> b.version
        AND (r.tenant_id = ANY (at_reach()) OR cardinality(at_roles()) > 0
            OR session_user = 'lockbox_worker')
$$;

-- The access check may read neither the deciders nor their passkeys. This returns what it needs to verify a window.
CREATE FUNCTION signed_decisions(of_requests uuid[]) RETURNS TABLE (
    request_id uuid, person_id uuid, principals uuid[], access_window integer, resources text[],
    actions text[], max_uses integer, opens_at timestamptz, comment text, statement text, signed_content text,
    assertion text, passkey_id uuid,
    credential_id bytea, public_key bytea, created_at timestamptz, trusted_at timestamptz, only_at uuid,
    mac bytea
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT d.request_id, d.person_id, d.principals, d.access_window, d.resources, d.actions, d.max_uses, d.opens_at,
        d.comment, d.statement, d.signed_content, d.assertion, k.id, k.credential_id, k.public_key, k.created_at, k.trusted_at,
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

-- When each person with a role at a tenant last signed in, and how, for the tenant's own people. Without a tenant:
-- the same about the vendor, for its operators and auditors.
CREATE FUNCTION last_sign_ins(of_tenant uuid) RETURNS TABLE (person_id uuid, at timestamptz, means text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT m.person_id, s.at, convert_from(s.body, 'UTF8')::jsonb ->> 'means'
    FROM (SELECT DISTINCT o.person_id FROM memberships o WHERE o.tenant_id IS NOT DISTINCT FROM of_tenant) m
    CROSS JOIN LATERAL (SELECT e.at, e.body FROM events e WHERE e.actor_id = m.person_id AND e.action = 'signed_in'
        ORDER BY e.at DESC LIMIT 1) s
    WHERE CASE WHEN of_tenant IS NULL THEN at_roles() && '{operator,vendor_auditor}'::text[]
        ELSE of_tenant = ANY (at_tenants()) END
$$;

-- A service account sees open windows only. To report activity later, it needs a part of a closed window.
CREATE FUNCTION reported_window(of_request uuid) RETURNS TABLE (
    id uuid, tenant_id uuid, requester_id uuid, service text, resources text[], actions text[],
    max_uses integer, opened_at timestamptz, deadline_at timestamptz, closed_at timestamptz
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.id, r.tenant_id, r.requester_id, r.service, coalesce(r.granted_resources, r.resources),
        coalesce(r.granted_actions, r.actions), r.max_uses, coalesce(r.opens_at, r.opened_at), r.deadline_at,
        r.closed_at
    FROM requests r WHERE r.id = of_request AND 'system' = ANY (at_roles())
$$;

-- Which windows may have changed by transactions that were still open in an earlier snapshot or began later; none
-- without an earlier snapshot. The gate learns what an event is about, and only this of its content: whether it is a
-- move that `ends` a window, which is final. The first columns name the server and database that answer, and the
-- snapshot to continue from; at least one row has them. A removed passkey may have signed at any tenant, even at one
-- that its owner has left, so its removal concerns all windows. The gate also remembers whose identity a caller has,
-- so changes of identities are returned too. Events restored from another server's back-up have numbers of that
-- server, and are left out until this server reaches these numbers.
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

-- Add calls that a gate has admitted and would refuse. The hundred most frequent calls of each service and reason
-- stay; among equally frequent calls, the latest stay. The row without a path counts all other calls. It is locked
-- first, which keeps processes from changing the rows of one service and reason at once.
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

-- When the gate of each service was last asked with a gateway's or a guard's token: to the minute within two hours,
-- to the hour within a month. A member of a tenant may know these times, but not the counts.
CREATE FUNCTION gates_last_asked() RETURNS TABLE (service text, at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT g.service, max(g.at) FROM gate_answers g WHERE g.span <> 'all'
        AND g.gateway_id <> '00000000-0000-0000-0000-000000000000' GROUP BY g.service
$$;

-- Add what a process of the API has counted; a batch that comes twice counts once. Without a process, the counts are
-- part of a transaction that itself counts once. Rows are locked in the order of their keys, so that processes never
-- wait for each other in a circle. No login changes or lowers a count.
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
                AND r.tenant_id = t.id AND r.service = f.service AND coalesce(r.opens_at <= now_at, true)
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

-- Use a window for a number of uses once, as a service account that checks access. Return how many uses are left, or
-- no row if none are left. Uses of a window come one after another, and none comes after the move that ends it. A
-- call that has used the window within five seconds does not use it again. `name` is the account's name.
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
            AND coalesce(r.opens_at <= clock_timestamp(), true) AND r.id IN (SELECT windows_used_by(by_call));
    IF FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY UPDATE requests r SET used = r.used + 1
        WHERE r.id = of_request AND r.state = 'active' AND r.used < r.max_uses AND r.deadline_at > clock_timestamp()
            AND coalesce(r.opens_at <= clock_timestamp(), true)
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

-- One listener serves the pages of many people and has no session variables. It learns which of these people may see
-- one of the changed requests, but not which request. The caller says which roles see how much.
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

-- The access check reads no events. It reads only a log's signed checkpoint and the hashes that prove that the log
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

-- The sealer takes the waiting events, except those of the logs that it holds back. Two sealers at once share the
-- rows. Only forget_sealed deletes rows.
CREATE FUNCTION take_unsealed(held uuid[], most integer) RETURNS SETOF uuid
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT u.event_id FROM unsealed u WHERE cardinality(held) = 0 OR NOT EXISTS (
        SELECT FROM events e WHERE e.id = u.event_id AND e.log_id = ANY (held))
    ORDER BY u.event_id LIMIT most FOR UPDATE SKIP LOCKED
$$;

-- Each row is looked up by its keys (OFFSET 0): a join may be planned as a loop over whole tables.
CREATE FUNCTION forget_sealed(events uuid[]) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH gone AS (DELETE FROM unsealed WHERE event_id = ANY (ARRAY(
        SELECT t.id FROM unnest(events) AS t (id) WHERE EXISTS (SELECT FROM seals s WHERE s.event_id = t.id
            AND s.number < (SELECT l.size FROM logs l WHERE l.id = s.log_id)
            AND s.log_id = (SELECT e.log_id FROM events e WHERE e.id = t.id) OFFSET 0)))
        RETURNING 1)
    SELECT count(*) FROM gone
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

-- Anyone who may change a webhook may repeat its calls, even about a request that they may not see, because a call
-- reports an event to a machine.
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

-- Operators see which notifications of a request were not delivered, and nothing else of the request.
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

-- The URL of a failing webhook without its path and user name, which may contain a secret.
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


-- MACs of rows

-- Replace a row's MAC with one under a newer key, if the caller has the present MAC.
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

-- The API has the keys and checks the MACs of all rows that grant rights: person by person, and new rows at once.
-- Revoked and expired rows grant no rights.
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

CREATE FUNCTION marked_directory_records(people uuid[]) RETURNS SETOF directory_records
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT d.* FROM directory_records d WHERE d.person_id = ANY (people)
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

-- The same for tenants: their mode, the policies in force, newer policies, and the policies that judged open
-- requests.
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

CREATE FUNCTION marked_pre_approvals(which uuid[]) RETURNS SETOF pre_approvals
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT p.* FROM pre_approvals p
    WHERE p.tenant_id = ANY (which) AND p.ends_at > clock_timestamp()
$$;

CREATE FUNCTION marked_pre_approval_votes(which uuid[]) RETURNS TABLE (
    id uuid, pre_approval_id uuid, person_id uuid, principals uuid[], means text, decided_at timestamptz, mac bytea,
    tenant_id uuid
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT v.id, v.pre_approval_id, v.person_id, v.principals, v.means, v.decided_at, v.mac, p.tenant_id
    FROM pre_approval_votes v JOIN pre_approvals p ON p.id = v.pre_approval_id
    WHERE p.tenant_id = ANY (which) AND p.revoked_at IS NULL AND p.ends_at > clock_timestamp()
$$;

-- Rows that were written before these tables had MACs have the empty MAC. They count, and are left out here.
CREATE FUNCTION marked_retentions(which uuid[]) RETURNS SETOF retentions
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.* FROM retentions t WHERE t.tenant_id = ANY (which) AND t.mac IS DISTINCT FROM ''
$$;

CREATE FUNCTION marked_legal_holds(which uuid[]) RETURNS SETOF legal_holds
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT h.* FROM legal_holds h WHERE h.tenant_id = ANY (which) AND h.mac IS DISTINCT FROM ''
$$;

CREATE FUNCTION marked_offboardings(which uuid[]) RETURNS SETOF offboardings
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT o.* FROM offboardings o
    WHERE o.tenant_id = ANY (which) AND o.erased_at IS NULL AND o.mac IS DISTINCT FROM ''
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

-- Record a heartbeat, only for a role of the caller's login, because workers act on what they read here. Processes
-- that were silent for an hour are removed.
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

-- Whether a connector worker is needed: the catalogue has connectors, or access at a target is not closed.
CREATE FUNCTION needs_connectors() RETURNS boolean
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM heartbeats WHERE needs_connectors AND beat_at > clock_timestamp() - interval '1 minute')
        OR EXISTS (SELECT FROM connections WHERE run_at IS NOT NULL)
$$;

-- How many connections Postgres allows to all logins together, how many to this login, and how many the living
-- processes open at most, without the processes of one role on one machine.
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

-- Every count reads an index, and at most 100,000 of its rows. The clock's part of the schedule is compared from two
-- seconds ahead to an hour ahead, or to less if more than these rows are due by then. Bounds are in ms since 1970, as
-- in Redis.
CREATE FUNCTION operating_figures() RETURNS TABLE (name text, label text, value double precision)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at),
    bounds AS MATERIALIZED (SELECT floor(extract(epoch FROM at) * 1000) + 2000 AS lower FROM clock),
    windows AS MATERIALIZED (SELECT opens_at, deadline_at FROM requests WHERE state = 'active' LIMIT 100000),
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
    UNION ALL SELECT 'access_open', '', count(*) FROM windows, clock
        WHERE deadline_at > at AND coalesce(opens_at <= at, true)
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
    UNION ALL SELECT 'case_checks', outcome, count(*) FROM (SELECT CASE WHEN failure IS NOT NULL THEN 'failed'
        WHEN answered_at IS NULL THEN 'unanswered' WHEN is_open AND is_assigned THEN 'confirmed' ELSE 'refused' END
        AS outcome FROM case_checks LIMIT 100000) c GROUP BY outcome
    UNION ALL SELECT 'findings', CASE WHEN due_at <= at THEN 'overdue' ELSE 'due' END, count(*)
        FROM (SELECT due_at FROM after_reviews WHERE remind_at IS NOT NULL LIMIT 100000) f, clock GROUP BY 2
    UNION ALL SELECT 'legal_holds', '', count(*) FROM legal_holds WHERE released_at IS NULL
    UNION ALL SELECT 'offboardings', CASE WHEN closed_at IS NULL THEN 'asked' ELSE 'begun' END, count(*)
        FROM offboardings WHERE erased_at IS NULL GROUP BY 2
    UNION ALL SELECT 'deadline_lag_total', '', sum(t.total) FROM counters t
        WHERE t.name = 'deadline_lag' HAVING count(*) > 0
$$;

-- The gate's answers in total, in the last hour and in the last day, by the names of the gateways' accounts.
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

-- Counts open requests only, and at most 1001 of each state.
CREATE FUNCTION operating_states() RETURNS TABLE (state text, number bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.state, (SELECT count(*) FROM (SELECT FROM requests r WHERE r.state = s.state
        AND r.state IN ('reviewing', 'pending', 'active') LIMIT 1001) few)
    FROM unnest('{reviewing,pending,active}'::text[]) AS s (state)
$$;

-- A day by the hour. The rows are found by the ids of events and notifications, which sort by time. A notification
-- that was written days ago may be sent today. Sequential scans are off, because a plan that does not know the day's
-- first id would read all rows.
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
