"""Each course that a request can take, by its events: who, what, the states before and after, and any deadline."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, Row

from harness.people import World
from lockbox.database import Database
from lockbox.errors import LockboxError
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import assert_audit_logs_are_whole, read, set_back

NOBODY = None
Told = tuple[int, str, str | None, str, str | None, str, bool]


def _story(world: World, worker: Database, superuser: Engine) -> dict[str, list[Told]]:
    """Play every move; return for each request the facts of its events, in order."""
    by: dict[str, list[Told]] = {}
    for name, steps in STORIES.items():
        request = world.submit()
        for who, action in steps:
            if who is NOBODY:
                set_back(superuser, [request.id], 1)
                assert timers.run(worker, [request.id]).total() == 1
            else:
                world.act(who, action, request.id, comment="As agreed")
        by[name] = [
            (
                row.seq,
                row.action,
                _name(world, row),
                row.actor_role,
                row.from_state,
                row.to_state,
                bool(row.deadline_at),
            )
            for row in _events(world.db, request.id)
        ]
    return by


ENDORSE = ("max", Action.ENDORSE)
APPROVE = ("ann", Action.APPROVE)
STORIES: dict[str, list[tuple[str | None, Action]]] = {
    "completed": [ENDORSE, APPROVE, ("amir", Action.APPROVE), ("erin", Action.COMPLETE)],
    "revoked": [ENDORSE, APPROVE, ("amir", Action.APPROVE), ("tara", Action.REVOKE)],
    "expired": [ENDORSE, APPROVE, ("amir", Action.APPROVE), (NOBODY, Action.EXPIRE)],
    "denied": [ENDORSE, ("abe", Action.DENY)],
    "not endorsed": [("mia", Action.DENY)],
    "cancelled": [("erin", Action.CANCEL)],
    "not reviewed": [(NOBODY, Action.TIME_OUT)],
    "not answered": [ENDORSE, (NOBODY, Action.TIME_OUT)],
}
SUBMITTED: Told = (1, "submit", "erin", "engineer", None, "reviewing", True)
ENDORSED: Told = (2, "endorse", "max", "manager", "reviewing", "pending", True)
HALF: Told = (3, "approve", "ann", "approver", "pending", "pending", False)
OPENED: Told = (4, "approve", "amir", "approver", "pending", "active", True)
EXPECTED: dict[str, list[Told]] = {
    "completed": [
        SUBMITTED,
        ENDORSED,
        HALF,
        OPENED,
        (5, "complete", "erin", "requester", "active", "completed", False),
    ],
    "revoked": [SUBMITTED, ENDORSED, HALF, OPENED, (5, "revoke", "tara", "tenant_admin", "active", "revoked", False)],
    "expired": [SUBMITTED, ENDORSED, HALF, OPENED, (5, "expire", None, "clock", "active", "expired", False)],
    "denied": [SUBMITTED, ENDORSED, (3, "deny", "abe", "approver", "pending", "denied", False)],
    "not endorsed": [SUBMITTED, (2, "deny", "mia", "manager", "reviewing", "denied", False)],
    "cancelled": [SUBMITTED, (2, "cancel", "erin", "requester", "reviewing", "cancelled", False)],
    "not reviewed": [SUBMITTED, (2, "time_out", None, "clock", "reviewing", "timed_out", False)],
    "not answered": [SUBMITTED, ENDORSED, (3, "time_out", None, "clock", "pending", "timed_out", False)],
}


def _name(world: World, row: Row[Any]) -> str | None:
    return {caller.person_id: name for name, caller in world.people.items()}.get(row.actor_id)


def _events(db: Database, request_id: object) -> Sequence[Row[Any]]:
    return read(db, "SELECT * FROM events WHERE request_id = :id ORDER BY seq", id=request_id)


@pytest.fixture
def careful(api: Database) -> World:
    return World.make(api, Policy(quorum=2))


@pytest.mark.far
def test_every_move_leaves_one_event_with_actor_and_time(careful: World, worker: Database, superuser: Engine) -> None:
    told = _story(careful, worker, superuser)

    assert told == EXPECTED
    assert_audit_logs_are_whole(worker)


def test_an_event_contains_the_deadline_that_its_move_set(api: Database) -> None:
    world = World.make(api, Policy(review_window=100, approval_window=200))
    submitted = world.submit(access_window=300)
    asked = world.act("max", Action.ENDORSE, submitted.id)
    opened = world.act("ann", Action.APPROVE, submitted.id, access_window=60)
    world.act("erin", Action.COMPLETE, submitted.id)

    rows = _events(api, submitted.id)

    assert [row.deadline_at for row in rows] == [submitted.deadline_at, asked.deadline_at, opened.deadline_at, None]
    assert [row.deadline_at - row.at for row in rows[:3]] == [timedelta(seconds=n) for n in (100, 200, 60)]


def test_a_refused_move_leaves_no_event_and_no_decision(careful: World) -> None:
    request = careful.submit()

    for who, action in (("erin", Action.ENDORSE), ("ann", Action.APPROVE), ("max", Action.COMPLETE)):
        with pytest.raises(LockboxError):
            careful.act(who, action, request.id)

    assert len(_events(careful.db, request.id)) == 1
    assert not read(careful.db, "SELECT FROM decisions")
