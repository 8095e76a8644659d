"""Browser sessions: a new id at every sign-in, ended when idle or old, void once revoked, and of one person only."""

from typing import Any

import pytest
from redis import Redis

from harness.stage import Urls
from lockbox.identity import sessions
from tests.http.door import facts
from tests.http.portal import HOME, SESSION, Browser, Portal

CSRF = "x-csrf-token"


def is_in(browser: Browser) -> bool:
    page = browser.get("/account")
    assert (page.status, page.path) in {(200, "/account"), (200, "/sign-in")}
    return page.path == "/account"


def signed_in(portal: Portal, name: str = "ann", **facts_: Any) -> Browser:
    browser = portal.browser(**facts_)
    browser.sign_in(name)
    return browser


def own_csrf(browser: Browser) -> str:
    return browser.get("/account").form("/sign-out").fields["csrf"]


def test_every_sign_in_starts_a_new_session_and_ends_the_previous_session(portal: Portal) -> None:
    browser = signed_in(portal)
    first = browser.session
    browser.sign_in("ann")
    second = browser.session
    assert first
    browser.put(SESSION, first)

    assert first != second
    assert not is_in(browser)


def test_a_session_cookie_planted_before_sign_in_is_not_adopted(portal: Portal) -> None:
    thief, victim = signed_in(portal, "amir"), portal.browser()
    planted = thief.session
    assert planted
    victim.put(SESSION, planted)

    victim.sign_in("ann")

    assert victim.session != planted
    assert not is_in(thief)
    assert "Ann" in victim.get("/account").words


def test_an_invented_session_cookie_is_refused(portal: Portal) -> None:
    browser = portal.browser()
    for value in ("A" * 43, "", "x", "'; --"):
        browser.put(SESSION, value)
        assert not is_in(browser)


def test_a_session_ends_after_thirty_idle_minutes(portal: Portal) -> None:
    browser = signed_in(portal)

    portal.wait(minutes=29)
    assert is_in(browser)
    portal.wait(minutes=29)
    assert is_in(browser)
    portal.wait(minutes=30)
    assert not is_in(browser)


def test_a_session_ends_after_twelve_hours_of_use(portal: Portal) -> None:
    browser = signed_in(portal)
    for _ in range(28):
        portal.wait(minutes=25)
        assert is_in(browser)

    portal.wait(minutes=20)

    assert not is_in(browser)


def test_session_activity_is_written_at_most_once_a_minute(portal: Portal) -> None:
    browser = signed_in(portal)
    seen = "SELECT last_seen_at FROM sessions WHERE person_id = :p AND revoked_at IS NULL"
    person = {"p": portal.world.people["ann"].person_id}
    first = portal.sql(seen, **person)

    portal.wait(seconds=50)
    is_in(browser)
    at_once = portal.sql(seen, **person)
    portal.wait(seconds=20)
    is_in(browser)

    assert at_once == first
    assert portal.sql(seen, **person) > first


def test_signing_out_ends_the_session_on_the_server(portal: Portal) -> None:
    browser = signed_in(portal)
    old = browser.session
    assert old

    page = browser.submit(browser.get("/account"), "/sign-out")
    forgotten = browser.session
    browser.put(SESSION, old)

    assert page.path == "/sign-in"
    assert forgotten is None
    assert not is_in(browser)


def test_a_person_lists_and_ends_their_sessions(portal: Portal) -> None:
    here, there = signed_in(portal, agent="Hereweasel 1"), signed_in(portal, agent="Therefox 2")
    other = signed_in(portal, "amir", agent="Otherbear 3")
    page = here.get("/account")
    theirs = portal.sql("SELECT id FROM sessions WHERE user_agent = 'Therefox 2' AND revoked_at IS NULL")[0].id

    ended = here.submit_first(page, "/account/sessions/end", id=str(theirs))

    assert "Hereweasel 1" in page.words
    assert "Therefox 2" in page.words
    assert "Otherbear" not in page.words
    assert there.address in page.words
    assert ended.status == 200
    assert "Therefox" not in ended.words
    assert not is_in(there)
    assert is_in(here)
    assert is_in(other)


def test_sessions_of_other_people_cannot_be_ended(portal: Portal) -> None:
    ann, amir = signed_in(portal), signed_in(portal, "amir")
    theirs = portal.sql("SELECT id FROM sessions WHERE person_id = :p", p=portal.world.people["amir"].person_id)[0].id

    page = ann.submit_first(ann.get("/account"), "/account/sessions/end", id=str(theirs))

    assert page.status == 404
    assert is_in(amir)


def test_disabling_a_person_ends_their_session(portal: Portal) -> None:
    browser = signed_in(portal)

    portal.sql("UPDATE people SET disabled_at = now() WHERE id = :p", p=portal.world.people["ann"].person_id)

    assert not is_in(browser)


def test_flushing_redis_signs_no_one_in_or_out(portal: Portal, urls: Urls) -> None:
    browser, stranger = signed_in(portal), portal.browser()
    stranger.ask_for_code(portal.address("amir"))
    code = stranger.code()

    with Redis.from_url(urls.redis) as redis:
        redis.flushdb()

    assert is_in(browser)
    assert not is_in(stranger)
    stranger.post("/sign-in/code", {"code": code})
    assert is_in(stranger)


def test_sign_in_changes_are_tenant_events_without_secrets(portal: Portal) -> None:
    browser = signed_in(portal)
    browser.submit_first(browser.get("/account"), "/account/sessions/end")

    rows = portal.sql(
        "SELECT action, tenant_id, convert_from(body, 'UTF8') AS body FROM events WHERE actor_id = :p ORDER BY id",
        p=portal.world.people["ann"].person_id,
    )

    assert [row.action for row in rows] == ["signed_in", "session_revoked"]
    assert {row.tenant_id for row in rows} == {portal.world.tenant.id}
    for row in rows:
        assert '"means":"mail"' in row.body
        assert portal.address("ann") not in row.body
        assert browser.address not in row.body


@pytest.mark.parametrize("name", ["max", "erin", "olga"])
def test_vendor_sign_ins_are_in_the_vendors_log(portal: Portal, name: str) -> None:
    browser = signed_in(portal, name)

    rows = portal.sql("SELECT tenant_id FROM events WHERE actor_id = :p", p=portal.world.people[name].person_id)

    assert is_in(browser)
    assert [row.tenant_id for row in rows] == [None]


def test_a_session_can_read_the_api(portal: Portal) -> None:
    request_id = portal.world.submit().id
    browser = signed_in(portal)

    assert browser.call("GET", f"/v1/requests/{request_id}").json()["id"] == str(request_id)


def test_a_session_writes_to_the_api_only_with_its_form_token_and_from_lockbox_pages(portal: Portal) -> None:
    path = f"/v1/requests/{portal.world.submit().id}/deny"
    browser, other = signed_in(portal), signed_in(portal, "amir")
    ours = {"origin": HOME, "sec-fetch-site": "same-origin", CSRF: own_csrf(browser)}
    before = portal.count()

    for change in (
        {CSRF: ""},
        {CSRF: "x"},
        {CSRF: own_csrf(other)},
        {CSRF: ours[CSRF][:-1]},
        {"origin": "https://evil.test"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"origin": "null", "sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        facts(browser.call("POST", path, headers=ours | change), 403, "cross-site")
    facts(browser.call("POST", path, headers={CSRF: ours[CSRF]}), 403, "cross-site")
    assert portal.count() == before

    denied = browser.call("POST", path, headers=ours, json={"comment": "No"})
    assert denied.json()["state"] == "denied"


def test_a_bearer_token_sent_with_a_session_cookie_decides_the_identity(portal: Portal) -> None:
    path = f"/v1/requests/{portal.world.submit().id}"
    browser = signed_in(portal)
    world = portal.world

    cancelled = browser.call("POST", f"{path}/cancel", headers={"authorization": f"Bearer {world.tokens['erin']}"})
    bad = browser.call("GET", path, headers={"authorization": "Bearer nonsense"})
    empty = browser.call("GET", path, headers={"authorization": ""})

    assert cancelled.json()["state"] == "cancelled"
    facts(bad, 401, "invalid-token")
    facts(empty, 401, "invalid-token")


def test_a_form_token_is_worthless_without_the_session_it_belongs_to(portal: Portal) -> None:
    browser = signed_in(portal)

    token = own_csrf(browser)

    assert browser.session
    assert sessions.is_csrf(browser.session, token)
    assert token not in browser.session
    assert not sessions.is_csrf(browser.session, token + "\u00e9")
