"""What the triggers ask and what readers ask are two functions, so that Postgres keeps a plan for each."""

from alembic import op

revision = "0031"
down_revision = "0030"

# A plan under row-level security is one user's. The triggers run as the owner and readers as themselves: by one
# function each approval had it planned twice, which took longer than all else that was done for it.
FOUNDED = """
DO $$
DECLARE
    body text := (SELECT prosrc FROM pg_proc WHERE oid = 'is_decided(requests)'::regprocedure);
BEGIN
    EXECUTE format('CREATE FUNCTION is_founded(request requests) RETURNS boolean LANGUAGE sql STABLE AS %L', body);
END $$;
REVOKE ALL ON FUNCTION is_founded FROM PUBLIC;
CREATE OR REPLACE FUNCTION refuse_unfounded() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF NEW.state = 'active' AND NOT is_founded(NEW) THEN
        RAISE EXCEPTION 'request % is active without the decisions for it', NEW.id
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF NOT EXISTS (SELECT FROM events e WHERE e.request_id = NEW.id AND e.seq = NEW.version
        AND e.to_state = NEW.state) THEN
        RAISE EXCEPTION 'request % moved without an event', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION refuse_unfounded_batch() RETURNS trigger
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
        AND NOT (SELECT is_founded(r) FROM requests r WHERE r.id = m.id) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'request % is active without the decisions for it', bad
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    """Copy the function as it stands, and let the triggers ask the copy."""
    op.execute(FOUNDED)
