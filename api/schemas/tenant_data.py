"""Request and response bodies for retention, legal holds and off-boarding."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field

from api.schemas.parts import RequestBody
from lockbox.admin import legal_holds, tenant_data
from lockbox.admin.legal_holds import HoldSummary
from lockbox.admin.tenant_data import OffboardingState, TenantData, TenantDataEntry, TenantDataListing
from lockbox.text_rules import IS_TEXT, IS_WHOLE


class RetentionInput(RequestBody):
    """For how many days the tenant's log is kept; null means as long as the installation keeps logs."""

    days: Annotated[int, Field(ge=tenant_data.LEAST_DAYS, le=tenant_data.MOST_DAYS, strict=True), IS_WHOLE] | None


class HoldInput(RequestBody):
    """A legal hold; only the caller's own side sees the reason."""

    reason: Annotated[str, Field(max_length=legal_holds.LONGEST_REASON), IS_TEXT]


class HoldView(BaseModel):
    """A legal hold; the reason and who set the hold are null for the other side."""

    side: Literal["vendor", "customer"]
    since: datetime
    reason: str | None
    set_by: str | None


class OffboardingView(OffboardingState):
    """The off-boarding of a tenant, and when its steps were done."""


class TenantDataView(BaseModel):
    """For how long a tenant's log is kept, and its legal holds and off-boarding; null days are no limit."""

    retention_days: int | None
    most_retention_days: int | None
    kept_days: int | None
    holds: list[HoldView]
    offboarding: OffboardingView | None

    @classmethod
    def of(cls, found: TenantData) -> "TenantDataView":
        return cls(
            retention_days=found.retention_days,
            most_retention_days=found.most_days,
            kept_days=found.kept_days,
            holds=[_hold(one) for one in found.holds],
            offboarding=found.offboarding and OffboardingView.model_validate(found.offboarding, from_attributes=True),
        )


class TenantDataEntryView(BaseModel):
    """A tenant with a legal hold, an off-boarding or a retention of its own."""

    tenant: str
    name: str
    held_by: list[Literal["vendor", "customer"]]
    retention_days: int | None
    offboarding_asked_at: datetime | None
    offboarding_closed_at: datetime | None

    @classmethod
    def of(cls, one: TenantDataEntry) -> Self:
        return cls(
            tenant=one.slug,
            name=one.name,
            held_by=[side.value for side in one.held_by],
            retention_days=one.retention_days,
            offboarding_asked_at=one.offboarding_asked_at,
            offboarding_closed_at=one.offboarding_closed_at,
        )


class TenantDataPage(BaseModel):
    """A page of tenants by slug."""

    items: list[TenantDataEntryView]
    next_cursor: str | None

    @classmethod
    def of(cls, found: TenantDataListing) -> Self:
        return cls(items=[TenantDataEntryView.of(one) for one in found.items], next_cursor=found.next_cursor)


def _hold(one: HoldSummary) -> HoldView:
    return HoldView(side=one.side.value, since=one.since, reason=one.reason, set_by=one.set_by)
