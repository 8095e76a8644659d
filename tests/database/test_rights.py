"""The database roles: what each may do to the tables, and rows that no role can write."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from harness.outbox import fan_out_all
from harness.people import World
from harness.stage import Urls, as_sender
from lockbox.database import Database
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import as_caller, read
from tests.each import each

DECIDE = (
    "INSERT INTO decisions (id, request_id, person_id, principals, means, decision, channel, decided_at) "
    "SELECT uuidv7(), id, requester_id, '{}', 'oidc', 'approve', 'api', now() FROM requests"
)
DELEGATE = (
    "INSERT INTO delegations (id, tenant_id, principal_id, delegate_id, starts_at, ends_at, made_by, created_at) "
    "SELECT uuidv7(), principal.tenant_id, principal.person_id, {delegate}, now(), {ends}, "
    "principal.person_id, now() "
    "FROM memberships principal, memberships delegate WHERE principal.role = 'approver' AND delegate.role = 'auditor'"
)
INVITE = (
    "INSERT INTO invitations (id, tenant_id, email, name, roles, is_recovery, invited_by, created_at, "
    "takes_effect_at, accepted_at, withdrawn_at) SELECT uuidv7(), {tenant}, 'new@example.test', 'New', '{roles}', "
    "false, person_id, now(), now(), {ended}, {ended} FROM memberships WHERE role = 'tenant_admin'"
)
BOTH_SIDES = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :person, :tenant, :role)"
CHANGE = "UPDATE requests SET {change}"
NOT_THE_WORKERS = [
    DECIDE,
    "INSERT INTO requests SELECT * FROM requests",
    "UPDATE requests SET deadline_at = deadline_at + interval '1 hour', version = version + 1",
    "UPDATE requests SET opened_at = now(), version = version + 1",
    "UPDATE requests SET requester_id = requester_id, version = version + 1",
    "UPDATE requests SET quorum = 1, version = version + 1",
    "DELETE FROM requests",
    "SELECT * FROM questions",
    "UPDATE requests SET stopped_at = now(), version = version + 1",
    "SELECT * FROM tokens",
    "SELECT secret_hash FROM tokens",
    "SELECT * FROM identities",
    "SELECT * FROM gate_identities",
    "SELECT * FROM passkeys",
    "SELECT * FROM sessions",
    "UPDATE sign_ins SET code_nonce = ''",
    "UPDATE sign_ins SET expires_at = 'infinity'",
    "SELECT browser_hash FROM sign_ins",
    "SELECT secret_hash FROM invitations",
    "UPDATE invitations SET secret_hash = ''",
    "UPDATE invitations SET expires_at = 'infinity'",
    "UPDATE addresses SET code_nonce = ''",
    "SELECT * FROM ended_powers",
    "SELECT renew_mark('token', uuidv7(), '', '', '')",
    "UPDATE addresses SET confirmed_at = now()",
    "UPDATE addresses SET email = 'x@y.example'",
    "DELETE FROM addresses",
    "UPDATE reports_due SET due_at = 'infinity'",
    "UPDATE counters SET count = 0",
    "DELETE FROM heartbeats",
    "INSERT INTO heartbeats SELECT * FROM heartbeats",
    "UPDATE alarms SET key = 'x'",
    "SELECT operating_figures()",
    "SELECT operating_day()",
    "SELECT operating_findings()",
    "UPDATE lag_samples SET schedule_lag = 0",
    "INSERT INTO observers SELECT * FROM observers",
    "UPDATE observers SET email = 'x@y.example'",
    "DELETE FROM observers",
    "SELECT code_hash FROM device_logins",
    "UPDATE device_logins SET is_allowed = true",
    "SELECT find_device_login('', '')",
    "SELECT authenticate('passkey', '', '')",
    "SELECT enter_as(uuidv7())",
    "UPDATE sign_ins SET proven_at = now()",
    "UPDATE invitations SET accepted_at = now()",
    "UPDATE invitations SET withdrawn_at = NULL",
    "UPDATE policies SET body = '{}'",
    "INSERT INTO policies SELECT tenant_id, version + 1, body, author_id, created_at FROM policies",
    "UPDATE tenants SET policy_version = 1",
    "INSERT INTO eligible_delegates SELECT tenant_id, person_id FROM memberships",
    "DELETE FROM memberships",
    "INSERT INTO memberships (id, person_id, role) SELECT uuidv7(), person_id, 'manager' FROM memberships",
    "UPDATE memberships SET role = 'approver'",
    "UPDATE tenants SET suspended = false",
    "UPDATE people SET email = 'x@y.example'",
    "UPDATE endpoints SET url = 'https://evil.example'",
    "UPDATE endpoints SET secret = old_secret",
    "UPDATE endpoints SET removed_at = NULL",
    "SELECT * FROM deliveries",
    "SELECT answer FROM deliveries",
    "UPDATE deliveries SET answer = ''",
    "SELECT reopen(uuidv7(), now())",
    "DELETE FROM event_details",
    "UPDATE event_details SET fields = '{}'",
    "DELETE FROM notifications",
    "INSERT INTO unsealed VALUES (uuidv7())",
    "INSERT INTO unsealed SELECT * FROM unsealed FOR UPDATE",
    "UPDATE seals SET number = number + 1",
    "DELETE FROM seals",
    "DELETE FROM tiles",
    "UPDATE logs SET generation = generation + 1",
    "DELETE FROM logs",
    "UPDATE checkpoints SET note = ''",
    "DELETE FROM checkpoints",
    "UPDATE audit_keys SET key = ''",
    "INSERT INTO idempotency_keys SELECT * FROM idempotency_keys",
    "CREATE TABLE mine (id integer)",
    "ALTER TABLE requests DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
    "SET ROLE lockbox_owner",
    "SET ROLE lockbox_api",
    "UPDATE alembic_version SET version_num = '9999'",
    "SELECT is_founded(r) FROM requests r",
    "CREATE OR REPLACE FUNCTION is_founded(request requests) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
]
NOBODYS = [
    "UPDATE gate_answers SET count = 1",
    "UPDATE window_uses SET count = 1",
    "UPDATE gate_writers SET batch = 0",
    "DELETE FROM window_uses",
    "DELETE FROM gate_writers",
    "INSERT INTO gate_answers VALUES ('all', now(), uuidv7(), 'x', 'allow', '', 1)",
    "UPDATE reported_calls SET count = 1",
    "INSERT INTO reported_calls VALUES ('x', 'unmapped', '/', '', '', 1, now(), now())",
    "SELECT add_reported_calls('[]', now())",
    "INSERT INTO unsealed VALUES (uuidv7())",
]
"""What no server's login does, but for functions and triggers of the schema."""
NOT_THE_APIS = [
    "SELECT * FROM refused",
    "DELETE FROM refused",
    "UPDATE refused SET count = 1",
    "UPDATE case_checks SET answered_at = now(), is_open = true, is_assigned = true",
    "UPDATE case_checks SET request_id = NULL",
    "UPDATE case_checks SET asked_at = now()",
    "DELETE FROM case_checks",
    "INSERT INTO case_checks (asked_at) VALUES (now())",
    "INSERT INTO case_checks (is_open) VALUES (true)",
    "INSERT INTO case_checks SELECT * FROM case_checks",
    "UPDATE events SET body = ''",
    "UPDATE decisions SET decision = 'approve'",
    "UPDATE requests SET requester_id = requester_id, version = version + 1",
    "UPDATE requests SET policy_version = 1, version = version + 1",
    "UPDATE requests SET access_window = 604800, version = version + 1",
    "UPDATE requests SET resources = '{everything}', version = version + 1",
    "DELETE FROM requests",
    "DELETE FROM questions",
    "UPDATE questions SET asked_by = asked_by",
    "UPDATE questions SET stops_clock = false",
    "DELETE FROM event_details",
    "UPDATE event_details SET fields = '{}'",
    "DELETE FROM unsealed",
    "DELETE FROM notifications",
    "UPDATE notifications SET outcome = 'sent', closed_at = now()",
    "UPDATE tokens SET secret_hash = secret_hash",
    "UPDATE tokens SET is_sample = true",
    "UPDATE tokens SET person_id = person_id",
    "UPDATE tokens SET scopes = '{access:check}'",
    "DELETE FROM tokens",
    "UPDATE memberships SET role = 'approver'",
    "UPDATE memberships SET tenant_id = NULL",
    "UPDATE people SET side = 'customer'",
    "UPDATE people SET email = 'x@y.example'",
    "DELETE FROM people",
    "UPDATE tenants SET slug = 'another'",
    "DELETE FROM tenants",
    "UPDATE policies SET body = '{}'",
    "DELETE FROM policies",
    "UPDATE delegations SET delegate_id = principal_id",
    "UPDATE delegations SET starts_at = now()",
    "DELETE FROM delegations",
    "SELECT secret_hash FROM invitations",
    "SELECT * FROM invitations",
    "UPDATE invitations SET secret_hash = ''",
    "UPDATE invitations SET roles = '{tenant_admin}'",
    "UPDATE invitations SET takes_effect_at = now()",
    "UPDATE invitations SET email = 'x@y.example'",
    "DELETE FROM invitations",
    "UPDATE identities SET subject = 'another'",
    "UPDATE gate_identities SET subject = 'another'",
    "UPDATE passkeys SET public_key = ''",
    "UPDATE sessions SET means = 'oidc'",
    "UPDATE sessions SET expires_at = 'infinity'",
    "UPDATE sessions SET signed_in_at = now()",
    "DELETE FROM sessions",
    "UPDATE sign_ins SET code_nonce = ''",
    "UPDATE sign_ins SET email = 'x@y.example'",
    "DELETE FROM sign_ins",
    "UPDATE addresses SET code_nonce = ''",
    "SELECT * FROM ended_powers",
    "DELETE FROM ended_powers",
    "UPDATE passkeys SET trusted_at = created_at",
    "UPDATE sessions SET secret_hash = secret_hash",
    "UPDATE invitations SET expires_at = 'infinity'",
    "UPDATE addresses SET email = 'x@y.example'",
    "DELETE FROM addresses",
    "UPDATE observers SET email = 'x@y.example'",
    "DELETE FROM observers",
    "UPDATE device_logins SET secret_hash = ''",
    "UPDATE device_logins SET expires_at = 'infinity'",
    "DELETE FROM device_logins",
    "UPDATE tokens SET means = 'passkey'",
    "UPDATE tokens SET only_at = NULL",
    "UPDATE endpoints SET tenant_id = NULL",
    "DELETE FROM endpoints",
    "INSERT INTO deliveries SELECT * FROM deliveries",
    "UPDATE deliveries SET answer = ''",
    "DELETE FROM deliveries",
    "SELECT * FROM unsealed",
    "INSERT INTO unsealed VALUES (uuidv7())",
    "SELECT * FROM reports_due",
    "DELETE FROM reports_due",
    "INSERT INTO logs SELECT * FROM logs",
    "UPDATE logs SET size = size + 1",
    "INSERT INTO seals SELECT * FROM seals",
    "DELETE FROM seals",
    "UPDATE tiles SET hashes = hashes",
    "INSERT INTO checkpoints SELECT * FROM checkpoints",
    "UPDATE audit_keys SET purpose = 'log'",
    "DELETE FROM audit_keys",
    "SELECT enter_as(uuidv7())",
    "CREATE TABLE mine (id integer)",
    "ALTER TABLE events DISABLE TRIGGER ALL",
    "ALTER TABLE requests DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE requests NO FORCE ROW LEVEL SECURITY",
    "DROP POLICY api_select ON requests",
    "DROP TRIGGER append_only ON events",
    "CREATE OR REPLACE FUNCTION is_decided(request requests) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "SELECT is_founded(r) FROM requests r",
    "CREATE OR REPLACE FUNCTION is_founded(request requests) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
    "SET session_replication_role = replica",
    "SET ROLE lockbox_owner",
    "SET ROLE lockbox_worker",
    "UPDATE alembic_version SET version_num = '9999'",
]
BROKEN_REQUESTS = {
    "state = 'open', wake_at = NULL, closed_at = now()": "ck_requests_state",
    "state = 'Denied', wake_at = NULL, closed_at = now()": "ck_requests_state",
    "resources = '{}'": "ck_requests_resources",
    "resources = (SELECT array_agg('r' || n) FROM generate_series(1, 51) n)": "ck_requests_resources",
    "actions = '{}'": "ck_requests_actions",
    "actions = (SELECT array_agg('a' || n) FROM generate_series(1, 21) n)": "ck_requests_actions",
    "justification = ''": "ck_requests_justification",
    "justification = repeat('x', 4001)": "too long",
    "justification = NULL": "null value",
    "mode = 'maybe'": "ck_requests_mode",
    "quorum = 0": "ck_requests_quorum",
    "access_window = 0": "ck_requests_access_window",
    "access_window = 604801": "ck_requests_access_window",
    "approval_window = 0": "ck_requests_approval_window",
    "version = 0": "ck_requests_version",
    "deadline_at = NULL": "null value",
    "wake_at = NULL": "ck_requests_clock",
    "wake_at = deadline_at + interval '1 second'": "ck_requests_wake_at",
    "closed_at = now()": "ck_requests_clock",
    "state = 'denied'": "ck_requests_clock",
    "state = 'expired', wake_at = NULL, closed_at = now()": "ck_requests_opened_at",
}
BROKEN_OTHERS = {
    "UPDATE requests SET tenant_id = uuidv7(), version = version + 1": "fk_requests_tenant_id",
    "UPDATE requests SET requester_id = uuidv7(), version = version + 1": "fk_requests_requester_id",
    "UPDATE tenants SET mode = 'asleep'": "ck_tenants_mode",
    "UPDATE tenants SET slug = 'Not A Slug'": "ck_tenants_slug",
    "UPDATE people SET email = 'nobody'": "ck_people_email",
    "UPDATE people SET email = 'same@example.test'": "uq_people_email",
    "UPDATE memberships SET role = 'king'": "ck_memberships_side",
    "UPDATE memberships SET role = 'manager' WHERE role = 'approver'": "ck_memberships_side",
    "UPDATE memberships SET role = 'approver' WHERE role = 'manager'": "ck_memberships_side",
    "UPDATE tokens SET secret_hash = 'short'": "ck_tokens_secret_hash",
    "UPDATE tokens SET name = ''": "ck_tokens_name",
    "UPDATE people SET side = 'both'": "ck_people_side",
    "UPDATE people SET side = 'customer' WHERE side = 'vendor'": "fk_memberships_side",
    "UPDATE people SET side = 'vendor' WHERE side = 'customer'": "fk_memberships_side",
    "UPDATE memberships SET side = 'customer'": "generated column",
    "UPDATE tenants SET policy_version = 2": "fk_tenants_policy_version",
    "INSERT INTO policies SELECT id, 0, '{}', NULL, now() FROM tenants": "ck_policies_version",
    "INSERT INTO policies SELECT id, 1, '{}', NULL, now() FROM tenants": "pk_policies",
    DELEGATE.format(delegate="principal.person_id", ends="now() + interval '1 day'"): "ck_delegations_self",
    DELEGATE.format(delegate="delegate.person_id", ends="now()"): "ck_delegations_period",
    INVITE.format(tenant="NULL", roles="{approver}", ended="NULL"): "ck_invitations_roles",
    INVITE.format(tenant="tenant_id", roles="{approver,manager}", ended="NULL"): "ck_invitations_roles",
    INVITE.format(tenant="tenant_id", roles="{}", ended="NULL"): "ck_invitations_roles",
    INVITE.format(tenant="tenant_id", roles="{approver}", ended="now()"): "ck_invitations_ended",
    "UPDATE notifications SET outcome = 'lost', closed_at = now()": "ck_notifications_outcome",
    "UPDATE notifications SET closed_at = now()": "ck_notifications_closed",
    "UPDATE notifications SET person_id = NULL": "ck_notifications_recipient",
    "UPDATE notifications SET channel = 'pigeon'": "ck_notifications_recipient",
    DECIDE.replace("approve", "maybe"): "ck_decisions_decision",
    DECIDE.replace("oidc", "guess"): "ck_decisions_means",
    "INSERT INTO events (id, at, action, actor_role, body) VALUES (uuidv7(), now(), 'x', 'manager', '')": (
        "ck_events_actor"
    ),
    "INSERT INTO events (id, seq, at, action, actor_role, body) VALUES (uuidv7(), 1, now(), 'x', 'clock', '')": (
        "ck_events_move"
    ),
}


@pytest.fixture
def behind_triggers(urls: Urls) -> Iterator[Engine]:
    """A superuser's engine for which no trigger fires, so that only table constraints can refuse."""
    options = "-c session_replication_role=replica"
    engine = create_engine(urls.superuser, poolclass=NullPool, connect_args={"options": options})
    yield engine
    engine.dispose()


def _refused(engine: Engine, statement: str) -> str:
    with pytest.raises(DBAPIError) as error, engine.begin() as connection:
        connection.execute(text(statement))
    return str(error.value.orig)


def _forbidden(db: Database, world: World, who: str, statement: str) -> None:
    """Check that a role lacks the right to an SQL statement; row-level security would refuse in other words."""
    try:
        with as_caller(db, world.people[who], at=world.tenant.id) as connection:
            connection.execute(text(statement))
    except DBAPIError as error:
        said = str(error.orig)
        assert said.startswith(("permission denied ", "must be owner of ")), f"{statement}: {said}"
    else:
        pytest.fail(f"{statement} was allowed")


@each("login", ["api", "worker", "notifications"])
@each("statement", NOBODYS)
def test_no_servers_database_role_writes_tables_that_only_database_functions_may_write(
    urls: Urls, login: str, statement: str
) -> None:
    engine = create_engine(getattr(urls, login), poolclass=NullPool)

    with pytest.raises(DBAPIError, match="permission denied"), engine.begin() as connection:
        connection.exec_driver_sql(statement)


@each("who", ["olga", "max"])
def test_a_workers_database_role_can_neither_decide_nor_extend_requests_nor_read_credentials(
    world: World, worker: Database, who: str
) -> None:
    world.submit()

    for statement in NOT_THE_WORKERS:
        _forbidden(worker, world, who, statement)


@each("who", ["erin", "max", "olga", "vera", "ann", "tara"])
def test_the_apis_database_role_may_not_rewrite_recorded_facts(world: World, api: Database, who: str) -> None:
    world.submit()

    for statement in NOT_THE_APIS:
        _forbidden(api, world, who, statement)


@pytest.mark.parametrize("login", ["lockbox_api", "lockbox_connectors", "lockbox_notifications", "lockbox_worker"])
def test_no_servers_database_role_creates_temporary_objects(superuser: Engine, login: str) -> None:
    # A database that is cloned from a template does not have the template's own rights: ask about that one.
    (row,) = read(superuser, "SELECT has_database_privilege(:login, 'lockbox', 'TEMPORARY') AS may", login=login)

    assert not row.may


@pytest.mark.parametrize("who", ["erin", "max", "ann"])
def test_the_apis_database_role_may_raise_but_not_lower_a_quorum(api: Database, who: str) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    world.submit()

    with (
        pytest.raises(DBAPIError, match=r"the quorum of request .* may not fall"),
        as_caller(api, world.people[who]) as connection,
    ):
        connection.execute(text("UPDATE requests SET quorum = 1, version = version + 1"))

    assert [row.quorum for row in read(api, "SELECT quorum FROM requests")] == [2]


@each("login", ["superuser", "owner"])
def test_not_even_a_superuser_can_put_a_person_on_the_vendor_and_the_customer_side(
    urls: Urls, world: World, login: str
) -> None:
    engine = create_engine(getattr(urls, login), poolclass=NullPool)

    for name, role, tenant_id in (("max", "approver", world.tenant.id), ("ann", "manager", None)):
        values = {"person": world.people[name].person_id, "tenant": tenant_id, "role": role}
        with pytest.raises(DBAPIError, match="fk_memberships_side"), engine.begin() as connection:
            connection.execute(text(BOTH_SIDES), values)

    assert len(read(world.db, "SELECT FROM memberships")) == len(world.people)


@each(("by", "name", "role"), [("tara", "max", "approver"), ("olga", "ann", "manager")])
def test_no_grant_of_a_role_puts_a_person_on_the_vendor_and_the_customer_side(
    world: World, api: Database, *, by: str, name: str, role: str
) -> None:
    values = {
        "person": world.people[name].person_id,
        "tenant": world.tenant.id if by == "tara" else None,
        "role": role,
    }

    with (
        pytest.raises(DBAPIError, match=r'fk_memberships_side|row-level security policy for table "memberships"'),
        as_caller(api, world.people[by]) as connection,
    ):
        connection.execute(text(BOTH_SIDES), values)

    assert len(read(api, "SELECT FROM memberships")) == len(world.people)


def test_no_server_role_is_a_superuser_or_an_owner_or_exempt_from_row_security(urls: Urls, superuser: Engine) -> None:
    query = """
        SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,
            EXISTS (SELECT FROM pg_class WHERE relowner = r.oid)
                OR EXISTS (SELECT FROM pg_proc WHERE proowner = r.oid) AS owns,
            EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid) AS belongs
        FROM pg_roles r
        WHERE rolname IN ('lockbox_api', 'lockbox_connectors', 'lockbox_notifications', 'lockbox_worker')
        ORDER BY rolname
    """

    rows = [tuple(row) for row in read(superuser, query)]

    logins = ("lockbox_api", "lockbox_connectors", "lockbox_notifications", "lockbox_worker")
    assert rows == [(login, *[False] * 7) for login in logins]
    assert urls.api != urls.worker


def test_the_tables_refuse_an_impossible_request_row(world: World, behind_triggers: Engine) -> None:
    world.submit()

    said = {change: _refused(behind_triggers, CHANGE.format(change=change)) for change in BROKEN_REQUESTS}

    assert {change: line for change, line in said.items() if BROKEN_REQUESTS[change] not in line} == {}


def test_table_constraints_refuse_invalid_rows_of_tenants_and_policies_and_notifications(
    world: World, superuser: Engine
) -> None:
    world.submit()
    fan_out_all(as_sender(world.db))

    said = {statement: _refused(superuser, statement) for statement in BROKEN_OTHERS}

    assert {statement: line for statement, line in said.items() if BROKEN_OTHERS[statement] not in line} == {}
