"""Tables of the notifications package."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Column, Identity
from sqlmodel import Field, SQLModel

from lockbox.sql import Ids, Instant, Instants, Texts, words


class Channel(StrEnum):
    MAIL = "mail"
    WEBHOOK = "webhook"


class Outcome(StrEnum):
    """How a notification ended: it arrived, no longer mattered, or could not be delivered."""

    SENT = "sent"
    MOOT = "moot"
    DEAD = "dead"


class Format(StrEnum):
    """The format of a webhook's body: Standard Webhooks, or a message for Slack and compatible programs."""

    JSON = "json"
    SLACK = "slack"


class Notification(SQLModel, table=True):
    """A notification of one event to one recipient on one channel.

    `run_at` is the next try, no earlier than the end of a claim's lease or of the back-off. The notification stops
    mattering at `until_at`. In a mail unrelated to requests, `about_id` is the invitation, pending sign-in,
    delegation or unconfirmed address. `address_id` is None for the sign-in address. `sequence` counts the calls of an
    endpoint; `blocked_by` is the previous call, while this call waits for it. `failed_at` is when a try first failed.
    """

    __tablename__ = "notifications"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID | None = None
    request_id: UUID | None = None
    event_id: UUID | None = None
    about_id: UUID | None = None
    person_id: UUID | None = None
    address_id: UUID | None = None
    observer_id: UUID | None = None
    endpoint_id: UUID | None = None
    checkpoint_id: UUID | None = Field(default=None, foreign_key="checkpoints.id")
    channel: Channel = Field(sa_type=words(Channel))
    template: str = Field(max_length=24)
    run_at: datetime = Field(sa_type=Instant)
    until_at: datetime = Field(sa_type=Instant)
    attempts: int = 0
    sequence: int | None = Field(default=None, sa_type=BigInteger)
    numbered_at: datetime | None = Field(default=None, sa_type=Instant)
    blocked_by: UUID | None = None
    failed_at: datetime | None = Field(default=None, sa_type=Instant)
    closed_at: datetime | None = Field(default=None, sa_type=Instant)
    outcome: Outcome | None = Field(default=None, sa_type=words(Outcome))
    last_error: str | None = Field(default=None, max_length=200)
    http_request_id: str | None = Field(default=None, max_length=64)
    traceparent: str | None = Field(default=None, max_length=55)


class OutboxEvent(SQLModel, table=True):
    """An event of a request that is not fanned out yet.

    `number` orders the events of a request. `run_at` is the place in the schedule. `mode` is the request's mode when
    the event happened.
    """

    __tablename__ = "outbox"

    event_id: UUID = Field(primary_key=True)
    tenant_id: UUID
    request_id: UUID = Field(index=True)
    number: int | None = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), nullable=False))
    at: datetime = Field(sa_type=Instant)
    run_at: datetime = Field(sa_type=Instant)
    template: str = Field(max_length=24)
    mode: str = Field(max_length=24)
    asked: list[UUID] = Field(default_factory=list, sa_type=Ids)
    http_request_id: str | None = Field(default=None, max_length=64)
    traceparent: str | None = Field(default=None, max_length=55)


class UnsettledMails(SQLModel, table=True):
    """The mails of a move, or the reports on a window, whose outcomes are still to be recorded; see `settlement`.

    At most two audit events record the outcomes. The next event is due by `settle_by`. `left_open` lists the mails
    that were open at the first event.
    """

    __tablename__ = "unsettled"

    id: UUID = Field(primary_key=True)
    event_id: UUID
    of_report: bool
    tenant_id: UUID
    request_id: UUID
    settle_by: datetime = Field(sa_type=Instant, index=True)
    left_open: list[UUID] | None = Field(default=None, sa_type=Ids, nullable=True)


class Delivery(SQLModel, table=True):
    """`status` is the HTTP or SMTP status, `answer` is the first kilobyte of the answer.

    `error` is a code, null if the notification arrived.
    """

    __tablename__ = "deliveries"

    id: UUID = Field(primary_key=True)
    notification_id: UUID = Field(foreign_key="notifications.id", index=True)
    endpoint_id: UUID | None = Field(default=None, foreign_key="endpoints.id")
    event_type: str = Field(max_length=64)
    at: datetime = Field(sa_type=Instant, index=True)
    took_ms: int
    status: int | None = None
    answer: str = Field(max_length=1024)
    error: str | None = Field(default=None, max_length=24)


class Observer(SQLModel, table=True):
    """A recipient of copies of the mails about a tenant's requests for one service, or for all services if None."""

    __tablename__ = "observers"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID = Field(foreign_key="tenants.id")
    service: str | None = Field(default=None, max_length=63)
    name: str = Field(max_length=200)
    email: str = Field(max_length=320)
    added_by: UUID = Field(foreign_key="people.id")
    created_at: datetime = Field(sa_type=Instant)
    removed_at: datetime | None = Field(default=None, sa_type=Instant)


class Endpoint(SQLModel, table=True):
    """A webhook receiver of a tenant, or of the vendor if `tenant_id` is null.

    `secret` holds, encrypted, the HMAC secret and perhaps the Ed25519 private key. `old_secret` signs too until
    `old_secret_until`. A removed endpoint is kept only for its delivery log. `called_by_hand` are the last times at
    which a test or repeat was requested. The vendor's endpoints never get the justification.
    """

    __tablename__ = "endpoints"

    id: UUID = Field(primary_key=True)
    tenant_id: UUID | None = Field(default=None, foreign_key="tenants.id", index=True)
    url: str = Field(max_length=2000)
    secret: bytes
    event_types: list[str] = Field(default_factory=list, sa_type=Texts)
    disabled_at: datetime | None = Field(default=None, sa_type=Instant)
    created_at: datetime = Field(sa_type=Instant)
    description: str = Field(default="", max_length=200)
    format: Format = Field(default=Format.JSON, sa_type=words(Format))
    with_justification: bool = False
    public_key: str | None = Field(default=None, max_length=64)
    old_secret: bytes | None = None
    old_secret_until: datetime | None = Field(default=None, sa_type=Instant)
    failing_since: datetime | None = Field(default=None, sa_type=Instant)
    why_disabled: str | None = Field(default=None, max_length=24)
    removed_at: datetime | None = Field(default=None, sa_type=Instant)
    called_by_hand: list[datetime] = Field(default_factory=list, sa_type=Instants)
    last_sequence: int = Field(default=0, sa_type=BigInteger)


class ReportDue(SQLModel, table=True):
    """The event that closed a window whose report is not queued yet."""

    __tablename__ = "reports_due"

    event_id: UUID = Field(primary_key=True)
    due_at: datetime = Field(sa_type=Instant, index=True)
