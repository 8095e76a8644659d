"""The gate's identity map: who may change it, whom it names, what is recorded, and how long it is remembered."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from catalogue.issuers import IdentityProvider
from gate import identity_map
from gate.identity_map import MOST_A_PERSON, IdentityMap, MappedIdentity, MappingInput, MapUnreadable
from harness.people import HERE, World
from harness.stage import Urls
from lockbox.admin import erasure, vendor_staff
from lockbox.database import Database, UnitOfWork
from lockbox.errors import (
    Conflict,
    Invalid,
    NotFound,
    NotSignedIn,
    OwnRoles,
    SignInAgain,
    TooManyIdentities,
    UnknownEngineer,
)
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity import authentication, identities
from lockbox.identity.oidc import VerifiedIdentity
from lockbox.identity.roles import Role
from lockbox.owner_transaction import as_owner
from lockbox.sql import new_id
from tests.database.audit_logs import recorded_changes
from tests.database.scenes import as_caller, read, write, write_unchecked
from tests.database.tenancy import id_of, manages

IDP = "https://sso.vendor.example"
KNOWN = frozenset({IDP, "mtls:exchange-online"})
BOUND = """
INSERT INTO identities (issuer, subject, person_id, created_at, trusted_at)
VALUES (:issuer, :subject, :who, now(), now() + CAST(:trusted AS interval))
"""

PUT_BACK = """
INSERT INTO gate_identities (id, issuer, subject, person_id, added_by, created_at, mac)
VALUES (:id, :issuer, :subject, :person_id, :added_by, :created_at, :mac)
"""
INSERT = """
INSERT INTO gate_identities (id, issuer, subject, person_id, added_by, created_at)
VALUES (uuidv7(), 'https://sso.vendor.example', 'forged', :person, :by, now())
"""


def add(
    world: World, person: str = "erin", subject: str = "e-1", *, issuer: str = IDP, who: str = "olga"
) -> MappedIdentity:
    wanted = MappingInput(issuer, subject, id_of(world, person))
    return manages(world, who, identity_map.add, wanted, known=KNOWN)


def named(db: Database, subject: str, *, issuer: str = IDP, email: str | None = None) -> UUID | None:
    with db.transaction() as session:
        return identities.engineer_of(session, issuer, subject, email)


def bind(world: World, superuser: Engine, person: str, subject: str, *, trusted: str = "0") -> None:
    """Bind an identity to a person, as a means to sign in."""
    write(superuser, BOUND, issuer=IDP, subject=subject, who=id_of(world, person), trusted=trusted)


def test_a_mapped_identity_names_its_engineer_and_the_mapping_is_recorded(world: World) -> None:
    world.add("oscar", Role.OPERATOR)

    mapped = add(world)

    assert named(world.db, "e-1") == id_of(world, "erin")
    assert named(world.db, "E-1") is None
    assert named(world.db, "e-1", issuer="https://other.example") is None
    manages(world, "olga", identity_map.remove, mapped.row.id)
    assert named(world.db, "e-1") is None
    told = recorded_changes(world.db)
    assert [(one.action, one.actor, one.role, one.changes) for one in told] == [
        ("gate_identity_added", "Olga", "operator", {"issuer": f"none → {IDP}"}),
        ("gate_identity_removed", "Olga", "operator", {"issuer": f"{IDP} → none"}),
    ]
    assert [one.told for one in told] == [{"Olga", "Oscar", "Erin"}] * 2
    assert {one.details["subject"] for one in told} == {"e-1"}
    assert read(world.db, "SELECT FROM events WHERE seq IS NULL AND tenant_id IS NOT NULL") == []


def test_operators_map_identities_of_other_people_but_never_their_own(world: World) -> None:
    world.add("oscar", Role.OPERATOR)
    world.put_on_both_sides("oscar", Role.ENGINEER)

    with pytest.raises(OwnRoles):
        add(world, "oscar", "o-1", who="oscar")
    assert add(world, "oscar", "o-1").person == "Oscar"


def test_changing_the_identity_map_needs_a_fresh_sign_in(world: World) -> None:
    mapped = add(world)
    olga = world.people["olga"]
    old = datetime.now(UTC) - timedelta(hours=1)
    for stale in (
        replace(olga, means=AuthMethod.TOKEN),
        replace(olga, means=AuthMethod.OIDC, signed_in_at=old),
        replace(olga, means=AuthMethod.MAIL, signed_in_at=datetime.now(UTC)),
    ):
        wanted = MappingInput(IDP, "e-2", id_of(world, "erin"))
        with world.db.transaction() as session, pytest.raises(SignInAgain):
            identity_map.add(session, stale, HERE, wanted, KNOWN)
        with world.db.transaction() as session, pytest.raises(SignInAgain):
            identity_map.remove(session, stale, HERE, mapped.row.id)


def test_an_invalid_identity_mapping_is_refused_with_advice(world: World) -> None:
    with pytest.raises(Invalid, match=f"{IDP}, mtls:exchange-online"):
        add(world, issuer="https://elsewhere.example")
    with pytest.raises(Invalid, match="service account"):
        add(world, issuer="header:gate")
    with pytest.raises(Invalid, match="service account"):
        add(world, issuer=f"header:{id_of(world, 'erin')}")
    for person in ("max", "gate", "tara", "ann"):
        with pytest.raises(UnknownEngineer):
            add(world, person)
    with pytest.raises(UnknownEngineer):
        manages(world, "olga", identity_map.add, MappingInput(IDP, "e-1", new_id()), known=KNOWN)
    add(world)
    world.add("emil", Role.ENGINEER)
    with pytest.raises(Conflict, match="Erin already"):
        add(world)
    with pytest.raises(Conflict, match="another engineer already"):
        add(world, "emil")
    with pytest.raises(NotFound):
        manages(world, "olga", identity_map.remove, new_id())


def test_certificates_and_gateway_headers_are_mapped_like_issuer_identities(world: World) -> None:
    header = f"header:{id_of(world, 'gate')}"

    add(world, subject="CN=erin,O=Vendor", issuer="mtls:exchange-online")
    add(world, subject="erin", issuer=header)

    assert named(world.db, "CN=erin,O=Vendor", issuer="mtls:exchange-online") == id_of(world, "erin")
    assert named(world.db, "erin", issuer=header) == id_of(world, "erin")
    assert named(world.db, "erin", issuer="header:other") is None


@pytest.mark.far
def test_a_person_has_a_limited_number_of_mapped_identities(world: World) -> None:
    for number in range(MOST_A_PERSON):
        add(world, subject=f"e-{number}")

    with pytest.raises(TooManyIdentities):
        add(world, subject="one more")


def test_operators_and_auditors_read_the_identity_map_page_by_page(world: World) -> None:
    world.add("audrey", Role.VENDOR_AUDITOR)
    mapped = [add(world, subject=f"e-{number}").row.id for number in range(3)]
    for who in ("olga", "audrey"):
        with world.db.transaction() as session:
            first = identity_map.page(session, world.people[who], cursor=None, most=2)
        with world.db.transaction() as session:
            rest = identity_map.page(session, world.people[who], cursor=first.next_cursor, most=2)
        assert [one.row.id for one in (*first.identities, *rest.identities)] == mapped
        assert rest.next_cursor is None


def test_an_identity_trusted_for_sign_in_names_the_same_person_to_the_gate(world: World, superuser: Engine) -> None:
    bind(world, superuser, "erin", "trusted")
    bind(world, superuser, "erin", "fresh", trusted="1 hour")
    bind(world, superuser, "max", "manager")
    bind(world, superuser, "ann", "customer")

    assert named(world.db, "trusted") == id_of(world, "erin")
    assert [named(world.db, subject) for subject in ("fresh", "manager", "customer")] == [None] * 3


def test_an_identity_mapped_to_two_people_names_no_person(world: World, superuser: Engine) -> None:
    world.add("emil", Role.ENGINEER)
    for subject in ("same", "two"):
        bind(world, superuser, "erin", subject)
    add(world, "erin", "same")
    add(world, "emil", "two")

    assert named(world.db, "same") == id_of(world, "erin")
    assert named(world.db, "two") is None


def test_a_mail_address_names_an_engineer_only_if_the_identity_of_the_caller_is_not_mapped(
    world: World, superuser: Engine
) -> None:
    address = read(world.db, "SELECT email FROM people WHERE id = :id", id=id_of(world, "erin"))[0].email
    customers = read(world.db, "SELECT email FROM people WHERE id = :id", id=id_of(world, "ann"))[0].email
    managers = read(world.db, "SELECT email FROM people WHERE id = :id", id=id_of(world, "max"))[0].email
    world.add("emil", Role.ENGINEER)
    add(world, "emil", "mapped")
    bind(world, superuser, "max", "bound")

    assert named(world.db, "unmapped", email=address.upper()) == id_of(world, "erin")
    assert named(world.db, "mapped", email=address) == id_of(world, "emil")
    assert named(world.db, "bound", email=address) is None
    for other in (customers, managers, "nobody@vendor.example", None):
        assert named(world.db, "unmapped", email=other) is None


@pytest.mark.parametrize("line", ["e-1\n", "e-1\nx", "x\ne-1"])
def test_an_identity_with_a_multi_line_subject_names_no_person(world: World, line: str) -> None:
    add(world)

    assert named(world.db, line) is None


def test_a_mapped_identity_cannot_be_used_to_sign_in(world: World) -> None:
    add(world)
    provider = IdentityProvider(issuer=IDP, audience="lockbox")
    proven = VerifiedIdentity(IDP, "e-1", datetime.now(UTC), None, None, ())

    with world.db.transaction() as session, pytest.raises(NotSignedIn):
        identities.caller_of(session, provider, proven)
    with world.db.transaction() as session:
        authentication.enter(session, world.people["erin"])
        assert not identities.is_bound(session, world.people["erin"], [provider])


def test_a_disabled_person_or_former_engineer_is_not_named_by_an_identity(world: World) -> None:
    world.add("emil", Role.ENGINEER)
    add(world, "erin", "e-1")
    add(world, "emil", "e-2")

    manages(world, "olga", vendor_staff.disable, id_of(world, "erin"))
    manages(world, "olga", vendor_staff.set_roles, id_of(world, "emil"), frozenset({Role.MANAGER}))

    assert named(world.db, "e-1") is named(world.db, "e-2") is None


FORGED = {
    "another person": "UPDATE gate_identities SET person_id = :emil WHERE subject = 'e-1'",
    "another subject": "UPDATE gate_identities SET subject = 'e-2' WHERE subject = 'e-1'",
    "another issuer": "UPDATE gate_identities SET issuer = 'https://evil.example' WHERE subject = 'e-1'",
    "no mark": "UPDATE gate_identities SET mac = NULL WHERE subject = 'e-1'",
    "no role": "UPDATE memberships SET mac = NULL WHERE role = 'engineer'",
}


@pytest.mark.parametrize("how", FORGED)
def test_an_identity_row_without_a_valid_mac_names_no_person(world: World, superuser: Engine, how: str) -> None:
    emil = world.add("emil", Role.ENGINEER).person_id
    add(world)
    write_unchecked(superuser, FORGED[how], **({"emil": emil} if ":emil" in FORGED[how] else {}))

    found = [
        named(world.db, subject, issuer=issuer)
        for subject in ("e-1", "e-2")
        for issuer in (IDP, "https://evil.example")
    ]

    assert found == [None] * 4


def test_a_removed_identity_row_cannot_be_restored(world: World, superuser: Engine) -> None:
    row = add(world).row.model_dump()
    manages(world, "olga", identity_map.remove, row["id"])

    with pytest.raises(DBAPIError, match="does not come back"):
        write(superuser, PUT_BACK, **row)


def test_row_security_lets_operators_map_only_identities_of_other_people(world: World) -> None:
    add(world)
    world.put_on_both_sides("olga", Role.ENGINEER)
    erin, olga = id_of(world, "erin"), id_of(world, "olga")
    for who, person, by in (
        ("erin", erin, erin),
        ("max", erin, id_of(world, "max")),
        ("tara", erin, id_of(world, "tara")),
        ("olga", olga, olga),
        ("olga", erin, erin),
        ("olga", id_of(world, "ann"), olga),
        ("olga", id_of(world, "max"), olga),
    ):
        with (
            pytest.raises(DBAPIError, match="row-level security"),
            as_caller(world.db, world.people[who]) as connection,
        ):
            connection.execute(text(INSERT), {"person": person, "by": by})
    with (
        pytest.raises(DBAPIError, match="permission denied"),
        as_caller(world.db, world.people["olga"]) as connection,
    ):
        connection.execute(text("UPDATE gate_identities SET subject = 'x'"))
    for who, seen in (("olga", 1), ("erin", 1), ("vera", 1), ("max", 0), ("tara", 0), ("ann", 0), ("gate", 0)):
        with as_caller(world.db, world.people[who]) as connection:
            assert len(connection.execute(text("SELECT FROM gate_identities")).all()) == seen, who
    for who in ("erin", "max", "vera", "tara"):
        with as_caller(world.db, world.people[who]) as connection:
            assert connection.execute(text("DELETE FROM gate_identities")).rowcount == 0


def test_no_identity_row_is_visible_without_a_database_context(world: World) -> None:
    add(world)

    with world.db.engine.connect() as connection:
        assert connection.execute(text("SELECT FROM gate_identities")).all() == []


def test_erasing_a_person_removes_their_identities_from_map_and_log(world: World, urls: Urls) -> None:
    add(world)
    manages(world, "olga", vendor_staff.disable, id_of(world, "erin"))

    with as_owner(urls.owner) as session:
        erasure.erase(session, id_of(world, "erin"))

    assert read(world.db, "SELECT FROM gate_identities") == []
    fields = read(
        world.db,
        "SELECT d.fields FROM event_details d JOIN events e ON e.id = d.event_id WHERE e.action = :action",
        action=identity_map.ADDED,
    )[0].fields
    assert "subject" not in fields
    assert "name" in fields


@dataclass
class MapClock:
    """A clock in seconds, which the test moves."""

    at: float = 0.0

    def __call__(self) -> float:
        return self.at


class CountedDatabase(Database):
    """A database that counts its transactions."""

    count = 0

    @contextmanager
    def transaction(self) -> Iterator[UnitOfWork]:
        self.count += 1
        with super().transaction() as session:
            yield session


@dataclass
class WatchedMap:
    """An identity map whose reads are counted."""

    db: Database
    clock: MapClock = field(default_factory=MapClock)

    def __post_init__(self) -> None:
        self.counted = CountedDatabase(self.db.engine, self.db.schedule)
        self.map = IdentityMap(self.counted, clock=self.clock, read_seconds=20.0, most=3)

    @property
    def reads(self) -> int:
        return self.counted.count

    async def of(self, subject: str) -> UUID | None:
        return await self.map.engineer((IDP, subject, None))


@pytest.fixture
def watched(world: World) -> Iterator[WatchedMap]:
    found = WatchedMap(world.db)
    yield found
    found.map.close()


def test_identity_lookups_are_remembered_for_five_seconds_and_dropped_after_a_change(
    world: World, watched: WatchedMap
) -> None:
    erin = id_of(world, "erin")

    async def asked() -> None:
        assert await watched.of("e-1") is None
        add(world)
        watched.clock.at = 4.9
        assert await watched.of("e-1") is None
        assert watched.reads == 1
        watched.clock.at = 5.0
        assert [await watched.of("e-1") for _ in range(10)] == [erin] * 10
        assert watched.reads == 2
        watched.map.forget()
        assert await watched.of("e-1") == erin
        assert watched.reads == 3

    asyncio.run(asked())


def test_many_calls_of_one_caller_cause_one_identity_lookup_and_use_limited_memory(
    world: World, watched: WatchedMap
) -> None:
    add(world)

    async def asked() -> None:
        assert await asyncio.gather(*(watched.of("e-1") for _ in range(16))) == [id_of(world, "erin")] * 16
        assert watched.reads == 1
        for number in range(3):
            await watched.of(f"other {number}")
        await watched.of("e-1")
        assert watched.reads == 5

    asyncio.run(asked())


def test_the_result_of_an_identity_lookup_that_overlaps_a_change_is_not_remembered(
    world: World, watched: WatchedMap
) -> None:
    add(world)

    async def asked() -> None:
        reading = asyncio.create_task(watched.of("e-1"))
        await asyncio.sleep(0)
        watched.map.forget()
        assert await reading == id_of(world, "erin")
        await watched.of("e-1")
        assert watched.reads == 2

    asyncio.run(asked())


def test_the_identity_of_a_known_caller_is_looked_up_again_before_it_expires(
    world: World, watched: WatchedMap
) -> None:
    erin = id_of(world, "erin")
    add(world)

    async def asked() -> None:
        assert await watched.of("e-1") == erin
        watched.clock.at = 2.5
        assert (await watched.of("e-1"), watched.reads) == (erin, 1)
        watched.clock.at = 2.6
        assert await watched.of("e-1") == await watched.of("e-1") == erin
        await asyncio.gather(*watched.map._reads.values())  # noqa: SLF001 - waits for what goes on beside the calls
        assert watched.reads == 2
        watched.clock.at = 7.5
        assert (await watched.of("e-1"), watched.reads) == (erin, 2)

    asyncio.run(asked())


def test_while_postgres_is_away_callers_are_unknown_and_no_lookup_is_remembered() -> None:
    nowhere = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/x", connect_args={"connect_timeout": 1})
    lost = IdentityMap(Database(nowhere, None))  # type: ignore[arg-type]

    async def asked() -> None:
        for _ in range(2):
            with pytest.raises(MapUnreadable):
                await lost.engineer((IDP, "e-1", None))

    asyncio.run(asked())
    lost.close()
