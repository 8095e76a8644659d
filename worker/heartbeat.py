"""Send a heartbeat every ten seconds while no thread of the worker hangs."""

import time
from collections.abc import Sequence

import structlog

from lockbox import sql
from lockbox.monitoring.heartbeats import BEAT_SECONDS, HeartbeatSender, ProcessPart
from worker.loop import WorkerLoop
from worker.runtime import Runtime
from worker.transport import dropped

log = structlog.get_logger(__name__)

HANGS_SECONDS = 60.0


class HeartbeatLoop(WorkerLoop):
    def __init__(
        self, tools: Runtime, heart: HeartbeatSender, part: ProcessPart, others: Sequence[WorkerLoop]
    ) -> None:
        super().__init__("heart", tools)
        self._heart = heart
        self._part = part
        self._others = others

    def round(self) -> None:
        hanging = [one.name for one in self._others if time.monotonic() - one.lively_at > HANGS_SECONDS]
        if hanging:
            log.critical("heart.hanging", threads=hanging, do="restart this worker")
        else:
            with self.gate:
                self._heart.beat(self.tools.database, self._part)
                self._count_dropped()
        self.stopping.wait(BEAT_SECONDS)

    def _count_dropped(self) -> None:
        counts = dropped.take()
        if counts:
            with self.tools.database.transaction() as session:
                session.execute(sql.ADD_DROPPED, {"label": list(counts), "count": list(counts.values())})
