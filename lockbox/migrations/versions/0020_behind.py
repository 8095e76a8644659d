"""What the access check may know of any log: all that is signed of it, and the hashes that prove that it grew."""

from alembic import op

revision = "0020"
down_revision = "0019"

# The signed note is what counts; the columns beside it are held against it. Hashes of a tree say nothing of events.
BEHIND = """
DROP FUNCTION log_heads;
CREATE FUNCTION log_heads(of_logs uuid[]) RETURNS TABLE (id uuid, origin text, generation integer, size bigint,
    root bytea, note text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT l.id, l.origin, l.generation, l.size, l.root, l.note FROM logs l WHERE l.id = ANY (of_logs)
$$;
CREATE FUNCTION log_tiles(of_log uuid, of_levels smallint[], of_numbers bigint[])
RETURNS TABLE (level smallint, number bigint, hashes bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT t.level, t.number, t.hashes FROM tiles t
    JOIN unnest(of_levels, of_numbers) AS w (level, number) USING (level, number) WHERE t.log_id = of_log
$$;
REVOKE ALL ON FUNCTION log_heads, log_tiles FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log_heads, log_tiles TO lockbox_api;
"""


def upgrade() -> None:
    """Replace one function and add another."""
    op.execute(BEHIND)
