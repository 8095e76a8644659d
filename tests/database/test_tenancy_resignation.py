"""Leaving a tenant on one's own: any member may, the last admin only where nobody else is left behind."""

from typing import Any

import pytest

from config.service_catalogue import Plan
from harness.people import HERE, World
from harness.stage import unbound
from lockbox.admin import delegates, members, tenants
from lockbox.admin.tenants import TenantInput
from lockbox.database import Database
from lockbox.errors import LastAdmin, NotYours, SignInAgain
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.roles import Role
from tests.database.audit_logs import last_change
from tests.database.scenes import read, write
from tests.database.tenancy import accepts, does, manages, members_of, names_delegate, reads, with_delegates
from tests.mailbox import code_of
from tests.policy_setup import signed_in

LEFT = "SELECT FROM memberships m JOIN tenants t ON t.id = m.tenant_id WHERE t.slug = 'fabrikam'"
FOUNDING = TenantInput("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")
NINA: dict[str, Any] = {"name": "Nina", "address": "nina@fabrikam.example", "roles": frozenset({Role.AUDITOR})}


def trapped(world: World, worker: Database) -> None:
    """Let an operator add a tenant, and Fay accept to be its admin."""
    manages(world, "olga", tenants.add, FOUNDING, {"standard": Plan()})
    (row,) = read(world.db, "SELECT i.id FROM invitations i JOIN tenants t ON t.id = i.tenant_id")
    accepts(world, "fay", row.id, code_of(worker, row.id))


@pytest.mark.parametrize("who", ["aude", "amir"])
@pytest.mark.parametrize("means", [AuthMethod.TOKEN, AuthMethod.MAIL])
def test_a_member_leaves_by_any_sign_in_and_all_are_told(world: World, who: str, means: AuthMethod) -> None:
    world.people[who] = signed_in(world, who, means)

    does(world, who, members.leave)

    told = last_change(world.db)
    assert who.capitalize() not in members_of(world)
    assert (told.action, told.actor) == ("member_removed", who.capitalize())
    assert told.told == {"Tara", "Ann", "Amir", "Abe", who.capitalize()}
    with pytest.raises(NotYours):
        does(world, who, members.leave)


def test_who_leaves_stands_in_for_nobody_any_more(world: World) -> None:
    made = with_delegates(world.db)
    names_delegate(made)

    does(made, "aude", members.leave)

    assert reads(made, "ann", delegates.current) == []
    assert "Aude" not in members_of(made)


def test_the_last_admin_does_not_leave_others_behind(world: World) -> None:
    with pytest.raises(LastAdmin):
        does(world, "tara", members.leave)

    assert members_of(world)["Tara"].roles == {Role.TENANT_ADMIN}


def test_an_admin_among_others_leaves_with_a_strong_sign_in(world: World) -> None:
    world.add("theo", Role.TENANT_ADMIN, world.tenant.id)
    weak = signed_in(world, "tara", AuthMethod.TOKEN)

    with pytest.raises(SignInAgain), world.db.transaction() as session:
        members.leave(session, weak, HERE, world.tenant.slug)
    does(world, "tara", members.leave)

    assert "Tara" not in members_of(world, "theo")


def test_who_was_taken_into_a_tenant_that_nobody_else_ever_joined_leaves_it_as_they_came_in(
    world: World, worker: Database
) -> None:
    trapped(world, worker)

    does(world, "fay", members.leave, slug="fabrikam")

    with pytest.raises(NotYours):
        does(world, "fay", members.leave, slug="fabrikam")
    assert read(world.db, LEFT) == []


def test_who_is_left_of_several_stays(world: World, worker: Database) -> None:
    trapped(world, worker)
    invited = does(world, "fay", members.invite, **NINA, slug="fabrikam")
    nina = accepts(world, "nina", invited.id, code_of(worker, invited.id))
    does(world, "fay", members.remove, nina.person_id, slug="fabrikam")

    with pytest.raises(LastAdmin):
        does(world, "fay", members.leave, slug="fabrikam")


def test_nobody_leaves_a_tenant_to_itself_in_which_the_vendor_decides_alone(world: World, worker: Database) -> None:
    trapped(world, worker)
    write(unbound(world.db), "UPDATE tenants SET mode = 'observe' WHERE slug = 'fabrikam'")

    with pytest.raises(LastAdmin):
        does(world, "fay", members.leave, slug="fabrikam")
