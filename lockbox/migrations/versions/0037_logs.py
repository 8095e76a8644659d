"""In which log an event is sealed: the tenant's, or the vendor's where the customer is not told of it, or not yet."""

from alembic import op

revision = "0037"
down_revision = "0036"

# A tenant's log holds what the tenant may see, and all of it. The moves of a request belong there from the one on by
# which the customer is first asked or told; the column of the log follows, so that nothing else can be written.
COLUMNS = """
ALTER TABLE events ADD COLUMN internal boolean NOT NULL DEFAULT false;
ALTER TABLE events DISABLE TRIGGER append_only;
UPDATE events SET internal = true WHERE seq IS NOT NULL AND (to_state = 'reviewing'
    OR (from_state = 'reviewing' AND to_state NOT IN ('pending', 'active')));
ALTER TABLE events ENABLE TRIGGER append_only;
ALTER TABLE events ADD COLUMN log_id uuid NOT NULL GENERATED ALWAYS AS (CASE
    WHEN internal OR tenant_id IS NULL THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE tenant_id END) STORED;
ALTER TABLE events ADD CONSTRAINT ck_events_internal CHECK (seq IS NULL OR internal = (to_state = 'reviewing'
    OR (coalesce(from_state, '') = 'reviewing' AND to_state NOT IN ('pending', 'active'))));
CREATE INDEX ix_events_log_id_id ON events (log_id, id);
DROP INDEX ix_events_tenant_id_id;
"""

TRUE_TO_ITS_ROW = """
CREATE OR REPLACE FUNCTION refuse_contradicting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM fresh e, LATERAL jsonb_to_record(convert_from(e.body, 'UTF8')::jsonb) AS b (id uuid, log uuid,
            tenant_id uuid, request_id uuid, seq integer, at timestamptz, action text, actor_id uuid,
            actor_role text, from_state text, to_state text)
        WHERE e.action = 'trail_removed' OR (b.id, b.log, b.tenant_id, b.request_id, b.seq, b.at, b.action,
                b.actor_id, b.actor_role, b.from_state, b.to_state)
            IS DISTINCT FROM (e.id, e.log_id, e.tenant_id, e.request_id, e.seq, e.at, e.action::text,
                e.actor_id, e.actor_role::text, e.from_state::text, e.to_state::text)
    ) THEN
        RAISE EXCEPTION 'the body of an event says something else than its row'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
"""

# Whoever is of a tenant reads its log, whatever became of the rows of its requests. Of what is sealed with the vendor
# they see the moves of requests that they know of, and nothing else: no talk, reminders or mails of a review.
READING = """
ALTER POLICY api_select ON events USING (log_id = ANY ((SELECT at_tenants())::uuid[])
    OR CASE WHEN request_id IS NOT NULL
        THEN EXISTS (SELECT FROM requests r WHERE r.id = request_id)
            AND (NOT internal OR seq IS NOT NULL OR cardinality((SELECT at_roles())) > 0)
        ELSE actor_id = (SELECT at_person()) OR (SELECT at_roles()) && '{vendor_auditor}'::text[] END);
DROP FUNCTION withheld_in_log(uuid, bigint, bigint);
DROP FUNCTION was_told(uuid);
DROP FUNCTION said_by(bytea);
"""


def upgrade() -> None:
    """Add the columns, and say of what is there in which log it would be sealed today."""
    for part in (COLUMNS, TRUE_TO_ITS_ROW, READING):
        op.execute(part)
