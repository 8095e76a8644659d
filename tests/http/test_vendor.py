"""The vendor's people over HTTP: operators maintain the list, but not their own entries."""

from typing import Any

from tests.database.tenancy import id_of
from tests.each import each
from tests.http.door import Door, facts
from tests.http.places import colleague, somebody

MEMBERS = "/v1/vendor/members"
ANY = {"if-match": "*"}


def listed(door: Door, who: str = "olga") -> dict[str, dict[str, Any]]:
    """Return the vendor's people as somebody lists them, by id."""
    found: dict[str, dict[str, Any]] = {}
    cursor: dict[str, str] = {}
    while True:
        page = door.get(who, MEMBERS, limit=200, **cursor).json()
        found |= {one["id"]: one for one in page["items"]}
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


def test_vendor_roles_and_tier_are_replaced_only_by_a_caller_who_saw_both(fresh_door: Door) -> None:
    address = f"{MEMBERS}/{id_of(fresh_door.world, 'mia')}"
    shown = fresh_door.get("vera", address)
    seen, body = {"if-match": shown.headers["etag"]}, {"roles": ["manager"], "review_tier": 2}

    without = fresh_door.call("olga", "PUT", address, json=body)
    first = fresh_door.call("olga", "PUT", address, json=body, headers=seen)
    second = fresh_door.call("olga", "PUT", address, json={"roles": ["engineer"]}, headers=seen)

    facts(without, 428, "precondition-required")
    assert shown.headers["etag"] == f'"{shown.json()["version"]}"'
    assert (first.json()["review_tier"], first.headers["etag"]) == (2, f'"{first.json()["version"]}"')
    assert facts(second, 412, "stale-version")["current_version"] == first.json()["version"]
    assert listed(fresh_door)[first.json()["id"]]["roles"] == ["manager"]


@each("tier", [0, 6, -1, 1.5, "2", True, [2]])
def test_the_review_tier_of_a_manager_must_be_from_one_to_five(door: Door, tier: Any) -> None:
    address = f"{MEMBERS}/{id_of(door.world, 'mia')}"
    body = {"roles": ["manager"], "review_tier": tier}

    answer = facts(door.call("olga", "PUT", address, json=body, headers=ANY), 422, "invalid-request")
    assert [error["field"] for error in answer["errors"]] == ["review_tier"]


@each("roles", [[], ["tenant_admin"], ["approver"], ["root"], "engineer", ["engineer"] * 6, None])
def test_invalid_roles_of_a_vendor_person_are_refused(door: Door, roles: Any) -> None:
    address = f"{MEMBERS}/{colleague(door)}"

    facts(door.call("olga", "POST", MEMBERS, json=somebody() | {"roles": roles}), 422, "invalid-request")
    facts(door.call("olga", "PUT", address, json={"roles": roles}, headers=ANY), 422, "invalid-request")
