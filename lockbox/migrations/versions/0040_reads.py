"""When each of the vendor's people last read a request, so that each hour of it is on record once."""

from alembic import op

revision = "0040"
down_revision = "0039"

READS = """
CREATE TABLE request_reads (
    person_id uuid NOT NULL CONSTRAINT fk_request_reads_person_id REFERENCES people (id),
    request_id uuid NOT NULL CONSTRAINT fk_request_reads_request_id REFERENCES requests (id),
    hour timestamptz NOT NULL,
    CONSTRAINT pk_request_reads PRIMARY KEY (person_id, request_id)
);
ALTER TABLE request_reads ENABLE ROW LEVEL SECURITY;
ALTER TABLE request_reads FORCE ROW LEVEL SECURITY;
CREATE POLICY api_select ON request_reads FOR SELECT TO lockbox_api USING (person_id = (SELECT at_person()));
CREATE POLICY api_insert ON request_reads FOR INSERT TO lockbox_api WITH CHECK (person_id = (SELECT at_person())
    AND cardinality((SELECT at_roles())) > 0 AND EXISTS (SELECT FROM requests r WHERE r.id = request_id));
CREATE POLICY api_update ON request_reads FOR UPDATE TO lockbox_api USING (person_id = (SELECT at_person()));
GRANT SELECT, INSERT, UPDATE (hour) ON request_reads TO lockbox_api;
"""


def upgrade() -> None:
    """Add the table; what was read before is not on record."""
    op.execute(READS)
