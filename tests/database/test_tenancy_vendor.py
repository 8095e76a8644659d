"""The vendor's people: operators set their roles, but never their own, and approve nothing."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness.people import World
from lockbox.admin import invitations, members, vendor_staff
from lockbox.database import Database
from lockbox.errors import (
    AlreadyInvited,
    AlreadyMember,
    Invalid,
    InvitationClosed,
    InvitationRefused,
    NotFound,
    NotSignedIn,
    NotYours,
    OwnRoles,
)
from lockbox.identity import authentication
from lockbox.identity.roles import Role, Side
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.postbag import address
from tests.database.scenes import at_once, door, read
from tests.database.tenancy import accepts, colleagues_of, does, id_of, manages
from tests.each import each
from tests.mailbox import code_of, sent_about

NEW: dict[str, Any] = {
    "name": "Nils",
    "address": "nils@vendor.example",
    "roles": frozenset({Role.ENGINEER, Role.MANAGER}),
}
OTHERS = ["erin", "max", "vera", "gate", "tara", "ann", "aude"]


def test_vendor_changes_are_in_the_vendors_log_and_operators_are_notified(world: World, worker: Database) -> None:
    world.add("oscar", Role.OPERATOR)
    invited = manages(world, "olga", vendor_staff.invite, **NEW)
    accepts(world, "nils", invited.id, code_of(worker, invited.id))
    manages(world, "olga", vendor_staff.set_roles, id_of(world, "nils"), frozenset({Role.MANAGER}))
    manages(world, "olga", vendor_staff.remove, id_of(world, "nils"))
    manages(world, "olga", vendor_staff.disable, id_of(world, "nils"))

    told = recorded_changes(world.db)

    assert [(one.action, one.actor, one.role, one.changes) for one in told] == [
        ("member_invited", "Olga", "operator", {"roles": "none → engineer, manager"}),
        ("member_added", "Nils", "invited", {"roles": "none → engineer, manager"}),
        ("member_changed", "Olga", "operator", {"roles": "engineer, manager → manager"}),
        ("member_removed", "Olga", "operator", {"roles": "manager → none"}),
        ("person_disabled", "Olga", "operator", {"disabled": "no → yes"}),
    ]
    assert {one.details["member"] for one in told} == {"Nils <nils@vendor.example>"}
    assert read(world.db, "SELECT FROM events WHERE seq IS NULL AND tenant_id IS NOT NULL") == []
    assert [one.told for one in told] == [{"Olga", "Oscar"}] * 5


def test_setting_a_managers_review_tier_is_recorded_in_the_vendors_log(world: World) -> None:
    mia, manager, both = id_of(world, "mia"), frozenset({Role.MANAGER}), frozenset({Role.MANAGER, Role.ENGINEER})
    before = len(recorded_changes(world.db))

    tiers = [
        manages(world, "olga", vendor_staff.set_roles, mia, roles, review_tier=tier).review_tier
        for roles, tier in ((manager, 1), (manager, 3), (both, None), (both, 2), (frozenset({Role.ENGINEER}), None))
    ]
    back = manages(world, "olga", vendor_staff.set_roles, mia, manager)

    assert tiers == [1, 3, 3, 2, None]
    assert back.review_tier == 1
    assert [(change.action, change.actor, change.changes) for change in recorded_changes(world.db)[before:]] == [
        ("member_changed", "Olga", {"review_tier": "1 → 3"}),
        ("member_changed", "Olga", {"roles": "manager → engineer, manager"}),
        ("member_changed", "Olga", {"review_tier": "3 → 2"}),
        ("member_changed", "Olga", {"roles": "engineer, manager → engineer"}),
        ("member_changed", "Olga", {"roles": "engineer → manager"}),
    ]


def test_only_managers_have_a_review_tier_in_the_database(world: World) -> None:
    with pytest.raises(Invalid, match="Only managers"):
        manages(
            world, "olga", vendor_staff.set_roles, id_of(world, "erin"), frozenset({Role.ENGINEER}), review_tier=2
        )

    assert colleagues_of(world)["Erin"].review_tier is None


def test_an_operator_cannot_change_their_own_roles(world: World) -> None:
    olga = id_of(world, "olga")

    with pytest.raises(OwnRoles):
        manages(world, "olga", vendor_staff.set_roles, olga, frozenset({Role.OPERATOR, Role.MANAGER}))
    with pytest.raises(OwnRoles):
        manages(world, "olga", vendor_staff.remove, olga)
    with pytest.raises(OwnRoles):
        manages(world, "olga", vendor_staff.disable, olga)

    assert colleagues_of(world)["Olga"].roles == {"operator"}


def test_operators_removing_each_other_concurrently_leave_one_operator(
    world: World, pool: ThreadPoolExecutor
) -> None:
    world.add("oscar", Role.OPERATOR)

    answers = at_once(
        pool,
        lambda: manages(world, "olga", vendor_staff.remove, id_of(world, "oscar")),
        lambda: manages(world, "oscar", vendor_staff.remove, id_of(world, "olga")),
    )

    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", "NotYours"]


def test_granted_and_removed_vendor_roles_take_effect_at_once(world: World) -> None:
    window, other = (world.act("ann", Action.APPROVE, world.submit().id).id for _ in range(2))

    manages(world, "olga", vendor_staff.set_roles, id_of(world, "eve"), frozenset({Role.ENGINEER, Role.MANAGER}))
    with world.db.transaction() as session:
        world.people["eve"] = authentication.authenticate_token(session, world.tokens["eve"], environment="test")
    revoked = world.act("eve", Action.REVOKE, window)
    was_open = door(world)
    manages(world, "olga", vendor_staff.remove, id_of(world, "erin"))

    assert (revoked.state, was_open and was_open.id, door(world)) == ("revoked", other, None)


def test_a_vendor_person_without_roles_regains_roles_without_an_invitation(world: World) -> None:
    manages(world, "olga", vendor_staff.remove, id_of(world, "eve"))

    member = manages(world, "olga", vendor_staff.set_roles, id_of(world, "eve"), frozenset({Role.ENGINEER}))

    assert member.roles == {"engineer"}
    assert world.submit("eve").requester_id == member.person_id


@each(("who", "roles"), [("gate", {Role.MANAGER}), ("eve", {Role.SYSTEM})])
def test_a_person_cannot_become_a_service_account_nor_a_service_account_a_person(
    world: World, who: str, roles: set[Role]
) -> None:
    before = len(recorded_changes(world.db))

    with pytest.raises(Invalid, match="cannot become a service account"):
        manages(world, "olga", vendor_staff.set_roles, id_of(world, who), frozenset(roles))

    assert len(recorded_changes(world.db)) == before


def test_repeating_a_change_of_a_vendor_person_changes_nothing(world: World) -> None:
    manages(world, "olga", vendor_staff.remove, id_of(world, "eve"))
    manages(world, "olga", vendor_staff.disable, id_of(world, "eve"))
    before = len(recorded_changes(world.db))

    manages(world, "olga", vendor_staff.set_roles, id_of(world, "max"), frozenset({Role.MANAGER}))
    manages(world, "olga", vendor_staff.remove, id_of(world, "eve"))
    manages(world, "olga", vendor_staff.disable, id_of(world, "eve"))

    assert len(recorded_changes(world.db)) == before


def test_a_disabled_person_loses_tokens_and_windows_at_once(world: World) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)
    was_open = door(world)

    member = manages(world, "olga", vendor_staff.disable, id_of(world, "erin"))

    assert was_open is not None
    assert (member.is_disabled, door(world)) == (True, None)
    with pytest.raises(NotSignedIn), world.db.transaction() as session:
        authentication.authenticate_token(session, world.tokens["erin"], environment="test")


def test_a_disabled_person_gets_no_roles_and_accepts_no_invitation(world: World, worker: Database) -> None:
    manages(world, "olga", vendor_staff.remove, id_of(world, "eve"))
    theirs = address(world.db, world, "eve")
    invited = manages(world, "olga", vendor_staff.invite, **(NEW | {"address": theirs}))
    manages(world, "olga", vendor_staff.disable, id_of(world, "eve"))

    with pytest.raises(Invalid):
        manages(world, "olga", vendor_staff.set_roles, id_of(world, "eve"), frozenset({Role.ENGINEER}))
    with pytest.raises(InvitationRefused):
        accepts(world, "eve", invited.id, code_of(worker, invited.id))


def test_operators_cannot_look_up_a_customers_people(world: World) -> None:
    for person_id in (id_of(world, "ann"), id_of(world, "tara"), new_id()):
        with pytest.raises(NotFound):
            manages(world, "olga", vendor_staff.set_roles, person_id, frozenset({Role.ENGINEER}))
        with pytest.raises(NotFound):
            manages(world, "olga", vendor_staff.remove, person_id)
        with pytest.raises(NotFound):
            manages(world, "olga", vendor_staff.disable, person_id)


def test_an_invited_engineer_accepts_and_may_submit_requests(world: World, worker: Database) -> None:
    invited = manages(world, "olga", vendor_staff.invite, **NEW)
    before = set(colleagues_of(world))

    nils = accepts(world, "nils", invited.id, code_of(worker, invited.id))

    assert "Nils" not in before
    assert nils.side is Side.VENDOR
    assert nils.vendor_roles() == {"engineer", "manager"}
    assert world.submit("nils").requester_id == nils.person_id


@pytest.mark.parametrize("who", ["olga", "vera"])
def test_operators_and_auditors_see_all_vendor_people_and_no_customer_people(world: World, who: str) -> None:
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


def test_vendor_people_are_listed_page_by_page(world: World) -> None:
    with world.db.transaction() as session:
        first = vendor_staff.page(session, world.people["olga"], cursor=None, most=4)
        rest = vendor_staff.page(session, world.people["olga"], cursor=first.next_cursor, most=4)

    assert [one.name for one in (*first.members, *rest.members)] == list(colleagues_of(world))
    assert rest.next_cursor is None


def test_neither_an_invited_address_nor_the_address_of_a_vendor_person_is_invited_again(world: World) -> None:
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


def test_an_operator_cannot_withdraw_a_customers_invitation(world: World) -> None:
    theirs = does(world, "tara", members.invite, **(NEW | {"roles": frozenset({Role.AUDITOR})}))

    with pytest.raises(NotFound):
        manages(world, "olga", vendor_staff.withdraw, theirs.id)
    with pytest.raises(NotYours):
        does(world, "olga", invitations.withdraw, theirs.id)
