"""Everyone who was asked gets the outcome once, by whatever mail they were asked; no one is asked in vain."""

from collections import Counter
from datetime import timedelta
from uuid import UUID

import pytest

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.database import Database
from lockbox.facts.enumerations import State
from lockbox.identity.roles import Role
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from tests.database.scenes import read
from tests.policy_setup import lay_down, stand_in

TOLD = "SELECT person_id FROM notifications WHERE request_id = :id AND template = :template"


def told(world: World, request_id: UUID, template: str) -> Counter[str]:
    """Return for whom notifications with that template were queued, and how many."""
    names = {caller.person_id: name for name, caller in world.people.items()}
    return Counter(names[row.person_id] for row in read(world.db, TOLD, id=request_id, template=template))


def test_a_person_prompted_only_by_a_reminder_is_notified_of_the_outcome(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    request = world.submit()
    world.add("nora", Role.APPROVER, world.tenant.id)
    later.shift = timedelta(hours=6)
    timers.run(sender, [request.id])

    world.act("ann", Action.DENY, request.id)

    assert told(world, request.id, "answer_reminder")["nora"] == 1
    assert told(world, request.id, "denied")["nora"] == 1


def test_a_delegate_whose_period_began_while_a_request_was_pending_gets_the_outcome(world: World) -> None:
    request = world.submit()
    stand_in(world, "aude", "ann")

    world.act("amir", Action.DENY, request.id)

    assert told(world, request.id, "denied")["aude"] == 1


def test_a_delegate_whose_period_began_after_the_approval_is_not_notified_of_the_revocation(world: World) -> None:
    request = world.submit()
    world.act("amir", Action.APPROVE, request.id)
    stand_in(world, "aude", "ann")

    world.act("amir", Action.REVOKE, request.id)

    assert told(world, request.id, "revoked")["aude"] == 0


def test_the_delegate_of_a_person_who_voted_is_not_reminded(
    world: World, sender: Database, later: ShiftedClock
) -> None:
    lay_down(world, quorum=2)
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    stand_in(world, "aude", "ann", ends=24)
    later.shift = timedelta(hours=6)

    timers.run(sender, [request.id])

    assert told(world, request.id, "answer_reminder") == {"amir": 1, "abe": 1}


@pytest.mark.parametrize("spelled", ["mailbox:ANNA@contoso.example", "mailbox:Anna@Contoso.Example"])
def test_a_denied_case_needs_a_manager_even_if_its_reference_is_capitalised_differently(
    world: World, spelled: str
) -> None:
    denied = world.submit(resources=["mailbox:anna@contoso.example"])
    world.act("ann", Action.DENY, denied.id)

    again = world.submit(resources=[spelled])

    assert again.state is State.REVIEWING
