"""Times on pages: in the reader's time zone, which is named once, and is the browser's at the first sign-in."""

import re

import pytest

from lockbox.identity.time_zones import clock_time, page_time
from lockbox.sql import new_id
from tests.http.portal import SESSION, Browser, OpenPortal, Portal
from tests.http.test_portal_invitations import invite

ZONE = f"{SESSION}-zone"
BERLIN = "Europe/Berlin"


def zone_of(portal: Portal, address: str) -> str:
    (row,) = portal.sql("SELECT time_zone FROM people WHERE email = :e", e=address)
    return str(row.time_zone)


def offers(browser: Browser, path: str) -> bool:
    return 'id="zone-offer"' in browser.get(path).text


def test_a_page_shows_local_times_and_names_the_time_zone_once(
    open_portal: OpenPortal,
) -> None:
    portal = open_portal()
    request = portal.world.submit()
    portal.sql("UPDATE people SET time_zone = 'Asia/Tokyo' WHERE id = :p", p=portal.world.people["ann"].person_id)
    browser = portal.by_passkey("ann")

    for path in ("/waiting", f"/requests/{request.id}"):
        page = browser.get(path)
        assert page_time(request.deadline_at, "Asia/Tokyo") in page.words
        assert page.words.count("Times are in Asia/Tokyo.") == page.words.count("Asia/Tokyo") == 1
        assert "JST" not in page.words
        assert f'title="{clock_time(request.deadline_at, "Asia/Tokyo")}"' in page.text


def test_a_page_without_script_shows_relative_times(portal: Portal) -> None:
    request = portal.world.submit()
    browser = portal.by_passkey("ann")

    for path in ("/waiting", f"/requests/{request.id}"):
        page = browser.get(path)
        assert re.search(r"\d+ (?:h|min|s) left", page.words)
    assert f'datetime="{request.created_at.isoformat()}"' in page.text
    assert re.search(r'<time [^>]* data-away="now">', page.text)
    assert 'data-away=""' not in page.text


def test_the_first_sign_in_adopts_the_browsers_time_zone_for_pages_and_mails(portal: Portal) -> None:
    address = f"nora-{new_id().hex[-8:]}@contoso.example"
    browser = portal.browser()
    browser.put(ZONE, BERLIN)

    invite(portal, address).accept(browser)

    assert f"Times are in {BERLIN}." in browser.get("/waiting").words
    assert zone_of(portal, address) == BERLIN
    assert not offers(browser, "/waiting")


@pytest.mark.far
@pytest.mark.parametrize("name", ["", "Nowhere/Land", "../UTC", "CEST+99", "<b>"])
def test_an_unknown_time_zone_changes_nothing(portal: Portal, name: str) -> None:
    address = f"nora-{new_id().hex[-8:]}@contoso.example"
    browser = portal.browser()
    browser.put(ZONE, name)

    page = invite(portal, address).accept(browser)

    assert (page.status, zone_of(portal, address)) == (200, "UTC")
    assert offers(browser, "/waiting")


@pytest.mark.far
def test_a_later_sign_in_elsewhere_changes_no_time_zone(portal: Portal) -> None:
    address = f"nora-{new_id().hex[-8:]}@contoso.example"
    invite(portal, address).accept(portal.browser())
    browser = portal.browser()
    browser.put(ZONE, BERLIN)

    browser.submit(browser.ask_for_code(address), "/sign-in/code", code=browser.code())

    assert browser.session
    assert zone_of(portal, address) == "UTC"


def test_a_person_without_a_time_zone_is_offered_the_browsers_zone(open_portal: OpenPortal) -> None:
    portal = open_portal()
    browser = portal.by_mail("ann")
    page = browser.get("/requests?state=denied")

    there = browser.submit(page, "/account/preferences", time_zone=BERLIN)

    assert (there.status, there.path, offers(browser, "/waiting")) == (200, "/requests", False)
    assert f"Times are in {BERLIN}." in there.words
    refused = browser.submit(page, "/account/preferences", time_zone="Berlin")
    assert (refused.status, "Choose a time zone by its name" in refused.words) == (422, True)
