"""A webhook's call can always be repeated: it tells a machine what happened, and asks nobody."""

from alembic import op

revision = "0033"
down_revision = "0032"

REOPEN = """
CREATE OR REPLACE FUNCTION reopen(of_delivery uuid, moment timestamptz) RETURNS TABLE (notice uuid, answer text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    n notices;
BEGIN
    SELECT o.* INTO n FROM deliveries d JOIN endpoints h ON h.id = d.endpoint_id JOIN notices o ON o.id = d.notice_id
    WHERE d.id = of_delivery AND h.removed_at IS NULL AND CASE WHEN h.tenant_id IS NULL
        THEN 'operator' = ANY (at_roles()) ELSE h.tenant_id = ANY (at_administers()) END
    FOR UPDATE OF o;
    IF n.id IS NULL THEN
        RETURN;
    ELSIF n.closed_at IS NULL THEN
        RETURN QUERY SELECT n.id, 'waiting';
    ELSIF EXISTS (SELECT FROM endpoints h WHERE h.id = n.endpoint_id AND h.disabled_at IS NOT NULL) THEN
        RETURN QUERY SELECT n.id, 'disabled';
    ELSE
        UPDATE notices o SET closed_at = NULL, outcome = NULL, attempts = 0, run_at = moment,
            until_at = greatest(n.until_at, moment + interval '72 hours')
        WHERE o.id = n.id;
        RETURN QUERY SELECT n.id, 'reopened';
    END IF;
END $$;
"""


def upgrade() -> None:
    """Replace the function."""
    op.execute(REOPEN)
