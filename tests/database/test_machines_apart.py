"""A service account is only that: the database always refuses role *system* together with any other role."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from uuid import UUID

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from harness.people import World
from harness.stage import Urls, unbound
from harness.wait import within
from lockbox.admin import vendor_staff
from lockbox.database import Database
from lockbox.errors import InvitationRefused
from lockbox.identity.roles import Role
from tests.database.scenes import read, write
from tests.database.tenancy import accepts, id_of, manages, on_the_database
from tests.each import each
from tests.mailbox import code_of

GIVE = "INSERT INTO memberships (id, person_id, role) VALUES (uuidv7(), :p, :r)"
ROLES = "SELECT role FROM memberships WHERE person_id = :p"
WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def roles_of(world: World, name: str) -> set[str]:
    return {row.role for row in read(world.db, ROLES, p=id_of(world, name))}


@each("role", [Role.ENGINEER, Role.MANAGER, Role.OPERATOR, Role.VENDOR_AUDITOR])
def test_the_database_refuses_another_role_for_a_service_account(world: World, role: Role) -> None:
    with pytest.raises(DBAPIError, match="a system and something else"):
        on_the_database(world, "olga", GIVE, p=id_of(world, "gate"), r=role.value)
    with pytest.raises(DBAPIError, match="a system and something else"):
        write(unbound(world.db), GIVE, p=id_of(world, "gate"), r=role.value)

    assert roles_of(world, "gate") == {"system"}


@each("who", ["erin", "max", "vera"])
def test_a_person_with_a_role_cannot_become_a_service_account(world: World, who: str) -> None:
    before = roles_of(world, who)

    with pytest.raises(DBAPIError, match="a system and something else"):
        on_the_database(world, "olga", GIVE, p=id_of(world, who), r="system")
    with pytest.raises(DBAPIError, match="a system and something else"):
        write(
            unbound(world.db),
            "INSERT INTO memberships (id, person_id, role) SELECT uuidv7(), :p, r FROM unnest('{system}'::text[]) r",
            p=id_of(world, who),
        )

    assert roles_of(world, who) == before


def test_a_persons_role_cannot_be_changed_to_system(world: World) -> None:
    manages(world, "olga", vendor_staff.set_roles, id_of(world, "erin"), frozenset({Role.ENGINEER, Role.MANAGER}))

    with pytest.raises(DBAPIError, match="a system and something else"):
        write(
            unbound(world.db),
            "UPDATE memberships SET role = 'system' WHERE person_id = :p AND role = 'manager'",
            p=id_of(world, "erin"),
        )


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ"])
def test_the_system_role_and_a_human_role_cannot_both_be_granted_by_concurrent_transactions(
    world: World, urls: Urls, level: str
) -> None:
    manages(world, "olga", vendor_staff.remove, id_of(world, "eve"))
    engine = create_engine(urls.superuser, poolclass=NullPool, isolation_level=level)

    with ThreadPoolExecutor(1) as pool:
        begun: list[Future[bool]] = []

        def begin() -> None:
            begun.append(pool.submit(_given, engine, id_of(world, "eve"), "system"))
            within(2, lambda: begun[0].done() or read(unbound(world.db), WAITING))

        first = _given(engine, id_of(world, "eve"), "engineer", begin)

    assert (first, begun[0].result()) == (True, False)
    assert roles_of(world, "eve") == {"engineer"}


def _given(engine: Engine, person_id: UUID, role: str, meanwhile: Callable[[], None] | None = None) -> bool:
    try:
        with engine.begin() as connection:
            connection.execute(text(GIVE), {"p": person_id, "r": role})
            if meanwhile:
                meanwhile()
    except DBAPIError:
        return False
    return True


def test_a_service_account_cannot_accept_an_invitation_to_a_role_for_people(world: World, worker: Database) -> None:
    manages(world, "olga", vendor_staff.remove, id_of(world, "eve"))
    (eve,) = read(world.db, "SELECT email FROM people WHERE id = :p", p=id_of(world, "eve"))
    roles = frozenset({Role.ENGINEER})
    invited = manages(world, "olga", vendor_staff.invite, name="Eve", address=eve.email, roles=roles)
    manages(world, "olga", vendor_staff.set_roles, id_of(world, "eve"), frozenset({Role.SYSTEM}))

    with pytest.raises(InvitationRefused, match="cannot become a service account"):
        accepts(world, "eve", invited.id, code_of(worker, invited.id))

    assert roles_of(world, "eve") == {"system"}
