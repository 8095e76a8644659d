"""The migrations from nothing, on a real database, compared with what the models say."""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from lockbox import migrations
from tests.builders import Urls
from tests.database.scenes import read, write
from tests.database.schema import objects

MODELS = ("people.models", "people.keys", "requests.models", "notices.models", "audit.models", "watch.models")
# The models name columns, keys and types; what spans columns or rows is Postgres' own business, kept in one place.
ONLY_IN_THE_MIGRATIONS = {
    "modify_default eligible_deputies.id",
    "modify_default events.internal",
    "modify_default logs.kept_from",
    "modify_default memberships.review_tier",
    "modify_default people.time_zone",
    "modify_default people.wants_prompts",
    "modify_default requests.approve_means",
    "modify_default requests.reminders",
    "modify_default requests.stopped_for",
    "modify_default requests.tiers_asked",
    "modify_default requests.warned",
    "modify_default sign_ins.tries",
    "modify_default tallies.id",
    "remove_column memberships.side",
    "modify_default tenants.revision",
    "remove_constraint uq_decisions_request_id_person_id_verdict",
    "remove_constraint uq_events_request_id_seq",
    "remove_constraint uq_memberships_person_id_tenant_id_role",
    "remove_constraint uq_addresses_id_person_id",
    "remove_constraint uq_notices_event_id_recipient",
    "remove_constraint uq_passkeys_credential_id",
    "remove_constraint uq_people_id_side",
    "remove_constraint uq_sessions_secret_hash",
    "remove_constraint uq_terminals_code_hash",
    "remove_constraint uq_terminals_secret_hash",
    "remove_constraint uq_watchers_id_tenant_id",
    "remove_fk fk_memberships_side",
    "remove_fk fk_notices_address_id",
    "remove_fk fk_notices_watcher_id",
    "remove_fk fk_requests_policy_version",
    "remove_fk fk_tenants_policy_version",
    "remove_index ix_addresses_email",
    "remove_index ix_addresses_person_id_created_at",
    "remove_index ix_checkpoints_log_id_at",
    "remove_index ix_checkpoints_untold",
    "remove_index ix_delegations_tenant_id_ends_at",
    "remove_index ix_deliveries_endpoint_id_id",
    "remove_index ix_events_activity",
    "remove_index ix_events_log_id_id",
    "remove_index ix_events_seating",
    "remove_index ix_events_signing_in",
    "remove_index ix_logs_digest_at",
    "remove_index ix_logs_kept_at",
    "remove_index ix_memberships_tenant_id_role",
    "remove_index ix_notices_dead",
    "remove_index ix_notices_heard",
    "remove_index ix_notices_run_at",
    "remove_index ix_policies_consent",
    "remove_index ix_requests_denied",
    "remove_index ix_requests_filed_by_id",
    "remove_index ix_requests_open_windows",
    "remove_index ix_requests_requester_id_id",
    "remove_index ix_requests_tenant_id_case_ref",
    "remove_index ix_requests_tenant_id_id",
    "remove_index ix_requests_wake_at",
    "remove_index ix_sign_in_counts_since",
    "remove_index ix_sign_ins_expires_at",
    "remove_index ix_terminals_expires_at",
    "remove_index ix_watchers_email",
    "remove_index uq_addresses_person_id_email",
    "remove_index uq_events_consent_ended",
    "remove_index uq_people_email",
    "remove_index uq_requests_follows_open",
    "remove_index uq_watchers_tenant_id_service_email",
}


@pytest.fixture
def fresh(urls: Urls, superuser: Engine) -> Iterator[str]:
    """The owner's URL of a database in which nothing is."""
    url = make_url(urls.owner)
    name = f"{url.database}_fresh"
    write(superuser, f"CREATE DATABASE {name} TEMPLATE template0 OWNER lockbox_owner")
    yield url.set(database=name).render_as_string(hide_password=False)
    write(superuser, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def owner(fresh: str) -> Iterator[Engine]:
    """The owner's login to it."""
    engine = create_engine(fresh, poolclass=NullPool)
    yield engine
    engine.dispose()


def _differences(owner: Engine) -> set[str]:
    """Return what a new migration would have to do for the tables to be what the models say."""
    for wing in MODELS:
        import_module(f"lockbox.{wing}")
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


def test_the_migrations_from_nothing_give_what_the_models_say(fresh: str, owner: Engine) -> None:
    migrations.upgrade(fresh)

    assert _differences(owner) == ONLY_IN_THE_MIGRATIONS
    assert len(SQLModel.metadata.tables) == 39


def test_every_difference_would_be_seen(fresh: str, owner: Engine) -> None:
    migrations.upgrade(fresh)
    write(owner, "ALTER TABLE requests ALTER COLUMN service TYPE varchar(64)")
    write(owner, "ALTER TABLE requests ALTER COLUMN case_ref SET NOT NULL")
    write(owner, "ALTER TABLE requests ALTER COLUMN created_at TYPE timestamp")
    write(owner, "ALTER TABLE events ADD COLUMN extra text")
    write(owner, "ALTER TABLE notices DROP COLUMN last_error")

    assert len(_differences(owner) - ONLY_IN_THE_MIGRATIONS) == 5


def test_a_second_upgrade_changes_nothing(fresh: str, owner: Engine) -> None:
    migrations.upgrade(fresh)
    before = objects(owner)

    migrations.upgrade(fresh)

    assert len(before) > 200
    assert objects(owner) == before


def test_the_database_is_at_the_revision_of_this_code(fresh: str, owner: Engine) -> None:
    with owner.connect() as connection:
        at_first = migrations.current(connection)
    migrations.upgrade(fresh)

    with owner.connect() as connection:
        assert (at_first, migrations.current(connection)) == (None, migrations.head())


def test_all_that_is_in_the_schema_belongs_to_the_owner(fresh: str, owner: Engine) -> None:
    migrations.upgrade(fresh)

    owners = read(
        owner,
        "SELECT DISTINCT pg_get_userbyid(relowner) AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    )
    assert [row.name for row in owners] == ["lockbox_owner"]


def test_every_constraint_and_index_has_a_name_by_the_convention(fresh: str, owner: Engine) -> None:
    migrations.upgrade(fresh)

    names = read(
        owner,
        "SELECT conname AS name FROM pg_constraint "
        "WHERE connamespace = 'public'::regnamespace AND contype NOT IN ('n', 't') "
        "UNION SELECT indexname FROM pg_indexes WHERE schemaname = 'public'",
    )
    ours = [str(row.name) for row in names if not row.name.startswith("alembic_version")]
    assert [name for name in ours if name.split("_")[0] not in {"pk", "fk", "uq", "ck", "ix"}] == []
