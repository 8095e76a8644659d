"""The whole table of moves over HTTP: every state, action and person, written out by hand."""

from datetime import timedelta
from uuid import UUID

import pytest

from harness.clocks import ShiftedClock
from harness.people import World
from lockbox.database import Database
from lockbox.facts.enumerations import Mode
from lockbox.identity.roles import Role
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.http.door import Door, OpenDoor, facts, until_served

# yes: it is done; own: the requester never decides; role: not for this person; state: not from this state;
# 404: not there for this person. `unseen` are requests that ended before the customer was asked.
WHO = ("erin", "eve", "max", "vera", "olga", "gate", "ann", "tara", "aude", "zoe")
GRID = {
    "endorse": """
        reviewing   own  404 yes   role 404 404  404   404   404   404
        pending     own  404 state role 404 404  role  role  role  404
        active      own  404 state role 404 404  role  role  role  404
        final       own  404 state role 404 404  role  role  role  404
        unseen      own  404 state role 404 404  404   404   404   404""",
    "approve": """
        reviewing   own  404 role  role 404 404  404   404   404   404
        pending     own  404 role  role 404 404  yes   role  role  404
        active      own  404 role  role 404 404  state role  role  404
        final       own  404 role  role 404 404  state role  role  404
        unseen      own  404 role  role 404 404  404   404   404   404""",
    "deny": """
        reviewing   own  404 yes   role 404 404  404   404   404   404
        pending     own  404 role  role 404 404  yes   yes   role  404
        active      own  404 state role 404 404  state state role  404
        final       own  404 state role 404 404  state state role  404
        unseen      own  404 state role 404 404  404   404   404   404""",
    "cancel": """
        reviewing   yes   404 role role 404 404  404   404   404   404
        pending     yes   404 role role 404 404  role  role  role  404
        active      state 404 role role 404 404  role  role  role  404
        final       state 404 role role 404 404  role  role  role  404
        unseen      state 404 role role 404 404  404   404   404   404""",
    "complete": """
        reviewing   state 404 role role 404 404  404   404   404   404
        pending     state 404 role role 404 404  role  role  role  404
        active      yes   404 role role 404 404  role  role  role  404
        final       state 404 role role 404 404  role  role  role  404
        unseen      state 404 role role 404 404  404   404   404   404""",
    "revoke": """
        reviewing   role 404 state role 404 404  404   404   404   404
        pending     role 404 state role 404 404  state state role  404
        active      role 404 yes   role 404 404  yes   yes   role  404
        final       role 404 state role 404 404  state state role  404
        unseen      role 404 state role 404 404  404   404   404   404""",
}
ROW_OF = {
    "reviewing": "reviewing",
    "pending": "pending",
    "active": "active",
    "denied": "final",
    "cancelled": "final",
    "timed_out": "final",
    "completed": "final",
    "revoked": "final",
    "expired": "final",
    "denied in review": "unseen",
    "cancelled in review": "unseen",
    "timed_out in review": "unseen",
}
# From here nothing else may be done than from others of the same row, which are tried near.
ALIKE = {"cancelled", "completed", "revoked", "cancelled in review", "timed_out in review"}
BECOMES = {
    "endorse": "pending",
    "approve": "active",
    "deny": "denied",
    "cancel": "cancelled",
    "complete": "completed",
    "revoke": "revoked",
}
REFUSED = {
    "own": (403, "own-request"),
    "role": (403, "wrong-role"),
    "state": (409, "invalid-move"),
    "404": (404, "not-found"),
}


@pytest.fixture(scope="module")
def reviewing(open_door: OpenDoor) -> Door:
    """A world with vendor review, and Zoe, who approves for another tenant."""
    door = open_door(Policy())
    elsewhere = World.make(door.db)
    door.world.add("zoe", Role.APPROVER, elsewhere.tenant.id)
    return door


def cells(action: str, row: str) -> dict[str, str]:
    lines = [line.split() for line in GRID[action].split("\n") if line]
    (found,) = (line[1:] for line in lines if line[0] == row)
    return dict(zip(WHO, found, strict=True))


def bring_to(door: Door, worker: Database, start: str) -> str:
    """Submit a request, bring it to a state, and return its id."""
    state, _, in_review = start.partition(" ")
    request_id = door.world.submit().id
    if state != "reviewing" and not in_review:
        door.world.act("mia", Action.ENDORSE, request_id)
    if state in {"active", "completed", "revoked", "expired"}:
        door.world.act("amir", Action.APPROVE, request_id)
    if state in {"timed_out", "expired"}:
        run_out(worker, request_id)
    ending = {
        "denied": ("mia" if in_review else "amir", Action.DENY),
        "cancelled": ("erin", Action.CANCEL),
        "completed": ("erin", Action.COMPLETE),
        "revoked": ("amir", Action.REVOKE),
    }.get(state)
    if ending:
        door.world.act(*ending, request_id)
    return str(request_id)


def run_out(worker: Database, request_id: UUID) -> None:
    late = ShiftedClock()
    late.shift = timedelta(days=1)
    assert timers.run(Database(worker.engine, worker.schedule, late), [request_id]).total() == 1


@pytest.mark.parametrize(
    "start", [pytest.param(start, marks=pytest.mark.far) if start in ALIKE else start for start in ROW_OF]
)
def test_moves_in_the_lifecycle_table_succeed_and_all_other_moves_are_refused(
    start: str, reviewing: Door, worker: Database
) -> None:
    request_id = bring_to(reviewing, worker, start)
    before = reviewing.get("max", f"/v1/requests/{request_id}").json()
    assert before["state"] == start.partition(" ")[0]

    for action in GRID:
        _refused_to_all_but_who_may(reviewing, request_id, action, start)
    assert reviewing.get("max", f"/v1/requests/{request_id}").json() == before

    for action in GRID:
        for who in [who for who, cell in cells(action, ROW_OF[start]).items() if cell == "yes"]:
            made = reviewing.act(who, action, bring_to(reviewing, worker, start))
            assert made.status_code == 200, (action, who, made.text)
            assert made.json()["state"] == BECOMES[action]
            assert made.json()["version"] == before["version"] + 1
            assert made.headers["etag"] == f'"{before["version"] + 1}"'
            assert made.json()["open"] is (action == "approve")


def _refused_to_all_but_who_may(door: Door, request_id: str, action: str, start: str) -> None:
    """Check that each person without the right to an action is refused, on a request that this does not change."""
    expected = cells(action, ROW_OF[start])
    refused = [who for who, cell in expected.items() if cell != "yes"]
    answers = door.together(
        *(until_served(door.coming, who, "POST", f"/v1/requests/{request_id}/{action}") for who in refused)
    )
    for who, answer in zip(refused, answers, strict=True):
        body = facts(answer, *REFUSED[expected[who]])
        assert ("current_state" in body) is (expected[who] == "state"), (action, who)
        if "current_state" in body:
            assert body["current_state"] == start.partition(" ")[0], (action, who)


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_an_endorsement_opens_a_window_where_the_vendor_decides(open_door: OpenDoor, mode: Mode) -> None:
    door = open_door(Policy(), mode)
    request_id = door.pending(resources=["mailbox:anna@contoso.example"])
    assert door.get("ann", f"/v1/requests/{request_id}").status_code == 404

    opened = door.act("max", "endorse", request_id)

    assert opened.json()["state"] == "active"
    assert opened.json()["open"] is True
    assert door.ask("gate").status_code == 200
    assert door.get("ann", f"/v1/requests/{request_id}").json()["state"] == "active"
    assert door.act("ann", "revoke", request_id).json()["state"] == "revoked"
    facts(door.ask("gate"), 403, "no-open-window")


@pytest.mark.parametrize("action", ["submit", "time_out", "expire", "events", "", "Approve", "approve%00"])
def test_callers_cannot_make_timer_moves_or_unknown_moves(reviewing: Door, action: str) -> None:
    request_id = reviewing.pending()
    before = reviewing.rows()

    answers = [reviewing.act(who, action, request_id) for who in ("erin", "max", "ann", "tara")]

    assert {answer.status_code for answer in answers} <= {404, 405, 422}
    assert all(answer.headers["content-type"] == "application/problem+json" for answer in answers)
    assert reviewing.rows() == before
