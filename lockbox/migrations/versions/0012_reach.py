"""Reach: a clock that may act sooner, dead notices for operators, and asking again after a time-out."""

from alembic import op

revision = "0012"
down_revision = "0011"

# As in 0006, but for the first block: who could reach nobody is not made to wait, and nothing else changes by it.
ONE_WAY = """
CREATE OR REPLACE FUNCTION refuse_wrong_way() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    nudges CONSTANT text[] := '{wake_at,reminders,tiers_asked,warned}';
BEGIN
    IF NEW.version = OLD.version AND NEW.wake_at < OLD.wake_at AND current_user = 'lockbox_worker'
        AND OLD.state IN ('reviewing', 'pending') AND to_jsonb(NEW) - 'wake_at' = to_jsonb(OLD) - 'wake_at' THEN
        RETURN NEW;
    END IF;
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

# Operators see to it that notices arrive, and see of a request no more than that one of its notices did not.
DEAD = """
CREATE INDEX ix_notices_dead ON notices (id) WHERE outcome = 'dead';
CREATE FUNCTION dead_notices(before uuid, most integer) RETURNS TABLE (
    id uuid, request_id uuid, tenant text, template text, channel text, died_at timestamptz, attempts integer,
    error text, delivery_id uuid
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT n.id, n.request_id, t.slug, n.template, n.channel, n.closed_at, n.attempts, d.error,
        CASE WHEN h.tenant_id IS NULL AND n.endpoint_id IS NOT NULL THEN d.id END
    FROM notices n LEFT JOIN tenants t ON t.id = n.tenant_id LEFT JOIN endpoints h ON h.id = n.endpoint_id
    LEFT JOIN LATERAL (SELECT v.id, v.error FROM deliveries v WHERE v.notice_id = n.id ORDER BY v.id DESC LIMIT 1) d
        ON true
    WHERE 'operator' = ANY (at_roles()) AND n.outcome = 'dead' AND (before IS NULL OR n.id < before)
    ORDER BY n.id DESC LIMIT most
$$;
REVOKE ALL ON FUNCTION dead_notices FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dead_notices TO lockbox_api;
"""

# One that follows is of the same engineer at the same tenant, and one of them is open at a time.
FOLLOWS = """
ALTER TABLE requests ADD COLUMN follows uuid CONSTRAINT fk_requests_follows REFERENCES requests (id);
CREATE INDEX ix_requests_follows ON requests (follows) WHERE follows IS NOT NULL;
CREATE UNIQUE INDEX uq_requests_follows_open ON requests (follows) WHERE follows IS NOT NULL AND closed_at IS NULL;
CREATE FUNCTION refuse_stray() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM requests r WHERE r.id = NEW.follows AND r.tenant_id = NEW.tenant_id
        AND r.requester_id = NEW.requester_id AND r.state = 'timed_out') THEN
        RAISE EXCEPTION 'request % follows none that it could follow', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER follows_its_own BEFORE INSERT ON requests FOR EACH ROW
    WHEN (NEW.follows IS NOT NULL) EXECUTE FUNCTION refuse_stray();

-- Locks what is asked again for its requester, or for the system that filed it, which sees no request that is over.
-- Who had to wait for the lock is to see what was filed meanwhile: two statements.
CREATE FUNCTION asked_before(of_request uuid) RETURNS TABLE (
    tenant text, requester_id uuid, service text, resources text[], actions text[], reason_code text,
    justification text, case_ref text, access_window integer, state text, open_follower uuid
) LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    r requests;
BEGIN
    SELECT o.* INTO r FROM requests o WHERE o.id = of_request AND (o.requester_id = at_person()
        OR ('system' = ANY (at_roles()) AND EXISTS (SELECT FROM events e
            WHERE e.request_id = o.id AND e.seq = 1 AND e.actor_id = at_person())))
    FOR UPDATE;
    IF r.id IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY SELECT t.slug::text, r.requester_id, r.service::text, r.resources, r.actions, r.reason_code::text,
        r.justification::text, r.case_ref::text, r.access_window, r.state::text,
        (SELECT f.id FROM requests f WHERE f.follows = r.id AND f.closed_at IS NULL)
    FROM tenants t WHERE t.id = r.tenant_id;
END $$;
REVOKE ALL ON FUNCTION asked_before FROM PUBLIC;
GRANT EXECUTE ON FUNCTION asked_before TO lockbox_api;
"""


def upgrade() -> None:
    """Let the clock be set forward, and add what operators read and what follows what."""
    for part in (ONE_WAY, DEAD, FOLLOWS):
        op.execute(part)
