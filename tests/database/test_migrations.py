"""The migrated database matches the SQL files and the models; a database of an older version is refused."""

import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from threading import Timer
from typing import Any

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel
from typer.testing import CliRunner

from cli.app import app
from harness.stage import Urls, empty_database, on_database
from lockbox import migrations
from lockbox.database import Database
from lockbox.facts.enumerations import State
from lockbox.identity import row_macs
from lockbox.migrations import OwnerRefused, UnknownRevision
from lockbox.requests.lifecycle import MOVES
from tests.database.scenes import read, write
from tests.database.schema import ENDS_SERVICE, LATER, OBJECTS, objects, scripts

MODELS = (
    "identity.models",
    "identity.credentials",
    "requests.models",
    "requests.case_check",
    "notifications.models",
    "audit.models",
    "monitoring.heartbeats",
    "connectors.models",
)
# The models name columns, keys and types; what spans columns or rows is Postgres' own business, kept in one place.
# So are tables that functions and triggers of the schema alone write.
ONLY_IN_THE_SCHEMA = {
    "modify_default connections.attempts",
    "modify_default connections.failures",
    "modify_default gate_definitions.recorded_at",
    "modify_default gate_definitions.used_at",
    "modify_default eligible_delegates.id",
    "modify_default events.internal",
    "modify_default logs.cleared_to",
    "modify_default logs.kept_from",
    "modify_default memberships.review_tier",
    "modify_default people.time_zone",
    "modify_default pre_approvals.used",
    "modify_default people.wants_prompts",
    "modify_default after_reviews.reminders",
    "modify_default case_checks.asked_at",
    "modify_default requests.approve_means",
    "modify_default requests.break_glass",
    "modify_default requests.reminders",
    "modify_default requests.stopped_for",
    "modify_default requests.tiers_asked",
    "modify_default requests.used",
    "modify_default requests.warned",
    "modify_default window_uses.first_told",
    "modify_default sign_ins.tries",
    "modify_default decisions.knows_context",
    "modify_default counters.id",
    "remove_column events.xid",
    "remove_column memberships.side",
    "modify_default tenants.revision",
    "remove_constraint uq_decisions_request_id_person_id_decision",
    "remove_constraint uq_events_request_id_seq",
    "remove_constraint uq_memberships_person_id_tenant_id_role",
    "remove_constraint uq_gate_definitions_service_revision",
    "remove_constraint uq_gate_identities_issuer_subject",
    "remove_constraint uq_enforcement_switches_enforcement_id_revision",
    "remove_constraint uq_report_consents_enforcement_id_tenant_id",
    "remove_constraint uq_addresses_id_person_id",
    "remove_constraint uq_pre_approval_votes_pre_approval_id_person_id",
    "remove_constraint uq_notifications_event_id_recipient",
    "remove_constraint uq_passkeys_credential_id",
    "remove_constraint uq_people_id_side",
    "remove_constraint uq_sessions_secret_hash",
    "remove_constraint uq_unsettled_event_id_of_report",
    "remove_constraint uq_device_logins_code_hash",
    "remove_constraint uq_device_logins_secret_hash",
    "remove_constraint uq_observers_id_tenant_id",
    "remove_fk fk_memberships_side",
    "remove_fk fk_notifications_address_id",
    "remove_fk fk_notifications_observer_id",
    "remove_fk fk_requests_policy_version",
    "remove_fk fk_tenants_policy_version",
    "remove_index ix_connections_request_id",
    "remove_index ix_connections_run_at",
    "remove_index uq_connections_open",
    "remove_index ix_addresses_email",
    "remove_index ix_after_reviews_remind_at",
    "remove_index ix_case_checks_asked_at",
    "remove_index ix_case_checks_asked_by_asked_at",
    "remove_index ix_after_reviews_tenant_id_opened_at",
    "remove_index ix_window_uses_look_at",
    "remove_index uq_events_uses",
    "remove_index ix_addresses_person_id_created_at",
    "remove_index ix_checkpoints_log_id_at",
    "remove_index ix_checkpoints_not_notified",
    "remove_index ix_delegations_tenant_id_ends_at",
    "remove_index ix_deliveries_endpoint_id_id",
    "remove_index ix_events_activity",
    "remove_index ix_events_log_id_id",
    "remove_index ix_events_outside_access",
    "remove_index ix_events_probes",
    "remove_index ix_events_seating",
    "remove_index ix_events_signing_in",
    "remove_index ix_events_window_changes",
    "remove_index ix_logs_digest_at",
    "remove_index ix_logs_kept_at",
    "remove_index ix_memberships_tenant_id_role",
    "remove_index ix_notifications_blocked_by",
    "remove_index ix_notifications_dead",
    "remove_index ix_notifications_notified",
    "remove_index ix_notifications_open_calls",
    "remove_index ix_notifications_run_at",
    "remove_index ix_policies_consent",
    "remove_index ix_pre_approvals_ends_at",
    "remove_index ix_pre_approvals_tenant_id_id",
    "remove_index ix_requests_pre_approval_id",
    "remove_index ix_requests_denied",
    "remove_index ix_requests_submitted_by_id",
    "remove_index ix_requests_open_by_deadline",
    "remove_index ix_requests_open_by_id",
    "remove_index ix_requests_open_of_requester",
    "remove_index ix_requests_open_of_tenant",
    "remove_index ix_requests_requester_id_id",
    "remove_index ix_requests_tenant_id_case_ref",
    "remove_index ix_requests_tenant_id_id",
    "remove_index ix_requests_wake_at",
    "remove_index ix_sign_in_counts_since",
    "remove_index ix_sign_ins_expires_at",
    "remove_index ix_device_logins_expires_at",
    "remove_index ix_observers_email",
    "remove_index uq_addresses_person_id_email",
    "remove_index uq_notifications_endpoint_id_sequence",
    "remove_index uq_legal_holds_open",
    "remove_index uq_emergency_stops_open",
    "remove_index uq_events_consent_ended",
    "remove_index uq_events_notified",
    "remove_index uq_people_email",
    "remove_index uq_requests_follows_open",
    "remove_index ix_decisions_delegated",
    "remove_index ix_requests_extends",
    "remove_index ix_requests_unapproved",
    "remove_index uq_requests_extends_open",
    "remove_index uq_observers_tenant_id_service_email",
    "remove_table ended_powers",
    "remove_table gate_answers",
    "remove_table gate_writers",
    "remove_table heartbeats",
    "remove_table reported_calls",
    "remove_table turns",
    "remove_table unsealed",
    "remove_table used_calls",
    "remove_table window_refusals",
}
# One change of each kind: nothing that the files say could be lost in a database without a difference.
CHANGES = [
    "ALTER TABLE requests ALTER COLUMN service TYPE varchar(64)",
    "ALTER TABLE requests ALTER COLUMN case_ref SET NOT NULL",
    "ALTER TABLE requests ALTER COLUMN warned DROP DEFAULT",
    "ALTER TABLE requests DROP CONSTRAINT ck_requests_window",
    "DROP INDEX ix_requests_wake_at",
    "DROP TRIGGER one_way ON requests",
    "ALTER TABLE requests DISABLE TRIGGER one_way",
    "CREATE OR REPLACE FUNCTION strictness(mode text) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT 1'",
    "ALTER FUNCTION is_new SECURITY INVOKER",
    "ALTER POLICY api_select ON requests USING (true)",
    "DROP POLICY api_insert_own ON requests",
    "ALTER TABLE requests NO FORCE ROW LEVEL SECURITY",
    "GRANT UPDATE (quorum) ON requests TO lockbox_worker",
    "GRANT DELETE ON events TO lockbox_api",
    "GRANT EXECUTE ON FUNCTION is_founded TO PUBLIC",
]
OWNERS = "SELECT DISTINCT pg_get_userbyid(relowner) AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace"
NAMES = """
SELECT conname AS name FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype NOT IN ('n', 't')
UNION SELECT indexname FROM pg_indexes WHERE schemaname = 'public'
"""
CONDITIONS = "SELECT tablename, policyname, qual, with_check FROM pg_policies WHERE schemaname = 'public'"
MEASURED = "SELECT relname, reltuples FROM pg_class WHERE relname IN ('people', 'tenants')"
SOMEBODY = """
INSERT INTO people (id, side, name, email, created_at)
VALUES (uuidv7(), 'vendor', 'Erin', 'erin@vendor.example', now())
"""

WAITS_FOR_DECISIONS = """
SELECT 1 FROM pg_locks l JOIN pg_database d ON d.oid = l.database
WHERE d.datname = current_database() AND NOT l.granted AND l.relation = 'decisions'::regclass
"""

# As an older version wrote them, of a tenant that is not there.
SET_BEFORE = (
    "ALTER TABLE retentions DROP CONSTRAINT fk_retentions_tenant_id",
    "ALTER TABLE offboardings DROP CONSTRAINT fk_offboardings_tenant_id",
    "ALTER TABLE legal_holds DROP CONSTRAINT fk_legal_holds_tenant_id, DROP CONSTRAINT fk_legal_holds_set_by",
    "INSERT INTO retentions (tenant_id, days) VALUES (uuidv7(), 30)",
    "INSERT INTO offboardings (tenant_id, asked_at) VALUES (uuidv7(), now())",
    """
    INSERT INTO legal_holds (id, tenant_id, side, reason, set_by, set_at)
    VALUES (uuidv7(), uuidv7(), 'vendor', 'x', uuidv7(), now())
    """,
)
MARKS_OF_DATA = """
SELECT mac FROM retentions UNION ALL SELECT mac FROM legal_holds UNION ALL SELECT mac FROM offboardings
"""


@pytest.fixture
def fresh(urls: Urls) -> Iterator[str]:
    """The owner's URL of an empty database."""
    with empty_database(urls) as found:
        yield found.owner


@pytest.fixture
def owner(fresh: str) -> Iterator[Engine]:
    """An engine of the owner on that database."""
    engine = create_engine(fresh, poolclass=NullPool)
    yield engine
    engine.dispose()


def _differences(owner: Engine) -> set[str]:
    """Return the changes by which a new migration would make the tables match the models."""
    for wing in MODELS:
        import_module(wing if wing.startswith("connectors") else f"lockbox.{wing}")
    with owner.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        found = compare_metadata(context, SQLModel.metadata)
    return {_line(one) for one in found}


def _line(difference: Any) -> str:
    if isinstance(difference, list):
        return "; ".join(_line(part) for part in difference)
    kind, *rest = difference
    if kind.startswith("modify_"):
        return f"{kind} {rest[1]}.{rest[2]}"
    if kind in {"add_column", "remove_column"}:
        return f"{kind} {rest[1]}.{rest[2].name}"
    if kind in {"add_index", "remove_index", "add_constraint", "remove_constraint", "add_fk", "remove_fk"}:
        return f"{kind} {rest[0].name}"
    return f"{kind} {' '.join(str(part) for part in rest)}"


def _run_the_files(owner_url: str) -> None:
    with psycopg.connect(owner_url.replace("+psycopg", "")) as connection:
        for script in scripts():
            connection.execute(script.encode())


def _but_alembics(lines: list[str]) -> list[str]:
    return [line for line in lines if "alembic_version" not in line]


def test_the_migrations_match_the_table_models(fresh: str, owner: Engine) -> None:
    migrations.upgrade(fresh)

    assert _differences(owner) == ONLY_IN_THE_SCHEMA
    assert len(SQLModel.metadata.tables) == 56


def test_the_schema_files_match_the_migrations(fresh: str, owner: Engine, superuser: Engine) -> None:
    _run_the_files(fresh)

    made = objects(owner)
    assert made == _but_alembics(objects(superuser))
    assert len(made) > 1000
    assert {line.split()[0] for line in made} == {
        *("column", "constraint", "function", "index", "policy", "right", "secured", "trigger")
    }


@pytest.mark.parametrize("change", CHANGES)
def test_a_schema_difference_between_two_databases_would_be_detected(superuser: Engine, change: str) -> None:
    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        before = connection.exec_driver_sql(OBJECTS).all()
        connection.exec_driver_sql(change)
        after = connection.exec_driver_sql(OBJECTS).all()
        connection.rollback()

    assert after != before


@pytest.mark.usefixtures("alone")
def test_a_schema_difference_from_the_models_would_be_detected(superuser: Engine) -> None:
    write(superuser, "ALTER TABLE requests ALTER COLUMN service TYPE varchar(64)")
    write(superuser, "ALTER TABLE requests ALTER COLUMN case_ref SET NOT NULL")
    write(superuser, "ALTER TABLE requests ALTER COLUMN created_at TYPE timestamp")
    write(superuser, "ALTER TABLE events ADD COLUMN extra text")
    write(superuser, "ALTER TABLE notifications DROP COLUMN last_error")

    assert len(_differences(superuser) - ONLY_IN_THE_SCHEMA) == 5


def test_a_second_schema_upgrade_changes_nothing(fresh: str, owner: Engine) -> None:
    migrations.upgrade(fresh)
    before = objects(owner)

    migrations.upgrade(fresh)

    assert objects(owner) == before


def test_the_database_is_at_the_revision_of_this_code(fresh: str, owner: Engine) -> None:
    with owner.connect() as connection:
        at_first = migrations.current(connection)
    migrations.upgrade(fresh)

    with owner.connect() as connection:
        assert (at_first, migrations.current(connection)) == (None, migrations.head())


def test_every_object_in_the_schema_belongs_to_the_database_owner(superuser: Engine) -> None:
    assert [row.name for row in read(superuser, OWNERS)] == ["lockbox_owner"]


def test_constraint_and_index_names_follow_the_convention(superuser: Engine) -> None:
    ours = [str(row.name) for row in read(superuser, NAMES) if not row.name.startswith("alembic_version")]

    assert len(ours) > 200
    assert [name for name in ours if name.split("_")[0] not in {"pk", "fk", "uq", "ck", "ix"}] == []


def test_only_the_database_roles_of_lockbox_may_execute_database_functions(superuser: Engine) -> None:
    callers = {line.split()[-1] for line in objects(superuser) if line.startswith("right EXECUTE ")}

    servers = {"lockbox_api", "lockbox_worker", "lockbox_notifications", "lockbox_connectors"}
    assert callers == {"lockbox_owner"} | servers


def test_the_sql_function_and_the_row_policies_use_one_rule_for_who_may_decide(superuser: Engine) -> None:
    (decides,) = read(superuser, "SELECT prosrc FROM pg_proc WHERE proname = 'at_decides'")
    condition = re.sub(r"\btenant\b", "requests.tenant_id", decides.prosrc.replace("SELECT", "", 1))
    condition = condition.replace("at_person()", "(SELECT at_person())")
    condition = condition.replace("at_tenants()", "(SELECT at_tenants())::uuid[]")
    with superuser.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        connection.exec_driver_sql(f"CREATE POLICY tried ON requests USING ({condition})")
        found = {(row.tablename, row.policyname): row for row in connection.exec_driver_sql(CONDITIONS)}
        connection.rollback()

    rule = _same(found["requests", "tried"].qual)
    assert rule.count("EXISTS") == 2
    assert _same(found["requests", "api_update"].qual).count(rule) == 1
    assert _same(found["decisions", "api_insert"].with_check).count(rule) == 2


def _same(condition: str) -> str:
    """Rewrite a condition for queries that name the request `r`."""
    return re.sub(r"(?:r\.)?(?<!\w)tenant_id = ANY|requests\.tenant_id", _as_r, " ".join(condition.split()))


def _as_r(found: "re.Match[str]") -> str:
    return "r.tenant_id = ANY" if found[0].endswith("ANY") else "r.tenant_id"


@pytest.mark.parametrize("state", State)
def test_the_database_allows_the_same_moves_as_the_lifecycle_in_the_code(superuser: Engine, state: State) -> None:
    (row,) = read(superuser, "SELECT leads_to(:state) AS states", state=state.value)

    ends = {end for (start, _), move in MOVES.items() if start is state for end in (move.to, move.instead) if end}
    assert set(row.states) == {end.value for end in ends}


@pytest.mark.usefixtures("alone")
def test_filled_tables_are_analysed_after_a_migration(urls: Urls, superuser: Engine) -> None:
    write(superuser, SOMEBODY)
    before = {row.relname: row.reltuples for row in read(superuser, MEASURED)}

    migrations.upgrade(urls.owner)

    assert before == {"people": -1, "tenants": -1}
    assert {row.relname: row.reltuples for row in read(superuser, MEASURED)} == {"people": 1, "tenants": -1}


@pytest.mark.usefixtures("alone")
def test_tables_are_analysed_after_the_first_load(urls: Urls, superuser: Engine) -> None:
    owner = {"LOCKBOX_ENVIRONMENT": "test", "LOCKBOX_OWNER_DATABASE_URL": urls.owner}

    loaded = CliRunner(env=owner).invoke(app, ["sample"])

    assert loaded.exit_code == 0, loaded.output
    counted = {row.relname: row.reltuples for row in read(superuser, MEASURED)}
    assert counted == {"people": len(read(superuser, "SELECT FROM people")), "tenants": 1}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("other", ["0001", "0045", "0001_0123456789ab", "9999_later"])
def test_a_database_of_another_version_is_named_and_left_unchanged(urls: Urls, superuser: Engine, other: str) -> None:
    write(superuser, "UPDATE alembic_version SET version_num = :other", other=other)
    write(superuser, ENDS_SERVICE)
    before = objects(superuser)

    with pytest.raises(UnknownRevision, match=f"at migration {other},.* start with an empty database"):
        migrations.upgrade(urls.owner)

    assert objects(superuser) == before
    assert [row.version_num for row in read(superuser, "SELECT version_num FROM alembic_version")] == [other]


@pytest.mark.usefixtures("alone")
def test_no_migration_runs_while_processes_of_version_0_2_0_run(
    urls: Urls, superuser: Engine, api: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "LEAVE_SECONDS", 0.0)
    first = ScriptDirectory(str(migrations.FOLDER)).get_base()
    write(superuser, "UPDATE alembic_version SET version_num = :first", first=first)
    before = objects(superuser)

    with api.engine.connect(), pytest.raises(OwnerRefused, match=r"processes of 0\.2\.0 hold \d+ connections"):
        migrations.upgrade(urls.owner)

    assert objects(superuser) == before
    assert [row.version_num for row in read(superuser, "SELECT version_num FROM alembic_version")] == [first]


def _migrate_to_the_first(owner: Engine) -> None:
    with owner.begin() as connection:
        config = migrations._config()  # noqa: SLF001 - as `upgrade` runs it
        config.attributes["connection"] = connection
        command.upgrade(config, migrations.history()[0])


def test_a_migration_waits_for_recently_stopped_processes_of_version_0_2_0(
    urls: Urls, fresh: str, owner: Engine
) -> None:
    _migrate_to_the_first(owner)
    stopped = psycopg.connect(on_database(urls.api, str(make_url(fresh).database)).replace("+psycopg", ""))
    leaves = Timer(0.5, stopped.close)

    leaves.start()

    assert migrations.upgrade(fresh) == migrations.head()
    leaves.join()


def test_a_migration_runs_again_after_a_deadlock_with_another_transaction(
    fresh: str, owner: Engine, superuser: Engine
) -> None:
    """The migration holds `requests` and waits for `decisions`; the other transaction does the reverse."""
    _migrate_to_the_first(owner)
    other = create_engine(superuser.url.set(database=make_url(fresh).database), poolclass=NullPool)
    with ThreadPoolExecutor() as threads, other.connect() as connection:
        with connection.begin():
            # Postgres aborts the transaction that looks for a deadlock first.
            connection.execute(text("SET LOCAL deadlock_timeout = '1min'"))
            connection.execute(text("LOCK TABLE decisions IN ACCESS SHARE MODE"))
            migrated = threads.submit(migrations.upgrade, fresh)
            while not read(other, WAITS_FOR_DECISIONS):
                time.sleep(0.02)
            assert connection.execute(text("SELECT count(*) FROM requests")).scalar_one() == 0

        assert migrated.result() == migrations.head()
    other.dispose()


def test_a_migration_shut_out_by_another_transaction_is_refused_with_an_instruction(
    fresh: str, owner: Engine, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "ATTEMPTS", 1)
    monkeypatch.setattr(migrations, "PAUSE_SECONDS", 0.0)
    _migrate_to_the_first(owner)
    other = create_engine(superuser.url.set(database=make_url(fresh).database), poolclass=NullPool)

    with other.begin() as connection:
        connection.execute(text("LOCK TABLE decisions IN ACCESS SHARE MODE"))
        with pytest.raises(OwnerRefused, match="run lockbox migrate again"):
            migrations.upgrade(fresh)

    with owner.connect() as connection:
        assert migrations.current(connection) == migrations.history()[0]
    other.dispose()


@pytest.mark.usefixtures("alone")
def test_a_later_compatible_schema_is_left_unchanged(urls: Urls, superuser: Engine) -> None:
    write(superuser, LATER)
    before = objects(superuser)

    said = CliRunner(env={"LOCKBOX_OWNER_DATABASE_URL": urls.owner}).invoke(app, ["migrate"])

    assert (said.exit_code, said.output) == (0, "The database is at migration 9999_later.\n")
    assert objects(superuser) == before
    assert [row.version_num for row in read(superuser, "SELECT version_num FROM alembic_version")] == ["9999_later"]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("came_by", ["", "0001_schema 0031", "{head} 0031 0032", "{head}"])
def test_a_revision_number_without_an_upgrade_path_is_refused(urls: Urls, superuser: Engine, came_by: str) -> None:
    write(superuser, "UPDATE alembic_version SET version_num = '0031'")
    write(superuser, f"COMMENT ON FUNCTION oldest_revision() IS '{came_by.format(head=migrations.head())}'")

    refused = CliRunner(env={"LOCKBOX_OWNER_DATABASE_URL": urls.owner}).invoke(app, ["migrate"])

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "at migration 0031, which this version of Lockbox does not know" in refused.stderr


def test_a_migration_records_the_revisions_applied(fresh: str, owner: Engine) -> None:
    migrations.upgrade(fresh)

    (note,) = read(owner, "SELECT obj_description('oldest_revision()'::regprocedure) AS history")
    assert note.history.split() == migrations.history()
    assert migrations.history()[-1] == migrations.head()


def test_the_migration_gives_rows_from_before_macs_existed_a_reserved_mac_value(fresh: str, owner: Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.FOLDER))
    with owner.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002_regulated_customers")
        for statement in SET_BEFORE:
            connection.exec_driver_sql(statement)

    migrations.upgrade(fresh)

    assert [bytes(row.mac) for row in read(owner, MARKS_OF_DATA)] == [row_macs.FROM_BEFORE] * 3


@pytest.mark.usefixtures("alone")
def test_owner_commands_refuse_a_later_schema(urls: Urls, superuser: Engine) -> None:
    write(superuser, LATER)

    environment = {"LOCKBOX_ENVIRONMENT": "test", "LOCKBOX_OWNER_DATABASE_URL": urls.owner}
    refused = CliRunner(env=environment).invoke(app, ["operate", "retain", "--older-than", "30d", "--yes"])

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "the database is at migration 9999_later, this version needs" in refused.stderr


@pytest.mark.usefixtures("alone")
def test_a_database_newer_than_the_code_is_reported_with_a_one_line_message(urls: Urls, superuser: Engine) -> None:
    write(superuser, "UPDATE alembic_version SET version_num = '0045'")
    write(superuser, "DROP FUNCTION oldest_revision")

    refused = CliRunner(env={"LOCKBOX_OWNER_DATABASE_URL": urls.owner}).invoke(app, ["migrate"])

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert "at migration 0045" in refused.stderr
    assert "start with an empty database" in refused.stderr


@pytest.mark.parametrize(
    "command", [["migrate"], ["operate", "retain", "--older-than", "30d", "--yes"], ["operate", "re-key"], ["sample"]]
)
def test_an_owner_command_run_with_a_servers_database_role_is_refused_with_a_one_line_message(
    urls: Urls, command: list[str]
) -> None:
    environment = {"LOCKBOX_ENVIRONMENT": "test", "LOCKBOX_OWNER_DATABASE_URL": urls.api}

    refused = CliRunner(env=environment).invoke(app, command)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert "the login lockbox_api does not own the tables: use lockbox_owner" in refused.stderr


def test_an_owner_role_bound_by_row_security_is_refused(urls: Urls, superuser: Engine) -> None:
    login, password = f"bound_{os.getpid()}", "a password of a test"
    write(superuser, f"CREATE ROLE {login} LOGIN PASSWORD '{password}' IN ROLE lockbox_owner")
    url = make_url(urls.owner).set(username=login, password=password).render_as_string(hide_password=False)
    try:
        refused = CliRunner(env={"LOCKBOX_OWNER_DATABASE_URL": url}).invoke(app, ["migrate"])
    finally:
        write(superuser, f"DROP ROLE {login}")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert f"the login {login} is bound by row-level security: use lockbox_owner" in refused.stderr
