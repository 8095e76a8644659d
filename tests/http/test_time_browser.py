"""Times in a real browser that is in another time zone: the zone is offered once, and shown times stay current."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from config.settings import Settings
from harness.ports import own_port
from lockbox.requests.policy_rules import Policy
from tests.http.page_browser import browser, desk
from tests.http.portal import OpenPortal
from tests.http.streams import Live, serving
from tests.whole import people
from tests.whole.people import BrowserDesk, violations

__all__ = ["browser", "desk"]
pytestmark = [pytest.mark.far, pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING)]

BERLIN = "Europe/Berlin"


@pytest.fixture(scope="module")
def live(open_portal: OpenPortal) -> Iterator[Live]:
    """A world's pages on a real server, at an address without TLS."""
    port = own_port()
    settings = Settings(environment="test", public_url=f"http://127.0.0.1:{port}")
    with serving(open_portal(Policy(vendor_review=False), settings), port) as found:
        yield found


def opened(live: Live, desk: BrowserDesk, path: str) -> Page:
    """Open a page in a browser that is in Berlin."""
    page = desk.person(secret=live.secret("amir"), timezone_id=BERLIN)
    page.goto(f"{live.url}{path}")
    return page


def test_a_browser_in_another_time_zone_is_offered_that_zone(live: Live, desk: BrowserDesk) -> None:
    page = opened(live, desk, "/requests?state=denied")
    offer = page.get_by_role("form", name="Time zone")
    expect(offer).to_contain_text(f"This browser is set to {BERLIN}.")
    assert violations(page) == []

    page.get_by_role("button", name="Keep UTC").click()
    expect(offer).to_be_hidden()
    page.reload()
    expect(page.locator("footer")).to_contain_text("Times are in UTC.")
    expect(offer).to_be_hidden()
    page.evaluate("localStorage.clear()")
    page.reload()
    page.get_by_role("button", name="Use this zone").click()

    expect(page.locator("footer")).to_contain_text(f"Times are in {BERLIN}.")
    expect(page).to_have_url(f"{live.url}/requests?state=denied")
    expect(offer).to_have_count(0)


def test_a_sign_in_page_stores_the_browsers_time_zone_for_the_first_sign_in(live: Live, desk: BrowserDesk) -> None:
    page = desk.person(timezone_id=BERLIN)
    page.goto(f"{live.url}/sign-in")

    found = {cookie.get("name"): cookie.get("value") for cookie in page.context.cookies()}

    assert found["lockbox-zone"] == BERLIN


def test_the_page_script_shows_times_in_the_same_words_as_the_server(live: Live, desk: BrowserDesk) -> None:
    request = live.portal.world.fresh()
    plain = desk.person(secret=live.secret("ann"), java_script_enabled=False)
    page = desk.person(secret=live.secret("ann"))
    for one in (plain, page):
        one.goto(f"{live.url}/requests/{request.id}")

    for one in (plain, page):
        submitted = one.locator(f'#timeline time[datetime="{request.created_at.isoformat()}"]')
        expect(submitted).to_have_attribute("data-away", "now")
        expect(one.locator("#state .left")).to_contain_text(" left")
    page.evaluate("Date.now = ((now) => () => now() + 60000)(Date.now)")
    expect(page.locator("#timeline time").first).to_have_attribute("data-away", "1 min ago")
