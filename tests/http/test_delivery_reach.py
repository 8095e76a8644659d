"""Delivery over HTTP: unreached people are shown to the parties concerned, and to operators without content."""

import json
import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from harness.clocks import ShiftedClock
from harness.stage import setting
from lockbox.database import Database
from lockbox.notifications import endpoints
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests import timers
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, address
from tests.http.door import Door, OpenDoor, facts


def deliver(door: Door, worker: Database, request_id: str, *, refused: Iterable[str]) -> None:
    """Send the open notifications of a request; mails to the people in `refused` fail permanently."""
    post = Postbag()
    for name in refused:
        failure = SendFailed("550 no such mailbox here", permanent=True, kind="status")
        post.mail.refused[address(door.db, door.world, name)] = failure
    door.fan_out()
    with door.root.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT id FROM notifications WHERE request_id = %s AND closed_at IS NULL", (request_id,)
        ).all()
    post.deliver(worker, [row.id for row in rows])


def shown(door: Door, who: str, request_id: str) -> dict[str, Any]:
    found: dict[str, Any] = door.get(who, f"/v1/requests/{request_id}").json()["reach"]
    return found


def run_out(worker: Database, request_id: str) -> None:
    late = ShiftedClock()
    late.shift = timedelta(hours=12)
    timers.run(Database(worker.engine, worker.schedule, late), [UUID(request_id)])


def test_both_parties_see_how_many_prompts_could_not_be_delivered(door: Door, worker: Database) -> None:
    request_id = door.pending()
    before = shown(door, "erin", request_id)

    deliver(door, worker, request_id, refused=["abe", "amir"])

    assert before == {"stage": "pending", "asked": 3, "reached": 0, "waiting": 3, "unreached": 0, "sentence": ""}
    after = {
        "stage": "pending",
        "asked": 3,
        "reached": 1,
        "waiting": 0,
        "unreached": 2,
        "sentence": "Two of three approvers could not be reached.",
    }
    assert [shown(door, who, request_id) for who in ("erin", "max", "ann", "tara", "aude")] == [after] * 5


def test_during_a_review_the_vendor_sees_how_many_managers_could_not_be_reached(
    open_door: OpenDoor, worker: Database
) -> None:
    door = open_door(Policy())
    request_id = door.pending()

    deliver(door, worker, request_id, refused=["max"])

    found = shown(door, "erin", request_id)
    assert (found["stage"], found["unreached"], found["waiting"]) == ("reviewing", 1, 0)
    assert re.fullmatch(r"One of \w+ managers could not be reached\.", found["sentence"])


def test_failed_deliveries_to_vendor_people_are_shown_to_the_vendor_only(
    open_door: OpenDoor, worker: Database
) -> None:
    door = open_door(Policy())
    request_id = door.pending()
    deliver(door, worker, request_id, refused=["max"])
    door.act("max", "endorse", request_id)

    hers, theirs = (door.get(who, f"/v1/requests/{request_id}/events").json()["items"] for who in ("ann", "mia"))
    counted = door.get("ann", f"/v1/requests/{request_id}/notifications").json()["other"]

    said = [event["notified"] for event in theirs if event["action"] == "notified"]
    assert len(said) == 1, said
    (told,) = said
    assert (told["of_seq"], told["dead"]) == (1, 1)
    assert "Max" in {one["name"] for one in told["recipients"] if one["outcome"] == "dead"}
    assert {event["action"] for event in hers} == {"submit", "endorse"}
    assert counted["dead"] == 0


def test_an_answered_request_no_longer_mentions_undelivered_prompts(door: Door, worker: Database) -> None:
    request_id = door.pending()
    deliver(door, worker, request_id, refused=["abe"])

    door.act("ann", "deny", request_id)

    found = shown(door, "erin", request_id)
    assert (found["unreached"], found["sentence"]) == (1, "")


def test_the_timeline_names_notified_people_only_to_their_own_side(door: Door, worker: Database) -> None:
    request_id = door.pending()
    deliver(door, worker, request_id, refused=["abe"])
    path = f"/v1/requests/{request_id}/events"

    theirs, ours, auditors = (door.get(who, path) for who in ("ann", "erin", "vera"))

    items = theirs.json()["items"]
    assert [one["action"] for one in items] == ["submit", "notified"], items
    move, last = items
    assert (move["seq"], move["action"], move["notified"]) == (1, "submit", None)
    assert (last["seq"], last["action"], last["actor"], last["role"]) == (None, "notified", None, "clock")
    said = last["notified"]
    first, *others = ((one["name"], one["channel"], one["outcome"]) for one in said["recipients"])
    assert first == ("Abe", "mail", "dead")
    assert set(others) == {("Ann", "mail", "sent"), ("Amir", "mail", "sent")}
    assert {one["at"] is None for one in said["recipients"]} == {False}
    counted = {"of_seq": 1, "part": 1, "template": None, "sent": 2, "dead": 1, "moot": 0, "open": 0, "not_listed": 0}
    assert {name: said[name] for name in counted} == counted
    for other in (ours, auditors):
        assert [item["action"] for item in other.json()["items"]] == ["submit"]
        assert "Abe" not in other.text
        assert str(door.world.people["abe"].person_id) not in other.text
    assert "@" not in theirs.text + ours.text
    assert "no such mailbox" not in theirs.text + ours.text


def test_the_timeline_entry_of_a_time_out_states_how_many_people_were_reached(door: Door, worker: Database) -> None:
    some, nobody = door.pending(), door.pending()
    deliver(door, worker, some, refused=["abe"])

    for one in (some, nobody):
        run_out(worker, one)

    last = [door.get("erin", f"/v1/requests/{one}/events").json()["items"][-1] for one in (some, nobody)]
    assert [(e["action"], e["asked"], e["reached"], e["nobody_notified"]) for e in last] == [
        ("time_out", 3, 2, False),
        ("time_out", 3, 0, True),
    ]
    assert shown(door, "erin", nobody)["sentence"] == "None of three approvers could be reached."
    assert door.get("erin", f"/v1/requests/{nobody}").json()["state"] == "timed_out"


def test_operators_list_dead_notifications_without_content_or_recipients(
    open_door: OpenDoor, worker: Database
) -> None:
    door = open_door()
    request_id = door.pending(justification="A secret of the customer", case_ref="CASE-SECRET")
    deliver(door, worker, request_id, refused=["abe", "amir"])

    answer = door.get("olga", "/v1/vendor/undelivered", limit=200)

    mine = [item for item in answer.json()["items"] if item["request_id"] == request_id]
    assert len(mine) == 2
    for item in mine:
        assert item == {
            "id": item["id"],
            "request_id": request_id,
            "tenant": door.world.tenant.slug,
            "template": "pending",
            "channel": "mail",
            "died_at": item["died_at"],
            "attempts": 1,
            "error": "status",
            "delivery_id": None,
        }
    for secret in ("secret of", "SECRET", "Abe", "Amir", "@", "mailbox", str(door.world.people["abe"].person_id)):
        assert secret not in json.dumps(mine)
    assert door.get("olga", f"/v1/requests/{request_id}").status_code == 404


def test_the_list_of_dead_notifications_continues_from_a_cursor(own_door: Door) -> None:
    door = own_door
    ids = [door.pending() for _ in range(3)]
    door.run_sql(
        "UPDATE notifications SET outcome = 'dead', closed_at = now() WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=ids,
    )

    seen, cursor = [], None
    while True:
        query = {"limit": 4} | ({"cursor": cursor} if cursor else {})
        found = door.get("olga", "/v1/vendor/undelivered", **query).json()
        seen += [item["id"] for item in found["items"]]
        cursor = found["next_cursor"]
        if cursor is None:
            break

    assert len(seen) == 9
    assert seen == sorted(set(seen), reverse=True)
    assert {item["error"] for item in found["items"]} == {"too_late"}


def test_a_dead_call_of_a_vendor_webhook_can_be_repeated_from_the_list(own_door: Door) -> None:
    door = own_door
    post = Postbag()
    with setting(door.db).transaction() as session:
        for url, tenant in (("https://vendor.example/x", None), ("https://tenant.example/x", door.world.tenant.id)):
            endpoints.add(session, post.vault, url, tenant_id=tenant)
    request_id = door.pending()
    door.run_sql("UPDATE notifications SET outcome = 'dead', closed_at = now() WHERE request_id = :id", id=request_id)
    door.run_sql(
        """
        INSERT INTO deliveries (id, notification_id, endpoint_id, event_type, at, took_ms, status, answer, error)
        SELECT uuidv7(), id, endpoint_id, 'request.submitted', now(), 5, 500, '', 'status' FROM notifications
        WHERE request_id = :id AND endpoint_id IS NOT NULL
        """,
        id=request_id,
    )

    items = door.get("olga", "/v1/vendor/undelivered").json()["items"]

    repeatable = [item["delivery_id"] for item in items if item["delivery_id"]]
    assert len(items) == 5
    assert len(repeatable) == 1
    answer = door.call("olga", "POST", f"/v1/deliveries/{repeatable[0]}/redeliver")
    assert answer.status_code == 202


@pytest.mark.parametrize("query", [{"cursor": "x"}, {"limit": 0}, {"limit": 201}])
def test_an_invalid_page_number_of_the_dead_notifications_is_refused(door: Door, query: dict[str, Any]) -> None:
    facts(door.get("olga", "/v1/vendor/undelivered", **query), 422, "invalid-request")
