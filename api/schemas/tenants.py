"""Request and response bodies for tenants and policies."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.members import Invitee
from api.schemas.parts import PersonView, RequestBody
from lockbox.facts.bounds import Word
from lockbox.facts.enumerations import Mode, State
from lockbox.requests.policy_rules import Policy
from lockbox.text_rules import IS_NAME

NewSlug = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
TenantName = Annotated[str, Field(max_length=200), IS_NAME]


class NewTenant(RequestBody):
    """A tenant, and its first admin, who is invited by mail."""

    slug: NewSlug
    name: TenantName
    plan: Word = "standard"
    admin: Invitee


class NewPlan(RequestBody):
    """A tenant's new plan, one of the installation's."""

    plan: Word


class NewMode(RequestBody):
    mode: Mode


class NewName(RequestBody):
    name: TenantName


class TenantView(BaseModel):
    """A tenant; the numbers are for its members, and `in_review` for its admins: null for others.

    `open_windows` is for operators too, because suspending the tenant ends them. `longest_window` is for engineers:
    no request may ask for more seconds of access, and rules of the policy may allow less.

    `stopped_since` is for its members: since then an emergency stop bars break-glass, until an admin ends it.

    `effective_mode` is the mode in force: it differs from `mode` during temporary consent, until `consent_until`.
    Modes, plan and suspension are for its members and for the vendor's operators and auditors.
    """

    slug: str
    name: str
    mode: Mode | None = None
    effective_mode: Mode | None = None
    consent_until: datetime | None = None
    plan: str | None = None
    suspended: bool | None = None
    policy_version: int | None = None
    members: int | None = None
    open_windows: int | None = None
    in_review: int | None = None
    longest_window: int | None = None
    stopped_since: datetime | None = None


class TenantPage(BaseModel):
    """A page of tenants by slug."""

    items: list[TenantView]
    next_cursor: str | None


class ClosedRequest(BaseModel):
    """A request that was ended for the whole tenant."""

    id: UUID
    requester_id: UUID
    service: str
    resources: list[str]
    actions: list[str]
    mode: Mode
    state: State
    opened_at: datetime | None
    closed_at: datetime | None


class ModeChangeView(BaseModel):
    """A tenant's mode, and the windows that the switch closed: they were opened without the customer.

    `in_review` is how many requests in the vendor's review will go to the customer once endorsed.
    """

    mode: Mode
    closed: list[ClosedRequest]
    in_review: int


class EmergencyStopView(BaseModel):
    """What was revoked and denied; for requests denied in the vendor's review, only their number."""

    revoked: list[ClosedRequest]
    denied: list[ClosedRequest]
    denied_in_review: int


class EditionView(BaseModel):
    """A version of a policy; the tenant's first one has no author."""

    version: int
    author: PersonView | None
    created_at: datetime


class PolicyView(EditionView):
    """A version of a policy with its content."""

    policy: Policy


class EditionList(BaseModel):
    """Versions of a policy, the newest first."""

    items: list[EditionView]


class ApproverKeyView(BaseModel):
    """A public key of an approver's passkey: SubjectPublicKeyInfo in DER and base64, and its SHA-256 in hex."""

    person_id: UUID
    name: str
    fingerprint: str
    public_key: str
    added_at: str


class ApproverKeysView(BaseModel):
    """The file for `lockbox audit verify --approver-keys`; passkeys sign for `rp_id` only on pages of `origin`."""

    format: str
    tenant_id: UUID
    rp_id: str
    origin: str
    exported_at: str
    keys: list[ApproverKeyView]
