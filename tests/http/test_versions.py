"""If-Match over HTTP: a decision on an outdated version is refused."""

import pytest

from lockbox.requests.policy_rules import Policy
from tests.each import each
from tests.http.door import Door, OpenDoor, facts


@pytest.fixture(scope="module")
def two(open_door: OpenDoor) -> Door:
    return open_door(Policy(vendor_review=False, quorum=2))


@pytest.mark.parametrize("seen", ['"1"', "1", "*", " * "])
def test_a_decision_with_the_current_version_in_if_match_is_accepted(door: Door, seen: str) -> None:
    request_id = door.pending()

    assert door.act("ann", "approve", request_id, headers={"if-match": seen}).status_code == 200


def test_the_etag_of_an_answer_is_accepted_in_the_if_match_header_of_the_next_call(two: Door) -> None:
    request_id = two.pending()
    shown = two.get("ann", f"/v1/requests/{request_id}").headers["etag"]
    voted = two.act("ann", "approve", request_id, headers={"if-match": shown})

    last = two.act("amir", "approve", request_id, headers={"if-match": voted.headers["etag"]})

    assert last.json()["state"] == "active"
    assert last.headers["etag"] == '"3"'


@pytest.mark.parametrize("seen", ['"1"', '"3"', '"0"', '"999999999"'])
@pytest.mark.parametrize(("who", "action"), [("amir", "approve"), ("amir", "deny"), ("erin", "cancel")])
def test_a_decision_with_a_stale_version_is_refused_and_the_answer_states_the_current_state(
    two: Door, who: str, action: str, seen: str
) -> None:
    request_id = two.pending()
    two.act("ann", "approve", request_id)
    before = two.rows()

    answer = two.act(who, action, request_id, headers={"if-match": seen})

    body = facts(answer, 412, "stale-version")
    assert (body["current_state"], body["current_version"]) == ("pending", 2)
    assert two.rows() == before


def test_the_refusal_of_a_decision_with_a_stale_version_states_that_the_request_ended(door: Door) -> None:
    request_id = door.pending()
    door.act("ann", "deny", request_id)

    answer = door.act("amir", "approve", request_id, headers={"if-match": '"1"'})

    assert facts(answer, 412, "stale-version")["current_state"] == "denied"


@pytest.mark.far
@each(
    "seen",
    ["", "x", '"x"', 'W/"1"', '"1", "2"', '""', "-1", '"-1"', "1.0", '"1e3"', '"٣"', '"1234567890"', "9" * 5000],
)
def test_an_invalid_if_match_header_is_refused(door: Door, seen: str) -> None:
    request_id = door.pending()
    before = door.rows()

    answer = door.act("ann", "approve", request_id, headers={"if-match": seen.encode()})

    facts(answer, 422, "invalid-request")
    assert door.rows() == before


def test_a_decision_with_an_outdated_version_reveals_nothing_to_a_stranger(two: Door) -> None:
    request_id = two.pending()

    facts(two.act("eve", "cancel", request_id, headers={"if-match": '"7"'}), 404, "not-found")
    facts(two.act("erin", "approve", request_id, headers={"if-match": '"7"'}), 403, "own-request")
