-- What 0.2.0 lacks of the schema, by noun. Processes of 0.2.0 run on it: see CONTRIBUTING.md, Migrations.
--
-- A function or a trigger that several nouns change stands in the last part, as it is after all of them.


-- Extensions and future starts


-- Break-glass


-- Cases and duplicates


-- Ordered stages, context and levels


-- Pre-approvals

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


ALTER TABLE requests ADD COLUMN pre_approval_id uuid;
CREATE INDEX ix_requests_pre_approval_id ON requests (pre_approval_id) WHERE pre_approval_id IS NOT NULL;

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

CREATE FUNCTION usable_pre_approvals(of_tenant uuid, of_service text, of_reason text) RETURNS jsonb
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT jsonb_agg(to_jsonb(p) || jsonb_build_object('votes', (SELECT jsonb_agg(to_jsonb(v))
        FROM pre_approval_votes v WHERE v.pre_approval_id = p.id)) ORDER BY p.id)
    FROM pre_approvals p
    WHERE p.tenant_id = of_tenant AND of_tenant = ANY (at_reach()) AND p.service = of_service
        AND p.reason_code = of_reason AND p.revoked_at IS NULL AND p.used < p.max_uses
        AND p.ends_at > clock_timestamp()
$$;

-- Use a pre-approval once, and return how many uses are left; null where it cannot be used any more. Uses of one come
-- one after another, and none after it was revoked. A request that opens as it is submitted is no row yet that
-- somebody could wait for: with the engineer, it holds the tenant, the policy that judged it and the engineer's role,
-- so that what ends their windows finds it.
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

DO $$
DECLARE
    added text;
BEGIN
    FOREACH added IN ARRAY '{pre_approvals,pre_approval_votes}'::text[] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', added);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', added);
    END LOOP;
END $$;
CREATE POLICY worker ON pre_approvals FOR ALL TO lockbox_worker USING (true);
CREATE POLICY worker ON pre_approval_votes FOR ALL TO lockbox_worker USING (true);
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

CREATE TRIGGER removed_for_good AFTER DELETE ON pre_approvals FOR EACH ROW
    WHEN (OLD.mac IS NOT NULL) EXECUTE FUNCTION remember_ended_power();
CREATE TRIGGER marked_anew AFTER UPDATE ON pre_approvals FOR EACH ROW
    WHEN (OLD.mac IS NOT NULL AND OLD.mac IS DISTINCT FROM NEW.mac) EXECUTE FUNCTION remember_ended_power();
CREATE TRIGGER never_put_back BEFORE INSERT ON pre_approvals FOR EACH ROW
    WHEN (NEW.mac IS NOT NULL) EXECUTE FUNCTION refuse_ended_power();
CREATE TRIGGER never_marked_back BEFORE UPDATE ON pre_approvals FOR EACH ROW
    WHEN (NEW.mac IS NOT NULL AND NEW.mac IS DISTINCT FROM OLD.mac) EXECUTE FUNCTION refuse_ended_power();
CREATE TRIGGER never_wider BEFORE UPDATE ON pre_approvals FOR EACH ROW
    WHEN (to_jsonb(NEW) - '{used,revoked_at,revoked_by,ended_at,mac}'::text[]
        <> to_jsonb(OLD) - '{used,revoked_at,revoked_by,ended_at,mac}'::text[])
    EXECUTE FUNCTION refuse('what pre-approval %s covers stays as it is');
CREATE TRIGGER never_revived BEFORE UPDATE ON pre_approvals FOR EACH ROW
    WHEN (OLD.revoked_at IS NOT NULL AND (NEW.revoked_at IS DISTINCT FROM OLD.revoked_at
        OR NEW.revoked_by IS DISTINCT FROM OLD.revoked_by))
    EXECUTE FUNCTION refuse('pre-approval %s stays revoked');
CREATE TRIGGER used_one_by_one BEFORE UPDATE ON pre_approvals FOR EACH ROW
    WHEN (NEW.used <> OLD.used AND (NEW.used <> OLD.used + 1 OR OLD.revoked_at IS NOT NULL
        OR OLD.ends_at <= clock_timestamp()))
    EXECUTE FUNCTION refuse('pre-approval %s is used one by one, while it may be');
CREATE TRIGGER never_goes BEFORE DELETE ON pre_approvals FOR EACH ROW
    EXECUTE FUNCTION refuse('pre_approvals is append-only');
-- The owner marks a vote anew, and changes nothing that it says.
CREATE TRIGGER append_only BEFORE UPDATE ON pre_approval_votes FOR EACH ROW
    WHEN (NEW.mac IS NULL OR NEW.mac IS NOT DISTINCT FROM OLD.mac OR to_jsonb(OLD) - 'mac' <> to_jsonb(NEW) - 'mac')
    EXECUTE FUNCTION refuse('pre_approval_votes is append-only');
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON pre_approval_votes FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('pre_approval_votes is append-only');
CREATE TRIGGER never_goes BEFORE DELETE ON pre_approval_votes FOR EACH ROW
    EXECUTE FUNCTION refuse('pre_approval_votes is append-only');

CREATE TRIGGER never_by_another_pre_approval BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.pre_approval_id IS DISTINCT FROM OLD.pre_approval_id
        AND (OLD.state <> 'reviewing' OR NEW.state <> 'active'))
    EXECUTE FUNCTION refuse('what request %s was opened by stays on record');
CREATE TRIGGER only_signed_where_demanded_at_once BEFORE INSERT ON requests FOR EACH ROW
    WHEN (NEW.state = 'active' AND NEW.approve_means = 'attested') EXECUTE FUNCTION refuse_unsigned();

GRANT SELECT, INSERT ON pre_approvals, pre_approval_votes TO lockbox_api;
GRANT UPDATE (revoked_at, revoked_by, mac) ON pre_approvals TO lockbox_api;
GRANT UPDATE (pre_approval_id) ON requests TO lockbox_api;
GRANT SELECT ON pre_approvals, pre_approval_votes TO lockbox_worker;
GRANT UPDATE (ended_at) ON pre_approvals TO lockbox_worker;
REVOKE ALL ON FUNCTION is_pre_approved, usable_pre_approvals, use_pre_approval, marked_pre_approvals,
    marked_pre_approval_votes FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_pre_approved
    TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;
GRANT EXECUTE ON FUNCTION usable_pre_approvals, use_pre_approval, marked_pre_approvals, marked_pre_approval_votes
    TO lockbox_api;


-- Where the requester works, and severity


-- Exclusions, retention and leaving


-- Functions and triggers that several of these change

DO $$
DECLARE
    rule CONSTANT text := $rule$
    SELECT CASE WHEN request.mode = 'enforce' AND request.pre_approval_id IS NOT NULL THEN
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
    function CONSTANT text := 'CREATE OR REPLACE FUNCTION %I(request requests) RETURNS boolean LANGUAGE sql STABLE AS %L';
BEGIN
    EXECUTE format(function, 'is_decided', format(rule, by_the_row));
    EXECUTE format(function, 'is_founded', format(rule, by_the_policy));
END $$;

ALTER POLICY api_insert ON requests
    WITH CHECK (tenant_id = (SELECT at_tenant())
        AND ((SELECT at_roles()) && '{system}'::text[]
            OR (requester_id = (SELECT at_person()) AND (SELECT at_roles()) && '{engineer}'::text[]))
        AND (state IN ('reviewing', 'pending') OR (state = 'active' AND mode = 'enforce' AND pre_approval_id IS NOT NULL))
        AND (mode = 'enforce' OR EXISTS (
            SELECT FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
            WHERE t.id = requests.tenant_id AND (t.mode = requests.mode
                OR (p.body -> 'consent' ->> 'mode' = requests.mode
                    AND CAST(p.body -> 'consent' ->> 'until' AS timestamptz) = requests.consent_until)))));
CREATE OR REPLACE FUNCTION refuse_without_the_customer() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.mode = 'enforce' AND NEW.pre_approval_id IS NOT NULL THEN
        RETURN NEW;
    END IF;
    IF NOT EXISTS (SELECT FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
        WHERE t.id = NEW.tenant_id AND (t.mode <> 'enforce'
            OR CAST(p.body -> 'consent' ->> 'until' AS timestamptz) >= NEW.deadline_at)) THEN
        RAISE EXCEPTION 'the customer decides about request %', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
