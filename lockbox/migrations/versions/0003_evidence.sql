-- What revision 2 lacks of the schema, by noun. Processes of 0.2.0 run on it: see CONTRIBUTING.md, Migrations.
--
-- A function or a trigger that several nouns change stands in the last part, as it is after all of them.


-- Erased tenants

-- Whether all of a tenant was erased: then nothing of it changes any more.
CREATE FUNCTION is_erased(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM offboardings o WHERE o.tenant_id = tenant AND o.erased_at IS NOT NULL)
$$;
REVOKE ALL ON FUNCTION is_erased FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_erased TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors;
-- Nothing of a tenant that was erased changes: the owner may erase once more, and marks rows anew. Reads are on record
-- in its log, and the core worker of 0.2.0 tells each log what concerns all tenants.
CREATE FUNCTION refuse_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'nothing of a tenant that was erased changes, in %', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;
REVOKE ALL ON FUNCTION refuse_erased FROM PUBLIC;
DO $$
DECLARE
    held text;
BEGIN
    FOREACH held IN ARRAY '{policies,memberships,invitations,eligible_delegates,delegations,exclusion_acknowledgements,
        retentions,legal_holds,report_consents,observers,endpoints,pre_approvals,requests}'::text[] LOOP
        EXECUTE format('CREATE TRIGGER none_after_erasure BEFORE INSERT ON %I FOR EACH ROW
            WHEN (is_erased(NEW.tenant_id)) EXECUTE FUNCTION refuse_erased()', held);
    END LOOP;
    FOREACH held IN ARRAY '{invitations,delegations,retentions,legal_holds,report_consents,observers,endpoints,
        pre_approvals}'::text[] LOOP
        EXECUTE format('CREATE TRIGGER never_changed_after_erasure BEFORE UPDATE ON %I FOR EACH ROW
            WHEN (is_erased(OLD.tenant_id) AND NOT is_owner_command(''erase'')
                AND to_jsonb(NEW) - ''mac'' <> to_jsonb(OLD) - ''mac'') EXECUTE FUNCTION refuse_erased()', held);
    END LOOP;
END $$;
CREATE TRIGGER never_moved_to_an_erased_tenant BEFORE UPDATE ON memberships FOR EACH ROW
    WHEN (NEW.tenant_id IS DISTINCT FROM OLD.tenant_id AND is_erased(NEW.tenant_id))
    EXECUTE FUNCTION refuse_erased();
CREATE TRIGGER never_changed_after_erasure BEFORE UPDATE ON tenants FOR EACH ROW
    WHEN (is_erased(OLD.id) AND NOT is_owner_command('erase')
        AND to_jsonb(NEW) - '{mac,revision}'::text[] <> to_jsonb(OLD) - '{mac,revision}'::text[])
    EXECUTE FUNCTION refuse_erased();
CREATE TRIGGER erased_for_good BEFORE UPDATE OR DELETE ON offboardings FOR EACH ROW
    WHEN (OLD.erased_at IS NOT NULL) EXECUTE FUNCTION refuse_erased();
CREATE TRIGGER none_after_erasure BEFORE INSERT ON events FOR EACH ROW
    WHEN (NEW.seq IS NULL AND NOT NEW.internal AND current_user IN ('lockbox_api', 'lockbox_notifications',
        'lockbox_connectors') AND NEW.action NOT IN ('audit_log_read', 'audit_log_exported')
        AND is_erased(NEW.tenant_id))
    EXECUTE FUNCTION refuse_erased();
-- SIGN-INS

ALTER TABLE sign_ins ADD COLUMN mac bytea;

-- Webhook calls

-- A later call waits for a bounded time from the first failure of the one before it.
ALTER TABLE notifications ADD COLUMN failed_at timestamptz;
GRANT UPDATE (failed_at) ON notifications TO lockbox_notifications;

-- Gate definitions

-- What each gate's part of the catalogue says, as the API has recorded it: a revision for each change. `used_at` is when
-- a process last had it, to five minutes; `only_for` are the slugs of the tenants for whom calls can be, null for all.
-- `announced_to` is as in `enforcement_switches`.
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

ALTER TABLE gate_definitions ENABLE ROW LEVEL SECURITY;
ALTER TABLE gate_definitions FORCE ROW LEVEL SECURITY;
-- What gates mean is recorded by the gate; a customer reads of the gates whose calls can be theirs.
CREATE POLICY api_select ON gate_definitions FOR SELECT TO lockbox_api
    USING (cardinality((SELECT at_roles())) > 0 OR ((SELECT at_person()) IS NOT NULL AND (only_for IS NULL
        OR EXISTS (SELECT FROM tenants t WHERE t.slug = ANY (only_for) AND t.id = ANY ((SELECT at_tenants())::uuid[])))));
CREATE POLICY api_insert ON gate_definitions FOR INSERT TO lockbox_api
    WITH CHECK ((SELECT at_person()) = '00000000-0000-0000-0000-000000000000' AND (SELECT at_roles()) && '{system}'::text[]);
CREATE POLICY api_update ON gate_definitions FOR UPDATE TO lockbox_api
    USING ((SELECT at_person()) = '00000000-0000-0000-0000-000000000000' AND (SELECT at_roles()) && '{system}'::text[]);
CREATE POLICY worker ON gate_definitions FOR ALL TO lockbox_worker USING (true);

-- That a definition was in use is only ever found out now, and what it says stays on record.
CREATE TRIGGER never_rewritten BEFORE UPDATE ON gate_definitions FOR EACH ROW
    WHEN (NEW.id <> OLD.id OR NEW.service <> OLD.service OR NEW.revision <> OLD.revision OR NEW.body <> OLD.body
        OR NEW.digest <> OLD.digest OR NEW.only_for IS DISTINCT FROM OLD.only_for OR NEW.recorded_at <> OLD.recorded_at
        OR NEW.used_at < OLD.used_at OR NEW.used_at > clock_timestamp() + interval '1 minute')
    EXECUTE FUNCTION refuse('what gate %s meant stays on record');
CREATE TRIGGER never_goes BEFORE DELETE ON gate_definitions FOR EACH ROW
    EXECUTE FUNCTION refuse('what gate %s meant stays on record');

-- When a definition was recorded says Postgres, and how far it was told the worker.
GRANT SELECT ON gate_definitions TO lockbox_api;
GRANT INSERT (id, service, revision, digest, body, only_for) ON gate_definitions TO lockbox_api;
GRANT UPDATE (used_at) ON gate_definitions TO lockbox_api;
GRANT SELECT, UPDATE (announced_to) ON gate_definitions TO lockbox_worker;


-- When gates were asked

-- When the gate of each service was last asked with a gateway's or a guard's token: to the minute within two hours, to
-- the hour within a month. A member of a tenant may know that, and no more of what is counted.
CREATE FUNCTION gates_last_asked() RETURNS TABLE (service text, at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT g.service, max(g.at) FROM gate_answers g WHERE g.span <> 'all'
        AND g.gateway_id <> '00000000-0000-0000-0000-000000000000' GROUP BY g.service
$$;

REVOKE ALL ON FUNCTION gates_last_asked FROM PUBLIC;
GRANT EXECUTE ON FUNCTION gates_last_asked TO lockbox_api;
-- Sealing

CREATE TABLE turns (
    name varchar(24) CONSTRAINT pk_turns PRIMARY KEY
);
INSERT INTO turns (name) VALUES ('seal'), ('reconcile'), ('alarm');
ALTER TABLE turns ENABLE ROW LEVEL SECURITY;
ALTER TABLE turns FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON turns FOR ALL TO lockbox_worker USING (true);
GRANT SELECT, UPDATE (name) ON turns TO lockbox_worker;
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON turns FOR EACH ROW
    EXECUTE FUNCTION refuse('turns is only locked');

-- The sealer takes what waits, but for the logs that it holds back: two at once share the rows. It may delete none.
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
REVOKE ALL ON FUNCTION take_unsealed, forget_sealed FROM PUBLIC;
GRANT EXECUTE ON FUNCTION take_unsealed, forget_sealed TO lockbox_worker;

-- What waits is deleted once it is sealed. Core workers of 0.2.0 delete first and seal then; others ask forget_sealed.
CREATE FUNCTION refuse_hiding() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM seals s WHERE s.event_id = OLD.event_id
            AND s.number < (SELECT l.size FROM logs l WHERE l.id = s.log_id)
            AND s.log_id = (SELECT e.log_id FROM events e WHERE e.id = OLD.event_id)) THEN
        RAISE EXCEPTION 'event % is not sealed yet', OLD.event_id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION refuse_hiding FROM PUBLIC;
CREATE CONSTRAINT TRIGGER only_once_sealed AFTER DELETE ON unsealed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_worker') EXECUTE FUNCTION refuse_hiding();

-- The rules for rows bind the columns; what is sealed is the body. Only the owner removes what is old. A body writes each
-- value in one way, and each name once: of another, two readers could read two things.
CREATE OR REPLACE FUNCTION refuse_contradicting() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    written CONSTANT text := 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"';
BEGIN
    IF EXISTS (
        SELECT FROM fresh e, LATERAL (SELECT convert_from(e.body, 'UTF8') AS said) t,
            LATERAL jsonb_to_record(CAST(t.said AS jsonb)) AS b (id jsonb, log jsonb, tenant_id jsonb,
                request_id jsonb, seq jsonb, at jsonb, action jsonb, actor_id jsonb, actor_role jsonb,
                from_state jsonb, to_state jsonb, deadline_at jsonb)
        WHERE (e.action = 'audit_events_removed' AND current_user <> 'lockbox_owner')
            OR NOT t.said IS JSON OBJECT WITH UNIQUE KEYS
            OR (b.id, b.log, b.tenant_id, b.request_id, b.seq, b.at, b.action, b.actor_id, b.actor_role, b.from_state,
                b.to_state, b.deadline_at)
            IS DISTINCT FROM (to_jsonb(e.id), to_jsonb(e.log_id), to_jsonb(e.tenant_id), to_jsonb(e.request_id),
                to_jsonb(e.seq), to_jsonb(to_char(e.at AT TIME ZONE 'UTC', written)), to_jsonb(e.action),
                to_jsonb(e.actor_id), to_jsonb(e.actor_role), to_jsonb(e.from_state), to_jsonb(e.to_state),
                to_jsonb(to_char(e.deadline_at AT TIME ZONE 'UTC', written)))
    ) THEN
        RAISE EXCEPTION 'the body of an event says something else than its row'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
DROP TRIGGER true_to_its_row ON events;
CREATE TRIGGER true_to_its_row AFTER INSERT ON events REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    WHEN (current_user IN ('lockbox_owner', 'lockbox_api', 'lockbox_worker', 'lockbox_notifications',
        'lockbox_connectors'))
    EXECUTE FUNCTION refuse_contradicting();
CREATE TRIGGER clocks_own BEFORE INSERT ON events FOR EACH ROW
    WHEN (current_user = 'lockbox_worker' AND NEW.action NOT IN ('time_out', 'expire', 'remind', 'escalate', 'begin',
        'hold_back', 'warn', 'unreached', 'after_review_reminder', 'after_review_overdue', 'first_used', 'last_used',
        'gate_report_began', 'gate_report_asked', 'gate_enforced', 'gate_defined', 'gate_redefined', 'exclusions_changed',
        'consent_ended', 'pre_approval_ended', 'decision_refused', 'sign_in_refused', 'nobody_notified', 'review_unreached',
        'invariant_broken', 'unapproved_access_stated'))
    EXECUTE FUNCTION refuse('event %s is none that the clock makes: see clocks_own in triggers.sql');


-- Holds, retention and off-boarding are said

-- How long a tenant's log is kept, what holds it and that the tenant leaves stands in that log, by the same transaction.
CREATE FUNCTION refuse_unsaid() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    changed CONSTANT jsonb := coalesce(to_jsonb(NEW), to_jsonb(OLD));
BEGIN
    IF NOT EXISTS (SELECT FROM events e WHERE e.log_id = (changed ->> 'tenant_id')::uuid
            AND e.id >= (SELECT uuidv7(-interval '15 minutes'))
            AND e.xid = CAST(pg_current_xact_id()::text AS bigint) AND e.action = TG_ARGV[0]
            AND e.actor_id = coalesce((changed ->> TG_ARGV[1])::uuid, at_person())
            AND convert_from(e.body, 'UTF8')::jsonb ->> 'side'
                = coalesce(changed ->> 'side', convert_from(e.body, 'UTF8')::jsonb ->> 'side')) THEN
        RAISE EXCEPTION 'a change of % has no event %', TG_TABLE_NAME, TG_ARGV[0]
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION refuse_unsaid FROM PUBLIC;
CREATE CONSTRAINT TRIGGER set_is_said AFTER INSERT ON legal_holds DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_api') EXECUTE FUNCTION refuse_unsaid('hold_set', 'set_by');
CREATE CONSTRAINT TRIGGER release_is_said AFTER UPDATE ON legal_holds DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_api') EXECUTE FUNCTION refuse_unsaid('hold_released', 'released_by');
CREATE CONSTRAINT TRIGGER is_said AFTER INSERT OR UPDATE ON retentions DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_api') EXECUTE FUNCTION refuse_unsaid('retention_changed', '');
CREATE CONSTRAINT TRIGGER asked_is_said AFTER INSERT ON offboardings DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_api') EXECUTE FUNCTION refuse_unsaid('offboarding_asked', 'asked_by');
CREATE CONSTRAINT TRIGGER withdrawn_is_said AFTER DELETE ON offboardings DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_api') EXECUTE FUNCTION refuse_unsaid('offboarding_withdrawn', '');


-- Emergency stops

-- While an emergency stop is open, nobody opens a window by break-glass there: the event adds the row, an admin ends it.
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
ALTER TABLE emergency_stops ENABLE ROW LEVEL SECURITY;
ALTER TABLE emergency_stops FORCE ROW LEVEL SECURITY;
-- The tenant's members see its emergency stops; an admin ends one.
CREATE POLICY api_select ON emergency_stops FOR SELECT TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_tenants())::uuid[]));
CREATE POLICY api_update ON emergency_stops FOR UPDATE TO lockbox_api
    USING (tenant_id = ANY ((SELECT at_administers())::uuid[]))
    WITH CHECK (ended_by = (SELECT at_person()));
-- Since when an emergency stop bars break-glass at a tenant; null where none does.
CREATE FUNCTION stopped_since(of_tenant uuid) RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.stopped_at FROM emergency_stops s WHERE s.tenant_id = of_tenant AND s.ended_at IS NULL
$$;
CREATE FUNCTION bar_break_glass() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO emergency_stops (id, tenant_id, stopped_by, stopped_at)
    VALUES (NEW.id, NEW.tenant_id, NEW.actor_id, NEW.at)
    ON CONFLICT (tenant_id) WHERE ended_at IS NULL DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER bars_break_glass AFTER INSERT ON events FOR EACH ROW
    WHEN (NEW.action = 'emergency_stop' AND NEW.tenant_id IS NOT NULL) EXECUTE FUNCTION bar_break_glass();
-- A stop is ended once, by whom the event names that says so in the same transaction: one of an earlier end says nothing.
CREATE FUNCTION refuse_unrecorded_end() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM events e WHERE e.id = NEW.ended_event AND e.log_id = NEW.tenant_id
        AND e.xid = CAST(pg_current_xact_id()::text AS bigint) AND e.action = 'emergency_stop_ended'
        AND e.actor_id = NEW.ended_by) THEN
        RAISE EXCEPTION 'the end of emergency stop % has no event', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ends_are_recorded AFTER UPDATE ON emergency_stops DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse_unrecorded_end();
CREATE TRIGGER ended_once BEFORE UPDATE ON emergency_stops FOR EACH ROW
    WHEN (OLD.ended_at IS NOT NULL OR to_jsonb(NEW) - '{ended_by,ended_at,ended_event}'::text[]
        <> to_jsonb(OLD) - '{ended_by,ended_at,ended_event}'::text[])
    EXECUTE FUNCTION refuse('emergency stop %s is ended once, and nothing else of it changes');
CREATE TRIGGER never_goes BEFORE DELETE ON emergency_stops FOR EACH ROW
    EXECUTE FUNCTION refuse('emergency_stops is append-only');
REVOKE ALL ON FUNCTION stopped_since, bar_break_glass, refuse_unrecorded_end FROM PUBLIC;
GRANT SELECT, UPDATE (ended_by, ended_at, ended_event) ON emergency_stops TO lockbox_api;
GRANT EXECUTE ON FUNCTION stopped_since TO lockbox_api;
CREATE OR REPLACE FUNCTION refuse_break_glass() RETURNS trigger
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
        OR stopped_since(NEW.tenant_id) IS NOT NULL
        OR (coalesce(policy ->> 'overdue_finding', 'block') = 'block' AND EXISTS (SELECT FROM after_reviews a
            WHERE a.tenant_id = NEW.tenant_id AND a.finding IS NULL AND a.due_at <= NEW.opened_at))
        OR (SELECT count(*) FROM after_reviews a WHERE a.tenant_id = NEW.tenant_id
            AND a.opened_at > NEW.opened_at - interval '30 days')
            > coalesce(CAST(policy ->> 'break_glass_monthly' AS integer), 2) THEN
        RAISE EXCEPTION 'the customer does not allow break-glass for request %', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
ALTER TABLE retentions ADD COLUMN set_at timestamptz;
GRANT UPDATE (set_at) ON retentions TO lockbox_api;
CREATE POLICY worker ON retentions FOR SELECT TO lockbox_worker USING (true);
CREATE POLICY worker ON legal_holds FOR SELECT TO lockbox_worker USING (true);
CREATE POLICY worker ON offboardings FOR SELECT TO lockbox_worker USING (true);
GRANT SELECT (tenant_id, days, set_at) ON retentions TO lockbox_worker;
GRANT SELECT (tenant_id, set_by, set_at, released_by, released_at) ON legal_holds TO lockbox_worker;
GRANT SELECT (tenant_id, asked_by, asked_at, erased_at) ON offboardings TO lockbox_worker;


-- Marks of a tenant's data

-- What is there has the empty mark, so that it counts as before.
ALTER TABLE retentions ADD COLUMN mac bytea DEFAULT '';
ALTER TABLE retentions ALTER COLUMN mac DROP DEFAULT;
ALTER TABLE legal_holds ADD COLUMN mac bytea DEFAULT '';
ALTER TABLE legal_holds ALTER COLUMN mac DROP DEFAULT;
ALTER TABLE offboardings ADD COLUMN mac bytea DEFAULT '';
ALTER TABLE offboardings ALTER COLUMN mac DROP DEFAULT;
GRANT UPDATE (mac) ON retentions, legal_holds TO lockbox_api;
-- The empty mark is of rows from before they had marks: they count. No login writes it, and the first change ends it.
CREATE FUNCTION unmark() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.mac = NULL;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION unmark FROM PUBLIC;
CREATE TRIGGER only_from_before BEFORE INSERT OR UPDATE ON retentions FOR EACH ROW
    WHEN (NEW.mac = '' AND current_user = 'lockbox_api') EXECUTE FUNCTION unmark();
CREATE TRIGGER only_from_before BEFORE INSERT OR UPDATE ON legal_holds FOR EACH ROW
    WHEN (NEW.mac = '' AND current_user = 'lockbox_api') EXECUTE FUNCTION unmark();
CREATE TRIGGER only_from_before BEFORE INSERT OR UPDATE ON offboardings FOR EACH ROW
    WHEN (NEW.mac = '' AND current_user = 'lockbox_api') EXECUTE FUNCTION unmark();
-- A hold that was released stays so; an end without a valid mark is said again. Its reason goes with a tenant that has
-- left.
CREATE OR REPLACE TRIGGER released_once BEFORE UPDATE ON legal_holds FOR EACH ROW
    WHEN (NOT is_owner_command('erase') AND ((OLD.released_at IS NOT NULL
            AND (NEW.released_at IS NULL OR NEW.released_at < OLD.released_at))
        OR to_jsonb(NEW) - '{released_by,released_at,mac}'::text[]
            <> to_jsonb(OLD) - '{released_by,released_at,mac}'::text[]))
    EXECUTE FUNCTION refuse('hold %s stays released, and nothing else of it changes');
DO $$
DECLARE
    marked text;
BEGIN
    FOREACH marked IN ARRAY '{retentions,offboardings}'::text[] LOOP
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
REVOKE ALL ON FUNCTION marked_retentions, marked_legal_holds, marked_offboardings FROM PUBLIC;
GRANT EXECUTE ON FUNCTION marked_retentions, marked_legal_holds, marked_offboardings TO lockbox_api;
-- Unapproved access

-- For which month the log was told what can open without its tenant's approval.
ALTER TABLE logs ADD COLUMN stated_for date;
CREATE POLICY worker ON report_consents FOR SELECT TO lockbox_worker USING (true);
CREATE POLICY worker ON emergency_stops FOR SELECT TO lockbox_worker USING (true);
GRANT UPDATE (stated_for) ON logs TO lockbox_worker;
GRANT SELECT (enforcement_id, tenant_id, revision, created_at) ON report_consents TO lockbox_worker;
GRANT SELECT (tenant_id, stopped_at, ended_at) ON emergency_stops TO lockbox_worker;


-- Unapproved access

CREATE INDEX ix_requests_unapproved ON requests (tenant_id, opened_at)
    WHERE opened_at IS NOT NULL AND (break_glass OR pre_approval_id IS NOT NULL OR mode <> 'enforce');
CREATE INDEX ix_decisions_delegated ON decisions (decided_at)
    WHERE decision = 'approve' AND cardinality(principals) > 0;

-- Sign-in attempts

-- Tries at a code are counted for good, and of a network and an account for ten minutes by Postgres' own clock.
CREATE TRIGGER tries_only_grow BEFORE UPDATE ON sign_ins FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND (NEW.tries < OLD.tries
        OR (OLD.used_at IS NOT NULL AND NEW.used_at IS DISTINCT FROM OLD.used_at)))
    EXECUTE FUNCTION refuse('sign-in %s has no more tries than it had');
CREATE TRIGGER never_negative BEFORE INSERT OR UPDATE ON sign_in_counts FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND NEW.count < 1)
    EXECUTE FUNCTION refuse('attempts to sign in are counted from 1 on');
CREATE TRIGGER only_grows BEFORE UPDATE ON sign_in_counts FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND (NEW.key <> OLD.key OR CASE WHEN NEW.since = OLD.since
        THEN NEW.count < OLD.count
        ELSE NEW.since < OLD.since OR NEW.since > clock_timestamp() + interval '1 minute'
            OR OLD.since > clock_timestamp() - interval '10 minutes' END))
    EXECUTE FUNCTION refuse('attempts to sign in are counted for ten minutes');
CREATE TRIGGER only_once_outdated BEFORE DELETE ON sign_in_counts FOR EACH ROW
    WHEN (current_user IN ('lockbox_api', 'lockbox_worker') AND OLD.since > clock_timestamp() - interval '10 minutes')
    EXECUTE FUNCTION refuse('attempts to sign in are counted for ten minutes');
REVOKE DELETE ON sign_in_counts FROM lockbox_api;
DROP POLICY api_delete ON sign_in_counts;
ALTER POLICY api_insert ON sign_ins WITH CHECK (proven_at IS NULL AND used_at IS NULL AND tries = 0);


-- News that is told to all

-- How far news was told moves on with an event in each log that it passes, by the same transaction: of this very row,
-- and with a mail to each admin and approver, but for the first definition of a gate. Whom a later row concerns alone,
-- or who came within a minute, need not be told.
CREATE FUNCTION refuse_untold() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
    -- Of those who were there before it, and of those who came later.
    action text;
    later_action text;
    said jsonb;
    written_at timestamptz;
    only_for text[];
    goes_on boolean := false;
BEGIN
    IF TG_TABLE_NAME = 'exclusions' THEN
        action := 'exclusions_changed';
        said := jsonb_build_object('version', NEW.version,
            'sha256', encode(sha256(convert_to(NEW.body, 'UTF8')), 'hex'));
        written_at := NEW.created_at;
    ELSIF TG_TABLE_NAME = 'gate_definitions' THEN
        later_action := 'gate_defined';
        action := CASE WHEN NEW.revision > 1 THEN 'gate_redefined' ELSE later_action END;
        said := jsonb_build_object('service', NEW.service, 'sha256', encode(NEW.digest, 'hex'));
        written_at := NEW.recorded_at;
        only_for := NEW.only_for;
        goes_on := NOT EXISTS (SELECT FROM gate_definitions d
            WHERE d.service = NEW.service AND d.revision > NEW.revision);
    ELSE
        SELECT jsonb_build_object('service', e.service), NEW.wanted = 'report' AND NEW.revision = e.revision
        INTO said, goes_on FROM enforcements e WHERE e.id = NEW.enforcement_id;
        action := CASE WHEN NEW.wanted = 'enforce' THEN 'gate_enforced' WHEN NEW.was_enforced THEN 'gate_report_asked'
            ELSE 'gate_report_began' END;
        written_at := NEW.switched_at;
    END IF;
    IF NEW.announced_to IS NULL OR NEW.announced_to < OLD.announced_to
        OR EXISTS (
            SELECT FROM (SELECT nobody AS id, action AS heard WHERE OLD.announced_to IS NULL
                    AND TG_TABLE_NAME <> 'exclusions'
                UNION ALL
                SELECT t.id, CASE WHEN t.created_at <= written_at THEN action ELSE coalesce(later_action, action) END
                FROM tenants t WHERE t.id > coalesce(OLD.announced_to, nobody) AND t.id <= NEW.announced_to
                    AND t.created_at < clock_timestamp() - interval '1 minute'
                    AND (t.created_at <= written_at OR goes_on)
                    AND (only_for IS NULL OR t.slug = ANY (only_for)) AND NOT is_erased(t.id)) passed
            WHERE NOT EXISTS (SELECT FROM events e WHERE e.log_id = passed.id
                AND e.id >= (SELECT uuidv7(-interval '15 minutes'))
                AND e.xid = CAST(pg_current_xact_id()::text AS bigint) AND e.action = passed.heard
                AND convert_from(e.body, 'UTF8')::jsonb @> said
                AND (e.action = 'gate_defined' OR NOT EXISTS (SELECT FROM memberships m JOIN people p ON p.id = m.person_id
                    WHERE m.tenant_id = passed.id AND m.role IN ('tenant_admin', 'approver') AND p.disabled_at IS NULL
                        AND NOT EXISTS (SELECT FROM notifications n WHERE n.event_id = e.id
                            AND n.person_id = m.person_id AND n.template = e.action AND n.closed_at IS NULL))))) THEN
        RAISE EXCEPTION 'a row of % was not told so far', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION refuse_untold FROM PUBLIC;
DO $$
DECLARE
    told text;
BEGIN
    FOREACH told IN ARRAY '{exclusions,gate_definitions,enforcement_switches}'::text[] LOOP
        EXECUTE format('CREATE CONSTRAINT TRIGGER told_is_said AFTER UPDATE ON %I DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW WHEN (current_user = ''lockbox_worker''
                AND NEW.announced_to IS DISTINCT FROM OLD.announced_to) EXECUTE FUNCTION refuse_untold()', told);
    END LOOP;
END $$;
CREATE TRIGGER told_to_nobody_yet BEFORE INSERT ON enforcement_switches FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND NEW.announced_to IS NOT NULL)
    EXECUTE FUNCTION refuse('switch %s was told to nobody yet');

-- Likewise for which month a log was told what can open without its tenant's approval.
CREATE FUNCTION refuse_unstated() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM events e WHERE e.log_id = NEW.id AND e.id >= (SELECT uuidv7(-interval '15 minutes'))
            AND e.xid = CAST(pg_current_xact_id()::text AS bigint) AND e.action = 'unapproved_access_stated'
            AND convert_from(e.body, 'UTF8')::jsonb ->> 'month' = to_char(NEW.stated_for, 'YYYY-MM')) THEN
        RAISE EXCEPTION 'log % was not told so for that month', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION refuse_unstated FROM PUBLIC;
CREATE CONSTRAINT TRIGGER stated_is_said AFTER UPDATE ON logs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_worker' AND NEW.stated_for IS DISTINCT FROM OLD.stated_for)
    EXECUTE FUNCTION refuse_unstated();
-- When a log could last not be told so.
ALTER TABLE logs ADD COLUMN unstated_at timestamptz;
GRANT UPDATE (unstated_at) ON logs TO lockbox_worker;
