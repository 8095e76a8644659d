"""Signing in by a mailed code: ten minutes, five tries, once, and in the browser that asked."""

import re

import pytest
from structlog.testing import capture_logs

from tests.http.portal import BEGUN, HOME, SESSION, Browser, OpenPortal, Portal

OVER = "This sign-in was used, has run out, or was begun in another browser"
KEPT = """
SELECT t::text FROM sign_ins t UNION ALL SELECT t::text FROM sessions t UNION ALL SELECT t::text FROM notifications t
UNION ALL SELECT t::text FROM events t UNION ALL SELECT t::text FROM event_details t
UNION ALL SELECT t::text FROM sign_in_counts t
"""
WRONG = "That is not the code of the newest mail"


def asked(portal: Portal, name: str = "ann") -> tuple[Browser, str]:
    """Ask for a code in a browser, and look into the mail."""
    browser = portal.browser()
    browser.ask_for_code(portal.address(name))
    return browser, browser.code()


def enter(browser: Browser, code: str) -> tuple[int, str]:
    """Enter a code; return the status and what a person reads."""
    page = browser.post("/sign-in/code", {"code": code})
    return page.status, page.words


def other(code: str) -> str:
    return f"{(int(code.replace(' ', '')) + 1) % 10**8:08}"


def test_a_person_signs_in_with_a_mailed_code_and_reaches_the_requested_page(portal: Portal) -> None:
    request_id = portal.world.submit().id
    browser = portal.browser()

    first = browser.get(f"/requests/{request_id}")
    page = browser.submit(first, "/sign-in", address=portal.address("ann"))
    page = browser.submit(page, "/sign-in/code", code=browser.code())

    assert first.path == "/sign-in"
    assert (page.status, page.path) == (200, f"/requests/{request_id}")
    assert "Erin requests access to Exchange Online" in page.words
    assert "Ann" in page.words


@pytest.mark.parametrize("form", ["{0} {1}", "{0}{1}", " {0}-{1} "])
def test_spaces_in_a_sign_in_code_do_not_matter(portal: Portal, form: str) -> None:
    browser, code = asked(portal)

    assert enter(browser, form.format(code[:4], code[-4:]))[0] == 200


def test_a_sign_in_address_ignores_case_and_the_mail_goes_to_the_recorded_address(portal: Portal) -> None:
    browser = portal.browser()
    browser.ask_for_code(portal.address("ann").upper())

    (mail,) = portal.post(browser.begun)

    assert mail.to_address == portal.address("ann")


def test_no_sign_in_mail_goes_to_a_look_alike_address(portal: Portal) -> None:
    portal.sql("UPDATE people SET email = 'kim-' || email WHERE id = :id", id=portal.world.people["ann"].person_id)
    browser = portal.browser()
    typed = portal.address("ann").replace("k", "\N{KELVIN SIGN}", 1)

    browser.ask_for_code(typed)

    assert {mail.to_address for mail in portal.post(browser.begun)} <= {portal.address("ann")}


def test_a_wrong_sign_in_code_is_reported_and_the_right_code_still_works(portal: Portal) -> None:
    browser, code = asked(portal)

    status, words = enter(browser, other(code))

    assert (status, WRONG in words) == (401, True)
    assert browser.session is None
    assert enter(browser, code)[0] == 200


def test_a_sixth_attempt_at_a_sign_in_code_is_refused(portal: Portal) -> None:
    browser, code = asked(portal)

    tries = [enter(browser, other(code)) for _ in range(5)]
    sixth = enter(browser, code)

    assert all(WRONG in words for _, words in tries)
    assert (sixth[0], OVER in sixth[1]) == (401, True)
    assert browser.session is None


def test_concurrent_failed_attempts_at_a_sign_in_code_are_all_counted(portal: Portal) -> None:
    browser, code = asked(portal)
    portal.sql("UPDATE sign_ins SET tries = 4 WHERE id = :id", id=browser.begun)

    enter(browser, other(code))

    assert portal.sql("SELECT tries FROM sign_ins WHERE id = :id", id=browser.begun)[0].tries == 5
    assert OVER in enter(browser, code)[1]


def test_a_sign_in_code_expires_after_ten_minutes(portal: Portal) -> None:
    late, code = asked(portal)
    portal.wait(minutes=10)

    assert OVER in enter(late, code)[1]

    browser, code = asked(portal)
    portal.wait(minutes=9)
    assert enter(browser, code)[0] == 200


def test_a_sign_in_code_works_once(portal: Portal) -> None:
    browser, code = asked(portal)
    cookie = browser.client.cookies[BEGUN]
    enter(browser, code)
    thief = portal.browser()
    thief.put(BEGUN, cookie)

    assert OVER in enter(thief, code)[1]
    assert thief.session is None


def test_a_sign_in_code_does_not_work_in_another_browser(portal: Portal) -> None:
    browser, code = asked(portal)
    without, beside = portal.browser(), portal.browser()
    beside.ask_for_code(portal.address("ann"))

    assert OVER in enter(without, code)[1]
    assert WRONG in enter(beside, code)[1]
    assert enter(browser, code)[0] == 200


@pytest.mark.parametrize(
    ("part", "value"),
    [(0, "add"), (0, "x"), (1, "0" * 32), (1, "x"), (1, ""), (2, "A" * 43), (2, ""), (3, "x.x"), (3, None)],
)
def test_a_sign_in_code_does_not_work_with_a_changed_cookie(portal: Portal, part: int, value: str | None) -> None:
    browser, code = asked(portal)
    parts = browser.client.cookies[BEGUN].split(".")
    browser.put(BEGUN, ".".join([*parts[:part], *([] if value is None else [value]), *parts[part + 1 :]]))

    assert OVER in enter(browser, code)[1]
    assert browser.session is None


def test_a_resent_sign_in_mail_has_the_same_code(portal: Portal) -> None:
    browser, first = asked(portal)
    portal.sql("UPDATE notifications SET closed_at = NULL, outcome = NULL WHERE about_id = :id", id=browser.begun)

    second = browser.code()

    assert second == first
    assert enter(browser, second)[0] == 200


def test_a_new_sign_in_code_voids_the_older_code_in_the_same_browser(portal: Portal) -> None:
    browser, first = asked(portal)
    browser.ask_for_code(portal.address("ann"))
    second = browser.code()

    assert first != second
    assert WRONG in enter(browser, first)[1]
    assert browser.session is None
    assert enter(browser, second)[0] == 200


def test_no_sign_in_code_works_before_its_mail_is_sent(portal: Portal) -> None:
    browser = portal.browser()
    browser.ask_for_code(portal.address("ann"))

    for guess in ("", "00000000", "None", "\u0661" * 8):
        assert WRONG in enter(browser, guess)[1]


def test_an_unknown_sign_in_address_looks_like_a_known_address_and_gets_no_mail(portal: Portal) -> None:
    known, unknown = portal.browser(), portal.browser()

    answers = [
        browser.send("/sign-in", {"address": address, "next": "/requests"})
        for browser, address in ((known, portal.address("ann")), (unknown, "nobody@contoso.example"))
    ]
    pages = [browser.get("/sign-in/code") for browser in (known, unknown)]

    def without_secrets(answer: object) -> str:
        heads = [(name, one) for name, one in answer.headers.items() if name != "x-request-id"]  # type: ignore[attr-defined]
        return re.sub(r"in\.[^;]+", "…", str(sorted(heads)))

    assert [answer.status_code for answer in answers] == [303, 303]
    assert without_secrets(answers[0]) == without_secrets(answers[1])
    assert answers[0].content == answers[1].content
    assert pages[0].text == pages[1].text
    assert len(portal.post(known.begun)) == 1
    assert portal.post(unknown.begun) == []
    assert enter(unknown, "12345678") == enter(known, "12345678")


def test_requesting_a_sign_in_code_writes_the_same_rows_for_every_address(portal: Portal) -> None:
    def written(address: str) -> list[int]:
        browser = portal.browser()
        browser.ask_for_code(address)
        ids = {"id": browser.begun}
        return [
            portal.sql("SELECT count(*) AS n FROM sign_ins WHERE id = :id", **ids)[0].n,
            portal.sql("SELECT count(*) AS n FROM notifications WHERE about_id = :id AND closed_at IS NULL", **ids)[
                0
            ].n,
        ]

    assert written(portal.address("ann")) == written("nobody@contoso.example") == [1, 1]


def test_a_disabled_person_gets_no_sign_in_mail_and_no_session(portal: Portal) -> None:
    browser, code = asked(portal)
    disable = "UPDATE people SET disabled_at = now() WHERE id = :id"
    portal.sql(disable, id=portal.world.people["ann"].person_id)

    late = portal.browser()
    late.ask_for_code(portal.address("ann"))

    assert OVER in enter(browser, code)[1]
    assert browser.session is None
    assert portal.post(late.begun) == []


@pytest.mark.parametrize(
    "address",
    ["", " ", "ann", "@", "ann@", "@contoso.example", "a b@contoso.example", "a@b@c", "a@b\r\nBcc: x@y", "a\x00@b"],
)
def test_an_invalid_sign_in_address_is_reported_and_starts_no_sign_in(portal: Portal, address: str) -> None:
    browser = portal.browser()

    page = browser.post("/sign-in", {"address": address})

    assert page.status == 422
    assert "Write your whole mail address" in page.words
    assert browser.begun is None


def test_sign_in_by_mailed_code_can_be_switched_off(open_portal: OpenPortal) -> None:
    settings = open_portal().settings.model_copy(update={"mail_sign_in": False})
    portal = open_portal(settings=settings)
    browser = portal.browser()

    shown = browser.get("/sign-in")
    answer = browser.post("/sign-in", {"address": portal.address("ann")})

    assert "Mail me a code" not in shown.words
    assert answer.status == 403
    assert browser.begun is None


def test_sign_in_codes_and_cookie_secrets_are_stored_nowhere_in_plain_text(portal: Portal) -> None:
    browser, code = asked(portal)
    secret = browser.client.cookies[BEGUN].split(".")[2]
    enter(browser, code)
    assert browser.session

    kept = str(portal.sql(KEPT))

    for plain in (code, code.replace(" ", ""), secret, browser.session):
        assert plain not in kept


def test_no_log_line_of_a_sign_in_contains_personal_data(portal: Portal) -> None:
    request_id = str(portal.world.submit().id)
    with capture_logs() as lines:
        browser, code = asked(portal)
        browser.get(f"/requests/{request_id}")
        enter(browser, other(code))
        enter(browser, code)
        browser.get(f"/requests/{request_id}")
        browser.get(f"/invitations/{request_id}")
        browser.post("/sign-in/passkey/answer", {"credential": "{}"})
        browser.get("/sign-in/oidc/callback?code=secret-code&state=secret-state")
    assert browser.session

    said = str(lines)

    assert len(lines) >= 10
    for plain in (code, code.replace(" ", ""), browser.session, portal.address("ann"), browser.address, request_id):
        assert plain not in said
    assert "secret-" not in said
    assert "/requests/{request_id}" in said


def test_the_sign_in_cookie_is_host_only_and_hidden_from_scripts(portal: Portal) -> None:
    browser, code = asked(portal)
    begun = portal.browser().send("/sign-in", {"address": "nobody@contoso.example"})

    answer = browser.send("/sign-in/code", {"code": code})

    (session,) = (line for line in answer.headers.get_list("set-cookie") if line.startswith(f"{SESSION}="))
    for line in (session, begun.headers["set-cookie"]):
        assert {"HttpOnly", "Secure", "SameSite=lax", "Path=/"} <= set(line.split("; "))
        assert "Domain" not in line
    assert "Max-Age" not in session
    assert len(browser.session or "") == 43


def test_the_sign_in_cookie_has_no_prefix_on_plain_http(open_portal: OpenPortal) -> None:
    settings = open_portal().settings.model_copy(update={"public_url": HOME.replace("https", "http")})
    browser = open_portal(settings=settings).browser()

    answer = browser.send("/sign-in", {"address": "nobody@contoso.example"})

    line = answer.headers["set-cookie"]
    assert line.startswith("lockbox-begun=")
    assert "Secure" not in line
