"""The three roles: what each may do to the tables, and rows that no role can write."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from lockbox.database import Database
from tests.builders import Urls, World
from tests.database.scenes import read

DECIDE = (
    "INSERT INTO decisions (id, request_id, person_id, verdict, channel, decided_at) "
    "SELECT uuidv7(), id, requester_id, 'approve', 'api', now() FROM requests"
)
CHANGE = "UPDATE requests SET {change}"
NOT_THE_WORKERS = [
    DECIDE,
    "INSERT INTO requests SELECT * FROM requests",
    "UPDATE requests SET deadline_at = deadline_at + interval '1 hour', version = version + 1",
    "UPDATE requests SET opened_at = now(), version = version + 1",
    "UPDATE requests SET requester_id = requester_id, version = version + 1",
    "UPDATE requests SET quorum = 1, version = version + 1",
    "DELETE FROM requests",
    "SELECT * FROM tokens",
    "SELECT secret_hash FROM tokens",
    "INSERT INTO memberships SELECT * FROM memberships",
    "UPDATE memberships SET role = 'approver'",
    "UPDATE tenants SET suspended = false",
    "UPDATE people SET email = 'x@y.example'",
    "UPDATE endpoints SET url = 'https://evil.example'",
    "DELETE FROM event_details",
    "UPDATE event_details SET value = ''",
    "DELETE FROM notices",
    "DELETE FROM unsealed",
    "INSERT INTO idempotency_keys SELECT * FROM idempotency_keys",
    "CREATE TABLE mine (id integer)",
    "ALTER TABLE requests DISABLE TRIGGER ALL",
    "SET session_replication_role = replica",
    "SET ROLE lockbox_owner",
    "SET ROLE lockbox_api",
    "UPDATE alembic_version SET version_num = '9999'",
]
NOT_THE_APIS = [
    "UPDATE events SET body = ''",
    "UPDATE decisions SET verdict = 'approve'",
    "UPDATE requests SET requester_id = requester_id, version = version + 1",
    "UPDATE requests SET quorum = 1, version = version + 1",
    "UPDATE requests SET mode = 'off', version = version + 1",
    "UPDATE requests SET access_window = 604800, version = version + 1",
    "UPDATE requests SET resources = '{everything}', version = version + 1",
    "DELETE FROM requests",
    "DELETE FROM event_details",
    "UPDATE event_details SET value = ''",
    "DELETE FROM unsealed",
    "DELETE FROM notices",
    "UPDATE notices SET outcome = 'sent', closed_at = now()",
    "UPDATE tokens SET secret_hash = secret_hash",
    "UPDATE memberships SET role = 'approver'",
    "DELETE FROM people",
    "CREATE TABLE mine (id integer)",
    "ALTER TABLE events DISABLE TRIGGER ALL",
    "DROP TRIGGER append_only ON events",
    "CREATE OR REPLACE FUNCTION is_decided(request requests) RETURNS boolean LANGUAGE sql AS 'SELECT true'",
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
    "UPDATE notices SET outcome = 'lost', closed_at = now()": "ck_notices_outcome",
    "UPDATE notices SET closed_at = now()": "ck_notices_closed",
    "UPDATE notices SET person_id = NULL": "ck_notices_recipient",
    "UPDATE notices SET channel = 'pigeon'": "ck_notices_recipient",
    DECIDE.replace("approve", "maybe"): "ck_decisions_verdict",
    "INSERT INTO events (id, at, action, actor_role, body) VALUES (uuidv7(), now(), 'x', 'manager', '')": (
        "ck_events_actor"
    ),
    "INSERT INTO events (id, seq, at, action, actor_role, body) VALUES (uuidv7(), 1, now(), 'x', 'clock', '')": (
        "ck_events_move"
    ),
}


@pytest.fixture
def behind_triggers(urls: Urls) -> Iterator[Engine]:
    """A superuser for whom no trigger fires: what refuses now is a constraint of the table."""
    options = "-c session_replication_role=replica"
    engine = create_engine(urls.superuser, poolclass=NullPool, connect_args={"options": options})
    yield engine
    engine.dispose()


def _refused(engine: Engine, statement: str) -> str:
    with pytest.raises(DBAPIError) as error, engine.begin() as connection:
        connection.execute(text(statement))
    return str(error.value.orig)


def test_a_worker_may_not_decide_file_lengthen_or_read_tokens(world: World, worker: Database) -> None:
    world.submit()

    said = {statement: _refused(worker.engine, statement) for statement in NOT_THE_WORKERS}

    assert {statement: line for statement, line in said.items() if "permission denied" not in line} == {
        "ALTER TABLE requests DISABLE TRIGGER ALL": "must be owner of table requests"
    }


def test_the_api_may_not_rewrite_the_trail_or_what_was_asked(world: World, api: Database) -> None:
    world.submit()

    said = {statement: _refused(api.engine, statement) for statement in NOT_THE_APIS}

    assert all("permission denied" in line or "must be owner" in line for line in said.values())


def test_no_server_role_is_superuser_owner_or_exempt_from_row_security(urls: Urls, superuser: Engine) -> None:
    query = """
        SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,
            EXISTS (SELECT FROM pg_class WHERE relowner = r.oid)
                OR EXISTS (SELECT FROM pg_proc WHERE proowner = r.oid) AS owns,
            EXISTS (SELECT FROM pg_auth_members WHERE member = r.oid) AS belongs
        FROM pg_roles r WHERE rolname IN ('lockbox_api', 'lockbox_worker') ORDER BY rolname
    """

    rows = [tuple(row) for row in read(superuser, query)]

    assert rows == [("lockbox_api", *[False] * 7), ("lockbox_worker", *[False] * 7)]
    assert urls.api != urls.worker


def test_the_tables_refuse_a_request_that_cannot_be(world: World, behind_triggers: Engine) -> None:
    world.submit()

    said = {change: _refused(behind_triggers, CHANGE.format(change=change)) for change in BROKEN_REQUESTS}

    assert {change: line for change, line in said.items() if BROKEN_REQUESTS[change] not in line} == {}


def test_the_tables_refuse_what_else_cannot_be(world: World, superuser: Engine) -> None:
    world.submit()

    said = {statement: _refused(superuser, statement) for statement in BROKEN_OTHERS}

    assert {statement: line for statement, line in said.items() if BROKEN_OTHERS[statement] not in line} == {}
