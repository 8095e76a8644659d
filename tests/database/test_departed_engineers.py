"""A disabled engineer leaves nothing open: the operator's transaction cancels, revokes and notifies."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest
from sqlalchemy.exc import DBAPIError

from harness.clocks import ShiftedClock
from harness.people import HERE, World
from harness.wait import within
from lockbox.admin import vendor_staff
from lockbox.audit.events import Origin
from lockbox.database import Database, UnitOfWork
from lockbox.errors import NotFound, NotYours
from lockbox.facts.enumerations import Mode
from lockbox.identity import authentication
from lockbox.identity.roles import Caller, Role
from lockbox.requests import decide
from lockbox.requests.decision_context import DecisionInput
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.audit_logs import last_change
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import (
    PATIENCE,
    assert_audit_logs_are_whole,
    assert_indexes_are_true,
    at_once,
    door,
    many,
    read,
    state_of,
)
from tests.database.tenancy import id_of, manages, on_the_database
from tests.each import each

MOVES = """
SELECT e.action, e.actor_role, e.actor_id, e.to_state, d.fields #>> '{comment,1}' AS comment FROM events e
LEFT JOIN event_details d ON d.event_id = e.id
WHERE e.request_id = :id AND e.seq IS NOT NULL ORDER BY e.seq DESC LIMIT 1
"""
TOLD = """
SELECT p.name FROM notifications n JOIN people p ON p.id = n.person_id
WHERE n.request_id = :id AND n.template = :template ORDER BY p.name
"""
WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
LEFT = "The requester is no longer an engineer of the vendor."
WAYS: dict[str, Callable[[World], object]] = {
    "disabled": lambda w: manages(w, "olga", vendor_staff.disable, id_of(w, "erin")),
    "removed": lambda w: manages(w, "olga", vendor_staff.remove, id_of(w, "erin")),
    "no engineer any more": lambda w: manages(
        w, "olga", vendor_staff.set_roles, id_of(w, "erin"), frozenset({Role.MANAGER})
    ),
}


def three(world: World) -> tuple[UUID, UUID, UUID]:
    """Give Erin a request in review, one that waits for the customer, and an open window."""
    in_review, waiting, window = (world.fresh().id for _ in range(3))
    for one in (waiting, window):
        world.act("max", Action.ENDORSE, one)
    world.act("ann", Action.APPROVE, window)
    return in_review, waiting, window


@pytest.fixture
def world(api: Database) -> World:
    return World.make(api, Policy())


@pytest.mark.parametrize("how", WAYS)
def test_disabling_an_engineer_ends_the_engineers_requests_and_windows_at_once(world: World, how: str) -> None:
    in_review, waiting, window = three(world)
    elsewhere = World.make(world.db)
    elsewhere.people["erin"] = world.people["erin"]
    theirs = elsewhere.submit().id
    others = world.fresh("eve").id

    WAYS[how](world)

    ends = {in_review: "cancelled", waiting: "cancelled", window: "revoked", theirs: "cancelled"}
    assert {end: state_of(world.db, end) for end in ends} == ends
    assert state_of(world.db, others) == "reviewing"
    for one, state in ends.items():
        (move,) = read(world.db, MOVES, id=one)
        action = "revoke" if state == "revoked" else "cancel"
        assert (move.action, move.actor_role, move.actor_id) == (action, "operator", id_of(world, "olga"))
        assert move.comment == LEFT
    assert sorted(last_change(world.db).facts["ended"]) == sorted(map(str, ends))
    assert_audit_logs_are_whole(world.db)
    assert_indexes_are_true(world.db)


@pytest.mark.far
def test_the_usual_audience_is_notified_when_disabling_an_engineer_ends_requests(
    world: World, worker: Database, post: Postbag
) -> None:
    in_review, waiting, window = three(world)
    post.deliver(worker, open_notifications(worker))
    post.mail.sent.clear()

    manages(world, "olga", vendor_staff.remove, id_of(world, "erin"))
    post.deliver(worker, open_notifications(worker))

    told = {
        one: [row.name for row in read(world.db, TOLD, id=one, template=template)]
        for one, template in ((in_review, "cancelled"), (waiting, "cancelled"), (window, "revoked"))
    }
    assert told == {
        in_review: ["Erin", "Max", "Mia"],
        waiting: ["Abe", "Amir", "Ann", "Erin"],
        window: ["Abe", "Amir", "Ann", "Erin"],
    }
    to_ann = {mail.subject.partition(":")[0]: mail.text for mail in post.mail.sent if mail.to_name == "Ann"}
    assert to_ann.keys() == {"Cancelled by vendor", "Revoked"}
    assert "The vendor cancelled the request. Access was not opened." in to_ann["Cancelled by vendor"]
    assert "Access was revoked by Olga." in to_ann["Revoked"]
    assert all(LEFT in text for text in to_ann.values())


@pytest.mark.far
def test_a_disabled_engineer_gets_no_mail_about_their_ended_requests(
    world: World, worker: Database, post: Postbag
) -> None:
    three(world)

    manages(world, "olga", vendor_staff.disable, id_of(world, "erin"))
    post.deliver(worker, open_notifications(worker))

    assert "Erin" not in {mail.to_name for mail in post.mail.sent}


def test_a_change_of_roles_other_than_engineer_ends_no_request_or_window(world: World) -> None:
    requests = three(world)

    manages(world, "olga", vendor_staff.set_roles, id_of(world, "erin"), frozenset({Role.ENGINEER, Role.MANAGER}))
    manages(world, "olga", vendor_staff.remove, id_of(world, "max"))

    assert [state_of(world.db, request) for request in requests] == ["reviewing", "pending", "active"]


def test_a_failed_role_change_leaves_requests_and_windows_unchanged(world: World) -> None:
    requests = three(world)

    with pytest.raises(ZeroDivisionError):
        manages(world, "olga", _disable_and_stumble, id_of(world, "erin"))

    assert [state_of(world.db, request) for request in requests] == ["reviewing", "pending", "active"]
    assert door(world, resource=_resource(world, requests[2])) is not None


def _disable_and_stumble(session: UnitOfWork, caller: Caller, origin: Origin, person_id: UUID) -> None:
    vendor_staff.disable(session, caller, origin, person_id)
    raise ZeroDivisionError


def _resource(world: World, request_id: UUID) -> str:
    (row,) = read(world.db, "SELECT resources FROM requests WHERE id = :id", id=request_id)
    return str(row.resources[0])


def test_an_expired_request_of_a_departed_engineer_is_left_to_the_timer(world: World, later: ShiftedClock) -> None:
    in_review, *_ = three(world)
    later.shift = timedelta(days=2)
    late = Database(world.db.engine, world.db.schedule, later)

    with late.transaction() as session:
        vendor_staff.disable(session, world.people["olga"], HERE, id_of(world, "erin"))

    assert state_of(world.db, in_review) == "reviewing"


@each("action", [Action.CANCEL, Action.REVOKE])
def test_an_operator_cannot_end_a_request_directly(world: World, action: Action) -> None:
    requests = three(world)
    world.add("otto", Role.OPERATOR)

    for one in requests:
        with pytest.raises(NotFound):
            world.act("otto", action, one)

    assert [state_of(world.db, request) for request in requests] == ["reviewing", "pending", "active"]


def test_an_operator_who_is_also_a_manager_cannot_cancel_other_peoples_requests(world: World) -> None:
    requests = three(world)
    manages(world, "olga", vendor_staff.set_roles, id_of(world, "max"), frozenset({Role.OPERATOR, Role.MANAGER}))

    for request in requests[:2]:
        with pytest.raises(NotYours):
            world.act("max", Action.CANCEL, request)


@pytest.mark.parametrize("who", ["olga", "eve"])
def test_the_database_keeps_an_operator_from_ending_requests_of_a_current_engineer(world: World, who: str) -> None:
    requests = three(world)
    end = "UPDATE requests SET state = 'cancelled', version = version + 1 WHERE requester_id = :id"

    with world.db.transaction() as session:
        authentication.enter(session, world.people[who])
        authentication.see_off(session, id_of(world, "erin"))
        authentication.turn_to(session, world.tenant.id)
        found = session.connection().exec_driver_sql("SELECT count(*) FROM requests").scalar_one()
    on_the_database(world, who, end, id=id_of(world, "erin"))

    assert found == 0
    assert [state_of(world.db, request) for request in requests] == ["reviewing", "pending", "active"]


@each("state", ["denied", "timed_out", "active", "completed"])
def test_the_database_lets_an_operator_only_cancel_or_revoke(world: World, state: str) -> None:
    three(world)

    def forge(session: UnitOfWork, caller: Caller, _: Origin, person_id: UUID) -> None:
        authentication.enter(session, caller)
        authentication.see_off(session, person_id)
        session.connection().exec_driver_sql(
            "DELETE FROM memberships WHERE person_id = %(id)s AND role = 'engineer'", {"id": person_id}
        )
        session.connection().exec_driver_sql("UPDATE requests SET state = %(s)s", {"s": state})

    with pytest.raises(DBAPIError, match=r"can only be cancelled or revoked|only a manager|only an approver"):
        manages(world, "olga", forge, id_of(world, "erin"))


def test_disabling_an_engineer_revokes_a_window_whose_approval_was_uncommitted(
    api: Database, pool: ThreadPoolExecutor
) -> None:
    world = World.make(api)
    request_id = world.submit().id

    with api.transaction() as session:
        decide.act(session, world.people["ann"], HERE, request_id, DecisionInput(Action.APPROVE))
        leaving = pool.submit(manages, world, "olga", vendor_staff.disable, id_of(world, "erin"))
        assert within(PATIENCE, lambda: leaving.done() or read(api, WAITING))
    leaving.result(PATIENCE)

    assert state_of(api, request_id) == "revoked"


@pytest.mark.far
@pytest.mark.parametrize("mode", [Mode.ENFORCE, Mode.OBSERVE])
def test_disabling_an_engineer_during_many_moves_does_not_deadlock(
    api: Database, pool: ThreadPoolExecutor, mode: Mode
) -> None:
    world = World.make(api, Policy(), mode)
    requests = many(world, 7)

    at_once(
        pool,
        partial(manages, world, "olga", vendor_staff.disable, id_of(world, "erin")),
        *(partial(world.act, "max", Action.ENDORSE, request) for request in requests[:4]),
        *(partial(world.act, "erin", Action.CANCEL, request) for request in requests[4:]),
    )

    assert {state_of(api, request) for request in requests} <= {"cancelled", "revoked"}
    assert_audit_logs_are_whole(api)
