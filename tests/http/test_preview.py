"""The preview of a request: what it would meet, whom it would reach, and that it leaves no trace."""

from collections import Counter
from typing import Any

import pytest

from tests.http.door import Door, facts
from tests.policy_setup import group, lay_down, put_into_tiers, stand_in

PREVIEW = "/v1/requests/preview"


def preview(door: Door, who: str = "erin", **changes: Any) -> dict[str, Any]:
    answer = door.call(who, "POST", PREVIEW, json=door.world.body(**changes))
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_preview_of_a_request_names_policy_windows_and_people(fresh_door: Door) -> None:
    world = fresh_door.world
    lay_down(
        world,
        vendor_review=True,
        quorum=2,
        stages=[{"group": "legal"}],
        tiers=[["legal"]],
        groups={"legal": group(world, "abe")},
    )

    found = preview(fresh_door)

    assert (found["can_be_submitted"], found["policy_version"], found["first_state"]) == (True, 2, "reviewing")
    assert (found["terms"]["quorum"], found["terms"]["approval_window"]) == (2, 43200)
    assert {"Max", "Mia"} <= set(found["reviewers"])
    assert found["asked_first"] == ["Abe"]
    assert found["could_approve"] == ["Abe", "Amir", "Ann"]
    assert found["stages"] == [{"group": "legal", "approvals": 1, "people": ["Abe"], "step": 1}]


def asked_later(found: dict[str, Any]) -> Counter[str]:
    """Return the reviewers who are not asked first, of all worlds that share this vendor."""
    return Counter(found["reviewers"]) - Counter(found["reviewers_asked_first"])


def test_a_preview_of_a_request_says_which_reviewers_are_asked_first(fresh_door: Door) -> None:
    lay_down(fresh_door.world, vendor_review=True)
    before = asked_later(preview(fresh_door))

    put_into_tiers(fresh_door.world, mia=2)

    found = preview(fresh_door)
    lay_down(fresh_door.world)
    assert "Max" in found["reviewers_asked_first"]
    assert asked_later(found) - before == {"Mia": 1}
    assert preview(fresh_door)["reviewers_asked_first"] == []


def test_a_preview_of_a_request_shows_no_mail_address(fresh_door: Door) -> None:
    answer = fresh_door.call("erin", "POST", PREVIEW, json=fresh_door.world.body())

    assert "@example.test" not in answer.text


def test_a_preview_of_a_request_writes_nothing(fresh_door: Door) -> None:
    before = fresh_door.rows()

    preview(fresh_door)

    assert fresh_door.rows() == before


def test_a_preview_says_what_is_missing_and_why_no_one_could_approve(fresh_door: Door) -> None:
    lay_down(fresh_door.world, quorum=9, require_case=True)
    body = {name: value for name, value in fresh_door.world.body().items() if name != "case_ref"}

    found = fresh_door.call("erin", "POST", PREVIEW, json=body).json()

    assert found["can_be_submitted"] is False
    assert [lack["field"] for lack in found["lacks"]] == ["case_ref"]
    assert "9 approvals" in found["obstacles"][0]


def test_a_preview_lists_a_delegate_in_place_of_the_approver(fresh_door: Door) -> None:
    stand_in(fresh_door.world, "aude", "ann")

    assert preview(fresh_door)["asked_first"] == ["Abe", "Amir", "Aude"]


def test_a_preview_names_no_customer_person_where_the_vendor_decides(fresh_door: Door) -> None:
    lay_down(fresh_door.world, consent={"mode": "observe", "until": "2999-01-01T00:00:00Z"})

    found = preview(fresh_door)

    assert (found["mode"], found["asked_first"], found["could_approve"]) == ("observe", [], [])


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"tenant": "nobody-at-all"}, "unknown-tenant"),
        ({"service": "no-service"}, "unknown-service"),
        ({"justification": ""}, "invalid-request"),
        ({"surprise": 1}, "invalid-request"),
    ],
)
def test_the_preview_of_an_impossible_submission_returns_the_problem_code(
    door: Door, changes: dict[str, Any], code: str
) -> None:
    facts(door.call("erin", "POST", PREVIEW, json=door.world.body(**changes)), 422, code)
