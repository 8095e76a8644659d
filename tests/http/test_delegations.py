"""Delegates over HTTP: named, listed and ended, with clear words for what cannot be."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from httpx import Response

from tests.database.tenancy import id_of
from tests.each import each
from tests.http.door import Door, facts
from tests.http.places import eligible

LATER = "2030-01-01T00:00:00Z"


def name_delegate(door: Door, who: str = "ann", **changes: Any) -> Response:
    """Name Aude as delegate for a day, with changes; None leaves a field out."""
    ends_at = datetime.now(UTC) + timedelta(days=1)
    body = {"delegate": str(id_of(door.world, "aude")), "ends_at": ends_at.isoformat()} | changes
    return door.call(
        who,
        "POST",
        door.path("/delegations"),
        json={name: value for name, value in body.items() if value is not None},
    )


def test_an_approver_names_a_delegate_who_decides_until_it_is_ended(fresh_door: Door) -> None:
    eligible(fresh_door)
    named = name_delegate(fresh_door)
    first, second = fresh_door.pending(), fresh_door.pending()
    decided = fresh_door.act("aude", "approve", first)

    ended = fresh_door.call("ann", "DELETE", fresh_door.path(f"/delegations/{named.json()['id']}"))

    assert named.status_code == 201
    assert (named.json()["principal"]["name"], named.json()["delegate"]["name"]) == ("Ann", "Aude")
    assert named.json()["counts"]
    assert decided.json()["state"] == "active"
    assert ended.status_code == 204
    facts(fresh_door.act("aude", "approve", second), 403, "wrong-role")


def test_a_second_delegate_in_the_same_period_clashes(fresh_door: Door) -> None:
    eligible(fresh_door)
    name_delegate(fresh_door)

    body = facts(name_delegate(fresh_door), 409, "delegation-clash")

    assert "has a delegate in that period" in body["detail"]


@each(
    ("changes", "field"),
    [
        ({"ends_at": None}, "ends_at"),
        ({"ends_at": "2030-01-01T00:00:00"}, "ends_at"),
        ({"ends_at": "2020-01-01T00:00:00Z"}, "ends_at"),
        ({"ends_at": LATER}, "ends_at"),
        ({"starts_at": LATER, "ends_at": LATER}, "ends_at"),
        ({"ends_at": "0001-01-01T00:00:00+14:00"}, "ends_at"),
        ({"starts_at": "9999-12-31T23:59:59-14:00"}, "starts_at"),
        ({"starts_at": "soon"}, "starts_at"),
        ({"delegate": None}, "delegate"),
        ({"delegate": "aude"}, "delegate"),
        ({"principal": "ann"}, "principal"),
        ({"made_by": "tara"}, "made_by"),
    ],
)
def test_a_bad_field_is_named(door: Door, changes: dict[str, Any], field: str) -> None:
    eligible(door)

    body = name_delegate(door, **changes).json()

    assert body["code"] == "invalid-request"
    assert field in {body.get("field"), *(error["field"] for error in body.get("errors", []))}
    assert door.get("ann", door.path("/delegations")).json()["items"] == []


@pytest.mark.parametrize("delegate", ["ann", "amir", "erin"])
def test_self_unmarked_and_strangers_are_refused_in_words(door: Door, delegate: str) -> None:
    answer = name_delegate(door, delegate=str(id_of(door.world, delegate)))

    assert facts(answer, 422, "invalid-request")["field"] == "delegate"
