"""Trial writes to Postgres: only a write shows whether the standby, for which commits wait, is dead."""

import threading
import time
from contextlib import suppress
from enum import StrEnum

import psycopg
import structlog
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from lockbox.database import WARNED

log = structlog.get_logger(__name__)
KEPT_SECONDS = 2.0
SECONDS = 1.0
# Writes a record that no one reads to the write-ahead log. No table grows, and the commit waits like every other
# commit.
WRITE = text("SELECT pg_logical_emit_message(true, 'lockbox', '')")


class WriteOutcome(StrEnum):
    """Whether the write is on disk and on the standby, only on disk, or nowhere."""

    OK = "ok"
    UNCONFIRMED = "the standby does not confirm writes: see synchronous_standby_names"
    REFUSED = "writes are refused"


class WriteTrial:
    """Trial writes, at most one every two seconds, because anyone may ask for the outcome."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._outcome = WriteOutcome.OK
        self._tried_at = float("-inf")

    def outcome(self, engine: Engine) -> WriteOutcome:
        """Return the outcome of the last trial; if it is too old, make a new one, which takes a second at most."""
        with self._lock:
            if time.monotonic() - self._tried_at >= KEPT_SECONDS:
                before, self._outcome = self._outcome, _try(engine)
                self._tried_at = time.monotonic()
                if self._outcome is not before:
                    level = log.info if self._outcome is WriteOutcome.OK else log.critical
                    level("database.writes", outcome=self._outcome.value)
            return self._outcome


def _try(engine: Engine) -> WriteOutcome:
    try:
        with engine.connect() as connection:
            warnings: list[str | None] = []
            connection.info[WARNED] = warnings
            connection.execute(WRITE)
            _commit(connection)
    except SQLAlchemyError:
        return WriteOutcome.REFUSED
    return WriteOutcome.UNCONFIRMED if warnings else WriteOutcome.OK


def _commit(connection: Connection) -> None:
    """Commit, and wait at most a second for the standby; none of Postgres' time limits covers this wait."""
    driver = connection.connection.driver_connection
    if driver is None:
        return
    is_late = threading.Event()

    def end() -> None:
        is_late.set()
        with suppress(psycopg.Error, OSError):
            driver.cancel_safe(timeout=SECONDS)

    waiting = threading.Timer(SECONDS, end)
    waiting.start()
    try:
        connection.commit()
    finally:
        waiting.cancel()
        waiting.join()
        if is_late.is_set():
            # The cancellation may arrive after the commit, and must not cancel a later statement of this connection.
            connection.invalidate()
