"""A tenant's gates over HTTP: changes of their mapping, when a gateway last asked, and the results of probes."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from gate import definition_records, enforcement, gate_definition
from gate.enforcement import ENFORCE
from gate.gate_definition import GateDefinition
from gate.memory_reader import GATE
from lockbox.identity import authentication
from lockbox.sql import new_id
from tests.database.test_definition_records import SERVICE, A, B
from tests.http.door import Door, OpenDoor

ANSWERED = "INSERT INTO gate_answers VALUES (:span, :at, :gateway, 'mail', 'deny', 'no_window', 1)"
NOBODY = UUID(int=0)


def gate_of(door: Door, who: str = "ann") -> dict[str, Any]:
    items = door.get(who, f"/v1/tenants/{door.world.tenant.slug}/gates").json()["items"]
    (found,) = (one for one in items if one["service"] == SERVICE)
    return dict(found)


def starts(door: Door, *catalogues: Any) -> None:
    for catalogue in catalogues:
        with door.db.transaction() as session:
            authentication.enter(session, GATE)
            enforcement.record(session, {SERVICE: ENFORCE})
            definition_records.record(session, gate_definition.definitions(catalogue))


def test_a_member_reads_changes_of_the_gates_mapping_and_their_time(open_door: OpenDoor) -> None:
    door = open_door()
    starts(door, A)
    first = gate_of(door)["definition"]
    starts(door, B)

    changed = gate_of(door)["definition"]

    assert (first["first"], first["changes"]) == (True, [])
    assert (changed["first"], changed["beside"]) == (False, True)
    assert changed["sha256"] == GateDefinition.of(B, SERVICE).digest.hex()
    assert changed["since"] > first["since"]
    assert changed["changes"] == [
        {
            "part": "paths",
            "before": "GET /boxes/{box} is read of mailbox:{box}",
            "now": "GET /boxes/{box} is read of mailbox:of-{box}",
        }
    ]


def test_a_member_reads_when_a_gateway_last_asked_and_the_newest_probe(open_door: OpenDoor) -> None:
    door = open_door()
    starts(door, A)
    place = f"/v1/tenants/{door.world.tenant.slug}/gate-probes"
    before = gate_of(door)
    at = datetime.now(UTC).replace(second=0, microsecond=0)
    for shift in (90, 30):
        door.run_sql(ANSWERED, span="minute", at=at - timedelta(minutes=shift), gateway=new_id())
    door.run_sql(ANSWERED, span="minute", at=at, gateway=NOBODY)
    door.run_sql(ANSWERED, span="all", at=at, gateway=new_id())
    probes = [
        {"service": SERVICE, "gateway": f"https://g{n}.example", "refused": 70 + n, "let_through": n} for n in (1, 2)
    ]
    door = door.with_settings(catalogue=A)
    for probe in probes:
        assert door.call("olga", "POST", place, json=probe).status_code == 201

    after = gate_of(door)

    assert (before["last_asked_at"], before["probe"]) == (None, None)
    assert datetime.fromisoformat(after["last_asked_at"]) == at - timedelta(minutes=30)
    assert {name: after["probe"][name] for name in probes[1]} == probes[1]


def test_gate_probes_are_listed_newest_first_page_by_page(open_door: OpenDoor) -> None:
    door = open_door().with_settings(catalogue=A)
    place = f"/v1/tenants/{door.world.tenant.slug}/gate-probes"
    for refused in (1, 2, 3):
        body = {"service": SERVICE, "gateway": "https://g.example", "refused": refused, "let_through": 0}
        door.call("olga", "POST", place, json=body)

    first = door.get("aude", place, limit=2).json()
    rest = door.get("aude", place, limit=2, cursor=first["next_cursor"]).json()

    assert [one["refused"] for one in first["items"] + rest["items"]] == [3, 2, 1]
    assert rest["next_cursor"] is None
