"""What a mailbox alone has added stays marked: identities until they are trusted, tokens for good."""

from alembic import op

revision = "0009"
down_revision = "0008"

TRUSTED = """
ALTER TABLE identities ADD COLUMN trusted_at timestamptz;
UPDATE identities SET trusted_at = created_at;
ALTER TABLE identities ALTER COLUMN trusted_at SET NOT NULL;
"""

# A token of so few days may be one that a mailed code made; nothing else tells of those that are there.
BY_MAIL = """
ALTER TABLE tokens ADD COLUMN by_mail boolean NOT NULL DEFAULT false;
UPDATE tokens SET by_mail = true WHERE NOT is_sample AND expires_at - created_at <= interval '7 days';
ALTER TABLE tokens ALTER COLUMN by_mail DROP DEFAULT;
"""


def upgrade() -> None:
    """Mark what a mailbox alone has added."""
    for part in (TRUSTED, BY_MAIL):
        op.execute(part)
