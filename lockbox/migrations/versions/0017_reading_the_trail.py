"""Reading the trail: the events of one log, the newest first, and which of them are only hidden from a reader."""

from alembic import op

revision = "0017"
down_revision = "0016"

# What is hidden is there; what is neither there nor said to be removed is missing, and must look like it.
HIDDEN = """
CREATE INDEX ix_events_tenant_id_id ON events (tenant_id, id);
CREATE FUNCTION standing_in_log(log uuid, first bigint, past bigint) RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT s.number FROM seals s JOIN events e ON e.id = s.event_id
    WHERE s.log_id = log AND s.number >= first AND s.number < past
        AND coalesce(e.tenant_id, '00000000-0000-0000-0000-000000000000') = log
        AND (log = ANY (at_tenants()) OR 'vendor_auditor' = ANY (at_roles()))
$$;
REVOKE ALL ON FUNCTION standing_in_log FROM PUBLIC;
GRANT EXECUTE ON FUNCTION standing_in_log TO lockbox_api;
"""


def upgrade() -> None:
    """Index a log's events, and say which of them stand."""
    op.execute(HIDDEN)
