"""Further addresses over HTTP and on the account's page: only a POST by the person concerned confirms one."""

from typing import Any
from uuid import UUID

import pytest

from lockbox.database import Database
from tests.database.postbag import address
from tests.database.scenes import read
from tests.each import each
from tests.http.door import Door, facts
from tests.http.portal import Portal
from tests.mailbox import code_of

MINE = "/v1/me/addresses"
DESK = "desk@contoso.example"


def add(door: Door, who: str = "ann", email: str = DESK, **changes: Any) -> dict[str, Any]:
    answer = door.call(who, "POST", MINE, json={"email": email} | changes)
    assert answer.status_code == 201, answer.text
    added: dict[str, Any] = answer.json()
    return added


def test_a_mail_address_is_added_confirmed_listed_changed_and_removed(fresh_door: Door, worker: Database) -> None:
    added = add(fresh_door)
    one = f"{MINE}/{added['id']}"
    code = code_of(worker, UUID(added["id"]))

    confirmed = fresh_door.call("ann", "POST", f"{one}/confirm", json={"code": code})
    changed = fresh_door.call("ann", "PATCH", one, json={"prompts": False})
    listed = fresh_door.get("ann", MINE)
    removed = fresh_door.call("ann", "DELETE", one)

    assert (added["email"], added["prompts"], added["confirmed_at"]) == (DESK, True, None)
    assert confirmed.json()["confirmed_at"] is not None
    assert changed.json()["prompts"] is False
    assert listed.json()["items"] == [changed.json()]
    assert listed.headers["cache-control"] == "no-store"
    assert removed.status_code == 204
    assert fresh_door.get("ann", MINE).json()["items"] == []
    assert "code" not in str(added) + listed.text


def test_the_refusal_of_a_wrong_confirmation_code_advises_to_add_the_address_again(fresh_door: Door) -> None:
    added = add(fresh_door)

    answer = fresh_door.call("ann", "POST", f"{MINE}/{added['id']}/confirm", json={"code": "AAAA-BBBB"})

    problem = facts(answer, 422, "invalid-request")
    assert "remove the address and add it" in problem["detail"]


@pytest.mark.parametrize("whose", ["max", "amir"])
def test_the_refusal_of_a_mail_address_already_in_use_does_not_reveal_the_owner(fresh_door: Door, whose: str) -> None:
    theirs = address(fresh_door.db, fresh_door.world, whose)

    answer = fresh_door.call("ann", "POST", MINE, json={"email": theirs})

    problem = facts(answer, 409, "address-taken")
    assert problem["detail"].startswith("This address can't be yours here")
    assert theirs not in answer.text


@pytest.mark.far
def test_mail_addresses_of_accounts_cannot_be_enumerated(fresh_door: Door) -> None:
    taken = address(fresh_door.db, fresh_door.world, "erin")

    answers = [fresh_door.call("ann", "POST", MINE, json={"email": taken}) for _ in range(21)]
    another = fresh_door.call("tara", "POST", MINE, json={"email": taken})

    assert [answer.status_code for answer in answers] == [409] * 20 + [429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert another.status_code == 409


@each(
    "body",
    [
        {},
        {"email": ""},
        {"email": "nobody"},
        {"email": "a@b@c"},
        {"email": "ann@contoso.example\r\nBcc: all@contoso.example"},
        {"email": f"{'a' * 320}@contoso.example"},
        {"email": DESK, "prompts": "yes"},
        {"email": DESK, "confirmed_at": "2026-01-01T00:00:00Z"},
    ],
)
def test_adding_an_invalid_mail_address_is_refused(door: Door, body: dict[str, Any]) -> None:
    before = door.rows()

    answer = door.call("ann", "POST", MINE, json=body)

    assert answer.status_code == 422
    assert door.rows() == before


def test_the_delivery_log_shows_addresses_only_to_people_of_the_same_side(fresh_door: Door, worker: Database) -> None:
    added = add(fresh_door)
    fresh_door.call("ann", "POST", f"{MINE}/{added['id']}/confirm", json={"code": code_of(worker, UUID(added["id"]))})
    fresh_door.call(
        "tara",
        "POST",
        f"/v1/tenants/{fresh_door.world.tenant.slug}/observers",
        json={"name": "Watching desk", "address": "watch@contoso.example"},
    )
    request = fresh_door.pending()
    fresh_door.fan_out()

    own = fresh_door.get("aude", f"/v1/requests/{request}/notifications").json()["own"]
    other = fresh_door.get("erin", f"/v1/requests/{request}/notifications")

    anns = {one["address"] for one in own if one["recipient"] == "Ann"}
    assert anns == {DESK, address(fresh_door.db, fresh_door.world, "ann")}
    assert [(one["recipient"], one["address"]) for one in own if one["copied"]] == [
        ("Watching desk", "watch@contoso.example")
    ]
    assert "contoso.example" not in other.text
    assert other.json()["other"]["waiting"] == len([one for one in own if not one["copied"]])


def test_a_person_adds_and_confirms_an_address_on_the_account_page(portal: Portal, worker: Database) -> None:
    browser = portal.by_mail("ann")

    page = browser.submit(browser.get("/account"), "/account/addresses", email=f" {DESK} ")
    (row,) = read(portal.db, "SELECT id FROM addresses WHERE person_id = :p", p=portal.world.people["ann"].person_id)
    looked = browser.get("/account")
    code = code_of(worker, row.id)
    confirmed = browser.submit(looked, "/account/addresses/confirm", code=code.lower())
    quiet = browser.submit(confirmed, "/account/addresses/prompts")
    removed = browser.submit(quiet, "/account/addresses/remove")

    assert f"{DESK} not used until you confirm it" in page.words
    assert f"{DESK} gets all mails to you" in confirmed.words
    assert f"{DESK} gets only receipts and notifications of changes" in quiet.words
    assert DESK not in removed.words


def test_the_account_page_refuses_an_invalid_mail_address_with_an_explanation(portal: Portal) -> None:
    browser = portal.by_mail("ann")

    page = browser.submit(browser.get("/account"), "/account/addresses", email="desk")

    assert page.status == 422
    assert "Write one mail address, such as ann@contoso.example" in page.words
