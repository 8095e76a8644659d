"""Bodies of the exclusions and their acknowledgement."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from api.schemas.parts import PersonView, RequestBody
from lockbox.admin import exclusions
from lockbox.admin.exclusions import Acknowledgement, Exclusions, TenantExclusions
from lockbox.notifications.mail_text import FORMER
from lockbox.text_rules import IS_TEXT, IS_WHOLE


class ExclusionsInput(RequestBody):
    """The whole text of the exclusions, in plain text."""

    text: Annotated[str, Field(max_length=exclusions.LONGEST), IS_TEXT]


class ExclusionsView(BaseModel):
    version: int
    text: str
    author: PersonView
    created_at: datetime

    @classmethod
    def of(cls, held: Exclusions) -> "ExclusionsView":
        author = PersonView(id=held.author_id, name=held.author or FORMER)
        return cls(version=held.version, text=held.body, author=author, created_at=held.created_at)


class ExclusionsList(BaseModel):
    """Versions of the exclusions, the newest first."""

    items: list[ExclusionsView]


class AcknowledgementInput(RequestBody):
    """The version that is acknowledged: the one in force."""

    version: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True), IS_WHOLE]


class AcknowledgementView(BaseModel):
    """Who acknowledged a version for a tenant, and when."""

    version: int
    by: PersonView
    at: datetime


class TenantExclusionsView(BaseModel):
    """The exclusions in force and the newest version that the tenant has acknowledged; null where there is none."""

    current: ExclusionsView | None
    acknowledged: AcknowledgementView | None
    due: bool

    @classmethod
    def of(cls, found: TenantExclusions) -> "TenantExclusionsView":
        current = ExclusionsView.of(found.current) if found.current else None
        return cls(current=current, acknowledged=_acknowledged(found.acknowledged), due=found.is_due)


class TenantStandingView(BaseModel):
    """Which version a tenant has acknowledged; null for none."""

    tenant: str
    name: str
    version: int | None
    at: datetime | None


class TenantStandingPage(BaseModel):
    """A page of tenants."""

    items: list[TenantStandingView]
    next_cursor: str | None


def _acknowledged(one: Acknowledgement | None) -> AcknowledgementView | None:
    if one is None:
        return None
    by = PersonView(id=one.person_id, name=one.name or FORMER)
    return AcknowledgementView(version=one.version, by=by, at=one.at)
