"""Outside access over HTTP: a repeated declaration is stored once, and the customer can read it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.http.door import Door
from tests.http.places import around


def declare(door: Door, body: dict[str, Any], key: str | None = None) -> Any:
    return door.call(
        "olga", "POST", door.path("/outside-access"), json=body, headers={"idempotency-key": key} if key else {}
    )


def test_approvers_and_the_audit_log_show_a_declaration_of_outside_access(door: Door) -> None:
    body = around(door)

    answer = declare(door, body)
    (newest, *_) = door.get("ann", door.path("/outside-access")).json()["items"]
    (event, *_) = door.get("aude", "/v1/audit", action="outside_access").json()["items"]

    assert answer.status_code == 201
    assert answer.json() == {"id": newest["id"]} == {"id": event["id"]}
    assert newest["engineers"] == ["Erin"]
    assert (newest["resources"], newest["reason"]) == (body["resources"], body["reason"])
    began, ended = (datetime.fromisoformat(newest[name]) for name in ("began_at", "ended_at"))
    assert (began, ended - began) == (datetime.fromisoformat(body["began_at"]), timedelta(seconds=600))
    assert body["reason"] in str(event)


def test_a_declaration_of_outside_access_repeated_under_its_idempotency_key_is_stored_once(door: Door) -> None:
    body = around(door)

    first, again = declare(door, body, "key-1"), declare(door, body, "key-1")
    other = declare(door, body | {"seconds": 60}, "key-1")

    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert [one["id"] for one in door.get("ann", door.path("/outside-access")).json()["items"]].count(
        first.json()["id"]
    ) == 1
    assert (other.status_code, other.json()["code"]) == (422, "key-reused")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"seconds": 7 * 24 * 3600}, 409),
        ({"began_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}, 409),
        ({"began_at": "2001-01-01T00:00:00Z"}, 409),
        ({"seconds": 7 * 24 * 3600 + 1}, 422),
        ({"seconds": 0}, 422),
        ({"engineers": []}, 422),
        ({"resources": ["mailbox:*"]}, 422),
        ({"reason": " "}, 422),
        ({"reason": "x" * 2001}, 422),
        ({"began_at": "2026-01-01"}, 422),
        ({"ended_at": "2026-01-01T00:00:00Z"}, 422),
    ],
)
def test_an_invalid_declaration_of_outside_access_is_refused_without_notification(
    door: Door, changes: dict[str, Any], status: int
) -> None:
    before = door.rows()

    answer = declare(door, around(door) | changes)

    assert answer.status_code == status, answer.text
    assert {name: door.rows()[name] for name in ("events", "notifications")} == {
        name: before[name] for name in ("events", "notifications")
    }


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_a_declaration_of_outside_access_cannot_be_changed(door: Door, method: str) -> None:
    declare(door, around(door))

    assert door.call("olga", method, door.path("/outside-access"), json=around(door)).status_code == 405
