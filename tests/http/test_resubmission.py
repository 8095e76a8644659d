"""Resubmission over HTTP: one call, answered like any submission, or refused with a clear code."""

from uuid import uuid4

from httpx import Response

from lockbox.database import Database
from lockbox.requests.policy_rules import Policy
from tests.http.door import Door, OpenDoor, facts, until_served
from tests.http.test_delivery_reach import run_out


def again(door: Door, who: str, request_id: str, key: str | None = None) -> Response:
    headers = {"idempotency-key": key} if key else {}
    return door.call(who, "POST", f"/v1/requests/{request_id}/ask-again", headers=headers)


def timed_out(door: Door, worker: Database) -> str:
    request_id = door.pending()
    run_out(worker, request_id)
    return request_id


def test_a_resubmission_is_answered_like_a_submission_and_linked_with_the_first_request(
    door: Door, worker: Database
) -> None:
    first = timed_out(door, worker)

    answer = again(door, "erin", first)

    view = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v1/requests/{view['id']}"
    assert answer.headers["etag"] == '"1"'
    assert (view["state"], view["follows"], view["asked"]) == ("pending", first, 3)
    assert view["justification"] == "The mailbox does not open"
    assert door.get("erin", f"/v1/requests/{first}").json()["followed_by"] == view["id"]
    assert door.get("ann", f"/v1/requests/{view['id']}").json()["follows"] == first
    (event,) = door.get("ann", f"/v1/requests/{view['id']}/events").json()["items"]
    assert event["follows"] == first


def test_a_second_resubmission_names_the_open_request(door: Door, worker: Database) -> None:
    first = timed_out(door, worker)
    second = again(door, "erin", first).json()["id"]
    before = door.rows()

    told = facts(again(door, "erin", first), 409, "asked-again")

    assert told["request_id"] == second
    assert door.rows() == before


def test_concurrent_resubmissions_submit_once_over_http(door: Door, worker: Database) -> None:
    first = timed_out(door, worker)
    path = f"/v1/requests/{first}/ask-again"

    answers = door.together(*(until_served(door.coming, "erin", "POST", path) for _ in range(6)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409, 409]


def test_a_resubmission_repeated_under_its_idempotency_key_gets_the_first_answer(
    door: Door, worker: Database
) -> None:
    first, other, key = timed_out(door, worker), timed_out(door, worker), f"key-{uuid4()}"
    answer = again(door, "erin", first, key)
    before = door.rows()

    replayed = again(door, "erin", first, key)

    assert (replayed.status_code, replayed.content) == (201, answer.content)
    facts(again(door, "erin", other, key), 422, "key-reused")
    assert door.rows() == before


def test_a_request_timed_out_in_review_can_be_resubmitted(open_door: OpenDoor, worker: Database) -> None:
    door = open_door(Policy())
    request_id = timed_out(door, worker)

    view = again(door, "erin", request_id).json()

    assert (view["state"], view["follows"]) == ("reviewing", request_id)
