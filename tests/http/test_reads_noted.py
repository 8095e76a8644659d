"""Reads of a request by the vendor's people are recorded: once for each person, request and hour."""

from typing import Any

import pytest

from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.scenes import read
from tests.http.door import Door, OpenDoor
from tests.http.portal import OpenPortal
from tests.http.test_portal_audit_log import deeds

READS = """
SELECT p.name, e.tenant_id, e.actor_role, convert_from(e.body, 'UTF8')::jsonb ->> 'request' AS request
FROM events e JOIN people p ON p.id = e.actor_id
WHERE e.action = 'request_read' AND e.actor_id = ANY(:people) ORDER BY e.id
"""


def reads(door: Door) -> list[tuple[Any, ...]]:
    """Return who read which request, in which role, and in which tenant's log that is."""
    people = [caller.person_id for caller in door.world.people.values()]
    return [(row.name, row.actor_role, row.tenant_id, row.request) for row in read(door.root, READS, people=people)]


@pytest.fixture
def reviewed(open_door: OpenDoor) -> Door:
    return open_door(Policy())


@pytest.mark.parametrize("tail", ["", "/events", "/questions", "/activity"])
def test_a_read_by_a_vendor_person_is_in_the_customers_log_once_the_customer_was_asked(
    reviewed: Door, tail: str
) -> None:
    request = reviewed.world.submit()
    reviewed.get("max", f"/v1/requests/{request.id}{tail}")
    reviewed.world.act("max", Action.ENDORSE, request.id)
    answer = reviewed.get("vera", f"/v1/requests/{request.id}{tail}")

    assert answer.status_code == 200
    assert reads(reviewed) == [
        ("Max", "manager", None, str(request.id)),
        ("Vera", "vendor_auditor", reviewed.world.tenant.id, str(request.id)),
    ]


def test_reading_a_request_again_within_an_hour_adds_no_event(reviewed: Door) -> None:
    request, other = reviewed.pending(), reviewed.pending()

    for tail in ("", "", "/events"):
        reviewed.get("max", f"/v1/requests/{request}{tail}")
    reviewed.get("mia", f"/v1/requests/{request}")
    reviewed.get("max", f"/v1/requests/{other}")
    hour = [(name, one) for name, _, _, one in reads(reviewed)]
    reviewed.run_sql("UPDATE request_reads SET hour = hour - interval '1 hour' WHERE request_id = :r", r=request)
    reviewed.get("max", f"/v1/requests/{request}")

    assert hour == [("Max", request), ("Mia", request), ("Max", other)]
    assert len(reads(reviewed)) == 4


def test_simultaneous_reads_of_a_request_leave_one_event(reviewed: Door) -> None:
    request = reviewed.pending()

    reviewed.together(*(reviewed.coming("max", "GET", f"/v1/requests/{request}") for _ in range(6)))

    assert len(reads(reviewed)) == 1


def test_reads_by_the_requester_or_the_customer_and_reads_of_lists_leave_no_event(reviewed: Door) -> None:
    request = reviewed.world.submit()
    reviewed.world.act("max", Action.ENDORSE, request.id)

    reviewed.get("erin", f"/v1/requests/{request.id}")
    for who in ("max", "vera", "ann"):
        assert reviewed.get(who, "/v1/requests").status_code == 200
    for who in ("ann", "tara", "aude"):
        reviewed.get(who, f"/v1/requests/{request.id}")
    assert reviewed.get("olga", f"/v1/requests/{request.id}").status_code == 404

    assert reads(reviewed) == []


@pytest.mark.parametrize("tail", ["", "/questions"])
def test_request_pages_count_as_reads_and_the_customer_sees_the_reader(open_portal: OpenPortal, tail: str) -> None:
    portal = open_portal()
    request = portal.world.submit()

    manager, admin = portal.browser(), portal.browser()
    manager.enter("max")
    admin.enter("tara")
    assert manager.get(f"/requests/{request.id}{tail}").status == 200

    assert "Max: read a request" in deeds(admin.get("/audit-log?show=all"))
