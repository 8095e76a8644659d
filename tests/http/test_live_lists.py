"""Open lists in a real browser: new items appear, ended items leave with a message, and typed text stays."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from playwright.sync_api import Locator, Page, expect

from config.settings import Settings
from harness.people import World
from harness.ports import own_port
from lockbox.requests.lifecycle import Action
from lockbox.requests.models import AccessRequest
from lockbox.requests.policy_rules import Policy
from tests.http.page_browser import browser, desk
from tests.http.portal import OpenPortal, Portal
from tests.http.streams import Live, serving
from tests.whole import people
from tests.whole.people import BrowserDesk, violations

__all__ = ["browser", "desk"]
pytestmark = pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING)

BY_MAIL = Policy(vendor_review=False, mail_suffices=True)
REVIEWED = Policy(mail_suffices=True, review_window=600)


@dataclass
class LiveWorld:
    """A world of a test's own, whose people open pages of a server that all of these tests share."""

    portal: Portal
    desk: BrowserDesk

    @property
    def world(self) -> World:
        return self.portal.world

    def opened(self, name: str, path: str) -> Page:
        browser = self.portal.by_passkey(name)
        page = self.desk.person(secret=str(browser.session))
        page.goto(path)
        return page

    def inside(self, who: str = "erin", **facts: int) -> AccessRequest:
        return self.world.act("abe", Action.APPROVE, self.world.fresh(who, **facts).id)


@pytest.fixture(scope="module")
def live(open_portal: OpenPortal) -> Iterator[Live]:
    """A real server, at an address without TLS."""
    port = own_port()
    settings = Settings(environment="test", public_url=f"http://127.0.0.1:{port}")
    with serving(open_portal(BY_MAIL, settings), port, beat=0.5, pause=0.2) as found:
        yield found


@pytest.fixture
def place(live: Live, desk: BrowserDesk, open_portal: OpenPortal) -> LiveWorld:
    """A world without review and without open windows."""
    return LiveWorld(open_portal(BY_MAIL, live.portal.settings), desk)


@pytest.fixture
def reviewed(live: Live, desk: BrowserDesk, open_portal: OpenPortal) -> LiveWorld:
    """A world whose requests have a short review window, so that they come before those of other worlds."""
    return LiveWorld(open_portal(REVIEWED, live.portal.settings), desk)


def _row(page: Page, request: AccessRequest) -> Locator:
    return page.locator(f"[data-row='{request.id}']")


def _order(page: Page) -> list[str | None]:
    return [one.get_attribute("data-row") for one in page.locator("[data-row]").all()]


@pytest.mark.far
def test_a_newly_opened_window_appears_in_an_empty_list(place: LiveWorld) -> None:
    page = place.opened("ann", "/open")
    expect(page.locator("main")).to_contain_text("There are no open windows")

    request = place.inside()

    expect(_row(page, request).locator("h2")).to_have_text("Erin's access to Exchange Online")
    expect(_row(page, request).get_by_role("button")).to_be_enabled()
    expect(page.locator("main")).not_to_contain_text("There are no open windows")
    expect(page.get_by_role("status")).to_have_text("New here: Erin's access to Exchange Online.")


@pytest.mark.far
def test_a_new_window_is_inserted_in_order_while_the_reader_types_a_comment(place: LiveWorld) -> None:
    first, last = place.inside(access_window=600), place.inside(access_window=3600)
    page = place.opened("ann", "/open")
    comment = _row(page, last).get_by_label("Comment")
    comment.fill("They are done, says")
    comment.evaluate("(field) => field.setSelectionRange(4, 4)")

    between = place.inside("eve", access_window=1800)

    expect(_row(page, between)).to_contain_text("Eve's access to Exchange Online")
    assert _order(page) == [str(one.id) for one in (first, between, last)]
    expect(comment).to_have_value("They are done, says")
    expect(comment).to_be_focused()
    assert comment.evaluate("(field) => field.selectionStart") == 4
    comment.press_sequentially("> ")
    expect(comment).to_have_value("They>  are done, says")


@pytest.mark.far
def test_a_window_closed_elsewhere_leaves_the_list_and_a_message_says_who_closed_it(place: LiveWorld) -> None:
    request = place.inside()
    page = place.opened("ann", "/open")
    expect(_row(page, request)).to_be_visible()

    place.world.act("amir", Action.REVOKE, request.id)

    expect(page.locator("main")).to_contain_text("There are no open windows")
    expect(_row(page, request)).to_have_count(0)
    expect(page.get_by_role("status")).to_contain_text("Erin's access to Exchange Online: Amir revoked the access.")
    expect(page.get_by_role("status").get_by_role("link")).to_have_attribute("href", f"/requests/{request.id}")


@pytest.mark.far
def test_if_many_windows_close_at_once_the_message_names_three_and_counts_the_rest(place: LiveWorld) -> None:
    opened = [place.inside() for _ in range(5)]
    page = place.opened("ann", "/open")
    # News are told together: the page looks at them once.
    page.route("**/live*", lambda route: route.abort())
    page.clock.install()
    page.reload()
    expect(page.locator("[data-row]")).to_have_count(5)

    for one in opened:
        place.world.act("amir", Action.REVOKE, one.id)
    # A page that hears nothing looks every fifteen seconds.
    page.clock.fast_forward(15_000)

    expect(page.get_by_role("status")).to_contain_text("2 more are no longer here.", timeout=30_000)
    assert page.get_by_role("status").inner_text().count("Amir revoked the access") == 3


@pytest.mark.far
def test_a_window_card_with_a_typed_comment_stays_and_says_who_closed_the_window(place: LiveWorld) -> None:
    request, other = place.inside(), place.inside("eve")
    page = place.opened("ann", "/open")
    row = _row(page, request)
    row.get_by_label("Comment").fill("Enough of")

    place.world.act("amir", Action.REVOKE, request.id)

    expect(row.locator(".alert")).to_contain_text("Amir revoked the access.")
    expect(row.locator("h2")).to_have_text("Erin's access to Exchange Online")
    expect(row.get_by_role("button")).to_be_disabled()
    expect(row.get_by_label("Comment")).to_have_value("Enough of")
    expect(row.get_by_label("Comment")).to_be_focused()
    expect(row).not_to_contain_text("Open until")
    expect(_row(page, other).get_by_role("button")).to_be_enabled()
    expect(page.get_by_role("status")).to_contain_text("Amir revoked the access")
    assert violations(page) == []
    row.get_by_label("Comment").fill("")
    row.get_by_label("Comment").evaluate("(field) => field.blur()")
    place.world.act("amir", Action.REVOKE, other.id)
    expect(page.locator("main")).to_contain_text("There are no open windows")
    expect(page.locator("[data-row]")).to_have_count(0)


@pytest.mark.far
def test_a_card_with_a_typed_comment_stays_although_the_list_says_no_windows_are_open(place: LiveWorld) -> None:
    request = place.inside()
    page = place.opened("ann", "/open")
    _row(page, request).get_by_label("Comment").fill("Enough of")

    place.world.act("erin", Action.COMPLETE, request.id)

    expect(page.locator("main")).to_contain_text("There are no open windows")
    expect(_row(page, request).locator(".alert")).to_contain_text("Erin completed the access.")
    expect(_row(page, request).get_by_label("Comment")).to_have_value("Enough of")


@pytest.mark.far
def test_the_message_about_an_expired_window_names_no_person(live: Live, place: LiveWorld) -> None:
    request = place.inside(access_window=600)
    page = place.opened("ann", "/open")
    page.evaluate("() => { const now = Date.now; Date.now = () => now() + 15 * 60 * 1000; }")
    clock = live.portal.clock
    clock.shift = timedelta(minutes=15)
    place.portal.db.schedule.tell([str(request.id)], None)

    try:
        expect(page.get_by_role("status")).to_contain_text("Erin's access to Exchange Online: Expired.")
    finally:
        clock.shift = timedelta(0)


@pytest.mark.far
def test_a_new_request_appears_in_the_open_review_list(reviewed: LiveWorld) -> None:
    first = reviewed.world.fresh()
    page = reviewed.opened("max", "/review")
    reason = _row(page, first).get_by_label("Reason (required)")
    reason.fill("Which mailbox is")

    second = reviewed.world.fresh("eve")

    expect(_row(page, second)).to_contain_text("Eve requests access to Exchange Online")
    expect(_row(page, second).get_by_role("button", name="Deny")).to_be_enabled()
    expect(reason).to_have_value("Which mailbox is")
    expect(reason).to_be_focused()
    expect(page.get_by_role("status")).to_contain_text("New here: Eve requests access to Exchange Online")


@pytest.mark.far
def test_the_open_review_list_names_the_manager_who_reviewed_a_request_elsewhere(reviewed: LiveWorld) -> None:
    written, other = reviewed.world.fresh(), reviewed.world.fresh("eve")
    page = reviewed.opened("max", "/review")
    reason = _row(page, written).get_by_label("Reason (required)")
    reason.fill("Which mailbox is")

    reviewed.world.act("mia", Action.ENDORSE, written.id)
    expect(_row(page, written).locator(".alert")).to_contain_text("Mia endorsed the request for the vendor.")
    reviewed.world.act("mia", Action.DENY, other.id, comment="No case")

    expect(page.get_by_role("status")).to_contain_text(": Mia denied it.")
    expect(_row(page, other)).to_have_count(0)
    expect(_row(page, written).locator("h2")).to_contain_text("Erin requests access to Exchange Online")
    expect(_row(page, written).get_by_role("button", name="Deny")).to_be_disabled()
    expect(_row(page, written).get_by_role("button", name="Endorse")).to_have_count(0)
    expect(reason).to_have_value("Which mailbox is")
    expect(reason).to_be_focused()
    assert violations(page) == []


@pytest.mark.far
def test_an_error_stays_next_to_its_form_while_other_requests_appear(reviewed: LiveWorld) -> None:
    request = reviewed.world.fresh()
    page = reviewed.opened("max", "/review")
    reason = _row(page, request).get_by_label("Reason (required)")
    reason.fill("  \u202e ")
    _row(page, request).get_by_role("button", name="Deny").click()
    alert = _row(page, request).get_by_role("alert")
    expect(alert).to_be_focused()

    second = reviewed.world.fresh("eve")

    expect(_row(page, second)).to_be_visible()
    expect(alert).to_be_focused()
    expect(_row(page, request).locator("div").first.locator("> *").first).to_have_attribute("role", "alert")
    expect(reason).to_have_value("  \u202e ")


@pytest.mark.far
def test_an_engineers_open_list_shows_a_request_submitted_elsewhere_and_its_outcome(place: LiveWorld) -> None:
    page = place.opened("erin", "/mine")
    expect(page.locator("main")).to_contain_text("You have no requests yet")

    first = place.world.fresh()
    expect(_row(page, first)).to_contain_text("Waiting for the customer's approval")
    _row(page, first).locator("summary").click()
    comment = page.locator(f"#cancel-{first.id}")
    comment.fill("No longer")
    second = place.world.fresh()
    expect(_row(page, second)).to_contain_text("Waiting for the customer's approval")
    place.world.act("ann", Action.APPROVE, first.id)

    expect(_row(page, first).locator(".state")).to_have_text("Open")
    expect(comment).to_have_value("No longer")
    expect(comment).to_be_focused()
    expect(_row(page, first).get_by_role("button", name="Cancel the request")).to_be_disabled()
    expect(_row(page, first).locator("summary")).to_have_text(["Cancel", "Complete"])
    expect(page.locator("main")).not_to_contain_text("You have no requests yet")


@pytest.mark.far
def test_a_form_unfolded_by_the_reader_stays_unfolded(place: LiveWorld) -> None:
    first = place.world.fresh()
    page = place.opened("erin", "/mine")
    _row(page, first).locator("summary").click()
    button = _row(page, first).get_by_role("button", name="Cancel the request")
    expect(button).to_be_visible()

    second = place.world.fresh()

    expect(_row(page, second)).to_be_visible()
    expect(button).to_be_visible()


@pytest.mark.far
def test_a_request_that_moves_to_the_next_page_of_an_open_list_is_not_reported_as_ended(place: LiveWorld) -> None:
    oldest = place.world.fresh()
    for _ in range(19):
        place.world.fresh()
    page = place.opened("erin", "/mine")
    expect(_row(page, oldest)).to_be_visible()

    newest = place.world.fresh()

    expect(_row(page, newest)).to_be_visible()
    expect(_row(page, oldest)).to_have_count(0)
    expect(page.get_by_role("link", name="Older requests")).to_be_visible()
    expect(page.get_by_role("status")).to_contain_text("What comes after these is on the next page now.")


@pytest.mark.far
def test_an_open_list_that_cannot_insert_a_new_card_asks_the_reader_to_reload(place: LiveWorld) -> None:
    first = place.inside()
    page = place.opened("ann", "/open")
    page.route("**/htmx*.js", lambda route: route.abort())
    page.reload()
    _row(page, first).get_by_label("Comment").fill("Enough of")

    place.inside("eve")

    expect(page.get_by_role("status")).to_contain_text("Reload it to continue.")
    expect(page.get_by_role("status").get_by_role("link")).to_have_attribute("href", "/open")
    expect(_row(page, first).get_by_label("Comment")).to_have_value("Enough of")
