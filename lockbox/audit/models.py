"""Tables of the audit logs: events, seals, trees, checkpoints and keys."""

from datetime import date, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Column, Computed, SmallInteger, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from lockbox.sql import Instant

OF_LOG = f"CASE WHEN internal OR tenant_id IS NULL THEN '{UUID(int=0)}'::uuid ELSE tenant_id END"


class Event(SQLModel, table=True):
    """One fact of the audit log; `body` holds the exact canonical bytes (RFC 8785) that are sealed.

    `seq` numbers the moves of a request without a gap; it is null for other events. `log_id` is the tenant's log, or
    the vendor's log for events that are `internal` or have no tenant.
    """

    __tablename__ = "events"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID | None = None
    request_id: UUID | None = Field(default=None, foreign_key="requests.id")
    seq: int | None = None
    at: datetime = Field(sa_type=Instant)
    action: str = Field(max_length=24)
    actor_id: UUID | None = None
    actor_role: str = Field(max_length=24)
    from_state: str | None = Field(default=None, max_length=24)
    to_state: str | None = Field(default=None, max_length=24)
    deadline_at: datetime | None = Field(default=None, sa_type=Instant)
    internal: bool = False
    log_id: UUID = Field(sa_column=Column(Uuid, Computed(OF_LOG, persisted=True), nullable=False))
    body: bytes


class EventDetail(SQLModel, table=True):
    """The personal fields of an event; the event's body holds SHA-256(salt ‖ value) of each field.

    `fields` maps a field's name to its salt, in base64, and its value.
    """

    __tablename__ = "event_details"

    event_id: UUID = Field(primary_key=True, foreign_key="events.id")
    fields: dict[str, tuple[str, str]] = Field(sa_type=JSONB)


class AuditLog(SQLModel, table=True):
    """A Merkle tree over the events of one tenant, or of the vendor if `tenant_id` is null.

    `note` is the newest checkpoint; a checkpoint was last kept at `kept_at`. `generation` counts the restores of
    back-ups older than the shipped checkpoints; each generation has its own `origin`. The first `unproven` events
    predate sealing. The log records that events before number `kept_from`, all older than `kept_since`, are removed;
    events before number `cleared_to` are already deleted. The tenant last got a digest at `digest_at`. `stated_for`
    is the last month whose access without approval the log records; `unstated_at` is when recording it failed.
    """

    __tablename__ = "logs"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID | None = Field(default=None, foreign_key="tenants.id")
    origin: str = Field(max_length=255, unique=True)
    generation: int
    size: int = Field(sa_type=BigInteger)
    root: bytes
    unproven: int = Field(sa_type=BigInteger)
    kept_from: int = Field(default=0, sa_type=BigInteger)
    cleared_to: int = Field(default=0, sa_type=BigInteger)
    kept_since: datetime | None = Field(default=None, sa_type=Instant)
    note: str = Field(sa_type=Text)
    noted_at: datetime = Field(sa_type=Instant)
    kept_at: datetime = Field(sa_type=Instant)
    digest_at: datetime = Field(sa_type=Instant)
    stated_for: date | None = None
    unstated_at: datetime | None = Field(default=None, sa_type=Instant)


class Seal(SQLModel, table=True):
    """The position of an event in its log, counted from 0 without a gap."""

    __tablename__ = "seals"

    log_id: UUID = Field(primary_key=True, foreign_key="logs.id")
    number: int = Field(primary_key=True, sa_type=BigInteger)
    event_id: UUID = Field(unique=True)


class Tile(SQLModel, table=True):
    """Up to 256 hashes of a log's tree, 32 bytes each; see `lockbox.audit.log.merkle`."""

    __tablename__ = "tiles"

    log_id: UUID = Field(primary_key=True, foreign_key="logs.id")
    level: int = Field(primary_key=True, sa_type=SmallInteger)
    number: int = Field(primary_key=True, sa_type=BigInteger)
    hashes: bytes


class HourlyCheckpoint(SQLModel, table=True):
    """An hourly checkpoint, kept even without events; `notified_at` is when its webhook calls were queued."""

    __tablename__ = "checkpoints"

    id: UUID = Field(primary_key=True)
    log_id: UUID = Field(foreign_key="logs.id")
    size: int = Field(sa_type=BigInteger)
    at: datetime = Field(sa_type=Instant)
    note: str = Field(sa_type=Text)
    notified_at: datetime | None = Field(default=None, sa_type=Instant)


class AuditKey(SQLModel, table=True):
    """A public key that has signed in this installation, as `name+id+base64`; no key is ever removed."""

    __tablename__ = "audit_keys"

    key: str = Field(primary_key=True, max_length=255)
    purpose: str = Field(max_length=24)
    first_used_at: datetime = Field(sa_type=Instant)


class RefusalCount(SQLModel, table=True):
    """The count of equal refusals in one minute, which becomes one event."""

    __tablename__ = "refused"

    key: bytes = Field(primary_key=True)
    minute: datetime = Field(sa_type=Instant, index=True)
    kind: str = Field(max_length=24)
    person_id: UUID | None = None
    request_id: UUID | None = None
    facts: dict[str, Any] = Field(sa_type=JSONB)
    personal: dict[str, Any] = Field(sa_type=JSONB)
    count: int = Field(sa_type=BigInteger)
