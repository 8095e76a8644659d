"""Send a heartbeat every ten seconds."""

import socket
import threading
import time
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from lockbox.audit.log import checkpoint_folder
from lockbox.database import Database
from lockbox.identity import row_macs
from lockbox.identity.row_macs import MarkScans
from lockbox.monitoring.heartbeats import BEAT_SECONDS, HeartbeatSender, ProcessPart
from lockbox.requests import decision_context

LOOK_SECONDS = 30.0

log = structlog.get_logger(__name__)


class HeartbeatThread(threading.Thread):
    """Keeps trying while Postgres is away."""

    def __init__(
        self,
        database: Database,
        connections: int | None = None,
        gate_differs: Callable[[], bool] | None = None,
        *,
        needs_connectors: bool | None = None,
    ) -> None:
        super().__init__(name="heart", daemon=True)
        self._needs_connectors = needs_connectors
        self._gate_differs = gate_differs
        self._database = database
        self._heart = HeartbeatSender(f"api@{socket.gethostname()}", connections=connections)
        self._stopping = threading.Event()
        self._look_at = 0.0
        self._doubted: list[str] | None = None
        self._rounds = MarkScans()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.beat()
            except SQLAlchemyError as error:
                log.warning("heartbeat.postgres_away", error=type(error).__name__)
            self._stopping.wait(BEAT_SECONDS)

    def beat(self) -> None:
        """Send a heartbeat. Every half minute, also report rolled-back logs and invalid MACs."""
        is_due = time.monotonic() >= self._look_at
        if is_due:
            with self._database.transaction() as session:
                shipped = checkpoint_folder.of(session)
                self._doubted = shipped.all_doubts(session) if shipped else None
        differs = self._gate_differs() if self._gate_differs else None
        self._heart.beat(
            self._database,
            ProcessPart.API,
            self._doubted,
            gate_differs=differs,
            needs_connectors=self._needs_connectors,
        )
        if is_due:
            with self._database.transaction() as session:
                found = [*decision_context.unverified(session), *self._rounds.look(session)]
                row_macs.report_unverified(session, self._heart.id, found)
            self._look_at = time.monotonic() + LOOK_SECONDS

    def stop(self) -> None:
        self._stopping.set()
        self.join(1)
