"""The pollers as a step of the worker's blueprint: they start after the pool, whether or not the broker answers."""

from typing import Any

from celery import Celery, bootsteps

from lockbox.monitoring.heartbeats import HeartbeatSender, ProcessPart
from lockbox.schedule import CLOCK, NOTIFICATIONS
from lockbox.schedule import CONNECTIONS as CONNECTION_INDEX
from worker.alerts import AlertMonitor
from worker.heartbeat import HeartbeatLoop
from worker.loop import WorkerLoop
from worker.maintenance import RECONCILE, SEAL, MaintenanceLoop
from worker.poller import POLLED, Poller
from worker.runtime import CONNECTIONS, Runtime, runtime
from worker.without_redis import ConnectionWatch, DirectConnector, DirectSender, NotificationReconciler

STOP_SECONDS = 5.0


class Pollers(bootsteps.StartStopStep):
    """The worker that sends notifications does not poll the clock or seal, because it would do both late."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **_: Any) -> None:  # noqa: ANN401 - Celery's signature
        super().__init__(parent)
        self.loops: list[WorkerLoop] = []
        self.sending: DirectSender | None = None

    def start(self, parent: Any) -> None:  # noqa: ANN401 - Celery's signature
        tools = runtime()
        is_core = POLLED[CLOCK].queue in parent.app.amqp.queues.consume_from
        part = ProcessPart.CORE if is_core else ProcessPart.CONNECTORS if tools.driver else ProcessPart.NOTIFICATIONS
        heart = HeartbeatSender(parent.hostname, connections=CONNECTIONS[part])
        if is_core:
            working = self._core(parent.app, tools, heart)
        elif tools.driver:
            working = self._connectors(parent.app, tools)
        else:
            working = self._notifications(parent.app, tools)
        self.loops = [*working, HeartbeatLoop(tools, heart, part, working)]
        for loop in self.loops:
            loop.start()

    def stop(self, parent: Any) -> None:  # noqa: ANN401, ARG002 - Celery's signature
        for loop in self.loops:
            loop.stop()
        for loop in self.loops:
            loop.join(STOP_SECONDS)
        if self.sending:
            self.sending.stop()

    terminate = stop

    def _core(self, app: Celery, tools: Runtime, heart: HeartbeatSender) -> list[WorkerLoop]:
        reconcile = MaintenanceLoop(RECONCILE, app, tools)
        seal = [MaintenanceLoop(SEAL, app, tools)] if tools.sealing else []
        return [reconcile, *seal, Poller(CLOCK, app, tools, reconcile.poke), AlertMonitor(tools, heart)]

    def _notifications(self, app: Celery, tools: Runtime) -> list[WorkerLoop]:
        self.sending = DirectSender(tools)
        reconcile = NotificationReconciler(tools, self.sending)
        return [reconcile, Poller(NOTIFICATIONS, app, tools, reconcile.poke, self.sending)]

    @staticmethod
    def _connectors(app: Celery, tools: Runtime) -> list[WorkerLoop]:
        connecting = DirectConnector(tools)
        watch = ConnectionWatch(tools, connecting)
        return [watch, Poller(CONNECTION_INDEX, app, tools, watch.poke, connecting=connecting)]
