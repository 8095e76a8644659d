"""What a condition on one row cannot say, by triggers: who changes which column, and what belongs together."""

from alembic import op

revision = "0004"
down_revision = "0003"

# What binds every role must not itself be bound by what one caller may see.
WHOLE_SIGHT = """
ALTER FUNCTION refuse_unfounded() SECURITY DEFINER SET search_path = public, pg_temp;
ALTER FUNCTION refuse_invented() SECURITY DEFINER SET search_path = public, pg_temp;
"""

COLUMNS = """
CREATE FUNCTION refuse_change_by() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', format(TG_ARGV[0], NEW.id) USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER only_its_admins BEFORE UPDATE ON tenants FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND (NEW.mode <> OLD.mode OR NEW.policy_version <> OLD.policy_version
        OR NEW.name <> OLD.name) AND NOT NEW.id = ANY (at_administers()))
    EXECUTE FUNCTION refuse_change_by('only the admins of tenant %s change its mode, its policy and its name');
CREATE TRIGGER only_operators BEFORE UPDATE ON tenants FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND (NEW.suspended <> OLD.suspended OR NEW.plan <> OLD.plan)
        AND NOT 'operator' = ANY (at_roles()))
    EXECUTE FUNCTION refuse_change_by('only operators suspend tenant %s and change its plan');
CREATE TRIGGER operators_disable_the_vendors BEFORE UPDATE ON people FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND NEW.disabled_at IS DISTINCT FROM OLD.disabled_at
        AND (OLD.disabled_at IS NOT NULL OR NEW.side <> 'vendor' OR NEW.id = at_person()
            OR NOT 'operator' = ANY (at_roles())))
    EXECUTE FUNCTION refuse_change_by('only operators disable %s, a person of the vendor, and for good');
CREATE TRIGGER only_the_guest_accepts BEFORE UPDATE ON invitations FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND NEW.accepted_at IS DISTINCT FROM OLD.accepted_at
        AND at_invitation() IS DISTINCT FROM NEW.id)
    EXECUTE FUNCTION refuse_change_by('only who has its code accepts invitation %s');

CREATE FUNCTION at_decides(tenant uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT tenant = ANY (at_tenants()) AND (
        EXISTS (SELECT FROM memberships m
            WHERE m.person_id = at_person() AND m.tenant_id = tenant AND m.role = 'approver')
        OR EXISTS (SELECT FROM delegations d
            WHERE d.deputy_id = at_person() AND d.tenant_id = tenant AND d.ended_at IS NULL))
$$;
CREATE TRIGGER only_its_approvers_open BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.state = 'pending' AND NEW.state = 'active'
        AND NOT at_decides(NEW.tenant_id))
    EXECUTE FUNCTION refuse_change_by('only an approver, with the last vote, opens request %s');
CREATE TRIGGER only_managers_open_alone BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.state = 'reviewing' AND NEW.state <> 'cancelled'
        AND NOT 'manager' = ANY (at_roles()))
    EXECUTE FUNCTION refuse_change_by('only a manager endorses or denies request %s');

CREATE TRIGGER never_looser BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.quorum < OLD.quorum) EXECUTE FUNCTION refuse_change_by('the quorum of request %s may not fall');
CREATE TRIGGER never_unasked BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.asked_at IS NOT NULL AND NEW.asked_at IS DISTINCT FROM OLD.asked_at)
    EXECUTE FUNCTION refuse_change_by('who was asked about request %s was asked');
CREATE TRIGGER never_revived BEFORE UPDATE ON invitations FOR EACH ROW
    WHEN (OLD.accepted_at IS NOT NULL OR OLD.withdrawn_at IS NOT NULL)
    EXECUTE FUNCTION refuse_change_by('invitation %s is over');
CREATE TRIGGER never_good_again BEFORE UPDATE ON tokens FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.revoked_at IS NOT NULL
        AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
    EXECUTE FUNCTION refuse_change_by('token %s stays revoked');
CREATE TRIGGER never_good_again BEFORE UPDATE ON sessions FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.revoked_at IS NOT NULL
        AND NEW.revoked_at IS DISTINCT FROM OLD.revoked_at)
    EXECUTE FUNCTION refuse_change_by('session %s stays revoked');
CREATE TRIGGER never_begun_again BEFORE UPDATE ON delegations FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.ended_at IS NOT NULL)
    EXECUTE FUNCTION refuse_change_by('delegation %s has ended');
"""

BELONGS = """
CREATE FUNCTION refuse_foreign() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM requests r WHERE r.id = NEW.request_id AND r.tenant_id = NEW.tenant_id) THEN
        RAISE EXCEPTION '% % names another tenant than its request', TG_TABLE_NAME, NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER of_its_tenant AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND NEW.request_id IS NOT NULL) EXECUTE FUNCTION refuse_foreign();
CREATE CONSTRAINT TRIGGER of_its_tenant AFTER INSERT ON notices DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND NEW.request_id IS NOT NULL) EXECUTE FUNCTION refuse_foreign();

CREATE FUNCTION refuse_misdirected() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = public, pg_temp
AS $$
BEGIN
    IF (NEW.event_id IS NOT NULL AND NOT EXISTS (SELECT FROM events e
            WHERE e.id = NEW.event_id AND e.tenant_id IS NOT DISTINCT FROM NEW.tenant_id))
        OR (NEW.endpoint_id IS NOT NULL AND NOT EXISTS (SELECT FROM endpoints h
            WHERE h.id = NEW.endpoint_id AND (h.tenant_id IS NULL OR h.tenant_id = NEW.tenant_id))) THEN
        RAISE EXCEPTION 'notice % tells one tenant of what is another''s', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER to_its_tenant AFTER INSERT ON notices DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_api') EXECUTE FUNCTION refuse_misdirected();
"""


def upgrade() -> None:
    for part in (WHOLE_SIGHT, COLUMNS, BELONGS):
        op.execute(part)
