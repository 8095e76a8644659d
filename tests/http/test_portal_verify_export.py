"""Verifying a file in the browser: what is shown, whom it trusts, and how many files at once."""

import asyncio
import html
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from api import middleware
from api.portal.audit import verify_export
from harness.wait import within
from lockbox.audit.verifier.verify import verify
from lockbox.identity import keyring
from lockbox.identity.attempt_limits import AttemptLimits
from lockbox.identity.roles import Role
from tests.http import test_portal_audit_log as reading
from tests.http.portal import HOME, Browser, Portal, PortalPage
from tests.logs import OTHER_KEY, public

PATIENCE = 30.0
HEADERS = {"origin": HOME, "content-type": "multipart/form-data; boundary=b"}
FIRST_PART, REST = b"--b\r\n", b'content-disposition: form-data; name="csrf"\r\n\r\nx\r\n--b--\r\n'

audit_log = reading.audit_log


def send(browser: Browser, content: bytes | AsyncIterator[bytes]) -> Any:
    return browser.client.post("/audit-log/verify", content=content, headers=HEADERS)


def upload(browser: Browser, file: bytes | None, **fields: str) -> PortalPage:
    page = browser.get("/audit-log/verify")
    form = {name: value for name, value in page.form("/audit-log/verify").fields.items() if name in {"csrf", "keys"}}
    files = {} if file is None else {"export": ("audit.ndjson", file, "application/x-ndjson")}
    ours = {"origin": HOME, "sec-fetch-site": "same-origin"}
    return PortalPage(
        browser.call("POST", "/audit-log/verify", data=form | fields, files=files or None, headers=ours)
    )


def test_the_verify_page_verifies_an_export_and_names_the_trusted_signer(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")
    file = browser.call("GET", "/audit-log/export").content
    before = audit_log.count()

    keys = f"{public().text}\n{keyring.ephemeral().public.text}"
    good = upload(browser, file, keys=keys)
    edited = upload(browser, file.replace(b"deny", b"nope"), keys=keys)

    intact = "Intact as signed by the vendor; not compared with a checkpoint of yours."
    assert (good.status, intact in good.words, "This trusts the server." in good.words) == (200, True, True)
    assert (edited.status, "Tampered." in edited.words) == (200, True)
    assert "Edited line" in edited.words
    assert audit_log.count() == before


def test_the_verify_page_accepts_keys_and_a_checkpoint_that_the_reader_enters(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")
    file = browser.call("GET", "/audit-log/export").content
    note = re.search(
        r"<pre tabindex=\"0\">(lockbox.test.*?)</pre>", browser.get("/audit-log/checkpoint").text, re.DOTALL
    )
    assert note

    keys = f"{public().text}\n{keyring.ephemeral().public.text}"
    own = upload(browser, file, keys=keys, note=html.unescape(note[1]).replace("\n", "\r\n"))
    other = upload(browser, file, keys=public(OTHER_KEY).text)

    assert "Intact, continues your checkpoint of " in own.words
    assert "Unknown key" in other.words
    assert "Intact" not in other.words


@pytest.mark.parametrize(
    ("file", "fields", "says"),
    [
        (None, {}, "Choose the file of an export"),
        (b"", {}, "Choose the file of an export"),
        (b"what\n", {}, "It cannot be read"),
        (b"\xff\xfe\x00", {}, "It cannot be read"),
        (b"{}\n", {"keys": ""}, "Give the keys that you trust"),
        (b"{}\n", {"keys": "no"}, "this is no key of the form name+id+base64"),
        (b"{}\n", {"keys": f"{public().text}\n" * 51}, "at most 50"),
    ],
)
def test_the_verify_page_reports_what_cannot_be_verified_and_keeps_the_input(
    audit_log: Portal, file: bytes | None, fields: dict[str, str], says: str
) -> None:
    page = upload(audit_log.by_mail("aude"), file, **{"note": "my checkpoint", "keys": public().text} | fields)

    assert (page.status, says in page.words) == (422, True)
    assert page.form("/audit-log/verify").fields["note"].strip() == "my checkpoint"


def test_an_export_uploaded_without_the_form_token_is_not_verified(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")
    file = browser.call("GET", "/audit-log/export").content
    from_elsewhere = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}

    forged = upload(browser, file, csrf="x")
    foreign = browser.call("POST", "/audit-log/verify", files={"export": ("a", file)}, headers=from_elsewhere)
    nobody = audit_log.browser().call(
        "POST", "/audit-log/verify", files={"export": ("a", file)}, headers={"origin": HOME}
    )
    by_erin = audit_log.by_mail("erin").call(
        "POST", "/audit-log/verify", files={"export": ("a", file)}, headers={"origin": HOME}
    )

    assert (forged.status, foreign.status_code, by_erin.status_code) == (403, 403, 403)
    assert (nobody.status_code, nobody.headers["location"].partition("?")[0]) == (303, "/sign-in")


def test_an_export_that_is_too_large_to_verify_is_refused_before_it_is_read(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")
    much = b"x" * (middleware.MOST_UPLOAD_BYTES + 1)

    def pieces() -> Any:
        async def generate() -> Any:
            yield b'--b\r\ncontent-disposition: form-data; name="export"; filename="a"\r\n\r\n'
            for _ in range(22):
                yield b"x" * (1 << 20)

        return generate()

    declared = upload(browser, much)
    headers = {"origin": HOME, "content-type": "multipart/form-data; boundary=b"}
    counted = browser.call("POST", "/audit-log/verify", content=pieces(), headers=headers)

    assert (declared.status, counted.status_code) == (413, 413)


def test_slow_uploads_of_exports_hold_only_a_few_slots(audit_log: Portal) -> None:
    browsers = [audit_log.by_mail("aude"), audit_log.by_mail("aude"), audit_log.by_mail("vera")]

    async def sent() -> list[int]:
        is_here, goes_on = asyncio.Event(), asyncio.Event()

        async def slowly() -> AsyncIterator[bytes]:
            yield FIRST_PART
            is_here.set()
            await goes_on.wait()
            yield REST

        first = asyncio.create_task(send(browsers[0], slowly()))
        await is_here.wait()
        meanwhile = [(await send(browser, FIRST_PART + REST)).status_code for browser in browsers[1:]]
        goes_on.set()
        return [(await first).status_code, *meanwhile, (await send(browsers[1], FIRST_PART + REST)).status_code]

    assert audit_log.runner.run(sent()) == [403, 503, 403, 403]


def test_a_tenant_with_too_many_running_verifications_blocks_no_other_tenant(audit_log: Portal) -> None:
    audit_log.world.add("alma", Role.AUDITOR, audit_log.world.tenant.id)
    browsers = [audit_log.by_mail(who) for who in ("aude", "tara", "alma", "vera")]

    async def sent() -> list[int]:
        goes_on = asyncio.Event()

        async def slowly(is_here: asyncio.Event) -> AsyncIterator[bytes]:
            yield FIRST_PART
            is_here.set()
            await goes_on.wait()
            yield REST

        held = []
        for browser in browsers[:2]:
            is_here = asyncio.Event()
            held.append(asyncio.create_task(send(browser, slowly(is_here))))
            await is_here.wait()
        meanwhile = [(await send(one, FIRST_PART + REST)).status_code for one in browsers[2:]]
        goes_on.set()
        return meanwhile + [answer.status_code for answer in await asyncio.gather(*held)]

    assert audit_log.runner.run(sent()) == [503, 403, 403, 403]


def test_an_export_to_verify_waits_while_exports_of_other_people_use_all_slots(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")
    file = browser.call("GET", "/audit-log/export").content
    aude = audit_log.world.people["aude"].person_id
    waited, freeing = [], []

    def held() -> int:
        return int(audit_log.app.state.counts.held(verify_export.file_of(aude)))

    async def hold() -> None:
        for _ in range(2):
            await verify_export.TURNS.acquire()

        async def free() -> None:
            await asyncio.to_thread(within, PATIENCE, held)
            await asyncio.sleep(1)
            waited.append(held())
            for _ in range(2):
                verify_export.TURNS.release()

        freeing.append(asyncio.create_task(free()))

    audit_log.runner.run(hold())
    page = upload(browser, file)

    assert (page.status, waited) == (200, [1])


def test_verifying_an_export_stops_after_enough_errors(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")
    first, *_ = browser.call("GET", "/audit-log/export").content.splitlines(keepends=True)
    file = first + b"what\n" * 5000

    page = upload(browser, file)

    assert page.status == 200
    assert "Reading stopped at line 52" in page.words
    all_of_it = verify(file.splitlines(keepends=True), [public(), keyring.ephemeral().public])
    assert all_of_it.findings.count >= 5000
    assert all_of_it.stopped_at is None


def test_values_left_out_of_an_export_do_not_stop_its_verification(audit_log: Portal) -> None:
    """Forged events may follow unverifiable ones, and must be found."""
    file = audit_log.by_mail("aude").call("GET", "/audit-log/export").content.replace(b"deny", b"nope")

    found = verify(file.splitlines(keepends=True), [public(), keyring.ephemeral().public], most=0)

    assert "edited" in {kind.value for kind in found.findings.kinds}


def test_verifying_an_export_has_a_deadline(audit_log: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = audit_log.by_mail("aude")
    file = browser.call("GET", "/audit-log/export").content
    monkeypatch.setattr(verify_export, "DEADLINE", -1.0)

    page = upload(browser, file)

    assert (page.status, "takes too long here" in page.words) == (422, True)


def test_the_limit_of_export_verifications_applies_to_each_person_separately(
    audit_log: Portal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_export, "LIMITS", AttemptLimits(2, 2))
    for name in ("cora", "cleo"):
        audit_log.world.add(name, Role.AUDITOR, audit_log.world.tenant.id)
    browser, other = audit_log.by_mail("cora"), audit_log.by_mail("cleo")
    file = browser.call("GET", "/audit-log/export").content

    assert [upload(browser, file).status for _ in range(3)] == [200, 200, 429]
    assert upload(other, file).status == 200


def test_forms_other_than_verification_keep_their_size_limit(audit_log: Portal) -> None:
    browser = audit_log.by_mail("aude")
    much = {"csrf": "x", "text": "x" * middleware.MOST_BODY_BYTES}

    answer = browser.send(f"/tenants/{audit_log.world.tenant.slug}/policy", much)

    assert answer.status_code == 413
