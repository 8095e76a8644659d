"""Members of a tenant: only its admins decide who they are, and changes take effect at once."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from catalogue.service_catalogue import Plan
from harness.people import HERE, World
from harness.stage import setting, unbound
from lockbox.admin import delegates, members, tenants
from lockbox.admin.delegates import DelegationInput
from lockbox.admin.tenants import TenantInput
from lockbox.database import Database
from lockbox.errors import AlreadyInvited, AlreadyMember, LastAdmin, NotFound, NotYours, OtherSide, SignInAgain
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.postbag import address
from tests.database.scenes import at_once, read, write
from tests.database.tenancy import (
    accepts,
    does,
    id_of,
    manages,
    members_of,
    names_delegate,
    on_the_database,
    reads,
    with_delegates,
)
from tests.each import each
from tests.mailbox import code_of
from tests.policy_setup import signed_in

EVERYBODY = {"Tara", "Ann", "Amir", "Abe"}
VENDOR = ["erin", "max", "olga", "vera", "gate"]
NEW: dict[str, Any] = {"name": "Nina", "address": "nina@contoso.example", "roles": frozenset({Role.APPROVER})}


@pytest.mark.parametrize("who", ["tara", "ann", "aude"])
def test_all_members_see_the_list_of_members_with_roles(world: World, api: Database, who: str) -> None:
    World.make(api)
    does(world, "tara", members.set_roles, id_of(world, "abe"), roles=frozenset({Role.APPROVER, Role.AUDITOR}))
    does(world, "tara", members.set_eligible, id_of(world, "aude"), eligible=True)

    seen = members_of(world, who)

    assert {name: member.roles for name, member in seen.items()} == {
        "Tara": {"tenant_admin"},
        "Ann": {"approver"},
        "Amir": {"approver"},
        "Abe": {"approver", "auditor"},
        "Aude": {"auditor"},
    }
    assert seen["Ann"].address == address(api, world, "ann")
    assert [name for name, member in seen.items() if member.is_eligible] == ["Aude"]
    assert all(
        member.since and abs(datetime.now(UTC) - member.since) < timedelta(minutes=5) for member in seen.values()
    )


def test_an_invitee_becomes_a_member_on_accepting_and_may_decide_at_once(world: World, worker: Database) -> None:
    invited = does(world, "tara", members.invite, **NEW)
    waiting = world.submit().id
    before = set(members_of(world))

    nina = accepts(world, "nina", invited.id, code_of(worker, invited.id))
    world.people["nina"] = replace(nina, means=AuthMethod.SAMPLE)
    decided = world.act("nina", Action.APPROVE, waiting)

    assert "Nina" not in before
    assert members_of(world)["Nina"].roles == {"approver"}
    assert decided.state is State.ACTIVE


def test_inviting_a_person_writes_one_event_with_an_erasable_address(world: World) -> None:
    invited = does(world, "tara", members.invite, **NEW)

    told = last_change(world.db)

    assert (told.action, told.actor, told.role) == ("member_invited", "Tara", "tenant_admin")
    assert (told.changes, told.told) == ({"roles": "none → approver"}, EVERYBODY)
    assert told.details["member"] == "Nina <nina@contoso.example>"
    assert told.facts["invitation_id"] == str(invited.id)
    assert "nina" not in str(told.facts).lower()


def test_a_person_of_another_tenant_is_invited_and_joins_on_accepting(
    world: World, worker: Database, api: Database
) -> None:
    elsewhere = World.make(api)
    zoe = elsewhere.add("zoe", Role.APPROVER, elsewhere.tenant.id)
    theirs = address(api, elsewhere, "zoe")
    invited = does(world, "tara", members.invite, name="Z.", address=theirs.title(), roles=frozenset({Role.AUDITOR}))
    before = set(members_of(world))

    accepted = accepts(world, "zoe", invited.id, code_of(worker, invited.id))

    assert before == {"Tara", "Ann", "Amir", "Abe", "Aude"}
    assert (accepted.person_id, accepted.name) == (zoe.person_id, "Zoe")
    assert accepted.tenants() == {world.tenant.id, elsewhere.tenant.id}
    assert members_of(world)["Zoe"].roles == {"auditor"}


@pytest.mark.parametrize("name", ["erin", "olga"])
def test_inviting_a_person_does_not_reveal_vendor_addresses(world: World, worker: Database, name: str) -> None:
    theirs = address(world.db, world, name).upper()

    invited = does(world, "tara", members.invite, **(NEW | {"address": theirs}))

    with pytest.raises(OtherSide):
        accepts(world, name, invited.id, code_of(worker, invited.id))
    assert "Nina" not in members_of(world)


def test_an_address_has_at_most_one_open_invitation(world: World, worker: Database) -> None:
    invited = does(world, "tara", members.invite, **NEW)

    with pytest.raises(AlreadyInvited) as refused:
        does(world, "tara", members.invite, **(NEW | {"address": "NINA@contoso.example"}))
    accepts(world, "nina", invited.id, code_of(worker, invited.id))
    with pytest.raises(AlreadyMember) as known:
        does(world, "tara", members.invite, **NEW)

    assert (refused.value.code, known.value.code) == ("already-invited", "already-member")


def test_of_concurrent_invitations_to_one_address_only_one_succeeds(world: World, pool: ThreadPoolExecutor) -> None:
    world.add("tom", Role.TENANT_ADMIN, world.tenant.id)

    answers = at_once(
        pool, *(lambda who=who: does(world, who, members.invite, **NEW) for who in ("tara", "tom") for _ in range(2))
    )

    assert sum(isinstance(answer, AlreadyInvited) for answer in answers) == 3
    assert read(world.db, "SELECT count(*) AS number FROM invitations")[0].number == 1


def test_a_person_whose_invitation_ended_may_be_invited_again(world: World, worker: Database) -> None:
    invited = does(world, "tara", members.invite, **NEW)
    code_of(worker, invited.id)
    with setting(world.db).transaction() as session:
        session.execute(text("UPDATE invitations SET expires_at = clock_timestamp() - interval '1 s'"))

    again = does(world, "tara", members.invite, **NEW)

    assert again.id != invited.id


def test_a_person_who_is_not_a_member_is_not_found(world: World, api: Database) -> None:
    elsewhere = World.make(api)

    for person_id in (new_id(), id_of(elsewhere, "ann"), id_of(world, "erin")):
        with pytest.raises(NotFound):
            does(world, "tara", members.set_roles, person_id, roles=frozenset({Role.APPROVER}))
        with pytest.raises(NotFound):
            does(world, "tara", members.set_eligible, person_id, eligible=True)
        with pytest.raises(NotFound):
            does(world, "tara", members.remove, person_id)


@each("who", ["ann", "aude", "olga"])
def test_only_admins_mark_members_as_eligible_delegates(world: World, who: str) -> None:
    with pytest.raises(NotYours):
        does(world, who, members.set_eligible, id_of(world, "aude"), eligible=True)


def test_setting_a_members_roles_replaces_all_and_notices_show_the_old_and_the_new_roles(world: World) -> None:
    member = does(
        world, "tara", members.set_roles, id_of(world, "aude"), roles=frozenset({Role.APPROVER, Role.TENANT_ADMIN})
    )

    told = last_change(world.db)
    assert member.roles == {"approver", "tenant_admin"}
    assert (told.action, told.changes) == ("member_changed", {"roles": "auditor → approver, tenant_admin"})
    assert told.details["member"] == f"Aude <{member.address}>"
    assert (told.facts["person_id"], told.told) == (str(member.person_id), EVERYBODY | {"Aude"})


def test_setting_the_same_roles_changes_nothing(world: World) -> None:
    before = len(recorded_changes(world.db))

    does(world, "tara", members.set_roles, id_of(world, "ann"), roles=frozenset({Role.APPROVER}))
    does(world, "tara", members.set_eligible, id_of(world, "ann"), eligible=False)

    assert len(recorded_changes(world.db)) == before


def test_a_member_who_lost_the_approver_role_cannot_decide(world: World) -> None:
    waiting = world.submit().id

    does(world, "tara", members.set_roles, id_of(world, "ann"), roles=frozenset({Role.AUDITOR}))

    with pytest.raises(NotYours):
        world.act("ann", Action.APPROVE, waiting)


def test_a_removed_member_cannot_decide_and_their_vote_stops_counting(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    waiting = world.submit().id
    world.act("ann", Action.APPROVE, waiting)

    does(world, "tara", members.remove, id_of(world, "ann"))

    with pytest.raises(NotYours):
        world.act("ann", Action.DENY, waiting)
    assert world.act("amir", Action.APPROVE, waiting).state is State.PENDING
    assert world.act("abe", Action.APPROVE, waiting).state is State.ACTIVE


def test_removing_a_member_takes_all_roles_and_notifies_the_member(world: World) -> None:
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


def test_a_disabled_admin_does_not_count_as_another_admin(world: World, superuser: Engine) -> None:
    tom = world.add("tom", Role.TENANT_ADMIN, world.tenant.id)
    write(superuser, "UPDATE people SET disabled_at = clock_timestamp() WHERE id = :id", id=tom.person_id)

    with pytest.raises(LastAdmin):
        does(world, "tara", members.remove, id_of(world, "tara"))


def test_admins_removing_each_other_concurrently_leave_one_admin(world: World, pool: ThreadPoolExecutor) -> None:
    world.add("tom", Role.TENANT_ADMIN, world.tenant.id)

    answers = at_once(
        pool,
        lambda: does(world, "tara", members.remove, id_of(world, "tom")),
        lambda: does(world, "tom", members.remove, id_of(world, "tara")),
    )

    assert sorted(type(answer).__name__ for answer in answers) == ["NoneType", "NotYours"]
    (row,) = read(world.db, "SELECT count(*) AS number FROM memberships WHERE role = 'tenant_admin'")
    assert row.number == 1


def test_the_database_refuses_to_remove_the_last_admin(world: World) -> None:
    with pytest.raises(DBAPIError, match="without an admin"):
        on_the_database(world, "tara", "DELETE FROM memberships WHERE role = 'tenant_admin'")


def test_notices_of_a_members_changed_eligibility_show_the_old_and_the_new_value(world: World) -> None:
    member = does(world, "tara", members.set_eligible, id_of(world, "aude"), eligible=True)

    told = last_change(world.db)
    assert member.is_eligible
    assert (told.action, told.changes) == ("eligible_changed", {"eligible": "no → yes"})
    assert (told.details["member"], told.told) == (f"Aude <{member.address}>", EVERYBODY | {"Aude"})


@pytest.mark.parametrize("ending", ["unmarked", "delegate removed", "principal removed", "principal no approver"])
def test_a_delegation_ends_when_a_member_loses_the_role_that_the_delegation_needs(world: World, ending: str) -> None:
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


LEFT = "SELECT FROM memberships m JOIN tenants t ON t.id = m.tenant_id WHERE t.slug = 'fabrikam'"
FOUNDING = TenantInput("fabrikam", "Fabrikam", "standard", "Fay", "fay@fabrikam.example")
NINA: dict[str, Any] = {"name": "Nina", "address": "nina@fabrikam.example", "roles": frozenset({Role.AUDITOR})}


def trapped(world: World, worker: Database) -> None:
    """Let an operator add a tenant, and Fay accept the invitation to be its admin."""
    manages(world, "olga", tenants.add, FOUNDING, {"standard": Plan()})
    (row,) = read(world.db, "SELECT i.id FROM invitations i JOIN tenants t ON t.id = i.tenant_id")
    accepts(world, "fay", row.id, code_of(worker, row.id))


@pytest.mark.parametrize("who", ["aude", "amir"])
@pytest.mark.parametrize("means", [AuthMethod.TOKEN, AuthMethod.MAIL])
def test_a_member_can_leave_with_any_sign_in_and_everyone_is_notified(
    world: World, who: str, means: AuthMethod
) -> None:
    world.people[who] = signed_in(world, who, means)

    does(world, who, members.leave)

    told = last_change(world.db)
    assert who.capitalize() not in members_of(world)
    assert (told.action, told.actor) == ("member_removed", who.capitalize())
    assert told.told == {"Tara", "Ann", "Amir", "Abe", who.capitalize()}
    with pytest.raises(NotYours):
        does(world, who, members.leave)


def test_delegations_of_a_member_end_when_the_member_leaves(world: World) -> None:
    made = with_delegates(world.db)
    names_delegate(made)

    does(made, "aude", members.leave)

    assert reads(made, "ann", delegates.current) == []
    assert "Aude" not in members_of(made)


def test_the_last_admin_cannot_leave_while_other_members_remain(world: World) -> None:
    with pytest.raises(LastAdmin):
        does(world, "tara", members.leave)

    assert members_of(world)["Tara"].roles == {Role.TENANT_ADMIN}


def test_an_admin_can_leave_with_a_strong_sign_in(world: World) -> None:
    world.add("theo", Role.TENANT_ADMIN, world.tenant.id)
    weak = signed_in(world, "tara", AuthMethod.TOKEN)

    with pytest.raises(SignInAgain), world.db.transaction() as session:
        members.leave(session, weak, HERE, world.tenant.slug)
    does(world, "tara", members.leave)

    assert "Tara" not in members_of(world, "theo")


def test_a_person_who_was_always_the_only_member_of_a_tenant_can_leave(world: World, worker: Database) -> None:
    trapped(world, worker)

    does(world, "fay", members.leave, slug="fabrikam")

    with pytest.raises(NotYours):
        does(world, "fay", members.leave, slug="fabrikam")
    assert read(world.db, LEFT) == []


def test_the_last_member_of_a_tenant_that_had_more_members_cannot_leave(world: World, worker: Database) -> None:
    trapped(world, worker)
    invited = does(world, "fay", members.invite, **NINA, slug="fabrikam")
    nina = accepts(world, "nina", invited.id, code_of(worker, invited.id))
    does(world, "fay", members.remove, nina.person_id, slug="fabrikam")

    with pytest.raises(LastAdmin):
        does(world, "fay", members.leave, slug="fabrikam")


def test_the_last_admin_cannot_leave_while_the_vendor_decides(world: World, worker: Database) -> None:
    trapped(world, worker)
    write(unbound(world.db), "UPDATE tenants SET mode = 'observe' WHERE slug = 'fabrikam'")

    with pytest.raises(LastAdmin):
        does(world, "fay", members.leave, slug="fabrikam")
