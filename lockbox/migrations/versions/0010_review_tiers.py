"""The review's tiers: in which of them a manager is asked. Calls by hand are counted, old deliveries forgotten."""

from alembic import op

revision = "0010"
down_revision = "0009"

TIERS = """
ALTER TABLE memberships ADD COLUMN review_tier integer NOT NULL DEFAULT 1
    CONSTRAINT ck_memberships_review_tier CHECK (review_tier = 1
        OR (review_tier BETWEEN 2 AND 5 AND tenant_id IS NULL AND role = 'manager'));
GRANT UPDATE (review_tier) ON memberships TO lockbox_api;
CREATE POLICY api_update ON memberships FOR UPDATE TO lockbox_api USING (tenant_id IS NULL AND role = 'manager'
    AND (SELECT at_roles()) && '{operator}'::text[] AND person_id <> (SELECT at_person()));
"""

# As 0006 has it, but for one condition: a move that changes the state may begin to count the tiers anew.
ONE_WAY = """
CREATE OR REPLACE FUNCTION refuse_wrong_way() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    nudges CONSTANT text[] := '{wake_at,reminders,tiers_asked,warned}';
BEGIN
    IF NEW.version = OLD.version AND NEW.wake_at > OLD.wake_at AND current_user <> 'lockbox_api'
        AND to_jsonb(NEW) - nudges = to_jsonb(OLD) - nudges THEN
        IF NEW.reminders NOT BETWEEN OLD.reminders AND OLD.reminders + 1
            OR NEW.tiers_asked < OLD.tiers_asked OR (OLD.warned AND NOT NEW.warned) THEN
            RAISE EXCEPTION 'the counts of request % only go up', OLD.id USING ERRCODE = 'insufficient_privilege';
        END IF;
        RETURN NEW;
    END IF;
    IF NOT (CASE OLD.state
        WHEN 'reviewing' THEN NEW.state IN ('pending', 'active', 'denied', 'cancelled', 'timed_out')
        WHEN 'pending' THEN NEW.state IN ('pending', 'active', 'denied', 'cancelled', 'timed_out')
        WHEN 'active' THEN NEW.state IN ('completed', 'revoked', 'expired')
        ELSE false END) THEN
        RAISE EXCEPTION 'request % does not go from % to %', OLD.id, OLD.state, NEW.state
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.version <> OLD.version + 1 THEN
        RAISE EXCEPTION 'request % changes by one move at a time', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF OLD.state = 'active' AND (NEW.deadline_at > OLD.deadline_at OR NEW.opened_at <> OLD.opened_at) THEN
        RAISE EXCEPTION 'the window of request % may not grow', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NEW.reminders NOT IN (0, OLD.reminders) OR (NEW.state = OLD.state AND NEW.reminders <> OLD.reminders)
        OR (NEW.state = OLD.state AND NEW.tiers_asked < OLD.tiers_asked) OR NEW.warned <> OLD.warned THEN
        RAISE EXCEPTION 'a move of request % reminds nobody', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
"""

BY_HAND = """
ALTER TABLE endpoints ADD COLUMN called_by_hand timestamptz[] NOT NULL DEFAULT '{}';
ALTER TABLE endpoints ALTER COLUMN called_by_hand DROP DEFAULT;
GRANT UPDATE (called_by_hand) ON endpoints TO lockbox_api;
"""

# Whoever holds the worker's login wipes no trace of today.
FORGOTTEN = """
CREATE INDEX ix_deliveries_at ON deliveries (at);
GRANT SELECT (id, at), DELETE ON deliveries TO lockbox_worker;
CREATE POLICY worker_forgets ON deliveries AS RESTRICTIVE FOR DELETE TO lockbox_worker
    USING (at < now() - interval '1 day');
"""


def upgrade() -> None:
    """Add the columns, the rights to change them, the trigger's new condition, and what forgetting needs."""
    for part in (TIERS, ONE_WAY, BY_HAND, FORGOTTEN):
        op.execute(part)
