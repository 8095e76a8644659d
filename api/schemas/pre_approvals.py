"""Bodies of pre-approvals."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from api.schemas.parts import PersonView
from lockbox.admin.pre_approval_status import PreApprovalStatus
from lockbox.admin.pre_approvals import PreApprovalInput


class NewPreApproval(PreApprovalInput):
    """A pre-approval to propose; `access_window` in seconds is the longest window, and `resource` a pattern.

    In a pattern `*` is any text, even none; the pattern must name at least a part of the id. `ends_at` is at most 90
    days ahead. `comment` says why.
    """


class PreApprovalApproverView(BaseModel):
    """A person who has approved a pre-approval; `counts` is whether they could still do so."""

    by: PersonView
    at: datetime
    counts: bool


class PreApprovalView(BaseModel):
    """A pre-approval and its current state.

    While it is `pending`, `lacks` says what it needs before it opens anything. A pre-approval that is `in_force`
    becomes `pending` again if the policy becomes stricter or an approver leaves. `used` counts the windows that it
    opened. `look_alikes` are the people who proposed or approved it and have the reader's name or mailbox; empty once
    it is over.
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
