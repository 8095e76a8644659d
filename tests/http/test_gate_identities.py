"""The routes of the gate's identity map: their answers and their refusals."""

from typing import Any

from lockbox.sql import new_id
from tests.each import each
from tests.http.door import Door, facts
from tests.http.places import colleague, unmapped
from tests.http.tokens import by, made

IDENTITIES = "/v1/gate/identities"


def new_one(door: Door, new: dict[str, Any]) -> dict[str, Any]:
    answer = door.call("olga", "POST", IDENTITIES, json=new)
    assert answer.status_code == 201, answer.text
    added: dict[str, Any] = answer.json()
    return added


def listed(door: Door, who: str) -> list[dict[str, Any]]:
    """Return the whole identity map as a person reads it."""
    found, cursor = list[dict[str, Any]](), dict[str, str]()
    while True:
        page = door.get(who, IDENTITIES, limit=200, **cursor).json()
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def test_an_engineers_gate_identity_is_added_listed_and_removed(door: Door) -> None:
    new = unmapped(door)

    added = new_one(door, new)

    assert {name: added[name] for name in ("issuer", "subject")} == {
        name: new[name] for name in ("issuer", "subject")
    }
    assert added["person"]["id"] == new["person_id"]
    assert added["added_by"] == str(door.world.people["olga"].person_id)
    assert added in listed(door, "vera")
    assert door.call("olga", "DELETE", f"{IDENTITIES}/{added['id']}").status_code == 204
    assert added not in listed(door, "olga")
    facts(door.call("olga", "DELETE", f"{IDENTITIES}/{added['id']}"), 404, "not-found")


def test_the_refusal_of_a_gate_identity_names_the_faulty_field(door: Door) -> None:
    new = unmapped(door)
    unknown = facts(
        door.call("olga", "POST", IDENTITIES, json=new | {"issuer": "https://x.example"}), 422, "invalid-request"
    )
    assert unknown["field"] == "issuer"
    assert "catalogue" in unknown["detail"]
    nobody = facts(
        door.call("olga", "POST", IDENTITIES, json=new | {"person_id": str(new_id())}), 422, "unknown-engineer"
    )
    assert nobody["field"] == "person_id"
    new_one(door, new)
    facts(door.call("olga", "POST", IDENTITIES, json=new | {"person_id": str(colleague(door))}), 409, "conflict")


@each(
    "changes",
    [
        {"subject": ""},
        {"subject": " e-1"},
        {"subject": "e-1\n"},
        {"subject": "é"},
        {"subject": "e" * 501},
        {"issuer": "https://x.example/ "},
        {"issuer": ""},
        {"issuer": "h" * 501},
        {"person_id": "erin"},
        {"email": "erin@vendor.example"},
    ],
)
def test_an_invalid_gate_identity_is_refused(door: Door, changes: dict[str, Any]) -> None:
    assert door.call("olga", "POST", IDENTITIES, json=unmapped(door) | changes).status_code in {400, 422}


def test_an_api_token_cannot_map_gate_identities(door: Door) -> None:
    token, added = made(door, "olga"), new_one(door, unmapped(door))

    facts(by(token, door, "POST", IDENTITIES, json=unmapped(door)), 403, "fresh-sign-in-needed")
    facts(by(token, door, "DELETE", f"{IDENTITIES}/{added['id']}"), 403, "fresh-sign-in-needed")
    assert by(token, door, "GET", IDENTITIES).status_code == 200
