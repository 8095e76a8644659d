"""Check the invariants and measure the lag once a minute, in one thread of all workers."""

from lockbox.monitoring import metrics
from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.monitoring.invariants import ScanPosition
from worker import alerts
from worker.loop import WorkerLoop
from worker.runtime import Runtime

FIRST_SECONDS = 5.0
AGAIN_SECONDS = 5.0
SURE_SECONDS = 15.0


class AlertMonitor(WorkerLoop):
    """Checks once a minute, whichever worker's turn it is, and twice before it raises an alarm."""

    def __init__(self, tools: Runtime, heart: HeartbeatSender) -> None:
        super().__init__("watcher", tools)
        self._heart = heart
        self._rota = ScanPosition()

    def run(self) -> None:
        """Let an outage's backlog be done first."""
        self.stopping.wait(FIRST_SECONDS)
        super().run()

    def round(self) -> None:
        """Check if no worker has within the minute; what is still wrong a quarter of a minute later is an alarm."""
        database = self.tools.database
        if self._is_due():
            with database.turn(alerts.TURN) as is_held:
                # Another worker may have looked while this one came to the lock.
                if is_held and self._is_due():
                    self._look()
        self.stopping.wait(AGAIN_SECONDS)

    def _is_due(self) -> bool:
        with self.gate:
            return alerts.is_due(self.tools.database)

    def _look(self) -> None:
        database = self.tools.database
        with self.gate:
            metrics.sample(database)
        with self.gate:
            found, turned = alerts.find_violations(database, self._rota)
        if found and not self.stopping.wait(SURE_SECONDS):
            with self.gate:
                alerts.confirm(database, found, self._rota)
        with self.gate:
            self._heart.beat(database, ProcessPart.INVARIANTS)
        self._rota = turned
