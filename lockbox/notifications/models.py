"""Tables of the notifications package: notifications and what is left of them, delivery attempts, and webhooks."""

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Column, Identity
from sqlmodel import Field, SQLModel

from lockbox.sql import Ids, Instant, Instants, Texts, words


class Channel(StrEnum):
    """How a notification travels."""

    MAIL = "mail"
    WEBHOOK = "webhook"


class Outcome(StrEnum):
    """How a notification ended: it arrived, it no longer mattered, or it could not be delivered."""

    SENT = "sent"
    MOOT = "moot"
    DEAD = "dead"


class Format(StrEnum):
    """What a webhook's body looks like: Standard Webhooks, or a message for Slack and what understands the same."""

    JSON = "json"
    SLACK = "slack"


class Notification(SQLModel, table=True):
    """A notification of one event to one recipient on one channel.

    `run_at` is the next try; a claim moves it past its lease, a failure past its back-off. `until_at` is when it
    stops mattering. `template` says which text: a prompt to review or answer, an outcome, or an account mail where
    it is about no request. `about_id` is the invitation, begun sign-in, delegate or unconfirmed address of the mail.
    `address_id` is the person's further address that it goes to, None where it is the one to sign in with.
    `sequence` counts the calls of an endpoint, and `blocked_by` is the one before it while it waits for that.
    `failed_at` is when a try failed for the first time.
    `http_request_id` and `traceparent` say what caused it.
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
    """An event of a request of which nobody was told yet; the row goes once those who are told are worked out.

    `number` orders the events of a request, `run_at` is the place in the schedule. `asked` are the people whom the
    event asks, `mode` is the request's when it happened. It was caused by the HTTP request `http_request_id`, if by
    one, and is part of the trace of `traceparent`.
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
    """The mails of an event of a request, or the reports on its window, until events have said how all of them ended.

    The first says so by `settle_by` at the latest, even of what is open; `left_open` are the notifications of which
    it said that, and the second says how these ended. `settle_by` is then when their end is looked for.
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
    """One try of a notification: when it began, how long it took in milliseconds, and what the other side said.

    `status` is that of HTTP or SMTP, `answer` the first kilobyte; `error` is null where it arrived, else a word.
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
    """Somebody who gets copies of the mails about requests to a tenant, of one service or all for None."""

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
    """A webhook receiver of a tenant, or of the vendor where `tenant_id` is null.

    `secret` holds the HMAC secret and perhaps the private key, encrypted; those before the last rotation go on
    signing until `old_secret_until`. `why_disabled` says who or what did it. A removed one is kept for its log alone.
    `called_by_hand` is when somebody lately had it tested or a call repeated.
    `with_justification` is for a tenant's own: the vendor's never get the justification.
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
    """A window that has closed, by the event that closed it, on which nobody was promised a report as yet."""

    __tablename__ = "reports_due"

    event_id: UUID = Field(primary_key=True)
    due_at: datetime = Field(sa_type=Instant, index=True)
