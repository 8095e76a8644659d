"""No request is active without the decisions for it: refused by the database itself, as the transaction commits."""

from collections.abc import Sequence

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from lockbox.database import Database
from lockbox.people.roles import Mode
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy import Policy
from tests.builders import World
from tests.database.scenes import read, state_of

DECIDE = """
INSERT INTO decisions (id, request_id, person_id, verdict, channel, decided_at)
SELECT uuidv7(), id, :person, :verdict, 'api', now() FROM requests
"""
OPEN = """
WITH told AS (
    INSERT INTO events (id, request_id, seq, at, action, actor_id, actor_role, to_state, body)
    SELECT uuidv7(), id, version + 1, now(), 'approve', requester_id, 'approver', 'active', '' FROM requests
)
UPDATE requests SET state = 'active', opened_at = now(), asked_at = now(), version = version + 1,
    deadline_at = now() + interval '1 minute', wake_at = now() + interval '1 minute'
"""
Decision = tuple[str, str]


def _open(world: World, house: Database, decisions: Sequence[Decision]) -> None:
    """Open the one request by hand, with these decisions and no others, as the API's own login."""
    with house.engine.begin() as connection:
        for who, verdict in decisions:
            connection.execute(text(DECIDE), {"person": world.people[who].person_id, "verdict": verdict})
        connection.execute(text(OPEN))


@pytest.mark.parametrize(
    ("mode", "quorum", "decisions"),
    [
        (Mode.ENFORCE, 1, []),
        (Mode.ENFORCE, 1, [("max", "endorse")]),
        (Mode.ENFORCE, 1, [("erin", "approve")]),
        (Mode.ENFORCE, 1, [("max", "endorse"), ("max", "approve")]),
        (Mode.ENFORCE, 1, [("ann", "approve"), ("amir", "deny")]),
        (Mode.ENFORCE, 1, [("ann", "approve"), ("ann", "deny")]),
        (Mode.ENFORCE, 2, [("ann", "approve")]),
        (Mode.ENFORCE, 2, [("ann", "approve"), ("erin", "approve")]),
        (Mode.ENFORCE, 2, [("ann", "approve"), ("max", "endorse"), ("max", "approve")]),
        (Mode.ENFORCE, 3, [("ann", "approve"), ("amir", "approve"), ("abe", "deny")]),
        (Mode.OBSERVE, 1, []),
        (Mode.OBSERVE, 1, [("ann", "approve")]),
        (Mode.OBSERVE, 1, [("erin", "endorse")]),
        (Mode.OFF, 1, []),
        (Mode.OFF, 1, [("erin", "endorse")]),
    ],
)
def test_a_window_without_its_decisions_is_refused(
    api: Database, mode: Mode, quorum: int, decisions: list[Decision]
) -> None:
    world = World.make(api, Policy(quorum=quorum), mode)
    request = world.submit()

    with pytest.raises(DBAPIError, match="active without the decisions for it"):
        _open(world, api, decisions)

    assert state_of(api, request.id) == "reviewing"
    assert not read(api, "SELECT FROM decisions")


@pytest.mark.parametrize(
    ("mode", "quorum", "decisions"),
    [
        (Mode.ENFORCE, 1, [("ann", "approve")]),
        (Mode.ENFORCE, 2, [("max", "endorse"), ("ann", "approve"), ("amir", "approve")]),
        (Mode.OBSERVE, 1, [("max", "endorse")]),
        (Mode.OFF, 1, [("max", "endorse")]),
    ],
)
def test_a_window_with_its_decisions_is_taken_in_whatever_order_they_are_written(
    api: Database, mode: Mode, quorum: int, decisions: list[Decision]
) -> None:
    world = World.make(api, Policy(quorum=quorum), mode)
    request = world.submit()

    with api.engine.begin() as connection:
        connection.execute(text(OPEN))
        for who, verdict in decisions:
            connection.execute(text(DECIDE), {"person": world.people[who].person_id, "verdict": verdict})

    assert state_of(api, request.id) == "active"


def test_a_request_cannot_be_born_active(world: World, api: Database) -> None:
    world.submit()
    born = text("""
        INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification,
            mode, quorum, approval_window, access_window, state, version, deadline_at, wake_at, created_at, opened_at)
        SELECT uuidv7(), tenant_id, requester_id, service, resources, actions, reason_code, justification, mode,
            quorum, approval_window, access_window, 'active', 1, now() + interval '1 minute',
            now() + interval '1 minute', created_at, now()
        FROM requests
    """)

    with pytest.raises(DBAPIError, match="active without the decisions for it"), api.engine.begin() as connection:
        connection.execute(born)

    assert [row.state for row in read(api, "SELECT state FROM requests")] == ["pending"]


def test_a_worker_cannot_open_a_window_either(world: World, worker: Database) -> None:
    request = world.submit()

    with (
        pytest.raises(DBAPIError, match="ck_requests_opened_at"),
        worker.engine.begin() as connection,
    ):
        connection.execute(text("UPDATE requests SET state = 'active', version = version + 1"))

    assert state_of(worker, request.id) == "pending"


def test_a_denial_that_comes_after_the_approvals_outweighs_them(api: Database) -> None:
    world = World.make(api, Policy(vendor_review=False, quorum=3))
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    world.act("amir", Action.APPROVE, request.id)

    denied = world.act("ann", Action.DENY, request.id)

    assert denied.state == "denied"
    assert state_of(api, request.id) == "denied"
