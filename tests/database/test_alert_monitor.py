"""The monitoring threads of a worker: the one that checks each minute, and the one that sends heartbeats."""

import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import Engine

from harness.people import World
from harness.stage import unbound
from harness.wait import within
from lockbox.database import Database
from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.requests.lifecycle import Action
from tests.database.scenes import read
from tests.database.test_exports import freely
from worker import alerts
from worker import heartbeat as hearts
from worker.alerts import AlertMonitor
from worker.heartbeat import HeartbeatLoop
from worker.loop import WorkerLoop
from worker.runtime import Runtime

ALARMS = "SELECT FROM events WHERE action = 'invariant_broken'"
BEATS = "SELECT role, beat_at FROM heartbeats"


class StuckLoop(WorkerLoop):
    """A thread that hangs in its first round."""

    def __init__(self, tools: Runtime) -> None:
        super().__init__("stuck", tools)
        self.let_go = threading.Event()

    def round(self) -> None:
        self.let_go.wait(20)


@pytest.fixture
def tools(worker: Database) -> Runtime:
    """The runtime of a worker that neither sends nor seals."""
    return Runtime(worker, None, timedelta(days=90), None)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the intervals to 0.05 s."""
    for name in ("FIRST_SECONDS", "AGAIN_SECONDS", "SURE_SECONDS"):
        monkeypatch.setattr(alerts, name, 0.05)
    monkeypatch.setattr(hearts, "BEAT_SECONDS", 0.05)


@pytest.mark.far
def test_two_alert_monitors_raise_one_alarm(
    world: World, worker: Database, superuser: Engine, tools: Runtime
) -> None:
    world.act("ann", Action.APPROVE, world.fresh().id)
    freely(superuser, "DELETE FROM decisions WHERE decision = 'approve'")
    watching = [AlertMonitor(tools, HeartbeatSender(f"core@{number}")) for number in range(2)]

    for one in watching:
        one.start()

    assert within(10, lambda: read(worker, ALARMS))
    assert within(10, lambda: read(worker, f"{BEATS} WHERE role = 'invariants'"))
    time.sleep(0.3)
    for one in watching:
        one.stop()
        one.join(5)
    assert len(read(worker, ALARMS)) == 1
    # One of the two has looked, within this minute.
    assert len(read(worker, BEATS)) == 1


@pytest.mark.far
def test_the_heartbeat_of_the_alert_monitor_continues_while_all_monitor_threads_run(
    worker: Database, tools: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stuck = StuckLoop(tools)
    beating = HeartbeatLoop(tools, HeartbeatSender("core@here"), ProcessPart.CORE, [stuck])
    stuck.start()
    beating.start()
    assert within(5, lambda: read(unbound(worker), BEATS))

    monkeypatch.setattr(hearts, "HANGS_SECONDS", 0.1)

    assert within(5, lambda: "heart.hanging" in capsys.readouterr().out)
    (before,) = read(worker, BEATS)
    time.sleep(0.3)
    assert read(worker, BEATS) == [before]
    stuck.stop()
    stuck.let_go.set()
    beating.stop()
    for one in (stuck, beating):
        one.join(5)
