"""What a window is made of: whose votes open it, how long it lasts, and what shuts it."""

import time
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from harness.people import World
from lockbox.database import Database
from lockbox.errors import WindowTooLong
from lockbox.facts.enumerations import State
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import MAILBOX, door, many, read, state_of, write


def test_the_window_counts_from_the_approval_and_not_from_the_submit(world: World) -> None:
    request = world.submit(access_window=600)
    time.sleep(0.2)

    opened = world.act("ann", Action.APPROVE, request.id)

    assert opened.opened_at is not None
    assert opened.opened_at >= request.created_at + timedelta(seconds=0.2)
    assert opened.deadline_at == opened.opened_at + timedelta(seconds=600)
    assert opened.wake_at == opened.deadline_at


def test_an_approver_shortens_the_window_and_never_lengthens_it(world: World) -> None:
    first, second = many(world, 2, access_window=600)

    opened = world.act("ann", Action.APPROVE, first, access_window=60)

    assert opened.opened_at is not None
    assert opened.deadline_at == opened.opened_at + timedelta(seconds=60)
    with pytest.raises(WindowTooLong):
        world.act("ann", Action.APPROVE, second, access_window=601)


def test_the_shortest_granted_window_counts_from_the_approval_that_met_the_quorum(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=3))
    request = world.submit(access_window=600)

    world.act("ann", Action.APPROVE, request.id, access_window=120)
    world.act("amir", Action.APPROVE, request.id, access_window=60)
    opened = world.act("abe", Action.APPROVE, request.id, access_window=300)

    (third,) = read(api, "SELECT max(decided_at) AS at FROM decisions")
    assert opened.opened_at == third.at
    assert opened.deadline_at == third.at + timedelta(seconds=60)


def test_only_votes_of_those_who_may_still_approve_are_counted(api: Database, superuser: Engine) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id, access_window=1)
    write(superuser, "DELETE FROM memberships WHERE person_id = :id", id=world.people["ann"].person_id)

    second = world.act("amir", Action.APPROVE, request.id)
    third = world.act("abe", Action.APPROVE, request.id)

    assert second.state is State.PENDING
    assert third.state is State.ACTIVE
    assert third.opened_at is not None
    assert third.deadline_at == third.opened_at + timedelta(hours=1)


def test_the_vote_of_a_disabled_person_is_not_counted(api: Database, superuser: Engine) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=2))
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    write(superuser, "UPDATE people SET disabled_at = now() WHERE id = :id", id=world.people["ann"].person_id)

    assert world.act("amir", Action.APPROVE, request.id).state is State.PENDING


def test_windows_are_independent_and_one_that_ends_shuts_no_other(world: World) -> None:
    first, second = many(world, 2)
    for one in (first, second):
        world.act("ann", Action.APPROVE, one)

    world.act("tara", Action.REVOKE, first)

    still = door(world)
    assert still is not None
    assert still.id == second
    assert door(world, who="eve") is None
    assert door(world, resource=MAILBOX.upper()) is None


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE tenants SET suspended = true",
        "UPDATE people SET disabled_at = now() WHERE id IN (SELECT requester_id FROM requests)",
        "DELETE FROM memberships WHERE person_id IN (SELECT requester_id FROM requests)",
    ],
)
def test_a_window_shuts_when_engineer_or_tenant_lose_their_good_standing(
    world: World, superuser: Engine, change: str
) -> None:
    world.act("ann", Action.APPROVE, world.submit().id)
    before = door(world)

    write(superuser, change)

    assert before is not None
    assert door(world) is None


def test_a_window_that_was_forged_without_its_decisions_does_not_open(world: World, superuser: Engine) -> None:
    request = world.submit()
    with superuser.connect() as connection:
        connection.execute(text("SET session_replication_role = replica"))
        connection.execute(
            text(
                "UPDATE requests SET state = 'active', opened_at = now(), deadline_at = now() + interval '1 minute',"
                " wake_at = now() + interval '1 minute' WHERE id = :id"
            ),
            {"id": request.id},
        )

    assert state_of(world.db, request.id) == "active"
    assert door(world) is None
