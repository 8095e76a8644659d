"""A real browser on the real stack: signing in by a mailed code, adding a passkey, and approving with it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_string

import pytest

from cli.stack import Processes
from tests.whole import chromium
from tests.whole.chromium import Chromium
from tests.whole.conftest import Stage, mails, stage_of, wait_until

pytestmark = pytest.mark.skipif(chromium.PROGRAM is None, reason="there is no chromium on this machine")


@pytest.fixture(scope="module")
def stage(template: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The stack under a host name, for browsers make no passkeys for a bare network address."""
    logs = tmp_path_factory.mktemp("logs")
    with stage_of(template, logs, names=()) as found:  # type: ignore[arg-type]
        home = f"http://localhost:{found.plan.api_port}"
        extra = {"LOCKBOX_SHUTDOWN_SECONDS": "1", "LOCKBOX_PUBLIC_URL": home}
        processes = Processes(found.plan, logs, extra)
        try:
            for name in ("api", "worker", "notices"):
                processes.start(name)
            processes.wait_until_ready()
            yield replace(found, processes=processes)
        finally:
            processes.stop()


@pytest.fixture
def browser() -> Iterator[Chromium]:
    """A browser that was never here."""
    with chromium.chromium() as found:
        yield found


def code_for(stage: Stage, address: str) -> str:
    """Wait for a mail to an address and return the code in it."""

    def found() -> list[str]:
        letters = [message_from_string(text) for text in mails(stage.urls)]
        bodies = [letter.as_string() for letter in letters if address in str(letter["to"])]
        return [code for body in bodies for code in re.findall(r"^ {4}(\d{4} \d{4})$", body, re.MULTILINE)]

    wait_until(found, f"a code for {address}")
    return found()[-1]


def test_somebody_signs_in_by_code_adds_a_passkey_and_approves_with_it(stage: Stage, browser: Chromium) -> None:
    world = stage.world(approval_window=600)
    request = world.submit(access_window=600)
    home = f"http://localhost:{stage.plan.api_port}"
    (ann,) = stage.rows("SELECT email FROM people WHERE id = :id", id=world.people["ann"].person_id)

    browser.open(f"{home}/requests/{request.id}")
    browser.fill("#address", ann.email)
    browser.press("Mail me a code")
    browser.fill("#code", code_for(stage, ann.email))
    browser.press("Sign in")
    by_mail = browser.text()
    browser.press("Approve")
    refused = browser.text()

    browser.authenticator()
    browser.press("Ann")
    browser.fill("#name", "my laptop")
    browser.press("Add a passkey")
    browser.arrive("/account")
    account = browser.text()
    browser.open(f"{home}/sign-in?next=/requests/{request.id}")
    browser.press("Sign in with a passkey")
    browser.arrive(f"/requests/{request.id}")
    browser.press("Approve")
    approved = browser.text()

    assert "Erin asks for access to Exchange Online" in by_mail
    assert "A code from a mail opens nothing here" in refused
    assert "my laptop" in account
    assert "It closes by itself." in approved
    assert stage.state(request.id) == "active"
    assert [row.means for row in stage.rows("SELECT means FROM decisions WHERE request_id = :id", id=request.id)] == [
        "passkey"
    ]
    assert [line for line in browser.said if "403 (Forbidden)" not in line] == []
