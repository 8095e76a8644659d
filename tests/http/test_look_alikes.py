"""One human with two accounts is not stopped; whoever decides as the second person is warned of equal names."""

from lockbox.identity.roles import AuthMethod
from lockbox.requests.lifecycle import State
from lockbox.requests.policy_rules import Policy
from tests.http.portal import OpenPortal

WARNING = "has your name or your mailbox"


def test_a_manager_with_the_requesters_name_is_warned_and_not_refused(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy())
    request = portal.world.fresh()
    browser = portal.browser()
    browser.enter("max", AuthMethod.PASSKEY)
    before = browser.get(f"/requests/{request.id}")
    portal.sql(
        "UPDATE people SET name = 'Erin ' WHERE id = :id RETURNING id", id=portal.world.people["max"].person_id
    )

    page = browser.get(f"/requests/{request.id}")
    after = browser.submit(page, f"/requests/{request.id}/endorse")

    assert WARNING not in before.words
    assert WARNING in page.words
    assert after.status == 200
    (row,) = portal.sql("SELECT state FROM requests WHERE id = :id", id=request.id)
    assert row.state == State.PENDING
