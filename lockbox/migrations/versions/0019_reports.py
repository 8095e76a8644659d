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

# Closed windows wait here until those are promised a report who are to have one by then. A stranger's row comes to
# nothing: it is looked up as the end of a window that has no report yet.
DUE = """
CREATE TABLE reports_due (
    event_id uuid CONSTRAINT pk_reports_due PRIMARY KEY,
    due_at timestamptz NOT NULL
);
CREATE INDEX ix_reports_due_due_at ON reports_due (due_at);
ALTER TABLE reports_due ENABLE ROW LEVEL SECURITY;
ALTER TABLE reports_due FORCE ROW LEVEL SECURITY;
CREATE POLICY api_insert ON reports_due FOR INSERT TO lockbox_api WITH CHECK (true);
CREATE POLICY worker ON reports_due FOR ALL TO lockbox_worker USING (true);
GRANT INSERT ON reports_due TO lockbox_api;
GRANT SELECT, INSERT, DELETE ON reports_due TO lockbox_worker;
"""


def upgrade() -> None:
    for part in (NOTICES, DUE):
        op.execute(part)
