"""Readers of notices: time zones, who wants no prompts, and what finds earlier requests that are alike."""

from alembic import op

revision = "0007"
down_revision = "0006"

PREFERENCES = """
ALTER TABLE people ADD COLUMN time_zone varchar(64) NOT NULL DEFAULT 'UTC'
    CONSTRAINT ck_people_time_zone CHECK (time_zone ~ '^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+){0,2}$'),
    ADD COLUMN wants_prompts boolean NOT NULL DEFAULT true;
GRANT UPDATE (time_zone, wants_prompts) ON people TO lockbox_api;
CREATE TRIGGER ones_own_preferences BEFORE UPDATE ON people FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND (NEW.time_zone <> OLD.time_zone OR NEW.wants_prompts <> OLD.wants_prompts)
        AND NEW.id IS DISTINCT FROM at_person())
    EXECUTE FUNCTION refuse_change_by('only %s chooses what mails to them are like');
"""

EARLIER = """
CREATE INDEX ix_requests_tenant_id_case_ref ON requests (tenant_id, case_ref) WHERE case_ref IS NOT NULL;
CREATE INDEX ix_requests_resources ON requests USING gin (resources);
"""


def upgrade() -> None:
    for part in (PREFERENCES, EARLIER):
        op.execute(part)
