"""A decision carries a MAC, so that a vote which a login of the database wrote for somebody fills no seat."""

from alembic import op

revision = "0045"
down_revision = "0044"


def upgrade() -> None:
    """Add the column; a vote from before has no mark, and fills no seat where its request still waits."""
    op.execute("ALTER TABLE decisions ADD COLUMN mac bytea")
