"""Questions about a request and their answers; where the policy says so, the clock stops while one waits."""

from alembic import op

revision = "0027"
down_revision = "0026"

# While a question waits, the deadline is the last that it may become: the clock stands for a window more at most.
CLOCK = """
ALTER TABLE requests
    ADD COLUMN stopped_at timestamptz,
    ADD COLUMN stopped_deadline timestamptz,
    ADD COLUMN stopped_for integer NOT NULL DEFAULT 0,
    ADD CONSTRAINT ck_requests_stopped_for CHECK (stopped_for BETWEEN 0 AND approval_window),
    ADD CONSTRAINT ck_requests_stopped CHECK (CASE WHEN stopped_at IS NULL THEN stopped_deadline IS NULL
        ELSE stopped_deadline IS NOT NULL
            AND deadline_at <= stopped_deadline + (approval_window - stopped_for) * interval '1 second' END);
GRANT UPDATE (stopped_at, stopped_deadline, stopped_for) ON requests TO lockbox_api;
"""

# As in 0012, but for the first block: an approver's question stops the clock, the requester's answer lets it go on.
ONE_WAY = """
CREATE OR REPLACE FUNCTION refuse_wrong_way() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    nudges CONSTANT text[] := '{wake_at,reminders,tiers_asked,warned}';
    clock CONSTANT text[] := '{deadline_at,wake_at,stopped_at,stopped_deadline,stopped_for}';
    moved CONSTANT interval := make_interval(secs => NEW.stopped_for - OLD.stopped_for);
BEGIN
    IF NEW.version = OLD.version AND OLD.state = 'pending' AND current_user = 'lockbox_api'
        AND to_jsonb(NEW) - clock = to_jsonb(OLD) - clock AND NEW.wake_at <= NEW.deadline_at
        AND (CASE WHEN OLD.stopped_at IS NULL
            THEN NEW.stopped_at IS NOT NULL AND NEW.stopped_deadline = OLD.deadline_at
                AND NEW.deadline_at > OLD.deadline_at AND NEW.stopped_for = OLD.stopped_for
                AND at_decides(OLD.tenant_id)
            ELSE NEW.stopped_at IS NULL AND NEW.stopped_for >= OLD.stopped_for AND NEW.deadline_at <= OLD.deadline_at
                AND NEW.deadline_at = OLD.stopped_deadline + moved AND OLD.requester_id = at_person() END) THEN
        RETURN NEW;
    END IF;
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

# Who asks whom is the house's to judge, as with decisions; nobody asks in another's name, or answers for another.
QUESTIONS = """
CREATE TABLE questions (
    id uuid CONSTRAINT pk_questions PRIMARY KEY,
    tenant_id uuid NOT NULL CONSTRAINT fk_questions_tenant_id REFERENCES tenants (id),
    request_id uuid NOT NULL CONSTRAINT fk_questions_request_id REFERENCES requests (id),
    state varchar(24) NOT NULL CONSTRAINT ck_questions_state CHECK (state IN ('reviewing', 'pending', 'active')),
    stops_clock boolean NOT NULL,
    asked_by uuid NOT NULL CONSTRAINT fk_questions_asked_by REFERENCES people (id),
    asked_at timestamptz NOT NULL,
    asked_event uuid NOT NULL,
    answered_by uuid CONSTRAINT fk_questions_answered_by REFERENCES people (id),
    answered_at timestamptz CONSTRAINT ck_questions_answered_at CHECK (answered_at >= asked_at),
    answer_event uuid,
    CONSTRAINT ck_questions_answer CHECK (num_nulls(answered_by, answered_at, answer_event) IN (0, 3)),
    CONSTRAINT ck_questions_stops_clock CHECK (state = 'pending' OR NOT stops_clock)
);
CREATE INDEX ix_questions_request_id ON questions (request_id);
CREATE TRIGGER answered_once BEFORE UPDATE ON questions FOR EACH ROW
    WHEN (OLD.answered_at IS NOT NULL) EXECUTE FUNCTION refuse_change_by('question %s was answered');
CREATE TRIGGER never_goes BEFORE DELETE ON questions FOR EACH ROW EXECUTE FUNCTION refuse_change();

ALTER TABLE questions ENABLE ROW LEVEL SECURITY;
ALTER TABLE questions FORCE ROW LEVEL SECURITY;
CREATE POLICY api_select ON questions FOR SELECT TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id)
        AND (state <> 'reviewing' OR NOT tenant_id = ANY ((SELECT at_tenants())::uuid[])));
CREATE POLICY api_insert ON questions FOR INSERT TO lockbox_api
    WITH CHECK (asked_by = (SELECT at_person()) AND answered_at IS NULL
        AND EXISTS (SELECT FROM requests r WHERE r.id = request_id AND r.tenant_id = questions.tenant_id
            AND r.state = questions.state AND r.requester_id <> (SELECT at_person())
            AND ((r.state <> 'reviewing' AND at_decides(r.tenant_id))
                OR (r.state <> 'pending' AND (SELECT at_roles()) && '{manager}'::text[]))));
CREATE POLICY api_update ON questions FOR UPDATE TO lockbox_api
    USING (EXISTS (SELECT FROM requests r WHERE r.id = request_id AND r.requester_id = (SELECT at_person())
        AND r.closed_at IS NULL))
    WITH CHECK (answered_by = (SELECT at_person()));
GRANT SELECT, INSERT, UPDATE (answered_by, answered_at, answer_event) ON questions TO lockbox_api;
"""


def upgrade() -> None:
    """Add a table and columns; what waits keeps its clock as it is."""
    for part in (CLOCK, ONE_WAY, QUESTIONS):
        op.execute(part)
