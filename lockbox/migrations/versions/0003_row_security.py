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
        IF key_id IS NOT NULL THEN
            PERFORM set_config('lockbox.invitation', CASE WHEN revoked OR expires_at IS NULL
                OR expires_at <= clock_timestamp() THEN '' ELSE key_id::text END, true);
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

# What has to look further than whoever asks may see; each answers with less than a row.
SIGHT = """
-- Operators offer a tenant's first place, and after that only propose, with 72 hours in which the tenant may object.
CREATE FUNCTION is_new(tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT NOT EXISTS (SELECT FROM memberships m WHERE m.tenant_id = tenant)
        AND NOT EXISTS (SELECT FROM invitations i WHERE i.tenant_id = tenant)
$$;
-- Admins change the roles of members; who is none comes in by an invitation.
CREATE FUNCTION is_member(who uuid, tenant uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM memberships m WHERE m.person_id = who AND m.tenant_id = tenant)
$$;
-- A place that an open invitation offers is for whoever has its address, and for nobody else.
CREATE FUNCTION is_guest(who uuid, tenant uuid, as_role text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM invitations i JOIN people p ON lower(p.email) = lower(i.email)
        WHERE i.id = at_invitation() AND p.id = who AND i.tenant_id IS NOT DISTINCT FROM tenant
        AND as_role = ANY (i.roles) AND i.withdrawn_at IS NULL AND i.accepted_at IS NULL)
$$;
-- What one statement writes together it does not see, so this is about events of earlier ones.
CREATE FUNCTION stands(event uuid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT EXISTS (SELECT FROM events e WHERE e.id = event)
$$;
-- How many requests were filed is counted over all of them; whoever files sees only their own.
CREATE FUNCTION nth_filing(of_tenant uuid, of_token uuid, most_tenant integer, most_token integer)
RETURNS TABLE (tenant_at timestamptz, token_at timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT (SELECT r.created_at FROM requests r WHERE r.tenant_id = of_tenant AND of_tenant = ANY (at_reach())
            ORDER BY r.id DESC OFFSET most_tenant - 1 LIMIT 1),
        (SELECT r.created_at FROM requests r WHERE r.token_id = of_token
            AND EXISTS (SELECT FROM tokens t WHERE t.id = of_token AND t.person_id = at_person())
            ORDER BY r.id DESC OFFSET most_token - 1 LIMIT 1)
$$;
-- Both sides hear of a move by webhook, and neither reads where the other is called.
CREATE FUNCTION receivers(tenants uuid[]) RETURNS TABLE (tenant_id uuid, id uuid, event_types text[])
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT e.tenant_id, e.id, e.event_types FROM endpoints e
    WHERE e.disabled_at IS NULL AND (e.tenant_id IS NULL OR (e.tenant_id = ANY (tenants)
        AND (session_user <> 'lockbox_api' OR e.tenant_id = ANY (at_reach()))))
$$;
REVOKE ALL ON FUNCTION is_new, is_member, is_guest, stands, nth_filing, receivers FROM PUBLIC;
GRANT EXECUTE ON FUNCTION is_new, is_member, is_guest, stands, nth_filing, receivers TO lockbox_api;
GRANT EXECUTE ON FUNCTION receivers TO lockbox_worker;
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
MANAGER = _role("manager")
OPERATOR = _role("operator")


def _approves(tenant: str) -> str:
    """The caller is an approver of that tenant, or has been named by one as deputy; when, is the house's to judge."""
    return f"""(EXISTS (SELECT FROM memberships m
            WHERE m.person_id = {ME} AND m.tenant_id = {tenant} AND m.role = 'approver')
        OR EXISTS (SELECT FROM delegations d
            WHERE d.deputy_id = {ME} AND d.tenant_id = {tenant} AND d.ended_at IS NULL
            AND d.tenant_id = ANY ((SELECT at_tenants())::uuid[])))"""


DECIDES = f"""person_id = {ME} AND EXISTS (SELECT FROM requests r WHERE r.id = request_id AND r.requester_id <> {ME}
    AND CASE verdict
        WHEN 'endorse' THEN r.state = 'reviewing' AND {MANAGER}
        WHEN 'approve' THEN r.state = 'pending' AND {_approves("r.tenant_id")}
        ELSE (r.state = 'reviewing' AND {MANAGER}) OR r.tenant_id = ANY ((SELECT at_administers())::uuid[])
            OR {_approves("r.tenant_id")} END)"""
# A mode without the customer's yes is the tenant's own, or one that its policy consents to for a time.
FILES = f"""tenant_id = (SELECT at_tenant()) AND ({_role("system")} OR (requester_id = {ME} AND {_role("engineer")}))
    AND state IN ('reviewing', 'pending') AND (mode = 'enforce' OR EXISTS (
        SELECT FROM tenants t JOIN policies p ON p.tenant_id = t.id AND p.version = t.policy_version
        WHERE t.id = requests.tenant_id AND (t.mode = requests.mode
            OR (p.body -> 'consent' ->> 'mode' = requests.mode
                AND CAST(p.body -> 'consent' ->> 'until' AS timestamptz) = requests.consent_until))))"""
SEES = f"""requester_id = {ME} OR {_role("manager", "vendor_auditor")} OR (asked_at IS NOT NULL AND {MEMBER})
    OR {ADMIN} OR (state = 'active' AND {_role("system")})"""
TELLS = f"""CASE WHEN template = 'sign_in_code'
    THEN request_id IS NULL AND event_id IS NULL AND tenant_id IS NULL AND person_id IS NULL AND endpoint_id IS NULL
    ELSE {ME} IS NOT NULL AND (tenant_id IS NULL OR {REACHED}) AND (request_id IS NULL OR person_id IS NULL
        OR EXISTS (SELECT FROM memberships m WHERE m.person_id = notices.person_id
            AND (m.tenant_id IS NULL OR m.tenant_id = notices.tenant_id))
        OR EXISTS (SELECT FROM requests r WHERE r.id = request_id AND r.requester_id = notices.person_id)) END"""
INVITES = f"""invited_by = {ME} AND accepted_at IS NULL AND secret_hash IS NULL AND (
    ({ADMIN} AND NOT is_recovery)
    OR ({OPERATOR} AND CASE
        WHEN tenant_id IS NULL THEN NOT is_recovery
        WHEN roles <> '{{tenant_admin}}' THEN false
        WHEN is_recovery THEN takes_effect_at >= now() + interval '72 hours'
        ELSE is_new(tenant_id) END))"""
IS_INVITED = """EXISTS (SELECT FROM invitations i WHERE i.id = (SELECT at_invitation())
    AND lower(i.email) = lower(people.email) AND i.withdrawn_at IS NULL AND i.accepted_at IS NULL
    AND people.side = CASE WHEN i.tenant_id IS NULL THEN 'vendor' ELSE 'customer' END)"""
DELEGATES = f"""made_by = {ME} AND ({ADMIN} OR ({MEMBER} AND principal_id = {ME}))
    AND EXISTS (SELECT FROM eligible_deputies l
        WHERE l.tenant_id = delegations.tenant_id AND l.person_id = delegations.deputy_id)
    AND EXISTS (SELECT FROM memberships m WHERE m.tenant_id = delegations.tenant_id
        AND m.person_id = delegations.principal_id AND m.role = 'approver')"""
API: dict[str, dict[str, str]] = {
    "tenants": {
        "SELECT": f"{VENDOR} OR id = ANY ((SELECT at_reach())::uuid[])",
        "INSERT": f"{_role('operator')} AND mode = 'enforce' AND NOT suspended",
        "UPDATE": f"{_role('operator')} OR id = ANY ((SELECT at_administers())::uuid[])",
    },
    "policies": {
        "SELECT": REACHED,
        "INSERT": f"({ADMIN} AND author_id = {ME}) OR ({OPERATOR} AND version = 1 AND author_id IS NULL)",
    },
    "people": {
        "SELECT": f"""id = {ME} OR (side = 'vendor' AND {ME} IS NOT NULL)
            OR EXISTS (SELECT FROM memberships m WHERE m.person_id = people.id
                AND m.tenant_id = ANY ((SELECT at_reach())::uuid[]))""",
        "INSERT": IS_INVITED,
        "UPDATE": f"id = {ME} OR (side = 'vendor' AND {OPERATOR})",
    },
    "memberships": {
        "SELECT": f"person_id = {ME} OR (tenant_id IS NULL AND {ME} IS NOT NULL) OR {REACHED}",
        "INSERT": f"""({ADMIN} AND is_member(person_id, tenant_id))
            OR (tenant_id IS NULL AND {OPERATOR} AND person_id <> {ME}) OR is_guest(person_id, tenant_id, role)""",
        "DELETE": f"{ADMIN} OR (tenant_id IS NULL AND {OPERATOR} AND person_id <> {ME})",
    },
    "eligible_deputies": {
        "SELECT": REACHED,
        "INSERT": f"{ADMIN} AND is_member(person_id, tenant_id)",
        "DELETE": ADMIN,
    },
    "delegations": {
        "SELECT": REACHED,
        "INSERT": DELEGATES,
        "UPDATE": f"{ADMIN} OR ({MEMBER} AND principal_id = {ME})",
    },
    "invitations": {
        "SELECT": f"""id = (SELECT at_invitation()) OR {MEMBER}
            OR ({OPERATOR} AND (tenant_id IS NULL OR is_recovery))""",
        "INSERT": INVITES,
        "UPDATE": f"""id = (SELECT at_invitation()) OR {ADMIN} OR ({OPERATOR} AND tenant_id IS NULL)
            OR (is_recovery AND EXISTS (SELECT FROM memberships m WHERE m.person_id = {ME}
                AND m.tenant_id = invitations.tenant_id AND m.role = 'approver'))""",
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
        "SELECT": SEES,
        "INSERT": FILES,
        "UPDATE": f"requester_id = {ME} OR {MANAGER} OR {ADMIN} OR {_approves('requests.tenant_id')}",
    },
    "decisions": {"SELECT": OF_A_REQUEST, "INSERT": DECIDES},
    "idempotency_keys": dict.fromkeys(("SELECT", "INSERT", "UPDATE", "DELETE"), f"person_id = {ME}"),
    "events": {
        "SELECT": f"""CASE WHEN request_id IS NOT NULL THEN {OF_A_REQUEST}
            ELSE {MEMBER} OR actor_id = {ME} OR {_role("vendor_auditor")} END""",
        "INSERT": f"actor_id = {ME} AND (tenant_id IS NULL OR {REACHED})",
    },
    "event_details": {
        "SELECT": "EXISTS (SELECT FROM events e WHERE e.id = event_id)",
        "INSERT": "NOT stands(event_id)",
    },
    "unsealed": {"INSERT": "true"},
    "endpoints": {
        "SELECT": f"(tenant_id IS NULL AND {VENDOR}) OR {MEMBER}",
        "INSERT": f"{ADMIN} OR (tenant_id IS NULL AND {OPERATOR})",
        "UPDATE": f"{ADMIN} OR (tenant_id IS NULL AND {OPERATOR})",
    },
    "notices": {
        "SELECT": f"CASE WHEN request_id IS NOT NULL THEN {OF_A_REQUEST} ELSE {MEMBER} END",
        "INSERT": TELLS,
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
    "sessions",
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
GRANT SELECT (id, expires_at), DELETE ON sessions TO lockbox_worker;
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
    for part in (CONTEXT, RECOGNISE, SIGHT, _policies(), RIGHTS):
        op.execute(part)
