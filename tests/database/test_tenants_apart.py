"""Row-level security in raw SQL, in a person's context: who reaches which tenants, requests and credentials."""

import re
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from harness.people import World
from harness.stage import Urls, unbound
from harness.wait import within
from lockbox.database import Database
from lockbox.identity.roles import Caller, Role
from tests.database.furnished import (
    EVERYBODYS,
    FREE,
    attempt_everything,
    furnish,
    insert_refused,
    private_keys,
    private_rows,
    tables,
    versions,
)
from tests.database.scenes import as_caller, read, read_as_is, write

ELSEWHERE = {"zack": Role.TENANT_ADMIN, "zoe": Role.APPROVER, "zara": Role.AUDITOR}
CUSTOMERS = {"tara", "ann", "amir", "abe", "aude"}
# What somebody may see of a tenant's requests in raw SQL; `r` is the request.
SIGHT = {
    "erin": "r.requester_id = :me",
    "eve": "false",
    "max": "true",
    "vera": "true",
    "olga": "false",
    "gate": "r.state = 'active'",
    "zack": "false",
    "zoe": "false",
    "zara": "false",
}
OF_REQUESTS = {
    "requests": "SELECT r.id FROM requests r WHERE {sight}",
    "decisions": "SELECT d.id FROM decisions d JOIN requests r ON r.id = d.request_id WHERE {sight}",
    "events": "SELECT e.id FROM events e JOIN requests r ON r.id = e.request_id WHERE {sight}",
    "event_details": (
        "SELECT d.event_id FROM event_details d JOIN events e ON e.id = d.event_id "
        "JOIN requests r ON r.id = e.request_id WHERE {sight}"
    ),
    "notifications": "SELECT n.id FROM notifications n JOIN requests r ON r.id = n.request_id WHERE {sight}",
    "outbox": "SELECT o.event_id FROM outbox o JOIN requests r ON r.id = o.request_id WHERE {sight}",
}
WITH_A_REQUEST = {
    "events": "request_id IS NOT NULL",
    "event_details": "NOT EXISTS (SELECT FROM events e WHERE e.id = event_id AND e.request_id IS NULL)",
    "notifications": "request_id IS NOT NULL",
}
OF_A_TENANT = ("policies", "eligible_delegates", "delegations")
ONE_MORE = {
    "tokens": (
        "INSERT INTO tokens (id, person_id, name, is_sample, by_mail, secret_hash, scopes, services, expires_at, "
        "created_at) VALUES (uuidv7(), :who, 'mine', false, false, 'test'::bytea || sha256(uuid_send(:who)), '{}', "
        "'{}', now(), now())"
    ),
    "identities": (
        "INSERT INTO identities (issuer, subject, person_id, created_at, trusted_at) "
        "VALUES ('https://another.example', CAST(:who AS uuid)::text, :who, now(), now())"
    ),
    "passkeys": (
        "INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at) "
        "VALUES (uuidv7(), :who, sha256(uuid_send(:who)), '', 0, 'mine', now(), now())"
    ),
    "sessions": (
        "INSERT INTO sessions (id, person_id, secret_hash, means, signed_in_at, last_seen_at, expires_at) "
        "VALUES (uuidv7(), :who, 'test'::bytea || sha256(sha256(uuid_send(:who))), 'oidc', now(), now(), now())"
    ),
    "idempotency_keys": "INSERT INTO idempotency_keys VALUES (:who, 'another', '', '{}', now())",
}
OWN_KEYS = {
    "tokens": "SELECT id FROM tokens WHERE person_id = :me",
    "identities": "SELECT issuer, subject FROM identities WHERE person_id = :me",
    "passkeys": "SELECT id FROM passkeys WHERE person_id = :me",
    "sessions": "SELECT id FROM sessions WHERE person_id = :me",
    "idempotency_keys": "SELECT person_id, key FROM idempotency_keys WHERE person_id = :me",
}
HITS = {
    "pk_identities": (
        "INSERT INTO identities "
        "VALUES ('https://' || 'idp' || '.example', CAST(:ann AS uuid)::text, :me, now(), now())"
    ),
    "uq_passkeys_credential_id": (
        "INSERT INTO passkeys (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at) "
        "VALUES (uuidv7(), :me, uuid_send(:ann), '', 0, 'x', now(), now())"
    ),
    "pk_sign_in_counts": "INSERT INTO sign_in_counts VALUES (:key, now(), 1)",
    "fk_tokens_replaces": (
        "INSERT INTO tokens (id, person_id, name, is_sample, by_mail, secret_hash, scopes, services, expires_at, "
        "created_at, replaces) "
        "VALUES (uuidv7(), :me, 'x', false, false, 'test'::bytea || sha256('x'), '{}', '{}', now(), now(), uuidv7())"
    ),
}
ANOTHER_TENANT = """
INSERT INTO tenants (id, slug, name, mode, suspended, created_at, plan, policy_version)
VALUES (uuidv7(), :slug, 'Another', 'enforce', false, now(), 'standard', 1)
"""
ACTIONS = "SELECT e.action FROM events e JOIN event_details d ON d.event_id = e.id WHERE e.request_id IS NULL"
CHANGE_ONE = "UPDATE tenants SET {change} WHERE id = :id"
CHANGE_ALL = "UPDATE tenants SET {change}"
ADMINS = "SELECT person_id FROM memberships WHERE tenant_id = :id AND role = 'tenant_admin'"
REMOVE = "DELETE FROM memberships WHERE person_id = :who AND role = 'tenant_admin'"
WAITS = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@pytest.fixture
def world(api: Database) -> World:
    return furnish(api)


def _newcomer(world: World, who: str) -> Caller:
    """Add a person of another tenant, or an engineer without requests."""
    if who == "ned":
        return world.add(who, Role.ENGINEER)
    elsewhere = World.make(world.db)
    return elsewhere.add(who, ELSEWHERE[who], elsewhere.tenant.id)


Keys = set[tuple[object, ...]]


def _keys(db: Database, caller: Caller, at: UUID | None = None) -> dict[str, Keys]:
    """Return the keys of all rows that the caller sees, by table."""
    readable = [table for table in tables(db) if table.readable]
    with as_caller(db, caller, at=at) as connection:
        return {table.name: table.keys(connection) for table in readable}


def _refused(db: Database, caller: Caller, statement: str, **values: object) -> str:
    with pytest.raises(DBAPIError) as error, as_caller(db, caller) as connection:
        connection.execute(text(statement), values)
    return str(error.value)


def _changed(db: Database, caller: Caller, statement: str, **values: object) -> int:
    with as_caller(db, caller) as connection:
        return connection.execute(text(statement), values).rowcount


@pytest.mark.parametrize("who", ELSEWHERE)
def test_rows_of_a_tenant_are_invisible_to_other_tenants(world: World, who: str) -> None:
    private = private_keys(world.db)
    stranger = _newcomer(world, who)

    seen = _keys(world.db, stranger)

    shared = {name: keys & private[name] for name, keys in seen.items()}
    # These name nobody: the ones are read before there is anybody, the others say what the vendor's gates do.
    assert {name for name, keys in shared.items() if keys} == {"sign_in_counts", "enforcements"}
    assert len(seen["tenants"]) == 1
    assert len(seen["people"]) > 6


@pytest.mark.parametrize("who", [*ELSEWHERE, "ned"])
def test_rows_of_a_tenant_cannot_be_inserted_by_other_tenants(world: World, who: str) -> None:
    rows = private_rows(world.db)
    stranger = _newcomer(world, who)

    tried = insert_refused(world.db, stranger, rows)

    assert tried == {table.name for table in tables(world.db)} - FREE - EVERYBODYS


@pytest.mark.parametrize("who", [*ELSEWHERE, "ned", "gate", "vera"])
def test_rows_of_a_tenant_cannot_be_changed_or_deleted_by_other_tenants(world: World, who: str) -> None:
    rows, before = private_rows(world.db), versions(world.db)
    stranger = world.people.get(who) or _newcomer(world, who)
    own = {name: {one for one in held if str(stranger.person_id) in one} for name, held in before.items()}

    attempt_everything(world.db, stranger, rows, leave={"sign_in_counts"})

    after = versions(world.db)
    gone = {name: before[name] - own[name] - after[name] for name in before}
    assert {name: held for name, held in gone.items() if held} == {}


def test_each_role_sees_the_request_rows_it_needs(world: World) -> None:
    for name in ELSEWHERE:
        world.people[name] = _newcomer(world, name)

    seen = {who: _sees_of_requests(world, world.people[who]) for who in SIGHT}

    assert seen == {who: _is_to_see(world, who) for who in SIGHT}
    assert {who for who, found in seen.items() if found["requests"]} == {"erin", "max", "vera", "gate"}


def _sees_of_requests(world: World, caller: Caller) -> dict[str, Keys]:
    those = [table for table in tables(world.db) if table.name in OF_REQUESTS]
    with as_caller(world.db, caller) as connection:
        return {one.name: one.keys(connection, WITH_A_REQUEST.get(one.name, "true")) for one in those}


def _is_to_see(world: World, who: str) -> dict[str, Keys]:
    me = world.people[who].person_id
    return {
        name: {tuple(row) for row in read_as_is(world.db, query.format(sight=SIGHT[who]), me=me)}
        for name, query in OF_REQUESTS.items()
    }


def test_an_event_without_a_request_is_visible_to_tenant_and_actor_and_vendor_auditors(world: World) -> None:
    world.people["zack"] = _newcomer(world, "zack")

    seen = {who: _actions(world, who) for who in ("olga", "vera", "max", "erin", "gate", "tara", "aude", "zack")}

    assert seen == {
        "olga": {"member_changed"},
        "vera": {"policy_changed", "member_changed"},
        "max": set(),
        "erin": set(),
        "gate": set(),
        "tara": {"policy_changed"},
        "aude": {"policy_changed"},
        "zack": set(),
    }


def _actions(world: World, who: str) -> set[str]:
    caller = world.people[who]
    at = world.tenant.id if caller.vendor_roles() else None
    with as_caller(world.db, caller, at=at) as connection:
        return set(connection.execute(text(ACTIONS)).scalars())


def test_the_vendor_reads_only_the_customer_rows_it_needs(world: World) -> None:
    private = private_keys(world.db)
    elsewhere = World.make(world.db)
    customers = {(world.people[name].person_id,) for name in CUSTOMERS}

    for who in ("erin", "max", "olga", "vera", "gate"):
        caller = world.people[who]
        apart, there = _keys(world.db, caller), _keys(world.db, caller, elsewhere.tenant.id)
        here = _keys(world.db, caller, world.tenant.id)

        assert [name for name in OF_A_TENANT if (apart[name] | there[name]) & private[name]] == []
        assert [name for name in OF_A_TENANT if not private[name] <= here[name]] == []
        assert not (apart["people"] | there["people"]) & customers
        assert customers <= here["people"]
        assert {(world.tenant.id,), (elsewhere.tenant.id,)} <= apart["tenants"]


def test_people_of_a_tenant_see_its_invitations_and_operators_see_only_its_recoveries(world: World) -> None:
    world.people["zack"] = _newcomer(world, "zack")

    of_a_member = {who for who, caller in world.people.items() if _keys(world.db, caller)["invitations"]}
    write(unbound(world.db), "UPDATE invitations SET is_recovery = true")
    of_a_recovery = {who for who, caller in world.people.items() if _keys(world.db, caller)["invitations"]}

    assert of_a_member == CUSTOMERS
    assert of_a_recovery == CUSTOMERS | {"olga"}


def test_endpoints_are_readable_only_on_the_side_they_belong_to(world: World) -> None:
    world.people["zack"] = _newcomer(world, "zack")
    rows = read(world.db, "SELECT tenant_id IS NULL AS is_vendors, id FROM endpoints")
    ids = {row.is_vendors: (row.id,) for row in rows}

    for who, caller in world.people.items():
        at = world.tenant.id if caller.vendor_roles() else None
        seen = _keys(world.db, caller, at)["endpoints"]
        assert seen == ({ids[True]} if at else {ids[False]} if who in CUSTOMERS else set()), who


@pytest.mark.far
@pytest.mark.parametrize("table", ONE_MORE)
def test_credentials_are_read_and_created_only_by_the_person_they_belong_to(world: World, table: str) -> None:
    world.people["zack"] = _newcomer(world, "zack")
    said = set()

    for who, caller in world.people.items():
        others = [other for name, other in world.people.items() if name != who]
        seen = _keys(world.db, caller)[table]
        own = read(world.db, OWN_KEYS[table], me=caller.person_id)
        assert seen == {tuple(row) for row in own}
        said |= {_refused(world.db, caller, ONE_MORE[table], who=other.person_id) for other in others}
        assert _changed(world.db, caller, ONE_MORE[table], who=caller.person_id) == 1

    assert len(said) == 1
    assert f'new row violates row-level security policy for table "{table}"' in said.pop()


def test_credentials_are_changed_and_removed_only_by_the_person_they_belong_to(world: World) -> None:
    rows = {name: held if name in ONE_MORE else [] for name, held in private_rows(world.db).items()}
    rest = {table.name for table in tables(world.db)} - ONE_MORE.keys()
    before = versions(world.db)
    colleagues = [world.add("tom", Role.TENANT_ADMIN, world.tenant.id), world.add("omar", Role.OPERATOR)]

    for colleague in colleagues:
        attempt_everything(world.db, colleague, rows, leave=rest)

    after = versions(world.db)
    assert [name for name in ONE_MORE if not before[name] <= after[name]] == []


def _tenant(world: World) -> tuple[object, ...]:
    (row,) = read(world.db, "SELECT mode, policy_version, suspended, plan FROM tenants WHERE id = :id",
                  id=world.tenant.id)  # fmt: skip
    return tuple(row)


@pytest.mark.parametrize(
    ("change", "by", "vain"),
    [
        ("mode = 'off'", "tara", "olga"),
        ("mode = 'observe'", "tara", "olga"),
        ("policy_version = 2", "tara", "olga"),
        ("suspended = true", "olga", "tara"),
        ("plan = 'golden'", "olga", "tara"),
    ],
)
def test_only_admins_change_mode_or_policy_and_only_operators_change_plan_or_suspension(
    world: World, change: str, by: str, vain: str
) -> None:
    write(unbound(world.db), "INSERT INTO policies SELECT tenant_id, 2, body, NULL, now() FROM policies")
    world.people |= {name: _newcomer(world, name) for name in ELSEWHERE}
    statement, blind = CHANGE_ONE.format(change=change), CHANGE_ALL.format(change=change)
    before = _tenant(world)

    for who in world.people.keys() - {by, vain, *ELSEWHERE}:
        assert _changed(world.db, world.people[who], statement, id=world.tenant.id) == 0
        assert _changed(world.db, world.people[who], blind) == 0
    for who in ELSEWHERE:
        assert _changed(world.db, world.people[who], statement, id=world.tenant.id) == 0
    for said in (
        _refused(world.db, world.people[vain], statement, id=world.tenant.id),
        _refused(world.db, world.people[vain], blind),
    ):
        assert re.search("only (the admins|operators)", said)

    assert _tenant(world) == before
    assert _changed(world.db, world.people[by], statement, id=world.tenant.id) == 1
    assert _tenant(world) != before


@pytest.mark.far
@pytest.mark.parametrize("login", ["api", "owner", "superuser"])
def test_no_database_role_removes_the_last_admin_of_a_tenant(world: World, urls: Urls, login: str) -> None:
    tara = world.people["tara"]
    engine = create_engine(getattr(urls, login), poolclass=NullPool)

    for statement in (REMOVE, "DELETE FROM memberships WHERE tenant_id IS NOT NULL AND :who = :who"):
        with pytest.raises(DBAPIError, match="would be left without an admin"), as_caller(engine, tara) as connection:
            connection.execute(text(statement), {"who": tara.person_id})

    assert len(read(world.db, ADMINS, id=world.tenant.id)) == 1


def test_one_of_two_admins_may_be_removed_unless_the_second_is_disabled(world: World) -> None:
    tara, tom = world.people["tara"], world.add("tom", Role.TENANT_ADMIN, world.tenant.id)

    write(unbound(world.db), "UPDATE people SET disabled_at = now() WHERE id = :tom", tom=tom.person_id)
    assert "without an admin" in _refused(world.db, tara, REMOVE, who=tara.person_id)
    write(unbound(world.db), "UPDATE people SET disabled_at = NULL WHERE id = :tom", tom=tom.person_id)

    assert _changed(world.db, tara, REMOVE, who=tara.person_id) == 1
    assert "without an admin" in _refused(world.db, tom, REMOVE, who=tom.person_id)


def test_two_admins_removed_concurrently_leave_one_admin(world: World, superuser: Engine) -> None:
    tara, tom = world.people["tara"], world.add("tom", Role.TENANT_ADMIN, world.tenant.id)

    with ThreadPoolExecutor(1) as pool:
        with as_caller(world.db, tara) as connection:
            connection.execute(text(REMOVE), {"who": tom.person_id})
            second = pool.submit(_refused, world.db, tom, REMOVE, who=tara.person_id)
            assert within(5, lambda: read(superuser, WAITS))
            assert not second.done()
        said = second.result()

    assert "would be left without an admin" in said
    assert [row.person_id for row in read(world.db, ADMINS, id=world.tenant.id)] == [tara.person_id]


def test_a_constraint_violation_reveals_nothing_of_a_row_hidden_by_row_security(world: World) -> None:
    ann, zack = world.people["ann"].person_id, _newcomer(world, "zack")
    (taken,) = read(world.db, "SELECT key FROM sign_in_counts")
    values = {"me": zack.person_id, "ann": ann, "key": taken.key}

    said = {constraint: _refused(world.db, zack, statement, **values) for constraint, statement in HITS.items()}
    said["uq_tenants_slug"] = _refused(world.db, world.people["olga"], ANOTHER_TENANT, slug=world.tenant.slug)

    hidden = (
        str(ann),
        ann.hex,
        "Ann",
        "ann-",
        "laptop",
        taken.key.hex(),
        world.tenant.slug,
        "Contoso",
        "idp.example",
    )
    assert [constraint for constraint, line in said.items() if constraint not in line] == []
    assert [line for line in said.values() if "SQL parameters hidden" not in line] == []
    assert [(value, line) for value in hidden for line in said.values() if value in line] == []


def test_a_failing_query_condition_is_not_evaluated_on_hidden_rows(world: World) -> None:
    zack = _newcomer(world, "zack")
    probe = "SELECT count(*) FROM people WHERE 1 / (CASE WHEN id = :ann AND email LIKE 'ann%' THEN 0 ELSE 1 END) = 1"

    with as_caller(world.db, zack) as connection:
        seen = connection.execute(text(probe), {"ann": world.people["ann"].person_id}).scalar_one()

    assert seen > 0
    assert "division by zero" in _refused(world.db, world.people["tara"], probe, ann=world.people["ann"].person_id)
