"""The clock's moves are held against their events once a statement, not once a row: a batch has hundreds."""

from alembic import op

revision = "0022"
down_revision = "0021"

# A worker writes each batch in one statement; people's moves are judged at their commit, in whatever order they were
# written. A look-up by index for each row, however many: joined the other way, a batch would read whole tables.
FOUNDED = """
DROP TRIGGER moves_are_founded ON requests;
CREATE CONSTRAINT TRIGGER moves_are_founded AFTER INSERT OR UPDATE ON requests DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (current_user <> 'lockbox_worker') EXECUTE FUNCTION refuse_unfounded();
CREATE FUNCTION refuse_unfounded_batch() RETURNS trigger
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
CREATE TRIGGER batches_are_founded AFTER UPDATE ON requests REFERENCING NEW TABLE AS moved FOR EACH STATEMENT
    WHEN (current_user = 'lockbox_worker') EXECUTE FUNCTION refuse_unfounded_batch();

DROP TRIGGER events_are_true ON events;
CREATE CONSTRAINT TRIGGER events_are_true AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.seq IS NOT NULL AND current_user <> 'lockbox_worker') EXECUTE FUNCTION refuse_invented();
CREATE FUNCTION refuse_invented_batch() RETURNS trigger
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
CREATE TRIGGER batches_are_true AFTER INSERT ON events REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT
    WHEN (current_user = 'lockbox_worker') EXECUTE FUNCTION refuse_invented_batch();
"""


def upgrade() -> None:
    """Add statement triggers for the workers, who are left out of the deferred ones."""
    op.execute(FOUNDED)
