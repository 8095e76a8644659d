"""Rotating a token: both work for a while, and a token that rotates itself lasts no longer than the default."""

from datetime import datetime, timedelta
from threading import Timer
from typing import Any
from uuid import uuid4

import pytest
from httpx import Response
from sqlalchemy import text

from lockbox.identity import api_tokens
from tests.each import each
from tests.http.door import Door, facts, until_served
from tests.http.tokens import asked, by, listed, made, works


def rotate(door: Door, who: str, token: dict[str, Any], **body: Any) -> Response:
    return door.call(who, "POST", f"/v1/tokens/{token['id']}/rotate", json=body)


def rotate_itself(door: Door, token: dict[str, Any], **body: Any) -> Response:
    return by(token, door, "POST", f"/v1/tokens/{token['id']}/rotate", json=body)


def lasts(token: dict[str, Any]) -> timedelta:
    return datetime.fromisoformat(token["expires_at"]) - datetime.fromisoformat(token["created_at"])


def test_a_rotated_token_keeps_its_name_and_limits(door: Door) -> None:
    old = made(door, "gate", name="mail", scopes=["access:check"], services=["onedrive"], days=30)

    answer = rotate(door, "gate", old)

    new = answer.json()
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    assert (new["replaces"], new["name"], new["scopes"], new["services"]) == (
        *(old["id"], "mail", ["access:check"], ["onedrive"]),
    )
    assert lasts(new) == timedelta(days=30)
    assert new["token"] != old["token"]
    assert listed(door, "gate")[new["id"]]["replaces"] == old["id"]


def test_old_and_new_token_both_work_for_a_day_after_a_rotation(door: Door) -> None:
    old = made(door)

    new = rotate(door, "erin", old).json()

    almost, after = door.later(hours=23, minutes=59), door.later(hours=24, minutes=1)
    assert works(old, door)
    assert works(new, door)
    assert works(old, almost)
    assert not works(old, after)
    assert works(new, after)


def test_a_token_rotation_without_overlap_ends_the_old_token_at_once(door: Door) -> None:
    old = made(door)

    new = rotate(door, "erin", old, overlap_hours=0).json()

    assert not works(old, door)
    assert works(new, door)


def test_a_week_is_the_longest_overlap_of_a_token_rotation(door: Door) -> None:
    old = made(door, "max")

    facts(rotate(door, "max", old, overlap_hours=169), 422, "invalid-request")
    rotate(door, "max", old, overlap_hours=168)

    assert works(old, door.later(hours=167, minutes=59))
    assert not works(old, door.later(hours=168, minutes=1))


def test_rotating_a_token_never_extends_the_old_token(door: Door) -> None:
    old = made(door, "max", days=1)

    rotate(door, "max", old, overlap_hours=168)

    assert listed(door, "max")[old["id"]]["expires_at"] == old["expires_at"]


@each("body", [{"overlap_hours": -1}, {"overlap_hours": "1"}, {"days": 366}, {"name": "x"}])
def test_an_invalid_token_rotation_is_refused_and_changes_nothing(door: Door, body: dict[str, Any]) -> None:
    old = made(door, "olga")
    before = listed(door, "olga")

    facts(rotate(door, "olga", old, **body), 422, "invalid-request")

    assert listed(door, "olga") == before


def test_a_token_that_rotates_itself_is_replaced_by_a_token_of_the_same_lifetime(door: Door) -> None:
    old = made(door, "tara", days=7)

    new = rotate_itself(door, old)

    assert new.status_code == 201
    assert lasts(new.json()) == timedelta(days=7)
    assert works(new.json(), door)
    assert listed(door, "tara")[new.json()["id"]]["replaces"] == old["id"]


def test_a_token_that_rotates_itself_lasts_no_longer_than_the_default(door: Door) -> None:
    short, long = made(door, "tara", days=1), made(door, "tara", days=365)

    too_long = rotate_itself(door, short, days=91)
    usual = rotate_itself(door, short, days=90)
    cut = rotate_itself(door, long)

    assert facts(too_long, 422, "invalid-request")["limit_days"] == 90
    assert lasts(usual.json()) == timedelta(days=90)
    assert lasts(cut.json()) == timedelta(days=90)


def test_a_person_with_a_fresh_sign_in_can_rotate_a_token_to_last_a_year(door: Door) -> None:
    old = made(door, "aude")

    new = rotate(door, "aude", old, days=365).json()

    assert lasts(new) == timedelta(days=365)


def test_a_token_is_rotated_once_unless_its_successor_is_revoked(door: Door) -> None:
    old = made(door, "eve")
    new = rotate_itself(door, old).json()

    facts(rotate_itself(door, old), 409, "conflict")
    facts(rotate(door, "eve", old), 409, "conflict")
    door.call("eve", "DELETE", f"/v1/tokens/{new['id']}")

    assert rotate(door, "eve", old).status_code == 201


def test_concurrent_rotations_of_a_token_make_one_new_token(fresh_door: Door) -> None:
    old = made(fresh_door)
    path = f"/v1/tokens/{old['id']}/rotate"

    answers = fresh_door.together(*(until_served(fresh_door.coming, "erin", "POST", path) for _ in range(4)))

    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]


def test_a_revoked_or_expired_token_is_not_rotated(door: Door) -> None:
    revoked, over = made(door, "amir"), made(door, "amir")
    door.call("amir", "DELETE", f"/v1/tokens/{revoked['id']}")
    door.run_sql("UPDATE tokens SET expires_at = clock_timestamp() WHERE id = :i", i=over["id"])

    answers = [rotate(door, "amir", one) for one in (revoked, over, {"id": str(uuid4())})]

    assert {answer.content for answer in answers} == {answers[2].content}
    facts(answers[0], 404, "not-found")


@pytest.mark.far
def test_a_token_being_revoked_cannot_be_rotated(fresh_door: Door) -> None:
    old = made(fresh_door)
    engine = fresh_door.root.execution_options(isolation_level="READ COMMITTED")

    with engine.connect() as revoking:
        revoking.execute(text("UPDATE tokens SET revoked_at = clock_timestamp() WHERE id = :i"), {"i": old["id"]})
        soon = Timer(0.4, revoking.commit)
        soon.start()
        answer = rotate(fresh_door, "erin", old)
        soon.join()

    facts(answer, 404, "not-found")
    assert len(listed(fresh_door, "erin")) == 1


@pytest.mark.far
def test_rotation_at_the_token_limit_needs_the_old_token_to_end_at_once(fresh_door: Door) -> None:
    made_ = [made(fresh_door) for _ in range(api_tokens.MOST_TOKENS - 1)]

    facts(rotate(fresh_door, "erin", made_[0]), 409, "too-many-tokens")
    at_once = rotate(fresh_door, "erin", made_[0], overlap_hours=0)

    assert at_once.status_code == 201
    facts(asked(fresh_door, "erin"), 409, "too-many-tokens")
