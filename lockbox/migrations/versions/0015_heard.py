"""Who heard of a request, who of those is there still, and what was denied in whatever case it is written."""

from alembic import op

revision = "0015"
down_revision = "0014"

HEARD = """
DROP INDEX ix_notices_heard;
CREATE INDEX ix_notices_heard ON notices (request_id) INCLUDE (person_id)
    WHERE template IN ('pending', 'answer_reminder', 'active') AND person_id IS NOT NULL;
"""

# Whoever may know of a request learns how many people were told, and not of whom a tenant consists.
STILL_THERE = """
CREATE FUNCTION is_still_there(who uuid, tenant uuid, stage text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM memberships m JOIN people p ON p.id = m.person_id
        WHERE m.person_id = who AND p.disabled_at IS NULL AND CASE stage
            WHEN 'reviewing' THEN m.tenant_id IS NULL AND m.role = 'manager' ELSE m.tenant_id = tenant END)
$$;
REVOKE ALL ON FUNCTION is_still_there FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_still_there TO lockbox_api, lockbox_worker;
"""

WAS_DENIED = """
CREATE OR REPLACE FUNCTION was_denied(of_tenant uuid, of_service text, of_resources text[]) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH asked AS (SELECT array_agg(lower(one)) AS names FROM unnest(of_resources) AS one)
    SELECT of_tenant = ANY (at_reach()) AND EXISTS (
        SELECT FROM asked, requests d, unnest(d.resources) AS resource
        WHERE d.tenant_id = of_tenant AND d.service = of_service AND d.state = 'denied' AND d.asked_at IS NOT NULL
            AND lower(resource) = ANY (asked.names)
            AND NOT EXISTS (SELECT FROM requests o, unnest(o.resources) AS opened
                WHERE o.tenant_id = of_tenant AND o.service = of_service AND o.opened_at > d.closed_at
                AND lower(opened) = lower(resource)))
$$;
"""


def upgrade() -> None:
    for part in (HEARD, STILL_THERE, WAS_DENIED):
        op.execute(part)
