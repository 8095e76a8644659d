"""Error pages for unknown and for forbidden addresses: they name the signed-in person, and link to a next page."""

import asyncio

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from api.middleware import PER_ADDRESS, HttpGuard
from tests.each import each
from tests.http.playground_world import here, playground
from tests.http.portal import HOME, OpenPortal, Portal, PortalPage

BELOW = {"/account#mails", "/docs"}
"""The links at the bottom of every page."""


def names(page: PortalPage, who: str) -> bool:
    """Return whether a page names the signed-in person and offers to sign out."""
    return f"{who} " in page.words and "/account" in page.read.links and "/sign-out" in page.text


def way_on(page: PortalPage) -> str:
    """Return the last link of the page, above those at the bottom of every page."""
    return [path for path in page.read.links if path not in BELOW][-1]


@each(
    ("who", "path", "status"),
    [
        ("ann", "/tenants/nope", 404),
        ("ann", "/tenants/Not-A-Slug", 422),
        ("ann", "/waiting?misspelt=yes", 422),
        ("ann", "/operations", 403),
        ("olga", "/audit-log", 403),
        ("erin", "/tenants/nope", 404),
    ],
)
def test_an_error_page_shows_the_signed_in_person(shared: Portal, who: str, path: str, status: int) -> None:
    page = shared.by_mail(who).get(path)

    assert page.status == status
    assert names(page, shared.world.people[who].name)


@each(
    ("who", "path"),
    [("ann", "/waiting"), ("max", "/review"), ("erin", "/ask"), ("olga", "/operations"), ("vera", "/audit-log")],
)
def test_the_link_on_an_error_page_leads_to_the_first_page_of_the_readers_menu(
    shared: Portal, who: str, path: str
) -> None:
    browser = shared.by_mail(who)

    page = browser.get("/tenants/nope")

    assert way_on(page) == path
    assert browser.get(path).status == 200


def test_the_error_page_of_a_refused_form_links_back_to_the_forms_page(shared: Portal) -> None:
    browser = shared.by_mail("ann")

    page = browser.post("/tenants/nope/policy/save", {"csrf": "", "text": "", "version": "1"})

    assert (page.status, way_on(page)) == (403, "/tenants/nope/policy")
    assert names(page, "Ann")


def test_the_error_page_of_an_anonymous_reader_links_to_the_start_page(shared: Portal) -> None:
    browser = shared.browser()

    page = browser.get("/static/nope.css")

    assert (page.status, way_on(page), "/sign-out" in page.text) == (404, "/", False)
    assert browser.get("/").path == "/sign-in"


def test_an_error_page_after_the_session_ended_names_no_person(shared: Portal) -> None:
    browser = shared.by_mail("ann")
    session = browser.session or ""
    browser.submit(browser.get("/account"), "/sign-out")
    browser.put("__Host-lockbox", session)

    page = browser.get("/static/nope.css")

    assert (page.status, "/sign-out" in page.text) == (404, False)


def test_an_error_page_in_the_playground_names_the_demo_user(
    open_portal: OpenPortal, tmp_path_factory: pytest.TempPathFactory
) -> None:
    playing = playground(open_portal(), tmp_path_factory.mktemp("playground"))
    browser = here(playing)
    browser.send("/play", {"who": "ann", "next": ""})

    page = browser.get("/tenants/nope")

    assert page.status == 404
    assert "You are playing Ann (approver)" in page.words


AS_BROWSERS = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@each("path", ["/nope", "/tenants/contoso/nope", "/requests/", "/v2/requests", "/%00"])
def test_an_unknown_address_is_an_error_page_for_browsers(shared: Portal, path: str) -> None:
    browser = shared.by_mail("ann")

    page = browser.get(path, headers={"accept": AS_BROWSERS})

    assert page.status == 404
    assert page.answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.answer.headers["content-security-policy"]
    assert "Page not found. Check the address." in page.words
    assert names(page, "Ann")
    assert way_on(page) == "/waiting"


def test_an_anonymous_browser_gets_an_error_page_for_an_unknown_address(shared: Portal) -> None:
    page = shared.browser().get("/nope", headers={"accept": AS_BROWSERS})

    assert (page.status, way_on(page)) == (404, "/")
    assert "script-src 'self'" in page.answer.headers["content-security-policy"]


@each(
    "accept",
    [
        None,
        "*/*",
        "application/json",
        "application/json, text/html",
        "text/html;q=0.5, application/problem+json",
        "text/html;q=0",
        "text/html;q=x",
        "text/html;q=nan",
        "",
        ";;,,q=1",
    ],
)
def test_an_unknown_address_is_a_json_problem_for_programs(shared: Portal, accept: str | None) -> None:
    answer = shared.by_mail("ann").call("GET", "/nope", headers={} if accept is None else {"accept": accept})

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(("path", "status"), [("/v1", 404), ("/v1/nope", 404), ("/v1/requests/nope", 422)])
def test_the_api_always_answers_in_json(shared: Portal, path: str, status: int) -> None:
    answer = shared.by_mail("ann").call("GET", path, headers={"accept": AS_BROWSERS})

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")


@pytest.mark.parametrize(
    ("who", "path", "says"),
    [
        ("aude", "/tenants/{slug}/emergency-stop", "This is for admins of this tenant."),
        ("max", "/tenants/{slug}", "This is for admins, approvers or auditors of this tenant."),
    ],
)
def test_an_error_page_names_required_roles_in_plain_words(shared: Portal, who: str, path: str, says: str) -> None:
    page = shared.by_mail(who).get(path.format(slug=shared.world.tenant.slug))

    assert (page.status, says in page.words) == (403, True)


AS_A_BROWSER = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8", "origin": HOME}


@pytest.mark.parametrize(
    ("kind", "size", "status", "title", "said"),
    [
        ("application/x-www-form-urlencoded", 64 * 1024 + 1, 413, "That is too large", "at most 65536 bytes"),
        (
            "application/x-www-form-urlencoded; charset=utf-7",
            1,
            415,
            "request is not valid",
            "Send forms in UTF-8",
        ),
    ],
)
def test_the_refusal_of_an_unread_form_is_a_page_for_browsers_and_json_for_programs(
    shared: Portal, *, kind: str, size: int, status: int, title: str, said: str
) -> None:
    browser = shared.by_mail("ann")
    headers = AS_A_BROWSER | {"content-type": kind}

    answer = browser.call("POST", "/account/passkeys/new", content=b"x" * size, headers=headers)
    plain = browser.call("POST", "/account/passkeys/new", content=b"x" * size, headers=headers | {"accept": "*/*"})
    below = browser.call("POST", "/v1/requests", content=b"x" * size, headers=headers)

    page = PortalPage(answer)
    assert (page.status, answer.headers["connection"]) == (status, "close")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"]
    assert title in page.words
    assert said in page.words
    assert "/account" in page.read.links
    assert {one.headers["content-type"] for one in (plain, below)} == {"application/problem+json"}


@pytest.mark.far
def test_an_overloaded_server_tells_browsers_when_to_try_again(shared: Portal) -> None:
    async def never(_: Scope, __: Receive, ___: Send) -> None:
        holding.release()
        await asyncio.Event().wait()

    holding = asyncio.Semaphore(0)
    crowded = HttpGuard(never, settings=shared.settings)

    async def called(accept: str) -> httpx.Response:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await crowded({**scope, "app": shared.app}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=HOME) as client:
            return await client.get("/requests", headers={"accept": accept})

    async def told() -> list[httpx.Response]:
        held = [asyncio.create_task(called("*/*")) for _ in range(PER_ADDRESS)]
        for _ in held:
            await holding.acquire()
        answers = await asyncio.gather(called(AS_A_BROWSER["accept"]), called("application/json"))
        for one in held:
            one.cancel()
        return list(answers)

    shown, plain = shared.runner.run(told())

    assert (shown.status_code, shown.headers["retry-after"]) == (503, "1")
    assert "The server is busy" in PortalPage(shown).words
    assert (plain.status_code, plain.json()["code"]) == (503, "busy")
