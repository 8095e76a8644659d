"""What a mailbox alone has added stays marked: identities until they are trusted, tokens for good."""

from alembic import op

revision = "0009"
down_revision = "0008"

OFFERED_BY_US = "(SELECT at_roles()) && '{operator}'::text[] AND (tenant_id IS NULL OR is_of_the_vendor(invited_by))"

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
ALTER POLICY api_select ON invitations USING (id = (SELECT at_invitation())
    OR tenant_id = ANY ((SELECT at_tenants())::uuid[]) OR ({OFFERED_BY_US}));
ALTER POLICY api_update ON invitations USING (id = (SELECT at_invitation())
    OR tenant_id = ANY ((SELECT at_administers())::uuid[]) OR ({OFFERED_BY_US})
    OR (is_recovery AND EXISTS (SELECT FROM memberships m WHERE m.person_id = (SELECT at_person())
        AND m.tenant_id = invitations.tenant_id AND m.role = 'approver')));
"""


def upgrade() -> None:
    """Mark what a mailbox alone has added."""
    for part in (TRUSTED, BY_MAIL, OFFERS):
        op.execute(part)
