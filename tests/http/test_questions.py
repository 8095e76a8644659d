"""Questions about a request over HTTP: asked, answered, listed, on the timeline and in the report."""

from typing import Any
from uuid import UUID

from lockbox.requests.policy_rules import Policy
from tests.each import each
from tests.http.door import Door, OpenDoor, facts
from tests.http.places import question

EVIL = "<script>alert(1)</script> & {{ 7*7 }}\nsecond line"


def asked(door: Door, request_id: str, who: str = "ann", words: str = "Which mails?", **headers: str) -> Any:
    return door.call(who, "POST", f"/v1/requests/{request_id}/questions", json={"text": words}, headers=headers)


def answered(door: Door, request_id: str, question_id: Any, who: str = "erin", words: str = "Those of May") -> Any:
    path = f"/v1/requests/{request_id}/questions/{question_id}/answer"
    return door.call(who, "POST", path, json={"text": words})


def listed(door: Door, request_id: str, who: str = "ann") -> list[dict[str, Any]]:
    answer = door.get(who, f"/v1/requests/{request_id}/questions")
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_a_question_and_its_answer_are_on_the_timeline_without_a_move_number(door: Door) -> None:
    request_id = door.pending()
    answered(door, request_id, question(door, request_id))

    items = door.get("erin", f"/v1/requests/{request_id}/events").json()["items"]

    said = [(one["seq"], one["action"], one["actor"]["name"], one["role"], one["comment"]) for one in items[1:]]
    assert said == [
        (None, "question", "Ann", "approver", "Which mails?"),
        (None, "answer", "Erin", "requester", "Those of May"),
    ]
    hidden = door.get("vera", f"/v1/requests/{request_id}/events").json()["items"]
    assert [one["comment"] for one in hidden] == [None, None, None]


def test_a_managers_question_in_review_is_on_no_customers_timeline(open_door: OpenDoor) -> None:
    door = open_door(Policy())
    request_id = door.pending()
    taken = asked(door, request_id, "max", "Is it needed?")
    answered(door, request_id, taken.json()["id"])
    door.act("max", "endorse", request_id)

    theirs = door.get("ann", f"/v1/requests/{request_id}/events").text

    assert (taken.status_code, taken.json()["state"]) == (201, "reviewing")
    assert "Is it needed?" not in theirs
    assert '"question"' not in theirs
    assert listed(door, request_id) == []
    assert len(listed(door, request_id, "erin")) == 1
    assert "Is it needed?" not in door.get("aude", "/v1/audit/report", request=request_id).text


def test_a_review_question_answered_after_the_review_stays_hidden_from_the_customer(
    open_door: OpenDoor,
) -> None:
    door = open_door(Policy())
    request_id = door.pending()
    taken = asked(door, request_id, "max", "Is it needed?")
    door.act("max", "endorse", request_id)

    reply = answered(door, request_id, taken.json()["id"], words="Between us: yes")

    assert reply.status_code == 200
    for path in (f"/v1/requests/{request_id}/events", f"/v1/requests/{request_id}/questions"):
        assert "Between us" not in door.get("ann", path).text
        assert "Between us" in door.get("max", path).text
    assert "Between us" not in door.get("aude", "/v1/audit/report", request=request_id).text


def test_the_report_of_a_request_contains_questions_and_answers(door: Door) -> None:
    request_id = door.pending()
    taken = asked(door, request_id, words=EVIL)
    answered(door, request_id, taken.json()["id"])

    report = door.get("aude", "/v1/audit/report", request=request_id).json()
    vendors = door.get("vera", "/v1/audit/report", request=request_id).json()

    assert [(one["who"], one["comment"]) for one in report["questions"]] == [("Ann", EVIL), ("Erin", "Those of May")]
    assert "Questions and answers" in report["page"]
    assert "<script>" not in report["page"]
    assert [vendor["comment"] for vendor in vendors["questions"]] == [None, None]


def test_a_question_repeated_under_an_idempotency_key_is_asked_once(door: Door) -> None:
    request_id = door.pending()

    first, second = (asked(door, request_id, **{"idempotency-key": request_id}) for _ in range(2))
    other = asked(door, request_id, words="Another", **{"idempotency-key": request_id})

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.content == second.content
    facts(other, 422, "key-reused")
    assert len(listed(door, request_id)) == 1


@each("words", ["", "  \n", "x" * 2001, "a\x00b", "evil\u202etxt", 7, None])
def test_a_question_with_an_invalid_text_is_refused(door: Door, words: Any) -> None:
    request_id = door.pending()
    one = question(door, request_id)
    before = door.rows()

    facts(asked(door, request_id, words=words), 422, "invalid-request")
    facts(answered(door, request_id, one, words=words), 422, "invalid-request")

    assert door.rows() == before


def test_a_question_of_two_thousand_characters_is_accepted(door: Door) -> None:
    assert asked(door, door.pending(), words="x" * 2000).status_code == 201


def test_an_answer_to_a_question_about_another_request_is_refused(door: Door) -> None:
    mine, other = door.pending(), door.pending()
    one = question(door, other)

    facts(answered(door, mine, one), 404, "not-found")


def test_the_request_shows_that_its_approval_clock_is_paused(open_door: OpenDoor) -> None:
    door = open_door(Policy(vendor_review=False, questions_stop_clock=True, approval_window=600))
    request_id = door.pending()
    before = door.get("ann", f"/v1/requests/{request_id}").json()["deadline_at"]

    taken = asked(door, request_id)

    after = door.get("ann", f"/v1/requests/{request_id}").json()
    assert taken.json()["stops_clock"]
    assert after["deadline_at"] > before
    assert after["version"] == 1
    assert UUID(taken.json()["id"])
