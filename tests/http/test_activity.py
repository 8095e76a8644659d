"""Activity during a window: reported by the system that guards it, bound to its request, read by both sides."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from httpx import Response
from sqlalchemy import text

from lockbox.identity.roles import Role, Scope
from lockbox.requests.lifecycle import Action
from tests.each import each
from tests.http.door import Door, OpenDoor, facts
from tests.http.places import done

BODIES = "SELECT body FROM events WHERE request_id = :id AND action = 'activity'"


@pytest.fixture(scope="module")
def gate(open_door: OpenDoor) -> Door:
    door = open_door()
    scopes = {Scope.ACCESS_CHECK, Scope.ACTIVITY_REPORT}
    door.world.add("ward", Role.SYSTEM, scopes=scopes, services={"exchange-online"})
    door.world.add("other", Role.SYSTEM, scopes=scopes, services={"onedrive"})
    return door


def report(door: Door, request_id: str, *entries: dict[str, Any], who: str = "ward", **headers: str) -> Response:
    return door.call(who, "POST", f"/v1/requests/{request_id}/activity", json={"entries": entries}, headers=headers)


def listed(door: Door, request_id: str, who: str = "ann") -> list[dict[str, Any]]:
    answer = door.get(who, f"/v1/requests/{request_id}/activity")
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def test_both_sides_read_the_recorded_activity_of_a_window(gate: Door) -> None:
    request_id = gate.active()

    taken = report(gate, request_id, done(), done(count=4), done(method="EXPORT", action="export", outcome="refused"))

    assert (taken.status_code, taken.json()) == (201, {"events": 2})
    entries = listed(gate, request_id)
    assert [listed(gate, request_id, who) for who in ("aude", "tara", "erin", "max", "vera")] == [entries] * 5
    read, export = sorted(entries, key=lambda one: one["method"], reverse=True)
    assert (read["count"], read["resource"], read["as_asked"]) == (5, "mailbox:anna@contoso.example", True)
    assert (export["outcome"], export["as_asked"]) == ("refused", False)


def test_the_event_of_an_activity_report_contains_no_name_of_a_resource(gate: Door) -> None:
    request_id = gate.active()

    report(gate, request_id, done())

    with gate.root.connect() as connection:
        (body,) = connection.execute(text(BODIES), {"id": request_id}).scalars()
    assert b"anna" not in bytes(body)
    assert b'"on_behalf_of":"' in bytes(body)


def test_an_activity_report_repeated_under_its_idempotency_key_counts_once(gate: Door) -> None:
    request_id, entry = gate.active(), done()

    answers = [report(gate, request_id, entry, **{"idempotency-key": request_id}) for _ in range(2)]
    other = report(gate, request_id, done(count=9), **{"idempotency-key": request_id})

    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    facts(other, 422, "key-reused")
    assert [one["count"] for one in listed(gate, request_id)] == [1]


def test_an_activity_report_with_one_entry_outside_the_window_is_refused_as_a_whole(gate: Door) -> None:
    request_id = gate.active()
    moment = datetime.now(UTC)
    before, ahead = moment - timedelta(hours=1), moment + timedelta(minutes=1)

    refused = report(gate, request_id, done(), done(at=before.isoformat()), done(at=ahead.isoformat()))

    told = facts(refused, 422, "outside-window")
    assert [one["field"] for one in told["errors"]] == ["entries.1.at", "entries.2.at"]
    assert listed(gate, request_id) == []


def test_a_never_opened_request_accepts_no_activity(gate: Door) -> None:
    facts(report(gate, gate.pending(), done()), 422, "outside-window")


def test_activity_is_accepted_for_an_hour_after_the_window_ended(gate: Door) -> None:
    request_id = gate.active()
    entry = done()
    gate.world.act("ann", Action.REVOKE, UUID(request_id))
    gate.prolong_tokens(days=1)
    ten_seconds_later = datetime.now(UTC) + timedelta(seconds=10)

    after = report(gate.later(minutes=1), request_id, done(at=ten_seconds_later.isoformat()))
    in_time = report(gate.later(minutes=59), request_id, entry)
    late = report(gate.later(minutes=61), request_id, entry)

    facts(after, 422, "outside-window")
    assert in_time.status_code == 201
    facts(late, 409, "too-late")


def test_only_a_service_account_with_the_activity_report_scope_reports_activity(gate: Door) -> None:
    request_id = gate.active()

    without_scope, of_another_service = (report(gate, request_id, done(), who=who) for who in ("gate", "other"))

    told = facts(without_scope, 403, "wrong-role")["detail"]
    assert told == "This token needs the scope activity:report: create a token that has it."
    facts(of_another_service, 404, "not-found")
    assert listed(gate, request_id) == []


@each(
    "entry",
    [
        done(count=0),
        done(count="1"),
        done(method=""),
        done(method="GET\n"),
        done(resource="anything"),
        done(outcome="It went well"),
        done(at="2026-01-01T00:00:00"),
        done(made_up=1),
    ],
)
def test_an_invalid_activity_entry_is_refused(gate: Door, entry: dict[str, Any]) -> None:
    facts(report(gate, gate.active(), entry), 422, "invalid-request")


def test_an_activity_report_has_at_most_500_entries(gate: Door) -> None:
    request_id, entry = gate.active(), done()

    facts(report(gate, request_id, *[entry] * 501), 422, "invalid-request")
    facts(report(gate, request_id), 422, "invalid-request")
    assert report(gate, request_id, *[entry] * 500).json() == {"events": 1}


USED = "SELECT w.*, w.count AS times FROM window_uses w WHERE request_id = :id"
COUNTED = "SELECT service, decision, reason, count FROM gate_answers WHERE span = 'all' AND gateway_id = :id"


def used(minutes: float = 0, **changes: Any) -> dict[str, Any]:
    """Return a use in so many minutes, with changes."""
    at = datetime.now(UTC) + timedelta(minutes=minutes)
    facts = {"at": at.isoformat(), "resource": "mailbox:anna@contoso.example", "action": "read"}
    return facts | changes


def report_uses(door: Door, request_id: str, *uses: dict[str, Any], key: str | None = None, **body: Any) -> Response:
    headers = {"idempotency-key": key} if key else {}
    path = f"/v1/requests/{request_id}/activity"
    return door.call("ward", "POST", path, json={"uses": uses, **body}, headers=headers)


def counted(door: Door) -> dict[tuple[str, str, str], int]:
    with door.root.connect() as connection:
        rows = connection.execute(text(COUNTED), {"id": door.world.people["ward"].person_id})
        return {tuple(row[:3]): row[3] for row in rows}


def test_repeated_reports_of_a_guard_count_once(gate: Door) -> None:
    request_id, before = gate.active(), counted(gate)
    first, last = (datetime.now(UTC) - timedelta(seconds=ago) for ago in (2, 1))
    uses = used(at=last.isoformat()), used(at=first.isoformat(), count=40)

    answers = [report_uses(gate, request_id, *uses, key=request_id) for _ in range(3)]
    assert report_uses(gate, request_id, used(), key=str(uuid4()), entries=[done()]).json() == {"events": 1}

    assert [(answer.status_code, answer.json()) for answer in answers] == [(201, {"events": 0})] * 3
    usage = gate.get("ann", f"/v1/requests/{request_id}").json()["usage"]
    assert usage["times"] == 42
    assert datetime.fromisoformat(usage["first"]["at"]) == first
    assert {name: usage["first"][name] for name in ("gateway", "action", "resource")} == {
        "gateway": gate.world.people["ward"].name,
        "action": "read",
        "resource": "mailbox:anna@contoso.example",
    }
    key = ("exchange-online", "allow", "")
    assert counted(gate)[key] - before.get(key, 0) == 42


@each(
    ("use", "field"),
    [
        ({"resource": "mailbox:bob@contoso.example"}, "uses.1"),
        ({"action": "delete"}, "uses.1"),
        ({"minutes": -60}, "uses.1.at"),
        ({"minutes": 30}, "uses.1.at"),
    ],
)
def test_a_report_of_uses_with_one_use_outside_the_window_is_refused_as_a_whole(
    gate: Door, use: dict[str, Any], field: str
) -> None:
    request_id, before = gate.active(), counted(gate)

    answer = report_uses(gate, request_id, used(), used(**use), key=request_id, entries=[done()])

    facts(answer, 422, "outside-window")
    assert [one["field"] for one in answer.json()["errors"]] == [field]
    assert gate.get("ann", f"/v1/requests/{request_id}").json()["usage"]["times"] == 0
    assert (listed(gate, request_id), counted(gate)) == ([], before)


def test_a_reported_use_after_the_end_of_the_window_is_refused(gate: Door) -> None:
    request_id = gate.active()
    gate.world.act("ann", Action.REVOKE, UUID(request_id))

    answer = report_uses(gate.later(minutes=1), request_id, used(minutes=0.2), key=request_id)

    facts(answer, 422, "outside-window")
    assert report_uses(gate.later(minutes=1), request_id, used(), key=request_id).status_code == 201


def test_a_report_of_uses_needs_an_idempotency_key_and_no_report_may_be_empty(gate: Door) -> None:
    request_id = gate.active()

    facts(report_uses(gate, request_id, used()), 422, "invalid-request")
    facts(report_uses(gate, request_id, key=request_id), 422, "invalid-request")
    facts(gate.call("ward", "POST", f"/v1/requests/{request_id}/activity", json={}), 422, "invalid-request")
    assert gate.get("ann", f"/v1/requests/{request_id}").json()["usage"]["times"] == 0


def test_uses_cannot_be_reported_afterwards_if_the_window_has_a_use_limit(gate: Door) -> None:
    request_id = gate.active(max_uses=2)

    answer = report_uses(gate, request_id, used(), key=request_id)

    facts(answer, 422, "invalid-request")
    assert gate.get("ann", f"/v1/requests/{request_id}").json()["usage"]["times"] == 0
    assert report(gate, request_id, done()).status_code == 201
