"""Statistics over HTTP: the same figures on the page, from the API and as CSV."""

import csv
import io

import pytest

from lockbox.requests.lifecycle import Action
from tests.http.door import Door, facts
from tests.http.portal import OpenPortal, Portal

CSV = "text/csv; charset=utf-8"


@pytest.fixture
def portal(open_portal: OpenPortal) -> Portal:
    portal = open_portal()
    world = portal.world
    world.act("ann", Action.APPROVE, world.submit().id)
    world.act("ann", Action.DENY, world.submit("eve").id)
    return portal


def test_statistics_from_the_api_agree_with_their_csv_export(fresh_door: Door) -> None:
    door = fresh_door
    door.act("ann", "revoke", door.active(), comment="Enough")

    found = door.get("aude", "/v1/statistics").json()
    answer = door.get("aude", "/v1/statistics/export")

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert (answer.headers["content-type"], answer.headers["cache-control"]) == (CSV, "no-store")
    assert "attachment" in answer.headers["content-disposition"]
    assert found["tenant"] == door.world.tenant.slug
    assert {name: str(value) for name, value in found["total"].items()} == {
        name: value for name, value in rows[0].items() if name not in {"group", "name"}
    }
    assert [one["month"] for one in found["months"]] == [row["name"] for row in rows if row["group"] == "month"]
    assert found["engineers"][0]["engineer"]["name"] == "Erin"
    assert found["total"]["approved"] == 1
    assert [one["severity"] for one in found["severities"]] == [None]
    assert [one["level"] or "" for one in found["levels"]] == [row["name"] for row in rows if row["group"] == "level"]


def test_another_tenants_statistics_are_not_found(fresh_door: Door) -> None:
    door = fresh_door

    facts(door.get("aude", "/v1/statistics", tenant="nowhere"), 404, "not-found")
    facts(door.get("aude", "/v1/statistics/export", tenant="nowhere"), 404, "not-found")


def test_the_statistics_page_shows_figures_charts_and_top_lists(portal: Portal) -> None:
    page = portal.by_passkey("aude").get("/statistics")

    assert page.status == 200
    assert "Statistics of Contoso" in page.words
    assert "Requests 2" in page.words
    assert "Approved 1" in page.words
    for words in (
        "Requests and answers by the month",
        "Exchange Online",
        "Erin",
        "Eve",
        "Support case",
        "None given",
        "Levels",
    ):
        assert words in page.words
    assert "exchange-online" not in page.words
    assert "/statistics" in page.read.links


def test_vendor_auditors_see_statistics_of_all_customers_and_can_choose_one_customer(portal: Portal) -> None:
    browser, slug = portal.by_passkey("vera"), portal.world.tenant.slug

    everybody, one = browser.get("/statistics"), browser.get(f"/statistics?tenant={slug}")

    assert "Statistics of all customers" in everybody.words
    assert "Statistics of Contoso" in one.words
    assert browser.get("/statistics?tenant=%00").status == 404


def test_the_statistics_page_exports_the_figures_it_shows(portal: Portal) -> None:
    browser = portal.by_passkey("tara")

    answer = browser.call("GET", "/statistics/export")

    assert answer.headers["content-type"] == CSV
    assert answer.text.splitlines()[1].startswith("total,,2,1,1,")


def test_before_the_first_request_the_statistics_page_says_what_will_appear(open_portal: OpenPortal) -> None:
    page = open_portal().by_passkey("aude").get("/statistics")

    assert "No request has reached Contoso in this time." in page.words
