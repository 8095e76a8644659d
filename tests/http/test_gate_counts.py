"""What is counted of real calls: each answer of the gate and of access checks, by gateway, service and reason."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from api.app import make_app
from harness.gateway_world import ANNA, SERVICE
from harness.people import SETTINGS
from lockbox.requests.lifecycle import Action
from tests.database.scenes import read
from tests.http.door import Door, client
from tests.http.gate_door import GateDoor, gate_before

QUICK = SETTINGS.model_copy(update={"gate_compare_every": 1_000_000})
ANSWERS = """
SELECT gateway_id, service, decision, reason, count AS number FROM gate_answers
WHERE span = 'all'
"""
USED = "SELECT w.*, w.count AS number FROM window_uses w WHERE request_id = :id"
Counts = dict[tuple[UUID | None, str, str, str], int]


@pytest.fixture
def gate(fresh_door: Door) -> Iterator[GateDoor]:
    with gate_before(fresh_door.world, fresh_door.db, QUICK) as opened:
        yield opened


def counted(gate: GateDoor) -> Counts:
    """Return what was counted, once all of it is written."""
    assert gate.gateway.writer.round()
    return {
        (one.gateway_id if one.gateway_id.int else None, one.service, one.decision, one.reason): one.number
        for one in read(gate.db, ANSWERS)
    }


@pytest.mark.far
def test_each_answer_of_the_gate_is_counted(gate: GateDoor) -> None:
    request = gate.world.submit(resources=[f"mailbox:{ANNA}"])
    request_id = gate.world.act("ann", Action.APPROVE, request.id).id
    gate.until(200)
    nginx = gate.world.people["nginx"].person_id
    before = counted(gate)

    assert [gate.ask().status for _ in range(3)] == [200] * 3
    assert gate.ask(path="/nothing").reason == "unmapped"
    assert gate.ask(who="nobody").reason == "unknown_engineer"
    assert gate.ask(service="onedrive").reason == "unmapped"
    assert gate.send([("Host", "x")], f"/gate/v1/{SERVICE}").reason == "no_credential"
    after = counted(gate)

    assert {key: number - before.get(key, 0) for key, number in after.items() if number != before.get(key)} == {
        (nginx, SERVICE, "allow", ""): 3,
        (nginx, SERVICE, "deny", "unmapped"): 1,
        (nginx, SERVICE, "deny", "unknown_engineer"): 1,
        (nginx, "", "deny", "unmapped"): 1,
        (None, "", "deny", "no_credential"): 1,
    }
    (used,) = read(gate.db, USED, id=request_id)
    assert (used.request_id, used.first_gateway, used.last_action, used.last_resource) == (
        request_id,
        nginx,
        "read",
        1,
    )
    assert used.number == after[nginx, SERVICE, "allow", ""]


def test_service_account_checks_are_counted_and_an_engineers_own_checks_are_not(fresh_door: Door) -> None:
    app = make_app(fresh_door.settings, fresh_door.db)
    fresh_door.client = client(app)
    request_id = UUID(fresh_door.active())

    assert fresh_door.ask("gate").status_code == 200
    assert fresh_door.ask("gate", resource="mailbox:other@contoso.example").status_code == 403
    assert fresh_door.ask("erin").status_code == 200

    account, batch = fresh_door.world.people["gate"].person_id, app.state.gateway.counts.take()
    assert batch.answers == {(account, SERVICE, "allow", ""): 1, (account, SERVICE, "deny", "no_window"): 1}
    assert batch.uses[request_id].first == (account, "read", fresh_door.question()["resource"])


@pytest.mark.far
def test_a_request_shows_the_customer_how_often_its_window_was_used(gate: GateDoor, fresh_door: Door) -> None:
    request_id = fresh_door.active(resources=[f"mailbox:{ANNA}"])
    assert fresh_door.get("ann", f"/v1/requests/{fresh_door.pending()}").json()["usage"] is None
    unused = {"times": 0, "refused": 0, "first": None, "last": None}
    assert fresh_door.get("ann", f"/v1/requests/{request_id}").json()["usage"] == unused
    gate.until(200)
    assert gate.ask(method="DELETE").reason == "no_window"
    assert gate.gateway.writer.round()

    usage = fresh_door.get("ann", f"/v1/requests/{request_id}").json()["usage"]

    assert (usage["times"] >= 1, usage["refused"] >= 1) == (True, True)
    assert usage["last"]["at"] >= usage["first"]["at"]
    assert {name: usage["last"][name] for name in ("gateway", "action", "resource")} == {
        "gateway": gate.world.people["nginx"].name,
        "action": "read",
        "resource": f"mailbox:{ANNA}",
    }
