"""An API checks the marks of what was decided lately, too."""

from alembic import op

revision = "0046"
down_revision = "0045"

LATELY = """
CREATE FUNCTION decided_lately(lately interval, most integer) RETURNS SETOF decisions
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT d.* FROM decisions d WHERE d.id >= (SELECT uuidv7(-lately)) ORDER BY d.id DESC LIMIT most
$$;
REVOKE ALL ON FUNCTION decided_lately FROM PUBLIC;
GRANT EXECUTE ON FUNCTION decided_lately TO lockbox_api;
"""


def upgrade() -> None:
    """Add the function by which an API reads them, whosever they are."""
    op.execute(LATELY)
