"""The checks of Postgres after a chaos run: they find nothing in an honest database, and find each planted fault."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from redis import Redis
from redis.exceptions import ReadOnlyError
from sqlalchemy import Engine, text

from chaos import drift, invariants, people, plan, planted, questions
from chaos.celery_messages import MessageLog
from chaos.crew import Crew, GuardProcess, ProcessExit
from chaos.evidence import ChaosEvidence, InfrastructureState
from chaos.gate_stories import SHORT_SECONDS
from chaos.journal import Journal
from chaos.people import ChaosCustomer, ChaosPeople
from chaos.plan import Fault
from chaos.stage import ChaosStack
from chaos.strikes import STRIKES
from config.setting_fields import DEVELOPMENT_KEY
from devstack.embedded import ServerAddresses
from devstack.stack import Processes
from harness.clocks import ShiftedClock
from harness.mail_relay import MailRelay
from harness.network import EventLoopThread
from harness.outbox import fan_out_all
from harness.people import World
from harness.stage import Urls, as_sender, plan_for, setting, unbound
from lockbox.database import Database
from lockbox.errors import EarlierStepFirst, TooLate
from lockbox.facts.enumerations import State
from lockbox.notifications import endpoints
from lockbox.notifications.endpoints import SecretVault
from lockbox.reconcile import reconcile
from lockbox.requests import deadlines, permitted_moves, quorum
from lockbox.requests.lifecycle import Action
from lockbox.requests.policy_parts import ApprovalStage
from lockbox.schedule import CLOCK, INDEXES, IndexEntry
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
    """A world with a vendor endpoint and a request that was approved and completed, all sealed."""
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
    """Open access in each further way, and end all of it."""
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
    """Plant the fault that a check looks for, run the check, and roll back; return whether it found something."""
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
def test_the_chaos_check_of_an_honest_database_has_no_findings(honest: World) -> None:
    assert [name for name in WRONGS if read(honest.db, getattr(questions, name))] == []


@pytest.mark.far
def test_the_chaos_check_detects_each_planted_fault(honest: World) -> None:
    assert [name for name in WRONGS if not _found(honest, name)] == []


WARNINGS = "SELECT tenant_id, CAST(body -> 'closing_warning' AS int) AS seconds FROM policies"
NOBODY = InfrastructureState(frozenset(), 0, 0, {})
CALM = ChaosCustomer("calm", UUID(int=1), {}, {}, (), is_reviewed=False, is_calm=True)


@pytest.fixture
def stage(template: ServerAddresses, urls: Urls, superuser: Engine, tmp_path: Path) -> Iterator[ChaosStack]:
    faults = plan.make(1, 40)
    prepared = plan_for(urls, template, tmp_path / "keys")
    guarded = GuardProcess("", tmp_path, 0)
    crew = Crew(Processes(prepared, tmp_path / "logs"), faults, guarded)
    loop = EventLoopThread()
    yield ChaosStack(
        faults,
        prepared,
        template,
        superuser,
        loop,
        {},
        MailRelay(),
        MessageLog(),
        ChaosPeople((), CALM, ()),
        crew,
        guarded,
        [403],
    )
    loop.close()


@pytest.fixture
def nothing(stage: ChaosStack) -> ChaosEvidence:
    return ChaosEvidence(stage, Journal(), {}, (), NOBODY, NOBODY, (), {}, (), ())


def found(seen: ChaosEvidence) -> Mapping[str, tuple[str, ...]]:
    return {one.name: one.off for one in invariants.check(seen) if not one.holds}


def test_the_chaos_check_of_an_empty_run_reports_nothing(nothing: ChaosEvidence) -> None:
    assert found(nothing) == {
        "run": (
            "only 0 requests submitted, of at least 12",
            "only 0 windows opened, of at least 2",
            "only 0 stories acknowledged, of at least 12",
            "only 0 doors found open, of at least 2",
            "only 0 doors found closed, of at least 80",
            "only 0 events verified, of at least 40",
            "only 0 notifications arrived, of at least 80",
            "only 0 calls by gate let in, of at least 20",
            "only 0 calls by guard let in, of at least 20",
            "only 0 calls by gate without a window, of at least 40",
            "only 0 calls by guard without a window, of at least 40",
            "only 0 calls by gate past a revoke, of at least 8",
            "only 0 calls by guard past a revoke, of at least 4",
            "only 0 calls by gate past a deadline, of at least 4",
            "only 0 calls by guard past a deadline, of at least 4",
            f"only 0 of {len(nothing.stage.faults.faults)} faults were done",
        )
    }


@pytest.mark.parametrize(
    ("what", "invariant"),
    [("requests", "I3"), ("postgres", "I3"), ("unsealed", "I4"), ("notifications", "I5"), ("reports", "I5")],
)
def test_requests_left_open_after_a_chaos_run_are_detected(nothing: ChaosEvidence, what: str, invariant: str) -> None:
    left = replace(nothing, left={what: 2})

    assert found(left)[invariant] == (f"2 {what} left after the drain",)


def test_a_request_that_ended_without_a_move_is_detected(nothing: ChaosEvidence) -> None:
    looping = replace(nothing, ended=(ProcessExit("worker", 1, 100.0),))

    assert found(looping)["crew"] == ("worker ended by itself with 1",)


def test_chaos_customers_are_warned_before_their_windows_close(stage: ChaosStack, superuser: Engine) -> None:
    cast = people.gather(stage.plan, stage.loop)
    for hook in cast.hooks:
        stage.loop.do(hook.leave())

    found = {row.tenant_id: row.seconds for row in read(superuser, WARNINGS)}

    (talkative,) = [one for one in cast.quick if one.slug.startswith("talkative")]
    assert 0 < found[talkative.tenant_id] < people.ACCESS_SECONDS
    assert [one.slug for one in cast.gated if not 0 < found[one.tenant_id] < SHORT_SECONDS] == []


def test_a_read_only_redis_refuses_writes_until_the_fault_ends(stage: ChaosStack, own_valkey: str) -> None:
    # The stage's own server is that of all tests which run beside this one.
    struck = replace(stage, servers=replace(stage.servers, redis_url=own_valkey))
    with Redis.from_url(own_valkey) as redis:
        redis.set("kept", "so")

        with STRIKES["read_only"](struck, Fault(1, "read_only", "redis", 1, 0)):
            assert redis.get("kept") == b"so"
            with pytest.raises(ReadOnlyError):
                redis.set("kept", "other")

        redis.set("kept", "other")
        assert redis.get("kept") == b"other"


@pytest.fixture
def unarmed(world: World, worker: Database) -> str:
    """A request that is due in hours, committed by a process that could not schedule it; the indexes are complete."""
    list(reconcile(worker, None))
    request = world.submit()
    assert all(worker.schedule.rebuild(index).is_whole() for index in INDEXES)
    worker.schedule.arm(CLOCK, [IndexEntry(str(request.id), "time_out", None)])
    return f"remind:{request.id}"


def test_a_deadline_missing_in_the_index_is_scheduled_in_the_minute_before_the_deadline(
    unarmed: str, worker: Database, superuser: Engine
) -> None:
    list(reconcile(worker, None))
    before = list(drift.differences(superuser, worker.schedule))
    drift.wind(superuser, worker.schedule)
    list(reconcile(worker, None))

    assert before == [f"clock lacks {unarmed}"]
    assert list(drift.differences(superuser, worker.schedule)) == []


def test_a_deadline_that_the_index_still_lacks_in_the_minute_before_the_deadline_is_detected(
    unarmed: str, urls: Urls, superuser: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "RECONCILED_SECONDS", 0)

    found = drift.drift(superuser, urls.redis)

    assert found == [f"clock lacks {unarmed}"]


def test_the_chaos_check_detects_a_planted_bug_that_allows_approval_before_an_earlier_step(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {name: (world.people[who].person_id,) for name, who in (("first", "ann"), ("then", "amir"))}
    lay_down(world, groups=groups, stages=(ApprovalStage(group="first"), ApprovalStage(group="then", order=2)))
    request = world.submit()
    monkeypatch.setitem(vars(permitted_moves), "has_turn", quorum.has_turn)
    with pytest.raises(EarlierStepFirst):
        world.act("amir", Action.APPROVE, request.id)

    planted.BUGS["any-step"].plant()
    world.act("amir", Action.APPROVE, request.id)

    assert [row.id for row in read(world.db, questions.OUT_OF_STEP)] == [request.id]


def test_the_chaos_check_detects_a_planted_bug_that_accepts_approval_after_the_deadline(
    api: Database, world: World, later: ShiftedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.clock = later
    approved, denied = world.submit(), world.submit()
    later.shift = timedelta(hours=13)
    monkeypatch.setitem(vars(permitted_moves), "too_late_at", deadlines.too_late_at)
    with pytest.raises(TooLate):
        world.act("ann", Action.APPROVE, approved.id)

    planted.BUGS["late-yes"].plant()
    opened = world.act("ann", Action.APPROVE, approved.id)

    assert opened.state is State.ACTIVE
    assert [row.id for row in read(world.db, questions.LATE)] == [approved.id]
    with pytest.raises(TooLate):
        world.act("amir", Action.DENY, denied.id)
