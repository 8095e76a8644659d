"""Who stands in for whom: while it runs, until it is ended, and only by people in good standing."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.admin import delegates, members
from lockbox.database import Database
from lockbox.errors import NotFound, NotYours
from lockbox.facts.enumerations import State
from lockbox.identity import authentication
from lockbox.identity.roles import Role
from lockbox.identity.time_zones import clock_time
from lockbox.notifications import recipients
from lockbox.requests.lifecycle import Action
from lockbox.sql import new_id
from tests.database.audit_logs import last_change, recorded_changes
from tests.database.postbag import PUBLIC_URL
from tests.database.scenes import read, write
from tests.database.tenancy import does, id_of, names_delegate, reads, with_delegates
from tests.mailbox import sent_about
from tests.policy_setup import lay_down

DAY = timedelta(days=1)


@pytest.fixture
def world(api: Database) -> World:
    """A world in which Aude, the auditor, and Abe, an approver, may be named as delegates."""
    return with_delegates(api)


def stands(world: World, db: Database | None = None, **shift: float) -> dict[str, set[str]]:
    """Return who stands in for whom, by name, at a moment from now."""
    names = {caller.person_id: name for name, caller in world.people.items()}
    with (db or world.db).transaction() as session:
        authentication.enter(session, world.people["tara"])
        at = datetime.now(UTC) + timedelta(**shift)
        found = recipients.look_up(session, {world.tenant.id}, at).delegates[world.tenant.id]
    return {names[delegate]: {names[one] for one in principals} for delegate, principals in found.items()}


def test_a_delegate_stands_in_from_start_to_end(world: World) -> None:
    start = datetime.now(UTC) + DAY
    entry = names_delegate(world, starts_at=start, ends_at=start + DAY)

    assert not entry.counts
    assert [stands(world, hours=hours) for hours in (0, 23, 25, 47, 49)] == [
        {},
        {},
        {"aude": {"ann"}},
        {"aude": {"ann"}},
        {},
    ]


def test_a_delegate_decides_in_the_own_name(world: World) -> None:
    names_delegate(world)
    waiting = world.submit().id

    decided = world.act("aude", Action.APPROVE, waiting)

    assert decided.state is State.ACTIVE
    (decision,) = read(world.db, "SELECT person_id, principals FROM decisions WHERE request_id = :id", id=waiting)
    assert tuple(decision) == (id_of(world, "aude"), [id_of(world, "ann")])


def test_one_delegate_may_stand_in_for_two_and_has_one_vote(world: World) -> None:
    names_delegate(world, "ann")
    names_delegate(world, "amir")

    assert stands(world) == {"aude": {"ann", "amir"}}


@pytest.mark.parametrize(("who", "role"), [("ann", "approver"), ("tara", "tenant_admin")])
def test_a_delegation_is_ended_by_its_principal_or_an_admin_and_holds_no_longer(
    world: World, who: str, role: str
) -> None:
    entry = names_delegate(world)
    waiting = world.submit().id

    does(world, who, delegates.end, entry.delegation.id)

    told = last_change(world.db)
    assert (told.action, told.role) == ("delegate_ended", role)
    assert told.changes["period"].endswith(" → none")
    assert "Aude" in told.told
    assert stands(world) == {}
    assert reads(world, "ann", delegates.current) == []
    with pytest.raises(NotYours):
        world.act("aude", Action.APPROVE, waiting)


def test_what_is_over_is_ended_once(world: World) -> None:
    entry = names_delegate(world)
    does(world, "ann", delegates.end, entry.delegation.id)
    before = len(recorded_changes(world.db))

    does(world, "ann", delegates.end, entry.delegation.id)

    assert len(recorded_changes(world.db)) == before


def test_another_approver_does_not_end_a_delegation(world: World) -> None:
    entry = names_delegate(world)

    with pytest.raises(NotYours):
        does(world, "amir", delegates.end, entry.delegation.id)

    assert stands(world) == {"aude": {"ann"}}


def test_a_delegation_of_another_tenant_is_not_there(world: World, api: Database) -> None:
    elsewhere = World.make(api)
    does(elsewhere, "tara", members.set_eligible, id_of(elsewhere, "aude"), eligible=True)
    theirs = names_delegate(elsewhere)

    for one in (theirs.delegation.id, new_id()):
        with pytest.raises(NotFound):
            does(world, "tara", delegates.end, one)
    with pytest.raises(NotFound):
        reads(world, "tara", delegates.current, slug=elsewhere.tenant.slug)


@pytest.mark.parametrize("who", ["tara", "ann", "aude"])
def test_all_of_the_tenant_see_who_stands_in_and_who_will(world: World, later: ShiftedClock, who: str) -> None:
    at = datetime.now(UTC)
    names_delegate(world, "ann")
    names_delegate(world, "amir", delegate="abe", starts_at=at + DAY, ends_at=at + 2 * DAY)
    later.shift = -2 * DAY
    names_delegate(world, "abe", ends_at=at - DAY, db=Database(world.db.engine, world.db.schedule, later))

    listed = reads(world, who, delegates.current)

    assert [(one.principal, one.delegate, one.counts) for one in listed] == [
        ("Ann", "Aude", True),
        ("Amir", "Abe", False),
    ]


@pytest.mark.parametrize(
    "ending", ["disabled delegate", "disabled principal", "unmarked", "no member", "no approver"]
)
def test_only_who_is_in_good_standing_now_counts(world: World, superuser: Engine, ending: str) -> None:
    names_delegate(world)
    before = stands(world)
    statement, name = {
        "disabled delegate": ("UPDATE people SET disabled_at = clock_timestamp() WHERE id = :id", "aude"),
        "disabled principal": ("UPDATE people SET disabled_at = clock_timestamp() WHERE id = :id", "ann"),
        "unmarked": ("DELETE FROM eligible_delegates WHERE person_id = :id", "aude"),
        "no member": ("DELETE FROM memberships WHERE person_id = :id", "aude"),
        "no approver": ("UPDATE memberships SET role = 'auditor' WHERE person_id = :id", "ann"),
    }[ending]

    write(superuser, statement, id=id_of(world, name))

    assert before == {"aude": {"ann"}}
    assert stands(world) == {}
    (listed,) = reads(world, "tara", delegates.current)
    assert not listed.counts


def test_a_role_besides_does_not_make_a_delegate_count_twice(world: World) -> None:
    both = frozenset({Role.AUDITOR, Role.TENANT_ADMIN})
    does(world, "tara", members.set_roles, id_of(world, "aude"), roles=both)
    names_delegate(world)

    assert stands(world) == {"aude": {"ann"}}


def test_a_delegate_is_mailed_what_waits_when_the_time_begins(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    start = datetime.now(UTC) + timedelta(hours=2)
    entry = names_delegate(world, starts_at=start, ends_at=start + DAY)
    waiting = world.submit()
    denied = world.submit()
    world.act("abe", Action.DENY, denied.id)

    before = sent_about(sender, entry.delegation.id)
    later.shift = timedelta(hours=2, seconds=1)
    (mail,) = sent_about(sender, entry.delegation.id)

    assert before == []
    assert (mail.to_name, mail.subject) == ("Aude", "You are now the delegate of an approver of Contoso")
    until = clock_time(start + DAY)
    for said in (mail.text, mail.html):
        words = " ".join(re.sub(r"<[^>]+>", "", said).split())
        assert f"You are the delegate of Ann at Contoso from now until {until}" in words
        assert "Erin requests access to Exchange Online" in words
        assert "did this on" not in said
        assert "Pre-approvals may wait for you as well" in words
        assert "/sign-in" not in said
        assert f"{PUBLIC_URL}/requests/{waiting.id}" in said
        assert str(denied.id) not in said


def test_a_delegate_is_mailed_no_link_to_what_a_policy_wants_none_to(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    board = {"name": "Board", "match": {"resources": ["mailbox:ceo@*"]}, "terms": {"mail_link": False}}
    lay_down(world, rules=[board])
    start = datetime.now(UTC) + timedelta(hours=2)
    entry = names_delegate(world, starts_at=start, ends_at=start + DAY)
    linked, without = world.submit(), world.submit(resources=["mailbox:ceo@contoso.example"])
    later.shift = timedelta(hours=2, seconds=1)

    (mail,) = sent_about(sender, entry.delegation.id)

    for said in (mail.text, mail.html):
        assert re.findall(r"https?://[^\s\"<]+", said) == [f"{PUBLIC_URL}/requests/{linked.id}"]
        assert str(without.id) in said
        assert "By your policy" in " ".join(said.split())


def test_a_delegate_is_told_where_nothing_waits(world: World, sender: Database, later: ShiftedClock) -> None:
    entry = names_delegate(world)
    later.shift = timedelta(seconds=1)

    (mail,) = sent_about(sender, entry.delegation.id)

    assert "No requests are waiting for an answer" in mail.text
    assert "http" not in mail.text + mail.html


def test_a_delegate_whose_time_was_ended_before_it_began_is_not_mailed(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    start = datetime.now(UTC) + timedelta(hours=2)
    entry = names_delegate(world, starts_at=start, ends_at=start + DAY)
    does(world, "ann", delegates.end, entry.delegation.id)
    later.shift = timedelta(hours=3)

    assert sent_about(sender, entry.delegation.id) == []
