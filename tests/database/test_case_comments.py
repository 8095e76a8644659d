"""The adapter of a ticket system can comment on each move: the vendor's webhooks name the case, and no others do."""

import json
from datetime import timedelta
from typing import Any
from uuid import UUID

from harness.clocks import StoppedClock
from harness.people import World
from lockbox.database import Database
from lockbox.requests import timers
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_rules import Policy
from tests.database.postbag import Postbag, open_notifications
from tests.database.scenes import read
from tests.database.test_break_glass import find
from tests.database.test_extensions import extended

DESK, THEIRS = "https://desk-adapter.vendor.example/moves", "https://siem.contoso.example/lockbox"
CASE: dict[str, Any] = {
    "case_ref": "CASE-7",
    "case_system": "helpdesk",
    "case_url": "https://helpdesk.vendor.example/CASE-7",
}
SAID = {"system": "helpdesk", "ref": "CASE-7", "url": "https://helpdesk.vendor.example/CASE-7"}
MOVES = "SELECT id FROM events WHERE request_id IS NOT NULL AND seq IS NOT NULL"


def _lives(world: World, worker: Database, still: StoppedClock) -> set[UUID]:
    """Let requests of one case go each of their ways; return their ids."""
    first = world.act("ann", Action.APPROVE, world.fresh(**CASE).id)
    later = world.act("ann", Action.APPROVE, extended(world, first.id).id)
    begins = world.act("ann", Action.APPROVE, world.fresh(**CASE, not_before=still.at + timedelta(hours=1)).id)
    denied = world.act("ann", Action.DENY, world.fresh(**CASE).id)
    cancelled = world.act("erin", Action.CANCEL, world.fresh(**CASE).id)
    revoked = world.act("ann", Action.REVOKE, begins.id)
    emergency = world.fresh(**CASE, break_glass=True)
    world.act("max", Action.BREAK_GLASS, emergency.id, comment="Mail is down for everybody")
    find(world, "ann", world.act("ann", Action.REVOKE, emergency.id))
    silent = world.fresh(**CASE)
    still.at += timedelta(days=2)
    timers.run(worker, [first.id, silent.id])
    timers.run(worker, [later.id])
    return {one.id for one in (first, later, begins, denied, cancelled, revoked, emergency, silent)}


def test_each_move_reaches_the_vendors_webhook_with_its_case(
    api: Database, worker: Database, still: StoppedClock
) -> None:
    world = World.make(api, Policy(vendor_review=False, break_glass_services=("exchange-online",)))
    post = Postbag()
    post.endpoint(world, DESK, tenant_id=None)
    post.endpoint(world, THEIRS, tenant_id=world.tenant.id)

    requests = _lives(world, worker, still)
    while ids := open_notifications(world.db):
        post.deliver(world.db, ids)

    calls = [(call.url, json.loads(call.body)) for call in post.hooks.sent]
    ours = [body for url, body in calls if url == DESK and "request_id" in body["data"]]
    assert {body["data"].get("case", {}).get("ref") for _, body in calls if _ == THEIRS} == {None}
    assert [body["type"] for body in ours if body["data"].get("case") != SAID] == []
    assert {UUID(body["data"]["request_id"]) for body in ours} == requests
    assert {str(row.id) for row in read(world.db, MOVES)} <= {body["event_id"] for body in ours}
    assert {body["type"].removeprefix("request.") for body in ours} >= {
        *("submitted", "approved", "denied", "cancelled", "revoked", "expired", "timed_out"),
        *("break_glass", "after_review"),
    }
