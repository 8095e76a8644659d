"""Tables of the notices wing: notices and webhook endpoints."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlmodel import Field, SQLModel

from lockbox.tables import Instant, Texts, words


class Channel(StrEnum):
    """How a notice travels."""

    MAIL = "mail"
    WEBHOOK = "webhook"


class Outcome(StrEnum):
    """How a notice ended: it arrived, it no longer mattered, or it could not be delivered."""

    SENT = "sent"
    MOOT = "moot"
    DEAD = "dead"


class Notice(SQLModel, table=True):
    """One recipient on one channel, told of one event.

    `run_at` is the next try; a claim moves it past its lease, a failure past its back-off. `until_at` is when it
    stops mattering. `template` says which text: a prompt to review or answer, an outcome, or a memo where it is about
    no request. `about_id` is the invitation or the begun sign-in whose address is written to.
    """

    __tablename__ = "notices"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID | None = None
    request_id: UUID | None = None
    event_id: UUID | None = None
    about_id: UUID | None = None
    person_id: UUID | None = None
    endpoint_id: UUID | None = None
    channel: Channel = Field(sa_type=words(Channel))
    template: str = Field(max_length=24)
    run_at: datetime = Field(sa_type=Instant)
    until_at: datetime = Field(sa_type=Instant)
    attempts: int = 0
    closed_at: datetime | None = Field(default=None, sa_type=Instant)
    outcome: Outcome | None = Field(default=None, sa_type=words(Outcome))
    last_error: str | None = Field(default=None, max_length=200)


class Endpoint(SQLModel, table=True):
    """A webhook receiver of a tenant, or of the vendor where `tenant_id` is null; the secret is encrypted."""

    __tablename__ = "endpoints"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID | None = Field(default=None, foreign_key="tenants.id", index=True)
    url: str = Field(max_length=2000)
    secret: bytes
    event_types: list[str] = Field(default_factory=list, sa_type=Texts)
    disabled_at: datetime | None = Field(default=None, sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)
