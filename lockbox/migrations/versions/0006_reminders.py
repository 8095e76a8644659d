"""Reminders, widening and warnings: how far each has come, and what a clock may change without a move."""

from alembic import op

revision = "0006"
down_revision = "0005"

COUNTERS = """
ALTER TABLE requests
    ADD COLUMN reminders integer NOT NULL DEFAULT 0 CONSTRAINT ck_requests_reminders CHECK (reminders >= 0),
    ADD COLUMN tiers_asked integer NOT NULL DEFAULT 0 CONSTRAINT ck_requests_tiers_asked CHECK (tiers_asked >= 0),
    ADD COLUMN warned boolean NOT NULL DEFAULT false;
GRANT UPDATE (reminders, tiers_asked, warned) ON requests TO lockbox_api, lockbox_worker;
"""

# A nudge keeps the version: only the clock makes one, only later, and it counts upwards only.
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
        OR NEW.tiers_asked < OLD.tiers_asked OR NEW.warned <> OLD.warned THEN
        RAISE EXCEPTION 'a move of request % reminds nobody', OLD.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
"""


def upgrade() -> None:
    for part in (COUNTERS, ONE_WAY):
        op.execute(part)
