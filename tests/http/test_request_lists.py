"""Lists over HTTP: filters, pages, cursors."""

from typing import Any
from uuid import UUID

import pytest

from lockbox.requests import request_list
from lockbox.sql import new_id
from tests.each import each
from tests.http.door import Door, OpenDoor, facts

# What takes a statement more for each request is shown of a single one alone.
ALONE = (
    "look_alikes",
    "notifications",
    "reach",
    "followed_by",
    "extended_by",
    "decisions",
    "available_moves",
    "approvals",
    "usage",
    "after_review",
)


def ids(door: Door, who: str, **query: Any) -> list[str]:
    answer = door.get(who, "/v1/requests", **query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


def test_a_list_of_requests_is_newest_first_with_the_same_fields_as_single_reads(fresh_door: Door) -> None:
    submitted = [fresh_door.pending(), fresh_door.active(), fresh_door.pending()]

    page = fresh_door.get("erin", "/v1/requests").json()

    assert [item["id"] for item in page["items"]] == submitted[::-1]
    assert page["next_cursor"] is None
    for item in page["items"]:
        shown = fresh_door.get("erin", f"/v1/requests/{item['id']}").json()
        for alone in ALONE:
            shown.pop(alone)
        assert item == shown
    assert [item["open"] for item in page["items"]] == [False, True, False]


def test_an_empty_list_of_requests_is_returned_as_a_list(fresh_door: Door) -> None:
    assert fresh_door.get("erin", "/v1/requests").json() == {"items": [], "next_cursor": None}


@pytest.mark.far
@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_pages_of_requests_skip_and_repeat_no_request_while_new_requests_are_submitted(
    fresh_door: Door, size: int
) -> None:
    submitted = [fresh_door.pending() for _ in range(7)]
    seen: list[str] = []
    cursor: dict[str, str] = {}

    while True:
        page = fresh_door.get("ann", "/v1/requests", limit=size, **cursor).json()
        assert len(page["items"]) <= size
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        fresh_door.pending()
        cursor = {"cursor": page["next_cursor"]}

    assert seen == submitted[::-1]


def test_filters_of_request_lists_combine(fresh_door: Door) -> None:
    door = fresh_door
    mine, other = door.pending("erin"), door.pending("eve", service="onedrive")
    opened = door.active("eve")
    eve = str(door.world.people["eve"].person_id)
    when = door.get("ann", f"/v1/requests/{other}").json()["created_at"]

    assert ids(door, "ann") == [opened, other, mine]
    assert ids(door, "ann", state="active") == [opened]
    assert ids(door, "ann", state="pending") == [other, mine]
    assert ids(door, "ann", service="onedrive") == [other]
    assert ids(door, "ann", service="onedrive", level="read") == [other]
    assert ids(door, "ann", level="admin") == []
    assert ids(door, "ann", requester=eve) == [opened, other]
    assert ids(door, "ann", requester=eve, state="pending") == [other]
    assert ids(door, "ann", created_after=when) == [opened]
    assert ids(door, "ann", created_before=when) == [mine]
    assert ids(door, "ann", service="sharepoint-online") == []
    assert ids(door, "ann", requester=str(UUID(int=0))) == []
    assert ids(door, "erin", requester=eve) == []


def test_a_filter_of_a_request_list_applies_to_all_pages(fresh_door: Door) -> None:
    wanted = []
    for _ in range(3):
        wanted.append(fresh_door.pending("erin"))
        fresh_door.pending("eve")
    query = {"requester": str(fresh_door.world.people["erin"].person_id), "limit": 2}

    first = fresh_door.get("ann", "/v1/requests", **query).json()
    second = fresh_door.get("ann", "/v1/requests", cursor=first["next_cursor"], **query).json()

    assert [item["id"] for item in first["items"] + second["items"]] == wanted[::-1]
    assert second["next_cursor"] is None


def test_a_list_cursor_of_another_tenant_is_refused(door: Door, fresh_door: Door) -> None:
    for _ in range(2):
        door.pending()
        fresh_door.pending()
    cursor = door.get("ann", "/v1/requests", limit=1).json()["next_cursor"]

    items = fresh_door.get("ann", "/v1/requests", cursor=cursor).json()["items"]

    assert {item["tenant"] for item in items} <= {fresh_door.world.tenant.slug}


@each("cursor", ["", "x", "AAAA", "A" * 23, "Ä" * 22, "A" * 101, "\x00" * 22, "{}", "%00", "0" * 100, "🔐"])
def test_an_invented_list_cursor_is_refused(door: Door, cursor: str) -> None:
    facts(door.get("erin", "/v1/requests", cursor=cursor), 422, "invalid-request")


@pytest.mark.parametrize("limit", [1, 200])
def test_a_page_of_a_request_list_has_1_to_200_items(door: Door, limit: int) -> None:
    assert door.get("erin", "/v1/requests", limit=limit).status_code == 200


@each(
    "query",
    [
        {"limit": 0},
        {"limit": 201},
        {"limit": -1},
        {"limit": "many"},
        {"limit": "1.5"},
        {"limit": "9" * 5000},
        {"state": "open"},
        {"state": "pending\x00"},
        {"service": "\x00"},
        {"service": "Exchange Online"},
        {"service": "' OR 1=1 --"},
        {"requester": "erin"},
        {"requester": "\x00"},
        {"created_after": "yesterday"},
        {"created_after": "2026-01-01"},
        {"created_after": "2026-01-01T00:00:00"},
        {"created_before": "\x00"},
        {"created_before": "99999-01-01T00:00:00Z"},
    ],
)
def test_an_invalid_filter_of_a_request_list_is_refused(door: Door, query: dict[str, Any]) -> None:
    facts(door.get("erin", "/v1/requests", **query), 422, "invalid-request")


@pytest.mark.parametrize(
    "moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "1970-01-01T00:00:00Z", "0", "-1e11"]
)
def test_a_filter_time_at_the_edge_of_the_calendar_is_no_internal_error(door: Door, moment: str) -> None:
    for name in ("created_after", "created_before"):
        answer = door.get("erin", "/v1/requests", **{name: moment})

        assert answer.status_code in {200, 422}, answer.text


def test_a_text_search_in_requests_covers_only_what_the_reader_may_read(fresh_door: Door) -> None:
    door, word = fresh_door, f"quokka {new_id()}"
    mine = door.pending("erin", justification=f"A {word} sits in it", case_ref="CASE-7")
    other = door.pending("eve", case_ref="CASE-8")

    assert ids(door, "ann", text=word.upper()) == ids(door, "max", text=word) == ids(door, "ann", engineer="rin")
    assert ids(door, "ann", text=word.upper()) == [mine]
    assert ids(door, "vera", text=word, requester=str(door.world.people["erin"].person_id)) == []
    assert ids(door, "ann", text="case-") == [other, mine]
    assert ids(door, "ann", text="case-", engineer="eve") == [other]
    assert ids(door, "ann", text="%") == []


def test_the_next_page_of_a_text_search_continues_after_the_rows_already_searched(
    fresh_door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = fresh_door.pending(case_ref="CASE-7")
    for _ in range(4):
        fresh_door.pending(case_ref=None)
    monkeypatch.setattr(request_list, "LOOKED_THROUGH", 3)

    first = fresh_door.get("ann", "/v1/requests", text="case-7").json()
    second = fresh_door.get("ann", "/v1/requests", text="case-7", cursor=first["next_cursor"]).json()

    assert first["items"] == []
    assert [item["id"] for item in second["items"]] == [wanted]
    assert second["next_cursor"] is None


@pytest.mark.far
@pytest.mark.parametrize("who", ["ann", "max", "erin"])
@pytest.mark.parametrize("size", [1, 2, 50])
def test_a_request_list_filtered_without_an_index_is_searched_to_the_end(
    fresh_door: Door, monkeypatch: pytest.MonkeyPatch, who: str, size: int
) -> None:
    services = ["onedrive", None, None, "onedrive", "onedrive", None, None, None, "onedrive"]
    submitted = [fresh_door.pending(**({"service": service} if service else {})) for service in services]
    monkeypatch.setattr(request_list, "LOOKED_THROUGH", 2)

    seen = [one for one in _all(fresh_door, who, service="onedrive", limit=size) if one in submitted]

    assert seen == [submitted[place] for place in (8, 4, 3, 0)]


@pytest.mark.far
@pytest.mark.parametrize("most", [1, 4])
def test_a_member_of_several_tenants_sees_all_requests_in_one_order(
    fresh_door: Door, open_door: OpenDoor, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    other = open_door()
    fresh_door.run_sql(
        "INSERT INTO memberships (id, person_id, tenant_id, role) VALUES (uuidv7(), :who, :tenant, 'auditor')",
        who=fresh_door.world.people["ann"].person_id,
        tenant=other.world.tenant.id,
    )
    submitted = [door.pending() for door in (fresh_door, other, other, fresh_door, other)]
    monkeypatch.setattr(request_list, "LOOKED_THROUGH", most)

    assert ids(fresh_door, "ann") == ids(fresh_door, "ann", state="pending") == submitted[::-1]
    assert _all(fresh_door, "ann", text="mailbox") == _all(fresh_door, "ann") == submitted[::-1]


def _all(door: Door, who: str, **query: Any) -> list[str]:
    seen, cursor = list[str](), dict[str, str]()
    while True:
        page = door.get(who, "/v1/requests", **query, **cursor).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            return seen
        cursor = {"cursor": page["next_cursor"]}
