"""An admin stops access or switches the mode while a move is uncommitted: a window opened meanwhile is closed too."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

import pytest

from catalogue.service_catalogue import Plan
from harness.people import HERE, World
from harness.wait import within
from lockbox.admin import emergency_stop, policies
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.requests import decide
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy import Consent
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import PATIENCE, assert_audit_logs_are_whole, at_once, door, many, read, state_of
from tests.database.tenancy import does, id_of

PLANS = {"standard": Plan()}
WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
T = TypeVar("T")


@contextmanager
def uncommitted(world: World, who: str, action: Action, request_id: UUID) -> Iterator[None]:
    """Make a move as a person; commit it at the end of the block."""
    with world.db.transaction() as session:
        decide.act(session, world.people[who], HERE, request_id, DecisionInput(action, "No"))
        yield


def beside(world: World, pool: ThreadPoolExecutor, call: Callable[[], T]) -> Future[T]:
    """Start a call on another connection, and return when it waits for a lock or is done."""
    running = pool.submit(call)
    assert within(PATIENCE, lambda: running.done() or read(world.db, WAITING))
    return running


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_a_switch_to_mode_enforce_closes_a_window_that_an_uncommitted_endorsement_opened(
    api: Database, pool: ThreadPoolExecutor, mode: Mode
) -> None:
    world = World.make(api, mode=mode)
    request_id = world.submit().id

    with uncommitted(world, "max", Action.ENDORSE, request_id):
        switching = beside(
            world, pool, lambda: does(world, "tara", emergency_stop.switch_mode, Mode.ENFORCE, plans=PLANS)
        )
    switched = switching.result(PATIENCE)

    assert [request.id for request in switched.closed] == [request_id]
    assert (state_of(api, request_id), door(world)) == ("revoked", None)


def test_withdrawn_consent_closes_a_window_whose_endorsement_was_uncommitted(
    api: Database, pool: ThreadPoolExecutor
) -> None:
    until = datetime.now(UTC) + timedelta(hours=1)
    world = World.make(api, Policy(consent=Consent(mode=Mode.OBSERVE, until=until)))
    request_id = world.submit().id

    with uncommitted(world, "max", Action.ENDORSE, request_id):
        changing = beside(world, pool, lambda: does(world, "tara", policies.change, Policy()))
    changing.result(PATIENCE)

    assert (state_of(api, request_id), door(world)) == ("revoked", None)


@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_an_emergency_stop_ends_a_request_that_is_being_endorsed(
    api: Database, pool: ThreadPoolExecutor, mode: Mode
) -> None:
    world = World.make(api, Policy(), mode)
    request_id = world.submit().id

    with uncommitted(world, "max", Action.ENDORSE, request_id):
        shut = beside(world, pool, lambda: does(world, "tara", emergency_stop.stop_all))
    done = shut.result(PATIENCE)

    ended = {Mode.ENFORCE: ("denied", [], [request_id]), Mode.OBSERVE: ("revoked", [request_id], [])}
    assert done.denied_in_review == 0
    assert (state_of(api, request_id), [r.id for r in done.revoked], [r.id for r in done.denied]) == ended[mode]


def test_an_emergency_stop_revokes_a_window_that_is_being_approved(api: Database, pool: ThreadPoolExecutor) -> None:
    world = World.make(api)
    request_id = world.submit().id

    with uncommitted(world, "ann", Action.APPROVE, request_id):
        shut = beside(world, pool, lambda: does(world, "tara", emergency_stop.stop_all))
    done = shut.result(PATIENCE)

    assert ([request.id for request in done.revoked], done.denied) == ([request_id], [])
    assert state_of(api, request_id) == "revoked"


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_an_endorsement_after_the_switch_to_mode_enforce_asks_the_customer(api: Database, mode: Mode) -> None:
    world = World.make(api, mode=mode)
    before = world.submit().id
    switched = does(world, "tara", emergency_stop.switch_mode, Mode.ENFORCE, plans=PLANS)

    endorsed = world.act("max", Action.ENDORSE, before)

    assert (switched.closed, switched.in_review) == ([], 1)
    assert (endorsed.state, endorsed.mode, door(world)) == ("pending", Mode.ENFORCE, None)
    assert endorsed.asked_at is not None
    asked = read(
        api, "SELECT person_id FROM notifications WHERE request_id = :id AND template = 'pending'", id=before
    )
    assert id_of(world, "ann") in {row.person_id for row in asked}
    assert world.act("ann", Action.APPROVE, before).state == "active"
    assert door(world) is not None


def test_an_endorsement_that_waited_for_the_switch_to_mode_enforce_asks_the_customer(
    api: Database, pool: ThreadPoolExecutor
) -> None:
    world = World.make(api, mode=Mode.OBSERVE)
    request_id = world.submit().id

    with api.transaction() as session:
        emergency_stop.switch_mode(session, world.people["tara"], HERE, world.tenant.slug, Mode.ENFORCE, plans=PLANS)
        endorsing = beside(world, pool, lambda: world.act("max", Action.ENDORSE, request_id))

    assert endorsing.result(PATIENCE).state == "pending"
    assert door(world) is None


def test_a_loosened_tenant_mode_does_not_apply_to_requests_in_review(api: Database) -> None:
    world = World.make(api, Policy())
    request_id = world.submit().id
    does(world, "tara", emergency_stop.switch_mode, Mode.OFF, plans=PLANS)

    endorsed = world.act("max", Action.ENDORSE, request_id)

    assert (endorsed.state, endorsed.mode) == ("pending", Mode.ENFORCE)


def test_switching_from_off_to_observe_notifies_the_customer_of_requests_in_review(api: Database) -> None:
    world = World.make(api, mode=Mode.OFF)
    request_id = world.submit().id
    does(world, "tara", emergency_stop.switch_mode, Mode.OBSERVE, plans=PLANS)

    opened = world.act("max", Action.ENDORSE, request_id)

    assert (opened.state, opened.mode) == ("active", Mode.OBSERVE)
    assert door(world) is not None
    told = read(
        api, "SELECT person_id FROM notifications WHERE request_id = :id AND template = 'active'", id=request_id
    )
    assert id_of(world, "ann") in {row.person_id for row in told}


@pytest.mark.far
def test_switching_the_mode_during_many_moves_does_not_deadlock(api: Database, pool: ThreadPoolExecutor) -> None:
    world = World.make(api, mode=Mode.OBSERVE)
    requests = many(world, 6)

    results = at_once(
        pool,
        partial(does, world, "tara", emergency_stop.switch_mode, Mode.ENFORCE, plans=PLANS),
        *(partial(world.act, "max", Action.ENDORSE, one) for one in requests),
    )

    assert all(isinstance(result, AccessRequest) for result in results[1:])
    closed = {request.id for request in results[0].closed}  # type: ignore[attr-defined]
    states = {one: state_of(api, one) for one in requests}
    assert {one for one, state in states.items() if state == "revoked"} == closed
    assert set(states.values()) <= {"revoked", "pending"}
    assert_audit_logs_are_whole(api)
