"""Members of a tenant: its admins alone say who they are, and what they say holds at once."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from harness.people import World
from harness.stage import setting
from lockbox.admin import members
from lockbox.database import Database
from lockbox.errors import AlreadyInvited, AlreadyMember, NotFound, NotYours, OtherSide
from lockbox.facts.enumerations import AuthMethod, State
from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.audit_logs import last_change
from tests.database.postbag import address
from tests.database.scenes import at_once, read
from tests.database.tenancy import accepts, does, id_of, members_of, reads
from tests.mailbox import code_of

EVERYBODY = {"Tara", "Ann", "Amir", "Abe"}
VENDOR = ["erin", "max", "olga", "vera", "gate"]
NEW: dict[str, Any] = {"name": "Nina", "address": "nina@contoso.example", "roles": frozenset({Role.APPROVER})}


@pytest.mark.parametrize("who", ["tara", "ann", "aude"])
def test_members_are_listed_to_all_of_the_tenant_with_what_they_are(world: World, api: Database, who: str) -> None:
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


def test_members_are_listed_page_by_page(world: World) -> None:
    first = reads(world, "ann", members.page, cursor=None, most=3)
    rest = reads(world, "ann", members.page, cursor=first.next_cursor, most=3)

    names = [member.name for member in (*first.members, *rest.members)]
    assert names == ["Tara", "Ann", "Amir", "Abe", "Aude"]
    assert rest.next_cursor is None


def test_somebody_invited_is_no_member_until_they_accept_and_may_decide_at_once_then(
    world: World, worker: Database
) -> None:
    invited = does(world, "tara", members.invite, **NEW)
    waiting = world.submit().id
    before = set(members_of(world))

    nina = accepts(world, "nina", invited.id, code_of(worker, invited.id))
    world.people["nina"] = replace(nina, means=AuthMethod.SAMPLE)
    decided = world.act("nina", Action.APPROVE, waiting)

    assert "Nina" not in before
    assert members_of(world)["Nina"].roles == {"approver"}
    assert decided.state is State.ACTIVE


def test_inviting_is_one_event_and_the_address_is_erasable(world: World) -> None:
    invited = does(world, "tara", members.invite, **NEW)

    told = last_change(world.db)

    assert (told.action, told.actor, told.role) == ("member_invited", "Tara", "tenant_admin")
    assert (told.changes, told.told) == ({"roles": "none → approver"}, EVERYBODY)
    assert told.details["member"] == "Nina <nina@contoso.example>"
    assert told.facts["invitation_id"] == str(invited.id)
    assert "nina" not in str(told.facts).lower()


def test_somebody_known_at_another_tenant_is_invited_all_the_same_and_only_then_a_member(
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
def test_whether_an_address_is_the_vendors_is_found_out_by_nobody_who_invites(
    world: World, worker: Database, name: str
) -> None:
    theirs = address(world.db, world, name).upper()

    invited = does(world, "tara", members.invite, **(NEW | {"address": theirs}))

    with pytest.raises(OtherSide):
        accepts(world, name, invited.id, code_of(worker, invited.id))
    assert "Nina" not in members_of(world)


def test_an_address_is_invited_once_at_a_time(world: World, worker: Database) -> None:
    invited = does(world, "tara", members.invite, **NEW)

    with pytest.raises(AlreadyInvited) as refused:
        does(world, "tara", members.invite, **(NEW | {"address": "NINA@contoso.example"}))
    accepts(world, "nina", invited.id, code_of(worker, invited.id))
    with pytest.raises(AlreadyMember) as known:
        does(world, "tara", members.invite, **NEW)

    assert (refused.value.code, known.value.code) == ("already-invited", "already-member")


def test_two_admins_who_invite_one_address_at_once_invite_it_once(world: World, pool: ThreadPoolExecutor) -> None:
    world.add("tom", Role.TENANT_ADMIN, world.tenant.id)

    answers = at_once(
        pool, *(lambda who=who: does(world, who, members.invite, **NEW) for who in ("tara", "tom") for _ in range(2))
    )

    assert sum(isinstance(answer, AlreadyInvited) for answer in answers) == 3
    assert read(world.db, "SELECT count(*) AS number FROM invitations")[0].number == 1


def test_an_invitation_that_is_over_may_be_written_again(world: World, worker: Database) -> None:
    invited = does(world, "tara", members.invite, **NEW)
    code_of(worker, invited.id)
    with setting(world.db).transaction() as session:
        session.execute(text("UPDATE invitations SET expires_at = clock_timestamp() - interval '1 s'"))

    again = does(world, "tara", members.invite, **NEW)

    assert again.id != invited.id


def test_somebody_who_is_no_member_here_is_not_there(world: World, api: Database) -> None:
    elsewhere = World.make(api)

    for person_id in (new_id(), id_of(elsewhere, "ann"), id_of(world, "erin")):
        with pytest.raises(NotFound):
            does(world, "tara", members.set_roles, person_id, roles=frozenset({Role.APPROVER}))
        with pytest.raises(NotFound):
            does(world, "tara", members.set_eligible, person_id, eligible=True)
        with pytest.raises(NotFound):
            does(world, "tara", members.remove, person_id)


@pytest.mark.parametrize("who", ["ann", "aude", "olga"])
def test_only_admins_mark_who_may_be_a_delegate(world: World, who: str) -> None:
    with pytest.raises(NotYours):
        does(world, who, members.set_eligible, id_of(world, "aude"), eligible=True)
