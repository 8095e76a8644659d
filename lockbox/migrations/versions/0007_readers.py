"""Readers of notices: the time zone of a person, and what finds earlier requests for the same case or resource."""

from alembic import op

revision = "0007"
down_revision = "0004"

TIME_ZONES = """
ALTER TABLE people ADD COLUMN time_zone varchar(64) NOT NULL DEFAULT 'UTC'
    CONSTRAINT ck_people_time_zone CHECK (time_zone ~ '^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$');
GRANT UPDATE (time_zone) ON people TO lockbox_api;
CREATE TRIGGER ones_own_time_zone BEFORE UPDATE ON people FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND NEW.time_zone IS DISTINCT FROM OLD.time_zone
        AND NEW.id IS DISTINCT FROM at_person())
    EXECUTE FUNCTION refuse_change_by('only %s chooses the own time zone');
"""

EARLIER = """
CREATE INDEX ix_requests_tenant_id_case_ref ON requests (tenant_id, case_ref) WHERE case_ref IS NOT NULL;
CREATE INDEX ix_requests_resources ON requests USING gin (resources);
"""


def upgrade() -> None:
    for part in (TIME_ZONES, EARLIER):
        op.execute(part)
