"""Many requests: lists group what one engineer asks about one case, and many can be denied or cancelled at once."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from api.portal.requests.selection import MOST
from lockbox.identity.roles import Role, RoleGrant
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import many
from tests.each import each
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage


def offered(page: PortalPage, path: str) -> list[str]:
    """Return the values of all boxes of the form with this path."""
    return boxes(page, path)[0]


def boxes(page: PortalPage, path: str) -> tuple[list[str], list[str]]:
    """Return the values of all boxes of the form with this path, and of the ticked ones."""
    ticked = page.form(path).ticked.get("chosen", [])
    found = [part.split('value="')[1].split('"')[0] for part in page.text.split('<input type="checkbox"')[1:]]
    return found, ticked


def states(portal: Portal, *ids: Any) -> Counter[str]:
    return Counter(state.state for state in portal.states() if state.id in ids)


def send(browser: Browser, path: str, *chosen: str, comment: str = "Not today") -> PortalPage:
    fields = browser.get(path).form(path).fields
    return browser.post(path, {"csrf": fields["csrf"], "comment": comment, "chosen": list(chosen)})


def test_an_approver_denies_several_requests_and_each_denial_is_a_separate_move(portal: Portal) -> None:
    ids = many(portal.world, 3)
    kept = portal.world.submit("eve").id
    browser = portal.by_passkey("ann")

    page = send(browser, "/waiting/deny", *(f"{one}.1" for one in ids))

    assert page.status == 200
    assert "You denied 3 requests" in page.words
    assert (states(portal, *ids), states(portal, kept)) == ({"denied": 3}, {"pending": 1})
    found = portal.sql("SELECT request_id FROM events WHERE action = 'deny' AND request_id = ANY(:ids)", ids=ids)
    assert sorted(one.request_id for one in found) == sorted(ids)


def test_selected_requests_that_changed_meanwhile_are_left_unchanged_and_listed(portal: Portal) -> None:
    world = portal.world
    gone, moved, fine = many(world, 3)
    world.act("erin", Action.CANCEL, gone)
    browser = portal.by_passkey("ann")

    page = send(browser, "/waiting/deny", f"{gone}.1", f"{moved}.7", f"{fine}.1")

    assert page.status == 200
    assert "You denied 1 request" in page.words
    assert "2 requests were not denied:" in page.words
    assert {f"/requests/{one}" for one in (gone, moved, fine)} <= set(page.read.links)
    assert states(portal, gone, moved, fine) == {"cancelled": 1, "pending": 1, "denied": 1}


def test_if_all_selected_requests_are_refused_nothing_is_reported_as_done(portal: Portal) -> None:
    (request,) = many(portal.world, 1)

    page = send(portal.by_passkey("ann"), "/waiting/deny", f"{request}.7")

    assert page.status == 412
    assert states(portal, request) == {"pending": 1}
    assert "No request was denied" in page.words
    assert "You denied" not in page.words


def test_selected_requests_of_other_people_are_refused_like_unknown_requests(
    portal: Portal, open_portal: OpenPortal
) -> None:
    theirs = open_portal().world.submit().id
    (ours,) = many(portal.world, 1)

    page = send(portal.by_passkey("ann"), "/waiting/deny", f"{theirs}.1", f"{ours}.1")

    assert "A request that you cannot see: There is no such request" in page.words
    assert states(portal, theirs, ours) == {"pending": 1, "denied": 1}


@each(
    ("chosen", "comment", "said"),
    [
        ([], "No", "Choose at least one request."),
        (["x"], "No", "Choose requests from the list."),
        (["1.1"], "No", "Choose requests from the list."),
        ([f"00000000-0000-7000-8000-{number:012}.1" for number in range(MOST + 1)], "No", "Choose at most 50"),
        (["00000000-0000-7000-8000-000000000001.1"], " ", "Give a reason"),
        (["00000000-0000-7000-8000-000000000001.1"], "\x00", "Not accepted"),
    ],
)
def test_an_invalid_selection_of_requests_is_reported_without_effect(
    portal: Portal, chosen: list[str], comment: str, said: str
) -> None:
    (request,) = many(portal.world, 1)
    browser = portal.by_passkey("ann")
    mine = [f"{request}.1"] if comment == " " else []

    page = send(browser, "/waiting/deny", *mine, *chosen, comment=comment)

    assert page.status == 422
    assert said in page.words
    assert states(portal, request) == {"pending": 1}
    if mine:
        assert boxes(page, "/waiting/deny")[1] == mine


@pytest.mark.far
def test_fifty_requests_can_be_denied_in_one_step(portal: Portal) -> None:
    ids = many(portal.world, MOST)
    browser = portal.by_passkey("ann")

    listed = offered(browser.get("/waiting/deny"), "/waiting/deny")
    page = send(browser, "/waiting/deny", *listed)

    assert sorted(listed) == sorted(f"{one}.1" for one in ids)
    assert f"You denied {MOST} requests" in page.words
    assert states(portal, *ids) == {"denied": MOST}


def test_an_inbox_of_many_requests_is_grouped_by_engineer_and_case(portal: Portal) -> None:
    many(portal.world, 3, "erin", case_ref="CASE-9")
    other = portal.world.submit("eve", case_ref=None)
    browser = portal.by_passkey("ann")

    page = browser.get("/waiting")
    (link,) = (one for one in page.read.links if one.startswith("/waiting/deny?"))
    listed, ticked = boxes(browser.get(link), "/waiting/deny")

    assert "Erin, case CASE-9 3 requests on this page" in page.words
    assert "Eve, no case given 1 request on this page" in page.words
    assert (len(listed), len(ticked)) == (4, 3)
    assert f"{other.id}.1" in set(listed) - set(ticked)


def test_an_inbox_of_few_requests_has_no_groups(portal: Portal) -> None:
    portal.world.submit("erin")
    portal.world.submit("eve")

    page = portal.by_passkey("ann").get("/waiting")

    assert "on this page" not in page.words
    assert "/waiting/deny" in page.read.links


def test_twenty_requests_are_shown_on_a_page(portal: Portal) -> None:
    many(portal.world, 21)
    browser = portal.by_passkey("ann")

    page = browser.get("/waiting")
    (following,) = (link for link in page.read.links if link.startswith("/waiting?after="))

    assert [text.count('class="card"') for text in (page.text, browser.get(following).text)] == [20, 1]


def test_a_manager_denies_several_requests_in_review(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy())
    ids = many(portal.world, 2)
    browser = portal.by_passkey("max")

    page = send(browser, "/review/deny", *(f"{one}.1" for one in ids))

    assert "You denied 2 requests" in page.words
    assert states(portal, *ids) == {"denied": 2}


def test_a_managers_own_selected_requests_cannot_be_denied(open_portal: OpenPortal) -> None:
    portal = open_portal(Policy())
    portal.sql(
        "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :p, NULL, :r)",
        p=portal.world.people["max"].person_id,
        r=Role.ENGINEER.value,
    )
    max_, role = portal.world.people["max"], RoleGrant(Role.ENGINEER)
    portal.world.people["max"] = replace(max_, standings=max_.standings | {role})
    browser = portal.by_passkey("max")
    own, others = portal.world.submit("max").id, portal.world.submit().id

    page = send(browser, "/review/deny", f"{own}.1", f"{others}.1")

    assert "1 request was not denied" in page.words
    assert states(portal, own, others) == {"reviewing": 1, "denied": 1}


def test_a_requester_cancels_several_own_requests_without_a_reason(portal: Portal) -> None:
    ids = many(portal.world, 3)
    opened = portal.world.submit().id
    portal.world.act("ann", Action.APPROVE, opened)
    browser = portal.by_passkey("erin")

    assert "/mine/cancel" in browser.get("/mine").read.links
    listed = offered(browser.get("/mine/cancel"), "/mine/cancel")
    page = send(browser, "/mine/cancel", *listed, comment="")

    assert sorted(listed) == sorted(f"{one}.1" for one in ids)
    assert "You cancelled 3 requests" in page.words
    assert states(portal, opened, *ids) == {"active": 1, "cancelled": 3}


def test_the_page_for_an_empty_selection_says_that_nothing_is_selected(portal: Portal) -> None:
    assert "There are no requests that you can deny." in portal.by_passkey("ann").get("/waiting/deny").words
    assert "There are no requests that you can cancel." in portal.by_passkey("erin").get("/mine/cancel").words
