"""The timeline of a request over HTTP: one entry a move, without a gap, naming who did it."""

from datetime import timedelta
from uuid import UUID

from harness.clocks import ShiftedClock
from lockbox.database import Database
from lockbox.requests import timers
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import write_unchecked
from tests.http.door import Door, OpenDoor


def test_every_move_leaves_one_timeline_entry_that_names_the_person(open_door: OpenDoor) -> None:
    door = open_door(Policy(quorum=2))
    request_id = door.file().json()["id"]
    door.act("max", "endorse", request_id, comment="A real fault")
    door.act("ann", "approve", request_id)
    opened = door.act("amir", "approve", request_id, comment="Be quick", access_window=60).json()
    door.act("tara", "revoke", request_id, comment="Thank you")

    items = door.get("ann", f"/v1/requests/{request_id}/events").json()["items"]

    assert [
        (e["seq"], e["action"], e["role"], e["actor"]["name"], e["from_state"], e["to_state"], e["comment"])
        for e in items
    ] == [
        (1, "submit", "engineer", "Erin", None, "reviewing", None),
        (2, "endorse", "manager", "Max", "reviewing", "pending", "A real fault"),
        (3, "approve", "approver", "Ann", "pending", "pending", None),
        (4, "approve", "approver", "Amir", "pending", "active", "Be quick"),
        (5, "revoke", "tenant_admin", "Tara", "active", "revoked", "Thank you"),
    ]
    assert items[0]["actor"]["id"] == str(door.world.people["erin"].person_id)
    assert [item["deadline_at"] is None for item in items] == [False, False, True, False, True]
    assert items[3]["deadline_at"] == opened["deadline_at"]
    assert items == sorted(items, key=lambda item: item["at"])


def test_timeline_entries_of_timer_moves_name_the_timer(door: Door, worker: Database) -> None:
    request_id = door.active(access_window=60)
    late = ShiftedClock()
    late.shift = timedelta(seconds=61)
    timers.run(Database(worker.engine, worker.schedule, late), [UUID(request_id)])

    last = door.get("erin", f"/v1/requests/{request_id}/events").json()["items"][-1]

    assert (last["seq"], last["action"], last["role"], last["actor"]) == (3, "expire", "clock", None)
    assert (last["from_state"], last["to_state"]) == ("active", "expired")


def test_a_refused_move_leaves_no_timeline_entry(door: Door) -> None:
    request_id = door.pending()
    for who, action in (("erin", "approve"), ("eve", "cancel"), ("ann", "endorse"), ("max", "deny")):
        assert door.act(who, action, request_id).status_code >= 400

    assert len(door.get("erin", f"/v1/requests/{request_id}/events").json()["items"]) == 1


def test_erasing_a_name_keeps_the_timeline_entry(door: Door) -> None:
    request_id = door.active()
    write_unchecked(
        door.root,
        "UPDATE event_details SET fields = fields - 'name' FROM events WHERE id = event_id AND request_id = :id",
        id=request_id,
    )

    items = door.get("erin", f"/v1/requests/{request_id}/events").json()["items"]

    assert [item["actor"]["name"] for item in items] == ["erased", "erased"]


def test_the_origin_of_a_decision_is_recorded_in_the_timeline(door: Door) -> None:
    request_id = door.pending()

    door.act("ann", "approve", request_id, headers={"user-agent": b"curl/8\xad " + b"x" * 500}, comment="Yes")

    with door.root.connect() as connection:
        row = connection.exec_driver_sql(
            "SELECT person_id, decision, comment, channel, address, user_agent FROM decisions WHERE request_id = %s",
            (request_id,),
        ).one()
    assert row[:5] == (door.world.people["ann"].person_id, "approve", "Yes", "api", "203.0.113.7")
    assert row.user_agent.startswith("curl/8 xxx")
    assert len(row.user_agent) == 256
