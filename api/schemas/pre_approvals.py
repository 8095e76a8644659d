"""Bodies of pre-approvals: what a customer approves before it is asked."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field

from api.schemas.parts import PersonView, RequestBody
from lockbox.admin.pre_approval_status import PreApprovalStatus
from lockbox.facts.bounds import Seconds, Uses, Word
from lockbox.facts.enumerations import Reason
from lockbox.requests.policy_rules import Pattern
from lockbox.text_rules import IS_TEXT, NARROW_PATTERN, Instant


class NewPreApproval(RequestBody):
    """A pre-approval to propose; `access_window` in seconds is the longest window, and `resource` a pattern.

    In a pattern `*` is any text, also none; it names at least a part of the id. `ends_at` is at most 90 days ahead.
    `comment` says why.
    """

    service: Word
    resource: Annotated[Pattern, Field(json_schema_extra={"pattern": NARROW_PATTERN})]
    actions: list[Word] = Field(min_length=1, max_length=20)
    reason_code: Reason
    access_window: Seconds
    max_uses: Uses
    ends_at: Instant
    comment: Annotated[str, Field(max_length=2000), IS_TEXT] | None = None


class PreApprovalApproverView(BaseModel):
    """Somebody who has approved a pre-approval; `counts` is whether they could still do so."""

    by: PersonView
    at: datetime
    counts: bool


class PreApprovalView(BaseModel):
    """A pre-approval and what it is worth now.

    While it is `pending`, `lacks` says what it needs before it opens anything, also where it was `in_force` and the
    policy has become stricter or an approver has left. `used` counts the windows that it opened. `look_alikes` are
    the names of those who proposed or approved it and have the reader's name or mailbox, while it is not over.
    """

    id: UUID
    status: PreApprovalStatus
    lacks: list[str]
    service: str
    resource: str
    actions: list[str]
    reason_code: str
    access_window: int
    max_uses: int
    used: int
    ends_at: datetime
    proposed_by: PersonView
    proposed_at: datetime
    approvers: list[PreApprovalApproverView]
    revoked_at: datetime | None
    look_alikes: list[str] = []


class PreApprovalList(BaseModel):
    """A tenant's newest pre-approvals, the newest first, at most 200."""

    items: list[PreApprovalView]
