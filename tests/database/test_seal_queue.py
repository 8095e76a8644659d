"""The events table itself queues events for sealing; the API's role writes no event that contradicts its row."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from harness.people import World
from harness.stage import unbound
from lockbox.audit import refusals_log
from lockbox.audit.canonical import canonical
from lockbox.audit.events import VENDORS_LOG
from lockbox.audit.verifier.verify import GOOD
from lockbox.database import Database
from lockbox.requests.policy_rules import Policy
from lockbox.sql import new_id
from tests.database.scenes import as_caller, read
from tests.database.test_exports import exported, verified
from tests.database.test_signed_approvals import as_owner_of_all
from tests.each import each
from tests.logs import sealed

AT = datetime.fromisoformat("2026-05-01T10:00:00Z")
INSERT = text("""
INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_id, actor_role, from_state, to_state, body)
VALUES (:id, :tenant_id, :request_id, :seq, :at, :action, :actor_id, :actor_role, :from_state, :to_state, :body)
""")
SEALED = "SELECT FROM seals WHERE event_id = :id"
FACTS = {"action": "approve", "seq": 2, "to_state": "active", "actor_id": "somebody", "format": 2, "at": "never"}


def written_by_tara(world: World, columns: dict[str, Any], **changes: Any) -> UUID:
    """Write an event of Tara's by raw SQL as the API's database role, with a changed body."""
    own: dict[str, Any] = {
        "id": new_id(),
        "tenant_id": world.tenant.id,
        "request_id": None,
        "seq": None,
        "at": AT,
        "action": "policy_changed",
        "actor_id": world.people["tara"].person_id,
        "actor_role": "tenant_admin",
        "from_state": None,
        "to_state": None,
    } | columns
    body = canonical(own | {"format": 1, "log": world.tenant.id, "personal": {}} | changes)
    with as_caller(world.db, world.people["tara"]) as connection:
        connection.execute(INSERT, own | {"body": body})
    event_id: UUID = own["id"]
    return event_id


@pytest.mark.parametrize("vendor_review", [True, False])
def test_submissions_under_review_are_sealed_in_the_vendors_log_and_others_in_the_tenants_log(
    api: Database, superuser: Engine, *, vendor_review: bool
) -> None:
    world = World.make(api, Policy(vendor_review=vendor_review))
    request = world.submit()
    (event,) = read(superuser, "SELECT internal, log_id FROM events WHERE request_id = :id", id=request.id)

    assert (event.internal, event.log_id) == (vendor_review, VENDORS_LOG if vendor_review else world.tenant.id)
    with pytest.raises(DBAPIError, match="ck_events_internal"):
        as_owner_of_all(superuser, "UPDATE events SET internal = NOT internal WHERE request_id = :id", id=request.id)


def test_an_event_missing_from_the_seal_queue_is_sealed_too(world: World, worker: Database) -> None:
    event_id = written_by_tara(world, {})

    sealed(worker)

    assert len(read(worker, SEALED, id=event_id)) == 1
    assert verified(exported(world)).exit_code == GOOD


@each(
    "changes",
    [
        {"id": new_id()},
        {"log": VENDORS_LOG},
        {"tenant_id": None},
        {"request_id": new_id()},
        {"seq": 2},
        {"at": "2026-05-01T10:00:00.000001Z"},
        {"action": "audit_events_removed", "removed_from": 0, "removed_to": 2**53 - 1},
        {"actor_id": new_id()},
        {"actor_role": "approver"},
        {"from_state": "pending"},
        {"to_state": "active"},
    ],
)
def test_an_event_body_written_by_the_api_must_equal_the_event_row(world: World, changes: dict[str, Any]) -> None:
    with pytest.raises(DBAPIError, match="says something else"):
        written_by_tara(world, {}, **changes)

    assert read(world.db, "SELECT FROM events") == []


def test_the_apis_database_role_cannot_write_an_event_about_removal_by_retention(world: World) -> None:
    with pytest.raises(DBAPIError, match="says something else"):
        written_by_tara(world, {"action": "audit_events_removed"}, removed_from=0, removed_to=1)


def test_a_queued_event_that_is_already_sealed_does_not_stop_sealing(world: World, worker: Database) -> None:
    world.fresh()
    sealed(worker)
    with unbound(world.db).begin() as connection:
        connection.execute(text("INSERT INTO unsealed SELECT event_id FROM seals"))
    world.fresh()

    sealed(worker)

    assert len(read(worker, "SELECT FROM seals")) == 2
    assert read(worker, "SELECT FROM unsealed") == []


def test_the_facts_of_a_refusal_cannot_replace_its_actor_or_action_or_time(world: World, worker: Database) -> None:
    request = world.fresh()
    with world.db.transaction() as session:
        session.execute(
            text(
                "SELECT count_refused(sha256('x'), now() - interval '5 minutes', 'decision_refused', NULL, :id, "
                "CAST(:facts AS jsonb), CAST('{}' AS jsonb))"
            ),
            {"id": request.id, "facts": json.dumps(FACTS)},
        )

    refusals_log.record_finished_minutes(worker)

    (row,) = read(world.db, "SELECT body FROM events WHERE action = 'decision_refused'")
    body = json.loads(row.body)
    assert body["action"] == "decision_refused"
    assert [body[name] for name in ("seq", "to_state", "actor_id", "format")] == [None, None, None, 1]
    assert body["at"] > "2026"
