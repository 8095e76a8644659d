"""Webhooks over HTTP: a secret is in one answer only, input is checked, and the log is read in pages."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from lockbox.admin.webhooks import OF_REQUESTS, OF_TENANTS
from lockbox.sql import new_id
from tests.each import each
from tests.http.door import Door, facts
from tests.http.places import delivery, endpoint

URL = "https://hooks.contoso.example/lockbox"


def add(door: Door, who: str = "tara", **changes: Any) -> dict[str, Any]:
    slug = door.world.tenant.slug
    path = f"/v1/tenants/{slug}/endpoints" if who == "tara" else "/v1/vendor/endpoints"
    answer = door.call(who, "POST", path, json={"url": URL} | changes)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["location"] == f"/v1/endpoints/{body['id']}"
    return body


@pytest.mark.parametrize("who", ["tara", "olga"])
def test_the_secret_of_a_webhook_is_shown_once(fresh_door: Door, who: str) -> None:
    added = add(fresh_door, who, description="Ours", event_types=["request.submitted", "request.submitted"])
    rotated = fresh_door.call(who, "POST", f"/v1/endpoints/{added['id']}/rotate")
    place = f"/v1/tenants/{fresh_door.world.tenant.slug}/endpoints" if who == "tara" else "/v1/vendor/endpoints"

    listed = fresh_door.get(who, place)
    shown = fresh_door.get(who, f"/v1/endpoints/{added['id']}")

    assert added["secret"].startswith("whsec_")
    assert added["public_key"].startswith("whpk_")
    assert rotated.json()["secret"] not in {added["secret"], None}
    assert rotated.headers["cache-control"] == "no-store"
    assert rotated.json()["public_key"] != added["public_key"]
    assert rotated.json()["old_secret_until"] is not None
    assert shown.json() in listed.json()["items"]
    assert shown.json()["event_types"] == ["request.submitted"]
    assert "whsec_" not in listed.text + shown.text
    assert "whsk_" not in listed.text + shown.text + rotated.text


def test_rotating_a_webhook_secret_without_overlap_ends_the_old_secret_at_once(fresh_door: Door) -> None:
    added = add(fresh_door)

    rotated = fresh_door.call("tara", "POST", f"/v1/endpoints/{added['id']}/rotate", json={"overlap_hours": 0})

    assert rotated.json()["old_secret_until"] is None


@pytest.mark.far
@each(
    "change",
    [
        {"url": "http://hooks.contoso.example/"},
        {"url": "https://10.0.0.1/"},
        {"url": "https://user:secret@hooks.contoso.example/"},
        {"url": "https://hooks.contoso.example/ä"},
        {"url": "https://hooks.contoso.example/a b"},
        {"url": "https://xn--/"},
        {"url": "https://xn--a/"},
        {"url": "https://hooks.xn--zzzzzz99999/"},
        {"url": "https://hooks.contoso.example:0/"},
        {"url": "https://hooks.contoso.example:65536/"},
        {"url": "https://hooks.contoso.example:-1/"},
        {"url": "https://hooks.contoso.example/" + "x" * 2000},
        {"url": 5},
        {"event_types": ["request.nothing"]},
        {"event_types": ["Request.active"]},
        {"event_types": "request.approved"},
        {"description": "a\nb"},
        {"description": "x" * 201},
        {"format": "xml"},
        {"with_justification": "yes"},
        {"secret": "whsec_mine"},
    ],
)
def test_an_invalid_webhook_is_refused_and_nothing_is_written(door: Door, change: dict[str, Any]) -> None:
    added = endpoint(door)
    before = door.rows()

    made = door.call("tara", "POST", f"/v1/tenants/{door.world.tenant.slug}/endpoints", json={"url": URL} | change)
    changed = door.call("tara", "PATCH", f"/v1/endpoints/{added}", json=change)

    for answer in (made, changed):
        facts(answer, 422, "invalid-request")
        assert "secret@" not in answer.text
    assert door.rows() == before


def test_only_a_vendor_webhook_may_be_in_a_private_network_of_the_settings(fresh_door: Door) -> None:
    door, body = (
        fresh_door.with_settings(private_networks=(ip_network("10.20.0.0/16"),)),
        {"url": "https://10.20.0.7/"},
    )

    assert add(door, "olga", **body)["url"] == body["url"]
    facts(door.call("tara", "POST", door.path("/endpoints"), json=body), 422, "invalid-request")


@pytest.mark.parametrize("body", [{}, {"url": None}, {"enabled": None}, {"event_types": None}, {"disabled_at": None}])
def test_a_change_of_a_webhook_needs_at_least_one_field(door: Door, body: dict[str, Any]) -> None:
    answer = door.call("tara", "PATCH", f"/v1/endpoints/{endpoint(door)}", json=body)

    facts(answer, 422, "invalid-request")


def test_fields_omitted_in_a_change_of_a_webhook_stay_unchanged(fresh_door: Door) -> None:
    added = add(fresh_door, description="Ours", format="slack", event_types=["request.approved"])
    path = f"/v1/endpoints/{added['id']}"

    fresh_door.call("tara", "PATCH", path, json={"with_justification": True})
    changed = fresh_door.call("tara", "PATCH", path, json={"description": None, "enabled": False}).json()

    assert (changed["url"], changed["format"], changed["event_types"]) == (URL, "slack", ["request.approved"])
    assert (changed["with_justification"], changed["description"], changed["why_disabled"]) == (True, "", "by_hand")


def test_the_delivery_log_is_read_in_pages_newest_first(fresh_door: Door) -> None:
    tried = delivery(fresh_door)
    (row,) = fresh_door.get("tara", f"/v1/tenants/{fresh_door.world.tenant.slug}/endpoints").json()["items"]
    more = (
        "INSERT INTO deliveries "
        "SELECT uuidv7(), notification_id, endpoint_id, event_type, now(), 9, 500, 'no', 'status' "
        "FROM deliveries WHERE id = :d"
    )
    for _ in range(4):
        fresh_door.run_sql(more, d=tried)
    path, seen, cursor = f"/v1/endpoints/{row['id']}/deliveries", [], None

    while True:
        page = fresh_door.get("tara", path, limit=2, **({"cursor": cursor} if cursor else {})).json()
        seen += page["items"]
        if (cursor := page["next_cursor"]) is None:
            break

    assert [one["status"] for one in seen] == [500, 500, 500, 500, 204]
    assert seen[-1]["id"] == str(tried)
    assert len({one["id"] for one in seen}) == 5
    assert {one["error"] for one in seen} == {"status", None}


def test_an_unfinished_webhook_call_cannot_be_repeated(fresh_door: Door) -> None:
    tried = delivery(fresh_door)
    path = f"/v1/deliveries/{tried}/redeliver"

    first, second = (fresh_door.call("tara", "POST", path) for _ in range(2))

    assert UUID(first.json()["webhook_id"])
    facts(second, 409, "still-waiting")
    facts(fresh_door.call("tara", "POST", f"/v1/deliveries/{new_id()}/redeliver"), 404, "not-found")


def test_the_request_shows_last_and_next_send_attempt_for_each_notified_person(fresh_door: Door) -> None:
    request = fresh_door.pending()
    tried = "INSERT INTO deliveries SELECT uuidv7(), n.id, NULL, 'request.denied', now(), 12, :s, 'full', 'status' "
    tried += "FROM notifications n JOIN people p ON p.id = n.person_id WHERE n.request_id = :r AND p.name = 'Amir'"
    for status in (450, 452):
        fresh_door.run_sql(tried, r=request, s=status)

    told = {
        one["recipient"]: one for one in fresh_door.get("ann", f"/v1/requests/{request}/notifications").json()["own"]
    }

    assert told["Amir"]["last_try"]["status"] == 452
    assert told["Amir"]["last_try"]["took_ms"] == 12
    assert told["Amir"]["next_try_at"] is not None
    assert told["Ann"]["last_try"] is None
    assert told["Ann"]["outcome"] == "waiting"


def test_the_api_document_lists_every_webhook_event_type() -> None:
    schema = Path("api/openapi.json").read_text()

    assert all(f"{one}," in schema or f"{one} " in schema for one in OF_REQUESTS | OF_TENANTS)
