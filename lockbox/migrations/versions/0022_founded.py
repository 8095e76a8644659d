"""Moves and their events are held against each other once a statement, not once a row: it writes both."""

from alembic import op

revision = "0022"
down_revision = "0021"

# A look-up by index for each row, however many: joined the other way, a statement would read whole tables.
FOUNDED = """
DROP TRIGGER moves_are_founded ON requests;
CREATE OR REPLACE FUNCTION refuse_unfounded() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    bad uuid;
BEGIN
    SELECT m.id INTO bad FROM moved m WHERE NOT EXISTS (SELECT FROM events e WHERE e.request_id = m.id
        AND e.seq = m.version AND e.to_state = m.state OFFSET 0) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'request % moved without an event', bad USING ERRCODE = 'insufficient_privilege';
    END IF;
    SELECT m.id INTO bad FROM moved m WHERE m.state = 'active'
        AND NOT (SELECT is_decided(r) FROM requests r WHERE r.id = m.id) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'request % is active without the decisions for it', bad
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER filings_are_founded AFTER INSERT ON requests REFERENCING NEW TABLE AS moved FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_unfounded();
CREATE TRIGGER moves_are_founded AFTER UPDATE ON requests REFERENCING NEW TABLE AS moved FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_unfounded();

DROP TRIGGER events_are_true ON events;
CREATE OR REPLACE FUNCTION refuse_invented() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    bad uuid;
BEGIN
    SELECT f.id INTO bad FROM fresh f WHERE f.seq IS NOT NULL AND NOT EXISTS (SELECT FROM requests r
        WHERE r.id = f.request_id AND r.version >= f.seq OFFSET 0) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'event % tells of a move that was not made', bad USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER events_are_true AFTER INSERT ON events REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    EXECUTE FUNCTION refuse_invented();
"""


def upgrade() -> None:
    """Put statement triggers in the place of the deferred ones."""
    op.execute(FOUNDED)
