"""Read Postgres' clock and our own throughout a run, directly from the server."""

import threading
import time

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from chaos.gate_history import ClockReading, GateHistory

EVERY_SECONDS = 0.5
NOW = text("SELECT extract(epoch FROM clock_timestamp())::float AS at")


class ClockReader(threading.Thread):
    """Reads until stopped; while the server is away there are no readings."""

    def __init__(self, superuser: Engine, history: GateHistory) -> None:
        super().__init__(name="chaos-clock", daemon=True)
        self._superuser = superuser
        self._history = history
        self._stopping = threading.Event()

    def run(self) -> None:
        """Read twice a second."""
        while not self._stopping.wait(EVERY_SECONDS):
            try:
                self._read()
            except SQLAlchemyError:
                continue

    def stop(self) -> None:
        """Stop reading."""
        self._stopping.set()
        if self.is_alive():
            self.join()

    def _read(self) -> None:
        with self._superuser.connect() as connection:
            connection.execute(NOW).scalar_one()
            before = time.monotonic()
            at = connection.execute(NOW).scalar_one()
            self._history.readings.append(ClockReading(before, at, time.monotonic()))
