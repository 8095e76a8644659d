"""The notifications worker has a login of its own: it sends and records, and neither moves requests nor seals.

`config/roles.sql` makes the login; run it before this.
"""

from alembic import op

revision = "0041"
down_revision = "0040"

# What both read to say what happened, and what only one of them writes.
RIGHTS = """
DO $$
DECLARE one record;
BEGIN
    FOR one IN SELECT tablename FROM pg_policies WHERE schemaname = 'public' AND policyname = 'worker'
        AND tablename NOT IN ('sessions', 'sign_in_counts', 'terminals', 'idempotency_keys', 'unsealed',
            'tiles', 'audit_keys', 'reports_due', 'heartbeats', 'alarms', 'lag_samples', 'refused')
    LOOP
        EXECUTE format('CREATE POLICY notices ON %I FOR ALL TO lockbox_notices USING (true)', one.tablename);
    END LOOP;
    FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace
        AND EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 'lockbox_worker'::regrole)
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO lockbox_notices', one.name);
    END LOOP;
    -- Column by column, as the worker reads them today.
    FOR one IN SELECT c.oid::regclass AS name, string_agg(quote_ident(a.attname), ', ') AS columns
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
        AND has_column_privilege('lockbox_worker', c.oid, a.attnum, 'SELECT')
        AND (c.relname = 'alembic_version' OR EXISTS (SELECT FROM pg_policies p WHERE p.schemaname = 'public'
            AND p.tablename = c.relname AND p.policyname = 'notices'))
        GROUP BY c.oid
    LOOP
        EXECUTE format('GRANT SELECT (%s) ON %s TO lockbox_notices', one.columns, one.name);
    END LOOP;
END $$;
GRANT INSERT ON events, event_details, notices, deliveries, tallies TO lockbox_notices;
GRANT UPDATE (run_at, attempts, closed_at, outcome, last_error) ON notices TO lockbox_notices;
GRANT UPDATE (disabled_at, why_disabled, failing_since) ON endpoints TO lockbox_notices;
GRANT UPDATE (wake_at) ON requests TO lockbox_notices;

-- The core worker closes no notice, says of none that it was sent, and knows no code.
REVOKE UPDATE (run_at, attempts, closed_at, outcome, last_error) ON notices FROM lockbox_worker;
REVOKE INSERT ON deliveries FROM lockbox_worker;
REVOKE UPDATE (disabled_at, why_disabled, failing_since) ON endpoints FROM lockbox_worker;
REVOKE SELECT (code_nonce) ON invitations, sign_ins, addresses FROM lockbox_worker;
"""

# Who could reach nobody is not made to wait: that much of a request's clock is the notifications worker's, no more.
CLOCK = """
DO $$
DECLARE
    body text := pg_get_functiondef('refuse_wrong_way'::regproc);
BEGIN
    body := replace(body, 'current_user = ''lockbox_worker''', 'current_user = ''lockbox_notices''');
    body := replace(body, 'current_user <> ''lockbox_api''',
        'current_user NOT IN (''lockbox_api'', ''lockbox_notices'')');
    EXECUTE body;
END $$;
DROP TRIGGER workers_speak_for_the_clock ON events;
CREATE TRIGGER workers_speak_for_the_clock BEFORE INSERT ON events FOR EACH ROW
    WHEN ((current_user = 'lockbox_worker' AND (NEW.actor_role <> 'clock' OR (NEW.seq IS NOT NULL
            AND NEW.to_state NOT IN ('timed_out', 'expired'))))
        OR (current_user = 'lockbox_notices' AND (NEW.actor_role <> 'clock' OR NEW.seq IS NOT NULL)))
    EXECUTE FUNCTION refuse_other_voice();
"""

# Nobody says that a notice was sent without the row of the log that says when, where to and what was answered.
SENT = """
CREATE FUNCTION refuse_unrecorded() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM deliveries d WHERE d.notice_id = NEW.id AND d.error IS NULL) THEN
        RAISE EXCEPTION 'notice % was sent without a delivery', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER sent_is_on_record AFTER UPDATE ON notices DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (current_user = 'lockbox_notices' AND NEW.outcome = 'sent' AND OLD.outcome IS DISTINCT FROM 'sent')
    EXECUTE FUNCTION refuse_unrecorded();
"""


def upgrade() -> None:
    """Part what the two workers may do."""
    for part in (RIGHTS, CLOCK, SENT):
        op.execute(part)
