"""A newcomer at a browser: the address that `make run` prints, and the story there from first to last."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.whole import people, terminal
from tests.whole.people import desk_at, picture, violations
from tests.whole.test_run import SECONDS, playground, read_until, run

pytestmark = [pytest.mark.far, pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING)]


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A browser at the printed address, where nobody is signed in."""
    with terminal.opened() as here, run(here) as running:
        home = playground(read_until(running, "curl "))
        with desk_at(home) as desk:
            yield desk.person()
        running.terminate()
        running.communicate(timeout=SECONDS)


def step(page: Page, number: int) -> Locator:
    """Open the story page, and return the button of a step."""
    page.goto("/play")
    return page.locator("ol.story li").nth(number - 1).locator("button, a.button")


@pytest.mark.timeout(600)
def test_a_newcomer_plays_every_role_in_the_playground(page: Page) -> None:
    step(page, 1)
    wrong = violations(page)
    picture(page, "play")

    step(page, 1).click()
    page.get_by_label("Customer", exact=True).select_option("contoso")
    page.get_by_label("Service", exact=True).select_option("exchange-online")
    page.get_by_label("Resources").fill("mailbox:zoe@contoso.example")
    page.get_by_label("Justification").fill("It will not open at all")
    page.get_by_role("button", name="Preview").click()
    page.get_by_role("button", name="Submit").click()
    page.wait_for_url(re.compile(r"/requests/[0-9a-f-]{36}\?done=submit$"))
    asked = page.url.partition("?")[0]
    step(page, 2).click()
    mine = page.locator("li", has=page.locator(f"a[href='{asked[asked.index('/requests/') :]}']"))
    mine.get_by_role("button", name="Endorse").click()
    step(page, 3).click()
    page.wait_for_url(re.compile("/inbox"))
    mail = page.get_by_role("link", name="Approval needed by ").first
    expect(mail).to_be_visible()
    wrong += violations(page)
    picture(page, "inbox")
    step(page, 4).click()
    page.goto(asked)
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("#state")).to_contain_text("Open until")
    step(page, 5).click()
    page.get_by_role("button", name=re.compile("Revoke")).first.click()
    expect(page.locator("#state")).to_contain_text("Revoked")
    step(page, 6).click()
    expect(page.get_by_role("heading", name="Operations")).to_be_visible()
    expect(page.locator(".playing")).to_contain_text("You are playing Olga")

    assert wrong + violations(page) == []
