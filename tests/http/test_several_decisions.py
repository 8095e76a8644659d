"""Several requests are decided by one call, each by itself, and the answer says what became of each."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx import Response
from sqlalchemy import text

from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.http.door import Door, OpenDoor, facts

PATH = "/v1/requests/decisions"
REFUSED = text("SELECT sum(count) FROM refused WHERE request_id = :r")


def decide(door: Door, who: str | None, action: str, *requests: Any, **more: Any) -> Response:
    """Decide several requests, given by id or by id and version."""
    named = [
        {"id": request} if isinstance(request, str) else {"id": request[0], "version": request[1]}
        for request in requests
    ]
    return door.call(who, "POST", PATH, json={"action": action, "comment": "Not today", "requests": named} | more)


def wrong(**changes: Any) -> dict[str, Any]:
    return {"action": "deny", "comment": "No", "requests": [{"id": str(UUID(int=1))}]} | changes


def outcomes(answer: Response) -> list[str]:
    """Return for each request the state that it is in now, or the code of the problem."""
    assert answer.status_code == 200, answer.text
    return [one["problem"]["code"] if one["problem"] else one["request"]["state"] for one in answer.json()["items"]]


def test_each_decision_of_a_bulk_call_is_a_move_with_its_own_version_check(door: Door) -> None:
    fine, moved, gone = door.pending(), door.pending(), door.pending()
    door.world.act("erin", Action.CANCEL, UUID(gone))
    nobodys = str(uuid4())

    answer = decide(door, "ann", "deny", (fine, 1), (moved, 7), gone, nobodys)

    assert outcomes(answer) == ["denied", "stale-version", "invalid-move", "not-found"]
    items = answer.json()["items"]
    assert [one["request_id"] for one in items] == [fine, moved, gone, nobodys]
    assert items[1]["problem"]["status"] == 412
    assert items[1]["problem"]["current_version"] == 1
    assert items[2]["problem"]["current_state"] == "cancelled"
    assert door.get("ann", f"/v1/requests/{moved}").json()["state"] == "pending"
    (denied,) = [one for one in door.get("ann", f"/v1/requests/{fine}/events").json()["items"] if one["seq"] == 2]
    assert (denied["action"], denied["comment"]) == ("deny", "Not today")


def test_a_refusal_in_a_bulk_call_is_recorded_like_the_refusal_of_a_single_decision(door: Door) -> None:
    mine = door.pending()

    assert outcomes(decide(door, "erin", "approve", mine)) == ["own-request"]
    with door.root.connect() as connection:
        noted = connection.execute(REFUSED, {"r": mine}).scalar_one()

    assert noted == 1


def test_managers_endorse_several_requests_in_one_call(open_door: OpenDoor) -> None:
    door = open_door(Policy())

    assert outcomes(decide(door, "max", "endorse", door.pending(), door.pending())) == ["pending", "pending"]


def test_a_bulk_approval_needs_what_a_single_approval_needs(open_door: OpenDoor) -> None:
    door = open_door(Policy(vendor_review=False, approve_means="passkey-signed"))

    assert outcomes(decide(door, "ann", "approve", door.pending(), door.pending())) == ["passkey-must-sign"] * 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (wrong(requests=[]), "requests"),
        (wrong(requests=[{"id": str(UUID(int=number))} for number in range(51)]), "requests"),
        (wrong(requests=[{"id": str(UUID(int=1))}] * 2), "requests"),
        (wrong(requests=[{"id": str(UUID(int=1)), "version": 0}]), "requests.0.version"),
        (wrong(requests=[{"id": "x"}]), "requests.0.id"),
        (wrong(action="revoke"), "action"),
        (wrong(comment="\u200b"), "comment"),
    ],
)
def test_an_invalid_bulk_call_is_reported_without_effect(door: Door, body: dict[str, Any], field: str) -> None:
    before = door.rows()

    answer = door.call("ann", "POST", PATH, json=body)

    assert facts(answer, 422, "invalid-request")["errors"][0]["field"] == field
    assert door.rows() == before
