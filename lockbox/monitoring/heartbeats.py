"""Heartbeats: each process records every ten seconds that it runs, and its clock's skew from Postgres."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

from sqlalchemy import text

from lockbox.database import Database
from lockbox.sql import new_id

BEAT_SECONDS = 10.0

CLOCK = text("SELECT clock_timestamp()")
AGE = text("SELECT extract(epoch FROM clock_timestamp() - max(beat_at)) FROM heartbeats WHERE role = :role")
BEAT = text("SELECT record_heartbeat(:role, :id, :node, :skew, :behind, :doubt)")


class ProcessPart(StrEnum):
    """What sends heartbeats: three kinds of process, and three periodic jobs that one of all workers does."""

    API = "api"
    CORE = "core"
    NOTIFICATIONS = "notifications"
    RECONCILE = "reconcile"
    SEAL = "seal"
    WATCH = "watch"


def age(database: Database, part: ProcessPart) -> float:
    """Return how many seconds ago somebody last said that this part lives; infinity if nobody has.

    Raises:
        sqlalchemy.exc.DBAPIError: Postgres is away.
    """
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        seconds = connection.execute(AGE, {"role": part.value}).scalar_one()
    return math.inf if seconds is None else float(seconds)


@dataclass(frozen=True)
class HeartbeatSender:
    """One process, by the name of its machine; `id` changes with each start."""

    node: str
    id: UUID = field(default_factory=new_id)

    def beat(self, database: Database, part: ProcessPart, doubts: Sequence[str] | None = None) -> None:
        """Record that this process runs as this part.

        Args:
            database: by the login of the process.
            part: what it is.
            doubts: a line for each log that is not what was shipped of it; None where the process does not look.

        Raises:
            sqlalchemy.exc.DBAPIError: Postgres is away, or this login may not say so.
        """
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            before = time.time()
            at = connection.execute(CLOCK).scalar_one()
            skew = (before + time.time()) / 2 - at.timestamp()
            values = {"role": part.value, "id": self.id, "node": self.node, "skew": skew}
            found = {"behind": None if doubts is None else len(doubts), "doubt": doubts[0] if doubts else None}
            connection.execute(BEAT, values | found)
