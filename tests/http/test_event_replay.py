"""Events are replayed to people who may read their log: as webhooks get them, in order, and without gaps."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from harness.people import HERE, SETTINGS
from lockbox.database import Database
from lockbox.requests import submit
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag
from tests.database.scenes import read_as_is
from tests.http.door import Door, OpenDoor, facts
from tests.logs import sealed

PATH = "/v1/events"
QUEUED = "SELECT event_id AS id FROM outbox WHERE tenant_id = :tenant"
OPEN = "SELECT id FROM notifications WHERE closed_at IS NULL AND tenant_id = :tenant"


def replayed(door: Door, who: str = "aude", **query: object) -> dict[str, Any]:
    answer = door.get(who, PATH, **({"tenant": door.world.tenant.slug} | query))
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def everything(door: Door, limit: int, after: str | None = None) -> tuple[list[dict[str, Any]], str]:
    """Return all events that follow, read page by page, and the cursor at their end."""
    items: list[dict[str, Any]] = []
    while True:
        page = replayed(door, limit=limit, **({"after": after} if after else {}))
        assert len(page["items"]) <= limit
        items, after = items + page["items"], str(page["next_cursor"])
        if not page["more"]:
            return items, after


@pytest.fixture
def door(fresh_door: Door, worker: Database) -> Door:
    """A tenant with an approved request, a denied one, and a change of a member, all of it sealed."""
    opened = fresh_door.file().json()["id"]
    fresh_door.act("ann", "approve", opened)
    fresh_door.act("amir", "deny", fresh_door.file(resources=["mailbox:bert@contoso.example"]).json()["id"])
    sealed(worker)
    return fresh_door


@pytest.mark.far
def test_replayed_events_equal_the_webhook_calls(fresh_door: Door, worker: Database) -> None:
    post = Postbag(public_url="http://127.0.0.1:8000")
    world = fresh_door.world
    post.endpoint(world, "https://customer.example/", tenant_id=world.tenant.id)
    start = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    names = ["mailbox:аnna@contoso.example"]  # noqa: RUF001
    opened = fresh_door.file(resources=names, not_before=start, severity="S2").json()["id"]
    fresh_door.act("ann", "approve", opened)
    fresh_door.act("ann", "revoke", opened)
    added = fresh_door.call("tara", "POST", f"/v1/tenants/{world.tenant.slug}/observers", json={
        "name": "Olga", "address": "olga@contoso.example"
    })  # fmt: skip
    assert added.status_code == 201, added.text
    for query in (QUEUED, OPEN):
        post.deliver(worker, [row.id for row in read_as_is(worker, query, tenant=world.tenant.id)])
    sealed(worker)

    called = [json.loads(hook.body) for hook in post.hooks.sent]
    items = replayed(fresh_door)["items"]

    assert [one["sequence"] for one in called] == [1, 2, 3, 4]
    assert [one["type"] for one in items] == [
        "request.submitted",
        "request.approved",
        "request.revoked",
        "tenant.observer_added",
    ]
    assert {"opens_at", "severity", "level"} <= items[1]["data"].keys()
    for call, item in zip(called, items, strict=True):
        assert item["id"] == item["event_id"] == call["event_id"]
        own = {name: value for name, value in call.items() if name not in {"id", "sequence", "previous"}}
        assert own == {name: value for name, value in item.items() if name != "id"}


@pytest.mark.parametrize("limit", [1, 3, 200])
def test_the_event_replay_always_returns_a_cursor_to_continue_from(door: Door, worker: Database, limit: int) -> None:
    items, cursor = everything(door, limit)
    again, same = everything(door, limit, cursor)
    door.file(resources=["mailbox:carl@contoso.example"])
    unsealed, _ = everything(door, limit, cursor)
    sealed(worker)
    later, _ = everything(door, limit, cursor)

    assert [one["type"].removeprefix("request.") for one in items] == ["submitted", "approved", "submitted", "denied"]
    assert (again, same) == ([], cursor)
    assert unsealed == []
    assert [one["type"] for one in later] == ["request.submitted"]


@pytest.mark.far
def test_the_event_replay_does_not_skip_an_event_committed_late(door: Door, worker: Database) -> None:
    _, cursor = everything(door, 200)
    world = door.world
    with world.db.transaction() as slow:
        late = submit.submit(
            slow, world.people["erin"], HERE, world.submission(), SETTINGS.catalogue.services
        ).request.id
        quick = door.file(resources=["mailbox:carl@contoso.example"]).json()["id"]
        sealed(worker)
        first, cursor = everything(door, 200, cursor)
    sealed(worker)
    second, _ = everything(door, 200, cursor)

    assert [one["data"]["request_id"] for one in first] == [quick]
    assert [one["data"]["request_id"] for one in second] == [str(late)]
    assert second[0]["timestamp"] < first[0]["timestamp"]


@pytest.mark.far
def test_the_event_replay_refuses_an_invalid_cursor_and_a_cursor_of_another_log(
    door: Door, open_door: OpenDoor, worker: Database
) -> None:
    cursor = replayed(door)["next_cursor"]
    other = open_door()
    other.file()
    sealed(worker)

    for wrong in (cursor, "no", "-", cursor[:-2], "A" * 64):
        facts(other.get("aude", PATH, tenant=other.world.tenant.slug, after=wrong), 422, "invalid-request")
    facts(door.get("aude", PATH, tenant=door.world.tenant.slug, after=cursor, limit=201), 422, "invalid-request")


@pytest.mark.far
def test_the_event_replay_begins_at_the_oldest_kept_event_and_refuses_older_cursors(door: Door) -> None:
    items, _ = everything(door, 200)
    old, kept = (replayed(door, limit=limit)["next_cursor"] for limit in (1, 2))
    door.run_sql("UPDATE logs SET kept_from = 2, cleared_to = 2 WHERE id = :id", id=door.world.tenant.id)

    again, _ = everything(door, 200)

    assert [one["id"] for one in again] == [one["id"] for one in items[2:]]
    assert everything(door, 200, kept)[0] == again
    facts(door.get("aude", PATH, tenant=door.world.tenant.slug, after=old), 422, "invalid-request")


def test_vendor_only_events_are_replayed_to_vendor_auditors_only(open_door: OpenDoor, worker: Database) -> None:
    reviewed = open_door(Policy())
    asked = reviewed.file().json()["id"]
    sealed(worker)

    ours = [one for one in reviewed.get("vera", PATH).json()["items"] if one["data"].get("request_id") == asked]
    theirs = [one for one in replayed(reviewed)["items"] if one["data"].get("request_id") == asked]

    assert [(one["type"], one["data"]["state"]) for one in ours] == [("request.submitted", "reviewing")]
    assert theirs == []
