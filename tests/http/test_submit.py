"""Submitting a request over HTTP."""

from datetime import datetime, timedelta
from uuid import UUID

import pytest

from harness.people import WITHOUT_REVIEW
from lockbox.facts.enumerations import Mode
from lockbox.identity.roles import Role, Scope
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.http.door import Door, OpenDoor, facts


def test_submitting_a_request_returns_its_location_and_how_many_people_were_asked(door: Door) -> None:
    answer = door.file()

    assert answer.status_code == 201
    view = answer.json()
    assert answer.headers["location"] == f"/v1/requests/{view['id']}"
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert UUID(view["id"]).version == 7
    assert view["asked"] == 3
    assert view["state"] == "pending"
    assert view["open"] is False
    assert view["version"] == 1
    assert (view["reminders"], view["tiers_asked"], view["warned"]) == (0, 0, False)
    assert view["requester"] == {"id": str(door.world.people["erin"].person_id), "name": "Erin"}
    assert view["tenant"] == door.world.tenant.slug


def test_a_submitted_request_reads_back_unchanged(own_door: Door) -> None:
    submitted = own_door.file(actions=["read", "export"], case_ref="  CASE-7  ").json()

    shown = own_door.get("erin", f"/v1/requests/{submitted['id']}").json()

    assert submitted.pop("asked") == 3
    assert shown.pop("notifications") == {"waiting": 3, "sent": 0, "moot": 0, "dead": 0}
    assert shown.pop("reach") == {
        "stage": "pending",
        "asked": 3,
        "reached": 0,
        "waiting": 3,
        "unreached": 0,
        "sentence": "",
    }
    assert (shown.pop("followed_by"), shown.pop("extended_by")) == (None, None)
    assert shown.pop("decisions") == []
    assert [one["action"] for one in shown.pop("available_moves") if one["allowed"]] == ["cancel"]
    assert shown.pop("usage") is None
    assert shown.pop("approvals") == [{"group": None, "approvals": 0, "needed": 1, "step": 1}]
    assert shown.pop("after_review") is None
    assert shown.pop("look_alikes") == []
    assert shown == submitted
    assert shown["actions"] == ["read", "export"]
    assert shown["case_ref"] == "CASE-7"


def test_a_request_in_review_has_a_review_deadline_and_managers_are_asked(open_door: OpenDoor) -> None:
    door = open_door(Policy(review_window=60))

    view = door.file().json()

    window = datetime.fromisoformat(view["deadline_at"]) - datetime.fromisoformat(view["created_at"])
    assert view["state"] == "reviewing"
    assert window == timedelta(seconds=60)
    assert view["asked"] >= 2


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.OFF])
def test_modes_in_which_the_vendor_decides_need_a_review_even_if_the_policy_needs_none(
    open_door: OpenDoor, mode: Mode
) -> None:
    view = open_door(WITHOUT_REVIEW, mode).file().json()

    assert (view["state"], view["mode"]) == ("reviewing", mode)


def test_requested_actions_default_to_read_and_the_case_is_optional(door: Door) -> None:
    view = door.file(actions=None, case_ref=None).json()

    assert view["actions"] == ["read"]
    assert view["case_ref"] is None


def test_resources_repeated_in_a_submission_are_requested_once(door: Door) -> None:
    view = door.file(resources=["site:b", "site:a", "site:b"], actions=["export", "read", "export"]).json()

    assert view["resources"] == ["site:b", "site:a"]
    assert view["actions"] == ["export", "read"]


@pytest.mark.parametrize("seconds", [1, 4 * 3600])
def test_a_requested_window_up_to_the_limit_is_accepted(door: Door, seconds: int) -> None:
    assert door.file(access_window=seconds).json()["access_window"] == seconds


def test_a_requested_window_above_the_limit_is_refused_with_the_limit(open_door: OpenDoor) -> None:
    door = open_door(Policy(vendor_review=False, access_ceiling=900))

    answer = door.file(access_window=901)

    assert facts(answer, 422, "window-too-long")["limit_seconds"] == 900


def test_an_engineer_cannot_submit_for_another_engineer(door: Door) -> None:
    answer = door.file("erin", engineer=str(door.world.people["eve"].person_id))

    facts(answer, 403, "wrong-role")


def test_a_system_submits_for_a_named_engineer(door: Door) -> None:
    door.world.add("desk", Role.SYSTEM, scopes={Scope.REQUESTS_FILE}, services={"exchange-online"})
    erin = str(door.world.people["erin"].person_id)

    answer = door.file("desk", engineer=erin)

    assert answer.status_code == 201, answer.text
    assert answer.json()["requester"] == {"id": erin, "name": "Erin"}
    assert door.get("erin", answer.headers["location"]).json()["id"] == answer.json()["id"]
    first = door.get("erin", answer.headers["location"] + "/events").json()["items"][0]
    assert (first["role"], first["actor"]["name"]) == ("system", "Desk")


def test_a_system_submits_only_for_active_engineers_and_services_of_its_token(door: Door) -> None:
    door.world.add("desk", Role.SYSTEM, scopes={Scope.REQUESTS_FILE}, services={"exchange-online"})
    erin, ann = (str(door.world.people[name].person_id) for name in ("erin", "ann"))
    before = door.rows()

    facts(door.file("desk"), 422, "unknown-engineer")
    facts(door.file("desk", engineer=ann), 422, "unknown-engineer")
    facts(door.file("desk", engineer=str(UUID(int=1))), 422, "unknown-engineer")
    facts(door.file("desk", engineer=erin, service="onedrive"), 403, "wrong-role")

    assert door.rows() == before


def test_no_request_can_be_submitted_to_a_suspended_tenant(fresh_door: Door) -> None:
    fresh_door.run_sql("UPDATE tenants SET suspended = true WHERE id = :id", id=fresh_door.world.tenant.id)
    before = fresh_door.rows()

    answer = fresh_door.file()

    facts(answer, 403, "tenant-suspended")
    assert fresh_door.rows() == before


def test_a_system_token_that_may_not_submit_is_refused_with_the_name_of_the_missing_scope(door: Door) -> None:
    answer = door.call("gate", "POST", "/v1/requests", json=door.world.body(engineer=str(new_id())))

    assert answer.status_code == 403
    assert "This token needs the scope requests:file" in answer.json()["detail"]
