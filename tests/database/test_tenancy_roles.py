"""Roles of a tenant's members: set in full, in force at once, and never without an admin."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from harness.people import World
from lockbox.admin import delegates, members
from lockbox.admin.delegates import DelegationInput
from lockbox.database import Database
from lockbox.errors import LastAdmin, NotYours
from lockbox.facts.enumerations import State
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.scenes import at_once, read, write
from tests.database.tenancy import does, id_of, members_of, on_the_database, reads

EVERYBODY = {"Tara", "Ann", "Amir", "Abe"}


def test_roles_are_set_in_full_and_told_as_a_diff_to_the_member_too(world: World) -> None:
    member = does(
        world, "tara", members.set_roles, id_of(world, "aude"), roles=frozenset({Role.APPROVER, Role.TENANT_ADMIN})
    )

    told = last_change(world.db)
    assert member.roles == {"approver", "tenant_admin"}
    assert (told.action, told.changes) == ("member_changed", {"roles": "auditor → approver, tenant_admin"})
    assert told.details["member"] == f"Aude <{member.address}>"
    assert (told.facts["person_id"], told.told) == (str(member.person_id), EVERYBODY | {"Aude"})


def test_the_same_roles_again_are_no_change(world: World) -> None:
    before = len(recorded_changes(world.db))

    does(world, "tara", members.set_roles, id_of(world, "ann"), roles=frozenset({Role.APPROVER}))
    does(world, "tara", members.set_eligible, id_of(world, "ann"), eligible=False)

    assert len(recorded_changes(world.db)) == before


def test_an_approver_who_is_one_no_longer_decides_no_longer(world: World) -> None:
    waiting = world.submit().id

    does(world, "tara", members.set_roles, id_of(world, "ann"), roles=frozenset({Role.AUDITOR}))

    with pytest.raises(NotYours):
        world.act("ann", Action.APPROVE, waiting)


def test_an_auditor_who_becomes_an_approver_decides_at_once(world: World) -> None:
    waiting = world.submit().id

    does(world, "tara", members.set_roles, id_of(world, "aude"), roles=frozenset({Role.APPROVER}))

    assert world.act("aude", Action.APPROVE, waiting).state is State.ACTIVE


def test_somebody_removed_decides_no_longer_and_their_vote_counts_no_longer(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    waiting = world.submit().id
    world.act("ann", Action.APPROVE, waiting)

    does(world, "tara", members.remove, id_of(world, "ann"))

    with pytest.raises(NotYours):
        world.act("ann", Action.DENY, waiting)
    assert world.act("amir", Action.APPROVE, waiting).state is State.PENDING
    assert world.act("abe", Action.APPROVE, waiting).state is State.ACTIVE


def test_removing_takes_every_role_and_mark_and_is_told_to_the_member_too(world: World) -> None:
    does(world, "tara", members.set_roles, id_of(world, "ann"), roles=frozenset({Role.APPROVER, Role.AUDITOR}))
    does(world, "tara", members.set_eligible, id_of(world, "ann"), eligible=True)

    does(world, "tara", members.remove, id_of(world, "ann"))

    told = last_change(world.db)
    assert (told.action, told.changes) == ("member_removed", {"roles": "approver, auditor → none"})
    assert told.told == {"Tara", "Amir", "Abe", "Ann"}
    assert "Ann" not in members_of(world)
    assert read(world.db, "SELECT FROM eligible_delegates") == []


def test_the_last_admin_can_neither_be_removed_nor_step_down(world: World) -> None:
    with pytest.raises(LastAdmin):
        does(world, "tara", members.remove, id_of(world, "tara"))
    with pytest.raises(LastAdmin):
        does(world, "tara", members.set_roles, id_of(world, "tara"), roles=frozenset({Role.APPROVER}))

    assert members_of(world)["Tara"].roles == {"tenant_admin"}


def test_a_disabled_admin_does_not_count_as_another_one(world: World, superuser: Engine) -> None:
    tom = world.add("tom", Role.TENANT_ADMIN, world.tenant.id)
    write(superuser, "UPDATE people SET disabled_at = clock_timestamp() WHERE id = :id", id=tom.person_id)

    with pytest.raises(LastAdmin):
        does(world, "tara", members.remove, id_of(world, "tara"))


def test_one_of_two_admins_may_go(world: World) -> None:
    world.add("tom", Role.TENANT_ADMIN, world.tenant.id)

    does(world, "tara", members.remove, id_of(world, "tara"))

    assert set(members_of(world, "tom")) == {"Tom", "Ann", "Amir", "Abe", "Aude"}
    assert last_change(world.db).told == {"Tom", "Ann", "Amir", "Abe", "Tara"}


def test_two_admins_who_remove_each_other_at_once_leave_one(world: World, pool: ThreadPoolExecutor) -> None:
    world.add("tom", Role.TENANT_ADMIN, world.tenant.id)

    answers = at_once(
        pool,
        lambda: does(world, "tara", members.remove, id_of(world, "tom")),
        lambda: does(world, "tom", members.remove, id_of(world, "tara")),
    )

    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", "NotYours"]
    (row,) = read(world.db, "SELECT count(*) AS number FROM memberships WHERE role = 'tenant_admin'")
    assert row.number == 1


def test_the_database_itself_keeps_the_last_admin(world: World) -> None:
    with pytest.raises(DBAPIError, match="without an admin"):
        on_the_database(world, "tara", "DELETE FROM memberships WHERE role = 'tenant_admin'")


def test_who_may_be_a_delegate_is_told_as_a_diff(world: World) -> None:
    member = does(world, "tara", members.set_eligible, id_of(world, "aude"), eligible=True)

    told = last_change(world.db)
    assert member.is_eligible
    assert (told.action, told.changes) == ("eligible_changed", {"eligible": "no → yes"})
    assert (told.details["member"], told.told) == (f"Aude <{member.address}>", EVERYBODY | {"Aude"})


@pytest.mark.parametrize("ending", ["unmarked", "delegate removed", "principal removed", "principal no approver"])
def test_what_somebody_stands_in_for_ends_with_what_it_rests_on(world: World, ending: str) -> None:
    aude, ann = id_of(world, "aude"), id_of(world, "ann")
    does(world, "tara", members.set_eligible, aude, eligible=True)
    ends_at = datetime.now(UTC) + timedelta(days=1)
    does(world, "ann", delegates.add_delegation, DelegationInput(aude, ends_at))

    match ending:
        case "unmarked":
            does(world, "tara", members.set_eligible, aude, eligible=False)
        case "delegate removed":
            does(world, "tara", members.remove, aude)
        case "principal removed":
            does(world, "tara", members.remove, ann)
        case _:
            does(world, "tara", members.set_roles, ann, roles=frozenset({Role.AUDITOR}))

    ended = [told for told in recorded_changes(world.db) if told.action == "delegate_ended"]
    assert [(told.details["principal"], told.details["delegate"]) for told in ended] == [("Ann", "Aude")]
    assert reads(world, "tara", delegates.current) == []
