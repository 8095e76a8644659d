-- What the database itself refuses or adds, by table: the triggers, and the functions that only triggers call.
--
-- A rule that binds every role must not depend on what one caller may see. So a function that reads other rows is
-- SECURITY DEFINER. `current_user` is the database login that acts: the API's or a worker's.


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

-- The owner may give a version a new MAC without changing its content, or erase the content once the tenant has left.
CREATE TRIGGER append_only BEFORE UPDATE ON policies FOR EACH ROW
    WHEN (NEW.mac IS NULL OR NEW.mac IS NOT DISTINCT FROM OLD.mac
        OR to_jsonb(OLD) - '{mac,body}'::text[] <> to_jsonb(NEW) - '{mac,body}'::text[]
        OR (OLD.body <> NEW.body AND NOT is_owner_command('erase')))
    EXECUTE FUNCTION refuse('policies is append-only');
CREATE TRIGGER no_removal BEFORE DELETE ON policies FOR EACH ROW EXECUTE FUNCTION refuse('policies is append-only');
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON policies FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('policies is append-only');

-- Stated exclusions and acknowledgements stay as they are. Only `announced_to` changes.
CREATE TRIGGER append_only BEFORE UPDATE ON exclusions FOR EACH ROW
    WHEN (to_jsonb(NEW) - 'announced_to' <> to_jsonb(OLD) - 'announced_to')
    EXECUTE FUNCTION refuse('exclusions is append-only');
CREATE TRIGGER never_goes BEFORE DELETE ON exclusions FOR EACH ROW
    EXECUTE FUNCTION refuse('exclusions is append-only');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON exclusion_acknowledgements FOR EACH ROW
    EXECUTE FUNCTION refuse('exclusion_acknowledgements is append-only');

-- A released hold stays released. A release without a valid MAC may be repeated, with a later time. The reason of a
-- hold is erased once its tenant has left.
CREATE TRIGGER released_once BEFORE UPDATE ON legal_holds FOR EACH ROW
    WHEN (NOT is_owner_command('erase') AND ((OLD.released_at IS NOT NULL
            AND (NEW.released_at IS NULL OR NEW.released_at < OLD.released_at))
        OR to_jsonb(NEW) - '{released_by,released_at,mac}'::text[]
            <> to_jsonb(OLD) - '{released_by,released_at,mac}'::text[]))
    EXECUTE FUNCTION refuse('hold %s stays released, and nothing else of it changes');
CREATE TRIGGER never_goes BEFORE DELETE ON legal_holds FOR EACH ROW
    EXECUTE FUNCTION refuse('legal_holds is append-only');

-- An event of the same transaction states in the tenant's log how long the log is kept, what holds it, or that the
-- tenant leaves.
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

-- Rows from before these tables had MACs have the empty MAC, and count. No login writes it, and the first change ends
-- it.
CREATE FUNCTION unmark() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.mac = NULL;
    RETURN NEW;
END $$;
CREATE TRIGGER only_from_before BEFORE INSERT OR UPDATE ON retentions FOR EACH ROW
    WHEN (NEW.mac = '' AND current_user = 'lockbox_api') EXECUTE FUNCTION unmark();
CREATE TRIGGER only_from_before BEFORE INSERT OR UPDATE ON legal_holds FOR EACH ROW
    WHEN (NEW.mac = '' AND current_user = 'lockbox_api') EXECUTE FUNCTION unmark();
CREATE TRIGGER only_from_before BEFORE INSERT OR UPDATE ON offboardings FOR EACH ROW
    WHEN (NEW.mac = '' AND current_user = 'lockbox_api') EXECUTE FUNCTION unmark();


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

-- No one is on both sides: a person who signs in by an address takes it from people of the other side.
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

-- The last admin stays, unless no one else has ever joined the tenant.
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
    WHEN (OLD.role = 'tenant_admin' AND NOT is_owner_command('erase')) EXECUTE FUNCTION refuse_no_admin();

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

-- Attempts at a code are never counted down. Attempts of a network and an account count for ten minutes by Postgres'
-- own clock.
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

-- An older statement of the directory never replaces a newer one.
CREATE TRIGGER never_older BEFORE UPDATE ON directory_records FOR EACH ROW
    WHEN (NEW.person_id <> OLD.person_id OR NEW.as_of < OLD.as_of)
    EXECUTE FUNCTION refuse('what the directory says of somebody only gets newer');

-- A row that was removed or got a new MAC does not come back: its old MAC is remembered, and no login deletes it.
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
        enforcements,report_consents,pre_approvals,retentions,offboardings}'::text[] LOOP
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
-- `used_at` is never set back or into the future, and the content of a definition stays on record.
CREATE TRIGGER never_rewritten BEFORE UPDATE ON gate_definitions FOR EACH ROW
    WHEN (NEW.id <> OLD.id OR NEW.service <> OLD.service OR NEW.revision <> OLD.revision OR NEW.body <> OLD.body
        OR NEW.digest <> OLD.digest OR NEW.only_for IS DISTINCT FROM OLD.only_for OR NEW.recorded_at <> OLD.recorded_at
        OR NEW.used_at < OLD.used_at OR NEW.used_at > clock_timestamp() + interval '1 minute')
    EXECUTE FUNCTION refuse('what gate %s meant stays on record');
CREATE TRIGGER never_goes BEFORE DELETE ON gate_definitions FOR EACH ROW
    EXECUTE FUNCTION refuse('what gate %s meant stays on record');

-- `announced_to` only moves on with an event about this row, in the same transaction and in each log that it passes.
-- Each admin and approver gets a mail about the event, except about the first definition of a gate. Tenants that only
-- a later row concerns, and tenants that were added within the last minute, may be left out.
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

-- In the same way, `stated_for` only moves on with an event that states what can open without the tenant's approval.
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
CREATE CONSTRAINT TRIGGER stated_is_said AFTER UPDATE ON logs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_worker' AND NEW.stated_for IS DISTINCT FROM OLD.stated_for)
    EXECUTE FUNCTION refuse_unstated();


-- Requests

-- A request changes by one move at a time, from a state to a possible next state. Three changes are no moves. An
-- approver's question stops the clock, and the requester's answer restarts it, later by as long as it was stopped.
-- The notifications worker sets the clock forward if no one could be reached. The worker's clock reminds, escalates
-- and warns, and only ever counts upwards.
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
CREATE TRIGGER one_way BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NOT (is_owner_command('erase') AND OLD.closed_at IS NOT NULL
        AND only_erases(to_jsonb(OLD), to_jsonb(NEW))))
    EXECUTE FUNCTION refuse_wrong_way();
CREATE TRIGGER no_removal BEFORE DELETE ON requests FOR EACH ROW EXECUTE FUNCTION refuse('requests is append-only');

-- A request that follows another request is of the same engineer at the same tenant, and only one of them is open at
-- a time.
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

-- An extension begins at the end of an open window of the same engineer, and covers no more than that window.
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

-- A case counts as confirmed by a fresh answer to this very question that has confirmed no other request. For an
-- extension, the confirmation of the extended window is enough.
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

-- Who may open a request, and who may deny or endorse it.
CREATE TRIGGER only_its_approvers_open BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.state = 'pending' AND NEW.state = 'active'
        AND NOT at_decides(NEW.tenant_id))
    EXECUTE FUNCTION refuse('only an approver, with the last vote, opens request %s');
CREATE TRIGGER only_managers_open_alone BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.state = 'reviewing' AND NEW.state <> 'cancelled'
        AND NOT 'manager' = ANY (at_roles())
        AND NOT (NEW.state = 'denied' AND OLD.tenant_id = ANY (at_administers())))
    EXECUTE FUNCTION refuse('only a manager endorses request %s, or denies it but for an emergency stop');
-- A window that the vendor opens alone needs the tenant's mode at that moment, a consent that lasts as long, or a
-- pre-approval.
CREATE FUNCTION refuse_without_the_customer() RETURNS trigger
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
CREATE TRIGGER only_where_the_customer_lets BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.state = 'reviewing' AND NEW.state = 'active' AND NOT NEW.break_glass)
    EXECUTE FUNCTION refuse_without_the_customer();
-- The submitter says whether a request is for break-glass. An endorsement may drop this, and nothing adds it later.
CREATE TRIGGER never_break_glass_later BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.break_glass <> OLD.break_glass
        AND NOT (OLD.break_glass AND OLD.state = 'reviewing' AND NEW.state IN ('pending', 'active')))
    EXECUTE FUNCTION refuse('whether request %s is for break-glass was said when it was submitted');
-- Break-glass needs two people, and the customer's policy of today: it says for which service, for whom, for how long
-- and how often. A finding is due within a day. None may be overdue unless the policy allows this, and no emergency
-- stop may be open. Concurrent openings all count: each waits for the commit of the one before.
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
CREATE CONSTRAINT TRIGGER only_as_the_customer_allows AFTER UPDATE ON requests DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.break_glass AND NEW.state = 'active' AND OLD.state <> 'active')
    EXECUTE FUNCTION refuse_break_glass();
CREATE TRIGGER leaving_only_ends BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.requester_id = at_leaving()
        AND NEW.state NOT IN ('cancelled', 'revoked'))
    EXECUTE FUNCTION refuse('request %s of somebody who leaves can only be cancelled or revoked');
CREATE TRIGGER suspending_only_ends BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.tenant_id = at_suspending() AND NEW.state <> 'revoked')
    EXECUTE FUNCTION refuse('request %s of a suspended tenant can only be revoked by an operator');
CREATE TRIGGER closing_only_ends BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND at_closing() IS NOT NULL AND NEW.state NOT IN ('cancelled', 'revoked'))
    EXECUTE FUNCTION refuse('request %s of a case that is closed can only be cancelled or revoked');

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
        OR NEW.granted_actions IS DISTINCT FROM OLD.granted_actions)
        AND NOT (is_owner_command('erase') AND OLD.closed_at IS NOT NULL))
    EXECUTE FUNCTION refuse('what request %s was opened for stays as it is');
CREATE TRIGGER never_for_more_uses BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.max_uses IS NOT NULL AND (NEW.max_uses IS NULL OR NEW.max_uses > OLD.max_uses)
        OR OLD.opened_at IS NOT NULL AND NEW.max_uses IS DISTINCT FROM OLD.max_uses OR NEW.used < OLD.used)
    EXECUTE FUNCTION refuse('request %s is never for more uses');
CREATE TRIGGER never_by_another_pre_approval BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.pre_approval_id IS DISTINCT FROM OLD.pre_approval_id
        AND (OLD.state <> 'reviewing' OR NEW.state <> 'active'))
    EXECUTE FUNCTION refuse('what request %s was opened by stays on record');
CREATE TRIGGER never_unasked BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.asked_at IS NOT NULL AND NEW.asked_at IS DISTINCT FROM OLD.asked_at)
    EXECUTE FUNCTION refuse('who was asked about request %s was asked');

-- From here on, the row says how the request is judged. So before the request opens, the row must demand signed
-- approvals if the policy of the submission or of today does. If the policy gets stricter during an approval, the SQL
-- state of this error makes the approver try again, and then sign.
CREATE FUNCTION refuse_unsigned() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
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
CREATE TRIGGER only_signed_where_demanded BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.state = 'active' AND OLD.state <> 'active' AND NEW.mode = 'enforce' AND NEW.approve_means = 'attested')
    EXECUTE FUNCTION refuse_unsigned();
CREATE TRIGGER only_signed_where_demanded_at_once BEFORE INSERT ON requests FOR EACH ROW
    WHEN (NEW.state = 'active' AND NEW.approve_means = 'attested') EXECUTE FUNCTION refuse_unsigned();

-- No one approves a request whose parameters they were not shown.
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

-- No window is open without the decisions for it, and no move is made without its event. People's moves are checked
-- at the commit, in whatever order the rows were written. A worker writes each batch in one statement, which is
-- checked at once. Each row is looked up by index (OFFSET 0), because a join would read whole tables.
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
    FOR EACH ROW WHEN (current_user <> 'lockbox_worker' AND NOT is_owner_command('erase'))
    EXECUTE FUNCTION refuse_unfounded();
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

-- Where a person was, what they wrote and what they named can be erased. Their decision stays as it is.
CREATE TRIGGER append_only BEFORE UPDATE ON decisions FOR EACH ROW
    WHEN (NOT (is_owner_command('erase') AND only_erases(to_jsonb(OLD), to_jsonb(NEW))))
    EXECUTE FUNCTION refuse('decisions is append-only');
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON decisions FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('decisions is append-only');
CREATE TRIGGER never_goes BEFORE DELETE ON decisions FOR EACH ROW EXECUTE FUNCTION refuse('decisions is append-only');

-- What a pre-approval covers never changes. It is used one by one and revoked once, and its end is recorded.
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
-- The owner may give a vote a new MAC without changing its content.
CREATE TRIGGER append_only BEFORE UPDATE ON pre_approval_votes FOR EACH ROW
    WHEN (NEW.mac IS NULL OR NEW.mac IS NOT DISTINCT FROM OLD.mac OR to_jsonb(OLD) - 'mac' <> to_jsonb(NEW) - 'mac')
    EXECUTE FUNCTION refuse('pre_approval_votes is append-only');
CREATE TRIGGER append_only_whole BEFORE TRUNCATE ON pre_approval_votes FOR EACH STATEMENT
    EXECUTE FUNCTION refuse('pre_approval_votes is append-only');
CREATE TRIGGER never_goes BEFORE DELETE ON pre_approval_votes FOR EACH ROW
    EXECUTE FUNCTION refuse('pre_approval_votes is append-only');
-- The customer gives a finding once, after the window has ended, and with an event. Reminders only count up.
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
-- A stop is ended once, by the person in the event that states the end. The event is of the same transaction, so an
-- event of an earlier end does not count.
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

CREATE TRIGGER answered_once BEFORE UPDATE ON questions FOR EACH ROW
    WHEN (OLD.answered_at IS NOT NULL) EXECUTE FUNCTION refuse('question %s was answered');
CREATE TRIGGER never_goes BEFORE DELETE ON questions FOR EACH ROW EXECUTE FUNCTION refuse('questions is append-only');

-- A connection that is being closed is never opened again, and a connection that was proven closed stays closed.
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
-- Old events are removed in whole ranges from the beginning of a log. The hashes over them stay, and so does every
-- proof.
CREATE TRIGGER never_goes BEFORE DELETE ON events FOR EACH ROW
    WHEN (NOT is_owner_command('retain') OR is_held(OLD.tenant_id)) EXECUTE FUNCTION refuse('events is append-only');

-- Personal values are erased one by one, or removed with their event. None is ever changed or added.
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

-- Least privilege: the trigger lists all events that the core worker writes. Add a new event here.
CREATE TRIGGER clocks_own BEFORE INSERT ON events FOR EACH ROW
    WHEN (current_user = 'lockbox_worker' AND NEW.action NOT IN ('time_out', 'expire', 'remind', 'escalate', 'begin',
        'hold_back', 'warn', 'unreached', 'after_review_reminder', 'after_review_overdue', 'first_used', 'last_used',
        'gate_report_began', 'gate_report_asked', 'gate_enforced', 'gate_defined', 'gate_redefined', 'exclusions_changed',
        'consent_ended', 'pre_approval_ended', 'decision_refused', 'sign_in_refused', 'nobody_notified', 'review_unreached',
        'invariant_broken', 'unapproved_access_stated'))
    EXECUTE FUNCTION refuse('event %s is none that the clock makes: see clocks_own in triggers.sql');

-- The rules for rows bind the columns, but the body is sealed, so both have to agree. A body writes each value in one
-- form, and each name once; otherwise, two readers could read it in two ways. Only the owner removes old events.
CREATE FUNCTION refuse_contradicting() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER true_to_its_row AFTER INSERT ON events REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    WHEN (current_user IN ('lockbox_owner', 'lockbox_api', 'lockbox_worker', 'lockbox_notifications',
        'lockbox_connectors'))
    EXECUTE FUNCTION refuse_contradicting();

-- No event reports a move that was not made. This is checked at the commit, and at once for a worker's batch.
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

-- An event is of the tenant of its request.
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

-- A row of the outbox has to match its event. Its writer writes both at once.
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

-- The table itself queues events for sealing, for a whole statement at once. So no writer queues an event or leaves
-- one out.
CREATE FUNCTION queue_for_sealing() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO unsealed (event_id) SELECT id FROM fresh ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER queued AFTER INSERT ON events REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    EXECUTE FUNCTION queue_for_sealing();

-- A waiting event is deleted once it is sealed. Core workers of 0.2.0 delete first and then seal; later ones call
-- forget_sealed.
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
CREATE CONSTRAINT TRIGGER only_once_sealed AFTER DELETE ON unsealed DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_worker') EXECUTE FUNCTION refuse_hiding();
CREATE TRIGGER never_changes BEFORE UPDATE OR DELETE ON turns FOR EACH ROW
    EXECUTE FUNCTION refuse('turns is only locked');

-- Access around Lockbox stays counted, even when retention has removed its event.
CREATE FUNCTION count_outside_access() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO counters (name, label, count, total) VALUES ('outside_access', '', 1, 0);
    RETURN NULL;
END $$;
CREATE TRIGGER counted AFTER INSERT ON events FOR EACH ROW WHEN (NEW.action = 'outside_access')
    EXECUTE FUNCTION count_outside_access();

-- A log only grows: hashes stay as they are and where they are.
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
    WHEN (OLD.removed_at IS NOT NULL AND NOT is_owner_command('erase')) EXECUTE FUNCTION refuse('endpoint %s was removed');

-- Notifications of a request's event come from the outbox only: another row with the event would get in their way.
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

-- A notification is recorded as sent only with a row of deliveries, which says when and where it went and what was
-- answered.
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


-- Erased tenants

-- Nothing of an erased tenant changes, but the owner may erase again and give rows new MACs. Reads are recorded in
-- its log, and the core worker of 0.2.0 writes into each log what concerns all tenants.
CREATE FUNCTION refuse_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'nothing of a tenant that was erased changes, in %', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END $$;
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
