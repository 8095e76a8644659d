"""What ends when a person leaves or loses the needed role: in the same transaction, and people are notified."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from catalogue.service_catalogue import Plan
from harness.people import World
from lockbox.admin import members, recovery, tenants, vendor_staff
from lockbox.admin.tenants import TenantInput
from lockbox.database import Database
from lockbox.errors import InvitationRefused, NotYours
from lockbox.identity.roles import Role
from tests.database.audit_logs import recorded_changes
from tests.database.scenes import at_once, read
from tests.database.tenancy import accepts, does, id_of, invites, manages
from tests.mailbox import code_of, sent_about

RITA: dict[str, Any] = {"name": "Rita", "address": "rita@contoso.example"}
NILS: dict[str, Any] = {"name": "Nils", "address": "nils@vendor.example", "roles": frozenset({Role.ENGINEER})}
FOUNDING = TenantInput("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")
STILL_OPEN = "SELECT email FROM invitations WHERE withdrawn_at IS NULL AND accepted_at IS NULL ORDER BY email"


def still_open(world: World) -> list[str]:
    return [row.email for row in read(world.db, STILL_OPEN)]


@pytest.fixture
def world(world: World) -> World:
    """A world with a second admin and a second operator."""
    world.add("theo", Role.TENANT_ADMIN, world.tenant.id)
    world.add("oscar", Role.OPERATOR)
    return world


ADMIN_LEAVES: dict[str, Callable[[World], object]] = {
    "removed": lambda w: does(w, "theo", members.remove, id_of(w, "tara")),
    "no admin any more": lambda w: does(
        w, "theo", members.set_roles, id_of(w, "tara"), roles=frozenset({Role.APPROVER})
    ),
    "by her own hand": lambda w: does(w, "tara", members.remove, id_of(w, "tara")),
}
OPERATOR_LEAVES: dict[str, Callable[[World], object]] = {
    "removed": lambda w: manages(w, "oscar", vendor_staff.remove, id_of(w, "olga")),
    "disabled": lambda w: manages(w, "oscar", vendor_staff.disable, id_of(w, "olga")),
    "no operator any more": lambda w: manages(
        w, "oscar", vendor_staff.set_roles, id_of(w, "olga"), frozenset({Role.MANAGER})
    ),
}


@pytest.mark.parametrize("how", ADMIN_LEAVES)
def test_open_invitations_made_by_an_admin_end_when_the_admin_is_removed(
    world: World, worker: Database, how: str
) -> None:
    invited = invites(world)
    mailed = invites(world, name="Nora", address="nora@contoso.example")
    code = code_of(worker, mailed.id)
    does(world, "theo", members.invite, name="Nick", address="nick@contoso.example", roles=frozenset({Role.AUDITOR}))

    ADMIN_LEAVES[how](world)

    assert still_open(world) == ["nick@contoso.example"]
    assert sent_about(worker, invited.id) == []
    with pytest.raises(InvitationRefused):
        accepts(world, "nora", mailed.id, code)
    ended = [change for change in recorded_changes(world.db) if change.action == "invitation_withdrawn"]
    assert [one.details["member"].partition(" <")[0] for one in ended] == ["Nina", "Nora"]
    assert {one.role for one in ended} == {"tenant_admin"}
    assert all({"Theo", "Ann", "Amir", "Abe"} <= one.told for one in ended)


def test_open_invitations_made_by_a_current_admin_stay_open(world: World) -> None:
    invites(world)

    does(
        world,
        "theo",
        members.set_roles,
        id_of(world, "tara"),
        roles=frozenset({Role.TENANT_ADMIN, Role.AUDITOR}),
    )
    does(world, "theo", members.remove, id_of(world, "ann"))

    assert still_open(world) == ["nina@contoso.example"]


@pytest.mark.parametrize("how", OPERATOR_LEAVES)
def test_invitations_and_proposals_by_an_operator_end_when_the_operator_is_removed(world: World, how: str) -> None:
    manages(world, "olga", vendor_staff.invite, **NILS)
    does(world, "olga", recovery.propose, **RITA)
    manages(world, "olga", tenants.add, FOUNDING, {"standard": Plan()})
    manages(world, "oscar", vendor_staff.invite, **(NILS | {"address": "nick@vendor.example"}))
    invites(world)

    OPERATOR_LEAVES[how](world)

    assert still_open(world) == ["nick@vendor.example", "nina@contoso.example"]
    ended = {
        change.details["member"].partition(" <")[0]: (change.action, change.actor, change.role, change.told)
        for change in recorded_changes(world.db)
        if change.action in {"invitation_withdrawn", "recovery_withdrawn"}
    }
    assert ended == {
        "Nils": ("invitation_withdrawn", "Oscar", "operator", {"Olga", "Oscar"}),
        "Fay": ("invitation_withdrawn", "Oscar", "operator", set()),
        "Rita": ("recovery_withdrawn", "Oscar", "operator", {"Tara", "Theo", "Ann", "Amir", "Abe"}),
    }


@pytest.mark.far
def test_an_operator_who_proposes_while_being_removed_leaves_no_open_proposal(
    world: World, pool: ThreadPoolExecutor
) -> None:
    for _ in range(5):
        proposed, _ = at_once(
            pool,
            lambda: does(world, "olga", recovery.propose, **RITA),
            lambda: manages(world, "oscar", vendor_staff.remove, id_of(world, "olga")),
        )

        assert still_open(world) == []
        assert isinstance(proposed, NotYours) or proposed is not None
        manages(world, "oscar", vendor_staff.set_roles, id_of(world, "olga"), frozenset({Role.OPERATOR}))
