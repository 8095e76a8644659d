"""A real browser on the real stack: signing in by a mailed code, adding a passkey, and approving with it."""

import pytest
from playwright.sync_api import expect

from tests.whole import people
from tests.whole.conftest import RunningStack
from tests.whole.people import desk_of, with_authenticator
from tests.whole.post import address_of, code_to

pytestmark = [pytest.mark.far, pytest.mark.skipif(people.PROGRAM is None, reason=people.MISSING)]


def test_a_person_signs_in_by_code_adds_a_passkey_and_approves(stage: RunningStack) -> None:
    world = stage.world(approval_window=600)
    request = world.submit(access_window=600)
    address = address_of(stage, world, "ann")

    with desk_of(stage) as desk:
        page = desk.person()
        page.goto(f"/requests/{request.id}")
        page.get_by_label("Mail address").fill(address)
        page.get_by_role("button", name="Mail me a code").click()
        page.get_by_label("Code from the mail").fill(code_to(stage, address))
        page.get_by_role("button", name="Sign in", exact=True).click()
        expect(page.locator("h1")).to_contain_text("Erin of the vendor wants to read")
        expect(page.locator("#answer")).to_contain_text("A code from a mail is not enough here")
        expect(page.get_by_role("button", name="Approve")).to_have_count(0)

        with_authenticator(page)
        page.get_by_role("link", name="Ann", exact=True).click()
        page.get_by_label("Name of the new passkey").fill("my laptop")
        page.get_by_role("button", name="Add a passkey").click()
        page.wait_for_url("**/account")
        expect(page.get_by_role("region", name="Passkeys")).to_contain_text("my laptop")
        page.goto(f"/sign-in?next=/requests/{request.id}")
        page.get_by_role("button", name="Sign in with a passkey").click()
        page.wait_for_url(f"**/requests/{request.id}")
        page.get_by_role("button", name="Approve").click()
        page.wait_for_url(f"**/requests/{request.id}?done=approve")
        expect(page.locator("#state")).to_contain_text("ends automatically")

    assert stage.state(request.id) == "active"
    query = "SELECT means, assertion IS NOT NULL AS is_signed FROM decisions WHERE request_id = :id"
    assert [(row.means, row.is_signed) for row in stage.rows(query, id=request.id)] == [("passkey", True)]
