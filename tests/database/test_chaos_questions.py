"""What chaos asks Postgres afterwards: it finds nothing in an honest database, and whatever somebody has broken."""

import pytest
from sqlalchemy import text

from chaos import questions
from config.setting_fields import DEVELOPMENT_KEY
from harness.outbox import fan_out_all
from harness.people import World
from harness.stage import as_sender, setting, unbound
from lockbox.database import Database
from lockbox.notifications import endpoints
from lockbox.notifications.endpoints import SecretVault
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import ApprovalStage
from tests.database.scenes import read
from tests.database.test_extensions import extended
from tests.database.test_pre_approvals import in_force
from tests.logs import sealed
from tests.policy_setup import lay_down

WRONGS = (
    "UNFOUNDED",
    "LATE",
    "GAPS",
    "OTHER_STATE",
    "BROKEN_SEALS",
    "NOT_SEALED_ONCE",
    "UNSEALED",
    "MOVED_TWICE",
    "ENDED_TWICE",
    "VENDOR_NOT_TOLD",
    "NOT_ASKED",
    "REQUESTER_NOT_TOLD",
    "PROMISED_TWICE",
    "NOT_NOTED",
    "OUT_OF_STEP",
    "ELSEWHERE",
    "OUTLIVED",
    "OVERUSED",
    "BEYOND",
    "GLASS_TOO_LONG",
    "GLASS_TOO_OFTEN",
    "GLASS_WHILE_OVERDUE",
    "GLASS_DURING_STOP",
)
BREAKS = {
    "UNFOUNDED": "UPDATE events SET actor_id = (SELECT requester_id FROM requests LIMIT 1) WHERE action = 'approve'",
    "LATE": "UPDATE events SET at = at + interval '1 day' WHERE action = 'approve'",
    "GAPS": "UPDATE events SET seq = seq + 7 WHERE action = 'approve'",
    "OTHER_STATE": "UPDATE events SET to_state = 'expired' WHERE action = 'complete'",
    "BROKEN_SEALS": "UPDATE logs SET size = size + 1",
    "NOT_SEALED_ONCE": "DELETE FROM seals",
    "UNSEALED": "WITH forgotten AS (UPDATE events SET at = at - interval '1 minute' RETURNING id)"
    " INSERT INTO unsealed (event_id) SELECT id FROM forgotten",
    "MOVED_TWICE": "INSERT INTO events (id, tenant_id, request_id, seq, at, action, actor_id, actor_role, from_state,"
    " to_state, body) SELECT uuidv7(), tenant_id, request_id, seq + 9, at, action, actor_id, actor_role, from_state,"
    " to_state, body FROM events WHERE action = 'approve'",
    "ENDED_TWICE": "UPDATE events SET to_state = 'expired' WHERE from_state IN ('pending', 'active')",
    "VENDOR_NOT_TOLD": "DELETE FROM notifications WHERE channel = 'webhook'",
    "NOT_ASKED": "DELETE FROM notifications WHERE template = 'pending' AND channel = 'mail'",
    "REQUESTER_NOT_TOLD": "DELETE FROM notifications n USING requests r WHERE n.person_id = r.requester_id",
    "NOT_NOTED": "DELETE FROM unsettled",
    "OUT_OF_STEP": "UPDATE events SET seq = seq + 7 WHERE action = 'approve' AND actor_id IN"
    " (SELECT CAST(body -> 'groups' -> 'first' ->> 0 AS uuid) FROM policies)",
    "ELSEWHERE": "UPDATE requests SET opens_at = opens_at + interval '1 second' WHERE extends IS NOT NULL",
    "OUTLIVED": "UPDATE requests SET state = 'expired' WHERE extends IS NOT NULL",
    "OVERUSED": "UPDATE pre_approvals SET used = used - 1",
    "BEYOND": "UPDATE requests SET deadline_at = deadline_at + interval '1 hour' WHERE pre_approval_id IS NOT NULL",
    "GLASS_TOO_LONG": "DELETE FROM after_reviews",
    "GLASS_TOO_OFTEN": "UPDATE policies SET body = body || '{\"break_glass_monthly\": 1}'",
    "GLASS_DURING_STOP": "INSERT INTO emergency_stops (id, tenant_id, stopped_by, stopped_at)"
    " SELECT uuidv7(), r.tenant_id, e.actor_id, r.opened_at - interval '1 second' FROM requests r"
    " JOIN events e ON e.request_id = r.id AND e.action = 'break_glass' LIMIT 1",
    "GLASS_WHILE_OVERDUE": "UPDATE after_reviews SET opened_at = opened_at - interval '1 day', due_at = opened_at"
    " WHERE finding IS NULL",
    "PROMISED_TWICE": "UPDATE notifications SET person_id = (SELECT id FROM people LIMIT 1), template = 'pending'"
    " WHERE channel = 'mail'",
}

PROMISED_ONCE = (
    "SELECT indexname FROM pg_indexes WHERE tablename = 'notifications' AND indexdef LIKE '%UNIQUE%event_id%'"
)


@pytest.fixture
def honest(world: World, worker: Database) -> World:
    """A world with an endpoint of the vendor's, and a request that was approved and given back, all of it sealed."""
    with setting(world.db).transaction() as session:
        endpoints.add(
            session, SecretVault([DEVELOPMENT_KEY.get_secret_value()]), "https://hooks.example/", tenant_id=None
        )
    request = world.submit()
    world.act("ann", Action.APPROVE, request.id)
    world.act("erin", Action.COMPLETE, request.id)
    _further(world)
    fan_out_all(as_sender(world.db))
    sealed(worker)
    return world


def _further(world: World) -> None:
    """Let there be access by each further way, all of it ended."""
    groups = {name: (world.people[who].person_id,) for name, who in (("first", "ann"), ("then", "amir"))}
    stages = (ApprovalStage(group="first"), ApprovalStage(group="then", order=2))
    first = world.act("ann", Action.APPROVE, world.fresh().id)
    world.act("ann", Action.APPROVE, extended(world, first.id).id)
    world.act("ann", Action.REVOKE, first.id)
    in_force(world)
    world.act("erin", Action.COMPLETE, world.submit().id)
    lay_down(world, groups=groups, stages=stages, break_glass_services=["exchange-online"])
    request = world.fresh()
    for who in ("ann", "amir"):
        world.act(who, Action.APPROVE, request.id)
    world.act("erin", Action.COMPLETE, request.id)
    for _ in range(2):
        window = world.act("max", Action.BREAK_GLASS, world.fresh(break_glass=True).id, comment="It is down")
        world.act("ann", Action.REVOKE, window.id)


def _found(world: World, name: str) -> bool:
    """Break what a question asks for, ask it, and take that back; return whether it finds something."""
    with unbound(world.db).connect() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        if name == "PROMISED_TWICE":
            for index in connection.execute(text(PROMISED_ONCE)).scalars().all():
                connection.execute(text(f"ALTER TABLE notifications DROP CONSTRAINT IF EXISTS {index}"))
                connection.execute(text(f"DROP INDEX IF EXISTS {index}"))
        connection.execute(text(BREAKS[name]))
        found = connection.execute(text(getattr(questions, name))).all()
        connection.rollback()
    return bool(found)


@pytest.mark.far
def test_an_honest_database_answers_every_question_with_nothing(honest: World) -> None:
    assert [name for name in WRONGS if read(honest.db, getattr(questions, name))] == []


@pytest.mark.far
def test_whatever_somebody_has_broken_is_found(honest: World) -> None:
    assert [name for name in WRONGS if not _found(honest, name)] == []
