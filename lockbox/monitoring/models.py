"""Tables of monitoring: heartbeats, counters, alarms and samples of lags."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from lockbox.sql import Instant, new_id


class Heartbeat(SQLModel, table=True):
    """A process in one role, its last heartbeat, and by how many seconds its clock is ahead.

    `behind` is in how many logs the database does not hold what was shipped of them, and `doubt` what is wrong with
    the first of these; None where the process does not look. Likewise `unverified` is how many rows that would give
    power carry no mark of its keys.
    """

    __tablename__ = "heartbeats"

    role: str = Field(primary_key=True, max_length=24)
    id: UUID = Field(primary_key=True)
    node: str = Field(max_length=255)
    skew: float
    beat_at: datetime = Field(sa_type=Instant)
    behind: int | None = None
    doubt: str | None = Field(default=None, max_length=300)
    unverified: int | None = None
    unverified_first: str | None = Field(default=None, max_length=300)


class CounterTotal(SQLModel, table=True):
    """A count, to be added to all others of its name and label; `total` is the sum of what was counted."""

    __tablename__ = "tallies"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    name: str = Field(max_length=24)
    label: str = Field(max_length=48)
    count: int = Field(sa_type=BigInteger)
    total: float


class Alarm(SQLModel, table=True):
    """A violated invariant, and when its last alarm was raised."""

    __tablename__ = "alarms"

    key: str = Field(primary_key=True, max_length=100)
    raised_at: datetime = Field(sa_type=Instant)


class LagSample(SQLModel, table=True):
    """How late the schedule and the sealer were at a moment, in seconds, and the counters at that moment."""

    __tablename__ = "lag_samples"

    at: datetime = Field(primary_key=True, sa_type=Instant)
    schedule_lag: float
    seal_lag: float
    ended: int = Field(sa_type=BigInteger)
    late: float
