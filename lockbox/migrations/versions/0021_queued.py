"""Queuing whatever is written, refusing bodies that contradict their row, and what may be called withheld."""

from alembic import op

revision = "0021"
down_revision = "0020"

# Whoever writes an event queues nothing and leaves nothing out: the table does it, for a whole statement at once.
QUEUED = """
DROP POLICY api_insert ON unsealed;
REVOKE INSERT ON unsealed FROM lockbox_api, lockbox_worker;
CREATE FUNCTION queue_for_sealing() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO unsealed (event_id) SELECT id FROM fresh ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;
CREATE TRIGGER queued AFTER INSERT ON events REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    EXECUTE FUNCTION queue_for_sealing();
"""

# The rules for rows bind the columns; what is sealed is the body. Only the owner removes what is old.
TRUE_TO_ITS_ROW = """
CREATE FUNCTION refuse_contradicting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM fresh e, LATERAL jsonb_to_record(convert_from(e.body, 'UTF8')::jsonb) AS b (id uuid,
            tenant_id uuid, request_id uuid, seq integer, at timestamptz, action text, actor_id uuid,
            actor_role text, from_state text, to_state text)
        WHERE e.action = 'trail_removed' OR (b.id, b.tenant_id, b.request_id, b.seq, b.at, b.action, b.actor_id,
                b.actor_role, b.from_state, b.to_state)
            IS DISTINCT FROM (e.id, e.tenant_id, e.request_id, e.seq, e.at, e.action::text, e.actor_id,
                e.actor_role::text, e.from_state::text, e.to_state::text)
    ) THEN
        RAISE EXCEPTION 'the body of an event says something else than its row'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER true_to_its_row AFTER INSERT ON events REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    WHEN (current_user = 'lockbox_api') EXECUTE FUNCTION refuse_contradicting();
"""

# What the customer was told of is what the bodies of its moves say; columns and rows beside them can be changed.
TOLD = """
CREATE FUNCTION said_by(body bytea) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN pg_input_is_valid(convert_from(body, 'UTF8'), 'jsonb')
        THEN convert_from(body, 'UTF8')::jsonb ELSE '{}' END
$$;
CREATE FUNCTION was_told(of_request uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM events e, LATERAL said_by(e.body) AS says
        WHERE e.request_id = of_request AND e.seq IS NOT NULL AND says ->> 'request_id' = of_request::text
            AND (says ->> 'to_state' IN ('pending', 'active') OR says ->> 'from_state' IN ('pending', 'active'))
    )
$$;
REVOKE ALL ON FUNCTION was_told FROM PUBLIC;
GRANT EXECUTE ON FUNCTION was_told TO lockbox_api;
ALTER POLICY api_select ON events USING (CASE WHEN request_id IS NOT NULL
    THEN EXISTS (SELECT FROM requests r WHERE r.id = request_id)
        OR (tenant_id = ANY ((SELECT at_tenants())::uuid[]) AND was_told(request_id))
    ELSE tenant_id = ANY ((SELECT at_tenants())::uuid[]) OR actor_id = (SELECT at_person())
        OR (SELECT at_roles()) && '{vendor_auditor}'::text[] END);

-- Withheld may be called what by its sealed body nobody at the customer was told of; whoever asks checks the leaf.
DROP FUNCTION standing_in_log(uuid, bigint, bigint);
CREATE FUNCTION withheld_in_log(log uuid, first bigint, past bigint) RETURNS TABLE (number bigint, leaf bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH span AS MATERIALIZED (
        SELECT s.number, e.body, e.request_id FROM seals s JOIN events e ON e.id = s.event_id
        WHERE s.log_id = log AND s.number >= first AND s.number < past AND e.request_id IS NOT NULL
            AND coalesce(e.tenant_id, '00000000-0000-0000-0000-000000000000') = log
            AND (log = ANY (at_tenants()) OR 'vendor_auditor' = ANY (at_roles()))
    ), untold AS MATERIALIZED (
        SELECT d.request_id FROM (SELECT DISTINCT request_id FROM span) d WHERE NOT was_told(d.request_id)
    )
    SELECT p.number, sha256('\\x00'::bytea || p.body) FROM span p JOIN untold USING (request_id)
    WHERE said_by(p.body) ->> 'request_id' = request_id::text
$$;
REVOKE ALL ON FUNCTION withheld_in_log FROM PUBLIC;
GRANT EXECUTE ON FUNCTION withheld_in_log TO lockbox_api;
"""

# A wrong secret beside the id of a token is told to whoever has the token.
TOKENS = """
CREATE FUNCTION person_of_token(of_token uuid) RETURNS uuid
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.person_id FROM tokens t WHERE t.id = of_token
$$;
REVOKE ALL ON FUNCTION person_of_token FROM PUBLIC;
GRANT EXECUTE ON FUNCTION person_of_token TO lockbox_api;
"""


def upgrade() -> None:
    """Add triggers and functions; what is there stays as it is."""
    for part in (QUEUED, TRUE_TO_ITS_ROW, TOLD, TOKENS):
        op.execute(part)
