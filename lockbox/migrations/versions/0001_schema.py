"""Create the schema of 0.2.0, the first release, from a copy of its files.

It is frozen: what has changed since stands in later revisions. The name keeps databases apart that were made before.
"""

from contextlib import closing
from pathlib import Path

from alembic import op

revision = "0001_217b288efd35"
down_revision = None

SCRIPT = Path(__file__).with_suffix(".sql")


def upgrade() -> None:
    """Run the copy, and let every login read at which revision the database is."""
    with closing(op.get_bind().connection.cursor()) as cursor:
        cursor.execute(SCRIPT.read_text(encoding="utf-8"))
    op.execute(
        "GRANT SELECT ON alembic_version TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors"
    )
