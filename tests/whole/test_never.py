"""What must never be lost or late, tried on the real stack: killed workers, lost Redis, restarted Postgres."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from devstack.embedded import ServerAddresses
from harness.stage import migrated_servers
from lockbox.requests.lifecycle import Action
from tests.whole.conftest import RunningStack, wait_until

# Who dies with a notification in hand leaves it to others after its lease of 60 seconds.
PAST_A_LEASE = 100.0
LATEST = 30.0
FOUND = 12
WAITING_FOR_A_LOCK = """
SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'lockbox-worker'
AND datname = current_database()
"""
ANSWERS = """
import socket
from worker.app import app
from worker.health import answers
raise SystemExit(not answers(app, f"core@{socket.gethostname()}"))
"""


@pytest.fixture(scope="module")
def template() -> Iterator[ServerAddresses]:
    """Servers of this file alone, which its tests kill and change."""
    with migrated_servers("never") as servers:
        yield servers


def _says(log: Path, words: str) -> bool:
    return words in log.read_text()


@pytest.mark.far
def test_flushing_redis_loses_nothing(stage: RunningStack) -> None:
    # Whose prompt is not sent before the time is over is never told: that is lateness, and not loss.
    world = stage.world(approval_window=FOUND)
    requests = [world.submit() for _ in range(20)]
    wait_until(
        lambda: stage.rows("SELECT 1 FROM notifications WHERE closed_at IS NOT NULL"), "the prompts begin to go"
    )

    with stage.redis() as redis:
        redis.flushdb()

    for request in requests:
        stage.ends(request.id, "timed_out")
    wait_until(lambda: not stage.open_notifications(world), "every notification is closed", PAST_A_LEASE)
    dead = "SELECT 1 FROM notifications WHERE outcome = 'dead' AND tenant_id = :id"
    assert not stage.rows(dead, id=str(world.tenant.id))
    stage.events_are_whole()


@pytest.mark.far
def test_losing_any_redis_key_loses_nothing(stage: RunningStack) -> None:
    world = stage.world(approval_window=3)

    for key in ("clock", "clock:leases", "notifications", "notifications:leases"):
        request = world.submit()
        with stage.redis() as redis:
            redis.delete(f"{{lockbox}}:{key}")

        stage.ends(request.id, "timed_out")

    stage.events_are_whole()


@pytest.mark.far
def test_an_emptied_redis_loses_nothing(stage: RunningStack) -> None:
    world = stage.world(approval_window=3)
    request = world.submit()

    stage.servers.kill("redis")
    stage.servers.start_again("redis", empty=True)

    stage.ends(request.id, "timed_out")
    after = world.submit()
    stage.ends(after.id, "timed_out")
    wait_until(lambda: not stage.open_notifications(world), "every notification is closed", PAST_A_LEASE)
    stage.events_are_whole()


@pytest.mark.far
def test_a_redis_restart_with_a_message_in_flight_ends_no_worker(stage: RunningStack) -> None:
    world = stage.world()
    stage.processes.kill("notifications")
    world.submit()
    with stage.superuser.connect() as blocker:
        blocker.execute(text("BEGIN"))
        blocker.execute(text("LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE"))
        stage.processes.start("notifications")
        with stage.redis() as redis:
            wait_until(lambda: redis.hlen("unacked"), "the worker has a message in hand")

        stage.servers.kill("redis")
        time.sleep(1)
        blocker.execute(text("ROLLBACK"))
    stage.servers.start_again("redis", empty=True)

    wait_until(lambda: not stage.open_notifications(world), "every notification is closed", PAST_A_LEASE)
    assert stage.processes.ended() == {}


@pytest.mark.far
def test_a_full_redis_ends_no_worker_and_delays_no_deadline(stage: RunningStack) -> None:
    world = stage.world()
    with stage.redis() as redis:
        redis.config_set("maxmemory", 1)
        try:
            redis.client_kill_filter(_type="normal", skipme=True)
            request = world.submit()

            stage.ends(request.id, "timed_out")
            for name in ("worker", "notifications"):
                log = stage.processes.logs / f"{name}.log"
                wait_until(partial(_says, log, "maxmemory"), "the consumer is refused")
        finally:
            redis.config_set("maxmemory", 0)

    wait_until(lambda: stage.python(ANSWERS).returncode == 0, "the worker serves again")
    wait_until(lambda: not stage.open_notifications(world), "every notification is closed", PAST_A_LEASE)
    assert stage.processes.ended() == {}
    stage.events_are_whole()


@pytest.mark.far
def test_a_postgres_restart_loses_nothing(stage: RunningStack) -> None:
    world = stage.world(approval_window=3)
    request = world.submit()

    stage.servers.kill("postgres")
    stage.servers.start_again("postgres")

    stage.ends(request.id, "timed_out")
    with stage.as_(world, "erin") as erin:
        wait_until(lambda: erin.post("/v1/requests", json=world.body()).status_code == 201, "intake is back")
    stage.events_are_whole()


@pytest.mark.far
def test_a_worker_killed_between_claim_and_commit_loses_nothing(stage: RunningStack) -> None:
    world = stage.world(approval_window=2)
    request = world.submit()
    with stage.superuser.connect() as blocker:
        blocker.execute(text("BEGIN"))
        blocker.execute(text("LOCK TABLE unsealed IN ACCESS EXCLUSIVE MODE"))
        wait_until(lambda: stage.rows(WAITING_FOR_A_LOCK), "a worker has claimed the request and waits to write")
        family = psutil.Process(stage.processes.running["worker"].pid)
        children = family.children(recursive=True)

        stage.processes.kill("worker")
        for child in children:
            # One that was idle has ended with its parent.
            with suppress(psutil.NoSuchProcess):
                child.kill()
        blocker.execute(text("ROLLBACK"))
    assert stage.state(request.id) == "pending"

    stage.processes.start("worker")

    stage.ends(request.id, "timed_out")
    stage.events_are_whole()


@pytest.mark.far
def test_repeatedly_killed_pool_children_make_no_task_hang(stage: RunningStack) -> None:
    world = stage.world(approval_window=1)
    parent = psutil.Process(stage.processes.running["worker"].pid)
    # Celery gives up, with an error code, on a worker whose pool dies before it has begun to serve.
    wait_until(lambda: stage.python(ANSWERS).returncode == 0, "the worker serves")

    for _ in range(15):
        request = world.submit()
        for child in parent.children():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        time.sleep(0.3)

    stage.ends(request.id, "timed_out")
    wait_until(lambda: not stage.open_requests(world), "every request has ended")
    assert stage.processes.running["worker"].poll() is None
    wait_until(lambda: len(parent.children()) >= 3, "the pool is whole again")
    with stage.redis() as redis:
        redis.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: stage.python(ANSWERS).returncode == 0, "the worker serves again")
    assert stage.processes.ended() == {}
    stage.events_are_whole()


@pytest.mark.far
def test_access_ends_on_time_with_all_workers_dead(stage: RunningStack) -> None:
    world = stage.world(approval_window=60)
    request = world.submit(access_window=8)
    for name in ("worker", "notifications"):
        stage.processes.kill(name)
    world.act("ann", Action.APPROVE, request.id)
    deadline = stage.rows(
        "SELECT extract(epoch FROM deadline_at) AS at FROM requests WHERE id = :id", id=str(request.id)
    )
    ends = float(deadline[0].at)
    served = refused = 0

    with stage.as_(world, "gate") as gate:
        while time.time() < ends + 1 or (not refused and time.time() < ends + LATEST):
            asked = time.time()
            if gate.get("/v1/access", params=world.question()).status_code == 200:
                assert asked < ends
                served += 1
            else:
                refused += 1
            time.sleep(0.05)

    assert served > 0
    assert refused > 0
    assert stage.state(request.id) == "active"
    for name in ("worker", "notifications"):
        stage.processes.start(name)
    stage.ends(request.id, "expired")


@pytest.mark.far
def test_senders_have_a_lower_cpu_priority_than_timers(stage: RunningStack) -> None:
    stage.world()
    clock, sending = (stage.processes.running[name].pid for name in ("worker", "notifications"))

    assert psutil.Process(sending).nice() > psutil.Process(clock).nice()
    if Path(f"/proc/{clock}/autogroup").exists():
        of_clock, of_sending = (Path(f"/proc/{pid}/autogroup").read_text() for pid in (clock, sending))
        assert int(of_sending.split()[-1]) > int(of_clock.split()[-1])
