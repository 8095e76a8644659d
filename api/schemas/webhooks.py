"""Bodies of webhooks and of their delivery log."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from api.schemas.parts import Absent, RequestBody, absent
from lockbox.admin.delivery_log import DeadNotification
from lockbox.admin.webhooks import OF_REQUESTS, OF_TENANTS
from lockbox.notifications.account_mail import CHECKPOINT_TYPE, INVARIANT_TYPE
from lockbox.notifications.models import Format
from lockbox.text_rules import IS_LINE, IS_WHOLE, TextRule


def _url(value: str) -> str:
    if not (value.isascii() and value.isprintable() and " " not in value):
        raise ValueError("write one address, such as https://hooks.contoso.example/lockbox")
    return value


Url = Annotated[str, Field(min_length=1, max_length=2000), TextRule(_url, "^[!-~]+$")]
EventType = Annotated[str, Field(max_length=64, pattern=r"^[a-z]+\.[a-z_]+$")]
EVENT_TYPES = (
    "Types of the events that are called; leave it out for all. A tenant's and the vendor's webhooks get "
    f"{', '.join(sorted(OF_REQUESTS))} and {CHECKPOINT_TYPE}; a tenant's get {', '.join(sorted(OF_TENANTS))} too, "
    f"and the vendor's get {INVARIANT_TYPE}. A tenant's webhook gets a request's events once the tenant is asked."
)
EventTypes = Annotated[
    list[EventType],
    Field(max_length=50, description=EVENT_TYPES),
    AfterValidator(lambda types: sorted(set(types))),
]
Description = Annotated[str, Field(max_length=200), IS_LINE]
Switch = Annotated[bool, Field(strict=True)]


class NewEndpoint(RequestBody):
    """A webhook; without event types it gets all events.

    With `with_justification` a tenant's webhook also gets the justifications of requests; the vendor's cannot.
    """

    url: Url
    event_types: EventTypes = Field(default_factory=list)
    description: Description | None = None
    format: Format = Format.JSON
    with_justification: Switch = False


class EndpointChange(RequestBody):
    """The changes; what is left out stays unchanged, and only a description can be removed."""

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    url: Url | Absent = absent()
    event_types: EventTypes | Absent = absent()
    description: Description | None = absent()
    format: Format | Absent = absent()
    with_justification: Switch | Absent = absent()
    enabled: Switch | Absent = absent()

    @model_validator(mode="after")
    def _something(self) -> "EndpointChange":
        given = self.model_fields_set
        if not given:
            raise ValueError("name at least one change")
        if any(getattr(self, name) is None for name in given - {"description"}):
            raise ValueError("only the description can be null; leave out what stays as it is")
        return self

    def values(self) -> dict[str, Any]:
        found = {name: getattr(self, name) for name in self.model_fields_set}
        return found | ({"description": self.description or ""} if "description" in found else {})


class NewSecret(RequestBody):
    """A rotation; for `overlap_hours` the previous secret signs too."""

    overlap_hours: Annotated[int, Field(ge=0, le=168, strict=True), IS_WHOLE] = 24


class EndpointView(BaseModel):
    """A webhook; `public_key` verifies the signature `v1a` of its calls.

    `why_disabled` is `by_hand`, `gone` (it answered 410) or `failing`.
    """

    id: UUID
    url: str
    event_types: list[str]
    description: str
    format: Format
    with_justification: bool
    public_key: str | None
    created_at: datetime
    disabled_at: datetime | None
    why_disabled: str | None
    failing_since: datetime | None
    old_secret_until: datetime | None


class NewEndpointView(EndpointView):
    """A webhook and the secret that signs its calls (`v1`), which is shown only once."""

    secret: str


class EndpointList(BaseModel):
    """Webhooks, the oldest first."""

    items: list[EndpointView]


class CallView(BaseModel):
    """A call that will be made; `webhook_id` is its header `webhook-id`, the same for every attempt."""

    webhook_id: UUID


class DeliveryView(BaseModel):
    """One attempt: when it began, how long it took in milliseconds, and the first kilobyte of the answer.

    `error` is null if the call arrived; `status` is null without an answer.
    """

    id: UUID
    webhook_id: UUID
    event_type: str
    at: datetime
    took_ms: int
    status: int | None
    answer: str
    error: str | None


class DeliveryPage(BaseModel):
    """A page of attempts, the newest first."""

    items: list[DeliveryView]
    next_cursor: UUID | None


class EventReplayView(BaseModel):
    """Events as webhooks get them, the oldest first, and the cursor after the last event that was read.

    A page may hold fewer events than asked for, or none, although there are `more`.
    """

    items: list[dict[str, Any]]
    next_cursor: str
    more: bool


class DeadNotificationPage(BaseModel):
    """A page of dead notifications, the latest first."""

    items: list[DeadNotification]
    next_cursor: UUID | None
