"""Sealing and reconciling: tasks are sent when due; if no worker takes them, the work is done in process."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from celery import Celery
from kombu import Queue
from redis import Redis
from sqlalchemy import Engine, text

from harness.people import World
from harness.stage import Urls
from harness.wait import within
from lockbox.audit.log import sealer
from lockbox.audit.log.sealer import RollbackDetected
from lockbox.database import Database, make_engine
from lockbox.monitoring import heartbeats
from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.reconcile import Step
from lockbox.schedule import Schedule
from tests.database.scenes import set_back, state_of
from tests.database.test_sealer import SIGNER, sealed
from worker import maintenance, tasks
from worker.maintenance import MOST_WAITING, QUEUE, RECONCILE, SEAL, MaintenanceJob, MaintenanceLoop
from worker.runtime import Runtime, SealingSettings

Looping = Callable[[MaintenanceJob], None]
NOBODY = HeartbeatSender("core@elsewhere", uuid4())


@pytest.fixture
def looping(worker: Database, urls: Urls) -> Iterator[Looping]:
    tools = Runtime(worker, None, timedelta(days=90), SealingSettings(SIGNER, None, timedelta(days=1)))
    with ExitStack() as ends, Celery("maintained", broker=urls.redis, set_as_current=False) as app:
        app.conf.task_queues = [Queue(QUEUE)]
        app.conf.task_routes = {f"lockbox.{job.name}": {"queue": QUEUE} for job in (RECONCILE, SEAL)}
        app.finalize()
        assert {task.name for task in (tasks.seal, tasks.reconcile)} <= app.tasks.keys()

        def start(job: MaintenanceJob) -> None:
            started = MaintenanceLoop(job, app, tools)
            started.start()
            ends.callback(started.join, 5)
            ends.callback(started.stop)

        yield start


@pytest.fixture
def broker(urls: Urls) -> Iterator["Redis"]:
    with Redis.from_url(urls.redis) as found:
        yield found


def beat(worker: Database, job: MaintenanceJob) -> None:
    NOBODY.beat(worker, job.part)


@pytest.mark.far
def test_a_maintenance_task_that_no_worker_takes_is_done_in_process_after_two_intervals(
    world: World, worker: Database, broker: "Redis", looping: Looping
) -> None:
    beat(worker, SEAL)
    looping(SEAL)
    began = time.monotonic()
    world.fresh()

    assert within(5, lambda: broker.llen(QUEUE) == 1)
    assert sealer.is_due(worker)
    assert within(10, lambda: not sealer.is_due(worker))
    assert time.monotonic() - began >= 2 * SEAL.interval


@pytest.mark.far
def test_a_seal_task_is_sent_only_if_there_are_unsealed_events(
    worker: Database, broker: "Redis", looping: Looping
) -> None:
    beat(worker, SEAL)
    looping(SEAL)

    time.sleep(2 * SEAL.interval)

    assert broker.llen(QUEUE) == 0


def test_reconciling_runs_in_process_if_the_last_run_was_too_long_ago(
    world: World, worker: Database, superuser: Engine, looping: Looping
) -> None:
    overdue = world.submit()
    set_back(superuser, [overdue.id], 4)

    looping(RECONCILE)

    assert within(30, lambda: state_of(worker, overdue.id) == "timed_out")
    assert within(30, lambda: heartbeats.age(worker, ProcessPart.RECONCILE) < 2 * RECONCILE.interval)


@pytest.mark.far
def test_a_maintenance_job_that_another_process_is_running_is_neither_queued_nor_done_again(
    world: World, worker: Database, superuser: Engine, broker: "Redis", looping: Looping
) -> None:
    overdue = world.submit()
    set_back(superuser, [overdue.id], 4)
    beat(worker, RECONCILE)

    looping(RECONCILE)
    time.sleep(2 * RECONCILE.look)

    assert broker.llen(QUEUE) == 0
    assert state_of(worker, overdue.id) == "pending"


@pytest.mark.far
def test_a_task_queue_without_a_worker_gets_only_a_few_messages(
    world: World, worker: Database, broker: "Redis", looping: Looping
) -> None:
    beat(worker, SEAL)
    looping(replace(SEAL, interval=0.05, look=0.05))

    for _ in range(2 * MOST_WAITING):
        world.fresh()
        assert within(5, lambda: not sealer.is_due(worker))

    assert 1 <= broker.llen(QUEUE) <= MOST_WAITING


@pytest.mark.far
def test_while_redis_is_away_maintenance_work_is_done_in_process_at_once(
    world: World, worker: Database, away_url: str, looping: Looping
) -> None:
    beat(worker, SEAL)
    worker.schedule.close()
    worker.schedule = Schedule(away_url)
    looping(replace(SEAL, interval=0.5))
    world.fresh()

    assert within(10, lambda: not sealer.is_due(worker))


def test_the_notifications_workers_database_role_records_only_its_own_runs(worker: Database, urls: Urls) -> None:
    theirs = Database(make_engine(urls.notifications, role="test-notifications"), worker.schedule)

    for part in ProcessPart:
        HeartbeatSender("notifications@here").beat(theirs, part)
    theirs.engine.dispose()

    assert [one for one in ProcessPart if heartbeats.age(worker, one) < math.inf] == [ProcessPart.NOTIFICATIONS]


def test_a_maintenance_run_recorded_before_the_clock_was_set_back_is_ignored(
    worker: Database, superuser: Engine
) -> None:
    beat(worker, SEAL)
    with superuser.begin() as connection:
        connection.execute(text("UPDATE heartbeats SET beat_at = beat_at + interval '1 hour'"))

    assert heartbeats.age(worker, ProcessPart.SEAL) == math.inf


def test_a_seal_run_that_could_not_seal_some_logs_fails_and_is_not_recorded(
    worker: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "WORK_SECONDS", 0.0)

    def steps(_: Runtime) -> Generator[Step, None, None]:
        yield "held", 2
        yield "events", 1

    tools = Runtime(worker, None, timedelta(days=90), SealingSettings(SIGNER, None, timedelta(days=1)))

    with pytest.raises(RollbackDetected, match="2 so far"):
        maintenance.run(tools, replace(SEAL, steps=steps, gives_way=False))

    assert heartbeats.age(worker, ProcessPart.SEAL) == math.inf


def test_a_seal_run_while_another_process_seals_is_skipped_and_not_recorded(world: World, worker: Database) -> None:
    tools = Runtime(worker, None, timedelta(days=90), SealingSettings(SIGNER, None, timedelta(days=1)))
    world.fresh()
    assert sealed(worker)  # of which nobody was told yet

    with worker.turn(sealer.TURN) as is_held:
        assert is_held
        assert maintenance.run(tools, SEAL) == {"skipped": 1}

    assert heartbeats.age(worker, ProcessPart.SEAL) == math.inf


def test_only_five_of_the_logs_that_cannot_be_sealed_are_named_and_the_rest_are_counted() -> None:
    said = sealer.held_logs({UUID(int=number): "it is not what was signed" for number in range(5_000)})

    assert said.endswith("and 4995 more")
    assert len(said) < 500
