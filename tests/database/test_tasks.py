"""The tasks: what they return, and how they fail, even on connections that Postgres has ended."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from celery import Celery
from celery.app.trace import build_tracer
from redis import Redis
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from config.settings import Settings
from gate.enforcement import REPORT
from harness.clocks import ShiftedClock
from harness.people import World
from harness.ports import own_port
from harness.stage import Urls, as_sender, unbound
from harness.wait import within
from lockbox import reconcile
from lockbox.audit.log import sealer
from lockbox.database import Database, make_engine
from lockbox.identity.roles import Role, Scope
from lockbox.monitoring import heartbeats
from lockbox.monitoring.heartbeats import ProcessPart
from lockbox.notifications import delivery
from lockbox.notifications.circuit_breaker import FIRST_LOAD
from lockbox.notifications.senders.protocol import SendFailed
from lockbox.notifications.sending_pool import SendingPool
from lockbox.requests.lifecycle import Action
from lockbox.schedule import Schedule
from lockbox.sql import new_id
from tests.database.postbag import Postbag, SlowMail, address, open_notifications
from tests.database.scenes import (
    PATIENCE,
    many,
    promised_notifications,
    read,
    set_back,
    state_of,
    write,
    write_unchecked,
)
from tests.database.test_break_glass import ON, ended, overdue
from tests.database.test_definition_records import A, B, starts
from tests.database.test_enforcement import says
from tests.database.test_exclusions import stated
from tests.database.test_outside_access import OLD
from tests.database.test_sealer import SIGNER
from tests.database.test_use_events import SERVICE, opened, used
from tests.each import each
from tests.policy_setup import lay_down
from worker import maintenance, tasks
from worker.maintenance import SEAL
from worker.runtime import NOTIFY_THREADS, Runtime, SealingSettings, make
from worker.tasks import TaskFailed

HANGING, SOON = 20, 10.0
# A pipe holds 64 KB, and a worker whose broker is away may have to keep the failures of all that it had taken.
MOST_PICKLED = 4096
CUT = text("""
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE usename = 'lockbox_worker' AND datname = current_database()
""")

OF_THE_CLOCK = """
SELECT e.action FROM events e JOIN tenants t ON t.id = e.log_id WHERE e.actor_role = 'clock' AND t.slug = :slug
"""

RunAs = Callable[[Database, Postbag | None], Runtime]


@pytest.fixture
def run_as(monkeypatch: pytest.MonkeyPatch) -> RunAs:
    """Return a function that sets the database and the senders of this process's tasks."""

    def use(database: Database, post: Postbag | None) -> Runtime:
        sealing = SealingSettings(SIGNER, None, timedelta(days=1))
        tools = Runtime(database, post.senders if post else None, timedelta(days=90), sealing)
        monkeypatch.setattr(tasks, "runtime", lambda: tools)
        return tools

    return use


@pytest.fixture
def without_postgres(urls: Urls, run_as: RunAs) -> Iterator[None]:
    """Let the tasks of this process run without a Postgres."""
    nowhere = make_url(urls.worker).set(port=own_port())
    database = Database(make_engine(nowhere.render_as_string(hide_password=False), role="away"), Schedule(urls.redis))
    run_as(database, Postbag())
    yield
    database.dispose()


def ids(*found: UUID) -> list[str]:
    return [str(one) for one in found]


@pytest.mark.usefixtures("alone")
def test_a_task_whose_database_connection_is_cut_still_completes(
    world: World, worker: Database, superuser: Engine, run_as: RunAs
) -> None:
    run_as(worker, None)
    request = world.submit()
    set_back(superuser, [request.id], 0)
    with worker.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
    with superuser.connect() as connection:
        assert connection.execute(CUT).scalar_one() > 0
        assert within(5, lambda: connection.execute(CUT).scalar_one() == 0)

    counts = tasks.time_out(ids(request.id))

    assert counts == {"timed_out": 1}
    assert state_of(worker, request.id) == "timed_out"


def test_a_timer_task_returns_counts_of_what_it_did(
    world: World, worker: Database, later: ShiftedClock, run_as: RunAs
) -> None:
    waiting, opened = many(world, 2)
    world.act("ann", Action.APPROVE, opened)
    run_as(worker, None)
    later.shift, worker.clock = timedelta(hours=1), later

    early = tasks.time_out(ids(waiting, new_id()))
    later.shift = timedelta(hours=6, minutes=1)
    reminded = tasks.remind(ids(waiting))
    later.shift = timedelta(hours=13)
    ended = tasks.expire([*ids(waiting, opened), "not an id"])

    assert early == {"timed_out": 0, "skipped": 2}
    assert reminded == {"reminded": 1}
    assert ended == {"expired": 1, "timed_out": 1}


@pytest.mark.usefixtures("alone")
def test_a_timer_task_ends_other_requests_and_fails_if_one_request_cannot_be_written(
    world: World, worker: Database, superuser: Engine, run_as: RunAs
) -> None:
    bad, *others = many(world, 3)
    set_back(superuser, [bad, *others], 0)
    run_as(worker, None)
    rule = f"CHECK (id <> '{bad}' OR state = 'pending') NOT VALID"
    write(superuser, f"ALTER TABLE requests ADD CONSTRAINT one_is_bad {rule}")

    with pytest.raises(TaskFailed, match="1 of 3 requests could not be written"):
        tasks.time_out(ids(bad, *others))

    assert [state_of(worker, one) for one in (bad, *others)] == ["pending", "timed_out", "timed_out"]


def test_the_notify_task_ends_after_all_results_are_recorded_and_counts_outcomes(
    world: World, sender: Database, run_as: RunAs
) -> None:
    world.submit()
    answered = world.submit()
    post = Postbag()
    post.mail.refused = {address(sender, world, "ann"): SendFailed("later")}
    notifications = open_notifications(sender)
    world.act("abe", Action.DENY, answered.id)
    run_as(as_sender(sender), post)

    counts = tasks.notify(ids(*notifications, new_id()))
    again = tasks.notify(ids(*notifications))

    assert counts == {"sent": 2, "deferred": 1, "moot": 3, "skipped": 1}
    assert again == {"sent": 0, "skipped": 6}
    assert len({*notifications} & {*open_notifications(sender)}) == 1


@pytest.mark.far
def test_the_notify_task_postpones_notifications_for_which_the_sending_pool_has_no_slot(
    world: World, sender: Database, run_as: RunAs
) -> None:
    several = many(world, FIRST_LOAD)
    Postbag().deliver(sender, open_notifications(sender))
    for one in several:
        world.act("abe", Action.DENY, one)
    run_as(as_sender(sender), Postbag(sending_pool=SendingPool(mails_at_once=1)))
    news = open_notifications(sender)

    counts = tasks.notify(ids(*news))

    assert counts["sent"] >= FIRST_LOAD
    assert counts.keys() == {"sent", "deferred"}
    assert counts["sent"] + counts["deferred"] == len(news) > 2 * FIRST_LOAD


def test_a_notify_task_at_its_time_limit_keeps_the_leases_of_started_sends_and_returns_all_others(
    world: World, sender: Database, run_as: RunAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, batch = SlowMail(), delivery._DispatchedBatch  # noqa: SLF001 - its wait begins once a mail is being sent
    wait = batch.wait
    monkeypatch.setattr(batch, "wait", lambda *words: slow.sending.wait(PATIENCE) and wait(*words))
    monkeypatch.setattr(delivery, "RECORD_SECONDS", PATIENCE)
    monkeypatch.setattr(tasks, "SEND_SECONDS", 0.2)
    world.submit()
    post = Postbag(mail=slow)
    run_as(as_sender(sender), post)

    counts = tasks.notify(ids(*open_notifications(sender)))
    slow.let_go.set()

    assert counts == {"sent": 0, "unfinished": 1, "deferred": 2}
    assert within(10, lambda: len(open_notifications(sender)) == 2)
    assert sorted(row.attempts for row in read(sender, "SELECT attempts FROM notifications")) == [0, 0, 1]


@pytest.mark.usefixtures("alone")
def test_the_notify_task_fails_if_a_result_cannot_be_recorded(world: World, sender: Database, run_as: RunAs) -> None:
    world.submit()
    first, *others = open_notifications(sender)
    run_as(as_sender(sender), Postbag())
    rule = f"CHECK (id <> '{first}' OR outcome IS NULL) NOT VALID"
    write(unbound(sender), f"ALTER TABLE notifications ADD CONSTRAINT one_is_bad {rule}")

    with pytest.raises(TaskFailed, match="1 of 3 results are not recorded"):
        tasks.notify(ids(first, *others))

    assert open_notifications(sender) == [first]
    assert read(sender, "SELECT run_at > now() AS later FROM notifications WHERE id = :id", id=first)[0].later


def test_each_notification_thread_gets_a_database_connection(urls: Urls) -> None:
    chosen = Settings(environment="test", notifications_database_url=urls.notifications, redis_url=urls.redis)
    database = make(chosen).database

    with ExitStack() as held:
        for _ in range(NOTIFY_THREADS + 4):
            held.enter_context(database.engine.connect())

    database.dispose()


@each("name", ["time_out", "expire", "remind", "notify", "reconcile", "seal"])
@pytest.mark.usefixtures("without_postgres")
def test_a_task_without_postgres_fails_with_one_short_line(name: str) -> None:
    arguments = [] if name in {"reconcile", "seal"} else [ids(new_id())]

    task = getattr(tasks, name)

    with Celery("traced", set_as_current=False) as app:
        traced: Callable[..., Any] = build_tracer(task.name, task, app=app)
        failed, *_ = traced(str(new_id()), arguments, {})

    assert isinstance(failed.exception, TaskFailed)
    assert "comes again" in str(failed.exception)
    assert str(failed).count("Traceback") == 1
    assert len(pickle.dumps(failed)) < MOST_PICKLED


def test_an_internal_error_of_a_task_reaches_the_parent_process_as_one_line(
    worker: Database, run_as: RunAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_as(worker, None)
    monkeypatch.setattr(maintenance, "run", lambda *_: 1 / 0)

    with pytest.raises(TaskFailed, match="ZeroDivisionError: see the worker's log") as failed:
        tasks.seal()

    assert failed.value.__cause__ is failed.value.__context__ is None


def test_the_reconcile_and_seal_tasks_count_and_record_their_runs(
    world: World, worker: Database, urls: Urls, superuser: Engine, run_as: RunAs, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "WORK_SECONDS", HANGING)
    overdue, _ = many(world, 2)
    set_back(superuser, [overdue], 4)
    with Redis.from_url(urls.redis) as redis:
        redis.flushdb()
    run_as(worker, None)

    repaired = tasks.reconcile()
    sealed = tasks.seal()

    assert repaired == {
        "overdue": 1,
        "rebuilt_clock": 1,
        "rebuilt_notifications": len(promised_notifications(worker)),
        "whole": 3,
    }
    assert sealed["events"] == read(worker, "SELECT count(*) AS n FROM events")[0].n
    assert sealed["checkpoints"] >= 1
    assert not sealer.is_due(worker)
    assert heartbeats.age(worker, ProcessPart.RECONCILE) < SOON
    assert heartbeats.age(worker, ProcessPart.SEAL) < SOON
    assert tasks.seal() == {"events": 0}


def test_the_reconcile_task_announces_changes_and_writes_due_statements_and_reminders(
    world: World, worker: Database, superuser: Engine, run_as: RunAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "WORK_SECONDS", HANGING)
    run_as(worker, None)
    world.add("nginx", Role.SYSTEM, scopes={Scope("gate:nginx")}, services={SERVICE})
    used(world, opened(world))
    lay_down(world, **ON.model_dump(include={"break_glass_services"}))
    ended(world)
    overdue(superuser)
    for catalogue in (A, B):
        starts(world.db, catalogue)
    says(world.db, REPORT)
    stated(world)
    tasks.seal()
    for due in (OLD, "UPDATE exclusions SET created_at = created_at - interval '1 hour'"):
        write_unchecked(superuser, due)

    counts = tasks.reconcile()

    assert {row.action for row in read(world.db, OF_THE_CLOCK, slug=world.tenant.slug)} >= {
        *("gate_defined", "gate_redefined", "gate_report_began", "exclusions_changed"),
        *("first_used", "after_review_overdue", "unapproved_access_stated"),
    }
    assert (counts["announced"], counts["uses"], counts["findings_awaited"], counts["stated"]) == (7, 1, 1, 1)


@pytest.mark.parametrize(("name", "turn"), [("reconcile", reconcile.TURN), ("seal", sealer.TURN)])
def test_a_maintenance_run_is_skipped_while_another_run_is_in_progress(
    worker: Database, run_as: RunAs, name: str, turn: str
) -> None:
    run_as(worker, None)

    with worker.turn(turn):
        counts = getattr(tasks, name)()

    assert counts == {"skipped": 1}


def test_a_seal_run_that_is_cut_short_is_continued_by_the_next_run(
    world: World, worker: Database, run_as: RunAs, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Passing:
        """A clock that advances a second at each reading."""

        now = 0.0

        @classmethod
        def monotonic(cls) -> float:
            cls.now += 1
            return cls.now

    monkeypatch.setattr(maintenance, "time", Passing)
    monkeypatch.setattr(sealer, "MOST_EVENTS", 1)
    for _ in range(4):
        world.fresh()
    run_as(worker, None)
    written = read(worker, "SELECT count(*) AS n FROM events")[0].n

    runs: list[dict[str, int]] = []
    while SEAL.is_due(worker) and len(runs) <= written:
        runs.append(tasks.seal())

    assert len(runs) > 1
    assert sum(run["events"] for run in runs) == written
    assert all(run["cut_short"] == 1 for run in runs[:-1])
