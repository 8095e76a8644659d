"""Decisions over HTTP: windows, quorum, and who may not decide."""

import pytest

from lockbox.facts.enumerations import Mode
from lockbox.identity.roles import Role
from lockbox.requests.policy_rules import Policy
from tests.http.door import Door, OpenDoor, facts

ALSO = "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (gen_random_uuid(), :p, :t, :r)"


@pytest.fixture(scope="module")
def two(open_door: OpenDoor) -> Door:
    return open_door(Policy(vendor_review=False, quorum=2))


@pytest.fixture(scope="module")
def quick(open_door: OpenDoor) -> Door:
    """A world whose tenant has ten minutes to answer."""
    return open_door(Policy(vendor_review=False, approval_window=600))


def test_approvals_of_two_people_meet_a_quorum_of_two(two: Door) -> None:
    request_id = two.pending()
    before = two.get("erin", f"/v1/requests/{request_id}").json()

    first = two.act("ann", "approve", request_id).json()
    second = two.act("amir", "approve", request_id).json()

    assert (first["state"], first["open"], first["version"]) == ("pending", False, 2)
    assert first["deadline_at"] == before["deadline_at"]
    assert (second["state"], second["open"], second["version"]) == ("active", True, 3)


def test_two_approvals_of_the_same_person_count_once(two: Door) -> None:
    request_id = two.pending()
    two.act("ann", "approve", request_id)
    before = two.rows()

    again = two.act("ann", "approve", request_id)

    assert facts(again, 409, "already-decided")["current_state"] == "pending"
    assert two.rows() == before


def test_an_approver_may_change_an_approval_into_a_denial_until_the_request_is_settled(two: Door) -> None:
    request_id = two.pending()
    two.act("ann", "approve", request_id)

    turned = two.act("ann", "deny", request_id)

    assert turned.json()["state"] == "denied"
    facts(two.act("amir", "approve", request_id), 409, "invalid-move")


def test_a_requester_never_decides_even_if_database_rows_give_them_all_roles(fresh_door: Door) -> None:
    fresh_door.world.put_on_both_sides("erin", Role.APPROVER, fresh_door.world.tenant.id)
    fresh_door.run_sql(ALSO, p=fresh_door.world.people["erin"].person_id, t=None, r="manager")
    request_id = fresh_door.pending()
    before = fresh_door.rows()

    for action in ("approve", "deny", "endorse"):
        facts(fresh_door.act("erin", action, request_id), 403, "own-request")

    assert fresh_door.rows() == before
    assert fresh_door.act("ann", "approve", request_id).json()["state"] == "active"


def test_an_engineer_who_is_a_manager_decides_on_requests_of_other_engineers(open_door: OpenDoor) -> None:
    door = open_door(Policy(), Mode.ENFORCE)
    door.run_sql(ALSO, p=door.world.people["erin"].person_id, t=None, r="manager")
    own = door.pending("erin")

    assert door.act("erin", "endorse", door.pending("eve")).json()["state"] == "pending"
    facts(door.act("erin", "endorse", own), 403, "own-request")


def test_a_person_on_both_sides_can_never_both_endorse_and_approve_a_request(
    open_door: OpenDoor,
) -> None:
    door = open_door(Policy(), Mode.ENFORCE)
    door.world.put_on_both_sides("max", Role.APPROVER, door.world.tenant.id)
    request_id = door.pending()
    door.act("max", "endorse", request_id)
    before = door.rows()

    answer = door.act("max", "approve", request_id)

    facts(answer, 403, "already-endorsed")
    assert door.rows() == before
    assert door.act("ann", "approve", request_id).json()["state"] == "active"


@pytest.mark.parametrize(("who", "action"), [("ann", "approve"), ("ann", "deny"), ("erin", "cancel")])
def test_a_decision_at_the_deadline_is_too_late_even_before_the_timer_runs(
    quick: Door, who: str, action: str
) -> None:
    request_id = quick.pending()
    before = quick.rows()

    answer = quick.later(minutes=10).act(who, action, request_id)

    assert facts(answer, 409, "too-late")["current_state"] == "pending"
    assert quick.rows() == before
    assert quick.later(minutes=9).act(who, action, request_id).status_code == 200
