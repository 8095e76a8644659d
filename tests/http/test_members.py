"""Members and invitations over HTTP: what an admin may do, and how invalid calls are answered."""

from typing import Any
from uuid import UUID

from lockbox.database import Database
from tests.database.scenes import read
from tests.database.tenancy import accepts, id_of
from tests.each import each
from tests.http.door import Door, facts
from tests.http.places import somebody
from tests.mailbox import CODE, code_of

NOBODY = UUID(int=1)
ANY = {"if-match": "*"}


def listed(door: Door, who: str = "tara") -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in door.get(who, door.path("/members"), limit=200).json()["items"]}


def test_an_invitee_accepts_an_invitation_and_decides(fresh_door: Door, worker: Database) -> None:
    body = somebody() | {"name": "Nina", "roles": ["approver"]}
    answer = fresh_door.call("tara", "POST", fresh_door.path("/members"), json=body)
    invitation = answer.json()
    open_ones = fresh_door.get("aude", fresh_door.path("/invitations")).json()["items"]
    before = set(listed(fresh_door))

    code = code_of(worker, UUID(invitation["id"]))
    accepts(fresh_door.world, "nina", UUID(invitation["id"]), code)

    assert answer.status_code == 201
    assert (invitation["address"], invitation["roles"], invitation["is_recovery"]) == (
        body["address"],
        ["approver"],
        False,
    )
    assert not CODE.search(answer.text)
    assert [one["id"] for one in open_ones] == [invitation["id"]]
    assert "Nina" not in before
    assert listed(fresh_door, "ann")["Nina"]["roles"] == ["approver"]
    assert fresh_door.get("aude", fresh_door.path("/invitations")).json()["items"] == []


def test_members_are_listed_with_address_roles_and_eligibility(fresh_door: Door) -> None:
    first = fresh_door.get("aude", fresh_door.path("/members"), limit=2).json()
    rest = fresh_door.get("aude", fresh_door.path("/members"), cursor=first["next_cursor"]).json()

    seen = [*first["items"], *rest["items"]]
    assert [one["name"] for one in seen] == ["Tara", "Ann", "Amir", "Abe", "Aude"]
    assert seen[1] == {
        "id": str(id_of(fresh_door.world, "ann")),
        "name": "Ann",
        "address": seen[1]["address"],
        "roles": ["approver"],
        "eligible": False,
        "since": seen[1]["since"],
        "version": seen[1]["version"],
    }
    assert (seen[1]["address"].startswith("ann-"), rest["next_cursor"]) == (True, None)


def test_roles_and_eligibility_of_a_member_are_set_in_one_call(fresh_door: Door) -> None:
    aude = f"/members/{id_of(fresh_door.world, 'aude')}"

    both = fresh_door.call(
        "tara", "PUT", fresh_door.path(aude), json={"roles": ["auditor", "approver"], "eligible": True}, headers=ANY
    )
    roles = fresh_door.call("tara", "PUT", fresh_door.path(aude), json={"roles": ["auditor"]}, headers=ANY)

    assert (both.json()["roles"], both.json()["eligible"]) == (["approver", "auditor"], True)
    assert (roles.json()["roles"], roles.json()["eligible"]) == (["auditor"], True)
    (row,) = read(
        fresh_door.root,
        "SELECT array_agg(action ORDER BY id) AS actions FROM events WHERE tenant_id = :t",
        t=fresh_door.world.tenant.id,
    )
    assert row.actions == ["member_changed", "eligible_changed", "member_changed"]


def test_roles_of_a_member_are_replaced_only_by_a_caller_who_saw_the_current_roles(fresh_door: Door) -> None:
    aude = fresh_door.path(f"/members/{id_of(fresh_door.world, 'aude')}")
    before, shown = listed(fresh_door)["Aude"], fresh_door.get("ann", aude)
    seen, body = {"if-match": shown.headers["etag"]}, {"roles": ["approver"]}

    without = fresh_door.call("tara", "PUT", aude, json=body)
    bad = [fresh_door.call("tara", "PUT", aude, json=body, headers={"if-match": one}) for one in ('"3"', "x", '""')]
    first = fresh_door.call("tara", "PUT", aude, json=body, headers=seen)
    second = fresh_door.call("tara", "PUT", aude, json={"roles": ["auditor"]}, headers=seen)

    assert "If-Match" in facts(without, 428, "precondition-required")["detail"]
    for answer in bad:
        assert facts(answer, 422, "invalid-request")["field"] == "If-Match"
    assert shown.json() == before
    assert shown.headers["etag"] == f'"{shown.json()["version"]}"'
    assert first.json()["roles"] == ["approver"]
    stale = facts(second, 412, "stale-version")
    assert f'"{stale["current_version"]}"' == first.headers["etag"] != shown.headers["etag"]
    assert listed(fresh_door)["Aude"]["roles"] == ["approver"]


def test_roles_of_a_member_are_not_set_after_an_unseen_eligibility_change(fresh_door: Door) -> None:
    aude = fresh_door.path(f"/members/{id_of(fresh_door.world, 'aude')}")
    seen = {"if-match": fresh_door.get("tara", aude).headers["etag"]}
    body = {"roles": ["auditor"], "eligible": True}
    marked = fresh_door.call("tara", "PUT", aude, json=body, headers=seen)

    stale = fresh_door.call("tara", "PUT", aude, json={"roles": ["approver"]}, headers=seen)
    fresh = {"if-match": marked.headers["etag"]}

    facts(stale, 412, "stale-version")
    assert fresh_door.call("tara", "PUT", aude, json={"roles": ["approver"]}, headers=fresh).status_code == 200


@each(
    ("field", "value"),
    [
        ("roles", []),
        ("roles", ["engineer"]),
        ("roles", ["operator"]),
        ("roles", ["approver"] * 4),
        ("roles", "approver"),
        ("roles", None),
        ("name", ""),
        ("name", "a\u2028b"),
        ("address", "nobody"),
        ("address", "a@b@c.example"),
        ("address", None),
        ("code", "AAAA"),
        ("tenant_id", str(NOBODY)),
    ],
)
def test_an_invalid_field_of_an_invitation_is_named(door: Door, field: str, value: Any) -> None:
    before = door.rows()
    body = somebody() | {"roles": ["auditor"]}

    answer = door.call("tara", "POST", door.path("/members"), json=body | {field: value})

    named = [error["field"].split(".")[0] for error in facts(answer, 422, "invalid-request")["errors"]]
    assert set(named) == {field}
    assert door.rows() == before


@each(
    "body",
    [
        {},
        {"roles": []},
        {"roles": ["manager"]},
        {"roles": ["approver"], "eligible": "yes"},
        {"roles": ["approver"], "eligible": 1},
        {"roles": ["approver"], "name": "Evil"},
        {"eligible": True},
    ],
)
def test_an_invalid_change_of_a_member_is_refused(door: Door, body: dict[str, Any]) -> None:
    address = door.path(f"/members/{id_of(door.world, 'ann')}")

    facts(door.call("tara", "PUT", address, json=body, headers=ANY), 422, "invalid-request")

    assert listed(door)["Ann"]["roles"] == ["approver"]


@each("shown", ["1", "x", "%00", "0" * 5000])
@each(("method", "tail"), [("PUT", "/members"), ("DELETE", "/members"), ("DELETE", "/invitations")])
def test_an_invalid_member_id_is_refused(door: Door, method: str, tail: str, shown: str) -> None:
    answer = door.call("tara", method, door.path(f"{tail}/{shown}"), json={"roles": ["approver"]}, headers=ANY)

    facts(answer, 422, "invalid-request")
