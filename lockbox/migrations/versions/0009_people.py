"""What a mailbox alone adds stays marked; what rests on somebody who leaves can be ended; machines stay apart."""

from alembic import op

revision = "0009"
down_revision = "0008"

OPERATOR = "(SELECT at_roles()) && '{operator}'::text[]"

TRUSTED = """
ALTER TABLE identities ADD COLUMN trusted_at timestamptz;
UPDATE identities SET trusted_at = created_at;
ALTER TABLE identities ALTER COLUMN trusted_at SET NOT NULL;
"""

# A token of so few days may be one that a mailed code made; nothing else tells of those that are there.
BY_MAIL = """
ALTER TABLE tokens ADD COLUMN by_mail boolean NOT NULL DEFAULT false;
UPDATE tokens SET by_mail = true WHERE NOT is_sample AND expires_at - created_at <= interval '7 days';
ALTER TABLE tokens ALTER COLUMN by_mail DROP DEFAULT;
"""

# An operator may take back what the vendor's side has offered; all that can be changed of it is that it is over.
OFFERS = f"""
CREATE FUNCTION is_of_the_vendor(who uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM people p WHERE p.id = who AND p.side = 'vendor')
$$;
REVOKE ALL ON FUNCTION is_of_the_vendor FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_of_the_vendor TO lockbox_api;
CREATE POLICY api_select_offered ON invitations FOR SELECT TO lockbox_api
    USING ({OPERATOR} AND is_of_the_vendor(invited_by));
CREATE POLICY api_update_offered ON invitations FOR UPDATE TO lockbox_api
    USING ({OPERATOR} AND is_of_the_vendor(invited_by));
"""

# The context's `lockbox.leaving` is somebody who is no engineer any more, whose requests an operator ends just now.
LEAVING = f"""
CREATE FUNCTION at_leaving() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.leaving', true), '')::uuid $$;
CREATE FUNCTION is_engineer(who uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM memberships m JOIN people p ON p.id = m.person_id
        WHERE m.person_id = who AND m.tenant_id IS NULL AND m.role = 'engineer' AND p.disabled_at IS NULL)
$$;
REVOKE ALL ON FUNCTION is_engineer FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_engineer TO lockbox_api;
CREATE POLICY api_select_leaving ON requests FOR SELECT TO lockbox_api
    USING (requester_id = (SELECT at_leaving()) AND {OPERATOR} AND NOT is_engineer(requester_id));
CREATE POLICY api_update_leaving ON requests FOR UPDATE TO lockbox_api
    USING (requester_id = (SELECT at_leaving()) AND {OPERATOR} AND NOT is_engineer(requester_id));
CREATE TRIGGER leaving_only_ends BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.requester_id = at_leaving()
        AND NEW.state NOT IN ('cancelled', 'revoked'))
    EXECUTE FUNCTION refuse_change_by('request %s of somebody who leaves can only be cancelled or revoked');
"""

MACHINES = """
DO $$
DECLARE mixed text;
BEGIN
    SELECT string_agg(DISTINCT m.person_id::text, ', ') INTO mixed
    FROM memberships m JOIN memberships o ON o.person_id = m.person_id AND o.role <> 'system'
    WHERE m.role = 'system';
    IF mixed IS NOT NULL THEN
        RAISE EXCEPTION 'a system is nothing else: delete its other memberships and migrate again: %', mixed
            USING ERRCODE = 'integrity_constraint_violation';
    END IF;
END $$;
CREATE FUNCTION refuse_mixed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
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
"""


def upgrade() -> None:
    """Mark what mailboxes add, let operators end what is left behind, and keep machines apart."""
    for part in (TRUSTED, BY_MAIL, OFFERS, LEAVING, MACHINES):
        op.execute(part)
