"""Passkeys: made from a fresh session, believed only for our host, our origin, our challenge and a verified user."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.authenticator import Authenticator, encoded
from lockbox.sql import new_id
from tests.examples import examples
from tests.http.portal import BEGUN, HOME, SETTINGS, Browser, OpenPortal, Portal, PortalPage

NOT_ACCEPTED = "The passkey was not accepted"
NOT_ADDED = "The passkey could not be added"
VOUCH = "Confirm first with a passkey that you have"
LATER = "counts as a code from a mail until"


def options(page: PortalPage) -> dict[str, Any]:
    (form,) = (form for form in page.read.forms if "options" in form.data)
    found: dict[str, Any] = json.loads(form.data["options"])
    return found


def asked_to_add(browser: Browser, name: str = "laptop", older: Authenticator | None = None) -> PortalPage:
    """Open the page on which an authenticator makes a passkey; an older one, if given, signs the addition."""
    page = browser.submit(browser.get("/account"), "/account/passkeys/new", name=name)
    if VOUCH not in page.words:
        return page
    answer = {"credential": older.get(options(page))} if older else {"unsigned": "yes"}
    return browser.submit_first(page, "/account/passkeys/new", **answer)


def add(
    browser: Browser, authenticator: Authenticator, older: Authenticator | None = None, **lies: Any
) -> PortalPage:
    page = asked_to_add(browser, older=older)
    return browser.submit(page, "/account/passkeys", credential=authenticator.create(options(page), **lies))


def use(browser: Browser, authenticator: Authenticator, **lies: Any) -> PortalPage:
    page = browser.submit(browser.get("/sign-in"), "/sign-in/passkey")
    return browser.submit(page, "/sign-in/passkey/answer", credential=authenticator.get(options(page), **lies))


@pytest.fixture
def enrolled(portal: Portal) -> Authenticator:
    authenticator, browser = Authenticator(), portal.browser()
    browser.enter("ann")
    assert "laptop" in add(browser, authenticator).words
    return authenticator


def refused(portal: Portal, authenticator: Authenticator, **lies: Any) -> bool:
    """Return whether the page refuses an authenticator's answer, and no one is signed in."""
    browser = portal.browser()
    page = use(browser, authenticator, **lies)
    return browser.session is None and page.status == 401 and NOT_ACCEPTED in page.words


@pytest.mark.far
@pytest.mark.parametrize("form", ["none", "packed"])
@pytest.mark.parametrize("counts", [True, False])
def test_a_passkey_is_added_and_signs_in(portal: Portal, form: str, *, counts: bool) -> None:
    authenticator, first, second = Authenticator(form=form, counts=counts), portal.browser(), portal.browser()
    first.sign_in("ann")

    added = add(first, authenticator)
    once = use(second, authenticator)
    again = use(second, authenticator)

    assert (added.path, added.status, "laptop" in added.words) == ("/account", 200, True)
    assert (once.path, once.status, "Ann" in once.words) == ("/waiting", 200, True)
    assert again.status == 200
    (row,) = portal.sql(
        "SELECT means FROM sessions WHERE person_id = :p AND revoked_at IS NULL AND means = 'passkey'",
        p=portal.world.people["ann"].person_id,
    )
    assert row.means == "passkey"


@pytest.mark.far
def test_passkey_options_name_lockbox_and_require_user_verification_and_exclude_known_keys(portal: Portal) -> None:
    authenticator, browser = Authenticator(), portal.browser()
    browser.sign_in("ann")
    add(browser, authenticator)
    use(browser, authenticator)
    stranger = portal.browser()

    new = options(asked_to_add(browser))
    any_ = options(stranger.submit(stranger.get("/sign-in"), "/sign-in/passkey"))

    assert new["rp"] == {"name": "Lockbox", "id": "lockbox.example"}
    assert new["authenticatorSelection"]["userVerification"] == any_["userVerification"] == "required"
    assert new["authenticatorSelection"]["residentKey"] == "required"
    assert [one["id"] for one in new["excludeCredentials"]] == [encoded(authenticator.credentials[0].id)]
    assert portal.address("ann") not in str(new)
    assert any_["allowCredentials"] == []
    assert len(any_["challenge"]) >= 43


@pytest.mark.far
def test_a_person_signed_in_by_passkey_approves_where_a_mailed_code_is_too_weak(
    portal: Portal, enrolled: Authenticator
) -> None:
    request_id = portal.world.submit().id
    by_mail, by_passkey = portal.browser(), portal.browser()
    by_mail.sign_in("ann")
    use(by_passkey, enrolled)

    weak = by_mail.approve_anyway(request_id)
    asked = by_passkey.submit(by_passkey.get(f"/requests/{request_id}"), "/approve")
    strong = by_passkey.submit_first(asked, "/approve", credential=enrolled.get(options(asked)))

    assert (weak.status, "Sign in with an older passkey" in weak.words) == (403, True)
    assert "ends automatically" in strong.words
    assert portal.sql("SELECT means FROM decisions WHERE request_id = :r", r=request_id)[0].means == "passkey"


@pytest.mark.far
@pytest.mark.parametrize(
    "lie",
    [
        {"origin": "https://lockbox.example.evil.test"},
        {"origin": "http://lockbox.example"},
        {"origin": f"{HOME}:8443"},
        {"origin": f"{HOME}/"},
        {"domain": "evil.test"},
        {"domain": "example"},
        {"is_verified": False},
        {"is_present": False},
        {"cross_origin": True},
    ],
)
def test_a_passkey_assertion_for_another_user_or_no_user_is_refused(
    portal: Portal, enrolled: Authenticator, lie: dict[str, Any]
) -> None:
    for name, value in lie.items():
        setattr(enrolled, name, value)

    assert refused(portal, enrolled)


@pytest.mark.far
@pytest.mark.parametrize(
    "lie",
    [
        {"kind": "webauthn.create"},
        {"challenge": encoded(bytes(64))},
        {"signature": b"no signature"},
        {"id": b"unknown"},
        {"user": new_id().bytes},
    ],
)
def test_a_passkey_assertion_with_a_wrong_challenge_or_key_is_refused(
    portal: Portal, enrolled: Authenticator, lie: dict[str, Any]
) -> None:
    assert refused(portal, enrolled, **lie)


@pytest.mark.far
def test_a_cloned_passkey_with_a_stale_counter_is_refused(portal: Portal, enrolled: Authenticator) -> None:
    copy = enrolled.clone()
    use(portal.browser(), enrolled)
    use(portal.browser(), enrolled)

    assert refused(portal, copy)
    assert use(portal.browser(), enrolled).status == 200


def test_a_passkey_assertion_works_once_and_only_in_its_browser(portal: Portal, enrolled: Authenticator) -> None:
    browser, other = portal.browser(), portal.browser()
    page = browser.submit(browser.get("/sign-in"), "/sign-in/passkey")
    answer = enrolled.get(options(page))
    cookie = browser.client.cookies[BEGUN]

    elsewhere = other.post("/sign-in/passkey/answer", {"credential": answer})
    here = browser.post("/sign-in/passkey/answer", {"credential": answer})
    other.put(BEGUN, cookie)
    replayed = other.post("/sign-in/passkey/answer", {"credential": answer})

    assert (elsewhere.status, here.status, replayed.status) == (401, 200, 401)
    assert other.session is None


@pytest.mark.far
def test_a_passkey_challenge_is_used_up_by_a_bad_assertion_and_expires(
    portal: Portal, enrolled: Authenticator
) -> None:
    browser, slow = portal.browser(), portal.browser()
    page = browser.submit(browser.get("/sign-in"), "/sign-in/passkey")
    asked = slow.submit(slow.get("/sign-in"), "/sign-in/passkey")

    browser.post("/sign-in/passkey/answer", {"credential": "{}"})
    second = browser.post("/sign-in/passkey/answer", {"credential": enrolled.get(options(page))})
    portal.wait(minutes=10)
    late = slow.post("/sign-in/passkey/answer", {"credential": enrolled.get(options(asked))})

    assert (second.status, late.status) == (401, 401)


def test_a_disabled_person_cannot_sign_in_with_a_passkey(portal: Portal, enrolled: Authenticator) -> None:
    portal.sql("UPDATE people SET disabled_at = now() WHERE id = :p", p=portal.world.people["ann"].person_id)

    assert refused(portal, enrolled)


@pytest.mark.far
def test_a_removed_passkey_does_not_sign_in(portal: Portal, enrolled: Authenticator) -> None:
    browser = portal.browser()
    use(browser, enrolled)

    page = browser.submit(browser.get("/account"), "/account/passkeys/remove")

    assert "You have no passkey" in page.words
    assert refused(portal, enrolled)


@pytest.mark.far
@pytest.mark.parametrize(
    "lie",
    [
        {"origin": "https://evil.test"},
        {"domain": "evil.test"},
        {"is_verified": False},
        {"cross_origin": True},
        {"form": "android-key"},
        {"form": "made-up"},
    ],
)
def test_a_passkey_registration_made_for_another_person_is_refused(portal: Portal, lie: dict[str, Any]) -> None:
    browser = portal.browser()
    browser.sign_in("ann")
    before = portal.count()

    page = add(browser, Authenticator(**lie))

    assert (page.status, NOT_ADDED in page.words) == (422, True)
    assert (portal.count().passkeys, portal.count().events) == (before.passkeys, before.events)


@pytest.mark.far
@pytest.mark.parametrize("lie", [{"kind": "webauthn.get"}, {"challenge": encoded(bytes(64))}, {"id": b"another"}])
def test_a_passkey_registration_with_another_challenge_is_refused(portal: Portal, lie: dict[str, Any]) -> None:
    browser = portal.browser()
    browser.sign_in("ann")

    page = add(browser, Authenticator(), **lie)

    assert (page.status, NOT_ADDED in page.words) == (422, True)


@pytest.mark.far
def test_a_passkey_is_added_only_in_the_session_that_began_the_addition(portal: Portal) -> None:
    ann, eve = portal.browser(), portal.browser()
    ann.sign_in("ann")
    eve.sign_in("amir")
    answer = Authenticator().create(options(asked_to_add(ann)))
    form = eve.get("/account").form("/account/passkeys/new")
    eve.put(BEGUN, ann.client.cookies[BEGUN])

    page = eve.post("/account/passkeys", {"credential": answer, "name": "x", "csrf": form.fields["csrf"]})

    assert page.status == 422
    assert (
        portal.sql(
            "SELECT count(*) AS n FROM passkeys WHERE person_id = :p", p=portal.world.people["amir"].person_id
        )[0].n
        == 0
    )


@pytest.mark.far
def test_a_challenge_for_registering_a_passkey_does_not_sign_in(portal: Portal, enrolled: Authenticator) -> None:
    browser = portal.browser()
    use(browser, enrolled)
    asked = asked_to_add(browser)

    page = browser.post("/sign-in/passkey/answer", {"credential": enrolled.get(options(asked))})

    assert page.status == 401


@pytest.mark.far
def test_a_passkey_can_belong_to_one_person_only(portal: Portal, enrolled: Authenticator) -> None:
    browser = portal.browser()
    browser.sign_in("amir")
    page = asked_to_add(browser)
    theirs = enrolled.credentials[0].id

    page = browser.submit(
        page, "/account/passkeys", credential=Authenticator().create(options(page), credential_id=theirs)
    )

    assert (page.status, "known here already" in page.words) == (409, True)
    assert use(portal.browser(), enrolled).status == 200


def test_a_further_passkey_is_strong_at_once_only_if_an_older_passkey_signed_the_addition(
    portal: Portal, enrolled: Authenticator
) -> None:
    browser, unsigned, signed = portal.browser(), Authenticator(), Authenticator()
    use(browser, enrolled)

    later = add(browser, unsigned)
    by_it = asked_to_add(browser, older=unsigned)
    at_once = add(browser, signed, older=enrolled)

    assert LATER in later.words
    assert (by_it.status, "The signature of your older passkey was not accepted" in by_it.words) == (422, True)
    assert at_once.words.count(LATER) == 1
    means = []
    for one in (unsigned, signed):
        other = portal.browser()
        use(other, one)
        means.append(other.call("GET", "/v1/me").json()["means"])
    assert means == ["mail", "passkey"]


def test_a_signature_by_an_older_passkey_allows_one_addition_only(portal: Portal, enrolled: Authenticator) -> None:
    browser, stranger = portal.browser(), portal.browser()
    use(browser, enrolled)
    page = browser.submit(browser.get("/account"), "/account/passkeys/new")
    answer = enrolled.get(options(page))

    cookie = browser.client.cookies[BEGUN]
    stranger.put(BEGUN, cookie.replace("vouch", "in", 1))
    signed_in = stranger.post("/sign-in/passkey/answer", {"credential": answer})
    browser.put(BEGUN, cookie.replace("vouch", "add-vouched", 1))
    csrf = page.read.forms[-1].fields["csrf"]
    added = browser.post("/account/passkeys", {"credential": answer, "name": "x", "csrf": csrf})

    assert (signed_in.status, stranger.session, added.status) == (401, None, 422)


def test_removing_an_older_passkey_does_not_make_a_new_passkey_strong_at_once(
    portal: Portal, enrolled: Authenticator
) -> None:
    browser = portal.browser()
    use(browser, enrolled)
    browser.submit(browser.get("/account"), "/account/passkeys/remove")

    assert LATER in add(browser, Authenticator()).words


def test_adding_a_passkey_needs_a_sign_in_younger_than_fifteen_minutes(portal: Portal) -> None:
    browser = portal.browser()
    browser.sign_in("ann")
    portal.wait(minutes=15)

    page = asked_to_add(browser)

    assert (page.status, "minutes. Sign in again" in page.words) == (403, True)
    assert "/sign-in?next=/account" in page.text.replace("%2F", "/")


@pytest.mark.far
def test_no_passkey_is_added_if_the_sign_in_becomes_too_old_during_the_addition(portal: Portal) -> None:
    browser = portal.browser()
    browser.sign_in("ann")
    portal.wait(minutes=14)
    page = asked_to_add(browser)
    portal.wait(minutes=2)

    answer = browser.submit(page, "/account/passkeys", credential=Authenticator().create(options(page)))

    assert answer.status == 403


@pytest.mark.far
def test_a_mailed_code_adds_no_passkey_to_a_person_who_already_has_a_passkey(
    portal: Portal, enrolled: Authenticator
) -> None:
    thief, ann = portal.browser(), portal.browser()
    thief.sign_in("ann")
    use(ann, enrolled)

    asked = asked_to_add(thief)
    removed = thief.submit(thief.get("/account"), "/account/passkeys/remove")

    assert (asked.status, removed.status) == (403, 403)
    assert "A code from a mail is not enough" in asked.words
    assert add(ann, Authenticator()).status == 200


@pytest.mark.far
def test_a_person_has_at_most_twenty_passkeys(portal: Portal, enrolled: Authenticator) -> None:
    browser = portal.browser()
    use(browser, enrolled)
    more = """INSERT INTO passkeys
        (id, person_id, credential_id, public_key, sign_count, name, created_at, trusted_at)
        SELECT uuidv7(), person_id, sha256(n::text::bytea || uuidv7()::text::bytea), public_key, 0, 'x', now(), now()
        FROM passkeys, generate_series(1, 19) n WHERE person_id = :p"""
    portal.sql(more, p=portal.world.people["ann"].person_id)

    assert asked_to_add(browser).status == 409


@pytest.mark.parametrize("name", ["a\nb", "a\u202eb", "\x00"])
def test_a_multi_line_passkey_name_is_refused(portal: Portal, name: str) -> None:
    browser = portal.browser()
    browser.sign_in("ann")

    assert asked_to_add(browser, name).status == 422


def test_passkeys_are_not_offered_when_lockbox_is_reached_by_ip_address(open_portal: OpenPortal) -> None:
    portal = open_portal(settings=SETTINGS.model_copy(update={"public_url": "https://192.0.2.7"}))
    browser = portal.browser()

    assert "passkey" not in browser.get("/sign-in").words
    assert browser.post("/sign-in/passkey", {}).status == 403


SIGNED = ("clientDataJSON", "authenticatorData", "signature")
TEXTS = st.text(max_size=20) | st.sampled_from(["public-key", "AAAA", "e30", encoded(b"{}"), encoded(b"[" * 5000)])
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "id": TEXTS,
        "rawId": TEXTS,
        "type": st.just("public-key") | TEXTS,
        "authenticatorAttachment": TEXTS,
        "response": st.dictionaries(
            st.sampled_from(
                ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle", "transports"]
            ),
            TEXTS | st.none() | st.integers(),
        ),
    },
)


@pytest.fixture(scope="module")
def shared(open_portal: OpenPortal) -> tuple[Portal, Authenticator]:
    """A world in which Ann has a passkey, for many attempts."""
    portal = open_portal()
    authenticator, browser = Authenticator(), portal.browser()
    browser.sign_in("ann")
    add(browser, authenticator)
    return portal, authenticator


@pytest.mark.far
@settings(max_examples=examples(25, near=10), deadline=None)
@given(st.data())
def test_an_arbitrary_passkey_assertion_is_refused_without_an_internal_error(
    shared: tuple[Portal, Authenticator], data: st.DataObject
) -> None:
    portal, authenticator = shared
    browser = portal.browser()
    page = browser.submit(browser.get("/sign-in"), "/sign-in/passkey")
    good = json.loads(authenticator.get(options(page)))
    wrong = data.draw(
        ANSWERS.map(json.dumps)
        | st.text(max_size=50)
        | ANSWERS.map(lambda part: json.dumps(good | {"response": good["response"] | part.get("response", {})}))
    )

    answer = browser.post("/sign-in/passkey/answer", {"credential": wrong})

    assert answer.status in {200, 401, 422}
    if answer.status == 200:
        said = json.loads(wrong)["response"]
        assert [said[name] for name in SIGNED] == [good["response"][name] for name in SIGNED]


@pytest.mark.far
@settings(max_examples=examples(25, near=10), deadline=None)
@given(st.data())
def test_an_arbitrary_passkey_registration_is_refused_without_an_internal_error(
    shared: tuple[Portal, Authenticator], data: st.DataObject
) -> None:
    portal, authenticator = shared
    browser = portal.browser()
    use(browser, authenticator)
    page = asked_to_add(browser)
    good = json.loads(Authenticator().create(options(page)))
    wrong = data.draw(ANSWERS.map(lambda part: json.dumps(good | part)) | st.text(max_size=50))

    answer = browser.submit(page, "/account/passkeys", credential=wrong)

    assert answer.status in {200, 409, 422, 429}
