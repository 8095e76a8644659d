"""Whether the customer's last word about a resource was no, which an engineer can't see of others' requests."""

from alembic import op

revision = "0008"
down_revision = "0007"

ASKED_AGAIN = """
CREATE INDEX ix_requests_denied ON requests (tenant_id, service) WHERE state = 'denied' AND asked_at IS NOT NULL;
CREATE FUNCTION was_denied(of_tenant uuid, of_service text, of_resources text[]) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT of_tenant = ANY (at_reach()) AND EXISTS (
        SELECT FROM requests d, unnest(d.resources) AS resource
        WHERE d.tenant_id = of_tenant AND d.service = of_service AND d.state = 'denied' AND d.asked_at IS NOT NULL
            AND d.resources && of_resources AND resource = ANY (of_resources)
            AND NOT EXISTS (SELECT FROM requests o WHERE o.tenant_id = of_tenant AND o.service = of_service
                AND o.opened_at > d.closed_at AND resource = ANY (o.resources)))
$$;
REVOKE ALL ON FUNCTION was_denied FROM PUBLIC;
GRANT EXECUTE ON FUNCTION was_denied TO lockbox_api;
"""


def upgrade() -> None:
    """Add the function and the index that it reads by."""
    op.execute(ASKED_AGAIN)
