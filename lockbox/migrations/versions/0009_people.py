"""Identities that a mailbox alone has bound, and machines: both are held to what they are by the database too."""

from alembic import op

revision = "0009"
down_revision = "0008"

TRUSTED = """
ALTER TABLE identities ADD COLUMN trusted_at timestamptz;
UPDATE identities SET trusted_at = created_at;
ALTER TABLE identities ALTER COLUMN trusted_at SET NOT NULL;
"""


def upgrade() -> None:
    """Add what holds identities and machines."""
    for part in (TRUSTED,):
        op.execute(part)
