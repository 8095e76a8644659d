"""The report on a window that has closed is told beside its end: a person may hear twice of one event."""

from alembic import op

revision = "0019"
down_revision = "0018"

NOTICES = """
ALTER TABLE notices
    DROP CONSTRAINT uq_notices_event_id_recipient,
    ADD CONSTRAINT uq_notices_event_id_recipient UNIQUE NULLS NOT DISTINCT
        (event_id, person_id, endpoint_id, about_id, address_id, watcher_id, checkpoint_id, template);
"""


def upgrade() -> None:
    op.execute(NOTICES)
