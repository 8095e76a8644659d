"""A window opens by signed approvals also where a rule of the policy demands them, that of submit or today's."""

from alembic import op

revision = "0048"
down_revision = "0047"

# As `fits` and `Match.matches` of lockbox.requests.rules.
DEMANDED = r"""
CREATE FUNCTION fits(pattern text, resource text) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT resource LIKE replace(replace(replace(replace(pattern, '\', '\\'), '%', '\%'), '_', '\_'), '*', '%')
$$;
CREATE FUNCTION demands_passkeys(policy jsonb, service text, actions text[], reason text, resources text[])
RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(policy ->> 'approve_means', '') = 'passkey-signed' OR EXISTS (
        SELECT FROM jsonb_array_elements(coalesce(policy -> 'rules', '[]')) AS rule
        CROSS JOIN LATERAL (SELECT coalesce(rule #> '{match,services}', '[]') AS services,
            coalesce(rule #> '{match,actions}', '[]') AS actions,
            coalesce(rule #> '{match,reasons}', '[]') AS reasons,
            coalesce(rule #> '{match,resources}', '[]') AS resources) AS about
        WHERE rule #>> '{terms,approve_means}' = 'passkey-signed'
            AND (about.services = '[]' OR about.services ? demands_passkeys.service)
            AND (about.actions = '[]' OR about.actions ?| demands_passkeys.actions)
            AND (about.reasons = '[]' OR about.reasons ? demands_passkeys.reason)
            AND (about.resources = '[]' OR EXISTS (SELECT FROM jsonb_array_elements_text(about.resources) AS pattern,
                unnest(demands_passkeys.resources) AS resource WHERE fits(pattern, resource))))
$$;
"""

# What the row says it is judged by, from then on: so it says so before it opens. Somebody who approves while the
# policy gets stricter is told to try again, as the state of this error has it, and then to sign.
SAID = """
CREATE FUNCTION refuse_unsigned() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM tenants t JOIN policies p ON p.tenant_id = t.id
            AND p.version IN (t.policy_version, NEW.policy_version)
        WHERE t.id = NEW.tenant_id
            AND demands_passkeys(p.body, NEW.service, NEW.actions, NEW.reason_code, NEW.resources)) THEN
        RAISE EXCEPTION 'the policy demands signed approvals for request %', NEW.id
            USING ERRCODE = 'serialization_failure';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_signed_where_demanded BEFORE UPDATE ON requests FOR EACH ROW
    WHEN (NEW.state = 'active' AND OLD.state <> 'active' AND NEW.mode = 'enforce' AND NEW.approve_means = 'attested')
    EXECUTE FUNCTION refuse_unsigned();
"""


def upgrade() -> None:
    """Add functions and a trigger; what is open stays open."""
    for part in (DEMANDED, SAID):
        op.execute(part)
