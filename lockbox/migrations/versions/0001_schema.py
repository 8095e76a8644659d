"""Create the whole schema from the files of lockbox/schema.

There has been no release, so a change of the schema is a change of those files. Its fingerprint is part of the
revision: a database that was made from other files is at a revision that is unknown, and is refused.
"""

from contextlib import closing

from alembic import op

from lockbox import schema

revision = f"0001_{schema.fingerprint()}"
down_revision = None


def upgrade() -> None:
    """Run the files, and let every login read at which revision the database is."""
    with closing(op.get_bind().connection.cursor()) as cursor:
        for script in schema.scripts():
            cursor.execute(script)
    op.execute(
        "GRANT SELECT ON alembic_version TO lockbox_api, lockbox_worker, lockbox_notifications, lockbox_connectors"
    )
