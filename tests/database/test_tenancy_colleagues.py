"""The vendor's people as a list, and invitations to it: for operators, and of nobody of a customer."""

from typing import Any

import pytest

from harness.people import World
from lockbox.admin import invitations, members, vendor_staff
from lockbox.database import Database
from lockbox.errors import AlreadyInvited, AlreadyMember, InvitationClosed, NotFound, NotYours
from lockbox.identity.roles import Role, Side
from tests.database.audit_logs import last_change
from tests.database.postbag import address
from tests.database.tenancy import accepts, colleagues_of, does, id_of, manages
from tests.mailbox import code_of, sent_about

NEW: dict[str, Any] = {
    "name": "Nils",
    "address": "nils@vendor.example",
    "roles": frozenset({Role.ENGINEER, Role.MANAGER}),
}


def test_somebody_invited_to_the_vendor_accepts_and_may_ask(world: World, worker: Database) -> None:
    invited = manages(world, "olga", vendor_staff.invite, **NEW)
    before = set(colleagues_of(world))

    nils = accepts(world, "nils", invited.id, code_of(worker, invited.id))

    assert "Nils" not in before
    assert nils.side is Side.VENDOR
    assert nils.vendor_roles() == {"engineer", "manager"}
    assert world.submit("nils").requester_id == nils.person_id


@pytest.mark.parametrize("who", ["olga", "vera"])
def test_operators_and_auditors_see_everybody_on_the_vendors_side_and_nobody_else(world: World, who: str) -> None:
    manages(world, "olga", vendor_staff.remove, id_of(world, "eve"))

    seen = colleagues_of(world, who)

    assert {name: member.roles for name, member in seen.items()} == {
        "Erin": {"engineer"},
        "Eve": set(),
        "Max": {"manager"},
        "Mia": {"manager"},
        "Olga": {"operator"},
        "Vera": {"vendor_auditor"},
        "Gate": {"system"},
    }
    assert seen["Eve"].since is None


def test_the_vendors_people_are_listed_page_by_page(world: World) -> None:
    with world.db.transaction() as session:
        first = vendor_staff.page(session, world.people["olga"], cursor=None, most=4)
        rest = vendor_staff.page(session, world.people["olga"], cursor=first.next_cursor, most=4)

    assert [one.name for one in (*first.members, *rest.members)] == list(colleagues_of(world))
    assert rest.next_cursor is None


def test_an_address_is_invited_once_and_a_colleague_never(world: World) -> None:
    manages(world, "olga", vendor_staff.invite, **NEW)

    with pytest.raises(AlreadyInvited):
        manages(world, "olga", vendor_staff.invite, **(NEW | {"address": "Nils@Vendor.example"}))
    with pytest.raises(AlreadyMember):
        manages(world, "olga", vendor_staff.invite, **(NEW | {"address": address(world.db, world, "max")}))


def test_invitations_to_the_vendor_are_listed_and_withdrawn(world: World, worker: Database) -> None:
    invited = manages(world, "olga", vendor_staff.invite, **NEW)
    with world.db.transaction() as session:
        listed_ = vendor_staff.still_open(session, world.people["olga"])

    manages(world, "olga", vendor_staff.withdraw, invited.id)

    assert [one.id for one in listed_] == [invited.id]
    assert last_change(world.db).action == "invitation_withdrawn"
    assert sent_about(worker, invited.id) == []
    with pytest.raises(InvitationClosed):
        manages(world, "olga", vendor_staff.withdraw, invited.id)


def test_an_operator_withdraws_no_invitation_of_a_customer(world: World) -> None:
    theirs = does(world, "tara", members.invite, **(NEW | {"roles": frozenset({Role.AUDITOR})}))

    with pytest.raises(NotFound):
        manages(world, "olga", vendor_staff.withdraw, theirs.id)
    with pytest.raises(NotYours):
        does(world, "olga", invitations.withdraw, theirs.id)
