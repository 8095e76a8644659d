"""Cases: named with their ticket system and page, demanded by a pattern, closed by their system; and duplicates."""

from typing import Any

import pytest
from httpx import Response

from catalogue.service_catalogue import CaseSystem
from harness.people import WITHOUT_REVIEW
from lockbox.identity.roles import BOUND_TO, Role, Scope
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.database.scenes import many, set_back
from tests.each import each
from tests.http.door import Door, OpenDoor, facts
from tests.http.portal import OpenPortal
from tests.policy_setup import lay_down

PAGE = "https://helpdesk.vendor.example/cases/CASE-7"
EVENTS = "SELECT convert_from(body, 'UTF8') AS body FROM events WHERE request_id = :id ORDER BY seq"


@pytest.fixture(scope="module")
def desk(open_door: OpenDoor) -> Door:
    door = open_door()
    bounds = {Scope.CASE_CLOSE.value, f"{BOUND_TO}{door.world.tenant.slug}"}
    door.world.add("desk", Role.SYSTEM, scopes=bounds)
    door.world.add("foreign", Role.SYSTEM, scopes={Scope.CASE_CLOSE.value, f"{BOUND_TO}nobodys"})
    door.world.add("unbound", Role.SYSTEM, scopes={Scope.REQUESTS_FILE})
    return door


def closed(door: Door, case: str, who: str = "desk", system: str = "helpdesk") -> Response:
    return door.call(who, "POST", f"/v1/cases/{system}/{case}/closed")


def of_case(door: Door, case: str, **changes: Any) -> str:
    """Submit a request for a case, and return its id."""
    named = {"case_ref": case, "case_system": "helpdesk", "resources": [f"mailbox:{new_id()}@contoso.example"]}
    answer = door.file(**(named | changes))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_a_request_names_the_ticket_system_and_web_page_of_its_support_case(desk: Door) -> None:
    view = desk.file(case_ref="CASE-7", case_system="helpdesk", case_url=PAGE).json()

    assert (view["case_system"], view["case_url"]) == ("helpdesk", PAGE)
    found = desk.get("ann", "/v1/requests", text="helpdesk.vendor.example/cases/CASE-7").json()["items"]
    assert [one["id"] for one in found] == [view["id"]]


@each(
    ("changes", "field"),
    [
        ({"case_url": "http://helpdesk.vendor.example/7"}, "case_url"),
        ({"case_url": "https://elsewhere.example/7"}, "case_url"),
        ({"case_url": "https://helpdesk.vendor.example@evil.example/7"}, "case_url"),
        ({"case_url": "javascript:alert(1)"}, "case_url"),
        ({"case_url": "https://helpdesk.vendor.example/cases/../logout"}, "case_url"),
        ({"case_url": "https://helpdesk.vendor.example/cases/.%2E/logout"}, "case_url"),
        ({"case_url": "https://helpdesk.vendor.example/cases/%2e"}, "case_url"),
        ({"case_system": "zendesk"}, "case_system"),
        ({"case_ref": None, "case_url": PAGE}, "case_ref"),
    ],
)
def test_a_case_page_or_system_unknown_to_the_catalogue_is_refused(
    desk: Door, changes: dict[str, Any], field: str
) -> None:
    before = desk.rows()

    body = facts(desk.file(**({"case_system": "helpdesk"} | changes)), 422, "invalid-request")

    named = [one["field"] for one in body.get("errors", [{"field": body.get("field")}])]
    assert named == [field]
    assert desk.rows() == before


def test_a_case_number_must_fit_the_policys_format(open_door: OpenDoor) -> None:
    door = open_door(Policy(vendor_review=False, case_patterns=["INC*|CASE-*", "*7"]))

    body = facts(door.file(case_ref="CASE-8"), 422, "policy-not-met")

    assert body["field"] == "case_ref"
    assert door.file(case_ref="CASE-7").status_code == 201
    assert door.file(case_ref=None).status_code == 201


def test_a_duplicate_request_without_a_reason_is_refused_with_the_first_requests_id(desk: Door) -> None:
    resource = f"mailbox:{new_id()}@contoso.example"
    first = of_case(desk, "CASE-20", resources=[resource])
    again: dict[str, Any] = {"case_ref": "CASE-20", "resources": [f"mailbox:{new_id()}@contoso.example", resource]}

    refused = facts(desk.file(**again, duplicate_reason=None), 409, "duplicate-request")
    previewed = desk.call("erin", "POST", "/v1/requests/preview", json=desk.world.body(**again))
    second = desk.file(**again, duplicate_reason="The first is read-only").json()

    assert (refused["request_id"], refused["field"]) == (first, "duplicate_reason")
    assert previewed.json()["duplicate_of"] == first
    assert (second["duplicate_of"], second["duplicate_reason"]) == (first, "The first is read-only")
    shown = desk.get("ann", f"/v1/requests/{second['id']}").json()
    assert shown["duplicate_reason"] == "The first is read-only"
    assert f'"duplicate_of":"{first}"' in _bodies(desk, second["id"])[0]


def test_a_request_is_no_duplicate_if_case_or_person_differ_or_the_first_request_ended(desk: Door) -> None:
    resource = f"mailbox:{new_id()}@contoso.example"
    asked: dict[str, Any] = {"resources": [resource], "duplicate_reason": None}
    first = of_case(desk, "CASE-21", **asked)

    assert desk.file(case_ref="CASE-22", **asked).status_code == 201
    assert desk.file("eve", case_ref="CASE-21", **asked).status_code == 201
    assert desk.file(case_ref=None, **asked).status_code == 201
    assert desk.act("erin", "cancel", first).status_code == 200
    assert desk.file(case_ref="CASE-21", **asked).status_code == 201


def test_a_closed_case_cancels_pending_and_revokes_open_requests(desk: Door) -> None:
    waiting, opened, other = (of_case(desk, case) for case in ("CASE-30", "CASE-30", "CASE-31"))
    desk.act("ann", "approve", opened)

    answer = closed(desk, "CASE-30")

    tenant = desk.world.tenant.slug
    assert answer.status_code == 200
    assert answer.json() == {
        "case_system": "helpdesk",
        "case_ref": "CASE-30",
        "ended": [
            {"request_id": waiting, "tenant": tenant, "state": "cancelled"},
            {"request_id": opened, "tenant": tenant, "state": "revoked"},
        ],
        "left": 0,
    }
    assert desk.get("erin", f"/v1/requests/{other}").json()["state"] == "pending"
    for request_id in (waiting, opened):
        last = desk.get("ann", f"/v1/requests/{request_id}/events").json()["items"][-1]
        assert (last["role"], last["comment"]) == ("system", "The support case was closed.")
        assert '"reason":"case_closed"' in _bodies(desk, request_id)[-1]
    assert closed(desk, "CASE-30").json()["ended"] == []


def test_a_closed_case_ends_a_review(desk: Door) -> None:
    lay_down(desk.world, vendor_review=True)
    request_id = of_case(desk, "CASE-32")
    lay_down(desk.world)

    assert [one["state"] for one in closed(desk, "CASE-32").json()["ended"]] == ["cancelled"]
    assert desk.get("max", f"/v1/requests/{request_id}").json()["state"] == "cancelled"


def test_a_token_for_closing_cases_works_only_for_its_own_ticket_system_and_tenants(desk: Door) -> None:
    request_id = of_case(desk, "CASE-33")

    assert closed(desk, "CASE-33", "foreign").json()["ended"] == []
    for who in ("unbound", "gate", "erin", "ann", "max", "olga"):
        if who in desk.world.tokens:
            facts(closed(desk, "CASE-33", who), 403, "wrong-role")
    facts(closed(desk, "CASE-33", system="zendesk"), 404, "not-found")
    assert desk.get("erin", f"/v1/requests/{request_id}").json()["state"] == "pending"
    for path in ("/v1/requests", f"/v1/requests/{request_id}"):
        assert request_id not in desk.get("desk", path).text


@each(
    "ref", ["CASE-3%25", "CASE-3*", "CASE-3_", "case-34", "CASE-34%CC%81", "%EF%BC%A3ASE-34", "CASE-3%27%20OR%20%271"]
)
def test_a_case_reference_is_compared_exactly(desk: Door, ref: str) -> None:
    request_id = of_case(desk, "CASE-34")

    assert closed(desk, ref).json()["ended"] == []
    assert desk.get("erin", f"/v1/requests/{request_id}").json()["state"] == "pending"


@each("ref", ["C" * 101, "CASE%00", "CASE%0A34", "CASE-%E2%80%AE43"])
def test_an_invalid_case_reference_is_refused(desk: Door, ref: str) -> None:
    facts(closed(desk, ref), 422, "invalid-request")


@pytest.mark.far
def test_closing_a_case_ends_at_most_100_requests_per_call_and_skips_overdue_requests(desk: Door) -> None:
    ids = many(desk.world, 250, case_ref="CASE-35", case_system="helpdesk")
    set_back(desk.root, ids[:120], 60)

    answers = [closed(desk, "CASE-35").json() for _ in range(3)]

    assert [(len(answer["ended"]), answer["left"]) for answer in answers] == [(100, 30), (30, 0), (0, 0)]
    assert sorted(one["request_id"] for answer in answers for one in answer["ended"]) == sorted(map(str, ids[120:]))


def test_a_token_for_closing_cases_names_the_tenants_it_may_act_for(desk: Door) -> None:
    slug = desk.world.tenant.slug
    body = {"name": "desk", "scopes": ["case:close"]}

    without = desk.call("desk", "POST", "/v1/tokens", json=body)
    unknown = desk.call("desk", "POST", "/v1/tokens", json=body | {"tenants": ["no-such-tenant"]})
    made = desk.call("desk", "POST", "/v1/tokens", json=body | {"tenants": [slug]})

    assert facts(without, 422, "invalid-request")["field"] == "tenants"
    facts(unknown, 422, "unknown-tenant")
    assert (made.json()["scopes"], made.json()["tenants"]) == (["case:close"], [slug])


@pytest.mark.far
def test_the_request_form_accepts_a_ticket_system_and_a_case_link_and_a_duplicate_reason(
    open_portal: OpenPortal,
) -> None:
    portal = open_portal(WITHOUT_REVIEW)
    browser = portal.by_mail("erin")
    form = {
        "tenant": portal.world.tenant.slug,
        "service": "exchange-online",
        "resources": "mailbox:anna@contoso.example",
        "actions": "read",
        "reason_code": "support_case",
        "justification": "It does not open",
        "case_ref": "CASE-7",
        "case_system": "helpdesk",
        "case_url": PAGE,
        "access_window": "1800",
    }
    first = browser.submit(browser.submit(browser.get("/ask"), "/ask/preview", **form), "/ask")
    previewed = browser.submit(browser.get("/ask"), "/ask/preview", **form)
    because = {"duplicate_reason": "The <b>first</b> is read-only"}

    second = browser.submit(browser.submit(previewed, "/ask/preview", **form, **because), "/ask")

    assert f'href="{PAGE}"' in first.text
    assert "in Helpdesk" in first.words
    assert "This request would be rejected" in previewed.words
    assert f'href="{first.path}"' in previewed.text
    assert "The &lt;b&gt;first&lt;/b&gt; is read-only" in second.text
    assert f'href="{first.path}"' in second.text


def test_a_case_that_names_no_ticket_system_belongs_to_the_only_configured_ticket_system(desk: Door) -> None:
    systems = {name: CaseSystem(title=name, address=f"https://{name}.example/") for name in ("jira", "zendesk")}
    catalogue = desk.settings.catalogue.model_copy(update={"case_systems": systems})
    other = desk.with_settings(catalogue=catalogue)

    unnamed = desk.file(case_ref="CASE-40").json()["id"]
    page = PAGE.replace("CASE-7", "CASE-40")
    paged = desk.file(case_ref="CASE-40", case_url=page).json()

    assert "jira, zendesk" in facts(other.file(case_system="helpdesk"), 422, "invalid-request")["detail"]
    assert "Name the ticket system" in facts(other.file(case_url=PAGE), 422, "invalid-request")["detail"]
    assert (paged["case_system"], paged["case_url"]) == ("helpdesk", page)
    without = desk.with_settings(catalogue=desk.settings.catalogue.model_copy(update={"case_systems": {}}))
    refused = facts(without.file(case_url=PAGE), 422, "invalid-request")
    assert (refused["field"], "No ticket system is configured" in refused["detail"]) == ("case_url", True)
    assert closed(other, "CASE-40", system="jira").json()["ended"] == []
    assert [one["request_id"] for one in closed(desk, "CASE-40").json()["ended"]] == [unnamed, paged["id"]]


def _bodies(door: Door, request_id: str) -> list[str]:
    with door.root.connect() as connection:
        return [str(row.body) for row in connection.exec_driver_sql(EVENTS.replace(":id", f"'{request_id}'"))]
