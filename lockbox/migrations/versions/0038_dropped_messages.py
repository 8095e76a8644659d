"""Messages of the broker that were dropped are counted."""

from alembic import op

revision = "0038"
down_revision = "0037"

COUNTED = """
ALTER TABLE tallies DROP CONSTRAINT ck_tallies_name,
    ADD CONSTRAINT ck_tallies_name CHECK (name IN ('deadline_lag', 'attempt', 'dropped'))
"""


def upgrade() -> None:
    """Let tallies have one name more."""
    op.execute(COUNTED)
