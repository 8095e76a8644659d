"""A request in review goes on under the stricter of two modes, and an emergency stop denies it."""

from alembic import op

revision = "0034"
down_revision = "0033"

# A request only ever gets stricter, and only as it leaves the vendor's review.
STRICTER = """
GRANT UPDATE (mode, consent_until) ON requests TO lockbox_api;
CREATE FUNCTION strictness(mode text) RETURNS integer LANGUAGE sql IMMUTABLE AS $$
    SELECT array_position(ARRAY['off', 'observe', 'enforce'], mode)
$$;
CREATE TRIGGER never_in_a_looser_mode BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.mode <> OLD.mode AND (OLD.state <> 'reviewing' OR NEW.state NOT IN ('pending', 'active')
        OR strictness(NEW.mode) < strictness(OLD.mode)))
    EXECUTE FUNCTION refuse_change_by('the mode of request %s only gets stricter, as it leaves the review');
CREATE TRIGGER never_by_longer_consent BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.consent_until IS DISTINCT FROM OLD.consent_until AND (OLD.state <> 'reviewing'
        OR NEW.consent_until > OLD.consent_until OR (NEW.consent_until IS NULL AND NEW.mode <> 'enforce')))
    EXECUTE FUNCTION refuse_change_by('the consent that request %s rests on only gets shorter');
"""

# What the vendor opens alone is within the tenant's mode at that moment, or within consent that lasts as long.
OPENED_ALONE = """
CREATE FUNCTION refuse_without_the_customer() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
        WHERE t.id = NEW.tenant_id AND (t.mode <> 'enforce'
            OR CAST(p.body -> 'consent' ->> 'until' AS timestamptz) >= NEW.deadline_at)) THEN
        RAISE EXCEPTION 'the customer decides about request %', NEW.id USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_where_the_customer_lets BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (OLD.state = 'reviewing' AND NEW.state = 'active') EXECUTE FUNCTION refuse_without_the_customer();
"""

# As in 0004, but an admin's emergency stop denies what is in review.
IN_REVIEW = """
DROP TRIGGER only_managers_open_alone ON requests;
CREATE TRIGGER only_managers_open_alone BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND OLD.state = 'reviewing' AND NEW.state <> 'cancelled'
        AND NOT 'manager' = ANY (at_roles())
        AND NOT (NEW.state = 'denied' AND OLD.tenant_id = ANY (at_administers())))
    EXECUTE FUNCTION refuse_change_by('only a manager endorses request %s, or denies it but for an emergency stop');
"""


def upgrade() -> None:
    """Add the rights and the triggers; what is there stays as it is."""
    for part in (STRICTER, OPENED_ALONE, IN_REVIEW):
        op.execute(part)
