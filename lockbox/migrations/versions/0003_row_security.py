"""Row-level security: no context, no rows; people reach their tenants, the vendor's what their role needs.

The context of a transaction is four settings that end with it: `lockbox.person`, `lockbox.tenants` (where the person
is a member), `lockbox.administers` (where an admin) and `lockbox.roles` (at the vendor). `lockbox.at` is the one
tenant that somebody of the vendor deals with; `lockbox.invitation` and `lockbox.sign_in` are what was shown by
somebody who is nobody yet.
"""

from alembic import op

revision = "0003"
down_revision = "0002"

CONTEXT = """
CREATE FUNCTION at_person() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.person', true), '')::uuid $$;
CREATE FUNCTION at_tenants() RETURNS uuid[] LANGUAGE sql STABLE
    AS $$ SELECT coalesce(nullif(current_setting('lockbox.tenants', true), ''), '{}')::uuid[] $$;
CREATE FUNCTION at_administers() RETURNS uuid[] LANGUAGE sql STABLE
    AS $$ SELECT coalesce(nullif(current_setting('lockbox.administers', true), ''), '{}')::uuid[] $$;
CREATE FUNCTION at_roles() RETURNS text[] LANGUAGE sql STABLE
    AS $$ SELECT coalesce(nullif(current_setting('lockbox.roles', true), ''), '{}')::text[] $$;
CREATE FUNCTION at_tenant() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.at', true), '')::uuid $$;
CREATE FUNCTION at_invitation() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.invitation', true), '')::uuid $$;
CREATE FUNCTION at_sign_in() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT nullif(current_setting('lockbox.sign_in', true), '')::uuid $$;
CREATE FUNCTION at_reach() RETURNS uuid[] LANGUAGE sql STABLE
    AS $$ SELECT at_tenants() || at_tenant() $$;
"""

RECOGNISE = """
CREATE FUNCTION enter_as(who uuid) RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS $$
    SELECT set_config('lockbox.person', who::text, true),
        set_config('lockbox.tenants', coalesce(array_agg(DISTINCT m.tenant_id)
            FILTER (WHERE m.tenant_id IS NOT NULL), '{}')::text, true),
        set_config('lockbox.administers', coalesce(array_agg(m.tenant_id)
            FILTER (WHERE m.role = 'tenant_admin'), '{}')::text, true),
        set_config('lockbox.roles', coalesce(array_agg(m.role) FILTER (WHERE m.tenant_id IS NULL), '{}')::text, true)
    FROM memberships m WHERE m.person_id = who
$$;

-- The one way into a context for somebody who has none: by what they show, to who they are.
CREATE FUNCTION recognise(kind text, shown text, hash bytea) RETURNS TABLE (
    key_id uuid, person_id uuid, name text, side text, disabled boolean, roles text[], tenant_ids uuid[],
    means text, signed_in_at timestamptz, last_seen_at timestamptz, expires_at timestamptz, revoked boolean,
    scopes text[], services text[]
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    CASE kind
    WHEN 'token' THEN
        SELECT t.id, t.person_id, CASE WHEN t.is_sample THEN 'sample' ELSE 'token' END, t.created_at, t.last_used_at,
            t.expires_at, t.revoked_at IS NOT NULL, t.scopes, t.services
        INTO key_id, person_id, means, signed_in_at, last_seen_at, expires_at, revoked, scopes, services
        FROM tokens t WHERE t.id = shown::uuid AND t.secret_hash = hash;
    WHEN 'session' THEN
        SELECT s.id, s.person_id, s.means, s.signed_in_at, s.last_seen_at, s.expires_at, s.revoked_at IS NOT NULL
        INTO key_id, person_id, means, signed_in_at, last_seen_at, expires_at, revoked
        FROM sessions s WHERE s.secret_hash = hash;
    WHEN 'identity' THEN
        SELECT i.person_id, 'oidc' INTO person_id, means
        FROM identities i WHERE i.issuer = split_part(shown, E'\\n', 1) AND i.subject = split_part(shown, E'\\n', 2);
    WHEN 'passkey' THEN
        SELECT k.id, k.person_id, 'passkey' INTO key_id, person_id, means
        FROM passkeys k WHERE k.credential_id = hash;
    WHEN 'sign_in' THEN
        SELECT s.id, p.id, s.means, s.created_at, s.expires_at, s.used_at IS NOT NULL
        INTO key_id, person_id, means, signed_in_at, expires_at, revoked
        FROM sign_ins s LEFT JOIN people p
            ON s.means = 'mail' AND s.proven_at IS NOT NULL AND lower(p.email) = lower(s.email)
        WHERE s.id = shown::uuid AND s.browser_hash = hash;
        PERFORM set_config('lockbox.sign_in', coalesce(key_id::text, ''), true);
    WHEN 'invitation' THEN
        SELECT i.id, p.id, i.expires_at, i.accepted_at IS NOT NULL OR i.withdrawn_at IS NOT NULL, i.roles,
            ARRAY[i.tenant_id]
        INTO key_id, person_id, expires_at, revoked, roles, tenant_ids
        FROM invitations i LEFT JOIN people p ON lower(p.email) = lower(i.email)
        WHERE i.id = shown::uuid AND i.secret_hash = hash;
        PERFORM set_config('lockbox.invitation', coalesce(key_id::text, ''), true),
            set_config('lockbox.at', coalesce(tenant_ids[1]::text, ''), true);
        IF key_id IS NOT NULL THEN
            SELECT p.name, p.side, p.disabled_at IS NOT NULL INTO name, side, disabled
            FROM people p WHERE p.id = recognise.person_id;
            RETURN NEXT;
        END IF;
        RETURN;
    END CASE;
    IF key_id IS NULL AND person_id IS NULL THEN
        RETURN;
    END IF;
    IF person_id IS NOT NULL THEN
        PERFORM enter_as(person_id);
        SELECT p.name, p.side, p.disabled_at IS NOT NULL INTO name, side, disabled
        FROM people p WHERE p.id = recognise.person_id;
        SELECT array_agg(m.role), array_agg(m.tenant_id) INTO roles, tenant_ids
        FROM memberships m WHERE m.person_id = recognise.person_id;
    END IF;
    RETURN NEXT;
END $$;
REVOKE ALL ON FUNCTION recognise FROM PUBLIC;
REVOKE ALL ON FUNCTION enter_as FROM PUBLIC;
GRANT EXECUTE ON FUNCTION recognise TO lockbox_api;
"""

# How many requests were filed is counted over all of them; whoever files sees only their own.
FILINGS = """
CREATE FUNCTION nth_filing(of_tenant uuid, of_token uuid, most_tenant integer, most_token integer)
RETURNS TABLE (tenant_at timestamptz, token_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT (SELECT r.created_at FROM requests r WHERE r.tenant_id = of_tenant
            ORDER BY r.id DESC OFFSET most_tenant - 1 LIMIT 1),
        (SELECT r.created_at FROM requests r WHERE r.token_id = of_token
            ORDER BY r.id DESC OFFSET most_token - 1 LIMIT 1)
$$;
REVOKE ALL ON FUNCTION nth_filing FROM PUBLIC;
GRANT EXECUTE ON FUNCTION nth_filing TO lockbox_api;
"""

# What binds every role must not itself be bound by what one caller may see.
WHOLE_SIGHT = """
ALTER FUNCTION is_decided(requests) SECURITY DEFINER SET search_path = public, pg_temp;
ALTER FUNCTION refuse_unfounded() SECURITY DEFINER SET search_path = public, pg_temp;
ALTER FUNCTION refuse_invented() SECURITY DEFINER SET search_path = public, pg_temp;
"""

# Table, then for each command the condition for the API. USING reads what is there, CHECK what is written.
VENDOR = "cardinality((SELECT at_roles())) > 0"
MEMBER = "tenant_id = ANY ((SELECT at_tenants())::uuid[])"
REACHED = "tenant_id = ANY ((SELECT at_reach())::uuid[])"
ADMIN = "tenant_id = ANY ((SELECT at_administers())::uuid[])"
ME = "(SELECT at_person())"


def _role(*names: str) -> str:
    return f"(SELECT at_roles()) && '{{{','.join(names)}}}'::text[]"


OF_A_REQUEST = "EXISTS (SELECT FROM requests r WHERE r.id = request_id)"
API: dict[str, dict[str, str]] = {
    "tenants": {
        "SELECT": f"{VENDOR} OR id = ANY ((SELECT at_reach())::uuid[])",
        "INSERT": _role("operator"),
        "UPDATE": f"{_role('operator')} OR id = ANY ((SELECT at_administers())::uuid[])",
    },
    "policies": {
        "SELECT": REACHED,
        "INSERT": f"{ADMIN} OR ({_role('operator')} AND version = 1)",
    },
    "people": {
        "SELECT": f"""id = {ME} OR (side = 'vendor' AND {ME} IS NOT NULL)
            OR EXISTS (SELECT FROM memberships m WHERE m.person_id = people.id
                AND m.tenant_id = ANY ((SELECT at_reach())::uuid[]))""",
        "INSERT": "(SELECT at_invitation()) IS NOT NULL",
        "UPDATE": f"id = {ME} OR (side = 'vendor' AND {_role('operator')})",
    },
    "memberships": {
        "SELECT": f"person_id = {ME} OR (tenant_id IS NULL AND {ME} IS NOT NULL) OR {REACHED}",
        "INSERT": f"""{ADMIN} OR (tenant_id IS NULL AND {_role("operator")} AND person_id <> {ME})
            OR EXISTS (SELECT FROM invitations i WHERE i.id = (SELECT at_invitation())
                AND i.tenant_id IS NOT DISTINCT FROM memberships.tenant_id AND memberships.role = ANY (i.roles)
                AND i.withdrawn_at IS NULL)""",
        "DELETE": f"{ADMIN} OR (tenant_id IS NULL AND {_role('operator')} AND person_id <> {ME})",
    },
    "eligible_deputies": {"SELECT": REACHED, "INSERT": ADMIN, "DELETE": ADMIN},
    "delegations": {
        "SELECT": REACHED,
        "INSERT": f"{ADMIN} OR ({MEMBER} AND principal_id = {ME})",
        "UPDATE": f"{ADMIN} OR ({MEMBER} AND principal_id = {ME})",
    },
    "invitations": {
        "SELECT": f"id = (SELECT at_invitation()) OR {MEMBER} OR {_role('operator')}",
        "INSERT": f"""invited_by = {ME} AND accepted_at IS NULL AND secret_hash IS NULL
            AND (({ADMIN} AND NOT is_recovery) OR (tenant_id IS NULL AND {_role("operator")})
            OR ({_role("operator")} AND roles = '{{tenant_admin}}'))""",
        "UPDATE": f"id = (SELECT at_invitation()) OR {MEMBER} OR ({_role('operator')} AND tenant_id IS NULL)",
    },
    "tokens": dict.fromkeys(("SELECT", "INSERT", "UPDATE"), f"person_id = {ME}"),
    "identities": dict.fromkeys(("SELECT", "INSERT", "DELETE"), f"person_id = {ME}"),
    "passkeys": dict.fromkeys(("SELECT", "INSERT", "UPDATE", "DELETE"), f"person_id = {ME}"),
    "sessions": dict.fromkeys(("SELECT", "INSERT", "UPDATE"), f"person_id = {ME}"),
    "sign_ins": {
        "SELECT": "id = (SELECT at_sign_in())",
        "INSERT": "proven_at IS NULL AND used_at IS NULL",
        "UPDATE": "id = (SELECT at_sign_in())",
    },
    "sign_in_counts": dict.fromkeys(("SELECT", "INSERT", "UPDATE", "DELETE"), "true"),
    "requests": {
        "SELECT": f"""requester_id = {ME} OR {_role("manager", "vendor_auditor")} OR {MEMBER}
            OR (state = 'active' AND {_role("system")})""",
        "INSERT": f"""tenant_id = (SELECT at_tenant()) AND ({_role("system")}
            OR (requester_id = {ME} AND {_role("engineer")}))""",
        "UPDATE": f"requester_id = {ME} OR {_role('manager', 'operator')} OR {MEMBER}",
    },
    "decisions": {"SELECT": OF_A_REQUEST, "INSERT": f"person_id = {ME} AND {OF_A_REQUEST}"},
    "idempotency_keys": dict.fromkeys(("SELECT", "INSERT", "UPDATE", "DELETE"), f"person_id = {ME}"),
    "events": {
        "SELECT": f"""CASE WHEN request_id IS NOT NULL THEN {OF_A_REQUEST}
            ELSE {MEMBER} OR actor_id = {ME} OR {_role("vendor_auditor")} END""",
        "INSERT": f"tenant_id IS NULL OR {REACHED}",
    },
    "event_details": {
        "SELECT": "EXISTS (SELECT FROM events e WHERE e.id = event_id)",
        "INSERT": "true",
    },
    "unsealed": {"INSERT": "true"},
    "endpoints": {
        "SELECT": f"(tenant_id IS NULL AND {ME} IS NOT NULL) OR {REACHED}",
        "INSERT": f"{ADMIN} OR (tenant_id IS NULL AND {_role('operator')})",
        "UPDATE": f"{ADMIN} OR (tenant_id IS NULL AND {_role('operator')})",
    },
    "notices": {
        "SELECT": f"CASE WHEN request_id IS NOT NULL THEN {OF_A_REQUEST} ELSE {MEMBER} END",
        "INSERT": f"tenant_id IS NULL OR {REACHED}",
    },
}

# The workers act for everybody; what they may do with a table is bound by their rights on it.
WORKER = (
    "tenants",
    "policies",
    "people",
    "memberships",
    "eligible_deputies",
    "delegations",
    "invitations",
    "sign_ins",
    "sign_in_counts",
    "requests",
    "decisions",
    "idempotency_keys",
    "events",
    "event_details",
    "unsealed",
    "endpoints",
    "notices",
)

RIGHTS = """
GRANT SELECT, INSERT ON policies, eligible_deputies, delegations, identities, passkeys, sessions, sign_ins,
    sign_in_counts TO lockbox_api;
REVOKE UPDATE (name, mode, suspended) ON tenants FROM lockbox_api;
GRANT UPDATE (name, mode, suspended, plan, policy_version) ON tenants TO lockbox_api;
GRANT DELETE ON eligible_deputies, identities, passkeys, sign_in_counts TO lockbox_api;
GRANT UPDATE (ends_at, ended_at) ON delegations TO lockbox_api;
GRANT INSERT ON invitations TO lockbox_api;
GRANT SELECT (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at, expires_at,
    accepted_at, accepted_by, withdrawn_at, withdrawn_by) ON invitations TO lockbox_api;
GRANT UPDATE (accepted_at, accepted_by, withdrawn_at, withdrawn_by) ON invitations TO lockbox_api;
GRANT UPDATE (name, last_used_at) ON tokens TO lockbox_api;
GRANT UPDATE (sign_count, last_used_at, name) ON passkeys TO lockbox_api;
GRANT UPDATE (last_seen_at, revoked_at) ON sessions TO lockbox_api;
GRANT UPDATE (tries, proven_at, used_at) ON sign_ins TO lockbox_api;
GRANT UPDATE ON sign_in_counts TO lockbox_api;
GRANT UPDATE (quorum) ON requests TO lockbox_api;

GRANT SELECT ON policies, eligible_deputies, delegations TO lockbox_worker;
GRANT SELECT (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, takes_effect_at, expires_at,
    accepted_at, withdrawn_at) ON invitations TO lockbox_worker;
GRANT UPDATE (secret_hash, expires_at) ON invitations TO lockbox_worker;
GRANT SELECT (id, means, email, created_at, expires_at, proven_at, used_at) ON sign_ins TO lockbox_worker;
GRANT UPDATE (code_hash) ON sign_ins TO lockbox_worker;
GRANT DELETE ON sign_ins, sign_in_counts TO lockbox_worker;
GRANT SELECT (key, since) ON sign_in_counts TO lockbox_worker;
"""

ONLY_ITS_ADMINS = """
CREATE FUNCTION refuse_other_hand() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'only the admins of tenant % change its mode and its policy', NEW.id
        USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER only_its_admins BEFORE UPDATE ON tenants FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND (NEW.mode <> OLD.mode OR NEW.policy_version <> OLD.policy_version)
        AND NOT NEW.id = ANY (at_administers())) EXECUTE FUNCTION refuse_other_hand();
CREATE TRIGGER only_operators BEFORE UPDATE ON tenants FOR EACH ROW
    WHEN (current_user = 'lockbox_api' AND (NEW.suspended <> OLD.suspended OR NEW.plan <> OLD.plan)
        AND NOT 'operator' = ANY (at_roles())) EXECUTE FUNCTION refuse_other_hand();

CREATE FUNCTION refuse_looser() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the quorum of request % may not fall', NEW.id USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER never_looser BEFORE UPDATE ON requests FOR EACH ROW WHEN (NEW.quorum < OLD.quorum)
    EXECUTE FUNCTION refuse_looser();
"""


def _policies() -> str:
    lines = []
    for table, commands in API.items():
        lines += [f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;", f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"]
        for command, condition in commands.items():
            clause = "WITH CHECK" if command == "INSERT" else "USING"
            lines.append(
                f"CREATE POLICY api_{command.lower()} ON {table} FOR {command} TO lockbox_api {clause} ({condition});"
            )
    lines += [f"CREATE POLICY worker ON {table} FOR ALL TO lockbox_worker USING (true);" for table in WORKER]
    return "\n".join(lines)


def upgrade() -> None:
    for part in (CONTEXT, RECOGNISE, FILINGS, WHOLE_SIGHT, _policies(), RIGHTS, ONLY_ITS_ADMINS):
        op.execute(part)
