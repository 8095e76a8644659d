"""Members and invitations over HTTP: what an admin may do, and what a bad call is told."""

from typing import Any
from uuid import UUID

import pytest

from lockbox.database import Database
from lockbox.errors import InvitationRefused
from lockbox.identity.roles import Role
from lockbox.sql import new_id
from tests.database.scenes import read
from tests.database.tenancy import accepts, id_of
from tests.each import each
from tests.http.door import Door, OpenDoor, facts
from tests.http.places import invited, somebody
from tests.mailbox import CODE, code_of

NOBODY = UUID(int=1)
ANY = {"if-match": "*"}


def listed(door: Door, who: str = "tara") -> dict[str, dict[str, Any]]:
    """Return the members as somebody lists them, by name."""
    return {one["name"]: one for one in door.get(who, door.path("/members"), limit=200).json()["items"]}


def test_somebody_is_invited_accepts_and_decides(fresh_door: Door, worker: Database) -> None:
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


def test_members_are_listed_with_address_roles_and_mark_page_by_page(fresh_door: Door) -> None:
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


def test_roles_and_mark_are_set_in_one_call(fresh_door: Door) -> None:
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


def test_roles_are_set_only_by_whoever_saw_those_that_they_replace(fresh_door: Door) -> None:
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


def test_whoever_saw_another_mark_as_delegate_sets_no_roles(fresh_door: Door) -> None:
    aude = fresh_door.path(f"/members/{id_of(fresh_door.world, 'aude')}")
    seen = {"if-match": fresh_door.get("tara", aude).headers["etag"]}
    body = {"roles": ["auditor"], "eligible": True}
    marked = fresh_door.call("tara", "PUT", aude, json=body, headers=seen)

    stale = fresh_door.call("tara", "PUT", aude, json={"roles": ["approver"]}, headers=seen)
    fresh = {"if-match": marked.headers["etag"]}

    facts(stale, 412, "stale-version")
    assert fresh_door.call("tara", "PUT", aude, json={"roles": ["approver"]}, headers=fresh).status_code == 200


def test_somebody_who_becomes_an_approver_may_decide_and_somebody_removed_no_longer(fresh_door: Door) -> None:
    request_id = fresh_door.pending()
    facts(fresh_door.act("aude", "approve", request_id), 403, "wrong-role")

    fresh_door.call(
        "tara",
        "PUT",
        fresh_door.path(f"/members/{id_of(fresh_door.world, 'aude')}"),
        json={"roles": ["approver"]},
        headers=ANY,
    )
    gone = fresh_door.call("tara", "DELETE", fresh_door.path(f"/members/{id_of(fresh_door.world, 'ann')}"))

    assert (gone.status_code, gone.content) == (204, b"")
    facts(fresh_door.act("ann", "approve", request_id), 404, "not-found")
    facts(fresh_door.get("ann", fresh_door.path()), 404, "not-found")
    assert fresh_door.act("aude", "approve", request_id).json()["state"] == "active"


def test_the_last_admin_stays(fresh_door: Door) -> None:
    tara = fresh_door.path(f"/members/{id_of(fresh_door.world, 'tara')}")

    facts(fresh_door.call("tara", "DELETE", tara), 403, "last-admin")
    facts(fresh_door.call("tara", "PUT", tara, json={"roles": ["approver"]}, headers=ANY), 403, "last-admin")

    assert listed(fresh_door)["Tara"]["roles"] == ["tenant_admin"]


def test_an_address_of_a_member_or_of_somebody_invited_is_refused_and_of_the_vendor_is_not_told(
    fresh_door: Door,
) -> None:
    (vendors,) = read(fresh_door.root, "SELECT email FROM people WHERE id = :id", id=id_of(fresh_door.world, "erin"))
    body = somebody() | {"roles": ["auditor"]}
    fresh_door.call("tara", "POST", fresh_door.path("/members"), json=body)

    answers = {
        address: fresh_door.call("tara", "POST", fresh_door.path("/members"), json=body | {"address": address})
        for address in (vendors.email, listed(fresh_door)["Ann"]["address"], body["address"].upper())
    }

    of_the_vendor, *others = answers.values()
    assert of_the_vendor.status_code == 201
    assert [answer.json()["code"] for answer in others] == ["already-member", "already-invited"]
    assert [answer.status_code for answer in others] == [409, 409]


def test_a_withdrawn_invitation_is_gone_and_worthless(fresh_door: Door, worker: Database) -> None:
    one = invited(fresh_door)
    code = code_of(worker, one.id)
    address = fresh_door.path(f"/invitations/{one.id}")

    withdrawn = fresh_door.call("tara", "DELETE", address)

    assert withdrawn.status_code == 204
    facts(fresh_door.call("tara", "DELETE", address), 409, "invitation-closed")
    assert fresh_door.get("tara", fresh_door.path("/invitations")).json()["items"] == []
    with pytest.raises(InvitationRefused):
        accepts(fresh_door.world, "nina", one.id, code)


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
def test_a_bad_field_of_an_invitation_is_named(door: Door, field: str, value: Any) -> None:
    before = door.rows()
    body = somebody() | {"roles": ["auditor"]}

    answer = door.call("tara", "POST", door.path("/members"), json=body | {field: value})

    named = [error["field"].split(".")[0] for error in facts(answer, 422, "invalid-request")["errors"]]
    assert set(named) == {field}
    assert door.rows() == before


@pytest.mark.parametrize(
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
def test_a_bad_change_of_a_member_is_refused(door: Door, body: dict[str, Any]) -> None:
    address = door.path(f"/members/{id_of(door.world, 'ann')}")

    facts(door.call("tara", "PUT", address, json=body, headers=ANY), 422, "invalid-request")

    assert listed(door)["Ann"]["roles"] == ["approver"]


@each("shown", ["1", "x", "%00", "0" * 5000])
@each(("method", "tail"), [("PUT", "/members"), ("DELETE", "/members"), ("DELETE", "/invitations")])
def test_what_is_no_id_is_refused(door: Door, method: str, tail: str, shown: str) -> None:
    answer = door.call("tara", method, door.path(f"{tail}/{shown}"), json={"roles": ["approver"]}, headers=ANY)

    facts(answer, 422, "invalid-request")


@pytest.mark.parametrize("name", ["erin", "olga"])
def test_somebody_of_the_vendor_is_no_member_to_be_changed(door: Door, name: str) -> None:
    address = door.path(f"/members/{id_of(door.world, name)}")

    for method, body in (("PUT", {"roles": ["approver"]}), ("DELETE", None)):
        parts = {"json": body} if body else {}
        facts(door.call("tara", method, address, headers=ANY, **parts), 404, "not-found")


def test_somebody_of_another_tenant_is_neither_seen_nor_changed(fresh_door: Door, open_door: OpenDoor) -> None:
    elsewhere = open_door()
    zoe = elsewhere.world.add("zoe", Role.APPROVER, elsewhere.world.tenant.id)

    answer = fresh_door.call(
        "tara", "PUT", fresh_door.path(f"/members/{zoe.person_id}"), json={"roles": ["tenant_admin"]}, headers=ANY
    )

    nobodys = fresh_door.call(
        "tara", "PUT", fresh_door.path(f"/members/{new_id()}"), json={"roles": ["tenant_admin"]}, headers=ANY
    )
    facts(answer, 404, "not-found")
    assert answer.content == nobodys.content
    assert "Zoe" not in listed(fresh_door)
