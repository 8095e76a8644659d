"""Approvals signed with the approver's passkey: what was signed stands with the decision, and is demanded."""

from alembic import op

revision = "0042"
down_revision = "0041"

# `approve_means` only gets stricter, as the quorum does. An assertion belongs to the statement that it is over.
COLUMNS = """
ALTER TABLE requests ADD COLUMN approve_means varchar(24) NOT NULL DEFAULT 'attested',
    ADD CONSTRAINT ck_requests_approve_means CHECK (approve_means IN ('attested', 'passkey-signed'));
GRANT UPDATE (approve_means) ON requests TO lockbox_api;
CREATE TRIGGER never_attested_again BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.approve_means = 'passkey-signed' AND NEW.approve_means <> OLD.approve_means)
    EXECUTE FUNCTION refuse_change_by('the approvals of request %s stay signed with passkeys');
ALTER TABLE decisions ADD COLUMN statement text, ADD COLUMN signed_content text, ADD COLUMN assertion text,
    ADD COLUMN passkey_id uuid,
    ADD CONSTRAINT ck_decisions_signed CHECK (num_nulls(statement, signed_content, assertion, passkey_id) IN (0, 4)
        AND (verdict = 'approve' OR statement IS NULL));
"""

# As in 0025, but where passkeys have to sign, an approval without an assertion counts for nothing.
DECIDED = """
    SELECT CASE WHEN request.mode = 'enforce' THEN
        NOT EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id AND d.verdict = 'deny')
        AND request.quorum <= (
            SELECT count(*) FROM decisions d
            WHERE d.request_id = request.id AND d.verdict = 'approve' AND d.person_id <> request.requester_id
            AND (d.assertion IS NOT NULL OR NOT ({demanded}))
            AND (d.resources IS NULL OR coalesce(request.granted_resources, request.resources) <@ d.resources)
            AND (d.actions IS NULL OR coalesce(request.granted_actions, request.actions) <@ d.actions)
            AND NOT EXISTS (SELECT FROM decisions e WHERE e.request_id = request.id
                AND e.verdict = 'endorse' AND e.person_id = d.person_id))
    ELSE
        EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id
            AND d.verdict = 'endorse' AND d.person_id <> request.requester_id)
    END
"""
BY_THE_ROW = "request.approve_means = 'passkey-signed'"
# The triggers do not take the row's word for it: the tenant's own terms, of when it was asked, may demand it too.
BY_THE_POLICY = f"""{BY_THE_ROW} OR EXISTS (SELECT FROM policies p WHERE p.tenant_id = request.tenant_id
                AND p.version = request.policy_version AND p.body ->> 'approve_means' = 'passkey-signed')"""
FUNCTION = "CREATE OR REPLACE FUNCTION {name}(request requests) RETURNS boolean LANGUAGE sql STABLE AS $${body}$$;"

# The access check sees neither decisions' people nor their passkeys: it gets what it holds a window against.
SIGNED = """
CREATE FUNCTION signed_decisions(of_requests uuid[]) RETURNS TABLE (request_id uuid, person_id uuid,
    stands_for uuid[], access_window integer, resources text[], actions text[], comment text, statement text,
    signed_content text, assertion text, passkey_id uuid, credential_id bytea, public_key bytea,
    created_at timestamptz, trusted_at timestamptz, only_at uuid, mac bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT d.request_id, d.person_id, d.stands_for, d.access_window, d.resources, d.actions, d.comment,
        d.statement, d.signed_content, d.assertion, k.id, k.credential_id, k.public_key, k.created_at, k.trusted_at,
        k.only_at, k.mac
    FROM requests r JOIN decisions d ON d.request_id = r.id AND d.verdict = 'approve'
    JOIN passkeys k ON k.id = d.passkey_id AND k.person_id = d.person_id
    WHERE r.id = ANY (of_requests) AND r.state = 'active'
        AND (r.tenant_id = ANY (at_reach()) OR cardinality(at_roles()) > 0)
$$;
CREATE FUNCTION approver_keys(of_tenant uuid) RETURNS TABLE (person_id uuid, name text, passkey_id uuid,
    credential_id bytea, public_key bytea, created_at timestamptz, trusted_at timestamptz, only_at uuid, mac bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT p.id, p.name, k.id, k.credential_id, k.public_key, k.created_at, k.trusted_at, k.only_at, k.mac
    FROM people p JOIN passkeys k ON k.person_id = p.id AND (k.only_at IS NULL OR k.only_at = of_tenant)
    WHERE of_tenant = ANY (at_administers()) AND p.disabled_at IS NULL AND (
        EXISTS (SELECT FROM memberships m WHERE m.person_id = p.id AND m.tenant_id = of_tenant
            AND m.role = 'approver')
        OR EXISTS (SELECT FROM eligible_deputies e WHERE e.person_id = p.id AND e.tenant_id = of_tenant))
    ORDER BY p.name, p.id, k.id
$$;
REVOKE ALL ON FUNCTION signed_decisions, approver_keys FROM PUBLIC;
GRANT EXECUTE ON FUNCTION signed_decisions, approver_keys TO lockbox_api;
"""


def upgrade() -> None:
    """Add columns that are null for what is there: it was attested by the vendor's server."""
    readers = FUNCTION.format(name="is_decided", body=DECIDED.format(demanded=BY_THE_ROW))
    triggers = FUNCTION.format(name="is_founded", body=DECIDED.format(demanded=BY_THE_POLICY))
    for part in (COLUMNS, readers, triggers, SIGNED):
        op.execute(part)
