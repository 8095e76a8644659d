"""Row-level security in raw SQL, as the servers' roles: no context, no rows; how a context begins and ends."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, Row, text
from sqlalchemy.exc import DBAPIError

from harness.people import World
from harness.stage import Urls, unbound
from lockbox.database import Database, make_engine
from tests.database.furnished import (
    EVERYBODYS,
    FREE,
    attempt_everything,
    furnish,
    insert_refused,
    private_rows,
    tables,
    versions,
)
from tests.database.scenes import as_caller, read, write
from tests.each import each

SETTINGS = ("person", "tenants", "administers", "roles", "at", "invitation", "sign_in", "terminal")
NOBODYS = {f"lockbox.{name}": "" for name in SETTINGS}
SECURED = """
SELECT relname AS name, relrowsecurity AND relforcerowsecurity AS secured FROM pg_class
WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
"""
UNBOUND_RIGHTS = """
SELECT c.relname, r.login, r.command FROM pg_class c CROSS JOIN (VALUES
    ('lockbox_api', 'SELECT'), ('lockbox_api', 'INSERT'), ('lockbox_api', 'UPDATE'), ('lockbox_api', 'DELETE'),
    ('lockbox_worker', 'SELECT'), ('lockbox_notifications', 'SELECT'), ('lockbox_notifications', 'INSERT'),
    ('lockbox_notifications', 'UPDATE'), ('lockbox_notifications', 'DELETE'), ('lockbox_connectors', 'SELECT'),
    ('lockbox_connectors', 'INSERT'), ('lockbox_connectors', 'UPDATE'), ('lockbox_connectors', 'DELETE'))
    AS r (login, command)
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND c.relname <> 'alembic_version'
AND CASE WHEN r.command = 'DELETE' THEN has_table_privilege(r.login, c.oid, r.command)
    ELSE has_any_column_privilege(r.login, c.oid, r.command) END
AND NOT EXISTS (SELECT FROM pg_policies p WHERE p.schemaname = 'public' AND p.tablename = c.relname
    AND p.roles = ARRAY[r.login]::name[] AND p.cmd IN (r.command, 'ALL'))
"""
LOGINS = """
SELECT rolname, rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb AS mighty,
    EXISTS (SELECT FROM pg_shdepend WHERE refobjid = r.oid AND refclassid = 'pg_authid'::regclass
        AND deptype = 'o') AS owns,
    EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid) AS belongs
FROM pg_roles r WHERE rolname IN ('lockbox_api', 'lockbox_connectors', 'lockbox_notifications', 'lockbox_worker')
ORDER BY rolname
"""
# Functions that see past row security, and who may call them.
WITH_THE_OWNERS_EYES = """
SELECT p.proname AS name, p.proconfig AS config, has_function_privilege('lockbox_api', p.oid, 'EXECUTE') AS api,
    has_function_privilege('lockbox_worker', p.oid, 'EXECUTE') AS worker,
    EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE a.grantee = 0) AS anybody
FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.prosecdef AND p.prorettype <> 'trigger'::regtype
"""
RECOGNISE = text("SELECT * FROM authenticate(:kind, :shown, :hash)")
ADD_A_DELEGATE = "INSERT INTO eligible_delegates VALUES (uuidv7(), uuidv7())"
OF_TOKEN = "SELECT id::text AS shown, secret_hash AS hash FROM tokens WHERE person_id = :who"
OF_SESSION = "SELECT '' AS shown, secret_hash AS hash FROM sessions WHERE person_id = :who"
OF_IDENTITY = "SELECT issuer || chr(10) || subject AS shown, ''::bytea AS hash FROM identities WHERE person_id = :who"
OF_PASSKEY = "SELECT '' AS shown, credential_id AS hash FROM passkeys WHERE person_id = :who"
OF_SIGN_IN = """
SELECT s.id::text AS shown, s.browser_hash AS hash
FROM sign_ins s JOIN people p ON lower(p.email) = lower(s.email) WHERE p.id = :who
"""


@pytest.fixture
def world(api: Database) -> World:
    return furnish(api)


@pytest.fixture
def one_connection(urls: Urls) -> Iterator[Engine]:
    """The API's engine with one pooled connection, so that all transactions run on the same connection."""
    engine = make_engine(urls.api, role="one", pool_size=1, overflow=0)
    yield engine
    engine.dispose()


def _run(db: Database, *statements: str) -> None:
    with db.engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))


def _count(connection: Connection) -> int:
    return int(connection.execute(text("SELECT count(*) FROM requests")).scalar_one())


def _backend(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def _settings(connection: Connection) -> dict[str, str]:
    """Return the context; a setting that this connection never had is read as empty, like an ended one."""
    query = text("SELECT coalesce(current_setting(:name, true), '')")
    return {name: connection.execute(query, {"name": name}).scalar_one() for name in NOBODYS}


def _seen(db: Database, connection: Connection) -> set[str]:
    """Return the tables in which this transaction sees a row."""
    return {table.name for table in tables(db) if table.readable and table.keys(connection)}


def _recognise(connection: Connection, kind: str, shown: str, hash_: bytes) -> Row[Any]:
    """Show a valid credential, and return the recognised identity."""
    return connection.execute(RECOGNISE, {"kind": kind, "shown": shown, "hash": hash_}).one()


def test_every_table_has_row_security_even_for_its_owner(api: Database) -> None:
    rows = read(api, SECURED)

    assert len(rows) >= 21
    assert [row.name for row in rows if not row.secured] == []


def test_no_view_reveals_a_row_hidden_by_row_security(api: Database) -> None:
    kinds = read(api, "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace")

    assert [row.relname for row in kinds if row.relkind not in {"r", "i", "S"}] == []


def test_every_command_that_a_server_may_run_on_a_table_has_a_row_policy(api: Database) -> None:
    assert read(api, UNBOUND_RIGHTS) == []


def test_no_servers_database_role_owns_tables_or_bypasses_row_security(
    world: World, api: Database, worker: Database
) -> None:
    rows = read(api, LOGINS)

    logins = ("lockbox_api", "lockbox_connectors", "lockbox_notifications", "lockbox_worker")
    assert [tuple(row) for row in rows] == [(login, *[False] * 3) for login in logins]
    assert world.people
    for db in (api, worker):
        with pytest.raises(DBAPIError, match="query would be affected by row-level security policy"):
            _run(db, "SET LOCAL row_security = off", "SELECT id FROM requests")


def test_privileged_database_functions_are_restricted_and_have_a_fixed_search_path(api: Database) -> None:
    rows = read(api, WITH_THE_OWNERS_EYES)

    assert {row.name for row in rows if row.api} >= {"authenticate", "nth_submission", "webhook_receivers"}
    workers = {
        "record_heartbeat",
        "connection_budget",
        "webhook_receivers",
        "mail_addresses",
        "observers_of",
        "is_still_there",
        "credentials_of",
        "was_removed",
        "policies_at_start",
        "is_pre_approved",
        "ran_to_its_end",
        "take_unsealed",
        "forget_sealed",
        "is_erased",
    }
    assert {row.name for row in rows if row.worker} == workers
    assert {row.name for row in rows if row.anybody} == set()
    assert {row.config[0] for row in rows} == {"search_path=public, pg_temp"}
    assert {entry for row in rows for entry in row.config[1:]} <= {
        "plan_cache_mode=force_generic_plan",
        "enable_seqscan=off",
    }


@pytest.mark.parametrize(
    ("who", "seconds"), [("erin", 4 * 3600), ("max", None), ("olga", None), ("gate", None), ("tara", None)]
)
def test_an_engineer_sees_only_the_longest_window_of_a_policy(
    world: World, api: Database, who: str, seconds: int | None
) -> None:
    with as_caller(api, world.people[who]) as connection:
        ids = {"ids": [world.tenant.id]}
        longest = connection.execute(text("SELECT * FROM longest_windows(:ids)"), ids).all()
        policies = connection.execute(text("SELECT count(*) FROM policies")).scalar_one()

    assert [tuple(row) for row in longest] == ([(world.tenant.id, seconds)] if seconds else [])
    assert (policies == 0) is (who != "tara")


def test_workers_and_anonymous_callers_cannot_read_a_policys_longest_window(
    world: World, api: Database, worker: Database
) -> None:
    with api.engine.begin() as connection:
        ids = {"ids": [world.tenant.id]}
        assert connection.execute(text("SELECT * FROM longest_windows(:ids)"), ids).all() == []
    with pytest.raises(DBAPIError, match="permission denied for function longest_windows"):
        _run(worker, "SELECT * FROM longest_windows('{}')")


def test_no_server_can_take_on_an_arbitrary_identity_and_no_worker_can_authenticate_anyone(
    api: Database, worker: Database
) -> None:
    for db in (api, worker):
        with pytest.raises(DBAPIError, match="permission denied for function enter_as"):
            _run(db, "SELECT enter_as(uuidv7())")
    with pytest.raises(DBAPIError, match="permission denied for function authenticate"):
        _run(worker, "SELECT * FROM authenticate('passkey', '', '')")


def test_the_row_security_test_data_has_rows_in_every_private_table(world: World) -> None:
    assert {name for name, rows in private_rows(world.db).items() if not rows} == EVERYBODYS


def test_a_worker_sees_all_rows_of_the_tables_it_may_read(world: World, worker: Database) -> None:
    with worker.engine.begin() as connection:
        people = connection.execute(text("SELECT count(*) FROM people")).scalar_one()
        requests = _count(connection)

    assert (people, requests) == (len(world.people), 4)


@pytest.mark.parametrize("statement", ["SELECT", "SELECT set_config('{name}', '', false)", "SET LOCAL {name} = ''"])
def test_without_a_database_context_no_table_shows_a_row(world: World, api: Database, statement: str) -> None:
    with api.engine.begin() as connection:
        for name in NOBODYS:
            connection.execute(text(statement.format(name=name)))
        seen = _seen(api, connection)
        counted = _count(connection)

    # These name nobody, and are read before there is anybody.
    assert seen == {"sign_in_counts"}
    assert counted == 0
    assert world.people


def test_without_a_database_context_no_row_can_be_inserted(world: World, api: Database) -> None:
    tried = insert_refused(api, None, private_rows(world.db))

    assert tried == {table.name for table in tables(api)} - FREE - EVERYBODYS


def test_without_a_database_context_no_row_can_be_changed_or_removed(world: World, api: Database) -> None:
    before = versions(api)

    attempt_everything(api, None, private_rows(world.db), leave={"sign_in_counts"})

    assert versions(api) == before


def test_a_database_context_ends_with_the_commit(world: World, one_connection: Engine) -> None:
    with as_caller(one_connection, world.people["max"], at=world.tenant.id) as connection:
        during, first = _count(connection), _backend(connection)

    with one_connection.begin() as connection:
        after, second, settings = _count(connection), _backend(connection), _settings(connection)

    assert first == second
    assert (during, after) == (4, 0)
    assert settings == NOBODYS


def test_a_database_context_ends_with_a_rollback(world: World, one_connection: Engine) -> None:
    class Failure(Exception):  # noqa: N818 - of mind
        """Something went wrong."""

    def fail() -> None:
        with as_caller(one_connection, world.people["max"], at=world.tenant.id) as connection:
            assert _count(connection) == 4
            raise Failure

    with pytest.raises(Failure):
        fail()

    with one_connection.begin() as connection:
        assert _count(connection) == 0
        assert _settings(connection) == NOBODYS


def test_a_rollback_to_a_savepoint_restores_the_database_context(world: World, api: Database) -> None:
    with as_caller(api, world.people["max"]) as connection:
        savepoint = connection.begin_nested()
        connection.execute(text("SELECT set_config('lockbox.roles', '{}', true)"))
        inside = _count(connection)
        savepoint.rollback()
        outside = _count(connection)

    assert (inside, outside) == (0, 4)


def test_concurrent_transactions_have_separate_database_contexts(world: World, api: Database) -> None:
    elsewhere = World.make(api)

    with as_caller(api, world.people["max"]) as first, as_caller(api, elsewhere.people["ann"]) as second:
        seen = [_count(connection) for connection in (first, second, first)]

    assert seen == [4, 0, 4]


@each(
    ("name", "value"),
    [("person", "x"), ("tenants", "everything"), ("tenants", "{*}"), ("administers", "{%}"), ("at", "*")],
)
def test_an_invalid_database_context_is_an_error(world: World, api: Database, name: str, value: str) -> None:
    assert world.people

    with pytest.raises(DBAPIError, match=r"invalid input syntax for type uuid|malformed array literal"):
        _run(api, f"SET LOCAL lockbox.{name} = '{value}'", "SELECT FROM memberships", ADD_A_DELEGATE)


@pytest.mark.parametrize(
    ("kind", "own"),
    [("token", OF_TOKEN), ("session", OF_SESSION), ("identity", OF_IDENTITY), ("passkey", OF_PASSKEY)],
)
@pytest.mark.parametrize(
    ("who", "is_member", "is_admin", "roles"),
    [
        ("ann", True, False, "{}"),
        ("tara", True, True, "{}"),
        ("max", False, False, "{manager}"),
        ("eve", False, False, "{}"),
    ],
)
def test_a_valid_credential_sets_the_transactions_identity(
    world: World, api: Database, *, kind: str, own: str, who: str, is_member: bool, is_admin: bool, roles: str
) -> None:
    person = world.people[who].person_id
    write(unbound(api), "DELETE FROM memberships WHERE person_id = :eve", eve=world.people["eve"].person_id)
    (key,) = read(api, own, who=person)

    with api.engine.begin() as connection:
        found = _recognise(connection, kind, key.shown, key.hash)
        settings = _settings(connection)
        seen = _count(connection)

    here = f"{{{world.tenant.id}}}"
    assert (found.person_id, found.name, found.disabled) == (person, who.capitalize(), False)
    assert settings == NOBODYS | {
        "lockbox.person": str(person),
        "lockbox.tenants": here if is_member else "{}",
        "lockbox.administers": here if is_admin else "{}",
        "lockbox.roles": roles,
    }
    assert (seen > 0) is (who != "eve")


@pytest.mark.parametrize("kind", ["token", "session", "passkey", "sign_in", "invitation", "identity"])
def test_an_invalid_credential_sets_no_identity(world: World, api: Database, kind: str) -> None:
    (ids,) = read(
        api,
        "SELECT (SELECT id::text FROM tokens WHERE person_id = :who) AS token, "
        "(SELECT id::text FROM sign_ins LIMIT 1) AS sign_in, (SELECT id::text FROM invitations) AS invitation",
        who=world.people["ann"].person_id,
    )

    with api.engine.begin() as connection:
        shown = getattr(ids, kind, "https://idp.example\nx")
        found = connection.execute(RECOGNISE, {"kind": kind, "shown": shown, "hash": b"another"}).all()
        settings = _settings(connection)
        seen = _seen(api, connection)

    assert found == []
    assert settings == NOBODYS
    assert seen == {"sign_in_counts"}


def test_a_pending_sign_in_belongs_to_its_browser_and_grants_nothing(world: World, api: Database) -> None:
    ann = world.people["ann"].person_id
    (key,) = read(api, OF_SIGN_IN, who=ann)

    with api.engine.begin() as connection:
        before = _recognise(connection, "sign_in", key.shown, key.hash)
        seen = _seen(api, connection)
        proven = connection.execute(text("UPDATE sign_ins SET proven_at = now()")).rowcount
        after = _recognise(connection, "sign_in", key.shown, key.hash)

    assert (before.person_id, after.person_id) == (None, ann)
    assert seen == {"sign_in_counts", "sign_ins"}
    assert proven == 1
    assert len(read(api, "SELECT FROM sign_ins WHERE proven_at IS NOT NULL")) == 1


def test_a_person_with_an_invitation_code_sees_only_that_invitation(world: World, api: Database) -> None:
    (invitation,) = read(api, "SELECT id::text FROM invitations")
    code = b"test" + hashlib.sha256(b"code").digest()

    with api.engine.begin() as connection:
        found = _recognise(connection, "invitation", invitation.id, code)
        settings = _settings(connection)
        seen = _seen(api, connection)

    assert (found.person_id, found.roles, found.tenant_ids) == (None, ["approver"], [world.tenant.id])
    assert settings == NOBODYS | {"lockbox.invitation": invitation.id}
    assert seen == {"invitations", "sign_in_counts"}
