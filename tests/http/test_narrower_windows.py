"""Narrower windows over HTTP: what is accepted, what is let in, and what is shown as requested and as granted."""

from typing import Any

import pytest

from lockbox.identity.roles import Role, Scope
from lockbox.requests.policy_rules import Policy
from tests.http.door import Door, OpenDoor, facts
from tests.http.places import done

A, B = "mailbox:anna@contoso.example", "mailbox:bob@contoso.example"
WIDE: dict[str, Any] = {"resources": [A, B], "actions": ["read", "export"]}


@pytest.fixture(scope="module")
def two(open_door: OpenDoor) -> Door:
    return open_door(Policy(vendor_review=False, quorum=2))


def test_an_approver_can_lower_the_number_of_uses_and_readers_see_the_new_limit(fresh_door: Door) -> None:
    door = fresh_door
    request_id = door.pending(max_uses=5, **WIDE)

    refused = door.act("ann", "approve", request_id, max_uses=6)
    view = door.act("ann", "approve", request_id, max_uses=1).json()

    assert facts(refused, 422, "invalid-request")["field"] == "max_uses"
    assert (view["max_uses"], view["uses_left"]) == (1, 1)
    (decision,) = door.get("ann", f"/v1/requests/{request_id}").json()["decisions"]
    assert decision["max_uses"] == 1
    assert door.ask("gate", resource=B).json()["uses_left"] == 0
    facts(door.ask("gate", resource=B), 403, "used-up")


def test_an_approval_without_narrowing_grants_all_requested_resources_and_actions(fresh_door: Door) -> None:
    request_id = fresh_door.pending(**WIDE)

    view = fresh_door.act("ann", "approve", request_id).json()

    (decision,) = fresh_door.get("ann", f"/v1/requests/{request_id}").json()["decisions"]
    assert (view["granted_resources"], view["granted_actions"]) == (WIDE["resources"], WIDE["actions"])
    assert (decision["resources"], decision["actions"]) == (None, None)


@pytest.mark.parametrize("action", ["deny", "endorse", "revoke", "cancel"])
def test_only_an_approval_can_narrow_a_window(door: Door, action: str) -> None:
    facts(door.act("ann", action, door.pending(**WIDE), resources=[A]), 422, "invalid-request")


def test_a_second_approval_without_a_part_in_common_with_the_first_is_refused(two: Door) -> None:
    request_id = two.pending(**WIDE)
    two.act("ann", "approve", request_id, resources=[A])

    answer = two.act("amir", "approve", request_id, resources=[B])

    assert facts(answer, 422, "nothing-left")["field"] == "resources"
    assert two.get("ann", f"/v1/requests/{request_id}").json()["state"] == "pending"


def test_activity_in_a_resource_that_the_approver_left_out_is_flagged(open_door: OpenDoor) -> None:
    door = open_door()
    scopes = {Scope.ACCESS_CHECK, Scope.ACTIVITY_REPORT}
    door.world.add("ward", Role.SYSTEM, scopes=scopes, services={"exchange-online"})
    request_id = str(door.world.submit(**WIDE).id)
    door.act("ann", "approve", request_id, resources=[A], actions=["read"])
    used = [done(resource=A, action="read"), done(resource=B, action="read"), done(resource=A, action="export")]

    taken = door.call("ward", "POST", f"/v1/requests/{request_id}/activity", json={"entries": used})

    assert taken.status_code == 201, taken.text
    items = door.get("ann", f"/v1/requests/{request_id}/activity").json()["items"]
    assert {(one["resource"], one["action"]): one["as_asked"] for one in items} == {
        (A, "read"): True,
        (B, "read"): False,
        (A, "export"): False,
    }
