"""The vendor's people over HTTP: operators keep the list, and are kept from their own entry."""

from typing import Any
from uuid import UUID

import pytest

from lockbox.database import Database
from tests.database.tenancy import accepts, id_of
from tests.http.door import Door, facts
from tests.http.places import colleague, somebody
from tests.http.tokens import by, made
from tests.mailbox import CODE, code_of

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


def test_somebody_is_invited_accepts_and_may_ask(fresh_door: Door, worker: Database) -> None:
    body = somebody() | {"name": "Nils", "roles": ["engineer"]}
    answer = fresh_door.call("olga", "POST", MEMBERS, json=body)
    invitation_id = UUID(answer.json()["id"])
    open_ones = fresh_door.get("olga", "/v1/vendor/invitations").json()["items"]

    nils = accepts(fresh_door.world, "nils", invitation_id, code_of(worker, invitation_id))

    assert answer.status_code == 201
    assert not CODE.search(answer.text)
    assert str(invitation_id) in {one["id"] for one in open_ones}
    assert listed(fresh_door, "vera")[str(nils.person_id)]["roles"] == ["engineer"]


def test_roles_are_set_taken_and_given_back_and_hold_at_once(fresh_door: Door) -> None:
    eve = id_of(fresh_door.world, "eve")
    address = f"{MEMBERS}/{eve}"

    gone = fresh_door.call("olga", "DELETE", address)
    refused = fresh_door.file("eve")
    back = fresh_door.call("olga", "PUT", address, json={"roles": ["engineer", "manager"]}, headers=ANY)

    assert gone.status_code == 204
    facts(refused, 403, "wrong-role")
    assert (back.json()["roles"], back.json()["disabled"]) == (["engineer", "manager"], False)
    assert fresh_door.file("eve").status_code == 201


def test_a_manager_is_put_into_a_tier_of_the_review_and_stays_there(fresh_door: Door) -> None:
    address = f"{MEMBERS}/{id_of(fresh_door.world, 'mia')}"

    put = fresh_door.call("olga", "PUT", address, json={"roles": ["manager"], "review_tier": 2}, headers=ANY)
    kept = fresh_door.call("olga", "PUT", address, json={"roles": ["engineer", "manager"]}, headers=ANY)

    assert (put.json()["review_tier"], kept.json()["review_tier"]) == (2, 2)
    tiers = {one["name"]: one["review_tier"] for one in listed(fresh_door, "vera").values()}
    assert (tiers["Max"], tiers["Mia"], tiers["Erin"]) == (1, 2, None)


def test_roles_and_tier_are_set_only_by_whoever_saw_those_that_they_replace(fresh_door: Door) -> None:
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


@pytest.mark.parametrize("tier", [0, 6, -1, 1.5, "2", True, [2]])
def test_a_tier_is_a_number_from_one_to_five(door: Door, tier: Any) -> None:
    address = f"{MEMBERS}/{id_of(door.world, 'mia')}"
    body = {"roles": ["manager"], "review_tier": tier}

    answer = facts(door.call("olga", "PUT", address, json=body, headers=ANY), 422, "invalid-request")
    assert [error["field"] for error in answer["errors"]] == ["review_tier"]


def test_only_a_manager_is_in_a_tier(door: Door) -> None:
    address = f"{MEMBERS}/{id_of(door.world, 'eve')}"
    body = {"roles": ["engineer"], "review_tier": 2}

    assert (
        facts(door.call("olga", "PUT", address, json=body, headers=ANY), 422, "invalid-request")["field"]
        == "review_tier"
    )


def test_who_is_disabled_is_nobody_from_the_next_call_on_and_shut_out(fresh_door: Door) -> None:
    fresh_door.active()
    address = f"{MEMBERS}/{id_of(fresh_door.world, 'erin')}"

    answer = fresh_door.call("olga", "POST", f"{address}/disable")

    assert answer.json()["disabled"]
    facts(fresh_door.get("erin", "/v1/requests"), 401, "invalid-token")
    facts(fresh_door.ask("gate"), 403, "no-open-window")
    facts(fresh_door.call("olga", "PUT", address, json={"roles": ["engineer"]}, headers=ANY), 422, "invalid-request")


def test_nobody_changes_their_own_entry(door: Door) -> None:
    address = f"{MEMBERS}/{id_of(door.world, 'olga')}"

    facts(door.call("olga", "PUT", address, json={"roles": ["operator", "manager"]}, headers=ANY), 403, "own-roles")
    facts(door.call("olga", "DELETE", address), 403, "own-roles")
    facts(door.call("olga", "POST", f"{address}/disable"), 403, "own-roles")


@pytest.mark.parametrize("name", ["tara", "ann"])
def test_a_customers_people_answer_as_people_who_do_not_exist(door: Door, name: str) -> None:
    theirs, nobodys = (f"{MEMBERS}/{one}" for one in (id_of(door.world, name), UUID(int=1)))
    body = {"json": {"roles": ["engineer"]}, "headers": ANY}

    for method, tail, parts in (("PUT", "", body), ("DELETE", "", {}), ("POST", "/disable", {})):
        answer = door.call("olga", method, theirs + tail, **parts)
        facts(answer, 404, "not-found")
        assert answer.content == door.call("olga", method, nobodys + tail, **parts).content


def test_an_invitation_is_withdrawn_once(door: Door) -> None:
    invited = door.call("olga", "POST", MEMBERS, json=somebody() | {"roles": ["manager"]}).json()
    address = f"/v1/vendor/invitations/{invited['id']}"

    assert door.call("olga", "DELETE", address).status_code == 204
    facts(door.call("olga", "DELETE", address), 409, "invitation-closed")
    facts(door.call("olga", "DELETE", f"/v1/vendor/invitations/{UUID(int=1)}"), 404, "not-found")


@pytest.mark.parametrize("roles", [[], ["tenant_admin"], ["approver"], ["root"], "engineer", ["engineer"] * 6, None])
def test_bad_roles_are_refused(door: Door, roles: Any) -> None:
    address = f"{MEMBERS}/{colleague(door)}"

    facts(door.call("olga", "POST", MEMBERS, json=somebody() | {"roles": roles}), 422, "invalid-request")
    facts(door.call("olga", "PUT", address, json={"roles": roles}, headers=ANY), 422, "invalid-request")


def test_an_address_is_invited_once(door: Door) -> None:
    body = somebody() | {"roles": ["manager"]}
    door.call("olga", "POST", MEMBERS, json=body)

    facts(door.call("olga", "POST", MEMBERS, json=body), 409, "already-invited")
    known = listed(door)[str(id_of(door.world, "max"))]["address"]
    facts(door.call("olga", "POST", MEMBERS, json=body | {"address": known}), 409, "already-member")


def test_an_api_token_of_an_operator_adds_and_gives_nothing(fresh_door: Door) -> None:
    plain, slug = made(fresh_door, "olga"), fresh_door.world.tenant.slug
    calls = {
        ("POST", MEMBERS): somebody() | {"roles": ["operator"]},
        ("PUT", f"{MEMBERS}/{id_of(fresh_door.world, 'eve')}"): {"roles": ["engineer", "operator"]},
        ("POST", "/v1/tenants"): {"slug": "new", "name": "New", "admin": somebody()},
        ("POST", f"/v1/tenants/{slug}/recovery"): somebody(),
    }
    before = fresh_door.rows()

    answers = {where: by(plain, fresh_door, *where, json=body, headers=ANY) for where, body in calls.items()}
    suspended = by(plain, fresh_door, "POST", f"/v1/tenants/{slug}/suspend")
    resumed = by(plain, fresh_door, "POST", f"/v1/tenants/{slug}/resume")

    for answer in (*answers.values(), resumed):
        facts(answer, 403, "fresh-sign-in-needed")
    assert suspended.json()["suspended"]
    assert fresh_door.rows()["events"] == before["events"] + 1


def test_shutting_an_engineer_out_ends_their_windows_and_no_operator_does_it_by_hand(fresh_door: Door) -> None:
    window, waiting = fresh_door.active(), fresh_door.pending()

    for one in (window, waiting):
        for action in ("cancel", "revoke", "complete"):
            facts(fresh_door.call("olga", "POST", f"/v1/requests/{one}/{action}"), 404, "not-found")
    fresh_door.call("olga", "POST", f"{MEMBERS}/{id_of(fresh_door.world, 'erin')}/disable")

    states = [fresh_door.get("tara", f"/v1/requests/{one}").json()["state"] for one in (window, waiting)]
    assert states == ["revoked", "cancelled"]
