"""Bodies of a tenant's data: for how long its log is kept, legal holds, and leaving."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from api.schemas.parts import IS_TEXT, RequestBody
from lockbox.admin import legal_holds, tenant_data
from lockbox.admin.legal_holds import HoldSummary
from lockbox.admin.tenant_data import OffboardingState, TenantData
from lockbox.text_rules import IS_WHOLE


class RetentionInput(RequestBody):
    """For how many days the tenant's log is kept; null for as long as the installation says."""

    days: Annotated[int, Field(ge=tenant_data.LEAST_DAYS, le=tenant_data.MOST_DAYS, strict=True), IS_WHOLE] | None


class HoldInput(RequestBody):
    """Why the tenant is held: for the caller's own side alone."""

    reason: Annotated[str, Field(max_length=legal_holds.LONGEST_REASON), IS_TEXT]


class HoldView(BaseModel):
    """A legal hold; the reason and who set it are null to the other side."""

    side: Literal["vendor", "customer"]
    since: datetime
    reason: str | None
    set_by: str | None


class OffboardingView(BaseModel):
    """A tenant that is leaving, and how far the owner of the installation has come."""

    asked_at: datetime
    asked_by: str | None
    closed_at: datetime | None
    erased_at: datetime | None


class TenantDataView(BaseModel):
    """What becomes of a tenant's data; null for days is for ever."""

    retention_days: int | None
    most_retention_days: int | None
    kept_days: int | None
    holds: list[HoldView]
    offboarding: OffboardingView | None

    @classmethod
    def of(cls, found: TenantData) -> "TenantDataView":
        """Return it as a body."""
        return cls(
            retention_days=found.retention_days,
            most_retention_days=found.most_days,
            kept_days=found.kept_days,
            holds=[_hold(one) for one in found.holds],
            offboarding=_offboarding(found.offboarding) if found.offboarding else None,
        )


def _hold(one: HoldSummary) -> HoldView:
    return HoldView(side=one.side.value, since=one.since, reason=one.reason, set_by=one.set_by)


def _offboarding(one: OffboardingState) -> OffboardingView:
    return OffboardingView(
        asked_at=one.asked_at, asked_by=one.asked_by, closed_at=one.closed_at, erased_at=one.erased_at
    )
