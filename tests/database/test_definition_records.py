"""Gate definitions are on record: each change once, in every log that it concerns; a rolling start is one change."""

from concurrent.futures import ThreadPoolExecutor, wait
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from catalogue.service_catalogue import Catalogue
from gate import definition_records, gate_definition, gate_news
from gate.enforcement import EnforcementMemory
from gate.gate_definition import GateDefinition
from gate.memory_reader import DEFINED_SECONDS, GATE, MemoryReader
from gate.window_memory import BOOT_CLOCK, WindowMemory
from harness.people import World
from lockbox.database import Database
from lockbox.identity import authentication
from tests.database.audit_logs import recorded_changes
from tests.database.scenes import read, write_unchecked
from tests.database.tenancy import on_the_database
from tests.database.test_enforcement import another_tenant
from tests.each import each

SERVICE = "mail"
LOCK = "hashtextextended('lockbox enforcement of gates', 0)"
EVENTS = """
SELECT t.slug, e.action, convert_from(e.body, 'UTF8')::jsonb AS said FROM events e
LEFT JOIN tenants t ON t.id = e.tenant_id WHERE e.action IN ('gate_defined', 'gate_redefined') ORDER BY e.id
"""


def catalogue(resource: str = "mailbox:{box}", *, fixed: str | None = None) -> Catalogue:
    tenant = {"fixed": fixed} if fixed else {"host": "{tenant}.mail.example"}
    path = {"methods": ("GET",), "path": "/boxes/{box}", "resource": resource, "action": "read"}
    issuer = {"issuer": "https://idp.example", "audience": "mail", "jwks_url": "https://idp.example/keys"}
    return Catalogue.model_validate(
        {
            "services": {SERVICE: {"title": "Mail", "gate": {"tenant": tenant, "paths": (path,)}}},
            "plans": {"basic": {}},
            "issuers": (issuer,),
        }
    )


A, B, C = catalogue(), catalogue("mailbox:of-{box}"), catalogue("mailbox:x-{box}")


def starts(db: Database, with_this: Catalogue) -> None:
    """Let a process start with this catalogue, or report again that it uses it."""
    with db.transaction() as session:
        authentication.enter(session, GATE)
        definition_records.record(session, gate_definition.definitions(with_this))


def announced(worker: Database) -> list[int]:
    return list(definition_records.announce(worker, settled=timedelta(0)))


def told(world: World) -> list[tuple[str | None, str]]:
    return [(row.slug, row.action) for row in read(world.db, EVENTS)]


def pass_hours(superuser: Engine) -> None:
    """Let so much time pass that no recorded definition counts as used."""
    write_unchecked(superuser, "UPDATE gate_definitions SET used_at = used_at - interval '2 hours'")


def bodies(world: World) -> list[str]:
    found = read(world.db, "SELECT body FROM gate_definitions ORDER BY service, revision")
    return [row.body for row in found]


def body(of: Catalogue) -> str:
    return GateDefinition.of(of, SERVICE).body


def test_the_first_definition_of_a_gate_is_recorded_in_every_log_and_mailed_to_no_one(
    world: World, worker: Database
) -> None:
    starts(world.db, A)
    announced(worker)

    assert told(world) == [(None, "gate_defined"), (world.tenant.slug, "gate_defined")]
    said = read(world.db, EVENTS)[1].said
    assert said["sha256"] == GateDefinition.of(A, SERVICE).digest.hex()
    assert "before" not in said
    assert said["changes"] == {"gate of mail": "none → 1 paths"}
    assert {who for change in recorded_changes(world.db) for who in change.told} == set()


def test_a_process_start_with_an_unchanged_catalogue_records_nothing(
    world: World, worker: Database, superuser: Engine
) -> None:
    starts(world.db, A)
    announced(worker)
    pass_hours(superuser)
    for _ in range(3):
        starts(world.db, A)

    assert announced(worker) == []
    assert bodies(world) == [body(A)]


def test_a_changed_gate_definition_is_recorded_in_every_log_and_people_are_notified(
    world: World, worker: Database
) -> None:
    another_tenant(world)
    starts(world.db, A)
    starts(world.db, B)
    announced(worker)

    ours = [
        row.said for row in read(world.db, EVENTS) if (row.slug, row.action) == (world.tenant.slug, "gate_redefined")
    ]
    assert len(ours) == 1
    assert ours[0]["before"] == GateDefinition.of(A, SERVICE).digest.hex()
    assert ours[0]["sha256"] == GateDefinition.of(B, SERVICE).digest.hex()
    assert ours[0]["changes"] == {
        "paths at the gate of mail": "GET /boxes/{box} is read of mailbox:{box} → "
        "GET /boxes/{box} is read of mailbox:of-{box}"
    }
    assert sorted(told(world), key=str) == sorted(
        [
            (slug, action)
            for slug in (None, world.tenant.slug, "fabrikam")
            for action in ("gate_defined", "gate_redefined")
        ],
        key=str,
    )
    hears = {frozenset(change.told) for change in recorded_changes(world.db) if change.action == "gate_redefined"}
    assert hears == {frozenset(), frozenset({"Olga"}), frozenset({"Abe", "Amir", "Ann", "Tara"})}


def test_processes_that_start_in_turn_with_two_catalogues_record_only_one_change(
    world: World, worker: Database
) -> None:
    starts(world.db, A)
    for _ in range(5):
        starts(world.db, B)
        starts(world.db, A)
    announced(worker)

    assert bodies(world) == [body(A), body(B)]
    assert told(world).count((world.tenant.slug, "gate_redefined")) == 1


def test_concurrent_process_starts_record_one_gate_definition_change(world: World) -> None:
    starts(world.db, A)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: starts(world.db, B), range(12)))

    assert bodies(world) == [body(A), body(B)]


def test_a_gate_definition_that_is_used_again_after_a_pause_is_announced_again(
    world: World, superuser: Engine
) -> None:
    starts(world.db, A)
    starts(world.db, B)
    pass_hours(superuser)
    starts(world.db, B)
    starts(world.db, A)
    pass_hours(superuser)
    starts(world.db, B)

    assert bodies(world) == [body(one) for one in (A, B, A, B)]


def test_a_rolled_back_gate_definition_is_announced_when_no_process_uses_the_newer_version(
    world: World, superuser: Engine
) -> None:
    starts(world.db, A)
    starts(world.db, B)
    starts(world.db, A)
    assert bodies(world) == [body(A), body(B)]
    pass_hours(superuser)
    starts(world.db, A)

    assert bodies(world) == [body(A), body(B), body(A)]


def test_a_tenant_added_later_gets_the_newest_gate_definition(world: World, worker: Database) -> None:
    starts(world.db, A)
    starts(world.db, B)
    announced(worker)
    another_tenant(world)

    assert announced(worker) == [1]
    assert told(world)[-1] == ("fabrikam", "gate_defined")
    assert read(world.db, EVENTS)[-1].said["sha256"] == GateDefinition.of(B, SERVICE).digest.hex()


def test_changes_of_a_gate_for_one_tenant_are_announced_only_to_its_old_and_new_tenant(
    world: World, worker: Database
) -> None:
    ours = world.tenant.slug
    for slug in ("fabrikam", "woodgrove"):
        another_tenant(world, slug)
    starts(world.db, catalogue(fixed=ours))
    starts(world.db, catalogue("mailbox:of-{box}", fixed=ours))
    starts(world.db, catalogue("mailbox:of-{box}", fixed="fabrikam"))
    announced(worker)

    told_to = [slug for slug, _ in told(world) if slug]
    assert (told_to.count(ours), told_to.count("fabrikam"), told_to.count("woodgrove")) == (3, 1, 0)
    last = {row.slug: row.said for row in read(world.db, EVENTS)}
    assert last[ours]["changes"] == {"customer at the gate of mail": f"fixed: {ours} → fixed: another customer"}
    assert ours not in str(last["fabrikam"]["changes"])
    assert "before" not in last["fabrikam"]


def test_an_interrupted_announcement_of_a_gate_definition_resumes(
    world: World, worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_news, "AT_ONCE", 1)
    another_tenant(world)
    starts(world.db, A)
    begun = definition_records.announce(worker, settled=timedelta(0))
    assert [next(begun), next(begun)] == [1, 1]
    starts(world.db, B)
    del begun
    announced(worker)

    for slug in (None, world.tenant.slug, "fabrikam"):
        assert [action for log, action in told(world) if log == slug] == ["gate_defined", "gate_redefined"]


def test_the_gate_does_not_decide_calls_by_a_gate_definition_that_is_not_recorded(
    world: World, superuser: Engine
) -> None:
    """The reader records the definition first: if it cannot, it does not fill the memory, and the gate refuses."""
    later = BOOT_CLOCK()
    memory = WindowMemory(lambda: later)
    said = gate_definition.definitions(A)
    reader = MemoryReader(world.db, memory, EnforcementMemory({}, memory.clock), definitions=said)
    with ThreadPoolExecutor(1) as pool, superuser.connect() as held:
        held.execute(text(f"SELECT pg_advisory_lock({LOCK})"))
        reading = pool.submit(reader.read)
        wait([reading], 0.5)
        was_read = memory.was_read
        held.execute(text(f"SELECT pg_advisory_unlock({LOCK})"))
        reading.result(20)
    assert not was_read
    assert memory.was_read

    assert bodies(world) == [body(A)]
    later += DEFINED_SECONDS + 1
    reader.read()
    assert bodies(world) == [body(A)]


FORGED = {
    "another body": "UPDATE gate_definitions SET body = 'x'",
    "told already": "UPDATE gate_definitions SET announced_to = uuidv7()",
    "in use for ever": "UPDATE gate_definitions SET used_at = now() + interval '1 year'",
    "gone": "DELETE FROM gate_definitions",
    "told before it is there": """
        INSERT INTO gate_definitions (id, service, revision, digest, body, announced_to)
        VALUES (uuidv7(), 'mail', 2, sha256('x'), 'x', uuidv7())
    """,
    "from long ago": """
        INSERT INTO gate_definitions (id, service, revision, digest, body, recorded_at)
        VALUES (uuidv7(), 'mail', 2, sha256('x'), 'x', 'epoch')
    """,
    "another digest": """
        INSERT INTO gate_definitions (id, service, revision, digest, body)
        VALUES (uuidv7(), 'mail', 2, sha256('y'), 'x')
    """,
}


@each("forgery", FORGED)
def test_the_apis_database_role_changes_no_recorded_gate_definition(world: World, forgery: str) -> None:
    starts(world.db, A)

    with world.db.transaction() as session:
        authentication.enter(session, GATE)
        with pytest.raises(DBAPIError):
            session.execute(text(FORGED[forgery]))


def test_only_the_gate_records_gate_definitions(world: World) -> None:
    added = """
    INSERT INTO gate_definitions (id, service, revision, digest, body) VALUES (uuidv7(), 'x', 1, sha256('x'), 'x')
    """
    for who in ("tara", "olga", "erin", "gate"):
        with pytest.raises(DBAPIError, match="row-level security"):
            on_the_database(world, who, added)


def test_no_database_role_suppresses_an_announcement_of_a_gate_definition(world: World, worker: Database) -> None:
    """If a forged row were the newest, a process with the same definition would announce nothing."""
    starts(world.db, A)
    announced(worker)
    planted = """
    INSERT INTO gate_definitions (id, service, revision, digest, body, only_for)
    VALUES (uuidv7(), 'mail', 2, :digest, :body, '{nobody}')
    """
    meant = GateDefinition.of(B, SERVICE)
    with world.db.transaction() as session:
        authentication.enter(session, GATE)
        with pytest.raises(DBAPIError, match="ck_gate_definitions_only_for"):
            session.execute(text(planted), {"digest": meant.digest, "body": meant.body})
    starts(world.db, B)
    announced(worker)

    assert told(world)[2:] == [(None, "gate_redefined"), (world.tenant.slug, "gate_redefined")]
