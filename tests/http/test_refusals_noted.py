"""Refused decisions and sign-ins are noted over HTTP, in a transaction of their own, and the answer is as ever."""

from typing import Any

import pytest
from sqlalchemy import Engine, text

from tests.http.door import Door
from tests.http.portal import Portal

DECISIONS = "SELECT facts, personal, count, person_id FROM refused WHERE request_id = :id"
SIGN_INS = "SELECT facts, personal, count FROM refused WHERE personal ->> 'account' = :account"


def rows(root: Engine, query: str, **values: Any) -> list[Any]:
    """Return what was counted."""
    with root.connect() as connection:
        return list(connection.execute(text(query), values).all())


@pytest.mark.parametrize(
    ("who", "action", "status", "code"),
    [
        ("erin", "approve", 403, "own-request"),
        ("aude", "approve", 403, "wrong-role"),
        ("max", "revoke", 409, "invalid-move"),
    ],
)
def test_a_decision_that_was_refused_is_counted_and_nothing_else_is_written(
    door: Door, who: str, action: str, status: int, code: str
) -> None:
    request_id = door.pending()
    before = door.rows()

    answers = [door.act(who, action, request_id) for _ in range(3)]

    assert {(one.status_code, one.json()["code"]) for one in answers} == {(status, code)}
    counted = rows(door.root, DECISIONS, id=request_id)
    assert sum(one.count for one in counted) == 3
    assert counted[0].facts == {"refused": action, "code": code, "channel": "api"}
    assert counted[0].person_id == door.world.people[who].person_id
    assert door.rows() == before


@pytest.mark.parametrize(
    ("who", "action", "body"), [("zoe", "approve", {}), ("erin", "cancel", {}), ("ann", "approve", {"made_up": 1})]
)
def test_what_is_unknown_not_a_decision_or_not_understood_is_not_noted(
    fresh_door: Door, open_door: Any, who: str, action: str, body: dict[str, Any]
) -> None:
    request_id = fresh_door.pending()
    elsewhere = open_door()
    fresh_door.world.tokens["zoe"] = elsewhere.world.tokens["ann"]
    if action == "cancel":
        fresh_door.act("erin", "cancel", request_id)

    fresh_door.act(who, action, request_id, **body)

    assert rows(fresh_door.root, DECISIONS, id=request_id) == []


def test_where_it_cannot_be_noted_the_answer_is_the_same(own_door: Door) -> None:
    request_id = own_door.pending()
    own_door.run_sql("ALTER TABLE refused RENAME TO gone")

    answer = own_door.act("erin", "approve", request_id)

    assert (answer.status_code, answer.json()["code"]) == (403, "own-request")


def test_a_decision_refused_on_a_page_is_noted(portal: Portal) -> None:
    request_id = portal.world.submit().id
    browser = portal.browser()
    browser.sign_in("erin")
    page = browser.get(f"/requests/{request_id}")

    browser.post(
        f"/requests/{request_id}/approve",
        {"version": "1", "csrf": page.form(f"/requests/{request_id}/cancel").fields["csrf"]},
    )

    (one,) = rows(portal.root, DECISIONS, id=request_id)
    assert one.facts == {"refused": "approve", "code": "own-request", "channel": "portal"}


def test_a_wrong_code_is_noted_with_the_account_as_a_personal_detail(portal: Portal) -> None:
    browser = portal.browser()
    browser.ask_for_code(portal.address("ann"))
    browser.code()

    page = browser.post("/sign-in/code", {"code": "0000 0000"})

    assert page.status == 401
    (one,) = rows(portal.root, SIGN_INS, account=portal.address("ann"))
    assert (one.facts, one.count) == ({"means": "mail", "code": "invalid-token"}, 1)
