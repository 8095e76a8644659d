"""Refused decisions and sign-ins are recorded over HTTP, in a transaction of their own; the answer stays the same."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from harness.authenticator import Authenticator
from harness.clocks import ShiftedClock
from harness.people import SETTINGS as ORDINARY
from harness.stage import setting
from lockbox.audit import refusals_log
from lockbox.database import Database
from lockbox.identity import api_tokens, authentication
from lockbox.identity.api_tokens import TokenTerms
from lockbox.sql import new_id
from tests.http.door import Door
from tests.http.portal import SETTINGS, OpenPortal, Portal
from tests.http.test_sign_in_passkeys import add, use

DECISIONS = "SELECT facts, personal, count, person_id FROM refused WHERE request_id = :id"
OF_PERSON = "SELECT facts, personal, count FROM refused WHERE person_id = :id AND request_id IS NULL"
EACH_MINUTE = "SELECT minute, count FROM refused WHERE person_id = :id AND request_id IS NULL"
SIGN_INS = "SELECT facts, personal, count FROM refused WHERE personal ->> 'account' = :account"


def rows(root: Engine, query: str, **values: Any) -> list[Any]:
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
def test_a_refused_decision_is_counted_and_nothing_else_is_written(
    door: Door, who: str, action: str, status: int, code: str
) -> None:
    request_id = door.pending()
    before = door.rows()

    answers = [door.act(who, action, request_id) for _ in range(3)]

    assert {(answer.status_code, answer.json()["code"]) for answer in answers} == {(status, code)}
    counted = rows(door.root, DECISIONS, id=request_id)
    assert sum(one.count for one in counted) == 3
    assert counted[0].facts == {"refused": action, "code": code, "channel": "api"}
    assert counted[0].person_id == door.world.people[who].person_id
    assert door.rows() == before


@pytest.mark.parametrize(
    ("who", "action", "body"), [("zoe", "approve", {}), ("erin", "cancel", {}), ("ann", "approve", {"made_up": 1})]
)
def test_refusals_of_unknown_requests_and_invalid_calls_are_not_counted(
    fresh_door: Door, open_door: Any, who: str, action: str, body: dict[str, Any]
) -> None:
    request_id = fresh_door.pending()
    elsewhere = open_door()
    fresh_door.world.tokens["zoe"] = elsewhere.world.tokens["ann"]
    if action == "cancel":
        fresh_door.act("erin", "cancel", request_id)

    fresh_door.act(who, action, request_id, **body)

    assert rows(fresh_door.root, DECISIONS, id=request_id) == []


def test_a_refusal_that_cannot_be_counted_gets_the_same_answer(own_door: Door) -> None:
    request_id = own_door.pending()
    own_door.run_sql("ALTER TABLE refused RENAME TO gone")

    answer = own_door.act("erin", "approve", request_id)

    assert (answer.status_code, answer.json()["code"]) == (403, "own-request")


@pytest.mark.far
def test_a_decision_refused_on_a_page_is_counted(portal: Portal) -> None:
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


def test_after_a_wrong_sign_in_code_the_account_is_recorded_as_a_personal_value(portal: Portal) -> None:
    browser = portal.browser()
    browser.ask_for_code(portal.address("ann"))
    browser.code()

    page = browser.post("/sign-in/code", {"code": "0000 0000"})

    assert page.status == 401
    (one,) = rows(portal.root, SIGN_INS, account=portal.address("ann"))
    assert (one.facts, one.count) == ({"means": "mail", "code": "invalid-token"}, 1)


def shown(door: Door, token: str) -> int:
    """Call the API with a token; return the status."""
    return door.call(None, "GET", "/v1/me", headers={"authorization": f"Bearer {token}"}).status_code


def refusable(door: Door, how: str) -> str:
    good, ann = door.world.tokens["ann"], door.world.people["ann"]
    token_id, _ = authentication.read_token(good, "test")
    if how == "guessed":
        return api_tokens.written("test", token_id, "A" * 43)
    with setting(door.db).transaction() as session:
        lifetime = timedelta(seconds=-1 if how == "expired" else 60)
        terms = TokenTerms(environment=ORDINARY.environment, lifetime=lifetime)
        made = api_tokens.issue(session, ann.person_id, terms)
        if how == "revoked":
            api_tokens.revoke(session, ann, made.token.id)
    return made.text


@pytest.mark.parametrize("how", ["guessed", "expired", "revoked"])
def test_a_refused_token_is_counted_for_its_account(fresh_door: Door, how: str) -> None:
    token = refusable(fresh_door, how)
    before = fresh_door.rows()

    assert [shown(fresh_door, token) for _ in range(3)] == [401] * 3

    counted = rows(fresh_door.root, OF_PERSON, id=fresh_door.world.people["ann"].person_id)
    assert sum(one.count for one in counted) == 3
    assert counted[0].facts == {"means": "token", "code": "invalid-token"}
    assert fresh_door.rows() == before


def test_an_unknown_token_is_not_counted_as_a_refusal(fresh_door: Door) -> None:
    before = rows(fresh_door.root, "SELECT key FROM refused")

    for _ in range(3):
        assert shown(fresh_door, api_tokens.written("test", new_id(), "A" * 43)) == 401
    assert shown(fresh_door, "lbx_test_nonsense") == 401

    assert rows(fresh_door.root, "SELECT key FROM refused") == before


def test_a_refused_token_is_recorded_at_the_tenant_of_its_person(fresh_door: Door, worker: Database) -> None:
    world = fresh_door.world
    shown(fresh_door, refusable(fresh_door, "guessed"))
    later = ShiftedClock()
    later.shift = timedelta(minutes=2, seconds=1)

    refusals_log.record_finished_minutes(Database(worker.engine, worker.schedule, later))

    query = "SELECT tenant_id, body FROM events WHERE action = 'sign_in_refused' AND tenant_id = :tenant"
    (told,) = rows(fresh_door.root, query, tenant=world.tenant.id)
    assert str(world.people["ann"].person_id).encode() in bytes(told.body)


def test_a_refused_passkey_sign_in_is_counted_for_its_account(portal: Portal) -> None:
    authenticator, browser = Authenticator(), portal.browser()
    browser.enter("ann")
    add(browser, authenticator)

    assert use(portal.browser(), authenticator, signature=b"forged").status == 401

    (one,) = rows(portal.root, OF_PERSON, id=portal.world.people["ann"].person_id)
    assert (one.facts, one.count) == ({"means": "passkey", "code": "invalid-token"}, 1)


def test_refusals_of_invented_accounts_are_counted_by_network(open_portal: OpenPortal, root: Engine) -> None:
    portal = open_portal(settings=SETTINGS.model_copy(update={"sign_ins_per_address": 3}))
    before = {row.key for row in rows(root, "SELECT key FROM refused")}
    browser = portal.browser()

    statuses = [browser.ask_for_code(f"nobody-{number}@made-up.example").status for number in range(40)]

    assert statuses == [200] * 3 + [429] * 37
    found = [row for row in rows(root, "SELECT key, count, minute FROM refused") if row.key not in before]
    assert sum(row.count for row in found) == 37
    assert len(found) == len({row.minute for row in found})
    assert rows(root, SIGN_INS, account="nobody-39@made-up.example") == []


def test_an_account_has_at_most_one_refusal_event_per_minute(fresh_door: Door) -> None:
    for how in ("guessed", "expired", "revoked"):
        shown(fresh_door, refusable(fresh_door, how))

    counted = rows(fresh_door.root, EACH_MINUTE, id=fresh_door.world.people["ann"].person_id)
    assert len(counted) == len({one.minute for one in counted})
    assert sum(one.count for one in counted) == 3


def test_too_many_sign_in_attempts_are_counted_for_the_typed_account(open_portal: OpenPortal) -> None:
    portal = open_portal(settings=SETTINGS.model_copy(update={"sign_ins_per_account": 1}))

    statuses = [portal.browser().ask_for_code(portal.address("ann")).status for _ in range(2)]

    (one,) = rows(portal.root, SIGN_INS, account=portal.address("ann"))
    assert statuses == [200, 429]
    assert (one.facts, one.count) == ({"means": "any", "code": "too-many"}, 1)
