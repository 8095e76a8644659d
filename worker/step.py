"""The step of the worker blueprint that starts the pollers: after the pool, whether or not the broker answers."""

import socket
from typing import Any

from celery import bootsteps

from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.schedule import CLOCK, INDEXES, NOTIFICATIONS
from worker.direct_sender import DirectSender
from worker.heartbeat import HeartbeatLoop
from worker.loop import WorkerLoop
from worker.poller import QUEUES, Poller, Reconciler
from worker.runtime import runtime
from worker.sealer import Sealer
from worker.watcher import AlertMonitor

STOP_SECONDS = 5.0


class Pollers(bootsteps.StartStopStep):
    """Runs a reconciler in every worker, and a poller for each index whose hints this worker takes.

    A worker that is busy sending would be a slow poller of the clock; where no poller of an index lives, every
    reconciler acts on what is overdue by itself.
    """

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **_: Any) -> None:  # noqa: ANN401 - Celery's signature
        super().__init__(parent)
        self.loops: list[WorkerLoop] = []
        self.sending: DirectSender | None = None

    def start(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        """Start the threads."""
        tools = runtime()
        served = parent.app.amqp.queues.consume_from
        if QUEUES[NOTIFICATIONS] in served and tools.senders:
            self.sending = DirectSender(tools)
        part = ProcessPart.CORE if QUEUES[CLOCK] in served else ProcessPart.NOTIFICATIONS
        heart = HeartbeatSender(f"{part}@{socket.gethostname()}")
        reconciler = Reconciler(tools, self.sending, heart)
        pollers = [Poller(index, parent.app, tools, reconciler) for index in INDEXES if QUEUES[index] in served]
        # Where the clock's hints are taken; a worker that is busy sending would be a slow sealer.
        sealers = [Sealer(tools, tools.sealing)] if tools.sealing and QUEUES[CLOCK] in served else []
        watchers = [AlertMonitor(tools, heart)] if part is ProcessPart.CORE else []
        working: list[WorkerLoop] = [reconciler, *pollers, *sealers, *watchers]
        self.loops = [*working, HeartbeatLoop(tools, heart, part, working)]
        for loop in self.loops:
            loop.start()

    def stop(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - Celery's signature
        """Ask the threads to end and wait a little; what they leave is picked up by others."""
        for loop in self.loops:
            loop.stop()
        for loop in self.loops:
            loop.join(STOP_SECONDS)
        if self.sending:
            self.sending.stop()

    terminate = stop
