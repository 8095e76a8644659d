"""Bodies of the calls that webhooks of the format `json` receive."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from catalogue.service_catalogue import Level
from lockbox.facts.enumerations import Severity
from lockbox.requests.lifecycle import HeldBack


class WebhookHead(BaseModel):
    id: UUID
    type: str
    timestamp: datetime
    event_id: UUID | None
    sequence: int
    previous: UUID | None


class ConnectionFacts(BaseModel):
    """What became of access at a target."""

    connection_id: UUID
    target: str
    failing: str | None


class CaseFacts(BaseModel):
    """The support case of a request, as its ticket system knows it."""

    system: str | None
    ref: str
    url: str | None


class RequestCallData(BaseModel):
    """The facts of a request: ids, state and deadlines; no names of people.

    `extends` is the request whose window this one continues, `pre_approval_id` the pre-approval that opened it, and
    `opens_at` when an approved window begins, if later. `held_back` is why a window that has begun admits no one.
    """

    request_id: UUID
    tenant: str
    tenant_id: UUID
    state: str
    severity: Severity | None = None
    level: Level | None = None
    context_names: list[str] = []
    mixed_alphabets: bool = False
    nobody_notified: bool = False
    break_glass: bool = False
    connection: ConnectionFacts | None = None
    extends: UUID | None = None
    pre_approval_id: UUID | None = None
    opens_at: datetime | None = None
    held_back: HeldBack | None = None
    case: CaseFacts | None = None
    answer_by: datetime | None
    open_until: datetime | None
    url: str
    justification: str | None = None


class RequestCall(WebhookHead):
    """The body of a call about a request."""

    data: RequestCallData


class AccountCallData(BaseModel):
    """The tenant, null for the installation, and what changed there; no names of people."""

    tenant: str | None
    tenant_id: UUID | None
    changes: dict[str, str]


class AccountCall(WebhookHead):
    """The body of a call about a tenant, a checkpoint of its log, or the installation."""

    data: AccountCallData


class EndpointTestData(BaseModel):
    """The webhook that is tested."""

    endpoint_id: UUID
    tenant: str | None


class EndpointTestCall(WebhookHead):
    """The body of a test call."""

    data: EndpointTestData
