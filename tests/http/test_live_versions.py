"""A page that is got again while somebody acts: what it tells of is what its forms know of."""

from typing import Any

from sqlalchemy import event

from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.http.portal import OpenPortal


def test_a_page_tells_of_no_move_that_its_forms_do_not_know_of(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy(vendor_review=False, quorum=2))
    request = portal.world.fresh()
    browser = portal.browser()
    browser.enter("ann")
    acted: list[str] = []

    def act_between(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "FROM events e WHERE e.request_id" in statement and not acted:
            acted.append(statement)
            portal.world.act("amir", Action.APPROVE, request.id)

    event.listen(portal.db.engine, "before_cursor_execute", act_between)
    try:
        during = browser.get(f"/requests/{request.id}")
    finally:
        event.remove(portal.db.engine, "before_cursor_execute", act_between)
    after = browser.get(f"/requests/{request.id}")

    assert acted
    assert [page.form("/deny").fields["version"] for page in (during, after)] == ["1", "2"]
    assert ["Amir approved it" in page.text for page in (during, after)] == [False, True]
