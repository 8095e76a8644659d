"""The page of all requests: its filters, its pages, and the same selection as a table for spreadsheets."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from urllib.parse import quote

import pytest
from sqlalchemy import text

from lockbox.identity.roles import Role
from lockbox.requests.lifecycle import Action
from tests.each import each
from tests.http.portal import OpenPortal, Portal, PortalPage

HOSTILE = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"
MANY = """
INSERT INTO requests (id, tenant_id, requester_id, service, resources, actions, reason_code, justification, case_ref,
    mode, policy_version, token_id, submitted_by, quorum, approval_window, access_window, state, version, deadline_at,
    created_at, asked_at, closed_at)
SELECT uuidv7(make_interval(secs => -n)), r.tenant_id, r.requester_id, r.service, ARRAY['mailbox:' || n], r.actions,
    r.reason_code, repeat('The mailbox of somebody does not open. ', 5), 'CASE-' || n, r.mode, r.policy_version,
    r.token_id, r.submitted_by, r.quorum, r.approval_window, r.access_window, 'cancelled', r.version, r.deadline_at,
    now() - make_interval(secs => n), now(), now()
FROM requests r, generate_series(1, :count) n WHERE r.id = :id
"""


@pytest.fixture
def portal(shared: Portal) -> Portal:
    """The same world with a clock of the test's own."""
    return replace(shared)


def listed(page: PortalPage) -> list[str]:
    return [link.removeprefix("/requests/") for link in page.read.links if link.startswith("/requests/")]


def table(page: PortalPage) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(page.text)))


def put_many(portal: Portal, request_id: object, count: int) -> None:
    """Insert that many cancelled requests beside one, past every trigger."""
    with portal.root.connect() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.execute(text(MANY), {"count": count, "id": request_id})
        connection.exec_driver_sql("SET session_replication_role = DEFAULT")
        connection.exec_driver_sql("ANALYZE requests")


def test_each_history_filter_keeps_only_matching_requests(open_portal: OpenPortal) -> None:
    portal = open_portal()
    world = portal.world
    denied = world.fresh(case_ref="CASE-7")
    world.act("ann", Action.DENY, denied.id)
    other = world.fresh("eve", service="sharepoint-online", justification="A library is locked", actions=["export"])
    browser = portal.by_mail("ann")
    looked_for = {
        "state=denied&text=CASE-7": denied,
        "service=sharepoint-online": other,
        "engineer=EVE": other,
        "level=export": other,
        "text=library": other,
        f"text={denied.resources[0].partition('@')[0]}": denied,
        f"text={other.id}": other,
    }

    found = {query: listed(browser.get(f"/requests?{query}")) for query in looked_for}

    assert found == {query: [str(request.id)] for query, request in looked_for.items()}
    assert {str(denied.id), str(other.id)} <= set(listed(browser.get("/requests")))


def test_days_in_a_history_filter_are_in_the_readers_time_zone(open_portal: OpenPortal) -> None:
    portal = open_portal()
    request = portal.world.submit()
    person = portal.world.people["ann"].person_id
    portal.sql("UPDATE people SET time_zone = 'Pacific/Kiritimati' WHERE id = :p", p=person)
    there = (request.created_at.astimezone(UTC) + timedelta(hours=14)).date()
    browser = portal.by_mail("ann")

    found = {
        (first, last): listed(browser.get(f"/requests?from={first or ''}&to={last or ''}"))
        for first, last in (
            (there, there),
            (None, there - timedelta(days=1)),
            (there + timedelta(days=1), None),
        )
    }

    assert [len(ids) for ids in found.values()] == [1, 0, 0]
    assert "Pacific/Kiritimati" in browser.get("/requests").words


@each(
    ("query", "sentence"),
    [
        ("service=exchange-online&state=open", "There is no such state"),
        ("level=nothing", "There is no such level"),
        ("service=nothing", "There is no such service"),
        ("from=24.11.2026", "Write days as year, month and day"),
        ("from=2026-02-30", "Write days as year, month and day"),
        ("to=9999-12-31", "Choose a day of this age"),
        ("from=2026-11-24&to=2026-11-23", "Choose an earlier first day"),
        ("text=" + "x" * 201, "at most 200 characters"),
        ("text=a%00b", "at most 200 characters"),
        ("engineer=a%0Ab", "at most 200 characters"),
        ("cursor=%21", "The cursor is invalid"),
    ],
)
def test_an_invalid_history_filter_is_reported_and_stays_in_the_form(
    portal: Portal, query: str, sentence: str
) -> None:
    portal.world.fresh()
    browser = portal.by_mail("ann")

    page = browser.get(f"/requests?{query}")

    assert page.status == 422
    assert sentence in page.words
    assert listed(page) == []
    assert page.form("/requests").method == "get"
    assert page.form("/requests").fields["service"] == ("exchange-online" if "exchange" in query else "")


def test_a_history_search_matches_wildcards_literally(portal: Portal) -> None:
    odd = portal.world.fresh(justification="100% of _all_")
    portal.world.fresh(justification="100 of all")
    browser = portal.by_mail("ann")

    assert listed(browser.get(f"/requests?text={quote('100%')}")) == [str(odd.id)]
    assert listed(browser.get("/requests?text=_all_")) == [str(odd.id)]


@pytest.mark.far
def test_a_history_search_finds_justifications_only_for_people_who_may_read_them(portal: Portal) -> None:
    secret = portal.world.fresh(justification="Numbat in the mailbox")

    found = {
        name: listed(portal.by_mail(name).get("/requests?text=numbat"))
        for name in ("ann", "aude", "max", "erin", "vera", "eve", "olga")
    }

    assert {name for name, ids in found.items() if ids == [str(secret.id)]} == {"ann", "aude", "max", "erin"}
    assert listed(portal.by_mail("vera").get(f"/requests?text={secret.id}")) == [str(secret.id)]
    assert "Numbat" not in portal.by_mail("vera").get("/requests.csv").text


@pytest.mark.far
def test_the_link_to_older_requests_keeps_the_history_filters(open_portal: OpenPortal) -> None:
    portal = open_portal()
    ids = [str(portal.world.fresh(case_ref="MANY").id) for _ in range(51)]
    portal.world.fresh(case_ref="OTHER")
    browser = portal.by_mail("ann")

    first = browser.get("/requests?text=many")
    (older,) = (link for link in first.read.links if "cursor=" in link)
    second = browser.get(older)

    assert listed(first) == ids[:0:-1]
    assert listed(second) == ids[:1]
    assert "text=many" in older
    assert not [link for link in second.read.links if "cursor=" in link]


def test_the_history_of_another_tenant_is_empty(portal: Portal, open_portal: OpenPortal) -> None:
    elsewhere = open_portal()
    portal.world.add("zora", Role.APPROVER, elsewhere.world.tenant.id)
    request = portal.world.fresh()
    browser = portal.by_mail("zora")

    assert str(request.id) not in browser.get("/requests").text
    assert str(request.id) not in browser.get(f"/requests?text={request.id}").words
    assert table(browser.get(f"/requests.csv?text={request.id}")) == []


def test_the_history_csv_obeys_the_filter_and_contains_no_spreadsheet_formulas(portal: Portal) -> None:
    formula = portal.world.fresh(justification="=HYPERLINK(1)", case_ref="@SUM(1)")
    other = portal.world.fresh("eve", justification='A "quoted", odd\nreason')
    browser = portal.by_mail("ann")

    page = browser.get("/requests.csv?engineer=er")
    rows = {row["Request"]: row for row in table(page)}

    assert page.answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert page.answer.headers["content-disposition"] == 'attachment; filename="requests.csv"'
    assert "frame-ancestors 'none'" in page.answer.headers["content-security-policy"]
    assert rows[str(formula.id)]["Justification"] == "'=HYPERLINK(1)"
    assert rows[str(formula.id)]["Case"] == "'@SUM(1)"
    assert rows[str(formula.id)]["State"] == "Waiting for your approval"
    assert str(other.id) not in rows
    (odd,) = (row for row in table(browser.get("/requests.csv")) if row["Request"] == str(other.id))
    assert odd["Justification"] == 'A "quoted", odd\nreason'


def test_a_history_csv_contains_more_rows_than_one_database_read_returns(open_portal: OpenPortal) -> None:
    portal = open_portal()
    request = portal.world.submit()
    put_many(portal, request.id, 450)

    rows = table(portal.by_mail("ann").get("/requests.csv"))

    assert len({row["Request"] for row in rows}) == len(rows) == 451


def test_a_history_csv_with_an_invalid_filter_is_refused(portal: Portal) -> None:
    page = portal.by_mail("ann").get("/requests.csv?state=open")

    assert (page.status, "There is no such state" in page.words) == (422, True)


def test_the_search_text_on_the_history_page_is_escaped(portal: Portal) -> None:
    browser = portal.by_mail("ann")

    for name in ("text", "engineer", "state", "service", "level", "from", "to"):
        page = browser.get(f"/requests?{name}={quote(HOSTILE)}")

        assert "<img" not in page.text
        assert "<script>alert" not in page.text
        assert page.read.forms


def test_an_empty_history_says_what_will_appear(open_portal: OpenPortal) -> None:
    page = open_portal().by_mail("ann").get("/requests")

    assert "There are no requests yet" in page.words


@pytest.fixture
def uncounted(portal: Portal) -> Iterator[None]:
    """Forget all counted downloads, before the test and after it."""
    portal.sql("DELETE FROM sign_in_counts")
    yield
    portal.sql("DELETE FROM sign_in_counts")


@pytest.mark.usefixtures("uncounted")
def test_history_downloads_are_limited_to_sixty_in_ten_minutes(portal: Portal) -> None:
    tara, ann = portal.by_mail("tara"), portal.by_mail("ann")
    token = {"authorization": f"Bearer {portal.world.tokens['tara']}"}

    first = tara.get("/requests.csv")
    portal.sql("UPDATE sign_in_counts SET count = 60")
    refused = [tara.get(path) for path in ("/requests.csv", "/audit-log/export?format=csv")]
    by_token = tara.call("GET", "/v1/audit/export", headers=token)

    assert first.status == 200
    assert [page.status for page in refused] == [429, 429]
    assert "Too many attempts to export; try again in" in refused[0].words
    assert (by_token.status_code, by_token.json()["code"]) == (429, "too-many")
    assert ann.get("/requests.csv").status == 200
