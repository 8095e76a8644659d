"""Request and response bodies for access that can open without approval."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from api.schemas.members import DelegationView
from api.schemas.parts import PersonView
from api.schemas.pre_approvals import PreApprovalView
from lockbox.admin.unapproved_access import UnapprovedWay
from lockbox.facts.enumerations import Mode
from lockbox.requests.policy_parts import OverdueFinding


class GivenConsentView(BaseModel):
    """Temporary consent in force: the mode that replaces `enforce`, and until when."""

    mode: Mode
    until: datetime


class ReportingGateView(BaseModel):
    """A gate that lets in calls without an open window and records them, and since when it does."""

    service: str
    since: datetime


class BreakGlassAllowanceView(BaseModel):
    """What the policy allows of break-glass; `people` is null if it allows every engineer and manager of the vendor.

    A window lasts at most `access_window` seconds. At most `monthly` windows may open within 30 days; `lately` is how
    many opened in the last 30 days. `overdue` is whether a finding of the customer is overdue, `overdue_finding` what
    an overdue finding does to break-glass, and `stopped_since` since when an emergency stop bars break-glass.
    """

    services: list[str]
    people: list[PersonView] | None
    access_window: int
    monthly: int
    lately: int
    overdue_finding: OverdueFinding
    overdue: bool
    stopped_since: datetime | None


class OpenedLatelyView(BaseModel):
    """How many windows were opened in one `way` in the last 90 days; `newest` is the request of the newest window."""

    way: UnapprovedWay
    count: int
    newest: UUID | None
    at: datetime | None


class UnapprovedAccessView(BaseModel):
    """All access that can open at a tenant without its approval, as of a moment, and what was opened lately.

    `ways` are the ways in which something can open now. `delegate` is only in `opened`: windows that an approver's
    delegate approved. If `policy_verified` is false, the policy was changed in the database and nothing opens by it.
    """

    tenant: str
    at: datetime
    since: datetime
    ways: list[UnapprovedWay]
    mode: Mode
    consent: GivenConsentView | None
    policy_verified: bool
    gates: list[ReportingGateView]
    pre_approvals: list[PreApprovalView]
    break_glass: BreakGlassAllowanceView | None
    delegations: list[DelegationView]
    opened: list[OpenedLatelyView]
