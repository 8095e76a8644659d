"""Idempotency keys over HTTP: the same submission sent twice is submitted once."""

from typing import Any

import pytest
from sqlalchemy import text

from lockbox.sql import new_id
from tests.http.door import Door, facts, until_served

LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")


def key() -> dict[str, str]:
    return {"idempotency-key": f"key-{new_id()}"}


def submitted(door: Door) -> int:
    return door.rows()["requests"]


def test_the_same_idempotency_key_and_body_repeat_the_first_answer_and_submit_nothing(door: Door) -> None:
    header = key()
    first = door.file(headers=header, justification="Grüße 🔐")
    before = door.rows()

    again = door.file(headers=header, justification="Grüße 🔐")

    assert (again.status_code, again.content) == (201, first.content)
    for name in ("location", "etag", "content-type", "cache-control"):
        assert again.headers[name] == first.headers[name]
    assert door.rows() == before


def test_a_call_repeated_under_its_key_gets_the_first_answer_despite_later_moves(door: Door) -> None:
    header = key()
    first = door.file(headers=header)
    door.act("ann", "deny", first.json()["id"])

    assert door.file(headers=header).content == first.content


def test_an_equivalent_body_counts_as_the_same_under_an_idempotency_key(door: Door) -> None:
    header = key()
    body = door.world.body(actions=["read"])
    first = door.call("erin", "POST", "/v1/requests", json=body, headers=header)
    backwards = {name: value for name, value in reversed(body.items()) if name != "actions"}

    again = door.call("erin", "POST", "/v1/requests", json=backwards, headers=header)

    assert again.content == first.content


@pytest.mark.parametrize("change", [{"access_window": 60}, {"justification": "Another"}, {"resources": ["site:b"]}])
def test_an_idempotency_key_with_another_body_is_refused(door: Door, change: dict[str, Any]) -> None:
    header = key()
    door.file(headers=header)
    before = door.rows()

    facts(door.file(headers=header, **change), 422, "key-reused")

    assert door.rows() == before


def test_a_call_repeated_under_its_key_is_refused_while_the_first_call_still_runs(door: Door) -> None:
    header = key()
    before = submitted(door)
    name = f"{door.world.people['erin'].person_id}:{header['idempotency-key']}"

    with door.root.connect().execution_options(isolation_level="READ COMMITTED") as twin, twin.begin():
        twin.execute(LOCK, {"name": name})
        facts(door.file(headers=header), 409, "key-in-use")

    assert submitted(door) == before
    assert door.file(headers=header).status_code == 201
    assert submitted(door) == before + 1


def test_concurrent_calls_with_one_idempotency_key_submit_once(door: Door) -> None:
    for _ in range(3):
        header, body, before = key(), door.world.body(), submitted(door)

        answers = door.together(
            *(until_served(door.coming, "erin", "POST", "/v1/requests", json=body, headers=header) for _ in range(6))
        )

        assert {answer.status_code for answer in answers} <= {201, 409}
        assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
        for answer in answers:
            if answer.status_code == 409:
                facts(answer, 409, "key-in-use")
        assert submitted(door) == before + 1


def test_a_failed_call_is_not_remembered_under_its_idempotency_key(door: Door) -> None:
    header = key()

    facts(door.file(headers=header, service="no-such-service"), 422, "unknown-service")

    assert door.file(headers=header).status_code == 201


def test_two_people_may_use_the_same_idempotency_key(door: Door) -> None:
    header = key()

    first, second = door.file("erin", headers=header), door.file("eve", headers=header)

    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json()["id"] != second.json()["id"]


def test_an_idempotency_key_is_forgotten_after_24_hours(door: Door) -> None:
    header = key()
    first = door.file(headers=header)
    age = "UPDATE idempotency_keys SET created_at = created_at - CAST(:age AS interval) WHERE key = :key"
    door.run_sql(age, age="23 hours 59 minutes", key=header["idempotency-key"])
    assert door.file(headers=header).content == first.content
    door.run_sql(age, age="1 minute", key=header["idempotency-key"])

    later = door.file(headers=header, access_window=60)

    assert later.status_code == 201
    assert later.json()["id"] != first.json()["id"]
    assert door.file(headers=header, access_window=60).content == later.content


@pytest.mark.parametrize("value", ["", "k" * 256, "two words", "tab\t", "ümlaut", "nul\x00", "line\x7f"])
def test_an_invalid_idempotency_key_is_refused(door: Door, value: str) -> None:
    before = door.rows()

    answer = door.file(headers={"idempotency-key": value.encode()})

    facts(answer, 422, "invalid-request")
    assert door.rows() == before


def test_an_idempotency_key_may_have_255_characters(door: Door) -> None:
    assert door.file(headers={"idempotency-key": str(new_id()).ljust(255, "~")}).status_code == 201
