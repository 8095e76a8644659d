"""An approver on a phone, from the link in the mail to "You approved": what is seen first, each tap and scroll."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, ViewportSize, expect

from harness.people import sign_in
from lockbox.facts.enumerations import AuthMethod
from tests.whole import people
from tests.whole.conftest import RunningStack, wait_until
from tests.whole.people import BrowserDesk, desk_of, overflow, violations, with_authenticator
from tests.whole.post import address_of, mails_to

pytestmark = [
    pytest.mark.far,
    pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING),
    pytest.mark.timeout(240),
]

POCKET = ViewportSize(width=390, height=844)
TWO = ["mailbox:anna@contoso.example", "mailbox:bob@contoso.example"]
WHY = "The search index of both mailboxes is broken; I need to read folder names to rebuild it."
COUNTED = """
const count = (name) => { sessionStorage[name] = Number(sessionStorage[name] ?? 0) + 1; };
addEventListener("click", (event) => event.isTrusted && count("taps"), true);
addEventListener("scrollend", () => count("scrolls"), true);
"""
MOST_TAPS, MOST_SCROLLS = 4, 1


@pytest.fixture(scope="module")
def desk(stage: RunningStack) -> Iterator[BrowserDesk]:
    with desk_of(stage) as found:
        yield found


def count(page: Page, name: str) -> int:
    return int(page.evaluate("(name) => Number(sessionStorage[name] ?? 0)", name))


def seen_at_once(page: Page) -> dict[str, bool]:
    """Return whether each fact needed to decide is on the first screen, above the buttons, and the buttons too."""
    bar = page.locator(".actionbar").bounding_box()
    assert bar is not None
    lowest = min(bar["y"], POCKET["height"])
    parts = {
        "sentence": page.locator("h1"),
        "why": page.locator(".why"),
        "resource": page.locator(".chips li", has_text=TWO[1]),
        "action": page.locator(".chips li", has_text=re.compile("^read$")),
        "case": page.locator(".chips dd", has_text="CASE-1"),
        "answer by": page.locator(".clock", has_text="Answer by"),
        "open until": page.locator(".clock", has_text="If approved now"),
        "bar": page.locator("progress"),
    }
    seen = {name: _is_within(part, lowest) for name, part in parts.items()}
    buttons = {name: page.get_by_role("button", name=name) for name in ("Approve", "Deny")}
    return seen | {name: _is_within(button, POCKET["height"]) for name, button in buttons.items()}


def _is_within(part: Locator, lowest: float) -> bool:
    box = part.bounding_box()
    return box is not None and box["y"] >= 0 and box["y"] + box["height"] <= lowest


def test_on_a_phone_an_approver_approves_from_the_mail_in_few_taps(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=900)
    address = address_of(stage, world, "ann")
    secret = sign_in(world.db, world.people["ann"], AuthMethod.OIDC)
    phone = desk.person(secret=secret, viewport=POCKET, has_touch=True, is_mobile=True)
    with_authenticator(phone)
    phone.goto("/account")
    phone.get_by_label("Name of the new passkey").fill("my phone")
    phone.get_by_role("button", name="Add a passkey").tap()
    expect(phone.get_by_role("region", name="Passkeys")).to_contain_text("my phone")
    phone.get_by_role("button", name="Menu").tap()
    phone.get_by_role("button", name="Sign out", exact=True).tap()
    phone.wait_for_url("**/sign-in*")
    request = world.submit(access_window=900, resources=TWO, justification=WHY)
    wait_until(lambda: mails_to(stage, address), "Ann is prompted")
    (link,) = set(re.findall(r"\S+/requests/[0-9a-f-]{36}", mails_to(stage, address)[-1]))

    phone.context.add_init_script(COUNTED)
    phone.set_content(f'<a href="{link}">View the request</a>')
    phone.get_by_role("link").tap()
    phone.get_by_role("button", name="Sign in with a passkey").tap()
    phone.wait_for_url(f"**/requests/{request.id}")
    first, wider = seen_at_once(phone), overflow(phone)
    found = violations(phone)
    phone.get_by_role("button", name="Approve 15 min").tap()
    done = phone.locator("#done")
    expect(done).to_contain_text("You approved. Erin can read 2 mailboxes in Exchange Online until")
    taps, scrolls = count(phone, "taps") + 1, count(phone, "scrolls")

    expect(done).to_be_focused()
    expect(done).to_be_in_viewport()
    assert first == dict.fromkeys(first, True)
    assert (wider, found, violations(phone)) == (0, [], [])
    assert taps <= MOST_TAPS
    assert scrolls <= MOST_SCROLLS
    assert stage.state(request.id) == "active"
    phone.locator("#done").get_by_role("button", name="Revoke access").tap()
    expect(phone.locator("#done")).to_contain_text("You revoked the access. Erin's access ended at")


def test_the_approve_button_states_the_duration_and_a_denial_asks_for_its_reason(
    stage: RunningStack, desk: BrowserDesk
) -> None:
    world = stage.world(approval_window=900)
    request = world.submit(access_window=900)
    phone = desk.person(world, "ann", viewport=POCKET, has_touch=True, is_mobile=True)

    phone.goto(f"/requests/{request.id}")
    phone.get_by_label("Duration").select_option("300")
    expect(phone.get_by_role("button", name="Approve 5 min")).to_be_in_viewport(ratio=1)
    phone.get_by_role("button", name="Deny").tap()

    expect(phone.locator("#comment")).to_be_focused()
    assert phone.locator("#comment").evaluate("(one) => one.validationMessage")
    assert stage.state(request.id) == "pending"
    phone.locator("#comment").fill("Ask the owner first")
    phone.get_by_role("button", name="Deny").tap()
    expect(phone.locator("#done")).to_contain_text("You denied the request. Erin gets no access")
    assert stage.state(request.id) == "denied"


def test_the_enter_key_in_a_form_field_decides_nothing(stage: RunningStack, desk: BrowserDesk) -> None:
    world = stage.world(approval_window=900)
    request = world.submit(access_window=900)
    ann = desk.person(world, "ann")

    ann.goto(f"/requests/{request.id}")
    ann.locator("#comment").fill("Not yet")
    ann.get_by_text("Approve only part of it").click()
    ann.get_by_label("Maximum uses").fill("3")
    ann.get_by_label("Maximum uses").press("Enter")
    ann.wait_for_timeout(300)

    expect(ann.locator("#comment")).to_have_value("Not yet")
    assert stage.state(request.id) == "pending"
