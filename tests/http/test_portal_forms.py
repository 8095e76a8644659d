"""Forms of the pages: only from a page of this very session, only by POST, and nowhere but to paths of ours."""

from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from fastapi.routing import iter_route_contexts

from lockbox.facts.enumerations import AuthMethod
from lockbox.notifications import request_mail
from lockbox.requests.policy_rules import Policy
from tests.each import each
from tests.http.portal import HOME, SETTINGS, Browser, OpenPortal, Portal, PortalPage, crawl

NOWHERE = UUID("01a20e89-0294-736c-b49a-5a0327678385")
WHOSE_FORMS = {
    "tara": ("/tenants", "/audit-log"),
    "erin": ("/ask", "/mine"),
    "max": ("/review",),
    "olga": ("/exclusions", "/data"),
}
OF_ONES_OWN = f"/mine/{NOWHERE}/deny", f"/mine/{NOWHERE}/cancel"
NOT_THERE = {"/account/identities/new"}
BEFORE_SIGN_IN = {
    *("/sign-in", "/sign-in/code", "/sign-in/passkey", "/sign-in/passkey/answer"),
    f"/invitations/{NOWHERE}",
}
FIELDS = {
    "version": "1",
    "id": str(NOWHERE),
    "number": "0",
    "issuer": "x",
    "subject": "x",
    "slug": "contoso",
    "said": "allow",
    "key": "k" * 22,
    "delivery": str(NOWHERE),
}
OUR_SCRIPTS = ["/static/htmx-4.0.1.min.js", "/static/portal.js"]
OURS = {"origin": HOME, "sec-fetch-site": "same-origin"}
FOREIGN = [
    {"origin": "https://evil.test", "sec-fetch-site": "cross-site"},
    {"origin": "https://evil.test"},
    {"origin": "null"},
    {"origin": "null", "sec-fetch-site": "cross-site"},
    {"origin": HOME, "sec-fetch-site": "cross-site"},
    {"origin": HOME, "sec-fetch-site": "same-site"},
    {"origin": HOME, "sec-fetch-site": "none"},
    {"origin": HOME.replace("https", "http"), "sec-fetch-site": "same-origin"},
    {"origin": f"{HOME}:8443", "sec-fetch-site": "same-origin"},
    {"origin": f"{HOME}.evil.test", "sec-fetch-site": "same-origin"},
    {"sec-fetch-site": "cross-site"},
    {},
]


@pytest.fixture(scope="module")
def lenient(open_portal: OpenPortal) -> Portal:
    return open_portal(Policy(vendor_review=False, mail_suffices=True))


@pytest.fixture
def ann(lenient: Portal) -> Browser:
    return lenient.by_mail("ann")


def pages_of(portal: Portal) -> list[tuple[str, str]]:
    found = []
    for route in iter_route_contexts(portal.app.routes):
        if "pages" in (getattr(route, "tags", None) or ()):
            path = str(route.path).format(
                request_id=NOWHERE,
                invitation_id=NOWHERE,
                action="deny",
                number=0,
                slug=portal.world.tenant.slug,
                endpoint_id=NOWHERE,
                person_id=NOWHERE,
                pre_approval_id=NOWHERE,
                question_id=NOWHERE,
                name="portal.css",
                service="exchange-online",
                section="requests",
                schema="RequestView",
            )
            found += [(method, path) for method in route.methods or ()]
    return found


@pytest.mark.far
def test_every_portal_form_posted_from_another_site_is_refused(lenient: Portal, ann: Browser) -> None:
    csrf = ann.get("/account").form("/sign-out").fields["csrf"]
    posts = [path for method, path in pages_of(lenient) if method == "POST"]
    before = lenient.count()

    # Each form from three of these places, and each of them with many forms: one rule refuses them all.
    for number, path in enumerate(posts):
        fields = lenient.filled(path, FIELDS | {"csrf": csrf})
        for headers in (FOREIGN[(number + step) % len(FOREIGN)] for step in (0, 4, 8)):
            answer = ann.send(path, fields, headers)
            assert answer.status_code == 403, (path, headers)
            assert "did not come from a page of this Lockbox" in answer.text

    assert len(posts) >= 12
    assert lenient.count() == before
    assert "Ann" in ann.get("/account").words


def test_a_portal_form_without_its_form_token_changes_nothing(lenient: Portal, ann: Browser) -> None:
    request = str(lenient.world.fresh().id)
    posts = {path for method, path in pages_of(lenient) if method == "POST"} - BEFORE_SIGN_IN
    browsers = {place: lenient.by_passkey(who) for who, places in WHOSE_FORMS.items() for place in places}
    before, answers = lenient.count(), {}

    for path in [path.replace(*OF_ONES_OWN).replace(str(NOWHERE), request) for path in sorted(posts)]:
        browser = next((one for place, one in browsers.items() if path.startswith(place)), ann)
        answers[path] = browser.post(path, lenient.filled(path, FIELDS)).status

    # What does not exist at all is said first.
    assert {path: status for path, status in answers.items() if status != 403} == dict.fromkeys(NOT_THERE, 404)
    assert lenient.count() == before
    assert "Ann" in ann.get("/account").words


def test_a_lockbox_form_without_fetch_metadata_headers_is_accepted(lenient: Portal, ann: Browser) -> None:
    page = ann.get(f"/requests/{lenient.world.fresh().id}")
    form = page.form("/approve")

    by_origin = ann.send(form.action, form.filled, {"origin": HOME})
    page = ann.get(f"/requests/{lenient.world.fresh().id}")
    by_site = ann.send(page.form("/approve").action, page.form("/approve").filled, {"sec-fetch-site": "same-origin"})
    form = ann.get(f"/requests/{lenient.world.fresh().id}").form("/approve")
    without_referrer = ann.send(form.action, form.filled, {"origin": "null", "sec-fetch-site": "same-origin"})

    assert (by_origin.status_code, by_site.status_code, without_referrer.status_code) == (200, 200, 200)


def test_a_form_sent_after_the_session_ended_changes_nothing_and_the_answer_says_so(
    lenient: Portal, ann: Browser
) -> None:
    request = lenient.world.fresh()
    page = ann.get(f"/requests/{request.id}")
    lenient.sql(
        "UPDATE sessions SET revoked_at = now() WHERE person_id = :p", p=lenient.world.people["ann"].person_id
    )

    answer = ann.submit(page, "/approve")

    assert (answer.status, answer.path) == (200, "/sign-in")
    assert "You were signed out, and nothing was changed" in answer.words
    assert f"/requests/{request.id}" in answer.form("/sign-in").fields["next"]
    assert lenient.sql("SELECT state FROM requests WHERE id = :r", r=request.id)[0].state == "pending"


@pytest.mark.far
@pytest.mark.parametrize("means", [pytest.param(AuthMethod.MAIL, marks=pytest.mark.far), AuthMethod.PASSKEY])
def test_following_links_on_pages_never_changes_anything(lenient: Portal, means: AuthMethod) -> None:
    request = lenient.world.fresh()
    browser = lenient.entered("ann", means)
    links = [
        request_mail.portal_address("", request.id),
        "/sign-in",
        f"/invitations/{NOWHERE}",
        "/requests",
        "/account",
    ]
    before, states = lenient.count(), lenient.states()

    seen: list[PortalPage] = []
    # The API's reference, hundreds of pages, asks the database nothing: once is enough.
    for left_out in ("none", "/docs/"):
        seen += crawl(browser, *links, but=left_out)
    for method, path in pages_of(lenient):
        for wrong in ("GET", "HEAD", "OPTIONS") if method == "POST" else ("HEAD", "OPTIONS"):
            headers = {"sec-purpose": "prefetch"}
            seen.append(PortalPage(browser.call(wrong, path.replace(str(NOWHERE), str(request.id)), headers=headers)))

    assert len(seen) > 40
    assert lenient.count() == before
    assert lenient.states() == states
    assert all(page.status < 500 for page in seen)


@each(
    "path",
    [
        "https://evil.test",
        "//evil.test",
        "/\\evil.test",
        "\\\\evil.test",
        "/%2f/evil.test",
        "/requests//evil.test",
        "javascript:alert(1)",
        "/\tevil",
        "/requests\r\nLocation: https://evil.test",
        "/requests?x=https://evil.test",
        "/requests#x",
        "/sign-in/oidc/0",
        "requests",
        "",
        "/" + "a" * 200,
        "/requests/../../x",
    ],
)
def test_a_sign_in_redirects_to_lockbox_paths_only(lenient: Portal, path: str) -> None:
    browser = lenient.browser()
    shown = browser.get(f"/sign-in?next={quote(path, safe='')}")
    fields = shown.form("/sign-in").fields | {"address": lenient.address("ann"), "next": path}
    browser.post("/sign-in", fields)

    answer = browser.send("/sign-in/code", {"code": browser.code()})

    to = "/requests" if path.startswith("/requests?") else "/"
    assert shown.form("/sign-in").fields["next"] == to
    assert (answer.status_code, answer.headers["location"]) == (303, to)


@pytest.mark.far
@each(
    ("path", "to"),
    [
        ("/requests?state=denied&text=anna%40contoso.example", "/requests?state=denied&text=anna%40contoso.example"),
        ("/audit-log/checkpoint?tenant=contoso", "/audit-log/checkpoint?tenant=contoso"),
        ("/requests.csv?state=denied", "/requests"),
        ("/audit-log/export?format=csv", "/audit-log"),
        ("/requests?text=" + "a" * 296, "/requests"),
        ("/requests?text=%0d%0aLocation:+x", "/requests?text=%0d%0aLocation:+x"),
        ("/requests?text=https://evil.test", "/requests"),
        ("/requests?text=%2F%2Fevil.test", "/requests?text=%2F%2Fevil.test"),
    ],
)
def test_after_signing_in_a_person_reaches_the_requested_page(lenient: Portal, path: str, to: str) -> None:
    browser = lenient.browser()
    asked = browser.call("GET", path)
    shown = browser.get(asked.headers["location"])
    browser.post("/sign-in", shown.form("/sign-in").fields | {"address": lenient.address("ann")})

    answer = browser.send("/sign-in/code", {"code": browser.code()})

    assert (answer.status_code, answer.headers["location"]) == (303, to)


def test_a_sign_in_with_a_changed_cookie_redirects_to_no_other_site(lenient: Portal) -> None:
    browser = lenient.browser()
    browser.ask_for_code(lenient.address("ann"))
    code = browser.code()
    value = browser.client.cookies["__Host-lockbox-begun"].rpartition(".")[0]
    browser.put("__Host-lockbox-begun", f"{value}.Ly9ldmlsLnRlc3Q")

    answer = browser.send("/sign-in/code", {"code": code})

    assert answer.headers["location"] == "/"


def test_portal_pages_work_with_screen_readers_and_without_scripts(lenient: Portal, ann: Browser) -> None:
    request = lenient.world.fresh()
    stranger = lenient.browser()

    for page in (
        ann.get(f"/requests/{request.id}"),
        ann.get("/account"),
        ann.get("/requests"),
        stranger.get("/sign-in"),
        stranger.ask_for_code("nobody@contoso.example"),
        stranger.get(f"/invitations/{NOWHERE}"),
        stranger.get("/requests/x"),
    ):
        read = page.read
        assert read.lang == "en"
        of_its_own = ["/static/invitation.js"] if page.path.startswith("/invitations/") else []
        assert read.scripts == OUR_SCRIPTS + of_its_own
        assert set(read.named) <= read.labels, page.path
        assert page.text.count("<h1") == 1
        assert "<title>" in page.text
        assert 'name="viewport"' in page.text


def test_every_portal_page_has_the_security_headers(lenient: Portal, ann: Browser) -> None:
    request = lenient.world.fresh()
    calls: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", f"/requests/{request.id}", {}),
        ("GET", "/requests/x", {}),
        ("GET", "/account", {}),
        ("GET", "/sign-in", {}),
        ("POST", "/sign-in", {"data": {"address": "x"}, "headers": OURS}),
        ("POST", "/sign-in", {"data": {"address": "nobody@contoso.example"}, "headers": OURS}),
        ("POST", "/sign-in", {}),
        ("POST", "/sign-out", {"headers": OURS}),
        ("POST", f"/requests/{request.id}/deny", {"headers": OURS}),
        ("POST", "/requests/x/made-up", {"headers": OURS}),
        ("DELETE", "/account", {}),
        ("GET", "/static/portal.css", {}),
        ("GET", "/static/x", {}),
        ("GET", f"/invitations/{NOWHERE}", {}),
        ("GET", "/sign-in/oidc/callback", {}),
        ("GET", "/sign-in/oidc/7", {}),
    ]

    for method, path, parts in calls:
        headers = ann.call(method, path, **parts).headers
        policy = headers["content-security-policy"].split("; ")
        assert {
            "default-src 'none'",
            "style-src 'self'",
            "script-src 'self'",
            "connect-src 'self'",
            "img-src 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
            "base-uri 'none'",
        } == set(policy), path
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "no-store" in headers["cache-control"] or path == "/static/portal.css"
        assert "strict-transport-security" not in headers


def test_scripts_of_portal_pages_come_from_lockboxs_origin_only(ann: Browser) -> None:
    page = ann.submit(ann.get("/sign-in"), "/sign-in/passkey")

    assert page.read.scripts == ["/static/htmx-4.0.1.min.js", "/static/portal.js", "/static/passkey.js"]
    assert ann.get("/static/passkey.js").answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "noscript" in page.text


def test_production_sends_the_hsts_header(open_portal: OpenPortal) -> None:
    browser = open_portal(settings=SETTINGS.model_copy(update={"environment": "production"})).browser()

    answer = browser.get("/sign-in").answer

    assert answer.headers["strict-transport-security"] == "max-age=31536000"


def test_an_internal_error_is_shown_as_a_page_and_reveals_nothing(open_portal: OpenPortal) -> None:
    portal = open_portal(settings=SETTINGS.model_copy())
    browser = portal.browser()
    browser.ask_for_code(portal.address("ann"))
    code = browser.code()
    portal.app.state.settings = portal.settings.model_copy(update={"session_idle_seconds": None})

    page = browser.post("/sign-in/code", {"code": code})

    assert (page.status, "Nothing was changed" in page.words) == (500, True)
    assert "frame-ancestors 'none'" in page.answer.headers["content-security-policy"]
    assert code not in page.text
