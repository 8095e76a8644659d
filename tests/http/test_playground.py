"""The playground: any demo user at a click, only on the machine itself, and never in production."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.routing import iter_route_contexts

from api.app import make_app
from catalogue.unsafe_settings import UnsafeSettings
from lockbox.facts.enumerations import AuthMethod
from lockbox.identity.roles import Role
from tests.each import each
from tests.http.playground_world import HERE, HOME, PARTS, here, playground
from tests.http.portal import SETTINGS, Browser, OpenPortal, Portal

PLACES = ("/play", "/inbox", "/inbox/0123456789abcdef", "/inbox/0123456789abcdef/page")
SESSIONS = "SELECT person_id, means, revoked_at IS NULL AS good FROM sessions WHERE person_id = ANY(:ids) ORDER BY id"


@pytest.fixture(scope="module")
def playing(open_portal: OpenPortal, tmp_path_factory: pytest.TempPathFactory) -> Portal:
    return playground(open_portal(), tmp_path_factory.mktemp("playground"))


def be(browser: Browser, who: str, path: str = "") -> "str":
    """Switch to a demo user, and return where that leads."""
    answer = browser.send("/play", {"who": who, "next": path})
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def test_the_playground_shows_all_demo_users_and_what_to_do_first(playing: Portal) -> None:
    page = here(playing).get("/play")

    assert page.status == 200
    assert {form.fields["who"] for form in page.read.forms} == set(PARTS) - {"gate"}
    assert [form.fields.get("next") for form in page.read.forms][:5] == [
        "/ask",
        "/review",
        "/waiting",
        "/open",
        "/operations",
    ]
    assert f"/inbox?to={playing.address('ann')}" in page.read.links
    assert "Be Erin, and request access" in page.words
    assert "Nobody is signed in" in page.words


def test_a_playground_click_starts_a_session_named_on_every_page(playing: Portal) -> None:
    browser = here(playing)

    assert be(browser, "olga", "/operations") == "/operations"
    page = browser.get("/operations")

    assert page.status == 200
    assert "You are playing Olga (operator)" in page.words
    assert {"/play", "/inbox"} <= set(page.read.links)
    (row,) = playing.sql(SESSIONS, ids=[playing.world.people["olga"].person_id])
    assert (row.means, row.good) == ("sample", True)


def test_the_next_playground_click_ends_the_previous_session(playing: Portal) -> None:
    browser = here(playing)
    people = [playing.world.people[name].person_id for name in ("amir", "aude")]
    be(browser, "amir")
    before = browser.client.cookies.get("lockbox")

    be(browser, "aude")

    assert [(row.person_id, row.good) for row in playing.sql(SESSIONS, ids=people)] == [
        (people[0], False),
        (people[1], True),
    ]
    assert browser.client.cookies.get("lockbox") not in {before, None}
    assert "You are playing Aude (auditor)" in browser.get("/account").words


def test_a_playground_approver_can_decide_without_a_fresh_sign_in(playing: Portal) -> None:
    request = playing.world.submit()
    browser = here(playing)
    be(browser, "ann")
    playing.wait(minutes=20)

    page = browser.submit(browser.get(f"/requests/{request.id}"), "/approve")
    playing.wait(minutes=-20)

    assert page.status == 200
    assert playing.sql("SELECT state FROM requests WHERE id = :id", id=request.id)[0].state == "active"


def test_a_playground_engineer_can_submit_a_request_without_a_token(playing: Portal) -> None:
    browser = here(playing)
    be(browser, "erin")
    csrf = browser.get("/account").form("/sign-out").fields["csrf"]
    body = {
        "tenant": playing.world.tenant.slug,
        "service": "exchange-online",
        "resources": ["mailbox:anna@contoso.example"],
        "actions": ["read"],
        "reason_code": "support_case",
        "justification": "Mails bounce.",
        "case_ref": "CASE-PLAYED",
        "access_window": 600,
    }

    answer = browser.call("POST", "/v1/requests", json=body, headers={"origin": HOME, "x-csrf-token": csrf})

    assert answer.status_code == 201, answer.text
    assert playing.sql("SELECT token_id FROM requests WHERE id = :id", id=answer.json()["id"])[0].token_id is None


@pytest.mark.parametrize(
    "path", ["https://evil.example", "//evil.example", "/sign-in", "javascript:alert(1)", "/a b"]
)
def test_a_playground_click_redirects_only_to_lockbox_pages(playing: Portal, path: str) -> None:
    assert be(here(playing), "ann", path) == "/"


@pytest.mark.parametrize("who", ["", "gate", "eve", "root", "\x00", "x" * 41])
def test_a_playground_visitor_can_act_only_as_a_demo_user(playing: Portal, who: str) -> None:
    browser = here(playing)

    answer = browser.send("/play", {"who": who})

    assert answer.status_code in {404, 422}
    assert browser.client.cookies.get("lockbox") is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:8001"},
        {"origin": "null"},
        {"origin": HOME, "sec-fetch-site": "cross-site"},
        {"origin": HOME, "sec-fetch-site": "same-site"},
    ],
)
def test_the_page_of_another_site_cannot_switch_playground_users(playing: Portal, headers: dict[str, str]) -> None:
    browser = here(playing)

    answer = browser.send("/play", {"who": "olga"}, headers)

    assert answer.status_code == 403
    assert browser.client.cookies.get("lockbox") is None


@each("path", PLACES)
@each("address", ["10.0.0.5", "203.0.113.7", "::ffff:203.0.113.7", "2001:db8::1", "somewhere"])
def test_a_call_to_the_playground_from_another_machine_is_refused(playing: Portal, path: str, address: str) -> None:
    assert "You do not have access to this" in playing.browser(address=address).get(path).words


@pytest.mark.parametrize("host", ["lockbox.example", "localhost.evil.example", "192.168.0.7:8000", "", "[", "evil@x"])
def test_a_call_to_the_playground_under_another_host_name_is_refused(playing: Portal, host: str) -> None:
    browser = here(playing)
    ours = {"origin": HOME, "sec-fetch-site": "same-origin", "host": host}

    assert [browser.call("GET", path, headers={"host": host}).status_code for path in PLACES] == [403] * 4
    assert browser.send("/play", {"who": "olga"}, ours).status_code == 403


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_a_call_to_the_playground_through_a_local_proxy_is_refused(playing: Portal, header: str) -> None:
    browser = here(playing)

    assert [browser.call("GET", path, headers={header: HERE}).status_code for path in PLACES] == [403] * 4


def test_the_playground_opened_by_ip_address_redirects_to_the_name_its_forms_use(playing: Portal) -> None:
    answer = here(playing).call("GET", "/play", headers={"host": "127.0.0.1:8000"})

    assert (answer.status_code, answer.headers["location"]) == (303, f"{HOME}/play")


def test_the_playground_says_to_restart_once_the_demo_tokens_expired(playing: Portal) -> None:
    browser = here(playing)
    playing.wait(hours=2)

    answer = browser.send("/play", {"who": "tara"})
    playing.wait(hours=-2)

    assert answer.status_code == 422
    assert "start it again" in answer.text


def test_the_playground_is_off_by_default(portal: Portal) -> None:
    browser = portal.browser(address=HERE)
    browser.enter("ann")

    assert [browser.call("GET", path).status_code for path in PLACES] == [404] * 4
    assert "playing" not in browser.get("/requests").text
    assert _paths(portal) == set()


def test_production_never_serves_the_playground(playing: Portal) -> None:
    settings = playing.settings.model_copy(update={"environment": "production"})
    production = replace(playing, settings=settings)

    assert _paths(production) == set()
    assert getattr(production.app.state, "playground", None) is None


def test_production_refuses_demo_sessions(portal: Portal) -> None:
    production = replace(portal, settings=SETTINGS.model_copy(update={"environment": "production"}))
    browsers = {means: production.browser() for means in (AuthMethod.SAMPLE, AuthMethod.PASSKEY)}
    for means, browser in browsers.items():
        browser.enter("ann", means)

    assert browsers[AuthMethod.PASSKEY].get("/account").path == "/account"
    assert browsers[AuthMethod.SAMPLE].get("/account").path == "/sign-in"


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"people": []}', "\udcff"])
def test_the_app_does_not_start_with_a_missing_or_invalid_playground_file(
    playing: Portal, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "playground.json"
    if content is not None:
        file.write_text(content, encoding="utf-8", errors="surrogateescape")
    settings = playing.settings.model_copy(update={"playground": file})

    with pytest.raises(UnsafeSettings, match="LOCKBOX_PLAYGROUND"):
        make_app(settings, playing.db)


def test_demo_tokens_appear_in_no_page(playing: Portal) -> None:
    browser = here(playing)
    pages = [browser.get("/play").text, browser.get("/inbox").text, repr(playing.app.state.playground)]

    assert not [page for page, token in itertools.product(pages, playing.world.tokens.values()) if token in page]
    assert playing.app.state.playground.find("vera").role is Role.VENDOR_AUDITOR


def _paths(portal: Portal) -> set[str]:
    paths = {route.path for route in iter_route_contexts(portal.app.routes) if route.path}
    return {path for path in paths if path.startswith(("/play", "/inbox"))}
