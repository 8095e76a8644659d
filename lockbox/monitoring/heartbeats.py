"""Heartbeats of processes, and the tables of monitoring."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Connection, text
from sqlmodel import Field, SQLModel

from lockbox.database import Database
from lockbox.sql import Instant, is_pooled, new_id

BEAT_SECONDS = 10.0
CLOCK = text("SELECT clock_timestamp()")
AGE = text("SELECT extract(epoch FROM clock_timestamp() - max(beat_at)) FROM heartbeats WHERE role = :role")
BEAT = text("""
SELECT record_heartbeat(:role, :id, :node, :skew, :rolled_back, :doubt, :connections, :gate_differs,
    :needs_connectors)
""")


class Alarm(SQLModel, table=True):
    __tablename__ = "alarms"

    key: str = Field(primary_key=True, max_length=100)
    raised_at: datetime = Field(sa_type=Instant)


class LagSample(SQLModel, table=True):
    """Lags in seconds, and counters, at one time."""

    __tablename__ = "lag_samples"

    at: datetime = Field(primary_key=True, sa_type=Instant)
    schedule_lag: float
    seal_lag: float
    ended: int = Field(sa_type=BigInteger)
    late: float


class ProcessPart(StrEnum):
    """Four kinds of process, and three periodic jobs. Any worker may do such a job, one worker at a time."""

    API = "api"
    CORE = "core"
    NOTIFICATIONS = "notifications"
    CONNECTORS = "connectors"
    RECONCILE = "reconcile"
    SEAL = "seal"
    INVARIANTS = "invariants"


JOBS = frozenset({ProcessPart.RECONCILE, ProcessPart.SEAL, ProcessPart.INVARIANTS})
"""Jobs of processes whose own heartbeats already count their connections."""


def age(database: Database, part: ProcessPart) -> float:
    """Return how many seconds ago this part last ran; infinity if never, or if the clock was set back since."""
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        seconds = connection.execute(AGE, {"role": part.value}).scalar_one()
    return math.inf if seconds is None or seconds < 0 else float(seconds)


@dataclass(frozen=True)
class HeartbeatSender:
    """One process; `node` names it and its machine, and `id` changes with each start.

    `connections` is the most connections that the process opens to Postgres; behind a pooler, this counts as 0.
    """

    node: str
    connections: int | None = field(default=None, kw_only=True)
    id: UUID = field(default_factory=new_id)

    def beat(
        self,
        database: Database,
        part: ProcessPart,
        doubts: Sequence[str] | None = None,
        *,
        gate_differs: bool | None = None,
        needs_connectors: bool | None = None,
    ) -> None:
        """Record that this process runs as this part.

        `doubts` has a line for each log that differs from its shipped checkpoint. `gate_differs` is whether the gate
        remembered a window that was not open. `needs_connectors` is whether the catalogue has connectors. None means
        that the process does not check this.
        """
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            before = time.time()
            at = connection.execute(CLOCK).scalar_one()
            skew = (before + time.time()) / 2 - at.timestamp()
            values = {"role": part.value, "id": self.id, "node": self.node, "skew": skew}
            found = {"rolled_back": None if doubts is None else len(doubts), "doubt": doubts[0] if doubts else None}
            most = {"connections": self._connections(connection, part)}
            known = {"gate_differs": gate_differs, "needs_connectors": needs_connectors}
            connection.execute(BEAT, values | found | most | known)

    def _connections(self, connection: Connection, part: ProcessPart) -> int | None:
        if part in JOBS:
            return None
        return 0 if is_pooled(connection) else self.connections
