"""The connections table: the access opened at a target for a window, and its state."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import LargeBinary
from sqlmodel import Field, SQLModel

from lockbox.sql import Instant, new_id, words


class ConnectionState(StrEnum):
    """How far a connection has come. The failed states are retried; `closed` is final and confirmed by the target."""

    OPENING = "opening"
    OPEN = "open"
    OPEN_FAILED = "open_failed"
    CLOSING = "closing"
    CLOSE_FAILED = "close_failed"
    CLOSED = "closed"


class ConnectorKind(StrEnum):
    """How access is opened: `postgres` by a role at the target, `webhook` by a call to the vendor's own system."""

    POSTGRES = "postgres"
    WEBHOOK = "webhook"


LATER = {"attempts", "failures", "last_error", "opened_at", "closed_at"}
"""Fields that are not set in a new connection."""


class Connection(SQLModel, table=True):
    """Access at a target. Its next step is due at `run_at`; `attempts` numbers the steps."""

    __tablename__ = "connections"

    id: UUID = Field(default_factory=new_id, primary_key=True)
    request_id: UUID = Field(foreign_key="requests.id")
    tenant_id: UUID = Field(foreign_key="tenants.id")
    kind: ConnectorKind = Field(sa_type=words(ConnectorKind))
    target: str = Field(max_length=63)
    verifier: str | None = Field(default=None, max_length=200)
    state: ConnectionState = Field(sa_type=words(ConnectionState))
    run_at: datetime | None = Field(default=None, sa_type=Instant)
    attempts: int = 0
    failures: int = 0
    last_error: str | None = Field(default=None, max_length=24)
    created_at: datetime = Field(sa_type=Instant)
    opened_at: datetime | None = Field(default=None, sa_type=Instant)
    closed_at: datetime | None = Field(default=None, sa_type=Instant)
    mac: bytes | None = Field(default=None, sa_type=LargeBinary)
