-- What 0.2.0 lacks of the schema, by noun. Processes of 0.2.0 run on it: see CONTRIBUTING.md, Migrations.
--
-- A function or a trigger that several nouns change stands in the last part, as it is after all of them.


-- Extensions and future starts

ALTER TABLE requests
    ADD COLUMN extends uuid CONSTRAINT fk_requests_extends REFERENCES requests (id),
    ADD COLUMN not_before timestamptz,
    ADD COLUMN opens_at timestamptz,
    ADD COLUMN first_opened_at timestamptz,
    DROP CONSTRAINT ck_requests_window;
ALTER TABLE requests
    ADD CONSTRAINT ck_requests_window CHECK (state <> 'active'
        OR deadline_at <= coalesce(opens_at, opened_at) + access_window * interval '1 second'),
    ADD CONSTRAINT ck_requests_opens_at CHECK (CASE WHEN opened_at IS NULL THEN opens_at IS NULL
        WHEN not_before IS NULL THEN opens_at IS NULL OR opens_at > opened_at
        ELSE opens_at IS NOT NULL AND opens_at > opened_at AND opens_at >= not_before END),
    ADD CONSTRAINT ck_requests_extends CHECK (CASE WHEN extends IS NULL THEN first_opened_at IS NULL
        ELSE not_before IS NOT NULL AND first_opened_at IS NOT NULL AND first_opened_at < not_before END);
CREATE INDEX ix_requests_extends ON requests (extends) WHERE extends IS NOT NULL;
CREATE UNIQUE INDEX uq_requests_extends_open ON requests (extends) WHERE extends IS NOT NULL AND closed_at IS NULL;

ALTER TABLE decisions ADD COLUMN opens_at timestamptz, DROP CONSTRAINT ck_decisions_kept;
ALTER TABLE decisions ADD CONSTRAINT ck_decisions_kept CHECK (decision = 'approve'
    OR num_nonnulls(resources, actions, max_uses, opens_at) = 0);

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

CREATE FUNCTION ran_to_its_end(of_request uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM requests r WHERE r.id = of_request AND r.state IN ('active', 'expired'))
$$;

-- One that extends goes on from the end of an open window of the same engineer, for no more than that one is for.
CREATE FUNCTION refuse_stray_extension() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM requests r WHERE r.id = NEW.extends AND r.tenant_id = NEW.tenant_id
        AND r.requester_id = NEW.requester_id AND r.service = NEW.service AND r.state = 'active'
        AND NOT r.break_glass AND NOT NEW.break_glass AND NEW.not_before = r.deadline_at
        AND NEW.first_opened_at = coalesce(r.first_opened_at, r.opens_at, r.opened_at)
        AND NEW.resources <@ coalesce(r.granted_resources, r.resources)
        AND NEW.actions <@ coalesce(r.granted_actions, r.actions)) THEN
        RAISE EXCEPTION 'request % extends no window that it could extend', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER extends_its_own BEFORE INSERT ON requests FOR EACH ROW
    WHEN (NEW.extends IS NOT NULL) EXECUTE FUNCTION refuse_stray_extension();
CREATE FUNCTION refuse_outlived_extension() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.opens_at IS DISTINCT FROM NEW.not_before OR NOT ran_to_its_end(NEW.extends) THEN
        RAISE EXCEPTION 'what request % extends is over', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_from_an_open_window BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.state = 'active' AND OLD.state <> 'active' AND NEW.extends IS NOT NULL)
    EXECUTE FUNCTION refuse_outlived_extension();

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

GRANT UPDATE (opens_at) ON requests TO lockbox_api;
GRANT SELECT (opens_at) ON decisions TO lockbox_notifications;
REVOKE ALL ON FUNCTION lock_extended_request, ran_to_its_end, policies_at_start, refuse_stray_extension,
    refuse_outlived_extension FROM PUBLIC;
GRANT EXECUTE ON FUNCTION policies_at_start TO lockbox_api, lockbox_worker, lockbox_connectors;
GRANT EXECUTE ON FUNCTION lock_extended_request TO lockbox_api;
GRANT EXECUTE ON FUNCTION ran_to_its_end TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;


-- Break-glass

ALTER TABLE requests ADD COLUMN break_glass boolean NOT NULL DEFAULT false;
ALTER TABLE requests ADD CONSTRAINT ck_requests_break_glass CHECK (NOT break_glass OR (state <> 'pending'
    AND mode = 'enforce' AND (opened_at IS NULL OR deadline_at <= opened_at + interval '1 hour')));
ALTER TABLE decisions DROP CONSTRAINT ck_decisions_decision;
ALTER TABLE decisions ADD CONSTRAINT ck_decisions_decision
    CHECK (decision IN ('endorse', 'break_glass', 'approve', 'deny'));

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

-- Queries of 0.2.0, which name three of the templates, find it as well.
DROP INDEX ix_notifications_notified;
CREATE INDEX ix_notifications_notified ON notifications (request_id) INCLUDE (person_id)
    WHERE template IN ('pending', 'answer_reminder', 'active', 'break_glass') AND person_id IS NOT NULL;

DROP TRIGGER only_where_the_customer_lets ON requests;
CREATE TRIGGER only_where_the_customer_lets BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.state = 'reviewing' AND NEW.state = 'active' AND NOT NEW.break_glass)
    EXECUTE FUNCTION refuse_without_the_customer();
-- Who submits says whether a request is for break-glass; that is given up once it is endorsed, and never taken up.
CREATE TRIGGER never_break_glass_later BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.break_glass <> OLD.break_glass
        AND NOT (OLD.break_glass AND OLD.state = 'reviewing' AND NEW.state IN ('pending', 'active')))
    EXECUTE FUNCTION refuse('whether request %s is for break-glass was said when it was submitted');
-- Break-glass is what the customer's policy of today allows: for which service, whom, how long and how often, by two
-- people, with a finding that is due within a day, and while none is overdue. Of several at once all are counted: each
-- waits for the commit of the one before.
CREATE FUNCTION refuse_break_glass() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    policy jsonb;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('break-glass at ' || NEW.tenant_id, 0));
    SELECT p.body INTO policy FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
        WHERE t.id = NEW.tenant_id AND NOT t.suspended;
    IF NOT coalesce(policy -> 'break_glass_services' ? NEW.service, false)
        OR NEW.deadline_at > NEW.opened_at
            + coalesce(CAST(policy ->> 'break_glass_ceiling' AS integer), 3600) * interval '1 second'
        OR NOT EXISTS (SELECT FROM decisions d JOIN people p ON p.id = d.person_id WHERE d.request_id = NEW.id
            AND d.decision = 'break_glass' AND d.person_id <> NEW.requester_id AND p.side = 'vendor'
            AND (coalesce(policy -> 'break_glass_people', 'null') = 'null'
                OR policy -> 'break_glass_people' ?& ARRAY[d.person_id::text, NEW.requester_id::text]))
        OR NOT EXISTS (SELECT FROM after_reviews a WHERE a.request_id = NEW.id AND a.tenant_id = NEW.tenant_id
            AND a.opened_at = NEW.opened_at AND a.finding IS NULL)
        OR EXISTS (SELECT FROM after_reviews a WHERE a.tenant_id = NEW.tenant_id AND a.finding IS NULL
            AND a.due_at <= NEW.opened_at)
        OR (SELECT count(*) FROM after_reviews a WHERE a.tenant_id = NEW.tenant_id
            AND a.opened_at > NEW.opened_at - interval '30 days')
            > coalesce(CAST(policy ->> 'break_glass_monthly' AS integer), 2) THEN
        RAISE EXCEPTION 'the customer does not allow break-glass for request %', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER only_as_the_customer_allows AFTER UPDATE ON requests DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.break_glass AND NEW.state = 'active' AND OLD.state <> 'active')
    EXECUTE FUNCTION refuse_break_glass();

-- A finding is the customer's, given once, after the window has ended, with an event; reminders only count up.
CREATE FUNCTION refuse_finding() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF OLD.finding IS NOT NULL OR to_jsonb(NEW) - '{remind_at,reminders,finding,found_by,found_at,found_event}'::text[]
            <> to_jsonb(OLD) - '{remind_at,reminders,finding,found_by,found_at,found_event}'::text[]
        OR NEW.reminders NOT BETWEEN OLD.reminders AND OLD.reminders + 1
        OR (NEW.finding IS NOT NULL AND EXISTS (SELECT FROM requests r WHERE r.id = NEW.request_id
            AND r.state = 'active' AND r.deadline_at > NEW.found_at)) THEN
        RAISE EXCEPTION 'the finding about request % is given once, and after its end', NEW.request_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER found_once BEFORE UPDATE ON after_reviews FOR EACH ROW EXECUTE FUNCTION refuse_finding();
CREATE FUNCTION refuse_unrecorded_finding() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM events e WHERE e.id = NEW.found_event AND e.request_id = NEW.request_id
        AND e.action = 'after_review' AND e.actor_id = NEW.found_by) THEN
        RAISE EXCEPTION 'the finding about request % has no event', NEW.request_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER findings_are_recorded AFTER UPDATE ON after_reviews DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.finding IS NOT NULL) EXECUTE FUNCTION refuse_unrecorded_finding();
CREATE TRIGGER never_goes BEFORE DELETE ON after_reviews FOR EACH ROW
    EXECUTE FUNCTION refuse('after_reviews is append-only');

ALTER TABLE after_reviews ENABLE ROW LEVEL SECURITY;
ALTER TABLE after_reviews FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON after_reviews FOR ALL TO lockbox_worker USING (true);
CREATE POLICY notifications ON after_reviews FOR ALL TO lockbox_notifications USING (true);
-- Who opens by break-glass has the customer asked for a finding, and reminded of it; the finding is that of its
-- approvers and admins.
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
DROP POLICY api_insert ON decisions;
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

GRANT SELECT, INSERT ON after_reviews TO lockbox_api;
GRANT UPDATE (remind_at, finding, found_by, found_at, found_event) ON after_reviews TO lockbox_api;
GRANT UPDATE (break_glass) ON requests TO lockbox_api;
GRANT SELECT ON after_reviews TO lockbox_worker, lockbox_notifications;
GRANT UPDATE (remind_at, reminders) ON after_reviews TO lockbox_worker;

-- How many windows were opened by break-glass within 30 days, and how many findings about such windows are overdue.
CREATE FUNCTION break_glass_record(of_tenant uuid) RETURNS TABLE (lately integer, overdue integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT CAST(count(*) FILTER (WHERE a.opened_at > clock_timestamp() - interval '30 days') AS integer),
        CAST(count(*) FILTER (WHERE a.finding IS NULL AND a.due_at <= clock_timestamp()) AS integer)
    FROM after_reviews a WHERE a.tenant_id = of_tenant AND of_tenant = ANY (at_reach())
        AND (a.finding IS NULL OR a.opened_at > clock_timestamp() - interval '30 days')
$$;
REVOKE ALL ON FUNCTION break_glass_record, refuse_break_glass, refuse_finding, refuse_unrecorded_finding FROM PUBLIC;
GRANT EXECUTE ON FUNCTION break_glass_record TO lockbox_api;


-- Cases and duplicates

ALTER TABLE requests ADD COLUMN case_system varchar(63), ADD COLUMN case_url varchar(2000),
    ADD COLUMN case_check varchar(24)
        CONSTRAINT ck_requests_case_check CHECK (case_check IN ('confirmed', 'unconfirmed')),
    ADD COLUMN duplicate_of uuid CONSTRAINT fk_requests_duplicate_of REFERENCES requests (id),
    ADD COLUMN duplicate_reason varchar(500);

-- The engineer's newest open request for the same case and one of these resources. So many of a case are looked through.
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
REVOKE ALL ON FUNCTION open_duplicate FROM PUBLIC;
GRANT EXECUTE ON FUNCTION open_duplicate TO lockbox_api;

-- The token of a ticket system that says that a case is closed, and the tenants that it is bound to: there it ends what
-- was asked for the case.
CREATE FUNCTION at_closing() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.closing', true), '')::uuid $$;

CREATE FUNCTION closing_tenants() RETURNS uuid[]
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT coalesce(array_agg(t.id), '{}') FROM tokens k JOIN tenants t ON 'tenant:' || t.slug = ANY (k.scopes)
    WHERE k.id = at_closing() AND k.person_id = at_person() AND 'system' = ANY (at_roles())
        AND 'case:close' = ANY (k.scopes) AND k.revoked_at IS NULL AND k.expires_at > clock_timestamp()
$$;

-- A ticket system ends what was asked for a case that is closed, where its token is bound to the tenant.
CREATE POLICY api_select_closing ON requests FOR SELECT TO lockbox_api
    USING ((SELECT at_closing()) IS NOT NULL AND case_ref IS NOT NULL
        AND tenant_id = ANY ((SELECT closing_tenants())::uuid[]));
CREATE POLICY api_update_closing ON requests FOR UPDATE TO lockbox_api
    USING ((SELECT at_closing()) IS NOT NULL AND case_ref IS NOT NULL
        AND tenant_id = ANY ((SELECT closing_tenants())::uuid[]));

CREATE TRIGGER closing_only_ends BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND at_closing() IS NOT NULL AND NEW.state NOT IN ('cancelled', 'revoked'))
    EXECUTE FUNCTION refuse('request %s of a case that is closed can only be cancelled or revoked');

REVOKE ALL ON FUNCTION at_closing, closing_tenants FROM PUBLIC;
GRANT EXECUTE ON FUNCTION at_closing TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;
GRANT EXECUTE ON FUNCTION closing_tenants TO lockbox_api;

-- Questions to the adapters of ticket systems: is this case open, and assigned to the engineer? The API asks, the
-- notifications worker answers once, and an answer confirms one request. `failure` is why there is none. Kept for a day.
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
ALTER TABLE case_checks ENABLE ROW LEVEL SECURITY;
ALTER TABLE case_checks FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON case_checks FOR ALL TO lockbox_worker USING (true);
CREATE POLICY notifications ON case_checks FOR ALL TO lockbox_notifications USING (true);
CREATE POLICY worker_forgets ON case_checks AS RESTRICTIVE FOR DELETE TO lockbox_worker
    USING (asked_at < now() - interval '1 day');

-- Whoever submits has a case checked, for themselves or, as a system, for an engineer. It is used by use_case_check().
CREATE POLICY api_select ON case_checks FOR SELECT TO lockbox_api USING (asked_by = (SELECT at_person()));
CREATE POLICY api_insert ON case_checks FOR INSERT TO lockbox_api
    WITH CHECK (asked_by = (SELECT at_person()) AND tenant_id = (SELECT at_tenant())
        AND ((SELECT at_roles()) && '{system}'::text[]
            OR (engineer_id = (SELECT at_person()) AND (SELECT at_roles()) && '{engineer}'::text[])));

-- A case counts as confirmed by an answer to this very question, a fresh one by which no other request was confirmed. An
-- extension goes on by what was confirmed for the window that it extends.
CREATE FUNCTION use_case_check() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM requests r WHERE r.id = NEW.extends AND r.case_check = 'confirmed'
        AND r.case_ref = NEW.case_ref AND r.case_system IS NOT DISTINCT FROM NEW.case_system) THEN
        RETURN NULL;
    END IF;
    UPDATE case_checks SET request_id = NEW.id WHERE id = (SELECT c.id FROM case_checks c
        WHERE c.asked_by = NEW.submitted_by AND c.asked_at > clock_timestamp() - interval '30 seconds'
            AND c.tenant_id = NEW.tenant_id AND c.engineer_id = NEW.requester_id AND c.case_ref = NEW.case_ref
            AND c.case_system = coalesce(NEW.case_system, c.case_system) AND c.is_open AND c.is_assigned
            AND c.request_id IS NULL
        LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no ticket system has confirmed the case of request %', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER only_confirmed_by_an_answer AFTER INSERT ON requests FOR EACH ROW
    WHEN (NEW.case_check = 'confirmed') EXECUTE FUNCTION use_case_check();
CREATE TRIGGER answered_once BEFORE UPDATE ON case_checks FOR EACH ROW
    WHEN (OLD.request_id IS NOT NULL OR (OLD.answered_at IS NOT NULL
        AND to_jsonb(NEW) - 'request_id' <> to_jsonb(OLD) - 'request_id'))
    EXECUTE FUNCTION refuse('case check %s is answered once, and confirms one request');

REVOKE ALL ON FUNCTION use_case_check FROM PUBLIC;
-- The API asks, and can neither answer nor say when it has asked; the notifications worker answers; the worker forgets.
GRANT SELECT, INSERT (id, tenant_id, engineer_id, asked_by, case_system, case_ref) ON case_checks TO lockbox_api;
GRANT SELECT ON case_checks TO lockbox_notifications;
GRANT UPDATE (answered_at, is_open, is_assigned, failure) ON case_checks TO lockbox_notifications;
GRANT SELECT (id, asked_at), DELETE ON case_checks TO lockbox_worker;


-- Ordered stages, context and levels

ALTER TABLE requests
    ADD COLUMN level varchar(16) CONSTRAINT ck_requests_level CHECK (level IN ('read', 'change', 'export', 'admin')),
    ADD COLUMN context jsonb CONSTRAINT ck_requests_context CHECK (jsonb_typeof(context) = 'object');
ALTER TABLE decisions ADD COLUMN knows_context boolean NOT NULL DEFAULT false;

CREATE FUNCTION refuse_unknown_context() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM requests r WHERE r.id = NEW.request_id AND r.context IS NOT NULL) THEN
        RAISE EXCEPTION 'request % has a context, of which the code that decides does not know', NEW.request_id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_with_its_context BEFORE INSERT ON decisions FOR EACH ROW
    WHEN (NEW.decision <> 'deny' AND NOT NEW.knows_context)
    EXECUTE FUNCTION refuse_unknown_context();
REVOKE ALL ON FUNCTION refuse_unknown_context() FROM PUBLIC;


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
        <> to_jsonb(OLD) - '{used,revoked_at,revoked_by,ended_at,mac}'::text[] AND NOT is_owner_command('erase'))
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

ALTER TABLE requests
    ADD COLUMN severity varchar(24) CONSTRAINT ck_requests_severity CHECK (severity IN ('S1', 'S2', 'S3', 'S4')),
    ADD COLUMN employing_entity varchar(200),
    ADD COLUMN office_country varchar(2)
        CONSTRAINT ck_requests_office_country CHECK (office_country ~ '^[A-Z]{2}$'),
    ADD COLUMN physical_country varchar(2)
        CONSTRAINT ck_requests_physical_country CHECK (physical_country ~ '^[A-Z]{2}$'),
    ADD COLUMN directory_as_of timestamptz,
    ADD COLUMN sign_in varchar(24) CONSTRAINT ck_requests_sign_in
        CHECK (sign_in IN ('session', 'provider_token', 'token', 'device_login', 'system')),
    ADD COLUMN sign_in_means varchar(24) CONSTRAINT ck_requests_sign_in_means
        CHECK (sign_in_means IN ('token', 'sample', 'oidc', 'passkey', 'mail')),
    ADD COLUMN signed_in_at timestamptz;

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
CREATE FUNCTION at_directory() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.directory', true), '')::uuid $$;
REVOKE ALL ON FUNCTION at_directory FROM PUBLIC;
GRANT EXECUTE ON FUNCTION at_directory TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;

ALTER TABLE directory_records ENABLE ROW LEVEL SECURITY;
ALTER TABLE directory_records FORCE ROW LEVEL SECURITY;
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
CREATE TRIGGER never_older BEFORE UPDATE ON directory_records FOR EACH ROW
    WHEN (NEW.person_id <> OLD.person_id OR NEW.as_of < OLD.as_of)
    EXECUTE FUNCTION refuse('what the directory says of somebody only gets newer');
GRANT SELECT, INSERT ON directory_records TO lockbox_api;
GRANT UPDATE (employing_entity, office_country, physical_country, source, as_of, mac) ON directory_records TO lockbox_api;

CREATE FUNCTION marked_directory_records(people uuid[]) RETURNS SETOF directory_records
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT d.* FROM directory_records d WHERE d.person_id = ANY (people)
$$;
REVOKE ALL ON FUNCTION marked_directory_records FROM PUBLIC;
GRANT EXECUTE ON FUNCTION marked_directory_records TO lockbox_api;


-- Exclusions, retention and leaving

-- What the vendor says that Lockbox does not cover; versions are only added. `announced_to` is the last tenant, in the
-- order of ids, whose log tells of a version; null before the first, all ones after the last.
CREATE TABLE exclusions (
    version integer CONSTRAINT pk_exclusions PRIMARY KEY CONSTRAINT ck_exclusions_version CHECK (version >= 1),
    body varchar(20000) NOT NULL CONSTRAINT ck_exclusions_body CHECK (body <> ''),
    author_id uuid NOT NULL CONSTRAINT fk_exclusions_author_id REFERENCES people (id),
    created_at timestamptz NOT NULL,
    announced_to uuid
);

-- An admin of a tenant has acknowledged a version.
CREATE TABLE exclusion_acknowledgements (
    tenant_id uuid NOT NULL CONSTRAINT fk_exclusion_acknowledgements_tenant_id REFERENCES tenants (id),
    version integer NOT NULL CONSTRAINT fk_exclusion_acknowledgements_version REFERENCES exclusions (version),
    person_id uuid NOT NULL CONSTRAINT fk_exclusion_acknowledgements_person_id REFERENCES people (id),
    created_at timestamptz NOT NULL,
    CONSTRAINT pk_exclusion_acknowledgements PRIMARY KEY (tenant_id, version)
);

-- For how many days a tenant's log is kept, where its admins have said so; null is as long as the installation says.
CREATE TABLE retentions (
    tenant_id uuid CONSTRAINT pk_retentions PRIMARY KEY
        CONSTRAINT fk_retentions_tenant_id REFERENCES tenants (id),
    days integer CONSTRAINT ck_retentions_days CHECK (days BETWEEN 30 AND 36500)
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
    CONSTRAINT ck_legal_holds_released CHECK ((released_by IS NULL) = (released_at IS NULL))
);
CREATE UNIQUE INDEX uq_legal_holds_open ON legal_holds (tenant_id, side) WHERE released_at IS NULL;

-- A tenant that leaves: one of its admins has asked for it, or the owner began it alone. What the owner's command has
-- done is here, so that it goes on where it ended. `size` and `digest` are of the export.
CREATE TABLE offboardings (
    tenant_id uuid CONSTRAINT pk_offboardings PRIMARY KEY
        CONSTRAINT fk_offboardings_tenant_id REFERENCES tenants (id),
    asked_by uuid CONSTRAINT fk_offboardings_asked_by REFERENCES people (id),
    asked_at timestamptz NOT NULL,
    closed_at timestamptz,
    size bigint,
    digest varchar(64) CONSTRAINT ck_offboardings_digest CHECK (digest ~ '^[0-9a-f]{64}$'),
    erased_at timestamptz,
    CONSTRAINT ck_offboardings_exported CHECK ((size IS NULL) = (digest IS NULL)),
    CONSTRAINT ck_offboardings_erased CHECK (erased_at IS NULL OR (closed_at IS NOT NULL AND size IS NOT NULL))
);

-- A row of requests or decisions without what the owner may erase of it once the request is closed.
CREATE FUNCTION without_texts(of_row jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT of_row - '{justification,case_ref,case_url,duplicate_reason,resources,granted_resources,context,comment,signed_content,
        address,user_agent,employing_entity,office_country,physical_country}'::text[]
$$;

-- Whether `new` is `old` but for texts that are erased: gone, said to be erased, or named by their place alone.
CREATE FUNCTION only_erases(old jsonb, new jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT without_texts(new) = without_texts(old) AND NOT EXISTS (SELECT FROM jsonb_each(new) AS n (key, value)
        WHERE n.value <> old -> n.key AND NOT CASE jsonb_typeof(n.value)
            WHEN 'array' THEN NOT EXISTS (SELECT FROM jsonb_array_elements_text(n.value) AS one
                WHERE one !~ '^erased:[0-9]+$')
            ELSE n.value IN ('null', '"erased"', '"{}"') END)
$$;

-- While either side holds, nothing of the tenant is removed.
CREATE FUNCTION is_held(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM legal_holds h WHERE h.tenant_id = tenant AND h.released_at IS NULL)
$$;

-- When everybody with a role in a place signed in last, and how: for the tenant's own people, or for the vendor's
-- operators and auditors where there is no tenant.
CREATE FUNCTION last_sign_ins(of_tenant uuid) RETURNS TABLE (person_id uuid, at timestamptz, means text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT m.person_id, s.at, convert_from(s.body, 'UTF8')::jsonb ->> 'means'
    FROM (SELECT DISTINCT o.person_id FROM memberships o WHERE o.tenant_id IS NOT DISTINCT FROM of_tenant) m
    CROSS JOIN LATERAL (SELECT e.at, e.body FROM events e WHERE e.actor_id = m.person_id AND e.action = 'signed_in'
        ORDER BY e.at DESC LIMIT 1) s
    WHERE CASE WHEN of_tenant IS NULL THEN at_roles() && '{operator,vendor_auditor}'::text[]
        ELSE of_tenant = ANY (at_tenants()) END
$$;

ALTER TABLE exclusions ENABLE ROW LEVEL SECURITY;
ALTER TABLE exclusions FORCE ROW LEVEL SECURITY;
ALTER TABLE exclusion_acknowledgements ENABLE ROW LEVEL SECURITY;
ALTER TABLE exclusion_acknowledgements FORCE ROW LEVEL SECURITY;
ALTER TABLE retentions ENABLE ROW LEVEL SECURITY;
ALTER TABLE retentions FORCE ROW LEVEL SECURITY;
ALTER TABLE legal_holds ENABLE ROW LEVEL SECURITY;
ALTER TABLE legal_holds FORCE ROW LEVEL SECURITY;
ALTER TABLE offboardings ENABLE ROW LEVEL SECURITY;
ALTER TABLE offboardings FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON exclusions FOR ALL TO lockbox_worker USING (true);

-- Exclusions are the same for all. An operator says what they are, an admin acknowledges them for a tenant.
CREATE POLICY api_select ON exclusions FOR SELECT TO lockbox_api USING ((SELECT at_person()) IS NOT NULL);
CREATE POLICY api_insert ON exclusions FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_roles()) && '{operator}'::text[] AND author_id = (SELECT at_person())
        AND announced_to IS NULL);
CREATE POLICY api_select ON exclusion_acknowledgements FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[])
        OR (SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);
CREATE POLICY api_insert ON exclusion_acknowledgements FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[]) AND person_id = (SELECT at_person()));

-- Its admins say for how long a tenant's log is kept.
CREATE POLICY api_select ON retentions FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[])
        OR (SELECT at_roles()) && '{operator,vendor_auditor}'::text[]);
CREATE POLICY api_insert ON retentions FOR INSERT TO lockbox_api
    WITH CHECK (tenant_id = ANY ((SELECT at_administers())::uuid[]));
CREATE POLICY api_update ON retentions FOR UPDATE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[]));

-- Either side holds for itself: the customer's admins, and the vendor's operators.
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

CREATE TRIGGER append_only BEFORE UPDATE ON exclusions FOR EACH ROW
    WHEN (to_jsonb(NEW) - 'announced_to' <> to_jsonb(OLD) - 'announced_to')
    EXECUTE FUNCTION refuse('exclusions is append-only');
CREATE TRIGGER never_goes BEFORE DELETE ON exclusions FOR EACH ROW
    EXECUTE FUNCTION refuse('exclusions is append-only');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON exclusion_acknowledgements FOR EACH ROW
    EXECUTE FUNCTION refuse('exclusion_acknowledgements is append-only');
CREATE TRIGGER released_once BEFORE UPDATE ON legal_holds FOR EACH ROW
    WHEN (NOT is_owner_command('erase') AND (OLD.released_at IS NOT NULL OR to_jsonb(NEW)
        - '{released_by,released_at}'::text[] <> to_jsonb(OLD) - '{released_by,released_at}'::text[]))
    EXECUTE FUNCTION refuse('hold %s is released once, and nothing else of it changes');
CREATE TRIGGER never_goes BEFORE DELETE ON legal_holds FOR EACH ROW
    EXECUTE FUNCTION refuse('legal_holds is append-only');

CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE ON policies FOR EACH ROW
    WHEN (NEW.mac IS NULL OR NEW.mac IS NOT DISTINCT FROM OLD.mac
        OR to_jsonb(OLD) - '{mac,body}'::text[] <> to_jsonb(NEW) - '{mac,body}'::text[]
        OR (OLD.body <> NEW.body AND NOT is_owner_command('erase')))
    EXECUTE FUNCTION refuse('policies is append-only');
CREATE OR REPLACE TRIGGER never_the_last_admin AFTER UPDATE OR DELETE ON memberships FOR EACH ROW
    WHEN (OLD.role = 'tenant_admin' AND NOT is_owner_command('erase')) EXECUTE FUNCTION refuse_no_admin();
CREATE OR REPLACE TRIGGER one_way BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NOT (is_owner_command('erase') AND OLD.closed_at IS NOT NULL
        AND only_erases(to_jsonb(OLD), to_jsonb(NEW))))
    EXECUTE FUNCTION refuse_wrong_way();
CREATE OR REPLACE TRIGGER never_wider BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.opened_at IS NOT NULL AND (NEW.granted_resources IS DISTINCT FROM OLD.granted_resources
        OR NEW.granted_actions IS DISTINCT FROM OLD.granted_actions)
        AND NOT (is_owner_command('erase') AND OLD.closed_at IS NOT NULL))
    EXECUTE FUNCTION refuse('what request %s was opened for stays as it is');
DROP TRIGGER moves_are_founded ON requests;
CREATE CONSTRAINT TRIGGER moves_are_founded AFTER INSERT OR UPDATE ON requests DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (current_user <> 'lockbox_worker' AND NOT is_owner_command('erase'))
    EXECUTE FUNCTION refuse_unfounded();
CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE ON decisions FOR EACH ROW
    WHEN (NOT (is_owner_command('erase') AND only_erases(to_jsonb(OLD), to_jsonb(NEW))))
    EXECUTE FUNCTION refuse('decisions is append-only');
CREATE OR REPLACE TRIGGER never_goes BEFORE DELETE ON events FOR EACH ROW
    WHEN (NOT is_owner_command('retain') OR is_held(OLD.tenant_id)) EXECUTE FUNCTION refuse('events is append-only');
CREATE OR REPLACE TRIGGER never_revived BEFORE UPDATE ON endpoints FOR EACH ROW
    WHEN (OLD.removed_at IS NOT NULL AND NOT is_owner_command('erase'))
    EXECUTE FUNCTION refuse('endpoint %s was removed');

GRANT SELECT, INSERT ON exclusions, exclusion_acknowledgements, retentions, legal_holds, offboardings TO lockbox_api;
GRANT DELETE ON offboardings TO lockbox_api;
GRANT UPDATE (days) ON retentions TO lockbox_api;
GRANT UPDATE (released_by, released_at) ON legal_holds TO lockbox_api;
GRANT SELECT ON exclusions TO lockbox_worker;
GRANT UPDATE (announced_to) ON exclusions TO lockbox_worker;
REVOKE ALL ON FUNCTION without_texts, only_erases, is_held, last_sign_ins FROM PUBLIC;
GRANT EXECUTE ON FUNCTION without_texts, only_erases TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;
GRANT EXECUTE ON FUNCTION is_held, last_sign_ins TO lockbox_api;


-- Functions and triggers that several of these change

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
REVOKE ALL ON FUNCTION demands_passkeys(jsonb, requests) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION demands_passkeys(jsonb, requests)
    TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;

CREATE OR REPLACE FUNCTION refuse_unsigned() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM tenants t JOIN policies p ON p.tenant_id = t.id
            AND p.version IN (t.policy_version, NEW.policy_version)
        WHERE t.id = NEW.tenant_id
            AND demands_passkeys(p.body, NEW)) THEN
        RAISE EXCEPTION 'the policy demands signed approvals for request %', NEW.id
            USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END $$;

-- What the columns of a function's answer are is never replaced: it goes, and comes again with its rights.
-- What was opened without asking anybody is no decision of the customer's.
CREATE OR REPLACE FUNCTION was_denied(of_tenant uuid, of_service text, of_resources text[]) RETURNS boolean
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

DROP FUNCTION lock_earlier_request;
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
REVOKE ALL ON FUNCTION lock_earlier_request FROM PUBLIC;
GRANT EXECUTE ON FUNCTION lock_earlier_request TO lockbox_api;
DROP FUNCTION signed_decisions;
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
REVOKE ALL ON FUNCTION signed_decisions FROM PUBLIC;
GRANT EXECUTE ON FUNCTION signed_decisions TO lockbox_api, lockbox_connectors;

CREATE OR REPLACE FUNCTION reported_window(of_request uuid) RETURNS TABLE (
    id uuid, tenant_id uuid, requester_id uuid, service text, resources text[], actions text[],
    max_uses integer, opened_at timestamptz, deadline_at timestamptz, closed_at timestamptz
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.id, r.tenant_id, r.requester_id, r.service, coalesce(r.granted_resources, r.resources),
        coalesce(r.granted_actions, r.actions), r.max_uses, coalesce(r.opens_at, r.opened_at), r.deadline_at,
        r.closed_at
    FROM requests r WHERE r.id = of_request AND 'system' = ANY (at_roles())
$$;

CREATE OR REPLACE FUNCTION add_gate_counts(of_process uuid, of_batch bigint, answers jsonb, uses jsonb, refused jsonb,
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

CREATE OR REPLACE FUNCTION use_window(of_request uuid, by_call text) RETURNS TABLE (uses_left integer, is_new boolean, name text)
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

CREATE OR REPLACE FUNCTION operating_figures() RETURNS TABLE (name text, label text, value double precision)
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

CREATE OR REPLACE FUNCTION refuse_wrong_way() RETURNS trigger LANGUAGE plpgsql AS $$
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
    IF OLD.state = 'active' AND (NEW.deadline_at > OLD.deadline_at OR NEW.opened_at <> OLD.opened_at
        OR NEW.opens_at IS DISTINCT FROM OLD.opens_at) THEN
        RAISE EXCEPTION 'the window of request % may not grow', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.reminders NOT IN (0, OLD.reminders) OR (NEW.state = OLD.state AND NEW.reminders <> OLD.reminders)
        OR (NEW.state = OLD.state AND NEW.tiers_asked < OLD.tiers_asked) OR NEW.warned <> OLD.warned THEN
        RAISE EXCEPTION 'a move of request % reminds nobody', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
