"""Whatever a browser sends to the pages, the answer is a page, never an internal error, and no one is let in."""

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockbox.sql import new_id
from tests.each import each
from tests.examples import examples
from tests.http.portal import BEGUN, HOME, SESSION, Browser, Portal

FORMS = [
    "/sign-in",
    "/sign-in/code",
    "/sign-in/passkey",
    "/sign-in/passkey/answer",
    "/sign-out",
    "/account/sessions/end",
    "/account/passkeys/new",
    "/account/passkeys",
    "/account/passkeys/remove",
    "/account/identities/new",
    "/account/identities/remove",
    "/invitations/01a20e89-0294-736c-b49a-5a0327678385",
    "/device",
    "/device/answer",
    "/tenants/{slug}/members",
    "/tenants/{slug}/members/roles",
    "/tenants/{slug}/mode",
    "/tenants/{slug}/policy",
    "/tenants/{slug}/policy/save",
    "/ask",
    "/ask/preview",
    "/mine/{id}/cancel",
    "/review/{id}/deny",
    "/requests/{id}/questions",
    "/requests/{id}/questions/{id}/answer",
    "/requests/{id}/extend",
    "/requests/{id}/finding",
    "/requests/x/finding",
    "/requests/{id}/break_glass",
    "/tenants/{slug}/policy/terms",
    "/tenants/{slug}/name",
    "/tenants/{slug}/emergency-stop",
    "/tenants/{slug}/mode/save",
    "/tenants/{slug}/mode/consent",
    "/tenants/{slug}/members/eligible",
    "/tenants/{slug}/tiers",
    "/tenants/{slug}/pre-approvals",
    "/tenants/{slug}/pre-approvals/{id}/approve",
    "/tenants/{slug}/pre-approvals/x/revoke",
    "/exclusions",
    "/tenants/{slug}/exclusions",
    "/tenants/{slug}/data/retention",
    "/tenants/{slug}/data/hold",
    "/data/{slug}/hold",
    "/tenants/{slug}/data/off-board",
    "/tenants/{slug}/delegates",
    "/tenants/{slug}/delegates/end",
    "/tenants/{slug}/endpoints",
    "/tenants/{slug}/endpoints/change",
    "/tenants/{slug}/endpoints/turn",
    "/tenants/{slug}/endpoints/rotate",
    "/tenants/{slug}/endpoints/redeliver",
    "/tenants/{slug}/observers",
    "/tenants/{slug}/gates/allow",
    "/audit-log/verify",
    "/requests/{id}/approve",
    "/requests/{id}/deny",
    "/requests/{id}/{id}",
    "/requests/\x00/deny",
]
NAMES = (
    "address",
    "next",
    "code",
    "credential",
    "id",
    "number",
    "issuer",
    "subject",
    "name",
    "version",
    "comment",
    "window",
    "narrow",
    "resources",
    "actions",
    "said",
    "roles",
    "mode",
    "text",
    "key",
    "tenant",
    "service",
    "resources",
    "actions",
    "reason_code",
    "justification",
    "case_ref",
    "access_window",
    "until",
    "principal",
    "delegate",
    "starts",
    "ends",
    "group",
    "people",
    "tier",
    "quorum",
    "gone",
    "escalation",
    "approval_window_hours",
    "url",
    "description",
    "events",
    "form",
    "why",
    "hours",
    "enabled",
    "delivery",
    "more",
    "finding",
    "break_glass",
    "not_before",
    "resource",
    "max_uses",
    "days",
    "reason",
    "typed",
)
TEXTS = st.text(max_size=30) | st.sampled_from(["\x00", "1", "{}", "\ud7ff", "a@b", "9" * 400])
FIELDS = st.dictionaries(st.sampled_from(NAMES), TEXTS, max_size=12)
PAGES = [
    "/sign-in",
    "/sign-in/code",
    "/sign-in/oidc/callback",
    "/sign-in/oidc/1",
    "/requests",
    "/waiting",
    "/waiting/deny",
    "/mine/cancel",
    "/review/deny",
    "/open",
    "/ask",
    "/mine",
    "/review",
    "/requests/x",
    "/account",
    "/operations",
    "/statistics",
    "/statistics/export",
    "/audit-log",
    "/audit-log/export",
    "/audit-log/checkpoint",
]
NAMED = [
    "next",
    "ended",
    "code",
    "state",
    "iss",
    "error",
    "service",
    "engineer",
    "from",
    "to",
    "text",
    "cursor",
    "after",
]
LOOKED_FOR = (
    *("tenant", "person", "action", "request", "service", "after", "before", "text", "cursor", "since", "format"),
)
QUERIES = st.dictionaries(
    st.sampled_from(NAMED),
    TEXTS,
    max_size=4,
)
COOKIES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=';,"\\'), max_size=60)


def is_a_page(answer: Any) -> None:
    """Check that an answer is a page or leads to one."""
    assert answer.status_code < 500, answer.text
    assert answer.is_redirect or answer.headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.far
@settings(max_examples=examples(60, near=10), deadline=None)
@given(st.sampled_from(FORMS), FIELDS, st.sampled_from([None, "ann", "erin", "max"]))
def test_a_portal_form_with_arbitrary_fields_is_answered_with_a_page(
    shared: Portal, form: str, fields: dict[str, str], who: str | None
) -> None:
    browser = Browser(shared)
    if who:
        browser.enter(who)
        fields |= {"csrf": browser.get("/account").form("/sign-out").fields["csrf"]}
    path = form.replace("{id}", str(shared.world.people["ann"].person_id)).replace("{slug}", shared.world.tenant.slug)

    is_a_page(browser.send(quote(path), fields))

    assert who or browser.session is None


@pytest.mark.far
@settings(max_examples=examples(60, near=10), deadline=None)
@given(st.sampled_from(PAGES), QUERIES, COOKIES, COOKIES)
def test_arbitrary_cookies_and_queries_are_answered_with_a_page(
    shared: Portal, path: str, query: dict[str, str], session: str, begun: str
) -> None:
    browser = Browser(shared)
    browser.put(SESSION, session)
    browser.put(BEGUN, begun)

    is_a_page(browser.call("GET", path, params=query))
    is_a_page(browser.send("/sign-in/code", {"code": "12345678"}))

    assert browser.session in {session, None}


@pytest.mark.far
@settings(max_examples=examples(60, near=10), deadline=None)
@given(
    st.sampled_from(["/audit-log", "/audit-log/export", "/audit-log/checkpoint"]),
    st.dictionaries(st.sampled_from(LOOKED_FOR), TEXTS | st.just("2026-02-30T10:00"), max_size=4),
    st.sampled_from(["aude", "vera", "erin"]),
)
def test_an_arbitrary_audit_log_search_is_answered_with_a_page(
    shared: Portal, path: str, query: dict[str, str], who: str
) -> None:
    browser = Browser(shared)
    browser.enter(who)

    answer = browser.call("GET", path, params=query)
    if answer.headers.get("content-disposition", "").startswith("attachment"):
        assert answer.status_code == 200
    else:
        is_a_page(answer)


@settings(max_examples=examples(30, near=10), deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["b", "multipart/form-data; boundary=b", "x/y"]))
def test_arbitrary_bytes_to_verify_are_answered_with_a_page(shared: Portal, body: bytes, kind: str) -> None:
    browser = Browser(shared)
    browser.enter("aude")

    is_a_page(browser.call("POST", "/audit-log/verify", content=body, headers={"origin": HOME, "content-type": kind}))


@settings(max_examples=examples(30, near=10), deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["application/x-www-form-urlencoded", "multipart/form-data", "x"]))
def test_arbitrary_bytes_posted_to_sign_in_are_answered_with_a_page(shared: Portal, body: bytes, kind: str) -> None:
    browser = Browser(shared)
    headers = {"origin": HOME, "content-type": kind}

    for path in ("/sign-in", "/sign-in/code", "/sign-in/passkey/answer"):
        is_a_page(browser.call("POST", path, content=body, headers=headers))


@pytest.mark.far
@each(
    "charset", ["raw_unicode_escape", "unicode_escape", "utf-7", "utf-16", "punycode", "hex", "undefined", "no-such"]
)
@each("kind", ["multipart/form-data; boundary=b", "application/x-www-form-urlencoded"])
@each("path", ["/sign-in", "/sign-in/code", "/account/passkeys/new", "/requests/{id}/deny"])
def test_a_form_in_another_charset_is_refused_before_it_is_read(
    shared: Portal, path: str, kind: str, charset: str
) -> None:
    browser, before = Browser(shared), shared.count()
    browser.enter("ann")
    names = ("address", "code", "csrf", "comment", "name", "version")
    part = 'content-disposition: form-data; name="{}"\r\n\r\n\\ud800\r\n'
    body = "".join(f"--b\r\n{part.format(name)}" for name in names) + "--b--\r\n"
    headers = {"origin": HOME, "content-type": f'{kind}; charset="{charset}"'}

    answer = browser.call("POST", path.format(id=new_id()), content=body.encode(), headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported-charset")
    assert shared.count().decisions == before.decisions


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", "; charset=UTF-8", '; charset="utf8"'])
def test_a_form_in_utf_8_is_read(shared: Portal, charset: str) -> None:
    browser = Browser(shared)
    headers = {"origin": HOME, "content-type": f"application/x-www-form-urlencoded{charset}"}

    answer = browser.call("POST", "/sign-in", content=b"address=ann%40example.test", headers=headers)

    assert answer.status_code == 303
