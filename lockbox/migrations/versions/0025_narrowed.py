"""Narrower windows: what an approver keeps of what was asked, and what a window was opened for."""

from alembic import op

revision = "0025"
down_revision = "0024"

# Null is all that was asked.
COLUMNS = """
ALTER TABLE decisions ADD COLUMN resources text[], ADD COLUMN actions text[],
    ADD CONSTRAINT ck_decisions_kept CHECK (verdict = 'approve' OR (resources IS NULL AND actions IS NULL)),
    ADD CONSTRAINT ck_decisions_resources CHECK (cardinality(resources) >= 1),
    ADD CONSTRAINT ck_decisions_actions CHECK (cardinality(actions) >= 1);
ALTER TABLE requests ADD COLUMN granted_resources text[], ADD COLUMN granted_actions text[],
    ADD CONSTRAINT ck_requests_granted_resources
        CHECK (cardinality(granted_resources) >= 1 AND granted_resources <@ resources),
    ADD CONSTRAINT ck_requests_granted_actions
        CHECK (cardinality(granted_actions) >= 1 AND granted_actions <@ actions),
    ADD CONSTRAINT ck_requests_granted
        CHECK (opened_at IS NOT NULL OR (granted_resources IS NULL AND granted_actions IS NULL));
GRANT UPDATE (granted_resources, granted_actions) ON requests TO lockbox_api;
CREATE TRIGGER never_wider BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.opened_at IS NOT NULL AND (NEW.granted_resources IS DISTINCT FROM OLD.granted_resources
        OR NEW.granted_actions IS DISTINCT FROM OLD.granted_actions))
    EXECUTE FUNCTION refuse_change_by('what request %s was opened for stays as it is');
"""

# As in 0001, but an approval counts for no more than what it keeps.
IS_DECIDED = """
CREATE OR REPLACE FUNCTION is_decided(request requests) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN request.mode = 'enforce' THEN
        NOT EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id AND d.verdict = 'deny')
        AND request.quorum <= (
            SELECT count(*) FROM decisions d
            WHERE d.request_id = request.id AND d.verdict = 'approve' AND d.person_id <> request.requester_id
            AND (d.resources IS NULL OR coalesce(request.granted_resources, request.resources) <@ d.resources)
            AND (d.actions IS NULL OR coalesce(request.granted_actions, request.actions) <@ d.actions)
            AND NOT EXISTS (SELECT FROM decisions e WHERE e.request_id = request.id
                AND e.verdict = 'endorse' AND e.person_id = d.person_id))
    ELSE
        EXISTS (SELECT FROM decisions d WHERE d.request_id = request.id
            AND d.verdict = 'endorse' AND d.person_id <> request.requester_id)
    END
$$;
"""

# As in 0018 and 0015, but by what was granted: a resource that was left out was not opened.
READERS = """
CREATE OR REPLACE FUNCTION reported_window(of_request uuid) RETURNS TABLE (id uuid, tenant_id uuid,
    requester_id uuid, service text, resources text[], actions text[], opened_at timestamptz,
    deadline_at timestamptz, closed_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.id, r.tenant_id, r.requester_id, r.service, coalesce(r.granted_resources, r.resources),
        coalesce(r.granted_actions, r.actions), r.opened_at, r.deadline_at, r.closed_at
    FROM requests r WHERE r.id = of_request AND 'system' = ANY (at_roles())
$$;
CREATE OR REPLACE FUNCTION was_denied(of_tenant uuid, of_service text, of_resources text[]) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH asked AS (SELECT array_agg(lower(one)) AS names FROM unnest(of_resources) AS one)
    SELECT of_tenant = ANY (at_reach()) AND EXISTS (
        SELECT FROM asked, requests d, unnest(d.resources) AS resource
        WHERE d.tenant_id = of_tenant AND d.service = of_service AND d.state = 'denied' AND d.asked_at IS NOT NULL
            AND lower(resource) = ANY (asked.names)
            AND NOT EXISTS (SELECT FROM requests o, unnest(coalesce(o.granted_resources, o.resources)) AS opened
                WHERE o.tenant_id = of_tenant AND o.service = of_service AND o.opened_at > d.closed_at
                AND lower(opened) = lower(resource)))
$$;
"""


def upgrade() -> None:
    """Add columns that are null for what is there: all of it was opened as it was asked."""
    for part in (COLUMNS, IS_DECIDED, READERS):
        op.execute(part)
