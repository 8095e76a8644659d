"""Tables of the audit wing: events, their personal details, and the queue of what is not yet sealed."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Text
from sqlmodel import Field, SQLModel

from lockbox.tables import Instant


class Event(SQLModel, table=True):
    """One fact of the trail. `body` holds the exact canonical bytes (RFC 8785) that seals are made over.

    `seq` numbers the moves of a request without a gap and is null for everything else.
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
    body: bytes


class EventDetail(SQLModel, table=True):
    """A personal field of an event: the event's body holds SHA-256(salt ‖ value) in its place."""

    __tablename__ = "event_details"

    event_id: UUID = Field(primary_key=True, foreign_key="events.id")
    field: str = Field(primary_key=True, max_length=24)
    salt: bytes
    value: str = Field(sa_type=Text)


class Unsealed(SQLModel, table=True):
    """An event that no seal covers yet."""

    __tablename__ = "unsealed"

    event_id: UUID = Field(primary_key=True)
