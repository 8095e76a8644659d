"""What is recorded further: refusals counted by the minute, use inside a window; and what the owner may take away."""

from alembic import op

revision = "0018"
down_revision = "0017"

# One row for whatever is counted together in one minute; once that is over, a worker makes an event of it.
REFUSED = """
CREATE TABLE refused (
    key bytea CONSTRAINT pk_refused PRIMARY KEY CONSTRAINT ck_refused_key CHECK (octet_length(key) = 32),
    minute timestamptz NOT NULL,
    kind varchar(24) NOT NULL CONSTRAINT ck_refused_kind CHECK (kind IN ('sign_in_refused', 'decision_refused')),
    person_id uuid,
    request_id uuid,
    facts jsonb NOT NULL,
    personal jsonb NOT NULL,
    count bigint NOT NULL CONSTRAINT ck_refused_count CHECK (count > 0)
);
CREATE INDEX ix_refused_minute ON refused (minute);
ALTER TABLE refused ENABLE ROW LEVEL SECURITY;
ALTER TABLE refused FORCE ROW LEVEL SECURITY;
CREATE POLICY worker ON refused FOR ALL TO lockbox_worker USING (true);
GRANT SELECT, DELETE ON refused TO lockbox_worker;

-- Whoever is refused may be nobody yet, and nobody reads what is counted: the API adds, and does nothing else.
CREATE FUNCTION count_refused(of_key bytea, of_minute timestamptz, of_kind text, of_person uuid, of_request uuid,
    with_facts jsonb, with_personal jsonb) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    INSERT INTO refused AS r (key, minute, kind, person_id, request_id, facts, personal, count)
    VALUES (of_key, of_minute, of_kind, of_person, of_request, with_facts, with_personal, 1)
    ON CONFLICT (key) DO UPDATE SET count = r.count + 1
$$;
REVOKE ALL ON FUNCTION count_refused FROM PUBLIC;
GRANT EXECUTE ON FUNCTION count_refused TO lockbox_api;
"""

# Whoever opens a window lists the key that it was signed by; nobody without a context opens one.
APPROVAL_KEYS = """
ALTER POLICY api_insert ON audit_keys WITH CHECK (purpose = 'approval' AND (SELECT at_person()) IS NOT NULL);
"""

# A system sees open windows alone; to report what was done in one it needs a little of it afterwards too.
ACTIVITY = """
CREATE FUNCTION reported_window(of_request uuid) RETURNS TABLE (id uuid, tenant_id uuid, requester_id uuid,
    service text, resources text[], actions text[], opened_at timestamptz, deadline_at timestamptz,
    closed_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT r.id, r.tenant_id, r.requester_id, r.service, r.resources, r.actions, r.opened_at, r.deadline_at,
        r.closed_at
    FROM requests r WHERE r.id = of_request AND 'system' = ANY (at_roles())
$$;
REVOKE ALL ON FUNCTION reported_window FROM PUBLIC;
GRANT EXECUTE ON FUNCTION reported_window TO lockbox_api;
CREATE INDEX ix_events_activity ON events (request_id, at) WHERE action = 'activity';
"""

# What the database's owner does by a command says so first, and no server can: `session_user` is whoever logged in.
# Beside the clock, the owner is the only actor who is no person of the house.
OWNER = """
CREATE FUNCTION is_errand(what text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT session_user = 'lockbox_owner' AND coalesce(current_setting('lockbox.errand', true), '') = what
$$;
ALTER TABLE events DROP CONSTRAINT ck_events_actor,
    ADD CONSTRAINT ck_events_actor CHECK ((actor_id IS NULL) = (actor_role IN ('clock', 'owner')));
"""

# Where somebody was is taken out of what they decided; what they decided stays as it is.
ERASING = """
DROP TRIGGER append_only ON decisions;
CREATE TRIGGER append_only BEFORE UPDATE ON decisions FOR EACH ROW
    WHEN (NOT (is_errand('erase') AND to_jsonb(NEW) - '{address,user_agent}'::text[]
        = to_jsonb(OLD) - '{address,user_agent}'::text[])) EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_goes BEFORE DELETE ON decisions FOR EACH ROW EXECUTE FUNCTION refuse_change();
DROP TRIGGER never_revived ON invitations;
CREATE TRIGGER never_revived BEFORE UPDATE ON invitations FOR EACH ROW
    WHEN ((OLD.accepted_at IS NOT NULL OR OLD.withdrawn_at IS NOT NULL) AND NOT is_errand('erase'))
    EXECUTE FUNCTION refuse_change_by('invitation %s is over');
DROP TRIGGER never_revived ON addresses;
CREATE TRIGGER never_revived BEFORE UPDATE ON addresses FOR EACH ROW
    WHEN (OLD.removed_at IS NOT NULL AND NOT is_errand('erase'))
    EXECUTE FUNCTION refuse_change_by('address %s was removed');
DROP TRIGGER never_revived ON watchers;
CREATE TRIGGER never_revived BEFORE UPDATE ON watchers FOR EACH ROW
    WHEN (OLD.removed_at IS NOT NULL AND NOT is_errand('erase'))
    EXECUTE FUNCTION refuse_change_by('watcher %s was removed');
"""

# Whole ranges of a log go from its beginning; what was sealed over them, and so every proof, stays.
KEEPING = """
ALTER TABLE logs ADD COLUMN kept_from bigint NOT NULL DEFAULT 0
    CONSTRAINT ck_logs_kept_from CHECK (kept_from BETWEEN 0 AND size),
    ADD COLUMN kept_since timestamptz;
DROP TRIGGER append_only ON events;
CREATE TRIGGER append_only BEFORE UPDATE ON events FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_goes BEFORE DELETE ON events FOR EACH ROW
    WHEN (NOT is_errand('retain')) EXECUTE FUNCTION refuse_change();
"""

# Whoever asks whether a window is open reads no log; how long one is, is no secret, and says what was rolled back.
BEHIND = """
CREATE FUNCTION log_heads(of_logs uuid[]) RETURNS TABLE (id uuid, origin text, size bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT l.id, l.origin, l.size FROM logs l WHERE l.id = ANY (of_logs)
$$;
REVOKE ALL ON FUNCTION log_heads FROM PUBLIC;
GRANT EXECUTE ON FUNCTION log_heads TO lockbox_api;
"""


def upgrade() -> None:
    """Add tables, functions and columns; what is there stays as it is."""
    for part in (REFUSED, APPROVAL_KEYS, ACTIVITY, OWNER, ERASING, KEEPING, BEHIND):
        op.execute(part)
