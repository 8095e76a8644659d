"""The report on a request over HTTP: who asked, who decided, when it was open, what was done inside."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from harness.stage import setting
from lockbox.audit import events
from lockbox.audit.canonical import instant
from lockbox.audit.events import Actor, AuditEvent
from lockbox.database import Database, now
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, address, open_notifications
from tests.http.door import Door, OpenDoor, facts
from tests.logs import sealed

WRITE = text(f"WITH {events.APPEND} SELECT")
EVIL = "<script>alert(1)</script><img src=//evil.example> {{ 7*7 }}"


def reported(door: Door, request_id: str, who: str = "aude") -> dict[str, Any]:
    answer = door.get(who, "/v1/audit/report", request=request_id)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def use(door: Door, request_id: str, method: str = "GET", count: int = 3, resource: str = "mailbox:anna") -> None:
    """Record activity, as reported by the system in which the engineer works."""
    gate = door.world.people["gate"]
    with setting(door.db).transaction() as session:
        at = now(session)
        happening = AuditEvent(
            at=at,
            action="activity",
            actor=Actor(gate.person_id, "system", gate.name),
            tenant_id=door.world.tenant.id,
            request_id=UUID(request_id),
            facts={
                "method": method,
                "did": "read",
                "outcome": "done",
                "count": count,
                "first_at": instant(at),
                "last_at": instant(at),
                "as_asked": False,
            },
            personal={"resource": resource},
        )
        session.execute(WRITE, events.append([happening]))


def test_the_report_of_a_request_says_who_requested_who_decided_and_when_it_was_open(open_door: OpenDoor) -> None:
    door = open_door(Policy(quorum=2))
    request_id = door.file(justification="It does not open").json()["id"]
    door.act("max", "endorse", request_id, comment="A real fault")
    door.act("ann", "approve", request_id)
    door.act("amir", "approve", request_id, comment="Be quick")
    door.act("tara", "revoke", request_id)

    found = reported(door, request_id)

    assert [(step["who"], step["role"], step["deed"], step["comment"]) for step in found["steps"]] == [
        ("Erin", "engineer", "submitted it", None),
        ("Max", "manager", "endorsed it", "A real fault"),
        ("Ann", "approver", "approved it", None),
        ("Amir", "approver", "approved it", "Be quick"),
        ("Tara", "tenant_admin", "revoked it", None),
    ]
    assert (found["opened_at"], found["closed_at"]) == (found["steps"][3]["at"], found["steps"][4]["at"])
    assert (found["justification"], found["ending"], found["service"]) == (
        "It does not open",
        "revoked",
        "exchange-online",
    )


def test_the_report_of_a_window_with_a_later_start_says_open_from_that_start(door: Door) -> None:
    start = datetime.now(UTC) + timedelta(hours=1)
    request_id = door.file(not_before=start.isoformat()).json()["id"]
    door.act("ann", "approve", request_id)

    approved = reported(door, request_id)
    door.act("ann", "revoke", request_id)
    revoked = reported(door, request_id)

    assert datetime.fromisoformat(approved["opened_at"]) == start
    assert f"Open</th><td>from {start:%Y-%m-%d %H:%M:%S}Z on" in approved["page"]
    assert (revoked["opened_at"], revoked["closed_at"]) == (None, None)
    assert revoked["use"] == "It was never open: nobody had access."


def test_the_report_of_a_request_names_notified_people_of_the_readers_side(
    open_door: OpenDoor, worker: Database
) -> None:
    door = open_door(Policy(vendor_review=False))
    request_id = door.file().json()["id"]
    post = Postbag()
    failure = SendFailed("no such mailbox", permanent=True, kind="status")
    post.mail.refused[address(door.db, door.world, "abe")] = failure
    for _ in range(2):
        post.deliver(worker, open_notifications(door.db))
        door.act("ann", "approve", request_id)

    ours, vendors = reported(door, request_id), reported(door, request_id, "vera")

    ((deed, said),) = [(one["deed"], one["said"]) for one in ours["mails"] if one["deed"] == "submitted it"]
    assert said.startswith("not delivered to Abe; mailed to A")
    assert {"Ann", "Amir"} == set(said.partition("mailed to ")[2].split(", "))
    assert f"“{deed}”: <bdi>{said}</bdi>" in ours["page"]
    assert "not delivered to 1 person; mailed to 2 people" in {vendor["said"] for vendor in vendors["mails"]}
    assert "Abe" not in json.dumps(vendors)
    assert "@" not in json.dumps(vendors["mails"])


def test_the_report_of_a_request_without_activity_says_so(door: Door) -> None:
    pending, opened = door.pending(), door.active()

    assert reported(door, pending)["use"] == "It was never open: nobody had access."
    assert reported(door, opened)["use"] == "No activity has been recorded so far."

    door.act("erin", "complete", opened)

    assert reported(door, opened)["use"] == "No activity was recorded while it was open."


def test_the_report_of_a_request_lists_and_counts_activity(door: Door) -> None:
    request_id = door.active()
    use(door, request_id)
    use(door, request_id, method="DELETE", count=1)

    found = reported(door, request_id)

    assert found["use"] == "4 actions were recorded while it was open."
    uses = [(one["method"], one["count"], one["resource"], one["as_asked"], one["by"]) for one in found["uses"]]
    assert uses == [("GET", 3, "mailbox:anna", False, "Gate"), ("DELETE", 1, "mailbox:anna", False, "Gate")]
    assert "outside the request" in found["page"]


def test_the_report_of_a_request_says_whether_it_is_sealed(door: Door, worker: Database) -> None:
    request_id = door.active()
    assert not reported(door, request_id)["sealed"]

    sealed(worker)

    found = reported(door, request_id)
    assert found["sealed"]
    assert "not sealed yet" not in found["page"]


def test_vendor_auditors_read_no_texts_in_the_report_of_a_request(door: Door) -> None:
    mine = ["mailbox:bert@contoso.example"]
    request_id = door.file(justification="It does not open", resources=mine).json()["id"]
    door.act("ann", "deny", request_id, comment="Not today")

    found = reported(door, request_id, "vera")

    assert found["justification"] is None
    assert "Not today" not in json.dumps(found)


def test_texts_in_a_report_page_are_escaped(door: Door) -> None:
    request_id = door.file(justification=EVIL, case_ref=EVIL[:100]).json()["id"]
    door.act("ann", "approve", request_id, comment=EVIL)
    use(door, request_id, method=EVIL, resource=EVIL)

    page = reported(door, request_id)["page"]

    assert "<script" not in page
    assert "<img" not in page
    assert "{{ 7*7 }}" in page
    assert "http" not in page.replace("{{", "")


def test_the_report_of_a_request_in_review_is_not_found_by_the_customer(open_door: OpenDoor) -> None:
    door = open_door(Policy())
    request_id = door.pending()

    facts(door.get("tara", "/v1/audit/report", request=request_id), 404, "not-found")
    assert reported(door, request_id, "vera")["state"] == "reviewing"
