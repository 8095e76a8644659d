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
