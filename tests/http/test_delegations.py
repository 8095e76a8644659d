"""Delegates over HTTP: named, listed and ended, with clear refusals."""

from datetime import UTC, datetime, timedelta
from typing import Any

from httpx import Response

from tests.database.tenancy import id_of
from tests.each import each
from tests.http.door import Door
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
def test_an_invalid_field_of_a_delegation_is_named(door: Door, changes: dict[str, Any], field: str) -> None:
    eligible(door)

    body = name_delegate(door, **changes).json()

    assert body["code"] == "invalid-request"
    assert field in {body.get("field"), *(error["field"] for error in body.get("errors", []))}
    assert door.get("ann", door.path("/delegations")).json()["items"] == []
