"""The inbox, with requests that wait for an answer, and the list of open windows."""

from dataclasses import replace
from typing import Any

import pytest

from lockbox.identity.roles import Role
from lockbox.identity.time_zones import page_time
from lockbox.requests.inbox import MOST
from lockbox.requests.lifecycle import Action
from tests.database.scenes import many
from tests.each import each
from tests.http.portal import Browser, OpenPortal, Portal, PortalPage
from tests.policy_setup import lay_down, stand_in

PAGE_BYTES = 60_000
HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"


@pytest.fixture
def portal(shared: Portal) -> Portal:
    """The same world with a clock of the test's own."""
    return replace(shared)


def listed(page: PortalPage) -> list[str]:
    """Return the ids of the requests on a page, in its order, each once."""
    links = (link for link in page.read.links if link.startswith("/requests/"))
    return list(dict.fromkeys(link.removeprefix("/requests/") for link in links))


def pages(browser: Browser, path: str) -> list[PortalPage]:
    """Return all pages of a list; the vendor's people see the open windows of every tenant."""
    found = [browser.get(path)]
    while following := [link for link in found[-1].read.links if link.startswith(f"{path}?after=")]:
        found.append(browser.get(following[0]))
    return found


def test_pending_requests_are_shown_to_their_deciders_in_the_order_of_deadlines(open_portal: OpenPortal) -> None:
    portal = open_portal()
    stand_in(portal.world, "aude", "ann")
    portal.world.add("rob", Role.AUDITOR, portal.world.tenant.id)
    late = portal.world.fresh()
    lay_down(portal.world, approval_window=600)
    soon = portal.world.fresh("eve")
    ids = [str(soon.id), str(late.id)]

    found = {name: listed(portal.by_passkey(name).get("/waiting")) for name in ("ann", "aude", "tara", "rob", "max")}

    assert found == {"ann": ids, "aude": ids, "tara": ids, "rob": [], "max": []}
    assert "Approvals There are no requests for you to decide." in portal.by_passkey("rob").get("/waiting").words


def test_an_inbox_card_shows_requester_resources_reason_and_deadline(open_portal: OpenPortal) -> None:
    portal = open_portal()
    lay_down(portal.world, quorum=2)
    request = portal.world.submit(
        access_window=5400, resources=["mailbox:a@contoso.example", "mailbox:b@contoso.example"]
    )
    portal.world.act("amir", Action.APPROVE, request.id)

    page = portal.by_passkey("ann").get("/waiting")

    for words in (
        "Erin requests access to Exchange Online",
        "Waiting for your approval (1 of 2 approved)",
        "read in mailbox:a@contoso.example and 1 more of Exchange Online, for 1 h 30 min",
        "support case, case CASE-1: The mailbox does not open",
        page_time(request.deadline_at),
    ):
        assert words in page.words
    assert f'data-until="{request.deadline_at.isoformat()}"' in page.text
    assert "data-live" in page.text


def test_answered_or_ended_requests_leave_the_inbox(open_portal: OpenPortal) -> None:
    portal = open_portal()
    lay_down(portal.world, quorum=2)
    answered, denied, over = (portal.world.fresh() for _ in range(3))
    portal.world.act("ann", Action.APPROVE, answered.id)
    portal.world.act("amir", Action.DENY, denied.id)
    ann, amir = portal.by_passkey("ann"), portal.by_passkey("amir")

    assert listed(ann.get("/waiting")) == [str(over.id)]
    assert listed(amir.get("/waiting")) == [str(answered.id), str(over.id)]
    portal.wait(hours=11, minutes=50)
    assert listed(portal.by_passkey("abe").get("/waiting")) != []
    portal.wait(minutes=10)
    assert listed(portal.by_passkey("abe").get("/waiting")) == []


def test_an_admins_inbox_says_that_only_approvers_approve(portal: Portal) -> None:
    portal.world.fresh()

    assert (
        "As an admin you can deny this request. Only approvers can approve it."
        in portal.by_passkey("tara").get("/waiting").words
    )
    assert "As an admin" not in portal.by_passkey("ann").get("/waiting").words


def test_an_empty_inbox_says_where_to_look(open_portal: OpenPortal) -> None:
    page = open_portal().by_passkey("ann").get("/waiting")

    assert "There are no requests for you to decide" in page.words
    assert {"/open", "/requests"} <= set(page.read.links)


def test_open_windows_are_listed_with_the_earliest_end_first(open_portal: OpenPortal) -> None:
    portal = open_portal()
    long, short = portal.world.fresh(access_window=3600), portal.world.fresh("eve", access_window=600)
    for request in (long, short):
        portal.world.act("ann", Action.APPROVE, request.id)
    portal.world.fresh()
    ids = [str(short.id), str(long.id)]

    seen = {name: pages(portal.by_passkey(name), "/open") for name in ("ann", "aude", "tara", "max", "vera", "olga")}

    shown = {name: [one for page in of for one in listed(page) if one in ids] for name, of in seen.items()}
    assert shown == dict.fromkeys(seen, ids) | {"olga": []}
    closing = {name for name, of in seen.items() if any(f"/requests/{short.id}/revoke" in one.text for one in of)}
    assert closing == {"ann", "tara", "max"}
    assert "Eve's access to Exchange Online" in seen["ann"][0].words
    assert "Open until" in seen["ann"][0].words


@pytest.mark.parametrize("name", ["ann", "tara", "max"])
def test_one_click_closes_an_open_window_and_shows_the_page_of_the_request(portal: Portal, name: str) -> None:
    request = portal.world.fresh()
    portal.world.act("amir", Action.APPROVE, request.id)
    browser = portal.by_passkey(name)
    forms = [form for page in pages(browser, "/open") for form in page.read.forms]
    form = next(form for form in forms if form.action == f"/requests/{request.id}/revoke")

    after = browser.post(form.action, form.fields | {"comment": "Enough"})

    assert after.path == f"/requests/{request.id}"
    assert "revoked the access" in after.words
    assert "Enough" in after.words
    assert not any(str(request.id) in page.text for page in pages(browser, "/open"))


def test_the_list_of_open_windows_shows_what_each_window_was_opened_for(open_portal: OpenPortal) -> None:
    portal = open_portal()
    wide: dict[str, Any] = {
        "resources": ["mailbox:a@contoso.example", "mailbox:b@contoso.example"],
        "actions": ["read", "export"],
    }
    request = portal.world.submit(**wide)
    portal.world.act("ann", Action.APPROVE, request.id, resources=["mailbox:b@contoso.example"], actions=["export"])

    assert (
        "What export in mailbox:b@contoso.example of Exchange Online" in portal.by_passkey("ann").get("/open").words
    )


def test_the_list_of_open_windows_says_if_the_engineer_of_a_window_was_disabled(open_portal: OpenPortal) -> None:
    portal = open_portal()
    request = portal.world.submit()
    portal.world.act("ann", Action.APPROVE, request.id)
    portal.sql("UPDATE people SET disabled_at = now() WHERE id = :p", p=portal.world.people["erin"].person_id)

    why = "nobody is let in, because Erin is no longer an active engineer of the vendor."
    assert why in portal.by_passkey("ann").get("/open").words


def test_the_list_of_open_windows_says_if_no_window_is_open(open_portal: OpenPortal) -> None:
    assert "There are no open windows" in open_portal().by_passkey("ann").get("/open").words


def test_texts_in_the_inbox_are_escaped(open_portal: OpenPortal) -> None:
    portal = open_portal()
    portal.sql("UPDATE people SET name = :n WHERE id = :p", n=HOSTILE, p=portal.world.people["eve"].person_id)
    asks = {"justification": HOSTILE, "case_ref": HOSTILE[:100], "resources": ['site:"><script>x</script>']}
    portal.world.fresh("eve", **asks)
    portal.world.act("amir", Action.APPROVE, portal.world.fresh("eve", **asks).id)
    browser = portal.by_passkey("ann")

    for path in ("/waiting", "/open", "/requests"):
        page = browser.get(path)

        assert "<img" not in page.text
        assert "<script>x" not in page.text
        assert "onerror=alert(1)&gt;" in page.text
        assert "7 * 7" in page.text


@pytest.mark.far
@pytest.mark.parametrize(("path", "who"), [("/waiting", "ann"), ("/open", "ann"), ("/open", "max")])
def test_a_full_inbox_continues_on_the_next_page(open_portal: OpenPortal, path: str, who: str) -> None:
    portal = open_portal()
    asked = many(portal.world, MOST + 2)
    if path == "/open":
        for one in asked:
            portal.world.act("ann", Action.APPROVE, one)
    browser = portal.by_passkey(who)
    ours = set(map(str, asked))

    seen = pages(browser, path)

    assert len(seen) > 1
    assert [len(listed(one)) for one in seen[:-1]] == [MOST] * (len(seen) - 1)
    assert [one for page in seen for one in listed(page) if one in ours] == list(map(str, asked))
    assert len(seen[0].text.encode()) < PAGE_BYTES
    assert ["Back to the first" in page.words for page in seen] == [False] + [True] * (len(seen) - 1)


@each("path", ["/waiting", "/open"])
@each("after", ["x", "1", "1-2", "-1-" + "f" * 32, "9" * 17 + "-" + "f" * 32])
def test_an_invalid_page_number_of_the_inbox_is_refused(portal: Portal, path: str, after: str) -> None:
    page = portal.by_passkey("ann").get(f"{path}?after={after}")

    assert page.status == 422
    assert "Start again with the first" in page.words


def test_an_inbox_page_after_the_last_page_links_back_to_the_first_page(portal: Portal) -> None:
    browser = portal.by_passkey("ann")

    for path in ("/waiting", "/open"):
        page = browser.get(f"{path}?after={'9' * 16}-{'f' * 32}")
        assert listed(page) == []
        assert "Back to the first" in page.words
