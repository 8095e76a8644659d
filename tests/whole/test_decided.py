"""A real browser after a decision: the page has its own banner and address, and reloading it decides nothing."""

import pytest
from playwright.sync_api import Page, expect

from lockbox.requests.lifecycle import Action
from tests.whole import people
from tests.whole.conftest import RunningStack
from tests.whole.people import SCREENS, desk_of, with_authenticator

pytestmark = [pytest.mark.far, pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING)]


def shoot(page: Page, name: str) -> None:
    """Save a picture if SCREENS is set."""
    if SCREENS:
        page.screenshot(path=f"{SCREENS}/decided-{name}.png")


@pytest.mark.parametrize("action", ["approve", "deny", "revoke"])
def test_the_page_shown_after_a_decision_has_its_own_address_and_focuses_the_banner(
    stage: RunningStack, action: str
) -> None:
    world = stage.world(approval_window=600)
    request = world.submit(access_window=600)
    if action == "revoke":
        world.act("ann", Action.APPROVE, request.id)

    with desk_of(stage) as desk:
        page = desk.person(world, "ann")
        with_authenticator(page)
        page.goto("/waiting")
        page.goto(f"/requests/{request.id}")
        if action != "approve":
            page.locator("textarea[name=comment]").first.fill("As told")
        page.get_by_role("button", name=action.capitalize()).first.click()
        page.wait_for_url(f"**/requests/{request.id}?done={action}")
        banner = page.locator("#done")
        expect(banner).to_be_visible()
        expect(banner).to_be_focused()
        words = banner.inner_text()
        decided = stage.state(request.id)
        shoot(page, action)

        page.reload()
        expect(banner).to_be_focused()
        assert banner.inner_text().split("\n")[0] == words.split("\n")[0]
        assert page.url.endswith(f"/requests/{request.id}?done={action}")
        shoot(page, f"{action}-again")
        page.go_back()
        page.wait_for_url(f"**/requests/{request.id}")

    assert stage.state(request.id) == decided
    count = "SELECT count(*) AS number FROM events WHERE request_id = :id AND action = :action"
    assert [row.number for row in stage.rows(count, id=request.id, action=action)] == [1]
