"""Live pages: whom a change concerns, of those who listen."""

from alembic import op

revision = "0026"
down_revision = "0025"

# Pages of many people hang on one listener, which has no context of anybody: it learns who of them may know of one of
# the requests that changed, and of no request which. Which roles reach how far is the house's to say.
READERS = """
CREATE FUNCTION readers_of(ids uuid[], who uuid[], places uuid[], reach_all text[], reach_theirs text[])
RETURNS TABLE (reader integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH changed AS MATERIALIZED (
        SELECT DISTINCT r.tenant_id, r.requester_id, r.asked_at IS NOT NULL AS told
        FROM requests r WHERE r.id = ANY (ids)
    )
    SELECT l.number::integer
    FROM unnest(who, places) WITH ORDINALITY AS l (person_id, only_at, number)
    JOIN people p ON p.id = l.person_id AND p.disabled_at IS NULL
    WHERE EXISTS (SELECT FROM changed c WHERE c.requester_id = l.person_id)
        OR EXISTS (SELECT FROM memberships m WHERE m.person_id = l.person_id AND (
            (m.tenant_id IS NULL AND l.only_at IS NULL AND m.role = ANY (reach_all) AND EXISTS (SELECT FROM changed))
            OR (m.role = ANY (reach_theirs) AND (l.only_at IS NULL OR l.only_at = m.tenant_id)
                AND EXISTS (SELECT FROM changed c WHERE c.tenant_id = m.tenant_id AND c.told))))
$$;
REVOKE ALL ON FUNCTION readers_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION readers_of TO lockbox_api;
"""


def upgrade() -> None:
    """Add one function."""
    op.execute(READERS)
