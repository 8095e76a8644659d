"""Pre-approvals are revoked or approved while somebody else is about to commit: it is judged once all is locked."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import text

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.admin import emergency_stop
from lockbox.admin.pre_approval_status import PreApprovalStatus
from lockbox.errors import TooLate
from lockbox.requests.lifecycle import Action
from tests.database.scenes import PATIENCE, as_caller, state_of
from tests.database.tenancy import does
from tests.database.test_emergency_stop_races import beside, uncommitted
from tests.database.test_extensions import extended
from tests.database.test_pre_approvals import approve, events, in_force, propose, revoke, status

Call = Callable[[], object]


def test_what_is_being_approved_to_go_on_from_its_window_is_waited_for_and_ends_with_it(
    world: World, pool: ThreadPoolExecutor
) -> None:
    which = in_force(world)
    window = world.submit()
    further = extended(world, window.id)

    with uncommitted(world, "ann", Action.APPROVE, further.id):
        revoking = beside(world, pool, partial(revoke, world, which))
    revoking.result(PATIENCE)

    assert [state_of(world.db, one.id) for one in (window, further)] == ["revoked", "revoked"]


def held_until_its_end(world: World, pool: ThreadPoolExecutor, later: ShiftedClock, call: Call) -> Future[object]:
    """Let a call wait for the row of a pre-approval until that has ended."""
    world.db.clock = later
    with as_caller(world.db, world.people["ann"]) as connection:
        connection.execute(text("SELECT FROM pre_approvals FOR UPDATE"))
        running = beside(world, pool, call)
        later.shift = timedelta(days=8)
    return running


def test_an_approval_that_waits_for_its_row_until_it_has_ended_is_too_late(
    world: World, pool: ThreadPoolExecutor, later: ShiftedClock
) -> None:
    which = propose(world)

    with pytest.raises(TooLate):
        held_until_its_end(world, pool, later, partial(approve, world, which, "ann")).result(PATIENCE)


def test_an_emergency_stop_that_waits_for_its_row_leaves_what_has_ended(
    world: World, pool: ThreadPoolExecutor, later: ShiftedClock
) -> None:
    which = in_force(world)

    held_until_its_end(world, pool, later, partial(does, world, "tara", emergency_stop.stop_all)).result(PATIENCE)

    assert (status(world, which), revoke(world, which).status) == (PreApprovalStatus.ENDED, PreApprovalStatus.ENDED)
    assert events(world, "pre_approval_revoked") == []
