"""Windows that have closed and wait for their report, which is told beside the end: twice of one event."""

from alembic import op

revision = "0019"
down_revision = "0018"

UNREPORTED = """
CREATE TABLE unreported (
    event_id uuid CONSTRAINT pk_unreported PRIMARY KEY,
    tenant_id uuid NOT NULL,
    request_id uuid NOT NULL,
    at timestamptz NOT NULL
);
ALTER TABLE unreported ENABLE ROW LEVEL SECURITY;
ALTER TABLE unreported FORCE ROW LEVEL SECURITY;
CREATE POLICY api_insert ON unreported FOR INSERT TO lockbox_api WITH CHECK (tenant_id = ANY (at_reach()));
CREATE POLICY worker ON unreported FOR ALL TO lockbox_worker USING (true);
GRANT INSERT ON unreported TO lockbox_api;
GRANT SELECT, INSERT, DELETE ON unreported TO lockbox_worker;
"""
NOTICES = """
ALTER TABLE notices
    DROP CONSTRAINT uq_notices_event_id_recipient,
    ADD CONSTRAINT uq_notices_event_id_recipient UNIQUE NULLS NOT DISTINCT
        (event_id, person_id, endpoint_id, about_id, address_id, watcher_id, checkpoint_id, template);
"""


def upgrade() -> None:
    for part in (UNREPORTED, NOTICES):
        op.execute(part)
