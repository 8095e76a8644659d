"""The heart of the API: a thread that says every ten seconds that this process lives."""

import socket
import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from lockbox.database import Database
from lockbox.watch.hearts import BEAT_SECONDS, Heart, Part

log = structlog.get_logger(__name__)


class Beating(threading.Thread):
    """Beats until it is told to stop; without Postgres it goes on trying."""

    def __init__(self, database: Database) -> None:
        super().__init__(name="heart", daemon=True)
        self._database = database
        self._heart = Heart(f"api@{socket.gethostname()}")
        self._stopping = threading.Event()

    def run(self) -> None:
        """Beat, then rest."""
        while not self._stopping.is_set():
            try:
                self._heart.beat(self._database, Part.API)
            except SQLAlchemyError as error:
                log.warning("heart.waiting", error=type(error).__name__)
            self._stopping.wait(BEAT_SECONDS)

    def stop(self) -> None:
        """Ask the thread to end, and wait a moment for it."""
        self._stopping.set()
        self.join(1)
